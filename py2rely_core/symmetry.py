"""Point groups as RELION names them."""

from __future__ import annotations

import re
from math import pi, sqrt

import numpy as np
from scipy.spatial.transform import Rotation

from py2rely_core.problems import ExitCode, Problem, ProblemError

_GROUP = re.compile(r"(C[1-9]\d*[VH]?|D[1-9]\d*[VH]?|S[1-9]\d*|T[DH]?|OH?|I[1-5]?H?|CI|CS)")
_GOLDEN = (1 + sqrt(5)) / 2
_I2 = ((2, (0, 0, 1)), (5, (1, 0, _GOLDEN)))
#: Two axes, each with its fold, that make the group.
_GENERATORS = {
    "T": ((3, (0, 0, 1)), (2, (0, sqrt(2), 1))),
    "O": ((3, (1, 1, 1)), (4, (0, 0, 1))),
    "I": _I2,
    "I1": ((2, (1, 0, 0)), (5, (_GOLDEN, 0, -1))),
    "I2": _I2,
    "I3": ((5, (0, 0, 1)), (2, (-1, 0, _GOLDEN))),
    "I4": ((5, (0, 0, 1)), (2, (1, 0, _GOLDEN))),
}


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


def rotations_of(group: str) -> Rotation:
    """Every rotation of a group, identity first, on the axes that RELION gives it.

    Raises
    ------
    ProblemError
        RELION knows no such group, or it has more than rotations.
    """
    name = parse_point_group(group)
    match = re.fullmatch(r"([CD])(\d+)", name)
    axes = [(int(match[2]), (0, 0, 1))] if match else list(_GENERATORS.get(name, []))
    if match and match[1] == "D":
        axes.append((2, (1, 0, 0)))
    if not axes:
        problem = Problem(
            f"The group {name} has more than rotations.", "symmetry", "C<n>, D<n>, T, O, I", "Use one of these."
        )
        raise ProblemError(problem, ExitCode.BAD_PARAMETERS)
    generators = [Rotation.from_rotvec(2 * pi / fold * np.array(axis) / np.linalg.norm(axis)) for fold, axis in axes]
    return Rotation.concatenate(_closure(generators))


def _closure(generators: list[Rotation]) -> list[Rotation]:
    found = [Rotation.identity()]
    for one in found:
        for generator in generators:
            product = generator * one
            if all((product * other.inv()).magnitude() > 1e-3 for other in found):
                found.append(product)
    return found
