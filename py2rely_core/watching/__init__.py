"""Runs and RELION projects to look at in a browser of this machine: what they leave on disk, read and never written.

Entry: :func:`server.serve`. `sources` says what jobs there are, `places` which of their files may be read, `jobs`,
`iterations`, `masks` and `classes` what is shown of one, `feed` what changed since somebody looked last, `pages` makes
the text.
"""
