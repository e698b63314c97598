"""Whether a step of polishing made the map better: every step is judged against the best map so far.

A map's quality is the corrected FSC of its half maps, within the same mask for all:

* its *resolution*, where the curve first falls below 0.143, counted in shells;
* its *area*, the sum of the curve, not below 0, from :data:`AREA_FROM` times the frequency of the best map's resolution
  to Nyquist, so that maps with the same resolution are no tie.

A step is *better* when its resolution is finer, or the same with an area larger by more than :data:`TOLERANCE`; *worse*
likewise; else *equal*. What is worse, or no map at all, is not built upon.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from py2rely_core.maps.fsc import first_crossing

#: The area begins at this multiple of the frequency of the best map's resolution.
AREA_FROM = 0.5
#: Relative change of the area that counts.
TOLERANCE = 0.002
THRESHOLD = 0.143


@dataclass(frozen=True)
class Curve:
    """A corrected FSC: resolutions (n,) in Angstrom, without shell 0, and correlations (n,)."""

    resolutions: np.ndarray
    values: np.ndarray

    @property
    def shell(self) -> int:
        """Last shell before the curve first falls below 0.143."""
        shells = np.arange(len(self.values) + 1, dtype=float)
        found = first_crossing(shells, np.concatenate([[1.0], self.values]), THRESHOLD)
        return len(self.values) if found is None else int(found)

    def area(self, first: int) -> float:
        """Sum of the curve from shell `first` to Nyquist."""
        return float(np.clip(np.nan_to_num(self.values[first - 1 :]), 0, None).sum())


@dataclass(frozen=True)
class Verdict:
    """A step judged: ``better``, ``equal`` or ``worse`` than the best so far; a step without a map is worse."""

    judgement: str
    why: str
    resolution: float | None = None
    area: float | None = None
    best_resolution: float | None = None
    best_area: float | None = None

    @property
    def accepted(self) -> bool:
        """Whether the next step builds upon this one."""
        return self.judgement != "worse"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"accepted": self.accepted}


def judge(candidate: Curve, best: Curve) -> Verdict:
    """Compare a step's FSC with the best so far; both have the same shells."""
    first = max(1, round(AREA_FROM * best.shell))
    areas, shells = (candidate.area(first), best.area(first)), (candidate.shell, best.shell)
    names = [float(one.resolutions[max(one.shell, 1) - 1]) for one in (candidate, best)]
    change = areas[0] / areas[1] - 1 if areas[1] > 0 else 0.0
    if shells[0] != shells[1]:
        judgement = "better" if shells[0] > shells[1] else "worse"
        why = f"{names[0]:.2f} A instead of {names[1]:.2f} A"
    else:
        judgement = "better" if change > TOLERANCE else "worse" if change < -TOLERANCE else "equal"
        why = f"{names[0]:.2f} A as before, area {change:+.2%}"
    return Verdict(judgement, why, names[0], round(areas[0], 4), names[1], round(areas[1], 4))


def best_step(steps: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The last step that was better than all before it; None when none was."""
    return next((step for step in reversed(steps) if step["judgement"] == "better"), None)
