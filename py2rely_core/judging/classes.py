"""A classification by its files, 2D or 3D; and particles of chosen classes as a particle set of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.judging.selection import Choice, Selection, as_records, judge_classes, of_classes
from py2rely_core.problems import ExitCode, Problem, ProblemError
from py2rely_core.relion.outputs.job import bad_output, write_numbers

#: Files of an iteration, or of the result: what they begin with, and what they are.
CLASS_FILE = re.compile(r"(run(?:_ct\d+)?(?:_it(\d+))?)_(data\.star|model\.star|classes\.mrcs|class\d{3,}\.mrc)")
_CLASS_JOBS = ("Class3D", "Class2D")


@dataclass(frozen=True)
class Classification:
    """One iteration of a Class2D or Class3D job, the last one if no other was asked for.

    Attributes
    ----------
    job : Path
    data, model : Path
        STAR files of its particles, and of what is known of its classes.
    maps : dict of int to Path
        Of 3D: map of each class, counted from 1.
    images : Path or None
        Of 2D: the stack of class averages.
    """

    job: Path
    data: Path
    model: Path
    maps: dict[int, Path]
    images: Path | None = None

    @property
    def kind(self) -> str:
        """2D or 3D."""
        return "2D" if self.images else "3D"

    @property
    def iteration(self) -> int | None:
        """Its number; None where the files' names do not say it."""
        found = CLASS_FILE.fullmatch(self.model.name)
        return int(found[2]) if found and found[2] else None


@dataclass(frozen=True)
class Verdict:
    """What a rule thinks of a class.

    Attributes
    ----------
    keep : bool or None
        None where it has no opinion.
    why : str
        In a few words.
    score : float or None
        The larger, the better; of the rule's own scale.
    """

    keep: bool | None
    why: str = ""
    score: float | None = None


def verdicts_of(selection: Selection) -> dict[int, Verdict]:
    """What the rule of :mod:`py2rely_core.judging.selection` thinks of each class, by its number."""
    return {int(row["class"]): Verdict(bool(row["kept"]), row["why"]) for row in selection.classes.to_dict("records")}


def find_class_job(name: str, project: Path = Path()) -> Path:
    """A classification by its number (``job001``), its name (``bin4``), or its path, in a project or a run's results.

    Raises
    ------
    ProblemError
        There is no such job.
    """
    named = [project / kind / name for kind in _CLASS_JOBS]
    places = [Path(name), project / name, *named, *sorted(project.glob(f"*/Class3D/{name}"))]
    found = [place for place in places if place.is_dir() and any(place.glob("run_*model.star"))]
    if found:
        return found[0]
    there = [
        path for kind in _CLASS_JOBS for pattern in (f"{kind}/*", f"*/{kind}/*")
        for path in sorted(project.glob(pattern)) if path.is_dir()
    ]  # fmt: skip
    expected = ", ".join(str(path) for path in there) or "a directory with run_it*_model.star"
    fix = "Give the job's number, name or path; start in the project's directory."
    raise ProblemError(Problem(f"There is no classification '{name}'.", str(project.absolute()), expected, fix))


def read_classification(job: Path) -> Classification:
    """The last iteration of a Class3D or Class2D job."""
    files = {path.name: path for path in job.glob("run*")}
    models = [found for name in files if (found := CLASS_FILE.fullmatch(name)) and found[3] == "model.star"]
    numbered = [found for found in models if found[2]]
    last = max(numbered, key=lambda found: (int(found[2]), found[1]), default=None)
    return iteration_of(job, files, last[1] if last else "run")


def iteration_of(job: Path, files: Mapping[str, Path], stem: str) -> Classification:
    """One iteration of a job.

    Parameters
    ----------
    job : Path
    files : mapping of str to Path
        The job's files, by their names in it.
    stem : str
        What the iteration's files begin with: ``run_it025``.
    """

    def place(name: str) -> Path:
        return files.get(f"{stem}_{name}", job / f"{stem}_{name}")

    maps = {
        int(found[3][5:-4]): path
        for name, path in files.items()
        if (found := CLASS_FILE.fullmatch(name)) and found[1] == stem and found[3].endswith(".mrc")
    }
    images = files.get(f"{stem}_classes.mrcs")
    return Classification(job, place("data.star"), place("model.star"), dict(sorted(maps.items())), images)


def newest_whole(job: Path, files: Mapping[str, Path]) -> Classification | None:
    """The newest iteration of which tables and pictures are there, parameters as of :func:`iteration_of`."""
    stems = {found[1]: int(found[2] or 10**6) for name in files if (found := CLASS_FILE.fullmatch(name))}
    for stem in sorted(stems, key=lambda one: (stems[one], one), reverse=True):
        found = iteration_of(job, files, stem)
        if {f"{stem}_data.star", f"{stem}_model.star"} <= files.keys() and (found.images or found.maps):
            return found
    return None


def open_classification(name: str | Path, project: Path = Path()) -> Classification:
    """A classification by its job, or by any of the files of one of its iterations.

    Parameters
    ----------
    name : str or Path
        As for :func:`find_class_job`, or such as ``Class2D/job001/run_it025_classes.mrcs``.
    project : Path

    Raises
    ------
    ProblemError
        There is no such job; or the particles or what is known of the classes are missing.
    """
    path = Path(name) if Path(name).exists() else project / name
    if path.is_file():
        parts = CLASS_FILE.fullmatch(path.name)
        if parts is None:
            fix = "Give the job, or its run_it*_classes.mrcs, _data.star or _model.star."
            raise ProblemError(Problem("This is no file of a classification.", str(path), "run_it025_data.star", fix))
        found = iteration_of(path.parent, {one.name: one for one in path.parent.glob("run*")}, parts[1])
    else:
        found = read_classification(find_class_job(str(name), project))
    for one in (found.data, found.model):
        if not one.is_file():
            fix = "Give an iteration that is complete, or wait for it."
            raise ProblemError(Problem(f"{one.name} is missing.", str(found.job), "a whole iteration", fix))
    if not found.maps and found.images is None:
        fix = "Give a Class2D or Class3D job, at an iteration that is complete."
        raise ProblemError(Problem("There is no picture of a class.", str(found.job), "class averages or maps", fix))
    return found


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
