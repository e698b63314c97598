"""Before anything is computed: every data set checked, and the plan of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from py2rely_core.binds import stack_binds
from py2rely_core.checks import run_checks
from py2rely_core.checks.context import CheckContext
from py2rely_core.inputs import Inputs, load_inputs
from py2rely_core.plan import Machine, plan_dataset
from py2rely_core.problems import ExitCode, Problem, ProblemError
from py2rely_core.recipe import parse_recipe
from py2rely_core.relion import relion_version
from py2rely_core.tables import write_star


def make_plan(request: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Check every data set and plan the run.

    Parameters
    ----------
    request : dict
        As :func:`py2rely_core.request.load_datasets` returns it.

    Returns
    -------
    (dict, list of Problem)
        The plan, JSON-ready, and warnings.

    Raises
    ------
    ProblemError
        With all problems of all data sets, when there is an error among them.
    """
    machine = Machine.of(request["machine"]["cpus"], request["machine"]["gpus"])
    problems, datasets = _machine_problems(), []
    several = len(request["datasets"]) > 1
    for dataset in request["datasets"]:
        found, planned = _plan_one(dataset, machine)
        problems += [_of(problem, dataset["id"]) for problem in found] if several else found
        datasets.append(planned)
    if any(problem.is_error for problem in problems):
        raise ProblemError(problems)
    return {"relion": relion_version(), "datasets": datasets, "warnings": [p.as_dict() for p in problems]}, problems


def _of(problem: Problem, identity: str) -> Problem:
    return Problem(f"{identity}: {problem.what}", problem.where, problem.expected, problem.fix, problem.severity)


def _machine_problems() -> list[Problem]:
    version = relion_version()
    if not version:
        return [
            Problem(
                "RELION is not there.", "PATH", "relion_refine, version 5", "Put RELION 5 on PATH, or use an image."
            )
        ]
    if not version.startswith("5."):
        return [Problem(f"RELION {version} is too old.", "PATH", "RELION 5", "Install RELION 5.0.1 or later.")]
    if version.startswith("5.0.0"):
        what = "RELION 5.0.0 has errors in reconstruction that 5.0.1 corrected."
        return [Problem(what, "PATH", "5.0.1 or later", "Update RELION.", "warning")]
    return []


def _plan_one(dataset: dict[str, Any], machine: Machine) -> tuple[list[Problem], dict[str, Any]]:
    recipe = parse_recipe(dataset["recipe"], dataset["id"])
    reference = Path(dataset["reference"]) if dataset["reference"] else None
    inputs = load_inputs(Path(dataset["particles"]), Path(dataset["tilt_series"]), Path(dataset["launch_dir"]))
    problems = run_checks(CheckContext(recipe, inputs, dataset["mode"], reference))
    used = inputs.particles["rlnTomoName"].nunique() if "rlnTomoName" in inputs.particles else 1
    planned = {
        key: dataset[key] for key in ("id", "project", "mode", "launch_dir", "particles", "tilt_series", "reference")
    }
    return problems, planned | plan_dataset(recipe, dataset["mode"], max(1, used), machine) | {
        "recipe": dataset["recipe"],
        "binds": stack_binds(inputs.stacks()),
    }


def import_inputs(particles: Path, tilt_series: Path, project: Path, output: Path) -> tuple[Path, Path]:
    """Write a data set's tables under the names that every later step uses, with links to its stacks.

    ``Import/tilt_series`` gets ``tomograms.star``, a STAR file per tilt series and ``stacks/`` with links; their paths
    are relative to `output`, which mirrors a RELION project. ``Select/input`` gets the particles.

    Raises
    ------
    ProblemError
        The tables cannot be read.
    """
    inputs = load_inputs(particles, tilt_series, project)
    if inputs.problems:
        raise ProblemError(inputs.problems, ExitCode.BAD_INPUT)
    job, picks = Path("Import/tilt_series"), Path("Select/input")
    (output / job / "stacks").mkdir(parents=True, exist_ok=True)
    used = set(inputs.particles["rlnTomoName"])
    tomograms = inputs.tomograms[inputs.tomograms["rlnTomoName"].isin(used)].copy()
    files = {}
    for number, name in enumerate(tomograms["rlnTomoName"], start=1):
        files[name] = str(job / "tilt_series" / f"{_file_name(name, number)}.star")
        write_star({name: _linked(inputs, name, number, job, output)}, output / files[name])
    tomograms["rlnTomoTiltSeriesStarFile"] = tomograms["rlnTomoName"].map(files)
    write_star({"global": tomograms}, output / job / "tomograms.star")
    tables = {"optics": inputs.optics, "particles": inputs.particles.drop(columns="rlnImageName", errors="ignore")}
    write_star(tables, output / picks / "particles.star")
    return output / job, output / picks


def _file_name(name: str, number: int) -> str:
    """A file name without characters that RELION's programs or shells take for something else."""
    safe = "".join(char if char.isalnum() or char in "._-" else "_" for char in name)
    return safe if safe == name else f"{safe}_{number}"


def _linked(inputs: Inputs, name: str, number: int, job: Path, output: Path) -> Any:
    from py2rely_core.tables import resolve, split_image_name

    series = inputs.tilt_series[name]
    tilts, links = series.tilts.copy(), {}
    images = []
    for image in tilts["rlnMicrographName"]:
        section, file = split_image_name(image)
        if file not in links:
            suffix = f"_{len(links)}" if links else ""
            links[file] = job / "stacks" / f"{_file_name(name, number)}{suffix}.mrcs"
            link = output / links[file]
            link.unlink(missing_ok=True)
            link.symlink_to(resolve(file, series.star_file, inputs.project).resolve())
        images.append(f"{section}@{links[file]}")
    tilts["rlnMicrographName"] = images
    return tilts
