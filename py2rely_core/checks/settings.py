"""Checks of parameters that are possible, but may not do what is expected of them."""

from __future__ import annotations

from collections.abc import Iterator

from py2rely_core.checks.context import CheckContext
from py2rely_core.data.symmetry import parse_point_group
from py2rely_core.problems import Problem, ProblemError


def check_max_dose(context: CheckContext) -> Iterator[Problem]:
    """A dose limit is known not to hold in reconstructions."""
    limit = context.recipe.pseudo_subtomo.max_dose
    if limit > 0:
        what = f"RELION 5 leaves out tilts beyond {limit:g} e/A^2 at extraction, but not in reconstructions."
        fix = "Dose weighting plays them down; to leave them out altogether, remove them from the tilt-series files."
        yield Problem(what, "pseudo_subtomo.max_dose", "-1", fix, "warning")


def check_symmetry(context: CheckContext) -> Iterator[Problem]:
    """All blocks name the same point group; refine3D's is the one that is used."""
    recipe, used = context.recipe, context.recipe.symmetry
    others = {"reconstruct.point_group": recipe.reconstruct.point_group, "class3D.sym_name": recipe.class3D.sym_name}
    for name, value in others.items():
        try:
            differs = parse_point_group(value) != used
        except ProblemError:
            continue
        if differs and value.upper() != "C1":
            what = f"{name} is {value}, and refine3D.sym_name is {used}: {used} is used."
            yield Problem(what, name, used, "Write the same point group into all blocks.", "warning")


CHECKS = (check_max_dose, check_symmetry)
