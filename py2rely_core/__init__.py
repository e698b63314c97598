"""The Python core of the sub-tomogram averaging pipeline: every decision, every check, no heavy computing."""

__version__ = "0.1.0"
