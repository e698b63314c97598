"""``py2rely demo-data``: a simulated data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from py2rely_core.simulation.effects import NO_EFFECTS, REALISTIC

MICROSCOPE = "As from a microscope"


def _option(name: str, text: str, low: float = 0.0, high: float | None = None) -> typer.models.OptionInfo:
    """One field of :class:`Effects`, with its default and what it is with ``--realistic``."""
    off, realistic = (f"{getattr(effects, name):g}" for effects in (NO_EFFECTS, REALISTIC))
    shown = off if off == realistic else f"{off}, with --realistic {realistic}"
    return typer.Option(help=text, show_default=shown, min=low, max=high, rich_help_panel=MICROSCOPE)


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
    defocus_spread: Annotated[
        float, typer.Option(help="The second tilt series has so much more, the third less, and so on, micrometres.")
    ] = 0.4,
    dose: Annotated[float, typer.Option(help="Per tilt, e/A^2.")] = 1.0,
    noise: Annotated[
        float | None,
        typer.Option(help="White noise, in units of a particle image's standard deviation.", show_default="2"),
    ] = None,
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
    realistic: Annotated[
        bool,
        typer.Option(
            "--realistic", help="Moderate values of all of these; those that are given win.", rich_help_panel=MICROSCOPE
        ),
    ] = False,
    snr: Annotated[
        float | None,
        typer.Option(
            help="White noise by its signal-to-noise ratio: variance of a particle's noise-free untilted image within "
            "its diameter, by that of the noise, per pixel. In place of --noise.",
            min=1e-6,
            show_default="--noise",
            rich_help_panel=MICROSCOPE,
        ),
    ] = None,
    shot_noise: Annotated[
        bool | None,
        typer.Option(
            help="Images are counts of electrons, Poisson-distributed about "
            "--dose by a pixel's area. In place of --noise.",
            show_default="no, with --realistic yes",
            rich_help_panel=MICROSCOPE,
        ),
    ] = None,
    contrast: Annotated[
        float | None,
        _option(
            "contrast",
            "With --shot-noise: standard deviation of a particle's "
            "untilted image within its diameter, as a share of the background.",
            1e-6,
        ),
    ] = None,
    ice: Annotated[
        float | None,
        _option(
            "ice",
            "Thickness of the ice in which electrons are lost, Angstrom: "
            "exp(-ice / (mean free path * cos(tilt))) of them are left.",
        ),
    ] = None,
    mean_free_path: Annotated[
        float | None, _option("mean_free_path", "Of inelastic scattering, Angstrom.", 1.0)
    ] = None,
    astigmatism: Annotated[float | None, _option("astigmatism", "rlnDefocusU - rlnDefocusV, Angstrom.")] = None,
    dqe: Annotated[
        float | None,
        _option(
            "dqe",
            "The detector's quantum efficiency at Nyquist, as a share of that at "
            "frequency 0: the signal falls to its root, the noise is white.",
            1e-3,
            1.0,
        ),
    ] = None,
    neighbours: Annotated[
        float | None, _option("neighbours", "Other proteins in each tomogram, share of the particles.")
    ] = None,
    beads: Annotated[int | None, _option("beads", "Gold beads in each tomogram.")] = None,
    membranes: Annotated[int | None, _option("membranes", "Patches of membrane in each tomogram.")] = None,
    alignment_shift: Annotated[
        float | None, _option("alignment_shift", "Errors of the tilts' shifts in the tilt series' STAR file, Angstrom.")
    ] = None,
    alignment_rotation: Annotated[
        float | None, _option("alignment_rotation", "Errors of the tilt axis there, of each tilt, degrees.")
    ] = None,
    axis_error: Annotated[
        float | None, _option("axis_error", "Error of the tilt axis there, of the whole tilt series, degrees.")
    ] = None,
    drift: Annotated[
        float | None, _option("drift", "Movement of the image in each exposure, Angstrom by 1 / cos(tilt).")
    ] = None,
    dark_tilts: Annotated[
        int | None, _option("dark_tilts", "So many of the highest tilts are nearly without electrons.")
    ] = None,
) -> None:
    """Simulate tilt series, picks and a template with known truth."""
    from dataclasses import replace

    from py2rely_core.problems import ExitCode, Problem, ProblemError
    from py2rely_core.simulation.simulate import Settings, write_dataset
    from py2rely_core.simulation.structures import KNOWN

    given = {name: value for name, value in locals().items() if value is not None}
    noises = [name for name in ("noise", "snr", "shot_noise") if given.get(name, False) is not False]
    if len(noises) > 1:
        options = " and ".join(f"--{name.replace('_', '-')}" for name in noises)
        problem = Problem(f"{options} say different things about the noise.", options, "one of them", "Give one.")
        raise ProblemError(problem, ExitCode.USAGE)
    base = replace(REALISTIC, shot_noise=not noises) if realistic else NO_EFFECTS
    effects = replace(base, **{name: value for name, value in given.items() if name in vars(NO_EFFECTS)})
    known = vars(KNOWN[structure]) if structure in KNOWN else {}
    values = {name: value for name, value in (known | given).items() if name in Settings.__dataclass_fields__}
    try:
        truth = write_dataset(directory, Settings(**values, effects=effects))
    except ValueError as error:
        raise ProblemError(Problem(str(error), "demo-data", "", "Change the sizes or numbers.")) from error
    counts = ", ".join(f"{count} {label}" for label, count in truth["label"].value_counts().items())
    typer.echo(f"{directory}: {tilt_series} tilt series of {image_size} pixels of {pixel_size:g} A")
    typer.echo(f"{directory}/particles.star: {len(truth)} picks (truth: {counts})")
    typer.echo(f"{directory}/template.mrc, {directory}/truth/")
