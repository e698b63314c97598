"""The choice of classes in a run: its table and the particle set that goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from py2rely_core.data.tables import read_star, write_star
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
        Gets ``classes.txt`` and ``particles.star``.
    reference : Path or None
        Gets the ``particles.star`` that the next reference is made from.
    of_classes_number : int or None
        With manual selection, the number of classes that classes are named of.

    Returns
    -------
    (Path, Selection)
        The job that counts, and its classes.
    """
    rows: list[dict[str, Any]] = []
    job = jobs[0]
    if len(jobs) == 1:
        selection = choose_classes(job, diameter, choice, mask)
    else:
        job, selection, rows = _of_several(jobs, choice, diameter, mask, of_classes_number)
    output.mkdir(parents=True, exist_ok=True)
    text = as_text(selection)
    (output / "classes.txt").write_text("\n".join([*comparison_text(rows), "", text]) if rows else text)
    blocks = read_star(job / "run_data.star")
    numbers = {"particles_in": len(blocks["particles"]), "classes": as_records(selection), "reason": selection.reason}
    numbers |= {"classes_job": f"Class3D/{job.name}", "classifications": rows}
    if selection.kept:
        kept = of_classes(blocks, selection.kept)
        write_star(kept, output / "particles.star")
        numbers["particles_out"] = len(kept["particles"])
        if reference is not None:
            best = selection.kept if selection.best is None else [selection.best]
            write_star(of_classes(blocks, best), reference / "particles.star")
    write_numbers(output, **numbers)
    return job, selection


def _of_several(
    jobs: list[Path], choice: Choice, diameter: float, mask: Path | None, number: int | None
) -> tuple[Path, Selection, list[dict[str, Any]]]:
    """The classification that counts, its classes, and the table of all."""
    manual = choice.selection == "manual"
    waiting = replace(choice, keep=(), best=None) if manual else choice
    judged = [read_judged(job, choose_classes(job, diameter, waiting, mask)) for job in jobs]
    if manual:
        named = next((one for one in judged if one.number == number), None)
        chosen = named or min(judged, key=lambda one: one.number)
        which = "Classes are to be chosen, and the number of classes that they are of (--classification.of_classes)."
        selection = replace(chosen.selection, reason=which)
        selection = choose_classes(chosen.job, diameter, choice, mask) if named and choice.keep else selection
        return chosen.job, selection, comparison(judged, named)
    found, why = choose_number(judged)
    chosen = found or min(judged, key=lambda one: one.number)
    selection = replace(chosen.selection, reason=f"{chosen.selection.reason} {why[0].upper()}{why[1:]}")
    if found is None:
        table = chosen.selection.classes.assign(kept=True)
        selection = Selection(table, None, f"All particles are kept: {why}")
    return chosen.job, selection, comparison(judged, found)
