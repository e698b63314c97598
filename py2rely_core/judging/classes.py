"""Particles of chosen classes as a particle set of their own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.judging.selection import Choice, Selection, as_records, judge_classes, of_classes
from py2rely_core.problems import ExitCode, Problem, ProblemError
from py2rely_core.relion.outputs.job import bad_output, write_numbers


@dataclass(frozen=True)
class Classification:
    """The result of a Class3D job: its last iteration's particles, model, and map of each class, counted from 1."""

    job: Path
    data: Path
    model: Path
    maps: dict[int, Path]


def find_class_job(name: str, project: Path = Path()) -> Path:
    """A Class3D job by its number (``job001``), its name (``bin4``), or its path, in a project or a run's results.

    Raises
    ------
    ProblemError
        There is no such job.
    """
    places = [Path(name), project / name, project / "Class3D" / name, *sorted(project.glob(f"*/Class3D/{name}"))]
    found = [place for place in places if place.is_dir() and any(place.glob("run_*model.star"))]
    if found:
        return found[0]
    there = [
        path for pattern in ("Class3D/*", "*/Class3D/*") for path in sorted(project.glob(pattern)) if path.is_dir()
    ]
    expected = ", ".join(str(path) for path in there) or "a directory with run_it*_model.star"
    fix = "Give the job's number, name or path; start in the project's directory."
    raise ProblemError(Problem(f"There is no Class3D job '{name}'.", str(project.absolute()), expected, fix))


def read_classification(job: Path) -> Classification:
    """The last iteration of a Class3D job."""
    models = sorted(job.glob("run_it[0-9][0-9][0-9]_model.star")) or [job / "run_model.star"]
    stem = models[-1].name.removesuffix("_model.star")
    maps = {int(found[1]): path for path in job.glob(f"{stem}_class*.mrc")
            if (found := re.search(r"_class(\d+)\.mrc$", path.name))}  # fmt: skip
    return Classification(job, job / f"{stem}_data.star", models[-1], maps)


def parse_classes(text: str) -> list[int]:
    """Class numbers from ``1,2,3``.

    Raises
    ------
    ProblemError
        Something else is written.
    """
    parts = [part.strip() for part in text.strip("[] ").split(",") if part.strip()]
    if not parts or not all(part.isdigit() and int(part) > 0 for part in parts):
        problem = Problem(f"'{text}' is no list of classes.", "--keep-classes", "such as 1,2,3", "Write it so.")
        raise ProblemError(problem, ExitCode.BAD_PARAMETERS)
    return sorted({int(part) for part in parts})


def choice_of(keep: list[int], best: int) -> Choice:
    """Classes as a person chose them.

    Raises
    ------
    ProblemError
        The best class is not among those that are kept.
    """
    if best not in keep:
        what = f"The best class, {best}, is not among those that are kept ({', '.join(map(str, keep))})."
        problem = Problem(what, "--best-class", "one of them", "Give another --best-class, or keep it.")
        raise ProblemError(problem, ExitCode.BAD_PARAMETERS)
    return Choice("manual", tuple(keep), best)


def comparison_text(found: list[Classification]) -> str:
    """A table of classifications: classes, the best one's resolution, and every class's share, largest first."""
    lines = [f"{'job':<24s} {'classes':>7s} {'best, A':>8s}  shares"]
    for one in found:
        table = read_star(one.model)["model_classes"]
        shares = sorted((float(share) for share in table["rlnClassDistribution"]), reverse=True)
        best = pd.to_numeric(table["rlnEstimatedResolution"]).min()
        shown = " ".join(f"{share:.0%}" for share in shares)
        lines.append(f"{one.job!s:<24s} {len(table):7d} {best:8.1f}  {shown}")
    return "\n".join(lines)


def judge(classification: Classification, choice: Choice, diameter: float) -> Selection:
    """The table of the classes with the choice; class maps are compared within a sphere of `diameter`, Angstrom."""
    return judge_classes(classification.model, classification.data, classification.maps, diameter, choice)


def write_selection(classification: Classification, selection: Selection, output: Path) -> int:
    """Write the chosen particles to a new file, and beside it what was chosen; how many there are.

    Parameters
    ----------
    output : Path
        ``particles.star`` of a job directory, or any STAR file: then nothing is written beside it.

    Raises
    ------
    ProblemError
        The file exists; or fewer than 4 particles are left.
    """
    if output.exists():
        raise ProblemError(Problem("The file exists.", str(output), "a new name", "Give another --output."))
    blocks = read_star(classification.data)
    before, blocks = len(blocks["particles"]), of_classes(blocks, selection.kept)
    kept = len(blocks["particles"])
    if kept < 4:
        raise bad_output(output.parent, f"only {kept} particles are in these classes.")
    write_star(blocks, output)
    if output.parent.parent.name == "Select":
        numbers = {"particles_in": before, "particles_out": kept, "best_class": selection.best}
        numbers |= {"classes_kept": selection.kept, "classes": as_records(selection), "reason": selection.reason}
        write_numbers(output.parent, **numbers, inputs=[str(classification.data)])
    return kept
