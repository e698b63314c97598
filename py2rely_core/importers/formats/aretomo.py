"""AreTomo's ``.aln`` and CTF text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from py2rely_core.importers.text import Line, Word, numbers_of, place, read_lines, read_numbers
from py2rely_core.problems import Problem, ProblemError

GLOBAL_COLUMNS = ("SEC", "ROT", "GMAG", "TX", "TY", "SMEAN", "SFIT", "SCALE", "BASE", "TILT")
CTF_COLUMNS = ("number", "defocus 1", "defocus 2", "angle", "phase shift", "score", "resolution", "thickness")
#: Defocus beyond this is none, Angstrom.
LARGEST_DEFOCUS = 3e5
_KIND = "an AreTomo2 or AreTomo3 .aln file"


@dataclass
class Alignment:
    """An ``.aln`` file.

    Attributes
    ----------
    path : Path
    rows : DataFrame
        :data:`GLOBAL_COLUMNS` of the images that were kept, in the order of their tilt angles, which is AreTomo's own;
        ``SEC`` counted from 1, whatever the file has.
    dark : DataFrame
        ``frame`` (in the order of the tilt angles, from 0), ``SEC`` (from 1) and ``TILT`` (degrees, nan where the file
        has none) of the images that were left out.
    size : tuple of int
        Width, height and sections of the stack.
    first : int
        The number that the file gives to the first section: 0 or 1.
    offset : float
        What was added to all tilt angles, degrees.
    """

    path: Path
    rows: pd.DataFrame
    dark: pd.DataFrame
    size: tuple[int, int, int]
    first: int
    offset: float = 0.0

    @property
    def count(self) -> int:
        """Sections of the stack."""
        return self.size[2]

    def frames(self) -> np.ndarray:
        """Place of each row of the table among all images by their angle, from 0."""
        return np.setdiff1d(np.arange(self.count), self.dark["frame"])

    def by_angle(self) -> np.ndarray:
        """The sections, from 0, in the order of their tilt angles, (count,)."""
        order = np.empty(self.count, dtype=int)
        order[self.frames()] = self.rows["SEC"] - 1
        order[self.dark["frame"]] = self.dark["SEC"] - 1
        return order

    def nominal_of_dark(self) -> np.ndarray:
        """Angle of the stage of each dark section, (count,) degrees; nan for all others."""
        angles = np.full(self.count, np.nan)
        angles[self.dark["SEC"] - 1] = self.dark["TILT"]
        return angles

    def angles_of_all(self) -> np.ndarray:
        """Tilt angle of each section, (count,) degrees; those of dark frames in line with their neighbours."""
        angles, frames = self.angles(), self.frames()
        dark, where = self.dark["TILT"] + self.offset, self.dark["SEC"] - 1
        if len(frames) > 1 and not np.isfinite(dark).all():
            slope, start = np.polyfit(frames, self.rows["TILT"], 1)
            dark = self.dark["frame"] * slope + start
        angles[where] = dark
        return angles

    def angles(self) -> np.ndarray:
        """Tilt angle of each section as aligned, (count,) degrees; nan where the file does not say."""
        angles = np.full(self.count, np.nan)
        angles[self.rows["SEC"] - 1] = self.rows["TILT"]
        return angles


def read_aln(path: Path) -> Alignment:
    """Read an AreTomo alignment; only its global part, as RELION has no local one.

    Raises
    ------
    ProblemError
        It is no ``.aln`` file, or its sections cannot be told.
    """
    size, dark, rows, offset = None, [], [], 0.0
    for line in read_lines(path, _KIND):
        comment = " ".join(line.text.lstrip("#").split())
        if line.text.startswith("#") and comment.startswith("Local Alignment"):
            break
        if not line.text.startswith("#"):
            rows.append(line)
        elif "=" in line.text:
            key, values = comment.partition("=")[0].strip(), line.after("=").words
            if key == "RawSize":
                if size is not None:
                    raise line.error("RawSize is there twice.", "RawSize once")
                size = _sizes(line, values)
            elif key == "AlphaOffset" and values:
                offset = values[0].number("the offset of the tilt angles", -90, 90)
            elif key == "DarkFrame":
                dark.append(_dark(line, values))
    if not rows or size is None:
        raise ProblemError(_no_aln(path, "RawSize or the table after '# SEC' is missing"))
    words = [line.words for line in rows]
    if len({len(row) for row in words}) == 1:
        words = [row[: len(GLOBAL_COLUMNS)] for row in words]
    table = numbers_of(path, _KIND, words, GLOBAL_COLUMNS)
    for label, limit in (("TILT", 90.0), ("ROT", 360.0), ("TX", size[0] * 2.0), ("TY", size[1] * 2.0)):
        beyond = table[label].abs() > limit
        if beyond.any():
            line = int(beyond.idxmax())
            reason = f"it has tilt angles or shifts that are not possible, {label} = {table[label][line]:g}"
            raise ProblemError(_no_aln(path, reason, line))
    sections = [Word(f"{value:g}", path, int(line)).integer("a section", 0) for line, value in table["SEC"].items()]
    table = table.assign(SEC=sections)
    left_out = pd.DataFrame(dark, columns=("frame", "SEC", "TILT")).astype({"frame": int, "SEC": int, "TILT": float})
    aln = _counted_from_one(path, table, left_out, size)
    aln.offset = offset
    return aln


def _sizes(line: Line, values: list[Word]) -> tuple[int, int, int]:
    if len(values) != 3:
        raise line.error(f"RawSize has {len(values)} values.", "width, height and number of sections")
    return tuple(value.integer("a size of the stack", 1, 100_000) for value in values)  # type: ignore[return-value]


def _dark(line: Line, values: list[Word]) -> tuple[int, int, float]:
    if not 2 <= len(values) <= 3:
        raise line.error(f"DarkFrame has {len(values)} values.", "place, section and tilt angle")
    tilt = values[2].number("the tilt angle of a dark frame", -90, 90) if len(values) > 2 else np.nan
    return values[0].integer("the place of a dark frame", 0), values[1].integer("the section of a dark frame", 0), tilt


def _no_aln(path: Path, reason: str, line: int | None = None) -> Problem:
    fix = "Look at the file; align the tilt series again."
    where = place(path, line) if line else str(path)
    return Problem(f"An AreTomo alignment cannot be read: {reason}.", where, _KIND, fix)


def _counted_from_one(path: Path, table: pd.DataFrame, dark: pd.DataFrame, size: tuple[int, int, int]) -> Alignment:
    """Tell from the file whether its sections are counted from 0 (AreTomo, AreTomo2) or from 1 (AreTomo3)."""
    count = size[2]
    if len(set(dark["frame"])) != len(dark) or not dark["frame"].between(0, count - 1).all():
        raise ProblemError(_no_aln(path, "places of its dark frames are there twice or beyond the stack"))
    for first, of_dark in ((0, 0), (1, 1), (1, 0)):
        # The last is AreTomo3: the table counts from 1 and the dark frames from 0.
        sections = sorted([*(table["SEC"] - first), *(dark["SEC"] - of_dark)])
        if sections == list(range(count)):
            break
    else:
        what = f"The sections of its table and dark frames are not the {count} of RawSize, from 0 or from 1."
        fix = "Align the tilt series again; RawSize, DarkFrame and the table must belong together."
        raise ProblemError(Problem(what, str(path), "every section once", fix))
    table = table.assign(SEC=table["SEC"] + 1 - first).sort_values(["TILT", "SEC"], kind="stable")
    dark = dark.assign(SEC=dark["SEC"] + 1 - of_dark)
    return Alignment(path, table.reset_index(drop=True), dark, size, first)


def read_ctf(path: Path) -> pd.DataFrame:
    """CTF values by their own number: RELION's labels, with the number as the index, in the order of numbers.

    Raises
    ------
    ProblemError
        It is no CTF text, a number is there twice, or a defocus is not possible.
    """
    try:
        table = read_numbers(path, "a CTF text file of AreTomo or ctffind", CTF_COLUMNS, least=4)
    except ProblemError as error:
        fix = "Let AreTomo estimate the CTF again, or copy the file again."
        problems = [
            Problem(f"The CTF values cannot be read: {one.what}", one.where, one.expected, fix)
            for one in error.problems
        ]
        raise ProblemError(problems) from error
    numbers = [Word(f"{value:g}", path, int(line)).integer("the number of an image", 0) for line, value in
               table["number"].items()]  # fmt: skip
    twice = pd.Series(numbers, index=table.index).duplicated()
    if twice.any():
        line = int(twice.idxmax())
        what = f"The CTF values of image {table['number'][line]:.0f} are there twice."
        raise ProblemError(Problem(what, place(path, line), "each image once", "Estimate the CTF again."))
    defocus = table[["defocus 1", "defocus 2"]]
    bad = ((defocus <= 0) | (defocus > LARGEST_DEFOCUS)).any(axis=1)
    if bad.any():
        line = int(bad.idxmax())
        what = f"A defocus of {defocus.loc[line].iloc[0]:.0f}, {defocus.loc[line].iloc[1]:.0f} A is not possible."
        expected = f"0 to {LARGEST_DEFOCUS:.0f} A"
        raise ProblemError(Problem(what, place(path, line), expected, "Estimate the CTF again."))
    for label, limit in (("angle", 720.0), ("phase shift", 10.0), ("score", 10.0), ("resolution", 1e5)):
        beyond = table.get(label, pd.Series(dtype=float)).abs() > limit
        if beyond.any():
            line = int(beyond.idxmax())
            what = f"A value of {table[label][line]:g} is not possible: the {label} of a CTF."
            raise ProblemError(Problem(what, place(path, line), f"at most {limit:g}", "Estimate the CTF again."))
    values = {
        "rlnDefocusU": table["defocus 1"],
        "rlnDefocusV": table["defocus 2"],
        "rlnDefocusAngle": table["angle"],
        "rlnPhaseShift": np.degrees(table["phase shift"]) if "phase shift" in table else 0.0,
    }
    if "resolution" in table:
        values |= {"rlnCtfFigureOfMerit": table["score"], "rlnCtfMaxResolution": table["resolution"]}
    return pd.DataFrame(values, index=table.index).set_axis(numbers).sort_index()
