"""Why a run failed, from what Nextflow says of it and from what the failed task left in its work directory."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from py2rely_core.problems import ExitCode
from py2rely_core.relion.run import last_lines
from py2rely_core.results.explanations import explain_failure
from py2rely_core.results.tasks import Step, dataset_of

#: What to do by exit code, where the task itself said nothing.
TO_DO = {
    127: ("A program that the step calls is not there.", "Put it on PATH, or run with an image."),
    130: ("The run was interrupted.", "Start the same command with -resume to go on."),
    ExitCode.OUT_OF_MEMORY: (
        "The step was killed, most often because memory ran out.",
        "Give it more memory, or fewer ranks or threads; then start the same command with -resume.",
    ),
    140: ("The step was stopped at its time limit.", "Allow it more time; then start the same command with -resume."),
    143: (
        "The step was stopped from outside.",
        "Look at the scheduler's log; then start the same command with -resume.",
    ),
}
#: A task's own lines that are shown.
LINES = 40
_STEP = re.compile(r"process > '(?:\w+:)*(\w+(?: \((.*?)\))?)'")
_WORK = re.compile(r"Work dir:\s*\n?\s*(\S[^\n]*)")


def failure_of(run: dict[str, Any]) -> dict[str, Any]:
    """The ``failure`` of ``results.json``.

    Parameters
    ----------
    run : dict
        ``error_report``, ``error_message`` and ``exit_status`` as Nextflow gives them; each may be empty.

    Returns
    -------
    dict
        As :class:`py2rely_core.results.schema.Failure`.
    """
    report, message = run.get("error_report") or "", run.get("error_message") or ""
    step, work = _STEP.search(report), _WORK.search(report)
    work_dir = Path(work[1].strip()) if work else None
    name, tag = (step[1].strip(), step[2] or "") if step else ("", "")
    return _failure(name, dataset_of(tag) if step else "", work_dir, run.get("exit_status"), report, message)


def failures_of(run: dict[str, Any], steps: Iterable[Step]) -> list[dict[str, Any]]:
    """Every failure of a run: the one that ended it, and those of the data sets that it went on without.

    Parameters
    ----------
    run : dict
        As for :func:`failure_of`.
    steps : iterable of Step
        What the run's tasks left, the last try of each.
    """
    ended_it = [failure_of(run)] if run.get("error_report") or run.get("error_message") else []
    known = {one["work_dir"] for one in ended_it}
    failed = [step for step in steps if step.state == "failed" and step.directory not in known]
    others = [_failure(step.task, step.dataset, Path(step.directory), step.exit_code) for step in failed]
    return [*ended_it, *others] or [failure_of(run)]


def _failure(
    name: str, dataset: str, work_dir: Path | None, code: int | None, report: str = "", message: str = ""
) -> dict[str, Any]:
    job = _job(work_dir) if work_dir else None
    what, to_do = _said(work_dir) if work_dir else ("", "")
    # Nextflow's own number for a task that left no exit code.
    code = None if code is None or code > 255 else int(code)
    if not what:
        what, to_do = _by_code(code, report, message)
    lines = _lines(work_dir, job, report)
    return {
        "step": name,
        "dataset": dataset,
        "job": f"{job.parent.name}/{job.name}" if job else "",
        "what": what,
        "exit_code": code,
        "to_do": to_do,
        "last_lines": lines,
        "work_dir": str(work_dir or ""),
    } | explain_failure(lines)


def _job(work_dir: Path) -> Path | None:
    """The RELION job that a task was running: the one whose output was written last."""
    outputs = sorted(work_dir.glob("*/*/run.out"), key=lambda path: path.stat().st_mtime)
    return outputs[-1].parent if outputs else None


def _said(work_dir: Path) -> tuple[str, str]:
    """What the task itself said was wrong, and what to do."""
    problems = work_dir / "problems.txt"
    if problems.is_file():
        return problems.read_text().splitlines()[0], "Correct what is listed, then start the same command again."
    return first_problem(_text(work_dir / ".command.err"))


def first_problem(text: str) -> tuple[str, str]:
    """The first problem of a printed list, and what to do; empty where there is none."""
    what = re.findall(r"^\d+\. \[error\] (.+)$", text, re.MULTILINE)
    to_do = re.findall(r"^ +to do: (.+)$", text, re.MULTILINE)
    return (what[0], to_do[0] if to_do else "") if what else ("", "")


def _by_code(code: int | None, report: str, message: str) -> tuple[str, str]:
    if code in TO_DO:
        return TO_DO[code]
    if not report and "SIG" in message:
        return TO_DO[130]
    first = next((line.strip() for line in (message or report).splitlines() if line.strip()), "")
    return (
        first or "The run ended early.",
        "Read the lines below and nextflow's log; then start the same command with -resume.",
    )


def _lines(work_dir: Path | None, job: Path | None, report: str) -> list[str]:
    if work_dir and (work_dir / "problems.txt").is_file():
        return (work_dir / "problems.txt").read_text().splitlines()[1:]
    if job:
        lines = last_lines(job).replace(f"{work_dir}/", "").splitlines()
        if lines:
            return [line.removeprefix("  ") for line in lines]
    text = _text(work_dir / ".command.err") or _text(work_dir / ".command.out") if work_dir else report
    return [line.rstrip() for line in text.splitlines() if line.strip()][-LINES:]


def _text(path: Path) -> str:
    return path.read_text(errors="replace")[-200_000:] if path.is_file() else ""
