"""Half sets that are aligned apart, before there is a refinement that would do so itself."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.relion.outputs.job import bad_output, particles_of, write_numbers


def half_set(source: Path, half: int, job: Path) -> None:
    """Write the particles of one half set, as the job's ``particles.star``.

    Parameters
    ----------
    source : Path
        Particles with ``rlnRandomSubset``.
    half : {1, 2}
    job : Path
        The job that they are for.
    """
    blocks = read_star(source)
    particles = blocks["particles"]
    blocks["particles"] = particles[particles["rlnRandomSubset"].astype(int) == half]
    if blocks["particles"].empty:
        raise bad_output(job, f"half set {half} of {source} has no particles.")
    job.mkdir(parents=True, exist_ok=True)
    write_star(blocks, job / "particles.star")


def join_halves(halves: Sequence[Path], job: Path) -> None:
    """Write the particles of both alignments as one set, and the map of each as ``half1.mrc`` and ``half2.mrc``.

    Parameters
    ----------
    halves : sequence of Path
        The alignments of half sets 1 and 2.
    job : Path
    """
    job.mkdir(parents=True, exist_ok=True)
    tables = [read_star(one / "run_data.star") for one in halves]
    particles = pd.concat([table["particles"] for table in tables], ignore_index=True)
    write_star(tables[0] | {"particles": particles}, job / "particles.star")
    for number, one in enumerate(halves, start=1):
        shutil.copyfile(one / "run_class001.mrc", job / f"half{number}.mrc")
    count = len(particles_of(job, job / "particles.star"))
    inputs = [str(one / "run_data.star") for one in halves]
    write_numbers(job, particles_in=count, particles_out=count, inputs=inputs)
