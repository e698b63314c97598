"""RELION's STAR files as data frames: reading with errors that name the cause, and finding the files they name."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import starfile

from py2rely_core.problems import Problem, ProblemError

Blocks = dict[str, pd.DataFrame]

#: Columns that hold names: a tomogram called ``001`` must not become the number 1.
TEXT_LABELS = [
    "rlnTomoName",
    "rlnTomoTiltSeriesStarFile",
    "rlnMicrographName",
    "rlnOpticsGroupName",
    "rlnImageName",
    "rlnTomoParticleName",
    "rlnTomoVisibleFrames",
    "rlnReferenceImage",
]


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
        raise ProblemError(Problem("A STAR file is missing.", str(path), "an existing file", "Correct the path."))
    try:
        blocks = starfile.read(path, always_dict=True, parse_as_string=TEXT_LABELS)
    except Exception as error:
        raise ProblemError(_unreadable(path, str(error))) from error
    if not blocks:
        raise ProblemError(_unreadable(path, "it has no data block"))
    return {name: _as_table(block) for name, block in blocks.items()}


def _as_table(block: pd.DataFrame | dict[str, object]) -> pd.DataFrame:
    return block if isinstance(block, pd.DataFrame) else pd.DataFrame([block])


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
    starfile.write(blocks, path, overwrite=True)


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
