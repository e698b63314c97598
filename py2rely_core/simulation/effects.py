"""What images of a microscope have beside CTF and dose damage: losses, detector, counts, errors of alignment."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
import pandas as pd

from py2rely_core.data.geometry import tilt_matrices

#: Inelastic mean free path of vitreous ice at 300 kV, Angstrom (Rice et al. 2018, doi:10.1016/j.jsb.2018.06.007).
MEAN_FREE_PATH = 3950.0
#: Share of the electrons that a dark tilt still gets, as where a grid bar has moved into the beam.
DARK = 0.02
#: Standard deviation, degrees, of a tilt's angle of astigmatism about that of its tilt series.
ASTIGMATISM_SPREAD = 5.0


@dataclass(frozen=True)
class Effects:
    """What is simulated beside :class:`py2rely_core.simulation.settings.Settings`; nothing, unless stated.

    Each draws from a stream of its own, so that one that is switched on leaves the others as they were.

    Attributes
    ----------
    ice : float
        Thickness of the ice, Angstrom, in which electrons are lost to inelastic scattering; see :func:`transmission`.
    mean_free_path : float
        Of inelastic scattering, Angstrom.
    snr : float
        Signal-to-noise ratio that takes the place of ``Settings.noise`` where it is not 0: variance of a particle's
        noise-free untilted image within its diameter, by the variance of the white noise, per pixel.
    shot_noise : bool
        Images are counts of electrons, Poisson-distributed, in place of white noise; see :func:`counted`.
    contrast : float
        With shot noise: standard deviation of a particle's untilted image within its diameter, as a share of the
        background.
    astigmatism : float
        ``rlnDefocusU - rlnDefocusV``, Angstrom, along a random direction in each tilt series.
    dqe : float
        The detector's quantum efficiency at Nyquist, as a share of that at frequency 0; see :func:`detector_response`.
    neighbours, beads, membranes : int
        Other proteins, gold beads and flat patches of membrane in each tomogram, clear of all picks.
    alignment_shift, alignment_rotation : float
        Standard deviation of the errors of each tilt's shift (Angstrom, along x and along y) and tilt axis (degrees) in
        the tilt series' STAR file.
    axis_error : float
        Standard deviation, degrees, of the error of the tilt axis that all tilts of a series share.
    drift : float
        Movement of the image during an exposure, Angstrom, in a random direction; see :func:`drift_response`.
    dark_tilts : int
        So many of the highest tilts of each series are nearly without electrons.
    """

    ice: float = 0.0
    mean_free_path: float = MEAN_FREE_PATH
    snr: float = 0.0
    shot_noise: bool = False
    contrast: float = 0.05
    astigmatism: float = 0.0
    dqe: float = 1.0
    neighbours: int = 0
    beads: int = 0
    membranes: int = 0
    alignment_shift: float = 0.0
    alignment_rotation: float = 0.0
    axis_error: float = 0.0
    drift: float = 0.0
    dark_tilts: int = 0


NO_EFFECTS = Effects()
#: Moderate values of all, for data as from a microscope with an energy filter and a counting detector.
REALISTIC = Effects(
    ice=1500.0,
    shot_noise=True,
    astigmatism=300.0,
    dqe=0.3,
    neighbours=20,
    beads=5,
    membranes=1,
    alignment_shift=2.0,
    alignment_rotation=0.1,
    axis_error=0.2,
    drift=1.5,
    dark_tilts=1,
)


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
    """The tilts with errors of alignment, as an STAR file may have them.

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
    for image, moved, out in zip(images, drift, result, strict=True):
        out[:] = np.fft.irfft2(np.fft.rfft2(image) * response * drift_response(fy, fx, moved), s=image.shape)
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
    for image, background, out in zip(images, electrons, result, strict=True):
        out[:] = rng.poisson(background * np.maximum(1 + image.astype(float), 0))
    return result
