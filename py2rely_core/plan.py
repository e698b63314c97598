"""What each level of each data set does: pure functions of the recipe, the data and the machine.

The plan is one JSON document. Each level has one block per kind of step, and the workflow hands each task just the
block that it uses, so that a change re-runs what depends on it and nothing else.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import ceil
from typing import Any

from py2rely_core.boxes import crop_and_box
from py2rely_core.gpus import gpu_names
from py2rely_core.groups import number_of_groups
from py2rely_core.recipe import Block, Recipe
from py2rely_core.sampling import healpix_order, sampling_order

#: Soft edges that are tried, as multiples of ``mask_create.width_mask_edge``, until the mask is wide enough.
EDGE_STEPS = (1, 2, 4, 6, 8)
#: RELION's own default is the time of day: a run that is repeated would then split other half sets.
RANDOM_SEED = "--random_seed 1"


@dataclass(frozen=True)
class Machine:
    """What a task may use.

    Attributes
    ----------
    cpus : int
        CPU cores per task.
    gpus : tuple of int
        GPUs of a task, counted from 0 among those that it is given; empty for none.
    tilt_series_per_task : int or None
        Tilt series of one task, where they are independent; more are worked on in groups. None for the default.
    """

    cpus: int
    gpus: tuple[str, ...] = ()
    tilt_series_per_task: int | None = None

    @classmethod
    def of(cls, cpus: int | None, gpus: object, tilt_series_per_task: int | None = None) -> Machine:
        """The machine as asked for; every core that this process may use when nothing is asked for."""
        # Which of the machine's GPUs a task gets is settled when it starts: for RELION they count from 0.
        names = tuple(str(number) for number in range(len(gpu_names(gpus))))
        return cls(int(cpus or len(os.sched_getaffinity(0))), names, tilt_series_per_task)


def plan_dataset(recipe: Recipe, mode: str, n_tilt_series: int, machine: Machine) -> dict[str, Any]:
    """The whole plan of one data set.

    Parameters
    ----------
    recipe : Recipe
        A valid recipe.
    mode : {"template", "denovo", "known"}
        How the initial reference is made.
    n_tilt_series : int
        Tilt series that hold particles.
    machine : Machine
        What a task may use.

    Returns
    -------
    dict
        ``{"initial_reference": ..., "levels": [...]}``, JSON-ready.
    """
    binnings = recipe.resolutions.binning_list
    levels = [_level(recipe, index, mode, n_tilt_series, machine) for index in range(len(binnings))]
    return {"initial_reference": _initial_reference(recipe, mode, levels[0], machine), "levels": levels}


def refinement_ranks(machine: Machine, threads: int) -> tuple[int, int, str]:
    """MPI ranks, threads per rank and the ``--gpu`` list of an auto-refinement.

    A leader and an equal number of followers for each half set: at least 3 and odd. On GPUs, one follower per GPU, and
    one GPU serves two followers where their number is odd.

    Returns
    -------
    (int, int, str)
        Ranks, threads, GPU list such as ``"0:1:2:0"`` (empty without GPU).
    """
    if machine.gpus:
        followers = 2 * ceil(len(machine.gpus) / 2)
        gpus = ":".join(machine.gpus[rank % len(machine.gpus)] for rank in range(followers))
        return followers + 1, max(1, min(threads, machine.cpus // followers)), gpus
    threads = max(1, min(threads, machine.cpus // 2))
    return 1 + 2 * max(1, machine.cpus // (2 * threads)), threads, ""


def tomo_ranks(machine: Machine, threads: int, n_tilt_series: int) -> tuple[int, int]:
    """MPI ranks and threads of a program that works tilt series by tilt series: never more ranks than tilt series."""
    threads = max(1, min(threads, machine.cpus))
    return max(1, min(n_tilt_series, machine.cpus // threads)), threads


def _level(recipe: Recipe, index: int, mode: str, n_tilt_series: int, machine: Machine) -> dict[str, Any]:
    binning = recipe.resolutions.binning_list[index]
    pixel_size = recipe.resolutions.angpix * binning
    diameter = recipe.refine3D.particle_diameter
    size = crop_and_box(diameter, recipe.resolutions.angpix, binning, recipe.resolutions.box_scaling)
    grid = {"binning": binning, "box": size.box, "crop": size.crop or -1, "pixel_size": pixel_size}
    extract, reconstruct = recipe.block_at(binning, "pseudo_subtomo"), recipe.block_at(binning, "reconstruct")
    return {
        "binning": binning,
        "pixel_size": pixel_size,
        "size": size.size,
        "diameter": diameter,
        "extract": grid | _extract(extract, machine, n_tilt_series),
        "reconstruct": grid | _reconstruct(reconstruct, recipe, machine, n_tilt_series),
        "refine": _refine(recipe, index, mode, machine),
        "select": {"distance": recipe.duplicates.distance_fraction * diameter if index == 0 else 0.0},
        "mask": _mask(recipe, binning, size.size),
        "postprocess": {"options": _postprocess_options(recipe)},
    }


def _extract(block: Block, machine: Machine, n_tilt_series: int) -> dict[str, Any]:
    groups = number_of_groups(n_tilt_series, machine.tilt_series_per_task)
    ranks, threads = tomo_ranks(machine, block.nr_threads, n_tilt_series // groups)
    flags = ["--min_frames 1"]
    flags += ["--float16"] if block.do_float16 else []
    flags += ["--stack2d"] if block.do_output_2dstacks else []
    flags += [f"--max_dose {block.max_dose:g}"] if block.max_dose > 0 else []
    return {"groups": groups, "ranks": ranks, "threads": threads, "options": _join(flags, block)}


def _reconstruct(block: Block, recipe: Recipe, machine: Machine, n_tilt_series: int) -> dict[str, Any]:
    groups = number_of_groups(n_tilt_series, machine.tilt_series_per_task)
    ranks, threads = tomo_ranks(machine, block.nr_threads, n_tilt_series // groups)
    sizes = {"groups": groups, "ranks": ranks, "threads": threads}
    return sizes | {"symmetry": recipe.symmetry, "options": _join([], block)}


def _mask(recipe: Recipe, binning: int, size: int) -> dict[str, Any]:
    block = recipe.block_at(binning, "mask_create")
    edges = sorted({min(step * block.width_mask_edge, size // 6) for step in EDGE_STEPS})
    threshold = "" if block.ini_threshold is None else f"{block.ini_threshold:g}"
    return {"extend": block.extend_inimask, "edges": edges, "threshold": threshold, "options": block.other_args}


def _postprocess_options(recipe: Recipe) -> str:
    block = recipe.postprocess
    flags = [f"--auto_bfac --autob_lowres {block.autob_lowres:g}"] if block.do_auto_bfac else []
    flags += [f"--adhoc_bfac {block.adhoc_bfac:g}"] if block.adhoc_bfac else []
    flags += [f"--mtf {block.fn_mtf}"] if block.fn_mtf else []
    return _join(flags, block)


def _common_options(block: Block) -> list[str]:
    """Flags that refinement, classification and the initial model share, in the reference system's field names."""
    flags = [f"--flatten_solvent --oversampling 1 --norm --scale --pad 2 --pool {block.nr_pool} {RANDOM_SEED}"]
    flags += ["--zero_mask"] if block.do_zero_mask else []
    flags += ["--ctf"] if block.do_ctf_correction else []
    flags += ["--ctf_intact_first_peak"] if block.ctf_intact_first_peak else []
    flags += [] if block.ref_correct_greyscale else ["--firstiter_cc"]
    flags += [] if block.do_combine_thru_disc else ["--dont_combine_weights_via_disc"]
    flags += [f"--offset_range {block.offset_range:g}", f"--offset_step {2 * block.offset_step:g}"]
    return flags


def _refine(recipe: Recipe, index: int, mode: str, machine: Machine) -> dict[str, Any]:
    binning = recipe.resolutions.binning_list[index]
    block = recipe.block_at(binning, "refine3D")
    angles, local = refinement_orders(recipe, index, mode)
    flags = ["--auto_refine --split_random_halves --low_resol_join_halves 40", *_common_options(block)]
    flags += [f"--healpix_order {angles}", f"--auto_local_healpix_order {local}"]
    if index == 0 and mode == "known" and recipe.initial_reference.known_search == "local":
        flags += [f"--sigma_ang {recipe.initial_reference.known_sigma_ang:g}"]
    flags += [f"--relax_sym {block.relax_sym}"] if block.relax_sym else []
    flags += ["--auto_ignore_angles --auto_resol_angles"] if block.auto_faster else []
    # A template or a model of unknown scale is compared by correlation in the first iteration.
    if index == 0 and mode == "template" and not recipe.initial_reference.template_iterations:
        flags += [flag for flag in ["--firstiter_cc"] if flag not in flags]
    ranks, threads, gpus = refinement_ranks(machine, block.nr_threads)
    return {
        "ranks": ranks,
        "threads": threads,
        "gpus": gpus if block.use_gpu else "",
        "symmetry": recipe.symmetry,
        "diameter": recipe.refine3D.particle_diameter,
        "low_pass": block.ini_high if index == 0 else None,
        "options": _join(flags, block),
    }


def refinement_orders(recipe: Recipe, index: int, mode: str) -> tuple[int, int]:
    """Initial and first local healpix order of the refinement at one level.

    The first level uses the recipe's samplings. Later levels, and known orientations, search locally from the start:
    with a sampling from diameter and pixel size, unless the recipe's ``levels`` block says otherwise.

    Returns
    -------
    (int, int)
        Healpix orders before oversampling.
    """
    binning = recipe.resolutions.binning_list[index]
    block = recipe.block_at(binning, "refine3D")
    overridden = recipe.levels.get(str(binning), {}).get("refine3D", {})
    if index == 0:
        local = sampling_order(block.auto_local_sampling)
        if mode == "known" and recipe.initial_reference.known_search == "local":
            return local, local
        return sampling_order(block.sampling), local
    order = healpix_order(recipe.resolutions.angpix, binning, recipe.refine3D.particle_diameter)
    angles = sampling_order(block.sampling) if "sampling" in overridden else order
    local = sampling_order(block.auto_local_sampling) if "auto_local_sampling" in overridden else order
    return angles, local


def _initial_reference(recipe: Recipe, mode: str, level: dict[str, Any], machine: Machine) -> dict[str, Any]:
    common = {"mode": mode, "symmetry": recipe.symmetry, "diameter": level["diameter"]}
    if mode == "template":
        return common | _template_alignment(recipe, level, machine)
    if mode == "denovo":
        return common | _denovo(recipe, machine)
    return common


def _template_alignment(recipe: Recipe, level: dict[str, Any], machine: Machine) -> dict[str, Any]:
    block = recipe.class3D
    # Correlation is on in the first iteration whatever the recipe says of later ones: the template's scale is unknown.
    flags = [flag for flag in _common_options(block) if flag != "--firstiter_cc"] + ["--firstiter_cc"]
    flags += [f"--healpix_order {sampling_order(block.sampling)}", "--allow_coarser_sampling"]
    ranks, threads, gpus = refinement_ranks(machine, block.nr_threads)
    return {
        "grid": {"box": level["size"], "pixel_size": level["pixel_size"], "low_pass": recipe.refine3D.ini_high},
        "iterations": recipe.initial_reference.template_iterations,
        "tau": block.tau_fudge,
        "low_pass": 1.5 * block.ini_high,
        "ranks": ranks,
        "threads": threads,
        "gpus": gpus,
        "options": _join(flags, block),
    }


def _denovo(recipe: Recipe, machine: Machine) -> dict[str, Any]:
    block = recipe.initial_model
    flags = [f"--ctf --zero_mask --flatten_solvent --oversampling 1 --pad 1 --pool {block.nr_pool} {RANDOM_SEED}"]
    flags += [f"--healpix_order {sampling_order(block.sampling)}"]
    flags += [f"--offset_range {block.offset_range:g} --offset_step {block.offset_step:g}"]
    return {
        "iterations": block.nr_iter,
        "classes": block.nr_classes,
        "tau": block.tau_fudge,
        "search_symmetry": "C1" if block.do_run_C1 else recipe.symmetry,
        "threads": machine.cpus,
        "gpus": ",".join(machine.gpus) if block.use_gpu else "",
        "options": _join(flags, block),
    }


def _join(flags: list[str], block: Block) -> str:
    return " ".join(part for part in [*flags, block.other_args.strip()] if part)
