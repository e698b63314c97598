"""Checks of what a run from existing results begins with."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from py2rely_core.checks.context import CheckContext, examples
from py2rely_core.data import kinds
from py2rely_core.data.geometry import ANGLES
from py2rely_core.data.inputs import from_optimisation_set
from py2rely_core.data.tables import labels_of
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
    """There is a trajectory for every particle, of its name."""
    path = context.given.get("motion")
    if path is None:
        return
    try:
        path = from_optimisation_set(path, "trajectories", context.inputs.project)
        blocks = labels_of(path)
    except ProblemError as error:
        yield from error.problems
        return
    kind = kinds.of_labels((one for labels in blocks.values() for one in labels), blocks)
    particles = context.inputs.particles
    if kind is not None and kind.key != "trajectories":
        yield kinds.problem_of(kind, path, kinds.KINDS["trajectories"].name, "a block for each particle")
        return
    tracks = [name for name in blocks if name != "general"]
    fix = "Give the motion.star of the polishing that these particles come from."
    if len(particles) and "rlnTomoParticleName" not in particles:
        what = "The particles have no names, by which trajectories belong to them."
        yield Problem(what, str(context.inputs.particles_file), "rlnTomoParticleName", fix)
        return
    names = particles["rlnTomoParticleName"].astype(str) if len(particles) else pd.Series(dtype=str)
    without = names[~names.isin(tracks)]
    if len(without):
        what = f"There are {len(tracks)} trajectories for {len(names)} particles: {len(without)} particles have none."
        where = f"{path}: none for {examples(list(without))}"
        yield Problem(what, where, "a block of the name of each particle", fix)


CHECKS = (check_refined, check_mask, check_motion)
