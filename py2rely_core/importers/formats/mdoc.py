"""SerialEM's ``.mdoc``: sections with their own numbers, and what is said of all of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from py2rely_core.importers.text import Line, Word, read_lines
from py2rely_core.problems import Problem, ProblemError

KIND = "an .mdoc file"
_HEADING = re.compile(r"\[\s*(?:ZValue|FrameSet)\s*=(?P<value>[^\]]*)\]?")
#: How SerialEM and others write dates; one of them holds for a whole file.
DATES = (
    "%d-%b-%y %H:%M:%S",
    "%d-%b-%Y %H:%M:%S",
    "%Y-%b-%d %H:%M:%S",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M:%S.%f",
    "%Y-%m-%dT%H:%M:%S.%f",
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %I:%M:%S %p",
)


#: What programs put behind a tilt series' name for its .mdoc, in the order in which they are looked for.
ENDINGS = (".mdoc", ".mrc.mdoc", ".mrcs.mdoc", ".st.mdoc")


@dataclass(frozen=True)
class Section:
    """One image: its number, and its values by their keys."""

    number: int
    heading: Line
    values: dict[str, Line]

    def number_of(self, key: str, what: str, low: float, high: float) -> float | None:
        """A value; None where the section has no such key.

        Raises
        ------
        ProblemError
            It is no number, or not possible.
        """
        return self.values[key].number(f"{what} of section {self.number}", low, high) if key in self.values else None


@dataclass(frozen=True)
class Mdoc:
    """A whole file: what stands before its sections, and the sections in the order of their numbers."""

    path: Path
    header: dict[str, Line]
    sections: list[Section]

    def column(self, key: str, what: str, low: float, high: float) -> list[float] | None:
        """A value of every section; None when no section has it, or all are empty.

        Raises
        ------
        ProblemError
            Only some have it, or one is no possible number.
        """
        having = [section for section in self.sections if key in section.values and section.values[key].text]
        if not having:
            return None
        for section in self.sections:
            if key not in section.values:
                expected = f"{key} in every section, or in none"
                raise section.heading.error(f"Section {section.number} has no {key}.", expected)
        return [section.number_of(key, what, low, high) for section in self.sections]  # type: ignore[misc]

    def times(self) -> list[datetime] | None:
        """When each section was taken; None when none says so.

        Raises
        ------
        ProblemError
            Only some say so, or their dates are not written in one way.
        """
        having = [section for section in self.sections if "DateTime" in section.values]
        words = [section.values["DateTime"] for section in having]
        if not any(word.text for word in words):
            return None
        best = max(DATES, key=lambda form: sum(_date(word, form) is not None for word in words))
        for section in self.sections:
            word = section.values.get("DateTime")
            if word is None or _date(word, best) is None:
                seen = repr(word.text) if word else "none"
                what = f"Section {section.number} has no readable DateTime: {seen}."
                raise (word or section.heading).error(what, "a date and a time in every section, written alike")
        return [_date(word, best) for word in words]  # type: ignore[misc]


def _date(word: Word, form: str) -> datetime | None:
    try:
        return datetime.strptime(" ".join(word.text.split()), form)
    except ValueError:
        return None


def read_mdoc(path: Path) -> Mdoc:
    """Read an ``.mdoc`` file.

    Raises
    ------
    ProblemError
        It is none, or a section or a key of a section is there twice.
    """
    header: dict[str, Line] = {}
    sections: list[Section] = []
    values = header
    for line in read_lines(path, KIND):
        heading = _HEADING.match(line.text)
        if heading:
            number = Word(heading["value"].strip(), path, line.line).integer("the number of a section", 0, 10_000)
            values = {}
            sections.append(Section(number, line, values))
        elif line.text.startswith("[") and not line.text.startswith("[T"):
            # A part of another kind, such as [MontSection = 0].
            values = {}
        elif "=" in line.text and not line.text.startswith("["):
            key = line.text.partition("=")[0].strip()
            if key in values:
                where = f"section {sections[-1].number}" if sections else "its head"
                what = f"{key} is there twice in {where}, before in line {values[key].line}."
                raise line.error(what, "each key once", "Look for a heading [ZValue = ...] that is missing above.")
            values[key] = line.after("=")
    if not sections:
        fix = "Give the .mdoc of this tilt series, or remove the file."
        raise ProblemError(Problem("It has no section [ZValue = ...].", str(path), KIND, fix))
    if "TiltAngle" in header:
        raise header["TiltAngle"].error("A tilt angle stands before the first section.", "[ZValue = 0] above it")
    found: dict[int, Section] = {}
    for section in sections:
        if section.number in found:
            what = f"Section {section.number} is there twice, before in line {found[section.number].heading.line}."
            raise section.heading.error(what, "each section once")
        found[section.number] = section
    return Mdoc(path, header, [found[number] for number in sorted(found)])
