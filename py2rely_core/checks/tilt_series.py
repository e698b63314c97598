"""Checks of the tilt series: tables, alignment, stacks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from py2rely_core.checks.context import CheckContext, examples, missing_labels, not_numbers
from py2rely_core.inputs import TiltSeries
from py2rely_core.maps.io import MapHeader, read_header
from py2rely_core.problems import Problem, ProblemError
from py2rely_core.tables import split_image_name

GLOBAL_NUMBERS = (
    "rlnVoltage",
    "rlnSphericalAberration",
    "rlnAmplitudeContrast",
    "rlnTomoTiltSeriesPixelSize",
    "rlnTomoHand",
    "rlnTomoSizeX",
    "rlnTomoSizeY",
    "rlnTomoSizeZ",
)
GLOBAL_LABELS = ("rlnTomoName", "rlnTomoTiltSeriesStarFile", *GLOBAL_NUMBERS)
TILT_NUMBERS = (
    "rlnTomoXTilt",
    "rlnTomoYTilt",
    "rlnTomoZRot",
    "rlnTomoXShiftAngst",
    "rlnTomoYShiftAngst",
    "rlnDefocusU",
    "rlnDefocusV",
    "rlnDefocusAngle",
    "rlnMicrographPreExposure",
)
TILT_LABELS = ("rlnMicrographName", *TILT_NUMBERS)


def check_global_labels(context: CheckContext) -> Iterator[Problem]:
    """Required labels and finite numbers in the table of tilt series."""
    inputs = context.inputs
    where = f"{inputs.tilt_series_file}, block data_global"
    fix = "Write the file again with RELION 5's import, or with the program that made it."
    yield from missing_labels(inputs.tomograms, GLOBAL_LABELS, where, fix)
    yield from not_numbers(inputs.tomograms, GLOBAL_NUMBERS, where)


def check_global_values(context: CheckContext) -> Iterator[Problem]:
    """One row per name, sizes known, one hand and one pixel size."""
    table, where = context.inputs.tomograms, str(context.inputs.tilt_series_file)
    if "rlnTomoName" in table:
        twice = sorted(table["rlnTomoName"][table["rlnTomoName"].duplicated()].unique())
        if twice:
            fix = "Give every tilt series a name of its own."
            yield Problem(f"Tilt series are named twice: {examples(twice)}.", where, "unique rlnTomoName", fix)
    for label in ("rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ"):
        if label in table and (pd.to_numeric(table[label], errors="coerce") <= 0).any():
            what = f"{label} is not positive: the size of the tomogram is unknown."
            fix = "Set rlnTomoSizeX/Y/Z to the size of the tomogram in unbinned pixels."
            yield Problem(what, where, "unbinned pixels > 0", fix)
    for label in ("rlnTomoHand", "rlnTomoTiltSeriesPixelSize", "rlnVoltage"):
        if label in table and table[label].nunique() > 1:
            values = examples([str(value) for value in table[label].unique()])
            fix = "Run data sets that differ side by side, each with its own parameter file (--sample_sheet)."
            yield Problem(f"{label} is not the same for all tilt series: {values}.", where, "one value", fix)


def check_pixel_size(context: CheckContext) -> Iterator[Problem]:
    """The parameter file's pixel size is the tilt series' own."""
    table = context.inputs.tomograms
    if "rlnTomoTiltSeriesPixelSize" not in table:
        return
    expected = context.recipe.resolutions.angpix
    found = pd.to_numeric(table["rlnTomoTiltSeriesPixelSize"], errors="coerce").dropna().unique()
    if any(abs(value - expected) > 1e-3 * expected for value in found):
        what = f"The tilt series have a pixel size of {examples([f'{v:g} A' for v in found])}."
        fix = "Write the parameter file with --tilt-series-pixel-size as in the tilt series, or correct the STAR file."
        yield Problem(what, str(context.inputs.tilt_series_file), f"resolutions.angpix = {expected:g} A", fix)


def check_tilts(context: CheckContext) -> Iterator[Problem]:
    """Required labels and finite numbers in every tilt-series STAR file."""
    for series in context.inputs.tilt_series.values():
        fix = "Write the alignment and CTF values of every tilt into the file."
        yield from missing_labels(series.tilts, TILT_LABELS, str(series.star_file), fix)
        yield from not_numbers(series.tilts, TILT_NUMBERS, str(series.star_file))


def check_stacks(context: CheckContext) -> Iterator[Problem]:
    """Every stack is there, readable, and holds the sections that are used from it."""
    series = list(context.inputs.tilt_series.values())
    missing = [str(stack) for one in series for stack in one.stacks if not stack.is_file()]
    if missing:
        what = f"{len(missing)} image stacks are missing."
        fix = "Start the run in the project directory, or correct rlnMicrographName in the tilt-series STAR files."
        yield Problem(what, examples(missing), "existing files", fix)
    for one in series:
        for stack in one.stacks:
            if stack.is_file():
                yield from _check_stack(one, stack, context)


def _check_stack(series: TiltSeries, stack: object, context: CheckContext) -> Iterator[Problem]:
    try:
        header = read_header(stack)
    except ProblemError as error:
        yield from error.problems
        return
    yield from _check_sections(series, header, str(stack))
    pixel_size, expected = header.pixel_size, context.recipe.resolutions.angpix
    if pixel_size and abs(pixel_size - expected) > 0.01 * expected:
        what = f"The header says {pixel_size:g} A per pixel; the header is not used, but check which is right."
        yield Problem(what, str(stack), f"{expected:g} A", "Correct the header or the pixel size.", "warning")


def _check_sections(series: TiltSeries, header: MapHeader, stack: str) -> Iterator[Problem]:
    name = stack.rsplit("/", 1)[-1]
    split = [split_image_name(image) for image in series.tilts["rlnMicrographName"]]
    sections = np.array([section for section, file in split if file.rsplit("/", 1)[-1] == name])
    count = header.shape[0]
    if sections.size and (sections.min() < 1 or sections.max() > count):
        what = f"Sections {sections.min()} to {sections.max()} are used of a stack that has {count}."
        fix = "Sections are counted from 1: correct rlnMicrographName, or use the complete stack."
        yield Problem(what, f"{series.star_file} and {stack}", f"sections 1 to {count}", fix)


CHECKS = (check_global_labels, check_global_values, check_pixel_size, check_tilts, check_stacks)
