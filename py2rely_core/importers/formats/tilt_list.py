"""Lists of tilts: angle, order of acquisition and dose by section; and AreTomo's list of image numbers and angles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from py2rely_core.importers.text import place, read_numbers
from py2rely_core.problems import Problem, ProblemError

#: A tilt angle is never beyond this, degrees.
STEEPEST = 90.0


@dataclass(frozen=True)
class TiltList:
    """A list with a row per section of the stack.

    Attributes
    ----------
    path : Path
    angle : (n,) float
        Degrees.
    order, dose : (n,) float or None
        Second and third column; None when the list lacks them, or holds nothing but zeros there.
    lines : (n,) int
        Where the rows stand.
    notes : tuple of str
        Which columns hold nothing.
    """

    path: Path
    angle: np.ndarray
    order: np.ndarray | None
    dose: np.ndarray | None
    lines: np.ndarray
    notes: tuple[str, ...] = ()


def read_tilt_list(path: Path, count: int) -> TiltList:
    """The tilt list of a stack of `count` sections.

    Raises
    ------
    ProblemError
        Its rows are not the stack's sections, or its values are not possible.
    """
    table = read_numbers(path, "a tilt list", ("angle", "order", "dose"), least=1)
    if len(table) != count:
        fix = "Use the tilt list that was written with this stack."
        what = f"The tilt list has {len(table)} lines."
        raise ProblemError(Problem(what, str(path), f"{count}, one per section of the stack", fix))
    steep = table["angle"].abs() > STEEPEST
    if steep.any():
        line = int(steep.idxmax())
        what = f"A tilt angle of {table['angle'][steep].iloc[0]:g} degrees is not possible."
        raise ProblemError(Problem(what, place(path, line), "-90 to 90 degrees", "Correct the tilt list."))
    order, dose = (table.get(name) for name in ("order", "dose"))
    # AreTomo3 writes 0 for all when it was not told.
    notes = []
    if order is not None and (order == 0).all() and count > 1:
        order, notes = None, [f"The order of acquisition in {path.name} (column 2) is not used: all are 0."]
    if dose is not None and (dose == 0).all():
        dose = None
        notes.append(f"The dose in {path.name} (column 3) is not used: all are 0.")
    if order is not None and order.duplicated().any():
        line = int(order.index[order.duplicated()][0])
        what = "Two images have the same place in the order."
        raise ProblemError(Problem(what, place(path, line), "an order", "Correct its second column."))
    if dose is not None and (dose < 0).any():
        line = int(dose.index[dose < 0][0])
        raise ProblemError(
            Problem("A dose is not possible.", place(path, line), "doses >= 0", "Correct its third column.")
        )
    values = [None if column is None else column.to_numpy() for column in (order, dose)]
    return TiltList(path, table["angle"].to_numpy(), *values, table.index.to_numpy(), tuple(notes))


def read_order_list(path: Path) -> pd.DataFrame:
    """AreTomo's list of the images in the order of acquisition: ``number`` and ``angle``.

    Raises
    ------
    ProblemError
        It is no such list, or an image is there twice.
    """
    table = read_numbers(
        path,
        "AreTomo's order list: ImageNumber, TiltAngle",
        ("number", "angle"),
        separators=r"[,\s]+",
        header=lambda line: line.text[0].isalpha() and "angle" in line.text.lower(),
    )
    for line, number in table["number"].items():
        if number < 0:
            what = f"{number:g} is no number of an image."
            raise ProblemError(Problem(what, place(path, int(line)), "0 or more", "Correct this line."))
    twice = table["number"].duplicated()
    if twice.any():
        line = int(twice.idxmax())
        what = f"Image {table['number'][line]:.0f} is there twice."
        raise ProblemError(Problem(what, place(path, line), "each image once", "Use the list that AreTomo wrote."))
    return table
