"""How far a run is, from what it leaves on disk while it runs: no server, and no part of the run itself.

A run writes ``run.json`` and ``trace.tsv`` into its output directory; every task has a work directory, where Nextflow
notes when it began and how it ended, and RELION what each iteration gave. So this works from any host that sees the
files, while the run goes on, and after it has ended in whatever way.
"""

from __future__ import annotations

import csv
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from py2rely_core.problems import Problem, ProblemError
from py2rely_core.results import LEVEL_JOBS

RECORD, TRACE = "run.json", "trace.tsv"
#: Without a sign of life for so many seconds a run on another host is taken for dead: Nextflow logs every 5 minutes.
SILENCE = 900
#: Names of steps by what Nextflow calls their tasks; of the others the name in lower case.
STEP_NAMES = {"RECIPE": "parameters", "TILT_SERIES_FILES": "tables", "STACK_FILES": "stacks", "PLAN": "preflight"}
#: Tasks that check and collect; they have no job directory.
_HEAD = re.compile(r"### name: '(\S+)(?: \((.*)\))?'")
_TAG = re.compile(r"bin(\d+)")
_PROGRESS = re.compile(r"(\d+(?:\.\d+)?)/\s*(\d+(?:\.\d+)?) (sec|min|hrs)\b")
_UNITS = {"sec": 1, "min": 60, "hrs": 3600}


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


def find_run(place: Path) -> Path:
    """The output directory of a run: the one that is given, or the newest one that was launched from there.

    Raises
    ------
    ProblemError
        No run is known there.
    """
    if (place / RECORD).is_file():
        return place
    found = []
    for path in [*place.glob(f"*/{RECORD}"), *place.glob(f"*/*/{RECORD}")]:
        if Path(_read_json(path).get("launch_dir", "")).resolve() == place.resolve():
            found.append(path)
    if found:
        return max(found, key=lambda path: path.stat().st_mtime).parent
    fix = "Give the run's output directory, or the directory where it was started."
    raise ProblemError(Problem("There is no run.", str(place), f"a directory with {RECORD}", fix))


def read_status(place: Path, now: float | None = None) -> dict[str, Any]:
    """How far the run of a directory is.

    Parameters
    ----------
    place : Path
        The run's output directory, or the one it was launched from.
    now : float, optional
        Seconds since the epoch; the time of day when it is not given.

    Returns
    -------
    dict
        JSON-ready: ``run`` (name, state, started, ended, seconds, host, directories, command, error) and ``steps``,
        each as :class:`Step`. States of a run: running, finished, failed, and crashed, when it ended without a word.
    """
    now = now or time.time()
    outdir = find_run(place)
    record = _read_json(outdir / RECORD)
    work = Path(record["work_dir"])
    traced = _traced(outdir / TRACE, record["started"])
    found = _scan(work, record["started"], {str(step.directory) for step in traced})
    steps = _attempts([*traced, *found])
    state = _state(record, outdir, steps, now)
    for step in steps:
        _complete(step, state, now)
    steps.sort(key=lambda step: (step.started is None, step.started or 0))
    steps += _waiting(steps, _plan(steps, outdir), state)
    end = record.get("ended") or (now if state == "running" else _last_sign(outdir, record, steps))
    run = {
        "name": record["name"],
        "state": state,
        "started": record["started"],
        "ended": record.get("ended"),
        "seconds": round(max(0.0, end - record["started"]), 1),
        "host": record["host"],
        "profile": record["profile"],
        "output_dir": str(outdir),
        "launch_dir": record["launch_dir"],
        "work_dir": record["work_dir"],
        "command": record["command"],
        "error": record.get("error"),
        "last_sign_of_life": _last_sign(outdir, record, steps),
    }
    return {"run": run, "steps": [vars(step) for step in steps]}


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON document; empty when it is missing or just being written."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _traced(path: Path, since: float) -> list[Step]:
    """Tasks that ended, from Nextflow's trace; one of an earlier run counts for nothing."""
    if not path.is_file() or path.stat().st_mtime < since - 1:
        return []
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row.get("workdir") and row.get("status")]
    return [_traced_step(row) for row in rows]


def _traced_step(row: dict[str, str]) -> Step:
    process, _, tag = row["name"].partition(" (")
    step = _task(process, tag.removesuffix(")"), Path(row["workdir"]))
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


def _scan(work: Path, since: float, known: set[str]) -> list[Step]:
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
    step = _task(process, tag, directory)
    begin, end = directory / ".command.begin", directory / ".exitcode"
    step.started = begin.stat().st_mtime if begin.exists() else submitted
    step.state = "running" if begin.exists() else "submitted"
    text = end.read_text().strip() if end.exists() else ""
    if text:
        step.exit_code = int(text)
        step.state = "done" if step.exit_code == 0 else "failed"
        step.seconds = round(end.stat().st_mtime - step.started, 1)
    return step


def _task(process: str, tag: str, directory: Path) -> Step:
    """A step by the name of its task; its job is the directory that the task made itself."""
    words = tag.split()
    found = _TAG.search(tag)
    short = process.split(":")[-1]
    jobs = own_jobs(directory)
    name = jobs[-1] if jobs else STEP_NAMES.get(short, " ".join([short.lower().replace("_", " "), *words[1:]]))
    # Nextflow numbers the tasks that have no tag of their own.
    dataset = words[0] if words and not tag.isdigit() else ""
    return Step(name, dataset, int(found[1]) if found else None, directory=str(directory))


def own_jobs(directory: Path) -> list[str]:
    """Jobs that a task made in its work directory, such as ``Refine3D/bin4``; what it was given is linked there."""
    found = []
    for kind in _entries(directory):
        if kind.name[0].isupper() and kind.is_dir(follow_symlinks=False):
            found += [f"{kind.name}/{job.name}" for job in _entries(kind.path) if job.is_dir(follow_symlinks=False)]
    # Two tasks make two jobs, the one that counts last: an import its picks, a post-processing its mask.
    return sorted(found, key=lambda name: name.startswith(("PostProcess/", "Import/")))


def _attempts(steps: Iterable[Step]) -> list[Step]:
    """Of a task that was tried again, the last try."""
    last: dict[tuple[str, str], Step] = {}
    for step in sorted(steps, key=lambda step: step.started or 0):
        last[step.dataset, step.name] = step
    return list(last.values())


def _state(record: dict[str, Any], outdir: Path, steps: list[Step], now: float) -> str:
    if record["state"] != "running":
        return record["state"]
    if record["host"] == socket.gethostname():
        return "running" if _lives(int(record["pid"]), record["started"]) else "crashed"
    return "running" if now - _last_sign(outdir, record, steps) < SILENCE else "crashed"


def _lives(pid: int, started: float) -> bool:
    """Whether a process of this host is the run: another may have its number by now."""
    path = Path(f"/proc/{pid}")
    try:
        return path.stat().st_mtime <= started + 60 and b"java" in (path / "cmdline").read_bytes()
    except OSError:
        return False


def _last_sign(outdir: Path, record: dict[str, Any], steps: list[Step]) -> float:
    """When the run last wrote anything that is looked at here."""
    paths = [outdir / RECORD, outdir / TRACE, *Path(record["launch_dir"]).glob(".nextflow.log")]
    running = [Path(step.directory) for step in steps if step.state in ("running", "submitted", "stopped")]
    paths += [path for directory in running for path in (*directory.glob(".command.*"), *directory.glob("*/*/run.*"))]
    times = []
    for path in paths:
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            continue
    return max(times, default=record["started"])


def _complete(step: Step, run_state: str, now: float) -> None:
    """Fill in what a task's directory says: progress while it runs, numbers when it is done."""
    directory = Path(step.directory)
    if step.state in ("running", "submitted"):
        step.state = step.state if run_state == "running" else "stopped"
        if step.state != "stopped" and step.started:
            step.seconds = round(now - step.started, 1)
        job = directory / step.name
        if job.is_dir():
            step.progress = read_progress(job, directory / ".command.sh", now)
    elif step.state in ("done", "cached"):
        step.result = outcome(_read_json(directory / step.name / "job.json"))


def outcome(numbers: dict[str, Any]) -> str:
    """What a job gave, in a few words, from its ``job.json``."""
    words = []
    if numbers.get("resolution"):
        bound = "Nyquist, " if numbers.get("nyquist_limited") else ""
        words.append(f"{bound}{numbers['resolution']:.1f} A")
    if numbers.get("particles_out") is not None:
        words.append(f"{numbers['particles_out']} particles")
    if numbers.get("duplicates_removed"):
        words.append(f"{numbers['duplicates_removed']} duplicates removed")
    return ", ".join(words)


def read_progress(job: Path, script: Path, now: float) -> dict[str, Any]:
    """How far a refinement, classification or initial model is, from the files that RELION wrote so far.

    Parameters
    ----------
    job : Path
        The job's directory, in the work directory of its task.
    script : Path
        The task's script, which says how many iterations were asked for.
    now : float
        Seconds since the epoch.

    Returns
    -------
    dict
        Empty for other jobs. ``iteration`` (the last one that is complete), ``iterations`` (asked for, or None when
        RELION decides), ``history`` (per iteration: resolution in Angstrom, seconds), ``resolution``, ``classes``
        (share and resolution of each), ``within`` (share of the present iteration), ``eta_seconds``, and
        ``eta_kind``: "about", or "at least" where RELION decides when it is done.
    """
    models = sorted(
        [*job.glob("run_it[0-9][0-9][0-9]_half1_model.star"), *job.glob("run_it[0-9][0-9][0-9]_model.star")]
    )
    output = job / "run.out"
    if not models and not (output.is_file() and "relion_refine" in _text(script)):
        return {}
    history, classes = [], []
    for path in models:
        resolution, shares = _model(path)
        if resolution is None and not shares:
            continue  # It is being written.
        history.append({"iteration": int(path.name[6:9]), "resolution": resolution, "time": path.stat().st_mtime})
        classes = shares
    for before, after in zip([None, *history], history, strict=False):
        after["seconds"] = round(after["time"] - before["time"], 1) if before else None
    asked = re.findall(r"--iter (\d+)", _text(script))
    last = history[-1] if history else None
    within, left = _bar(output)
    progress = {
        "iteration": last["iteration"] if last else None,
        "iterations": int(asked[-1]) if asked else None,
        "resolution": last["resolution"] if last else None,
        "history": [{key: one[key] for key in ("iteration", "resolution", "seconds")} for one in history],
        "classes": classes if len(classes) > 1 else [],
        "within": within,
        "eta_seconds": None,
        "eta_kind": "",
    }
    return progress | _eta(progress, left, now - last["time"] if last else 0.0)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _model(path: Path) -> tuple[float | None, list[dict[str, float]]]:
    """Resolution of the first (best) class and share and resolution of all; nothing while the file is being written."""
    from py2rely_core.tables import read_star

    try:
        table = read_star(path)["model_classes"]
        shares = [
            {"share": float(row.rlnClassDistribution), "resolution": _finite(row.rlnEstimatedResolution)}
            for row in table.itertuples()
        ]
    except (ProblemError, KeyError, ValueError, AttributeError):
        return None, []
    known = [one["resolution"] for one in shares if one["resolution"]]
    return (min(known) if known else None), shares


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if 0 < number < 9999 else None


def _bar(output: Path) -> tuple[float | None, float | None]:
    """Share of the present iteration that is done, and the seconds left in it, from RELION's progress bar."""
    if not output.is_file():
        return None, None
    with output.open("rb") as file:
        file.seek(max(0, output.stat().st_size - 4000))
        text = file.read().decode(errors="replace")
    last = re.split(r"Expectation iteration|Maximization|Estimating|Calculating", text)[-1]
    found = _PROGRESS.findall(last)
    if not found or float(found[-1][1]) == 0:
        return None, None
    done, whole, unit = float(found[-1][0]), float(found[-1][1]), _UNITS[found[-1][2]]
    return round(min(1.0, done / whole), 3), max(0.0, whole - done) * unit


def _eta(progress: dict[str, Any], left: float | None, since: float) -> dict[str, Any]:
    """Time to the end from the iterations so far: a guess with a known number of iterations, else a lower bound."""
    times = [one["seconds"] for one in progress["history"] if one["seconds"]]
    if not times:
        return {}
    recent = times[-3:]
    each = sum(recent) / len(recent)
    present = left if left is not None else max(0.0, each - since)
    if progress["iterations"]:
        more = max(0, progress["iterations"] - (progress["iteration"] or 0) - 1)
        done = progress["iteration"] == progress["iterations"]
        return {"eta_seconds": 0.0 if done else round(present + more * each, 1), "eta_kind": "about"}
    # When auto-refinement has converged it joins the half sets for one more iteration.
    return {"eta_seconds": round(present + each, 1), "eta_kind": "at least"}


def _plan(steps: list[Step], outdir: Path) -> dict[str, Any]:
    task = next((step for step in steps if step.name == "preflight" and step.state in ("done", "cached")), None)
    if task is None:
        return {}
    return _read_json(Path(task.directory) / "plan.json") or _read_json(outdir / "plan.json")


def expected_jobs(dataset: dict[str, Any]) -> list[tuple[str, int | None]]:
    """Jobs that a data set's plan has for sure, each with its binning, in the order in which they run."""
    jobs: list[tuple[str, int | None]] = [("Import/tilt_series", None)]
    start = dataset.get("start", "picks")
    for index, level in enumerate(dataset["levels"]):
        binning = level["binning"]
        if start == "polish":
            jobs += [(f"{kind}/bin{binning}_result", binning) for kind in ("Reconstruct", "PostProcess")]
            continue
        left_out = _without_classes(level) | (_not_first() if index else _not_at_first(dataset))
        jobs += [(name.format(binning), binning) for name in LEVEL_JOBS if name not in left_out]
        if (level.get("classification") or {}).get("waits"):
            return jobs
    polishing = dataset.get("polishing") or {}
    for kind, ending in (("CtfRefine", "ctf"), ("Polish", "polish")):
        if polishing.get(kind.lower() if kind == "Polish" else "ctf_refine"):
            jobs += [(f"{kind}/bin1_cycle1", 1)]
            jobs += [(f"{name}/bin1_cycle1_{ending}", 1) for name in ("Reconstruct", "PostProcess")]
    return jobs


def _without_classes(level: dict[str, Any]) -> set[str]:
    """Of the jobs of a classification, those that the level does not have."""
    classification = level.get("classification")
    again = {name for name in LEVEL_JOBS if "{}_selected" in name}
    if not classification:
        return again | {"Class3D/bin{}", "Select/bin{}_classes"}
    return set() if level.get("last") and not classification.get("waits") else again


def _not_first() -> set[str]:
    return {"Reference/template", "Class3D/bin{}_template", "InitialModel/bin{}"}


def _not_at_first(dataset: dict[str, Any]) -> set[str]:
    """Of the first level's jobs, those that another way to the first reference has."""
    first, oriented = dataset["initial_reference"], dataset.get("oriented", False)
    mode = first["mode"]
    left_out = set() if oriented else {"PostProcess/bin{}_start"}
    left_out |= set() if oriented or mode == "known" else {"Reconstruct/bin{}_start"}
    left_out |= set() if mode == "template" else {"Reference/template"}
    left_out |= set() if mode == "template" and first.get("iterations") else {"Class3D/bin{}_template"}
    return left_out | (set() if mode == "denovo" else {"InitialModel/bin{}"})


def _waiting(steps: list[Step], plan: dict[str, Any], state: str) -> list[Step]:
    if not plan:
        return []
    there = {(step.dataset, step.name) for step in steps}
    waiting = []
    for dataset in plan["datasets"]:
        for name, binning in expected_jobs(dataset):
            if (dataset["id"], name) not in there:
                waiting.append(Step(name, dataset["id"], binning, "waiting" if state == "running" else "skipped"))
    if not any(step.name == "results" for step in steps):
        waiting.append(Step("results", state="waiting" if state == "running" else "skipped"))
    return waiting


def unfinished_jobs(status: dict[str, Any], dataset: str) -> dict[str, tuple[Path, str]]:
    """Jobs of a data set that did not end well, with where they ran and RELION's word for how they stand."""
    words = {"failed": "Failed", "stopped": "Aborted", "running": "Running", "submitted": "Running"}
    found = {}
    for step in status["steps"]:
        if step["dataset"] == dataset and step["state"] in words:
            for name in own_jobs(Path(step["directory"])):
                found[name] = (Path(step["directory"]) / name, words[step["state"]])
    return found


def watch(read: Callable[[], dict[str, Any]], show: Callable[[dict[str, Any]], None], seconds: float) -> dict[str, Any]:
    """Read and show again and again until the run is over; the last status."""
    while True:
        status = read()
        show(status)
        if status["run"]["state"] != "running":
            return status
        time.sleep(seconds)
