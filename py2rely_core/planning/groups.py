"""Into how many groups tilt series are cut, so that these run side by side."""

from __future__ import annotations

from math import ceil

#: Tilt series of one task, where nothing else is asked for.
TILT_SERIES_PER_TASK = 50


def number_of_groups(tilt_series: int, per_task: int | None = None) -> int:
    """Into how many groups tilt series are cut: 1 where they are few."""
    return max(1, ceil(tilt_series / int(per_task or TILT_SERIES_PER_TASK)))
