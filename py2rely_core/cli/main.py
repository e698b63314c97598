"""The ``py2rely`` command. Only the group that is used is imported, so that ``--help`` answers at once."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated, Any

import typer

from py2rely_core import __version__
from py2rely_core.cli.options import HELP_NAMES, SWITCH, SWITCH_WORDS
from py2rely_core.problems import ExitCode, ProblemError

#: Name to module and the line that ``--help`` shows. A module has a typer ``app``, or is one command, ``command``.
COMMANDS = {
    "prepare": ("py2rely_core.cli.prepare", "Write the parameter file, or make a template."),
    "check": ("py2rely_core.cli.check", "Check parameters, data and machine before a run."),
    "import": ("py2rely_core.cli.import_data", "Tilt series and particles from other programs."),
    "export": ("py2rely_core.cli.export", "Refined particles for other programs; a run for deposition."),
    "check-hand": ("py2rely_core.cli.check_hand", "Find out which hand (rlnTomoHand) the tilt series have."),
    "pipelines": ("py2rely_core.cli.pipelines", "Run the whole workflow, or its last part."),
    "status": ("py2rely_core.cli.status", "Show how far a run is."),
    "clean": ("py2rely_core.cli.clean", "Free what of a run's files is not needed any more."),
    "ui": ("py2rely_core.cli.ui", "Watch runs and RELION projects in a browser of this machine."),
    "routines": ("py2rely_core.cli.routines", "Run one RELION job, or choose classes."),
    "slab": ("py2rely_core.cli.slab", "Sort picks by 2D classification of slabs, and keep the good ones."),
    "relion": ("py2rely_core.cli.relion", "Call any RELION program."),
    "demo-data": ("py2rely_core.cli.demo", "Simulate a data set with known truth."),
    "compare-truth": ("py2rely_core.cli.truth", "Compare a run on simulated data with the truth, with a picture."),
    "report": ("py2rely_core.cli.report", "Make the page of a run again, from results.json and the maps."),
    "compare": ("py2rely_core.cli.compare", "Put two runs side by side."),
    "utils": ("py2rely_core.cli.utils", "Names and picks between programs."),
    "config": ("py2rely_core.cli.config", "Set up RELION, SLURM and scratch for this site, once."),
    "task": ("py2rely_core.cli.task", "The workflow's own steps."),
}
#: Not for people.
HIDDEN = {"task"}
PROGRAM = "py2rely"


def build(used: str | None) -> typer.Typer:
    """The command line with the group that is used in full, and the others by name only."""
    # The list of all groups is plain: boxes and colours take longer to import than all the rest.
    boxes = {} if used else {"rich_markup_mode": None}
    cli = typer.Typer(no_args_is_help=True, context_settings=HELP_NAMES, pretty_exceptions_enable=False, **boxes)
    cli.callback()(_options)
    for name, (module, text) in COMMANDS.items():
        imported = importlib.import_module(module) if name == used else None
        shown = {"help": text, "short_help": text, "hidden": name in HIDDEN}
        if hasattr(imported, "app"):
            cli.add_typer(imported.app, name=name, context_settings=HELP_NAMES, **shown)
        else:
            command = getattr(imported, "command", _not_imported)
            settings = HELP_NAMES | getattr(imported, "CONTEXT", {})
            cli.command(name, context_settings=settings, **shown)(command)
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


def with_values(arguments: list[str], command: Any) -> list[str]:
    """The arguments with every flag as the command line parser wants it.

    A flag may stand alone or be followed by True or False, as in the reference system: ``--submitit True`` becomes
    ``--submitit``, ``--submitit False`` is left out (or becomes its ``--no-...``). What the flags are is read from the
    commands' own options.

    Parameters
    ----------
    arguments : list of str
        As typed.
    command : click command or group
        The whole command line, as :func:`build` makes it.
    """
    result: list[str] = []
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            return [*result, word, *waiting]
        if word in (subcommands := getattr(command, "commands", {})):
            command = subcommands[word]
        name, equals, attached = word.partition("=")
        option = next((one for one in command.params if name in one.opts), None)
        value = attached if equals else waiting[0] if waiting else ""
        said = SWITCH_WORDS.get(value.lower())
        if option is not None and getattr(option, "is_bool_flag", False) and said is not None:
            waiting = waiting if equals else waiting[1:]
            result += [name] if said else option.secondary_opts[:1]
        elif option is not None and option.metavar == SWITCH and not equals:
            result += [word] if said is not None else [word, "True"]
        else:
            result.append(word)
    return result


def _used(arguments: list[str]) -> str | None:
    """The command that is used, also when a shell asks for completions."""
    if f"_{PROGRAM.upper()}_COMPLETE" in os.environ:
        typed = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS") or ""
        arguments = typed.split()[1:]
    return arguments[0] if arguments and arguments[0] in COMMANDS else None


def main() -> None:
    """Run the command line; problems are printed as one list, with the exit code that they carry."""
    command = typer.main.get_command(build(_used(sys.argv[1:])))
    try:
        command(with_values(sys.argv[1:], command), prog_name=PROGRAM)
    except ProblemError as error:
        count = len(error.problems)
        print(f"py2rely: {count} problem{'s' if count > 1 else ''}\n{error}", file=sys.stderr)
        sys.exit(int(error.exit_code))
    except KeyboardInterrupt:
        sys.exit(int(ExitCode.INTERNAL))


if __name__ == "__main__":
    main()
