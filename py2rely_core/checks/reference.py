"""Checks of the reference map that the user hands over. Its box and pixel size are free: it is resampled."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from py2rely_core.checks.context import CheckContext
from py2rely_core.maps.io import Map, known_pixel_size, read_map
from py2rely_core.maps.masks import is_degenerate
from py2rely_core.maps.shape import LITTLE, Seen
from py2rely_core.parameters.sampling import SAMPLINGS, sampling_order
from py2rely_core.planning.low_pass import template_field, template_low_pass
from py2rely_core.problems import Problem, ProblemError


def check_reference(context: CheckContext) -> Iterator[Problem]:
    """The map is readable, has white density, a pixel size and a plausible extent."""
    if context.reference is None:
        return
    where = str(context.reference)
    try:
        reference = read_map(context.reference)
    except ProblemError as error:
        yield from error.problems
        return
    reason = is_degenerate(reference.data)
    if reason:
        yield Problem(f"The reference map has no usable density: {reason}.", where, "a density map", "Replace it.")
    if not reference.pixel_size:
        fix = "Set the voxel size in its header, or run 'py2rely prepare template' with --input-voxel-size."
        yield Problem("The reference map's header has no voxel size.", where, "Angstrom per voxel > 0", fix)
        return
    if known_pixel_size(reference.pixel_size) is None:
        what = "The reference map's header says exactly 1 A per voxel, which programs write when they do not know."
        fix = "If it is another, run 'py2rely prepare template' with --input-voxel-size."
        yield Problem(what, where, "the map's own voxel size", fix, "warning")
    diameter = context.recipe.refine3D.particle_diameter
    extent = max(reference.data.shape) * reference.pixel_size
    if not 0.7 * diameter <= extent <= 20 * diameter:
        what = f"The reference map is {extent:.0f} A across ({reference.pixel_size:g} A per voxel)."
        fix = "Check its voxel size and the particle diameter."
        yield Problem(what, where, f"at least the particle diameter, {diameter:g} A", fix)
    elif not reason and _is_black(reference, diameter):
        what = "The reference map is darker within the particle than around it: its density seems to be black."
        fix = "Density must be white (positive): 'py2rely prepare template --invert' makes it so."
        yield Problem(what, where, "white density", fix, "warning")
    if not reason:
        yield from _nearly_a_ball(context, reference)


def _nearly_a_ball(context: CheckContext, reference: Map) -> Iterator[Problem]:
    """A template that is so round, as a ball or around its one axis, that particles find little to align to."""
    if context.mode != "template" or context.start != "picks":
        return
    diameter, low_pass = context.recipe.refine3D.particle_diameter, template_low_pass(context.recipe)
    group = context.recipe.symmetry
    seen = Seen(reference, diameter)
    share = seen.shape(low_pass, group)
    if share >= LITTLE:
        return
    shape = "ball" if share == seen.shape(low_pass) else "cylinder"
    block, factor = template_field(context.recipe)
    degrees = SAMPLINGS[sampling_order(getattr(context.recipe, block).sampling)]
    change = seen.change(low_pass, degrees)
    enough = next((one for one in seen.low_passes(low_pass) if seen.shape(one, group) >= LITTLE), None)
    what = (
        f"To {low_pass:g} A the template is nearly a {shape}: {share:.1%} of its power is off its rotational average "
        f"(turned by the search's {degrees:g} degrees it changes by {change:.1%}), and particles find little to align "
        "to."
    )
    fix = "See what the run says of its orientations at the end of the first level (docs/orientations.md)."
    if enough:
        value = f"--{block}.ini_high {enough / factor:.0f}"
        fix = f"Give it to about {enough:g} A ({value}), if it is known so well. {fix}"
    yield Problem(what, str(context.reference), f"{LITTLE:.0%} or more", fix, "warning")


def _is_black(reference: Map, diameter: float) -> bool:
    """Whether the mean within the particle's sphere is lower than in the shell around it."""
    grids = np.ogrid[tuple(slice(0, n) for n in reference.data.shape)]
    squares = sum((grid - n // 2) ** 2 for grid, n in zip(grids, reference.data.shape, strict=True))
    radius = np.sqrt(squares) * reference.pixel_size
    inside, around = reference.data[radius < diameter / 2], reference.data[radius >= diameter / 2]
    return bool(inside.size and around.size and inside.mean() < around.mean())


CHECKS = (check_reference,)
