"""``py2rely pipelines``: the whole workflow or its last part, run by Nextflow."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from py2rely_core.cli.options import (
    HELP_NAMES,
    CpuConstraintOption,
    GpuConstraintOption,
    GpuCountOption,
    SubmitOption,
    TimeoutOption,
    constraints,
)

EXTRA = HELP_NAMES | {"allow_extra_args": True}
EPILOG = "Flags stand alone or take True or False. What follows -- goes to nextflow run as it is."
MACHINE, RUN = "This machine", "The run"

app = typer.Typer(no_args_is_help=True, context_settings=HELP_NAMES)


class ClassSelection(StrEnum):
    """Who chooses the classes."""

    AUTO = "auto"
    MANUAL = "manual"


ParameterOption = Annotated[Path, typer.Option("--parameter", "-p", help="Parameter file (JSON).")]
GpusOption = Annotated[
    str | None,
    typer.Option("--gpus", help="Numbers of the GPUs to use, such as 0,1.", rich_help_panel=MACHINE),
]
CpusOption = Annotated[
    int | None, typer.Option("--cpus", help="Cores per step.", show_default="all", rich_help_panel=MACHINE)
]
OutdirOption = Annotated[
    Path | None, typer.Option("--outdir", help="Where results go.", show_default="results", rich_help_panel=RUN)
]
ProfileOption = Annotated[
    str | None,
    typer.Option("--profile", help="Nextflow profile.", show_default="local, or slurm", rich_help_panel=RUN),
]
DryOption = Annotated[
    bool, typer.Option("--dry-run", help="Show the Nextflow command, and do not run it.", rich_help_panel=RUN)
]


@app.callback()
def pipelines() -> None:
    """Run the whole workflow, or its last part. The same command goes on after any interruption."""


@app.command("sta", context_settings=EXTRA, epilog=EPILOG)
def sta(
    context: typer.Context,
    parameter: ParameterOption = Path("sta_parameters.json"),
    reference_template: Annotated[
        Path | None,
        typer.Option("--reference-template", "-rt", help="A map, on any grid.", rich_help_panel="First reference"),
    ] = None,
    denovo: Annotated[
        bool,
        typer.Option(
            "--run-denovo-generation", "-dg", help="From the particles alone.", rich_help_panel="First reference"
        ),
    ] = False,
    extract_3d: Annotated[
        bool,
        typer.Option(
            "--extract3D",
            "-e3d",
            help="Pseudo-subtomograms at the first binning are volumes, not 2D stacks.",
            rich_help_panel="First reference",
        ),
    ] = False,
    class3d: Annotated[
        bool,
        typer.Option(
            "--run-class3D", "-rc3d", help="Classify after the first refinement.", rich_help_panel="Classification"
        ),
    ] = False,
    selection: Annotated[
        ClassSelection,
        typer.Option(
            "--class-selection",
            "-cs",
            help="Choose the classes by rule, or stop after the classification.",
            rich_help_panel="Classification",
        ),
    ] = ClassSelection.AUTO,
    manual_masking: Annotated[
        bool,
        typer.Option("--manual-masking", "-mm", help="Stop after the first level, to look at its mask."),
    ] = False,
    submit: SubmitOption = False,
    num_gpus: GpuCountOption = None,
    gpu_constraint: GpuConstraintOption = None,
    cpu_constraint: CpuConstraintOption = None,
    timeout: TimeoutOption = None,
    gpus: GpusOption = None,
    cpus: CpusOption = None,
    outdir: OutdirOption = None,
    profile: ProfileOption = None,
    dry_run: DryOption = False,
) -> None:
    """From tilt series and particles to the map."""
    settings: dict[str, Any] = {"parameter": parameter, "reference_template": reference_template}
    settings |= {"run_denovo_generation": denovo, "run_class3D": class3d}
    settings |= {"class_selection": selection.value}
    if extract_3d or manual_masking:
        from py2rely_core.launching.launch import first_binning

        binning = first_binning(parameter)
        settings |= {f"levels.{binning}.pseudo_subtomo.do_output_2dstacks": "no"} if extract_3d else {}
        settings |= {"resolutions.binning_list": f"[{binning}]"} if manual_masking else {}
    notes = []
    if manual_masking:
        notes = [
            f"Stops after bin {binning}: its mask is MaskCreate/bin{binning}_result/mask.mrc in the output directory.",
            "To go on, give the same command without --manual-masking; to change the mask, also with",
            f"  -- --levels.{binning}.mask_create.ini_threshold VALUE",
        ]
    settings |= {"outdir": outdir}
    _run(context, settings, _cluster(submit, num_gpus, gpu_constraint, cpu_constraint, timeout), gpus, cpus,
         profile, dry_run, notes=notes)  # fmt: skip


@app.command("bin1", context_settings=EXTRA, epilog=EPILOG)
def bin1(
    context: typer.Context,
    parameter: ParameterOption = Path("sta_parameters.json"),
    tomograms: Annotated[Path, typer.Option("--tomograms", "-tomo", help="Tilt-series STAR file.")] = Path(
        "tomograms.star"
    ),
    particles: Annotated[Path, typer.Option("--particles", "-pts", help="Refined particles.")] = Path("particles.star"),
    mask: Annotated[Path | None, typer.Option("--mask", "-m", help="Mask at bin 1.", show_default="made")] = None,
    low_pass: Annotated[float, typer.Option("--low-pass", "-lp", help="Of the reference, Angstrom.")] = 10,
    reference_template: Annotated[
        Path | None,
        typer.Option("--reference-template", "-rt", help="The reference.", show_default="made from the particles"),
    ] = None,
    rerun: Annotated[
        bool, typer.Option("--rerun", "-rr", help="Repeat every step, also those that are done.", rich_help_panel=RUN)
    ] = False,
    submit: SubmitOption = False,
    num_gpus: GpuCountOption = None,
    gpu_constraint: GpuConstraintOption = None,
    cpu_constraint: CpuConstraintOption = None,
    timeout: TimeoutOption = None,
    gpus: GpusOption = None,
    cpus: CpusOption = None,
    outdir: OutdirOption = None,
    profile: ProfileOption = None,
    dry_run: DryOption = False,
) -> None:
    """Refine particles at full resolution, with the tilt series that belong to them."""
    settings = {"parameter": parameter, "start": "bin1", "particles": particles, "tomograms": tomograms}
    settings |= {"mask": mask, "low_pass": low_pass, "reference_template": reference_template, "outdir": outdir}
    _run(context, settings, _cluster(submit, num_gpus, gpu_constraint, cpu_constraint, timeout), gpus, cpus,
         profile, dry_run, resume=not rerun)  # fmt: skip


@app.command("polish", context_settings=EXTRA, epilog=EPILOG)
def polish(
    context: typer.Context,
    parameter: ParameterOption = Path("sta_parameters.json"),
    particles: Annotated[Path, typer.Option("--particles", "-pts", help="Particles refined at bin 1.")] = Path(
        "particles.star"
    ),
    mask: Annotated[Path, typer.Option("--mask", "-m", help="Mask at bin 1.")] = Path("mask.mrc"),
    tomograms: Annotated[
        Path | None, typer.Option("--tomograms", "-tomo", help="Tilt series.", show_default="the parameter file's")
    ] = None,
    motion: Annotated[
        Path | None, typer.Option("--motion", "-mo", help="Trajectories of an earlier polishing.")
    ] = None,
    iterations: Annotated[int, typer.Option("--num-iterations", "-niter", min=1, help="Cycles at most.")] = 5,
    submit: SubmitOption = False,
    num_gpus: GpuCountOption = None,
    gpu_constraint: GpuConstraintOption = None,
    cpu_constraint: CpuConstraintOption = None,
    timeout: TimeoutOption = None,
    gpus: GpusOption = None,
    cpus: CpusOption = None,
    outdir: OutdirOption = None,
    profile: ProfileOption = None,
    dry_run: DryOption = False,
) -> None:
    """Cycles of CTF refinement, polishing and refinement at bin 1, of which the best is kept."""
    settings = {"parameter": parameter, "start": "polish", "particles": particles, "tomograms": tomograms}
    settings |= {"motion": motion, "mask": mask, "polishing.cycles": iterations, "outdir": outdir}
    _run(context, settings, _cluster(submit, num_gpus, gpu_constraint, cpu_constraint, timeout), gpus, cpus,
         profile, dry_run)  # fmt: skip


def _cluster(submit: bool, num_gpus: int | None, gpu: list[str] | None, cpu: str | None, timeout: float | None) -> Any:
    from py2rely_core.launching.launch import Cluster

    return Cluster(submit, num_gpus, constraints(gpu), cpu, timeout)


def _run(
    context: typer.Context,
    settings: dict[str, Any],
    cluster: Any,
    gpus: str | None,
    cpus: int | None,
    profile: str | None,
    dry_run: bool,
    resume: bool = True,
    notes: list[str] | None = None,
) -> None:
    from py2rely_core.launching import launch

    manual = settings.pop("class_selection", None)
    settings |= {"class_selection": manual} if settings.get("run_class3D") else {}
    launch.check_request(settings["parameter"], settings.get("run_class3D", False), manual == "manual", context.args)
    machine = launch.parameters_of(cluster)
    machine |= {name: value for name, value in (("gpus", gpus), ("cpus", cpus)) if value is not None}
    profile = profile or ("slurm" if cluster.submit else "local")
    command = launch.nextflow_command(settings | machine, profile, resume, context.args)
    for line in notes or []:
        typer.echo(line)
    typer.echo(shlex.join(command))
    if not dry_run:
        launch.start(command)
