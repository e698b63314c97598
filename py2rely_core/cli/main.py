"""The ``py2rely`` command. Groups are imported when they are used, so that ``--help`` answers at once."""

from __future__ import annotations

import importlib
import os
import sys

import click
import typer

from py2rely_core import __version__
from py2rely_core.problems import ExitCode, ProblemError, nearest

#: Name to module, attribute and the line that ``--help`` shows.
COMMANDS = {
    "prepare": ("py2rely_core.cli.prepare", "Parameter file and template."),
    "demo-data": ("py2rely_core.cli.demo", "Simulate a data set with known truth."),
    "compare-truth": ("py2rely_core.cli.truth", "Compare a run's map with the truth of simulated data, with a picture."),
    "task": ("py2rely_core.cli.task", "The workflow's own steps."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        return typer.main.get_command(importlib.import_module(module).app)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"No such command '{args[0]}'. {nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items() if name != "task"])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="py2rely")
def cli() -> None:
    """Sub-tomogram averaging with RELION 5, from aligned tilt series and picks to the best map."""


def main() -> None:
    """Run the command line; problems are printed as one list, with the exit code that they carry."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    try:
        cli(prog_name="py2rely")
    except ProblemError as error:
        count = len(error.problems)
        print(f"py2rely: {count} problem{'s' if count > 1 else ''}\n{error}", file=sys.stderr)
        sys.exit(int(error.exit_code))
    except KeyboardInterrupt:
        sys.exit(int(ExitCode.INTERNAL))


if __name__ == "__main__":
    main()
