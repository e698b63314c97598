"""Where the wall time of a finished run went: RELION, and what is beside it.

From the run's own records: ``trace.tsv`` (when each task was submitted, began and ended), ``commands.jsonl`` of each
RELION job in the task's directory, and ``.nextflow.log`` (when Nextflow began and ended).
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

Interval = tuple[float, float]


@dataclass
class Task:
    """A task that this run executed; times in seconds since 1970, the intervals of RELION's programs within it."""

    name: str
    submitted: float
    began: float
    ended: float
    relion: list[Interval]


def union(intervals: Iterable[Interval]) -> float:
    """Seconds in which at least one of the intervals lies."""
    total, last = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, last))
        last = max(last, end)
    return total


def tasks_of(trace: Path, since: float) -> list[Task]:
    """The tasks of a trace that were submitted after a time; those that an earlier run did are left out."""
    found = []
    with trace.open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            times = [datetime.fromisoformat(row[key]).timestamp() for key in ("submit", "start", "complete")]
            if times[0] >= since:
                found.append(Task(row["name"], *times, list(relion_intervals(Path(row["workdir"])))))
    return found


def relion_intervals(work: Path) -> Iterator[Interval]:
    """When RELION's programs ran in a task; other jobs' directories there are links."""
    for file in work.glob("*/*/commands.jsonl"):
        if not file.parent.is_symlink():
            for line in file.read_text().splitlines():
                one = json.loads(line)
                yield one["started"], one["started"] + one["seconds"]


def span_of(log: Path, year: int) -> Interval:
    """When a Nextflow log begins and ends: its lines begin such as ``Nov-27 01:01:39.033 [main]``."""
    times = re.findall(r"^\w{3}-\d\d \d\d:\d\d:\d\d\.\d{3}", log.read_text(), re.MULTILINE)
    begin, end = (datetime.strptime(f"{year} {time}", "%Y %b-%d %H:%M:%S.%f") for time in (times[0], times[-1]))
    return begin.timestamp(), end.timestamp()


def account(tasks: list[Task], log: Interval, whole: Interval) -> dict[str, float]:
    """Seconds by what they went to; together they are the whole."""
    running = union((task.began, task.ended) for task in tasks)
    relion = union(interval for task in tasks for interval in task.relion)
    first, last = min(task.submitted for task in tasks), max(task.ended for task in tasks)
    return {
        "RELION's programs": relion,
        "tasks, beside RELION": running - relion,
        "between tasks (submitting, noticing the end)": last - first - running,
        "Nextflow until the first task": first - log[0],
        "Nextflow after the last task": log[1] - last,
        "before and after Nextflow's own log": whole[1] - whole[0] - (log[1] - log[0]),
    }


def by_process(tasks: list[Task]) -> dict[str, tuple[int, float, float]]:
    """Of each process: number of tasks, their seconds, and of these the seconds in RELION."""
    found: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    for task in tasks:
        row = found[task.name.split(" (")[0].rsplit(":", 1)[-1]]
        for place, more in enumerate((1, task.ended - task.began, union(task.relion))):
            row[place] += more
    return {name: (int(row[0]), row[1], row[2]) for name, row in found.items()}


def main() -> None:
    """Print the account of a run."""
    parser = argparse.ArgumentParser(description="Where the wall time of a finished run went.")
    parser.add_argument("directory", type=Path, help="where the run was started: .nextflow.log, results/trace.tsv")
    parser.add_argument("--outdir", default="results")
    parser.add_argument("--between", type=float, nargs=2, help="begin and end of the whole, seconds since 1970")
    given = parser.parse_args()
    trace = given.directory / given.outdir / "trace.tsv"
    log = span_of(given.directory / ".nextflow.log", datetime.fromtimestamp(trace.stat().st_mtime).year)
    tasks = tasks_of(trace, log[0])
    whole = tuple(given.between or log)
    print(f"{'wall time':46s} {whole[1] - whole[0]:8.1f} s")
    for what, seconds in account(tasks, log, whole).items():
        print(f"  {what:44s} {seconds:8.1f} s  {seconds / (whole[1] - whole[0]):6.1%}")
    print(f"\n{'process':26s} {'tasks':>5s} {'seconds':>9s} {'in RELION':>9s} {'beside, per task':>17s}")
    for name, (number, seconds, relion) in by_process(tasks).items():
        print(f"{name:26s} {number:5d} {seconds:9.1f} {relion:9.1f} {(seconds - relion) / number:17.1f}")


if __name__ == "__main__":
    main()
