"""What is simulated, and the streams of random numbers that it draws from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from math import sqrt

import numpy as np

from py2rely_core.simulation.effects import NO_EFFECTS, Effects
from py2rely_core.simulation.structures import INVENTED


class Stream(IntEnum):
    """What has a stream of its own in each tilt series: the same whether or not there are other effects."""

    MOTION = 1
    DEFOCUS = 2
    ASTIGMATISM = 3
    ALIGNMENT_SHIFT = 4
    ALIGNMENT_ROTATION = 5
    AXIS = 6
    DRIFT = 7
    ELECTRONS = 8
    MEMBRANES = 9
    BEADS = 10
    NEIGHBOURS = 11


@dataclass(frozen=True)
class Settings:
    """What is simulated. Lengths in Angstrom, defocus in micrometres, angles in degrees.

    Attributes
    ----------
    noise : float
        Standard deviation of the white noise, in units of the standard deviation of a particle's image. Not used where
        ``effects`` state an SNR or shot noise.
    defocus_spread : float
        By which the tilt series differ: the first has ``defocus``, the second so much more, the third less, and so on.
    angle_error, shift_error : float
        Standard deviation of the errors of the orientations and positions in ``particles.star``.
    random_angles : bool
        Orientations in ``particles.star`` are random: unknown.
    structure : str
        ``invented``, or as :func:`py2rely_core.simulation.structures.structure_of` takes it.
    second : str
        What the second conformation is, as :func:`py2rely_core.simulation.structures.second_of` takes it.
    false_picks : float
        Picks without a particle, as a share of the particles.
    junk : str
        What lies at false picks, in turn, separated by commas: ``nothing``, ``blobs`` (ice), ``beads`` (gold),
        ``membranes``, ``other`` (another structure of this size). Empty: nothing.
    second_conformation : float
        Share of particles of which one domain has moved.
    defocus_error : float
        Standard deviation, Angstrom, of the error of each tilt series' defocus in its STAR file.
    motion : float
        Root mean square, Angstrom, of the particles' displacement after the whole dose, along each axis.
    effects : Effects
        What else images of a microscope have.
    """

    tilt_series: int = 2
    particles: int = 20
    pixel_size: float = 2.5
    image_size: int = 320
    thickness: int = 128
    diameter: float = 130.0
    symmetry: str = "O"
    tilt_range: float = 60.0
    tilt_step: float = 10.0
    defocus: float = 3.0
    defocus_spread: float = 0.4
    dose: float = 1.0
    noise: float = 2.0
    seed: int = 0
    angle_error: float = 0.0
    shift_error: float = 0.0
    random_angles: bool = False
    false_picks: float = 0.0
    junk: str = ""
    second_conformation: float = 0.0
    defocus_error: float = 0.0
    motion: float = 0.0
    name_prefix: str = "TS_"
    structure: str = INVENTED
    second: str = "moved"
    effects: Effects = NO_EFFECTS

    def stream(self, number: int, stream: Stream, *more: int) -> np.random.Generator:
        """Random numbers of one effect in one tilt series (counted from 1); ``more`` names one object of many."""
        return np.random.default_rng([self.seed, number, stream, *more])

    @property
    def white_noise(self) -> float:
        """Standard deviation of the white noise, in units of the standard deviation of a particle's image."""
        if self.effects.shot_noise:
            return 0.0
        return 1 / sqrt(self.effects.snr) if self.effects.snr else self.noise
