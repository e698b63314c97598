"""What every tilt-series importer has in common: from values per image to RELION 5's STAR files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from py2rely_core.importers.optics import Optics
from py2rely_core.importers.result import Import, project_path
from py2rely_core.maps.io import MapHeader, read_header
from py2rely_core.problems import Problem, ProblemError

#: The values that every image must have.
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
#: Magnifications per image that RELION cannot hold: ignored below the first, an error above the second.
SCALE_NOTED, SCALE_REFUSED = 0.002, 0.02
#: Pixel sizes are the same within this.
SAME_PIXEL = 0.005


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
    """

    name: str
    stack: Path
    tilts: pd.DataFrame
    size: tuple[int, int, int]
    pixel_size: float


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
    if sizes and max(sizes) - min(sizes) > SAME_PIXEL * min(sizes):
        seen = "; ".join(f"{one.name}: {one.pixel_size:g} A" for one in series[:4])
        fix = "Import them one pixel size at a time, with --pixel-size."
        yield Problem("The tilt series have different pixel sizes.", seen, "one pixel size", fix)
    for one in series:
        bad = [label for label in REQUIRED if label not in one.tilts or not np.isfinite(one.tilts[label]).all()]
        if bad:
            what = f"Values are missing or no numbers: {', '.join(bad)}."
            yield Problem(
                what, one.name, "a number for every image", "Look at the files that this series was read from."
            )


def stack_header(stack: Path, pixel_size: float | None) -> tuple[MapHeader, float]:
    """A stack's header, and the pixel size that holds: the given one, which must be the header's, or the header's.

    Raises
    ------
    ProblemError
        The stack cannot be read, or its pixel size is unknown or another one.
    """
    header = read_header(stack)
    if pixel_size and header.pixel_size and abs(header.pixel_size - pixel_size) > 0.01 * pixel_size:
        what = f"The header says {header.pixel_size:g} A per pixel."
        fix = "Correct --pixel-size: it is that of the images of the tilt series; or correct the header."
        raise ProblemError(Problem(what, str(stack), f"--pixel-size {pixel_size:g}", fix))
    value = pixel_size or header.pixel_size
    if not value or value <= 0:
        fix = "Give --pixel-size."
        raise ProblemError(Problem("The header has no pixel size.", str(stack), "Angstrom per pixel > 0", fix))
    return header, round(float(value), 6)


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


def tomogram_size(
    volume: Path | None, header: MapHeader, rotation: float, pixel_size: float, thickness: int | None, name: str
) -> tuple[int, int, int]:
    """Size of the unbinned tomogram: from a reconstructed volume, else from the images and a thickness.

    Parameters
    ----------
    volume : Path or None
        A reconstruction of any binning, z first or (as AreTomo writes them when it does not flip) y first.
    header : MapHeader
        Of the stack.
    rotation : float
        Of the tilt axis, degrees: images are turned by 90 degrees when it is nearer to x than to y.
    pixel_size : float
        Of the stack, Angstrom.
    thickness : int or None
        Unbinned voxels.
    name : str
        Of the tilt series.
    """
    height, width = header.shape[1:]
    x, y = (height, width) if abs(np.sin(np.radians(rotation))) > np.sqrt(0.5) else (width, height)
    if thickness:
        return x, y, int(thickness)
    if volume is None or not volume.is_file():
        fix = "Give --thickness (unbinned voxels), or put the reconstructed volume beside it."
        raise ProblemError(Problem("The size of the tomogram is not known.", name, "a volume or a thickness", fix))
    reconstructed = read_header(volume)
    binning = (reconstructed.pixel_size or pixel_size) / pixel_size
    nz, ny, nx = (round(n * binning) for n in reconstructed.shape)
    near = 2 * binning + 2
    as_y = [edge for edge, other in ((ny, nz), (nz, ny)) if abs(edge - y) <= near and abs(other - y) > near]
    if abs(nx - x) > near or len(as_y) != 1:
        seen = f"{nx} x {ny} x {nz} unbinned voxels, images of {x} x {y} after turning"
        fix = "Give --thickness (unbinned voxels)."
        raise ProblemError(Problem("The volume does not fit its images.", f"{volume}: {seen}", "the same area", fix))
    return nx, as_y[0], nz if as_y[0] == ny else ny


def pre_exposure(order: np.ndarray, doses: np.ndarray) -> np.ndarray:
    """Dose before each image, e/A^2: what the images before it in the order of acquisition got.

    Parameters
    ----------
    order : (n,) int
        When each image was acquired, any increasing numbers.
    doses : (n,) float
        Dose of each image.
    """
    rank = np.argsort(order, kind="stable")
    before = np.empty(len(order))
    before[rank] = np.concatenate([[0.0], np.cumsum(np.asarray(doses, dtype=float)[rank])[:-1]])
    return before
