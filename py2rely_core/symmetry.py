"""Point groups as RELION names them."""

from __future__ import annotations

import re

from py2rely_core.problems import ExitCode, Problem, ProblemError

_GROUP = re.compile(r"(C[1-9]\d*[VH]?|D[1-9]\d*[VH]?|S[1-9]\d*|T[DH]?|OH?|I[1-5]?H?|CI|CS)")
_ROTATIONS = {"T": 12, "O": 24, "I": 60}


def parse_point_group(text: str) -> str:
    """The group's name in upper case.

    Raises
    ------
    ProblemError
        RELION knows no such group.
    """
    name = str(text).strip().upper()
    if not _GROUP.fullmatch(name) or (name.startswith("S") and int(name[1:]) % 2):
        problem = Problem(
            f"'{text}' is not a point group that RELION knows.",
            "symmetry",
            "C<n>, D<n>, T, O, I, I1 to I5 (or their V/H variants)",
            "Use C1 where there is no symmetry.",
        )
        raise ProblemError(problem, ExitCode.BAD_PARAMETERS)
    return name


def order(group: str) -> int:
    """Number of rotations of a group: 1 for C1, 2n for D<n>, 12, 24, 60 for T, O, I."""
    name = parse_point_group(group)
    if name[0] in _ROTATIONS:
        return _ROTATIONS[name[0]]
    count = int(re.sub(r"\D", "", name) or 1)
    return {"C": count, "D": 2 * count, "S": max(1, count // 2)}[name[0]]
