"""Particles as positions and orientations, whatever a refinement left in the file; and duplicates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from py2rely_core.data import kinds
from py2rely_core.data.geometry import ANGLES, AXES, CENTRED, matrix_to_euler, orientations, true_positions
from py2rely_core.data.inputs import from_optimisation_set
from py2rely_core.data.particles import SCORES, without_duplicates
from py2rely_core.data.tables import read_star
from py2rely_core.importers.particles import duplicates, numbers
from py2rely_core.problems import Problem, ProblemError

DUPLICATES = ("error", "best", "keep")


@dataclass(frozen=True)
class Poses:
    """Particles of any number of tomograms.

    Attributes
    ----------
    table : DataFrame
        The rows of the file.
    optics : DataFrame
        Their optics groups; empty where the file has none.
    positions : (n, 3) float
        Angstrom from the tomogram's centre, refined shifts applied.
    rotations : (n, 3, 3) float
        From the reference to the tomogram.
    oriented : bool
        Whether the file has angles.
    notes : list of str
        What was read and left out.
    """

    table: pd.DataFrame
    optics: pd.DataFrame
    positions: np.ndarray
    rotations: np.ndarray
    oriented: bool
    notes: list[str]

    @property
    def names(self) -> pd.Series:
        """Tomogram of each particle."""
        return self.table["rlnTomoName"].astype(str)

    @property
    def angles(self) -> np.ndarray:
        """Rot, tilt, psi in degrees, (n, 3), that alone give the orientation."""
        return matrix_to_euler(self.rotations)

    @property
    def scores(self) -> np.ndarray:
        """RELION's probability of the best pose, (n,); 1 where the file has none."""
        label = "rlnMaxValueProbDistribution"
        return self.table[label].to_numpy(dtype=float) if label in self.table else np.ones(len(self.table))


def read_poses(source: Path, what_of_duplicates: str = "error", distance: float = 1.0) -> Poses:
    """Read refined or extracted particles.

    Parameters
    ----------
    source : Path
        A particle STAR file of RELION 5.
    what_of_duplicates : {"error", "best", "keep"}
        What to do about particles of one tomogram that are closer than `distance`.
    distance : float
        Angstrom.

    Raises
    ------
    ProblemError
        There are no particles or labels, or there are duplicates that nobody said what to do about.
    """
    source = from_optimisation_set(source, "particles", Path.cwd())
    blocks = read_star(source)
    kind = kinds.of_blocks(blocks)
    if kind is not None and kind.key != "particles" and "particles" not in blocks:
        raise ProblemError(kinds.problem_of(kind, source, "a particle file of RELION 5"))
    table = blocks.get("particles", pd.DataFrame())
    missing = [label for label in ("rlnTomoName", *CENTRED) if label not in table]
    if missing or table.empty:
        fix = "Give a particle file of RELION 5, such as Refine3D/bin1/run_data.star."
        what = f"Labels are missing: {', '.join(missing)}." if missing else "There are no particles."
        raise ProblemError(Problem(what, str(source), "data_particles with centred coordinates", fix))
    some = [label for label in ANGLES if label in table]
    if some and len(some) < 3:
        fix = "Give the file as RELION wrote it."
        raise ProblemError(Problem(f"Only {', '.join(some)} of three angles are there.", str(source), "", fix))
    origins = [f"rlnOrigin{axis}Angst" for axis in AXES]
    numbers(table, [*CENTRED, *some, *(label for label in origins if label in table)], str(source))
    notes = [f"{source}: {len(table)} particles in {table['rlnTomoName'].nunique()} tomograms"]
    table = _without_duplicates(table, what_of_duplicates, distance, str(source), notes)
    positions = true_positions(table)
    moved = np.linalg.norm(positions - table[CENTRED].to_numpy(dtype=float), axis=1)
    notes.append(f"refined shifts applied: up to {moved.max():.2f} A" if moved.any() else "no refined shifts to apply")
    subtomogram = [f"rlnTomoSubtomogram{name}" for name in ("Rot", "Tilt", "Psi")]
    if set(subtomogram) <= set(table) and table[subtomogram].to_numpy(dtype=float).any():
        notes.append("subtomogram angles applied")
    oriented = len(some) == 3
    if not oriented:
        notes.append("the particles have no orientations")
    return Poses(table, blocks.get("optics", pd.DataFrame()), positions, orientations(table), oriented, notes)


def _without_duplicates(table: pd.DataFrame, what: str, distance: float, where: str, notes: list[str]) -> pd.DataFrame:
    if what not in DUPLICATES:
        problem = Problem(f"'{what}' is no choice.", "--duplicates", ", ".join(DUPLICATES), "Correct --duplicates.")
        raise ProblemError(problem)
    moved = table.copy()
    moved[CENTRED] = true_positions(table)
    twice = duplicates(moved, distance)
    if not twice.any() or what == "keep":
        notes += [f"{int(twice.sum())} particles are closer than {distance:g} A to another one"] if twice.any() else []
        return table.reset_index(drop=True)
    if what == "error":
        row = int(twice.argmax())
        fix = "Give --duplicates best (keeps the better scored) or keep; --distance sets how close is too close."
        seen = f"{where}, first in row {row + 1} ({table['rlnTomoName'].iloc[row]})"
        text = f"{int(twice.sum())} particles are closer than {distance:g} A to another one of their tomogram."
        raise ProblemError(Problem(text, seen, "each particle once", fix))
    kept = without_duplicates(table, distance).reset_index(drop=True)
    score = next((label for label in SCORES if label in table), "the order in the file")
    notes.append(f"left out {len(table) - len(kept)} duplicates closer than {distance:g} A (kept the best by {score})")
    return kept
