"""``py2rely report``: the page of a run, made again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path | None, typer.Argument(help="Output directory of a run, complete or failed.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page.", show_default="RUN/report.html")
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of results.json, and end.")] = False,
) -> None:
    """Make report.html again, from results.json and the maps beside it."""
    import json

    from py2rely_core.results.schema import json_schema, read_results

    if schema:
        typer.echo(json.dumps(json_schema(), indent=1))
        return
    if run is None:
        raise typer.BadParameter("Give the output directory of a run.", param_hint="RUN")
    from py2rely_core.report import find_in, write_report

    results = read_results(run)
    path = output or run / "report.html"
    write_report(results, find_in(run), path)
    typer.echo(f"  {results['status']} run, page {path} ({path.stat().st_size / 2**20:.1f} MB)")
