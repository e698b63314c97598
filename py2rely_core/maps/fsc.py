"""Fourier shell correlation, with RELION's shells."""

from __future__ import annotations

import numpy as np

from py2rely_core.maps.filters import spatial_frequencies
from py2rely_core.maps.io import Volume


def fsc(first: Volume, second: Volume, mask: Volume | None = None, as_relion: bool = False) -> np.ndarray:
    """Correlation of two cubic maps, shell by shell.

    Parameters
    ----------
    first, second : (n, n, n) array
    mask : (n, n, n) array, optional
        Multiplies both maps.
    as_relion : bool
        Weigh components as ``getFSC`` does (``src/fftw.cpp``): those with zero x frequency twice as much as the others.

    Returns
    -------
    (n // 2 + 1,) float
        Shell ``s`` holds the Fourier components with ``round(|k|) == s``; shell 0 is 1.
    """
    n = first.shape[0]
    if mask is not None:
        first, second = first * mask, second * mask
    a, b = np.fft.rfftn(first), np.fft.rfftn(second)
    shell = np.rint(spatial_frequencies(first.shape, 1.0) * n).astype(int)
    # The components with positive x frequency stand for their conjugates, too.
    multiplicity = np.full(a.shape, 1.0 if as_relion else 2.0)
    multiplicity[..., 0] = 1.0
    keep = shell <= n // 2

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(shell[keep], weights=(values * multiplicity)[keep], minlength=n // 2 + 1)

    power = total(np.abs(a) ** 2) * total(np.abs(b) ** 2)
    curve = np.divide(total((a * b.conj()).real), np.sqrt(power), out=np.zeros(n // 2 + 1), where=power > 0)
    curve[0] = 1.0
    return curve


def randomised_phases(data: Volume, shell: int, seed: int) -> Volume:
    """A map whose phases are random from a shell on, with its own amplitudes."""
    n = data.shape[0]
    transform = np.fft.rfftn(data)
    # The phases of a real map, so that the result is one.
    noise = np.fft.rfftn(np.random.default_rng(seed).normal(size=data.shape))
    beyond = spatial_frequencies(data.shape, 1.0) * n >= shell
    turned = np.where(beyond, np.abs(transform) * np.exp(1j * np.angle(noise)), transform)
    return np.fft.irfftn(turned, s=data.shape, axes=(0, 1, 2)).astype(np.float32)


def corrected_fsc(first: Volume, second: Volume, mask: Volume, shell: int) -> np.ndarray:
    """FSC within a mask, without what the mask itself correlates.

    By phases that are randomised: Chen et al. 2013, doi:10.1016/j.ultramic.2013.06.004.

    Parameters
    ----------
    first, second, mask : (n, n, n) array
    shell : int
        From where on phases are randomised; as ``relion_postprocess``, the curve is corrected from two shells beyond.

    Returns
    -------
    (n // 2 + 1,) float
    """
    together = fsc(first, second, mask)
    chance = fsc(randomised_phases(first, shell, 1), randomised_phases(second, shell, 2), mask)
    with np.errstate(invalid="ignore", divide="ignore"):
        beyond = np.where(chance > together, 0.0, (together - chance) / (1 - chance))
    return np.where(np.arange(len(together)) < shell + 2, together, beyond)


def shell_resolutions(box: int, pixel_size: float) -> np.ndarray:
    """Resolution of every shell, Angstrom; infinite for shell 0."""
    with np.errstate(divide="ignore"):
        return box * pixel_size / np.arange(box // 2 + 1)


def first_crossing(resolutions: np.ndarray, curve: np.ndarray, threshold: float) -> float | None:
    """Resolution of the last shell before the curve first falls below the threshold.

    Parameters
    ----------
    resolutions, curve : (n_shells,) array
        From low to high resolution; NaN counts as below.
    threshold : float
        For example 0.143.

    Returns
    -------
    float or None
        Angstrom; None where the curve never falls below: the result is limited by Nyquist.
    """
    below = ~(np.asarray(curve)[1:] >= threshold)
    if not below.any():
        return None
    return float(resolutions[int(below.argmax())])


def crossing_shells(curves: np.ndarray, threshold: float = 0.143) -> np.ndarray:
    """Where curves first fall below a threshold, (n,) shells, interpolated between two; the last where they do not."""
    below = ~(curves[:, 1:] >= threshold)
    falls, shell = below.any(axis=1), below.argmax(axis=1) + 1
    rows = np.arange(len(curves))
    upper, lower = curves[rows, shell - 1], curves[rows, shell]
    place = shell - 1 + (upper - threshold) / np.where(falls, upper - lower, 1)
    return np.where(falls, np.maximum(place, 1), curves.shape[1] - 1)
