"""One RELION job at a time, in the current RELION project: the command, the run, the proof and the project's record.

Flags come from :mod:`py2rely_core.planning.plan`, as those of the whole workflow do; what the caller sets overrides the
parameter file, which overrides the reference system's defaults.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.exporters.classes import export_classes
from py2rely_core.importers.result import write_import
from py2rely_core.judging.classes import Classification, write_selection
from py2rely_core.judging.selection import Selection
from py2rely_core.maps.io import read_header, read_map
from py2rely_core.parameters.boxes import crop_and_box
from py2rely_core.parameters.files import load_recipe, parse_recipe
from py2rely_core.parameters.recipe import Recipe
from py2rely_core.parameters.sampling import sampling_order
from py2rely_core.planning import plan
from py2rely_core.planning.low_pass import with_low_passes
from py2rely_core.problems import ExitCode, Problem, ProblemError
from py2rely_core.relion.job_star import flags_of
from py2rely_core.relion.outputs.averages import check_reconstruct, read_fsc
from py2rely_core.relion.outputs.job import check_map, check_maps, write_numbers
from py2rely_core.relion.outputs.particles import check_extract
from py2rely_core.relion.outputs.refinements import check_classes, check_refine, finish_classification
from py2rely_core.relion.run import commands, run_job
from py2rely_core.results.project import new_job, update_project


@dataclass(frozen=True)
class Computer:
    """What a job may use: threads per process at most, MPI ranks (None: as many as fit), and GPUs."""

    threads: int | None = None
    ranks: int | None = None
    use_gpu: bool = True


def recipe_of(
    parameter: Path | None, pixel_size: float, binning: int, first_low_pass: bool = True, **blocks: dict[str, Any]
) -> Recipe:
    """The parameter file, or the defaults, for one job: with the data's own grid, and with fields changed.

    Parameters
    ----------
    parameter : Path or None
        Parameter file.
    pixel_size : float
        Of the tilt series, unbinned, Angstrom.
    binning : int
        Of the job.
    first_low_pass : bool
        The job uses the reference's low-pass, so that it must be possible at this binning.
    **blocks : dict
        Fields by block; those that are None stay as they are.

    Raises
    ------
    ProblemError
        A value is impossible.
    """
    base = load_recipe(parameter) if parameter else Recipe()
    data = base.model_dump(by_alias=True)
    data |= {"levels": {}, "resolutions": data["resolutions"] | {"angpix": pixel_size, "binning_list": [binning]}}
    for name, fields in blocks.items():
        data[name] |= {key: value for key, value in fields.items() if value is not None}
    if not first_low_pass:
        data["refine3D"]["ini_high"] = max(data["refine3D"]["ini_high"] or 0.0, 2 * pixel_size * binning)
    return with_low_passes(parse_recipe(data, str(parameter or "command line")))


def machine(computer: Computer) -> plan.Machine:
    """The machine, with its GPUs if they are to be used."""
    return plan.Machine.of(None, ",".join(visible_gpus()) if computer.use_gpu else None)


def visible_gpus() -> list[str]:
    """Numbers of this machine's NVIDIA GPUs that this process may use."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [str(number) for number, name in enumerate(named.split(",")) if name.strip() not in ("", "-1")]
    return sorted(
        found[1] for path in Path("/dev").glob("nvidia*") if (found := re.fullmatch(r"nvidia(\d+)", path.name))
    )


def mpi(program: str, ranks: int) -> list[str]:
    """The start of a command on so many ranks."""
    return ["mpirun", "-n", str(ranks), f"{program}_mpi"] if ranks > 1 else [program]


def extract(
    recipe: Recipe, computer: Computer, particles: Path, tilt_series: Path, motion: Path | None,
    box: int | None, crop: int | None, apex: bool,
) -> Path:  # fmt: skip
    """Cut out particles at one binning. `apex` leaves out the CTF and the concatenated CTF image.

    Returns
    -------
    Path
        The job's directory.
    """
    binning, pixel_size = recipe.resolutions.binning_list[0], recipe.resolutions.angpix
    grid, size = _grid(recipe, box, crop)
    images = "stacks" if recipe.pseudo_subtomo.do_output_2dstacks else "pseudo-subtomograms"
    settings = plan.extract_settings(recipe.pseudo_subtomo, machine(computer), _n_series(particles), images)
    ranks, threads = computer.ranks or settings["ranks"], computer.threads or settings["threads"]
    job = new_job(Path(), "Extract")
    command = [*mpi("relion_tomo_subtomo", ranks), "--t", str(tilt_series), "--p", str(particles), "--o", f"{job}/"]
    command += [*grid, *_motion("--mot", motion), "--j", str(threads), *shlex.split(settings["options"])]
    command += ["--no_ctf", "--no_comb"] if apex else []
    return _done(job, command, lambda: check_extract(job, particles, size, pixel_size * binning))


def reconstruct(
    recipe: Recipe, computer: Computer, particles: Path, tilt_series: Path, motion: Path | None,
    box: int | None, crop: int | None,
) -> Path:  # fmt: skip
    """Average particles as they are oriented; the job's directory."""
    binning, pixel_size = recipe.resolutions.binning_list[0], recipe.resolutions.angpix
    grid, size = _grid(recipe, box, crop)
    settings = plan.reconstruct_settings(recipe.reconstruct, recipe, machine(computer), _n_series(particles))
    ranks, threads = computer.ranks or settings["ranks"], str(computer.threads or settings["threads"])
    job = new_job(Path(), "Reconstruct")
    command = [*mpi("relion_tomo_reconstruct_particle", ranks), "--t", str(tilt_series), "--p", str(particles)]
    command += ["--o", f"{job}/", *grid, *_motion("--mot", motion), "--sym", settings["symmetry"], "--j", threads]
    command += ["--j_out", threads, "--j_in", "1", *shlex.split(settings["options"])]
    return _done(job, command, lambda: check_reconstruct(job, particles, size, pixel_size * binning))


def refine3d(
    recipe: Recipe, computer: Computer, particles: Path, tilt_series: Path, motion: Path | None, reference: Path,
    mask: Path | None, continue_from: str | None = None,
) -> Path:  # fmt: skip
    """Auto-refine two half sets; the job's directory.

    Parameters
    ----------
    continue_from : str, optional
        An optimiser file, or an iteration of the newest Refine3D job, to go on from.
    """
    _must_be_there(reference, mask)
    settings = plan.refine_settings(recipe, 0, "denovo", "picks", machine(computer))
    ranks = _refinement_ranks(computer, settings["ranks"])
    start = ["--continue", str(optimiser(continue_from))] if continue_from else []
    job = new_job(Path(), "Refine3D")
    command = ["mpirun", "-n", str(ranks), "relion_refine_mpi", "--o", f"{job}/run", *start]
    command += _refine_flags(settings, computer, particles, tilt_series, motion, reference, mask)
    command += ["--solvent_correct_fsc"] if mask and settings["solvent_correct_fsc"] else []
    return _done(job, command, lambda: check_refine(job, particles, reference))


def class3d(
    recipe: Recipe, computer: Computer, particles: Path, tilt_series: Path, reference: Path, mask: Path | None,
    align: bool,
) -> Path:  # fmt: skip
    """Classify, with or without alignment; the job's directory."""
    _must_be_there(reference, mask)
    settings = _class3d_settings(recipe, machine(computer), align)
    ranks = computer.ranks or settings["ranks"]
    job = new_job(Path(), "Class3D")
    command = [*mpi("relion_refine", ranks), "--o", f"{job}/run", "--K", str(settings["classes"])]
    command += ["--iter", str(settings["iterations"]), "--tau2_fudge", f"{settings['tau']:g}"]
    command += _refine_flags(settings, computer, particles, tilt_series, None, reference, mask)
    return _done(job, command, lambda: _check_class3d(job, settings, particles, reference))


def _check_class3d(job: Path, settings: dict[str, Any], particles: Path, reference: Path) -> None:
    finish_classification(job, settings["iterations"])
    check_classes(job, particles, reference, settings["classes"])


def mask_create(source: Path, threshold: float, extend: int, width: int, low_pass: float, threads: int) -> Path:
    """Make a mask from a map; the job's directory."""
    given = read_map(source)
    job = new_job(Path(), "MaskCreate")
    command = ["relion_mask_create", "--i", str(source), "--o", f"{job}/mask.mrc", "--lowpass", f"{low_pass:g}"]
    command += ["--ini_threshold", f"{threshold:g}", "--extend_inimask", str(extend), "--width_soft_edge", str(width)]
    command += ["--j", str(threads)]
    return _done(job, command, lambda: check_maps(job, ["mask.mrc"], given.data.shape[0], given.pixel_size))


def post_process(half_map: Path, mask: Path, low_pass: float | None) -> Path:
    """Post-process half maps; with `low_pass` (Angstrom) they are filtered there and not weighted by their FSC.

    Returns
    -------
    Path
        The job's directory.
    """
    _must_be_there(mask)
    given = read_map(half_map)
    job = new_job(Path(), "PostProcess")
    command = ["relion_postprocess", "--i", str(half_map), "--mask", str(mask), "--o", f"{job}/postprocess"]
    command += ["--skip_fsc_weighting", "--low_pass", f"{low_pass:g}"] if low_pass is not None else []

    def check() -> None:
        check_map(job, job / "postprocess.mrc", given.data.shape[0], given.pixel_size)
        _, resolution = read_fsc(job)
        write_numbers(job, resolution=resolution, low_pass=low_pass)

    return _done(job, command, check)


def optimiser(continue_from: str) -> Path:
    """The optimiser file of an iteration of the newest Refine3D job, or the file that is named.

    Raises
    ------
    ProblemError
        There is none.
    """
    path = Path(continue_from)
    if continue_from.isdigit():
        found = sorted(Path().glob(f"Refine3D/*/run_it{int(continue_from):03d}_optimiser.star"), key=_written)
        path = found[-1] if found else Path(f"Refine3D/*/run_it{int(continue_from):03d}_optimiser.star")
    if not path.is_file():
        fix = "Give an iteration that was completed, or the path of its run_itNNN_optimiser.star."
        raise ProblemError(Problem("There is no such iteration.", str(path), "an optimiser file", fix))
    return path


def _written(path: Path) -> float:
    return path.stat().st_mtime


def _done(job: Path, command: list[str], check: Any) -> Path:
    """Run, prove, and note in the project; a job that failed is noted, too."""
    print(" ".join(command), flush=True)
    try:
        run_job(job, command)
        check()
    finally:
        update_project(Path())
    return job


def _grid(recipe: Recipe, box: int | None, crop: int | None) -> tuple[list[str], int]:
    """Flags for binning, box and crop, and the size of what comes out (pixels)."""
    resolutions = recipe.resolutions
    if box is None:
        size = crop_and_box(
            recipe.refine3D.particle_diameter, resolutions.angpix, resolutions.binning_list[0], resolutions.box_scaling
        )
        box, crop = size.box, crop or size.crop
    for name, value in (("--boxsize", box), ("--cropsize", crop)):
        if value is not None and value != -1 and (value < 8 or value % 2):
            problem = Problem(f"{name} {value} is no box.", name, "even, 8 or more", "Use an even number of pixels.")
            raise ProblemError(problem, ExitCode.BAD_PARAMETERS)
    crop = -1 if crop is None or crop >= box else crop
    binning = str(resolutions.binning_list[0])
    return ["--b", str(box), "--crop", str(crop), "--bin", binning], crop if crop > 0 else box


def _class3d_settings(recipe: Recipe, available: plan.Machine, align: bool) -> dict[str, Any]:
    """Settings of a classification, as the template's alignment has them."""
    block = recipe.class3D
    flags = plan.common_flags(block)
    flags += [f"--healpix_order {sampling_order(block.sampling)}", "--allow_coarser_sampling"] if align else []
    flags += [] if align else ["--skip_align"]
    ranks, threads, gpus = plan.refinement_ranks(available, block.nr_threads)
    return {
        "classes": block.nr_classes,
        "iterations": block.nr_iter,
        "tau": block.tau_fudge,
        "low_pass": block.ini_high,
        "diameter": block.particle_diameter,
        "symmetry": recipe.symmetry,
        "ranks": ranks,
        "threads": threads,
        # Without alignment RELION has nothing to do on a GPU.
        "gpus": gpus if align else "",
        "options": plan.join_flags(flags, block),
    }


def grid_of_particles(particles: Path) -> tuple[float, int]:
    """Unbinned pixel size (Angstrom) and binning of extracted particles."""
    optics = read_star(particles).get("optics")
    labels = ("rlnImagePixelSize", "rlnTomoTiltSeriesPixelSize")
    if optics is None or not set(labels) <= set(optics.columns):
        fix = "Extract them first: py2rely routines extract."
        raise ProblemError(Problem("These particles are not extracted.", str(particles), ", ".join(labels), fix))
    image, series = (float(optics[label].iloc[0]) for label in labels)
    return series, max(1, round(image / series))


def pixel_size_of(tilt_series: Path) -> float:
    """Unbinned pixel size (Angstrom) of a tilt-series STAR file."""
    table = read_star(tilt_series).get("global")
    if table is None or "rlnTomoTiltSeriesPixelSize" not in table:
        problem = Problem("This is no tilt-series STAR file.", str(tilt_series), "data_global with a pixel size", "")
        raise ProblemError(problem)
    return float(table["rlnTomoTiltSeriesPixelSize"].iloc[0])


def _n_series(particles: Path) -> int:
    table = read_star(particles).get("particles")
    if table is None or table.empty:
        raise ProblemError(Problem("There are no particles.", str(particles), "data_particles with rows", ""))
    return table["rlnTomoName"].nunique()


def _motion(flag: str, motion: Path | None) -> list[str]:
    return [flag, str(motion)] if motion else []


def _must_be_there(*maps: Path | None) -> None:
    missing = [path for path in maps if path is not None and not path.is_file()]
    if missing:
        raise ProblemError(
            [Problem("A map is missing.", str(path), "an MRC file", "Correct the path.") for path in missing]
        )


def _refinement_ranks(computer: Computer, planned: int) -> int:
    ranks = computer.ranks or planned
    if ranks < 3 or ranks % 2 == 0:
        what = f"An auto-refinement cannot run on {ranks} ranks."
        fix = "Give an odd number, 3 or more: a leader, and as many for one half set as for the other; or leave it out."
        raise ProblemError(Problem(what, "-np", "3, 5, 7, ...", fix), ExitCode.BAD_PARAMETERS)
    return ranks


def _refine_flags(
    settings: dict[str, Any], computer: Computer, particles: Path, tilt_series: Path, motion: Path | None,
    reference: Path, mask: Path | None,
) -> list[str]:  # fmt: skip
    """Flags that refinement and classification share, in the order of modules/relion/refine3d.nf."""
    flags = ["--i", str(particles), "--tomograms", str(tilt_series), *_motion("--trajectories", motion)]
    flags += ["--ref", str(reference), "--trust_ref_size", "--ini_high", f"{settings['low_pass']:g}"]
    flags += ["--solvent_mask", str(mask)] if mask else []
    flags += ["--particle_diameter", f"{settings['diameter']:g}", "--sym", settings["symmetry"]]
    flags += ["--j", str(computer.threads or settings["threads"])]
    flags += ["--gpu", settings["gpus"]] if settings["gpus"] else []
    return [*flags, *shlex.split(settings["options"])]


def select(classification: Classification, selection: Selection, output: Path | None) -> Path:
    """Write the particles of chosen classes, as a Select job of the project or to a file of one's own; its path."""
    if output is not None:
        write_selection(classification, selection, output)
        return output
    job = new_job(Path(), "Select")
    try:
        write_selection(classification, selection, job / "particles.star")
    finally:
        update_project(Path())
    return job / "particles.star"


def select_rows(source: Path, kept: list[int], output: Path | None) -> Path:
    """Write the particles of some classes of a file, as a Select job of the project or to a file of one's own.

    Parameters
    ----------
    source : Path
        Particles with rlnClassNumber, of a Class3D or Class2D job; it is not changed.
    kept : list of int
        Counted from 1.
    output : Path or None
        A file that is not there yet; None for the project's next Select job.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    ProblemError
        The file has no classes, or one of these has no particles.
    """
    chosen = export_classes(source, kept, output or Path("Select/particles.star"))
    (blocks,) = chosen.tables.values()
    if output is not None:
        write_import(chosen)
        return output
    job = new_job(Path(), "Select")
    try:
        write_star(blocks, job / "particles.star")
        before = len(read_star(source)["particles"])
        numbers = {"particles_in": before, "particles_out": len(blocks["particles"]), "classes_kept": kept}
        write_numbers(job, **numbers, inputs=[str(source)])
    finally:
        update_project(Path())
    for note in chosen.notes[:-1]:
        print(note)
    return job / "particles.star"


def _given_to(job: Path, flag: str) -> list[str]:
    """The values of an option in the commands of a job."""
    asked = [ran.get("asked", ran["command"]) for ran in commands(job)]
    return [value for command in asked for value in flags_of(command)[2].get(flag) or []]


def diameter_of(class_job: Path) -> float:
    """Particle diameter, Angstrom, that a classification was run with; half the box where it is not known.

    0 where there is no map either: then there is nothing to compare within it.
    """
    found = _given_to(class_job, "--particle_diameter")
    if found:
        return float(found[-1])
    maps = sorted(class_job.glob("run_*class001.mrc"))
    if not maps:
        return 0.0
    header = read_header(maps[-1])
    return header.shape[0] * header.pixel_size / 2


def tilt_series_of(class_job: Path) -> Path:
    """The tilt-series STAR file that a classification was run with, found from the project or from above the job.

    Raises
    ------
    ProblemError
        It is not known, or not there.
    """
    found = _given_to(class_job, "--tomograms")
    place = next(
        (root / found[-1] for root in (Path(), class_job.parent.parent) if found and (root / found[-1]).is_file()), None
    )
    if place is None:
        fix = "Give it: --tomograms tomograms.star."
        raise ProblemError(Problem("The tilt series of the classification are not known.", str(class_job), "", fix))
    return place
