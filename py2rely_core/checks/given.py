"""Checks of what a run from existing results begins with."""

from __future__ import annotations

from collections.abc import Iterator

from py2rely_core.checks.context import CheckContext
from py2rely_core.data.geometry import ANGLES
from py2rely_core.data.tables import read_star
from py2rely_core.maps.io import read_map
from py2rely_core.maps.masks import is_degenerate
from py2rely_core.problems import Problem, ProblemError


def check_refined(context: CheckContext) -> Iterator[Problem]:
    """Particles that are refined or polished at bin 1 have orientations and half sets."""
    particles = context.inputs.particles
    if context.start == "picks" or particles.empty:
        return
    missing = [label for label in (*ANGLES, "rlnRandomSubset") if label not in particles]
    if missing:
        what = f"The particles are not from a refinement: {', '.join(missing)} are missing."
        fix = "Give the run_data.star of a Refine3D, or start from picks."
        yield Problem(what, str(context.inputs.particles_file), f"start = {context.start}: refined particles", fix)


def check_mask(context: CheckContext) -> Iterator[Problem]:
    """The user's mask is a map with values from 0 to 1."""
    path = context.given.get("mask")
    if path is None:
        return
    try:
        mask = read_map(path).data
    except ProblemError as error:
        yield from error.problems
        return
    if is_degenerate(mask) or mask.min() < -0.1 or mask.max() > 1.1 or mask.max() < 0.5:
        what = f"The mask has values from {mask.min():g} to {mask.max():g}."
        yield Problem(
            what, str(path), "from 0 to 1, and not everywhere the same", "Write a mask with relion_mask_create."
        )


def check_motion(context: CheckContext) -> Iterator[Problem]:
    """There is a trajectory for every particle."""
    path = context.given.get("motion")
    if path is None:
        return
    try:
        blocks = read_star(path)
    except ProblemError as error:
        yield from error.problems
        return
    count, expected = len([name for name in blocks if name != "general"]), len(context.inputs.particles)
    if expected and count != expected:
        what = f"There are {count} trajectories for {expected} particles."
        fix = "Give the motion.star of the polishing that these particles come from."
        yield Problem(what, str(path), "one for each particle", fix)


CHECKS = (check_refined, check_mask, check_motion)
