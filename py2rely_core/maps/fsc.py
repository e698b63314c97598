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


def randomise_phases(data: Volume, shell: int, seed: int) -> Volume:
    """A map with random phases from a radius on (``randomizePhasesBeyond`` in RELION's ``src/fftw.cpp``).

    Parameters
    ----------
    data : (n, n, n) array
    shell : int
        The radius in Fourier space, shells; amplitudes stay.
    seed : int
        Of the random numbers.
    """
    transform = np.fft.rfftn(data)
    beyond = spatial_frequencies(data.shape, 1.0) * data.shape[0] >= shell - 1e-6
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, int(beyond.sum()))
    transform[beyond] = np.abs(transform[beyond]) * np.exp(1j * phases)
    return np.fft.irfftn(transform, s=data.shape, axes=(0, 1, 2)).astype(np.float32)


def without_mask(masked: np.ndarray, randomised: np.ndarray, shell: int) -> np.ndarray:
    """The FSC without what the mask adds, from two shells after `shell` on, as RELION does.

    By phases that are randomised: Chen et al. 2013, doi:10.1016/j.ultramic.2013.06.004.

    Parameters
    ----------
    masked, randomised : (n_shells,) float
        FSC of the masked half maps, and of those with random phases from `shell` on.
    shell : int
        From where phases are random.
    """
    result = masked.copy()
    beyond = np.arange(len(masked)) >= shell + 2
    known = beyond & (randomised < 1)
    result[known] = (masked[known] - randomised[known]) / (1 - randomised[known])
    result[beyond & (randomised > masked)] = 0
    return result


def corrected_fsc(first: Volume, second: Volume, mask: Volume, shell: int) -> np.ndarray:
    """FSC within a mask, without what the mask itself correlates.

    Parameters
    ----------
    first, second, mask : (n, n, n) array
    shell : int
        From where on phases are randomised.

    Returns
    -------
    (n // 2 + 1,) float
    """
    chance = fsc(randomise_phases(first, shell, 1), randomise_phases(second, shell, 2), mask)
    return without_mask(fsc(first, second, mask), chance, shell)


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
