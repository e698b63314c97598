"""Low-pass filters."""

from __future__ import annotations

from math import log

import numpy as np

from py2rely_core.maps.io import Volume


def spatial_frequencies(shape: tuple[int, ...], pixel_size: float) -> np.ndarray:
    """Frequency, 1/Angstrom, of every element of a real FFT of `shape`."""
    axes = [np.fft.fftfreq(n, pixel_size) for n in shape[:-1]] + [np.fft.rfftfreq(shape[-1], pixel_size)]
    return np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij", sparse=True)))


def gaussian_low_pass(data: Volume, pixel_size: float, resolution: float) -> Volume:
    """Gaussian filter with amplitude 0.5 at the cut-off, ``exp(-ln 2 (f resolution)^2)``.

    Parameters
    ----------
    data : (nz, ny, nx) array
    pixel_size, resolution : float
        Angstrom.
    """
    gain = np.exp(-log(2) * (spatial_frequencies(data.shape, pixel_size) * resolution) ** 2)
    return np.fft.irfftn(np.fft.rfftn(data) * gain, s=data.shape, axes=(0, 1, 2)).astype(np.float32)


def cosine_low_pass(data: Volume, pixel_size: float, resolution: float, width: int = 2) -> Volume:
    """Filter with a raised-cosine edge, `width` Fourier shells wide, around a whole shell.

    So filters ``relion_mask_create`` (``lowPassFilterMap`` in RELION's ``src/fftw.cpp``).

    Parameters
    ----------
    data : (n, n, n) array
    pixel_size, resolution : float
        Angstrom.
    width : int
        Width of the edge, shells.
    """
    shells = spatial_frequencies(data.shape, pixel_size) * data.shape[0] * pixel_size
    cut = np.rint(data.shape[0] * pixel_size / resolution)
    position = np.clip((shells - (cut - width / 2)) / width, 0, 1)
    gain = 0.5 + 0.5 * np.cos(np.pi * position)
    return np.fft.irfftn(np.fft.rfftn(data) * gain, s=data.shape, axes=(0, 1, 2)).astype(np.float32)
