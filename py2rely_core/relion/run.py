"""Running one RELION program as a job: its output kept, its time measured, its failure explained.

A refinement goes on from the last complete iteration of an earlier attempt; GPUs are leased while a program runs.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from py2rely_core.problems import ExitCode, Problem, ProblemError
from py2rely_core.relion.job_star import input_paths, job_star
from py2rely_core.relion.leases import Lease, leased_gpus
from py2rely_core.relion.programs import giving_way, own_session

if TYPE_CHECKING:
    from py2rely_core.relion.checkpoints import Checkpoint

#: Text in RELION's output that says that a GPU's memory ran out.
GPU_OUT_OF_MEMORY = (
    "cuda error: out of memory",
    "cudaerrormemoryallocation",
    "cuda_error_out_of_memory",
    "memory allocator",
    "you ran out of memory on the gpu",
)
#: Text that says that memory ran out, on the host where it is none of the above.
OUT_OF_MEMORY = ("out of memory", "std::bad_alloc", "cannot allocate memory", "you ran out of memory")
#: Text that says that no pose of a particle had any weight, of the CPU's code and of the GPU's.
NO_WEIGHTS = (
    "zero sum of weights",
    "no orientation was found as better than any other",
    "sum of weights for all orientations was",
)
#: Standard deviation of the prior on offsets, Angstrom, that RELION starts with (``--offset``).
OFFSET_SIGMA = 10.0
#: A program that ended so was stopped from outside: by a time limit, a pre-emption, a cancelled job.
_FROM_OUTSIDE = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
INTERRUPTED = {128 + number for number in _FROM_OUTSIDE}
LAST_LINES = 15
#: In ``Subtomograms`` of an extraction: its images were there.
FREED = "freed.txt"
#: What says nothing to a person: back traces, MPI's farewell, progress bars.
_NOISE = re.compile(
    r"\(.*\) \[0x|Backtrace|^=+$|^-{10,}$|MPI_ABORT|^\s+(Proc|Errorcode): |^NOTE: invoking MPI|^You may or may not see|"
    r"^exactly when Open MPI|^prterun has exited|^\"abort\"\. This|^terminated by signals sent by prterun|~~\(,_,"
)


def run_job(job: Path, command: list[str], may_fail: bool = False) -> None:
    """Run a program with its output in ``run.out`` and ``run.err`` of the job's directory.

    Parameters
    ----------
    job : Path
        Job directory such as ``Refine3D/bin4``; made when it is missing.
    command : list of str
        The program and its arguments.
    may_fail : bool
        A failure other than of memory is only shown and noted: what reads the job judges it.

    Raises
    ------
    ProblemError
        The program is missing, or failed: with its last lines and what to do.
    """
    job.mkdir(parents=True, exist_ok=True)
    for program in dict.fromkeys((command[0], *[word for word in command if word.startswith("relion_")][:1])):
        if shutil.which(program) is None:
            fix = "Put RELION 5 on PATH ('make setup' provides one), or run with an image."
            problem = Problem(f"{program} is not there.", str(job), "RELION 5 and MPI on PATH", fix)
            raise ProblemError(problem, ExitCode.MISSING_COMPONENT)
    _refuse_freed(job, command)
    adopt_orphans()
    checkpoints: list[Checkpoint] = []
    because = ""
    with leased_gpus(command) as lease:
        while failure := _attempt(job, command, checkpoints, lease, because):
            again = _again(command, failure)
            if again is None:
                error = _failure(job, command, failure)
                if may_fail and error.exit_code == ExitCode.RELION_FAILED:
                    return
                raise error
            because, command = again
            _say(job, f"{because}; once more")
    for one in checkpoints:
        one.remove()


def _refuse_freed(job: Path, command: list[str]) -> None:
    """Stop a program that reads particle images which are there no more, before it says so in its own words."""
    freed = {path.parent for path in Path().glob(f"Extract/*/Subtomograms/{FREED}")}
    particles = Path(command[command.index("--i") + 1]) if "--i" in command[:-1] else Path()
    if not freed or particles.suffix != ".star" or not particles.is_file():
        return
    from py2rely_core.data.tables import read_star, split_image_name

    table = read_star(particles).get("particles", {})
    image = Path(split_image_name(next(iter(table.get("rlnImageName", ())), ""))[1])
    extraction = next((images.parent for images in freed if images in image.parents), None)
    if extraction is not None:
        what = f"{job}: the particle images of {extraction} were freed when their level was done."
        fix = f"Remove {extraction.resolve().parents[1]}; then -resume extracts them again, and computes what follows."
        raise ProblemError(Problem(what, str(extraction.resolve()), "particle images", fix), ExitCode.BAD_INPUT)


def _again(command: list[str], failure: Failure) -> tuple[str, list[str]] | None:
    """Why and how a command that failed is run once more at once; None where nothing better is known.

    What the command already has is not tried again, so this ends.
    """
    text = failure.text.lower()
    if any(sign in text for sign in GPU_OUT_OF_MEMORY):
        because = "The GPU's memory ran out: run with one thread per rank, which needs the least of it"
        again = with_one_thread(command)
    elif any(sign in text for sign in NO_WEIGHTS):
        because = "RELION's prior on offsets left a particle no pose: run with one that is wide and stays so"
        again = with_free_offsets(command)
    else:
        return None
    return None if again == command else (because, again)


def with_one_thread(command: list[str]) -> list[str]:
    """The same command with ``--j 1``: each thread of a rank works on a GPU with memory of its own there."""
    if "--j" not in command[:-1]:
        return command
    place = command.index("--j") + 1
    return [*command[:place], "1", *command[place + 1 :]]


def with_free_offsets(command: list[str]) -> list[str]:
    """The same refinement with a prior on offsets that has RELION's first width, for search steps too, and keeps it.

    RELION adds a search step in Angstrom to offsets in pixels, and takes the sum for pixels when it asks the prior
    (``pdf_offset`` in ``src/ml_optimiser.cpp`` and ``src/acc/acc_ml_optimiser_impl.h``, 3.1 to 5.1): at 10 Angstrom
    per pixel a step counts as ten times as long. Where the signal is strong enough for just one pose to be likely, and
    this is a step away, its weight is then too small for a floating-point number, and no other pose has any. A prior
    that is as many times wider undoes that; fixed, as RELION would make it narrower again after each iteration.
    """
    if not {"--i", "--o"} <= set(command) or "--fix_sigma_offset" in command or "--skip_align" in command:
        return command
    if not any("relion_refine" in word for word in command):
        return command
    from py2rely_core.data.tables import read_star

    optics = read_star(command[command.index("--i") + 1]).get("optics")
    if optics is None or "rlnImagePixelSize" not in optics:
        return command
    pixel_size = max(1.0, float(optics["rlnImagePixelSize"].max()))
    return [*command, "--fix_sigma_offset", "--offset", f"{OFFSET_SIGMA * pixel_size:g}"]


def _checkpoint(job: Path, command: list[str]) -> Checkpoint | None:
    if not any("relion_refine" in word for word in command):
        return None
    # Imported here: with pandas that takes longer than many a step.
    from py2rely_core.relion.checkpoints import checkpoint_of

    return checkpoint_of(job, command, relion_version())


@dataclass(frozen=True)
class Failure:
    """How a program ended: its exit code, and what it had written."""

    code: int
    text: str


def _attempt(
    job: Path, command: list[str], checkpoints: list[Checkpoint], lease: Lease, because: str
) -> Failure | None:
    """Run a command, from the last complete iteration where there is one; how it failed, or None."""
    write_job_star(job, command)
    checkpoint = _checkpoint(job, command)
    checkpoints += [checkpoint] if checkpoint else []
    for path in job.glob("run_it*") if because else ():  # of the attempt before this one
        path.unlink()
    asked, iteration = command, checkpoint.restore() if checkpoint else None
    if iteration is not None:
        command = checkpoint.continuation(iteration)
        _say(job, f"going on after iteration {iteration} of an earlier attempt with the same input and options")
    read = {name: _size(job / name) for name in ("run.out", "run.err")}
    start, before = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with (
        (job / "run.out").open("a") as out,
        (job / "run.err").open("a") as err,
        checkpoint.kept() if checkpoint else nullcontext(True) as kept,
        own_session(command) as session,
    ):
        if not kept:
            _say(job, f"iterations are not kept: another task uses {checkpoint.directory}, or it cannot be written")
        environment = os.environ | session | lease.environment
        process = subprocess.Popen(giving_way(command), stdout=out, stderr=err, env=environment, pass_fds=lease.files)
        code = _wait(process)
    done = {"command": command, "started": start, "seconds": round(time.time() - start, 3), "exit_code": code}
    done |= resources_since(before) | {"inputs": input_paths(asked)}
    done |= {} if iteration is None else {"asked": asked, "continued_after_iteration": iteration}
    done |= {"because": because} if because else {}
    _note(job, done | ({"gpus": list(lease.gpus)} if lease.gpus else {}))
    return Failure(code, "".join(_text(job / name, skip) for name, skip in read.items())) if code else None


def _wait(process: subprocess.Popen) -> int:
    """The program's exit code, 128 + signal where one ended it; SIGTERM is passed on, so that it ends before we do."""
    passing_on = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate()) if passing_on else None
    try:
        code = process.wait()
    finally:
        if passing_on:
            signal.signal(signal.SIGTERM, before)
    return 128 - code if code < 0 else code


def _say(job: Path, text: str) -> None:
    print(f"{job}: {text}", flush=True)
    with (job / "run.out").open("a") as file:
        file.write(f"\npy2rely: {text}\n")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _text(path: Path, skip: int) -> str:
    """What was written to a file after its first `skip` bytes, the end of it."""
    return path.read_bytes()[skip:][-200_000:].decode(errors="replace")


def adopt_orphans() -> None:
    """Become the parent of what a child leaves behind: a sandbox's launcher may end before it was waited for."""
    pr_set_child_subreaper = 36
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def _reap(seconds: float = 0.5) -> None:
    """Wait for adopted processes that have ended, so that the system counts what they used."""
    until = time.time() + seconds
    while time.time() < until:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.02)
        except ChildProcessError:
            return


def resources_since(before: resource.struct_rusage) -> dict[str, float]:
    """What the programs that ended since `before` used: their CPU seconds, and the largest one's peak memory, MB."""
    _reap()
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_seconds": round(seconds, 3), "peak_memory": round(now.ru_maxrss / 1024, 1)}


def write_job_star(job: Path, command: list[str]) -> None:
    """Write ``job.star``, by which RELION shows and repeats the job; nothing where RELION has no such job."""

    def pixel_size(tilt_series: str) -> float:
        from py2rely_core.data.tables import read_star

        return float(read_star(tilt_series)["global"]["rlnTomoTiltSeriesPixelSize"].iloc[0])

    try:
        text = job_star(command, pixel_size)
    except (ProblemError, KeyError, ValueError, IndexError):
        return  # The program itself will say what is wrong with its arguments.
    if text is not None:
        (job / "job.star").write_text(text)


def _note(job: Path, done: dict[str, Any]) -> None:
    with (job / "commands.jsonl").open("a") as file:
        file.write(json.dumps(done) + "\n")


def commands(job: Path) -> list[dict]:
    """What was run in a job's directory: command, when it started, seconds, exit code, and the files that it read.

    Of a command that is another than the planned one, ``because`` says why; of a refinement that went on from an
    earlier attempt, ``asked`` is the command that it is the rest of.
    """
    path = job / "commands.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def last_lines(job: Path) -> str:
    """RELION's own last lines of a job: errors first, as they say more."""
    parts = []
    for name in ("run.err", "run.out"):
        path = job / name
        lines = path.read_text(errors="replace").replace("\r", "\n").splitlines() if path.is_file() else []
        lines = list(dict.fromkeys(line.rstrip() for line in lines if line.strip() and not _NOISE.search(line)))
        lines = lines[-LAST_LINES:]
        if lines:
            parts.append(f"  last lines of {job}/{name}:\n" + "\n".join(f"  | {line}" for line in lines))
    return "\n".join(parts)


def _failure(job: Path, command: list[str], failure: Failure) -> ProblemError:
    program = next((word for word in command if word.startswith("relion_")), command[0])
    code, text = failure.code, failure.text.lower()
    print(last_lines(job), file=sys.stderr)
    if any(sign in text for sign in GPU_OUT_OF_MEMORY):
        what = f"{job}: {program} ran out of memory on a GPU (exit code {code})."
        fix = "See that nothing else uses the GPU, or use '--pad 1' or '--maxsig 500' in other_args; then -resume."
        return ProblemError(Problem(what, str(job), "", fix), ExitCode.GPU_OUT_OF_MEMORY)
    # mpirun passes the signal of a killed rank on as 128 + signal, or as 137 when the kernel took it for its memory.
    if code == 128 + signal.SIGKILL or any(sign in text for sign in OUT_OF_MEMORY):
        fix = "Give the step more memory, or fewer ranks or threads, or use '--pad 1' in other_args; then -resume."
        return ProblemError(
            Problem(f"{job}: {program} ran out of memory or was killed (exit code {code}).", str(job), "", fix),
            ExitCode.OUT_OF_MEMORY,
        )
    if code in INTERRUPTED:
        what = f"{job}: {program} was stopped from outside (exit code {code}): time limit, pre-emption, or cancelled."
        fix = "Run the same command with -resume: a refinement goes on after its last complete iteration."
        return ProblemError(Problem(what, str(job), "", fix), ExitCode.INTERRUPTED)
    fix = "Read its last lines above; correct the input or the parameters, then run the same command with -resume."
    return ProblemError(
        Problem(f"{job}: {program} failed with exit code {code}.", str(job), "exit code 0", fix), ExitCode.RELION_FAILED
    )


def relion_version() -> str:
    """RELION's version, such as ``5.1.0``; empty where there is none."""
    if shutil.which("relion_refine") is None:
        return ""
    result = subprocess.run(["relion_refine", "--version"], capture_output=True, text=True, check=False)
    words = result.stdout.split()
    return words[words.index("version:") + 1] if "version:" in words else ""
