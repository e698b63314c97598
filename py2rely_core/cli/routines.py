"""``py2rely routines``: one RELION job in the current RELION project, and the choice of classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from py2rely_core.cli.options import HELP_NAMES, is_parameter_file
from py2rely_core.cli.submittable import several, submittable

if TYPE_CHECKING:
    from py2rely_core.judging.classes import Classification

DATA, SEARCH, COMPUTER = "Data", "Search", "Computer"
app = typer.Typer(no_args_is_help=True, context_settings=HELP_NAMES)

OptionalParameter = Annotated[
    Path | None, typer.Option("--parameter", "-param", help="Parameter file; options that are given go before it.")
]
ParticlesOption = Annotated[Path, typer.Option("--particles", "-p", help="Particles STAR file.", rich_help_panel=DATA)]
TomogramsOption = Annotated[
    Path, typer.Option("--tomogram", "--tomograms", "-t", help="Tilt-series STAR file.", rich_help_panel=DATA)
]
MotionOption = Annotated[
    Path | None, typer.Option("--motion", "-m", help="Trajectories of a polishing.", rich_help_panel=DATA)
]
ReferenceOption = Annotated[Path, typer.Option("--reference", "-r", help="Reference map.", rich_help_panel=DATA)]
ThreadsOption = Annotated[
    int | None,
    typer.Option("-j", "--nthreads", min=1, help="Threads.", show_default="8 at most", rich_help_panel=COMPUTER),
]
RanksOption = Annotated[
    int | None,
    typer.Option(
        "-np", "--nprocesses", min=1, help="MPI processes.", show_default="as many as fit", rich_help_panel=COMPUTER
    ),
]
BinOption = Annotated[int, typer.Option("--binfactor", "-bf", min=1, help="Binning.")]
SymmetryOption = Annotated[
    str | None, typer.Option("--symmetry", "-sym", help="Point group.", show_default="C1, or the parameter file's")
]
CorrectedOption = Annotated[
    bool | None,
    typer.Option(
        "--ref-correct-greyscale/--no-ref-correct-greyscale",
        "-rcg",
        help="The reference has the data's grey scale; if not, the first iteration compares by correlation.",
        show_default="True, or the parameter file's",
        rich_help_panel=SEARCH,
    ),
]


@app.callback()
def routines() -> None:
    """Run one RELION job in the RELION project of this directory; outputs are checked, the project knows the job."""


@app.command("extract")
@submittable(uses_gpu=lambda values: False)
def extract(
    particles: ParticlesOption,
    tomogram: TomogramsOption = Path("tomograms.star"),
    parameter: OptionalParameter = None,
    binning: BinOption = 1,
    motion: MotionOption = None,
    box: Annotated[
        int | None, typer.Option("--boxsize", "-bs", help="Pixels.", show_default="from the particle diameter")
    ] = None,
    crop: Annotated[
        int | None, typer.Option("--cropsize", "-cs", help="Pixels after cropping; -1: not cropped.")
    ] = None,
    apex: Annotated[
        bool, typer.Option("--apex", "-apex", help="Without CTF and without the concatenated CTF image.")
    ] = False,
    threads: ThreadsOption = None,
    ranks: RanksOption = None,
) -> None:
    """Cut out particles (pseudo-subtomograms) at one binning."""
    from py2rely_core.launching import routines as jobs

    recipe = jobs.recipe_of(parameter, jobs.pixel_size_of(tomogram), binning, first_low_pass=False)
    computer = jobs.Computer(threads, ranks, use_gpu=False)
    _print(jobs.extract(recipe, computer, particles, tomogram, motion, box, crop, apex), "particles.star")


@app.command("reconstruct")
@submittable(uses_gpu=lambda values: False)
def reconstruct(
    particles: ParticlesOption,
    tomograms: Annotated[
        Path, typer.Option("--tomograms", "-t", help="Tilt-series STAR file.", rich_help_panel=DATA)
    ] = Path("tomograms.star"),
    parameter: OptionalParameter = None,
    motion: MotionOption = None,
    binning: BinOption = 1,
    box: Annotated[
        int | None, typer.Option("--boxsize", "-bs", help="Pixels.", show_default="256, or from the parameter file")
    ] = None,
    crop: Annotated[
        int | None,
        typer.Option(
            "--cropsize", "-cs", help="Pixels after cropping.", show_default="256, or from the parameter file"
        ),
    ] = None,
    symmetry: SymmetryOption = None,
    threads: ThreadsOption = None,
    ranks: RanksOption = None,
) -> None:
    """Average particles as they are oriented, with half maps."""
    from py2rely_core.launching import routines as jobs

    blocks = {"refine3D": {"sym_name": symmetry}, "reconstruct": {"point_group": symmetry}}
    recipe = jobs.recipe_of(parameter, jobs.pixel_size_of(tomograms), binning, first_low_pass=False, **blocks)
    if parameter is None:
        box, crop = box or 256, crop or (box or 256)
    computer = jobs.Computer(threads, ranks, use_gpu=False)
    _print(jobs.reconstruct(recipe, computer, particles, tomograms, motion, box, crop), "merged.mrc")


@app.command("refine3d")
@submittable(uses_gpu=lambda values: values["use_gpu"])
def refine3d(
    particles: ParticlesOption,
    reference: ReferenceOption,
    tomogram: TomogramsOption = Path("tomograms.star"),
    parameter: OptionalParameter = None,
    motion: Annotated[
        Path | None, typer.Option("--motion", "-mo", help="Trajectories of a polishing.", rich_help_panel=DATA)
    ] = None,
    mask: Annotated[Path | None, typer.Option("--mask", "-ma", help="Mask.", rich_help_panel=DATA)] = None,
    low_pass: Annotated[
        float | None,
        typer.Option(
            "--low-pass", "-lp", help="Of the reference, Angstrom.", show_default="15", rich_help_panel=SEARCH
        ),
    ] = None,
    diameter: Annotated[
        float | None,
        typer.Option(
            "--diameter", "-d", help="Particle diameter, Angstrom.", show_default="280", rich_help_panel=SEARCH
        ),
    ] = None,
    symmetry: SymmetryOption = None,
    sampling: Annotated[
        str | None,
        typer.Option(
            "--sampling-angle", "-ang", show_default="7.5 degrees", rich_help_panel=SEARCH, help="First sampling."
        ),
    ] = None,
    local_sampling: Annotated[
        str | None,
        typer.Option(
            "--local-sampling-angle",
            "-lan",
            show_default="1.8 degrees",
            rich_help_panel=SEARCH,
            help="From this sampling on, search locally.",
        ),
    ] = None,
    corrected: CorrectedOption = None,
    continue_iter: Annotated[
        str | None,
        typer.Option(
            "--continue-iter",
            help="Go on from this iteration of the newest Refine3D job, or from a run_itNNN_optimiser.star.",
        ),
    ] = None,
    threads: ThreadsOption = None,
    ranks: RanksOption = None,
    pool: Annotated[
        int | None,
        typer.Option(
            "-npool",
            "--npool",
            "--nr-pool",
            min=1,
            help="Particles per batch.",
            show_default="16",
            rich_help_panel=COMPUTER,
        ),
    ] = None,
    use_gpu: Annotated[
        bool,
        typer.Option("--use-gpu/--no-use-gpu", "-g", help="Use the GPUs, if there are any.", rich_help_panel=COMPUTER),
    ] = True,
) -> None:
    """Refine orientations and positions of two independent half sets."""
    from py2rely_core.launching import routines as jobs

    given = {"ini_high": low_pass, "particle_diameter": diameter, "sym_name": symmetry, "sampling": sampling,
             "auto_local_sampling": local_sampling, "ref_correct_greyscale": corrected, "nr_pool": pool}  # fmt: skip
    if parameter is None:
        given = {"ini_high": 15, "particle_diameter": 280, "nr_pool": 16} | {
            k: v for k, v in given.items() if v is not None
        }
    recipe = jobs.recipe_of(parameter, *jobs.grid_of_particles(particles), refine3D=given)
    computer = jobs.Computer(threads, ranks, use_gpu)
    _print(
        jobs.refine3d(recipe, computer, particles, tomogram, motion, reference, mask, continue_iter), "run_class001.mrc"
    )


@app.command("class3d")
@submittable(uses_gpu=lambda values: values["align"])
def class3d(
    particles: ParticlesOption,
    reference: ReferenceOption,
    tomogram: TomogramsOption = Path("tomograms.star"),
    parameter: OptionalParameter = None,
    mask: Annotated[Path | None, typer.Option("--mask", "-m", help="Mask.", rich_help_panel=DATA)] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--nr-classes",
            metavar="N|FROM,TO,STEP",
            help="Classes; 2,8,2 runs 2, 4, 6 and 8.",
            show_default="5",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option("--nr-iter", "-ni", min=1, help="Iterations.", show_default="15", rich_help_panel=SEARCH),
    ] = None,
    tau: Annotated[
        float | None,
        typer.Option("--tau-fudge", "-tau", help="Regularisation T.", show_default="3", rich_help_panel=SEARCH),
    ] = None,
    low_pass: Annotated[
        float | None,
        typer.Option(
            "--ini-high", help="Low-pass of the reference, Angstrom.", show_default="25", rich_help_panel=SEARCH
        ),
    ] = None,
    diameter: Annotated[
        float | None,
        typer.Option(
            "--diameter", "-d", help="Particle diameter, Angstrom.", show_default="280", rich_help_panel=SEARCH
        ),
    ] = None,
    symmetry: SymmetryOption = None,
    corrected: CorrectedOption = None,
    align: Annotated[
        bool,
        typer.Option("--align-particles", "-align", help="Search orientations, too (on GPUs).", rich_help_panel=SEARCH),
    ] = False,
    threads: ThreadsOption = None,
    ranks: RanksOption = None,
) -> None:
    """Classify particles; with several numbers of classes one after the other, and a table of them at the end."""
    from py2rely_core.launching import routines as jobs

    done = []
    for number in several(classes):
        given = {"ini_high": low_pass, "nr_classes": number, "nr_iter": iterations, "tau_fudge": tau,
                 "particle_diameter": diameter, "ref_correct_greyscale": corrected}  # fmt: skip
        if parameter is None:
            given = {"ini_high": 25, "nr_classes": 5, "particle_diameter": 280} | {
                k: v for k, v in given.items() if v is not None
            }
        blocks = {"class3D": given, "refine3D": {"sym_name": symmetry}}
        recipe = jobs.recipe_of(parameter, *jobs.grid_of_particles(particles), first_low_pass=False, **blocks)
        computer = jobs.Computer(threads, ranks, use_gpu=align)
        job = jobs.class3d(recipe, computer, particles, tomogram, reference, mask, align)
        _print_classes(job)
        _print(job, "run_data.star")
        done.append(job)
    if len(done) > 1:
        compare_classes(done)


@app.command("compare-classes")
def compare_classes(
    jobs: Annotated[list[Path], typer.Argument(metavar="JOB...", help="Class3D jobs: directories.")],
) -> None:
    """One table of several classifications: numbers of classes, resolutions and shares."""
    from py2rely_core.judging import classes

    found = [classes.read_classification(classes.find_class_job(str(job))) for job in jobs]
    typer.echo(classes.comparison_text(found))


@app.command("mask-create")
@submittable(uses_gpu=lambda values: False)
def mask_create(
    source: Annotated[Path, typer.Option("--map", "-m", help="Map.")],
    threshold: Annotated[float, typer.Option("--threshold", "-thr", help="Density at the mask's border.")] = 0.1,
    extend: Annotated[int, typer.Option("--extend", "-ext", min=0, help="Pixels by which it is extended.")] = 3,
    width: Annotated[int, typer.Option("--width", "-w", min=0, help="Pixels of soft edge.")] = 10,
    low_pass: Annotated[float, typer.Option("--low-pass", "-lp", min=0, help="Of the map, Angstrom.")] = 15,
    threads: Annotated[int, typer.Option("-j", "--nthreads", min=1, help="Threads.")] = 16,
) -> None:
    """Make a soft mask from a map."""
    from py2rely_core.launching import routines as jobs

    _print(jobs.mask_create(source, threshold, extend, width, low_pass, threads), "mask.mrc")


@app.command("post-process")
@submittable(uses_gpu=lambda values: False)
def post_process(
    half_map: Annotated[
        Path, typer.Option("--half-map", "-hm", help="First half map; the other is found by its name.")
    ],
    mask: Annotated[Path, typer.Option("--mask", "-m", help="Mask.")],
    low_pass: Annotated[
        float | None,
        typer.Option("--low-pass", "-lp", help="Filter there, Angstrom.", show_default="weighted by the FSC"),
    ] = None,
) -> None:
    """Resolution of half maps within a mask, and the filtered map."""
    import json

    from py2rely_core.launching import routines as jobs

    job = jobs.post_process(half_map, mask, low_pass)
    typer.echo(f"Resolution: {json.loads((job / 'job.json').read_text())['resolution']:.2f} A")
    _print(job, "postprocess.mrc")


@app.command("select")
def select(
    source: Annotated[
        Path | None,
        typer.Option("-p", help="Parameter file, for the refinement; or classified particles (STAR)."),
    ] = None,
    parameter: Annotated[
        Path | None,
        typer.Option("--parameter", help="Parameter file, for the refinement.", show_default="sta_parameters.json"),
    ] = None,
    particles: Annotated[
        Path | None,
        typer.Option("--particles", help="Classified particles, also of a Class2D job, in place of --class-job."),
    ] = None,
    class_job: Annotated[
        str, typer.Option("--class-job", "-cj", help="Class3D job: number, name such as bin4, or path.")
    ] = "job001",
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep-classes", "-kc", "--classes", "-c", show_default="1,2,3, of a job",
            help="Classes to keep, counted from 1, comma-separated.",
        ),
    ] = None,
    best: Annotated[
        int | None,
        typer.Option(
            "--best-class", "-bc", min=1, help="Class that is the refinement's reference.", show_default="1, of a job"
        ),
    ] = None,
    run_refinement: Annotated[
        bool, typer.Option("--run-refinement", "-rr", help="Refine the chosen particles.")
    ] = False,
    mask: Annotated[Path | None, typer.Option("--mask-path", "-mp", help="Mask for the refinement.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="STAR file to write.", show_default="a Select job's")
    ] = None,
    tomograms: Annotated[
        Path | None,
        typer.Option("--tomograms", "-t", help="Tilt series of the refinement.", show_default="as classified"),
    ] = None,
) -> None:  # fmt: skip
    """Keep the particles of chosen classes, of a Class3D job or of a file of particles, as a new particle set."""
    from py2rely_core.judging import classes
    from py2rely_core.judging.selection import as_text
    from py2rely_core.launching import routines as jobs

    if source and is_parameter_file(source):
        parameter = source
    elif source:
        particles = source
    if particles:
        if best is not None or run_refinement or mask or tomograms:
            raise typer.BadParameter("a refinement needs the Class3D job: give --class-job in place of particles")
        if keep is None:
            raise typer.BadParameter("say which classes to keep: --classes 3,7,12")
        typer.echo(f"Wrote {jobs.select_rows(particles, classes.parse_classes(keep), output)}")
        return
    best = best or 1
    found = classes.read_classification(classes.find_class_job(class_job))
    if found.kind == "2D":
        raise typer.BadParameter(f"this is a Class2D job: choose of its particles, -p {found.data} -c 3,7,12")
    kept = classes.parse_classes(keep or "1,2,3")
    selection = classes.judge(found, classes.choice_of(kept, best), jobs.diameter_of(found.job))
    typer.echo(as_text(selection))
    written = jobs.select(found, selection, output)
    typer.echo(f"Wrote {written}")
    if run_refinement:
        tilt_series = tomograms or jobs.tilt_series_of(found.job)
        recipe = jobs.recipe_of(parameter or Path("sta_parameters.json"), *jobs.grid_of_particles(written))
        _print(
            jobs.refine3d(recipe, jobs.Computer(), written, tilt_series, None, found.maps[best], mask),
            "run_class001.mrc",
        )


@app.command("summary")
def summary(
    source: Annotated[
        str,
        typer.Option(
            "--input", "-i", metavar="JOB|FILE",
            help="Class2D or Class3D job (number, name or path), or a file of one iteration: run_it025_classes.mrcs.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Directory for both files.", show_default="the job's")
    ] = None,
    diameter: Annotated[
        float | None,
        typer.Option("--diameter", "-d", min=1, help="Of the particle, Angstrom.", show_default="the job's"),
    ] = None,
) -> None:  # fmt: skip
    """Show a classification: a page on which classes are chosen by looking, and a PDF."""
    from py2rely_core.judging import classes
    from py2rely_core.report.class_summary import write_summary

    found = classes.open_classification(source)
    if found.kind == "2D" and diameter:
        raise typer.BadParameter("--diameter is for maps: this is a Class2D job")
    settings = _by_rule(found, diameter) if found.kind == "3D" else {}
    for path in write_summary(found, output, **settings):
        typer.echo(f"Wrote {path}")


def _print(job: Any, name: str) -> None:
    typer.echo(f"Wrote {job / name}")


def _print_classes(job: Path) -> None:
    from py2rely_core.judging import classes
    from py2rely_core.report.class_summary import write_by_hand

    found = classes.read_classification(job)
    typer.echo(job)
    settings = _by_rule(found)
    typer.echo(f"To choose by looking: {write_by_hand(found, **settings)}")


def _by_rule(found: Classification, diameter: float | None = None) -> dict[str, Any]:
    """What the rule thinks of maps, printed as a table too: the settings of a page."""
    from py2rely_core.judging import classes
    from py2rely_core.judging.selection import Choice, as_text
    from py2rely_core.launching import routines as jobs

    diameter = diameter or jobs.diameter_of(found.job)
    selection = classes.judge(found, Choice("auto", min_per_half=2), diameter)
    typer.echo(as_text(selection))
    return {"verdicts": classes.verdicts_of(selection), "reason": selection.reason, "diameter": diameter}
