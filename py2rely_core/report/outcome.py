"""What a run leaves at its end, complete or failed: results.json, report.html and the closing lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from py2rely_core.report import Finder, write_report
from py2rely_core.results.collect import summary


def write_outcome(results: dict[str, Any], find: Finder, output: Path) -> None:
    """Write ``results.json``, ``summary.txt`` and ``report.html``.

    Parameters
    ----------
    results : dict
        As :func:`py2rely_core.results.collect.collect_results` returns it.
    find : callable
        Gives the file of a map by its path in `results`.
    output : Path
        Directory; made when it is missing.
    """
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.json").write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
    (output / "summary.txt").write_text(summary(results))
    write_report(results, find, output / "report.html")


def numbered(results: dict[str, Any], folder: Path, names: list[list[str]]) -> Finder:
    """Finds the maps that a task got as ``1/x.mrc``, ``2/y.mrc``, ...

    Parameters
    ----------
    names : list of (str, str)
        Data set, and path in its project, of each.
    """
    projects = {dataset["id"]: dataset["project"] for dataset in results["datasets"]}
    files = {}
    for number, (identity, name) in enumerate(names, start=1):
        files[_under(projects[identity], name)] = folder / str(number) / Path(name).name
    return files.get


def find_in_jobs(run: dict[str, Any]) -> Finder:
    """Finds the maps of jobs where they are in the work directory.

    Parameters
    ----------
    run : dict
        What Nextflow knows of the run; its ``jobs`` are data set, project and directory of each.
    """
    jobs = {}
    for _, project, directory in run["jobs"]:
        path = Path(directory)
        jobs[_under(project, f"{path.parent.name}/{path.name}")] = path

    def find(name: str) -> Path | None:
        job, _, file = name.rpartition("/")
        path = jobs[job] / file if job in jobs else None
        return path if path and path.is_file() else None

    return find


def _under(project: str, name: str) -> str:
    return f"{project}/{name}" if project else name
