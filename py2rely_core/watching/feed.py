"""What changed since a page was told last: a page gets that and nothing else."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from py2rely_core.watching.jobs import logs_of, tail
from py2rely_core.watching.pages import DONE, Pages, step_id
from py2rely_core.watching.sources import Key, Look

#: Seconds between two looks at the machine's load.
LOAD_SECONDS = 5.0


class Feed:
    """One page's view: all runs in short, one of them in full, and one of its jobs.

    Parameters
    ----------
    pages : Pages
        Makes the text.
    run : int or None
        The run that is open.
    key : (str, str) or None
        Its step that is open.
    log : str
        Which output of the step is followed.
    """

    def __init__(self, pages: Pages, run: int | None = None, key: Key | None = None, log: str = ""):
        self.pages, self.run, self.key, self.log = pages, run, key, log
        self._parts: dict[str, str] = {}
        self._marks: dict[str, Any] = {}
        self._looks: list[Look | None] = [None] * len(pages.sources)
        self._looked = float("-inf")

    def changes(self) -> dict[str, Any]:
        """What is new.

        Returns
        -------
        dict
            Empty when nothing is. ``parts``: text by the place where it belongs; ``stale``: what the page must ask for
            again, at first everything: "run", "summary", "job"; ``log``: the end of the output, as plain text;
            ``now``: seconds since the epoch.
        """
        looks = [source.look() for source in self.pages.sources]
        parts: dict[str, str] = {}
        stale: list[str] = []
        found: dict[str, Any] = {}
        for number, look in enumerate(looks):
            if self._looks[number] is not look:
                parts[f"card-{number}"] = self.pages.card(number)
        if time.monotonic() - self._looked > LOAD_SECONDS:
            self._looked = time.monotonic()
            parts["machine"] = self.pages.load()
        if self.run is not None:
            look = looks[self.run]
            if self._looks[self.run] is not look:
                chips = {step_id(key): self.pages.chip(self.run, step) for key, step in look.steps.items()}
                if not self._marks:
                    self._parts |= chips  # The page asks for all of them first.
                parts |= chips
                stale = [name for name, mark in self._open(look).items() if self._is_new(name, mark)]
            text = self._log(look)
            if text is not None:
                found["log"] = text
        self._looks = looks
        new = {name: text for name, text in parts.items() if self._parts.get(name) != text}
        self._parts |= new
        found |= {"parts": new} if new else {}
        found |= {"stale": stale} if stale else {}
        return found | {"now": time.time()} if found else {}

    def _open(self, look: Look) -> dict[str, Any]:
        """What tells that a part of the page is out of date."""
        states = [step.state in DONE for step in look.steps.values()]
        marks: dict[str, Any] = {
            "run": (tuple(look.steps), tuple(map(tuple, look.inputs.values())), look.run["state"]),
            "summary": sum(states),
        }
        step = look.steps.get(self.key) if self.key else None
        if step:
            marks["job"] = (step.state, (step.progress or {}).get("iteration"), bool(step.directory))
        return marks

    def _is_new(self, name: str, mark: Any) -> bool:
        changed = name not in self._marks or self._marks[name] != mark
        self._marks[name] = mark
        return changed

    def _log(self, look: Look) -> str | None:
        """The end of the output that is followed, when it changed."""
        step = look.steps.get(self.key) if self.key else None
        if step is None:
            return None
        logs = logs_of(self.pages.sources[self.run or 0], step)
        path: Path | None = logs.get(self.log) or next(iter(logs.values()), None)
        try:
            found = path.stat() if path else None
            mark = (path, found.st_mtime_ns, found.st_size) if found else None
            if self._marks.get("log", ()) == mark:
                return None
            self._marks["log"] = mark
            return tail(path) if path else ""
        except OSError:
            return None  # It was taken away between two calls.
