"""Data from other programs as STAR files that the pipeline reads: each source is one module with one entry function.

An entry function reads, checks and returns an :class:`~py2rely_core.importers.result.Import`; nothing is written
before everything is known to be right.
"""
