"""What is shown of one job: its commands, numbers, files to look at, and the end of its output."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from py2rely_core.results.explanations import explain, explain_failure
from py2rely_core.results.failure import TO_DO, first_problem
from py2rely_core.results.remembered import remembered
from py2rely_core.results.tasks import Step, read_json
from py2rely_core.watching.iterations import newest_maps
from py2rely_core.watching.places import Place
from py2rely_core.watching.sources import Look, Source

#: So much of the end of an output is shown.
TAIL_BYTES, TAIL_LINES = 24_000, 200
#: What a task of Nextflow says itself.
TASK_LOGS = {".command.out": "task: output", ".command.err": "task: errors", ".command.sh": "task: script"}
RELION_LOGS = ("run.out", "run.err")
#: Maps of a job that is over, by their files.
MAPS = re.compile(
    r"(postprocess|postprocess_masked|merged|half[12]|mask|reference|initial_model"
    r"|run_(?:half[12]_)?class\d{3}(?:_unfil)?)\.mrc"
)
FIRST = ("postprocess", "run_class001", "merged", "initial_model", "reference")
#: Half maps, and the map of all particles that belongs to them.
HALF_MAPS = (
    ("half1.mrc", "half2.mrc", "merged.mrc"),
    ("run_half1_class001_unfil.mrc", "run_half2_class001_unfil.mrc", "run_class001.mrc"),
)
_NOTED = re.compile(r"with the following command\(s\):\s*\n(.*?)(?=^ *\+{4}|\Z)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class HalfMaps:
    """Files of two half maps, and of the map of all particles where it is there."""

    first: Path
    second: Path
    merged: Path | None


def commands_of(place: Place) -> list[dict[str, Any]]:
    """What was run in a job: ``command`` (text), and where they are known ``exit_code`` and ``because``."""
    path = place.file("commands.jsonl")
    if path:
        return _commands(path)
    note = place.file("note.txt")
    return [_SILENT | {"command": text} for text in _noted(note)] if note else []


_SILENT: dict[str, Any] = {"exit_code": None, "because": ""}


@remembered
def _commands(path: Path) -> list[dict[str, Any]]:
    import shlex

    rows = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
            rows.append(_SILENT | row | {"command": shlex.join(row["command"])})
        except (ValueError, KeyError, TypeError):
            continue  # It is being written.
    return rows


@remembered
def _noted(path: Path) -> list[str]:
    """The commands in RELION's own note on a job."""
    found = _NOTED.findall(path.read_text(errors="replace"))
    return [line.strip() for part in found for line in part.splitlines() if line.strip()]


def logs_of(source: Source, step: Step) -> dict[str, Path]:
    """The outputs of a step that say something, by what they are called here; of one that failed, its errors first."""
    places = source.places(step)
    found = {}
    for name, place in reversed(places.items()):
        for log in reversed(RELION_LOGS) if step.state == "failed" else RELION_LOGS:
            found[log if len(places) == 1 else f"{name}: {log}"] = place.file(log)
    task = source.task(step)
    if task:
        found |= {text: task.file(name) for name, text in TASK_LOGS.items()}
    return {name: path for name, path in found.items() if path and path.stat().st_size}


def tail(path: Path) -> str:
    """The last lines of an output; of a line that a program wrote over and over, the last state."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    lines = text.split("\n")[1 if size > TAIL_BYTES else 0 :]
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in lines]
    return "\n".join(lines[-TAIL_LINES:]).rstrip()


def numbers_of(place: Place) -> dict[str, Any]:
    """A job's ``job.json``; empty before it is proven."""
    path = place.file("job.json")
    return _numbers(path) if path else {}


_numbers = remembered(read_json)


def maps_of(source: Source, step: Step) -> dict[str, Path]:
    """Maps of a step, by what they are called here; the one to begin with first."""
    found: dict[str, Path] = {}
    for place in reversed(source.places(step).values()):
        files = {match[1]: path for match, path in place.files(MAPS)}
        ended = {name: files[name] for name in sorted(files, key=_place_of)}
        found |= ended if ended and step.state != "running" else newest_maps(place) | ended
    return found


def _place_of(name: str) -> tuple[int, str]:
    return (FIRST.index(name) if name in FIRST else len(FIRST), name)


def half_maps_of(source: Source, look: Look, step: Step) -> HalfMaps | None:
    """The half maps of a step, or of the one that a mask or a post-processing was made from."""
    key = (step.dataset, step.name)
    kind = step.name.split("/")[0]
    steps = [step]
    if kind in ("PostProcess", "MaskCreate"):
        steps += [look.steps[one] for one in look.inputs.get(key, ()) if one in look.steps]
    for one in steps:
        for place in source.places(one).values():
            for names in HALF_MAPS:
                first, second, merged = (place.file(name) for name in names)
                if first and second:
                    return HalfMaps(first, second, merged)
    return None


_UNEXPLAINED = {"explanation": "", "to_do": ""}


def failure_in(source: Source, step: Step) -> dict[str, str]:
    """Why a step failed: ``what``, ``to_do``, and where RELION's words are known, ``explanation``."""
    logs = logs_of(source, step)
    said = tail(logs["task: errors"]) if "task: errors" in logs else ""
    what, to_do = first_problem(said)
    if not what:
        otherwise = "It failed." if step.exit_code is None else f"It ended with exit code {step.exit_code}."
        what, to_do = TO_DO.get(step.exit_code or 0, (otherwise, ""))
    lines = [line for name, path in logs.items() if not name.endswith("script") for line in tail(path).splitlines()]
    return {"what": what, "to_do": to_do, "explanation": ""} | explain_failure(lines)


def describe(source: Source, look: Look, key: tuple[str, str]) -> dict[str, Any]:
    """Everything of a step that is text and numbers."""
    step = look.steps[key]
    places = source.places(step)
    numbers = numbers_of(places[step.name]) if step.name in places else {}
    return {
        "step": step,
        "commands": {name: commands_of(place) for name, place in places.items()},
        "numbers": numbers,
        "warnings": [
            {"text": text, "explanation": "", "to_do": ""} | explain(text) for text in numbers.get("warnings", [])
        ],
        "failure": failure_in(source, step) if step.state == "failed" else {},
        "inputs": look.inputs.get(key, []),
        "following": look.following(key),
        "logs": list(logs_of(source, step)),
        "maps": list(maps_of(source, step)),
        "half_maps": half_maps_of(source, look, step) is not None,
    }
