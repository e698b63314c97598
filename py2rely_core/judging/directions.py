"""How the best map's resolution depends on direction, and how the particles sample directions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from py2rely_core.data.geometry import orientations, tilt_matrices
from py2rely_core.data.symmetry import rotations_of
from py2rely_core.data.tables import read_star
from py2rely_core.maps import directions
from py2rely_core.maps.fsc import crossing_shells, shell_resolutions
from py2rely_core.maps.io import read_map
from py2rely_core.relion.outputs.job import write_numbers
from py2rely_core.relion.outputs.tilt_series import tilt_tables

#: A conical FSC area ratio below this says that directions differ (CryoSPARC's guide, Orientation Diagnostics).
UNEVEN = 0.5
#: With fewer shells to the resolution, cones hold too few components for a warning.
LEAST_SHELLS = 10
#: The worst and the best resolution: what all but so many percent of the directions reach, and what only they do.
TAIL = 5.0


def check_directions(maps: Path, mask: Path, particles: Path, tomograms: Path, symmetry: str, job: Path) -> None:
    """Note the resolution by direction, and the sampling of directions.

    Parameters
    ----------
    maps, mask : Path
        The reconstruction with its half maps, and the map's mask.
    particles, tomograms : Path
        STAR files, whose paths hold here.
    symmetry : str
        Point group.
    job : Path
        Gets ``job.json``.
    """
    first, second = (read_map(maps / f"half{half}.mrc") for half in (1, 2))
    axes = directions.directions()
    curves = directions.conical_fsc(first.data, second.data, read_map(mask).data, axes)
    counts = view_counts(particles, tomograms)
    found = resolution_by_direction(curves, first.pixel_size) | sampling_by_direction(counts, axes, symmetry)
    job.mkdir(parents=True, exist_ok=True)
    write_numbers(job, directions=found, warnings=_warnings(found, len(curves[0]) - 1, first.pixel_size))


def resolution_by_direction(curves: np.ndarray, pixel_size: float) -> dict[str, Any]:
    """Numbers of conical FSC curves.

    Parameters
    ----------
    curves : (n_axes, n_shells) float
        As :func:`py2rely_core.maps.directions.conical_fsc` gives them for its `directions`.
    pixel_size : float
        Angstrom.

    Returns
    -------
    dict
        ``worst``, ``median``, ``best`` (Angstrom), ``worst_direction`` and ``best_direction`` (rot, tilt in degrees),
        ``area_ratio``, ``resolution`` (on the sphere's cells), and the FSC's range.
    """
    box = 2 * (curves.shape[1] - 1)
    by_axis = box * pixel_size / crossing_shells(curves)
    best, median, worst = np.percentile(by_axis, [TAIL, 50, 100 - TAIL])
    low, middle, high = np.percentile(curves[:, 1:], [TAIL, 50, 100 - TAIL], axis=0)
    return {
        "cone": directions.CONE,
        "worst": round(float(worst), 3),
        "median": round(float(median), 3),
        "best": round(float(best), 3),
        "worst_direction": _angles(by_axis.argmax()),
        "best_direction": _angles(by_axis.argmin()),
        "area_ratio": round(directions.area_ratio(curves), 3),
        "resolution": directions.whole_sphere(by_axis).round(2).tolist(),
        "fsc": {
            "resolution": shell_resolutions(box, pixel_size)[1:].round(5).tolist(),
            "worst": low.round(4).tolist(),
            "median": middle.round(4).tolist(),
            "best": high.round(4).tolist(),
        },
    }


def _angles(index: int) -> list[float]:
    """Rot and tilt, degrees, of one of the directions."""
    x, y, z = directions.directions()[index]
    return [round(float(angle), 1) for angle in np.degrees([np.arctan2(y, x), np.arccos(z)])]


def view_counts(particles: Path, tomograms: Path) -> np.ndarray:
    """From where all tilt images see the particles, by cells of the particle's own sphere."""
    table, tilts = read_star(particles)["particles"], tilt_tables(tomograms)
    poses = orientations(table)
    total: np.ndarray | int = 0
    for name, rows in table.reset_index(drop=True).groupby("rlnTomoName").indices.items():
        beams = tilt_matrices(tilts[str(name)])[:, 2]
        # A pose takes reference vectors to the tomogram; its transpose brings the beam to the reference.
        total = total + directions.view_counts(np.einsum("nij,ti->ntj", poses[rows], beams).reshape(-1, 3))
    return np.asarray(total)


def sampling_by_direction(counts: np.ndarray, axes: np.ndarray, symmetry: str) -> dict[str, Any]:
    """How densely the views of all symmetric equivalents sample directions: 1 is even."""
    turned = [axes @ one.T for one in rotations_of(symmetry).as_matrix()]
    densities = np.mean([directions.sampling(counts, one) for one in turned], axis=0)
    return {
        "sampling": directions.whole_sphere(densities).round(3).tolist(),
        "least_sampling": round(float(densities.min()), 3),
        "unsampled": round(float((densities == 0).mean()), 4),
        "compensation": round(directions.compensation(densities), 3),
    }


def _warnings(found: dict[str, Any], shells: int, pixel_size: float) -> list[str]:
    warnings = []
    reached = 2 * shells * pixel_size / found["median"]
    if found["area_ratio"] < UNEVEN and reached >= LEAST_SHELLS:
        warnings.append(
            f"The resolution depends on direction: from {found['best']:.1f} to {found['worst']:.1f} A, "
            f"conical FSC area ratio {found['area_ratio']:.2f}."
        )
    if found["unsampled"]:
        warnings.append(f"{found['unsampled']:.0%} of all directions are sampled by no view: a wedge is open.")
    return warnings
