"""To which resolution the first search sees its reference."""

from __future__ import annotations

from py2rely_core.maps.io import Map
from py2rely_core.maps.shape import LITTLE, Seen
from py2rely_core.parameters.recipe import Recipe

#: Without another reason, a third of the particle's diameter, and never coarser than this, Angstrom.
COARSEST, OF_DIAMETER = 60.0, 1 / 3
#: A template that is nearly a ball to any low-pass is taken to the coarsest with this share of what the finest shows.
NO_MORE = 0.75
#: How many times coarser than `class3D.ini_high` the alignment to a template begins.
ALIGNMENT = 1.5


def with_low_passes(recipe: Recipe, template: Map | None = None) -> Recipe:
    """The recipe with a first low-pass where it gives none: coarse, and finer only where the template needs it.

    A third of the particle's diameter, at most 60 A; of a template that is nearly a ball to this (or a cylinder, where
    the point group has one axis), the coarsest with which it is none any more, or shows as much as to any other.

    Parameters
    ----------
    recipe : Recipe
    template : Map, optional
        What particles are aligned to, on any grid; not given for de novo models.
    """
    if recipe.refine3D.ini_high is not None and recipe.class3D.ini_high is not None:
        return recipe
    chosen = recipe.refine3D.ini_high or _chosen(recipe, template)
    refine = recipe.refine3D.model_copy(update={"ini_high": chosen})
    aligned = recipe.class3D.ini_high or chosen / ALIGNMENT
    return recipe.model_copy(
        update={"refine3D": refine, "class3D": recipe.class3D.model_copy(update={"ini_high": aligned})}
    )


def coarse_low_pass(diameter: float, nyquist: float) -> float:
    """What is coarse for a particle on a grid: a third of its diameter, at most 60 A; Angstrom all."""
    return round(max(min(OF_DIAMETER * diameter, COARSEST), nyquist), 1)


def _chosen(recipe: Recipe, template: Map | None) -> float:
    diameter, finest = recipe.refine3D.particle_diameter, recipe.first_nyquist
    coarsest = coarse_low_pass(diameter, finest)
    if template is None or not template.pixel_size:
        return coarsest
    seen = Seen(template, diameter)
    shares: dict[float, float] = {}
    for one in (coarsest, *seen.low_passes(coarsest, finest)):  # the finer, the longer it takes
        shares[one] = seen.shape(one, recipe.symmetry)
        if shares[one] >= LITTLE:
            return round(one, 1)
    return round(next(one for one, share in shares.items() if share >= NO_MORE * max(shares.values())), 1)


def template_low_pass(recipe: Recipe) -> float:
    """To which resolution, Angstrom, the first search sees the template: its alignment, or Refine3D straight away.

    The recipe is one of :func:`with_low_passes`.
    """
    block, factor = template_field(recipe)
    return round(factor * getattr(recipe, block).ini_high, 3)


def template_field(recipe: Recipe) -> tuple[str, float]:
    """The block whose `ini_high` the template's low-pass comes from, and how many times that it is."""
    return ("class3D", ALIGNMENT) if recipe.initial_reference.template_iterations else ("refine3D", 1.0)
