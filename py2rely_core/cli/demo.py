"""``py2rely demo-data``: a simulated data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    directory: Annotated[Path, typer.Argument(help="Where it is written.")],
    tilt_series: Annotated[int, typer.Option(help="Number of tilt series.")] = 2,
    particles: Annotated[int, typer.Option(help="Particles per tilt series.")] = 20,
    pixel_size: Annotated[float, typer.Option(help="Angstrom per pixel.")] = 2.5,
    image_size: Annotated[int, typer.Option(help="Edge of the images, pixels.")] = 320,
    thickness: Annotated[int, typer.Option(help="Thickness of the tomogram, pixels.")] = 128,
    structure: Annotated[str, typer.Option(help="invented, apoferritin, ribosome, FILE.mrc or FILE.csv.")] = "invented",
    diameter: Annotated[
        float | None, typer.Option(help="Diameter of the particle, Angstrom.", show_default="the structure's, or 130")
    ] = None,
    symmetry: Annotated[str | None, typer.Option(help="Point group.", show_default="the structure's, or O")] = None,
    tilt_range: Annotated[float, typer.Option(help="Largest tilt, degrees.")] = 60.0,
    tilt_step: Annotated[float, typer.Option(help="Degrees.")] = 10.0,
    defocus: Annotated[float, typer.Option(help="Micrometres.")] = 3.0,
    dose: Annotated[float, typer.Option(help="Per tilt, e/A^2.")] = 1.0,
    noise: Annotated[float, typer.Option(help="In units of a particle image's standard deviation.")] = 2.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same data.")] = 0,
    angle_error: Annotated[float, typer.Option(help="Of the orientations in particles.star, degrees.")] = 0.0,
    shift_error: Annotated[float, typer.Option(help="Of the positions in particles.star, Angstrom.")] = 0.0,
    random_angles: Annotated[bool, typer.Option("--random-angles", help="Orientations are not known.")] = False,
    false_picks: Annotated[float, typer.Option(help="Picks without a particle, share of the particles.")] = 0.0,
    second_conformation: Annotated[float, typer.Option(help="Share of particles in a second conformation.")] = 0.0,
    second: Annotated[str, typer.Option(help="Of the ribosome: 50S, no tRNA, rotated 30S.")] = "moved",
    defocus_error: Annotated[
        float, typer.Option(help="Of the defocus in each tilt series' STAR file, Angstrom.")
    ] = 0.0,
    motion: Annotated[float, typer.Option(help="Of the particles, over the whole dose, Angstrom.")] = 0.0,
    name_prefix: Annotated[str, typer.Option(help="Names of the tilt series begin with it.")] = "TS_",
) -> None:
    """Simulate tilt series, picks and a template with known truth."""
    from py2rely_core.problems import Problem, ProblemError
    from py2rely_core.simulation.simulate import Settings, write_dataset
    from py2rely_core.simulation.structures import KNOWN

    values = {name: value for name, value in locals().items() if name in Settings.__dataclass_fields__}
    known = vars(KNOWN[structure]) if structure in KNOWN else {}
    values = {name: known.get(name) if value is None else value for name, value in values.items()}
    values = {name: value for name, value in values.items() if value is not None}
    try:
        truth = write_dataset(directory, Settings(**values))
    except ValueError as error:
        raise ProblemError(Problem(str(error), "demo-data", "", "Change the sizes or numbers.")) from error
    counts = ", ".join(f"{count} {label}" for label, count in truth["label"].value_counts().items())
    typer.echo(f"{directory}: {tilt_series} tilt series of {image_size} pixels of {pixel_size:g} A")
    typer.echo(f"{directory}/particles.star: {len(truth)} picks (truth: {counts})")
    typer.echo(f"{directory}/template.mrc, {directory}/truth/")
