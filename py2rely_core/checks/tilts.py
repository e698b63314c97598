"""Checks of every tilt: labels, alignment, dose, defocus. One problem stands for all tilt series that have it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from py2rely_core.checks.context import ALIGNMENT, CheckContext, examples
from py2rely_core.problems import Problem

TILT_NUMBERS = (*ALIGNMENT, "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnMicrographPreExposure")
TILT_LABELS = ("rlnMicrographName", *TILT_NUMBERS)
#: Tilts closer than this, degrees, are the same tilt.
SAME_ANGLE = 0.01
#: A defocus further than this from the median of its tilt series, Angstrom and share of the median, is an outlier.
DEFOCUS_SPREAD = (10_000.0, 0.4)
#: What the defocus of a tilt series is never: less means other units, Angstrom.
LEAST_DEFOCUS, MOST_DEFOCUS = 100.0, 200_000.0
#: More exposure than a tilt series survives, e/A^2: usually movie frames counted twice, or other units.
MOST_DOSE = 400.0


def check_labels(context: CheckContext) -> Iterator[Problem]:
    """Required labels in every tilt-series STAR file."""
    lacking = defaultdict(list)
    for series in context.inputs.tilt_series.values():
        missing = tuple(label for label in TILT_LABELS if label not in series.tilts.columns)
        if missing:
            lacking[missing].append(str(series.star_file))
    for missing, files in lacking.items():
        what = f"Required labels of tilts are missing: {', '.join(missing)}."
        fix = "Write the alignment and CTF values of every tilt into the file."
        if set(missing) & set(ALIGNMENT):
            fix = "The tilt series are not aligned: align them first (AreTomo or IMOD), or import the alignment."
        yield Problem(what, examples(files), ", ".join(TILT_LABELS), fix)


def check_numbers(context: CheckContext) -> Iterator[Problem]:
    """Finite numbers for every tilt."""
    for label in TILT_NUMBERS:
        if label not in context.tilts:
            continue
        having = [label in series.tilts.columns for series in context.inputs.tilt_series.values()]
        bad = ~np.isfinite(context.tilt_values(label)) & np.array(having)[context.tilts["series"].to_numpy()]
        if bad.any():
            what = f"{label} is not a finite number in {int(bad.sum())} of {len(bad)} tilts."
            fix = "Correct these rows, or remove the tilts."
            value = context.tilts[label].to_numpy()[int(bad.argmax())]
            yield Problem(what, f"{context.tilt_place(bad)}: {value!r}", "a finite number", fix)


def check_same_image(context: CheckContext) -> Iterator[Problem]:
    """No image stands for two tilts."""
    if "rlnMicrographName" not in context.tilts:
        return
    names = context.tilts[["series", "rlnMicrographName"]]
    twice = (names.duplicated() & names["rlnMicrographName"].notna()).to_numpy()
    if twice.any():
        what = f"{int(twice.sum())} images are used for two tilts."
        fix = "Correct the section numbers in rlnMicrographName: each tilt has its own."
        yield Problem(what, context.tilt_place(twice), "one image per tilt", fix)


def check_angles(context: CheckContext) -> Iterator[Problem]:
    """Tilt angles are possible and differ."""
    angles, series = context.tilt_values("rlnTomoYTilt"), context.tilts["series"].to_numpy()
    beyond = np.abs(angles) > 90
    if beyond.any():
        what = f"{int(beyond.sum())} tilt angles are beyond 90 degrees: rlnTomoYTilt = {angles[beyond][0]:g}."
        yield Problem(what, context.tilt_place(beyond), "-90 to 90 degrees", "Correct the tilt angles.")
    spread = _per_series(series, angles, np.ptp)
    flat = (spread < 1)[series] & np.isfinite(angles)
    if flat.any():
        what = f"All tilts of {len(np.unique(series[flat]))} tilt series have the same angle."
        fix = "Write the tilt angles into rlnTomoYTilt."
        yield Problem(what, context.tilt_place(flat), "a range of angles", fix)
    order = np.lexsort((angles, series))
    close = (np.diff(angles[order]) < SAME_ANGLE) & (np.diff(series[order]) == 0)
    same = np.zeros(len(angles), dtype=bool)
    same[order[1:][close]] = True
    same &= ~flat
    if same.any():
        what = f"{int(same.sum())} tilts have the same angle as another of their tilt series."
        fix = "Check that angles and images belong together, and that no tilt was taken twice."
        yield Problem(what, context.tilt_place(same), "each angle once", fix, "warning")


def check_shifts(context: CheckContext) -> Iterator[Problem]:
    """The alignment's shifts stay within half an image."""
    if context.tilts.empty:
        return
    images = [context.image_size(name) or (np.inf, np.inf) for name in context.series_names]
    series = context.tilts["series"].to_numpy(dtype=int)
    half = np.array(images, dtype=float)[series] / 2 * context.pixel_size
    shifts = np.abs(np.column_stack([context.tilt_values(label) for label in ALIGNMENT[3:]]))
    large = (shifts > half).any(axis=1)
    if not large.any():
        return
    row, fix = int(large.argmax()), "Shifts are Angstrom, from the image's centre: check the import's pixel size."
    seen = f"{context.tilt_place(large)}: {shifts[row, 0]:.0f}, {shifts[row, 1]:.0f} A"
    expected = f"less than {half[row, 0]:.0f}, {half[row, 1]:.0f} A"
    most = _per_series(series, large.astype(float), np.mean) > 0.5
    if most.any():
        what = f"Most images of {int(most.sum())} tilt series are shifted by more than half an image."
        yield Problem(what, seen, expected, fix)
    else:
        what = f"{int(large.sum())} images are shifted by more than half an image: their alignment failed."
        yield Problem(what, seen, expected, "Remove these tilts, or align the tilt series again.", "warning")


def check_dose(context: CheckContext) -> Iterator[Problem]:
    """Pre-exposures are not negative, not all zero, and grow from tilt to tilt in the order of exposure."""
    dose, series = context.tilt_values("rlnMicrographPreExposure"), context.tilts["series"].to_numpy()
    fix = "Write the dose before each tilt, e/A^2, into rlnMicrographPreExposure: by section, not by angle."
    negative = dose < 0
    if negative.any():
        what = f"The pre-exposure of {int(negative.sum())} tilts is negative."
        yield Problem(what, context.tilt_place(negative), "0 e/A^2 or more", fix)
    none = (_per_series(series, dose, np.max) == 0)[series] if len(series) else np.zeros(0, dtype=bool)
    if none.any():
        count = len(np.unique(series[none]))
        what = f"The pre-exposure is zero for all tilts of {count} tilt series: no dose weighting."
        yield Problem(what, context.tilt_place(none), "the dose before each tilt", fix, "warning")
    order = np.lexsort((dose, series))
    same = np.zeros(len(dose), dtype=bool)
    same[order[1:][(np.diff(dose[order]) <= 0) & (np.diff(series[order]) == 0)]] = True
    same &= ~none
    if same.any():
        what = f"{int(same.sum())} tilts have the same pre-exposure as another of their tilt series."
        yield Problem(what, context.tilt_place(same), "more dose before each tilt", fix, "warning")
    high = dose > MOST_DOSE
    if high.any():
        what = f"The pre-exposure of {int(high.sum())} tilts is beyond {MOST_DOSE:g} e/A^2: {dose[high].max():g}."
        yield Problem(what, context.tilt_place(high), "e/A^2", "Check the unit and the dose per tilt.", "warning")


def check_defocus(context: CheckContext) -> Iterator[Problem]:
    """Defocus is in Angstrom, and no tilt is far from its tilt series' median."""
    if context.tilts.empty:
        return
    defocus = (context.tilt_values("rlnDefocusU") + context.tilt_values("rlnDefocusV")) / 2
    series = context.tilts["series"].to_numpy()
    median = _per_series(series, defocus, np.median)[series]
    units = (median < LEAST_DEFOCUS) | (median > MOST_DEFOCUS)
    if units.any():
        what = f"The defocus of {len(np.unique(series[units]))} tilt series cannot be Angstrom: {median[units][0]:g}."
        fix = "rlnDefocusU and V are Angstrom of underfocus (30000 for 3 micrometres): convert, or estimate the CTF."
        yield Problem(what, context.tilt_place(units), f"{LEAST_DEFOCUS:g} to {MOST_DEFOCUS:g} A", fix)
    far = (np.abs(defocus - median) > np.maximum(DEFOCUS_SPREAD[0], DEFOCUS_SPREAD[1] * median)) & ~units
    if far.any():
        row = int(far.argmax())
        what = f"The defocus of {int(far.sum())} tilts is far from the median of their tilt series."
        seen = f"{context.tilt_place(far)}: {defocus[row]:.0f} A, median {median[row]:.0f} A"
        fix = "The CTF fit probably failed there: set the neighbours' value, or remove the tilt."
        yield Problem(what, seen, "within 1 micrometre or 40 %", fix, "warning")


def check_even_odd(context: CheckContext) -> Iterator[Problem]:
    """Even and odd images, where they are named, are a pair."""
    even, odd = (f"rlnMicrographName{name}" in context.tilts for name in ("Even", "Odd"))
    if even != odd:
        there, gone = ("Even", "Odd") if even else ("Odd", "Even")
        what = f"rlnMicrographName{there} is there without rlnMicrographName{gone}."
        where = examples([str(one.star_file) for one in context.inputs.tilt_series.values()])
        fix = "Averaging does not use them, but denoising of tomograms does: write both or none."
        yield Problem(what, where, "both or none", fix, "warning")
    if even and odd:
        same = (context.tilts["rlnMicrographNameEven"] == context.tilts["rlnMicrographNameOdd"]).to_numpy(dtype=bool)
        if same.any():
            what = f"The even and the odd image of {int(same.sum())} tilts are one file."
            fix = "Averaging does not use them, but denoising of tomograms does: correct the names."
            yield Problem(what, context.tilt_place(same), "two files", fix, "warning")


def _per_series(series: np.ndarray, values: np.ndarray, function: object) -> np.ndarray:
    """A number per tilt series of the finite values of its tilts; NaN where there are none."""
    count = int(series.max()) + 1 if len(series) else 0
    result = np.full(count, np.nan)
    finite = np.isfinite(values)
    codes, kept = series[finite].astype(int), values[finite]
    starts = np.searchsorted(codes, np.arange(count + 1))
    for number in range(count):
        if starts[number] < starts[number + 1]:
            result[number] = function(kept[starts[number] : starts[number + 1]])
    return result


CHECKS = (
    check_labels,
    check_numbers,
    check_same_image,
    check_angles,
    check_shifts,
    check_dose,
    check_defocus,
    check_even_odd,
)
