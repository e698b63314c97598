"""How far a refinement, classification or initial model is, from the files that RELION wrote so far."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from py2rely_core.problems import ProblemError
from py2rely_core.results.remembered import remembered

_PROGRESS = re.compile(r"(\d+(?:\.\d+)?)/\s*(\d+(?:\.\d+)?) (sec|min|hrs)\b")
_SAMPLING = re.compile(
    r"Nr(?P<what>Orientations|Translations)= (?P<number>\d+)|Expectation iteration +(?P<iteration>\d+)"
)
_UNITS = {"sec": 1, "min": 60, "hrs": 3600}


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
        RELION decides), ``history`` (per iteration: resolution in Angstrom, seconds, and samples: orientations times
        offsets of the first pass), ``resolution``, ``classes``
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
    samples = read_samples(output)
    progress = {
        "iteration": last["iteration"] if last else None,
        "iterations": int(asked[-1]) if asked else None,
        "resolution": last["resolution"] if last else None,
        "history": [
            {key: one[key] for key in ("iteration", "resolution", "seconds")}
            | {"samples": samples.get(one["iteration"])}
            for one in history
        ],
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


@remembered
def _model(path: Path) -> tuple[float | None, list[dict[str, float]]]:
    """Resolution of the first (best) class and share and resolution of all; nothing while the file is being written."""
    from py2rely_core.data.tables import read_star

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


@remembered
def read_samples(output: Path) -> dict[int, int]:
    """Orientations times offsets of the first pass of each iteration, from what RELION wrote of it in ``run.out``."""
    found: dict[int, int] = {}
    orientations = offsets = 0
    for match in _SAMPLING.finditer(_text(output)):
        if match["iteration"]:
            found[int(match["iteration"])] = orientations * offsets
            orientations = offsets = 0
        elif match["what"] == "Orientations":
            orientations = orientations or int(match["number"])  # the second pass comes after the first
        else:
            offsets = offsets or int(match["number"])
    return found


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
