"""Data with known truth, and how a run is judged by it.

Entry: :func:`simulate.write_dataset` makes a data set, :func:`truth.compare_run` compares a run with it.
"""
