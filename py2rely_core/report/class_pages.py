"""The pages of a run on which classes are chosen by looking: one per classification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from py2rely_core.judging.class_job import noted_opinion
from py2rely_core.judging.classes import Classification, read_classification
from py2rely_core.judging.selection import Selection
from py2rely_core.report.choosing import class_page, ways_of_run


def write_class_pages(
    jobs: list[Path], job: Path, selection: Selection, diameter: float, output: Path, dataset: str = ""
) -> None:
    """Write ``classes.html``, or with several numbers of classes ``classes_k2.html``, ``classes_k4.html``, ...

    Parameters
    ----------
    jobs : list of Path
        Class3D jobs of the same particles.
    job : Path
        The one that counts.
    selection : Selection
        Its classes.
    diameter : float
        Of the particle, Angstrom.
    output : Path
        The Select job, with its ``job.json``.
    dataset : str
        Where there are several data sets, this one's id.
    """
    numbers = json.loads((output / "job.json").read_text())
    counts = {one: len(numbers["rule"][one.name]["classes"]) for one in jobs}
    names = {one: f"classes_k{counts[one]}.html" if len(jobs) > 1 else "classes.html" for one in jobs}
    for one in jobs:
        counting = one == job and bool(selection.kept)
        chosen, best = (selection.kept, selection.best) if counting else (None, None)
        others = [(f"{counts[other]} classes", names[other]) for other in jobs if other != one]
        found = read_classification(one)
        page = run_page(found, numbers, diameter, dataset, chosen=chosen, best=best, others=others)
        (output / names[one]).write_text(page)


def run_page(
    found: Classification, numbers: dict[str, Any], diameter: float, dataset: str = "", **settings: Any
) -> str:
    """The page of a classification of a run.

    Parameters
    ----------
    found : Classification
    numbers : dict
        What was noted of the choice, its ``job.json``.
    diameter : float
        Of the particle, Angstrom.
    dataset : str
        Where there are several data sets, this one's id.
    **settings
        As for :func:`py2rely_core.report.choosing.class_page`.
    """
    verdicts, reason = noted_opinion(numbers, found.job.name)
    several = len(numbers.get("rule", {})) > 1
    name = f"{dataset}: Class3D/{found.job.name}" if dataset else f"Class3D/{found.job.name}"
    ways = ways_of_run(len(verdicts) if several else None, dataset)
    return class_page(found, ways, verdicts=verdicts, reason=reason, diameter=diameter, name=name, **settings)
