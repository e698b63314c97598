"""Warp and M, and RELION 4: tilt series as projection matrices; refused when their images are dummies."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pandas as pd

from py2rely_core.data.geometry import from_projection_matrices
from py2rely_core.data.inputs import Inputs
from py2rely_core.data.tables import read_star, resolve
from py2rely_core.importers.optics import Optics
from py2rely_core.importers.result import Import
from py2rely_core.importers.tilt_series import Layout, Series, assemble
from py2rely_core.maps.io import read_header
from py2rely_core.problems import Problem, ProblemError

MATRIX_LABELS = ("rlnTomoProjX", "rlnTomoProjY", "rlnTomoProjZ", "rlnTomoProjW")
KEPT = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift", "rlnCtfScalefactor",
        "rlnMicrographPreExposure")  # fmt: skip
#: Smaller images are no images: Warp's stand-in has 2 x 2 pixels.
SMALLEST_IMAGE = 64


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
    fix = (
        "Warp exports particles with their own images, and a stand-in for the tilt series. Extraction and polishing "
        "need the images: import the alignment from AreTomo or IMOD (py2rely import aretomo, imod) with the stacks "
        "that 'WarpTools ts_stack' writes; Warp's particles go in with 'py2rely import particles'."
    )
    what = f"The tilt series are Warp's dummies ({stack.name}: {reason}): there are no images to extract from."
    return Problem(what, where, "the stacks of tilt images", fix)


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
    source = _tomograms_file(source)
    root = (project or source.parent).absolute()
    blocks = read_star(source)
    table = blocks.pop("global", pd.DataFrame())
    needed = ("rlnTomoName", "rlnTomoTiltSeriesName", "rlnTomoSizeX", "rlnTomoHand", "rlnTomoTiltSeriesPixelSize")
    missing = [label for label in needed if label not in table]
    if missing:
        fix = "Give the tomograms.star of RELION 4 or Warp; for RELION 5 use 'py2rely import relion'."
        raise ProblemError(Problem(f"Labels are missing: {', '.join(missing)}.", str(source), ", ".join(needed), fix))
    series, problems, notes = [], [], [f"{source}: {len(table)} tilt series as projection matrices"]
    for row in table.itertuples():
        try:
            series.append(_read_series(row, blocks, source, root))
        except ProblemError as error:
            problems += error.problems
    if problems:
        raise ProblemError(list(dict.fromkeys(problems)))
    hands = {float(value) for value in table["rlnTomoHand"]}
    if len(hands) > 1:
        fix = "Import them one hand at a time; a data set has one."
        raise ProblemError(Problem(f"Tilt series have different hands: {sorted(hands)}.", str(source), "one", fix))
    result = assemble(series, optics or _optics(table, source), hands.pop(), layout)
    result.notes = notes + result.notes
    return result


def _tomograms_file(source: Path) -> Path:
    blocks = read_star(source)
    first = next(iter(blocks.values()))
    if "rlnTomoTomogramsFile" in first:
        return resolve(str(first["rlnTomoTomogramsFile"].iloc[0]), source.absolute(), Path.cwd())
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
    return Optics(*(float(table[label].iloc[0]) for label in labels))


def _read_series(row, blocks: dict[str, pd.DataFrame], source: Path, root: Path) -> Series:
    name, where = str(row.rlnTomoName), f"{source}, block data_{row.rlnTomoName}"
    tilts = blocks.get(name)
    if tilts is None or any(label not in tilts for label in (*MATRIX_LABELS, *KEPT[:3], KEPT[5])):
        fix = "Export the file again."
        expected = ", ".join((*MATRIX_LABELS, *KEPT[:3], KEPT[5]))
        raise ProblemError(Problem("The block of a tilt series or its labels are missing.", where, expected, fix))
    file = str(row.rlnTomoTiltSeriesName).removesuffix(":mrc").removesuffix(":mrcs")
    stack = resolve(file, source.absolute(), root)
    problem = dummy_problem(stack, str(source), len(tilts))
    if problem:
        raise ProblemError(problem)
    header = read_header(stack)
    if header.shape[0] != len(tilts):
        what = f"The stack has {header.shape[0]} sections for {len(tilts)} tilts."
        fix = "Give the stack that these rows describe."
        raise ProblemError(Problem(what, f"{stack} and {where}", "as many", fix))
    matrices = np.array([[_vector(tilts[label].iloc[i], where) for label in MATRIX_LABELS] for i in range(len(tilts))])
    turned = matrices[:, :3, :3]
    if np.abs(turned @ turned.transpose(0, 2, 1) - np.eye(3)).max() > 1e-3:
        fix = "Align the tilt series again without magnification or shear."
        raise ProblemError(Problem("A projection matrix is no rotation.", where, "rotations", fix))
    size = tuple(int(getattr(row, f"rlnTomoSize{axis}")) for axis in "XYZ")
    angles, shift = from_projection_matrices(matrices, np.array(size), np.array(header.shape[:0:-1]))
    pixel = float(row.rlnTomoTiltSeriesPixelSize)
    table = {"section": np.arange(1, len(tilts) + 1)}
    table |= {f"rlnTomo{axis}": angles[:, i] for i, axis in enumerate(("XTilt", "YTilt", "ZRot"))}
    table |= {f"rlnTomo{axis}ShiftAngst": shift[:, i] * pixel for i, axis in enumerate("XY")}
    table |= {label: tilts[label].to_numpy(dtype=float) for label in KEPT if label in tilts}
    table["rlnTomoNominalStageTiltAngle"] = angles[:, 1]
    table["rlnTomoNominalTiltAxisAngle"] = angles[:, 2]
    return Series(name, stack, pd.DataFrame(table), size, pixel)


def _vector(value: object, where: str) -> list[float]:
    try:
        vector = [float(part) for part in (ast.literal_eval(value) if isinstance(value, str) else value)]
    except (ValueError, SyntaxError, TypeError) as error:
        raise ProblemError(
            Problem(f"{value} is no row of a matrix.", where, "[a,b,c,d]", "Export it again.")
        ) from error
    if len(vector) != 4 or not np.isfinite(vector).all():
        raise ProblemError(Problem(f"{value} is no row of a matrix.", where, "[a,b,c,d]", "Export it again."))
    return vector
