"""``py2rely relion``: any RELION program, of PATH or of the image."""

from __future__ import annotations

from typing import Annotated

import typer

#: Every option belongs to the program, ``--help`` too.
CONTEXT = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def command(
    context: typer.Context,
    program: Annotated[str, typer.Argument(help="Such as relion_align_symmetry, or just align_symmetry.")] = "",
) -> None:
    """Call any RELION program: its arguments, output and exit code are its own.

    Without a program, list those that are there.
    """
    from py2rely_core.launching.launch import start
    from py2rely_core.relion.programs import program_command, programs

    if program in ("", "-h", "--help"):
        typer.echo("Usage: py2rely relion PROGRAM [ARGUMENTS]...\n\nCall any RELION program. These are there:")
        typer.echo("\n".join(f"  {name}" for name in programs()) or "  none: put RELION 5 on PATH")
        raise typer.Exit
    start([*program_command(program), *context.args])
