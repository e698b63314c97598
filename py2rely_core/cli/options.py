"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

HELP_NAMES = {"help_option_names": ["-h", "--help"]}
#: What may follow a flag. An option with this metavar takes such a word, and may stand alone for True.
SWITCH = "[True|False]"
SWITCH_WORDS = {"true": True, "yes": True, "false": False, "no": False}
CLUSTER = "SLURM cluster"

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")]
SkipMissing = Annotated[str, typer.Option("--skip-missing", "-sm", metavar=SWITCH, help="Leave out what is not there.")]

# The tomogram where nothing says its size.
SizeX = Annotated[float, typer.Option("-x", "--x", "--dim-x", help="Tomogram, unbinned voxels, where nothing says.")]
SizeY = Annotated[float, typer.Option("-y", "--y", "--dim-y", help="Tomogram, unbinned voxels, where nothing says.")]
SizeZ = Annotated[float, typer.Option("-z", "--z", "--dim-z", help="Tomogram, unbinned voxels, where nothing says.")]

# The microscope, where it is assumed.
Voltage = Annotated[float, typer.Option("--voltage", "-v", help="kV.")]
Aberration = Annotated[float, typer.Option("--spherical-aberration", "-sa", help="mm.")]
Contrast = Annotated[float, typer.Option("--amplitude-contrast", "-ac", help="Share.")]

# Picks of a copick project.
CopickConfig = Annotated[Path, typer.Option("--config", "-c", help="copick configuration.")]
PickedBy = Annotated[str | None, typer.Option("--user-id", "-uid", help="User that picked.")]
PickedIn = Annotated[str | None, typer.Option("--session-id", "-sid", help="Session of the picks.")]
RunIds = Annotated[str | None, typer.Option("--run-ids", "-rids", help="Runs, separated by commas.")]
OnlySpacing = Annotated[float | None, typer.Option("--voxel-size", "-vs", help="Only runs with this voxel spacing.")]
Authors = Annotated[str | None, typer.Option("--authors", "-a", help="Authors on the data portal.")]

# A cluster.
SubmitOption = Annotated[bool, typer.Option("--submitit", "-s", help="Submit to SLURM.", rich_help_panel=CLUSTER)]
GpuCountOption = Annotated[
    int | None,
    typer.Option(
        "--num-gpus",
        "-ng",
        help="GPUs per job; without --submitit, of this machine.",
        show_default="4 on SLURM",
        rich_help_panel=CLUSTER,
    ),
]
GpuConstraintOption = Annotated[
    list[str] | None,
    typer.Option("--gpu-constraint", "-gc", help="GPU type, such as a100; may be repeated.", rich_help_panel=CLUSTER),
]
CpuConstraintOption = Annotated[
    str | None,
    typer.Option(
        "--cpu-constraint",
        "-cc",
        metavar="CPUS,GB",
        help="Per job; without --submitit, CPUs of this machine.",
        show_default="4,16 on SLURM",
        rich_help_panel=CLUSTER,
    ),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", "-t", help="Hours per job.", show_default="48", rich_help_panel=CLUSTER),
]


def is_true(text: str, option: str) -> bool:
    """The value of an option that is written as ``--option True``."""
    values = SWITCH_WORDS | {"1": True, "0": False}
    if text.strip().lower() not in values:
        raise typer.BadParameter(f"{option} is True or False, not '{text}'")
    return values[text.strip().lower()]


def names_in(text: str | None) -> list[str]:
    """The names of a list that is separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()] if text else []


def constraints(given: list[str] | None) -> tuple[str, ...]:
    """GPU types, of ``--gpu-constraint`` given once or more often: ``a100,h100``, ``a100|h100``, ``a100 h100``."""
    return tuple(name for text in given or () for name in text.replace(",", " ").replace("|", " ").split())


def is_given(context: typer.Context, name: str) -> bool:
    """Whether an option was typed, by its name in the function."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def is_parameter_file(path: Path) -> bool:
    """Whether a file that may be one or the other is a parameter file (JSON), and not a STAR file, by its content."""
    if not path.is_file():
        return path.suffix == ".json"
    with path.open("rb") as file:
        return file.read(4096).lstrip()[:1] == b"{"


def echo_import(result: Any, overwrite: bool) -> None:
    """Write an import, and say what was read and left out."""
    from py2rely_core.importers.result import write_import

    write_import(result, overwrite)
    for note in result.notes:
        typer.echo(note)
