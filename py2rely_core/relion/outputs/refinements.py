"""What a refinement or a classification must have left behind, and what it says of itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import pandas as pd

from py2rely_core.data.tables import read_star
from py2rely_core.maps.io import read_images, read_map
from py2rely_core.problems import ProblemError
from py2rely_core.relion.outputs.job import bad_output, check_map, particles_of, write_numbers

#: A classification that moved fewer of its particles out of the classes that RELION drew for them at random is stuck.
STUCK = 0.05
#: Cells of the angular distribution.
ROT_CELLS, TILT_CELLS = 36, 18


def check_refinement(job: Path, particles: Path, reference: Path, maps: list[str]) -> dict[str, Any]:
    """A refinement or classification: as many particles as went in, maps on the reference's grid, a model."""
    before, after = particles_of(job, particles), particles_of(job, job / "run_data.star")
    if len(before) != len(after):
        raise bad_output(job, f"{len(before)} particles went in, {len(after)} came out.")
    start = read_map(reference)
    for name in maps:
        check_map(job, job / name, start.data.shape[0], start.pixel_size)
    return {"particles_in": len(before), "particles_out": len(after), "reference": str(reference)}


def check_refine(job: Path, particles: Path, reference: Path, reason: str = "") -> None:
    """An auto-refinement that converged; why it searched as it did is noted where that is said."""
    maps = ["run_class001.mrc", "run_half1_class001_unfil.mrc", "run_half2_class001_unfil.mrc"]
    numbers = check_refinement(job, particles, reference, maps)
    general = read_star(job / "run_model.star")["model_general"].iloc[0]
    iterations = len(list(job.glob("run_it*_half1_model.star")))
    history = [
        float(read_star(path)["model_classes"]["rlnEstimatedResolution"].iloc[0])
        for path in sorted(job.glob("run_it*_half1_model.star"))
    ]
    write_numbers(
        job,
        **numbers,
        **({"warnings": [reason]} if reason else {}),
        resolution=float(general["rlnCurrentResolution"]),
        iterations=iterations,
        history=[value if math.isfinite(value) else None for value in history],
        angles=viewing_directions(read_star(job / "run_data.star")["particles"]),
    )


def viewing_directions(particles: pd.DataFrame) -> dict[str, Any]:
    """Where the particles are seen from: counts in cells of equal area on the sphere.

    Parameters
    ----------
    particles : DataFrame
        Rows of a STAR file.

    Returns
    -------
    dict
        ``{"rot": edges in degrees, "tilt": edges in degrees, "counts": rows of `tilt`, columns of `rot`}``; the tilt's
        edges are equidistant in its cosine.
    """
    from py2rely_core.data.geometry import matrix_to_euler, orientations

    rot, tilt, _ = matrix_to_euler(orientations(particles)).T
    rot_edges = np.linspace(-180, 180, ROT_CELLS + 1)
    height = np.linspace(1, -1, TILT_CELLS + 1)
    wrapped = (rot + 180) % 360 - 180
    counts, _, _ = np.histogram2d(-np.cos(np.radians(tilt)), wrapped, bins=(-height, rot_edges))
    edges = np.degrees(np.arccos(height))
    return {"rot": rot_edges.round(3).tolist(), "tilt": edges.round(3).tolist(), "counts": counts.astype(int).tolist()}


def finish_classification(job: Path, iterations: int) -> None:
    """Give the last iteration's files the names that a refinement gives its result."""
    last = f"run_it{iterations:03d}"
    for suffix in ("data.star", "model.star", *[path.name[len(last) + 1 :] for path in job.glob(f"{last}_class*.mrc")]):
        source = job / f"{last}_{suffix}"
        if not source.is_file():
            raise bad_output(job, f"{source.name} was not written.")
        (job / f"run_{suffix}").unlink(missing_ok=True)
        (job / f"run_{suffix}").hardlink_to(source)


def check_classes(job: Path, particles: Path, reference: Path, classes: int) -> None:
    """A classification: every particle has a class; of the classes' maps, at least one holds something."""
    numbers = check_refinement(job, particles, reference, [])
    broken = []
    for number in range(1, classes + 1):
        try:
            check_map(job, job / f"run_class{number:03d}.mrc")
        except ProblemError as error:
            broken.append(error)
    if len(broken) == classes:
        raise broken[0]
    moved = share_moved(job)
    write_numbers(job, **numbers, **_stuck_warnings(moved), class_count=classes, moved=moved)


def share_moved(job: Path) -> float | None:
    """Share of the particles that a classification moved since its first iteration, which draws classes at random.

    None where that iteration's table is not there, or particles have no names.
    """
    first = job / "run_it001_data.star"
    if not first.is_file():
        return None
    drawn, ended = (read_star(table)["particles"] for table in (first, job / "run_data.star"))
    if "rlnTomoParticleName" not in ended:
        return None
    before, after = (one.set_index("rlnTomoParticleName")["rlnClassNumber"].astype(int) for one in (drawn, ended))
    return round(float((before.reindex(after.index) != after).mean()), 4)


def is_stuck(moved: float | None) -> TypeGuard[float]:
    """Whether a classification left its particles where RELION had drawn them (see :data:`STUCK`)."""
    return moved is not None and moved < STUCK


def _stuck_warnings(moved: float | None) -> dict[str, list[str]]:
    """What ``job.json`` says of a classification that is stuck; nothing of others."""
    if not is_stuck(moved):
        return {}
    text = (
        f"{1 - moved:.0%} of the particles are in the classes that RELION drew for them at random in its first "
        "iteration: the classification decided nothing. A coarser start (classification.low_pass), fewer classes "
        "(class3D.nr_classes), a smaller class3D.tau_fudge or more particles may."
    )
    return {"warnings": [text]}


def check_class2d(job: Path, particles: Path, iterations: int, classes: int) -> None:
    """A 2D classification: every image has a class; of the averages, at least one holds something."""
    from py2rely_core.maps.masks import is_degenerate

    stem = f"run_it{iterations:03d}"
    missing = [n for n in ("data.star", "model.star", "classes.mrcs") if not (job / f"{stem}_{n}").is_file()]
    if missing:
        raise bad_output(job, f"{stem}_{missing[0]} was not written.")
    before, after = particles_of(job, particles), particles_of(job, job / f"{stem}_data.star")
    if len(before) != len(after):
        raise bad_output(job, f"{len(before)} images went in, {len(after)} came out.")
    try:
        averages, _ = read_images(job / f"{stem}_classes.mrcs")
    except ProblemError as error:
        raise bad_output(job, f"{stem}_classes.mrcs cannot be read: {error}.") from error
    if len(averages) != classes:
        raise bad_output(job, f"there are {len(averages)} averages, not {classes}.")
    if all(is_degenerate(one) for one in averages):
        raise bad_output(job, "none of the averages holds anything.")
    write_numbers(job, images=len(after), class_count=classes, averages=f"{stem}_classes.mrcs", iterations=iterations)
