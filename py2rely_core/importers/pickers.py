"""Particle files of other programs: Dynamo, crYOLO, TomoTwin, M, pytom-match-pick, and tables of particle files.

Each reader gives :class:`~py2rely_core.importers.picked.Picked`: names as the file has them, coordinates with what the
format says of their unit, and orientations in RELION's convention.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from py2rely_core.data.geometry import ANGLES, AXES, matrix_to_euler
from py2rely_core.data.kinds import DYNAMO_COLUMNS
from py2rely_core.data.names import stems
from py2rely_core.data.tables import Blocks, resolve, row_line
from py2rely_core.data.text import read_text
from py2rely_core.importers.coordinates import Coordinates, Unit
from py2rely_core.importers.picked import Picked, check_angles, names_of, numbers
from py2rely_core.importers.text import LARGEST_NUMBER, read_lines, read_numbers
from py2rely_core.problems import Problem, ProblemError

#: Columns of a Dynamo table, counted from 1 as in its documentation.
DYNAMO = {"dx": 4, "dy": 5, "dz": 6, "tdrot": 7, "tilt": 8, "narot": 9, "tomo": 20, "x": 24, "y": 25, "z": 26}
#: Angstrom per pixel, where the table has this column and the value is positive.
DYNAMO_PIXEL_SIZE = 36
#: Names of lists of tomograms that Dynamo and its companions write beside a table.
DYNAMO_NAMES = ("tomograms.doc", "indices_column20.doc")


def dynamo_matrices(angles: np.ndarray) -> np.ndarray:
    """Matrices that take reference vectors to the tomogram, (n, 3, 3), of Dynamo's tdrot, tilt, narot.

    Dynamo turns clockwise about z, the new x and the new z: a particle's own axis lies along tdrot and tilt, and narot
    turns about it.

    Parameters
    ----------
    angles : (n, 3) float
        Degrees.
    """
    return Rotation.from_euler("ZXZ", -np.asarray(angles, dtype=float), degrees=True).as_matrix()


def read_dynamo(path: Path, names: Path | None = None) -> Picked:
    """Particles of a Dynamo table: positions with their shifts, in pixels from 1 of the tomograms that were picked in.

    Parameters
    ----------
    path : Path
        ``.tbl``.
    names : Path or None
        ``.doc`` that names the tomograms of column 20; None: the one beside the table.

    Raises
    ------
    ProblemError
        A value is no number, or tomograms have no name.
    """
    table, place = _number_table(path)
    wanted = table[[column - 1 for column in DYNAMO.values()]].set_axis(list(DYNAMO), axis=1)
    values = pd.DataFrame(numbers(wanted, list(DYNAMO), str(path), place), columns=list(DYNAMO))
    tomograms = values["tomo"].to_numpy()
    tomograms = _whole(tomograms, "The number of a tomogram (column 20)", place)
    found = _dynamo_names(path, names)
    read = _names_of_tomograms(found, path)
    missing = sorted(set(tomograms.tolist()) - set(read))
    if missing:
        what = f"Tomograms of the table have no name: {', '.join(map(str, missing[:5]))}."
        fix = "Add them to the .doc, or give the one that belongs to this table with --doc."
        raise ProblemError(Problem(what, f"column 20 of {path}, and {found}", "a line for each", fix))
    result = pd.DataFrame({"rlnTomoName": pd.Series(tomograms).map(read)})
    angles = values[["tdrot", "tilt", "narot"]].set_axis(ANGLES, axis=1)
    check_angles(angles, str(path), place)
    result[ANGLES] = matrix_to_euler(dynamo_matrices(angles.to_numpy()))
    positions = values[["x", "y", "z"]].to_numpy() + values[["dx", "dy", "dz"]].to_numpy()
    voxel = _dynamo_pixel_size(table, path)
    source = f"column {DYNAMO_PIXEL_SIZE} of the table" if voxel else "Dynamo's table"
    notes = [f"tomograms are named by {found}", "Dynamo's shifts are in the coordinates, its angles became RELION's"]
    if not angles.to_numpy().any():
        notes.append("all orientations are the identity: they are probably not known")
    coordinates = Coordinates(positions, (Unit.PIXEL,), voxel, 1.0, source)
    return Picked(result, coordinates, str(path), notes=notes, place=place)


def _number_table(path: Path) -> tuple[pd.DataFrame, Callable[[int], str]]:
    """A large text of numbers, columns counted from 0, and what gives file and line of its rows."""
    text = read_text(path, "a table of Dynamo", None)

    def lines() -> list[tuple[int, str]]:
        every = enumerate(text.split("\n"), start=1)
        return [(number, line) for number, line in every if line.split("#")[0].strip()]

    def place(row: int) -> str:
        return f"{path}, line {lines()[row][0]}"

    try:
        table = pd.read_csv(io.StringIO(text), sep=r"\s+", header=None, comment="#", low_memory=False)
        uneven = table.iloc[:, -1].isna().any()
    except ValueError:
        table, uneven = pd.DataFrame(), True
    if uneven:
        counts = [len(line.split("#")[0].split()) for _, line in lines()]
        usual = max(set(counts), key=counts.count) if counts else 0
        row = next((n for n, count in enumerate(counts) if count != usual), None)
        if row is not None or table.empty:
            what = f"A row has {counts[row]} values, others have {usual}." if row is not None else "It has no rows."
            fix = "The file was cut, or edited: correct this line, or write it again with Dynamo."
            raise ProblemError(Problem(what, place(row) if row is not None else str(path), "rows of one length", fix))
    if len(table.columns) < DYNAMO_COLUMNS[0]:
        what = f"The table has {len(table.columns)} columns."
        fix = "Write it again with Dynamo."
        raise ProblemError(Problem(what, str(path), f"at least {DYNAMO_COLUMNS[0]}, as Dynamo writes", fix))
    return table, place


def _dynamo_pixel_size(table: pd.DataFrame, path: Path) -> float | None:
    if len(table.columns) < DYNAMO_PIXEL_SIZE:
        return None
    values = pd.to_numeric(table[DYNAMO_PIXEL_SIZE - 1], errors="coerce").unique()
    if len(values) > 1:
        what = f"The pixel size in column {DYNAMO_PIXEL_SIZE} differs: {', '.join(f'{v:g}' for v in values[:4])}."
        raise ProblemError(Problem(what, str(path), "one value", "Import tables of one pixel size at a time."))
    # 1 is what programs write that do not know it.
    return float(values[0]) if np.isfinite(values[0]) and values[0] > 0 and values[0] != 1 else None


def _dynamo_names(path: Path, given: Path | None) -> Path:
    if given is not None:
        return given
    beside = [path.with_suffix(".doc"), *(path.parent / name for name in DYNAMO_NAMES)]
    there = [one for one in beside if one.is_file()] or sorted(path.parent.glob("*.doc"))
    if len(there) == 1 or (there and there[0] == beside[0]):
        return there[0]
    what = "The names of the tomograms are not known: a Dynamo table numbers them (column 20)."
    if there:
        what = f"Several files may name the tomograms: {', '.join(one.name for one in there[:3])}."
    fix = "Give the .doc of the catalogue with --doc: a line 'number file' for each tomogram."
    raise ProblemError(Problem(what, str(path), f"{beside[0].name} or {DYNAMO_NAMES[0]} beside it", fix))


def _names_of_tomograms(path: Path, table: Path) -> dict[int, str]:
    found: dict[int, str] = {}
    for line in read_lines(path, "a list of tomograms of Dynamo", comment="#"):
        if len(line.words) < 2:
            raise line.error("A line does not name a tomogram.", "number and file")
        number = line.words[0].integer("the number of a tomogram", 0)
        name = line.text[len(line.words[0].text) :].strip()
        if found.get(number, name) != name:
            raise line.error(f"Tomogram {number} has two names: {found[number]} and {name}.", "one name")
        found[number] = name
    if not found:
        fix = "Give the .doc that belongs to the table with --doc."
        raise ProblemError(Problem("The list of tomograms is empty.", f"{path}, for {table}", "number and file", fix))
    return found


def read_cbox(blocks: Blocks, path: Path, name: str | None = None) -> Picked:
    """Particles of a .cbox file of crYOLO: centres of its boxes. x and y are of a corner of the box, z of its centre.

    Parameters
    ----------
    blocks : dict of str to DataFrame
    path : Path
        Named after the tomogram.
    name : str or None
        Of the tomogram; None: of the file.
    """
    table = blocks.get("cryolo", pd.DataFrame())
    where, place = str(path), _places(path, "cryolo")
    needed = [*(f"Coordinate{axis}" for axis in AXES), "Width", "Height"]
    missing = [label for label in needed if label not in table]
    if missing or table.empty:
        what = f"Labels are missing: {', '.join(f'_{label}' for label in missing)}." if missing else "It has no boxes."
        fix = "Give a .cbox of a tomogram, from crYOLO's directory CBOX_3D, or TomoTwin's."
        raise ProblemError(Problem(what, where, "data_cryolo with boxes", fix))
    if pd.to_numeric(table["CoordinateZ"], errors="coerce").isna().all():
        fix = "Pick tomograms with crYOLO's --tomogram, and give a .cbox of its directory CBOX_3D."
        raise ProblemError(Problem("The boxes have no z: they are of single images.", where, "a z for each", fix))
    values = numbers(table, needed, where, place)
    values[:, :2] += values[:, 3:] / 2
    result = pd.DataFrame({"rlnTomoName": [name or path.name] * len(table)})
    if "filamentid" in table and pd.to_numeric(table["filamentid"], errors="coerce").notna().any():
        result["rlnHelicalTubeID"] = _whole(numbers(table, ["filamentid"], where, place)[:, 0], "filamentid", place)
    return Picked(result, Coordinates(values[:, :3], (Unit.PIXEL,), source="crYOLO's boxes"), where, place=place)


def read_coordinates(path: Path, name: str | None = None) -> Picked:
    """Particles of a text of x, y, z, one a line; such files do not say their unit.

    Parameters are those of :func:`read_cbox`.
    """
    table = read_numbers(path, "a list of coordinates (x y z)", ["x", "y", "z"], separators=r"[,;\s]+", largest=None)
    result = pd.DataFrame({"rlnTomoName": [name or path.name] * len(table)})
    lines = table.index.to_numpy()
    coordinates = Coordinates(table.to_numpy(), source="x y z")
    return Picked(result, coordinates, str(path), place=lambda row: f"{path}, line {lines[row]}")


def read_m(blocks: Blocks, path: Path) -> Picked:
    """Particles of M's table: the first pose of each, Angstrom from the corner of the tomogram.

    Raises
    ------
    ProblemError
        Columns are missing or hold no numbers.
    """
    block = next((name for name, table in blocks.items() if any("wrpCoordinate" in one for one in table)), "")
    table, where, place = blocks.get(block, pd.DataFrame()), str(path), _places(path, block)
    if table.empty:
        fix = "Give the *_particles.star of a species of M."
        raise ProblemError(Problem("There are no particles.", where, "at least one row", fix))
    ending = "1" if "wrpCoordinateX1" in table else ""
    positions = [f"wrpCoordinate{axis}{ending}" for axis in AXES]
    angles = [f"wrpAngle{name}{ending}" for name in ("Rot", "Tilt", "Psi")]
    missing = [label for label in (*positions, *angles, "wrpSourceName") if label not in table]
    if missing:
        what = f"Labels of M's table are missing: {', '.join(missing)}."
        fix = "Give the *_particles.star of a species of M."
        raise ProblemError(Problem(what, where, "positions, angles and wrpSourceName", fix))
    result = pd.DataFrame({"rlnTomoName": names_of(table, "wrpSourceName", where, place)})
    result[ANGLES] = numbers(table, angles, where, place)
    check_angles(result, where, place)
    notes = []
    if "wrpRandomSubset" in table:
        subset = numbers(table, ["wrpRandomSubset"], where, place)[:, 0]
        # M counts its halves from 0 or from 1.
        halves = np.unique(subset)
        if len(halves) == 2:
            result["rlnRandomSubset"] = (subset - subset.min() + 1).astype(int)
        else:
            seen = ", ".join(f"{value:g}" for value in halves[:4]) + (", ..." if len(halves) > 4 else "")
            notes.append(f"wrpRandomSubset is {seen}: these are not two half sets, and the column is not used")
    poses = sum(label.startswith("wrpCoordinateX") for label in table)
    if poses > 1:
        notes.append(f"M has {poses} poses over the exposure of each particle: the first is taken")
    values = numbers(table, positions, where, place)
    coordinates = Coordinates(values, (Unit.ANGSTROM,), source=positions[0])
    return Picked(result, coordinates, where, notes=notes, place=place)


def read_files(blocks: Blocks, path: Path, read: Callable[[Path, str], list[Picked]]) -> list[Picked]:
    """Particles of every file of a table of particle files.

    Parameters
    ----------
    blocks : dict of str to DataFrame
    path : Path
    read : callable
        Reads the particles of a file; the second argument is the tomogram where the file does not name it.

    Raises
    ------
    ProblemError
        Files are missing, or hold no particles of their tomogram.
    """
    label = "rlnTomoImportParticleFile"
    block, table = next((name, one) for name, one in blocks.items() if label in one)
    if "rlnTomoName" not in table:
        fix = "Add the column: the tomogram of each file."
        raise ProblemError(Problem("There is no rlnTomoName.", str(path), "a name for each file", fix))
    if table.empty:
        fix = "Write it again with the program that made it."
        raise ProblemError(Problem("The table names no particle files.", str(path), "a file in every row", fix))
    names, files = (names_of(table, one, str(path), _places(path, block)) for one in ("rlnTomoName", label))
    files = [resolve(file, path.absolute(), Path.cwd()) for file in files]
    gone = [str(file) for file in files if not file.is_file()]
    if gone:
        fix = "Start in the directory from which its paths hold."
        raise ProblemError(Problem(f"{len(gone)} particle files are missing.", f"{path}: {gone[0]}", "files", fix))
    found, problems = [], []
    for name, file in zip(names, files, strict=True):
        try:
            found += [_of_tomogram(one, name, path) for one in read(file, name)]
        except ProblemError as error:
            problems += error.problems
    if problems:
        raise ProblemError(problems)
    return found


def _of_tomogram(picked: Picked, name: str, path: Path) -> Picked:
    """The particles of one tomogram of a file, which may hold those of several."""
    same = picked.table["rlnTomoName"].map({other: bool(set(stems(other)) & set(stems(name))) for other in
                                           picked.table["rlnTomoName"].unique()}).to_numpy(dtype=bool)  # fmt: skip
    if not same.any():
        seen = ", ".join(picked.table["rlnTomoName"].unique()[:3])
        what = f"The table says that the particles are of {name}, their file says {seen}."
        fix = "Correct the name in one of the two."
        raise ProblemError(Problem(what, f"{path} and {picked.where}", "the same tomogram", fix))
    table = picked.table[same].reset_index(drop=True).assign(rlnTomoName=name)
    old = picked.coordinates
    values = Coordinates(old.values[same], old.allowed, old.voxel_size, old.first, old.source)
    shift = None if picked.shift is None else picked.shift[same]
    rows, place = np.flatnonzero(same), picked.place
    at = (lambda row: place(rows[row])) if place else None
    return Picked(table, values, picked.where, shift, picked.shift_in_pixels, picked.notes, picked.optics, at)


def _whole(values: np.ndarray, what: str, place: Callable[[int], str]) -> np.ndarray:
    """Numbers that count something, as int."""
    wrong = (values != np.round(values)) | (np.abs(values) > LARGEST_NUMBER)
    if wrong.any():
        row = int(wrong.argmax())
        raise ProblemError(
            Problem(f"{what} is {values[row]:g}.", place(row), "a whole number", "Correct or remove this row.")
        )
    return values.astype(int)


def _places(path: Path, block: str) -> Callable[[int], str]:
    return lambda row: row_line(path, block, row)
