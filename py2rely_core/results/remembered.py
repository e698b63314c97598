"""What was made of a file, for as long as the file stays the same: who looks again and again reads only what is new."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TypeVar

Value = TypeVar("Value")


def remembered(function: Callable[[Path], Value]) -> Callable[[Path], Value]:
    """Call a function of a file once for each state of the file; a file that is not there is asked for every time.

    Who gets a value must not change it: the next one gets the same.
    """
    known: dict[Path, tuple[tuple[int, int, int], Value]] = {}

    @wraps(function)
    def call(path: Path) -> Value:
        try:
            found = path.stat()
        except OSError:
            return function(path)
        state = (found.st_mtime_ns, found.st_size, found.st_ino)
        last = known.get(path)
        if last is None or last[0] != state:
            last = known[path] = (state, function(path))
        return last[1]

    return call
