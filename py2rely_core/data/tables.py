"""RELION's STAR files as data frames: reading with errors that name the cause, and finding the files they name."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd

from py2rely_core.data import kinds
from py2rely_core.data.text import read_text
from py2rely_core.problems import Problem, ProblemError

Blocks = dict[str, pd.DataFrame]

#: Columns that hold names: a tomogram called ``001`` must not become the number 1.
TEXT_LABELS = [
    "rlnTomoName",
    "rlnTomoTiltSeriesStarFile",
    "rlnMicrographName",
    "rlnMicrographNameEven",
    "rlnMicrographNameOdd",
    "rlnOpticsGroupName",
    "rlnImageName",
    "rlnTomoParticleName",
    "rlnTomoVisibleFrames",
    "rlnTomoTiltSeriesName",
    "rlnTomoImportParticleFile",
    "rlnTomoParticlesFile",
    "rlnTomoTomogramsFile",
    "rlnTomoTrajectoriesFile",
    "wrpSourceName",
    "rlnReferenceImage",
]
#: How a missing value is written.
MISSING = "<NA>"
#: Of columns whose numbers are all smaller, six decimals would hold too few digits.
SMALL = 0.01
#: So many rows are made text together: enough for speed, few for memory.
ROWS_AT_ONCE = 50_000
#: Lines that give a STAR file its structure; all others are rows, comments or blank.
_STRUCTURE = re.compile(
    r"^[ \t]*(?:(?P<block>data_.*?)[ \t]*|(?P<loop>loop_)[ \t]*(?:\#.*)?"
    r"|(?P<label>_[A-Za-z]\w*)(?P<rest>.*))$",
    re.MULTILINE,
)
#: After a label in a loop: nothing, or its number.
_LABEL_NUMBER = re.compile(r"\s*(?:#\s*(?P<number>\d+)?.*)?", re.DOTALL)
_NOT_A_VALUE = re.compile(r"#\s*\d+")
#: A comment begins a word: `#` within a name is a part of it, as is an apostrophe.
_COMMENT = re.compile(r"(?:^|(?<=\s))#[^\n]*", re.MULTILINE)
_SINGLE_QUOTED = re.compile(r"(?<!\S)'([^'\n]*)'(?!\S)")
#: What is left of single quotation marks that are not closed.
_OPEN = re.compile(r"(?<!\S)'")
_WORD = re.compile(r'"[^"\n]*"(?!\S)|\S+')
#: What does not read as one word, or begins what is none.
_NEEDS_QUOTES = re.compile(r"[\s\"]|^(?:['#_]|data_|loop_$)")
_HOLDS_ROWS = re.compile(r"^[ \t]*[^\s#]", re.MULTILINE)


def read_star(path: Path | str) -> Blocks:
    """Read every block of a STAR file.

    Parameters
    ----------
    path : Path
        The STAR file.

    Returns
    -------
    dict of str to DataFrame
        Block name to table; a block of single values becomes a table of one row.

    Raises
    ------
    ProblemError
        The file is missing, empty or not a STAR file, or a row has more or fewer values than there are labels.
    """
    path = Path(path)
    return {block.name: _table([block]) for block in _raw_blocks(path)}


def read_stars(paths: Iterable[Path]) -> dict[Path, Blocks | ProblemError]:
    """Read many STAR files, fast where they are alike.

    Files that hold one table with the same labels, as tilt series do, are parsed together: the cost per file is then
    that of its rows. All others are read one by one.

    Parameters
    ----------
    paths : iterable of Path
        STAR files.

    Returns
    -------
    dict of Path to (dict of str to DataFrame) or ProblemError
        What :func:`read_star` returns or raises for each, in the given order. A column that holds text in one of the
        files may hold text in those that were parsed with it.
    """
    found: dict[Path, Blocks | ProblemError] = {path: {} for path in paths}
    alike: dict[tuple[str, ...], list[_Block]] = defaultdict(list)
    for path in found:
        try:
            blocks = _raw_blocks(path)
        except ProblemError as error:
            found[path] = error
            continue
        if len(blocks) == 1 and blocks[0].is_loop and blocks[0].count:
            alike[blocks[0].labels].append(blocks[0])
            continue
        found[path] = _tables_or_error(blocks)
    for files in alike.values():
        found.update(_together(files))
    return found


def read_alike(path: Path, without: str = "general") -> tuple[list[str], np.ndarray, pd.DataFrame]:
    """All tables of a file as one, as of trajectories, of which there is one for every particle.

    Parameters
    ----------
    path : Path
    without : str
        A block that is none of them.

    Returns
    -------
    names : list of str
        Of the blocks that are tables.
    rows : (n,) int
        Of each of them.
    table : DataFrame
        Their rows, one after the other.

    Raises
    ------
    ProblemError
        The file cannot be read, or its tables have different labels.
    """
    blocks = [block for block in _raw_blocks(Path(path)) if block.is_loop and block.name != without]
    other = next((block for block in blocks if block.labels != blocks[0].labels), None)
    if other is not None:
        raise ProblemError(_unreadable(other.path, f"data_{other.name} has other labels", other.line))
    table = _table(blocks) if blocks else pd.DataFrame()
    return [block.name for block in blocks], np.array([block.count for block in blocks], dtype=int), table


def labels_of(path: Path) -> dict[str, tuple[str, ...]]:
    """The labels of every block of a STAR file, without its values."""
    return {block.name: block.labels for block in _raw_blocks(Path(path))}


@dataclass(frozen=True)
class _Block:
    """A block as it stands in its file: what its rows mean is not looked at yet."""

    path: Path
    name: str
    labels: tuple[str, ...]
    rows: str
    line: int
    is_loop: bool

    @cached_property
    def count(self) -> int:
        """Its rows."""
        return len(_HOLDS_ROWS.findall(self.rows))


def _raw_blocks(path: Path) -> list[_Block]:
    """The blocks of a STAR file, in its order, each of its own name."""
    if not path.is_file() and not path.is_dir():
        raise ProblemError(_missing(path))
    try:
        text = read_text(path, "a STAR file", largest=None)
    except ProblemError as error:
        raise _of_another_kind(path) or error from error
    found = list(_STRUCTURE.finditer(text))
    blocks: dict[str, _Block] = {}
    starts = [n for n, match in enumerate(found) if match["block"] is not None]
    line_of = _Lines(text)
    for n, following in zip(starts, [*starts[1:], len(found)][: len(starts)], strict=True):
        end = found[following].start() if following < len(found) else len(text)
        block = _block(path, text, found[n:following], end, line_of)
        if block.name in blocks:
            raise ProblemError(_unreadable(path, f"the block data_{block.name} is there twice", block.line))
        blocks[block.name] = block
    before = text[: found[starts[0]].start()] if starts else text
    if not starts or _HOLDS_ROWS.search(before):
        other = None if starts else _of_another_kind(path)
        if other:
            raise other
        reason = "there are values before its first data block" if starts else "it has no data block"
        raise ProblemError(_unreadable(path, reason))
    return list(blocks.values())


class _Lines:
    """The line, counted from 1, at a place of a text; fast where places are asked for one after the other."""

    def __init__(self, text: str) -> None:
        self.text, self.place, self.line = text, 0, 1

    def __call__(self, place: int) -> int:
        if place < self.place:
            self.place, self.line = 0, 1
        self.line += self.text.count("\n", self.place, place)
        self.place = place
        return self.line


def _of_another_kind(path: Path) -> ProblemError | None:
    """That a file is of a known kind that is no STAR file; None where it is not known, or empty."""
    kind = kinds.look(path)
    if kind is None or kind.is_star or kind is kinds.KINDS["empty"]:
        return None
    return ProblemError(kinds.problem_of(kind, path, "a STAR file"))


def row_line(path: Path, block: str, row: int) -> str:
    """Where a row (counted from 0) of a block's table stands: file and line; the file alone where it cannot be told."""
    try:
        found = next((one for one in _raw_blocks(Path(path)) if one.name == block and one.is_loop), None)
    except ProblemError:
        found = None
    lines = enumerate(found.rows.split("\n"), start=found.line) if found else ()
    rows = (number for number, line in lines if _HOLDS_ROWS.match(line))
    number = next((line for n, line in enumerate(rows) if n == row), None)
    return f"{path}, line {number}" if number else str(path)


def _block(path: Path, text: str, found: list[re.Match], end: int, line_of: _Lines) -> _Block:
    name, line = found[0]["block"][5:], line_of(found[0].start())

    def broken(reason: str, position: int) -> ProblemError:
        return ProblemError(_unreadable(path, reason, line_of(position)))

    if len(found) == 1 or found[1]["loop"] is None:
        outside = _HOLDS_ROWS.search(_without(text, found[1:], found[0].end(), end))
        if outside or any(match["loop"] for match in found):
            raise broken(f"the block data_{name} has rows, and no loop_ before its labels", found[0].start())
        return _Block(path, name, *_single_values(found[1:], broken), line, False)
    labels, numbers, place = [], [], found[1].end()
    for match in found[2:]:
        number = _LABEL_NUMBER.fullmatch(match["rest"] or "")
        if match["label"] is None or not number or _HOLDS_ROWS.search(text, place, match.start()):
            if match["label"] is not None and not number:
                break
            raise broken(f"there is {match[0].strip()!r} among the rows of data_{name}", match.start())
        if match["label"][1:] in labels:
            raise broken(f"the label {match['label']} is there twice", match.start())
        labels.append(match["label"][1:])
        numbers += [int(number["number"])] if number["number"] else []
        if len(numbers) > 1 and numbers[-1] < numbers[-2]:
            reason = f"{match[0].strip()} is column {len(labels)}, and comes after column {numbers[-2]}"
            raise broken(f"its labels contradict their own numbers: {reason}", match.start())
        place = match.end()
    rest = found[2 + len(labels) :]
    stray = next((match for match in rest if match["loop"] or _LABEL_NUMBER.fullmatch(match["rest"] or "")), None)
    if stray is not None:
        raise broken(f"there is {stray[0].strip()!r} among the rows of data_{name}", stray.start())
    if not labels:
        raise broken(f"the table of data_{name} has no labels", found[1].start())
    return _Block(path, name, tuple(labels), text[place:end], line_of(place), True)


def _without(text: str, found: list[re.Match], start: int, end: int) -> str:
    """Text between two places, without some lines."""
    edges = [start, *(edge for match in found for edge in match.span()), end]
    return "".join(text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True))


def _single_values(found: list[re.Match], broken: Callable[[str, int], ProblemError]) -> tuple[tuple[str, ...], str]:
    """Labels of a block of single values, and its values as a row."""
    labels, values = [], []
    for match in found:
        try:
            words = [] if _NOT_A_VALUE.fullmatch(match["rest"].strip()) else shlex.split(match["rest"], comments=True)
        except ValueError as error:
            raise broken(f"a quotation mark is not closed at {match['label']}", match.start()) from error
        if len(words) != 1:
            raise broken(f"the label {match['label']} has {len(words)} values instead of one", match.start())
        if match["label"][1:] in labels:
            raise broken(f"the label {match['label']} is there twice", match.start())
        labels.append(match["label"][1:])
        values.append(words[0])
    return tuple(labels), "\0".join(values)


def _table(blocks: list[_Block]) -> pd.DataFrame:
    """The rows of blocks with the same labels as one table."""
    first = blocks[0]
    if not first.is_loop:
        values = first.rows.split("\0") if first.labels else []
        row = {
            label: value if label in TEXT_LABELS else _number(value)
            for label, value in zip(first.labels, values, strict=True)
        }
        return pd.DataFrame([row] if row else [])
    if not any(_HOLDS_ROWS.search(block.rows) for block in blocks):
        return pd.DataFrame(np.zeros((0, len(first.labels))), columns=list(first.labels))
    text = {n: str for n, label in enumerate(first.labels) if label in TEXT_LABELS}
    rows = _as_read("\n".join(block.rows for block in blocks))
    if _OPEN.search(rows):
        for block in blocks:
            _refuse_other_widths(block)
    try:
        table = pd.read_csv(
            io.StringIO(rows),
            delimiter=r"\s+", header=None, dtype=text, keep_default_na=False,
            na_values=["nan", "NaN", "<NA>"], engine="c",
        )  # fmt: skip
    except (ValueError, pd.errors.ParserError) as error:
        for block in blocks:
            _refuse_other_widths(block)
        raise ProblemError(_unreadable(first.path, str(error), first.line)) from error
    last = table.iloc[:, -1]
    if (
        table.shape[1] != len(first.labels)
        or last.isna().any()
        or (last.dtype.kind not in "iuf" and (last == "").any())
    ):
        # A row that is too short ends in what looks like nan or an empty text.
        for block in blocks:
            _refuse_other_widths(block)
    table.columns = list(first.labels)
    return table


def _as_read(rows: str) -> str:
    """Rows without comments, and with one kind of quotation marks."""
    rows = _COMMENT.sub("", rows) if "#" in rows else rows
    return _SINGLE_QUOTED.sub(r'"\1"', rows) if "'" in rows else rows


def _refuse_other_widths(block: _Block) -> None:
    """Name the first row that has not one value for each label."""
    for number, row in enumerate(block.rows.split("\n"), start=block.line):
        row = _as_read(row)
        if _OPEN.search(row) or row.count('"') % 2:
            raise ProblemError(_unreadable(block.path, "a quotation mark is not closed", number))
        count = len(_WORD.findall(row))
        if count and count != len(block.labels):
            reason = f"a row of data_{block.name} has {count} values for {len(block.labels)} labels"
            raise ProblemError(_unreadable(block.path, reason, number))


def _number(value: str) -> str | int | float:
    if "_" in value or not value.isascii():
        return value  # Python would take 1_2 for 12.
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(value)
    return value


def _tables_or_error(blocks: list[_Block]) -> Blocks | ProblemError:
    try:
        return {block.name: _table([block]) for block in blocks}
    except ProblemError as error:
        return error


def _together(blocks: list[_Block]) -> dict[Path, Blocks | ProblemError]:
    """The tables of files that hold one each, with the same labels."""
    try:
        table = _table(blocks)
    except ProblemError:
        table = pd.DataFrame()
    if len(table) != sum(block.count for block in blocks):
        return {block.path: _tables_or_error([block]) for block in blocks}
    result, start = {}, 0
    for block in blocks:
        result[block.path] = {block.name: table.iloc[start : start + block.count].reset_index(drop=True)}
        start += block.count
    return result


def _missing(path: Path) -> Problem:
    if path.is_symlink():
        what, fix = "A STAR file is a link to a file that is gone.", "Copy the file here, or make the link anew."
        return Problem(what, f"{path} -> {path.readlink()}", "an existing file", fix)
    return Problem("A STAR file is missing.", str(path), "an existing file", "Correct the path.")


def _unreadable(path: Path, reason: str, line: int | None = None) -> Problem:
    return Problem(
        f"A STAR file cannot be read: {reason}.",
        f"{path}, line {line}" if line else str(path),
        "a STAR file with data blocks",
        "Look at the file; write it again with the program that made it.",
    )


def write_star(blocks: Blocks, path: Path) -> None:
    """Write blocks to a new STAR file; its directory is made when it is missing.

    Numbers have six decimals, as RELION writes them: what was read is written as it was, however often. The shortest
    text that is read as the same number takes twice the time for a file that is half as long again, and needs a reader
    that is three times slower. A column whose largest number is small has twelve digits instead.

    Parameters
    ----------
    blocks : dict of str to DataFrame
    path : Path

    Raises
    ------
    ProblemError
        A text cannot stand in a STAR file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = ["# Written by py2rely\n"]
    for name, table in blocks.items():
        labels = "".join(f"_{label} #{number}\n" for number, label in enumerate(table.columns, 1))
        parts += [f"\n\ndata_{name}\n\nloop_\n{labels}", *text_rows(table, partial(_word, path=path))]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines([*parts, "\n"])


def text_rows(
    table: pd.DataFrame, word: Callable[[object], str], separator: str = "\t", missing: str = MISSING
) -> Iterator[str]:
    """Rows of a table as text, many at once; numbers as :func:`write_star` writes them.

    Parameters
    ----------
    table : DataFrame
    word : callable
        How a value that is no number is written.
    separator : str
        Between values.
    missing : str
        For values that are not there.
    """
    columns = [_as_written(table.iloc[:, number], word, missing) for number in range(table.shape[1])]
    form = separator.join(form for form, _ in columns) + "\n"
    for start in range(0, len(table) if columns else 0, ROWS_AT_ONCE):
        parts = (values[start : start + ROWS_AT_ONCE].tolist() for _, values in columns)
        yield "".join([form % row for row in zip(*parts, strict=True)])


def _as_written(column: pd.Series, word: Callable[[object], str], missing: str) -> tuple[str, np.ndarray]:
    """The format of a column's values, and the values, (n,)."""
    values = column.to_numpy()
    if values.dtype.kind in "iu":
        return "%d", values
    if values.dtype.kind == "f":
        gone = np.isnan(values)
        form = "%.12g" if 0 < np.abs(values[~gone]).max(initial=0) < SMALL else "%.6f"
        if not gone.any():
            return form, values
        return "%s", np.array([missing if value != value else form % value for value in values.tolist()], dtype=object)
    codes, unique = pd.factorize(column)
    return "%s", np.array([*map(word, unique), missing], dtype=object)[codes]


def _word(value: object, path: Path) -> str:
    """A value as one word of a STAR file."""
    text = str(value)
    if text and not _NEEDS_QUOTES.search(text):
        return text
    if '"' in text or "\n" in text or "\r" in text:
        what = f"The text {text!r} cannot be written: a STAR file has no sign for what is in it."
        fix = "Rename it: without quotation marks, and on one line."
        raise ProblemError(Problem(what, str(path), "a name without these", fix))
    return f'"{text}"'


def candidates(name: str, star_file: Path, project: Path) -> list[Path]:
    """Where a file named in a STAR file may be.

    RELION resolves such names from the project directory; many files are moved together with what they name,
    so the STAR file's own directory, and those above it, are tried after that.

    Parameters
    ----------
    name : str
        Path as written in the STAR file, absolute or relative.
    star_file : Path
        Absolute path of the STAR file.
    project : Path
        Absolute path of the project directory (where the run was launched).

    Returns
    -------
    list of Path
        Absolute paths, in the order in which they are tried.
    """
    if Path(name).is_absolute():
        return [Path(name)]
    return [root / name for root in (project, star_file.parent, *list(star_file.parent.parents)[:2])]


def resolve(name: str, star_file: Path, project: Path) -> Path:
    """The first candidate that exists, or the first one when none does."""
    paths = candidates(name, star_file, project)
    return next((path for path in paths if path.is_file()), paths[0])


def split_image_name(name: str) -> tuple[int, str]:
    """Split ``3@stack.mrcs`` into the section (counted from 1) and the file; a plain name is section 1."""
    section, at, file = str(name).partition("@")
    return (int(section), file) if at and section.isdigit() else (1, str(name))
