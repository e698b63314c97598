"""Exact resampling: the band-limited interpolant that the samples define, evaluated on another grid."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from py2rely_core.maps.io import Volume


def resample(
    data: Volume, pixel_size_in: float, pixel_size_out: float, box: int, centre: np.ndarray | None = None
) -> Volume:
    """Resample a map onto a cubic grid, the origin staying at index ``n // 2``.

    The trigonometric interpolant of the samples is evaluated axis by axis, without the frequencies that the new grid
    cannot hold; where pixel sizes have an integer ratio of boxes this is a Fourier crop. What lies outside of the
    input is filled with the mean of its faces.

    Parameters
    ----------
    data : (nz, ny, nx) array
        Any shape.
    pixel_size_in, pixel_size_out : float
        Angstrom per voxel.
    box : int
        Edge of the result, voxels.
    centre : (3,) float, optional
        What becomes the origin: its distance (dz, dy, dx) from index ``n // 2``, voxels of the input.

    Returns
    -------
    (box, box, box) float32
    """
    background = face_mean(data)
    result = np.asarray(data, dtype=np.float32) - np.float32(background)
    for axis in range(3):
        offset = 0.0 if centre is None else float(centre[axis])
        matrix = _interpolation_matrix(data.shape[axis], box, pixel_size_out / pixel_size_in, offset)
        result = np.moveaxis(np.tensordot(matrix, result, axes=(1, axis)), 0, axis)
    return (result + np.float32(background)).astype(np.float32)


def face_mean(data: Volume) -> float:
    """Mean of the six faces of a map: its background."""
    faces = [np.take(data, index, axis=axis).ravel() for axis in range(3) for index in (0, -1)]
    return float(np.concatenate(faces).mean(dtype=np.float64))


def _interpolation_matrix(n_in: int, n_out: int, ratio: float, offset: float) -> np.ndarray:
    """Weights (n_out, n_in) of every input sample for every output sample, positions in input pixels."""
    # Zeros beyond the edges keep the periodic images apart.
    border = 8
    period = n_in + 2 * border
    position = n_in // 2 + offset + (np.arange(n_out) - n_out // 2) * ratio
    frequency = np.arange(period // 2 + 1)
    weight = np.full(len(frequency), 2.0)
    weight[0] = 1.0
    if period % 2 == 0:
        weight[-1] = 1.0
    limit = period / (2 * max(ratio, 1.0))
    weight[frequency > limit + 1e-9] = 0.0
    if ratio > 1.0:
        weight[np.abs(frequency - limit) < 1e-9] = 1.0
    phase = 2 * np.pi / period
    matrix = np.zeros((n_out, n_in))
    inside = (position >= -0.5) & (position <= n_in - 0.5)
    distance = position[inside, None] - np.arange(n_in)
    for k, w in zip(frequency, weight, strict=True):
        if w:
            matrix[inside] += w * np.cos(phase * k * distance)
    return (matrix / period).astype(np.float32)


def centre_offset(data: Volume) -> np.ndarray:
    """Distance (dz, dy, dx), in voxels, of the centre of mass of the positive density from index ``n // 2``."""
    density = np.clip(data - face_mean(data), 0, None) ** 2
    centre = np.array(ndimage.center_of_mass(density))
    return centre - np.array([n // 2 for n in data.shape])
