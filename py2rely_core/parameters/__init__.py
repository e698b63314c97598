"""What a run is asked to do: the parameter file, the command line, and the numbers that they may hold.

Entry: :func:`request.load_datasets` brings every parameter, however it was given, into one checked form; `recipe` has
the models of the parameter file, `rules` what its values may not contradict, `files` reads and writes it.
"""
