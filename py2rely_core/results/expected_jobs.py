"""The jobs that a plan has for sure."""

from __future__ import annotations

from typing import Any

from py2rely_core.results.collect import ANALYSES, LEVEL_JOBS, SLAB_JOBS

#: Jobs of an alignment to a template: of all particles, or of the half sets.
TOGETHER = {"Class3D/bin{}_template"}
#: Of a level that searches all orientations anew, which is known only when the one before it has ended.
ANEW = {"Reference/bin{}_template"}
APART = {name for name in LEVEL_JOBS if "_template" in name} - TOGETHER - ANEW


def expected_jobs(dataset: dict[str, Any]) -> list[tuple[str, int | None]]:
    """Jobs that a data set's plan has for sure, each with its binning, in the order in which they run."""
    jobs: list[tuple[str, int | None]] = [("Import/tilt_series", None)]
    slabs = dataset.get("slabs") or {}
    if slabs:
        two = len(slabs["rounds"]) > 1
        jobs += [(name, None) for name in SLAB_JOBS if two or not name.endswith("_first")]
        if slabs["waits"]:
            return jobs
    start = dataset.get("start", "picks")
    for index, level in enumerate(dataset["levels"]):
        binning = level["binning"]
        if start == "polish":
            jobs += [(f"{kind}/bin{binning}_result", binning) for kind in ("Reconstruct", "PostProcess")]
            continue
        left_out = _without_classes(level) | (_not_first() if index else _not_at_first(dataset))
        left_out |= _untested(level) | ANEW
        for name in LEVEL_JOBS:
            if name not in left_out:
                jobs += [(one, binning) for one in _each_number(name.format(binning), level)]
        if (level.get("classification") or {}).get("waits"):
            return jobs
    polishing = dataset.get("polishing") or {}
    for kind, ending in (("CtfRefine", "ctf"), ("Polish", "polish")):
        if polishing.get(kind.lower() if kind == "Polish" else "ctf_refine"):
            jobs += [(f"{kind}/bin1_cycle1", 1)]
            jobs += [(f"{name}/bin1_cycle1_{ending}", 1) for name in ("Reconstruct", "PostProcess")]
    return jobs if polishing else jobs + _analyses(dataset)


def _analyses(dataset: dict[str, Any]) -> list[tuple[str, int | None]]:
    """Steps on the best map, where it is known before which one that is."""
    level = dataset["levels"][-1]
    again = level.get("classification") and level.get("last")
    name = f"bin{level['binning']}{'_selected' if again else ''}_result"
    steps = dataset.get("map_analysis", {})
    return [(job.format(name), level["binning"]) for step, job in ANALYSES.items() if steps.get(step)]


def _each_number(name: str, level: dict[str, Any]) -> list[str]:
    """A job's name, or those of classifications with several numbers of classes."""
    numbers = (level.get("classification") or {}).get("numbers", [])
    if not name.startswith(("Class3D/", "ClassTest/")) or "_template" in name or len(numbers) < 2:
        return [name]
    return [f"{name}_k{number}" for number in numbers]


def _without_classes(level: dict[str, Any]) -> set[str]:
    """Of the jobs of a classification, those that the level does not have."""
    classification = level.get("classification")
    again = {name for name in LEVEL_JOBS if "{}_selected" in name}
    if not classification:
        return again | {"Class3D/bin{}", "ClassTest/bin{}", "Select/bin{}_classes"}
    left_out = set() if classification.get("test") else {"ClassTest/bin{}"}
    return left_out | (set() if level.get("last") and not classification.get("waits") else again)


def _untested(level: dict[str, Any]) -> set[str]:
    """Tests of orientations that a level does not have: it has one, of its last particles."""
    tests = {name for name in LEVEL_JOBS if name.startswith("Orientations/")}
    if not level.get("orientations"):
        return tests
    again = level.get("classification") and level.get("last")
    return tests - {"Orientations/bin{}_selected" if again else "Orientations/bin{}"}


def _not_first() -> set[str]:
    return {"Reference/template", "InitialModel/bin{}"} | TOGETHER | APART


def _not_at_first(dataset: dict[str, Any]) -> set[str]:
    """Of the first level's jobs, those that another way to the first reference has."""
    first, oriented = dataset["initial_reference"], dataset.get("oriented", False)
    mode = first["mode"]
    left_out = set() if oriented else {"PostProcess/bin{}_start"}
    left_out |= set() if oriented or mode == "known" else {"Reconstruct/bin{}_start"}
    left_out |= set() if mode == "template" else {"Reference/template"}
    aligned = mode == "template" and first.get("iterations")
    # Plans of earlier versions have all particles aligned together.
    alignment = TOGETHER if first.get("halves", [0]) == [0] else APART
    left_out |= (TOGETHER | APART) - (alignment if aligned else set())
    return left_out | (set() if mode == "denovo" else {"InitialModel/bin{}"})
