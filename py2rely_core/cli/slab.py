"""``py2rely slab``: picks as 2D images, classified and chosen, by hand in a RELION project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from py2rely_core.cli.options import HELP_NAMES, is_true

app = typer.Typer(no_args_is_help=True, context_settings=HELP_NAMES)

YES = "yes|no"
DataOption = Annotated[
    Path, typer.Option("--particles", "-p", help="run_itNNN_data.star of a Class2D job, or the job's directory.")
]
DiameterOption = Annotated[
    float | None,
    typer.Option("--particle-diameter", "-pd", min=1, help="Angstrom.", show_default="what the job was run with"),
]


@app.callback()
def slab() -> None:
    """Look at picks as slabs of their tomograms, sort them by 2D classification, and keep the good ones."""


@app.command("make")
def make(
    coordinates: Annotated[
        list[str],
        typer.Option(
            "--in-coords", "-ic",
            help="Picks: particles of RELION 5 (STAR), or copick configurations; give it once for each.",
        ),
    ],
    volumes: Annotated[
        list[str] | None,
        typer.Option(
            "--in-vols", "-iv",
            help="Tomograms: a directory, a tilt-series STAR file (its tomograms, or RELION makes them), or copick "
            "configurations.",
            show_default="those of the picks",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--out-dir", "-o", help="Slabs are written to its stack/.", show_default="the next Extract job"),
    ] = None,
    shape: Annotated[str, typer.Option("--extract-shape", "-es", help="x,y,z, Angstrom; z is summed.")] = "500,500,400",
    voxel_spacing: Annotated[
        float, typer.Option("--voxel-spacing", "-vs", min=0.1, help="Of the tomograms: of copick's, or of those made.")
    ] = 5,
    pixel_size: Annotated[
        float, typer.Option("--pixel-size", "-ps", min=0.1, help="Of the tilt series, unbinned; for picks of copick.")
    ] = 1.54,
    kind: Annotated[str | None, typer.Option("--tomo-alg", "-ta", help="Of copick's tomograms, such as wbp.")] = None,
    user: Annotated[str | None, typer.Option("--user-id", "-uid", help="User that picked.")] = None,
    name: Annotated[str | None, typer.Option("--particle-name", "-pn", help="Object of the copick project.")] = None,
    session: Annotated[str | None, typer.Option("--session-id", "-sid", help="Session of the picks.")] = None,
    diameter: Annotated[
        float | None,
        typer.Option("--particle-diameter", "-pd", min=1, help="Angstrom; outside of it images are normalised.",
                     show_default="half of x"),
    ] = None,
    label: Annotated[
        str, typer.Option("--tomogram-label", help="Column of the tilt-series file, such as of denoised tomograms.")
    ] = "",
    invert: Annotated[str, typer.Option("--invert", metavar=YES, help="Particles are dark in the tomograms.")] = "yes",
    threads: Annotated[int, typer.Option("--nr-threads", "-j", min=1, help="Of RELION's making tomograms.")] = 8,
) -> None:  # fmt: skip
    """Cut a slab around each pick and sum it along z: a stack of images and their particles_relion.star."""
    from py2rely_core.data.tables import read_star
    from py2rely_core.importers.copick import Picks, Volumes, runs_of, volumes_of
    from py2rely_core.launching import slabs as jobs
    from py2rely_core.relion.slabs import PARTICLES, Settings, read_index

    box, thickness = jobs.edges(shape)
    of_copick = _of_copick(coordinates, "--in-coords")
    volumes = volumes or (coordinates if of_copick else None)
    if volumes is None:
        raise typer.BadParameter("say where the tomograms are: --in-vols")
    in_copick = _of_copick(volumes, "--in-vols")
    if (of_copick or in_copick) and kind is None:
        raise typer.BadParameter("say which of copick's tomograms are meant: --tomo-alg")
    if of_copick and name is None:
        raise typer.BadParameter("say which object of the copick project is meant: --particle-name")
    if not of_copick and (user or name or session):
        raise typer.BadParameter("--user-id, --particle-name and --session-id are of a copick project")
    folder = output / "stack" if output else None
    particles = Path(coordinates[0])
    if of_copick:
        configs, particles = [Path(one) for one in coordinates], (output or Path()) / "picks.star"
        runs_of(configs)
        picks = Picks(name or "", user, session, voxel_size=voxel_spacing)
        for note in jobs.picks_of_copick(configs, picks, pixel_size, particles):
            typer.echo(note)
    tilt_series = Path(volumes[0]) if volumes[0].endswith(".star") else None
    source, where = None, label
    binning = 1.0
    if in_copick:
        source = volumes_of(runs_of(map(Path, volumes)), Volumes(kind or "", voxel_spacing), Path.cwd())
    elif tilt_series:
        unbinned = float(read_star(tilt_series)["global"]["rlnTomoTiltSeriesPixelSize"].iloc[0])
        binning = max(1.0, voxel_spacing / unbinned)
    else:
        where = volumes[0]
    settings = Settings(box, thickness, diameter or box / 2, binning, is_true(invert, "--invert"), threads)
    job = jobs.make(particles, settings, folder, source, tilt_series, where)
    index = read_index(job)
    left = int((index["image"] == "").sum())
    typer.echo(f"{len(index) - left} slabs of {len(index)} picks, {thickness:g} A thick")
    if left:
        typer.echo(f"{left} picks are too near the border of their tomogram: they are not judged")
    typer.echo(f"Wrote {job / PARTICLES}")


def _of_copick(names: list[str], option: str) -> bool:
    """Whether these are copick configurations, which alone may be several."""
    configs = [name.endswith(".json") for name in names]
    if len(names) > 1 and not all(configs):
        raise typer.BadParameter(f"several {option} are copick configurations (.json)")
    return all(configs)


@app.command("class2d")
def class2d(
    particles: Annotated[Path, typer.Option("--particles", "-p", help="particles_relion.star of slabs.")],
    tau: Annotated[float, typer.Option("--tau-fudge", "-tau", help="Regularisation T.")] = 2,
    classes: Annotated[
        str | None,
        typer.Option("--nr-classes", "-nc", metavar="N|FROM,TO,STEP", help="Classes.",
                     show_default="one per 50 images, 8 to 100"),
    ] = None,
    algorithm: Annotated[
        str, typer.Option("--class-algorithm", "-alg", metavar="2DEM|VDAM", help="VDAM is gradient-driven.")
    ] = "2DEM",
    iterations: Annotated[
        int | None, typer.Option("--nr-iter", "-ni", min=1, help="Iterations.", show_default="25, with VDAM 200")
    ] = None,
    ctf: Annotated[str, typer.Option("--do-ctf-correction", metavar=YES, help="With the least tilt's defocus.")] = "no",
    first_peak: Annotated[str, typer.Option("--ctf-intact-first-peak", metavar=YES, help="Leave it as it is.")] = "no",
    diameter: Annotated[float, typer.Option("--particle-diameter", "-pd", min=1, help="Of the mask, Angstrom.")] = 300,
    limit: Annotated[float, typer.Option("--highres-limit", help="Angstrom; -1: none.")] = -1,
    align: Annotated[str, typer.Option("--dont-skip-align", metavar=YES, help="Align the images.")] = "yes",
    use_gpu: Annotated[str, typer.Option("--use-gpu", metavar=YES, help="Use the GPUs, if there are any.")] = "yes",
    threads: Annotated[
        int | None, typer.Option("--nr-threads", "-j", min=1, help="Threads.", show_default="16, as far as there are")
    ] = None,
    centre: Annotated[str, typer.Option("--center-class", "-cc", metavar=YES, help="Centre the averages.")] = "yes",
) -> None:  # fmt: skip
    """Sort slabs into classes by RELION's Class2D; with several numbers of classes one after the other."""
    from py2rely_core.cli.submittable import several
    from py2rely_core.judging.selection import as_text
    from py2rely_core.judging.slab_classes import SlabChoice, choose_slab_classes, read_class2d
    from py2rely_core.launching import slabs as jobs
    from py2rely_core.launching.routines import Computer
    from py2rely_core.parameters.recipe import Slabs

    if algorithm.upper() not in ("2DEM", "VDAM"):
        raise typer.BadParameter(f"--class-algorithm is 2DEM or VDAM, not '{algorithm}'")
    switches = {
        "do_ctf_correction": is_true(ctf, "--do-ctf-correction"),
        "dont_skip_align": is_true(align, "--dont-skip-align"),
        "ctf_intact_first_peak": is_true(first_peak, "--ctf-intact-first-peak"),
        "center_class": is_true(centre, "--center-class"),
    }  # fmt: skip
    block = Slabs(tau_fudge=tau, class_algorithm=algorithm.upper(), nr_iter=iterations, highres_limit=limit, **switches)
    computer = Computer(threads, 1, is_true(use_gpu, "--use-gpu"))
    for number in several(classes):
        job = jobs.class2d(particles, block, diameter, number, computer)
        found = read_class2d(job)
        choice = SlabChoice(min_particles=4)
        typer.echo(f"{job}\n{as_text(choose_slab_classes(found, diameter / 1.2, choice), alike=False)}")
        typer.echo(f"Look: py2rely slab summary -i {found.images}")
        typer.echo(f"Keep: py2rely slab select -p {found.data} -c 1,2")


@app.command("summary")
def summary(
    source: Annotated[Path, typer.Option("--input", "-i", help="run_itNNN_classes.mrcs of a Class2D job.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="PDF, or PNG.", show_default="beside the averages")
    ] = None,
) -> None:
    """Write all class averages with particles and resolution: a PDF of 25 classes a page, the largest first."""
    from py2rely_core.launching import slabs as jobs
    from py2rely_core.report.class_sheets import write_class_sheets

    found = jobs.job_of(source)
    if found.images is None:
        raise typer.BadParameter(f"there are no averages of iteration {found.iteration} in {found.job}")
    path = output or found.images.with_suffix(".pdf")
    write_class_sheets(found, path)
    typer.echo(f"Wrote {path}")


@app.command("select")
def select(
    particles: DataOption,
    keep: Annotated[
        str | None, typer.Option("--classes", "-c", help="Classes to keep, such as 3,7,12.", show_default="by the rule")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="STAR file to write.", show_default="the next Select job")
    ] = None,
    slabs: Annotated[
        Path | None, typer.Option("--slabs", help="Directory of the slabs.", show_default="that of the images")
    ] = None,
    not_judged: Annotated[
        str, typer.Option("--keep-not-judged", metavar=YES, help="Keep picks that are too near the border, too.")
    ] = "yes",
    diameter: DiameterOption = None,
) -> None:
    """Keep the picks of chosen classes: their own rows, as they were before slabs were made of them."""
    from py2rely_core.judging.classes import parse_classes
    from py2rely_core.judging.selection import as_text
    from py2rely_core.judging.slab_classes import SlabChoice, choose_slab_classes
    from py2rely_core.launching import slabs as jobs

    found = jobs.job_of(particles)
    with_others = is_true(not_judged, "--keep-not-judged")
    choice = SlabChoice("manual", tuple(parse_classes(keep))) if keep else SlabChoice()
    size = 0.0 if keep else diameter or jobs.diameter_of(found)
    selection = choose_slab_classes(found, size, choice)
    typer.echo(as_text(selection, alike=False))
    written, blocks = jobs.select(found, slabs or jobs.slabs_of(found.data), selection, output, with_others)
    typer.echo(f"Wrote {written}: {len(blocks['particles'])} picks")
