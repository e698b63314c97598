"""Warp and M, and RELION 4: tilt series as projection matrices; refused when their images are dummies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from py2rely_core.data.geometry import SIZES, from_projection_matrices
from py2rely_core.data.inputs import Inputs
from py2rely_core.data.tables import read_star, resolve
from py2rely_core.data.text import read_text
from py2rely_core.importers.dose import Doses
from py2rely_core.importers.optics import Optics
from py2rely_core.importers.result import Import
from py2rely_core.importers.sizes import SAME_PIXEL
from py2rely_core.importers.text import Word
from py2rely_core.importers.tilt_series import REQUIRED, Layout, Series, import_all, numbers_in
from py2rely_core.maps.io import known_pixel_size, read_header
from py2rely_core.problems import Problem, ProblemError

MATRIX_LABELS = ("rlnTomoProjX", "rlnTomoProjY", "rlnTomoProjZ", "rlnTomoProjW")
ANGLE_LABELS, SHIFT_LABELS = REQUIRED[:3], REQUIRED[3:5]
KEPT = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift", "rlnCtfScalefactor",
        "rlnMicrographPreExposure")  # fmt: skip
#: Smaller images are no images: Warp's stand-in has 2 x 2 pixels.
SMALLEST_IMAGE = 64
#: Rows without a number of their own are in the order of angles or of dose, degrees that they may deviate.
OUT_OF_ORDER = 0.5
DUMMY_FIX = (
    "Warp exports particles with their own images, and a stand-in for the tilt series. Extraction and polishing "
    "need the images: import the alignment from AreTomo or IMOD (py2rely import aretomo, imod) with the stacks "
    "that 'WarpTools ts_stack' writes; Warp's particles go in with 'py2rely import particles'."
)


def dummy_problem(stack: Path, where: str, images: int | None = None) -> Problem | None:
    """The problem that a stack is one of Warp's stand-ins for tilt series, None for a real one."""
    reason = None
    if not stack.is_file():
        reason = "it is not there" if stack.name.startswith("dummy") else None
    else:
        shape = read_header(stack).shape
        if min(shape[1:]) < SMALLEST_IMAGE:
            reason = f"it has {shape[2]} x {shape[1]} pixels"
        elif images is not None and shape[0] < images:
            reason = f"it has {shape[0]} sections for {images} tilts"
    if reason is None and stack.name.startswith("dummy_tiltseries"):
        reason = "its name says so"
    if reason is None:
        return None
    what = f"The tilt series are Warp's dummies ({stack.name}: {reason}): there are no images to extract from."
    return Problem(what, where, "the stacks of tilt images", DUMMY_FIX)


def refuse_dummies(inputs: Inputs) -> None:
    """Stop when the images of tilt series are stand-ins.

    Raises
    ------
    ProblemError
        With one problem for the first stand-in.
    """
    for series in inputs.tilt_series.values():
        for stack in series.stacks:
            problem = dummy_problem(stack, str(inputs.tilt_series_file))
            if problem:
                raise ProblemError(problem)


def import_warp(source: Path, layout: Layout, optics: Optics | None = None, project: Path | None = None) -> Import:
    """Tilt series of a ``tomograms.star`` with projection matrices, as RELION 4 and Warp write them.

    Parameters
    ----------
    source : Path
        ``*_tomograms.star``, or Warp's ``*_optimisation_set.star`` that names it.
    layout : Layout
    optics : Optics or None
        Replaces the file's values.
    project : Path or None
        Directory from which the paths in the file hold; None for the file's own.

    Raises
    ------
    ProblemError
        Images are missing or dummies, or the matrices are no rotations.
    """
    _refuse_own_files(source)
    source = _tomograms_file(source)
    root = (project or source.parent).absolute()
    blocks = dict(read_star(source))
    table = blocks.pop("global", pd.DataFrame())
    needed = ("rlnTomoName", "rlnTomoTiltSeriesName", "rlnTomoSizeX", "rlnTomoHand", "rlnTomoTiltSeriesPixelSize")
    missing = [label for label in needed if label not in table]
    if missing:
        fix = "Give the tomograms.star of RELION 4 or Warp; for RELION 5 use 'py2rely import relion'."
        raise ProblemError(Problem(f"Labels are missing: {', '.join(missing)}.", str(source), ", ".join(needed), fix))
    _refuse_angles_only(table, blocks, source, root)
    hands = sorted(set(numbers_in(table["rlnTomoHand"], f"{source}, block data_global", "rlnTomoHand").tolist()))
    if len(hands) != 1:
        fix = "Import them one hand at a time; a data set has one."
        raise ProblemError(Problem(f"Tilt series have different hands: {hands}.", str(source), "one", fix))
    rows = {str(row["rlnTomoName"]): row for row in table.to_dict("records")}
    if len(rows) < len(table):
        fix = "Give every tilt series a name of its own."
        raise ProblemError(Problem("Two tilt series have one name.", str(source), "names of their own", fix))

    def read(name: str) -> Series:
        return _read_series(rows[name], blocks, source, root)

    heading = f"{source}: {len(table)} tilt series"
    return import_all(list(rows), read, optics or _optics(table, source), hands[0], layout, Doses(), heading)


def _refuse_angles_only(table: pd.DataFrame, blocks: dict[str, pd.DataFrame], source: Path, root: Path) -> None:
    """Warp also writes angles and CTF without shifts, beside particles that have their own images.

    Raises
    ------
    ProblemError
        Most tilt series are so: one problem for all of them.
    """
    named = [blocks[name] for name in table["rlnTomoName"].astype(str) if name in blocks]
    only = [one for one in named if set(ANGLE_LABELS) <= set(one) and not {*SHIFT_LABELS} & set(one)]
    if not only or any(set(MATRIX_LABELS) <= set(one) for one in only):
        return
    first = str(table["rlnTomoTiltSeriesName"].iloc[0])
    dummy = dummy_problem(resolve(first, source.absolute(), root), str(source))
    what = f"This is Warp's list of {len(only)} tilt series with angles and CTF, without the shifts of their images."
    if dummy:
        what += f" {dummy.what}"
    raise ProblemError(Problem(what, str(source), "projection matrices, or angles and shifts", DUMMY_FIX))


def _refuse_own_files(source: Path) -> None:
    """Warp's own files beside its exports: lists of movies (``.tomostar``), settings and processing results (XML).

    Raises
    ------
    ProblemError
        It is one of them, with the way to what is needed.
    """
    fix = f"Export particles with 'WarpTools ts_export_particles', and give its *_tomograms.star. {DUMMY_FIX}"
    expected = "*_tomograms.star or *_optimisation_set.star"
    if source.is_file() and read_text(source, "a STAR file", largest=None).lstrip()[:5].lower() == "<?xml":
        what = "This is a settings or processing file of Warp or M (XML)."
        raise ProblemError(Problem(what, str(source), expected, fix))
    labels = {label for table in read_star(source).values() for label in table}
    if any(label.startswith("wrp") for label in labels):
        what = "This is Warp's own list of the movies of one tilt series (.tomostar), or M's table of particles."
        raise ProblemError(Problem(what, str(source), expected, fix))


def _tomograms_file(source: Path) -> Path:
    first = next(iter(read_star(source).values()))
    if "rlnTomoTomogramsFile" in first and len(first):
        named = str(first["rlnTomoTomogramsFile"].iloc[0])
        path = resolve(named, source.absolute(), Path.cwd())
        if not path.is_file():
            what = f"The optimisation set names a file that is not there: {named!r}."
            fix = "Correct rlnTomoTomogramsFile, or give the *_tomograms.star itself."
            raise ProblemError(Problem(what, str(source), "an existing file", fix))
        return path
    return source


def _optics(table: pd.DataFrame, source: Path) -> Optics:
    labels = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
    missing = [label for label in labels if label not in table]
    if missing:
        fix = "Give --voltage, --spherical-aberration and --amplitude-contrast."
        raise ProblemError(Problem(f"Values are missing: {', '.join(missing)}.", str(source), ", ".join(labels), fix))
    different = [label for label in labels if table[label].nunique() > 1]
    if different:
        fix = "Import them one microscope at a time."
        raise ProblemError(Problem(f"Tilt series differ in {', '.join(different)}.", str(source), "one value", fix))
    return Optics(*(float(numbers_in(table[label], f"{source}, block data_global", label)[0]) for label in labels))


def _read_series(row: dict[str, object], blocks: dict[str, pd.DataFrame], source: Path, root: Path) -> Series:
    name = str(row["rlnTomoName"])
    where = f"{source}, block data_{name}"
    tilts = blocks.get(name)
    by_matrix = tilts is not None and set(MATRIX_LABELS) <= set(tilts)
    needed = (*(MATRIX_LABELS if by_matrix or tilts is None else (*ANGLE_LABELS, *SHIFT_LABELS)), *KEPT[:3], KEPT[5])
    if tilts is None or any(label not in tilts for label in needed):
        fix = "Export the file again."
        expected = ", ".join((*MATRIX_LABELS, *KEPT[:3], KEPT[5]))
        raise ProblemError(Problem("The block of a tilt series or its labels are missing.", where, expected, fix))
    file = str(row["rlnTomoTiltSeriesName"]).removesuffix(":mrcs").removesuffix(":mrc")
    stack = resolve(file, source.absolute(), root)
    problem = dummy_problem(stack, str(source), len(tilts))
    if problem:
        raise ProblemError(problem)
    header, values = read_header(stack), _values(row, source, name)
    if header.shape[0] != len(tilts):
        what = f"The stack has {header.shape[0]} sections for {len(tilts)} tilts."
        fix = "Give the stack that these rows describe."
        raise ProblemError(Problem(what, f"{stack} and {where}", "as many", fix))
    size, pixel = tuple(int(values[label]) for label in SIZES), values["rlnTomoTiltSeriesPixelSize"]
    _refuse_other_stack(values, len(tilts), stack, where)
    table = {"section": np.arange(1, len(tilts) + 1)}
    if by_matrix:
        matrices = np.stack([_vectors(tilts[label], where, label) for label in MATRIX_LABELS], axis=1)
        turned = matrices[:, :3, :3]
        if np.abs(turned @ turned.transpose(0, 2, 1) - np.eye(3)).max() > 1e-3:
            fix = "Align the tilt series again without magnification or shear."
            raise ProblemError(Problem("A projection matrix is no rotation.", where, "rotations", fix))
        angles, shift = from_projection_matrices(matrices, np.array(size), np.array(header.shape[:0:-1]))
        shift = shift * pixel
    else:
        angles = np.column_stack([numbers_in(tilts[label], where, label) for label in ANGLE_LABELS])
        shift = np.column_stack([numbers_in(tilts[label], where, label) for label in SHIFT_LABELS])
    table |= dict(zip(ANGLE_LABELS, angles.T, strict=True)) | dict(zip(SHIFT_LABELS, shift.T, strict=True))
    table |= {label: numbers_in(tilts[label], where, label) for label in KEPT if label in tilts}
    _refuse_bad_defocus(table, where)
    _refuse_no_order(angles[:, 1], table["rlnMicrographPreExposure"], where)
    table["rlnTomoNominalStageTiltAngle"] = angles[:, 1]
    table["rlnTomoNominalTiltAxisAngle"] = angles[:, 2]
    far = np.abs(shift) > pixel * max(header.shape[1:])
    if far.any() or (np.abs(angles[:, 1]) > 90).any():
        tilt = int((far.any(axis=1) | (np.abs(angles[:, 1]) > 90)).argmax())
        moved = ", ".join(f"{value:.0f}" for value in shift[tilt])
        what = f"Tilt {tilt + 1} is at {angles[tilt, 1]:.1f} degrees, shifted by {moved} A."
        fix = "Its matrix, or the size of the tomogram, is of another tilt series: export it again."
        raise ProblemError(Problem(what, where, "within its images", fix))
    kind = "projection matrices" if by_matrix else "angles and shifts"
    notes = [f"{name}: {len(tilts)} tilts as {kind}; dose before each image from rlnMicrographPreExposure"]
    return Series(name, stack, pd.DataFrame(table), size, pixel, notes)


def _values(row: dict[str, object], source: Path, name: str) -> dict[str, float]:
    """What the table of tilt series says of one, as numbers."""
    values = {}
    limits = {label: (1, 1e5) for label in SIZES} | {"rlnTomoTiltSeriesPixelSize": (0.01, 1000)}
    limits["rlnTomoFrameCount"] = (1, 1e4)
    for label, (low, high) in limits.items():
        if label not in row and label != "rlnTomoFrameCount":
            fix = "Export the file again."
            raise ProblemError(Problem(f"Labels are missing: {label}.", str(source), label, fix))
        if label in row:
            try:
                values[label] = Word(str(row[label]), source, 0).number(f"{label} of {name}", low, high)
            except ProblemError as error:
                problem = error.problems[0]
                where = f"{source}, block data_global"
                raise ProblemError(Problem(problem.what, where, problem.expected, "Correct this row.")) from error
    return values


def _refuse_other_stack(values: dict[str, float], count: int, stack: Path, where: str) -> None:
    """Number of images, pixel size and size of the images are those that the table says."""
    frames = values.get("rlnTomoFrameCount", count)
    if frames != count:
        what = f"rlnTomoFrameCount is {frames:g}, and there are {count} rows."
        raise ProblemError(Problem(what, where, "a row for each image", "Export the file again."))
    header, pixel = read_header(stack), values["rlnTomoTiltSeriesPixelSize"]
    found = known_pixel_size(header.pixel_size)
    if found and abs(found - pixel) > SAME_PIXEL * pixel:
        what = f"The header says {found:g} A per pixel, and rlnTomoTiltSeriesPixelSize is {pixel:g}."
        fix = "Give the unbinned stack that these rows describe, or correct its header."
        raise ProblemError(Problem(what, f"{stack} and {where}", "one pixel size", fix))


def _refuse_bad_defocus(table: dict[str, np.ndarray], where: str) -> None:
    for label in KEPT[:2]:
        bad = table[label] <= 0
        if bad.any():
            what = f"{label} of tilt {int(bad.argmax()) + 1} is {table[label][bad][0]:g}."
            raise ProblemError(Problem(what, where, "a defocus > 0 A", "Estimate the CTF again, and export again."))
    dose = table["rlnMicrographPreExposure"]
    if (dose < 0).any():
        what = f"rlnMicrographPreExposure of tilt {int((dose < 0).argmax()) + 1} is {dose.min():g}."
        raise ProblemError(Problem(what, where, "0 e/A^2 or more", "Export the file again."))


def _refuse_no_order(angles: np.ndarray, dose: np.ndarray, where: str) -> None:
    """Rows stand for the sections of the stack by their place: it must be one that a stack has."""
    steps, before = np.diff(angles), np.diff(dose)
    if (steps > -OUT_OF_ORDER).all() or (steps < OUT_OF_ORDER).all() or (before >= 0).all() or (before <= 0).all():
        return
    what = "The rows are neither in the order of the tilt angles nor in that of the dose."
    fix = "Rows stand for the sections of the stack by their place: bring them into its order, or export again."
    raise ProblemError(Problem(what, where, "the order of the stack", fix))


def _vectors(column: pd.Series, where: str, label: str) -> np.ndarray:
    """The vectors of a column such as ``[1,0,0,5]``, (n, 4)."""
    rows = []
    for number, value in enumerate(column, start=1):
        words = str(value).strip().removeprefix("[").removesuffix("]").split(",")
        try:
            rows.append([Word(word.strip(), Path(where), number).number(label) for word in words])
        except ProblemError:
            rows.append([])
        if len(rows[-1]) != 4:
            fix = "Export it again."
            raise ProblemError(Problem(f"{value} is no row of a matrix.", f"{where}, row {number}", "[a,b,c,d]", fix))
    return np.array(rows)
