"""``py2rely utils``: names and picks between programs, as in the reference system."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from py2rely_core.cli.options import HELP_NAMES, CopickConfig, Overwrite, echo_import

app = typer.Typer(no_args_is_help=True, context_settings=HELP_NAMES)
Source = Annotated[Path, typer.Option("--input", "-i", help="STAR file.")]


@app.callback()
def utils() -> None:
    """Names and picks between programs."""


@app.command("ts2position")
def ts2position(
    source: Source,
    output: Annotated[Path, typer.Option("--output", "-o", help="STAR file to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Rename tilt series from Warp's names to the microscope's: TS_7_1 becomes Position_7."""
    from py2rely_core.exporters.names import ts_to_position

    echo_import(ts_to_position(source, output), overwrite)


@app.command("warp-tm2copick")
def warp_tm2copick(
    source: Source,
    config: CopickConfig,
    name: Annotated[str, typer.Option("--particle-name", "-n", help="Object.")],
    user_id: Annotated[str, typer.Option("--user-id", "-uid", help="User of the picks.")],
    session_id: Annotated[str, typer.Option("--session-id", "-sid", help="Session of the picks.")],
    voxel_size: Annotated[float, typer.Option("--voxel-size", help="Of the tomograms that were searched, Angstrom.")],
    export_tag: Annotated[
        str, typer.Option("--export-tag", help="Stands in runs' names in place of .tomostar, such as _10.00Apx.")
    ],
    existing: Annotated[
        str, typer.Option("--existing", help="Where there are such picks: error, overwrite or new-session.")
    ] = "error",
) -> None:
    """Write what Warp's template matching found as picks into a copick project; runs that it lacks are made."""
    from py2rely_core.exporters.copick import Target
    from py2rely_core.exporters.warp_matches import export_matches

    target = Target([config], [""], "", name, user_id, session_id, existing)
    for note in export_matches(source, target, voxel_size, export_tag):
        typer.echo(note)
