"""RELION's programs: which there are, and how one is called."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from py2rely_core.problems import ExitCode, Problem, ProblemError, nearest

#: Names an Apptainer image whose RELION is called instead of the one on PATH.
IMAGE_VARIABLE = "PY2RELY_IMAGE"
#: Either is set in a container, whichever of the two programs started it.
_IN_CONTAINER = {"APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"}
#: Where Open MPI has memory that its ranks share, and the names (Open MPI 5 and 4) under which another place is given.
SHARED_MEMORY = Path("/dev/shm")
_BACKING = ("OMPI_MCA_btl_sm_backing_directory", "OMPI_MCA_btl_vader_backing_directory")


def programs() -> list[str]:
    """Names of all RELION programs on PATH, in order."""
    found = set()
    for directory in os.environ.get("PATH", "").split(os.pathsep):
        if directory and Path(directory).is_dir():
            found |= {path.name for path in Path(directory).glob("relion_*") if os.access(path, os.X_OK)}
    return sorted(found)


def configured_image() -> str:
    """The image that RELION is called in; empty for none."""
    return os.environ.get(IMAGE_VARIABLE, "")


def program_command(name: str) -> list[str]:
    """The start of the command that calls a program, of the image if there is one, else of PATH.

    Parameters
    ----------
    name : str
        With or without ``relion_``.

    Raises
    ------
    ProblemError
        There is no such program.
    """
    full = name if name.startswith("relion") else f"relion_{name}"
    image = configured_image()
    if image:
        return _in_image(image, full)
    if shutil.which(full):
        return [full]
    known = programs()
    hint = nearest(full, known) or "Put RELION 5 on PATH ('make setup' provides one)."
    raise ProblemError(
        Problem(f"There is no program {full}.", "PATH", f"one of {len(known)} relion programs", hint),
        ExitCode.MISSING_COMPONENT,
    )


@contextmanager
def own_session(command: list[str]) -> Iterator[dict[str, str]]:
    """Variables with which an MPI command in a container keeps its files apart from those of others.

    Open MPI names its session directory and its shared memory after its process id. Each container numbers its
    processes anew, but has the machine's ``/tmp`` and ``/dev/shm``: two runs at once would take each other's memory for
    their own, and crash or wait for ever.

    Parameters
    ----------
    command : list of str
        Nothing is set, and no directory made, where it does not start with ``mpirun``.
    """
    if command[0] != "mpirun" or not os.environ.keys() & _IN_CONTAINER:
        yield {}
        return
    with ExitStack() as stack:
        session = stack.enter_context(tempfile.TemporaryDirectory(prefix="mpi_"))
        memory = session
        if os.access(SHARED_MEMORY, os.W_OK):
            memory = stack.enter_context(tempfile.TemporaryDirectory(prefix="mpi_", dir=SHARED_MEMORY))
        yield {"TMPDIR": session} | dict.fromkeys(_BACKING, memory)


def _in_image(image: str, program: str) -> list[str]:
    """Apptainer's command for a program; the present directory is bound, whatever it is."""
    if "://" not in image and not Path(image).exists():
        problem = Problem("The image is missing.", image, "an Apptainer image", f"Correct {IMAGE_VARIABLE}.")
        raise ProblemError(problem, ExitCode.MISSING_COMPONENT)
    gpu = ["--nv"] if Path("/dev/nvidiactl").exists() else []
    here = str(Path.cwd())
    return ["apptainer", "exec", *gpu, "--bind", here, "--pwd", here, image, program]
