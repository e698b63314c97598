"""What a run was asked to do: every parameter, from files and from the command line, brought into one checked form."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

from py2rely_core.problems import ExitCode, Problem, ProblemError, nearest
from py2rely_core.recipe import KNOWN_BLOCKS, Recipe, parse_recipe

#: Parameters of a run besides the recipe's blocks; nextflow.config has their defaults.
RUN_PARAMETERS = (
    "parameter",
    "sample_sheet",
    "reference_template",
    "run_denovo_generation",
    "outdir",
    "cpus",
    "gpus",
    "num_gpus",
)
#: How and where tasks run. main.nf keeps them out of the request: they decide on no result, and repeat no step.
CONFIGURATION = (
    "image",
    "relion_load",
    "timeout",
    "slurm_partition",
    "slurm_gpu_partition",
    "slurm_account",
    "slurm_qos",
    "slurm_constraint",
    "gpu_constraint",
    "cpu_constraint",
    "gpu_request",
    "gpu_type",
    "slurm_options",
    "slurm_memory_per_cpu",
    "slurm_core",
    "slurm_queue_size",
    "slurm_poll",
)
#: Parameters that Nextflow itself reads, by this very name.
READ_BY_NEXTFLOW = ("sample_sheet", "num_gpus", *CONFIGURATION)
SHEET_COLUMNS = ("id", "parameters", "reference_template", "run_denovo_generation")
#: The data set of a run without a sample sheet.
SINGLE_ID = "main"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def load_datasets(request: dict[str, Any]) -> dict[str, Any]:
    """The data sets of a run.

    Parameters
    ----------
    request : dict
        ``{"launch_dir": absolute path, "params": every parameter that Nextflow knows}``.

    Returns
    -------
    dict
        ``{"machine": {"cpus", "gpus"}, "datasets": [{"id", "recipe", "mode", "particles", "tilt_series", "reference",
        "launch_dir",
        "project"}]}`` with absolute paths, JSON-ready; `project` is the data set's place within outdir.

    Raises
    ------
    ProblemError
        With every problem of every parameter.
    """
    launch = Path(request["launch_dir"])
    params, problems = _known(request["params"])
    blocks = {name: params[name] for name in KNOWN_BLOCKS if name in params}
    datasets = []
    for row in _rows(params, launch, problems):
        try:
            datasets.append(_dataset(row, blocks, launch))
        except ProblemError as error:
            problems += error.problems
    if problems:
        raise ProblemError(problems, ExitCode.BAD_PARAMETERS)
    return {"machine": {"cpus": params.get("cpus"), "gpus": _gpus(params)}, "datasets": datasets}


def _gpus(params: dict[str, Any]) -> str | None:
    """GPU numbers: the first ``num_gpus``, as a job sees those that a scheduler gave it; or those that were named."""
    if params.get("num_gpus"):
        return ",".join(str(number) for number in range(int(params["num_gpus"])))
    return None if params.get("gpus") is None else str(params["gpus"])


def _squashed(name: str) -> str:
    return re.sub(r"[-_]", "", name).lower()


def _known(params: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Parameters by their true names, and a problem for every unknown one.

    Nextflow shows ``--run-denovo-generation`` twice, also as ``runDenovoGeneration``; both are the same parameter.
    """
    names = (*RUN_PARAMETERS, *CONFIGURATION, *KNOWN_BLOCKS)
    aliases = {_squashed(name): name for name in names}
    kebab = {_squashed(name) for name in params if "-" in name}
    known, problems = {}, []
    for name, value in params.items():
        true_name = aliases.get(_squashed(name))
        if name in names:
            known.setdefault(name, value)
        elif true_name in READ_BY_NEXTFLOW:
            problems.append(
                Problem(
                    f"Unknown parameter '{name}'.", "command line or -params-file", f"--{true_name}", "Write it so."
                )
            )
        elif true_name and ("-" in name or _squashed(name) in kebab):
            known[true_name] = value
        else:
            hint = nearest(name, names) or (f"did you mean '{true_name}'?" if true_name else "")
            hint = hint or f"The parameters are: {', '.join(names)}."
            problems.append(Problem(f"Unknown parameter '{name}'.", "command line or -params-file", "", hint))
    return known, problems


def _rows(params: dict[str, Any], launch: Path, problems: list[Problem]) -> list[dict[str, Any]]:
    if not params.get("sample_sheet"):
        row = {"id": SINGLE_ID, "parameters": params.get("parameter")}
        return [row | {key: params.get(key) for key in ("reference_template", "run_denovo_generation")}]
    sheet = launch / str(params["sample_sheet"])
    if not sheet.is_file():
        problems.append(Problem("The sample sheet is missing.", str(sheet), "a CSV file", "Correct the path."))
        return []
    with sheet.open(newline="") as file:
        rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in csv.DictReader(file)]
    problems += _sheet_problems(rows, sheet)
    return [row | {"base": str(sheet.parent)} for row in rows if row.get("id")]


def _sheet_problems(rows: list[dict[str, str]], sheet: Path) -> list[Problem]:
    problems = []
    if not rows:
        problems.append(Problem("The sample sheet has no rows.", str(sheet), ", ".join(SHEET_COLUMNS), "Add rows."))
    for name in sorted({key for row in rows for key in row} - set(SHEET_COLUMNS)):
        problems.append(
            Problem(f"Unknown column '{name}'.", str(sheet), ", ".join(SHEET_COLUMNS), nearest(name, SHEET_COLUMNS))
        )
    ids = [row.get("id", "") for row in rows]
    for number, identity in enumerate(ids, start=2):
        if not _ID.fullmatch(identity) or identity == SINGLE_ID:
            expected = f"letters, digits, '.', '_' and '-'; not '{SINGLE_ID}'"
            problems.append(
                Problem(f"'{identity}' is no usable id.", f"{sheet}, line {number}", expected, "Rename it.")
            )
        elif ids.count(identity) > 1:
            problems.append(
                Problem(f"The id '{identity}' is used twice.", f"{sheet}, line {number}", "", "Rename one.")
            )
    return problems


def _dataset(row: dict[str, Any], blocks: dict[str, Any], launch: Path) -> dict[str, Any]:
    file = row.get("parameters")
    where = f"{row['id']}: " if row.get("base") else ""
    data: dict[str, Any] = {}
    roots = [launch, Path(row.get("base") or launch)]
    if file:
        path = _existing(str(file), roots)
        roots.append(path.parent)
        data, where = _read_json(path), where + str(path)
    elif not blocks:
        fix = (
            "Write one with 'py2rely prepare relion5-parameters', and give it as --parameter FILE or -params-file FILE."
        )
        raise ProblemError(Problem("There is no parameter file.", where or "--parameter", "", fix))
    recipe = parse_recipe(_merged(data, blocks), where or "parameters")
    denovo = str(row.get("run_denovo_generation") or "").lower() in {"true", "yes", "1"}
    template = row.get("reference_template")
    if denovo and template:
        what = "A template and a de novo model are both asked for."
        raise ProblemError(
            Problem(what, where, "one of the two", "Leave out reference_template or run_denovo_generation.")
        )
    if denovo and recipe.initial_model is None:
        recipe = parse_recipe(recipe.model_dump(by_alias=True) | {"initial_model": _initial_model(recipe)}, where)
    particles, tilt_series = _inputs(recipe, where)
    return {
        "id": row["id"],
        "recipe": recipe.model_dump(by_alias=True),
        "mode": "template" if template else "denovo" if denovo else "known",
        "launch_dir": str(launch),
        "project": "" if row["id"] == SINGLE_ID else row["id"],
        "particles": str(_existing(particles, roots)),
        "tilt_series": str(_existing(tilt_series, roots)),
        "reference": str(_existing(str(template), roots)) if template else None,
    }


def _existing(name: str, roots: list[Path]) -> Path:
    """A path from the first of these directories where it exists: launch, the sample sheet's, the parameter file's."""
    return next((root / name for root in roots if (root / name).exists()), roots[0] / name)


def _initial_model(recipe: Recipe) -> dict[str, Any]:
    refine = recipe.refine3D
    names = {
        "sym_name": refine.sym_name,
        "particle_diameter": refine.particle_diameter,
        "nr_threads": refine.nr_threads,
    }
    return names | {"in_tomograms": refine.in_tomograms}


def _inputs(recipe: Recipe, where: str) -> tuple[str, str]:
    particles = recipe.pseudo_subtomo.in_particles or recipe.reconstruct.in_particles
    tilt_series = recipe.pseudo_subtomo.in_tomograms or recipe.refine3D.in_tomograms or recipe.reconstruct.in_tomograms
    problems = [
        Problem(f"The parameter file names no {what}.", f"{where}: pseudo_subtomo.{label}", "a STAR file", "Add it.")
        for what, label, value in (
            ("particles", "in_particles", particles),
            ("tilt series", "in_tomograms", tilt_series),
        )
        if not value
    ]
    if problems:
        raise ProblemError(problems)
    return particles, tilt_series


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ProblemError(
            Problem("The parameter file is missing.", str(path), "a JSON file", "Correct the path.")
        ) from None
    except ValueError as error:
        raise ProblemError(
            Problem(f"The parameter file is not JSON: {error}.", str(path), "", "Correct it.")
        ) from error


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if both else value
    return result
