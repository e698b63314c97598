"""What a RELION job must have left behind, checked; and its numbers for the workflow and the report: ``job.json``.

One module per kind of job; each ``check_...`` raises a ``ProblemError`` or ends with :func:`job.write_numbers`.
"""
