"""Box sizes: good sizes for Fourier transforms, with room around the particle."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

from py2rely_core.problems import ExitCode, Problem, ProblemError

#: Even sizes with small prime factors, in pixels; the reference system's list, so that its box sizes are met exactly.
# fmt: off
BOX_SIZES = (
    24, 32, 36, 40, 44, 48, 52, 56, 60, 64, 72, 84, 96, 100, 104, 112, 120, 128, 132, 140, 168, 180, 192, 196, 208, 216,
    220, 224, 256, 288, 300, 320, 352, 360, 384, 416, 440, 448, 480, 512, 540, 560, 576, 588, 600, 630, 648, 672, 686,
    700, 720, 756, 768, 784, 800, 840, 864, 896, 912, 960, 1008, 1024, 1080, 1120, 1152,
)
# fmt: on

#: At bin 1 particles are cut out this much larger, so that the CTF's delocalised signal is caught, and then cropped.
CROP_FACTOR = 1.5


class Size(NamedTuple):
    """The grid of one level, in pixels: `size` of maps and particles, `box` that is cut out, `crop` if they differ."""

    size: int
    box: int
    crop: int | None


def box_size(diameter: float, pixel_size: float, binning: int, scaling: float) -> int:
    """Box size at one binning: the first of :data:`BOX_SIZES` larger than ``scaling * diameter``.

    Parameters
    ----------
    diameter : float
        Particle diameter, Angstrom.
    pixel_size : float
        Unbinned, Angstrom per pixel.
    binning : int
        Binning factor.
    scaling : float
        Box edge over particle diameter.

    Returns
    -------
    int
        Pixels at this binning.

    Raises
    ------
    ProblemError
        The box would be larger than the largest of the list.
    """
    edge = int(scaling * diameter / (pixel_size * binning))
    return _pick(bisect_right(BOX_SIZES, edge), edge, binning)


def crop_and_box(diameter: float, pixel_size: float, binning: int, scaling: float) -> Size:
    """The grid of one level; at bin 1 the particles are cut out 1.5 times larger and cropped.

    Raises
    ------
    ProblemError
        A box would be larger than the largest of the list.
    """
    size = box_size(diameter, pixel_size, binning, scaling)
    if binning != 1:
        return Size(size, size, None)
    edge = int(CROP_FACTOR * size)
    return Size(size, _pick(bisect_left(BOX_SIZES, edge), edge, binning), size)


def _pick(index: int, edge: int, binning: int) -> int:
    if index < len(BOX_SIZES):
        return BOX_SIZES[index]
    raise ProblemError(
        Problem(
            f"The box at bin {binning} would be {edge} pixels: larger than any that is supported.",
            f"resolutions.binning_list, bin {binning}",
            f"at most {BOX_SIZES[-1]} pixels (at bin 1 including the {CROP_FACTOR:g}-fold border)",
            "Use a smaller diameter or box scaling, or end the binning list earlier.",
        ),
        ExitCode.BAD_PARAMETERS,
    )
