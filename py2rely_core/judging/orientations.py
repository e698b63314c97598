"""Whether a particle's orientation follows from its images: each half of its tilts is searched alone.

Half maps agree also where all orientations are wrong: particles that were aligned to one reference take its features
into both half sets ("Einstein from noise", Henderson 2013, doi:10.1073/pnas.1314449110), and at low resolution the
particle's outline is common to any mixture of orientations. So this does not ask the maps. The tilts of each particle
are divided into two parts whose noise is independent, and each part is searched globally against the map of the *other*
half set, which has none of the particle's noise. Where the images determine the orientation, both parts find the same
one; where they do not, both find the same one no more often than the parts of two different particles do.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from math import radians
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from py2rely_core.data.geometry import orientations
from py2rely_core.data.symmetry import angles_between, main_axis, rotations_of
from py2rely_core.data.tables import read_star, write_star
from py2rely_core.judging.tilt_parts import LEAST_IMAGES, doses_of, read_halved, write_halved
from py2rely_core.relion.outputs.job import write_numbers

#: Of the search, before oversampling: 15 degrees, and the step that oversampling makes of it.
HEALPIX_ORDER, STEP = 2, 7.5
#: So many poses of the first pass are looked at with half the step: only the best one is asked for.
MOST_LIKELY = 100
#: Orientations within two steps of the search are the same one.
SAME = 2 * STEP
#: Share of particles that are determined, beyond chance, from which on the orientations are consistent; below the
#: second one, or where chance would do as well in one of a hundred tries, they are not determined.
CONSISTENT, UNDETERMINED, CHANCE = 0.5, 0.15, 0.01
#: Pairs of different particles that tell what chance does.
PAIRS = 20_000
#: Rotations around a particle's axis that tell what chance does where only the axis is determined.
TURNS = 100
_NAMES = {"consistent": "Orientations are consistent", "partly": "Orientations are consistent in part"}


def finest_useful(diameter: float) -> float:
    """The resolution, Angstrom, beyond which a search with this step gains nothing.

    Half a step away from the true orientation, what is finer than the arc at the particle's edge is out of phase.
    """
    return radians(STEP) * diameter / 2


def write_parts(job: Path, particles: Path, tomograms: Path, most: int) -> None:
    """Write each half set's particles twice, each time with one part of its images.

    Parameters
    ----------
    job : Path
        Gets ``half1.star`` and ``half2.star``, and ``images/`` that they name.
    particles, tomograms : Path
        Refined particles of 2D stacks, and their tilt series.
    most : int
        Particles that are looked at, drawn at random, as many of either half set.
    """
    blocks = read_star(particles)
    table = blocks["particles"]
    rng = np.random.default_rng(0)
    doses = doses_of(tomograms)
    for half in (1, 2):
        rows = np.flatnonzero(table["rlnRandomSubset"].to_numpy() == half)
        drawn = table.iloc[np.sort(rng.permutation(rows)[: max(1, most // 2)])]
        write_halved(blocks, drawn, doses, job / f"half{half}.star")


@dataclass(frozen=True)
class Consistency:
    """How far the orientations from either part of the tilts are apart.

    Attributes
    ----------
    apart : (n,) float
        Of each particle, degrees, in the point group.
    by_chance : (m,) float
        The same for parts of different particles.
    same_axis : int or None
        Particles of which both parts find the same axis of the point group; None where it has not just one.
    same_turn : int
        Those of them that also have the same rotation around it, within a quarter of its period and ``SAME``.
    by_turning : float
        The share of these that would be so if the rotation around the axis were left to chance.
    """

    apart: np.ndarray
    by_chance: np.ndarray
    same_axis: int | None = None
    same_turn: int = 0
    by_turning: float = 0.0

    @property
    def judged(self) -> int:
        """Particles."""
        return len(self.apart)

    @property
    def within(self) -> int:
        """Particles of which both parts find the same orientation."""
        return int((self.apart <= SAME).sum())

    @property
    def chance(self) -> float:
        """The share that chance would have of these."""
        return float((self.by_chance <= SAME).mean())

    @property
    def share(self) -> float:
        """Share of particles whose orientation is determined by a part of the images, beyond chance; 0 to 1.

        In a group such as D7 half of the particles have the same orientation already where only the axis is determined:
        so of those with the same axis, too, it counts what is beyond chance.
        """
        share = _beyond(self.within / self.judged, self.chance)
        return share * _beyond(self.same_turn / self.same_axis, self.by_turning) if self.same_axis else share

    @property
    def only_axis(self) -> bool:
        """Whether the rotation around the axis may be chance, as of a particle that is a cylinder to these images."""
        from scipy.stats import binomtest

        if not self.same_axis:
            return False
        luck = binomtest(self.same_turn, self.same_axis, self.by_turning, alternative="greater").pvalue
        return bool(luck > CHANCE or _beyond(self.same_turn / self.same_axis, self.by_turning) < UNDETERMINED)

    @property
    def judgement(self) -> str:
        """``consistent``, ``partly`` or ``not determined``."""
        from scipy.stats import binomtest

        luck = binomtest(self.within, self.judged, self.chance, alternative="greater").pvalue
        if luck > CHANCE or self.share < UNDETERMINED or self.only_axis:
            return "not determined"
        return "consistent" if self.share >= CONSISTENT else "partly"

    @property
    def text(self) -> str:
        """The verdict as one says it."""
        found = (
            f"{self.within} of {self.judged} particles have the same orientation within {SAME:g} degrees when either "
            f"half of their tilts is searched alone; by chance it would be {self.chance * self.judged:.0f}"
        )
        if self.same_axis and self.only_axis and self.same_axis >= CONSISTENT * self.judged:
            found += (
                f". {self.same_axis} have the same axis, and {self.same_turn} of these the same rotation around it, as "
                f"they would by chance ({self.by_turning * self.same_axis:.0f})"
            )
        if self.judgement == "not determined":
            return f"Orientations are not determined: do not interpret this map. {found}."
        return f"{_NAMES[self.judgement]}: {found}."


def _beyond(share: float, chance: float) -> float:
    """What of a share is beyond chance, 0 to 1."""
    return float(np.clip((share - chance) / (1 - chance), 0, 1))


def consistency(first: np.ndarray, second: np.ndarray, halves: np.ndarray, group: str) -> Consistency:
    """Compare the orientations that both parts of the images gave.

    Parameters
    ----------
    first, second : (n, 3, 3) float
        Orientations of each particle.
    halves : (n,) int
        Half set of each: chance is told within one, whose particles were searched against the same map.
    group : str
        Point group.
    """
    operators = rotations_of(group).as_matrix()
    rng = np.random.default_rng(0)
    by_chance = []
    for half in np.unique(halves):
        rows = np.flatnonzero(halves == half)
        a, b = (one.ravel() for one in np.meshgrid(rows, rows))
        others = np.flatnonzero(a != b)
        drawn = rng.permutation(others)[: PAIRS // 2]
        by_chance.append(angles_between(first[a[drawn]], second[b[drawn]], operators))
    found = Consistency(angles_between(first, second, operators), np.concatenate(by_chance))
    quarter = 360 / main_axis(group) / 4
    return _around_axis(found, first, second, operators, min(SAME, quarter)) if STEP <= quarter < 90 else found


def _around_axis(
    found: Consistency, first: np.ndarray, second: np.ndarray, operators: np.ndarray, limit: float
) -> Consistency:
    """With what chance does where only the axis, z, is determined; `limit` in degrees."""
    from scipy.spatial.transform import Rotation

    up = operators[:, 2, 2][None] * (first[:, :, 2] * second[:, :, 2]).sum(axis=1)[:, None]
    same = np.flatnonzero(up.max(axis=1) >= np.cos(np.radians(SAME)))
    if not len(same):
        return found
    angles = np.random.default_rng(0).uniform(0, 360, (TURNS * len(same), 1))
    turns = Rotation.from_euler("z", angles, degrees=True)
    turned = np.tile(second[same], (TURNS, 1, 1)) @ turns.as_matrix()
    by_turning = angles_between(np.tile(first[same], (TURNS, 1, 1)), turned, operators) <= limit
    same_turn = int((found.apart[same] <= limit).sum())
    return replace(found, same_axis=len(same), same_turn=same_turn, by_turning=float(by_turning.mean()))


def check_orientations(job: Path, group: str) -> None:
    """Note how consistent the orientations are, particle by particle in ``orientations.star``.

    Parameters
    ----------
    job : Path
        Holds ``run_half1_it001_data.star`` and ``run_half2_it001_data.star``; what the search left is removed.
    group : str
        Point group.
    """
    searched = {half: job / f"run_half{half}_it001_data.star" for half in (1, 2)}
    if not all(path.is_file() for path in searched.values()):
        numbers = _untested(f"relion_refine failed, see {job}/run.err")
    else:
        table = pd.concat([_parts_found(job, path, half) for half, path in searched.items()], ignore_index=True)
        numbers = _judge(job, table, group) if len(table) else _untested(f"no particle has {LEAST_IMAGES} images")
    shutil.rmtree(job / "images", ignore_errors=True)
    for path in (*job.glob("*half?*"), *job.glob("job.star")):
        path.unlink()
    write_numbers(job, orientations=numbers, warnings=[] if numbers["judgement"] == "consistent" else [numbers["text"]])


def _untested(why: str) -> dict[str, str]:
    return {"judgement": "not tested", "text": f"Orientations were not tested: {why}."}


def _judge(job: Path, table: pd.DataFrame, group: str) -> dict[str, Any]:
    first, second = (
        orientations(table.filter(like=ending).rename(columns=lambda name: name[:-2])) for ending in ("_0", "_1")
    )
    found = consistency(first, second, table["rlnRandomSubset"].to_numpy(), group)
    table["py2relyAnglesApart"] = found.apart.round(3)
    write_star({"particles": table}, job / "orientations.star")
    edges = np.arange(0, 181, 5)
    return {
        "judgement": found.judgement,
        "text": found.text,
        "judged": found.judged,
        "within": found.within,
        "degrees": SAME,
        "chance": round(found.chance, 5),
        "share": round(found.share, 4),
        "same_axis": found.same_axis,
        "same_turn": found.same_turn if found.same_axis is not None else None,
        "median": round(float(np.median(found.apart)), 2),
        "chance_median": round(float(np.median(found.by_chance)), 2),
        "edges": edges.tolist(),
        "counts": np.histogram(found.apart, edges)[0].tolist(),
        "expected": (np.histogram(found.by_chance, edges)[0] / len(found.by_chance) * found.judged).round(3).tolist(),
    }


def _parts_found(job: Path, path: Path, half: int) -> pd.DataFrame:
    """The particles of a half set, a row each, with the angles of both parts (``..._0``, ``..._1``)."""
    found = read_halved(
        job, path, lambda name: name.startswith(("rlnAngle", "rlnTomoSubtomogram")) and "Prior" not in name
    )
    return found.assign(rlnRandomSubset=half)
