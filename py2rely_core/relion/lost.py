"""Steps through the tilt series that go on without those on which they fail.

A program that failed, or left values that are not finite, is run on every tilt series by itself. What it gave for those
that went well is put together as groups of tilt series are; the others are left out, with their reasons, as long as
they are no more than the run may lose. Without such a limit nothing is tried: the program's failure is the step's.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np

from py2rely_core.data.tables import read_star, split_image_name, write_star
from py2rely_core.maps.masks import is_degenerate
from py2rely_core.parameters.lost import LIMIT, lost_limit
from py2rely_core.problems import ExitCode, Problem, ProblemError
from py2rely_core.relion import groups
from py2rely_core.relion.outputs.job import KEPT, LOST, bad_output, lost_of, lost_text, one_line
from py2rely_core.relion.outputs.tilt_series import check_polished, check_tables
from py2rely_core.relion.run import run_job

#: Where tilt series are tried one by one; gone when the step has ended well.
EACH = Path("each")
#: One tilt series that is left out: ``tilt_series``, ``particles`` (how many), ``reason``.
Lost = dict[str, Any]


def run_without_lost(job: Path, command: list[str], earlier: list[Lost], group: bool = False) -> None:
    """Run a program that goes through tilt series, without those that earlier steps lost or that it fails on.

    Parameters
    ----------
    job : Path
        Job directory relative to the current one; may hold what groups of tilt series gave, and whom they lost.
    command : list of str
        The program with ``--p`` (particles) and ``--t`` (tilt series).
    earlier : list of dict
        Tilt series that steps before this one lost.
    group : bool
        This is a group of tilt series: how many are too many is seen when the groups are put together.

    Raises
    ------
    ProblemError
        The program fails on every tilt series, or on more than may be lost; or it was stopped, or ran out of memory.
    """
    limit = lost_limit(os.environ.get(LIMIT), _total(Path(_value(command, "--t")), earlier))
    found = lost_of(job)
    _refuse_too_many(job, earlier, found, limit)
    command = _without(job, command, {one["tilt_series"] for one in [*earlier, *found]})
    if not limit or "--only_do_unfinished" in command:
        run_job(job, command)
        return
    failure = _failure(job, command)
    if failure is None:
        return
    kept, lost = _one_by_one(job, command)
    if not kept and not group:
        raise failure  # It is not the tilt series.
    if not group:
        _refuse_too_many(job, earlier, lost, limit)
    _put_together(job, command, kept, lost)
    shutil.rmtree(EACH)


def _total(tomograms: Path, earlier: list[Lost]) -> int:
    names = set(read_star(tomograms)["global"]["rlnTomoName"].astype(str))
    return len(names | {one["tilt_series"] for one in earlier})


def _value(command: list[str], option: str) -> str:
    return command[command.index(option) + 1]


def _with(command: list[str], option: str, value: str) -> list[str]:
    place = command.index(option) + 1
    return [*command[:place], value, *command[place + 1 :]]


def _without(job: Path, command: list[str], names: set[str]) -> list[str]:
    """The command with a particle set that lacks some tilt series."""
    return _with(command, "--p", str(leave_out(job, Path(_value(command, "--p")), names)))


def leave_out(job: Path, particles: Path, names: set[str]) -> Path:
    """A particle set without some tilt series, written into a job; the set itself where it has none of them."""
    blocks = read_star(particles)
    out = blocks["particles"]["rlnTomoName"].astype(str).isin(names)
    if not out.any():
        return particles
    write_star(blocks | {"particles": blocks["particles"][~out]}, job / KEPT)
    return job / KEPT


def _refuse_too_many(job: Path, earlier: list[Lost], lost: list[Lost], limit: int) -> None:
    known = {one["tilt_series"]: one for one in [*lost, *earlier]}
    if not lost or len(known) <= limit:
        return
    what = f"{job}: {len(known)} tilt series failed, and {limit} may be lost."
    where = "".join(f"\n      {one_line(one)}" for one in known.values())
    fix = "Repair them or leave them out, or allow more with --max_lost_tilt_series; then -resume."
    raise ProblemError(Problem(what, where, f"at most {limit}", fix), ExitCode.RELION_FAILED)


def _failure(job: Path, command: list[str]) -> ProblemError | None:
    """Why a step failed in a way that one tilt series can be the cause of; None when it went well."""
    try:
        run_job(job, command)
    except ProblemError as error:
        if error.exit_code != ExitCode.RELION_FAILED:
            raise
        return error
    reason = KINDS[_program(command)].unusable(job, command)
    return bad_output(job, f"{reason}.") if reason else None


def _program(command: list[str]) -> str:
    return next(word for word in command if word.startswith("relion_tomo_")).removesuffix("_mpi")


def _one_by_one(job: Path, command: list[str]) -> tuple[list[Path], list[Lost]]:
    """The job of every tilt series that goes well by itself, and those that do not."""
    shutil.rmtree(EACH, ignore_errors=True)
    blocks = read_star(_value(command, "--p"))
    table = blocks["particles"]
    kept, lost = [], []
    for number, name in enumerate(dict.fromkeys(table["rlnTomoName"]), start=1):
        place = EACH / f"{number:04d}"
        _mirror(place, job)
        rows = table[table["rlnTomoName"] == name]
        write_star(blocks | {"particles": rows}, place / "particles.star")
        with contextlib.chdir(place):
            failure = _failure(job, _alone(command))
            reason = _reason(job, failure) if failure else ""
        if failure:
            print(f"{job}: {name} is left out: {reason}", flush=True)
            lost.append({"tilt_series": str(name), "particles": len(rows), "reason": reason})
        else:
            kept.append(place / job)
    return kept, lost


def _mirror(place: Path, job: Path) -> None:
    """A directory that sees what this one sees, but has a job of its own under the same name."""
    (place / job).mkdir(parents=True)
    for kind in Path().iterdir():
        if not kind.is_dir() or kind.name.startswith(".") or kind.name == EACH.name:
            continue
        if kind.name != job.parts[0]:
            (place / kind.name).symlink_to(kind.absolute())
            continue
        for other in kind.iterdir():
            if other != job:
                (place / other).symlink_to(other.absolute())


def _alone(command: list[str]) -> list[str]:
    """The command for one tilt series, which is only summed up where it is averaged."""
    words = _in_one_process(command)
    if _program(words) == "relion_tomo_reconstruct_particle" and "--no_recon" not in words:
        words = [*words, "--no_recon"]
    return _with(words, "--p", "particles.star")


def _in_one_process(command: list[str]) -> list[str]:
    """The command without MPI, with the threads of all ranks."""
    if command[0] != "mpirun":
        return command
    ranks, words = int(_value(command, "-n")), [command[3].removesuffix("_mpi"), *command[4:]]
    for option in ("--j", "--j_out"):
        if option in words:
            words = _with(words, option, str(ranks * int(_value(words, option))))
    return words


def _reason(job: Path, failure: ProblemError) -> str:
    """A failure in one line: what, and RELION's own word for it."""
    what = failure.problems[0].what.removeprefix(f"{job}: ").removesuffix(".")
    lines = [line for name in ("run.out", "run.err") for line in _lines(job / name)]
    errors = [line for line in lines if re.search("error", line, re.IGNORECASE) and len(line) > len("ERROR: ")]
    if failure.exit_code != ExitCode.RELION_FAILED or not lines:
        return what
    return f"{what}: {(errors or lines)[-1].strip()}"


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(errors="replace").splitlines() if line.strip()] if path.is_file() else []


def _put_together(job: Path, command: list[str], kept: list[Path], lost: list[Lost]) -> None:
    """One job of what the tilt series gave, with the logs of what failed before it."""
    first = EACH / "all_at_once"
    failed = [place / job for place in sorted(EACH.iterdir()) if place / job not in kept]
    job.rename(first)
    job.mkdir()
    if _value(command, "--p") == str(job / KEPT):
        shutil.copyfile(first / KEPT, job / KEPT)
    (job / LOST).write_text(json.dumps({"kept": len(kept), "lost": lost}, indent=1))
    command = _without(job, command, {one["tilt_series"] for one in lost})
    if kept:
        KINDS[_program(command)].put_together(job, command, kept)
    groups.merge_logs([first, *failed, job], job)
    if (first / "job.star").is_file() and not (job / "job.star").exists():
        shutil.copyfile(first / "job.star", job / "job.star")
    if lost:
        print(f"{job}: {lost_text(lost)}", flush=True)


def merge_lost(parts: list[Path], particles: Path, job: Path) -> list[Path]:
    """Note what groups of tilt series lost as lost by the job of all of them; those of its parts that hold anything.

    Parameters
    ----------
    parts : list of Path
        The job of each group.
    particles : Path
        Particle set of the whole.
    job : Path
        Gets ``lost.json``, and a particle set without what was lost.

    Raises
    ------
    ProblemError
        Every tilt series was lost.
    """
    noted = [part for part in parts if (part / LOST).is_file()]
    if not noted:
        return parts
    lost = [one for part in noted for one in lost_of(part)]
    empty = [part for part in noted if not json.loads((part / LOST).read_text())["kept"]]
    left = [part for part in parts if part not in empty]
    if not left:
        problem = Problem(f"{job}: {lost_text(lost)}: none is left.", str(job), "", "Read why; then -resume.")
        raise ProblemError(problem, ExitCode.RELION_FAILED)
    job.mkdir(parents=True, exist_ok=True)
    (job / LOST).write_text(json.dumps({"kept": len(left), "lost": lost}, indent=1))
    leave_out(job, particles, {one["tilt_series"] for one in lost})
    return left


def refuse_too_many(job: Path, tomograms: Path, earlier: list[Lost]) -> None:
    """Stop where a job put together from groups, and those before it, lost more than may be lost.

    Parameters
    ----------
    tomograms : Path
        Table of all tilt series.
    """
    _refuse_too_many(job, earlier, lost_of(job), lost_limit(os.environ.get(LIMIT), _total(tomograms, earlier)))


def _bad_images(job: Path, _command: list[str]) -> str:
    """Why extracted particles cannot be used: every image is looked at."""
    if not (job / "particles.star").is_file():
        return "particles.star was not written"
    for name in read_star(job / "particles.star")["particles"]["rlnImageName"]:
        try:
            reason = is_degenerate(mrcfile.read(split_image_name(name)[1]).astype(np.float32))
        except (OSError, ValueError) as error:
            reason = f"it cannot be read: {error}"
        if reason:
            return f"{name} holds no image: {reason}"
    return ""


def _bad_sums(job: Path, command: list[str]) -> str:
    """Why what was back-projected cannot be used: the sums of a group, or the map."""
    files = (job / "temp").glob("sum_*.mrc") if "--no_recon" in command else job.glob("merged.mrc")
    found = [path for path in files if not np.isfinite(np.sum(mrcfile.read(path), dtype=np.float64))]
    return f"{found[0].name} has values that are not finite" if found else ""


def _bad_tables(job: Path, command: list[str]) -> str:
    return check_tables(job, Path(_value(command, "--t")))


def _bad_polish(job: Path, command: list[str]) -> str:
    return check_polished(job, Path(_value(command, "--t")))


def _of_images(job: Path, _command: list[str], parts: list[Path]) -> None:
    groups.merge_extract(parts, job)


def _of_temp(job: Path, command: list[str], parts: list[Path]) -> None:
    groups.merge_temp(parts, job)
    run_job(job, [*command, "--only_do_unfinished"])


def _of_sums(job: Path, command: list[str], parts: list[Path]) -> None:
    groups.merge_sums(parts, Path(_value(command, "--t")), job)
    if "--no_recon" not in command:  # of a group, the sums are all
        run_job(job, [*_in_one_process(command), "--only_do_unfinished"])


@dataclass(frozen=True)
class Kind:
    """A program through the tilt series: why its output cannot be used (empty: it can), and how parts become one."""

    unusable: Callable[[Path, list[str]], str]
    put_together: Callable[[Path, list[str], list[Path]], None]


KINDS = {
    "relion_tomo_subtomo": Kind(_bad_images, _of_images),
    "relion_tomo_reconstruct_particle": Kind(_bad_sums, _of_sums),
    "relion_tomo_refine_ctf": Kind(_bad_tables, _of_temp),
    "relion_tomo_align": Kind(_bad_polish, _of_temp),
}
