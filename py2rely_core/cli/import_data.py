"""``py2rely import``: data of other programs; and the same under the reference system's names, ``py2rely prepare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from py2rely_core.cli.options import (
    HELP_NAMES,
    SWITCH,
    Aberration,
    Authors,
    Contrast,
    CopickConfig,
    OnlySpacing,
    Overwrite,
    PickedBy,
    PickedIn,
    RunIds,
    SizeX,
    SizeY,
    SizeZ,
    SkipMissing,
    Voltage,
    echo_import,
    is_given,
    names_in,
)

app = typer.Typer(no_args_is_help=True, context_settings=HELP_NAMES)

Group = Annotated[int, typer.Option("--optics-group", "-og", help="Number of the optics group.")]
GroupName = Annotated[str, typer.Option("--optics-group-name", "-ogn", help="Name of the optics group.")]
Hand = Annotated[float, typer.Option("--hand", help="rlnTomoHand: 1 or -1, one for the data set; see check-hand.")]
PixelSize = Annotated[
    float | None, typer.Option("--pixel-size", "-ps", help="Of the images, Angstrom.", show_default="their headers")
]
Thickness = Annotated[
    int | None, typer.Option("--thickness", "-z", help="Of the tomograms, unbinned voxels.", show_default="a volume")
]
TotalDose = Annotated[
    float | None, typer.Option("--total-dose", "-td", help="Of a series, e/A^2; where no file has the dose.")
]
TiltDose = Annotated[
    float | None, typer.Option("--dose-per-tilt", help="Of an image, e/A^2; where no file has the dose.")
]
Prefix = Annotated[str, typer.Option("--prefix", help="Put before the names of the tilt series.")]
Directory = Annotated[Path, typer.Option("--output", "-o", help="Directory for the STAR files and links.")]
TiltSeries = Annotated[
    Path, typer.Option("--tilt-series", "-ts", help="Tilt-series STAR file: sizes, pixel size, microscope, names.")
]
Units = Annotated[
    str,
    typer.Option("--units", help="Where the file does not say: centred (Angstrom), or angstrom, pixel, fraction."),
]
VoxelSize = Annotated[
    float | None,
    typer.Option("--voxel-size", help="Of the pixels of coordinates, Angstrom.", show_default="the unbinned ones"),
]
Doc = Annotated[
    Path | None, typer.Option("--doc", help="Of a Dynamo table, names its tomograms.", show_default="beside the table")
]
OfTomogram = Annotated[
    str | None, typer.Option("--tomogram", help="Of a file that names none.", show_default="the file's name")
]
SkipUnknown = Annotated[bool, typer.Option("--skip-unknown", help="Leave out particles without a tilt series.")]
DropDuplicates = Annotated[bool, typer.Option("--drop-duplicates", help="Keep the first of particles at one place.")]
ParticleFile = Annotated[Path, typer.Option("--output", "-o", help="Particle STAR file.")]
FULL_PICKS = Path("input/full_picks.star")
Inputs = Annotated[list[Path], typer.Option("--input", "-i", help="STAR file; give it once for each.")]


def register_prepare(prepare: typer.Typer) -> None:
    """Add the reference system's commands to ``py2rely prepare``."""
    prepare.command("tilt-series")(prepare_tilt_series)
    prepare.command("particles")(prepare_particles)
    prepare.command("import-particles")(prepare_import_particles)
    prepare.command("combine-particles")(combine_particles)
    prepare.command("combine-tilt-series")(combine_tilt_series)
    prepare.command("filter-unused-tilts")(filter_unused_tilts)


def _finish(result, overwrite: bool, assumed: list[str] | None = None) -> None:
    """Write an import and say what was read, assumed, left out and written."""
    echo_import(result, overwrite)
    for text in assumed or []:
        typer.echo(f"assumed, as it was not given: {text}")
    for warning in result.warnings:
        typer.echo(f"[warning] {warning}")
    for path in result.tables:
        if len(result.tables) < 4 or path.name == "aligned_tilt_series.star":
            typer.echo(f"Wrote {path}")


def _assumed(context: typer.Context, *names: str) -> list[str]:
    """Options that have their default, as they would be typed."""
    found = []
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is not None and source.name == "DEFAULT":
            found.append(f"{parameter.opts[0]} {context.params[parameter.name]}")
    return found


MICROSCOPE = ("voltage", "spherical_aberration", "amplitude_contrast")


@app.callback()
def import_data() -> None:
    """Tilt series and particles from other programs."""


@app.command("aretomo")
def aretomo(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="Directory that AreTomo2 or AreTomo3 wrote.")],
    voltage: Voltage,
    hand: Hand,
    output: Directory = Path("input/tiltSeries"),
    pixel_size: PixelSize = None,
    thickness: Thickness = None,
    total_dose: TotalDose = None,
    dose_per_tilt: TiltDose = None,
    prefix: Prefix = "",
    spherical_aberration: Aberration = 2.7,
    amplitude_contrast: Contrast = 0.07,
    overwrite: Overwrite = False,
) -> None:
    """Tilt series aligned by AreTomo2 or AreTomo3 (.aln, CTF text, tilt list, order list)."""
    from py2rely_core.importers.aretomo import import_aretomo
    from py2rely_core.importers.dose import Doses
    from py2rely_core.importers.optics import Optics
    from py2rely_core.importers.tilt_series import Layout

    optics = Optics(voltage, spherical_aberration, amplitude_contrast)
    doses = Doses(total_dose, dose_per_tilt)
    result = import_aretomo(directory, optics, hand, Layout(output), pixel_size, thickness, doses, prefix)
    _finish(result, overwrite, _assumed(context, *MICROSCOPE))


@app.command("imod")
def imod(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="An etomo directory, or the directory above several.")],
    voltage: Voltage,
    hand: Hand,
    output: Directory = Path("input/tiltSeries"),
    pixel_size: PixelSize = None,
    thickness: Thickness = None,
    total_dose: TotalDose = None,
    dose_per_tilt: TiltDose = None,
    prefix: Prefix = "",
    ignore_placement: Annotated[
        bool, typer.Option("--ignore-placement", help="Leave out SHIFT, XAXISTILT, WIDTH, SLICE of tilt.com.")
    ] = False,
    spherical_aberration: Aberration = 2.7,
    amplitude_contrast: Contrast = 0.07,
    overwrite: Overwrite = False,
) -> None:
    """Tilt series aligned by IMOD (.xf, .tlt, tilt.com, .defocus, .mdoc)."""
    from py2rely_core.importers.dose import Doses
    from py2rely_core.importers.imod import import_imod
    from py2rely_core.importers.optics import Optics
    from py2rely_core.importers.tilt_series import Layout

    optics = Optics(voltage, spherical_aberration, amplitude_contrast)
    doses, layout = Doses(total_dose, dose_per_tilt), Layout(output)
    result = import_imod(directory, optics, hand, layout, pixel_size, thickness, doses, prefix, ignore_placement)
    _finish(result, overwrite, _assumed(context, *MICROSCOPE))


@app.command("relion")
def relion(
    source: Annotated[Path, typer.Argument(help="RELION 5 project, or a tilt-series STAR file in it.")],
    output: Directory = Path("input/tiltSeries"),
    project: Annotated[
        Path | None, typer.Option("--project", help="Where the paths in its files hold.", show_default="the project")
    ] = None,
    hand: Annotated[float | None, typer.Option("--hand", help="Replace rlnTomoHand.", show_default="its own")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Tilt series of an existing RELION 5 project, which is not changed."""
    from py2rely_core.importers.relion import import_relion
    from py2rely_core.importers.tilt_series import Layout

    _finish(import_relion(source, Layout(output), project, hand), overwrite)


@app.command("warp")
def warp(
    source: Annotated[Path, typer.Argument(help="*_tomograms.star or *_optimisation_set.star of Warp or RELION 4.")],
    output: Directory = Path("input/tiltSeries"),
    project: Annotated[
        Path | None, typer.Option("--project", help="Where the paths in it hold.", show_default="its directory")
    ] = None,
    voltage: Annotated[float | None, typer.Option("--voltage", "-v", help="kV.", show_default="the file's")] = None,
    spherical_aberration: Aberration = 2.7,
    amplitude_contrast: Contrast = 0.07,
    overwrite: Overwrite = False,
) -> None:
    """Tilt series of Warp, M or RELION 4 (projection matrices) whose images are there."""
    from py2rely_core.importers.optics import Optics
    from py2rely_core.importers.tilt_series import Layout
    from py2rely_core.importers.warp import import_warp

    optics = Optics(voltage, spherical_aberration, amplitude_contrast) if voltage else None
    _finish(import_warp(source, Layout(output), optics, project), overwrite)


@app.command("particles")
def particles(
    source: Annotated[
        Path, typer.Option("--input", "-i", help="Of RELION, Warp, M, Dynamo, crYOLO, TomoTwin, pytom-match-pick.")
    ],
    tilt_series: TiltSeries,
    output: ParticleFile = FULL_PICKS,
    units: Units = "auto",
    voxel_size: VoxelSize = None,
    doc: Doc = None,
    tomogram: OfTomogram = None,
    skip_unknown: SkipUnknown = False,
    drop_duplicates: DropDuplicates = False,
    overwrite: Overwrite = False,
) -> None:
    """Particles of another program, placed in the tomograms of the tilt series."""
    from py2rely_core.importers.coordinates import Given
    from py2rely_core.importers.particles import Options, import_particles, tomograms_of

    options = Options(Given(units, voxel_size), skip_unknown, drop_duplicates, doc, tomogram)
    _finish(import_particles(source, output, tomograms_of(tilt_series), options), overwrite)


@app.command("csv")
def csv(
    source: Annotated[Path, typer.Option("--input", "-i", help="CSV file: tomogram, x, y, z[, rot, tilt, psi].")],
    tilt_series: TiltSeries,
    output: ParticleFile = FULL_PICKS,
    units: Units = "auto",
    voxel_size: VoxelSize = None,
    skip_unknown: SkipUnknown = False,
    drop_duplicates: DropDuplicates = False,
    overwrite: Overwrite = False,
) -> None:
    """Particles of a CSV file with named columns."""
    from py2rely_core.importers.particles import import_csv, tomograms_of

    result = import_csv(source, output, tomograms_of(tilt_series), units, voxel_size, skip_unknown, drop_duplicates)
    _finish(result, overwrite)


@app.command("copick")
def copick(
    config: CopickConfig,
    name: Annotated[str, typer.Option("--name", "-n", help="Object.")],
    tilt_series: TiltSeries,
    output: ParticleFile = FULL_PICKS,
    user_id: PickedBy = None,
    session_id: PickedIn = None,
    run_ids: RunIds = None,
    voxel_size: OnlySpacing = None,
    authors: Authors = None,
    prefix: Prefix = "",
    remove: Annotated[str, typer.Option("--remove", help="Text in run names that tilt series do not have.")] = "",
    skip_unknown: SkipUnknown = False,
    drop_duplicates: DropDuplicates = False,
    overwrite: Overwrite = False,
) -> None:
    """Picks of a copick project."""
    from py2rely_core.importers.copick import Picks, import_copick
    from py2rely_core.importers.particles import tomograms_of

    picks = Picks(name, user_id, session_id, names_in(run_ids), voxel_size, names_in(authors))
    result = import_copick(
        config, picks, output, tomograms_of(tilt_series), prefix, remove,
        skip_unknown=skip_unknown, drop_duplicates=drop_duplicates,
    )  # fmt: skip
    _finish(result, overwrite)


@app.command("combine-particles")
def combine_particles(
    inputs: Inputs,
    output: ParticleFile = FULL_PICKS,
    skip_missing: SkipMissing = "False",
    overwrite: Overwrite = False,
) -> None:
    """One particle file of several; equal optics groups are merged."""
    from py2rely_core.cli.options import is_true
    from py2rely_core.importers.combine import combine_particles as combine

    _finish(combine(inputs, output, is_true(skip_missing, "--skip-missing")), overwrite)


@app.command("combine-tilt-series")
def combine_tilt_series(
    inputs: Inputs,
    output: Annotated[Path, typer.Option("--output", "-o", help="Tilt-series STAR file.")] = Path(
        "input/aligned_tilt_series.star"
    ),
    skip_missing: SkipMissing = "False",
    overwrite: Overwrite = False,
) -> None:
    """One tilt-series file of several."""
    from py2rely_core.cli.options import is_true
    from py2rely_core.importers.combine import combine_tilt_series as combine

    _finish(combine(inputs, output, is_true(skip_missing, "--skip-missing")), overwrite)


@app.command("filter-unused-tilts")
def filter_unused_tilts(
    particles: Annotated[Path, typer.Option("--particles", "-p", help="Particle STAR file.")],
    tilt_series: Annotated[
        Path, typer.Option("--tilt-series", "--tomograms", "-t", "-ts", help="Tilt-series STAR file.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New file.", show_default="{tilt series}_used.star, beside it")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Leave out tilt series without particles. The file that is given stays as it is, unless --output names it."""
    from py2rely_core.importers.combine import filter_unused_tilts as used

    output = output or tilt_series.with_name(f"{tilt_series.stem}_used.star")
    _finish(used(particles, tilt_series, output), overwrite)


def prepare_tilt_series(
    context: typer.Context,
    base_project: Annotated[
        Path | None,
        typer.Option("--base-project", help="Directory above the sessions.", show_default="the current one"),
    ] = None,
    session: Annotated[
        str, typer.Option("--session", "-s", help="Session, a directory of AreTomo output.")
    ] = "23dec21",
    run: Annotated[str | None, typer.Option("--run", "-r", help="Run, a directory in the session.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Gets {session}_tiltSeries.")] = Path("input"),
    pixel_size: Annotated[float, typer.Option("--pixel-size", "-ps", help="Others are left out, Angstrom.")] = 1.54,
    total_dose: Annotated[
        float, typer.Option("--total-dose", "-td", help="Of a series, e/A^2; where no tilt list has the dose.")
    ] = 60,
    symlinks: Annotated[
        Path | None, typer.Option("--symlinks", "-sym", help="Directory for links.", show_default="within --output")
    ] = None,
    voltage: Voltage = 300,
    spherical_aberration: Aberration = 2.7,
    amplitude_contrast: Contrast = 0.07,
    optics_group: Group = 1,
    optics_group_name: GroupName = "opticsGroup1",
    hand: Hand = -1,
    thickness: Thickness = None,
    overwrite: Overwrite = False,
) -> None:
    """Tilt series of AreTomo3, named {session}_{name}."""
    from py2rely_core.importers.aretomo import import_aretomo
    from py2rely_core.importers.dose import Doses
    from py2rely_core.importers.optics import Optics
    from py2rely_core.importers.tilt_series import Layout

    if base_project is None and not is_given(context, "session"):
        raise typer.BadParameter("say where the data are: --base-project DIRECTORY, or --session of this directory")
    directory = (base_project or Path()) / session / (run or "")
    optics = Optics(voltage, spherical_aberration, amplitude_contrast, optics_group, optics_group_name)
    doses = Doses(total=total_dose)
    layout = Layout(output / f"{session}_tiltSeries", "", symlinks)
    result = import_aretomo(
        directory, optics, hand, layout, pixel_size, thickness, doses, f"{session}_", skip_other_pixel_size=True
    )
    names = ["session", "pixel_size", "hand", *MICROSCOPE, *(["total_dose"] if doses.used else [])]
    _finish(result, overwrite, _assumed(context, *names))


MaybeTiltSeries = Annotated[
    Path | None,
    typer.Option("--tilt-series", "-ts", help="Takes sizes, pixel size and microscope from it instead."),
]


def _tomograms(context: typer.Context, tilt_series: Path | None, size: tuple[float, float, float], pixel_size: float,
               group: int, group_name: str, microscope: tuple[float, float, float]):  # fmt: skip
    """Tomograms of a STAR file, or one size for all; and what was assumed."""
    import numpy as np

    from py2rely_core.importers.optics import Optics
    from py2rely_core.importers.particles import Tomograms, tomograms_of

    if tilt_series:
        return tomograms_of(tilt_series), []
    optics = Optics(*microscope, group, group_name)
    tomograms = Tomograms({}, pixel_size, optics.row(pixel_size), np.array(size, dtype=float))
    return tomograms, _assumed(context, "pixel_size", *MICROSCOPE)


def prepare_particles(
    context: typer.Context,
    config: CopickConfig,
    session: Annotated[str, typer.Option("--session", "-s", help="Session; tomograms are {session}_{run}.")],
    name: Annotated[str, typer.Option("--name", "-n", help="Object.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory.")] = Path("input"),
    session_id: PickedIn = None,
    user_id: PickedBy = None,
    run_ids: RunIds = None,
    voxel_size: OnlySpacing = None,
    authors: Authors = None,
    x: SizeX = 4096,
    y: SizeY = 4096,
    z: SizeZ = 1200,
    pixel_size: Annotated[float, typer.Option("--pixel-size", "-ps", help="Unbinned, Angstrom.")] = 1.54,
    voltage: Voltage = 300,
    spherical_aberration: Aberration = 2.7,
    amplitude_contrast: Contrast = 0.07,
    optics_group: Group = 1,
    optics_group_name: GroupName = "opticsGroup1",
    relion5: Annotated[
        str, typer.Option("--relion5", metavar=SWITCH, help="Centred coordinates; else RELION 4's pixels.")
    ] = "True",
    tilt_series: MaybeTiltSeries = None,
    skip_unknown: SkipUnknown = False,
    drop_duplicates: DropDuplicates = False,
    overwrite: Overwrite = False,
) -> None:
    """Picks of a copick project, to {output}/{session}_{user}_{sid}_{name}.star."""
    import json

    from py2rely_core.cli.options import is_true
    from py2rely_core.importers.copick import Picks, import_copick
    from py2rely_core.importers.particles import as_pixels
    from py2rely_core.problems import Problem, ProblemError

    microscope = (voltage, spherical_aberration, amplitude_contrast)
    tomograms, assumed = _tomograms(
        context, tilt_series, (x, y, z), pixel_size, optics_group, optics_group_name, microscope
    )
    sized = tilt_series is not None or any(is_given(context, axis) for axis in "xyz")
    centred = is_true(relion5, "--relion5")
    if not centred and not sized:
        what = "RELION 4's pixels are counted from the corner of a tomogram of a known size."
        fix = "Give -x, -y and -z, or --tilt-series."
        raise ProblemError(Problem(what, "--relion5 False", "a size", fix))
    picks = Picks(name, user_id, session_id, names_in(run_ids), voxel_size, names_in(authors))
    parts = [session, user_id, session_id, name]
    path = output / f"{'_'.join(part for part in parts if part)}.star"
    result = import_copick(
        config, picks, path, tomograms, f"{session}_", "_Vol", own_sizes=not sized,
        skip_unknown=skip_unknown, drop_duplicates=drop_duplicates,
    )  # fmt: skip
    if any("centre of the size that is given" in note for note in result.notes):
        assumed += _assumed(context, "x", "y", "z")
    if not centred:
        as_pixels(result.tables[path], tomograms, result)
    _finish(result, overwrite, assumed)
    record = output / "import.json"
    before = json.loads(record.read_text()) if record.is_file() else []
    values = {key: str(value) if isinstance(value, Path) else value for key, value in context.params.items()}
    record.write_text(json.dumps([*before, values | {"written": str(path)}], indent=1) + "\n")


def prepare_import_particles(
    context: typer.Context,
    source: Annotated[Path, typer.Option("--input", "-i", help="Particle STAR file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Particle STAR file.")] = Path("full_picks.star"),
    x: SizeX = 4096,
    y: SizeY = 4096,
    z: SizeZ = 1200,
    pixel_size: Annotated[float, typer.Option("--pixel-size", "-ps", help="Unbinned, Angstrom.")] = 1.54,
    voltage: Voltage = 300,
    spherical_aberration: Aberration = 2.7,
    amplitude_contrast: Contrast = 0.07,
    optics_group: Group = 1,
    optics_group_name: GroupName = "opticsGroup1",
    tilt_series: MaybeTiltSeries = None,
    units: Units = "auto",
    voxel_size: VoxelSize = None,
    skip_unknown: SkipUnknown = False,
    drop_duplicates: DropDuplicates = False,
    overwrite: Overwrite = False,
) -> None:
    """Particles of a STAR file; better with --tilt-series, which knows each tomogram's size."""
    from py2rely_core.importers.particles import import_star

    microscope = (voltage, spherical_aberration, amplitude_contrast)
    tomograms, assumed = _tomograms(
        context, tilt_series, (x, y, z), pixel_size, optics_group, optics_group_name, microscope
    )
    assumed += [] if tilt_series else _assumed(context, "x", "y", "z")
    result = import_star(source, output, tomograms, units, voxel_size, skip_unknown, drop_duplicates)
    _finish(result, overwrite, assumed)
