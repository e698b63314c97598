"""What a finished run has to give: one data set, its files, and what is to be known before they are used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from py2rely_core.data.inputs import Inputs, load_inputs
from py2rely_core.problems import Problem, ProblemError, nearest


@dataclass(frozen=True)
class Source:
    """A data set of a run that has a result.

    Attributes
    ----------
    run : Path
        Absolute path of the output directory.
    results : dict
        The content of its ``results.json``.
    dataset : dict
        The part of it that is about the data set.
    warnings : list of Problem
        Why its result may not be what one wants to give away.
    """

    run: Path
    results: dict[str, Any]
    dataset: dict[str, Any]
    warnings: list[Problem]

    @property
    def final(self) -> dict[str, Any]:
        """The result: paths relative to the output directory."""
        return self.dataset["final"]

    @property
    def project(self) -> Path:
        """Where the paths in the data set's STAR files begin."""
        return self.run / self.dataset["project"]

    @property
    def level(self) -> dict[str, Any]:
        """The level that the result is of."""
        return next(one for one in reversed(self.dataset["levels"]) if one["binning"] == self.final["binning"])

    @property
    def best_step(self) -> dict[str, Any] | None:
        """The step of polishing that the result is of; None where it is a level's own."""
        polishing = self.dataset["polishing"] or {"best": None, "cycles": []}
        return next((step for step in polishing["cycles"] if step["name"] == polishing["best"]), None)

    def file(self, name: str) -> Path:
        """A file by its path in ``results.json``."""
        return self.run / name

    def inputs(self, particles: Path | None = None) -> Inputs:
        """The tables of the result, or of other particles of it.

        Raises
        ------
        ProblemError
            A table cannot be read or is missing, or does not belong to the others.
        """
        tables = load_inputs(particles or self.file(self.final["particles"]), self.file(self.final["tilt_series"]),
                             self.project)  # fmt: skip
        motion = self.final["motion"]
        if motion and not self.file(motion).is_file():
            fix = "Copy it back to where it was after the run."
            tables.problems.append(Problem("The particles' trajectories are missing.", motion, "a STAR file", fix))
        if tables.problems:
            raise ProblemError(tables.problems)
        names = set(tables.particles["rlnTomoName"].astype(str)) if "rlnTomoName" in tables.particles else {""}
        unknown = sorted(names - set(tables.tilt_series))
        if unknown:
            what = (
                f"The particles are in {len(unknown)} tilt series that the run does not have, such as '{unknown[0]}'."
            )
            fix = "Give particles of this run, with rlnTomoName as the run has it."
            raise ProblemError(Problem(what, str(tables.particles_file), ", ".join(list(tables.tilt_series)[:3]), fix))
        return tables


def choose(results: dict[str, Any], run: Path, dataset: str | None) -> Source:
    """The data set of a run that is asked for, or the only one.

    Parameters
    ----------
    results : dict
        The content of ``results.json``.
    run : Path
        Output directory.
    dataset : str or None
        Identity of the data set; may be left out where there is one.

    Raises
    ------
    ProblemError
        There is no such data set, there are several, or it has no result.
    """
    known = {one["id"]: one for one in results["datasets"]}
    if not known:
        raise ProblemError(_without_result(results, run, "The run has no data set."))
    if dataset is None and len(known) > 1:
        fix = "Give --dataset with one of them."
        raise ProblemError(Problem(f"The run has {len(known)} data sets.", str(run), ", ".join(known), fix))
    if dataset is not None and dataset not in known:
        fix = f"{nearest(dataset, known)} The run has {', '.join(known)}.".strip()
        raise ProblemError(Problem(f"There is no data set '{dataset}'.", str(run), "a data set of the run", fix))
    chosen = known[dataset] if dataset else next(iter(known.values()))
    if chosen["final"] is None:
        raise ProblemError(_without_result(results, run, f"Data set {chosen['id']} has no final map.", chosen["id"]))
    return Source(run.absolute(), results, chosen, _warnings(results, chosen, run))


def _failure_of(results: dict[str, Any], dataset: str) -> dict[str, Any] | None:
    """What ended a data set: a failure of its own, or one of the whole run's."""
    return next((one for one in results["failures"] if one["dataset"] in ("", dataset)), None)


def _without_result(results: dict[str, Any], run: Path, what: str, dataset: str = "") -> Problem:
    failure = _failure_of(results, dataset) or {"step": "", "what": ""}
    why = f" The run failed: {failure['step']}: {failure['what']}" if failure["step"] else ""
    fix = "Run the workflow once more with -resume until it is complete."
    return Problem(what + why, str(run), "a run that has its result", fix)


def _warnings(results: dict[str, Any], dataset: dict[str, Any], run: Path) -> list[Problem]:
    found: list[Problem] = []

    def warn(what: str, fix: str) -> None:
        found.append(Problem(what, f"{run}, data set {dataset['id']}", "", fix, "warning"))

    failure = _failure_of(results, dataset["id"])
    if failure:
        warn(f"The run failed later, in {failure['step']}: this is the best until then.", "See report.html.")
    if dataset["status"] == "choose classes":
        warn("The run waits for classes to be chosen: this is the best until then.", "Choose, and run on.")
    return found


def optics_of(inputs: Inputs, label: str) -> list[float]:
    """Values of a label of the microscope, each once, from the tilt series' table; empty where it is missing."""
    table = inputs.tomograms if label in inputs.tomograms else inputs.optics
    if label not in table:
        return []
    return sorted(pd.to_numeric(table[label], errors="coerce").dropna().unique().tolist())
