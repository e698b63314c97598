"""Resolution against the number of particles: how many more of them a better map would take.

Random parts of the particles are averaged with their refined orientations. The logarithm of their number against
the squared frequency of the resolution is a line of slope B / 2, as long as noise limits the resolution, and nothing
else does (Rosenthal & Henderson 2003, doi:10.1016/j.jmb.2003.07.013).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.maps.fsc import crossing_shells
from py2rely_core.problems import ProblemError
from py2rely_core.relion.outputs.averages import read_fsc
from py2rely_core.relion.outputs.job import row_count, write_numbers

#: Parts of the particles: a half, a quarter, an eighth.
PARTS = (2, 4, 8)
#: Fewest particles of a half set, but in the halves, which are always there.
LEAST = 5
#: Points that a line needs, and their least correlation.
POINTS, STRAIGHT = 3, 0.95
#: The prediction: so much of the present resolution, for at most so many times the particles.
BETTER, FACTOR = 0.9, 10


@dataclass(frozen=True)
class Point:
    """A number of particles, the resolution that they give (Angstrom), and whether Nyquist limits it."""

    particles: int
    resolution: float
    nyquist_limited: bool


def write_subsets(particles: Path, name: str, output: Path) -> list[Path]:
    """Write random parts of a particle set, each within the one before, and with as many of either half set.

    Parameters
    ----------
    particles : Path
        A STAR file with half sets.
    name : str
        Of the map that they are parts of.
    output : Path
        Gets ``NAME_of2/particles.star`` and so on, as far as the half sets go.
    """
    blocks = read_star(particles)
    table = blocks["particles"]
    order = np.random.default_rng(0).permutation(len(table))
    half = table["rlnRandomSubset"].to_numpy()[order]
    written = []
    for part in PARTS:
        kept = [rows[: len(rows) // part] for rows in (order[half == number] for number in (1, 2))]
        if min(map(len, kept)) < LEAST and part > PARTS[0]:
            break
        target, rows = output / f"{name}_of{part}", np.sort(np.concatenate(kept))
        write_star(blocks | {"particles": table.iloc[rows]}, target / "particles.star")
        write_numbers(target, particles_out=len(rows))
        written.append(target)
    return written


def line_of(points: list[Point]) -> dict[str, Any]:
    """The line through the points, and what it says of more particles.

    Returns
    -------
    dict
        ``b_factor`` (square Angstrom) and ``correlation``, or None; ``target_resolution`` (Angstrom) and
        ``target_particles``, or None where the line does not allow that; ``text``.
    """
    known = [point for point in points if not point.nyquist_limited]
    nothing = {"b_factor": None, "correlation": None, "target_resolution": None, "target_particles": None}
    if len(known) < POINTS:
        limited = len(points) - len(known)
        why = f", {limited} of them limited by Nyquist" if limited else ""
        return nothing | {"text": f"There is no line: {len(points)} points{why}; it takes {POINTS}."}
    x = np.array([point.resolution**-2.0 for point in known])
    y = np.log([point.particles for point in known])
    if np.ptp(x) == 0:
        return nothing | {"text": "There is no line: all parts of the particles give the same resolution."}
    slope, intercept = np.polyfit(x, y, 1)
    correlation = float(np.corrcoef(x, y)[0, 1])
    found = nothing | {"b_factor": round(2 * float(slope), 1), "correlation": round(correlation, 3)}
    if slope <= 0 or correlation < STRAIGHT:
        return found | {"text": f"The points are on no line (correlation {correlation:.2f}): nothing is predicted."}
    now = max(known, key=lambda point: point.particles)
    wanted = BETTER * now.resolution
    needed = exp(intercept + slope / wanted**2)
    if log(needed) > log(FACTOR * now.particles):
        text = f"For {wanted:.1f} A more than {FACTOR} times as many particles, by this line."
        return found | {"text": text}
    rounded = int(float(f"{needed:.2g}"))
    text = f"For {wanted:.1f} A about {rounded} particles, by this line; {now.particles} give {now.resolution:.1f} A."
    return found | {"text": text, "target_resolution": round(wanted, 2), "target_particles": rounded}


def check_particle_plot(job: Path, sets: Path, best: Path, particles: Path, box: int, pixel_size: float) -> None:
    """Note the resolution of every part of the particles, and the line through them.

    Parameters
    ----------
    job : Path
        Holds ``NAME_of2.star`` and so on: post-processing of each part; gets ``job.json``.
    sets : Path
        Holds the particle sets of these names.
    best, particles : Path
        Post-processing and particles of the whole.
    box : int
        Voxels.
    pixel_size : float
        Angstrom.
    """
    points = [_point(best, "postprocess.star", row_count(particles), box * pixel_size)]
    for part in sorted(sets.iterdir(), key=lambda path: int(path.name.rpartition("_of")[2])):
        try:
            points.append(_point(job, f"{part.name}.star", row_count(part / "particles.star"), box * pixel_size))
        except ProblemError:
            continue  # Half maps of so few particles have nothing in common, where relion_postprocess ends.
    rows = [vars(point) for point in points]
    write_numbers(job, box=box, pixel_size=pixel_size, particle_plot={"points": rows} | line_of(points))


def _point(job: Path, name: str, particles: int, edge: float) -> Point:
    curve = np.r_[1.0, read_fsc(job, name)[0]["corrected"].fillna(-1.0).to_numpy(dtype=float)]
    shell = float(crossing_shells(curve[None])[0])
    return Point(particles, round(edge / shell, 3), bool((curve[1:] >= 0.143).all()))
