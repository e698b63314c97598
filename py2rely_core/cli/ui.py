"""``py2rely ui``: runs and RELION projects in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    directories: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Runs (their output directories, or where they were started) and RELION projects; here by default.",
            metavar="[RUNDIR ...]",
        ),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 0,
) -> None:
    """Watch runs in a browser: steps, outputs as they come, iterations, maps, masks. Nothing is written.

    The page is for this machine and for who has its address, which is printed. Ctrl-C or SIGTERM ends it.
    """
    import getpass
    import os
    import signal

    from py2rely_core.problems import ExitCode, Problem, ProblemError
    from py2rely_core.watching.server import Server, remote_lines
    from py2rely_core.watching.sources import open_sources

    sources = open_sources(directories or [Path()])
    try:
        server = Server(sources, port)
    except OSError as error:
        problem = Problem(f"Port {port} cannot be used: {error.strerror}.", "--port", "a free port", "Leave it out.")
        raise ProblemError(problem, ExitCode.USAGE) from error
    print("\n".join([server.url, *remote_lines(server.server_port, dict(os.environ), getpass.getuser())]), flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.closing.set()
        server.server_close()
