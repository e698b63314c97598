"""What Nextflow's tasks leave on disk, as steps: those that its trace has, and those that run."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from py2rely_core.parameters.request import SINGLE_ID
from py2rely_core.results.remembered import remembered

#: What a run notes of itself and of each task that ended, in its output directory.
RECORD, TRACE = "run.json", "trace.tsv"
#: Names of steps by what Nextflow calls their tasks; of the others the name in lower case.
STEP_NAMES = {
    "SOURCES": "sources",
    "IMPORT_DATA": "imports",
    "RECIPE": "parameters",
    "TILT_SERIES_FILES": "tables",
    "STACK_FILES": "stacks",
    "PLAN": "preflight",
    "EXPORT_COPICK": "copick export",
}
#: Tasks that check and collect; they have no job directory.
_HEAD = re.compile(r"### name: '(\S+)(?: \((.*)\))?'")
_TAG = re.compile(r"bin(\d+)")


@dataclass
class Step:
    """One step of one data set, which is a task of the workflow, or will be one.

    Attributes
    ----------
    name : str
        The job, such as ``Refine3D/bin4``; of a task without a job, what it does.
    dataset : str
        Id of the data set; empty for what concerns all of them.
    binning : int or None
        The level.
    state : {"done", "cached", "submitted", "running", "failed", "stopped", "waiting", "skipped"}
        *submitted*: it waits for the cluster or for cores; *stopped*: it ran when the run died; *skipped*: it was
        planned, and the run is over.
    started : float or None
        Seconds since the epoch.
    seconds : float or None
        How long it took, or has taken so far.
    directory : str
        Where it runs or ran.
    exit_code : int or None
        Of its task.
    result : str
        What came out of it, in a few words.
    progress : dict
        Of a refinement or classification that is not over: see :func:`read_progress`.
    relion_seconds : float or None
        Of what is done, how long its RELION programs took; None where some of it was done by an earlier attempt.
    task : str
        What the workflow calls it, such as ``REFINE3D (a: bin4)``; empty where it is not one yet.
    """

    name: str
    dataset: str = ""
    binning: int | None = None
    state: str = "waiting"
    started: float | None = None
    seconds: float | None = None
    directory: str = ""
    exit_code: int | None = None
    result: str = ""
    progress: dict[str, Any] = field(default_factory=dict)
    relion_seconds: float | None = None
    task: str = ""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON document; empty when it is missing, just being written, or of another form."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def steps_of(outdir: Path) -> list[Step]:
    """What the tasks of a run left, the last try of each; none where the run noted nothing about itself."""
    record = read_json(outdir / RECORD)
    if not record:
        return []
    ended = traced(outdir / TRACE, record["started"])
    return attempts([*ended, *scan(Path(record["work_dir"]), record["started"], {step.directory for step in ended})])


def traced(path: Path, since: float) -> list[Step]:
    """Tasks that ended, from Nextflow's trace; one of an earlier run counts for nothing."""
    if not path.is_file() or path.stat().st_mtime < since - 1:
        return []
    return [replace(step) for step in _rows(path)]


@remembered
def _rows(path: Path) -> list[Step]:
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row.get("workdir") and row.get("status")]
    return [_traced_step(row) for row in rows]


def _traced_step(row: dict[str, str]) -> Step:
    process, _, tag = row["name"].partition(" (")
    directory = Path(row["workdir"])
    step = _task(process, tag.removesuffix(")"), directory, jobs_of_ended(directory)[0])
    states = {"COMPLETED": "done", "CACHED": "cached", "FAILED": "failed", "ABORTED": "stopped"}
    step.state = states.get(row["status"], "running")
    step.exit_code = int(row["exit"]) if row["exit"].isdigit() else None
    step.started = _moment(row["start"]) or _moment(row["submit"])
    done = _moment(row["complete"])
    if done and step.started:
        step.seconds = round(done - step.started, 1)
    return step


def _moment(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def scan(work: Path, since: float, known: set[str]) -> list[Step]:
    """Tasks of this run that the trace does not have: those that run, and the last ones of a run that died."""
    steps = []
    for parent in _entries(work):
        if len(parent.name) != 2 or not parent.is_dir():
            continue
        for entry in _entries(parent.path):
            if entry.path in known:
                continue
            directory = Path(entry.path)
            try:
                script = (directory / ".command.run").stat().st_mtime
                if script < since - 1:
                    continue
                with (directory / ".command.run").open() as file:
                    head = next((found for line in file if (found := _HEAD.match(line))), None)
            except OSError:
                continue
            if head is not None:
                steps.append(_scanned_step(directory, head[1], head[2] or "", script))
    return steps


def _entries(path: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError:
        return []


def _scanned_step(directory: Path, process: str, tag: str, submitted: float) -> Step:
    step = _task(process, tag, directory, own_jobs(directory))
    begin, end = directory / ".command.begin", directory / ".exitcode"
    step.started = begin.stat().st_mtime if begin.exists() else submitted
    step.state = "running" if begin.exists() else "submitted"
    text = end.read_text().strip() if end.exists() else ""
    if text:
        step.exit_code = int(text)
        step.state = "done" if step.exit_code == 0 else "failed"
        step.seconds = round(end.stat().st_mtime - step.started, 1)
    return step


def _task(process: str, tag: str, directory: Path, jobs: list[str]) -> Step:
    """A step by the name of its task; its job is the directory that the task made itself."""
    found = _TAG.search(tag)
    short = process.split(":")[-1]
    group = tag.split()[-1:] if re.search(r"\S \d+$", tag) else []
    name = jobs[-1] if jobs else STEP_NAMES.get(short, " ".join([short.lower().replace("_", " "), *group]))
    task = f"{short} ({tag})" if tag else short
    return Step(name, dataset_of(tag), int(found[1]) if found else None, directory=str(directory), task=task)


def dataset_of(tag: str) -> str:
    """The data set of a task by its tag: ``job``, or ``data set: job`` where there are several."""
    # Nextflow numbers the tasks that have no tag of their own.
    return "" if not tag or tag.isdigit() else tag.rpartition(": ")[0] or SINGLE_ID


def own_jobs(directory: Path) -> list[str]:
    """Jobs that a task made in its work directory, such as ``Refine3D/bin4``; what it was given is linked there."""
    return jobs_in(directory)[0]


def jobs_in(directory: Path) -> tuple[list[str], list[str]]:
    """Jobs in a task's work directory: those that it made itself, and those that it was given, as links."""
    own, given = [], []
    for kind in _entries(directory):
        if kind.name[0].isupper() and kind.is_dir(follow_symlinks=False):
            for job in _entries(kind.path):
                if job.is_symlink():
                    given.append(f"{kind.name}/{job.name}")
                elif job.is_dir():
                    own.append(f"{kind.name}/{job.name}")
    # Two tasks make two jobs, the one that counts last: an import its picks, a post-processing its mask.
    return sorted(own, key=lambda name: name.startswith(("PostProcess/", "Import/"))), sorted(given)


#: The same of a task that has ended, whose directory does not change any more.
jobs_of_ended = cache(jobs_in)


def attempts(steps: Iterable[Step]) -> list[Step]:
    """Of a task that was tried again, the last try."""
    last: dict[tuple[str, str], Step] = {}
    for step in sorted(steps, key=lambda step: step.started or 0):
        last[step.dataset, step.task or step.name] = step
    return list(last.values())
