"""Particles of chosen classes of a classification."""

from __future__ import annotations

import re
from pathlib import Path

from py2rely_core.data.tables import read_star
from py2rely_core.importers.result import Import
from py2rely_core.problems import ExitCode, Problem, ProblemError


def data_of_job(job: str, project: Path) -> Path:
    """The particles of a classification's last iteration.

    Parameters
    ----------
    job : str
        ``job001``, ``Class3D/bin4``, or a path.
    project : Path
        The RELION project's directory.

    Raises
    ------
    ProblemError
        There is no such job, or it has no particles.
    """
    candidates = [Path(job), project / job, project / "Class3D" / job]
    folder = next((path for path in candidates if path.is_dir()), None)
    if folder is None:
        there = sorted(path.name for path in project.glob("Class3D/*") if path.is_dir())
        fix = f"Class3D has {', '.join(there)}." if there else "Start in the project's directory."
        raise ProblemError(Problem(f"There is no job {job}.", str(project / "Class3D"), "a directory", fix))

    def iteration(path: Path) -> int:
        found = re.search(r"_it(\d+)_", path.name)
        return int(found[1]) if found else -1

    iterations = sorted(folder.glob("run_it*_data.star"), key=iteration)
    files = [path for path in (folder / "run_data.star", *reversed(iterations)) if path.is_file()]
    if not files:
        fix = "Wait for its first iteration, or give another job."
        raise ProblemError(Problem("The job has no particles.", str(folder), "run_data.star or run_it*_data.star", fix))
    return files[0]


def parse_classes(text: str) -> list[int]:
    """Class numbers of a list such as ``1,3``.

    Raises
    ------
    ProblemError
        It is no list of numbers from 1.
    """
    try:
        numbers = sorted({int(part) for part in text.replace(" ", "").strip("[],").split(",")})
        if numbers[0] < 1:
            raise ValueError
    except ValueError as error:
        problem = Problem(f"'{text}' is no list of classes.", "--export-classes", "such as 1,3", "Correct it.")
        raise ProblemError(problem, ExitCode.BAD_PARAMETERS) from error
    return numbers


def export_classes(source: Path, classes: list[int], output: Path) -> Import:
    """The particles of some classes, in a file of their own; the classification is not changed.

    Raises
    ------
    ProblemError
        The file has no classes, or a class has no particles.
    """
    blocks = read_star(source)
    table = blocks.get("particles")
    if table is None or "rlnClassNumber" not in table:
        fix = "Give the particles of a Class3D job."
        raise ProblemError(Problem("There are no classes.", str(source), "rlnClassNumber", fix))
    counts = table["rlnClassNumber"].astype(int).value_counts().sort_index()
    empty = [number for number in classes if number not in counts.index]
    if empty:
        seen = ", ".join(f"{number}: {count}" for number, count in counts.items())
        fix = "Correct --export-classes."
        what = f"The classes {', '.join(map(str, empty))} have no particles."
        raise ProblemError(Problem(what, f"{source} (particles per class: {seen})", "classes that are there", fix))
    kept = table[table["rlnClassNumber"].astype(int).isin(classes)].reset_index(drop=True)
    notes = [f"{source}: {len(table)} particles"]
    notes += [
        f"class {number}: {count} particles, {'kept' if number in classes else 'left out'}"
        for number, count in counts.items()
    ]
    return Import(tables={output: blocks | {"particles": kept}}, notes=[*notes, f"{output}: {len(kept)} particles"])
