"""What every tilt-series importer has in common: from values per image to RELION 5's STAR files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from py2rely_core.importers.dose import Doses, Exposure
from py2rely_core.importers.optics import Optics
from py2rely_core.importers.result import Import, project_path
from py2rely_core.importers.sizes import Stack
from py2rely_core.problems import Problem, ProblemError

#: The values that every image must have.
#: Less than this, Angstrom, nobody images with: such numbers have another unit.
LEAST_DEFOCUS = 200.0
REQUIRED = (
    "rlnTomoXTilt",
    "rlnTomoYTilt",
    "rlnTomoZRot",
    "rlnTomoXShiftAngst",
    "rlnTomoYShiftAngst",
    "rlnDefocusU",
    "rlnDefocusV",
    "rlnDefocusAngle",
    "rlnMicrographPreExposure",
)
#: What no value of a tilt series is beyond, in its own unit.
LIMITS = {
    "rlnTomoXTilt": 90.0,
    "rlnTomoYTilt": 90.0,
    "rlnTomoZRot": 360.0,
    "rlnTomoXShiftAngst": 1e6,
    "rlnTomoYShiftAngst": 1e6,
    "rlnDefocusU": 3e5,
    "rlnDefocusV": 3e5,
    "rlnDefocusAngle": 720.0,
    "rlnPhaseShift": 720.0,
    "rlnCtfScalefactor": 100.0,
    "rlnMicrographPreExposure": 2000.0,
    "rlnTomoNominalStageTiltAngle": 360.0,
    "rlnTomoNominalTiltAxisAngle": 360.0,
    "rlnVoltage": 1500.0,
    "rlnSphericalAberration": 10.0,
    "rlnAmplitudeContrast": 1.0,
    "rlnTomoHand": 1.0,
    "rlnTomoTiltSeriesPixelSize": 1000.0,
    "rlnMicrographOriginalPixelSize": 1000.0,
    "rlnTomoSizeX": 1e5,
    "rlnTomoSizeY": 1e5,
    "rlnTomoSizeZ": 1e5,
}
#: The tilt axis of one image is never further from that of the others, degrees.
SAME_AXIS = 10.0
#: Magnifications per image that RELION cannot hold: ignored below the first, an error above the second.
SCALE_NOTED, SCALE_REFUSED = 0.002, 0.02
#: Pixel sizes of the tilt series of one data set agree within this share.
ONE_PIXEL_SIZE = 0.005


@dataclass
class Series:
    """One tilt series as an importer read it.

    Attributes
    ----------
    name : str
    stack : Path
        The images, absolute or relative to the current directory.
    tilts : DataFrame
        A row per image: ``section`` of the stack, counted from 1, and :data:`REQUIRED`.
    size : tuple of int
        x, y, z of the unbinned tomogram, voxels.
    pixel_size : float
        Angstrom.
    notes : list of str
        What was read, left out and used, one line each.
    warnings : list of Problem
        What is suspicious, but not wrong.
    """

    name: str
    stack: Path
    tilts: pd.DataFrame
    size: tuple[int, int, int]
    pixel_size: float
    notes: list[str] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """Where the files of an import go.

    Attributes
    ----------
    directory : Path
        Gets ``aligned_tilt_series.star``.
    per_series : str
        Directory of the STAR file per tilt series, within `directory`.
    links : Path or None
        Directory of the links to the stacks; None for ``stacks`` within `directory`.
    """

    directory: Path
    per_series: str = "tilt_series"
    links: Path | None = None


@dataclass(frozen=True)
class Alignment:
    """Where the images of a stack are, as an alignment program says it.

    Attributes
    ----------
    section : (n,) int
        Of each image that is used, counted from 1.
    tilt, rotation : (n,) float
        Angle of the tilt, and of the tilt axis, degrees.
    shift : (n, 2) float
        RELION's, x and y, pixels of the stack.
    nominal : (count,) float
        Angle of the stage for every section of the stack, degrees.
    """

    section: np.ndarray
    tilt: np.ndarray
    rotation: np.ndarray
    shift: np.ndarray
    nominal: np.ndarray


Item = TypeVar("Item")


def import_all(
    items: list[Item],
    read: Callable[[Item], Series | str],
    optics: Optics,
    hand: float,
    layout: Layout,
    doses: Doses,
    heading: str,
) -> Import:
    """Read tilt series one by one, and put them together; all problems of all of them are one list.

    Parameters
    ----------
    items : list
        What stands for each: its file, or its name.
    read : callable
        The tilt series of an item, or a note on why it is left out.
    optics, hand, layout
        See :func:`assemble`.
    doses : Doses
        What the user gave, and by whom it was used.
    heading : str
        The first note.

    Raises
    ------
    ProblemError
        With every problem of every series.
    """
    series, problems, left_out = [], [], []
    for item in items:
        try:
            one = read(item)
        except ProblemError as error:
            problems += error.problems
            continue
        (left_out if isinstance(one, str) else series).append(one)
    if problems:
        raise ProblemError(list(dict.fromkeys(problems)))
    if not series and left_out:
        what = f"None of the {len(items)} tilt series has the pixel size that was asked for."
        fix = "Correct --pixel-size."
        raise ProblemError(Problem(what, "; ".join(left_out), "at least one", fix))
    result = assemble(series, optics, hand, layout)
    result.notes = [heading, *left_out, *(note for one in series for note in one.notes), *result.notes]
    result.warnings += [warning for one in series for warning in one.warnings]
    if doses.used:
        value = f"{doses.per_tilt:g} e/A^2 per image" if doses.per_tilt is not None else f"{doses.total:g} e/A^2 in all"
        result.notes.append(f"dose as given ({value}) for {len(doses.used)} series whose files have none")
    return result


def series_of(
    name: str,
    stack: Stack,
    alignment: Alignment,
    ctf: pd.DataFrame,
    exposure: Exposure,
    size: tuple[int, int, int],
    notes: list[str],
) -> Series:
    """A tilt series of what its files say, all of it joined by the section of the stack.

    Parameters
    ----------
    name : str
    stack : Stack
    alignment : Alignment
    ctf : DataFrame
        RELION's labels; its index is the section.
    exposure : Exposure
        Of every section.
    size : tuple of int
        x, y, z of the unbinned tomogram, voxels.
    notes : list of str
    """
    section, pixel = np.asarray(alignment.section), stack.pixel_size
    tilts = pd.DataFrame(
        {
            "section": section,
            "rlnTomoXTilt": 0.0,
            "rlnTomoYTilt": alignment.tilt,
            "rlnTomoZRot": alignment.rotation,
            "rlnTomoXShiftAngst": alignment.shift[:, 0] * pixel,
            "rlnTomoYShiftAngst": alignment.shift[:, 1] * pixel,
            "rlnMicrographPreExposure": exposure.before[section - 1],
            "rlnTomoNominalStageTiltAngle": alignment.nominal[section - 1],
            "rlnTomoNominalTiltAxisAngle": alignment.rotation,
        }
    )
    tilts = pd.concat([tilts, ctf.loc[section].reset_index(drop=True)], axis=1)
    used = f"{name}: {stack.path.name}, {stack.size[0]} x {stack.size[1]} pixels of {pixel:g} A"
    found = [*notes, *(f"{name}: {note}" for note in stack.notes), used, *exposure.notes]
    return Series(name, stack.path, tilts, size, pixel, found)


def assemble(series: list[Series], optics: Optics, hand: float, layout: Layout) -> Import:
    """STAR files of tilt series, and links that end in ``.mrcs``, without which RELION takes a stack for one image.

    Parameters
    ----------
    series : list of Series
    optics : Optics
    hand : float
        ``rlnTomoHand``: 1 or -1.
    layout : Layout

    Raises
    ------
    ProblemError
        Names are used twice, pixel sizes differ, or values are missing.
    """
    problems = list(_problems(series, hand))
    if problems:
        raise ProblemError(problems)
    result, rows = Import(), []
    links = layout.links or layout.directory / "stacks"
    for one in sorted(series, key=lambda one: one.name):
        link = links / f"{one.name}.mrcs"
        result.links[link] = one.stack
        tilts = one.tilts.sort_values("rlnTomoYTilt", kind="stable").reset_index(drop=True)
        names = [f"{section}@{project_path(link)}" for section in tilts.pop("section").astype(int)]
        tilts.insert(0, "rlnMicrographName", names)
        if "rlnCtfScalefactor" not in tilts:
            # As RELION does: less signal comes through a tilted, thicker specimen.
            tilts["rlnCtfScalefactor"] = np.cos(np.radians(tilts["rlnTomoYTilt"]))
        file = layout.directory / layout.per_series / f"{one.name}.star"
        result.tables[file] = {one.name: tilts}
        rows.append(_global_row(one, optics, hand, project_path(file)))
    result.tables[layout.directory / "aligned_tilt_series.star"] = {"global": pd.DataFrame(rows)}
    images = sum(len(one.tilts) for one in series)
    result.notes.append(f"{len(series)} tilt series with {images} images of {series[0].pixel_size:g} A per pixel")
    return result


def _global_row(one: Series, optics: Optics, hand: float, file: str) -> dict[str, object]:
    return {
        "rlnTomoName": one.name,
        **optics.columns(),
        "rlnMicrographOriginalPixelSize": one.pixel_size,
        "rlnTomoHand": float(hand),
        "rlnTomoTiltSeriesPixelSize": one.pixel_size,
        "rlnTomoTiltSeriesStarFile": file,
        "rlnTomoSizeX": one.size[0],
        "rlnTomoSizeY": one.size[1],
        "rlnTomoSizeZ": one.size[2],
    }


def _problems(series: list[Series], hand: float):
    if hand not in (1, -1):
        yield Problem(f"{hand:g} is no hand.", "--hand", "1 or -1", "'py2rely check-hand' finds out which it is.")
    if not series:
        yield Problem("No tilt series was found.", "", "at least one", "See the reasons above, or correct the input.")
    names = pd.Series([one.name for one in series])
    for name in names[names.duplicated()].unique():
        stacks = ", ".join(str(one.stack) for one in series if one.name == name)
        fix = "Rename the files of one of them, or import them into separate directories."
        yield Problem(f"Two tilt series are called {name}.", stacks, "names of their own", fix)
    sizes = {one.pixel_size for one in series}
    if sizes and max(sizes) - min(sizes) > ONE_PIXEL_SIZE * min(sizes):
        seen = "; ".join(f"{one.name}: {one.pixel_size:g} A" for one in series[:4])
        fix = "Import them one pixel size at a time, with --pixel-size."
        yield Problem("The tilt series have different pixel sizes.", seen, "one pixel size", fix)
    for one in series:
        if "rlnTomoZRot" in one.tilts:
            try:
                refuse_other_axes(one.tilts, f"{one.name}, the alignment of {one.stack}")
            except ProblemError as error:
                yield from error.problems
        bad = [label for label in REQUIRED if label not in one.tilts or not np.isfinite(one.tilts[label]).all()]
        if bad:
            what = f"Values are missing or no numbers: {', '.join(bad)}."
            yield Problem(
                what, one.name, "a number for every image", "Look at the files that this series was read from."
            )
            continue
        defocus = one.tilts[["rlnDefocusU", "rlnDefocusV"]].to_numpy(dtype=float).max(axis=1)
        if np.median(defocus) < LEAST_DEFOCUS:
            what = f"The defocus is {np.median(defocus):.3g} A in most images: its file may be in micrometres."
            fix = "CTF files of AreTomo and ctffind are in Angstrom, .defocus files in nanometres: write them so."
            yield Problem(what, one.name, f"{LEAST_DEFOCUS:.0f} A or more", fix)


def mean_axis(rotation: np.ndarray) -> float:
    """Angle of the tilt axis of most images, degrees; 179 and -179 are near each other."""
    turns = np.exp(1j * np.radians(np.asarray(rotation, dtype=float)))
    return float(np.degrees(np.angle(np.median(turns.real) + 1j * np.median(turns.imag))))


def outlier_axis(rotation: np.ndarray) -> int | None:
    """The image, from 0, whose tilt axis is furthest from that of most, where it is further than :data:`SAME_AXIS`."""
    rotation = np.asarray(rotation, dtype=float)
    if not len(rotation):
        return None
    away = np.abs((rotation - mean_axis(rotation) + 180) % 360 - 180)
    return int(away.argmax()) if away.max() > SAME_AXIS else None


def other_axis(image: str, rotation: np.ndarray, bad: int) -> str:
    """What is said of an image with another tilt axis than most have."""
    return f"The tilt axis of {image} is at {rotation[bad]:.1f} degrees, that of others at {mean_axis(rotation):.1f}."


def refuse_other_axes(tilts: pd.DataFrame, where: str) -> None:
    """All images of a table with ``rlnTomoZRot`` have nearly one tilt axis.

    Raises
    ------
    ProblemError
        With the image that is furthest from the others.
    """
    rotation = tilts["rlnTomoZRot"].to_numpy(dtype=float)
    bad = outlier_axis(rotation) if np.isfinite(rotation).all() else None
    if bad is None:
        return
    image = f"section {tilts['section'].iloc[bad]:.0f}" if "section" in tilts else f"row {bad + 1}"
    if "rlnTomoYTilt" in tilts:
        image += f" ({tilts['rlnTomoYTilt'].iloc[bad]:.1f} degrees)"
    fix = "The alignment of this image failed: align again, or leave it out."
    expected = f"within {SAME_AXIS:g} degrees of the others"
    raise ProblemError(Problem(other_axis(image, rotation, bad), where, expected, fix))


def check_scale(scale: np.ndarray, where: str) -> str | None:
    """A note on magnifications that RELION cannot hold, None where there are none.

    Raises
    ------
    ProblemError
        They change distances too much to be ignored.
    """
    largest = float(np.abs(np.asarray(scale) - 1).max())
    if largest > SCALE_REFUSED:
        what = f"The alignment changes the magnification by up to {largest:.1%}."
        fix = "RELION has no magnification per image: align again without it, or correct the pixel size."
        raise ProblemError(Problem(what, where, f"at most {SCALE_REFUSED:.0%}", fix))
    return f"{where}: magnification changes of up to {largest:.2%} are left out" if largest > SCALE_NOTED else None


def numbers_in(column: pd.Series, where: str, label: str, place: Callable[[int], str] | None = None) -> np.ndarray:
    """A column of a foreign STAR file as numbers within :data:`LIMITS`, (n,); a hand is 1 or -1.

    Parameters
    ----------
    column : Series
    where : str
        The file, for messages.
    label : str
        One of :data:`LIMITS`.
    place : callable or None
        Gives file and line of a row, counted from 0.

    Raises
    ------
    ProblemError
        With the first row that is none.
    """
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    is_hand = label == "rlnTomoHand"
    bad = np.abs(values) != 1 if is_hand else ~(np.abs(values) <= LIMITS[label])
    if bad.any():
        row = int(bad.argmax())
        what = f"{str(column.iloc[row])!r} is not possible: {label}{' is neither 1 nor -1' if is_hand else ''}."
        fix = "Correct this row" + ("; py2rely check-hand finds the hand." if is_hand else ", or write the file again.")
        expected = "1 or -1" if is_hand else f"a number of at most {LIMITS[label]:g}"
        at = f"{place(row) if place else where}, first in row {row + 1} of its table"
        raise ProblemError(Problem(what, at, expected, fix))
    return values
