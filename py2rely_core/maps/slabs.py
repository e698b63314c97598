"""Slabs: what lies around a particle in a tomogram, summed along z into one image."""

from __future__ import annotations

from math import ceil, floor
from typing import Any

import numpy as np

from py2rely_core.maps.io import Volume

#: Pixels that are cut out around an image, so that a shift brings nothing in from the other side.
MARGIN = 4
#: Pixels at each end of an image over which its shift fades what is outside, see :func:`shifted`.
_EDGE = np.array([0.15, 0.5, 0.85])


def cut_slab(tomogram: Any, centre: np.ndarray, box: int, thickness: float) -> Volume | None:
    """The sum along z of a slab around a place, with the place at the image's centre.

    Only the voxels that are needed are read, so that a tomogram may be a memory map or an array on disk.

    Parameters
    ----------
    tomogram : (nz, ny, nx) array-like
        Anything that is sliced as an array.
    centre : (3,) float
        x, y, z in voxels counted from 0; parts of a voxel count.
    box : int
        Edge of the image, pixels.
    thickness : float
        Of the slab, voxels: slices at its two faces count by their share of it.

    Returns
    -------
    (box, box) float32 or None
        The place is at pixel ``box // 2`` of both axes; None where the slab is not wholly within the tomogram.
    """
    x, y, z = (float(value) for value in centre)
    weights, first = _slices(z, thickness)
    corner = np.array([floor(y + 0.5), floor(x + 0.5)]) - box // 2
    size = tomogram.shape
    if first < 0 or first + len(weights) > size[0] or (corner < 0).any() or (corner + box > size[1:]).any():
        return None
    low = np.maximum(corner - MARGIN, 0)
    high = np.minimum(corner + box + MARGIN, size[1:])
    part = np.asarray(tomogram[first : first + len(weights), low[0] : high[0], low[1] : high[1]], dtype=np.float32)
    image = np.tensordot(weights, part, axes=1)
    before, after = corner - low, high - (corner + box)
    image = np.pad(image, [(MARGIN - before[i], MARGIN - after[i]) for i in (0, 1)], mode="reflect")
    rest = np.array([y, x]) - (corner + box // 2)
    moved = shifted(image, -rest)
    return moved[MARGIN : MARGIN + box, MARGIN : MARGIN + box].astype(np.float32)


def _slices(z: float, thickness: float) -> tuple[np.ndarray, int]:
    """Weights of the slices that a slab covers, and the first of them; a slice n reaches from n - 0.5 to n + 0.5."""
    low, high = z - thickness / 2, z + thickness / 2
    first, last = floor(low + 0.5), ceil(high - 0.5)
    numbers = np.arange(first, last + 1)
    weights = np.minimum(numbers + 0.5, high) - np.maximum(numbers - 0.5, low)
    inside = weights > 1e-6
    return weights[inside].astype(np.float32), int(numbers[inside][0])


def shifted(image: Volume, shift: np.ndarray) -> Volume:
    """An image moved by parts of a pixel, exactly (in Fourier space); its mean is kept.

    Parameters
    ----------
    image : (ny, nx) float
    shift : (2,) float
        y, x in pixels.
    """
    if not np.any(shift):
        return np.asarray(image, dtype=np.float32)
    mean = float(image.mean())
    fade = [np.ones(n) for n in image.shape]
    for one in fade:
        one[: len(_EDGE)], one[-len(_EDGE) :] = _EDGE, _EDGE[::-1]
    inner = (image - mean) * fade[0][:, None] * fade[1]
    fy, fx = np.fft.fftfreq(image.shape[0]), np.fft.rfftfreq(image.shape[1])
    phase = np.exp(-2j * np.pi * (fy[:, None] * shift[0] + fx * shift[1]))
    return np.fft.irfft2(np.fft.rfft2(inner) * phase, s=image.shape).astype(np.float32) + mean


def normalised(image: Volume, radius: float, invert: bool = True) -> Volume:
    """An image as RELION wants it: outside of a circle its median is 0 and its spread 1, particles bright.

    Parameters
    ----------
    image : (n, n) float
    radius : float
        Of the circle, pixels.
    invert : bool
        Particles are dark in `image`.
    """
    n = image.shape[0]
    axis = np.arange(n) - n // 2
    background = image[axis[:, None] ** 2 + axis**2 > radius**2]
    # By quartiles: a neighbour, or a bead of gold, says nothing about the noise.
    low, middle, high = np.percentile(background, (25, 50, 75))
    spread = float(high - low) / 1.349
    return ((image - middle) * ((-1.0 if invert else 1.0) / spread if spread > 0 else 0.0)).astype(np.float32)
