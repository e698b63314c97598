"""Which files may be read: those of a run's own directories, by names that are known here."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: Whether a file, with all links followed, belongs to what is looked at.
Inside = Callable[[Path], bool]
#: A task's directory within Nextflow's work directory.
TASK = re.compile(r"[0-9a-f]{2}/[0-9a-f]{6,}")


@dataclass(frozen=True)
class Place:
    """A directory of a job or a task, of which files are given out that lie inside of the run, and no others.

    Names are never a browser's: they are constants of this package, or were found in the directory.
    """

    directory: Path
    inside: Inside

    def file(self, name: str) -> Path | None:
        """A file of the directory, with all links followed; None where there is none, or it is outside of the run."""
        try:
            path = (self.directory / name).resolve(strict=True)
        except (OSError, RuntimeError):
            return None
        return path if path.is_file() and self.inside(path) else None

    def files(self, pattern: re.Pattern[str]) -> list[tuple[re.Match[str], Path]]:
        """Files whose whole name fits a pattern, by their names."""
        try:
            names = sorted(path.name for path in self.directory.iterdir())
        except OSError:
            return []
        found = [(match, self.file(match[0])) for name in names if (match := pattern.fullmatch(name))]
        return [(match, path) for match, path in found if path is not None]


def within(*directories: Path) -> Inside:
    """Everything below some directories."""
    roots = [directory.resolve() for directory in directories]
    return lambda path: any(path.is_relative_to(root) for root in roots)


def of_run(outdir: Path, work: Path) -> Inside:
    """A run's output directory and the directories of tasks in its work directory, whatever else may lie there."""
    root, published = work.resolve(), within(outdir)

    def inside(path: Path) -> bool:
        if published(path):
            return True
        return path.is_relative_to(root) and bool(TASK.fullmatch("/".join(path.relative_to(root).parts[:2])))

    return inside
