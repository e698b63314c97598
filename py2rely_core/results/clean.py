"""What of a run's files neither its results nor a later ``-resume`` needs, and how it is freed.

A resumed run takes a task for done whose directory is as it was: Nextflow looks at the paths, sizes and times of what
later tasks were given, which are jobs' directories and single files. So nothing is freed that a task was given by
itself, and no entry of a job's own directory is removed: files below are, and files in it are cut to no length.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from py2rely_core.problems import ExitCode, Problem, ProblemError
from py2rely_core.relion.run import FREED
from py2rely_core.results.status import find_run, read_status
from py2rely_core.results.tasks import RECORD, TRACE, Step, read_json, steps_of, traced

#: What is freed, in words.
IMAGES, SUMS, ITERATIONS, ATTEMPTS = (
    "particle images of levels that are done",
    "intermediate sums of programs through the tilt series",
    "iterations before the last",
    "attempts that were repeated",
)
KINDS = (IMAGES, SUMS, ITERATIONS, ATTEMPTS)
_TASK = re.compile(r"[0-9a-f]{2}/[0-9a-f]{30}")
_ITERATION = re.compile(r"run_it(\d{3})_")
_DONE = ("done", "cached")


@dataclass(frozen=True)
class Freed:
    """One file, and what becomes of it.

    Attributes
    ----------
    kind : str
        One of :data:`KINDS`.
    path : Path
        A plain file, never a link.
    emptied : bool
        It is cut to no length; otherwise it is removed.
    """

    kind: str
    path: Path
    emptied: bool = False


def removable(place: Path) -> list[Freed]:
    """Everything that can go of a run.

    Parameters
    ----------
    place : Path
        The run's output directory, or the one it was launched from.

    Raises
    ------
    ProblemError
        There is no run, or it, or another one with its work directory, is running.
    """
    outdir = find_run(place)
    _refuse_running(outdir)
    record = read_json(outdir / RECORD)
    steps = [step for step in steps_of(outdir) if step.state in _DONE and _is_task(step, record)]
    found = [*_images(steps), *_sums(steps), *_iterations(steps)]
    found += [one for project in _projects(outdir) for one in _published(project)]
    if record["state"] == "finished":
        found += _attempts(outdir, record, steps)
    return list({one.path: one for one in found}.values())


def _refuse_running(outdir: Path) -> None:
    record = read_json(outdir / RECORD)
    launch = Path(record["launch_dir"])
    others = [path.parent for path in [*launch.glob(f"*/{RECORD}"), *launch.glob(f"*/*/{RECORD}")]]
    sharing = [one for one in others if read_json(one / RECORD).get("work_dir") == record["work_dir"]]
    for one in dict.fromkeys([outdir, *sharing]):
        if read_status(one)["run"]["state"] == "running":
            fix = "Wait until it has ended; 'py2rely status' shows it."
            raise ProblemError(
                Problem("The run is running.", str(one), "a run that has ended", fix), ExitCode.BAD_INPUT
            )


def _is_task(step: Step, record: dict[str, Any]) -> bool:
    """Whether a step's directory is one of the run's own tasks, and this user's."""
    directory, work = Path(step.directory), Path(record["work_dir"])
    named = directory.is_relative_to(work) and _TASK.fullmatch(str(directory.relative_to(work)))
    try:
        found = directory.lstat()
    except OSError:
        return False
    return bool(named) and stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _files(directory: Path) -> Iterator[Path]:
    """Plain files below a directory; links are neither followed nor listed."""
    if directory.is_symlink():
        return
    for root, _, names in os.walk(directory):
        paths = (Path(root) / name for name in names)
        yield from (path for path in paths if stat.S_ISREG(path.lstat().st_mode))


def _jobs(steps: Iterable[Step], *kinds: str) -> Iterator[tuple[Step, Path]]:
    for step in steps:
        job = Path(step.directory) / step.name
        if step.name.split("/")[0] in kinds and job.is_dir() and not job.is_symlink():
            yield step, job


def _images(steps: list[Step]) -> Iterator[Freed]:
    """Images of levels after which another one began, and of cycles of polishing whose refinement was judged."""
    names = {(step.dataset, step.name) for step in steps}
    for step, job in _jobs(steps, "Extract"):
        name = step.name.removeprefix("Extract/")
        finer = any(
            other.name.startswith("Extract/") and other.dataset == step.dataset and other.binning < step.binning
            for other in steps
            if other.binning is not None and step.binning is not None
        )
        judged = (step.dataset, f"PostProcess/{name}_refine") in names
        if judged if "_cycle" in name else finer:
            yield from (Freed(IMAGES, path) for path in _files(job / "Subtomograms") if path.name != FREED)


def _sums(steps: list[Step]) -> Iterator[Freed]:
    """What tilt series gave one by one, of jobs that are whole; of a group, when all groups were put together."""
    whole = {(step.dataset, step.name) for step in steps if "_GROUP" not in step.task}
    for step, job in _jobs(steps, "Reconstruct", "CtfRefine", "Polish"):
        if (step.dataset, step.name) in whole:
            yield from (Freed(SUMS, path) for path in _files(job / "temp"))


def _iterations(steps: list[Step]) -> Iterator[Freed]:
    """Files of iterations; those that are a result under another name are the same file, and stay."""
    for _, job in _jobs(steps, "Refine3D", "Class3D", "InitialModel"):
        for path in job.glob("run_it*"):
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_size:
                yield Freed(ITERATIONS, path, emptied=True)


def _projects(outdir: Path) -> list[Path]:
    ids = [one.get("project", "") for one in read_json(outdir / "plan.json").get("datasets", [])]
    return [outdir / name for name in ids]


def _published(project: Path) -> Iterator[Freed]:
    """The same in the output directory, where the last iteration stays: RELION shows it."""
    for kind in ("Reconstruct", "CtfRefine", "Polish"):
        for job in (project / kind).glob("*"):
            if not job.is_symlink():
                yield from (Freed(SUMS, path) for path in _files(job / "temp"))
    for kind in ("Refine3D", "Class2D", "Class3D", "InitialModel"):
        for job in (project / kind).glob("*"):
            found = {} if job.is_symlink() else {path: _ITERATION.match(path.name) for path in job.glob("run_it*")}
            numbers = {path: int(match[1]) for path, match in found.items() if match}
            last = max(numbers.values(), default=0)
            yield from (Freed(ITERATIONS, path) for path, number in numbers.items() if number < last)


def _attempts(outdir: Path, record: dict[str, Any], kept: list[Step]) -> Iterator[Freed]:
    """Tasks that failed and went well when they were tried again."""
    mended = {step.task for step in kept}
    for step in traced(outdir / TRACE, record["started"]):
        if step.state in ("failed", "stopped") and step.task in mended and _is_task(step, record):
            yield from (Freed(ATTEMPTS, path) for path in _files(Path(step.directory)))


def sizes(freed: list[Freed]) -> dict[str, tuple[int, int]]:
    """Files and bytes on disk by kind; of a file with several names, once all of them go."""
    names: dict[tuple[int, int], int] = {}
    result = {kind: (0, 0) for kind in KINDS}
    for one in freed:
        found = one.path.lstat()
        inode = (found.st_dev, found.st_ino)
        names[inode] = names.get(inode, 0) + 1
        size = found.st_blocks * 512 if names[inode] == found.st_nlink else 0
        count, total = result[one.kind]
        result[one.kind] = count + 1, total + size
    return result


def free(freed: list[Freed]) -> None:
    """Remove or empty files; directories stay, so that what is cached remains so."""
    marked = set()
    for one in freed:
        if one.emptied:
            os.truncate(one.path, 0)
            continue
        if one.kind == IMAGES:
            marked.add(next(path for path in one.path.parents if path.name == "Subtomograms"))
        one.path.unlink(missing_ok=True)
    for images in marked:  # a refinement that misses its images reads it
        (images / FREED).write_text("The images were freed when their level was done.\n")


def free_images(job: Path) -> None:
    """Free the images of an extraction whose level is done, also those of the groups that it was put together from.

    Parameters
    ----------
    job : Path
        ``Extract/binN`` in its task's directory.
    """
    parts = job / "parts.json"
    jobs = [job, *(Path(path) for path in read_json(parts).get("parts", []))] if parts.is_file() else [job]
    for one in jobs:
        images = one / "Subtomograms"
        if images.is_dir() and not images.is_symlink() and images.lstat().st_uid == os.geteuid():
            free([Freed(IMAGES, path) for path in _files(images) if path.name != FREED])
