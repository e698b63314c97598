"""One classification out of several with different numbers of classes, side by side: the rule that chooses.

Each is judged by itself (:mod:`py2rely_core.judging.selection`). One *decides* when it would leave particles out. The
rule trusts what does not depend on the number of classes: where more than half of the classifications decide, and
every two of these keep the same particles, up to :data:`SAME`, the one with the fewest classes counts. Otherwise it
cannot choose, and all particles are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from py2rely_core.data.tables import Blocks, read_star
from py2rely_core.judging.selection import Selection

#: Particles that two classifications both keep, as a share of those that either keeps, from which on they agree.
SAME = 0.9


@dataclass(frozen=True)
class Judged:
    """A classification with its own verdict.

    Attributes
    ----------
    job : Path
        The Class3D job.
    selection : Selection
    blocks : dict
        Of its particles, ``run_data.star``.
    """

    job: Path
    selection: Selection
    blocks: Blocks

    @property
    def number(self) -> int:
        """How many classes it has."""
        return len(self.selection.classes)

    @property
    def names(self) -> frozenset[str]:
        """The particles that it would keep."""
        table = self.blocks["particles"]
        kept = table["rlnClassNumber"].astype(int).isin(self.selection.kept)
        return frozenset(table["rlnImageName"][kept].astype(str))

    @property
    def decides(self) -> bool:
        return len(self.names) < len(self.blocks["particles"])


def read_judged(job: Path, selection: Selection) -> Judged:
    """A classification's particles beside its verdict."""
    return Judged(job, selection, read_star(job / "run_data.star"))


def choose_number(judged: list[Judged]) -> tuple[Judged | None, str]:
    """The classification that counts, or None where the rule cannot choose; and why, in one sentence."""
    ordered = sorted(judged, key=lambda one: one.number)
    deciding = [one for one in ordered if one.decides]
    if 2 * len(deciding) <= len(ordered):
        numbers = ", ".join(str(one.number) for one in deciding) or "none"
        return None, f"of {len(ordered)} numbers of classes too few leave particles out ({numbers})."
    for one, other in combinations(deciding, 2):
        same = alike(one.names, other.names)
        if same < SAME:
            what = f"{one.number} and {other.number} classes keep different particles ({same:.0%} in common)"
            return None, f"{what}: choose with --class_selection manual."
    numbers = ", ".join(str(one.number) for one in deciding)
    return deciding[0], f"{numbers} classes keep the same particles: the fewest count."


def alike(one: frozenset[str], other: frozenset[str]) -> float:
    """Particles in both sets, as a share of those in either."""
    return len(one & other) / max(len(one | other), 1)


def comparison(judged: list[Judged], chosen: Judged | None) -> list[dict[str, Any]]:
    """A row per classification, JSON-ready: what it found, and whether it counts."""
    rows = []
    for one in sorted(judged, key=lambda one: one.number):
        table = one.selection.classes
        resolution = table["resolution"].min()
        rows.append(
            {
                "classes": one.number,
                "job": f"Class3D/{one.job.name}",
                "resolution": float(resolution) if resolution == resolution else None,
                "shares": sorted((round(float(share), 4) for share in table["share"]), reverse=True),
                "kept": one.selection.kept,
                "particles_kept": len(one.names),
                "chosen": one is chosen,
                "reason": one.selection.reason,
            }
        )
    return rows


def comparison_text(rows: list[dict[str, Any]]) -> list[str]:
    """The rows of :func:`comparison` as lines for a terminal, a heading first."""
    lines = [f"{'classes':>7} {'best, A':>8} {'kept':>9}  {'counts':<6}  shares; verdict"]
    for row in rows:
        best = "-" if row["resolution"] is None else f"{row['resolution']:.1f}"
        shares = " ".join(f"{share:.0%}" for share in row["shares"])
        found = f"{row['classes']:>7} {best:>8} {row['particles_kept']:>9}  {'yes' if row['chosen'] else 'no':<6}"
        lines.append(f"{found}  {shares}; {row['reason']}")
    return lines
