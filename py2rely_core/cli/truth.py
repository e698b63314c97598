"""``py2rely compare-truth``: a run on simulated data beside the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="Output directory of the run.")],
    data: Annotated[Path, typer.Argument(help="Directory that demo-data wrote.")],
    picture: Annotated[Path | None, typer.Option("--output", "-o", help="PNG.", show_default="RUN/truth.png")] = None,
    identity: Annotated[str | None, typer.Option("--id", help="Data set.", show_default="the first")] = None,
) -> None:
    """Print the FSC to the truth and the errors of the poses, and draw them."""
    from py2rely_core.problems import Problem, ProblemError
    from py2rely_core.simulation.truth import compare_run, draw

    for path in (run / "results.json", data / "truth/settings.json"):
        if not path.is_file():
            fix = "Give the output directory of a complete run, and the directory that demo-data wrote."
            raise ProblemError(Problem("A file is missing.", str(path), "an existing file", fix))
    maps, poses = compare_run(run, data, identity)
    for one in maps:
        limit = f"{one.resolution:.1f} Å" if one.resolution else "beyond Nyquist"
        aligned = "" if one.frame is None else f", aligned{' to the mirror image' if one.frame.mirrored else ''}"
        shell = f"{one.before_nyquist:.3f} at {one.resolutions[-2]:.1f} Å, the last shell before Nyquist"
        typer.echo(f"  bin {one.binning}: FSC to the truth {shell}; above 0.5 to {limit}{aligned}")
    if poses is not None:
        real = poses[poses["label"] != "false"]
        angles, shifts = real["angle_error"].median(), real["shift_error"].median()
        typer.echo(f"  {len(real)} particles: median error {angles:.2f} degrees, {shifts:.2f} Å")
    path = picture or run / "truth.png"
    draw(maps, path)
    typer.echo(f"  picture {path}")
