"""``py2rely prepare``: the parameter file, the template, and data under the reference system's command names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from py2rely_core.cli.import_data import register_prepare
from py2rely_core.cli.job_script import relion5_pipeline
from py2rely_core.cli.options import HELP_NAMES
from py2rely_core.cli.template import template
from py2rely_core.problems import Problem, ProblemError

app = typer.Typer(no_args_is_help=True, context_settings=HELP_NAMES)
app.command("template")(template)
register_prepare(app)
app.command("relion5-pipeline")(relion5_pipeline)


@app.callback()
def prepare() -> None:
    """Parameter file, template, and data."""


@app.command("relion5-parameters")
def relion5_parameters(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="Parameter file to write.")] = Path(
        "sta_parameters.json"
    ),
    tilt_series: Annotated[Path, typer.Option("--tilt-series", "-ts", help="Tilt-series STAR file.")] = Path(
        "input/tiltSeries/aligned_tilt_series.star"
    ),
    particles: Annotated[Path, typer.Option("--particles", "-p", help="Particles STAR file.")] = Path(
        "input/full_picks.star"
    ),
    pixel_size: Annotated[float, typer.Option("--tilt-series-pixel-size", "-ps", help="Unbinned, Angstrom.")] = 1.54,
    symmetry: Annotated[str, typer.Option("--symmetry", "-s", help="Point group of the particle.")] = "C1",
    low_pass: Annotated[
        float | None,
        typer.Option(
            "--low-pass", "-lp", help="Low-pass of the reference, Angstrom.", show_default="by its size and shape"
        ),
    ] = None,
    diameter: Annotated[float, typer.Option("--protein-diameter", "-pd", help="Particle diameter, Angstrom.")] = 290,
    max_dose: Annotated[
        float, typer.Option("--max-dose", "-md", help="Leave out tilts beyond it, e/A^2; -1: none.")
    ] = -1,
    denovo: Annotated[bool, typer.Option("--denovo-generation", "-dg", help="De novo model.")] = False,
    box_scaling: Annotated[float, typer.Option("--box-scaling", "-bs", help="Box edge over diameter.")] = 2.0,
    classes: Annotated[int, typer.Option("--nclasses", "-nc", help="Classes in Class3D.")] = 1,
    initial_models: Annotated[int, typer.Option("--ninit-models", "-nim", help="Classes in the de novo model.")] = 1,
    binnings: Annotated[str, typer.Option("--binning-list", "-bl", help="Descending, e.g. 4,2,1.")] = "4,2,1",
    threads: Annotated[int, typer.Option("--nthreads", "-nj", help="Threads per process, at most.")] = 8,
    processes: Annotated[
        int | None, typer.Option("--nprocesses", "-np", help="Noted in the file; a run derives its processes itself.")
    ] = None,
) -> None:
    """Write the parameter file of a run, and print the box size at each binning."""
    from py2rely_core.parameters.boxes import box_size
    from py2rely_core.parameters.files import new_recipe, write_recipe

    later = []
    for name, path, kind in (("tilt_series", tilt_series, "tilt series"), ("particles", particles, "particles")):
        if not path.is_file() and getattr(context.get_parameter_source(name), "name", "") == "DEFAULT":
            later.append(path)
        else:
            _must_be(path, f"--{name.replace('_', '-')}", kind)
    recipe = new_recipe(
        tilt_series=str(tilt_series),
        particles=str(particles),
        pixel_size=pixel_size,
        symmetry=symmetry,
        low_pass=low_pass,
        diameter=diameter,
        denovo=denovo,
        box_scaling=box_scaling,
        binnings=binnings,
        threads=threads,
        classes=classes,
        initial_models=initial_models,
        max_dose=max_dose,
        processes=processes,
    )
    write_recipe(recipe, output)
    typer.echo("[Initialize] Running Refinement Pipeline with Given Binnings and Resulting Box Sizes")
    for binning in recipe.resolutions.binning_list:
        typer.echo(f"[Initialize] Box Size: {box_size(diameter, pixel_size, binning, box_scaling)} @ bin={binning}")
    typer.echo(f"[Initialize] Wrote {output}")
    for path in later:
        typer.echo(f"[Initialize] {path} is not there yet: import it, or let the run import (--aretomo, --copick, ...)")


def _must_be(path: Path, option: str, wanted: str) -> None:
    """Stop where a file is missing, or surely of another kind."""
    from py2rely_core.data import kinds
    from py2rely_core.data.inputs import from_optimisation_set

    if not path.is_file():
        raise ProblemError(Problem("An input file is missing.", f"{option} {path}", "a STAR file", "Correct the path."))
    from_optimisation_set(path, wanted, Path.cwd())
    known = (wanted, "optimisation set", "empty", *(kinds.PARTICLES if wanted == "particles" else ()))
    kind = kinds.look(path)
    if kind is not None and kind.key not in known:
        raise ProblemError(kinds.problem_of(kind, Path(f"{option} {path}"), kinds.KINDS[wanted].name))
