"""Which hand tilt series have: a subset of particles reconstructed with both, and compared."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from py2rely_core.data.geometry import ANGLES
from py2rely_core.data.import_job import import_inputs
from py2rely_core.data.inputs import load_inputs
from py2rely_core.data.tables import read_star, write_star
from py2rely_core.maps.fsc import first_crossing, fsc, shell_resolutions
from py2rely_core.maps.io import Volume, read_map
from py2rely_core.maps.masks import spherical_mask
from py2rely_core.parameters.boxes import box_size
from py2rely_core.problems import Problem, ProblemError
from py2rely_core.relion.outputs.job import check_map
from py2rely_core.relion.run import run_job

HANDS = (-1, 1)
#: Parts of the particles that must each, and by themselves, prefer the same hand.
PARTS = 4
#: A mean difference below this many standard errors of the parts decides nothing.
CLEAR = 3.0
#: Shells with a lower FSC hold too little signal to compare.
USABLE = 0.3


@dataclass(frozen=True)
class HandComparison:
    """Half-map FSC with either hand.

    Attributes
    ----------
    resolutions : (n,) float
        Of the shells, Angstrom.
    curves : dict of int to (n,) float
        By hand, of all particles.
    differences : (PARTS,) float
        Of each part of the particles: how much more signal its half maps share with hand 1 than with hand -1, relative
        to their sum, mean of the shells in which the part has an FSC above :data:`USABLE`.
    particles : int
        How many were used.
    stated : float
        ``rlnTomoHand`` of the tilt series.
    """

    resolutions: np.ndarray
    curves: dict[int, np.ndarray]
    differences: np.ndarray
    particles: int
    stated: float

    def resolution(self, hand: int) -> float | None:
        """Where the FSC falls below 0.143, Angstrom; None: it does not."""
        return first_crossing(self.resolutions, self.curves[hand], 0.143)

    @property
    def certainty(self) -> float:
        """Mean difference of the parts in its standard errors; positive for hand 1."""
        error = self.differences.std(ddof=1) / math.sqrt(len(self.differences))
        return float(self.differences.mean() / max(error, 1e-12))

    @property
    def better(self) -> int | None:
        """The better hand; None where the parts do not agree or differ too little from none."""
        one_sign = len(set(np.sign(self.differences))) == 1
        return int(np.sign(self.differences[0])) if one_sign and abs(self.certainty) >= CLEAR else None


def check_hand(
    tilt_series: Path,
    particles: Path,
    diameter: float,
    work: Path,
    count: int = 1000,
    binning: int = 1,
    symmetry: str = "C1",
    threads: int = 2,
) -> HandComparison:
    """Reconstruct particles with ``rlnTomoHand`` -1 and 1, and compare their half maps.

    The hand decides which side of a tilted image has more defocus. With the wrong one, the CTF of every particle that
    is not on the tilt axis is corrected for the wrong defocus, and less signal adds up at high resolution. The FSC only
    shows that where noise limits it; the signal that the half maps share shows it everywhere.

    Parameters
    ----------
    tilt_series, particles : Path
        STAR files; the particles must have orientations that are about right.
    diameter : float
        Of the particle, Angstrom.
    work : Path
        A new directory, gets the reconstructions.
    count : int
        Particles, evenly from the file.
    binning : int
    symmetry : str
        Point group.
    threads : int

    Raises
    ------
    ProblemError
        Particles have no orientations, or RELION failed.
    """
    project = Path.cwd()
    if work.exists() and any(work.iterdir()):
        problem = Problem("The directory is not empty.", str(work), "a new directory", "Choose another --output.")
        raise ProblemError(problem)
    inputs = load_inputs(particles, tilt_series, project)
    if inputs.problems:
        raise ProblemError(inputs.problems)
    table = inputs.particles
    if not set(ANGLES) <= set(table) or not table[ANGLES].to_numpy(dtype=float).any():
        fix = "Refine the particles first (at a coarse binning the hand hardly matters), and give run_data.star."
        raise ProblemError(Problem("The particles have no orientations.", str(particles), "rlnAngleRot, ...", fix))
    stated = float(inputs.tomograms["rlnTomoHand"].iloc[0])
    pixel = float(inputs.tomograms["rlnTomoTiltSeriesPixelSize"].iloc[0])
    job, picks = import_inputs(inputs.particles_file, inputs.tilt_series_file, project, work)
    box, scaled = box_size(diameter, pixel, binning, 2.0), pixel * binning
    parts = _write_parts(picks / "particles.star", count)
    tomograms = read_star(job / "tomograms.star")
    mask = spherical_mask(box, (diameter / 2 + 10) / scaled)
    curves: dict[tuple[str, int], np.ndarray] = {}
    shared: dict[tuple[str, int], np.ndarray] = {}
    with contextlib.chdir(work):
        for hand in HANDS:
            tomograms["global"]["rlnTomoHand"] = float(hand)
            write_star(tomograms, Path(f"Import/hand_{hand}.star"))
            for part in parts:
                folder = Path(f"Reconstruct/hand_{hand}_{part}")
                command = ["relion_tomo_reconstruct_particle", "--t", f"Import/hand_{hand}.star", "--p"]
                command += [f"Select/{part}.star", "--o", f"{folder}/", "--b", str(box), "--bin", str(binning)]
                command += ["--sym", symmetry, "--j", str(threads), "--j_in", "1", "--j_out", str(threads)]
                run_job(folder, command)
                halves = [folder / f"half{number}.mrc" for number in (1, 2)]
                for half in halves:
                    check_map(folder, half, box, scaled)
                volumes = [read_map(half).data for half in halves]
                curves[part, hand], shared[part, hand] = fsc(*volumes, mask), shared_signal(*volumes, mask)
    differences = []
    for part in parts:
        usable = np.minimum(curves[part, 1], curves[part, -1]) > USABLE
        usable[[0, -1]] = False
        if not usable.any():
            fix = "Refine the particles first, or give more of them with --count."
            raise ProblemError(Problem("The half maps have nothing in common.", f"{work}, {part}", "an average", fix))
        differences.append(_relative(shared[part, 1], shared[part, -1])[usable].mean())
    return HandComparison(
        shell_resolutions(box, scaled),
        {hand: curves["all", hand] for hand in HANDS},
        np.array(differences[1:]),
        parts["all"],
        stated,
    )


def shared_signal(first: Volume, second: Volume, mask: Volume) -> np.ndarray:
    """Power that two maps share in each shell up to Nyquist, (box / 2 + 1,): the sum of their cross spectrum."""
    one, other = np.fft.rfftn(first * mask), np.fft.rfftn(second * mask)
    box = first.shape[0]
    full, half = np.fft.fftfreq(box) * box, np.fft.rfftfreq(box) * box
    radius = np.sqrt(full[:, None, None] ** 2 + full[:, None] ** 2 + half**2)
    power = np.bincount(np.rint(radius).astype(int).ravel(), (one * other.conj()).real.ravel())
    return power[: box // 2 + 1]


def _relative(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first - second) / np.maximum(np.abs(first) + np.abs(second), 1e-30)


def _write_parts(path: Path, count: int) -> dict[str, int]:
    """Evenly chosen particles in two half sets, all of them and in :data:`PARTS` parts; how many each has."""
    blocks = read_star(path)
    table = blocks["particles"]
    rows = np.unique(np.linspace(0, len(table) - 1, min(count, len(table))).astype(int))
    chosen = table.iloc[rows].reset_index(drop=True)
    half = np.arange(len(chosen)) // PARTS % 2 + 1
    chosen["rlnRandomSubset"] = chosen.get("rlnRandomSubset", half)
    parts = {"all": chosen} | {f"part{n + 1}": chosen.iloc[n::PARTS] for n in range(PARTS)}
    small = [name for name, part in parts.items() if part["rlnRandomSubset"].value_counts().reindex([1, 2]).min() < 2]
    if small or len(chosen) < 4 * PARTS:
        fix = "Give more particles, or particles with both half sets."
        what = f"{len(chosen)} particles are too few to compare."
        raise ProblemError(Problem(what, str(path), f"{4 * PARTS} or more, in two half sets", fix))
    for name, part in parts.items():
        write_star(blocks | {"particles": part}, path.parent.parent / f"{name}.star")
    return {name: len(part) for name, part in parts.items()}
