"""RELION's programs: how one is run as a job, and what it must have left behind.

Entry: :func:`run.run_job` runs a program; `outputs` checks what it left and writes the job's ``job.json``.
"""
