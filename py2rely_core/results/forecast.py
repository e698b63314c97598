"""How long a run takes: the forecast of its plan, and of what is left, scaled by what the run's own steps took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from py2rely_core.planning.forecast import MEASURED_ON, SCALED, UNSCALED, Effort, effort_of
from py2rely_core.results.expected_jobs import expected_jobs
from py2rely_core.results.progress import read_samples
from py2rely_core.results.tasks import Step

#: RELION's programs that no formula is there for.
UNKNOWN = ("Class2D/", "LocalRes/")
#: Iterations that took less in all tell about starting programs, not about searching.
LEAST_SECONDS = 10.0
_ON_GPUS = "the steps on GPUs, before their first iterations have been timed"
#: Seconds per unit, until how many of the unit before it.
_UNITS = (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48), ("days", 86400, float("inf")))


def forecast(dataset: dict[str, Any]) -> dict[str, Any]:
    """What a data set's plan takes before anything has run, from the constants.

    Parameters
    ----------
    dataset : dict
        A data set of ``plan.json``.

    Returns
    -------
    dict
        JSON-ready: ``levels``, each with ``binning``, ``seconds``, ``low``, ``high`` and ``gpu`` (whether steps on GPUs
        are left out, which are not forecast before some were timed) and, where it may search all orientations anew,
        ``anew``, the seconds of the level then; the same in ``total``, without these; ``unknown``, kinds of jobs that
        are not forecast at all.
    """
    levels: dict[int, list[Effort]] = {one["binning"]: [] for one in dataset["levels"]}
    jobs = expected_jobs(dataset)
    for name, binning in jobs:
        effort = effort_of(name, dataset)
        if effort and binning is not None:
            levels[binning].append(effort)
    every = [effort for efforts in levels.values() for effort in efforts]
    kinds = [kind for kind in UNKNOWN if any(name.startswith(kind) for name, _ in jobs)]
    return {
        "levels": [
            {"binning": binning} | _unscaled(efforts) | _anew(dataset, binning, efforts)
            for binning, efforts in levels.items()
        ],
        "total": _unscaled(every),
        "unknown": [kind.rstrip("/") for kind in kinds],
    }


def _anew(dataset: dict[str, Any], binning: int, efforts: list[Effort]) -> dict[str, Any]:
    levels = [one | {"refine": one.get("refine_anew") or one["refine"]} for one in dataset["levels"]]
    name = f"Refine3D/bin{binning}"
    local, anew = (effort_of(name, one) for one in (dataset, dataset | {"levels": levels}))
    if anew is None or local is None or anew.on_gpu or anew == local:
        return {}
    return {"anew": round(_unscaled(efforts)["seconds"] + anew.seconds - local.seconds, 1)}


def _unscaled(efforts: list[Effort]) -> dict[str, Any]:
    known = sum(one.seconds for one in efforts if not one.on_gpu)
    return span(known, UNSCALED) | {"gpu": any(one.on_gpu for one in efforts)}


def span(seconds: float, factor: float) -> dict[str, float]:
    """A forecast with its range: ``seconds``, ``low``, ``high``."""
    ends = {"seconds": seconds, "low": seconds / factor, "high": seconds * factor}
    return {name: round(value, 1) for name, value in ends.items()}


def remaining(steps: Iterable[Step], plan: dict[str, Any]) -> dict[str, Any] | None:
    """What a run that goes on still takes, one step after another.

    Parameters
    ----------
    steps : iterable of Step
        What is done, runs and waits.
    plan : dict
        The run's ``plan.json``.

    Returns
    -------
    dict or None
        ``seconds``, ``low``, ``high``; ``timed``: whether the run's own iterations gave the scale; ``unscaled``: jobs
        on GPUs that are left out, as none was timed yet. None where nothing is known, or left.
    """
    datasets = {one["id"]: one for one in plan.get("datasets", ())}
    known = [
        (step, effort)
        for step in steps
        if step.dataset in datasets and (effort := effort_of(step.name, datasets[step.dataset]))
    ]
    scales = scales_of(known)
    left, unscaled = 0.0, []
    open_steps = [(step, effort) for step, effort in known if step.state in ("running", "submitted", "waiting")]
    for step, effort in open_steps:
        if effort.kind in scales or not effort.on_gpu:
            left += _left(step, effort, scales.get(effort.kind, 1.0))
        else:
            unscaled.append(step.name)
    if not open_steps:
        return None
    timed = any(kind.endswith("search") for kind in scales)
    return span(left, SCALED if timed else UNSCALED) | {"timed": timed, "unscaled": unscaled}


def scales_of(known: Iterable[tuple[Step, Effort]]) -> dict[str, float]:
    """How many times longer than by the constants each kind of effort took so far in this run."""
    measured: dict[str, float] = defaultdict(float)
    formula: dict[str, float] = defaultdict(float)
    for step, effort in known:
        if step.state in ("done", "cached") and step.relion_seconds:
            measured[effort.kind] += step.relion_seconds
            formula[effort.kind] += _formula(step.directory, step.name, effort)
        for one in step.progress.get("history", ()):
            if one["seconds"]:
                measured[effort.kind] += one["seconds"]
                formula[effort.kind] += effort.iteration(one["iteration"], one["samples"])
    return {kind: seconds / formula[kind] for kind, seconds in measured.items() if seconds >= LEAST_SECONDS}


@cache
def _formula(directory: str, name: str, effort: Effort) -> float:
    """Seconds of a job that is done by the constants, with as many iterations and samples as it had."""
    samples = read_samples(Path(directory) / name / "run.out") if effort.per_sample else {}
    return sum(effort.iteration(number, one) for number, one in samples.items()) or effort.seconds


def _left(step: Step, effort: Effort, scale: float) -> float:
    """Seconds that a step still takes; one with iterations at least what the present one does."""
    if step.state in ("waiting", "submitted"):
        return scale * effort.seconds
    if not step.progress.get("history"):
        return max(0.0, scale * effort.seconds - (step.seconds or 0.0))
    return max(scale * sum(effort.parts[step.progress["iteration"] :]), step.progress["eta_seconds"] or 0.0)


def forecast_text(found: dict[str, Any]) -> str:
    """A range as one says it, such as ``about 3 h, 0.8 to 12``; steps on GPUs that are left out are named."""
    left_out = found.get("gpu") or found.get("unscaled")
    if left_out and not found["seconds"]:
        return f"no forecast of {_ON_GPUS}"
    unit, size = next((unit, size) for unit, size, most in _UNITS if found["seconds"] < most * size)
    low, middle, high = (_round(found[name] / size) for name in ("low", "seconds", "high"))
    return f"about {middle} {unit}, {low} to {high}" + (f", without {_ON_GPUS}" if left_out else "")


def forecast_lines(found: dict[str, Any]) -> list[str]:
    """A plan's forecast, level by level, with where it comes from."""
    lines = [
        f"RELION at bin {level['binning']}: {forecast_text(level)}{_anew_text(level)}" for level in found["levels"]
    ]
    lines += [f"RELION in total: {forecast_text(found['total'])}; {source_text(False)}"]
    return [*lines, f"not forecast: {', '.join(found['unknown'])}"] if found["unknown"] else lines


def _anew_text(level: dict[str, Any]) -> str:
    text = forecast_text(span(level["anew"], UNSCALED)) if "anew" in level else ""
    return f"; {text} if all orientations are searched anew" if text else ""


def source_text(timed: bool) -> str:
    """Where a forecast comes from."""
    if timed:
        return "from this run's own iterations"
    return f"from constants of {MEASURED_ON}, until the run's first iterations have been timed"


def _round(number: float) -> str:
    """One digit after the point below two, none above."""
    return f"{number:.1f}" if number < 2 else f"{number:.0f}"
