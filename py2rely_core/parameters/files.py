"""The parameter file, read, checked, and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from py2rely_core.parameters.recipe import Recipe, model_of
from py2rely_core.parameters.rules import recipe_problems
from py2rely_core.parameters.table import Written
from py2rely_core.problems import ExitCode, Problem, ProblemError, nearest


def load_recipe(path: Path) -> Recipe:
    """Read and check a parameter file.

    Raises
    ------
    ProblemError
        With every problem that was found.
    """
    try:
        data = json.loads(Path(path).read_text(), parse_float=Written)
    except FileNotFoundError:
        problem = Problem(
            "The parameter file is missing.", str(path), "", "Write it: py2rely prepare relion5-parameters"
        )
        raise ProblemError(problem, ExitCode.BAD_PARAMETERS) from None
    except ValueError as error:
        problem = Problem(f"The parameter file is not JSON: {error}.", str(path), "a JSON document", "Correct it.")
        raise ProblemError(problem, ExitCode.BAD_PARAMETERS) from error
    return parse_recipe(data, str(path))


def parse_recipe(data: dict[str, Any], where: str) -> Recipe:
    """Check parameters that were read from `where`.

    Raises
    ------
    ProblemError
        With every problem that was found.
    """
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        problems = [_translate(item, where) for item in error.errors()]
        raise ProblemError(problems, ExitCode.BAD_PARAMETERS) from error
    problems = [_at(problem, where) for problem in recipe_problems(recipe)]
    if problems:
        raise ProblemError(problems, ExitCode.BAD_PARAMETERS)
    return recipe


def _at(problem: Problem, where: str) -> Problem:
    return Problem(problem.what, f"{where}: {problem.where}", problem.expected, problem.fix, problem.severity)


def _translate(item: Any, where: str) -> Problem:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = _fields_at(item["loc"][:-1])
        hint = nearest(str(item["loc"][-1]), known)
        return Problem(f"Unknown parameter '{path}'.", where, "", hint or f"Known here: {', '.join(known)}.")
    return Problem(
        f"{path} = {item['input']!r}: {item['msg'].removeprefix('Value error, ')}.", where, "", "Correct the value."
    )


def _fields_at(location: tuple[Any, ...]) -> list[str]:
    model: Any = Recipe
    for part in location:
        model = model_of(model.model_fields[part])
    return [field.alias or name for name, field in model.model_fields.items()]


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write the parameter file."""
    Path(path).write_text(json.dumps(recipe.model_dump(by_alias=True), indent=4) + "\n")


def new_recipe(
    tilt_series: str,
    particles: str,
    pixel_size: float,
    symmetry: str,
    low_pass: float | None,
    diameter: float,
    denovo: bool,
    box_scaling: float,
    binnings: str,
    threads: int,
    classes: int = 1,
    initial_models: int = 1,
    max_dose: float = -1,
    processes: int | None = None,
) -> Recipe:
    """A checked recipe from the options of ``prepare relion5-parameters``, with the reference system's other defaults.

    Raises
    ------
    ProblemError
        With every impossible value.
    """
    entries = {"in_tomograms": tilt_series, "nr_threads": threads}
    picks = entries | {"in_particles": particles}
    mpi = {"mpi_command": f"mpirun -n {processes}" if processes else ""}
    particle = {"sym_name": symmetry, "particle_diameter": diameter}
    half = low_pass and (int(low_pass / 2) or low_pass)
    data: dict[str, Any] = {
        "resolutions": {"angpix": pixel_size, "box_scaling": box_scaling, "binning_list": binnings},
        "reconstruct": picks | mpi | {"point_group": symmetry},
        "initial_model": entries | particle | {"nr_classes": initial_models} if denovo else None,
        "pseudo_subtomo": picks | {"max_dose": max_dose},
        "refine3D": entries | mpi | particle | {"ini_high": low_pass},
        "class3D": entries | mpi | particle | {"ini_high": half, "nr_classes": classes},
    }
    if "1" in str(binnings).strip("[] ").replace(" ", "").split(","):
        data |= {"ctf_refine": entries, "bayesian_polish": entries}
    return parse_recipe(data, "command line")
