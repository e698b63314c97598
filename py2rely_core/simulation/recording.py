"""What a microscope makes of images: losses, movement, detector, counts, and errors of the alignment that follows."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pandas as pd

from py2rely_core.data.geometry import tilt_matrices
from py2rely_core.simulation.effects import Effects
from py2rely_core.simulation.threads import for_each

#: Share of the electrons that a dark tilt still gets, as where a grid bar has moved into the beam.
DARK = 0.02
#: Standard deviation, degrees, of a tilt's angle of astigmatism about that of its tilt series.
ASTIGMATISM_SPREAD = 5.0


def astigmatic(tilts: pd.DataFrame, astigmatism: float, rng: np.random.Generator) -> pd.DataFrame:
    """The tilts with ``rlnDefocusU`` and ``rlnDefocusV`` moved apart by so many Angstrom, about the same mean."""
    if not astigmatism:
        return tilts
    angles = rng.uniform(0, 180) + rng.normal(0, ASTIGMATISM_SPREAD, len(tilts))
    return tilts.assign(
        rlnDefocusU=tilts["rlnDefocusU"] + astigmatism / 2,
        rlnDefocusV=tilts["rlnDefocusV"] - astigmatism / 2,
        rlnDefocusAngle=angles % 180,
    )


def misaligned(tilts: pd.DataFrame, effects: Effects, streams: tuple[np.random.Generator, ...]) -> pd.DataFrame:
    """The tilts with errors of alignment, as STAR files may have them.

    Parameters
    ----------
    tilts : DataFrame
        The truth.
    effects : Effects
    streams : (3,) of Generator
        Of the shifts, of each tilt's rotation, and of the tilt axis.
    """
    shifts, rotations, axis = streams
    moved = shifts.normal(0, effects.alignment_shift, (len(tilts), 2))
    turned = rotations.normal(0, effects.alignment_rotation, len(tilts)) + axis.normal(0, effects.axis_error)
    return tilts.assign(
        rlnTomoXShiftAngst=tilts["rlnTomoXShiftAngst"] + moved[:, 0],
        rlnTomoYShiftAngst=tilts["rlnTomoYShiftAngst"] + moved[:, 1],
        rlnTomoZRot=tilts["rlnTomoZRot"] + turned,
    )


def path_lengths(tilts: pd.DataFrame) -> np.ndarray:
    """The beam's way through a layer, in units of its thickness: 1 / cos(tilt), (n_tilts,)."""
    return 1 / np.abs(tilt_matrices(tilts)[:, 2, 2])


def transmission(tilts: pd.DataFrame, effects: Effects) -> np.ndarray:
    """Share of the electrons that is left for each image, (n_tilts,).

    Of a layer of thickness t, ``exp(-t / (mfp cos(tilt)))`` pass without loss of energy (Rice et al. 2018);
    the others are taken out by an energy filter. A dark tilt has :data:`DARK` of that. Signal and background are
    proportional to it, the standard deviation of shot noise to its root: so the amplitude of the signal relative to
    the noise falls as ``exp(-t / (2 mfp cos(tilt)))``.
    """
    left = np.exp(-effects.ice / effects.mean_free_path * path_lengths(tilts))
    highest = np.argsort(-np.abs(tilts["rlnTomoYTilt"].to_numpy()), kind="stable")
    left[highest[: effects.dark_tilts]] *= DARK
    return left


def detector_response(frequency: np.ndarray, nyquist: float, dqe: float) -> np.ndarray:
    """Modulation transfer of a detector that counts each electron once, in one pixel.

    Counts of separate electrons are independent, so their noise is white, and ``DQE(f) = MTF(f)^2 DQE(0)``. Both fall
    as a Gaussian.

    Parameters
    ----------
    frequency : array
        1/Angstrom.
    nyquist : float
        1/Angstrom.
    dqe : float
        ``DQE(nyquist) / DQE(0)``, above 0.
    """
    return sqrt(dqe) ** ((frequency / nyquist) ** 2)


def drift_response(fy: np.ndarray, fx: np.ndarray, drift: np.ndarray) -> np.ndarray:
    """What is left of a signal that moves evenly by a vector (x, y; Angstrom) during the exposure: its sinc."""
    return np.sinc(fx * drift[0] + fy * drift[1])


def drifts(tilts: pd.DataFrame, drift: float, rng: np.random.Generator) -> np.ndarray:
    """Movement of the image in each exposure, (n_tilts, 2) Angstrom: ``drift / cos(tilt)`` in a random direction."""
    directions = rng.uniform(0, 2 * np.pi, len(tilts))
    lengths = drift * path_lengths(tilts)
    return lengths[:, None] * np.stack([np.cos(directions), np.sin(directions)], axis=1)


def blurred(images: np.ndarray, pixel_size: float, dqe: float, drift: np.ndarray) -> np.ndarray:
    """Noise-free images as the detector has them, after :func:`detector_response` and :func:`drift_response`.

    Parameters
    ----------
    images : (n_tilts, size, size) float32
    pixel_size : float
        Angstrom.
    dqe : float
    drift : (n_tilts, 2) float
        Angstrom.
    """
    size = images.shape[1]
    fy, fx = np.fft.fftfreq(size, pixel_size)[:, None], np.fft.rfftfreq(size, pixel_size)
    response = detector_response(np.hypot(fy, fx), 0.5 / pixel_size, dqe)
    result = np.empty_like(images)

    def one(tilt: int) -> None:
        spectrum = np.fft.rfft2(images[tilt]) * response * drift_response(fy, fx, drift[tilt])
        result[tilt] = np.fft.irfft2(spectrum, s=(size, size))

    for_each(len(images), one)
    return result


def counted(images: np.ndarray, electrons: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Counts of electrons in each pixel: Poisson-distributed about ``electrons * (1 + image)``.

    Parameters
    ----------
    images : (n_tilts, size, size) float
        Contrast: deviation from the background, as a share of it. Less than no electrons (gold) are none.
    electrons : (n_tilts,) float
        Of the background, per pixel.

    Returns
    -------
    (n_tilts, size, size) float32
    """
    result = np.empty(images.shape, dtype=np.float32)
    own = rng.spawn(len(images))

    def one(tilt: int) -> None:
        result[tilt] = own[tilt].poisson(electrons[tilt] * np.maximum(1 + images[tilt].astype(float), 0))

    for_each(len(images), one)
    return result
