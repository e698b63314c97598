"""The choice of classes in a run: its table and the particle set that goes on."""

from __future__ import annotations

from pathlib import Path

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.judging.selection import Choice, Selection, as_records, as_text, choose_classes, of_classes
from py2rely_core.relion.outputs.job import write_numbers


def select_classes(
    job: Path, choice: Choice, diameter: float, mask: Path | None, output: Path, reference: Path | None
) -> Selection:
    """Choose classes, and write the table and the particle set that goes on.

    Parameters
    ----------
    job : Path
        The Class3D job.
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
    """
    selection = choose_classes(job, diameter, choice, mask)
    output.mkdir(parents=True, exist_ok=True)
    (output / "classes.txt").write_text(as_text(selection))
    blocks = read_star(job / "run_data.star")
    numbers = {"particles_in": len(blocks["particles"]), "classes": as_records(selection), "reason": selection.reason}
    if selection.kept:
        kept = of_classes(blocks, selection.kept)
        write_star(kept, output / "particles.star")
        numbers["particles_out"] = len(kept["particles"])
        if reference is not None:
            best = selection.kept if selection.best is None else [selection.best]
            write_star(of_classes(blocks, best), reference / "particles.star")
    write_numbers(output, **numbers)
    return selection
