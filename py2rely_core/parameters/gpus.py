"""GPU numbers, as a user lists them."""

from __future__ import annotations

import re

from py2rely_core.problems import Problem


def gpu_names(text: object) -> tuple[str, ...]:
    """GPU numbers of a list such as ``0,1`` or ``0:1``; of ``none``, none."""
    words = re.split("[:,]", "" if text in (None, "none") else str(text))
    return tuple(word.strip() for word in words if word.strip())


def gpu_problems(gpus: object) -> list[Problem]:
    """What is wrong with ``--gpus``."""
    names = gpu_names(gpus)
    if len(set(names)) == len(names) and all(name.isdigit() for name in names):
        return []
    what = f"--gpus {gpus} is not a list of different GPU numbers."
    return [Problem(what, "--gpus", "numbers such as 0 or 0,1,2,3", "Correct the list.")]
