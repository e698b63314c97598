"""What each level of each data set does: pure functions of the recipe, the data and the machine.

The plan is one JSON document. Each level has one block per kind of step, and the workflow hands each task just the
block that it uses, so that a change re-runs what depends on it and nothing else.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from math import ceil
from typing import Any

from py2rely_core.data.symmetry import ALIGNMENT_TRIALS, has_rotations_only
from py2rely_core.judging.orientations import HEALPIX_ORDER, MOST_LIKELY, finest_useful
from py2rely_core.parameters.boxes import crop_and_box
from py2rely_core.parameters.gpus import gpu_names
from py2rely_core.parameters.recipe import Block, Recipe, Slabs
from py2rely_core.parameters.sampling import healpix_order, sampling_order
from py2rely_core.planning.groups import number_of_groups
from py2rely_core.planning.low_pass import coarse_low_pass, template_low_pass, with_low_passes

#: Soft edges that are tried, as multiples of ``mask_create.width_mask_edge``, until the mask is wide enough.
EDGE_STEPS = (1, 2, 4, 6, 8)
#: Most MPI ranks of the local resolution: each holds the maps.
LOCRES_RANKS = 8
#: Pixels of tomograms that are made for slabs, as a share of the diameter.
SLAB_PIXEL = 1 / 20
#: How ``relion_tomo_subtomo`` is asked for images that are not its own default.
FORMATS = {"stacks": "--stack2d", "subtomograms": "--real_subtomo"}
#: RELION's own default is the time of day: a run that is repeated would then split other half sets.
RANDOM_SEED = "--random_seed 1"
#: Angstrom. A level that showed this, and did not determine orientations, is not followed by one that searches anew:
#: finer detail of one particle is lost in the noise of its few electrons.
TELLING = 10.0


@dataclass(frozen=True)
class Machine:
    """What a task may use.

    Attributes
    ----------
    cpus : int
        CPU cores per task.
    gpus : tuple of int
        GPUs of a task, counted from 0 among those that it is given; empty for none.
    devices : tuple of str
        The machine's own numbers of the GPUs that were asked for.
    tilt_series_per_task : int or None
        Tilt series of one task, where they are independent; more are worked on in groups. None for the default.
    """

    cpus: int
    gpus: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    tilt_series_per_task: int | None = None

    @classmethod
    def of(cls, cpus: int | None, gpus: object, tilt_series_per_task: int | None = None) -> Machine:
        """The machine as asked for; every core that this process may use when nothing is asked for."""
        # Which of the machine's GPUs a task gets is settled when it starts: for RELION they count from 0.
        devices = gpu_names(gpus)
        numbers = tuple(str(number) for number in range(len(devices)))
        return cls(int(cpus or len(os.sched_getaffinity(0))), numbers, devices, tilt_series_per_task)


def plan_dataset(
    recipe: Recipe,
    mode: str,
    n_tilt_series: int,
    machine: Machine,
    start: str = "picks",
    low_pass: float | None = None,
    n_particles: int = 0,
) -> dict[str, Any]:
    """The whole plan of one data set.

    Parameters
    ----------
    recipe : Recipe
        A valid recipe; where it gives no first low-pass, the particle's size does.
    mode : {"template", "denovo", "known"}
        How the initial reference is made.
    n_tilt_series : int
        Tilt series that hold particles.
    machine : Machine
        What a task may use.
    start : {"picks", "bin1", "polish"}
        Where the run begins: with picks, or at bin 1 with refined particles, to be refined or polished.
    low_pass : float, optional
        Of the reference at ``start="bin1"``, Angstrom; from the half maps' FSC when not given.
    n_particles : int
        Particles, by which the number of classes of slabs is chosen.

    Returns
    -------
    dict
        ``{"slabs": ..., "initial_reference": ..., "levels": [...], "polishing": ..., "map_analysis": {...}}``,
        JSON-ready; without slabs or polishing None, and so is each step of the analysis that is left out.
    """
    recipe = with_low_passes(recipe)
    binnings = recipe.resolutions.binning_list
    oriented = is_oriented(recipe, mode, start)
    levels = [_level(recipe, index, mode, start, n_tilt_series, machine) for index in range(len(binnings))]
    if start == "bin1":
        levels[0]["refine"]["low_pass"] = low_pass
    return {
        "oriented": oriented,
        "slabs": _slabs(recipe, n_particles, n_tilt_series, machine) if recipe.slabs.run else None,
        "initial_reference": _initial_reference(recipe, mode, levels[0], machine),
        "levels": levels,
        "polishing": _polishing(recipe, levels[-1], n_tilt_series, machine),
        "map_analysis": _map_analysis(recipe, levels, mode, start, machine),
    }


def _slabs(recipe: Recipe, n_particles: int, n_tilt_series: int, machine: Machine) -> dict[str, Any]:
    """How slabs are cut (`cut`), classified (`rounds`) and chosen (`choice`): a later part repeats none before it."""
    block, diameter = recipe.slabs, recipe.refine3D.particle_diameter
    made = block.binning or max(1, round(SLAB_PIXEL * diameter / recipe.resolutions.angpix))
    binning = block.voxel_spacing / recipe.resolutions.angpix if block.voxel_spacing else made
    numbers = [block.nr_classes or default_slab_classes(n_particles)]
    numbers += [block.second_classes] if block.second_classes else []
    threads = max(1, min(machine.cpus, block.nr_threads))
    return {
        "cut": {
            "groups": number_of_groups(n_tilt_series, machine.tilt_series_per_task),
            "cpus": threads,
            "settings": {
                "box": block.box or 2 * diameter,
                "thickness": block.thickness or 1.2 * diameter,
                "diameter": diameter,
                "binning": binning,
                "invert": block.invert,
                "threads": threads,
                "options": shlex.split(block.tomogram_args),
            },
        },
        "rounds": [slab_class_settings(block, diameter, number, machine) for number in numbers],
        "choice": {
            "selection": block.selection,
            "keep": block.keep_classes,
            "min_share": block.min_share,
            "min_particles": block.min_particles,
        },
        "keep_not_judged": block.keep_not_judged,
        "diameter": diameter,
        "waits": block.selection == "manual" and not block.keep_classes,
    }


def default_slab_classes(n_particles: int) -> int:
    """How many classes so many slabs are sorted into: one per 50, from 8 to 100, of no fewer than 10 slabs each."""
    return max(2, min(100, max(8, round(n_particles / 50)), n_particles // 10))


def slab_class_settings(block: Slabs, diameter: float, classes: int, machine: Machine) -> dict[str, Any]:
    """Threads, GPUs and flags of a 2D classification.

    Parameters
    ----------
    block : Slabs
    diameter : float
        Of the particle, Angstrom.
    classes : int
    machine : Machine
    """
    gradient = block.class_algorithm == "VDAM"
    flags = [f"--tau2_fudge {block.tau_fudge:g} --particle_diameter {block.particle_diameter or 1.2 * diameter:g}"]
    flags += [f"--flatten_solvent --zero_mask --oversampling 1 --norm --scale --pad 2 --pool {block.nr_pool}"]
    flags += [RANDOM_SEED, "--dont_combine_weights_via_disc", "--dont_check_norm"]
    flags += ["--grad --class_inactivity_threshold 0.1 --grad_write_iter 10"] if gradient else []
    flags += ["--center_classes"] if block.center_class else []
    flags += ["--ctf"] if block.do_ctf_correction else []
    flags += ["--ctf_intact_first_peak"] if block.ctf_intact_first_peak else []
    flags += [f"--strict_highres_exp {block.highres_limit:g}"] if block.highres_limit > 0 else []
    if block.dont_skip_align:
        # RELION's form has the steps after oversampling, which halves those of the command line.
        flags += [f"--psi_step {2 * block.psi_sampling:g} --offset_range {block.offset_range:g}"]
        flags += [f"--offset_step {2 * block.offset_step:g}"]
    else:
        flags += ["--skip_align"]
    return {
        "classes": classes,
        "iterations": block.nr_iter or (200 if gradient else 25),
        "threads": max(1, min(machine.cpus, block.nr_threads)),
        "gpus": ",".join(machine.gpus) if block.use_gpu else "",
        "options": join_flags(flags, block),
    }


def is_oriented(recipe: Recipe, mode: str, start: str) -> bool:
    """Whether the first level begins like later ones, with half maps of particles whose orientations are kept.

    The low-pass then follows from the half maps' FSC: one as coarse as a template's would throw away what the
    orientations hold.
    """
    return start != "picks" or (mode == "known" and recipe.initial_reference.known_search == "local")


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


def _level(recipe: Recipe, index: int, mode: str, start: str, n_tilt_series: int, machine: Machine) -> dict[str, Any]:
    binning = recipe.resolutions.binning_list[index]
    pixel_size = recipe.resolutions.angpix * binning
    diameter = recipe.refine3D.particle_diameter
    size = crop_and_box(diameter, recipe.resolutions.angpix, binning, recipe.resolutions.box_scaling)
    grid = {"binning": binning, "box": size.box, "crop": size.crop or -1, "pixel_size": pixel_size}
    extract, reconstruct = recipe.block_at(binning, "pseudo_subtomo"), recipe.block_at(binning, "reconstruct")
    images = recipe.image_kind(binning)
    untested = why_not_tested(recipe, images, start)
    refine = refine_settings(recipe, index, mode, start, machine)
    anew = searches_anew(recipe, index, mode, start) and not untested
    at_level = recipe.classification.binning or recipe.resolutions.binning_list[0]
    return {
        "name": f"bin{binning}",
        "binning": binning,
        "pixel_size": pixel_size,
        "size": size.size,
        "diameter": diameter,
        "extract": grid | extract_settings(extract, machine, n_tilt_series, images),
        "reconstruct": grid | reconstruct_settings(reconstruct, recipe, machine, n_tilt_series),
        "refine": refine,
        "refine_anew": _anew(recipe, index, mode, start, machine) if anew else None,
        "select": {"distance": recipe.duplicates.distance_fraction * diameter if index == 0 else 0.0},
        "mask": _mask(recipe, binning, size.size),
        "postprocess": {"options": _postprocess_options(recipe)},
        "classification": _classification(recipe, refine, grid["pixel_size"], images, machine)
        if recipe.classification.run and binning == at_level
        else None,
        "orientations": None if untested else _orientations(recipe, binning, machine),
        "orientations_untested": untested,
        "last": index == len(recipe.resolutions.binning_list) - 1,
    }


def _classification(
    recipe: Recipe, refine: dict[str, Any], pixel_size: float, images: str, machine: Machine
) -> dict[str, Any]:
    """What Class3D does (`run`), and what its table is judged by (`choice`): the second does not re-run the first.

    And whether classes are told apart by their images (`test`), and how the particles that are kept are refined once
    more at the same level (`refine`).
    """
    block, rule = recipe.class3D, recipe.classification
    flags = common_flags(block, offsets=block.dont_skip_align)
    if not block.dont_skip_align:
        flags += ["--skip_align"]
    else:
        flags += [f"--healpix_order {sampling_order(block.sampling)}"]
        flags += [f"--sigma_ang {block.sigma_angles / 3:g}"] if block.do_local_ang_searches else []
        flags += prior_flags(recipe, around_known=block.do_local_ang_searches, sigma_tilt=block.sigma_tilt)
        flags += ["--allow_coarser_sampling"] if block.allow_coarser else []
        flags += [f"--relax_sym {shlex.quote(block.relax_sym)}"] if block.relax_sym else []
    flags += helix_flags(recipe)
    flags += ["--fast_subsets"] if block.do_fast_subsets else []
    flags += [f"--strict_highres_exp {block.highres_limit:g}"] if block.highres_limit > 0 else []
    ranks, threads, gpus = refinement_ranks(machine, block.nr_threads)
    return {
        "run": {
            "classes": recipe.class_numbers[-1],
            "iterations": block.nr_iter,
            "tau": block.tau_fudge,
            "low_pass": rule.low_pass or coarse_low_pass(recipe.refine3D.particle_diameter, 2 * pixel_size),
            "symmetry": recipe.symmetry,
            "diameter": recipe.refine3D.particle_diameter,
            "ranks": ranks,
            "threads": threads,
            "gpus": gpus if block.use_gpu else "",
            "options": join_flags(flags, block),
        },
        "test": {
            "symmetry": recipe.symmetry,
            "diameter": recipe.refine3D.particle_diameter,
            "threads": machine.cpus,
            "gpus": ",".join(machine.gpus) if block.use_gpu else "",
            "classes": recipe.class_numbers[-1],
            "options": " ".join([*image_flags(block, pad=1), *helix_flags(recipe)]),
        }
        if images == "stacks"  # others are not divided by tilts
        else None,
        "refine": refine | {"options": _by_correlation(refine["options"])},
        "numbers": recipe.class_numbers,
        "of_classes": rule.of_classes,
        "choice": {
            "selection": rule.selection,
            "keep": rule.keep_classes,
            "best": rule.best_class or (rule.keep_classes[0] if rule.keep_classes else None),
            "agreement": rule.agreement,
            "min_share": rule.min_share,
            "min_per_half": rule.min_per_half,
        },
        "waits": rule.selection == "manual" and not rule.keep_classes,
    }


def why_not_tested(recipe: Recipe, images: str, start: str) -> str:
    """Why the orientations of a level are not tested; empty where they are.

    Parameters
    ----------
    recipe : Recipe
        A valid recipe.
    images : str
        What particles are extracted as, one of :data:`~py2rely_core.parameters.recipe.IMAGE_KINDS`.
    start : str
        Where the run begins.
    """
    reasons = {
        "the recipe says so (orientations.test)": not recipe.orientations.test,
        "the run began with polishing, and no step before it": start == "polish",
        f"particles are extracted as {images}, which are not divided by tilts": images != "stacks",
        "along a filament, places that are the same have other orientations": recipe.helix is not None,
        f"the point group {recipe.symmetry} has more than rotations": not has_rotations_only(recipe.symmetry),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _orientations(recipe: Recipe, binning: int, machine: Machine) -> dict[str, Any]:
    """The test of a level's orientations: none of a recipe's own options and priors, which could hold them in place."""
    block = recipe.block_at(binning, "refine3D")
    flags = image_flags(block, pad=1)
    flags += [f"--healpix_order {HEALPIX_ORDER} --perturb 0 --offset_range 2 --offset_step 2 --maxsig {MOST_LIKELY}"]
    return {
        "most": recipe.orientations.particles,
        "symmetry": recipe.symmetry,
        "diameter": recipe.refine3D.particle_diameter,
        "finest": round(finest_useful(recipe.refine3D.particle_diameter), 2),
        "threads": machine.cpus,
        "gpus": ",".join(machine.gpus) if block.use_gpu else "",
        "options": " ".join(flags),
    }


def _polishing(recipe: Recipe, level: dict[str, Any], n_tilt_series: int, machine: Machine) -> dict[str, Any] | None:
    if level["binning"] != 1 or not recipe.polishing.cycles or not (recipe.ctf_refine or recipe.bayesian_polish):
        return None
    refine = level["refine"] | {"low_pass": None} if recipe.polishing.refine else None
    return {
        "cycles": recipe.polishing.cycles,
        "patience": recipe.polishing.patience,
        "ctf_refine": _ctf_refine(recipe.ctf_refine, level, n_tilt_series, machine) if recipe.ctf_refine else None,
        "polish": _polish(recipe.bayesian_polish, level, n_tilt_series, machine) if recipe.bayesian_polish else None,
        "refine": refine,
    }


def _ctf_refine(block: Block, level: dict[str, Any], n_tilt_series: int, machine: Machine) -> dict[str, Any]:
    flags = []
    if block.do_defocus:
        flags += [f"--do_defocus --d0 {-block.focus_range:g} --d1 {block.focus_range:g}"]
        flags += [f"--do_reg_defocus --lambda {block.lambda_:g}"] if block.do_reg_def else []
    if block.do_scale:
        flags += ["--do_scale"]
        flags += ["--per_frame_scale"] if block.do_frame_scale else []
        flags += ["--per_tomogram_scale"] if block.do_tomo_scale else []
    flags += [f"--do_even_aberrations --ne {block.nr_even_aber}"] if block.do_even_aber else []
    flags += [f"--do_odd_aberrations --no {block.nr_odd_aber}"] if block.do_odd_aber else []
    sizes = _tilt_series_work(block, n_tilt_series, machine)
    return {"box": level["extract"]["box"], **sizes, "options": join_flags(flags, block)}


def _polish(block: Block, level: dict[str, Any], n_tilt_series: int, machine: Machine) -> dict[str, Any]:
    flags = [f"--r {block.max_error:g}"]
    if block.do_shift_align:
        flags += ["--shift_only"]
        flags += ["--shift_only_by_particles"] if block.shift_align_type == "Only particles" else []
    elif block.do_motion:
        flags += [f"--motion --s_vel {block.sigma_vel:g} --s_div {block.sigma_div:g}"]
        flags += ["--sq_exp_ker"] if block.do_sq_exp_ker else []
    sizes = _tilt_series_work(block, n_tilt_series, machine)
    return {"box": level["extract"]["box"], **sizes, "options": join_flags(flags, block)}


def _tilt_series_work(block: Block, n_tilt_series: int, machine: Machine) -> dict[str, int]:
    """Groups of tilt series, and ranks and threads of a task that works on one of them."""
    groups = number_of_groups(n_tilt_series, machine.tilt_series_per_task)
    ranks, threads = tomo_ranks(machine, block.nr_threads, n_tilt_series // groups)
    return {"groups": groups, "ranks": ranks, "threads": threads}


def extract_settings(block: Block, machine: Machine, n_tilt_series: int, images: str) -> dict[str, Any]:
    """Threads, ranks, groups and flags of ``relion_tomo_subtomo``, for particles as `images`."""
    flags = ["--min_frames 1"]
    flags += ["--float16"] if block.do_float16 else []
    flags += [FORMATS[images]] if images in FORMATS else []
    flags += [f"--max_dose {block.max_dose:g}"] if block.max_dose > 0 else []
    return _tilt_series_work(block, n_tilt_series, machine) | {"images": images, "options": join_flags(flags, block)}


def reconstruct_settings(block: Block, recipe: Recipe, machine: Machine, n_tilt_series: int) -> dict[str, Any]:
    """Threads, ranks, groups and flags of ``relion_tomo_reconstruct_particle``."""
    sizes = _tilt_series_work(block, n_tilt_series, machine)
    helix = recipe.helix
    flags = []
    if helix and helix.rise:
        flags += [f"--nr_helical_asu {helix.nr_asu} --helical_rise {helix.rise:g} --helical_twist {helix.twist:g}"]
    return sizes | {"symmetry": recipe.symmetry, "options": join_flags(flags, block)}


def _mask(recipe: Recipe, binning: int, size: int) -> dict[str, Any]:
    block = recipe.block_at(binning, "mask_create")
    edges = sorted({min(step * block.width_mask_edge, size // 6) for step in EDGE_STEPS})
    threshold = "" if block.ini_threshold is None else f"{block.ini_threshold:g}"
    return {"extend": block.extend_inimask, "edges": edges, "threshold": threshold, "options": join_flags([], block)}


def _postprocess_options(recipe: Recipe) -> str:
    block = recipe.postprocess
    flags = [f"--auto_bfac --autob_lowres {block.autob_lowres:g}"] if block.do_auto_bfac else []
    flags += [f"--adhoc_bfac {block.adhoc_bfac:g}"] if block.adhoc_bfac else []
    return join_flags([*flags, *_mtf_flags(recipe)], block)


def _mtf_flags(recipe: Recipe) -> list[str]:
    block = recipe.postprocess
    # What RELION assumes without the second flag, the pixel size of the map, is wrong for a binned one.
    pixel_size = block.mtf_angpix or recipe.resolutions.angpix
    return [f"--mtf {shlex.quote(block.fn_mtf)} --mtf_angpix {pixel_size:g}"] if block.fn_mtf else []


def _map_analysis(
    recipe: Recipe, levels: list[dict[str, Any]], mode: str, start: str, machine: Machine
) -> dict[str, Any]:
    """The steps on the best map; None for one that is left out."""
    asked = recipe.map_analysis
    template = {"low_pass": template_low_pass(recipe), "diameter": levels[-1]["diameter"]}
    return {
        "sharpening": _sharpening(recipe) if asked.sharpening else None,
        "directions": {"symmetry": recipe.symmetry} if asked.directions else None,
        "local_resolution": _local_resolution(recipe, machine) if asked.local_resolution else None,
        "particle_plot": {"options": join_flags([], recipe.postprocess)} if asked.particle_plot else None,
        "template": template if asked.template and mode == "template" and start == "picks" else None,
    }


def _local_resolution(recipe: Recipe, machine: Machine) -> dict[str, Any]:
    block = recipe.postprocess
    return {
        "sampling": recipe.map_analysis.locres_sampling,
        "ranks": min(machine.cpus, LOCRES_RANKS),
        "given": block.adhoc_bfac or 0,
        "options": join_flags(_mtf_flags(recipe), block),
    }


def _sharpening(recipe: Recipe) -> dict[str, Any]:
    block = recipe.postprocess
    return {
        "lowest": block.autob_lowres,
        "given": block.adhoc_bfac or None,
        "mtf": block.fn_mtf,
        "options": join_flags(_mtf_flags(recipe), block),
    }


def image_flags(block: Block, pad: int = 2) -> list[str]:
    """Flags of how images are compared with a reference, with the reference's transform padded `pad` times."""
    flags = [f"--flatten_solvent --oversampling 1 --norm --scale --pad {pad} --pool {block.nr_pool} {RANDOM_SEED}"]
    flags += ["--zero_mask"] if block.do_zero_mask else []
    flags += ["--ctf"] if block.do_ctf_correction else []
    return flags + (["--ctf_intact_first_peak"] if block.ctf_intact_first_peak else [])


def common_flags(block: Block, offsets: bool = True) -> list[str]:
    """Flags that refinement, classification and the initial model share, in the reference system's field names."""
    flags = image_flags(block)
    flags += [] if block.ref_correct_greyscale else ["--firstiter_cc"]
    flags += ["--blush"] if block.do_blush else []
    flags += [] if block.do_combine_thru_disc else ["--dont_combine_weights_via_disc"]
    flags += [f"--offset_range {block.offset_range:g}", f"--offset_step {2 * block.offset_step:g}"] if offsets else []
    return flags


def prior_flags(recipe: Recipe, around_known: bool, sigma_tilt: float = 0) -> list[str]:
    """Flags of the priors on tilt and psi; around known orientations the widths are those of that search.

    Parameters
    ----------
    recipe : Recipe
        A valid recipe.
    around_known : bool
        Whether the search is around orientations that particles have already.
    sigma_tilt : float
        A width that comes before that of the recipe's priors, degrees; 0 for none.
    """
    priors = recipe.priors
    tilt = sigma_tilt or priors.sigma_tilt
    flags = ["--keep_priors_fixed"] if priors.keep_fixed else []
    if around_known:
        return flags
    flags += [f"--sigma_tilt {tilt:g}"] if tilt > 0 else []
    flags += [f"--sigma_psi {priors.sigma_psi:g}"] if priors.sigma_psi > 0 else []
    return flags


def helix_flags(recipe: Recipe) -> list[str]:
    """Flags of a filament for ``relion_refine``; none where the recipe has no `helix`."""
    helix = recipe.helix
    if helix is None:
        return []
    flags = [f"--helix --helical_outer_diameter {helix.outer_diameter:g} --helical_z_percentage {helix.z_percentage:g}"]
    flags += [f"--helical_inner_diameter {helix.inner_diameter:g}"] if helix.inner_diameter > 0 else []
    flags += ["--helical_keep_tilt_prior_fixed"] if helix.keep_tilt_prior_fixed else []
    if not helix.rise:
        return [*flags, "--ignore_helical_symmetry"]
    flags += [f"--helical_nr_asu {helix.nr_asu}"]
    return [*flags, f"--helical_twist_initial {helix.twist:g} --helical_rise_initial {helix.rise:g}"]


def refine_settings(
    recipe: Recipe, index: int, mode: str, start: str, machine: Machine, anew: bool = False
) -> dict[str, Any]:
    """Ranks, threads, GPUs and flags of one level's auto-refinement.

    Parameters
    ----------
    recipe, mode, start, machine
        As in :func:`plan_dataset`.
    index : int
        Of the level.
    anew : bool
        All orientations are searched, as at the first level.
    """
    binning = recipe.resolutions.binning_list[index]
    block = recipe.block_at(binning, "refine3D")
    first = index == 0 and start == "picks"
    if anew:
        angles, local = sampling_order(block.sampling), sampling_order(block.auto_local_sampling)
    else:
        angles, local = refinement_orders(recipe, index, mode, start)
    flags = ["--auto_refine --split_random_halves --low_resol_join_halves 40", *common_flags(block)]
    flags += [f"--healpix_order {angles}", f"--auto_local_healpix_order {local}"]
    known = first and mode == "known" and recipe.initial_reference.known_search == "local"
    flags += [f"--sigma_ang {recipe.initial_reference.known_sigma_ang:g}"] if known else []
    flags += prior_flags(recipe, around_known=known or not (first or anew))
    flags += helix_flags(recipe)
    flags += [f"--relax_sym {shlex.quote(block.relax_sym)}"] if block.relax_sym else []
    flags += ["--auto_ignore_angles --auto_resol_angles"] if block.auto_faster else []
    # Only relion_refine's own maps have its scale.
    own = first and (mode == "denovo" or (mode == "template" and bool(recipe.initial_reference.template_iterations)))
    options = join_flags(flags, block)
    ranks, threads, gpus = refinement_ranks(machine, block.nr_threads)
    return {
        "ranks": ranks,
        "threads": threads,
        "gpus": gpus if block.use_gpu else "",
        "symmetry": recipe.symmetry,
        "diameter": recipe.refine3D.particle_diameter,
        "low_pass": block.ini_high if first and not is_oriented(recipe, mode, start) else None,
        "solvent_correct_fsc": block.solvent_correct_fsc,
        "options": options if own else _by_correlation(options),
    }


def searches_anew(recipe: Recipe, index: int, mode: str, start: str) -> bool:
    """Whether a level may search all orientations anew.

    Those before it were searched, the recipe's samplings begin with a global search, and the level has none of its own.
    """
    binning = recipe.resolutions.binning_list[index]
    given, block = recipe.levels.get(str(binning), {}).get("refine3D", {}), recipe.block_at(binning, "refine3D")
    searched = index > 0 and not is_oriented(recipe, mode, start)
    globally = sampling_order(block.sampling) < sampling_order(block.auto_local_sampling)
    own = {"sampling", "auto_local_sampling"} & set(given)
    return recipe.orientations.search_anew and searched and globally and not own


def _anew(recipe: Recipe, index: int, mode: str, start: str, machine: Machine) -> dict[str, Any]:
    """What replaces a level's refinement where the level before it did not determine orientations.

    Its reference is low-passed as the first level's, and made from the user's map again where there is one: what
    particles in wrong orientations have added to a map draws them there again. ``coarse``: the level before it could
    not show what may yet tell orientations apart.
    """
    before = recipe.resolutions.binning_list[index - 1]
    why = f"All orientations were searched anew: at bin {before} they were not consistent, and finer pixels may tell."
    settings = refine_settings(recipe, index, mode, start, machine, anew=True)
    coarse = 2 * recipe.resolutions.angpix * before > TELLING
    return settings | {"low_pass": recipe.refine3D.ini_high, "reason": why, "coarse": coarse}


def _by_correlation(options: str) -> str:
    """The same refinement with particles and reference compared by correlation in the first iteration.

    The maps of ``relion_tomo_reconstruct_particle`` are about as many times larger than those of ``relion_refine`` as a
    particle has tilts (5.1.0: 7 and 16 times seen). Compared by likelihood, the first iteration would prefer
    orientations in which a reference has least power to those that fit.
    """
    return options if "--firstiter_cc" in options.split() else f"{options} --firstiter_cc"


def refinement_orders(recipe: Recipe, index: int, mode: str, start: str = "picks") -> tuple[int, int]:
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
    if index == 0 and start == "picks":
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
    flags = [flag for flag in common_flags(block) if flag != "--firstiter_cc"] + ["--firstiter_cc"]
    flags += [f"--healpix_order {sampling_order(block.sampling)}", "--allow_coarser_sampling"]
    flags += prior_flags(recipe, around_known=False, sigma_tilt=block.sigma_tilt) + helix_flags(recipe)
    ranks, threads, gpus = refinement_ranks(machine, block.nr_threads)
    return {
        "grid": {"box": level["size"], "pixel_size": level["pixel_size"], "low_pass": recipe.refine3D.ini_high},
        "iterations": recipe.initial_reference.template_iterations,
        "halves": [1, 2] if recipe.initial_reference.independent_halves else [0],
        "tau": block.tau_fudge,
        "low_pass": template_low_pass(recipe),
        "ranks": ranks,
        "threads": threads,
        "gpus": gpus,
        "options": join_flags(flags, block),
    }


def _denovo(recipe: Recipe, machine: Machine) -> dict[str, Any]:
    block = recipe.initial_model
    flags = [f"--ctf --zero_mask --flatten_solvent --oversampling 1 --pad 1 --pool {block.nr_pool} {RANDOM_SEED}"]
    flags += [f"--healpix_order {sampling_order(block.sampling)}"]
    flags += [f"--offset_range {block.offset_range:g} --offset_step {block.offset_step:g}"]
    flags += prior_flags(recipe, around_known=False)
    flags += ["--blush"] if block.do_blush else []
    return {
        "iterations": block.nr_iter,
        "classes": block.nr_classes,
        "tau": block.tau_fudge,
        "search_symmetry": "C1" if block.do_run_C1 else recipe.symmetry,
        "alignment_trials": ALIGNMENT_TRIALS,
        "threads": machine.cpus,
        "gpus": ",".join(machine.gpus) if block.use_gpu else "",
        "options": join_flags(flags, block),
    }


def join_flags(flags: list[str], block: Block) -> str:
    """A program's flags, with the block's `other_args` behind them, as words of a shell command.

    Parameters
    ----------
    flags : list of str
        Words as a shell reads them: what comes from a person is quoted.
    block : Block
        Its `other_args` are split with a shell's quoting, and each word is quoted anew: none is a command.
    """
    return " ".join([*flags, *map(shlex.quote, shlex.split(block.other_args))])
