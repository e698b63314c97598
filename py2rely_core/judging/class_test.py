"""Whether classes are told apart by their images: each half of a particle's tilts is given to a class alone.

A particle is like its own class's map also where the classes mean nothing: its own noise is in that map, and it was the
noise that chose the class. Any division of particles, of noise too, comes out again when the same images are asked. So
each class is averaged within each half set, and the tilts of each particle are divided into two parts whose noise is
independent. Either part is compared with the averages of the *other* half set, in the orientation and at the place that
the particle has. Where classes are different structures, both parts go to the same one; where they are one structure,
they do so by chance only.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.judging.tilt_parts import doses_of, read_halved, write_halved
from py2rely_core.relion.outputs.job import bad_output, write_numbers

#: A class with fewer particles in a half set has no average there, and is not tested.
LEAST = 5
#: Particles of a class and half set that are averaged, and that are given to the averages; drawn at random.
MOST_AVERAGED, MOST_ASKED = 2000, 100
#: Two classes are told apart where the parts agree in so much of what chance leaves (Cohen's kappa) ...
APART = 0.25
#: ... and chance would do so in less than one of a hundred tries: standard deviations, one-sided.
CHANCE = 2.33
#: From which on they are two structures whatever their maps say.
DISTINCT = 0.8
_ENDS = ("py2relyClass_0", "py2relyClass_1")


@dataclass(frozen=True)
class Votes:
    """To which class's average the parts of particles go.

    Attributes
    ----------
    classes : tuple of int
        The classes that were tested.
    counts : (2, n, n, n) int
        Particles by half set, by the class that they are in, and by the classes that both parts of their tilts go to.
    """

    classes: tuple[int, ...]
    counts: np.ndarray

    def apart(self, first: int, second: int) -> float | None:
        """How far both parts agree on which of two classes a particle belongs to: Cohen's kappa.

        Of the particles of both classes of which both parts go to either of them: 0 by chance, 1 where all agree.
        Chance is told within each half set, whose particles are compared with the same averages. None where a class was
        not tested, or none of its particles goes to either.
        """
        found = self._of_two(first, second)
        if found is None:
            return None
        agreed, expected = (sum(one) for one in zip(*(_agreement(table) for table in found), strict=True))
        total = found.sum()
        return float((agreed - expected) / (total - expected)) if total > expected else 0.0

    def deviations(self, first: int, second: int) -> float:
        """By how many standard deviations both parts agree more than by chance (Mantel and Haenszel 1959)."""
        found = self._of_two(first, second)
        if found is None:
            return 0.0
        off, variance = 0.0, 0.0
        for table in found:
            rows, columns, total = table.sum(axis=1), table.sum(axis=0), table.sum()
            if total > 1:
                off += table[0, 0] - rows[0] * columns[0] / total
                variance += rows.prod() * columns.prod() / (total**2 * (total - 1))
        return off / sqrt(variance) if variance else 0.0

    def told_apart(self, first: int, second: int) -> bool | None:
        """Whether two classes are told apart, by :data:`APART` and :data:`CHANCE`; None where it is not known."""
        share = self.apart(first, second)
        return None if share is None else bool(share >= APART and self.deviations(first, second) >= CHANCE)

    def distinct(self, first: int, second: int) -> bool:
        """Whether two classes are two structures whatever their maps say, by :data:`DISTINCT`."""
        return bool(self.told_apart(first, second) and (self.apart(first, second) or 0) >= DISTINCT)

    def alike(self, first: int, second: int) -> bool:
        """Whether nothing but chance tells two classes apart; not where it is not known."""
        return bool(self.apart(first, second) is not None and self.deviations(first, second) < CHANCE)

    def _of_two(self, first: int, second: int) -> np.ndarray | None:
        """Particles of two classes by half set and by where their parts go, (2, 2, 2)."""
        if not {first, second} <= set(self.classes):
            return None
        places = [self.classes.index(first), self.classes.index(second)]
        found = self.counts[np.ix_((0, 1), places, places, places)]
        return found.sum(axis=1) if found.sum(axis=(0, 2, 3)).all() else None

    @property
    def groups(self) -> list[list[int]]:
        """The classes in groups: within one, each has another that it is not told apart from."""
        groups: list[list[int]] = []
        for number in self.classes:
            joined = [group for group in groups if any(self.told_apart(number, other) is False for other in group)]
            together = sorted([number, *(other for group in joined for other in group)])
            groups = [*(group for group in groups if group not in joined), together]
        return sorted(groups)

    @property
    def text(self) -> str:
        """What comes of it, as one says it."""
        if len(self.classes) < 2:
            return f"Classes were not tested by their images: fewer than two have {LEAST} particles in either half set."
        pairs = [f"{a} from {b}" for a, b in combinations(self.classes, 2) if self.told_apart(a, b)]
        if not pairs:
            return "By their images, no class is told apart from another."
        groups = self.groups
        if len(groups) == 1:
            return f"By their images, classes are told apart ({', '.join(pairs)}), but do not fall into groups."
        shown = " | ".join(", ".join(map(str, group)) for group in groups)
        return f"By their images, {len(groups)} groups of classes are told apart: {shown}."


def _agreement(table: np.ndarray) -> tuple[float, float]:
    """Particles of which both parts agree, and how many would by chance; (2, 2) int."""
    total = table.sum()
    return float(np.trace(table)), float((table.sum(axis=0) * table.sum(axis=1)).sum() / total) if total else 0.0


def split_classes(job: Path, classification: Path, tomograms: Path, low_pass: float) -> None:
    """Write the particles of each class and half set, and each half set's particles with the parts of their tilts.

    Parameters
    ----------
    job : Path
        Gets ``classNNN_halfH.star``; ``halfH.star`` with its ``images/``; ``referencesH.star`` with the averages of the
        other half set, which ``relion_refine`` will have made as ``run_classNNN_halfH``; and ``settings.sh``: their
        names (`averages`), the `halves`, the `number` of classes, and `low_pass`.
    classification : Path
        A Class3D job of 2D stacks.
    tomograms : Path
        Their tilt series.
    low_pass : float
        To which images are compared, Angstrom.
    """
    blocks = read_star(classification / "run_data.star")
    table = blocks["particles"]
    numbers = table["rlnClassNumber"].astype(int)
    halves = table["rlnRandomSubset"].astype(int) if "rlnRandomSubset" in table else pd.Series(0, index=table.index)
    counts = pd.crosstab(numbers, halves).reindex(columns=[1, 2], fill_value=0)
    tested = [int(number) for number in counts.index[(counts >= LEAST).all(axis=1)]]
    rng, doses = np.random.default_rng(0), doses_of(tomograms)
    job.mkdir(parents=True, exist_ok=True)
    averages = []
    for half in (1, 2) if len(tested) > 1 else ():
        asked = []
        for number in tested:
            drawn = rng.permutation(np.flatnonzero((numbers == number) & (halves == half)))
            asked.append(table.iloc[np.sort(drawn[:MOST_ASKED])])
            averages.append(f"class{number:03d}_half{half}")
            averaged = table.iloc[np.sort(drawn[:MOST_AVERAGED])]
            write_star(blocks | {"particles": averaged}, job / f"{averages[-1]}.star")
        write_halved(blocks, pd.concat(asked), doses, job / f"half{half}.star")
        others = [str(job / f"run_class{number:03d}_half{3 - half}_it001_class001.mrc") for number in tested]
        write_star({"": pd.DataFrame({"rlnReferenceImage": others})}, job / f"references{half}.star")
    settings = {"averages": " ".join(averages), "halves": "1 2" if averages else "", "number": len(tested)}
    lines = [f"{name}='{value}'" for name, value in (settings | {"low_pass": f"{low_pass:g}"}).items()]
    (job / "settings.sh").write_text("\n".join(lines) + "\n")
    (job / "tested.json").write_text(json.dumps(tested))


def check_class_test(job: Path) -> None:
    """Note which averages both parts of the particles went to, particle by particle in ``votes.star``.

    What the test left besides is removed. Where RELION failed in it, nothing is known, and a warning says so.
    """
    tested = json.loads((job / "tested.json").read_text())
    found = {half: job / f"run_half{half}_it001_data.star" for half in (1, 2)}
    noted: dict[str, Any] = {"classes": tested, "counts": None}
    if len(tested) < 2:
        noted |= {"counts": [], "text": Votes(tuple(tested), np.zeros(0)).text}
    elif not all(path.is_file() for path in found.values()):
        text = f"Classes were not tested by their images: relion_refine failed, see {job}/run.err."
        noted |= {"text": text, "warnings": [text]}
    else:
        table = pd.concat([_voted(job, half, path, tested) for half, path in found.items()], ignore_index=True)
        write_star({"particles": table}, job / "votes.star")
        votes = Votes(tuple(tested), _counts(table, tested))
        noted |= {"counts": votes.counts.tolist(), "text": votes.text}
    shutil.rmtree(job / "images", ignore_errors=True)
    for path in (*job.glob("*half?*"), *job.glob("references?.star"), job / "tested.json", job / "settings.sh"):
        path.unlink(missing_ok=True)
    write_numbers(job, **noted)


def _voted(job: Path, half: int, path: Path, tested: list[int]) -> pd.DataFrame:
    """A half set's particles: their names, their classes, and those that either part of their tilts goes to."""
    was = read_halved(job, job / f"half{half}.star", lambda name: name == "rlnClassNumber")
    found = read_halved(job, path, lambda name: name == "rlnClassNumber")
    ends = found.set_index("rlnTomoParticleName").reindex(was["rlnTomoParticleName"])
    lost = ends.isna().any(axis=1).sum()
    if lost:
        raise bad_output(job, f"{path.name} lacks {lost} of {len(was)} particles.")
    both = np.array(tested)[ends[["rlnClassNumber_0", "rlnClassNumber_1"]].to_numpy(dtype=int) - 1]
    return was[["rlnTomoParticleName"]].assign(
        rlnRandomSubset=half,
        rlnClassNumber=was["rlnClassNumber_0"].astype(int),
        **dict(zip(_ENDS, both.T, strict=True)),
    )


def _counts(table: pd.DataFrame, tested: list[int]) -> np.ndarray:
    """Particles of ``votes.star`` as :class:`Votes` counts them."""
    counts = np.zeros((2, *[len(tested)] * 3), dtype=int)
    places = table[["rlnClassNumber", *_ENDS]].apply(lambda column: column.map(tested.index))
    np.add.at(counts, (table["rlnRandomSubset"] - 1, *places.to_numpy().T), 1)
    return counts


def read_votes(job: Path) -> Votes | None:
    """What :func:`check_class_test` noted; None where nothing is known."""
    path = job / "job.json"
    noted = json.loads(path.read_text()) if path.is_file() else {}
    return None if noted.get("counts") is None else Votes(tuple(noted["classes"]), np.array(noted["counts"]))
