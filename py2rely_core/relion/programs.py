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
#: How far the leading rank of ``relion_refine_mpi`` gives way to the ranks that compute.
LEADER_NICENESS = 10


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


def giving_way(command: list[str]) -> list[str]:
    """A command as it is started: the rank of ``relion_refine_mpi`` that only leads gives way to those that compute.

    MPI waits by asking again and again. Where there are fewer cores than ranks, the leader would take a third of two
    cores from the two that work (``benchmarks/leader``); on idle cores nothing changes.

    Parameters
    ----------
    command : list of str
        Changed where it is ``mpirun -n N relion_refine_mpi ...`` with more than one rank: two programs in one run, as
        Open MPI, MPICH and Intel MPI know them, of which the first gets rank 0.
    """
    if command[:2] != ["mpirun", "-n"] or command[3:4] != ["relion_refine_mpi"] or int(command[2]) < 2:
        return command
    leader = ["mpirun", "-n", "1", "nice", "-n", str(LEADER_NICENESS), *command[3:]]
    return [*leader, ":", "-n", str(int(command[2]) - 1), *command[3:]]


def _in_image(image: str, program: str) -> list[str]:
    """Apptainer's command for a program; the present directory is bound, whatever it is."""
    if "://" not in image and not Path(image).exists():
        problem = Problem("The image is missing.", image, "an Apptainer image", f"Correct {IMAGE_VARIABLE}.")
        raise ProblemError(problem, ExitCode.MISSING_COMPONENT)
    gpu = ["--nv"] if Path("/dev/nvidiactl").exists() else []
    here = str(Path.cwd())
    return ["apptainer", "exec", *gpu, "--bind", here, "--pwd", here, image, program]
