"""A run on simulated data against what is known to be true: the map, and every particle's pose."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import optimize
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from py2rely_core.data.geometry import AXES, euler_to_matrix, orientations, true_positions
from py2rely_core.data.symmetry import angles_between, has_fixed_frame, rotations_of
from py2rely_core.data.tables import read_star
from py2rely_core.maps.alignment import ALIGNMENT_BOX, disagreement, moved, reduced, scaled_pose
from py2rely_core.maps.fsc import first_crossing, fsc, shell_resolutions
from py2rely_core.maps.io import Map, read_map
from py2rely_core.maps.masks import spherical_mask
from py2rely_core.maps.resample import resample
from py2rely_core.report.charts import frequency_ticks
from py2rely_core.report.drawing import curve_chart, paper, text, upright
from py2rely_core.report.pictures import SLICE_NAMES, slice_tiles

#: Orientations from which the alignment of a de novo map starts, and how many of the best are refined.
STARTS, REFINED = 300, 6


@dataclass(frozen=True)
class Frame:
    """Where a result has the truth: ``x = rotation @ y + shift`` for a point ``y`` of the truth.

    Attributes
    ----------
    rotation : (3, 3) float
        In x, y, z.
    shift : (3,) float
        Angstrom, x, y, z.
    mirrored : bool
        The truth's mirror image (z changes its sign) was turned and shifted.
    """

    rotation: np.ndarray
    shift: np.ndarray
    mirrored: bool = False


@dataclass(frozen=True)
class MapComparison:
    """A result beside the truth on the same grid, and their Fourier shell correlation.

    ``frame`` is None where the result was taken to be in the truth's own frame.
    """

    binning: int
    result: Map
    truth: Map
    resolutions: np.ndarray
    fsc: np.ndarray
    frame: Frame | None = None

    @property
    def before_nyquist(self) -> float:
        """FSC at the last shell before the one at Nyquist."""
        return float(self.fsc[-2])

    @property
    def resolution(self) -> float | None:
        """Angstrom where the FSC to the truth falls below 0.5; None: it does not."""
        return first_crossing(self.resolutions, self.fsc, 0.5)


def compare_map(result: Path, truth: Path, diameter: float, binning: int = 1, align: bool = False) -> MapComparison:
    """Correlate a map with the true structure within a soft sphere.

    Parameters
    ----------
    result, truth : Path
        MRC files.
    diameter : float
        Of the particle, Angstrom.
    binning : int
        Of the result; only noted.
    align : bool
        The result is in a frame of its own: turn, shift and mirror the truth onto it.
    """
    found, structure, frame = read_map(result), read_map(truth), None
    box = found.data.shape[0]
    if align:
        structure, frame = align_to(structure, found, diameter)
    known = resample(structure.data, structure.pixel_size, found.pixel_size, box)
    mask = spherical_mask(box, (diameter / 2 + 5) / found.pixel_size)
    curve = fsc(found.data, known, mask)
    return MapComparison(
        binning, found, Map(known, found.pixel_size), shell_resolutions(box, found.pixel_size), curve, frame
    )


def align_to(moving: Map, fixed: Map, diameter: float) -> tuple[Map, Frame]:
    """Turn and shift a map, or its mirror image, onto another; no symmetry is assumed.

    Returns
    -------
    (Map, Frame)
        The moved map on its own grid, and how it was moved.
    """
    pixel_size = 1.5 * diameter / ALIGNMENT_BOX
    low_pass = 3 * pixel_size
    target = reduced(fixed, pixel_size, low_pass)
    starts = Rotation.random(STARTS, rng=np.random.default_rng(0)).as_rotvec()
    candidates = []
    for mirrored in (False, True):
        data = np.roll(moving.data[::-1], 1, axis=0) if mirrored else moving.data
        small = reduced(Map(data, moving.pixel_size), pixel_size, low_pass)
        scores = [disagreement(np.r_[start, 0, 0, 0], small, target) for start in starts]
        for index in np.argsort(scores)[:REFINED]:
            start = np.r_[starts[index], 0, 0, 0]
            found = optimize.minimize(disagreement, start, (small, target), method="Powell", options={"maxiter": 8})
            candidates.append((found.fun, mirrored, found.x, data, small))
    _, mirrored, start, data, small = min(candidates, key=lambda candidate: candidate[0])
    # Linear interpolation is fast, and off by degrees.
    pose = optimize.minimize(disagreement, start, (small, target, 3), method="Powell").x
    scaled = scaled_pose(pose, pixel_size / moving.pixel_size)
    # An output voxel is looked up at its rotated place: the map itself turns by the inverse.
    turned = Rotation.from_rotvec(pose[:3]).inv().as_matrix()[::-1, ::-1]
    frame = Frame(turned, pose[:2:-1] * pixel_size, mirrored)
    return Map(moved(data, scaled, order=5), moving.pixel_size), frame


def compare_poses(particles: Path, data: Path, symmetry: str, frame: Frame | None = None) -> pd.DataFrame:
    """Errors of refined particles against the true picks, each paired with the nearest one of its tomogram.

    Parameters
    ----------
    particles : Path
        Refined particles.
    data : Path
        Directory that ``py2rely demo-data`` wrote.
    symmetry : str
        Point group, modulo which angles are compared.
    frame : Frame, optional
        Of the map that the poses belong to, where it is not the truth's; not mirrored.

    Returns
    -------
    DataFrame
        A row per particle: ``label`` of the true pick, ``angle_error`` in degrees, ``shift_error`` in Angstrom.
    """
    table, truth = read_star(particles)["particles"], pd.read_csv(data / "truth/particles.csv", dtype={"tomogram": str})
    positions, poses = true_positions(table), orientations(table)
    if frame is not None:
        positions, poses = positions + poses @ frame.shift, poses @ frame.rotation
    known = truth[[axis.lower() for axis in AXES]].to_numpy()
    known_poses = euler_to_matrix(truth[["rot", "tilt", "psi"]].to_numpy())
    operators = rotations_of(symmetry).as_matrix()
    rows = []
    for name, indices in table.reset_index(drop=True).groupby("rlnTomoName").indices.items():
        picks = np.flatnonzero(truth["tomogram"] == name)
        distances, nearest = cKDTree(known[picks]).query(positions[indices])
        paired = picks[nearest]
        angles = angles_between(poses[indices], known_poses[paired], operators)
        labels = truth["label"].iloc[paired].to_numpy()
        rows.append(pd.DataFrame({"label": labels, "angle_error": angles, "shift_error": distances}))
    return pd.concat(rows, ignore_index=True)


def compare_run(run: Path, data: Path, identity: str | None = None) -> tuple[list[MapComparison], pd.DataFrame | None]:
    """Every level's map of a data set, and its final particles, against the truth.

    After a de novo start, and with a cyclic group, the frame of a map is its own: nothing holds it where the truth's
    is. The truth is then moved onto each map, and the poses are compared in the last map's frame; they cannot be (None)
    when that one has the other hand.

    Parameters
    ----------
    run : Path
        Output directory of a run.
    data : Path
        Directory that ``py2rely demo-data`` wrote.
    identity : str, optional
        Data set; the first one when not given.
    """
    datasets = json.loads((run / "results.json").read_text())["datasets"]
    dataset = next(one for one in datasets if identity in (None, one["id"]))
    free = dataset["initial_reference"] == "denovo" or not has_fixed_frame(dataset["symmetry"])
    diameter = json.loads((data / "truth/settings.json").read_text())["diameter"]
    final, maps = dataset["final"], []
    for level in dataset["levels"]:
        path = final["map"].replace(f"bin{final['binning']}_", f"bin{level['binning']}_")
        maps.append(compare_map(run / path, data / "truth/structure.mrc", diameter, level["binning"], free))
    frame = maps[-1].frame
    if frame is not None and frame.mirrored:
        return maps, None
    return maps, compare_poses(run / final["particles"], data, dataset["symmetry"], frame)


def draw(comparisons: list[MapComparison], path: Path) -> None:
    """Write a PNG: central slices of the truth and of the last map, and every level's FSC to the truth."""
    last = comparisons[-1]
    edge, gap, side = 240, 12, 36
    left = side + 3 * (edge + gap)
    picture = paper(left + 620, 2 * (edge + gap) + side)
    for line, (volume, name) in enumerate(((last.truth, "truth"), (last.result, "map"))):
        y = line * (edge + gap) + gap
        word = upright(name, 18)
        picture.paste(word, (4, y + (edge - word.height) // 2))
        for column, tile in enumerate(slice_tiles(volume, edge)):
            picture.paste(tile, (side + column * (edge + gap), y))
    for column, name in enumerate(SLICE_NAMES):
        text(picture, (side + column * (edge + gap) + edge / 2, picture.height - side / 2), name)
    end = 1 / last.resolutions[-1]
    curves = [(f"bin {one.binning}", 1 / one.resolutions[1:], one.fsc[1:]) for one in comparisons]
    ticks = [*frequency_ticks(end)[:-1], (end, f"{last.resolutions[-1]:.1f}")]
    size = (picture.width - left, picture.height)
    picture.paste(curve_chart(curves, ticks, ("resolution, A", "FSC to the truth"), size, level=0.5), (left, 0))
    picture.save(path)
