"""Particles as they stand in a file of any program, before their tomograms are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from py2rely_core.data.geometry import ANGLES
from py2rely_core.importers.coordinates import Coordinates
from py2rely_core.problems import Problem, ProblemError

#: More than this, in degrees, no program writes as an angle.
MOST_ANGLE = 3600.0


@dataclass
class Picked:
    """Particles of one file.

    Attributes
    ----------
    table : DataFrame
        A row per particle: ``rlnTomoName`` as the file has it, and RELION's labels that are kept, angles in RELION's
        convention.
    coordinates : Coordinates
        Of the rows.
    where : str
        The file, for messages.
    shift : (n, 3) float or None
        From the true place to the coordinates, in the tomogram's frame; taken from the positions.
    shift_in_pixels : bool
        Whether `shift` is in the voxels of the coordinates, else Angstrom.
    notes : list of str
        What was read and left out.
    optics : DataFrame
        The file's optics groups; empty where it has none.
    place : callable or None
        Gives file and line of a row, counted from 0.
    """

    table: pd.DataFrame
    coordinates: Coordinates
    where: str
    shift: np.ndarray | None = None
    shift_in_pixels: bool = False
    notes: list[str] = field(default_factory=list)
    optics: pd.DataFrame = field(default_factory=pd.DataFrame)
    place: Callable[[int], str] | None = None

    def row(self, number: int) -> str:
        """Where a row, counted from 0, stands in the file, for messages."""
        return f"{self.place(number) if self.place else self.where}, first in row {number + 1}"


def numbers(
    table: pd.DataFrame, labels: list[str], where: str, place: Callable[[int], str] | None = None
) -> np.ndarray:
    """Columns as finite numbers, (n, len(labels)).

    Parameters
    ----------
    table : DataFrame
    labels : list of str
    where : str
        The file, for messages.
    place : callable or None
        Gives file and line of a row, counted from 0.

    Raises
    ------
    ProblemError
        With the first row that is none.
    """
    values = table[labels].apply(_as_numbers).to_numpy(dtype=float)
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        what = f"{', '.join(labels)} are no numbers in {int(bad.sum())} rows."
        seen = ", ".join(str(value) for value in table[labels].iloc[row])
        at = f"{place(row) if place else where}, first in row {row + 1}: {seen}"
        commas = "," in seen.replace(", ", "")
        fix = "Numbers have a decimal point, not a comma: write the file again." if commas else _CORRECT
        raise ProblemError(Problem(what, at, "finite numbers", fix))
    return values


def _as_numbers(column: pd.Series) -> pd.Series:
    """Numbers, or nan for what is none, such as True."""
    return pd.to_numeric(column.astype(str) if column.dtype == bool else column, errors="coerce")


_CORRECT = "Correct or remove these rows."


def names_of(table: pd.DataFrame, label: str, where: str, place: Callable[[int], str] | None = None) -> pd.Series:
    """A column of names as text.

    Raises
    ------
    ProblemError
        A row has none.
    """
    empty = (table[label].isna() | (table[label].astype(str).str.strip() == "")).to_numpy(dtype=bool)
    if empty.any():
        row = int(empty.argmax())
        at = f"{place(row) if place else where}, first in row {row + 1}"
        what = f"{label} is empty, or nan, in {int(empty.sum())} rows."
        raise ProblemError(Problem(what, at, "a name in every row", _CORRECT))
    return table[label].astype(str).str.strip()


def check_angles(table: pd.DataFrame, where: str, place: Callable[[int], str] | None = None) -> None:
    """All or none of the three angles, and numbers that are angles.

    Raises
    ------
    ProblemError
        Some are missing, or one cannot be an angle.
    """
    there = [label for label in ANGLES if label in table]
    if not there:
        return
    if len(there) < 3:
        fix = "Add the missing columns, or remove the angles."
        raise ProblemError(Problem(f"Only {', '.join(there)} of the three angles are there.", where, "", fix))
    values = numbers(table, ANGLES, where, place)
    large = (np.abs(values) > MOST_ANGLE).any(axis=1)
    if large.any():
        row = int(large.argmax())
        what = f"{int(large.sum())} rows have values that are no angles: {np.abs(values[row]).max():g} degrees."
        at = f"{place(row) if place else where}, first in row {row + 1}"
        raise ProblemError(Problem(what, at, "degrees", _CORRECT))
