"""``py2rely status``: how far a run is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

COLOURS = {
    "done": "green", "cached": "green", "finished": "green", "running": "cyan", "submitted": "blue", "failed": "red",
    "crashed": "red", "stopped": "red", "waiting": "white", "skipped": "white",
}  # fmt: skip
#: Iterations that are listed of a refinement.
LISTED = 5


def command(
    directory: Annotated[
        Path, typer.Argument(help="A run's output directory, or the one where it was started.", metavar="[RUNDIR]")
    ] = Path(),
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again and again until the run is over.")
    ] = False,
    interval: Annotated[float, typer.Option("--interval", min=0.2, help="Seconds between two looks.")] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON document per look.")] = False,
) -> None:
    """Show how far a run is: what runs since when, its iterations, what waits, and what is done with its result.

    Works while the run goes on, after its end or a crash, and on any host that sees the files.
    """
    import json

    from py2rely_core.results import status

    def show(found: dict[str, Any]) -> None:
        if as_json:
            print(json.dumps(found, indent=None if watch else 1), flush=True)
            return
        if watch and sys.stdout.isatty():
            typer.clear()
        print("\n".join(_lines(found, sys.stdout.isatty())), flush=True)

    if watch:
        status.watch(lambda: status.read_status(directory), show, interval)
    else:
        show(status.read_status(directory))


def _lines(found: dict[str, Any], colour: bool) -> list[str]:
    from py2rely_core.results.forecast import forecast_text, source_text

    def paint(text: str, state: str, bold: bool = False) -> str:
        return typer.style(text, fg=COLOURS.get(state), bold=bold) if colour else text

    run, steps = found["run"], found["steps"]
    done = sum(step["state"] in ("done", "cached") for step in steps)
    lines = [
        f"{run['name']}: {paint(run['state'], run['state'], True)}, {_clock(run['started'])}, {_time(run['seconds'])}"
        f" on {run['host']}, {done} of {len(steps)} steps known so far are done",
        f"  {run['output_dir']}",
    ]
    if run["remaining"]:
        lines.append(
            f"  RELION still needs {forecast_text(run['remaining'])}; {source_text(run['remaining']['timed'])}"
        )
    if run["error"]:
        lines += [paint(f"  {line}", "failed") for line in str(run["error"]).splitlines()[:3]]
    if run["state"] == "crashed":
        lines.append(f"  It ended without a word; last sign of life {_clock(run['last_sign_of_life'])}. Start it again")
        lines.append("  with the same command: it goes on from there.")
    for dataset in dict.fromkeys(step["dataset"] for step in steps):
        lines += ["", dataset or "all data sets"]
        width = max(len(step["name"]) for step in steps) + 2
        for step in steps:
            if step["dataset"] == dataset:
                lines.append(_row(step, width, paint))
                lines += [f"      {line}" for line in _progress(step["progress"])]
    return lines


def _row(step: dict[str, Any], width: int, paint: Any) -> str:
    state = step["state"]
    words = [f"  {paint(f'{state:<9}', state)} {step['name']:<{width}}"]
    if step["seconds"] is not None and state != "cached":
        words.append(f"{_time(step['seconds']):>8}")
    if state in ("running", "submitted"):
        words.append(f"since {_clock(step['started'])}")
    if state in ("failed", "stopped"):
        code = f"exit code {step['exit_code']}, " if step["exit_code"] is not None else ""
        words.append(f"{code}in {step['directory']}")
    return "  ".join([*words, *([step["result"]] if step["result"] else [])]).rstrip()


def _progress(progress: dict[str, Any]) -> list[str]:
    if not progress:
        return []
    number, of = progress["iteration"], progress["iterations"]
    words = ["no iteration yet" if number is None else f"iteration {number}" + (f" of {of}" if of else "")]
    if progress["resolution"]:
        words.append(f"{progress['resolution']:.1f} A")
    if progress["within"] is not None:
        words.append(f"the next is {progress['within']:.0%} done")
    if progress["eta_seconds"] is not None:
        words.append(f"{progress['eta_kind']} {_time(progress['eta_seconds'])} to go")
    lines = [", ".join(words)]
    for one in progress["history"][-LISTED:]:
        resolution = f"{one['resolution']:.1f} A" if one["resolution"] else ""
        lines.append(f"  {one['iteration']:>3}  {resolution:>8}  {_time(one['seconds']):>8}".rstrip())
    lines += [
        f"  class {n}: {one['share']:.0%}" + (f", {one['resolution']:.1f} A" if one["resolution"] else "")
        for n, one in enumerate(progress["classes"], start=1)
    ]
    return lines


def _clock(moment: float | None) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(moment).strftime("%Y-%m-%d %H:%M:%S") if moment else "not yet"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
