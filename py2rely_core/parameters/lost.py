"""How many tilt series a run may lose: ``max_lost_tilt_series``."""

from __future__ import annotations

import os
import re
from typing import Any

from py2rely_core.problems import Problem

#: How many tilt series of a data set may be lost, as the run has it; set by the workflow for its tasks.
LIMIT = "PY2RELY_MAX_LOST_TILT_SERIES"
_LIMIT = re.compile(r"(\d+)|(\d+(?:\.\d+)?)\s*%")


def lost_limit(value: Any, total: int) -> int:
    """How many of `total` tilt series may be lost; a share is rounded down.

    Parameters
    ----------
    value : object
        A number such as 3, or a share such as ``10%``; None and what is neither allow none.
    total : int
        Tilt series of the data set.
    """
    found = _LIMIT.fullmatch(str(value).strip())
    if found is None:
        return 0
    return int(found[1]) if found[1] else int(float(found[2]) / 100 * total)


def may_lose() -> bool:
    """Whether a task of this run may go on without a tilt series."""
    return os.environ.get(LIMIT, "0") != "0"


def limit_problems(value: Any) -> list[Problem]:
    """What is wrong with the limit."""
    found = _LIMIT.fullmatch(str(0 if value is None else value).strip())
    if found and (found[1] or float(found[2]) <= 100):
        return []
    what, name = f"--max_lost_tilt_series {value} is neither a number nor a share.", "--max_lost_tilt_series"
    return [Problem(what, name, "a number such as 3, or a share such as 10%", "Correct it.")]
