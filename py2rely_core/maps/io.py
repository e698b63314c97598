"""Reading and writing MRC maps, with errors that name the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
from numpy.typing import NDArray

from py2rely_core.data import kinds
from py2rely_core.problems import Problem, ProblemError

Volume = NDArray[np.floating]


@dataclass(frozen=True)
class Map:
    """A density map.

    Attributes
    ----------
    data : (nz, ny, nx) float32
        Density; the origin is at index ``n // 2`` of each axis.
    pixel_size : float
        Angstrom per voxel; 0 where the header has none.
    """

    data: Volume
    pixel_size: float


@dataclass(frozen=True)
class MapHeader:
    """Shape (z, y, x), Angstrom per pixel (0 where unknown) and MRC mode of a file."""

    shape: tuple[int, int, int]
    pixel_size: float
    mode: int


#: What programs write into headers when they do not know the pixel size, Angstrom.
UNKNOWN_PIXELS = (0.0, 1.0)


def known_pixel_size(pixel_size: float) -> float | None:
    """The pixel size that a header really says, Angstrom; None for 0, and for exactly 1, which is written unasked."""
    return None if round(pixel_size, 6) in UNKNOWN_PIXELS else pixel_size


def read_header(path: Path | str) -> MapHeader:
    """Read only the header of a map or an image stack.

    Raises
    ------
    ProblemError
        The file is missing, is no MRC file, or is shorter than its header says.
    """
    try:
        with mrcfile.mmap(path, mode="r", permissive=False) as mrc:
            shape = tuple(int(n) for n in (mrc.header.nz, mrc.header.ny, mrc.header.nx))
            return MapHeader(shape, float(mrc.voxel_size.x), int(mrc.header.mode))
    except (OSError, ValueError) as error:
        raise ProblemError(_unreadable(path, error)) from error


def read_map(path: Path | str) -> Map:
    """Read a three-dimensional map as float32.

    Raises
    ------
    ProblemError
        The file is missing, broken, not three-dimensional, or its voxels are not cubes.
    """
    try:
        with mrcfile.open(path, permissive=False) as mrc:
            data, voxel = np.array(mrc.data, dtype=np.float32), mrc.voxel_size
            sizes = np.array([voxel.x, voxel.y, voxel.z], dtype=float)
    except (OSError, ValueError) as error:
        raise ProblemError(_unreadable(path, error)) from error
    if data.ndim != 3 or min(data.shape) < 2:
        problem = Problem(
            f"The file has the shape {data.shape}.", str(path), "a map of three dimensions", "Replace it."
        )
        raise ProblemError(problem)
    if np.ptp(sizes) > 1e-3 * sizes.max():
        what = f"The voxels are not cubes: {sizes[0]:g} x {sizes[1]:g} x {sizes[2]:g} A."
        raise ProblemError(Problem(what, str(path), "one voxel size", "Resample the map, or correct its header."))
    return Map(data, float(sizes[0]))


def read_images(path: Path | str) -> tuple[Volume, float]:
    """Read a stack of images as (n, y, x) float32, and its pixel size, Angstrom; 0 where the header has none.

    Raises
    ------
    ProblemError
        The file is missing or broken, or its images are not square.
    """
    try:
        with mrcfile.open(path, permissive=False) as mrc:
            data, pixel_size = np.array(mrc.data, dtype=np.float32), float(mrc.voxel_size.x)
    except (OSError, ValueError) as error:
        raise ProblemError(_unreadable(path, error)) from error
    data = data[None] if data.ndim == 2 else data
    if data.ndim != 3 or data.shape[1] != data.shape[2]:
        raise ProblemError(Problem(f"The stack has the shape {data.shape}.", str(path), "square images", "Replace it."))
    return data, pixel_size


def write_map(path: Path | str, data: Volume, pixel_size: float) -> None:
    """Write a map as 32-bit floats; its directory is made when it is missing."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(np.ascontiguousarray(data, dtype=np.float32))
        mrc.voxel_size = pixel_size


def _unreadable(path: Path | str, error: Exception) -> Problem:
    kind = None if isinstance(error, FileNotFoundError) else kinds.look(Path(path))
    if kind is not None and kind.key not in ("map", "binary"):
        return Problem(
            f"A map or stack cannot be read: this is {kind.name}.", str(path), "a map or stack (MRC)", kind.fix
        )
    reason = "it is missing" if isinstance(error, FileNotFoundError) else str(error)
    fix = "Correct the path, or copy or write the file again."
    return Problem(f"A map or stack cannot be read: {reason}.", str(path), "a complete MRC file", fix)
