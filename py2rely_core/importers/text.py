"""The one way to read a foreign text file: every word knows its file and line, and is a number or a message."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from py2rely_core.data.text import LARGEST, read_text
from py2rely_core.problems import Problem, ProblemError

#: Beyond this no number of a tilt series or a particle lies.
LARGEST_NUMBER = 1e9
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?", re.ASCII)
_TOGETHER = re.compile(r"[+-]?\d*\.\d+[+-]\d*\.\d+.*", re.ASCII)


@dataclass(frozen=True)
class Word:
    """A piece of a foreign file, and where it stands.

    Attributes
    ----------
    text : str
        Without blanks around it.
    file : Path
    line : int
        Counted from 1.
    """

    text: str
    file: Path
    line: int

    @property
    def where(self) -> str:
        """File and line, as messages have them."""
        return place(self.file, self.line)

    def number(self, what: str, low: float = -LARGEST_NUMBER, high: float = LARGEST_NUMBER) -> float:
        """The word as a finite number.

        Parameters
        ----------
        what : str
            Its meaning, for messages: "a tilt angle".
        low, high : float
            The least and the largest value that is possible.

        Raises
        ------
        ProblemError
            It is no number (an empty word, ``nan``, a decimal comma), or outside of the limits.
        """
        if not _NUMBER.fullmatch(self.text):
            raise self.error(f"{self._shown} is not a number: {what}{_hint(self.text)}.", "a finite number")
        value = float(self.text)
        if not (math.isfinite(value) and low <= value <= high):
            raise self.error(f"{self._shown} is not possible: {what}.", _range(low, high))
        return value

    def integer(self, what: str, low: float = -LARGEST_NUMBER, high: float = LARGEST_NUMBER) -> int:
        """The word as a whole number; ``3.0`` is one. Parameters and errors are those of :meth:`number`."""
        value = self.number(what, low, high)
        if value != int(value):
            raise self.error(f"{self._shown} is not a whole number: {what}.", "a whole number")
        return int(value)

    def error(self, what: str, expected: str, fix: str = "Correct this line, or write the file again.") -> ProblemError:
        """A complaint about this word."""
        return ProblemError(Problem(what, self.where, expected, fix))

    @property
    def _shown(self) -> str:
        return repr(self.text) if len(self.text) <= 40 else f"{self.text[:40]!r}..."


@dataclass(frozen=True)
class Line(Word):
    """A line of a foreign file."""

    @cached_property
    def words(self) -> list[Word]:
        """Its words, between blanks."""
        return [Word(text, self.file, self.line) for text in self.text.split()]

    def fields(self, separators: str = r"[,\s]+") -> list[Word]:
        """Its words between any of the separators, a regular expression; none of an empty line."""
        return [Word(text.strip(), self.file, self.line) for text in re.split(separators, self.text) if text.strip()]

    def split(self, separator: str) -> list[Word]:
        """Its fields between one separator; an empty field is an empty word."""
        return [Word(text.strip(), self.file, self.line) for text in self.text.split(separator)]

    def after(self, separator: str) -> Line:
        """What follows a separator on this line."""
        return Line(self.text.partition(separator)[2].strip(), self.file, self.line)


def place(file: Path, line: int) -> str:
    """A file and one of its lines, as messages have them."""
    return f"{file}, line {line}"


def read_lines(path: Path, kind: str, comment: str | None = None, largest: int | None = LARGEST) -> list[Line]:
    """The lines of a foreign text file that hold anything.

    Parameters
    ----------
    path : Path
    kind : str
        What the file should be, with its article, for messages: "an IMOD .xf file".
    comment : str or None
        What begins a line that is left out; None leaves out none.
    largest : int or None
        Bytes above which it is no such file.

    Raises
    ------
    ProblemError
        See :func:`py2rely_core.data.text.read_text`.
    """
    found = []
    for number, text in enumerate(read_text(path, kind, largest).split("\n"), start=1):
        text = text.strip()
        if text and not (comment and text.startswith(comment)):
            found.append(Line(text, path, number))
    return found


def read_numbers(
    path: Path,
    kind: str,
    columns: Sequence[str],
    least: int | None = None,
    comment: str | None = "#",
    separators: str | None = None,
    header: Callable[[Line], bool] | None = None,
    largest: int | None = LARGEST,
) -> pd.DataFrame:
    """A table of numbers in a foreign file.

    Parameters
    ----------
    path : Path
    kind : str
        What the file should be, for messages.
    columns : sequence of str
        Names of all columns that it may have, in their order.
    least : int or None
        As many of them, at least, are there; None for all.
    comment : str or None
        What begins a line that is left out.
    separators : str or None
        Between values, a regular expression; None for blanks.
    header : callable or None
        Says of the first line whether it is one of names.
    largest : int or None
        Bytes above which it is no such file.

    Returns
    -------
    DataFrame
        A row per line, as float, of the first `k` columns, the same for all rows; its index is the line in the file.

    Raises
    ------
    ProblemError
        With file and line: a value that is no number, or a row that has too many or too few.
    """
    lines = read_lines(path, kind, comment, largest)
    if lines and header and header(lines[0]):
        lines = lines[1:]
    words = [line.words if separators is None else line.fields(separators) for line in lines]
    return numbers_of(path, kind, words, columns, least)


def numbers_of(
    path: Path, kind: str, rows: Iterable[Sequence[Word]], columns: Sequence[str], least: int | None = None
) -> pd.DataFrame:
    """Rows of words as the table that :func:`read_numbers` describes."""
    rows, least = list(rows), len(columns) if least is None else least
    if not rows:
        fix = "Write it again with the program that made it, or remove it if it is not meant."
        raise ProblemError(Problem("The file holds no values.", str(path), kind, fix))
    width = len(rows[0])
    for row in rows:
        if not least <= len(row) <= len(columns) or len(row) != width:
            expected = f"{least}" if least == len(columns) else f"{least} to {len(columns)}"
            expected += f" ({', '.join(columns)})" if least <= width <= len(columns) == width else f" in {kind}"
            what = f"The line has {len(row)} values" + (f", others have {width}." if row is not rows[0] else ".")
            raise row[0].error(what, f"{expected}, the same for every line")
    index = pd.Index([row[0].line for row in rows], name="line")
    try:
        values = np.array([[word.text for word in row] for row in rows], dtype=float)
        plain = bool((np.abs(values) <= LARGEST_NUMBER).all())
        plain &= all(word.text.isascii() and "_" not in word.text for row in rows for word in row)
    except ValueError:
        plain = False
    if not plain:
        # Slower, and it stops at the first word that is no number.
        values = np.array([[word.number(name) for word, name in zip(row, columns, strict=False)] for row in rows])
    return pd.DataFrame(values, index=index, columns=list(columns[:width]))


def _hint(text: str) -> str:
    if _COMMA.fullmatch(text):
        return " (a decimal comma; numbers have a point)"
    if "*" in text:
        return " (stars stand for a number that was too wide for its column)"
    if _TOGETHER.fullmatch(text):
        return " (two numbers run into one another)"
    return " (it is empty)" if not text else ""


def _range(low: float, high: float) -> str:
    if low <= -LARGEST_NUMBER and high >= LARGEST_NUMBER:
        return "a number of possible size"
    if high >= LARGEST_NUMBER:
        return f"at least {low:g}"
    return f"at most {high:g}" if low <= -LARGEST_NUMBER else f"{low:g} to {high:g}"
