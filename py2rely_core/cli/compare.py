"""``py2rely compare``: two runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    first: Annotated[Path, typer.Argument(metavar="RUN1", help="Output directory of a run.")],
    second: Annotated[Path, typer.Argument(metavar="RUN2", help="Output directory of another run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")] = Path("compare.html"),
) -> None:
    """Print what differs between two runs, and write it as a page with both maps."""
    from py2rely_core.report import find_in, write_comparison
    from py2rely_core.report.compare import as_text, compare, run_names
    from py2rely_core.results.schema import read_results

    pairs = compare(read_results(first), read_results(second))
    names = run_names(first, second)
    typer.echo(as_text(pairs, names))
    write_comparison(pairs, names, (find_in(first), find_in(second)), output)
    typer.echo(f"page {output}")
