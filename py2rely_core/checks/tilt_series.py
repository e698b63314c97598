"""Checks of the table of tilt series: labels, names, sizes, and what must be the same for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from py2rely_core.checks.context import CheckContext, as_numbers, examples, missing_labels, not_numbers
from py2rely_core.data.geometry import SIZES
from py2rely_core.problems import Problem

GLOBAL_NUMBERS = (
    "rlnVoltage",
    "rlnSphericalAberration",
    "rlnAmplitudeContrast",
    "rlnTomoTiltSeriesPixelSize",
    "rlnTomoHand",
    *SIZES,
)
GLOBAL_LABELS = ("rlnTomoName", "rlnTomoTiltSeriesStarFile", *GLOBAL_NUMBERS)
#: Characters that RELION's STAR files, image names (``3@file``) or directories give a meaning to.
FORBIDDEN = "/@#\"'\\"
#: A tomogram that is this much smaller than the images has probably the size of its binned copy.
BINNED_SHARE = 0.6


def check_global_labels(context: CheckContext) -> Iterator[Problem]:
    """Required labels and finite numbers in the table of tilt series."""
    inputs = context.inputs
    where = f"{inputs.tilt_series_file}, block data_global"
    fix = "Write the file again with RELION 5's import, or with the program that made it."
    yield from missing_labels(inputs.tomograms, GLOBAL_LABELS, where, fix)
    yield from not_numbers(inputs.tomograms, GLOBAL_NUMBERS, where)


def check_unique_names(context: CheckContext) -> Iterator[Problem]:
    """No two tilt series have the same name."""
    table, where = context.inputs.tomograms, str(context.inputs.tilt_series_file)
    if "rlnTomoName" not in table:
        return
    names = table["rlnTomoName"].astype(str)
    twice = sorted(names[names.duplicated()].unique())
    if twice:
        fix = "Give every tilt series a name of its own."
        yield Problem(f"Tilt series are named twice: {examples(twice)}.", where, "unique rlnTomoName", fix)


def check_characters(context: CheckContext) -> Iterator[Problem]:
    """Names that RELION can use as names of directories and in STAR files."""
    table, where = context.inputs.tomograms, f"rlnTomoName in {context.inputs.tilt_series_file}"
    names = [] if "rlnTomoName" not in table else list(table["rlnTomoName"].astype(str).unique())
    bad = [name for name in names if not name.strip() or any(char in FORBIDDEN for char in name)]
    if bad:
        fix = "Rename these tilt series, in the particle file as well."
        what = f"Names of tilt series hold characters that RELION cannot use: {examples([repr(one) for one in bad])}."
        yield Problem(what, where, f"none of {' '.join(FORBIDDEN)}", fix)
    plain = [name for name in names if name.isascii() and name.isprintable() and " " not in name]
    odd = sorted(set(names) - set(bad) - set(plain))
    if odd:
        what = f"Names of tilt series hold blanks or special characters: {examples([repr(one) for one in odd])}."
        fix = "Other programs may not read the results: letters, digits, '_', '-' and '.' are safe."
        yield Problem(what, where, "plain names", fix, "warning")


def check_sizes(context: CheckContext) -> Iterator[Problem]:
    """The size of every tomogram is known."""
    table, where = context.inputs.tomograms, str(context.inputs.tilt_series_file)
    for label in SIZES:
        if label in table and (as_numbers(table[label]) <= 0).any():
            what = f"{label} is not positive: the size of the tomogram is unknown."
            fix = "Set rlnTomoSizeX/Y/Z to the size of the tomogram in unbinned pixels."
            yield Problem(what, where, "unbinned pixels > 0", fix)


def check_odd_sizes(context: CheckContext) -> Iterator[Problem]:
    """Sizes are even, so that all programs agree on where the centre is."""
    odd = [name for name, size in context.tomogram_sizes.items() if (size % 2 != 0).any()]
    if odd:
        what = f"The size of {len(odd)} tomograms is odd: programs differ by half a pixel in where the centre is."
        where = f"rlnTomoSizeX/Y/Z in {context.inputs.tilt_series_file}: {examples(odd)}"
        fix = "Check the positions of a few particles; use even sizes when the coordinates are made anew."
        yield Problem(what, where, "even numbers of pixels", fix, "warning")


def check_binned_sizes(context: CheckContext) -> Iterator[Problem]:
    """The sizes are those of unbinned tomograms, as far as the images tell."""
    small = []
    for name, size in context.tomogram_sizes.items():
        image = context.image_size(name)
        if image and max(size[:2]) < BINNED_SHARE * max(image):
            small.append(f"{name} ({size[0]:g} x {size[1]:g}, images {image[0]} x {image[1]})")
    if small:
        what = f"{len(small)} tomograms are much smaller than their images: their size may be that of binned tomograms."
        where = f"rlnTomoSizeX/Y/Z in {context.inputs.tilt_series_file}: {examples(small)}"
        fix = "Multiply rlnTomoSizeX/Y/Z by the tomogram's binning."
        yield Problem(what, where, "unbinned pixels", fix, "warning")


def check_one_setup(context: CheckContext) -> Iterator[Problem]:
    """One pixel size, voltage and aberration for all tilt series."""
    yield from _not_the_same(context, ("rlnTomoTiltSeriesPixelSize", "rlnVoltage", "rlnSphericalAberration"))


def check_hand(context: CheckContext) -> Iterator[Problem]:
    """One hand for all tilt series, and it is 1 or -1."""
    table = context.inputs.tomograms
    yield from _not_the_same(context, ("rlnTomoHand",))
    if "rlnTomoHand" in table:
        values = as_numbers(table["rlnTomoHand"])
        bad = np.isfinite(values) & (np.abs(values) != 1)
        if bad.any():
            where = f"{context.inputs.tilt_series_file}, first in row {int(bad.argmax()) + 1}"
            fix = "Set it to the sign that your alignment program's geometry needs, the same for all."
            yield Problem(f"rlnTomoHand is {values[bad][0]:g} in {int(bad.sum())} rows.", where, "1 or -1", fix)


def _not_the_same(context: CheckContext, labels: tuple[str, ...]) -> Iterator[Problem]:
    table, where = context.inputs.tomograms, str(context.inputs.tilt_series_file)
    for label in labels:
        if label in table and table[label].nunique() > 1:
            counts = table[label].value_counts()
            values = examples([f"{value} ({count})" for value, count in counts.items()])
            fix = "Run data sets that differ side by side, each with its own parameter file (--sample_sheet)."
            yield Problem(f"{label} is not the same for all tilt series: {values}.", where, "one value", fix)


def check_turned(context: CheckContext) -> Iterator[Problem]:
    """Tomograms have the area of their images as the tilt axis turns them; x and y may have been exchanged."""
    turned = []
    for name, series in context.inputs.tilt_series.items():
        image, size = context.image_size(name), context.tomogram_sizes.get(name)
        if image is None or size is None or "rlnTomoZRot" not in series.tilts:
            continue
        rotation = np.nanmean(np.abs(np.sin(np.radians(as_numbers(series.tilts["rlnTomoZRot"])))))
        area = np.array(image[::-1] if rotation > np.sqrt(0.5) else image, dtype=float)
        own, other = (np.abs(size[:2] - one).max() for one in (area, area[::-1]))
        if other < 0.02 * area.max() < own:
            turned.append(f"{name} ({size[0]:g} x {size[1]:g}, images of {image[0]} x {image[1]})")
    if turned:
        what = f"x and y of {len(turned)} tomograms seem to be exchanged: {examples(turned)}."
        fix = "With a tilt axis near x, RELION's tomograms have the height of the images as their width."
        where = f"rlnTomoSizeX and Y in {context.inputs.tilt_series_file}"
        yield Problem(what, where, "the images' size as turned by rlnTomoZRot", fix, "warning")


def check_pixel_size(context: CheckContext) -> Iterator[Problem]:
    """The parameter file's pixel size is the tilt series' own."""
    table = context.inputs.tomograms
    if "rlnTomoTiltSeriesPixelSize" not in table:
        return
    expected = context.pixel_size
    found = np.unique(as_numbers(table["rlnTomoTiltSeriesPixelSize"]))
    if any(abs(value - expected) > 1e-3 * expected for value in found):
        what = f"The tilt series have a pixel size of {examples([f'{v:g} A' for v in found])}."
        fix = "Write the parameter file with --tilt-series-pixel-size as in the tilt series, or correct the STAR file."
        yield Problem(what, str(context.inputs.tilt_series_file), f"resolutions.angpix = {expected:g} A", fix)


CHECKS = (
    check_global_labels,
    check_unique_names,
    check_characters,
    check_sizes,
    check_odd_sizes,
    check_binned_sizes,
    check_one_setup,
    check_hand,
    check_pixel_size,
    check_turned,
)
