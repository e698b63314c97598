"""Checks of where particles are: convention, units, inside of the tomogram, and seen by the tilts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from py2rely_core.checks.context import CheckContext, at_rows, examples
from py2rely_core.data.geometry import CENTRED, ORIGINS, PIXEL
from py2rely_core.problems import Problem

#: From this many particles on, their spread says something about the units.
ENOUGH = 20
#: Coordinates that reach no further than this share of the tomogram on any axis are suspect.
NARROW = 0.3
#: More particles than this share lost at extraction is an error.
MOST_LOST = 0.5
#: A particle in fewer of the tilts than this share is seen badly.
FEW_TILTS = 1 / 3


def check_pixel_coordinates(context: CheckContext) -> Iterator[Problem]:
    """Coordinates are centred, in Angstrom."""
    if set(PIXEL) <= set(context.inputs.particles) and not set(CENTRED) <= set(context.inputs.particles):
        what = "Coordinates are in pixels from a corner (rlnCoordinateX/Y/Z), as RELION 4 and Warp write them."
        fix = "Import them with 'py2rely import particles', which knows of which tomogram they are pixels, or asks: "
        fix += "centred = (pixel x binning - rlnTomoSize / 2) x pixel size, in Angstrom, for each axis."
        yield Problem(what, str(context.inputs.particles_file), ", ".join(CENTRED), fix)


def check_conventions(context: CheckContext) -> Iterator[Problem]:
    """Where both conventions are written, they say the same."""
    corner = context.particle_values(PIXEL)
    if corner is None or context.centred is None:
        return
    difference = context.centred / context.pixel_size + context.sizes / 2 - corner
    apart = np.nanmax(np.abs(difference), axis=1, initial=0.0)
    bad = apart > 1.0
    where = str(context.inputs.particles_file)
    if bad.any():
        what = f"Two coordinate conventions are present and disagree in {int(bad.sum())} particles, by up to "
        what += f"{apart.max():.0f} pixels: {PIXEL[0]} and {CENTRED[0]}."
        fix = "RELION 5 uses the centred ones: remove rlnCoordinateX/Y/Z if they are stale or binned."
        yield Problem(what, at_rows(context.inputs.particles_file, bad), "one convention", fix)
        return
    what = f"Two coordinate conventions are present: {PIXEL[0]} and {CENTRED[0]}."
    yield Problem(what, where, "one convention", "They agree; RELION 5 uses the centred ones.", "warning")
    median = np.nanmedian(difference, axis=0) if np.isfinite(difference).any() else np.zeros(3)
    if (np.abs(np.abs(median) - 0.5) < 0.1).any():
        offset = ", ".join(f"{value:.2f}" for value in median)
        what = f"The two conventions differ by half a pixel ({offset} in x, y, z)."
        fix = "Programs count from 0 or 1, or the size is odd: check a few particles against the tomogram."
        yield Problem(what, where, "no offset", fix, "warning")


def check_inside(context: CheckContext) -> Iterator[Problem]:
    """Every particle lies inside of its tomogram."""
    if context.centred is None:
        return
    half = context.sizes / 2 * context.pixel_size
    outside = (np.abs(context.centred) > half).any(axis=1)
    if outside.any():
        row = int(outside.argmax())
        what = f"{int(outside.sum())} of {len(outside)} particles lie outside of their tomogram."
        seen = ", ".join(f"{value:.1f}" for value in context.centred[row])
        where = f"{at_rows(context.inputs.particles_file, outside)}: ({seen}) A"
        expected = "within " + ", ".join(f"{value:.0f}" for value in half[row]) + " A of the centre (x, y, z)"
        fix = "Coordinates are Angstrom from the tomogram's centre. " + _reading(context.centred, half)
        yield Problem(what, where, expected, fix + "Remove these particles if they are few.")


def _reading(centred: np.ndarray, half: np.ndarray) -> str:
    """What coordinates that lie outside may be."""
    with np.errstate(invalid="ignore"):
        corner = (centred >= 0).mean() > 0.99 and (centred <= 2 * half).mean() > 0.99
    if corner:
        return "These look like Angstrom from a corner: subtract half of the size. "
    return "These may be pixels, or counted from a corner: convert them. "


def check_units(context: CheckContext) -> Iterator[Problem]:
    """Coordinates spread over the tomogram on both sides of its centre, as they do when the units are right."""
    if context.centred is None:
        return
    half = context.sizes / 2 * context.pixel_size
    known = np.isfinite(half).all(axis=1) & np.isfinite(context.centred).all(axis=1)
    if known.sum() < ENOUGH:
        return
    reach = (np.abs(context.centred[known]) / half[known]).max(axis=0)
    where, one_side = str(context.inputs.particles_file), (context.centred[known] >= 0).all()
    if (reach < NARROW).all():
        fix = "If they are all picks of the data set, they may be pixels where Angstrom is meant, or binned."
        fix += _factor(context, float(reach.max()))
        what = f"No particle is further than {reach.max():.0%} of the way from the centre to the edge on any axis."
        yield Problem(what, where, "a spread over the tomogram", fix, "warning")
    elif one_side:
        what = "No coordinate is negative: all particles are in one corner of their tomograms."
        fix = "They may be counted from a corner, in pixels: convert them to Angstrom from the centre."
        yield Problem(what, where, "both sides of the centre", fix, "warning")


def _factor(context: CheckContext, reach: float) -> str:
    """Which factors would make coordinates that reach `reach` of the way to the edge fill the tomogram."""
    factors = {f"the pixel size ({context.pixel_size:g})": context.pixel_size}
    factors |= {f"binning {b} x the pixel size": b * context.pixel_size for b in (2, 4, 8)}
    fitting = [name for name, factor in factors.items() if 0.6 < reach * factor <= 1]
    return f" Times {' or '.join(fitting)}, they would fill the tomogram." if fitting else ""


def check_shifts(context: CheckContext) -> Iterator[Problem]:
    """Refined shifts stay within half of the particle's box."""
    origins = context.particle_values(ORIGINS)
    if origins is None:
        return
    binning, size = next(iter(context.levels.items()))
    limit = size.size * binning * context.pixel_size / 2
    large = (np.abs(origins) > limit).any(axis=1)
    if large.any():
        what = f"The shifts of {int(large.sum())} particles are larger than half of their box."
        fix = "rlnOriginX/Y/ZAngst are Angstrom: check the units, or set them to zero."
        where = at_rows(context.inputs.particles_file, large)
        yield Problem(what, where, f"less than {limit:.0f} A", fix, "warning")


def check_visibility(context: CheckContext) -> Iterator[Problem]:
    """Every particle is seen, with its whole box, in at least one tilt, and in most."""
    worst, where = None, str(context.inputs.particles_file)
    for binning, counts in context.visibility.items():
        lost = counts == 0
        if lost.any() and (worst is None or lost.sum() > worst[1].sum()):
            worst = (binning, lost, int((counts >= 0).sum()))
    if worst:
        binning, lost, known = worst
        box = context.levels[binning].box
        share = lost.sum() / known
        what = f"{int(lost.sum())} of {known} particles ({share:.1%}) are seen by no tilt with a box of {box} at bin "
        what += f"{binning}: RELION leaves them out."
        fix = "Their box reaches over the edge in all images: use a smaller box, or remove them"
        fix += "; so many may mean wrong coordinates or alignment." if share > MOST_LOST else "."
        severity = "error" if share > MOST_LOST else "warning"
        yield Problem(what, f"{where}, first in row {int(lost.argmax()) + 1}", "one tilt or more", fix, severity)
    few = _seen_by_few(context)
    if few.any():
        what = f"{int(few.sum())} particles are seen in fewer than a third of their tilts: they are close to an edge."
        fix = "They count for less and blur along the missing directions: leave them out if you have enough."
        yield Problem(what, at_rows(context.inputs.particles_file, few), "most tilts", fix, "warning")


def _seen_by_few(context: CheckContext) -> np.ndarray:
    counts = next(iter(context.visibility.values()))
    tilts = np.zeros(len(counts))
    for name, rows in context.particle_rows.items():
        if name in context.inputs.tilt_series:
            tilts[rows] = context.within_dose(context.inputs.tilt_series[name].tilts).sum()
    return (counts > 0) & (counts < FEW_TILTS * tilts)


def check_box(context: CheckContext) -> Iterator[Problem]:
    """The boxes fit into the images."""
    sizes = [(min(image), name) for name in context.particle_rows if (image := context.image_size(name))]
    if not sizes:
        return
    smallest, name = min(sizes)
    edges = {binning: size.box for binning, size in context.levels.items()}
    large = [f"{box} at bin {binning}" for binning, box in edges.items() if box * binning > smallest]
    if large:
        what = f"The box is larger than the images ({smallest} pixels): {examples(large)}."
        fix = "Check the particle diameter, the pixel size and resolutions.box_scaling."
        yield Problem(what, f"tilt series {name}", f"less than {smallest} unbinned pixels", fix)


def check_diameter(context: CheckContext) -> Iterator[Problem]:
    """The particle fits into its tomogram."""
    diameter = context.recipe.refine3D.particle_diameter
    thin = [name for name, size in context.tomogram_sizes.items() if size.min() * context.pixel_size < diameter]
    if thin:
        what = f"The particle ({diameter:g} A) is larger than {len(thin)} tomograms in one direction."
        fix = "Check the particle diameter, the pixel size and rlnTomoSizeX/Y/Z."
        yield Problem(what, f"{context.inputs.tilt_series_file}: {examples(thin)}", "larger tomograms", fix, "warning")


CHECKS = (
    check_pixel_coordinates,
    check_conventions,
    check_inside,
    check_units,
    check_shifts,
    check_visibility,
    check_box,
    check_diameter,
)
