"""Files of other programs, broken in the ways in which files break: the same result, or a message.

A mutation is drawn by hypothesis, applied to one good file, and the importer runs on it. Three outcomes are right: the
result of the good file; a ``ProblemError`` that names a file; or, where the mutation takes away what may be away, a
result that the test's own rule allows. Another exception, or another result, is a defect.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from py2rely_core.problems import ProblemError

#: Inputs per test: some in CI, ``make fuzz`` tries many more.
EXAMPLES = int(os.environ.get("PY2RELY_FUZZ", "20"))
FUZZ = settings(
    max_examples=EXAMPLES, deadline=None, derandomize="PY2RELY_FUZZ" not in os.environ, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
#: They change the bytes and not the meaning.
HARMLESS = ("crlf", "cr", "bom", "utf-16", "utf-16-le", "blank line", "blanks at the end", "tabs")
LINES = ("drop", "double", "exchange", "truncate")
#: What becomes of a field.
FIELDS = {
    "empty": "", "minus": "-", "text": "abc", "nan": "nan", "inf": "-inf", "huge": "1e30", "long": "1567301525373.0",
    "stars": "******", "comma": "", "joined": "",
}  # fmt: skip
KINDS = (*HARMLESS, *LINES, *FIELDS, "empty file", "binary file")
_FIELD = re.compile(r"[^\s,=\[\]]+")
_DECIMAL = re.compile(r"(?<=\d)\.(?=\d)")


@dataclass(frozen=True)
class Mutation:
    """One way to break a file.

    Attributes
    ----------
    kind : str
        One of :data:`KINDS`.
    line, other : int
        Lines that hold anything, counted from 0, modulo their number.
    field : int
        Of the line, likewise.
    """

    kind: str
    line: int = 0
    other: int = 0
    field: int = 0

    @property
    def is_harmless(self) -> bool:
        return self.kind in HARMLESS

    def lines_of(self, text: str) -> tuple[str, str]:
        """The line that is changed, and the other one of an exchange."""
        full = [line for line in text.splitlines() if line.strip()]
        return full[self.line % len(full)], full[self.other % len(full)]

    def apply(self, text: str) -> bytes:
        """The broken file."""
        lines = text.splitlines()
        full = [n for n, line in enumerate(lines) if line.strip()]
        first, second = full[self.line % len(full)], full[self.other % len(full)]
        encoding, newline = "utf-8", "\n"
        if self.kind in ("crlf", "cr"):
            newline = {"crlf": "\r\n", "cr": "\r"}[self.kind]
        elif self.kind in ("bom", "utf-16", "utf-16-le"):
            encoding = {"bom": "utf-8-sig"}.get(self.kind, self.kind)
        elif self.kind == "blank line":
            lines.append("")
        elif self.kind == "blanks at the end":
            lines = [f"{line}  " for line in lines]
        elif self.kind == "tabs":
            lines = [re.sub(r"(?<=\S) +(?=\S)", "\t", line) for line in lines]
        elif self.kind == "drop":
            del lines[first]
        elif self.kind == "double":
            lines.insert(first, lines[first])
        elif self.kind == "exchange":
            lines[first], lines[second] = lines[second], lines[first]
        elif self.kind == "truncate":
            lines = lines[:first]
        elif self.kind == "empty file":
            lines = []
        elif self.kind == "binary file":
            return bytes(range(256)) * 8
        else:
            lines[first] = self._field(lines[first])
        return (newline.join(lines) + newline * bool(lines)).encode(encoding)

    def _field(self, line: str) -> str:
        found = list(_FIELD.finditer(line))
        if not found:
            return line
        match = found[self.field % len(found)]
        value = FIELDS[self.kind]
        if self.kind == "comma":
            value = _DECIMAL.sub(",", match[0])
        elif self.kind == "joined":
            value = f"{match[0]}-{match[0]}"
        return line[: match.start()] + value + line[match.end() :]


def mutations(kinds: Sequence[str] = KINDS) -> st.SearchStrategy[Mutation]:
    """Any mutation of the given kinds."""
    number = st.integers(0, 400)
    return st.builds(Mutation, st.sampled_from(list(kinds)), number, number, st.integers(0, 30))


def outcome(run: Callable[[], object], *files: Path) -> object | None:
    """What an importer gives; None when it refuses, with messages that say where and what to do.

    Parameters
    ----------
    run : callable
        The import; another exception than a ``ProblemError`` is not caught.
    files : Path
        A message names one of them, or a directory that holds one.
    """
    try:
        return run()
    except ProblemError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.what, problem
            assert problem.where, problem
            assert problem.fix, problem
            assert "nan" not in problem.what.lower().split(), problem
        if files:
            names = {name for file in files for name in (file.name, file.stem)}
            assert any(name in str(problem) for problem in error.problems for name in names), error
        return None
