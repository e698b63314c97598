"""``py2rely export``: refined particles for copick and other programs, and a run's result for the archives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from py2rely_core.cli.options import (
    HELP_NAMES,
    Overwrite,
    SizeX,
    SizeY,
    SizeZ,
    SkipMissing,
    echo_import,
    is_given,
    is_parameter_file,
    is_true,
)

app = typer.Typer(no_args_is_help=True, context_settings=HELP_NAMES)

Particles = Annotated[Path, typer.Option("--particles", "-p", help="Particle STAR file, such as run_data.star.")]
TiltSeries = Annotated[Path, typer.Option("--tilt-series", "-ts", help="Tilt-series STAR file: sizes of tomograms.")]
Duplicates = Annotated[
    str, typer.Option("--duplicates", help="Particles at one place: error, best (keeps the better scored) or keep.")
]
Distance = Annotated[float, typer.Option("--distance", help="Closer than this is one place, Angstrom.")]


@app.callback()
def export() -> None:
    """Refined particles for copick and other programs, shifts and subtomogram angles applied; a run for deposition."""


@app.command("star2copick")
def star2copick(
    context: typer.Context,
    particles: Particles,
    configs: Annotated[str, typer.Option("--configs", "-c", help="copick configurations, separated by commas.")],
    sessions: Annotated[
        str, typer.Option("--sessions", "-s", help="One per configuration: tomograms are {session}_{run}; '' for none.")
    ],
    suffix: Annotated[str, typer.Option("--suffix", help="Runs' names may end with it, tomograms' not.")] = "_Vol",
    name: Annotated[str, typer.Option("--name", "-n", "--particle-name", help="Object.")] = "ribosome",
    user_id: Annotated[
        str, typer.Option("--user-id", "-uid", "--export-user-id", help="User of the picks.")
    ] = "relion",
    session_id: Annotated[
        str, typer.Option("--session-id", "-sid", "--export-session-id", help="Session of the picks.")
    ] = "99",
    x: SizeX = 4096,
    y: SizeY = 4096,
    z: SizeZ = 1200,
    tilt_series: Annotated[
        Path | None, typer.Option("--tilt-series", "-ts", help="Sizes of tomograms that the project does not have.")
    ] = None,
    existing: Annotated[
        str, typer.Option("--existing", help="Where there are such picks: error, overwrite or new-session.")
    ] = "error",
    duplicates: Duplicates = "error",
    distance: Distance = 1.0,
    skip_missing: SkipMissing = "False",
) -> None:
    """Write particles as picks into copick projects."""
    import numpy as np

    from py2rely_core.exporters.copick import Target, export_copick
    from py2rely_core.exporters.poses import read_poses
    from py2rely_core.importers.particles import tomograms_of

    poses = read_poses(particles, duplicates, distance)
    target = Target(
        [Path(part.strip()) for part in configs.split(",")],
        [part.strip() for part in sessions.split(",")],
        suffix, name, user_id, session_id, existing,
    )  # fmt: skip
    sizes, default = {}, None
    if tilt_series:
        tomograms = tomograms_of(tilt_series)
        sizes = {key: size * tomograms.pixel_size for key, size in tomograms.sizes.items()}
    elif "rlnTomoTiltSeriesPixelSize" in poses.optics and poses.optics["rlnTomoTiltSeriesPixelSize"].nunique() == 1:
        default = np.array([x, y, z]) * float(poses.optics["rlnTomoTiltSeriesPixelSize"].iloc[0])
    notes = export_copick(poses, target, sizes, default, is_true(skip_missing, "--skip-missing"))
    for note in [*poses.notes, *notes]:
        typer.echo(note)
    used = [note for note in notes if "size as given by -x -y -z" in note]
    if used and not all(is_given(context, axis) for axis in "xyz"):
        typer.echo(f"assumed, as it was not given: -x {x:g} -y {y:g} -z {z:g}")


@app.command("star")
def star(
    particles: Particles,
    output: Annotated[Path, typer.Option("--output", "-o", help="STAR file.")],
    duplicates: Duplicates = "error",
    distance: Distance = 1.0,
    overwrite: Overwrite = False,
) -> None:
    """A plain particle file: absolute positions and angles, without shifts."""
    from py2rely_core.exporters.poses import read_poses
    from py2rely_core.exporters.tables import plain_star

    poses = read_poses(particles, duplicates, distance)
    _finish(poses, plain_star(poses, output), overwrite)


@app.command("csv")
def csv(
    particles: Particles,
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file.")],
    tilt_series: Annotated[
        Path | None, typer.Option("--tilt-series", "-ts", help="For columns in voxels: sizes of tomograms.")
    ] = None,
    voxel_size: Annotated[
        float | None, typer.Option("--voxel-size", help="Of these columns, Angstrom.", show_default="unbinned")
    ] = None,
    duplicates: Duplicates = "error",
    distance: Distance = 1.0,
    overwrite: Overwrite = False,
) -> None:
    """A CSV file: tomogram, x, y, z (Angstrom from the centre), rot, tilt, psi."""
    from py2rely_core.exporters.poses import read_poses
    from py2rely_core.exporters.tables import plain_csv
    from py2rely_core.importers.particles import tomograms_of
    from py2rely_core.problems import Problem, ProblemError

    if voxel_size and not tilt_series:
        what = "Columns in voxels need the tomograms' sizes."
        raise ProblemError(Problem(what, "--voxel-size", "--tilt-series", "Give --tilt-series."))
    poses = read_poses(particles, duplicates, distance)
    tomograms = tomograms_of(tilt_series) if tilt_series else None
    _finish(poses, plain_csv(poses, output, tomograms, voxel_size), overwrite)


@app.command("chimerax")
def chimerax(
    particles: Particles,
    tilt_series: TiltSeries,
    voxel_size: Annotated[float, typer.Option("--voxel-size", help="Of the tomograms that are shown, Angstrom.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory.")] = Path("chimerax"),
    radius: Annotated[float, typer.Option("--radius", help="Of the markers, Angstrom.")] = 50,
    duplicates: Duplicates = "error",
    distance: Distance = 1.0,
    overwrite: Overwrite = False,
) -> None:
    """Per tomogram, a STAR file for ArtiaX and markers for ChimeraX."""
    from py2rely_core.exporters.poses import read_poses
    from py2rely_core.exporters.tables import artiax
    from py2rely_core.importers.particles import tomograms_of

    poses = read_poses(particles, duplicates, distance)
    _finish(poses, artiax(poses, output, tomograms_of(tilt_series), voxel_size, radius), overwrite)


@app.command("warp")
def warp(
    particles: Particles,
    tilt_series: TiltSeries,
    output: Annotated[Path, typer.Option("--output", "-o", help="STAR file.")],
    voxel_size: Annotated[
        float | None, typer.Option("--voxel-size", help="Of the coordinates, Angstrom.", show_default="unbinned")
    ] = None,
    duplicates: Duplicates = "error",
    distance: Distance = 1.0,
    overwrite: Overwrite = False,
) -> None:
    """A STAR file for WarpTools ts_export_particles and MTools create_species."""
    from py2rely_core.exporters.poses import read_poses
    from py2rely_core.exporters.tables import warp as as_warp
    from py2rely_core.importers.particles import tomograms_of

    poses, tomograms = read_poses(particles, duplicates, distance), tomograms_of(tilt_series)
    _finish(poses, as_warp(poses, output, tomograms, voxel_size or tomograms.pixel_size), overwrite)


@app.command("dynamo")
def dynamo(
    particles: Particles,
    tilt_series: TiltSeries,
    voxel_size: Annotated[float, typer.Option("--voxel-size", help="Of Dynamo's tomograms, Angstrom.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Table; the .doc is beside it.")] = Path("dynamo.tbl"),
    tomogram_file: Annotated[
        str, typer.Option("--tomogram-file", help="Tomograms in the .doc, such as 'tomograms/{name}.mrc'.")
    ] = "{name}",
    duplicates: Duplicates = "error",
    distance: Distance = 1.0,
    overwrite: Overwrite = False,
) -> None:
    """A Dynamo table (.tbl), and the numbers and names of its tomograms (.doc)."""
    from py2rely_core.exporters.dynamo import dynamo as as_dynamo
    from py2rely_core.exporters.poses import read_poses
    from py2rely_core.exporters.series import tilt_ranges
    from py2rely_core.importers.particles import tomograms_of

    poses, ranges = read_poses(particles, duplicates, distance), tilt_ranges(tilt_series, Path.cwd())
    made = as_dynamo(poses, output, tomograms_of(tilt_series), voxel_size, ranges, tomogram_file)
    _finish(poses, made, overwrite)


Run = Annotated[Path, typer.Argument(help="Output directory of a run that is complete.")]
Dataset = Annotated[
    str | None, typer.Option("--dataset", help="Data set, where the run has several.", show_default="the only one")
]


@app.command("deposition")
def deposition(
    run: Run,
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory.")] = Path("deposition"),
    dataset: Dataset = None,
    images: Annotated[str, typer.Option("--images", help="Tilt images in the package: link, copy or none.")] = "link",
    overwrite: Overwrite = False,
) -> None:
    """What EMDB and EMPIAR ask for: maps, FSC, tables, Table 1, methods, checksums; and what is missing."""
    from py2rely_core.exporters.deposition import export_deposition
    from py2rely_core.exporters.run import choose
    from py2rely_core.problems import format_problems
    from py2rely_core.results.schema import read_results

    source = choose(read_results(run), run, dataset)
    package = export_deposition(source, output, images, overwrite)
    typer.echo(f"{output}: {package.files} files of data set {source.dataset['id']}")
    typer.echo(f"contour level {package.contour:.3g}; the rule is in README.md")
    if package.warnings:
        typer.echo(format_problems(package.warnings))
    typer.echo("missing:")
    for one in package.missing:
        typer.echo(f"  {one}")


@app.command("heterogeneity")
def heterogeneity(
    run: Run,
    binning: Annotated[int, typer.Option("--binning", "-b", help="Of the images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory.")] = Path("heterogeneity"),
    dataset: Dataset = None,
    particles: Annotated[
        Path | None, typer.Option("--particles", "-p", help="Others of the run.", show_default="the final ones")
    ] = None,
    box: Annotated[
        int | None, typer.Option("--box", help="Pixels at this binning.", show_default="the run's at this binning")
    ] = None,
    min_tilts: Annotated[int, typer.Option("--min-tilts", help="Particles seen in fewer images are left out.")] = 1,
    threads: Annotated[int, typer.Option("--threads", "-j", help="Of RELION.")] = 4,
    overwrite: Overwrite = False,
) -> None:
    """The particles for cryoDRGN-ET and tomoDRGN: 2D stacks without CTF, a STAR file, commands to start with."""
    from py2rely_core.exporters.heterogeneity import export_heterogeneity, planned_stacks
    from py2rely_core.exporters.run import choose
    from py2rely_core.problems import format_problems
    from py2rely_core.results.schema import read_results

    source = choose(read_results(run), run, dataset)
    stacks = planned_stacks(source, binning, box, min_tilts, threads)
    for note in export_heterogeneity(source, output, stacks, particles, overwrite):
        typer.echo(note)
    if source.warnings:
        typer.echo(format_problems(source.warnings))


@app.command("class2star")
def class2star(
    source: Annotated[
        Path | None,
        typer.Option("-p", help="Classified particles (STAR), or the parameter file.", show_default="those of the job"),
    ] = None,
    particles: Annotated[Path | None, typer.Option("--particles", help="Classified particles.")] = None,
    parameter: Annotated[
        Path | None,
        typer.Option("--parameter", help="Parameter file: the class job is looked for in its directory."),
    ] = None,
    class_job: Annotated[str, typer.Option("--class-job", "-cj", help="Class3D job: name or directory.")] = "job001",
    classes: Annotated[str, typer.Option("--export-classes", help="Classes, separated by commas.")] = "1,2",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", "--export-path", help="STAR file.", show_default="{job}_classes_{classes}.star"),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Particles of chosen classes of a classification, as a file of their own."""
    from py2rely_core.exporters.classes import data_of_job, export_classes, parse_classes
    from py2rely_core.parameters.files import load_recipe

    if source and is_parameter_file(source):
        parameter = source
    elif source:
        particles = source
    if parameter:
        load_recipe(parameter)
    chosen = parse_classes(classes)
    project = parameter.absolute().parent if parameter else Path.cwd()
    stem = f"{Path(class_job).name}_classes_{'_'.join(map(str, chosen))}.star"
    result = export_classes(particles or data_of_job(class_job, project), chosen, output or Path(stem))
    echo_import(result, overwrite)


def _finish(poses, made, overwrite: bool) -> None:
    from py2rely_core.exporters.tables import write_export

    write_export(made, overwrite)
    for note in [*poses.notes, *made.notes]:
        typer.echo(note)
