"""Which classes of a 2D classification of slabs are kept, by a stated rule or by hand, and the particles that go on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from py2rely_core.data.tables import Blocks, read_star, write_star
from py2rely_core.judging.classes import Classification, newest_whole
from py2rely_core.judging.selection import Selection, as_records, as_text, class_table
from py2rely_core.maps.io import Volume, read_images
from py2rely_core.problems import ExitCode, Problem, ProblemError
from py2rely_core.relion.outputs.job import bad_output, write_numbers
from py2rely_core.relion.slabs import PARTICLES, SOURCE, read_index

#: A class whose resolution is this many times that of the best one, or more, has no features of it.
FEATURELESS = 1.4
#: The best class shows features when it is resolved to this share of the particle's diameter.
SHOWS = 1 / 3
#: A class whose average is this many times as strong as that of the kept classes is no protein.
TOO_STRONG = 2.0
#: Classes with fewer particles, or a smaller share of all, are no measure for the others.
FEWEST, LEAST_SHARE = 8, 0.02
#: What is waited for.
WAITS = "Classes of slabs are to be chosen."


@dataclass(frozen=True)
class SlabChoice:
    """How classes are chosen: by the rule or by hand, and what must be left for the rule to prefer any.

    Attributes
    ----------
    selection : {"auto", "manual"}
    keep : tuple of int
        With manual selection, the classes that are kept; empty while they are waited for.
    min_share : float
        Of the judged particles, that must be left.
    min_particles : int
        That must be left.
    """

    selection: str = "auto"
    keep: tuple[int, ...] = ()
    min_share: float = 0.1
    min_particles: int = 50


def read_class2d(job: Path) -> Classification:
    """The last complete iteration of a Class2D job.

    Raises
    ------
    ProblemError
        There is none.
    """
    found = newest_whole(job, {path.name: path for path in job.glob("run*")})
    if found is None or found.kind != "2D":
        fix = "Give the directory of a Class2D job that has come to its first iteration."
        problem = Problem(f"{job} holds no 2D classification.", str(job), "run_itNNN_classes.mrcs and its tables", fix)
        raise ProblemError(problem)
    return found


def choose_slab_classes(found: Classification, diameter: float, choice: SlabChoice) -> Selection:
    """Judge the classes of a 2D classification; see docs/slabs.md for the rule.

    Parameters
    ----------
    found : Classification
    diameter : float
        Of the particle, Angstrom.
    choice : SlabChoice

    Raises
    ------
    ProblemError
        A class is named that is not there.
    """
    model = read_star(found.model)
    particles = read_star(found.data)["particles"]
    table = class_table(model, particles).assign(similarity=np.nan, likeness=np.nan)
    if choice.selection == "manual":
        return _by_hand(table, choice)
    return _by_rule(table, strengths(read_images(found.images)[0]), diameter, choice)


def strengths(averages: Volume) -> np.ndarray:
    """How strong each average is: what its brightest pixels are above its median, (n,)."""
    flat = averages.reshape(len(averages), -1)
    return np.percentile(flat, 99.5, axis=1) - np.median(flat, axis=1)


def _by_hand(table: pd.DataFrame, choice: SlabChoice) -> Selection:
    unknown = sorted(set(choice.keep) - set(table["class"]))
    if unknown:
        what = f"There is no class {', '.join(map(str, unknown))}."
        problem = Problem(what, "class2D_keep", f"1 to {len(table)}", "Correct the numbers.")
        raise ProblemError(problem, ExitCode.BAD_PARAMETERS)
    kept = table["class"].isin(choice.keep)
    why = ["chosen" if one else "not chosen" if choice.keep else "to be chosen" for one in kept]
    table = table.assign(kept=kept, why=why)
    return Selection(table, None, f"Kept: class {_numbers(table)}." if choice.keep else WAITS)


def _numbers(table: pd.DataFrame) -> str:
    return ", ".join(str(number) for number in table["class"][table["kept"]])


def _by_rule(table: pd.DataFrame, strong: np.ndarray, diameter: float, choice: SlabChoice) -> Selection:
    empty = table["particles"] == 0
    small = (table["particles"] < FEWEST) | (table["share"] < LEAST_SHARE)
    measured = table[~small & table["resolution"].notna()]
    if measured.empty:
        return _everything(table, "no class that is not small has a resolution.")
    best = float(measured["resolution"].min())
    sharp = ~empty & (table["resolution"] < FEATURELESS * best)
    # What is typical is said by the sharp classes' particles, not by the number of their classes.
    usual = _weighted_median(strong[sharp], table["particles"][sharp].to_numpy())
    bright = sharp & (strong > TOO_STRONG * usual)
    kept = sharp & ~bright
    why = [
        "empty" if row["particles"] == 0
        else f"{strong[n] / usual:.1f} times as strong as the others: no protein" if bright[n]
        else "the best resolution" if row["resolution"] == best
        else f"features to {row['resolution']:.0f} A" if kept[n]
        else "no resolution" if not np.isfinite(row["resolution"])
        else f"no features: {row['resolution']:.0f} A, the best has {best:.0f} A"
        for n, row in enumerate(table.to_dict("records"))
    ]  # fmt: skip
    table = table.assign(kept=kept, why=why)
    left, judged = int(table["particles"][kept].sum()), int(table["particles"].sum())
    if best > SHOWS * diameter:
        shown = f"the best class is resolved to {best:.0f} A, not to a third of the particle's {diameter:.0f} A."
        return _everything(table, shown)
    if left == judged:
        return _everything(table, "all of them have features.")
    if left < max(choice.min_particles, choice.min_share * judged):
        return _everything(table, f"only {left} of {judged} particles would be left.")
    return Selection(table, None, f"Kept: class {_numbers(table)}, {left} of {judged} particles that were judged.")


def _everything(table: pd.DataFrame, why: str) -> Selection:
    table = table if "why" in table else table.assign(why="")
    return Selection(table.assign(kept=True), None, f"All particles are kept: {why}")


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


@dataclass(frozen=True)
class Kept:
    """What became of the particles: blocks of those that go on, and how many were kept, rejected and not judged."""

    blocks: Blocks
    images: Blocks
    judged: int
    not_judged: int


def kept_particles(slabs: Path, data: Path, classes: list[int], with_not_judged: bool) -> Kept:
    """The particles of some classes as they were before, row by row, in their order.

    Parameters
    ----------
    slabs : Path
        The job of slabs that was classified.
    data : Path
        The classified images: a ``run_itNNN_data.star``.
    classes : list of int
        Counted from 1.
    with_not_judged : bool
        Particles without an image go on, too.

    Raises
    ------
    ProblemError
        Images were classified that are not of this job.
    """
    index, source = read_index(slabs), read_star(slabs / SOURCE)
    images = read_star(data)["particles"]
    numbers = pd.Series(
        images["rlnClassNumber"].astype(int).to_numpy(), index=[_image(n) for n in images["rlnImageName"]]
    )
    own = pd.Series([_image(name) if name else "" for name in index["image"]])
    foreign = sorted(set(numbers.index) - set(own))
    if foreign or numbers.index.duplicated().any():
        what = f"{len(foreign)} of the images that were classified are not of {slabs}, such as {foreign[:1]}."
        what = what if foreign else f"{data} has images twice."
        raise ProblemError(Problem(what, str(data), "images of these slabs, each once", "Give the slabs they are of."))
    chosen = own.map(numbers).isin(classes).to_numpy()
    left_out = (index["image"] == "").to_numpy()
    goes_on = index["row"][chosen | (left_out & with_not_judged)].to_numpy()
    table = source["particles"]
    result = dict(source) | {"particles": table.iloc[goes_on]}
    if "optics" in source and "rlnOpticsGroup" in table:
        used = result["particles"]["rlnOpticsGroup"]
        result["optics"] = source["optics"][source["optics"]["rlnOpticsGroup"].isin(used)]
    as_cut = read_star(slabs / PARTICLES)
    mine = as_cut["particles"]["rlnImageName"].map(_image).map(numbers).isin(classes)
    return Kept(result, as_cut | {"particles": as_cut["particles"][mine]}, int(chosen.sum()), int(left_out.sum()))


def _image(name: str) -> str:
    """An image by number and file, whatever RELION made of its zeros and of the directory before it."""
    section, file = name.split("@", 1)
    return f"{int(section)}@{Path(file).name}"


def select_slabs(
    found: Classification, slabs: Path, selection: Selection, output: Path, with_not_judged: bool, inputs: list[str]
) -> int | None:
    """Write the particles that go on, what was decided, and the images of the kept classes.

    Parameters
    ----------
    found : Classification
    slabs : Path
        The job of slabs.
    selection : Selection
        The classes, judged.
    output : Path
        Gets ``particles.star``, ``slabs.star`` and ``classes.txt``; no particles while classes are waited for.
    with_not_judged : bool
        As for :func:`kept_particles`.
    inputs : list of str
        Files that were read, as the project calls them.

    Returns
    -------
    int or None
        How many particles go on.
    """
    output.mkdir(parents=True, exist_ok=True)
    text = as_text(selection, alike=False)
    index = read_index(slabs)
    numbers: dict[str, Any] = {"particles_in": len(index), "classes": as_records(selection)}
    numbers |= {"reason": selection.reason, "classes_job": f"Class2D/{found.job.name}"}
    kept = None
    left_out = int((index["image"] == "").sum())
    if selection.kept:
        kept = kept_particles(slabs, found.data, selection.kept, with_not_judged)
        count = len(kept.blocks["particles"])
        if count < 4:
            raise bad_output(output, f"only {count} particles are in the classes that are kept.")
        write_star(kept.blocks, output / "particles.star")
        write_star(kept.images, output / "slabs.star")
        numbers |= {"particles_out": count, "kept": kept.judged, "rejected": len(index) - left_out - kept.judged}
    numbers |= {"not_judged": left_out, "not_judged_go_on": with_not_judged}
    if left_out:
        text += f"{left_out} particles were not judged: {not_judged_text(with_not_judged)}\n"
    (output / "classes.txt").write_text(text)
    write_numbers(output, **numbers, inputs=inputs)
    return len(kept.blocks["particles"]) if kept else None


def not_judged_text(go_on: bool) -> str:
    """What became of those that are too near the border."""
    return f"too near the border of their tomograms, or without one. They {'go on' if go_on else 'are left out'}."
