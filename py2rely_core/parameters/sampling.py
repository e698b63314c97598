"""Angular sampling: RELION's healpix orders by the label, and by what the data can resolve."""

from __future__ import annotations

from math import atan, degrees

from py2rely_core.problems import ExitCode, Problem, ProblemError

#: Sampling in degrees by healpix order, as RELION labels them.
SAMPLINGS = (30.0, 15.0, 7.5, 3.7, 1.8, 0.9, 0.5, 0.2, 0.1)


def sampling_order(label: str) -> int:
    """Healpix order of a label such as ``"7.5 degrees"``.

    Raises
    ------
    ProblemError
        RELION has no such sampling.
    """
    try:
        return SAMPLINGS.index(float(str(label).split()[0]))
    except (ValueError, IndexError):
        choices = ", ".join(f"{sampling:g}" for sampling in SAMPLINGS)
        problem = Problem(f"'{label}' is no angular sampling.", "", f"one of {choices} degrees", "Choose one of these.")
        raise ProblemError(problem, ExitCode.BAD_PARAMETERS) from None


def healpix_order(pixel_size: float, binning: int, diameter: float) -> int:
    """Healpix order that a level needs: a shift by two pixels at half the diameter, ``atan(2 px / diameter)``.

    Parameters
    ----------
    pixel_size : float
        Unbinned, Angstrom per pixel.
    binning : int
        Binning factor.
    diameter : float
        Particle diameter, Angstrom.

    Returns
    -------
    int
        Order of the finest sampling that is not finer than needed.
    """
    angle = degrees(atan(2 * pixel_size * binning / diameter))
    return max((order for order, sampling in enumerate(SAMPLINGS) if sampling >= angle), default=0)
