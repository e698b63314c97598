"""What images of a microscope have beside CTF and dose damage, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass

#: Inelastic mean free path of vitreous ice at 300 kV, Angstrom (Rice et al. 2018, PMC6119488).
MEAN_FREE_PATH = 3950.0


@dataclass(frozen=True)
class Effects:
    """What is simulated beside :class:`py2rely_core.simulation.settings.Settings`; nothing, unless stated.

    Each draws from a stream of its own, so that one that is switched on leaves the others as they were.

    Attributes
    ----------
    ice : float
        Thickness of the ice, Angstrom, in which electrons are lost to inelastic scattering; see
        ``recording.transmission``.
    mean_free_path : float
        Of inelastic scattering, Angstrom.
    snr : float
        Signal-to-noise ratio that takes the place of ``Settings.noise`` where it is not 0: variance of a particle's
        noise-free untilted image within its diameter, by the variance of the white noise, per pixel.
    shot_noise : bool
        Images are counts of electrons, Poisson-distributed, in place of white noise; see ``recording.counted``.
    contrast : float
        With shot noise: standard deviation of a particle's untilted image within its diameter, as a share of the
        background.
    astigmatism : float
        ``rlnDefocusU - rlnDefocusV``, Angstrom, along a random direction in each tilt series.
    dqe : float
        The detector's quantum efficiency at Nyquist, as a share of that at frequency 0; see
        ``recording.detector_response``.
    neighbours : float
        Other proteins in each tomogram, as a share of the particles; like the next two clear of all picks.
    beads, membranes : int
        Gold beads and flat patches of membrane in each tomogram.
    alignment_shift, alignment_rotation : float
        Standard deviation of the errors of each tilt's shift (Angstrom, along x and along y) and tilt axis (degrees) in
        the tilt series' STAR file.
    axis_error : float
        Standard deviation, degrees, of the error of the tilt axis that all tilts of a series share.
    drift : float
        Movement of the image during an exposure, Angstrom, in a random direction; see ``recording.drift_response``.
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
    neighbours: float = 0.0
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
    neighbours=1.0,
    beads=5,
    membranes=1,
    alignment_shift=2.0,
    alignment_rotation=0.1,
    axis_error=0.2,
    drift=1.5,
    dark_tilts=1,
)
