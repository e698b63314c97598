"""Whether classes are told apart by their images: each particle is given to averages that hold none of its noise.

A particle is like its own class's map also where the classes mean nothing, as its own noise is in that map. So each
class is averaged within each half set, and each particle is compared with the averages of the *other* half set, in the
orientation and at the place that it has. Where two classes are two structures, particles go where they came from; where
they are one structure, they go to either, whichever class they came from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.problems import ProblemError
from py2rely_core.relion.outputs.job import bad_output, write_numbers

#: A class with fewer particles in a half set has no average there, and is not tested.
LEAST = 5
#: Particles of a class and half set that are looked at, drawn at random.
MOST = 2000
#: Two classes are told apart where so large a share of either's particles go where they came from (chance: a half) ...
APART = 0.6
#: ... and chance would do so in less than one of a hundred tries.
CHANCE = 0.01


@dataclass(frozen=True)
class Votes:
    """To which class's average particles go.

    Attributes
    ----------
    classes : tuple of int
        The classes that were tested.
    counts : (n, n) int
        Particles by the class that they are in (rows), and that whose average they are most like (columns).
    """

    classes: tuple[int, ...]
    counts: np.ndarray

    def apart(self, first: int, second: int) -> float | None:
        """Of the particles of two classes that go to either of them, the share that goes where it came from.

        The mean of both classes' shares: 0.5 by chance; None where one was not tested, or has no such particles.
        """
        table = self._of_two(first, second)
        return None if table is None else float((table.diagonal() / table.sum(axis=1)).mean())

    def told_apart(self, first: int, second: int) -> bool | None:
        """Whether two classes are told apart, by :data:`APART` and :data:`CHANCE` (Fisher's exact test)."""
        from scipy.stats import fisher_exact

        share, table = self.apart(first, second), self._of_two(first, second)
        if share is None or table is None:
            return None
        return bool(share >= APART and fisher_exact(table, alternative="greater").pvalue < CHANCE)

    def _of_two(self, first: int, second: int) -> np.ndarray | None:
        if not {first, second} <= set(self.classes):
            return None
        places = [self.classes.index(first), self.classes.index(second)]
        table = self.counts[np.ix_(places, places)]
        return table if table.sum(axis=1).all() else None

    @property
    def groups(self) -> list[list[int]]:
        """The classes in groups: within one, each has another that it is not told apart from."""
        groups: list[list[int]] = []
        for number in self.classes:
            alike = [group for group in groups if any(not self.told_apart(number, other) for other in group)]
            joined = sorted([number, *(other for group in alike for other in group)])
            groups = [*(group for group in groups if group not in alike), joined]
        return sorted(groups)

    @property
    def text(self) -> str:
        """What comes of it, as one says it."""
        if len(self.classes) < 2:
            return f"Classes were not tested by their images: fewer than two have {LEAST} particles in either half set."
        if len(self.groups) == 1:
            return "By their images, no class is told apart from the others."
        shown = " | ".join(", ".join(map(str, group)) for group in self.groups)
        return f"By their images, {len(self.groups)} groups of classes are told apart: {shown}."


def split_classes(job: Path, classification: Path, low_pass: float) -> None:
    """Write the particles of each class and half set, each half set's particles, and the averages they are given to.

    Parameters
    ----------
    job : Path
        Gets ``classNNN_halfH.star``, ``halfH.star``, ``referencesH.star`` with the averages of the other half set that
        ``relion_refine`` will have made as ``run_classNNN_halfH``, and ``settings.sh``: their names (`averages`),
        the `halves`, the `number` of classes, and `low_pass`.
    classification : Path
        A Class3D job.
    low_pass : float
        To which images are compared, Angstrom.
    """
    blocks = read_star(classification / "run_data.star")
    table = blocks["particles"]
    numbers = table["rlnClassNumber"].astype(int)
    halves = table["rlnRandomSubset"].astype(int) if "rlnRandomSubset" in table else pd.Series(0, index=table.index)
    counts = pd.crosstab(numbers, halves).reindex(columns=[1, 2], fill_value=0)
    tested = [int(number) for number in counts.index[(counts >= LEAST).all(axis=1)]]
    rng = np.random.default_rng(0)
    job.mkdir(parents=True, exist_ok=True)
    averages = []
    for half in (1, 2) if len(tested) > 1 else ():
        drawn = []
        for number in tested:
            rows = np.flatnonzero((numbers == number) & (halves == half))
            drawn.append(table.iloc[np.sort(rng.permutation(rows)[:MOST])])
            averages.append(f"class{number:03d}_half{half}")
            write_star(blocks | {"particles": drawn[-1]}, job / f"{averages[-1]}.star")
        write_star(blocks | {"particles": pd.concat(drawn)}, job / f"half{half}.star")
        others = [str(job / f"run_class{number:03d}_half{3 - half}_it001_class001.mrc") for number in tested]
        write_star({"": pd.DataFrame({"rlnReferenceImage": others})}, job / f"references{half}.star")
    settings = {"averages": " ".join(averages), "halves": "1 2" if averages else "", "number": len(tested)}
    lines = [f"{name}='{value}'" for name, value in (settings | {"low_pass": f"{low_pass:g}"}).items()]
    (job / "settings.sh").write_text("\n".join(lines) + "\n")
    (job / "tested.json").write_text(json.dumps(tested))


def check_class_test(job: Path) -> None:
    """Note how many particles of each class went to which class's average, particle by particle in ``votes.star``.

    What the test left besides is removed. Where RELION failed in it, nothing is known, and a warning says so.
    """
    tested = json.loads((job / "tested.json").read_text())
    found = {half: job / f"run_half{half}_it001_data.star" for half in (1, 2)}
    noted: dict[str, Any] = {"classes": tested, "counts": []}
    if len(tested) < 2:
        noted["text"] = Votes(tuple(tested), np.zeros((0, 0))).text
    elif not all(path.is_file() for path in found.values()):
        text = f"Classes were not tested by their images: relion_refine failed, see {job}/run.err."
        noted |= {"text": text, "warnings": [text]}
    else:
        table = pd.concat([_voted(job, half, path, tested) for half, path in found.items()], ignore_index=True)
        write_star({"particles": table}, job / "votes.star")
        counts = pd.crosstab(table["rlnClassNumber"], table["py2relyClassVoted"])
        counts = counts.reindex(index=tested, columns=tested, fill_value=0)
        noted |= {"counts": counts.to_numpy().tolist(), "text": Votes(tuple(tested), counts.to_numpy()).text}
    for path in (*job.glob("*half?*"), *job.glob("references?.star"), job / "tested.json", job / "settings.sh"):
        path.unlink(missing_ok=True)
    write_numbers(job, **noted)


def _voted(job: Path, half: int, path: Path, tested: list[int]) -> pd.DataFrame:
    """A half set's particles: their names, their classes, and those whose averages they are most like."""
    try:
        found, given = read_star(path)["particles"], read_star(job / f"half{half}.star")["particles"]
    except ProblemError as error:
        raise bad_output(job, f"{path.name} cannot be read: {error}") from error
    names = "rlnTomoParticleName"
    voted = found.set_index(names)["rlnClassNumber"].astype(int).reindex(given[names])
    if voted.isna().any():
        raise bad_output(job, f"{path.name} lacks {voted.isna().sum()} of {len(given)} particles.")
    classes = given["rlnClassNumber"].astype(int).to_numpy()
    return pd.DataFrame(
        {names: given[names].to_numpy(), "rlnRandomSubset": half, "rlnClassNumber": classes,
         "py2relyClassVoted": np.array(tested)[voted.to_numpy(dtype=int) - 1]}
    )  # fmt: skip


def read_votes(job: Path) -> Votes | None:
    """What :func:`check_class_test` noted; None where nothing is known."""
    path = job / "job.json"
    noted = json.loads(path.read_text()) if path.is_file() else {}
    return Votes(tuple(noted["classes"]), np.array(noted["counts"])) if noted.get("counts") else None
