"""The choice of classes in a run: its table and the particle set that goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.judging.class_test import read_votes
from py2rely_core.judging.classes import Verdict
from py2rely_core.judging.numbers import choose_number, comparison, comparison_text, read_judged
from py2rely_core.judging.selection import Choice, Selection, as_records, as_text, choose_classes, of_classes
from py2rely_core.relion.outputs.job import write_numbers


def select_classes(
    jobs: list[Path],
    choice: Choice,
    diameter: float,
    mask: Path | None,
    output: Path,
    reference: Path | None,
    of_classes_number: int | None = None,
    tests: Path | None = None,
) -> tuple[Path, Selection]:
    """Choose classes, and write the table and the particle set that goes on.

    Parameters
    ----------
    jobs : list of Path
        Class3D jobs of the same particles, with different numbers of classes.
    choice : Choice
        How classes are chosen; with manual selection and none named, no particle set is written.
    diameter : float
        Of the particle, Angstrom.
    mask : Path or None
        Within which class maps are compared.
    output : Path
        Gets ``classes.txt``, ``particles.star``, and in its ``job.json`` also what the rule thinks (`rule`), of every
        classification by its name, however classes are chosen.
    reference : Path or None
        Gets the ``particles.star`` that the next reference is made from.
    of_classes_number : int or None
        With manual selection, the number of classes that classes are named of.
    tests : Path, optional
        Holds a :mod:`~py2rely_core.judging.class_test` of each job, under its name.

    Returns
    -------
    (Path, Selection)
        The job that counts, and its classes.
    """
    rows: list[dict[str, Any]] = []
    job = jobs[0]

    def chosen(one: Path, how: Choice) -> Selection:
        return choose_classes(one, diameter, how, mask, read_votes(tests / one.name) if tests else None)

    by_rule = replace(choice, selection="auto", keep=(), best=None)
    ruled = {one: chosen(one, by_rule) for one in jobs}
    if len(jobs) > 1:
        job, selection, rows = _of_several(ruled, choice, chosen, of_classes_number)
    elif choice.selection == "auto":
        selection = ruled[job]
    else:
        selection = chosen(job, choice)
    output.mkdir(parents=True, exist_ok=True)
    text = as_text(selection)
    (output / "classes.txt").write_text("\n".join([*comparison_text(rows), "", text]) if rows else text)
    blocks = read_star(job / "run_data.star")
    numbers = {"particles_in": len(blocks["particles"]), "classes": as_records(selection), "reason": selection.reason}
    numbers |= {"classes_job": f"Class3D/{job.name}", "classifications": rows}
    numbers["rule"] = {one.name: _opinion(found) for one, found in ruled.items()}
    if selection.kept:
        kept = of_classes(blocks, selection.kept)
        write_star(kept, output / "particles.star")
        numbers["particles_out"] = len(kept["particles"])
        if reference is not None:
            best = selection.kept if selection.best is None else [selection.best]
            write_star(of_classes(blocks, best), reference / "particles.star")
    write_numbers(output, **numbers)
    return job, selection


def _opinion(selection: Selection) -> dict[str, Any]:
    """What the rule thinks: of all classes in a sentence, and of each."""
    rows = as_records(selection)
    classes = [{"class": row["class"], "keep": bool(row["kept"]), "why": row["why"]} for row in rows]
    return {"reason": selection.reason, "classes": classes}


def noted_opinion(numbers: dict[str, Any], job: str) -> tuple[dict[int, Verdict], str]:
    """What the rule thinks of a classification, by its name (``bin4``), from what :func:`select_classes` noted.

    Parameters
    ----------
    numbers : dict
        Of the ``job.json``; one of an earlier version has no opinion.
    job : str

    Returns
    -------
    (dict of int to Verdict, str)
        Of each class by its number, and of all in a sentence; empty where nothing was noted.
    """
    found = numbers.get("rule", {}).get(job, {"reason": "", "classes": []})
    return {row["class"]: Verdict(row["keep"], row["why"]) for row in found["classes"]}, found["reason"]


def _of_several(
    ruled: dict[Path, Selection], choice: Choice, choose: Callable[[Path, Choice], Selection], number: int | None
) -> tuple[Path, Selection, list[dict[str, Any]]]:
    """The classification that counts, its classes, and the table of all."""
    manual = choice.selection == "manual"
    waiting = replace(choice, keep=(), best=None)
    found = {job: choose(job, waiting) for job in ruled} if manual else ruled
    judged = [read_judged(job, selection) for job, selection in found.items()]
    if manual:
        named = next((one for one in judged if one.number == number), None)
        chosen = named or min(judged, key=lambda one: one.number)
        which = "Classes are to be chosen, and the number of classes that they are of (--classification.of_classes)."
        selection = replace(chosen.selection, reason=which)
        selection = choose(chosen.job, choice) if named and choice.keep else selection
        return chosen.job, selection, comparison(judged, named)
    counts, why = choose_number(judged)
    chosen = counts or min(judged, key=lambda one: one.number)
    selection = replace(chosen.selection, reason=f"{chosen.selection.reason} {why[0].upper()}{why[1:]}")
    if counts is None:
        table = chosen.selection.classes.assign(kept=True)
        selection = Selection(table, None, f"All particles are kept: {why}")
    return chosen.job, selection, comparison(judged, counts)
