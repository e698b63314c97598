"""What a data set is: RELION's STAR tables, and the conventions of positions, angles and point groups.

Entry: :func:`inputs.load_inputs` reads a data set's tables; :func:`import_job.import_inputs` writes them as every later
step reads them. `geometry` and `symmetry` are the one place where conventions are written down.
"""
