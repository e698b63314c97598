"""Tilt-series tables: what an import, a CTF refinement or a polishing left, and what it changed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from py2rely_core.data.geometry import CENTRED, ORIGINS
from py2rely_core.data.tables import read_alike, read_star, read_stars
from py2rely_core.problems import ProblemError
from py2rely_core.relion.outputs.job import kept_particles, particles_of, row_count, write_numbers
from py2rely_core.relion.run import commands

_NOT_FINITE = re.compile(r"(?<!\S)[+-]?(?:nan|inf)", re.IGNORECASE)


def tilt_series_summary(job: Path, particles: pd.DataFrame) -> list[dict[str, Any]]:
    """What is known of every tilt series of an import: its tilts, defocus (Angstrom) and motion, and its particles.

    Parameters
    ----------
    job : Path
        Holds ``tomograms.star``, whose paths are relative to the directory two above.
    particles : DataFrame
        Of the whole data set.
    """
    counts = particles["rlnTomoName"].value_counts()
    tomograms = read_star(job / "tomograms.star")["global"]
    rows = []
    for name, file in zip(tomograms["rlnTomoName"], tomograms["rlnTomoTiltSeriesStarFile"], strict=True):
        tilts = next(iter(read_star(job.parent.parent / file).values()))
        rows.append({"name": str(name), "particles": int(counts.get(name, 0)), "tilts": len(tilts)} | _ranges(tilts))
    return rows


def _ranges(tilts: pd.DataFrame) -> dict[str, float | None]:
    """Extremes and means of a tilt series' columns; None where a column is missing."""

    def of(label: str, function: Any) -> float | None:
        values = pd.to_numeric(tilts[label], errors="coerce").dropna() if label in tilts else pd.Series(dtype=float)
        return round(float(function(values)), 3) if len(values) else None

    angle = "rlnTomoNominalStageTiltAngle" if "rlnTomoNominalStageTiltAngle" in tilts else "rlnTomoYTilt"
    return {
        "tilt_min": of(angle, min),
        "tilt_max": of(angle, max),
        "defocus": of("rlnDefocusU", np.mean),
        "defocus_min": of("rlnDefocusU", min),
        "defocus_max": of("rlnDefocusU", max),
        "dose": of("rlnMicrographPreExposure", max),
        "motion": of("rlnAccumMotionTotal", np.mean),
    }


def check_tables(job: Path, tomograms: Path) -> str:
    """Why tilt-series tables that a step wrote cannot be used; empty when they can.

    Every tilt series is there, with as many tilts as before, and defocus and alignment are numbers.
    """
    path = job / "tomograms.star"
    if not path.is_file():
        return "tomograms.star was not written"
    try:
        before, after = tilt_tables(tomograms), tilt_tables(path)
    except ProblemError as error:
        return error.problems[0].what
    if set(before) != set(after):
        return f"{len(before)} tilt series went in, {len(after)} came out"
    suspect = (name for name, table in after.items() if _unusable(name, table, before[name]))
    files = dict(read_star(path)["global"][["rlnTomoName", "rlnTomoTiltSeriesStarFile"]].to_numpy())
    # Tables that are read together may hold another one's text: the one by itself says what is wrong with it.
    alone = ((name, next(iter(read_star(files[name]).values()))) for name in suspect)
    return next((why for name, table in alone if (why := _unusable(name, table, before[name]))), "")


def _unusable(name: str, table: pd.DataFrame, before: pd.DataFrame) -> str:
    numbers = table.select_dtypes("number")
    if len(table) != len(before):
        return f"{name} has {len(table)} tilts instead of {len(before)}"
    if not np.isfinite(numbers.to_numpy(dtype=float)).all():
        return f"{name} has values that are not finite"
    return f"{name} has no defocus" if "rlnDefocusU" in before and "rlnDefocusU" not in numbers else ""


def check_polished(job: Path, tomograms: Path) -> str:
    """Why what a polishing wrote cannot be used, tables, trajectories and particles; empty when it can."""
    reason = check_tables(job, tomograms)
    if reason:
        return reason
    if (job / "motion.star").is_file():
        name = _not_finite((job / "motion.star").read_text())
        if name is not None:
            return f"the trajectory of {name} has values that are not finite"
    if (job / "particles.star").is_file():
        rows = particles_of(job, job / "particles.star")
        placed = rows[[label for label in (*CENTRED, *ORIGINS) if label in rows]]
        bad = ~np.isfinite(placed.to_numpy(dtype=float)).all(axis=1)
        if bad.any():
            return f"a particle of {rows['rlnTomoName'][bad].iloc[0]} is at no finite place"
    return ""


def _not_finite(text: str) -> str | None:
    """The first block of a STAR file with a value that is not finite; names of blocks may hold any text."""
    small = text.lower()
    for word in ("nan", "inf"):
        place = small.find(word)
        while place >= 0:
            start, end = text.rfind("\n", 0, place) + 1, text.find("\n", place)
            line = text[start : end if end >= 0 else None]
            if not line.startswith(("data_", "_", "#")) and _NOT_FINITE.search(line):
                block = text.rfind("data_", 0, start)
                return text[block + 5 :].split("\n", 1)[0].strip()
            place = small.find(word, start + len(line))
    return None


def tilt_tables(tomograms: Path) -> dict[str, pd.DataFrame]:
    """The table of every tilt series that a ``tomograms.star`` names, paths as RELION resolves them."""
    table = read_star(tomograms)["global"]
    files = {name: Path(file) for name, file in table[["rlnTomoName", "rlnTomoTiltSeriesStarFile"]].to_numpy()}
    found = read_stars(files.values())
    for blocks in found.values():
        if isinstance(blocks, ProblemError):
            raise blocks
    return {name: next(iter(found[file].values())) for name, file in files.items()}


def check_ctf_refine(job: Path, tomograms: Path, particles: Path, output: Path) -> None:
    """Note what a CTF refinement changed, and write the particle set that belongs to it.

    Tables that cannot be used are noted (``unusable``), and do not end the run: the step is rejected.
    """
    reason = check_tables(job, tomograms)
    numbers: dict[str, Any] = {"unusable": reason}
    if not reason:
        before, after = tilt_tables(tomograms), tilt_tables(job / "tomograms.star")
        numbers["defocus"] = {name: _defocus_change(before[name], after[name]) for name in before}
    # RELION writes particles only when their optics changed.
    source = job / "particles.star" if (job / "particles.star").is_file() else kept_particles(job, particles)
    _pass_on(source, output)
    write_numbers(job, **numbers, **_left_out(job, particles))


def _defocus_change(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, float]:
    old, new = (table[["rlnDefocusU", "rlnDefocusV"]].to_numpy(dtype=float).mean(axis=1) for table in (before, after))
    changes = {"before": old.mean(), "after": new.mean(), "change_std": (new - old).std()}
    return {name: round(float(value), 1) for name, value in changes.items()}


def check_polish(job: Path, tomograms: Path, particles: Path, output: Path) -> None:
    """Note how particles moved, and write the particle set that belongs to the polished tilt series."""
    reason = check_polished(job, tomograms)
    # Where images are only shifted as a whole, RELION writes no particles: they are as before.
    shifted = any("--shift_only" in one["command"] for one in commands(job))
    kept = kept_particles(job, particles)
    polished = kept if shifted and not (job / "particles.star").exists() else job / "particles.star"
    if not reason and len(particles_of(job, kept)) != row_count(polished):
        reason = "particles.star has not as many particles as before"
    numbers: dict[str, Any] = {"unusable": reason}
    if not reason and (job / "motion.star").is_file():
        numbers["motion"] = motion_of(job / "motion.star", particles)
    _pass_on(kept if reason else polished, output)
    write_numbers(job, **numbers, **_left_out(job, particles))


def _left_out(job: Path, particles: Path) -> dict[str, Any]:
    """How many particles were left out with their tilt series; empty where none were."""
    before, after = row_count(particles), row_count(kept_particles(job, particles))
    if before == after:
        return {}
    reason = f"{before - after} are in tilt series that were left out."
    return {"particles_in": before, "particles_out": after, "reason": reason}


def _pass_on(source: Path, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, output / "particles.star")
    write_numbers(output, particles_out=row_count(source))


def motion_of(path: Path, particles: Path) -> dict[str, Any]:
    """Root mean square of the particles' motion from their mean position, Angstrom, in all and by tilt series.

    RELION writes trajectories tilt series by tilt series, each under the name of its particle, which need not be the
    order of the particles.
    """
    tracks, rows, moved = read_alike(path)
    table = read_star(particles)["particles"]
    tomogram = {}
    if "rlnTomoParticleName" in table:
        tomogram = dict(zip(table["rlnTomoParticleName"].astype(str), table["rlnTomoName"], strict=True))
    # RELION calls particles without a name by their tomogram and a number.
    names = [tomogram.get(name, name.rpartition("/")[0]) for name in tracks]
    which, positions = np.repeat(np.arange(len(tracks)), rows), moved[ORIGINS].to_numpy(dtype=float)
    means = np.stack([np.bincount(which, axis, len(tracks)) for axis in positions.T], axis=1) / rows[:, None]
    squares = np.bincount(which, ((positions - means[which]) ** 2).sum(axis=1), len(tracks)) / rows
    found = pd.DataFrame({"tomogram": names, "square": squares})
    series = found[found["tomogram"] != ""].groupby("tomogram")["square"].mean() ** 0.5
    rms = float(np.sqrt(np.mean(squares))) if len(squares) else 0.0
    return {"rms": round(rms, 3), "per_tomogram": {name: round(float(value), 3) for name, value in series.items()}}
