"""What a run was asked to do: every parameter, from files and from the command line, brought into one checked form."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

from py2rely_core.data.inputs import from_optimisation_set
from py2rely_core.parameters.files import parse_recipe
from py2rely_core.parameters.gpus import gpu_problems
from py2rely_core.parameters.imports import (
    FIELDS,
    SOURCES,
    TILT_SERIES,
    export_settings,
    import_problems,
    import_settings,
    slab_settings,
    with_imported,
    with_tomograms,
)
from py2rely_core.parameters.lost import limit_problems
from py2rely_core.parameters.recipe import KNOWN_BLOCKS, Recipe
from py2rely_core.parameters.table import ALL, CONFIGURATION, PER_DATASET, RUN_PARAMETERS, Parameter, Written, typed
from py2rely_core.problems import ExitCode, Problem, ProblemError, nearest

#: Parameters that Nextflow itself reads, by this very name.
READ_BY_NEXTFLOW = ("sample_sheet", "num_gpus", *CONFIGURATION)
#: Where a run begins: with picks, or at bin 1 with refined particles, to be refined or to be polished.
STARTS = ALL["start"].choices
SHEET_COLUMNS = ("id", "parameters", *PER_DATASET)
#: Parameters that stand for fields of the recipe's classification block.
CLASSIFICATION = {
    "run_class3D": "run",
    "class_selection": "selection",
    "keep_classes": "keep_classes",
    "best_class": "best_class",
}
#: Those that stand for fields of its slabs block.
SLABS = {"run_class2D": "run", "class2D_selection": "selection", "class2D_keep": "keep_classes"}
#: The data set of a run without a sample sheet.
SINGLE_ID = "main"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def load_datasets(request: dict[str, Any]) -> dict[str, Any]:
    """The data sets of a run.

    Parameters
    ----------
    request : dict
        ``{"launch_dir": absolute path, "params": every parameter that Nextflow knows}``; and, when imports are done,
        ``"imported"``: by data set, the directory that holds ``imported/``; ``"tomograms"``: by data set, the tomograms
        of its copick project (``importers.sources.tomogram_files``).

    Returns
    -------
    dict
        ``{"machine": {"cpus", "gpus", "tilt_series_per_task"}, "lose": how many tilt series or which share of them,
        "keep_stacks": whether extracted particles stay when their level is done, "datasets": [{"id", "recipe", "mode",
        "start", "particles", "tilt_series", "reference", "motion", "mask", "low_pass", "launch_dir", "project",
        "imports", "export", "imported"}]}`` with absolute paths, JSON-ready; `project` is the data set's place within
        outdir.
        `imports` and `export` say what is to be imported and written back, `imported` what is to be said of the
        imports; a table that a program's files are made into is None until it is there.

    Raises
    ------
    ProblemError
        With every problem of every parameter.
    """
    launch = Path(request["launch_dir"])
    params, problems = _known(request["params"])
    blocks = {name: params[name] for name in KNOWN_BLOCKS if name in params}
    for block, names in (("classification", CLASSIFICATION), ("slabs", SLABS)):
        chosen = {field: params[name] for name, field in names.items() if params.get(name) not in (None, False)}
        if chosen:
            blocks[block] = blocks.get(block, {}) | chosen
    if params.get("particle_plot") and isinstance(blocks.get("map_analysis", {}), dict):
        blocks["map_analysis"] = blocks.get("map_analysis", {}) | {"particle_plot": True}
    fields = {name: params[name] for name in FIELDS if params.get(name) is not None}
    if fields and isinstance(blocks.get("imports", {}), dict):
        blocks["imports"] = blocks.get("imports", {}) | fields
    problems += gpu_problems(params.get("gpus")) + limit_problems(params.get("max_lost_tilt_series"))
    problems += [problem for name in ALL if (problem := _value_problem(ALL[name], params.get(name)))]
    datasets, export = [], params.get("export_copick") is True
    for row in _rows(params, launch, problems):
        try:
            datasets.append(_dataset(row, blocks, launch, export))
        except ProblemError as error:
            problems += error.problems
    if export and datasets and not problems and not any(one["export"] for one in datasets):
        what, fix = "Picks are to be written, and no data set has a copick project.", "Add the column copick."
        problems.append(Problem(what, "--export_copick", "a copick configuration", fix))
    if problems:
        raise ProblemError(problems, ExitCode.BAD_PARAMETERS)
    imported = {identity: Path(place) for identity, place in request.get("imported", {}).items()}
    datasets = [with_imported(one, imported[one["id"]]) if one["id"] in imported else one for one in datasets]
    found = request.get("tomograms", {})
    datasets = [with_tomograms(one, found[one["id"]]) if one["id"] in found else one for one in datasets]
    machine = {"gpus": _gpus(params)} | {name: params.get(name) for name in ("cpus", "tilt_series_per_task")}
    lose, keep = str(params.get("max_lost_tilt_series") or 0), params.get("keep_stacks") is not False
    return {"machine": machine, "lose": lose, "keep_stacks": keep, "datasets": datasets}


def _value_problem(parameter: Parameter, value: Any) -> Problem | None:
    """What is wrong with a value that is not of its type; those of data sets and of the recipe are looked at there."""
    name, least = parameter.name, parameter.minimum
    if parameter.type == "string" and isinstance(value, float) and name not in FIELDS:
        what = f"--{name} is a text, and was written as the number {value:g}."
        return Problem(what, f"--{name}", "text", "Put it in quotation marks.")
    if value is None or parameter.per_dataset or name in CLASSIFICATION | SLABS or name in FIELDS:
        return None
    if parameter.type == "boolean" and not isinstance(value, bool):
        return Problem(f"--{name} {value} is neither true nor false.", f"--{name}", "true or false", "Write it so.")
    if parameter.type == "integer" and (type(value) is not int or value < (least or 0)):
        what = f"--{name} {value} is not a whole number from {least or 0} on."
        return Problem(what, f"--{name}", f"{least or 0} or more", "Correct the number.")
    return None


def _gpus(params: dict[str, Any]) -> str | None:
    """GPU numbers: the first ``num_gpus``, as a job sees those that a scheduler gave it; or those that were named."""
    if count := int(params.get("num_gpus") or 0):
        return ",".join(str(number) for number in range(count))
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
    return {name: typed(name, value) for name, value in known.items()}, problems


def _rows(params: dict[str, Any], launch: Path, problems: list[Problem]) -> list[dict[str, Any]]:
    if not params.get("sample_sheet"):
        row = {"id": SINGLE_ID, "parameters": params.get("parameter")}
        return [row | {key: params.get(key) for key in PER_DATASET}]
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


def _dataset(row: dict[str, Any], blocks: dict[str, Any], launch: Path, export: bool) -> dict[str, Any]:
    file = row.get("parameters")
    where = f"{row['id']}: " if row.get("base") else ""
    data: dict[str, Any] = {}
    roots = [launch, Path(row.get("base") or launch)]
    if file:
        path = _existing(str(file), roots)
        roots.append(path.parent)
        data, where = _read_json(path), where + str(path)
    elif not set(blocks) - {"imports"}:
        fix = (
            "Write one with 'py2rely prepare relion5-parameters', and give it as --parameter FILE or -params-file FILE."
        )
        raise ProblemError(Problem("There is no parameter file.", where or "--parameter", "", fix))
    start = str(row.get("start") or "picks")
    merged = _merged(data, blocks)
    if start != "picks":
        merged = _merged(merged, {"resolutions": {"binning_list": [1]}})
    recipe = parse_recipe(merged, where or "parameters")
    # Of several data sets, those that have a copick project are written back.
    export = export and bool(row.get("copick") or not row.get("base"))
    problems = _start_problems(row, start, recipe, where or "parameters")
    problems += import_problems(row, recipe.imports, export, where or "parameters")
    if problems:
        raise ProblemError(problems, ExitCode.BAD_PARAMETERS)
    denovo, template = _is_true(row.get("run_denovo_generation")), row.get("reference_template")
    if denovo and recipe.initial_model is None:
        recipe = parse_recipe(recipe.model_dump(by_alias=True) | {"initial_model": _initial_model(recipe)}, where)
    if recipe.postprocess.fn_mtf:
        recipe.postprocess.fn_mtf = str(_existing(recipe.postprocess.fn_mtf, roots))
    if start == "polish" and not (recipe.ctf_refine or recipe.bayesian_polish):
        recipe = parse_recipe(recipe.model_dump(by_alias=True) | {"ctf_refine": {}, "bayesian_polish": {}}, where)
    sources = {key: _existing(str(row[key]), roots) for key in SOURCES if row.get(key)}
    particles, tilt_series = (
        _existing(name, roots) if name else None for name in _inputs(recipe, row, where, set(sources))
    )
    name = str(row.get("particle_name") or "")
    given = {key: str(_existing(str(row[key]), roots)) if row.get(key) else None for key in ("motion", "mask")}
    of_copick = recipe.slabs.run and recipe.slabs.tomo_alg
    # Trajectories travel with the particles that they belong to.
    trajectories = _of_set(particles, "trajectories", launch) if particles else None
    if given["motion"]:
        given["motion"] = str(_of_set(Path(given["motion"]), "trajectories", launch))
    elif start != "picks" and trajectories != particles:
        given["motion"] = str(trajectories)
    return given | {
        "id": row["id"],
        "recipe": recipe.model_dump(by_alias=True),
        "mode": "template" if template and start == "picks" else "denovo" if denovo else "known",
        "start": start,
        "low_pass": float(row["low_pass"]) if row.get("low_pass") else None,
        "launch_dir": str(launch),
        "project": "" if row["id"] == SINGLE_ID else row["id"],
        "particles": str(_of_set(particles, "particles", launch)) if particles else None,
        "tilt_series": str(_of_set(tilt_series, "tilt series", launch)) if tilt_series else None,
        "reference": str(_existing(str(template), roots)) if template else None,
        "slab_tomograms": _tomogram_directory(recipe, roots),
        "slab_copick": slab_settings(sources["copick"], recipe, launch) if of_copick else None,
        "imports": import_settings(sources, recipe, name, particles, tilt_series, launch),
        "export": export_settings(sources["copick"], name, recipe.imports, launch) if export else None,
        "imported": {"notes": [], "warnings": [], "problems": []},
    }


def _tomogram_directory(recipe: Recipe, roots: list[Path]) -> str | None:
    """The directory of tomograms that slabs are cut from; None for a label of the table, or where they are made."""
    named = recipe.slabs.tomograms if recipe.slabs.run else ""
    found = _existing(named, roots) if named else None
    return str(found) if found is not None and found.is_dir() else None


#: How a switch may be written in a sample sheet.
SWITCH_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _is_true(value: Any) -> bool:
    return SWITCH_WORDS.get(str(value or "").lower(), False)


def _start_problems(row: dict[str, Any], start: str, recipe: Recipe, where: str) -> list[Problem]:
    """What of a data set's parameters does not go together."""
    if start not in STARTS:
        hint = nearest(start, STARTS)
        return [Problem(f"A run cannot start from '{start}'.", f"{where}: start", ", ".join(STARTS), hint)]
    problems = []

    def clash(what: str, expected: str, fix: str) -> None:
        problems.append(Problem(what, where, expected, fix))

    denovo, template = _is_true(row.get("run_denovo_generation")), row.get("reference_template")
    if str(row.get("run_denovo_generation") or "false").lower() not in SWITCH_WORDS:
        clash(f"run_denovo_generation = {row['run_denovo_generation']}.", "true or false", "Write it so.")
    if denovo and template:
        clash("A template and a de novo model are both asked for.", "one of the two",
              "Leave out reference_template or run_denovo_generation.")  # fmt: skip
    if denovo and start != "picks":
        clash(f"A de novo model is asked for, and start = {start}.", "start = picks", "Leave out one of the two.")
    if template and start == "polish":
        clash("A reference map is given, and start = polish.", "none: it is made from the particles",
              "Leave out reference_template.")  # fmt: skip
    if row.get("low_pass") and start != "bin1":
        clash("low_pass is for start = bin1.", "refine3D.ini_high", "Set --refine3D.ini_high for the first reference.")
    elif row.get("low_pass"):
        try:
            wrong = not float(row["low_pass"]) > 0
        except ValueError:
            wrong = True
        if wrong:
            clash(f"low_pass = {row['low_pass']} is no resolution.", "Angstrom > 0", "Correct the value.")
    if start != "picks" and recipe.slabs.run:
        clash(f"Picks are to be chosen by 2D classification, and start = {start}.", "start = picks",
              "Leave out run_class2D (slabs.run).")  # fmt: skip
    if recipe.slabs.run and recipe.slabs.tomo_alg and not row.get("copick"):
        clash("Slabs are to be cut from tomograms of a copick project, and there is none.", "--copick CONFIG",
              "Add --copick and --particle_name, or leave out slabs.tomo_alg.")  # fmt: skip
    if start == "polish" and not recipe.polishing.cycles:
        clash("polishing.cycles = 0, and start = polish.", "1 or more", "Set --polishing.cycles.")
    return problems


def _existing(name: str, roots: list[Path]) -> Path:
    """A path from the first of these directories where it exists: launch, the sample sheet's, the parameter file's."""
    return next((root / name for root in roots if (root / name).exists()), roots[0] / name)


def _of_set(path: Path, wanted: str, launch: Path) -> Path:
    """The file that an optimisation set names, so that a run sees when it changes; another file, or none, itself."""
    try:
        return from_optimisation_set(path, wanted, launch)
    except ProblemError:
        # The preflight says what is wrong with it.
        return path


def _initial_model(recipe: Recipe) -> dict[str, Any]:
    refine = recipe.refine3D
    names = {
        "sym_name": refine.sym_name,
        "particle_diameter": refine.particle_diameter,
        "nr_threads": refine.nr_threads,
    }
    return names | {"in_tomograms": refine.in_tomograms}


def _inputs(recipe: Recipe, row: dict[str, Any], where: str, sources: set[str]) -> tuple[str | None, str | None]:
    """Names of the particle file and of the tilt-series file; None for what comes from a program's own files."""
    particles = row.get("particles")
    if not particles and "copick" not in sources:
        particles = recipe.pseudo_subtomo.in_particles or recipe.reconstruct.in_particles
    tilt_series = row.get("tomograms")
    if not tilt_series and not sources & set(TILT_SERIES):
        blocks = (recipe.pseudo_subtomo, recipe.refine3D, recipe.reconstruct)
        tilt_series = next((block.in_tomograms for block in blocks if block.in_tomograms), None)
    problems = [
        Problem(f"The parameter file names no {what}.", f"{where}: pseudo_subtomo.{label}", "a STAR file", "Add it.")
        for what, label, value in (
            ("particles", "in_particles", particles or "copick" in sources),
            ("tilt series", "in_tomograms", tilt_series or sources & set(TILT_SERIES)),
        )
        if not value
    ]
    if problems:
        raise ProblemError(problems)
    return particles or None, tilt_series or None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(), parse_float=Written)
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
