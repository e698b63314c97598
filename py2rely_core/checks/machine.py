"""Checks of the machine: RELION, MPI, disk space, memory and GPU memory for what is planned.

The numbers are estimates of the largest arrays, from RELION's source:

* Extraction writes, per particle, one image of ``size x size`` pixels for every tilt that sees it (2 bytes per pixel as
  float16, or 4), or, without ``do_output_2dstacks``, a volume of ``size^3`` pixels and two of ``size^2 (size/2 + 1)``
  weights of 4 bytes.
* Every follower of a refinement holds, on a grid of ``P = padding x size`` per axis, half of a complex transform of the
  reference (8 bytes), and of the back-projection (8 bytes) with its weights (4 bytes): ``20 P^2 (P/2 + 1)`` bytes per
  class, and as much again while it reconstructs. On a GPU the first 20 stay, without the reconstruction.
* ``relion_tomo_reconstruct_particle`` adds up, per rank and outer thread, two half sets of complex data and weights in
  double precision: ``48 box^2 (box/2 + 1)`` bytes.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from py2rely_core.checks.context import CheckContext
from py2rely_core.planning.plan import Machine
from py2rely_core.problems import Problem
from py2rely_core.relion.programs import giving_way, own_session
from py2rely_core.relion.run import relion_version

GB = 1e9
MRC_HEADER = 1024
#: What is wrong with a version that this pipeline would otherwise use: beginning of its number to the errors.
KNOWN_ERRORS = {
    "5.0.0": "wrong contrast in reconstructions (3dem/relion issue 1300), wrong cropping in Fourier space (1298) and "
    "imprecise projection matrices (1285)"
}
#: RELION's program for Blush regularisation; it loads PyTorch before it answers.
BLUSH = "relion_python_blush"
BLUSH_SECONDS = 120
#: First version of RELION that aligns what its ``--real_subtomo`` gives.
SUBTOMOGRAMS = (5, 1)
MPI_SECONDS = 60
#: And so long to end when it is told to.
STOP_SECONDS = 10
#: A GPU keeps this much for its driver and RELION's own pool, bytes.
GPU_RESERVE = 1.0 * GB


@dataclass(frozen=True)
class Planned:
    """One data set and its plan, as :func:`py2rely_core.planning.plan.plan_dataset` makes it."""

    context: CheckContext
    plan: dict[str, Any]


def check_relion() -> Iterator[Problem]:
    """RELION 5 is there, and its known errors are named."""
    version = relion_version()
    if not version:
        fix = "Put RELION 5 on PATH, or use an image."
        yield Problem("RELION is not there.", "PATH", "relion_refine, version 5", fix)
        return
    if int(re.match(r"\d*", version)[0] or 0) < 5:
        fix = "Install RELION 5.0.1 or later."
        yield Problem(f"RELION {version} is too old.", "PATH", "RELION 5", fix)
    for number, errors in KNOWN_ERRORS.items():
        if version.startswith(number):
            what = f"RELION {version} has errors that later versions corrected: {errors}."
            yield Problem(what, "PATH", "5.0.1 or later", "Update RELION.", "warning")


def check_blush(datasets: list[Planned]) -> Iterator[Problem]:
    """Where Blush is asked for, RELION's program for it answers."""
    recipes = [one.context.recipe for one in datasets]
    asked = [
        f"{name}.do_blush"
        for name in ("refine3D", "class3D", "initial_model")
        if any(block.do_blush for recipe in recipes if (block := getattr(recipe, name)))
    ]
    if not asked:
        return
    where, fix = ", ".join(asked), "Use a RELION 5 that was built with its Python environment, or set do_blush to no."
    program = shutil.which(BLUSH)
    if program is None:
        what = "Blush regularisation is asked for, but this RELION has no program for it."
        yield Problem(what, where, f"{BLUSH} on PATH", fix)
        return
    try:
        ran = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=BLUSH_SECONDS, check=False)
        said = "" if ran.returncode == 0 else (ran.stderr.strip() or ran.stdout.strip() or f"exit {ran.returncode}")
    except subprocess.TimeoutExpired:
        said = f"no answer within {BLUSH_SECONDS} s"
    if said:
        what = f"RELION's program for Blush does not run: {said.splitlines()[-1][:300]}."
        yield Problem(what, where, f"{program} --help", f"Try it by hand. {fix}")


def check_subtomograms(datasets: list[Planned]) -> Iterator[Problem]:
    """Where subtomograms in real space are asked for, RELION can align them: 5.0 projects them along each tilt."""
    if not any(one.plan["levels"][0]["extract"]["images"] == "subtomograms" for one in datasets):
        return
    version = relion_version()
    if version and tuple(map(int, re.findall(r"\d+", version)[:2])) < SUBTOMOGRAMS:
        what = f"Subtomograms in real space are asked for, and RELION {version} has none that it can align."
        fix = "Use RELION 5.1, or set pseudo_subtomo.do_real_subtomo to no."
        yield Problem(what, "pseudo_subtomo.do_real_subtomo", "RELION 5.1 or later", fix)


def check_mpi(ranks: int) -> Iterator[Problem]:
    """``mpirun`` starts as many ranks as are planned, and RELION sees them as one run.

    Parameters
    ----------
    ranks : int
        The most that a step is planned to use.
    """
    if ranks < 2 or shutil.which("relion_refine_mpi") is None:
        return
    if shutil.which("mpirun") is None:
        yield Problem("mpirun is not there.", "PATH", "the MPI that RELION was built with", "Put it on PATH.")
        return
    command = ["mpirun", "-n", str(ranks), "relion_refine_mpi"]
    answer = _ask_mpi(command, ranks)
    if answer is None:
        what = f"MPI did not start {ranks} ranks within {MPI_SECONDS} s."
        yield Problem(what, " ".join(command), "an answer", "Try the command by hand, on the machine that runs jobs.")
        return
    output, errors = answer
    found = _ranks(output)
    if found == [ranks]:
        return
    said = " ".join(line.strip() for line in (errors + output).splitlines() if line.strip(" -"))
    if len(found) > 1:
        what = f"MPI starts {len(found)} runs of one rank each instead of one run of {ranks} ranks."
        fix = "mpirun and RELION belong to different MPI libraries: use the mpirun that RELION was built with."
    else:
        what = f"MPI does not start {ranks} ranks: {said[:300] or 'no answer'}."
        fix = "With too few slots, set PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe (Open MPI 5) or "
        fix += "OMPI_MCA_rmaps_base_oversubscribe=1 (Open MPI 4), or ask for fewer ranks with --cpus."
        if "mkdir" in said:
            fix = "Let TMPDIR name a directory that exists and can be written, where the job runs."
    yield Problem(what, " ".join(command), f"Number of MPI processes = {ranks}", fix)


def _ranks(output: str) -> list[int]:
    """How many ranks each run of RELION says that it has."""
    return [int(number) for number in re.findall(r"Number of MPI processes\s*=\s*(\d+)\s", output)]


def _ask_mpi(command: list[str], ranks: int) -> tuple[str, str] | None:
    """What RELION prints that is started without arguments, and its errors; None without an answer in time.

    RELION says how many ranks there are, and ends; but without ``MPI_Finalize``, so mpirun waits for three seconds.
    It is stopped as soon as it says what is hoped for.
    """
    with (
        own_session(command) as session,
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            giving_way(command), env=os.environ | session, stdout=subprocess.PIPE, stderr=errors
        ) as running,
    ):
        output, deadline = b"", time.monotonic() + MPI_SECONDS
        while ready := select.select([running.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
            part = os.read(running.stdout.fileno(), 65536)
            output += part
            if not part or _ranks(output.decode(errors="replace")) == [ranks]:
                break
        if not ready or part:
            running.terminate()
        try:
            running.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            running.kill()
        errors.seek(0)
        return (output.decode(errors="replace"), errors.read().decode(errors="replace")) if ready else None


def extraction_bytes(context: CheckContext) -> dict[int, float]:
    """Size of the extracted particles at each binning, bytes, from how many tilts see each of them."""
    sizes = {}
    for binning, grid in context.levels.items():
        block = context.recipe.block_at(binning, "pseudo_subtomo")
        counts, pixel = context.visibility[binning], 2 if block.do_float16 else 4
        seen = int((counts > 0).sum())
        if context.recipe.image_kind(binning) == "stacks":
            sizes[binning] = float(counts[counts > 0].sum()) * grid.size**2 * pixel + seen * MRC_HEADER
        else:
            weights = 2 * grid.size**2 * (grid.size // 2 + 1) * 4
            sizes[binning] = float(seen) * (grid.size**3 * pixel + weights + 2 * MRC_HEADER)
    return sizes


def check_disk(
    datasets: list[Planned], work: Path, outdir: Path | None = None, keep_stacks: bool = True
) -> Iterator[Problem]:
    """The work directory has room for the extracted particles of all levels, or of the largest where they do not stay.

    A warning, as a run that is resumed has written some of them before; an error when one level is larger than the
    whole disk.
    """
    sizes: dict[str, float] = {}
    at_once = 0.0
    for one in datasets:
        own = extraction_bytes(one.context)
        at_once += max(own.values(), default=0.0)
        for binning, size in own.items():
            sizes[f"bin {binning}"] = sizes.get(f"bin {binning}", 0.0) + size
    needed, largest = sum(sizes.values()) if keep_stacks else at_once, max(sizes.values(), default=0.0)
    place = _existing(work)
    disk = shutil.disk_usage(place)
    levels = ", ".join(f"{name}: {size / GB:.1f} GB" for name, size in sizes.items())
    where = f"work directory {work}: {disk.free / GB:.1f} GB free of {disk.total / GB:.1f} GB"
    fix = "Use another work directory (-work-dir), float16 and 2D stacks, or fewer levels."
    fix = f"Free them when their level is done (--keep_stacks false). {fix}" if keep_stacks else fix
    if largest > disk.total:
        what = f"A level's extracted particles do not fit on the disk ({levels})."
        yield Problem(what, where, f"{largest / GB:.1f} GB", fix)
    elif needed > disk.free:
        what = f"The extracted particles need {needed / GB:.1f} GB ({levels})."
        yield Problem(what, where, "more free space, unless they are there from an earlier run", fix, "warning")
    if outdir is not None:
        yield from _check_outdir(datasets, outdir)


def _check_outdir(datasets: list[Planned], outdir: Path) -> Iterator[Problem]:
    """Maps and tables are copied to the output directory; extracted particles are not."""
    needed = 0.0
    for one in datasets:
        for grid in one.context.levels.values():
            # About 20 maps per level, and a table of about 300 bytes per particle in each of ten steps.
            needed += 20 * 4 * grid.size**3 + 10 * 300 * len(one.context.inputs.particles)
    free = shutil.disk_usage(_existing(outdir)).free
    if needed > free:
        what = f"Maps and tables need about {needed / GB:.1f} GB in the output directory."
        where = f"{outdir}: {free / GB:.1f} GB free"
        yield Problem(what, where, "more free space", "Use another --outdir, or make room.", "warning")


def _existing(path: Path) -> Path:
    path = path.absolute()
    return path if path.exists() or path == path.parent else _existing(path.parent)


def refinement_bytes(size: int, padding: int = 2, classes: int = 1) -> float:
    """Memory that one follower of a refinement holds, bytes: see the module's text; the half of its peak."""
    edge = padding * size
    return 20.0 * classes * edge**2 * (edge // 2 + 1)


def reconstruction_bytes(box: int, ranks: int, threads: int) -> float:
    """Memory that a reconstruction adds up in, bytes: see the module's text."""
    return 48.0 * ranks * threads * box**2 * (box // 2 + 1)


def check_memory(datasets: list[Planned], total: float | None = None) -> Iterator[Problem]:
    """The planned boxes fit into this machine's memory; a warning, as jobs may run on another.

    Parameters
    ----------
    datasets : list of Planned
    total : float or None
        Bytes; None for this machine's, or its control group's limit.
    """
    total = total or available_memory()
    worst: tuple[float, str] = (0.0, "")
    for one in datasets:
        for level in one.plan["levels"]:
            followers = max(1, level["refine"]["ranks"] - 1)
            refine = 2 * followers * refinement_bytes(level["size"])
            recon = level["reconstruct"]
            accumulate = reconstruction_bytes(recon["box"], recon["ranks"], recon["threads"])
            name = f"bin {level['binning']}"
            worst = max(worst, (refine, f"refinement at {name}: {followers} followers, box {level['size']}"))
            threads = f"{recon['ranks']} ranks of {recon['threads']} threads"
            worst = max(worst, (accumulate, f"reconstruction at {name}: {threads}, box {recon['box']}"))
    needed, step = worst
    if needed > total:
        what = f"A step needs about {needed / GB:.0f} GB of memory."
        fix = "Use fewer cores (--cpus) or nr_threads, '--pad 1' in refine3D.other_args, '--mem' in "
        fix += "reconstruct.other_args, or a smaller box."
        yield Problem(what, step, f"this machine's {total / GB:.0f} GB", fix, "warning")


def available_memory() -> float:
    """Memory of this machine, or what its control group allows, bytes."""
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return min(total, float(text)) if text.isdigit() else total


def gpu_memory() -> dict[str, float]:
    """Memory of each GPU of this machine, bytes, by its number; empty where ``nvidia-smi`` is not there."""
    if shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", "--query-gpu=index,memory.total", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [line.split(",") for line in done.stdout.splitlines() if line.count(",") == 1]
    return {number.strip(): float(size) * 2**20 for number, size in rows if size.strip().isdigit()}


def check_gpus(datasets: list[Planned], machine: Machine, memory: dict[str, float] | None = None) -> Iterator[Problem]:
    """The GPUs that are asked for exist, and hold the planned boxes; only where GPUs can be seen from here.

    Parameters
    ----------
    datasets : list of Planned
    machine : Machine
        What was asked for.
    memory : dict or None
        As :func:`gpu_memory` returns it; None to ask.
    """
    memory = gpu_memory() if memory is None else memory
    if not machine.devices or not memory:
        return
    gone = [name for name in machine.devices if name.isdigit() and name not in memory]
    if gone:
        what = f"GPU {', '.join(gone)} is not there."
        yield Problem(what, "--gpus", f"of {', '.join(memory)}", "Correct --gpus.", "warning")
    tight: tuple[float, str, float] | None = None
    for one in datasets:
        for level in one.plan["levels"]:
            places = [place for place in str(level["refine"].get("gpus") or "").split(":") if place.isdigit()]
            used = [gpu for gpu in (machine.devices[int(place)] for place in places) if gpu in memory]
            for gpu in dict.fromkeys(used):
                needed = used.count(gpu) * refinement_bytes(level["size"]) + GPU_RESERVE
                if needed > memory[gpu] and (tight is None or needed > tight[0]):
                    followers = f"{used.count(gpu)} followers of a refinement with box {level['size']}"
                    tight = (needed, f"GPU {gpu}: {followers} at bin {level['binning']}", memory[gpu])
    if tight:
        what = f"A GPU needs about {tight[0] / GB:.0f} GB for the padded reference and back-projection."
        fix = "Use '--pad 1' in refine3D.other_args, more GPUs (fewer followers on each), or a smaller box."
        yield Problem(what, tight[1], f"its {tight[2] / GB:.0f} GB", fix, "warning")


def most_ranks(datasets: list[Planned]) -> int:
    """The most MPI ranks that a step is planned to use."""
    ranks = [
        level[step].get("ranks", 1)
        for one in datasets
        for level in one.plan["levels"]
        for step in ("extract", "reconstruct", "refine")
    ]
    return max(ranks, default=1)


def check_machine(
    datasets: list[Planned], machine: Machine, work: Path, outdir: Path | None = None, keep_stacks: bool = True
) -> Iterator[Problem]:
    """All checks of the machine.

    Parameters
    ----------
    datasets : list of Planned
        Everything that runs.
    machine : Machine
        What a task may use.
    work, outdir : Path
        Where tasks write, and where results go; they need not exist yet.
    keep_stacks : bool
        Whether extracted particles stay when their level is done.
    """
    yield from check_relion()
    yield from check_blush(datasets)
    yield from check_subtomograms(datasets)
    yield from check_mpi(most_ranks(datasets))
    yield from check_disk(datasets, work, outdir, keep_stacks)
    yield from check_memory(datasets)
    yield from check_gpus(datasets, machine)


def summary(one: Planned) -> dict[str, Any]:
    """Numbers of a data set that a person wants to see before a run, JSON-ready."""
    context = one.context
    sizes = extraction_bytes(context)
    levels = []
    for binning, grid in context.levels.items():
        counts = context.visibility[binning]
        seen = counts[counts >= 0]
        levels.append(
            {
                "binning": binning,
                "box": grid.size,
                "extraction_box": grid.box,
                "particles_seen": int((counts > 0).sum()),
                "particles_not_seen": int((counts == 0).sum()),
                "mean_tilts": round(float(np.mean(seen)), 1) if seen.size else None,
                "extraction_gb": round(sizes[binning] / GB, 3),
            }
        )
    return {
        "particles": len(context.inputs.particles),
        "tilt_series": len(context.inputs.tilt_series),
        "tilts": len(context.tilts),
        "levels": levels,
    }
