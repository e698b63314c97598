"""How long RELION's programs take, before they run: pure functions of a data set's plan.

The formulas count what RELION does most often; docs/time.md has what they are held against. A search compares every
image with every orientation and offset of the first pass, in the pixels that are in use; the second pass, at half the
step, looks at those that are likely. How many these are depends on the data, so their share is part of the constant,
and the largest part of what is not known before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, pi
from typing import Any

import numpy as np

from py2rely_core.data.symmetry import group_order
from py2rely_core.judging.class_test import MOST_ASKED, MOST_AVERAGED
from py2rely_core.parameters.sampling import healpix_order
from py2rely_core.planning.resources import option_value

#: Where the constants were measured; a core of another kind may be several times as fast.
MEASURED_ON = "one kind of CPU (AMD EPYC, RELION 5.1, double precision)"
#: Seconds of a core per image, orientation, offset and pixel in use, with the second pass.
SAMPLE = 3e-8
#: Seconds of a core per pixel of an image's box and reference, in each iteration: transforms, CTF, sums.
IMAGE = 2e-6
#: Seconds per voxel of a padded reference: the map of an iteration.
MAP = 6e-7
#: Seconds that an iteration takes without images.
ITERATION = 1.0
#: Seconds that a program takes without images.
PROGRAM = 0.5
#: Seconds of a core per pixel: of particle images that are extracted, averaged, CTF-refined, aligned; of tilt images.
EXTRACTED, AVERAGED, CTF_REFINED, ALIGNED, READ = 1.5e-7, 2e-7, 4e-7, 4.5e-7, 4e-8
#: Seconds of a core per voxel of an average's grid: half maps and their sum.
AVERAGE = 6e-6
#: Seconds per voxel and orientation that is tried where a model's axes are looked for, and the box that it is done in.
AXES, AXES_BOX = 5.4e-7, 64
#: Auto-refinement has so many iterations with its first sampling, and with each finer one (median of what was seen).
FIRST_ITERATIONS, MORE_ITERATIONS = 3, 2
#: It ends so many healpix orders beyond the one that box and diameter need.
FINER = 3
#: Offsets once RELION chooses them by their accuracy (median of what was seen; 7 to 171 were).
CHOSEN_OFFSETS = 57
#: Of gradient descent: shares of the iterations with few, more and many particles, and how many these are, as share of
#: all, least and most (``--grad_ini_subset``, ``--grad_fin_subset`` in RELION's ``src/ml_optimiser.cpp``).
PHASES = (0.3, 0.5, 0.2)
FEW, MANY = (0.005, 200, 5_000), (0.1, 1_000, 50_000)
#: Nine of ten refinements took no more and no less than this factor away from the forecast, before the run, and scaled
#: by its own iterations.
UNSCALED, SCALED = 4.0, 2.0
_JOB = re.compile(r"(?P<kind>\w+)/bin(?P<binning>\d+)(?:_(?P<more>\w+))?")


@dataclass(frozen=True)
class Effort:
    """What a job's RELION programs take with the cores that are planned for them.

    Attributes
    ----------
    kind : {"search", "model", "GPU search", "GPU model", "tilt series"}
        What has one scale between formula and machine.
    parts : tuple of float
        Seconds of each iteration of a search; of the whole for others.
    base, per_sample : float
        Seconds of an iteration with all images, and what each pair of orientation and offset adds; 0 where iterations
        differ in their images.
    """

    kind: str
    parts: tuple[float, ...]
    base: float = 0.0
    per_sample: float = 0.0

    @property
    def seconds(self) -> float:
        """Of all parts."""
        return sum(self.parts)

    @property
    def on_gpu(self) -> bool:
        """Whether it needs GPUs, for which no constants were measured."""
        return self.kind.startswith("GPU")

    def iteration(self, number: int, samples: int | None) -> float:
        """Seconds of an iteration, counted from 1, with the samples that RELION said it has; as planned if None."""
        if samples is not None and self.per_sample:
            return self.base + self.per_sample * samples
        return self.parts[min(number, len(self.parts)) - 1]


def effort_of(job: str, dataset: dict[str, Any]) -> Effort | None:
    """What a job of a data set takes; None for one whose RELION programs are not forecast, or that has none.

    Parameters
    ----------
    job : str
        Such as ``Refine3D/bin4``.
    dataset : dict
        A data set of ``plan.json``; its ``workload`` is one of :class:`py2rely_core.planning.resources.Workload`.
    """
    found = _JOB.fullmatch(job)
    work = dataset.get("workload")
    if not found or not work:
        return None
    level = next((one for one in dataset["levels"] if one["binning"] == int(found["binning"])), None)
    forecast = _KINDS.get(found["kind"])
    return forecast(level, dataset, work, found["more"] or "") if level and forecast else None


def offsets(offset_range: float, offset_step: float) -> int:
    """Offsets of the first pass: points of a cubic grid within a sphere (``HealpixSampling::setTranslations``).

    Parameters
    ----------
    offset_range, offset_step : float
        Pixels, as on RELION's command line.
    """
    most = int(offset_range / offset_step)
    axis = np.arange(-most, most + 1) ** 2
    return int((axis[:, None, None] + axis[:, None] + axis <= (offset_range / offset_step) ** 2 + 1e-6).sum())


def orientations(order: int, symmetry: str) -> float:
    """Orientations of the first pass of a global search: ``12 * 4^order`` views of ``6 * 2^order`` in-plane angles.

    Parameters
    ----------
    order : int
        Healpix order before oversampling.
    symmetry : str
        Point group; each view has one place in its asymmetric unit.
    """
    return max(1.0, 12 * 4**order / group_order(symmetry)) * 6 * 2**order


def orientations_around(order: int, sigma: float) -> float:
    """Orientations within three standard deviations (``selectOrientationsWithNonZeroPriorProbability``).

    Parameters
    ----------
    order : int
        Healpix order before oversampling.
    sigma : float
        Degrees.
    """
    steps = 3 * sigma / step(order)
    return max(1.0, pi * steps**2) * max(1, 2 * ceil(steps) - 1)


def step(order: int) -> float:
    """Degrees between orientations of a healpix order."""
    return 60 / 2**order


def window(box: int, pixel_size: float, resolution: float | None) -> int:
    """Edge of the transform that is in use: to a resolution and ten shells beyond it, at most the box.

    Parameters
    ----------
    box : int
        Pixels.
    pixel_size, resolution : float
        Angstrom; None where nothing is left out.
    """
    return min(box, 2 * (ceil(box * pixel_size / resolution) + 10)) if resolution else box


def _refine(level: dict[str, Any], dataset: dict[str, Any], work: dict[str, Any], more: str) -> Effort:
    return _search(level["refine"], level, _images(level, work), list(_auto_samplings(level)))


def _auto_samplings(level: dict[str, Any]) -> Iterator[tuple[float, float | None]]:
    """Of each iteration of an auto-refinement: orientations times offsets, and the resolution that is in use.

    RELION goes on to the next order when neither resolution nor poses change any more, searches around known
    orientations from an order on, and ends beyond the accuracy that it finds; then both halves are joined for one more
    iteration (``MlOptimiser::updateAngularSampling`` in ``src/ml_optimiser.cpp``).
    """
    block = level["refine"]
    first, local = (
        int(option_value(block, "--healpix_order", 2)),
        int(option_value(block, "--auto_local_healpix_order", 4)),
    )
    needed = healpix_order(level["pixel_size"], 1, level["diameter"]) + FINER
    last = max(first, local, needed)
    sigma = option_value(block, "--sigma_ang", 0) or step(first)
    around = orientations_around(first, sigma) if first >= local else orientations(first, block["symmetry"])
    samples = around * _first_offsets(block)
    yield from [(samples, block["low_pass"])] * FIRST_ITERATIONS
    for order in range(first + 1, last + 1):
        around = orientations_around(order, step(order)) if order >= local else orientations(order, block["symmetry"])
        samples = around * CHOSEN_OFFSETS
        yield from [(samples, None)] * MORE_ITERATIONS
    yield samples, None


def _classify(level: dict[str, Any], dataset: dict[str, Any], work: dict[str, Any], more: str) -> Effort | None:
    images = _images(level, work)
    if more.startswith("template"):
        block = dataset["initial_reference"]
        low_pass = block["low_pass"]
        images /= len(block["halves"])
    elif level.get("classification"):
        block, low_pass = level["classification"]["run"], None
    else:
        return None
    number = re.fullmatch(r"k(\d+)", more)
    block = block | ({"classes": int(number[1])} if number else {})
    return _search(block, level, images, [(_fixed_samples(block), low_pass)] * block["iterations"])


def _initial_model(level: dict[str, Any], dataset: dict[str, Any], work: dict[str, Any], more: str) -> Effort:
    block = dataset["initial_reference"]
    samples = _fixed_samples(block | {"symmetry": block["search_symmetry"]})
    few, many = (min(work["particles"], max(least, min(most, share * work["particles"]))) for share, least, most in
                 (FEW, MANY))  # fmt: skip
    numbers = np.repeat((few, (few + many) / 2, many), np.round(np.array(PHASES) * block["iterations"]).astype(int))
    each = 1 if _are_volumes(level) else work["tilts"]
    parts = [_search(block, level, number * each, [(samples, None)]).seconds for number in numbers]
    axes = AXES * block["alignment_trials"] * min(level["size"], AXES_BOX) ** 3
    return Effort(_kind(block, "model"), (*parts, axes))


def _test(level: dict[str, Any], dataset: dict[str, Any], work: dict[str, Any], more: str) -> Effort | None:
    block = level.get("orientations")
    if not block:
        return None
    images = min(work["particles"], block["most"]) * work["tilts"]
    half = _search(block, level, images / 2, [(_fixed_samples(block), block["finest"])])
    return Effort(half.kind, half.parts * 2)


def _class_test(level: dict[str, Any], dataset: dict[str, Any], work: dict[str, Any], more: str) -> Effort | None:
    """Averages of classes within each half set, then images against all of them; nothing is searched."""
    block = (level.get("classification") or {}).get("test")
    if not block:
        return None
    number = re.fullmatch(r"k(\d+)", more)
    block = block | ({"classes": int(number[1])} if number else {})
    averaged, asked = (min(work["particles"], 2 * most * block["classes"]) for most in (MOST_AVERAGED, MOST_ASKED))
    averages = _search(block | {"classes": 1}, level, averaged * work["tilts"], [(0, None)])
    votes = _search(block, level, asked * work["tilts"], [(0, None)])
    return Effort(votes.kind, averages.parts + votes.parts)


def _search(
    block: dict[str, Any], level: dict[str, Any], images: float, iterations: list[tuple[float, float | None]]
) -> Effort:
    """A run of ``relion_refine``.

    Parameters
    ----------
    block, level : dict
        Of the plan.
    images : float
        Of all particles.
    iterations : list of (float, float or None)
        Orientations times offsets of the first pass, 0 without a search; resolution to which images are compared.
    """
    followers, classes = max(1, block.get("ranks", 1) - 1), int(block.get("classes") or 1)
    box, compared = level["size"], images * classes / (followers * block["threads"])
    maps = ceil(classes / followers) * (option_value(block, "--pad", 2) * box) ** 3
    dimensions, share = (3, pi / 12) if _are_volumes(level) else (2, pi / 8)  # half a ball, or half a disc
    base = IMAGE * compared * box**dimensions + MAP * maps + ITERATION
    per_pixel = SAMPLE * compared * share
    parts = tuple(
        base + per_pixel * window(box, level["pixel_size"], low_pass) ** dimensions * samples
        for samples, low_pass in iterations
    )
    return Effort(_kind(block, "search"), parts, base, per_pixel * box**dimensions)


def _fixed_samples(block: dict[str, Any]) -> float:
    """Orientations times offsets where all iterations have the same."""
    if "--skip_align" in block["options"].split():
        return 0.0
    order, sigma = int(option_value(block, "--healpix_order", 2)), option_value(block, "--sigma_ang", 0)
    around = orientations_around(order, sigma) if sigma else orientations(order, block["symmetry"])
    return around * _first_offsets(block)


def _first_offsets(block: dict[str, Any]) -> int:
    return offsets(option_value(block, "--offset_range", 6), option_value(block, "--offset_step", 2))


def _kind(block: dict[str, Any], kind: str) -> str:
    return f"GPU {kind}" if block["gpus"] else kind


def _extract(level: dict[str, Any], dataset: dict[str, Any], work: dict[str, Any], more: str) -> Effort:
    return _of_tilt_series(level["extract"], work, EXTRACTED, 0)


def _average(level: dict[str, Any], dataset: dict[str, Any], work: dict[str, Any], more: str) -> Effort:
    return _of_tilt_series(level["reconstruct"], work, AVERAGED, AVERAGE)


def _ctf_refine(level: dict[str, Any], dataset: dict[str, Any], work: dict[str, Any], more: str) -> Effort | None:
    block = (dataset.get("polishing") or {}).get("ctf_refine")
    return _of_tilt_series(block, work, CTF_REFINED, 0) if block else None


def _align(level: dict[str, Any], dataset: dict[str, Any], work: dict[str, Any], more: str) -> Effort | None:
    block = (dataset.get("polishing") or {}).get("polish")
    return _of_tilt_series(block, work, ALIGNED, 0) if block else None


def _of_tilt_series(block: dict[str, Any], work: dict[str, Any], per_pixel: float, per_voxel: float) -> Effort:
    """A program that reads all tilt images and works on every particle's; groups one after another."""
    width, height = work["image"]
    read = READ * work["tilt_series"] * work["tilts"] * width * height
    worked = per_pixel * work["particles"] * work["tilts"] * block["box"] ** 2
    core = (read + worked) / (block["ranks"] * block["threads"]) + per_voxel * block["box"] ** 3 / block["threads"]
    return Effort("tilt series", (core + block["groups"] * PROGRAM,))


def _images(level: dict[str, Any], work: dict[str, Any]) -> float:
    return float(work["particles"] * (1 if _are_volumes(level) else work["tilts"]))


def _are_volumes(level: dict[str, Any]) -> bool:
    return level["extract"].get("images", "stacks") != "stacks"


_KINDS = {
    "Extract": _extract,
    "Reconstruct": _average,
    "Refine3D": _refine,
    "Class3D": _classify,
    "ClassTest": _class_test,
    "InitialModel": _initial_model,
    "Orientations": _test,
    "CtfRefine": _ctf_refine,
    "Polish": _align,
}
