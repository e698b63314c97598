"""Particle files with named columns: RELION's labels, as many programs write them, and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from py2rely_core.data.geometry import ANGLES, AXES, CENTRED, ORIGINS, PIXEL, subtomogram_matrices
from py2rely_core.data.tables import Blocks, row_line
from py2rely_core.data.text import read_text
from py2rely_core.importers.coordinates import ANY, Coordinates, Unit
from py2rely_core.importers.picked import Picked, check_angles, names_of, numbers
from py2rely_core.problems import Problem, ProblemError

#: What describes a particle itself; labels of images and of one refinement's statistics are left out.
KEPT = [
    *ANGLES,
    *(f"rlnTomoSubtomogram{name}" for name in ("Rot", "Tilt", "Psi")),
    "rlnAngleTiltPrior",
    "rlnAnglePsiPrior",
    "rlnHelicalTubeID",
    "rlnHelicalTrackLengthAngst",
    "rlnRandomSubset",
    "rlnClassNumber",
    "rlnTomoParticleName",
    "rlnLCCmax",
    "rlnAutopickFigureOfMerit",
]
#: Of these, the ones that hold names.
TEXT = ("rlnTomoParticleName",)
_COMMENT = re.compile(r"(?:^|(?<=\s))#.*", re.MULTILINE)
_SEPARATOR = re.compile(r"\A\s*\"?sep=.\"?(?=\n)", re.IGNORECASE)
#: Refined shifts, in Angstrom and in pixels.
PIXEL_ORIGINS = [f"rlnOrigin{axis}" for axis in AXES]
#: Names that describe where particles are, and are not kept as they are.
PLACES = ("rlnTomoName", "rlnMicrographName", *CENTRED, *PIXEL, "rlnOpticsGroup")
CSV_COLUMNS = {
    "rlnTomoName": ("rlntomoname", "tomogram", "tomo", "tomo_name", "tomogram_name", "tilt_series", "run", "run_name"),
    "x": ("x", "x_angst", "x_px", "rlncoordinatex", "rlncenteredcoordinatexangst"),
    "y": ("y", "y_angst", "y_px", "rlncoordinatey", "rlncenteredcoordinateyangst"),
    "z": ("z", "z_angst", "z_px", "rlncoordinatez", "rlncenteredcoordinatezangst"),
    "rlnAngleRot": ("rot", "rlnanglerot", "phi"),
    "rlnAngleTilt": ("tilt", "rlnangletilt", "theta"),
    "rlnAnglePsi": ("psi", "rlnanglepsi"),
}
#: Of these, the ones that hold numbers.
_NUMBERS = {name for label, names in CSV_COLUMNS.items() if label != "rlnTomoName" for name in names}


def main_table(blocks: Blocks) -> pd.DataFrame | None:
    """The table of particles: ``data_particles``, or the only one."""
    if "particles" in blocks:
        return blocks["particles"]
    tables = [table for name, table in blocks.items() if name not in ("optics", "general")]
    return tables[0] if len(tables) == 1 else None


def read_relion(blocks: Blocks, source: Path, tomogram: str | None) -> Picked:
    """Particles with RELION's labels: of RELION 4 or 5, Warp, pytom-match-pick and others.

    Parameters
    ----------
    blocks : dict of str to DataFrame
    source : Path
    tomogram : str or None
        Where the file names none.

    Raises
    ------
    ProblemError
        There are no particles, names or coordinates, or a value is no number.
    """
    table, optics = main_table(blocks), blocks.get("optics", pd.DataFrame())
    if table is None or table.empty:
        seen = ", ".join(f"data_{name}" for name in blocks)
        where = f"{source} (it has {seen})"
        raise ProblemError(Problem("There are no particles.", where, "data_particles", "Give a particle STAR file."))
    block = next(name for name, one in blocks.items() if one is table)
    where, place = str(source), _places(source, block)
    label = next((name for name in ("rlnTomoName", "rlnMicrographName") if name in table), None)
    if label is None and tomogram is None:
        fix = "Add the column, the name of the tilt series of each particle; or say it: --tomogram NAME."
        raise ProblemError(Problem("There is no rlnTomoName (nor rlnMicrographName).", where, "names", fix))
    names = names_of(table, label, where, place) if label else pd.Series([tomogram] * len(table))
    coordinates = _relion_coordinates(table, optics, names, where, place)
    check_angles(table, where, place)
    for one in (name for name in KEPT if name in table and name not in (*ANGLES, *TEXT)):
        numbers(table, [one], where, place)
    _refuse_no_counts(table, where, place)
    shift, in_pixels = _origins(table, where, place)
    kept = [one for one in KEPT if one in table]
    left = sorted(
        set(table) - {*kept, *PLACES, *((PIXEL_ORIGINS if in_pixels else ORIGINS) if shift is not None else ())}
    )
    notes = [f"labels left out: {', '.join(left)}"] if left else []
    result = table[kept].reset_index(drop=True)
    result.insert(0, "rlnTomoName", names.to_numpy())
    return Picked(result, coordinates, where, shift, in_pixels, notes, optics, place)


def _relion_coordinates(
    table: pd.DataFrame, optics: pd.DataFrame, names: pd.Series, where: str, place: Callable[[int], str]
) -> Coordinates:
    if set(CENTRED) <= set(table):
        if set(PIXEL) <= set(table):
            _refuse_two_places(table, names, where, place)
        return Coordinates(numbers(table, CENTRED, where, place), (Unit.CENTRED,), source="rlnCenteredCoordinate")
    if not set(PIXEL) <= set(table):
        fix = "Add rlnCenteredCoordinateX/Y/ZAngst (RELION 5) or rlnCoordinateX/Y/Z (RELION 4, Warp)."
        raise ProblemError(Problem("The particles have no coordinates.", where, "coordinates", fix))
    values = numbers(table, PIXEL, where, place)
    warp = names.str.endswith(".tomostar").all() and "rlnAutopickFigureOfMerit" in table
    if warp and ((values >= 0) & (values <= 1)).all():
        source = "Warp's template matching: all are between 0 and 1"
        return Coordinates(values, (Unit.FRACTION,), source=source)
    voxel, source = _voxel_size(table, optics, where, place)
    if voxel is not None:
        return Coordinates(values, (Unit.PIXEL,), voxel, source=source)
    # The label says pixels; of which tomogram, and whether a program kept to the label, nothing says.
    return Coordinates(values, tuple(unit for unit in ANY if unit is not Unit.CENTRED), source="rlnCoordinate")


def _refuse_two_places(table: pd.DataFrame, names: pd.Series, where: str, place: Callable[[int], str]) -> None:
    """Centred coordinates and pixels of one table are of the same places: within a tomogram they differ by a scale."""
    centred, pixels = (
        values - pd.DataFrame(values).groupby(names.to_numpy()).transform("mean").to_numpy()
        for values in (numbers(table, labels, where, place) for labels in (CENTRED, PIXEL))
    )
    scale = (centred * pixels).sum() / max((pixels**2).sum(), 1e-9)
    apart = np.abs(centred - scale * pixels).max(axis=1)
    if (apart > 2 * max(abs(scale), 1.0)).any():
        row = int(apart.argmax())
        what = "rlnCenteredCoordinateX/Y/ZAngst and rlnCoordinateX/Y/Z are of different places."
        seen = f"{place(row)}: {', '.join(str(value) for value in table[[*CENTRED, *PIXEL]].iloc[row])}"
        fix = "Remove the labels that are out of date."
        raise ProblemError(Problem(what, seen, "the same places in Angstrom and in pixels", fix))


def _voxel_size(
    table: pd.DataFrame, optics: pd.DataFrame, where: str, place: Callable[[int], str]
) -> tuple[float | None, str]:
    """The voxel size of pixels as the file says it, by rank, and which label says so."""
    sources = [
        # pytom-match-pick: the tomogram that was searched. With a magnification it is the detector's, in micrometres.
        (table, "rlnDetectorPixelSize", "rlnSearchStd" in table and "rlnMagnification" not in table),
        (table, "rlnImagePixelSize", True),
        (table, "rlnPixelSize", optics.empty),
        # RELION 4's coordinates are of the unbinned tomogram.
        (optics, "rlnTomoTiltSeriesPixelSize", True),
        (optics, "rlnImagePixelSize", True),
    ]
    for source, label, holds in sources:
        if not holds or label not in source or source.empty:
            continue
        values = np.unique(numbers(source, [label], where, place if source is table else None))
        if len(values) > 1 or values[0] <= 0:
            what = (
                f"{label}, which says what the coordinates are pixels of, is {', '.join(f'{v:g}' for v in values[:4])}."
            )
            raise ProblemError(Problem(what, where, "one value > 0", "Import tomograms of one voxel size at a time."))
        return float(values[0]), f"{label} of {'the particles' if source is table else 'data_optics'}"
    return None, ""


def _refuse_no_counts(table: pd.DataFrame, where: str, place: Callable[[int], str]) -> None:
    """Labels that count something hold whole numbers, and half sets are 1 and 2."""
    for label, expected in (("rlnRandomSubset", "1 or 2"), ("rlnClassNumber", "a whole number"),
                            ("rlnHelicalTubeID", "a whole number")):  # fmt: skip
        if label not in table:
            continue
        values = numbers(table, [label], where, place)[:, 0]
        wrong = ~np.isin(values, (1, 2)) if label == "rlnRandomSubset" else values != np.round(values)
        if wrong.any():
            row = int(wrong.argmax())
            fix = "Correct it, or remove the column: then a run makes half sets anew."
            fix = fix if label == "rlnRandomSubset" else "Correct it, or remove the column."
            what = f"{label} is {values[row]:g} in {int(wrong.sum())} rows."
            raise ProblemError(Problem(what, f"{place(row)}, first in row {row + 1}", expected, fix))


def _origins(table: pd.DataFrame, where: str, place: Callable[[int], str]) -> tuple[np.ndarray | None, bool]:
    """Refined shifts in the tomogram's frame, (n, 3), and whether they are in pixels rather than Angstrom."""
    labels = next((labels for labels in (ORIGINS, PIXEL_ORIGINS) if set(labels) & set(table)), None)
    if labels is None:
        return None, False
    gone = [label for label in labels if label not in table]
    if gone:
        what = f"Of the shifts, {', '.join(gone)} is missing."
        raise ProblemError(Problem(what, where, "all three or none", "Add the missing column, or remove the others."))
    subtomogram = [f"rlnTomoSubtomogram{name}" for name in ("Rot", "Tilt", "Psi")]
    if set(subtomogram) <= set(table):
        numbers(table, subtomogram, where, place)
    shift = numbers(table, labels, where, place)
    return np.einsum("nij,nj->ni", subtomogram_matrices(table), shift), labels is PIXEL_ORIGINS


def read_csv(source: Path) -> Picked:
    """Particles of a CSV file with named columns; the names that are understood are in :data:`CSV_COLUMNS`.

    Raises
    ------
    ProblemError
        Columns are missing, or a value is no number.
    """
    # A comment begins a line or a word: `#` within a name is a part of it. Excel may say its separator first.
    text = _COMMENT.sub("", _SEPARATOR.sub("", read_text(source, "a CSV file", None), count=1))
    lines = (line for line in text.split("\n") if line.strip())
    header, first = next(lines, ""), next(lines, "")
    separator = next((one for one in (";", "\t", ",") if one in header), None)
    names = next(csv.reader([header], delimiter=separator or ",", skipinitialspace=True), [])
    twice = [name for name in names if name.strip() and names.count(name) > 1]
    if twice:
        fix = "Remove or rename one of them."
        raise ProblemError(Problem(f"The column {twice[0]} is there twice.", str(source), "once", fix))
    wide = len(next(csv.reader([first], delimiter=separator), [])) if separator else len(names)
    if (
        separator
        and first
        and wide != len(names)
        and not (wide == len(names) + 1 and first.rstrip().endswith(separator))
    ):
        what = f"The first line names {len(names)} columns, the next has {wide} values."
        fix = "Decimal commas, or a column without a name? Write the file again with points and names."
        raise ProblemError(Problem(what, str(source), "as many values as names", fix))
    texts = {name: str for name in names if name.strip().lower() not in _NUMBERS}
    try:
        table = pd.read_csv(
            io.StringIO(text), sep=separator or r"\s+", dtype=texts, skipinitialspace=True, index_col=False,
            low_memory=False, keep_default_na=False, na_values=["", "nan", "NaN"],
        )  # fmt: skip
    except ValueError as error:
        fix = "Give a CSV file whose first line names the columns."
        what = f"The CSV file cannot be read: {str(error).strip()}."
        raise ProblemError(Problem(what, str(source), "a CSV file", fix)) from error

    def place(row: int) -> str:
        rows = (n for n, line in enumerate(text.split("\n"), start=1) if line.strip())
        return f"{source}, line {next(line for n, line in enumerate(rows, start=-1) if n == row)}"

    table, named, labels = _named(table, source)
    if table.empty:
        fix = "Write the file again with its rows."
        raise ProblemError(Problem("There are no particles.", str(source), "rows after the names", fix))
    tomograms = names_of(table, "rlnTomoName", str(source), place)
    values = numbers(table, ["x", "y", "z"], str(source), place)
    angles = [label for label in ANGLES if label in table]
    check_angles(table, str(source), place)
    result = pd.DataFrame({"rlnTomoName": tomograms.str.strip()})
    if angles:
        result[angles] = numbers(table, angles, str(source), place)
    allowed = _csv_units(labels, source)
    coordinates = Coordinates(values, allowed, source=labels["x"])
    return Picked(result, coordinates, str(source), notes=[f"columns {named}"], place=place)


def _csv_units(labels: dict[str, str], source: Path) -> tuple[Unit, ...]:
    """What the names of the columns of x, y and z leave open; they say the same."""
    names = [labels[axis].strip().lower() for axis in "xyz"]
    forms = {re.sub(rf"(^|coordinate){axis}", r"\1?", name) for axis, name in zip("xyz", names, strict=True)}
    if len(forms) > 1:
        what = f"The columns {', '.join(labels[axis] for axis in 'xyz')} say different units."
        raise ProblemError(
            Problem(what, str(source), "x, y and z named alike", "Bring them to one unit, and name them so.")
        )
    name = names[0]
    if name.startswith("rlncentered"):
        return (Unit.CENTRED,)
    if name.endswith("_angst"):
        return (Unit.CENTRED, Unit.ANGSTROM)
    if name == "rlncoordinatex":
        return tuple(unit for unit in ANY if unit is not Unit.CENTRED)
    return (Unit.PIXEL,) if name.endswith("_px") else ANY


def _named(table: pd.DataFrame, source: Path) -> tuple[pd.DataFrame, str, dict[str, str]]:
    lower = {str(column).strip().lower(): column for column in table.columns}
    found = {}
    for label, names in CSV_COLUMNS.items():
        hits = [lower[name] for name in names if name in lower]
        if len(hits) > 1:
            fix = "Remove or rename one of them."
            raise ProblemError(Problem(f"The columns {hits} mean the same.", str(source), "one of them", fix))
        if hits:
            found[hits[0]] = label
    missing = [label for label in ("rlnTomoName", "x", "y", "z") if label not in found.values()]
    if missing:
        wanted = "; ".join(" or ".join(CSV_COLUMNS[label][:3]) for label in missing)
        what = f"Columns are missing: {', '.join(missing)}. The file has {', '.join(map(str, table.columns))}."
        raise ProblemError(Problem(what, str(source), wanted, "Name the columns in the first line."))
    text = ", ".join(f"{name}" for name in found)
    return table[list(found)].rename(columns=found), text, {label: str(name) for name, label in found.items()}


def _places(path: Path, block: str) -> Callable[[int], str]:
    return lambda row: row_line(path, block, row)
