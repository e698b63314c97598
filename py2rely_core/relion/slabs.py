"""A job of slabs: one image of each particle, cut out of its tomogram, as a stack that RELION's Class2D takes.

The job holds ``stacks/NAME.mrcs`` for each tomogram; ``particles_relion.star``, whose rows are plain 2D particles;
``source.star``, the particles as they were given; and ``index.csv``, which says for each of their rows which image is
its, so that nothing of a particle is lost on the way through a classification. One tomogram is held at a time.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd

from py2rely_core.data.geometry import SIZES, true_positions
from py2rely_core.data.tables import Blocks, read_star, split_image_name, write_star
from py2rely_core.maps.slabs import cut_slab, normalised
from py2rely_core.problems import ExitCode, Problem, ProblemError
from py2rely_core.relion.outputs.job import write_numbers
from py2rely_core.relion.tomograms import make_tomogram

PARTICLES, SOURCE, INDEX, STACKS = "particles_relion.star", "source.star", "index.csv", "stacks"
#: Why a particle has no image.
AT_BORDER = "too near the border of its tomogram"
NO_TOMOGRAM = "there is no tomogram"
#: Failures that may be those of one tomogram; not: out of memory, stopped from outside.
_OF_ONE = (ExitCode.BAD_INPUT, ExitCode.RELION_FAILED, ExitCode.BAD_OUTPUT)
#: What is written where nothing says the microscope; RELION uses it for the CTF only.
MICROSCOPE = {"rlnVoltage": 300.0, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1}
#: Voxels by which a tomogram may be larger or smaller than its tilt series says.
SAME_SIZE = 3
#: RELION ends in a crash on much smaller images.
LEAST_BOX = 16
_INDEX = ["row", "tomogram", "image", "reason"]


@dataclass(frozen=True)
class Settings:
    """What is cut. Lengths are Angstrom.

    Attributes
    ----------
    box : float
        Edge of the images; even numbers of pixels are taken.
    thickness : float
        Of the slab.
    diameter : float
        Of the particle: outside of it images are normalised.
    binning : float
        Of tomograms that are made.
    invert : bool
        Particles are dark in the tomograms.
    threads : int
        Of the reconstruction of tomograms.
    options : list of str
        More of its command line.
    """

    box: float
    thickness: float
    diameter: float
    binning: float = 4
    invert: bool = True
    threads: int = 1
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tomogram:
    """A tomogram: voxels (z, y, x), which are read when they are sliced, and Angstrom per voxel."""

    voxels: Any
    voxel_size: float


#: Gives the tomogram of a tilt series by its name, as a context.
Open = Callable[[str], Any]


def make_slabs(
    job: Path, particles: Path, settings: Settings, open_tomogram: Open, tilt_series: pd.DataFrame | None = None,
    defocus: Callable[[str], tuple[float, float, float, float] | None] = lambda name: None, may_be_none: bool = False,
    may_fail: bool = False,
) -> None:  # fmt: skip
    """Cut the slab of every particle.

    Parameters
    ----------
    job : Path
        Directory of the job, as its files are to be named.
    particles : Path
        RELION 5 particles; they are not changed.
    settings : Settings
    open_tomogram : callable
        As :func:`opened` or :func:`reconstructed` give it.
    tilt_series : DataFrame, optional
        Rows of the tilt series, whose sizes tomograms are compared with.
    defocus : callable
        By tilt series: defocus U and V and its angle at the least tilt, and what a height adds, per Angstrom.
    may_be_none : bool
        There may be no image at all: these are a group of the tilt series.
    may_fail : bool
        Particles of a tomogram that RELION fails to make, or that cannot be read, are not judged.

    Raises
    ------
    ProblemError
        A tomogram cannot be read, is not that of its tilt series, or no particle is within one.
    """
    blocks = read_star(particles)
    table = blocks["particles"].reset_index(drop=True)
    shutil.rmtree(job / STACKS, ignore_errors=True)
    (job / STACKS).mkdir(parents=True)
    write_star(blocks | {"particles": table}, job / SOURCE)
    positions = true_positions(table)
    index: list[tuple[int, str, str, str]] = []
    images, grid, failed = [], None, []
    groups = table.groupby("rlnTomoName", sort=False).indices
    for number, (name, rows) in enumerate(groups.items(), start=1):
        stack = job / STACKS / f"{_file_name(str(name), number)}.mrcs"
        try:
            with open_tomogram(str(name)) as tomogram:
                grid = _same_grid(grid, tomogram, str(name), settings)
                check_size(tomogram.voxels.shape, tomogram.voxel_size, str(name), tilt_series)
                slabs, kept = _slabs_of(tomogram, positions[rows], settings, grid)
        except ProblemError as error:
            if not may_fail or error.exit_code not in _OF_ONE:
                raise
            failed.append(f"{name}: {error.problems[0].what}")
            index += [(int(row), str(name), "", NO_TOMOGRAM) for row in rows]
            continue
        if len(slabs):
            _write_stack(stack, slabs, grid[1])
        where = {row: f"{n:06d}@{stack}" for n, row in enumerate(rows[kept], start=1)}
        index += [(int(row), str(name), where.get(row, ""), "" if row in where else AT_BORDER) for row in rows]
        images.append(_rows(table.iloc[rows[kept]], positions[rows[kept]], str(name), list(where.values()), defocus))
    found = pd.concat(images, ignore_index=True) if images else pd.DataFrame()
    warnings = [f"Tomograms are missing, their picks are not judged: {'; '.join(failed)}"] if failed else []
    if found.empty and may_be_none:
        write_index(job, sorted(index))
        note_slabs(job, *(grid or (0, 0.0)), settings.thickness, warnings=warnings)
        return
    if found.empty:
        what = f"{job}: none of {len(table)} particles is far enough from the border of its tomogram."
        fix = "Make the slabs smaller or thinner, or correct the coordinates."
        expected = f"slabs of {settings.box:g} x {settings.box:g} x {settings.thickness:g} A within the tomograms"
        raise ProblemError(Problem(what, str(particles), expected, fix), ExitCode.BAD_INPUT)
    write_star({"optics": _optics(blocks, found, tilt_series, grid), "particles": found}, job / PARTICLES)
    write_index(job, sorted(index))
    note_slabs(job, *grid, settings.thickness, warnings=warnings)


def write_index(job: Path, rows: list[tuple[int, str, str, str]]) -> None:
    """Write which image belongs to which row of the particles: row from 0, tomogram, image, why there is none."""
    with (job / INDEX).open("w", newline="") as file:
        csv.writer(file).writerows([_INDEX, *rows])


def read_index(job: Path) -> pd.DataFrame:
    """The index of a job of slabs: row, tomogram, image (empty for none), reason."""
    if not (job / INDEX).is_file():
        what, fix = f"{job} holds no slabs.", "Give the directory that 'py2rely slab make' wrote."
        raise ProblemError(Problem(what, str(job / INDEX), "an index of images", fix))
    return pd.read_csv(job / INDEX, dtype={"tomogram": str, "image": str, "reason": str}, keep_default_na=False)


def note_slabs(job: Path, box: int, pixel_size: float, thickness: float, **more: Any) -> None:
    """Write ``job.json`` of a job of slabs, from its index."""
    index = read_index(job)
    judged = int((index["image"] != "").sum())
    left = len(index) - judged
    numbers = {"particles_in": len(index), "not_judged": left, "images": judged, "box": box, "pixel_size": pixel_size}
    numbers |= {"thickness": thickness, "tomograms": int(index["tomogram"].nunique())}
    write_numbers(job, **numbers, **more)


def merge_slabs(parts: list[Path], particles: Path, job: Path) -> None:
    """Put the slabs of groups of tilt series together as one job.

    Parameters
    ----------
    parts : list of Path
        The job of each group.
    particles : Path
        The particles of all of them.
    job : Path
        The whole.
    """
    blocks = read_star(particles)
    table = blocks["particles"].reset_index(drop=True)
    (job / STACKS).mkdir(parents=True, exist_ok=True)
    write_star(blocks | {"particles": table}, job / SOURCE)
    rows_of = table.groupby("rlnTomoName", sort=False).indices
    index, tables, number = [], [], 0
    for part in parts:
        own = read_index(part)
        images = read_star(part / PARTICLES) if (part / PARTICLES).is_file() else None
        names = {}
        for name, rows in own.groupby("tomogram", sort=False):
            number += 1
            # A group has a tilt series' particles in the order of the whole.
            for row, (_, entry) in zip(rows_of[name], rows.iterrows(), strict=True):
                image = ""
                if entry["image"]:
                    section, file = split_image_name(entry["image"])
                    stack = job / STACKS / f"{_file_name(str(name), number)}.mrcs"
                    if not stack.exists():
                        _link(part / STACKS / Path(file).name, stack)
                    image = f"{section:06d}@{stack}"
                    names[entry["image"]] = image
                index.append((int(row), str(name), image, entry["reason"]))
        if images is not None:
            images["particles"]["rlnImageName"] = images["particles"]["rlnImageName"].map(names)
            tables.append(images)
    if not tables:
        what, fix = f"{job}: no particle is far enough from the border of its tomogram.", "Make the slabs smaller."
        raise ProblemError(Problem(what, str(particles), "slabs within the tomograms", fix), ExitCode.BAD_INPUT)
    optics = pd.concat([one["optics"] for one in tables]).drop_duplicates("rlnOpticsGroup")
    write_star({"optics": optics, "particles": pd.concat([one["particles"] for one in tables])}, job / PARTICLES)
    write_index(job, sorted(index))
    for name in ("run.out", "run.err", "commands.jsonl"):
        texts = [(part / name).read_text(errors="replace") for part in parts if (part / name).is_file()]
        if texts:
            (job / name).write_text("".join(texts))
    all_noted = [json.loads((part / "job.json").read_text()) for part in parts]
    noted = next(one for one in all_noted if one["images"])
    warnings = [text for one in all_noted for text in one.get("warnings", [])]
    note_slabs(job, noted["box"], noted["pixel_size"], noted["thickness"], warnings=warnings)


def _link(source: Path, target: Path) -> None:
    """A hard link to the file itself, or a copy on another file system."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)


def opened(files: dict[str, Path]) -> Open:
    """Tomograms that are there, by the names of their tilt series."""

    @contextmanager
    def open_one(name: str) -> Any:
        path = files[name]
        try:
            found = mrcfile.mmap(path, mode="r", permissive=False)
        except (OSError, ValueError) as error:
            fix = "Copy or write the file again."
            what = f"The tomogram of {name} cannot be read: {error}."
            raise ProblemError(Problem(what, str(path), "a complete MRC file", fix)) from error
        with found as mrc:
            yield Tomogram(mrc.data, float(mrc.voxel_size.x))

    return open_one


def reconstructed(job: Path, table: pd.DataFrame, settings: Settings) -> Open:
    """Tomograms that RELION makes, one at a time; each is gone when its slabs are cut.

    Parameters
    ----------
    job : Path
        Gets RELION's output and commands.
    table : DataFrame
        The tilt series, whose files are named from the current directory.
    settings : Settings
    """

    @contextmanager
    def open_one(name: str) -> Any:
        work, row = job / "tomogram", table[table["rlnTomoName"].astype(str) == name]
        shutil.rmtree(work, ignore_errors=True)
        made = make_tomogram(job, row, settings.binning, settings.threads, settings.options, work)
        with opened({name: made})(name) as tomogram:
            yield tomogram
        shutil.rmtree(work)

    return open_one


def least_tilt(table: pd.DataFrame, find: Callable[[str], Path]) -> Callable[[str], tuple[float, float, float, float]]:
    """Defocus of tilt series at their least tilt, see :func:`make_slabs`.

    Parameters
    ----------
    table : DataFrame
        The tilt series.
    find : callable
        From a file's name in it to the file.
    """
    rows = {str(row["rlnTomoName"]): row for row in table.to_dict("records")}

    def defocus(name: str) -> tuple[float, float, float, float] | None:
        row = rows[name]
        blocks = read_star(find(str(row["rlnTomoTiltSeriesStarFile"])))
        tilts = blocks.get(name, next(iter(blocks.values())))
        if "rlnDefocusU" not in tilts or "rlnTomoYTilt" not in tilts:
            return None
        least = tilts.iloc[int(tilts["rlnTomoYTilt"].astype(float).abs().to_numpy().argmin())]
        u = float(least["rlnDefocusU"])
        hand = float(row.get("rlnTomoHand", -1) or -1)
        return u, float(least.get("rlnDefocusV", u)), float(least.get("rlnDefocusAngle", 0.0)), hand

    return defocus


def _slabs_of(
    tomogram: Tomogram, positions: np.ndarray, settings: Settings, grid: tuple[int, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Normalised images of one tomogram's particles, and which of the particles have one, (n,) bool."""
    box, voxel = grid
    middle = np.array(tomogram.voxels.shape[::-1]) / 2
    radius = min(0.5 * settings.diameter / voxel, box / 2 - 1)
    found = [
        cut_slab(tomogram.voxels, position / voxel + middle, box, settings.thickness / voxel) for position in positions
    ]
    images = [normalised(image, radius, settings.invert) for image in found if image is not None]
    return np.array(images, dtype=np.float32), np.array([image is not None for image in found], dtype=bool)


def _same_grid(grid: tuple[int, float] | None, tomogram: Tomogram, name: str, settings: Settings) -> tuple[int, float]:
    """Pixels and pixel size of all images, from the first tomogram."""
    voxel = tomogram.voxel_size
    if len(tomogram.voxels.shape) != 3 or voxel <= 0:
        what = f"The tomogram of {name} has the shape {tomogram.voxels.shape} and voxels of {voxel:g} A."
        raise ProblemError(Problem(what, name, "a volume with its voxel size", "Correct the file's header."))
    if grid is None:
        box = 2 * ceil(settings.box / voxel / 2 - 1e-6)
        if box < LEAST_BOX:
            what = f"The images would have {box} pixels of {voxel:g} A."
            fix = "Give tomograms with finer voxels, or make the images larger."
            raise ProblemError(Problem(what, name, f"{LEAST_BOX} pixels or more", fix), ExitCode.BAD_INPUT)
        return box, round(voxel, 4)
    if abs(voxel - grid[1]) > 2e-3 * grid[1]:
        what = f"The tomogram of {name} has voxels of {voxel:g} A, those before it of {grid[1]:g} A."
        raise ProblemError(Problem(what, name, "one voxel size for all", "Give tomograms of one binning."))
    return grid


def check_size(shape: tuple[int, ...], voxel_size: float, name: str, tilt_series: pd.DataFrame | None) -> None:
    """Stop where a tomogram has another size than its tilt series says: positions would be wrong.

    Parameters
    ----------
    shape : tuple of int
        z, y, x in voxels.
    voxel_size : float
        Angstrom.
    name : str
        Of the tilt series.
    tilt_series : DataFrame or None
        The tilt series; of those without sizes nothing is said.

    Raises
    ------
    ProblemError
        More than :data:`SAME_SIZE` voxels are missing, or too many.
    """
    if tilt_series is None or not set(SIZES) <= set(tilt_series):
        return
    row = tilt_series[tilt_series["rlnTomoName"].astype(str) == name].iloc[0]
    said = row[SIZES].to_numpy(dtype=float) * float(row["rlnTomoTiltSeriesPixelSize"]) / voxel_size
    found = np.array(shape[::-1])
    if (np.abs(found - said) > SAME_SIZE).any():
        shown = [" x ".join(f"{value:.0f}" for value in sizes) for sizes in (found, said)]
        what = f"The tomogram of {name} has {shown[0]} voxels, and its tilt series says {shown[1]}."
        fix = "Give tomograms that are as large as rlnTomoSizeX/Y/Z and not turned, or correct these."
        raise ProblemError(Problem(what, name, "the same volume, x y z", fix))


def _file_name(name: str, number: int) -> str:
    """A file name without characters that RELION's programs or shells take for something else, each once."""
    safe = "".join(char if char.isalnum() or char in "._-" else "_" for char in name)
    return safe if safe == name else f"{safe}_{number}"


def _write_stack(path: Path, images: np.ndarray, pixel_size: float) -> None:
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(images)
        mrc.set_image_stack()
        mrc.voxel_size = pixel_size


def _rows(
    table: pd.DataFrame, positions: np.ndarray, name: str, images: list[str],
    defocus: Callable[[str], tuple[float, float, float, float] | None],
) -> pd.DataFrame:  # fmt: skip
    """2D particles: nothing of the 3D ones that a 2D classification would take for its own."""
    rows = pd.DataFrame({"rlnImageName": images, "rlnMicrographName": name})
    rows["rlnOpticsGroup"] = table["rlnOpticsGroup"].to_numpy() if "rlnOpticsGroup" in table else 1
    known = defocus(name) if len(images) else None
    if known:
        u, v, angle, per_height = known
        columns = {"rlnDefocusU": u + per_height * positions[:, 2], "rlnDefocusV": v + per_height * positions[:, 2]}
        rows = rows.assign(**columns, rlnDefocusAngle=angle)
    return rows


def _optics(
    blocks: Blocks, found: pd.DataFrame, tilt_series: pd.DataFrame | None, grid: tuple[int, float]
) -> pd.DataFrame:
    given = blocks.get("optics", pd.DataFrame())
    rows = []
    for group in sorted(found["rlnOpticsGroup"].unique()):
        own = given[given["rlnOpticsGroup"] == group] if "rlnOpticsGroup" in given else given
        row = {"rlnOpticsGroup": group, "rlnOpticsGroupName": f"opticsGroup{group}"}
        for label, standard in MICROSCOPE.items():
            tables = [one for one in (own, tilt_series) if one is not None and label in one and len(one)]
            row[label] = float(tables[0][label].iloc[0]) if tables else standard
        rows.append(row | {"rlnImagePixelSize": grid[1], "rlnImageSize": grid[0], "rlnImageDimensionality": 2})
    return pd.DataFrame(rows)
