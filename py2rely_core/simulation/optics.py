"""What the microscope does to a particle's image: contrast transfer and loss by dose."""

from __future__ import annotations

from math import asin, pi, sqrt

import numpy as np

VOLTAGE, SPHERICAL_ABERRATION, AMPLITUDE_CONTRAST = 300.0, 2.7, 0.07


def wavelength(voltage: float) -> float:
    """Electron wavelength, Angstrom, of a voltage in kV."""
    volts = voltage * 1e3
    return 12.2643247 / sqrt(volts * (1 + volts * 0.978466e-6))


def ctf(frequency: np.ndarray, defocus: float | np.ndarray) -> np.ndarray:
    """RELION's contrast transfer function, positive at low frequency.

    Parameters
    ----------
    frequency : array
        1/Angstrom.
    defocus : float or array
        Angstrom, positive for underfocus; with astigmatism that of each frequency's direction.
    """
    wave = wavelength(VOLTAGE)
    phase = pi * wave * defocus * frequency**2 - pi / 2 * SPHERICAL_ABERRATION * 1e7 * wave**3 * frequency**4
    return np.sin(phase + asin(AMPLITUDE_CONTRAST))


def directed_defocus(direction: np.ndarray, u: float, v: float, angle: float) -> np.ndarray:
    """Defocus along each direction, Angstrom, as ``CTF::getDeltaF`` of RELION (src/ctf.h) has it.

    Parameters
    ----------
    direction : array
        Radians from the x axis of the image towards y, which counts its rows.
    u, v : float
        ``rlnDefocusU`` (along the angle) and ``rlnDefocusV`` (across it), Angstrom.
    angle : float
        ``rlnDefocusAngle``, degrees.
    """
    return (u + v) / 2 + (u - v) / 2 * np.cos(2 * (direction - np.radians(angle)))


def damage(frequency: np.ndarray, dose: float) -> np.ndarray:
    """Amplitude left after a dose in e/A^2 (Grant and Grigorieff 2015)."""
    with np.errstate(divide="ignore"):
        critical = 0.245 * frequency ** (-1.665) + 2.81
    return np.exp(-dose / (2 * critical))
