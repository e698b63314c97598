"""RELION's STAR files as data frames: reading with errors that name the cause, and finding the files they name."""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from py2rely_core.data import star
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
    "rlnReferenceImage",
]
#: A file with one table: comments, the block, its labels, its rows.
_SINGLE_LOOP = re.compile(
    r"(?:\s*#[^\n]*\n|\s*\n)*data_(?P<name>\S*)\s+loop_\s*\n(?P<labels>(?:_\S+[^\n]*\n)+)(?P<rows>.*)", re.DOTALL
)
#: What makes a table's rows more than rows.
_NEW_BLOCK = re.compile(r"^\s*(?:data_|loop_|_|#)|['\"#]", re.MULTILINE)


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
        The file is missing, empty or not a STAR file.
    """
    path = Path(path)
    if not path.is_file():
        raise ProblemError(_missing(path))
    try:
        blocks = star.parse(path, TEXT_LABELS)
    except (OSError, ValueError) as error:
        raise ProblemError(_unreadable(path, str(error))) from error
    if not blocks:
        raise ProblemError(_unreadable(path, "it has no data block"))
    return blocks


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
    alike: dict[tuple[str, ...], list[tuple[Path, str, list[str]]]] = defaultdict(list)
    for path in found:
        loop = _single_loop(path)
        if loop:
            labels, name, rows = loop
            alike[labels].append((path, name, rows))
    for labels, files in alike.items():
        if len(files) > 1:
            found.update(_read_together(labels, files))
    return {path: blocks or _read_or_error(path) for path, blocks in found.items()}


def _read_or_error(path: Path) -> Blocks | ProblemError:
    try:
        return read_star(path)
    except ProblemError as error:
        return error


def _single_loop(path: Path) -> tuple[tuple[str, ...], str, list[str]] | None:
    """Labels, block name and rows of a file with one table and nothing else; None for any other file."""
    try:
        match = _SINGLE_LOOP.fullmatch(path.read_text())
    except (OSError, ValueError):
        return None
    if not match or _NEW_BLOCK.search(match["rows"]):
        return None
    rows = [row for row in match["rows"].splitlines() if row.strip()]
    labels = tuple(line.split()[0] for line in match["labels"].splitlines())
    return (labels, match["name"], rows) if rows else None


def _read_together(labels: tuple[str, ...], files: list[tuple[Path, str, list[str]]]) -> dict[Path, Blocks]:
    with tempfile.NamedTemporaryFile("w", suffix=".star") as file:
        file.write("data_\n\nloop_\n" + "".join(f"{label}\n" for label in labels))
        file.writelines(f"{row}\n" for _, _, rows in files for row in rows)
        file.flush()
        try:
            table = read_star(file.name)[""]
        except ProblemError:
            return {}
    if len(table) != sum(len(rows) for _, _, rows in files):
        return {}
    result, start = {}, 0
    for path, name, rows in files:
        result[path] = {name: table.iloc[start : start + len(rows)].reset_index(drop=True)}
        start += len(rows)
    return result


def _missing(path: Path) -> Problem:
    if path.is_symlink():
        what, fix = "A STAR file is a link to a file that is gone.", "Copy the file here, or make the link anew."
        return Problem(what, f"{path} -> {path.readlink()}", "an existing file", fix)
    return Problem("A STAR file is missing.", str(path), "an existing file", "Correct the path.")


def _unreadable(path: Path, reason: str) -> Problem:
    return Problem(
        f"A STAR file cannot be read: {reason}.",
        str(path),
        "a STAR file with data blocks",
        "Look at the file; write it again with the program that made it.",
    )


def write_star(blocks: Blocks, path: Path) -> None:
    """Write blocks to a new STAR file; its directory is made when it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    star.write(blocks, path)


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
