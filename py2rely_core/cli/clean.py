"""``py2rely clean``: free what of a run's files is not needed any more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    directory: Annotated[
        Path, typer.Argument(help="A run's output directory, or the one where it was started.", metavar="[RUNDIR]")
    ] = Path(),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say only what would go.")] = False,
) -> None:
    """Free what neither the results of a run nor -resume with other parameters of its last level need."""
    from py2rely_core.results import clean

    found = clean.removable(directory)
    rows = clean.sizes(found)
    for kind, (files, size) in rows.items():
        print(f"{size / 1e9:10.3f} GB  {files:>8} files  {kind}")
    total = sum(size for _, size in rows.values())
    if not dry_run:
        clean.free(found)
    print(f"{total / 1e9:10.3f} GB  {'would be freed' if dry_run else 'freed'}")
