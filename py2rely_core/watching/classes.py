"""Classes of a run or a project that can be looked at, and runs that wait for them to be chosen."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from py2rely_core.judging.classes import CLASS_FILE, Classification, judge, newest_whole, verdicts_of
from py2rely_core.judging.selection import Choice
from py2rely_core.maps.io import read_header
from py2rely_core.parameters.request import SINGLE_ID
from py2rely_core.problems import Problem, ProblemError
from py2rely_core.report.choosing import class_page, ways_by_hand
from py2rely_core.report.class_pages import run_page
from py2rely_core.watching.jobs import numbers_of
from py2rely_core.watching.masks import UNKNOWN_DIAMETER
from py2rely_core.watching.places import Place
from py2rely_core.watching.sources import Key, Look, Source

CLASS_JOBS = ("Class2D", "Class3D")
DONE = ("done", "cached")


def classifications(source: Source, look: Look, key: Key) -> list[Key]:
    """The classifications that a step is, or that it chose classes of."""
    step = look.steps[key]
    places = source.places(step)
    if step.name.split("/")[0] in CLASS_JOBS:
        return [key] if step.name in places and _newest(places[step.name]) else []
    noted = numbers_of(places[step.name]).get("rule", {}) if step.name in places else {}
    jobs = [(key[0], f"Class3D/{name}") for name in noted]
    return [job for job in jobs if job in look.steps]


def waiting(source: Source, look: Look) -> list[Key]:
    """The classifications whose classes a run waits for."""
    found: list[Key] = []
    for planned in source.plan(look).get("datasets", ()):
        for level in planned["levels"]:
            key = (planned["id"], f"Select/{level.get('name', '')}_classes")
            waits = (level.get("classification") or {}).get("waits")
            if waits and key in look.steps and look.steps[key].state in DONE:
                found += classifications(source, look, key)
    return found


def page_of(number: int, source: Source, look: Look, key: Key) -> str:
    """The page on which the classes of a classification are chosen.

    Parameters
    ----------
    number : int
        Of the source.
    source : Source
    look : Look
    key : Key
        A Class2D or Class3D job.

    Raises
    ------
    ProblemError
        No iteration of it is complete.
    """
    step = look.steps[key]
    place = source.places(step).get(step.name)
    found = _newest(place) if place and step.name.split("/")[0] in CLASS_JOBS else None
    if found is None:
        fix = "Wait for an iteration, or look at a Class2D or Class3D job."
        raise ProblemError(Problem("There are no classes to look at.", key[1], "a whole iteration", fix))
    diameter = source.diameter(look, key) or _usual_diameter(found)
    if source.kind == "run" and found.kind == "3D":
        return _of_run(number, source, look, key, found, diameter)
    settings: dict[str, Any] = {"name": key[1], "diameter": diameter}
    if found.kind == "3D":
        selection = judge(found, Choice("auto", min_per_half=2), diameter)
        settings |= {"verdicts": verdicts_of(selection), "reason": selection.reason}
    return class_page(found, ways_by_hand(found, source.directory), **settings)


def _usual_diameter(found: Classification) -> float:
    """Of a particle of which nobody said it, Angstrom."""
    headers = [read_header(path) for path in list(found.maps.values())[:1]]
    return UNKNOWN_DIAMETER * headers[0].shape[0] * headers[0].pixel_size if headers else 0.0


def _of_run(number: int, source: Source, look: Look, key: Key, found: Classification, diameter: float) -> str:
    numbers, beside = _choice(source, look, key)
    rows = numbers.get("classes", []) if numbers.get("classes_job") == key[1] else []
    chosen = [row["class"] for row in rows if row["kept"]] or None
    dataset = key[0] if key[0] not in ("", SINGLE_ID) else ""
    others = [(job[1], classes_link(number, job)) for job in beside if job != key]
    command = look.run.get("command") or None
    return run_page(found, numbers, diameter, dataset, chosen=chosen, command=command, others=others)


def _choice(source: Source, look: Look, key: Key) -> tuple[dict[str, Any], list[Key]]:
    """What was noted where classes of a classification were chosen, and all classifications that these were of."""
    for other, step in look.steps.items():
        if other[0] == key[0] and step.name.startswith("Select/") and step.name.endswith("_classes"):
            jobs = classifications(source, look, other)
            if key in jobs:
                return numbers_of(source.places(step)[step.name]), jobs
    return {}, []


def classes_link(number: int, key: Key) -> str:
    """The address of the page on which the classes of a classification are chosen."""
    return "classes?" + urlencode({"run": str(number), "dataset": key[0], "job": key[1]})


def _newest(place: Place) -> Classification | None:
    """The newest iteration of which everything is there."""
    return newest_whole(place.directory, {match[0]: path for match, path in place.files(CLASS_FILE)})
