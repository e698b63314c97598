"""Which directories a container must see besides the task's own inputs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def stack_binds(stacks: Iterable[Path]) -> str:
    """Apptainer's options that make the raw stacks visible, which the Import job only links to.

    Parameters
    ----------
    stacks : iterable of Path
        Absolute paths; links are followed.

    Returns
    -------
    str
        Such as ``-B '/data/session'``: of each stack's directory the first two levels, so that hundreds of tilt
        series in directories of their own need one bind. What lies within another one of these is left out, and so is
        ``/``, which no container can be given.
    """
    directories = {Path(*stack.resolve().parent.parts[:3]) for stack in stacks} - {Path("/")}
    inner = {one for one in directories if any(other in one.parents for other in directories)}
    return " ".join(f"-B {_word(str(directory))}" for directory in sorted(directories - inner))


def _word(text: str) -> str:
    """One word of a shell command, always in quotes; as ``word`` of subworkflows/values.nf."""
    return "'" + text.replace("'", "'\\''") + "'"
