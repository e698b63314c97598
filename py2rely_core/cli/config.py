"""``py2rely config``: the site's settings, set once for all runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from py2rely_core.cli.options import HELP_NAMES

app = typer.Typer(context_settings=HELP_NAMES)

OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="File to write.", show_default="~/.config/py2rely/site.config")
]
SharedOption = Annotated[bool, typer.Option("--shared", help="Write the installation's file, for all users.")]


@app.callback(invoke_without_command=True)
def config(
    context: typer.Context,
    image: Annotated[Path | None, typer.Option("--image", help="RELION: an Apptainer image ...")] = None,
    load: Annotated[
        str | None, typer.Option("--load", help="... or shell commands, such as 'module load relion/5.0.1'.")
    ] = None,
    partition: Annotated[str | None, typer.Option("--partition", help="Of steps without GPU.")] = None,
    gpu_partition: Annotated[str | None, typer.Option("--gpu-partition", help="Of steps with GPU.")] = None,
    account: Annotated[str | None, typer.Option("--account")] = None,
    qos: Annotated[str | None, typer.Option("--qos")] = None,
    constraint: Annotated[str | None, typer.Option("--constraint", help="Nodes for steps without GPU.")] = None,
    gpu_constraint: Annotated[
        str | None, typer.Option("--gpu-constraint", "-gc", help="Nodes for steps with GPU, such as a100,h100.")
    ] = None,
    gpu_request: Annotated[str | None, typer.Option("--gpu-request", metavar="[gres|gpus]")] = None,
    gpu_type: Annotated[str | None, typer.Option("--gpu-type", help="In that request, such as a100.")] = None,
    num_gpus: Annotated[int | None, typer.Option("--num-gpus", "-ng", help="GPUs per step.")] = None,
    cpus: Annotated[int | None, typer.Option("--cpus", help="Cores per step, at most.")] = None,
    memory: Annotated[float | None, typer.Option("--memory-per-cpu", help="GB, in place of an estimate.")] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", "-t", help="Hours per step.")] = None,
    options: Annotated[str | None, typer.Option("--options", help="Anything else that sbatch takes.")] = None,
    scratch: Annotated[
        str | None, typer.Option("--scratch", help="Shared directory where the work of all runs is kept.")
    ] = None,
    output: OutputOption = None,
    shared: SharedOption = False,
    show_only: Annotated[bool, typer.Option("--show-only", help="Show the settings, as 'config print' does.")] = False,
) -> None:
    """Write the site's settings. Values that are not given stay as they are; without any, a few questions are asked."""
    if context.invoked_subcommand:
        return
    if show_only:
        show()
        return
    given = {
        "image": str(image.resolve()) if image else None,
        "relion_load": load,
        "slurm_partition": partition,
        "slurm_gpu_partition": gpu_partition,
        "slurm_account": account,
        "slurm_qos": qos,
        "slurm_constraint": constraint,
        "gpu_constraint": gpu_constraint,
        "gpu_request": gpu_request,
        "gpu_type": gpu_type,
        "num_gpus": num_gpus,
        "cpus": cpus,
        "slurm_memory_per_cpu": memory,
        "timeout": timeout,
        "slurm_options": options,
    }
    settings = {name: value for name, value in given.items() if value is not None}
    if not settings and not scratch:
        settings, scratch = _questions()
    _write(settings, scratch, output, shared)


@app.command("print")
def show() -> None:
    """Show the files that a run reads, and what they set together."""
    from py2rely_core.launching.site import own_file, shared_file, used_files, used_settings

    files = used_files()
    if not files:
        typer.echo(f"There are no settings: neither {shared_file()} nor {own_file()} nor $PY2RELY_SITE_CONFIG.")
    for path in files:
        typer.echo(f"// {path}\n{path.read_text()}")
    for name, value in used_settings().items():
        typer.echo(f"{name} = {value!r}")


@app.command("import")
def take(
    path: Annotated[Path, typer.Argument(help="A site.config, or py2rely's JSON file with its two shell snippets.")],
    output: OutputOption = None,
    shared: SharedOption = False,
) -> None:
    """Take over the settings of another file."""
    from py2rely_core.launching.site import imported_settings

    _write(imported_settings(path), None, output, shared)


@app.command("add")
def add(
    python_load: Annotated[
        str | None, typer.Option("--python-load", help="Shell commands that load Python.", show_default="asked for")
    ] = None,
    relion_load: Annotated[
        str | None, typer.Option("--relion-load", help="Shell commands that load RELION.", show_default="asked for")
    ] = None,
    output: OutputOption = None,
    shared: SharedOption = False,
) -> None:
    """Set what loads Python and RELION on the nodes; an empty answer for both changes nothing."""
    from py2rely_core.launching.site import load_commands

    asked = {"Commands that load Python": python_load, "Commands that load RELION": relion_load}
    if python_load is None and relion_load is None:
        asked = {text: typer.prompt(text, default="", show_default=False) for text in asked}
    settings = load_commands(*asked.values())
    if settings:
        _write(settings, None, output, shared)
    else:
        typer.echo("Nothing is changed.")


def _write(settings: dict, scratch: str | None, output: Path | None, shared: bool) -> None:
    from py2rely_core.launching.site import own_file, shared_file, write_settings

    path = output or (shared_file() if shared else own_file())
    write_settings(path, settings, scratch)
    typer.echo(f"Wrote {path}")
    if output and not shared:
        typer.echo(f"A run reads it with: export PY2RELY_SITE_CONFIG={path.resolve()}")


def _questions() -> tuple[dict, str | None]:
    """A few answers; an empty one sets nothing."""
    if not sys.stdin.isatty():
        typer.echo("Questions, one answer a line; an empty line sets nothing.", err=True)
    asked = {
        "image": "RELION's Apptainer image",
        "relion_load": "or the commands that load RELION, such as 'module load relion/5.0.1'",
        "slurm_partition": "SLURM partition of steps without GPU",
        "slurm_gpu_partition": "SLURM partition of steps with GPU",
        "slurm_account": "account",
        "gpu_type": "type of GPU, such as a100",
        "num_gpus": "GPUs per step",
        "scratch": "shared scratch directory",
    }
    answers = {name: typer.prompt(text, default="", show_default=False).strip() for name, text in asked.items()}
    answers = {name: answer for name, answer in answers.items() if answer}
    scratch = answers.pop("scratch", None)
    if "num_gpus" in answers:
        if not answers["num_gpus"].isdigit():
            raise typer.BadParameter(f"'{answers['num_gpus']}' is no number of GPUs")
        answers["num_gpus"] = int(answers["num_gpus"])
    return answers, scratch
