"""Point groups as RELION names them."""

from __future__ import annotations

import re
from math import atan, cos, degrees, pi, sin, sqrt
from typing import TYPE_CHECKING

import numpy as np

from py2rely_core.problems import ExitCode, Problem, ProblemError

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

#: Random orientations that RELION tries; with its own 400 it often ends beside the axes.
ALIGNMENT_TRIALS = 4000
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

#: Inward normals of the planes around RELION's asymmetric unit of view directions.
_TETRAHEDRAL_UNIT = ((-1, 0, 0), (sqrt(2) / 3, sqrt(2 / 27), sqrt(16 / 27)), (1, sqrt(3), 0))
_OCTAHEDRAL_UNIT = ((0, -1, 1), (1, 1, 0), (-1, 1, 0))
_I2_UNIT = ((0, 1, 0), (-1, -_GOLDEN, 1 / _GOLDEN), (1, -_GOLDEN, 1 / _GOLDEN))
_I4_UNIT = ((0, 0, -1), (-1, _GOLDEN, _GOLDEN**2), (-1, -_GOLDEN, _GOLDEN**2))
#: Rotation about y, degrees, between the icosahedral settings.
_I_TILT = degrees(atan(1 / _GOLDEN))


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


def has_fixed_frame(group: str) -> bool:
    """Whether the axes of a group hold a map in its place; with one axis or none, it may turn and move along or around.

    A refinement of such particles drifts as a whole: poses and map together, which is no error.
    """
    name = parse_point_group(group)
    return name[0] in "DTOI" and not re.fullmatch("D1[VH]?", name)  # D1 has one axis only


def main_axis(group: str) -> int:
    """The order of the one main axis, z, of a cyclic or dihedral group; 1 where it has none, or several."""
    match = re.fullmatch(r"[CD](\d+)[VH]?", parse_point_group(group))
    return int(match[1]) if match else 1


def has_rotations_only(group: str) -> bool:
    """Whether a group has no mirror planes or inversions, so that :func:`rotations_of` knows it."""
    name = parse_point_group(group)
    return name in _GENERATORS or bool(re.fullmatch(r"[CD]\d+", name))


def group_order(group: str) -> int:
    """How many operations a group has, with mirrors and inversions."""
    name = parse_point_group(group)
    match = re.fullmatch(r"([CDS])(\d+)([VH]?)", name)
    if match:
        return int(match[2]) * (2 if match[1] == "D" else 1) * (2 if match[3] else 1)
    whole = {"T": 12, "O": 24, "I": 60, "C": 1}[name[0]]  # CI and CS have one operation besides the identity
    return whole * (2 if name[-1] in "HDIS" and len(name) > 1 else 1)


def rotations_of(group: str) -> Rotation:
    """Every rotation of a group, identity first, on the axes that RELION gives it.

    Raises
    ------
    ProblemError
        RELION knows no such group, or it has more than rotations.
    """
    from scipy.spatial.transform import Rotation  # names of groups are checked without it, in every run's first step

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
    return Rotation.concatenate(_closure(generators, Rotation.identity()))


def angles_between(first: np.ndarray, second: np.ndarray, operators: np.ndarray) -> np.ndarray:
    """Angles between orientations, modulo a point group, (n,) degrees.

    Parameters
    ----------
    first, second : (n, 3, 3) float
        From the reference to the tomogram.
    operators : (m, 3, 3) float
        The group's rotations.
    """
    # trace(R^T T S) = 1 + 2 cos(angle), largest for the closest of the equivalent orientations.
    traces = np.einsum("nij,nik,mkj->nm", first, second, operators, optimize=True).max(axis=1)
    return np.degrees(np.arccos(np.clip((traces - 1) / 2, -1, 1)))


def _closure(generators: list[Rotation], identity: Rotation) -> list[Rotation]:
    found = [identity]
    for one in found:
        for generator in generators:
            product = generator * one
            if all((product * other.inv()).magnitude() > 1e-3 for other in found):
                found.append(product)
    return found


def asymmetric_unit(group: str) -> np.ndarray:
    """Inward normals of RELION's asymmetric unit: a view direction is within it when no product with one is negative.

    The units are those of RELION's ``HealpixSampling``.

    Returns
    -------
    (n, 3) float
        No row for C1.

    Raises
    ------
    ProblemError
        RELION knows no such group, or it has more than rotations.
    """
    from py2rely_core.data.geometry import euler_to_matrix

    name = parse_point_group(group)
    rotations_of(name)
    match = re.fullmatch(r"([CD])(\d+)", name)
    if match:
        return _wedge(int(match[2]), dihedral=match[1] == "D")
    if name in "TO":
        return np.array(_TETRAHEDRAL_UNIT if name == "T" else _OCTAHEDRAL_UNIT, dtype=float)
    tilt = {"I1": 90.0, "I3": _I_TILT, "I4": -_I_TILT}.get(name, 0.0)
    normals = np.array(_I4_UNIT if name == "I4" else _I2_UNIT)
    return normals @ euler_to_matrix(np.array([[0.0, tilt, 0.0]]))[0].T


def _wedge(fold: int, dihedral: bool) -> np.ndarray:
    """Rot within 180/n degrees of x, or of y and on the upper side for a dihedral group."""
    half = pi / fold
    normals = [(sin(half), cos(half), 0.0), (sin(half), -cos(half), 0.0)] if fold > 1 else []
    if dihedral:
        normals = [(-y, x, 0.0) for x, y, _ in normals] + [(0.0, 0.0, 1.0)]
    return np.array(normals).reshape(-1, 3)


def into_asymmetric_unit(matrices: np.ndarray, group: str) -> np.ndarray:
    """The equivalents of orientations whose view directions RELION samples.

    RELION's local searches know that a direction has equivalents, but look for the in-plane angle around the one that
    is given: orientations from elsewhere in a symmetric particle would be lost.

    Parameters
    ----------
    matrices : (n, 3, 3) float
        From the reference to the tomogram.
    group : str
        Point group.

    Returns
    -------
    (n, 3, 3) float
        Each times one of the group's rotations.
    """
    normals = asymmetric_unit(group)
    if not len(normals):
        return matrices
    operators = rotations_of(group).as_matrix()
    result = matrices.copy()
    best = np.full(len(matrices), -np.inf)
    for operator in operators:
        candidates = matrices @ operator
        # The view direction of A = (Rz(rot) Ry(tilt) Rz(psi))^T is its last row.
        depth = (candidates[:, 2] @ normals.T / np.linalg.norm(normals, axis=1)).min(axis=1)
        better = depth > best + 1e-9
        result[better], best[better] = candidates[better], depth[better]
    return result
