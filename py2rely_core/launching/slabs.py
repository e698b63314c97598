"""Slabs by hand, in a RELION project: cut, classified, shown, chosen."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pandas as pd

from py2rely_core.data.tables import Blocks, read_star, split_image_name, write_star
from py2rely_core.data.tomograms import RECONSTRUCTED, find_tomograms
from py2rely_core.importers.copick import Picks, import_copick
from py2rely_core.importers.particles import Tomograms
from py2rely_core.importers.result import Import, write_import
from py2rely_core.judging.classes import CLASS_FILE, Classification, newest_whole
from py2rely_core.judging.selection import Selection
from py2rely_core.judging.slab_classes import kept_particles, read_class2d, select_slabs
from py2rely_core.launching.routines import Computer, machine
from py2rely_core.parameters.recipe import Slabs
from py2rely_core.planning.plan import default_slab_classes, slab_class_settings
from py2rely_core.problems import ExitCode, Problem, ProblemError
from py2rely_core.relion import slabs as work
from py2rely_core.relion.job_star import flags_of
from py2rely_core.relion.outputs.refinements import check_class2d
from py2rely_core.relion.run import commands, run_job
from py2rely_core.results.project import new_job, update_project


def picks_of_copick(configs: list[Path], picks: Picks, pixel_size: float, output: Path) -> list[str]:
    """Write picks of copick projects as particles, with their orientations; what there is to say of them.

    Parameters
    ----------
    configs : list of Path
        copick configurations, whose runs have different names.
    picks : Picks
    pixel_size : float
        Of the tilt series, unbinned, Angstrom.
    output : Path
        The particle file.
    """
    optics = {"rlnOpticsGroup": 1, "rlnOpticsGroupName": "opticsGroup1", "rlnTomoTiltSeriesPixelSize": pixel_size}
    tomograms = Tomograms({}, pixel_size, optics | work.MICROSCOPE)
    made = [import_copick(config, picks, output, tomograms, own_sizes=True) for config in configs]
    tables = [one.tables[output]["particles"] for one in made]
    blocks = made[0].tables[output] | {"particles": pd.concat(tables, ignore_index=True)}
    write_import(Import({output: blocks}), overwrite=True)
    return [note for one in made for note in one.notes]


def make(
    particles: Path, settings: work.Settings, output: Path | None, open_tomogram: work.Open | None,
    tilt_series: Path | None, tomograms: str = "",
) -> Path:  # fmt: skip
    """Cut slabs; the directory that holds them: `output`, or the project's next Extract job.

    Parameters
    ----------
    particles : Path
        RELION 5 particles.
    settings : Settings
    output : Path or None
    open_tomogram : callable or None
        Gives tomograms by name; None for those of the tilt series.
    tilt_series : Path or None
        Their table; its tomograms, else RELION makes them.
    tomograms : str
        A directory, or a label of the table.
    """
    table = read_star(tilt_series)["global"] if tilt_series else None
    names = set(read_star(particles)["particles"]["rlnTomoName"].astype(str))
    used = table[table["rlnTomoName"].astype(str).isin(names)] if table is not None else None
    if used is not None and len(used) < len(names):
        missing = sorted(names - set(used["rlnTomoName"].astype(str)))
        what = f"{len(missing)} tilt series are missing, such as {missing[0]}."
        raise ProblemError(Problem(what, str(tilt_series), "the tilt series of all particles", "Give the right table."))
    wanted = tomograms or (RECONSTRUCTED if used is not None and RECONSTRUCTED in used else "")
    if open_tomogram is None and wanted:
        series = used if used is not None else pd.DataFrame({"rlnTomoName": sorted(names)})
        place = (tilt_series or particles).absolute()
        open_tomogram = work.opened(find_tomograms(wanted, series, place, Path.cwd()))
    job = output or new_job(Path(), "Extract")
    try:
        source = open_tomogram or work.reconstructed(job, used, settings)
        defocus = work.least_tilt(used, Path) if used is not None else (lambda name: None)
        work.make_slabs(job, particles, settings, source, used, defocus)
    finally:
        if output is None:
            update_project(Path())
    return job


def class2d(
    particles: Path, block: Slabs, diameter: float, classes: int | None, computer: Computer, ranks: int = 1
) -> Path:
    """Classify images; the Class2D job.

    Parameters
    ----------
    particles : Path
        2D particles, as :func:`make` writes them.
    block : Slabs
        Its fields of the classification.
    diameter : float
        Of the circular mask, Angstrom.
    classes : int or None
        None: by the number of images.
    computer : Computer
    ranks : int
        MPI ranks; a gradient-driven classification has one.
    """
    images = read_star(particles).get("particles", pd.DataFrame())
    if "rlnImageName" not in images:
        fix = "Make slabs first: py2rely slab make."
        raise ProblemError(Problem("These particles have no images.", str(particles), "rlnImageName", fix))
    missing = [file for file in _stacks(images) if not Path(file).is_file()]
    if missing:
        fix = "Start in the directory in which the slabs were made."
        raise ProblemError(Problem(f"{len(missing)} stacks are missing.", missing[0], "stacks of images", fix))
    block = block.model_copy(update={"particle_diameter": diameter, "use_gpu": computer.use_gpu})
    settings = slab_class_settings(block, diameter, classes or default_slab_classes(len(images)), machine(computer))
    job = new_job(Path(), "Class2D")
    command = ["mpirun", "-n", str(ranks), "relion_refine_mpi"] if ranks > 1 else ["relion_refine"]
    command += ["--o", f"{job}/run", "--i", str(particles), "--K", str(settings["classes"])]
    command += ["--iter", str(settings["iterations"]), "--j", str(computer.threads or settings["threads"])]
    command += ["--gpu", settings["gpus"]] if settings["gpus"] else []
    command += shlex.split(settings["options"])
    print(shlex.join(command), flush=True)
    try:
        run_job(job, command)
        check_class2d(job, particles, settings["iterations"], settings["classes"])
    finally:
        update_project(Path())
    return job


def _stacks(images: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(split_image_name(name)[1] for name in images["rlnImageName"]))


def slabs_of(data: Path) -> Path:
    """The directory of slabs that classified images are of.

    Raises
    ------
    ProblemError
        They are of no slabs, or of several.
    """
    images = read_star(data).get("particles", pd.DataFrame())
    if "rlnImageName" not in images:
        raise ProblemError(Problem("These are no images.", str(data), "rlnImageName", "Give run_itNNN_data.star."))
    found = sorted({Path(file).parent.parent for file in _stacks(images)})
    slabs = [path for path in found if (path / work.INDEX).is_file()]
    if len(found) != 1 or not slabs:
        what = "It is not known which slabs these images are of."
        fix = "Start in the project's directory, or give their directory with --slabs."
        raise ProblemError(Problem(what, f"{data}: {', '.join(map(str, found[:3]))}", work.INDEX, fix))
    return slabs[0]


def job_of(data: Path) -> Classification:
    """A classification by one of its iterations' files; the newest one that is whole where that one is not."""
    folder = data if data.is_dir() else data.parent
    newest = read_class2d(folder)
    named = CLASS_FILE.fullmatch(data.name)
    files = {path.name: path for path in folder.glob(f"{named[1]}_*")} if named and data.is_file() else {}
    return newest_whole(folder, files) or newest


def diameter_of(found: Classification) -> float:
    """Of the particle, Angstrom: that of the mask it was classified with, less the fifth that was added to it.

    Raises
    ------
    ProblemError
        The job does not say.
    """
    for ran in commands(found.job):
        values = flags_of(ran.get("asked", ran["command"]))[2].get("--particle_diameter")
        if values:
            return float(values[0]) / 1.2
    what, fix = "The particle's diameter is not known.", "Give it: --particle-diameter 300."
    raise ProblemError(Problem(what, str(found.job), "a job with its command", fix), ExitCode.BAD_PARAMETERS)


def select(
    found: Classification, slabs: Path, selection: Selection, output: Path | None, with_not_judged: bool
) -> tuple[Path, Blocks]:
    """Write the particles of the classes that are kept, as they were before; the file, and its blocks.

    Parameters
    ----------
    found : Classification
    slabs : Path
    selection : Selection
    output : Path or None
        A file that is not there yet; None for the project's next Select job.
    with_not_judged : bool
        Particles without an image go on, too.
    """
    if output is None:
        job = new_job(Path(), "Select")
        try:
            select_slabs(found, slabs, selection, job, with_not_judged, [str(found.data)])
        finally:
            update_project(Path())
        return job / "particles.star", read_star(job / "particles.star")
    if output.exists():
        raise ProblemError(Problem("The file exists.", str(output), "a new name", "Give another --output."))
    kept = kept_particles(slabs, found.data, selection.kept, with_not_judged)
    write_star(kept.blocks, output)
    return output, kept.blocks


def edges(text: str) -> tuple[float, float]:
    """Edge and thickness of slabs, Angstrom, of ``500,500,400``.

    Raises
    ------
    ProblemError
        It is not three numbers, or x and y differ.
    """
    try:
        x, y, z = (float(part) for part in text.replace(",", " ").split())
    except ValueError:
        x, y, z = 0.0, 0.0, 0.0
    if min(x, y, z) <= 0 or not np.isclose(x, y):
        problem = Problem(
            f"'{text}' is no shape of slabs.", "--extract-shape", "x,y,z in Angstrom, x = y", "500,500,400"
        )
        raise ProblemError(problem, ExitCode.BAD_PARAMETERS)
    return x, z
