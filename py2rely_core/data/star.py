"""The STAR format itself: text to data frames and back, by the parser and the writer of pandas.

What is read follows the field's ``starfile``; unlike there, a row that is short, or a block with neither labels nor
values, is an error with its line, not a row of missing values.
"""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Collection
from pathlib import Path

import pandas as pd

#: What stands for a number that is not there.
MISSING = ["nan", "NaN", "<NA>"]
_BLOCK = re.compile(rb"^[ \t]*data_(\S*)[^\n]*(?:\n|\Z)", re.MULTILINE)
_LOOP = re.compile(rb"(?:[ \t]*(?:#[^\n]*)?\r?\n)*[ \t]*loop_[ \t]*\r?\n(?P<labels>(?:[ \t]*_[^\n]*(?:\n|\Z))+)")
_COMMENT = re.compile(rb"(?:^|(?<=\s))#[^\n]*", re.MULTILINE)
_SINGLE_QUOTED = re.compile(rb"(?<!\S)'([^'\n]*)'(?!\S)")


def parse(path: Path, text_labels: Collection[str] = ()) -> dict[str, pd.DataFrame]:
    """Every block of a file; a block of single values is a table of one row.

    Parameters
    ----------
    path : Path
        The file.
    text_labels : collection of str
        Columns that hold text, whatever it looks like.

    Raises
    ------
    ValueError
        The file is not text, or a block is no table.
    """
    text = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    starts = list(_BLOCK.finditer(text))
    ends = [*(match.start() for match in starts[1:]), len(text)]
    blocks = {}
    for match, end in zip(starts, ends, strict=False):
        first_line = text.count(b"\n", 0, match.end()) + 1
        name = match[1].decode()
        try:
            blocks[name] = _block(text[match.end() : end], text_labels, first_line)
        except ValueError as error:
            raise ValueError(f"block data_{name}: {error}") from error
    return blocks


def _block(body: bytes, text_labels: Collection[str], first_line: int) -> pd.DataFrame:
    loop = _LOOP.match(body)
    if not loop:
        return _values(body.decode(), text_labels, first_line)
    labels = [line.split()[0][1:].decode() for line in loop["labels"].splitlines()]
    return _loop(body[loop.end() :], labels, text_labels, first_line + body.count(b"\n", 0, loop.end()))


def _values(body: str, text_labels: Collection[str], first_line: int) -> pd.DataFrame:
    """A block of labels with one value each."""
    found: dict[str, object] = {}
    for number, line in enumerate(body.splitlines(), start=first_line):
        if not line.strip().startswith("_"):
            continue
        words = shlex.split(line)
        words = words[: next((n for n, word in enumerate(words) if word.startswith("#")), None)]
        if len(words) != 2:
            raise ValueError(f"line {number} has {len(words)} words where a label and its value are expected")
        label = words[0][1:]
        found[label] = words[1] if label in text_labels else _number_or_text(words[1])
    if not found:
        raise ValueError(f"it has neither a table nor values (line {first_line})")
    return pd.DataFrame([found])


def _number_or_text(word: str) -> object:
    for kind in (int, float):
        try:
            return kind(word if "_" not in word else "no number")
        except ValueError:
            continue
    return word


def _loop(rows: bytes, labels: list[str], text_labels: Collection[str], first_line: int) -> pd.DataFrame:
    """The rows of a table."""
    if b"#" in rows:
        rows = _COMMENT.sub(b"", rows)
    if b"'" in rows:
        rows = _SINGLE_QUOTED.sub(rb'"\1"', rows)
    if not rows.strip():
        return pd.DataFrame({label: pd.Series(dtype=float) for label in labels})
    text = {number: str for number, label in enumerate(labels) if label in text_labels}
    table = pd.read_csv(
        io.BytesIO(rows), sep=r"\s+", header=None, dtype=text, na_values=MISSING, keep_default_na=False,
        low_memory=False,
    )  # fmt: skip
    if table.shape[1] != len(labels):
        raise ValueError(f"it has {len(labels)} labels, and {table.shape[1]} values in a row")
    last = table.iloc[:, -1]
    if (last.isna() | (last == "")).any():
        _no_short_row(rows, len(labels), first_line)
    table.columns = labels
    return table


def _no_short_row(rows: bytes, count: int, first_line: int) -> None:
    """A missing last value is one that the row says, and not a row that ends early."""
    for number, line in enumerate(rows.decode().splitlines(), start=first_line):
        words = len(shlex.split(line)) if '"' in line else len(line.split())
        if 0 < words < count:
            raise ValueError(f"line {number} has {words} values for {count} labels")


def write(blocks: dict[str, pd.DataFrame], path: Path) -> None:
    """Write tables to a file, with six digits after the point; texts with blanks, and empty ones, are quoted."""
    with path.open("w") as file:
        file.write("# Written by py2rely-nf\n\n\n")
        for name, table in blocks.items():
            labels = "".join(f"_{label} #{number}\n" for number, label in enumerate(table.columns, start=1))
            file.write(f"data_{name}\n\nloop_\n{labels}")
            texts = [label for label in table if _is_text(table[label])]
            quoted = table.assign(**{label: table[label].map(_quoted) for label in texts})
            quoted.to_csv(file, sep="\t", header=False, index=False, float_format="%.6f", na_rep="<NA>", quoting=3)
            file.write("\n\n")


def _is_text(column: pd.Series) -> bool:
    return not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column))


def _quoted(value: object) -> object:
    return f'"{value}"' if isinstance(value, str) and (" " in value or not value) else value
