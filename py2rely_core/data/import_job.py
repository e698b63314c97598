"""The Import job of a run: a data set's tables under the names that every later step uses."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from py2rely_core.data.geometry import ANGLES, PRIORS, euler_to_matrix, matrix_to_euler
from py2rely_core.data.inputs import Inputs, from_optimisation_set, load_inputs
from py2rely_core.data.particles import half_sets
from py2rely_core.data.symmetry import has_rotations_only, into_asymmetric_unit
from py2rely_core.data.tables import write_star
from py2rely_core.problems import ExitCode, ProblemError


def import_inputs(
    particles: Path,
    tilt_series: Path,
    project: Path,
    output: Path,
    symmetry: str = "C1",
    motion: Path | None = None,
    bfactor_per_dose: float = 0,
    without: Collection[str] = (),
) -> tuple[Path, Path]:
    """Write a data set's tables under the names that every later step uses, with links to its stacks.

    ``Import/tilt_series`` gets ``tomograms.star``, a STAR file per tilt series and ``stacks/`` with links; their paths
    are relative to `output`, which mirrors a RELION project; trajectories are copied there. ``Select/input`` gets the
    particles, with half sets, and orientations within RELION's asymmetric unit. A `bfactor_per_dose`, A^2 per e/A^2, is
    what RELION then weights images by, in every step. Tilt series `without` are left out, with their particles.

    Raises
    ------
    ProblemError
        The tables cannot be read.
    """
    inputs = load_inputs(particles, tilt_series, project)
    if inputs.problems:
        raise ProblemError(inputs.problems, ExitCode.BAD_INPUT)
    inputs = inputs.without(without)
    job, picks = Path("Import/tilt_series"), Path("Select/input")
    (output / job / "stacks").mkdir(parents=True, exist_ok=True)
    used = set(inputs.particles["rlnTomoName"])
    tomograms = inputs.tomograms[inputs.tomograms["rlnTomoName"].isin(used)].copy()
    files = {}
    for number, name in enumerate(tomograms["rlnTomoName"], start=1):
        files[name] = str(job / "tilt_series" / f"{_file_name(name, number)}.star")
        write_star({name: _linked(inputs, name, number, job, output)}, output / files[name])
    tomograms["rlnTomoTiltSeriesStarFile"] = tomograms["rlnTomoName"].map(files)
    if bfactor_per_dose > 0:
        tomograms["rlnCtfBfactorPerElectronDose"] = bfactor_per_dose
    write_star({"global": tomograms}, output / job / "tomograms.star")
    if motion is not None:
        motion = from_optimisation_set(project / motion, "trajectories", project)
        shutil.copyfile(motion, output / job / "motion.star")
    particles_table = inputs.particles.drop(columns="rlnImageName", errors="ignore")
    if "rlnRandomSubset" not in particles_table:
        # Half sets from the start, so that known orientations give two independent half maps.
        particles_table = particles_table.assign(rlnRandomSubset=half_sets(particles_table))
    particles_table = _within_asymmetric_unit(particles_table, symmetry)
    tables = {"optics": inputs.optics, "particles": particles_table}
    write_star(tables, output / picks / "particles.star")
    return output / job, output / picks


def _within_asymmetric_unit(particles: pd.DataFrame, symmetry: str) -> pd.DataFrame:
    """Orientations within RELION's asymmetric unit, and the priors on tilt and psi turned with them."""
    if not set(ANGLES) <= set(particles) or not has_rotations_only(symmetry):
        return particles
    own = euler_to_matrix(particles[ANGLES].to_numpy(dtype=float))
    moved = into_asymmetric_unit(own, symmetry)
    columns = dict(zip(ANGLES, matrix_to_euler(moved).T, strict=True))
    priors = {label: particles[prior] for label, prior in PRIORS.items() if prior in particles}
    if priors:
        held = euler_to_matrix(particles[ANGLES].assign(**priors).to_numpy(dtype=float))
        turned = matrix_to_euler(held @ own.transpose(0, 2, 1) @ moved)
        changed = ~np.isclose(own, moved).all(axis=(1, 2))
        columns |= {
            PRIORS[label]: np.where(changed, turned[:, ANGLES.index(label)], values) for label, values in priors.items()
        }
    return particles.assign(**columns)


def _file_name(name: str, number: int) -> str:
    """A file name without characters that RELION's programs or shells take for something else."""
    safe = "".join(char if char.isalnum() or char in "._-" else "_" for char in name)
    return safe if safe == name else f"{safe}_{number}"


def _linked(inputs: Inputs, name: str, number: int, job: Path, output: Path) -> Any:
    from py2rely_core.data.tables import resolve, split_image_name

    series = inputs.tilt_series[name]
    tilts, links = series.tilts.copy(), {}
    images = []
    for image in tilts["rlnMicrographName"]:
        section, file = split_image_name(image)
        if file not in links:
            suffix = f"_{len(links)}" if links else ""
            links[file] = job / "stacks" / f"{_file_name(name, number)}{suffix}.mrcs"
            link = output / links[file]
            link.unlink(missing_ok=True)
            link.symlink_to(resolve(file, series.star_file, inputs.project).resolve())
        images.append(f"{section}@{links[file]}")
    tilts["rlnMicrographName"] = images
    return tilts
