"""Running one RELION program as a job: its output kept, its time measured, its failure explained."""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from py2rely_core.job_star import input_paths, job_star
from py2rely_core.problems import ExitCode, Problem, ProblemError

#: Text in RELION's output that says that memory ran out, on the host or on a GPU.
OUT_OF_MEMORY = (
    "out of memory",
    "std::bad_alloc",
    "Cannot allocate memory",
    "cudaErrorMemoryAllocation",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "memory allocator",
    "You ran out of memory",
)
LAST_LINES = 15
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
    adopt_orphans()
    write_job_star(job, command)
    start, before = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with (job / "run.out").open("a") as out, (job / "run.err").open("a") as err:
        code = subprocess.run(command, stdout=out, stderr=err, check=False).returncode
    _note(job, command, start, code, resources_since(before))
    if code:
        failure = _failure(job, command, code)
        if not may_fail or failure.exit_code != ExitCode.RELION_FAILED:
            raise failure


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
    from py2rely_core.tables import read_star

    def pixel_size(tilt_series: str) -> float:
        return float(read_star(tilt_series)["global"]["rlnTomoTiltSeriesPixelSize"].iloc[0])

    try:
        text = job_star(command, pixel_size)
    except (ProblemError, KeyError, ValueError, IndexError):
        return  # The program itself will say what is wrong with its arguments.
    if text is not None:
        (job / "job.star").write_text(text)


def _note(job: Path, command: list[str], start: float, code: int, used: dict[str, float]) -> None:
    done = {"command": command, "started": start, "seconds": round(time.time() - start, 3), "exit_code": code} | used
    done["inputs"] = input_paths(command)
    with (job / "commands.jsonl").open("a") as file:
        file.write(json.dumps(done) + "\n")


def commands(job: Path) -> list[dict]:
    """What was run in a job's directory: command, when it started, seconds and exit code."""
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


def _failure(job: Path, command: list[str], code: int) -> ProblemError:
    program = next((word for word in command if word.startswith("relion_")), command[0])
    text = "".join((job / name).read_text(errors="replace")[-200_000:] for name in ("run.out", "run.err"))
    print(last_lines(job), file=sys.stderr)
    # mpirun passes the signal of a killed rank on as 128 + signal, or as 137 when the kernel took it for its memory.
    if code in (-9, 137) or any(sign in text for sign in OUT_OF_MEMORY):
        fix = "Give the step more memory, or fewer ranks or threads, or use '--pad 1' in other_args; then -resume."
        return ProblemError(
            Problem(f"{job}: {program} ran out of memory or was killed (exit code {code}).", str(job), "", fix),
            ExitCode.OUT_OF_MEMORY,
        )
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
