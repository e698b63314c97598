"""Particle files as other programs write them, made from known poses by the formats' own definitions.

Rotations are built here from elementary matrices alone, so that nothing of the readers is used to test them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from py2rely_core.data.tables import write_star
from py2rely_core.importers.optics import Optics
from py2rely_core.importers.particles import Tomograms

#: Unbinned, Angstrom, and of the tomograms that were picked in.
PIXEL, VOXEL = 2.5, 10.0
SIZES = {"TS_01": np.array([400.0, 480.0, 160.0]), "TS_02": np.array([400.0, 480.0, 200.0])}
TOMOGRAMS = Tomograms(SIZES, PIXEL, Optics(300.0).row(PIXEL))


@dataclass(frozen=True)
class Truth:
    """Poses: tomogram names, positions in Angstrom from the centre, and reference-to-tomogram matrices."""

    names: np.ndarray
    positions: np.ndarray
    matrices: np.ndarray

    @property
    def corner(self) -> np.ndarray:
        """Angstrom from the first corner of each tomogram."""
        return self.positions + np.array([SIZES[name] for name in self.names]) * PIXEL / 2


def turned(axis: str, degrees: np.ndarray) -> np.ndarray:
    """Active rotations by angles about an axis, counter-clockwise seen from its tip, (n, 3, 3)."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    zero, one = np.zeros_like(c), np.ones_like(c)
    rows = {
        "x": [[one, zero, zero], [zero, c, -s], [zero, s, c]],
        "y": [[c, zero, s], [zero, one, zero], [-s, zero, c]],
        "z": [[c, -s, zero], [s, c, zero], [zero, zero, one]],
    }[axis]
    return np.moveaxis(np.array(rows), -1, 0)


def relion_matrices(angles: np.ndarray) -> np.ndarray:
    """RELION: the transpose of Rz(rot) Ry(tilt) Rz(psi) takes the reference to the tomogram."""
    rot, tilt, psi = np.asarray(angles, dtype=float).T
    return (turned("z", rot) @ turned("y", tilt) @ turned("z", psi)).transpose(0, 2, 1)


def dynamo_matrices(angles: np.ndarray) -> np.ndarray:
    """Dynamo turns clockwise: by narot about z, by tilt about x, by tdrot about z, each about the fixed axes."""
    tdrot, tilt, narot = np.asarray(angles, dtype=float).T
    return turned("z", -tdrot) @ turned("x", -tilt) @ turned("z", -narot)


def truth(count: int = 12, seed: int = 0, angles: np.ndarray | None = None, matrices=relion_matrices) -> Truth:
    rng = np.random.default_rng(seed)
    names = np.array(["TS_01", "TS_02"])[np.arange(count) % 2]
    half = np.array([SIZES[name] for name in names]) * PIXEL / 2
    positions = rng.uniform(-0.8, 0.8, (count, 3)) * half
    # Two that reach over most of the tomogram.
    positions[:2] = np.array([[-0.92, 0.93, 0.9], [0.94, -0.95, -0.9]]) * half[:2]
    given = rng.uniform([-170, 5, -170], [170, 175, 170], (count, 3)) if angles is None else angles
    return Truth(names, positions, matrices(given))


def random_angles(count: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform([-170, 5, -170], [170, 175, 170], (count, 3))


def write_dynamo(folder: Path, count: int = 12, seed: int = 0, columns: int = 35, pixel_size: float = 0.0) -> Truth:
    """A .tbl and its .doc: pixels from 1, of which a part stands in the shifts."""
    folder.mkdir(parents=True, exist_ok=True)
    angles = random_angles(count, seed)
    made = truth(count, seed, angles, dynamo_matrices)
    table = np.zeros((count, columns))
    table[:, 0] = np.arange(1, count + 1)
    shift = np.random.default_rng(seed + 1).uniform(-2, 2, (count, 3))
    table[:, 3:6], table[:, 6:9] = shift, angles
    table[:, 19] = [{"TS_01": 3, "TS_02": 7}[name] for name in made.names]
    table[:, 23:26] = made.corner / VOXEL + 1 - shift
    if columns >= 36:
        table[:, 35] = pixel_size
    lines = [" ".join(f"{value:.6g}" for value in row) for row in table]
    (folder / "crop.tbl").write_text("\n".join(lines) + "\n")
    (folder / "crop.doc").write_text("3 tomograms/TS_01_rec.mrc\n7 tomograms/TS_02_rec.mrc\n")
    return made


def write_cbox(folder: Path, count: int = 12, seed: int = 0, filaments: bool = False) -> Truth:
    """A .cbox per tomogram: x and y of the corner of a box, z of its centre, in pixels from 0."""
    folder.mkdir(parents=True, exist_ok=True)
    made = truth(count, seed)
    for name in SIZES:
        rows = made.names == name
        pixels = made.corner[rows] / VOXEL
        table = pd.DataFrame({"CoordinateX": pixels[:, 0] - 9.5, "CoordinateY": pixels[:, 1] - 9.5})
        table = table.assign(CoordinateZ=pixels[:, 2], Width=19, Height=19, Depth=19, EstWidth=18, EstHeight=18)
        table["Confidence"] = 0.5
        table["NumBoxes"] = 4
        table["filamentid"] = np.arange(len(table)) // 3 if filaments else "<NA>"
        blocks = {"global": pd.DataFrame([{"cbox_format_version": 1.0}]), "cryolo": table}
        write_star(blocks | {"cryolo_include": pd.DataFrame({"slice_index": [1, 2]})}, folder / f"{name}_rec.cbox")
    return made


def write_coords(folder: Path, count: int = 12, seed: int = 0) -> Truth:
    """A text of x, y, z per tomogram, in pixels from 0."""
    folder.mkdir(parents=True, exist_ok=True)
    made = truth(count, seed)
    for name in SIZES:
        np.savetxt(folder / f"{name}.coords", made.corner[made.names == name] / VOXEL, fmt="%.5f")
    return made


def with_angles(table: pd.DataFrame, angles: np.ndarray, labels: tuple[str, str, str]) -> pd.DataFrame:
    return table.assign(**dict(zip(labels, angles.T, strict=True)))


RELION_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")


def write_m(path: Path, count: int = 12, seed: int = 0, poses: int = 2) -> Truth:
    """M's table: Angstrom from the corner, several poses over the exposure."""
    angles = random_angles(count, seed)
    made = truth(count, seed, angles)
    table = pd.DataFrame()
    for n in range(1, poses + 1):
        # Later poses are elsewhere: only the first is the particle's.
        table = table.assign(**{f"wrpCoordinate{axis}{n}": made.corner[:, i] + 30.0 * (n - 1)
                                for i, axis in enumerate("XYZ")})  # fmt: skip
        table = with_angles(table, angles + 5 * (n - 1), tuple(f"wrpAngle{one}{n}" for one in ("Rot", "Tilt", "Psi")))
    table["wrpRandomSubset"] = np.arange(count) % 2
    table["wrpSourceName"] = [f"{name}.tomostar" for name in made.names]
    table["wrpSourceHash"] = "1CA1F7"
    write_star({"": table}, path)
    return made


def write_pytom(path: Path, count: int = 12, seed: int = 0, relion5: bool = False) -> Truth:
    """pytom-match-pick: voxels of the searched tomogram, its voxel size beside them; or centred Angstrom."""
    angles = random_angles(count, seed)
    made = truth(count, seed, angles)
    values = made.positions if relion5 else made.corner / VOXEL
    labels = [f"rlnCenteredCoordinate{axis}Angst" if relion5 else f"rlnCoordinate{axis}" for axis in "XYZ"]
    table = with_angles(pd.DataFrame(dict(zip(labels, values.T, strict=True))), angles, RELION_ANGLES)
    table = table.assign(rlnLCCmax=0.3, rlnCutOff=0.1, rlnSearchStd=0.02)
    # In the form for RELION 5 the voxel size of the tomogram has the label of the tilt series.
    table["rlnTomoTiltSeriesPixelSize" if relion5 else "rlnDetectorPixelSize"] = VOXEL
    table["rlnTomoName" if relion5 else "rlnMicrographName"] = [f"rec_{name}" for name in made.names]
    write_star({"particles" if relion5 else "": table}, path)
    return made


def write_warp_matching(path: Path, count: int = 12, seed: int = 0) -> Truth:
    """Warp's template matching: shares of the tomogram's edges."""
    angles = random_angles(count, seed)
    made = truth(count, seed, angles)
    sizes = np.array([SIZES[name] for name in made.names]) * PIXEL
    table = pd.DataFrame({f"rlnCoordinate{axis}": (made.corner / sizes)[:, i] for i, axis in enumerate("XYZ")})
    table = with_angles(table, angles, RELION_ANGLES)
    table["rlnMicrographName"] = [f"{name}.tomostar" for name in made.names]
    table["rlnAutopickFigureOfMerit"] = 9.0
    write_star({"": table}, path)
    return made


def write_relion4(path: Path, count: int = 12, seed: int = 0) -> Truth:
    """RELION 4: pixels of the unbinned tomogram, whose pixel size the optics table has."""
    angles = random_angles(count, seed)
    made = truth(count, seed, angles)
    pixels = made.corner / PIXEL
    table = pd.DataFrame({"rlnTomoName": made.names, "rlnOpticsGroup": 1})
    table = table.assign(**{f"rlnCoordinate{axis}": pixels[:, i] for i, axis in enumerate("XYZ")})
    optics = pd.DataFrame([TOMOGRAMS.optics])
    write_star({"optics": optics, "particles": with_angles(table, angles, RELION_ANGLES)}, path)
    return made


def write_csv(path: Path, count: int = 12, seed: int = 0) -> Truth:
    angles = random_angles(count, seed)
    made = truth(count, seed, angles)
    table = pd.DataFrame(made.positions, columns=["x", "y", "z"]).assign(tomogram=made.names)
    with_angles(table, angles, ("rot", "tilt", "psi")).to_csv(path, index=False, float_format="%.6f")
    return made


def write_files(folder: Path, count: int = 12, seed: int = 0) -> Truth:
    """A table of particle files: a STAR file without names for one tomogram, a text for the other."""
    made = write_coords(folder, count, seed)
    pixels = made.corner[made.names == "TS_01"] / VOXEL
    star = pd.DataFrame({f"rlnCoordinate{axis}": pixels[:, i] for i, axis in enumerate("XYZ")})
    write_star({"": star}, folder / "one.star")
    table = {"rlnTomoName": ["TS_01", "TS_02"], "rlnTomoImportParticleFile": ["one.star", "TS_02.coords"]}
    write_star({"": pd.DataFrame(table)}, folder / "files.star")
    return made
