"""Particles twice, each time with one part of their tilts: two looks at a particle, whose noise is independent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd

from py2rely_core.data.tables import Blocks, read_star, write_star
from py2rely_core.problems import ProblemError
from py2rely_core.relion.outputs.job import bad_output
from py2rely_core.relion.outputs.tilt_series import tilt_tables

#: A particle with fewer images is not divided: each part needs some.
LEAST_IMAGES = 4
#: Tilts in their order of exposure, so that both parts have as much dose, and angles from everywhere.
PARTS = np.array([0, 1, 1, 0])
_NAME = "rlnTomoParticleName"


def parts_of(doses: np.ndarray) -> np.ndarray:
    """To which part each image of a particle belongs, (n,) of 0 and 1.

    Parameters
    ----------
    doses : (n,) float
        Dose before each image; what is equal keeps its order.
    """
    order = np.argsort(doses, kind="stable")
    parts = np.empty(len(doses), dtype=int)
    parts[order] = PARTS[np.arange(len(doses)) % len(PARTS)]
    return parts


def doses_of(tomograms: Path) -> dict[str, np.ndarray]:
    """Dose before each tilt of each tilt series."""
    return {name: tilts["rlnMicrographPreExposure"].to_numpy() for name, tilts in tilt_tables(tomograms).items()}


def write_halved(blocks: Blocks, particles: pd.DataFrame, doses: dict[str, np.ndarray], path: Path) -> None:
    """Write particles twice, each time with one part of their images; those with too few are left out.

    Parameters
    ----------
    blocks : dict
        Of the particle file; `particles` take the place of its particles.
    particles : DataFrame
        Particles of 2D stacks.
    doses : dict
        As of :func:`doses_of`.
    path : Path
        The STAR file; the images that it names are in ``images/`` beside it.
    """
    images = path.parent / "images" / path.stem
    images.mkdir(parents=True)
    copies = [
        copy
        for number, row in enumerate(particles.to_dict("records"))
        for copy in _copies(row, doses[str(row["rlnTomoName"])], images / str(number))
    ]
    write_star(blocks | {"particles": pd.DataFrame(copies, columns=particles.columns)}, path)


def _copies(row: dict[str, Any], doses: np.ndarray, stem: Path) -> list[dict[str, Any]]:
    """A particle's two rows, each with the stack of one part of its images; none where there are too few.

    Parameters
    ----------
    row : dict
    doses : (n_tilts,) float
        Before each tilt of its series.
    stem : Path
        What the stacks are called, without part and ending.
    """
    visible = np.array([int(one) for one in str(row["rlnTomoVisibleFrames"]).strip("[]").split(",")])
    frames = np.flatnonzero(visible)
    if len(frames) < LEAST_IMAGES:
        return []
    with mrcfile.mmap(row["rlnImageName"], mode="r", permissive=True) as file:
        stack, voxel = np.array(file.data), float(file.voxel_size.x)
    parts = parts_of(doses[frames])
    copies = []
    for part in (0, 1):
        kept = np.zeros_like(visible)
        kept[frames[parts == part]] = 1
        path = stem.with_name(f"{stem.name}_{part}_stack2d.mrcs")
        with mrcfile.new(path) as file:
            file.set_data(stack[parts == part])
            file.set_image_stack()
            file.voxel_size = voxel
        names = {_NAME: f"{row[_NAME]}_{part}", "rlnImageName": str(path)}
        copies.append(row | names | {"rlnTomoVisibleFrames": f"[{','.join(map(str, kept))}]"})
    return copies


def read_halved(job: Path, path: Path, wanted: Callable[[str], bool]) -> pd.DataFrame:
    """What RELION found of particles of :func:`write_halved`, a row each: columns of both parts, ``_0`` and ``_1``.

    Parameters
    ----------
    job : Path
        That is named where the file cannot be read.
    path : Path
        A ``_data.star``.
    wanted : callable
        Which columns.
    """
    try:
        found = read_star(path)["particles"]
    except ProblemError as error:
        raise bad_output(job, f"{path.name} cannot be read: {error}") from error
    names = found[_NAME].astype(str)
    labels = [name for name in found if wanted(name)]
    parts = [
        found.loc[names.str.endswith(f"_{part}"), labels]
        .set_axis(names[names.str.endswith(f"_{part}")].str[:-2], axis="index")
        .add_suffix(f"_{part}")
        for part in (0, 1)
    ]
    return parts[0].join(parts[1], how="inner").rename_axis(_NAME).reset_index()
