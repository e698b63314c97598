"""IMOD's ``.xf``, ``.tlt``, ``.xtilt``, ``.defocus`` and command files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from py2rely_core.importers.text import Line, Word, read_lines, read_numbers
from py2rely_core.problems import Problem, ProblemError

#: Bits of the first number of a .defocus file (IMOD's ctfphaseflip).
ASTIGMATISM, AXIS_IN_RADIANS, PHASE, PHASE_IN_RADIANS, ANGLES_INVERTED, CUT_ON = 1, 2, 4, 8, 16, 32
#: Defocus beyond the first is none, nm; where most views have more than the second, the numbers are Angstrom.
LARGEST_DEFOCUS, LARGEST_USUAL = 3e4, 1.5e4
_VIEWS = re.compile(r"\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*")


@dataclass(frozen=True)
class Command:
    """An etomo command file: its lines by their keyword, in capitals; a keyword may have several."""

    path: Path
    lines: dict[str, list[Line]]

    def last(self, key: str) -> Line | None:
        """What follows a keyword that stands once; None where it is not there.

        Raises
        ------
        ProblemError
            It is there several times, with different values.
        """
        found = self.lines.get(key, [])
        if len({" ".join(line.text.split()) for line in found}) > 1:
            what = f"{key} is there twice: {found[0].text!r} in line {found[0].line}, and {found[-1].text!r}."
            raise found[-1].error(what, "one value")
        return found[-1] if found else None

    def numbers(self, key: str, least: int, most: int, low: float = -1e6, high: float = 1e6) -> list[float] | None:
        """The numbers after a keyword; None where it is not there.

        Raises
        ------
        ProblemError
            There are fewer or more, or one is no possible number.
        """
        line = self.last(key)
        if line is None:
            return None
        # Numbers are separated by blanks, or by a comma and blanks; 1,0 for one number is a decimal comma.
        words = line.words if most == 1 else line.fields()
        if not least <= len(words) <= most:
            expected = f"{least}" if least == most else f"{least} to {most}"
            raise line.error(f"{key} has {len(words)} values: {line.text!r}.", f"{expected} after {key}")
        return [word.number(f"the value of {key}", low, high) for word in words]

    def views(self, *keys: str) -> set[int]:
        """All views that the lines of some keywords list."""
        return {view for key in keys for line in self.lines.get(key, []) for view in views_of(line, key)}


def read_com(path: Path) -> Command:
    """Read an etomo command file.

    Raises
    ------
    ProblemError
        It is no text.
    """
    lines: dict[str, list[Line]] = {}
    for line in read_lines(path, "an etomo command file"):
        if line.text[0] not in "$#":
            key, _, rest = line.text.replace("\t", " ").partition(" ")
            lines.setdefault(key.upper(), []).append(Line(rest.strip().lstrip("= "), path, line.line))
    return Command(path, lines)


def views_of(line: Word, what: str) -> set[int]:
    """Views of a list such as ``1-3,7`` or ``1 - 3, 7 9``.

    Raises
    ------
    ProblemError
        It is no such list.
    """
    text = re.sub(r"\s*-\s*", "-", line.text.strip())
    text = re.sub(r"[\s,]+", ",", text.strip(", "))
    if not _VIEWS.fullmatch(text):
        raise line.error(f"{line.text!r} is no list of views ({what}).", "views and ranges, such as 1-3,7")
    views: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if high < low or high > 100_000:
            raise line.error(f"{part!r} is no range of views ({what}).", "the lower view first")
        views |= set(range(low, high + 1))
    return views


def read_transforms(path: Path, count: int) -> pd.DataFrame:
    """The rows of an ``.xf`` file, one per section: A11 A12 A21 A22 DX DY."""
    table = read_numbers(path, "an IMOD .xf file", ("A11", "A12", "A21", "A22", "DX", "DY"))
    _refuse_other_count(table, path, count, "lines of 6 numbers")
    return table


def read_angles(path: Path, count: int, kind: str) -> pd.Series:
    """Angles of a ``.tlt``, ``.rawtlt`` or ``.xtilt`` file, one per section, degrees.

    Raises
    ------
    ProblemError
        It has other numbers of lines or columns, or an angle is not possible.
    """
    lines = read_lines(path, kind)
    if not lines:
        raise ProblemError(Problem("The file is empty.", str(path), f"{count} angles", "Write it again with IMOD."))
    width = len(lines[0].words)
    if len(lines) == 1 and width == count > 1:
        fix = "Write one angle per line."
        raise ProblemError(Problem("All angles are on one line.", lines[0].where, f"{count} lines", fix))
    if width > 1 and all(len(line.words) == width for line in lines):
        what = f"It has {width} columns; the others may be the dose or the order."
        fix = f"Leave only the angles in it, and put angle, order of acquisition and dose into {path.stem}_TLT.txt."
        raise ProblemError(Problem(what, str(path), "one angle per line", fix))
    table = pd.Series(
        {line.line: _only(line).number(f"a tilt angle of {kind}", -90, 90) for line in lines}, name="angle"
    )
    _refuse_other_count(table, path, count, "lines of 1 number")
    return table


def _only(line: Line) -> Word:
    if len(line.words) != 1:
        raise line.error(f"The line has {len(line.words)} values.", "one angle per line")
    return line.words[0]


def _refuse_other_count(table: pd.DataFrame | pd.Series, path: Path, count: int, of: str) -> None:
    if len(table) != count:
        what = f"It has {len(table)} lines for the {count} sections of the stack."
        raise ProblemError(Problem(what, str(path), f"{count} {of}", "Use the files of one alignment of this stack."))


@dataclass(frozen=True)
class DefocusRow:
    """One fit of a ``.defocus`` file: the views and angles that it is of, and RELION's values."""

    views: tuple[int, int]
    angles: tuple[float, float]
    line: Line
    values: dict[str, float]


def read_defocus(path: Path) -> list[DefocusRow]:
    """The fits of an IMOD ``.defocus`` file, in the order of their views.

    Raises
    ------
    ProblemError
        It is no ``.defocus`` file.
    """
    try:
        lines = read_lines(path, "an IMOD .defocus file", "#")
        if not lines:
            raise ProblemError(Problem("It is empty.", str(path), "fits", ""))
        flags, first = 0, lines[0].words
        if len(first) >= 5 and first[1].number("a view") == 0:
            flags, lines = first[0].integer("the flags", 0, 63), lines[1:]
            extra = 0
        else:
            # Files without flags have the number of their version after the first fit.
            extra = int(len(first) == 6 and first[5].integer("the version of the file", 2, 2) == 2)
        width = 5 + 2 * bool(flags & ASTIGMATISM) + bool(flags & PHASE) + bool(flags & CUT_ON)
        rows = [_fit(line, flags, width + (extra if line is lines[0] else 0)) for line in lines]
        if not rows:
            raise ProblemError(Problem("It has no fits.", str(path), "fits", ""))
        _refuse_angstrom(rows, path)
    except ProblemError as error:
        fix = "Estimate the CTF with ctfplotter, or give a NAME_CTF.txt as ctffind writes it."
        problems = [
            Problem(
                f"The defocus file cannot be read: {one.what}", one.where, "an IMOD .defocus file, in nanometres", fix
            )
            for one in error.problems
        ]
        raise ProblemError(problems) from error
    return sorted(rows, key=lambda row: row.views)


def _refuse_angstrom(rows: list[DefocusRow], path: Path) -> None:
    """Fits are in nanometres."""
    values = np.array([max(row.values["rlnDefocusU"], row.values["rlnDefocusV"]) for row in rows]) / 10
    if np.median(values) > LARGEST_USUAL:
        what = f"the defocus is {np.median(values):g} nm in most fits, {np.median(values) / 1000:g} micrometres: "
        raise ProblemError(Problem(f"{what}its unit seems to be Angstrom.", str(path), "nanometres", ""))
    if values.max() > LARGEST_DEFOCUS:
        bad = int(values.argmax())
        what = f"'{values[bad]:g}' is not possible: a defocus (nm)."
        raise rows[bad].line.error(what, f"at most {LARGEST_DEFOCUS:g}")


def _fit(line: Line, flags: int, width: int) -> DefocusRow:
    words = line.words
    if len(words) != width:
        raise line.error(f"The line has {len(words)} values.", f"{width} values")
    views = words[0].integer("a view", 0, 1e5), words[1].integer("a view", 0, 1e5)
    sign = -1 if flags & ANGLES_INVERTED else 1
    angles = sign * words[2].number("an angle", -90, 90), sign * words[3].number("an angle", -90, 90)
    if views[0] > views[1]:
        raise line.error(f"Views {views[0]} to {views[1]} are no range.", "the lower view first")
    first = second = 10 * words[4].number("a defocus (nm)", 1e-3, 10 * LARGEST_DEFOCUS)
    axis, phase, rest = 0.0, 0.0, words[5:]
    if flags & ASTIGMATISM:
        second = 10 * rest[0].number("a defocus (nm)", 1e-3, 10 * LARGEST_DEFOCUS)
        axis, rest = rest[1].number("the angle of astigmatism", -720, 720), rest[2:]
        axis = float(np.degrees(axis)) if flags & AXIS_IN_RADIANS else axis
    if flags & PHASE:
        phase = rest[0].number("a phase shift", -720, 720)
        phase = float(np.degrees(phase)) if flags & PHASE_IN_RADIANS else phase
    values = {"rlnDefocusU": first, "rlnDefocusV": second, "rlnDefocusAngle": axis, "rlnPhaseShift": phase}
    return DefocusRow(views, angles, line, values)
