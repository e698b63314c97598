"""``job.star``: a command line as RELION's own form of a job, so that RELION can show, edit and repeat it.

Every flag of the command is found again: as an option of the form, as something that RELION adds itself, or in
``other_args``. Options of the form that a command does not use are left to RELION's defaults only where these are off.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from py2rely_core.parameters.sampling import SAMPLINGS

#: Flags of a command: their values, an empty list for a switch.
Flags = dict[str, list[str]]
#: A job's place in a project, and a file in it: ``Refine3D/bin4/run_data.star``.
IN_PROJECT = re.compile(r"[A-Z][A-Za-z0-9]+/[^/]+/[^/]+(/.+)?")
#: Inputs of all programs that work on tilt series: option of the form, flag.
TOMO_INPUTS = {"in_tomograms": "--t", "in_particles": "--p", "in_trajectories": "--mot"}

#: Options with a value: name in the form and flag, by type of job.
VALUES = {
    "relion.refine": {
        "in_particles": "--i", "in_tomograms": "--tomograms", "in_trajectories": "--trajectories", "fn_ref": "--ref",
        "fn_mask": "--solvent_mask", "ini_high": "--ini_high", "particle_diameter": "--particle_diameter",
        "sym_name": "--sym", "nr_pool": "--pool", "offset_range": "--offset_range", "relax_sym": "--relax_sym",
        "gpu_ids": "--gpu", "nr_threads": "--j",
    },
    "relion.pseudosubtomo": TOMO_INPUTS | {"max_dose": "--max_dose", "min_frames": "--min_frames", "nr_threads": "--j"},
    "relion.reconstructparticletomo": TOMO_INPUTS | {
        "box_size": "--b", "crop_size": "--crop", "binning": "--bin", "sym_name": "--sym", "snr": "--SNR",
        "nr_threads": "--j",
    },
    "relion.maskcreate": {
        "fn_in": "--i", "lowpass_filter": "--lowpass", "inimask_threshold": "--ini_threshold",
        "extend_inimask": "--extend_inimask", "width_mask_edge": "--width_soft_edge", "angpix": "--angpix",
        "nr_threads": "--j",
    },
    "relion.postprocess": {
        "fn_in": "--i", "fn_mask": "--mask", "angpix": "--angpix", "fn_mtf": "--mtf", "mtf_angpix": "--mtf_angpix",
        "autob_lowres": "--autob_lowres", "adhoc_bfac": "--adhoc_bfac", "low_pass": "--low_pass",
    },
    "relion.localres.own": {
        "fn_in": "--i", "fn_mask": "--mask", "angpix": "--angpix", "fn_mtf": "--mtf", "adhoc_bfac": "--adhoc_bfac",
    },
    "relion.ctfrefinetomo": TOMO_INPUTS | {
        "in_halfmaps": "--ref1", "in_refmask": "--mask", "in_post": "--fsc", "box_size": "--b", "focus_range": "--d1",
        "lambda": "--lambda", "nr_threads": "--j",
    },
    "relion.framealigntomo": TOMO_INPUTS | {
        "in_halfmaps": "--ref1", "in_refmask": "--mask", "in_post": "--fsc", "box_size": "--b", "max_error": "--r",
        "sigma_vel": "--s_vel", "sigma_div": "--s_div", "nr_threads": "--j",
    },
}  # fmt: skip
#: Options that are on or off: name in the form and flag; ``!`` where the flag turns the option off.
SWITCHES = {
    "relion.refine": {
        "ref_correct_greyscale": "!--firstiter_cc", "trust_ref_size": "--trust_ref_size",
        "do_ctf_correction": "--ctf", "ctf_intact_first_peak": "--ctf_intact_first_peak",
        "do_combine_thru_disc": "!--dont_combine_weights_via_disc", "do_parallel_discio": "!--no_parallel_disc_io",
        "do_preread_images": "--preread_images", "use_gpu": "--gpu",
    },
    "relion.pseudosubtomo": {"do_float16": "--float16"},
    "relion.reconstructparticletomo": {},
    "relion.maskcreate": {},
    "relion.postprocess": {
        "do_auto_bfac": "--auto_bfac", "do_adhoc_bfac": "--adhoc_bfac",
        "do_skip_fsc_weighting": "--skip_fsc_weighting",
    },
    "relion.localres.own": {"do_relion_locres": "--locres"},
    "relion.ctfrefinetomo": {
        "do_defocus": "--do_defocus", "do_reg_def": "--do_reg_defocus", "do_scale": "--do_scale",
        "do_frame_scale": "--per_frame_scale", "do_tomo_scale": "--per_tomogram_scale",
    },
    "relion.framealigntomo": {
        "do_motion": "--motion", "do_sq_exp_ker": "--sq_exp_ker", "do_shift_align": "--shift_only",
    },
}  # fmt: skip
#: What RELION adds to the command of such a job itself, or derives from other options.
IMPLIED = {
    "relion.refine": {"--o", "--flatten_solvent", "--oversampling", "--norm", "--scale"},
    "relion.pseudosubtomo": {"--o", "--b", "--crop", "--bin", "--stack2d", "--real_subtomo"},
    "relion.reconstructparticletomo": {"--o", "--j_out", "--j_in"},
    "relion.maskcreate": {"--o"},
    "relion.postprocess": {"--o"},
    "relion.localres.own": {"--o"},
    "relion.ctfrefinetomo": {"--o", "--ref2", "--d0"},
    "relion.framealigntomo": {"--o", "--ref2"},
}
PROGRAMS = {
    "relion_refine": "relion.refine",
    "relion_tomo_subtomo": "relion.pseudosubtomo",
    "relion_tomo_reconstruct_particle": "relion.reconstructparticletomo",
    "relion_mask_create": "relion.maskcreate",
    "relion_postprocess": "relion.postprocess",
    "relion_tomo_refine_ctf": "relion.ctfrefinetomo",
    "relion_tomo_align": "relion.framealigntomo",
}


def flags_of(command: list[str]) -> tuple[str, int, Flags]:
    """The RELION program of a command without ``_mpi``, its ranks, and its flags."""
    start = next((n for n, word in enumerate(command) if Path(word).name.startswith("relion_")), len(command))
    if start == len(command):
        return "", 1, {}
    launcher = command[:start]
    ranks = next((int(launcher[n + 1]) for n, word in enumerate(launcher[:-1]) if word in ("-n", "-np")), 1)
    flags: Flags = {}
    for word in command[start + 1 :]:
        if word.startswith("--"):
            name = word
            flags[name] = []
        elif flags:
            flags[name].append(word)
    return Path(command[start]).name.removesuffix("_mpi"), ranks, flags


def input_paths(command: list[str]) -> list[str]:
    """Files of the project that a command reads, in its own words and as they are called in the project.

    A file that was staged under another name, as references are, is known by what its link points to.
    """
    _, _, flags = flags_of(command)
    words = [word for name, values in flags.items() if name != "--o" for word in values]
    return [name for name in (project_name(word) for word in words) if IN_PROJECT.fullmatch(name)]


def project_name(word: str) -> str:
    """A file's name in the project: the word itself, unless it is a link to a job's output elsewhere."""
    path = Path(word)
    if not path.is_symlink():
        return word
    target = "/".join(path.readlink().parts[-3:])
    return target if IN_PROJECT.fullmatch(target) else word


def job_type(command: list[str]) -> str:
    """RELION's label for the type of a job, or an empty string for a program that is no job of its own."""
    program, _, flags = flags_of(command)
    found = _family(program, flags)
    if found != "relion.refine":
        return found
    if "--auto_refine" in flags:
        return "relion.refine3d.tomo"
    if "/Class2D/" in f"/{' '.join(flags.get('--o', []))}":
        return "relion.class2d"
    return "relion.initialmodel.tomo" if "--grad" in flags else "relion.class3d"


def _family(program: str, flags: Flags) -> str:
    """The form that a program has, by one of the keys of :data:`VALUES`; empty where there is none."""
    return "relion.localres.own" if "--locres" in flags else PROGRAMS.get(program, "")


def job_star(command: list[str], pixel_size: Callable[[str], float]) -> str | None:
    """The text of ``job.star`` for a command.

    Parameters
    ----------
    command : list of str
        As run, with ``mpirun`` if that was used.
    pixel_size : function
        Unbinned pixel size (Angstrom) of a tilt-series STAR file.

    Returns
    -------
    str or None
        None for a program that RELION has no form for.
    """
    program, ranks, flags = flags_of(command)
    if job_type(command) == "relion.class2d":
        return None if "--continue" in flags else _class2d(flags, ranks)
    if "--continue" in flags or not (label := job_type(command)):
        return None
    family = _family(program, flags)
    values = {name: project_name(" ".join(flags[flag])) for name, flag in VALUES[family].items() if flags.get(flag)}
    for name, flag in SWITCHES[family].items():
        values[name] = _yes(flag.startswith("!") != (flag.lstrip("!") in flags))
    used = {flag.lstrip("!") for table in (VALUES, SWITCHES) for flag in table[family].values()} | IMPLIED[family]
    if family == "relion.refine":
        used |= _refinement(label, flags, values)
    if family == "relion.pseudosubtomo":
        _extraction(flags, values, pixel_size)
    if "--mot" in flags or "in_particles" in values:
        values["use_direct_entries"] = "Yes"
    if ranks > 1 and family not in ("relion.maskcreate", "relion.postprocess"):
        values["nr_mpi"] = str(ranks)
    rest = [word for name, words in flags.items() if name not in used for word in (name, *words)]
    return _form(label, values | {"other_args": shlex.join(rest)})


def _class2d(flags: Flags, ranks: int) -> str:
    """The form of a 2D classification of plain images."""
    values = {
        "fn_img": "--i", "nr_classes": "--K", "tau_fudge": "--tau2_fudge", "particle_diameter": "--particle_diameter",
        "offset_range": "--offset_range", "nr_pool": "--pool", "gpu_ids": "--gpu", "nr_threads": "--j",
        "highres_limit": "--strict_highres_exp",
    }  # fmt: skip
    form = {name: project_name(" ".join(flags[flag])) for name, flag in values.items() if flags.get(flag)}
    used = {*values.values(), "--o", "--iter", "--psi_step", "--offset_step", "--flatten_solvent", "--oversampling"}
    used |= {"--norm", "--scale", "--pad", "--dont_combine_weights_via_disc"}
    switches = {
        "do_ctf_correction": "--ctf", "ctf_intact_first_peak": "--ctf_intact_first_peak", "do_zero_mask": "--zero_mask",
        "dont_skip_align": "!--skip_align", "do_center": "--center_classes", "use_gpu": "--gpu",
        "do_combine_thru_disc": "!--dont_combine_weights_via_disc", "do_preread_images": "--preread_images",
        "allow_coarser": "--allow_coarser_sampling",
    }  # fmt: skip
    form |= {name: _yes(flag.startswith("!") != (flag.lstrip("!") in flags)) for name, flag in switches.items()}
    used |= {flag.lstrip("!") for flag in switches.values()}
    gradient = "--grad" in flags
    iterations = flags.get("--iter", ["25"])[0]
    form |= {"do_em": _yes(not gradient), "do_grad": _yes(gradient)}
    form["nr_iter_grad" if gradient else "nr_iter_em"] = iterations
    used |= {"--grad", "--class_inactivity_threshold", "--grad_write_iter"} if gradient else set()
    for name, flag in (("psi_sampling", "--psi_step"), ("offset_step", "--offset_step")):
        if flags.get(flag):
            form[name] = f"{float(flags[flag][0]) / 2:g}"
    form |= {"nr_mpi": str(ranks)} if ranks > 1 else {}
    rest = [word for name, words in flags.items() if name not in used for word in (name, *words)]
    return _form("relion.class2d", form | {"other_args": shlex.join(rest)}, is_tomo=False)


def _refinement(label: str, flags: Flags, values: dict[str, str]) -> set[str]:
    """The options that only some of the jobs of relion_refine have; returns the flags that they stand for."""
    used = {"--offset_step"}
    values["offset_step"] = f"{float(flags.get('--offset_step', ['2'])[0]) / 2:g}"
    if flags.get("--pad") == ["1"] and label != "relion.initialmodel.tomo":
        values["do_pad1"] = "Yes"
    if flags.get("--pad") in (["1"], ["2"]):
        used.add("--pad")
    angles = {"sampling": "--healpix_order", "auto_local_sampling": "--auto_local_healpix_order"}
    if label == "relion.initialmodel.tomo":
        for name in ("fn_ref", "fn_mask", "ini_high", "offset_range", "offset_step", "relax_sym", "trust_ref_size"):
            values.pop(name, None)
        values.pop("ref_correct_greyscale")
        values["do_solvent"] = _yes("--flatten_solvent" in flags)
        # Its form has no sampling and no offsets: they stay in the arguments.
        used -= {"--offset_step"}
        used |= {"--grad", "--denovo_3dref", "--zero_mask"}
        angles = {}
    else:
        values["do_zero_mask"] = _yes("--zero_mask" in flags)
        used.add("--zero_mask")
    for name, flag in angles.items():
        if flag in flags:
            values[name] = f"{SAMPLINGS[int(flags[flag][0])]:g} degrees"
            used.add(flag)
    if label == "relion.refine3d.tomo":
        used |= {"--auto_refine", "--split_random_halves", "--low_resol_join_halves", "--solvent_correct_fsc"}
        values["do_solvent_fsc"] = _yes("--solvent_correct_fsc" in flags)
        if "--auto_ignore_angles" in flags and "--auto_resol_angles" in flags:
            values["auto_faster"] = "Yes"
            used |= {"--auto_ignore_angles", "--auto_resol_angles"}
        return used
    for name, flag in {"nr_classes": "--K", "nr_iter": "--iter", "tau_fudge": "--tau2_fudge"}.items():
        if flag in flags:
            values[name] = flags[flag][0]
            used.add(flag)
    if label == "relion.class3d":
        values |= {
            "dont_skip_align": _yes("--skip_align" not in flags),
            "allow_coarser": _yes("--allow_coarser_sampling" in flags),
        }
        values["do_fast_subsets"] = _yes("--fast_subsets" in flags)
        used |= {"--skip_align", "--allow_coarser_sampling", "--fast_subsets"}
        if "--sigma_ang" in flags:
            values |= {"do_local_ang_searches": "Yes", "sigma_angles": f"{3 * float(flags['--sigma_ang'][0]):g}"}
            used.add("--sigma_ang")
    else:
        values["do_run_C1"] = "No"
    return used


def _extraction(flags: Flags, values: dict[str, str], pixel_size: Callable[[str], float]) -> None:
    """The form has boxes in Angstrom: the box after cropping, the one that is cut out, and pixels."""
    box, crop, binning = (float(flags.get(name, [default])[0]) for name, default in
                          (("--b", "-1"), ("--crop", "-1"), ("--bin", "1")))  # fmt: skip
    size = crop if crop > 0 else box
    scale = binning * pixel_size(flags["--t"][0])
    values["binned_size_pix"] = f"{size:g}"
    values["box_size_angst"] = f"{size * scale:.6g}"
    values["precrop_size_angst"] = f"{box * scale:.6g}" if crop > 0 else "-1"
    formats = {"--stack2d": "2D stacks", "--real_subtomo": "3D subtomos"}
    values["subtomo_format"] = next((formats[flag] for flag in formats if flag in flags), "3D pseudo-subtomos")


def _yes(value: bool) -> str:
    return "Yes" if value else "No"


def _form(label: str, values: dict[str, str], is_tomo: bool = True) -> str:
    rows = "".join(f"{name} {_quoted(value)}\n" for name, value in sorted(values.items()))
    return (
        "\n# version 50001\n\ndata_job\n\n"
        f"_rlnJobTypeLabel             {label}\n_rlnJobIsContinue                       0\n"
        f"_rlnJobIsTomo                           {int(is_tomo)}\n \n\n"
        "# version 50001\n\ndata_joboptions_values\n\nloop_ \n"
        f"_rlnJobOptionVariable #1 \n_rlnJobOptionValue #2 \n{rows} \n"
    )


def _quoted(value: str) -> str:
    return f'"{value}"' if not value or " " in value else value
