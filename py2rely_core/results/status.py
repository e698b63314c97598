"""How far a run is, from what it leaves on disk while it runs: no server, and no part of the run itself.

A run writes ``run.json`` and ``trace.tsv`` into its output directory; every task has a work directory, where Nextflow
notes when it began and how it ended, and RELION what each iteration gave. So this works from any host that sees the
files, while the run goes on, and after it has ended in whatever way.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from py2rely_core.problems import Problem, ProblemError
from py2rely_core.results.expected_jobs import expected_jobs
from py2rely_core.results.forecast import remaining
from py2rely_core.results.progress import read_progress
from py2rely_core.results.remembered import remembered
from py2rely_core.results.tasks import RECORD, TRACE, Step, own_jobs, read_json, steps_of

#: Without a sign of life for so many seconds a run on another host is taken for dead: Nextflow logs every 5 minutes.
SILENCE = 900


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
        if Path(read_json(path).get("launch_dir", "")).resolve() == place.resolve():
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
        JSON-ready: ``run`` (name, state, started, ended, seconds, host, directories, command, error; remaining, as
        :func:`py2rely_core.results.forecast.remaining` returns it) and ``steps``, each as :class:`Step`. States of a
        run: running, finished, failed, and crashed, when it ended without a word.
    """
    now = now or time.time()
    outdir = find_run(place)
    record = read_json(outdir / RECORD)
    steps = steps_of(outdir)
    state = _state(record, outdir, steps, now)
    for step in steps:
        _complete(step, state, now)
    steps.sort(key=lambda step: (step.started is None, step.started or 0))
    plan = plan_of(steps, outdir)
    steps += _waiting(steps, plan, state)
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
        "remaining": remaining(steps, plan) if state == "running" else None,
    }
    return {"run": run, "steps": [vars(step) for step in steps]}


def _state(record: dict[str, Any], outdir: Path, steps: list[Step], now: float) -> str:
    if record["state"] != "running":
        return record["state"]
    alive = is_alive(record)
    if alive is not None:
        return "running" if alive else "crashed"
    return "running" if now - _last_sign(outdir, record, steps) < SILENCE else "crashed"


def is_alive(record: dict[str, Any]) -> bool | None:
    """Whether the process of a run, by its ``run.json``, is there; None for one of another host."""
    if record["host"] != socket.gethostname():
        return None
    path = Path(f"/proc/{int(record['pid'])}")
    try:
        # Another process may have its number by now.
        return path.stat().st_mtime <= record["started"] + 60 and b"java" in (path / "cmdline").read_bytes()
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
    if step.state in ("running", "submitted"):
        directory = Path(step.directory)
        step.state = step.state if run_state == "running" else "stopped"
        if step.state != "stopped" and step.started:
            step.seconds = round(now - step.started, 1)
        job = directory / step.name
        if job.is_dir():
            step.progress = read_progress(job, directory / ".command.sh", now)
    elif step.state in ("done", "cached"):
        step.result, step.relion_seconds = _outcome_of(step.directory, step.name)


@cache
def _outcome_of(directory: str, name: str) -> tuple[str, float | None]:
    """What a job that is done gave, and the time of its RELION programs where they did all of it in one go."""
    numbers = read_json(Path(directory) / name / "job.json")
    whole = "continued_after_iteration" not in numbers
    return outcome(numbers), numbers.get("relion_seconds") if whole else None


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
    if numbers.get("lost"):
        words.append(f"left out: {', '.join(one['tilt_series'] for one in numbers['lost'])}")
    if sharpening := numbers.get("sharpening"):
        words.append(f"B-factor {sharpening['b_factor']:.0f} A^2" if sharpening["sharpened"] else "not sharpened")
    for found in (numbers.get("directions"), numbers.get("local_resolution")):
        words += [f"{found['best']:.1f} to {found['worst']:.1f} A"] if found else []
    words += [numbers[step]["text"] for step in ("template", "particle_plot") if step in numbers]
    return ", ".join(words)


def plan_of(steps: list[Step], outdir: Path) -> dict[str, Any]:
    """The plan of a run by its steps; empty before there is one. Nobody may change it."""
    task = next((step for step in steps if step.name == "preflight" and step.state in ("done", "cached")), None)
    if task is None:
        return {}
    return _known_plan(Path(task.directory) / "plan.json") or _known_plan(outdir / "plan.json")


_known_plan = remembered(read_json)


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
