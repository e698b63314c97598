"""Tilt-series tables on a journey: rewritten so that every path in them is valid where they go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from py2rely_core.data.inputs import Inputs
from py2rely_core.data.tables import Blocks, read_star, resolve, split_image_name

#: Texts of RELION's tables that are no files.
NAMES = {
    "rlnTomoName",
    "rlnOpticsGroupName",
    "rlnTomoParticleName",
    "rlnTomoVisibleFrames",
    "rlnTomoSubtomogramName",
}


@dataclass
class Moved:
    """Tables with new paths.

    Attributes
    ----------
    tables : dict of str to dict of str to DataFrame
        STAR files by their path in the new place.
    images : dict of str to Path
        Image stacks by their path in the new place, and where they are now.
    dropped : list of str
        Columns that named other files, and were left out.
    """

    tables: dict[str, Blocks] = field(default_factory=dict)
    images: dict[str, Path] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)


def without_files(table: pd.DataFrame, keep: tuple[str, ...] = ()) -> tuple[pd.DataFrame, list[str]]:
    """A table without the columns that name files, but for those in `keep`; and the names of these columns."""
    texts = [label for label in table if not pd.api.types.is_numeric_dtype(table[label])]
    files = [label for label in texts if label not in NAMES and label not in keep]
    return table.drop(columns=files), files


def safe_name(name: str) -> str:
    """A file name without characters that programs or shells take for something else."""
    return "".join(char if char.isalnum() or char in "._-" else "_" for char in name)


def move_series(inputs: Inputs, place: Callable[[str, Path], str], names: set[str] | None = None) -> Moved:
    """Tilt-series tables: ``tomograms.star``, and ``tilt_series/NAME.star`` for each.

    Parameters
    ----------
    inputs : Inputs
    place : callable
        From the name that a stack would have (``NAME.mrcs``, with a number where a tilt series has several) and its
        path now to what the tables say.
    names : set of str, optional
        Only these tilt series.
    """
    moved = Moved()
    table, dropped = without_files(inputs.tomograms, keep=("rlnTomoTiltSeriesStarFile",))
    if names is not None:
        table = table[table["rlnTomoName"].astype(str).isin(names)].reset_index(drop=True)
    files = {name: f"tilt_series/{file}.star" for name, file in _file_names(table["rlnTomoName"].astype(str)).items()}
    moved.tables["tomograms.star"] = {
        "global": table.assign(rlnTomoTiltSeriesStarFile=[files[str(name)] for name in table["rlnTomoName"]])
    }
    for name, file in files.items():
        series = inputs.tilt_series[name]
        tilts, more = without_files(series.tilts, keep=("rlnMicrographName",))
        dropped += more
        stem, sections = Path(file).stem, [split_image_name(image) for image in tilts["rlnMicrographName"]]
        stacks = dict.fromkeys(stack for _, stack in sections)
        placed = {}
        for number, stack in enumerate(stacks, start=1):
            path = resolve(stack, series.star_file, inputs.project)
            new = f"{stem}{'' if len(stacks) == 1 else f'_{number:03d}'}{path.suffix}"
            placed[stack] = place(new, path)
            moved.images[placed[stack]] = path
        images = [f"{section}@{placed[stack]}" for section, stack in sections]
        moved.tables[file] = {stem: tilts.assign(rlnMicrographName=images)}
    moved.dropped = list(dict.fromkeys(dropped))
    return moved


def _file_names(names: pd.Series) -> dict[str, str]:
    """A file name for each tilt series, no two alike."""
    found: dict[str, str] = {}
    for number, name in enumerate(dict.fromkeys(names), start=1):
        safe = safe_name(name)
        found[name] = f"{safe}_{number}" if safe != name else safe
    return found


#: Images below which the order of a tilt series has no name; most that a dose-symmetric one takes in a row on a side.
MANY_TILTS, MOST_IN_A_ROW = 5, 6


def dose_of(tilts: pd.DataFrame) -> tuple[float, float] | None:
    """Dose per image and in all, electrons per square Angstrom; None where the pre-exposures do not say it.

    A table has the dose before each image. What an image takes is the median step between images in the order in which
    they were taken, and the last image is taken to have that, too. What came before the first image does not count.
    """
    label = "rlnMicrographPreExposure"
    before = np.sort(pd.to_numeric(tilts[label], errors="coerce").dropna()) if label in tilts else np.zeros(0)
    if len(before) < 2 or before[-1] <= before[0]:
        return None
    step = float(np.median(np.diff(before)))
    return (step, float(before[-1] - before[0] + step)) if step > 0 else None


def tilt_angles(tilts: pd.DataFrame) -> np.ndarray:
    """Angles of the stage, or of the alignment where these are not known, in rising order, degrees."""
    return np.sort(_angles(tilts).dropna())


def _angles(tilts: pd.DataFrame) -> pd.Series:
    label = next((one for one in ("rlnTomoNominalStageTiltAngle", "rlnTomoYTilt") if one in tilts), None)
    return pd.to_numeric(tilts[label], errors="coerce") if label else pd.Series(dtype=float)


def tilt_scheme(tilts: pd.DataFrame) -> str:
    """The order in which images were taken, by the doses before them; empty where these say none, or no usual one.

    *Unidirectional*: from one end to the other. *Dose-symmetric*: from the middle outwards, on both sides in turn, or
    in groups (Hagen, Wan & Briggs 2017, doi:10.1016/j.jsb.2016.06.007). *Bidirectional*: from the middle to one end,
    then to the other.
    """
    if dose_of(tilts) is None or len(angles := _angles(tilts)) < MANY_TILTS or angles.isna().any():
        return ""
    before = pd.to_numeric(tilts["rlnMicrographPreExposure"], errors="coerce")
    if before.isna().any() or before.duplicated().any():
        return ""
    taken = angles.iloc[np.argsort(before.to_numpy())].to_numpy()
    steps = np.diff(taken)
    if (steps > 0).all() or (steps < 0).all():
        return "unidirectional"
    away = taken - taken[0]
    sides = [away[away > 0], away[away < 0]]
    outwards = all((np.diff(np.abs(side)) > 0).all() for side in sides)
    turns = int((np.diff(np.sign(away[1:])) != 0).sum())
    if not outwards or not all(len(side) for side in sides):
        return ""
    if turns == 1:
        return "bidirectional"
    return "dose-symmetric" if turns >= len(taken) // MOST_IN_A_ROW else ""


def tilt_ranges(tilt_series: Path, project: Path) -> dict[str, tuple[float, float]]:
    """Lowest and highest tilt of each tilt series, degrees, of those whose own file is there.

    Parameters
    ----------
    tilt_series : Path
        Tilt-series STAR file.
    project : Path
        Where the paths in it begin.
    """
    table = read_star(tilt_series).get("global", pd.DataFrame())
    found = {}
    for name, file in zip(table.get("rlnTomoName", ()), table.get("rlnTomoTiltSeriesStarFile", ()), strict=True):
        path = resolve(str(file), tilt_series.absolute(), project.absolute())
        angles = tilt_angles(next(iter(read_star(path).values()))) if path.is_file() else []
        if len(angles):
            found[str(name)] = (float(angles[0]), float(angles[-1]))
    return found
