"""Work on many tilt series, cut into groups that run side by side, and what they give, put together again.

Tilt series are independent in extraction, in everything up to the sums of an average, and in CTF refinement and
polishing up to what is fitted to all: the parts, put together, are what one job over all of them gives.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.relion.outputs.job import bad_output


def split_particles(particles: Path, tomograms: Path, groups: int, output: Path) -> list[Path]:
    """Write one particle set per group of tilt series, of nearly equal numbers, in their order.

    Parameters
    ----------
    particles : Path
        ``Select/NAME/particles.star``.
    tomograms : Path
        Table of the tilt series, in the order in which RELION goes through them.
    groups : int
        How many; fewer where fewer tilt series hold particles.
    output : Path
        Gets ``NAME_group001/particles.star`` and so on.
    """
    blocks = read_star(particles)
    table = blocks["particles"]
    used = set(table["rlnTomoName"])
    names = [name for name in read_star(tomograms)["global"]["rlnTomoName"] if name in used]
    written = []
    parts = np.array_split(np.array(names, dtype=object), min(groups, len(names)))
    for number, part in enumerate(parts, start=1):
        target = output / f"{particles.parent.name}_group{number:03d}"
        rows = table[table["rlnTomoName"].isin(set(part))]
        write_star(blocks | {"particles": rows}, target / "particles.star")
        written.append(target)
    return written


def merge_extract(parts: list[Path], job: Path) -> None:
    """Put extracted groups together: one particle set, as RELION orders it, and links to the images.

    Parameters
    ----------
    parts : list of Path
        ``Extract/binN`` of each group, in order; their images lie in directories of their tilt series.
    job : Path
        ``Extract/binN`` of the whole.
    """
    tables = [read_star(part / "particles.star") for part in parts]
    merged = dict(tables[0])
    merged["optics"] = pd.concat([table["optics"] for table in tables]).drop_duplicates("rlnOpticsGroup")
    merged["particles"] = pd.concat([table["particles"] for table in tables], ignore_index=True)
    write_star(merged, job / "particles.star")
    for part in parts:
        shutil.copytree(part / "Subtomograms", job / "Subtomograms", copy_function=_link, dirs_exist_ok=True)
    shutil.copy(parts[0] / "optimisation_set.star", job / "optimisation_set.star")
    (job / "parts.json").write_text(json.dumps({"parts": [str(part.resolve()) for part in parts]}))
    merge_logs(parts, job)


def _link(source: str, target: str) -> None:
    """A hard link to the file itself, or a copy on another file system."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)


def merge_logs(parts: list[Path], job: Path) -> None:
    """Put what the groups printed, and how long they took, one after the other."""
    for name in ("run.out", "run.err", "commands.jsonl"):
        texts = [(part / name).read_text(errors="replace") for part in parts if (part / name).is_file()]
        (job / name).write_text("".join(texts))


def merge_temp(parts: list[Path], job: Path) -> None:
    """Put what RELION found for each tilt series where it looks for it.

    ``relion_tomo_refine_ctf`` and ``relion_tomo_align`` keep what they find in ``temp/`` under the names of the tilt
    series, as their MPI versions do for what several ranks find. With ``--only_do_unfinished`` they go on from there.

    Parameters
    ----------
    parts : list of Path
        ``CtfRefine/NAME`` or ``Polish/NAME`` of each group.
    job : Path
        The same job of the whole; gets ``temp/``.
    """
    job.mkdir(parents=True, exist_ok=True)
    for part in parts:
        shutil.copytree(part / "temp", job / "temp", dirs_exist_ok=True)
    merge_logs(parts, job)


def merge_sums(parts: list[Path], tomograms: Path, job: Path) -> None:
    """Add up what groups have back-projected, where RELION looks for it.

    ``relion_tomo_reconstruct_particle`` keeps its sums after each tilt series in ``temp/``: the data and the weights of
    both halves, before symmetry and division. With the sum of all as that of the last tilt series, the program with
    ``--only_do_unfinished`` goes on from there, and makes the map as it does in a single job.

    Parameters
    ----------
    parts : list of Path
        ``Reconstruct/NAME`` of each group, run with ``--no_recon``.
    tomograms : Path
        Table of all tilt series, as the program is given it.
    job : Path
        ``Reconstruct/NAME`` of the whole; gets ``temp/``.
    """
    last = len(read_star(tomograms)["global"]) - 1
    (job / "temp").mkdir(parents=True, exist_ok=True)
    for kind in ("data", "ctf"):
        for half in (0, 1):
            sums = [_last_sum(part, kind, half) for part in parts]
            total = sum((mrcfile.read(path).astype(np.float64) for path in sums if path), start=np.float64(0))
            if half == 1 and not any(sums):  # without half sets there is one sum; the program reads two
                total = np.zeros_like(mrcfile.read(_last_sum(parts[0], kind, 0)))
            with mrcfile.new(job / f"temp/sum_{last}_{kind}_half{half}.mrc", overwrite=True) as mrc:
                mrc.set_data(total.astype(np.float32))
    merge_logs(parts, job)


def _last_sum(part: Path, kind: str, half: int) -> Path | None:
    """The sum after the last tilt series of a group."""
    found = {}
    for path in (part / "temp").glob(f"sum_*_{kind}_half{half}.mrc"):
        found[int(re.search(r"sum_(\d+)_", path.name).group(1))] = path
    if not found and half == 0:
        raise bad_output(part, f"there are no sums in {part}/temp.")
    return found[max(found)] if found else None
