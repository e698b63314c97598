"""GPUs of a workstation: a task takes the ones that it needs, and nobody else gets them until it has ended.

A lease is a lock (``flock``) on a file per GPU. The program inherits the open file, so that the lease lasts as long as
the last of its processes and is gone with them, however they ended. On a cluster the scheduler hands out GPUs, and
there are no leases.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from py2rely_core.parameters.gpus import gpu_names
from py2rely_core.problems import ExitCode, Problem, ProblemError

#: The GPUs that may be used, such as ``0,1``: set by the local profile. Without it nothing is leased.
POOL = "PY2RELY_GPUS"
#: How many tasks may share one GPU.
SHARED_BY = "PY2RELY_TASKS_PER_GPU"
#: Where the locks are; one place for everyone on the machine.
LEASES = "PY2RELY_LEASES"
DEFAULT_LEASES = "/tmp/py2rely-gpu-leases"
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Lease:
    """GPUs, as ``CUDA_VISIBLE_DEVICES`` names them, and the open files that hold them."""

    gpus: tuple[str, ...] = ()
    files: tuple[int, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """What the program must be given, so that its GPU 0 is the first one of the lease."""
        return {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {}


def gpus_wanted(command: list[str]) -> int:
    """How many different GPUs a command's ``--gpu`` list names; 0 without one."""
    if "--gpu" not in command[:-1]:
        return 0
    return len({name for name in re.split(r"[:,]", command[command.index("--gpu") + 1]) if name.strip().isdigit()})


def gpu_pool(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The GPUs that may be leased, by the names that they have for CUDA.

    The numbers of :data:`POOL` count what ``CUDA_VISIBLE_DEVICES`` leaves visible, as they do for every CUDA program.

    Raises
    ------
    ProblemError
        A number is beyond what is visible.
    """
    numbers = gpu_names(environment.get(POOL))
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not numbers:
        return numbers
    names = gpu_names(visible)
    if any(int(number) >= len(names) for number in numbers):
        what = f"--gpus {','.join(numbers)}: CUDA_VISIBLE_DEVICES={visible} leaves {len(names)} GPUs, counted from 0."
        problem = Problem(what, "--gpus", f"numbers below {len(names)}", "Correct the list or the variable.")
        raise ProblemError(problem, ExitCode.BAD_PARAMETERS)
    return tuple(names[int(number)] for number in numbers)


@contextmanager
def leased_gpus(command: list[str]) -> Iterator[Lease]:
    """Hold the GPUs that a command asks for while it runs; waits until they are free.

    All are taken at once, and who waits longest is served first, so that tasks can neither block each other for ever
    nor starve one that needs many GPUs.

    Raises
    ------
    ProblemError
        The command asks for more GPUs than there are.
    """
    wanted, pool = gpus_wanted(command), gpu_pool(os.environ)
    if not wanted or not pool:
        yield Lease()
        return
    if wanted > len(pool):
        what = f"A step needs {wanted} GPUs, and --gpus gives {len(pool)}."
        raise ProblemError(Problem(what, "--gpus", f"{wanted} numbers", "Give more."), ExitCode.BAD_PARAMETERS)
    lease = _take(pool, wanted, int(os.environ.get(SHARED_BY) or 1))
    try:
        yield lease
    finally:
        for file in lease.files:
            os.close(file)


def _take(pool: tuple[str, ...], wanted: int, shared_by: int) -> Lease:
    """The lease, from the first place for locks that can be used."""
    why = []
    for place in _places():
        try:
            directory = _open_directory(place)
            try:
                lease = _take_in(directory, pool, wanted, shared_by)
            finally:
                os.close(directory)
        except OSError as error:
            why.append(f"{place}: {error.strerror or error}")
            continue
        if why:
            print(f"GPU leases are in {place}, and do not see those of others ({'; '.join(why)})", flush=True)
        return lease
    fix = f"Let {LEASES} name a directory that can be written."
    problem = Problem("GPUs cannot be leased.", "; ".join(why), "a directory for their locks", fix)
    raise ProblemError(problem, ExitCode.MISSING_COMPONENT)


def _take_in(directory: int, pool: tuple[str, ...], wanted: int, shared_by: int) -> Lease:
    queue = _open(directory, "queue")
    try:
        fcntl.flock(queue, fcntl.LOCK_EX)
        while True:
            taken = _try(directory, pool, wanted, shared_by)
            if len(taken) == wanted:
                return Lease(tuple(taken), tuple(taken.values()))
            for file in taken.values():
                os.close(file)
            time.sleep(POLL_SECONDS)
    finally:
        os.close(queue)


def _try(directory: int, pool: tuple[str, ...], wanted: int, shared_by: int) -> dict[str, int]:
    """As many free GPUs as can be had now; the emptiest first where several tasks share one."""
    taken: dict[str, int] = {}
    for slot in range(shared_by):
        for gpu in pool:
            if gpu in taken or len(taken) == wanted:
                continue
            file = _open(directory, f"{re.sub(r'[^A-Za-z0-9]', '_', gpu)}.{slot}")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                taken[gpu] = file
            except BlockingIOError:
                os.close(file)
    return taken


def _places() -> Iterator[Path]:
    """Where locks may be: one place for everyone on the machine; and, where somebody spoilt that, the user's own."""
    yield Path(os.environ.get(LEASES) or DEFAULT_LEASES)
    yield Path.home() / ".cache/py2rely" / f"gpu-leases-{socket.gethostname()}"


def _open_directory(path: Path) -> int:
    """An open directory for locks, never one that a link leads to.

    Raises
    ------
    OSError
        It is none, or is somebody's who keeps others out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
        made = True
    except FileExistsError:
        made = False
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    if made:
        os.fchmod(directory, 0o1777)  # other users' tasks use the same GPUs
    return directory


def _open(directory: int, name: str) -> int:
    """An open lock file. Linux lets nobody create a file of someone else in a shared directory, but open it.

    Raises
    ------
    OSError
        Under this name is a link, or something else than a file, or it cannot be read.
    """
    plain = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # neither follow a link, nor wait at a pipe
    try:
        file = os.open(name, plain | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
        os.fchmod(file, 0o644)  # readable for others, whatever the umask: they lock it, too
    except FileExistsError:
        file = os.open(name, plain, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, f"{name} is no file")
    return file
