"""CPUs and memory of a task from what it works on: boxes, images, tilts, ranks and threads.

The formulas count RELION's large arrays (docs/recovery.md names them, with where they are in its source) and are held
against measured peaks by ``benchmarks/memory``. Bytes are those of the double-precision CPU build, the largest.
"""

from __future__ import annotations

import itertools
import shlex
from dataclasses import dataclass, replace
from functools import cache
from math import ceil, pi
from pathlib import Path
from typing import Any

from py2rely_core.data.geometry import SIZES

#: A process with nothing in it: libraries, MPI's buffers.
PROCESS_GB = 0.3
#: Bytes per voxel of a padded Fourier grid, per class: the reference's transform (8), the data (8) and weights (4) that
#: are summed, and as much again while sums are sent between ranks and the map is made.
PADDED_BYTES = 48
#: Bytes per voxel of the unpadded grid, per class: the maps.
MAP_BYTES = 64
#: Bytes of a particle's row in the tables that every rank holds.
PARTICLE_BYTES = 4000
#: Unbinned pixels of a tomogram's thickness where tables do not say it.
TOMOGRAM_DEPTH = 1200.0
#: On top of the formulas, as shares of their result.
MARGIN = 1.25


@dataclass(frozen=True)
class Workload:
    """What a data set is made of.

    Attributes
    ----------
    particles : int
        Particles.
    tilts : int
        Most tilts of a series.
    image : (int, int)
        Pixels of a tilt image.
    tilt_series : int
        Tilt series that hold particles.
    voxels : float
        Of the largest tomogram, unbinned; 0 where tables do not say it.
    """

    particles: int = 10_000
    tilts: int = 60
    image: tuple[int, int] = (4096, 4096)
    tilt_series: int = 1
    voxels: float = 0.0


def translations(offset_range: float, offset_step: float) -> int:
    """Offsets within the search range, in three dimensions, oversampled twofold in each."""
    return max(1, round(4 / 3 * pi * (offset_range / offset_step) ** 3)) * 8


def refine_memory(
    box: int, work: Workload, ranks: int, threads: int, offsets: int = 216, classes: int = 1, pad: int = 2
) -> float:
    """Memory of ``relion_refine`` with all its ranks, in GB.

    Parameters
    ----------
    box : int
        Edge of maps and particle images, pixels.
    work : Workload
        The data set.
    ranks, threads : int
        MPI ranks, of which the first of several leads and holds no reference, and threads per rank.
    offsets : int
        Translations that are tried, with oversampling: their shifted images are kept for the particle at hand.
    classes : int
        References.
    pad : int
        Padding of the references' transforms.
    """
    tables = work.particles * PARTICLE_BYTES
    references = classes * (PADDED_BYTES * (pad * box) ** 3 + MAP_BYTES * box**3)
    image = box * (box // 2 + 1) * 16 * work.tilts
    rank = references + tables + threads * image * (offsets + 4)
    working = max(1, ranks - 1)
    return (working * rank + tables) / 1e9 + ranks * PROCESS_GB


def tomo_memory(box: int, work: Workload, ranks: int, threads: int, sums: bool = False) -> float:
    """Memory of a program that works tilt series by tilt series, with all its ranks, in GB.

    Parameters
    ----------
    box : int
        Edge of what is cut out, pixels of the binned grid.
    work : Workload
        The data set.
    ranks, threads : int
        MPI ranks and threads per rank.
    sums : bool
        Whether it sums up an average: each thread then holds both halves' data and weights.
    """
    stack = 8 * work.tilts * work.image[0] * work.image[1]
    image = box * (box // 2 + 1) * work.tilts * 16
    half_grid = box * box * (box // 2 + 1)
    grids = (threads * 2 * 3 * 8 + 2 * 3 * 8) * half_grid + 5 * 8 * box**3 if sums else 0
    rank = stack + threads * image + grids + work.particles * PARTICLE_BYTES / 2
    return ranks * (rank / 1e9 + PROCESS_GB)


def map_memory(box: int) -> float:
    """Memory of masking and post-processing, in GB: a few maps and their transforms."""
    return 160 * box**3 / 1e9 + PROCESS_GB


def add_memory(plan: dict[str, Any], work: Workload) -> None:
    """Add ``memory`` (GB) to every block of a data set's plan that a RELION program is run with.

    Blocks with a box of their own are those of programs that work on tilt series; the others are refinements.

    Parameters
    ----------
    plan : dict
        As :func:`py2rely_core.planning.plan.plan_dataset` returns it; changed.
    work : Workload
        The data set.
    """
    for level in plan["levels"]:
        classification, images = level.get("classification") or {}, level["extract"]["images"]
        # A volume has as many sections as a stack has tilts.
        of_level = work if images == "stacks" else replace(work, tilts=max(work.tilts, level["size"]))
        for name, block in [*level.items(), *classification.items()]:
            _add(block, name, level["size"], of_level)
        if images == "subtomograms":
            needed = granted(tomogram_memory(level["binning"], work))
            level["extract"]["memory"] = max(needed, level["extract"]["memory"])
        level["mask"]["memory"] = granted(map_memory(level["size"]))
    first, last = plan["levels"][0]["size"], plan["levels"][-1]["size"]
    _add(plan["initial_reference"], "initial_reference", first, work)
    for name, block in (plan.get("polishing") or {}).items():
        _add(block, name, last, work)
    local = plan["map_analysis"]["local_resolution"]
    if local:
        local["memory"] = granted(local["ranks"] * map_memory(last))


def tomogram_memory(binning: float, work: Workload) -> float:
    """Memory of RELION's making one tomogram and of cutting particles out of it, in GB: images, a few copies of it."""
    area = work.image[0] * work.image[1]
    voxels = (work.voxels or area * TOMOGRAM_DEPTH) / binning**3
    return (8 * work.tilts * area + 24 * voxels) / 1e9 + 2 * PROCESS_GB


def class2d_memory(box: int, work: Workload, threads: int, classes: int, offsets: int = 400) -> float:
    """Memory of a 2D classification, in GB; as :func:`refine_memory` in two dimensions, with all views in plane."""
    references = classes * (PADDED_BYTES * (2 * box) ** 2 + MAP_BYTES * box**2)
    image = box * (box // 2 + 1) * 16
    return (references + work.particles * PARTICLE_BYTES + threads * image * (offsets + 4)) / 1e9 + PROCESS_GB


def add_slab_memory(slabs: dict[str, Any], tomograms: Any, work: Workload) -> None:
    """Add ``memory`` (GB) to a plan's cutting and classification of slabs.

    Parameters
    ----------
    slabs : dict
        As :func:`py2rely_core.planning.plan.plan_dataset` returns it; changed.
    tomograms : DataFrame
        The tilt series.
    work : Workload
        The data set.
    """
    settings = slabs["cut"]["settings"]
    binning = settings["binning"]
    slabs["cut"]["memory"] = granted(tomogram_memory(binning, work))
    pixel = (
        binning * float(tomograms["rlnTomoTiltSeriesPixelSize"].max())
        if "rlnTomoTiltSeriesPixelSize" in tomograms
        else 5
    )
    for block in slabs["rounds"]:
        block["memory"] = granted(
            class2d_memory(ceil(settings["box"] / pixel), work, block["threads"], block["classes"])
        )


def _add(block: Any, name: str, size: int, work: Workload) -> None:
    if not isinstance(block, dict) or "threads" not in block:
        return
    if "box" in block:
        # CTF refinement and polishing hold maps of the box, as an average does.
        memory = tomo_memory(block["box"], work, block["ranks"], block["threads"], sums=name != "extract")
        block["memory"] = granted(memory)
    else:
        block["memory"] = _refinement(block, size, work)


def _refinement(block: dict[str, Any], box: int, work: Workload) -> int:
    offsets = translations(option_value(block, "--offset_range", 6), option_value(block, "--offset_step", 2))
    pad, classes = int(option_value(block, "--pad", 2)), int(block.get("classes") or 1)
    return granted(refine_memory(box, work, block.get("ranks", 1), block["threads"], offsets, classes, pad))


def option_value(block: dict[str, Any], option: str, default: float) -> float:
    """An option's value in a block's options; the last one counts, as for RELION."""
    values = [value for word, value in itertools.pairwise(_words(block["options"])) if word == option]
    return float(values[-1]) if values else default


@cache
def _words(options: str) -> tuple[str, ...]:
    return tuple(shlex.split(options))


def granted(gigabytes: float) -> int:
    """What is asked for: the formula with its margin, in whole GB."""
    return max(1, ceil(MARGIN * gigabytes))


def workload_of(particles: int, tilts: int, stacks: list[Path], tilt_series: int = 1, tomograms: Any = ()) -> Workload:
    """The size of a data set; images as large as the largest of a sample of its stacks (RELION's own: 4096 squared).

    Parameters
    ----------
    particles, tilts, tilt_series : int
        As in :class:`Workload`; 0 tilts for its default.
    stacks : list of Path
        The tilt series' images.
    tomograms : DataFrame
        The tilt series.
    """
    import mrcfile

    sizes = []
    for path in stacks[:: max(1, len(stacks) // 20)]:
        try:
            with mrcfile.open(path, header_only=True, permissive=True) as mrc:
                sizes.append((int(mrc.header.nx), int(mrc.header.ny)))
        except (OSError, ValueError):
            continue  # the checks report it
    image = max(sizes, key=lambda size: size[0] * size[1], default=Workload.image)
    known = set(SIZES) <= set(tomograms) and len(tomograms)
    voxels = float(tomograms[SIZES].astype(float).prod(axis=1).max()) if known else 0.0
    return Workload(particles, tilts or Workload.tilts, image, tilt_series, voxels)
