"""Checks of parameters that are possible, but may not do what is expected of them."""

from __future__ import annotations

from collections.abc import Iterator

from py2rely_core.checks.context import CheckContext
from py2rely_core.data.geometry import PRIORS
from py2rely_core.data.symmetry import parse_point_group
from py2rely_core.data.tables import read_star
from py2rely_core.problems import Problem, ProblemError

#: Columns of a detector's MTF, as ``relion_postprocess`` reads them.
MTF = ("rlnResolutionInversePixel", "rlnMtfValue")


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


def check_priors(context: CheckContext) -> Iterator[Problem]:
    """Priors have their columns, and columns of priors are used."""
    recipe, table, where = context.recipe, context.inputs.particles, str(context.inputs.particles_file)
    widths = {
        "rlnAngleTilt": ("priors.sigma_tilt", recipe.priors.sigma_tilt or recipe.class3D.sigma_tilt),
        "rlnAnglePsi": ("priors.sigma_psi", recipe.priors.sigma_psi),
    }
    for label, (field, width) in widths.items():
        prior = PRIORS[label]
        if width > 0 and prior not in table:
            fix = f"Add the column, or set {field} to 0: without it RELION takes {label} for the prior."
            yield Problem(f"{field} is {width:g} degrees, but the particles have no prior.", where, prior, fix)
        if width <= 0 and prior in table:
            fix = f"Set {field} to the width of the prior, degrees, to hold particles to it."
            yield Problem(f"The particles have {prior}, which is not used.", where, f"{field} > 0", fix, "warning")
    if recipe.priors.keep_fixed and not set(PRIORS.values()) & set(table):
        fix = "Add rlnAngleTiltPrior or rlnAnglePsiPrior, or leave out priors.keep_fixed."
        yield Problem("Priors are to be kept fixed, but the particles have none.", where, "a column of priors", fix)


def check_helix(context: CheckContext) -> Iterator[Problem]:
    """Filaments are named, so that half sets do not share one."""
    if context.recipe.helix is not None and "rlnHelicalTubeID" not in context.inputs.particles:
        what = "The particles of filaments do not say which filament they are of: half sets may share one."
        fix = "Add rlnHelicalTubeID: neighbours on a filament overlap, and halves that share them agree too well."
        yield Problem(what, str(context.inputs.particles_file), "rlnHelicalTubeID", fix, "warning")


def check_mtf(context: CheckContext) -> Iterator[Problem]:
    """The detector's MTF is a STAR file with its curve."""
    path = context.recipe.postprocess.fn_mtf
    if not path:
        return
    try:
        columns = {label for table in read_star(path).values() for label in table.columns}
    except ProblemError as error:
        yield from (Problem(one.what, "postprocess.fn_mtf", path, one.fix) for one in error.problems)
        return
    missing = [label for label in MTF if label not in columns]
    if missing:
        what = f"The file holds no MTF: {', '.join(missing)} is missing."
        yield Problem(what, path, " and ".join(MTF), "Give the detector's MTF as RELION reads it (postprocess.fn_mtf).")


CHECKS = (check_max_dose, check_symmetry, check_priors, check_helix, check_mtf)
