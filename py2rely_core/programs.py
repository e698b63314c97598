"""RELION's programs: which there are, and how one is called."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from py2rely_core.problems import ExitCode, Problem, ProblemError, nearest


def programs() -> list[str]:
    """Names of all RELION programs on PATH, in order."""
    found = set()
    for directory in os.environ.get("PATH", "").split(os.pathsep):
        if directory and Path(directory).is_dir():
            found |= {path.name for path in Path(directory).glob("relion_*") if os.access(path, os.X_OK)}
    return sorted(found)


def program_command(name: str) -> list[str]:
    """The start of the command that calls a program.

    Parameters
    ----------
    name : str
        With or without ``relion_``.

    Raises
    ------
    ProblemError
        There is no such program.
    """
    full = name if name.startswith("relion") else f"relion_{name}"
    if shutil.which(full):
        return [full]
    known = programs()
    hint = nearest(full, known) or "Put RELION 5 on PATH ('make setup' provides one)."
    raise ProblemError(
        Problem(f"There is no program {full}.", "PATH", f"one of {len(known)} relion programs", hint),
        ExitCode.MISSING_COMPONENT,
    )
