"""What an importer made: tables and links that are not written yet, and what a person must know about them."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from py2rely_core.data.tables import Blocks, write_star
from py2rely_core.problems import Problem, ProblemError


@dataclass
class Import:
    """Files to be written.

    Attributes
    ----------
    tables : dict of Path to dict of str to DataFrame
        STAR files and their blocks.
    links : dict of Path to Path
        Symbolic links and what they point to.
    notes : list of str
        What was read, how many, what was left out and why, one line each.
    warnings : list of Problem
        What is suspicious, but not wrong.
    """

    tables: dict[Path, Blocks] = field(default_factory=dict)
    links: dict[Path, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def write_import(result: Import, overwrite: bool = False) -> None:
    """Write all files of an import, or none of them.

    Parameters
    ----------
    result : Import
    overwrite : bool
        Replace files that are there.

    Raises
    ------
    ProblemError
        A file is there already, or cannot be written.
    """
    refuse_existing([*result.tables, *result.links], overwrite)
    written: list[Path] = []
    try:
        for path, blocks in result.tables.items():
            part = path.with_name(f".{path.name}.part")
            written.append(part)
            write_star(blocks, part)
        for path, target in result.links.items():
            part = path.with_name(f".{path.name}.part")
            part.parent.mkdir(parents=True, exist_ok=True)
            written.append(part)
            part.unlink(missing_ok=True)
            part.symlink_to(target.absolute())
    except OSError as error:
        for part in written:
            with contextlib.suppress(OSError):
                part.unlink()
        problem = Problem(f"An output cannot be written: {error}.", str(written[-1]), "", "Choose another --output.")
        raise ProblemError(problem) from error
    for part in written:
        part.rename(part.with_name(part.name.removeprefix(".").removesuffix(".part")))


def refuse_existing(paths: list[Path], overwrite: bool) -> None:
    """Stop before a file would be replaced that nobody asked to replace."""
    existing = [] if overwrite else [str(path) for path in paths if path.exists() or path.is_symlink()]
    if existing:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        fix = "Choose another --output, or give --overwrite."
        raise ProblemError(Problem("An output file exists already.", existing[0] + more, "a new name", fix))


def project_path(path: Path) -> str:
    """A path as STAR files name it: relative to the current directory if it is inside, else absolute."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 (links must stay as they are)
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute)
