"""The ``py2rely`` command. Only the group that is used is imported, so that ``--help`` answers at once."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated

import typer

from py2rely_core import __version__
from py2rely_core.problems import ExitCode, ProblemError

#: Name to module and the line that ``--help`` shows. A module has a typer ``app``, or is one command, ``command``.
COMMANDS = {
    "prepare": ("py2rely_core.cli.prepare", "Write the parameter file, or make a template."),
    "demo-data": ("py2rely_core.cli.demo", "Simulate a data set with known truth."),
    "compare-truth": ("py2rely_core.cli.truth", "Compare a run on simulated data with the truth, with a picture."),
    "config": ("py2rely_core.cli.config", "Set up RELION, SLURM and scratch for this site, once."),
    "task": ("py2rely_core.cli.task", "The workflow's own steps."),
}
#: Not for people.
HIDDEN = {"task"}
#: Options that take True or False, and may stand alone for True.
FLAGS = {
    *("-dg", "--denovo-generation", "--run-denovo-generation", "-rc3d", "--run-class3D", "-e3d", "--extract3D"),
    *("-mm", "--manual-masking", "--submitit", "--new-pipeline"),
}
HELP_NAMES = {"help_option_names": ["-h", "--help"]}


def build(used: str | None) -> typer.Typer:
    """The command line with the group that is used in full, and the others by name only."""
    cli = typer.Typer(
        no_args_is_help=True, add_completion=used is None, context_settings=HELP_NAMES, pretty_exceptions_enable=False
    )
    cli.callback()(_options)
    for name, (module, text) in COMMANDS.items():
        imported = importlib.import_module(module) if name == used else None
        if hasattr(imported, "app"):
            cli.add_typer(imported.app, name=name, help=text, hidden=name in HIDDEN, context_settings=HELP_NAMES)
        else:
            command = getattr(imported, "command", _not_imported)
            cli.command(name, help=text, hidden=name in HIDDEN, context_settings=HELP_NAMES)(command)
    return cli


def _not_imported() -> None:
    """Stands in ``--help`` for a command that is not used."""


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"py2rely {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Sub-tomogram averaging with RELION 5, from aligned tilt series and picks to the best map."""


def with_values(arguments: list[str]) -> list[str]:
    """The arguments, with ``True`` after each of :data:`FLAGS` that stands alone."""
    result = []
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        result.append(argument)
        if argument in FLAGS and following.lower() not in {"true", "false", "yes", "no", "1", "0"}:
            result.append("True")
    return result


def main() -> None:
    """Run the command line; problems are printed as one list, with the exit code that they carry."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    used = sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] in COMMANDS else None
    try:
        build(used)(with_values(sys.argv[1:]), prog_name="py2rely")
    except ProblemError as error:
        count = len(error.problems)
        print(f"py2rely: {count} problem{'s' if count > 1 else ''}\n{error}", file=sys.stderr)
        sys.exit(int(error.exit_code))
    except KeyboardInterrupt:
        sys.exit(int(ExitCode.INTERNAL))


if __name__ == "__main__":
    main()
