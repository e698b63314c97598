"""Work on the images of a tilt series side by side."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def for_each(count: int, work: Callable[[int], None]) -> None:
    """Call ``work`` with each number below ``count``, in as many threads as this process may use CPUs.

    Each call must draw from random numbers of its own: then the number of threads changes no byte.
    """
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(work, range(count)))
