"""Noise-free images of particles: a sum of Gaussians is projected analytically."""

from __future__ import annotations

from math import ceil, pi

import numpy as np
import pandas as pd

from py2rely_core.data.geometry import tilt_matrices
from py2rely_core.simulation.optics import ctf, damage, directed_defocus
from py2rely_core.simulation.settings import Settings
from py2rely_core.simulation.structures import Structure, transform
from py2rely_core.simulation.threads import for_each

#: Around a particle's image, Angstrom in all: where the CTF carries its signal.
MARGIN = 300.0


def project(
    structure: Structure,
    poses: np.ndarray,
    positions: np.ndarray,
    tilts: pd.DataFrame,
    settings: Settings,
    moved: np.ndarray | None = None,
    diameter: float | None = None,
    oversampling: float = 0.0,
) -> np.ndarray:
    """Noise-free images of particles of one structure, the tilts side by side on all CPUs.

    Parameters
    ----------
    structure : Structure
    poses : (n, 3, 3) float
        From the reference to the tomogram.
    positions : (n, 3) float
        Angstrom from the tomogram's centre.
    tilts : DataFrame
        As :func:`py2rely_core.simulation.simulate.tilt_table` makes it.
    settings : Settings
    moved : (n, n_tilts, 3) float, optional
        Displacement of each particle in each tilt, Angstrom.
    diameter : float, optional
        Of the structure, Angstrom; that of the settings when not given.
    oversampling : float
        As :func:`py2rely_core.simulation.structures.transform` takes it.

    Returns
    -------
    (n_tilts, image_size, image_size) float32
        Particles are dark.
    """
    size, pixel = settings.image_size, settings.pixel_size
    patch = 2 * ceil(((diameter or settings.diameter) + MARGIN) / pixel / 2)
    fy, fx = np.fft.fftfreq(patch, pixel), np.fft.rfftfreq(patch, pixel)
    frequency = np.sqrt(fy[:, None] ** 2 + fx**2)
    direction = np.arctan2(fy[:, None], fx)
    envelope = np.exp(-2 * (pi * structure.sigma * frequency) ** 2)
    matrices, rows = tilt_matrices(tilts), list(tilts.itertuples())
    images = np.empty((len(tilts), size, size), dtype=np.float32)

    def one(tilt: int) -> None:
        matrix, row = matrices[tilt], rows[tilt]
        whole = np.zeros((size, size))
        decay = envelope * damage(frequency, row.rlnMicrographPreExposure)
        defocus = directed_defocus(direction, row.rlnDefocusU, row.rlnDefocusV, row.rlnDefocusAngle)
        offsets = np.zeros_like(positions) if moved is None else moved[:, tilt]
        for pose, position in zip(poses, positions + offsets, strict=True):
            camera = matrix @ position
            blobs = structure.centres @ (matrix @ pose).T[:, :2]
            shift = np.array([row.rlnTomoXShiftAngst, row.rlnTomoYShiftAngst])
            centre = (camera[:2] + shift) / pixel + size // 2
            corner = np.rint(centre).astype(int) - patch // 2
            image = transform((blobs / pixel + centre - corner)[:, ::-1], structure.weights, patch, oversampling)
            # rlnTomoHand = -1: what is nearer to the source has less defocus.
            image *= decay * ctf(frequency, defocus - camera[2])
            _add(whole, np.fft.irfft2(image, s=(patch, patch)), corner)
        images[tilt] = -whole

    for_each(len(tilts), one)
    return images


def _add(image: np.ndarray, patch: np.ndarray, corner: np.ndarray) -> None:
    x, y = corner
    low_y, high_y = max(0, y), min(image.shape[0], y + patch.shape[0])
    low_x, high_x = max(0, x), min(image.shape[1], x + patch.shape[1])
    if low_y < high_y and low_x < high_x:
        image[low_y:high_y, low_x:high_x] += patch[low_y - y : high_y - y, low_x - x : high_x - x]
