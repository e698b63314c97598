"""Forecasts of finished runs beside what their RELION programs took.

Before: from the constants. After: scaled by the first iterations of the job itself. Next: scaled by what the run did
before the job. A machine that does other work, too, takes longer than its programs need: so the forecast before the run
is held against the programs' CPU time over their threads ("alone"), the others against the wall time.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from py2rely_core.planning.forecast import Effort, effort_of
from py2rely_core.planning.resources import option_value, workload_of
from py2rely_core.relion.run import commands
from py2rely_core.results.forecast import scales_of
from py2rely_core.results.progress import read_progress
from py2rely_core.results.tasks import Step, steps_of

#: Jobs that took less are not shown: most of it is starting programs.
SHORTEST = 10.0


def with_workload(dataset: dict[str, Any], project: Path) -> dict[str, Any]:
    """A data set's plan with how large it is, from its import; plans of earlier versions do not say it."""
    series = json.loads((project / "Import/tilt_series/job.json").read_text())["series"]
    stacks = [Path(name) for name in dataset.get("files", ()) if not name.endswith(".star")]
    particles, tilts = sum(one["particles"] for one in series), max(one["tilts"] for one in series)
    return dataset | {"workload": asdict(workload_of(particles, tilts, stacks, len(series)))}


def undisturbed(job: Path) -> float:
    """Seconds that a job's programs would take alone on the machine: their CPU time over their threads."""
    seconds = 0.0
    for one in commands(job):
        options = dict(pairwise(one["command"]))
        workers = max(1, int(options.get("-n", 1)) - 1) * int(options.get("--j", 1))
        seconds += one.get("cpu_seconds", 0.0) / workers
    return seconds


def after_some(effort: Effort, step: Step, count: int) -> float | None:
    """A job's whole time as it is forecast after some of its iterations; None where they took too little to tell."""
    history = read_progress(Path(step.directory) / step.name, Path(step.directory) / ".command.sh", 0).get(
        "history", []
    )
    first = [one for one in history if one["seconds"]][:count]
    scale = scales_of([(Step(step.name, progress={"history": first}), effort)]).get(effort.kind)
    if scale is None or len(effort.parts) <= count:
        return None
    return sum(one["seconds"] for one in first) + scale * sum(effort.parts[count:])


def rows(run: Path, after: int) -> list[dict[str, Any]]:
    """Every job of a run that is forecast and took some time, in their order."""
    datasets = {one["id"]: one for one in json.loads((run / "plan.json").read_text())["datasets"]}
    datasets = {name: with_workload(one, run / one["project"]) for name, one in datasets.items()}
    found, before = [], []
    for step in sorted(steps_of(run), key=lambda step: step.started or 0):
        job = Path(step.directory) / step.name
        effort = effort_of(step.name, datasets[step.dataset]) if step.dataset in datasets else None
        if effort is None or step.state not in ("done", "cached") or not (job / "job.json").is_file():
            continue
        ran = commands(job)
        if not ran or any("asked" in one for one in ran):
            continue  # a part of it was done by an earlier attempt
        step.relion_seconds = sum(one["seconds"] for one in ran)
        if step.relion_seconds >= SHORTEST:
            scale = scales_of(before).get(effort.kind)
            found.append(
                {"step": step, "dataset": datasets[step.dataset], "before": effort.seconds, "alone": undisturbed(job),
                 "after": after_some(effort, step, after), "next": scale and scale * effort.seconds,
                 "wall": step.relion_seconds}
            )  # fmt: skip
        before.append((step, effort))
    return found


def what(one: dict[str, Any]) -> str:
    """Box, point group, first sampling and images of a job."""
    level = next(each for each in one["dataset"]["levels"] if each["binning"] == one["step"].binning)
    work = one["dataset"]["workload"]
    order = option_value(level["refine"], "--healpix_order", -1)
    return f"{level['size']:4} {level['refine']['symmetry']:>3} {order:5.0f} {work['particles']:6} {work['tilts']:4}"


def main() -> None:
    """Print a row per job, and how many forecasts are within a factor of two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "runs", nargs="+", type=Path, help="output directories of runs whose work directories are there"
    )
    parser.add_argument("--after", type=int, default=3, help="iterations of a job that its scale is taken from")
    options = parser.parse_args()
    for run in options.runs:
        if not (run / "plan.json").is_file():
            parser.error(f"{run} is no output directory of a run: it has no plan.json")
    print(f"{'job':28} box sym order  parts tilts  before alone ratio   after  next  wall ratio ratio")
    ratios: dict[tuple[str, str], list[float]] = {}
    for run in options.runs:
        print(run)
        for one in rows(run, options.after):
            pairs = {"before": (one["before"], one["alone"]), "after": (one["after"], one["wall"]),
                     "next": (one["next"], one["wall"])}  # fmt: skip
            ratio = {name: first / second for name, (first, second) in pairs.items() if first is not None}
            for name, value in ratio.items():
                ratios.setdefault((one["step"].name.split("/")[0], name), []).append(value)
            cells = {name: f"{value:.2f}" for name, value in ratio.items()}
            seconds = {name: f"{one[name]:.0f}" if one[name] is not None else "" for name in pairs}
            print(
                f"  {one['step'].name:26}{what(one)} {seconds['before']:>8} {one['alone']:5.0f} {cells['before']:>5} "
                f"{seconds['after']:>7} {seconds['next']:>5} {one['wall']:5.0f} "
                f"{cells.get('after', ''):>5} {cells.get('next', ''):>5}"
            )
    print("\nkind          forecast  jobs  within 2  within 3  typical ratio")
    for (kind, name), values in sorted(ratios.items()):
        two, three = (sum(1 / most <= value <= most for value in values) for most in (2, 3))
        print(f"{kind:13} {name:8} {len(values):5} {two:9} {three:9} {geometric_mean(values):14.2f}")


if __name__ == "__main__":
    main()
