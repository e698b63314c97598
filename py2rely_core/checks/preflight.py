"""Before anything is computed: every data set checked, and the plan of the run."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from py2rely_core.checks import run_checks
from py2rely_core.checks.context import CheckContext
from py2rely_core.checks.machine import Planned, check_machine, summary
from py2rely_core.checks.stacks import broken_stacks
from py2rely_core.data.inputs import load_inputs
from py2rely_core.data.tomograms import find_tomograms
from py2rely_core.exporters.final_picks import export_problems
from py2rely_core.importers.copick import series_of
from py2rely_core.importers.run import run_imports
from py2rely_core.importers.sources import source_files, tomogram_files
from py2rely_core.maps.io import Map, read_map
from py2rely_core.parameters.files import parse_recipe
from py2rely_core.parameters.imports import with_imported, with_tomograms
from py2rely_core.parameters.lost import lost_limit
from py2rely_core.parameters.recipe import Recipe
from py2rely_core.parameters.request import SINGLE_ID, load_datasets
from py2rely_core.parameters.table import Written
from py2rely_core.planning.binds import stack_binds
from py2rely_core.planning.low_pass import with_low_passes
from py2rely_core.planning.plan import Machine, plan_dataset
from py2rely_core.planning.resources import add_memory, add_slab_memory, workload_of
from py2rely_core.problems import ExitCode, Problem, ProblemError
from py2rely_core.relion.outputs.job import one_line
from py2rely_core.relion.run import relion_version
from py2rely_core.relion.slabs import check_size


def make_plan(request: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Check every data set and plan the run; the current directory is in the work directory.

    Parameters
    ----------
    request : dict
        As :func:`py2rely_core.parameters.request.load_datasets` returns it.

    Returns
    -------
    (dict, list of Problem)
        The plan, JSON-ready, and warnings.

    Raises
    ------
    ProblemError
        With all problems of all data sets, when there is an error among them.
    """
    checked = check_request(request, Path.cwd())
    if any(problem.is_error for problem in checked.problems):
        raise ProblemError(checked.problems)
    warnings = [problem.as_dict() for problem in checked.problems]
    return {"relion": relion_version(), "datasets": checked.plans, "warnings": warnings}, checked.problems


@dataclass(frozen=True)
class Checked:
    """What a preflight found.

    Attributes
    ----------
    problems : list of Problem
        Errors and warnings of the machine and of all data sets.
    plans : list of dict
        The plan of every data set, JSON-ready.
    numbers : list of dict
        Per data set: what was imported, how many particles are seen at each level, and what their extraction needs.
    """

    problems: list[Problem]
    plans: list[dict[str, Any]]
    numbers: list[dict[str, Any]]


def check_request(request: dict[str, Any], work: Path, outdir: Path | None = None) -> Checked:
    """Check the machine and every data set of a run, and plan it.

    Parameters
    ----------
    request : dict
        As :func:`py2rely_core.parameters.request.load_datasets` returns it.
    work, outdir : Path
        Where tasks will write, and where results will go: for their disk space.
    """
    machine = Machine.of(**request["machine"])
    problems, plans, planned = [], [], []
    several = len(request["datasets"]) > 1
    for dataset in request["datasets"]:
        context, plan = _plan_one(dataset, machine, request["lose"])
        found = [Problem(**one) for one in dataset["imported"]["warnings"]] + _left_out(plan) + run_checks(context)
        found += export_problems(dataset["export"], context.inputs) if dataset["export"] else []
        problems += [_of(problem, dataset["id"]) for problem in found] if several else found
        planned.append(Planned(context, plan))
        plans.append(plan)
    problems = [*check_machine(planned, machine, work, outdir, request["keep_stacks"]), *problems]
    pairs = zip(plans, planned, strict=True)
    numbers = [{"id": plan["id"], "imported": plan["imported"]} | summary(one) for plan, one in pairs]
    return Checked(problems, plans, numbers)


def check_parameters(
    params: dict[str, Any], params_file: Path | None, others: list[str], launch: Path, work: Path, outdir: Path
) -> Checked:
    """The preflight of a run that is given as on the command line.

    Parameters
    ----------
    params : dict
        Run parameters by name.
    params_file : Path or None
        A JSON file of parameters, as ``nextflow run -params-file`` takes it.
    others : list of str
        More parameters as they are typed, such as ``--refine3D.ini_high 40``.
    launch, work, outdir : Path
        Absolute paths of the directory of the run, its work directory and its output directory.

    Raises
    ------
    ProblemError
        A parameter is unknown or impossible, with the exit code for that.
    """
    given: dict[str, Any] = {}
    if params_file is not None:
        try:
            given = json.loads((launch / params_file).read_text(), parse_float=Written)
        except (OSError, ValueError) as error:
            problem = Problem(f"The parameter file cannot be read: {error}.", str(params_file), "JSON", "Correct it.")
            raise ProblemError(problem, ExitCode.BAD_PARAMETERS) from error
    for name, value in _typed(others).items():
        *blocks, last = name.split(".")
        place = given
        for block in blocks:
            place = place.setdefault(block, {})
        place[last] = value
    request = load_datasets({"launch_dir": str(launch), "params": given | params})
    with tempfile.TemporaryDirectory(prefix="py2rely_") as place:
        datasets = [_imported(dataset, Path(place).resolve() / dataset["id"]) for dataset in request["datasets"]]
        checked = check_request(request | {"datasets": datasets}, work, outdir)
        problems = [_without(place, one) for one in checked.problems]
    return replace(checked, problems=problems)


def _without(place: str, problem: Problem) -> Problem:
    """A problem of something imported, which is gone when it is read: without the directory that it lay in."""
    prefix = re.compile(rf"{re.escape(str(Path(place).resolve()))}/(?:{SINGLE_ID}/)?")
    return replace(problem, what=prefix.sub("", problem.what), where=prefix.sub("", problem.where))


def _imported(dataset: dict[str, Any], place: Path) -> dict[str, Any]:
    """A data set with its imports done, and the tomograms of its copick project looked up."""
    if dataset["slab_copick"]:
        dataset = with_tomograms(dataset, tomogram_files(dataset["slab_copick"]))
    if not dataset["imports"]:
        return dataset
    run_imports(source_files(dataset["imports"], dataset["export"])["settings"], place)
    return with_imported(dataset, place)


def _typed(arguments: list[str]) -> dict[str, Any]:
    """Parameters as they are typed: ``--name value``, ``--name=value``, or ``--name`` alone for true."""
    typed: dict[str, Any] = {}
    name = ""
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            typed[name] = value if equals else True
        elif name and typed[name] is True:
            typed[name] = argument
        else:
            problem = Problem(f"'{argument}' is no parameter.", "command line", "--name value", "Write it so.")
            raise ProblemError(problem, ExitCode.BAD_PARAMETERS)
    return typed


def _of(problem: Problem, identity: str) -> Problem:
    return Problem(f"{identity}: {problem.what}", problem.where, problem.expected, problem.fix, problem.severity)


def _left_out(plan: dict[str, Any]) -> list[Problem]:
    """A warning that names every tilt series that the run goes on without."""
    if not plan["lost"]:
        return []
    fix = "Repair the stacks; then start the same command with -resume."
    what = f"Tilt series are left out: {'; '.join(one_line(one) for one in plan['lost'])}."
    return [Problem(what, plan["tilt_series"], "", fix, "warning")]


def _without_broken(context: CheckContext, limit: int) -> tuple[CheckContext, list[dict[str, Any]]]:
    """The data set without tilt series whose stacks cannot be used, and what they are; all of it if they are too many.

    Parameters
    ----------
    limit : int
        How many may be left out.
    """
    broken = broken_stacks(context) if limit else {}
    if not broken or len(broken) > limit or len(broken) == len(context.inputs.tilt_series):
        return context, []
    counts = {name: len(context.particle_rows.get(name, ())) for name in broken}
    lost = [{"tilt_series": name, "particles": counts[name], "reason": reason} for name, reason in broken.items()]
    return replace(context, inputs=context.inputs.without(broken)), lost


def _tomograms(recipe: Recipe, dataset: dict[str, Any], context: CheckContext) -> dict[str, Any]:
    """The tomograms that slabs are cut from; none where RELION makes them, or where one is missing.

    Returns
    -------
    dict
        ``{"files": {tilt series: path}, "copick": None or what is opened by copick}``, JSON-ready.
    """
    inputs, none = context.inputs, {"files": {}, "copick": None}
    if not (recipe.slabs.tomograms or dataset["slab_copick"]) or "rlnTomoName" not in inputs.tomograms:
        return none
    used = inputs.tomograms["rlnTomoName"].astype(str).isin(set(map(str, context.particle_rows)))
    where = dataset["slab_tomograms"] or recipe.slabs.tomograms
    try:
        if dataset["slab_copick"]:
            return _of_copick(dataset["slab_copick"], inputs.tomograms[used])
        found = find_tomograms(where, inputs.tomograms[used], inputs.tilt_series_file, Path(dataset["launch_dir"]))
    except ProblemError as error:
        # What is wrong with a copick project is wrong for its picks, too.
        known = {problem.what for problem in inputs.problems}
        inputs.problems += [problem for problem in error.problems if problem.what not in known]
        return none
    return none | {"files": {name: str(path) for name, path in found.items()}}


def _of_copick(asked: dict[str, Any], tilt_series: pd.DataFrame) -> dict[str, Any]:
    """The tomograms of a copick project, by the tilt series that are used.

    Raises
    ------
    ProblemError
        The project cannot be opened; tomograms are missing, or have another size than their tilt series say.
    """
    found = asked["found"]
    if found["problems"]:
        raise ProblemError([Problem(**one) for one in found["problems"]])
    names = list(tilt_series["rlnTomoName"].astype(str))
    runs = {series_of(run, names, asked["prefix"], asked["remove"]): run for run in found["runs"]}
    others = {series_of(run, names, asked["prefix"], asked["remove"]): has for run, has in found["others"].items()}
    missing = [name for name in names if name not in runs]
    if missing:
        wanted = f"'{asked['tomo_alg']}' with voxels of {asked['voxel_spacing']:g} A"
        what = f"{len(missing)} of {len(names)} tilt series have no tomogram {wanted}, such as {missing[0]}."
        has = f"its run has {others[missing[0]] or 'none'}" if missing[0] in others else "it has no run"
        fix = "Correct slabs.tomo_alg and slabs.voxel_spacing, or leave them out: tomograms are then made."
        raise ProblemError(Problem(what, f"{asked['config']}: {has}", "a tomogram of each tilt series", fix))
    problems: list[Problem] = []
    for name in names:
        try:
            check_size(found["runs"][runs[name]]["size"][::-1], asked["voxel_spacing"], name, tilt_series)
        except ProblemError as error:
            problems += error.problems
    if problems:
        raise ProblemError(problems)
    used = {name: found["runs"][runs[name]] for name in names}
    opened = {key: asked[key] for key in ("config", "launch_dir", "tomo_alg", "voxel_spacing")}
    opened |= {"runs": {name: runs[name] for name in names}, "seen": {name: used[name]["seen"] for name in names}}
    return {
        "files": {name: one["store"] for name, one in used.items() if one["store"]},
        "copick": opened | {"roots": found["roots"]},
    }


def _readable(reference: Path | None, mode: str, recipe: Recipe) -> Map | None:
    """The template, where a low-pass is to follow from it; None, too, if it cannot be read: a check says so."""
    if reference is None or mode != "template" or recipe.refine3D.ini_high is not None:
        return None
    try:
        return read_map(reference)
    except ProblemError:
        return None


def _plan_one(dataset: dict[str, Any], machine: Machine, lose: str) -> tuple[CheckContext, dict[str, Any]]:
    reference = Path(dataset["reference"]) if dataset["reference"] else None
    recipe = parse_recipe(dataset["recipe"], dataset["id"])
    recipe = with_low_passes(recipe, _readable(reference, dataset["mode"], recipe))
    particles, tilt_series = (Path(dataset[key]) if dataset[key] else None for key in ("particles", "tilt_series"))
    inputs = load_inputs(particles, tilt_series, Path(dataset["launch_dir"]))
    # Checks pass over what could not be imported, as they do over what could not be read.
    inputs.problems = [Problem(**one) for one in dataset["imported"]["problems"]] + inputs.problems
    given = {name: Path(dataset[name]) for name in ("mask", "motion") if dataset[name]}
    context = CheckContext(recipe, inputs, dataset["mode"], reference, dataset["start"], given)
    limit = lost_limit(lose, len(inputs.tilt_series))
    context, lost = _without_broken(context, limit)
    inputs = context.inputs
    used = inputs.particles["rlnTomoName"].nunique() if "rlnTomoName" in inputs.particles else 1
    planned = {
        key: dataset[key]
        for key in (
            "id", "project", "mode", "start", "launch_dir", "particles", "tilt_series", "reference", "motion", "mask",
            "export",
        )
    }  # fmt: skip
    plan = planned | plan_dataset(recipe, dataset["mode"], max(1, used), machine, dataset["start"], dataset["low_pass"],
                                  len(inputs.particles))  # fmt: skip
    tilts = max((len(series.tilts) for series in inputs.tilt_series.values()), default=0)
    work = workload_of(len(inputs.particles), tilts, inputs.stacks(), max(1, used), inputs.tomograms)
    add_memory(plan, work)
    if plan["slabs"]:
        plan["slabs"]["tomograms"] = _tomograms(recipe, dataset, context)
        add_slab_memory(plan["slabs"], inputs.tomograms, work)
    said = {"recipe": dataset["recipe"], "imported": dataset["imported"]["notes"], "workload": asdict(work)}
    tables = {series.star_file for series in inputs.tilt_series.values()}
    said |= {"files": [str(path) for path in [*sorted(tables), *inputs.stacks()]]}
    # What a task reads by its name alone.
    tomograms = plan["slabs"]["tomograms"] if plan["slabs"] else {"files": {}, "copick": None}
    outside = [
        *inputs.stacks(),
        *map(Path, tomograms["files"].values()),
        *(Path(root) / "ExperimentRuns" for root in (tomograms["copick"] or {}).get("roots", [])),
        *([Path(recipe.postprocess.fn_mtf)] if recipe.postprocess.fn_mtf else []),
    ]
    return context, plan | said | {"binds": stack_binds(outside), "lose": limit, "lost": lost}
