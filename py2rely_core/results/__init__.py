"""What a run leaves: results.json, why it failed, how far it is, and its directory as a RELION project.

Entry: :func:`collect.collect_results` for results.json (`schema` is its published form), :func:`status.read_status` for
a run that goes on.
"""
