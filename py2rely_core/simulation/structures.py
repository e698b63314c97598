"""Structures to simulate: sums of Gaussians, whose transforms are exact at any frequency.

A structure is invented (a random chain, repeated by the point group), or real: apoferritin (PDB 4V1W, every atom but
hydrogen), the 70S ribosome (PDB 4V5D, a point per residue), a map, or a table of points.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib.resources import files
from math import pi
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from py2rely_core.data.symmetry import rotations_of
from py2rely_core.maps.io import read_map
from py2rely_core.problems import Problem, ProblemError

BLOB_SIGMA = 1.5
#: Of one atom with the displacement that a B-factor of 50 A^2 stands for, and of a residue; Angstrom.
ATOM_SIGMA, RESIDUE_SIGMA = 0.9, 2.2
#: What an atom scatters at low resolution, Angstrom: electron scattering factors at 0 (International Tables C, 4.3.1).
SCATTERING = {"H": 0.529, "C": 2.509, "N": 2.211, "O": 1.983, "P": 5.488, "S": 5.160}
#: Precision of the transforms.
PRECISION = 1e-9
#: Of a gold bead, Angstrom.
BEAD_SIGMA = 25.0
INVENTED = "invented"
#: Second conformations of the ribosome: parts that are missing.
MISSING = {"50S": ("30S", "tRNA"), "no tRNA": ("tRNA",)}
#: And one in which the small subunit has turned about the axis between the subunits, degrees.
ROTATED, RATCHET = "rotated 30S", 8.0
#: Of a map, voxels below this share of its largest value are none of the structure.
EMPTY = 0.05


@dataclass(frozen=True)
class Known:
    """A structure of this package: its entry in the PDB, its point group, and its diameter in Angstrom."""

    entry: str
    symmetry: str
    diameter: float


KNOWN = {"apoferritin": Known("4V1W", "O", 130.0), "ribosome": Known("4V5D", "C1", 290.0)}


@dataclass(frozen=True)
class Structure:
    """A sum of isotropic Gaussians of one width: centres (n, 3), x, y, z in Angstrom, and weights (n,)."""

    centres: np.ndarray
    weights: np.ndarray
    sigma: float = BLOB_SIGMA


def make_structure(diameter: float, symmetry: str, seed: int, moved: bool = False) -> Structure:
    """A random chain of Gaussians within a sphere, repeated by the point group.

    Parameters
    ----------
    diameter : float
        Angstrom.
    symmetry : str
        Point group.
    seed : int
        Of the chain.
    moved : bool
        The second conformation: the chain's last third is displaced.
    """
    rng = np.random.default_rng(seed + 1000)
    rotations = rotations_of(symmetry)
    radius = diameter / 2 - 2 * BLOB_SIGMA
    count = max(12, round(400 / len(rotations)))
    points = [rng.normal(size=3)]
    points[0] *= 0.6 * radius / np.linalg.norm(points[0])
    while len(points) < count:
        step = rng.normal(size=3)
        candidate = points[-1] + 7.0 * step / np.linalg.norm(step)
        if 0.15 * radius < np.linalg.norm(candidate) < radius:
            points.append(candidate)
    chain = np.array(points)
    if moved:
        third = len(chain) // 3
        chain[-third:] += 0.25 * radius * np.array([0.6, -0.6, 0.53])
        norms = np.linalg.norm(chain, axis=1, keepdims=True)
        chain *= np.minimum(1.0, radius / norms)
    centres = np.concatenate([rotation.apply(chain) for rotation in rotations])
    weights = np.tile(rng.uniform(0.6, 1.4, len(chain)), len(rotations))
    return Structure(centres, weights)


def make_junk(kind: str, diameter: float, seed: int) -> Structure | None:
    """What lies at a false pick; None for nothing. Its contrast is about that of a particle, a bead's much more.

    Parameters
    ----------
    kind : {"nothing", "blobs", "beads", "membranes", "other"}
    diameter : float
        Of the particles, Angstrom.
    seed : int
        Of blobs and of the other structure.

    Raises
    ------
    ValueError
        There is no such kind.
    """
    rng = np.random.default_rng([seed, 2000])
    if kind == "nothing":
        return None
    if kind == "other":
        return make_structure(diameter, "C1", seed + 5000)
    if kind == "beads":
        return Structure(np.zeros((1, 3)), np.array([2000.0]), BEAD_SIGMA)
    if kind == "blobs":
        return Structure(rng.normal(0, diameter / 5, (6, 3)), rng.uniform(40, 90, 6), diameter / 8)
    if kind == "membranes":
        extent = 0.75 * diameter
        x, y = (axis.ravel() for axis in np.mgrid[-extent : extent + 1 : 12.0, -extent : extent + 1 : 12.0])
        leaflets = [np.stack([x, y, np.full(x.shape, z)], axis=1) for z in (-18.0, 18.0)]
        return Structure(np.concatenate(leaflets), np.full(2 * x.size, 1.4), 6.0)
    raise ValueError(f"there is no junk called {kind}")


def apoferritin() -> Structure:
    """Every atom but hydrogen of the 24-mer, PDB 4V1W."""
    atoms = _own("apoferritin")
    weights = atoms["element"].map(SCATTERING).to_numpy(dtype=float)
    rotations = rotations_of("O")
    centres = np.concatenate([rotation.apply(atoms[["x", "y", "z"]].to_numpy()) for rotation in rotations])
    return Structure(centres, np.tile(weights, len(rotations)), ATOM_SIGMA)


def ribosome(without: Collection[str] = ()) -> Structure:
    """The 70S ribosome, PDB 4V5D, a point per residue, weighted by its electrons.

    Parameters
    ----------
    without : collection of str
        Parts that are missing, of ``30S``, ``50S`` and ``tRNA``; what is left stays in its place.
    """
    points = _own("ribosome")
    kept = points[~points["part"].isin(without)]
    return Structure(kept[["x", "y", "z"]].to_numpy(dtype=float), kept["weight"].to_numpy(dtype=float), RESIDUE_SIGMA)


def second_of(name: str, second: str) -> Structure:
    """Another conformation of a known structure.

    Parameters
    ----------
    name : str
        Only ``ribosome`` has any.
    second : str
        ``50S`` (without the small subunit and tRNA), ``no tRNA``, or ``rotated 30S``.

    Raises
    ------
    ProblemError
        The structure has no such conformation.
    """
    if name == "ribosome" and second in MISSING:
        return ribosome(MISSING[second])
    if name == "ribosome" and second == ROTATED:
        return _rotated(_own(name))
    expected = ", ".join([*MISSING, ROTATED])
    problem = Problem(
        f"There is no second conformation '{second}' of {name}.", "--second", f"of the ribosome: {expected}", ""
    )
    raise ProblemError(problem)


def _rotated(points: pd.DataFrame) -> Structure:
    centres = points[["x", "y", "z"]].to_numpy(dtype=float)
    small, large = (points["part"].to_numpy() == part for part in ("30S", "50S"))
    middle = centres[small].mean(axis=0)
    axis = middle - centres[large].mean(axis=0)
    turn = Rotation.from_rotvec(RATCHET * axis / np.linalg.norm(axis), degrees=True)
    centres[small] = turn.apply(centres[small] - middle) + middle
    return Structure(centres, points["weight"].to_numpy(dtype=float), RESIDUE_SIGMA)


def _own(name: str) -> pd.DataFrame:
    with files("py2rely_core.simulation").joinpath(f"{name}.csv.gz").open("rb") as file:
        return pd.read_csv(file, compression="gzip", comment="#")


def structure_of(name: str, pixel_size: float) -> Structure:
    """A real structure by its name, or from a file.

    Parameters
    ----------
    name : str
        ``apoferritin``, ``ribosome``, a map (``.mrc``), or a table of points with columns ``x``, ``y``, ``z``
        (Angstrom from the particle's centre), and ``weight`` or ``element`` (``.csv``, ``.csv.gz``).
    pixel_size : float
        Of the images, Angstrom: a map must not be coarser.

    Raises
    ------
    ProblemError
        There is no such structure, or its file does not fit.
    """
    if name in KNOWN:
        return {"apoferritin": apoferritin, "ribosome": ribosome}[name]()
    path = Path(name)
    if not path.is_file():
        wanted = f"{', '.join(KNOWN)}, or a file (.mrc, .csv)"
        raise ProblemError(Problem("There is no such structure.", name, wanted, "Correct --structure."))
    return _from_map(path, pixel_size) if path.suffix in (".mrc", ".map") else _from_table(path)


def _from_map(path: Path, pixel_size: float) -> Structure:
    density = read_map(path)
    if density.pixel_size > 1.01 * pixel_size:
        what = f"The map has {density.pixel_size:g} A per voxel."
        fix = "Resample it with 'py2rely prepare template', or simulate with larger pixels."
        raise ProblemError(Problem(what, str(path), f"at most {pixel_size:g} A, a pixel of the images", fix))
    inside = density.data > EMPTY * density.data.max()
    middle = np.array(density.data.shape) // 2
    centres = (np.argwhere(inside) - middle)[:, ::-1] * density.pixel_size
    return Structure(centres, density.data[inside].astype(float), density.pixel_size / 2)


def _from_table(path: Path) -> Structure:
    expected = "columns x, y, z and weight, or element"
    try:
        table = pd.read_csv(path, comment="#")
        centres = table[["x", "y", "z"]].to_numpy(dtype=float)
        weights = (table["weight"] if "weight" in table else table["element"].map(SCATTERING)).to_numpy(dtype=float)
    except (ValueError, KeyError, UnicodeDecodeError) as error:
        raise ProblemError(
            Problem(f"The table cannot be used: {error}.", str(path), expected, "Correct it.")
        ) from error
    if not len(table) or not np.isfinite(centres).all() or not np.isfinite(weights).all():
        what = "The table has no points, or values that are no numbers, or unknown elements."
        raise ProblemError(Problem(what, str(path), expected, "Correct it."))
    return Structure(centres, weights, ATOM_SIGMA if "element" in table else RESIDUE_SIGMA)


def transform(points: np.ndarray, weights: np.ndarray, size: int, oversampling: float = 0.0) -> np.ndarray:
    """The discrete transform of points of a grid's units, as ``numpy.fft.rfftn`` orders it.

    Parameters
    ----------
    points : (n, d) float
        Positions in pixels, slowest axis first, two or three axes.
    weights : (n,) float
        Of each point.
    size : int
        Pixels along each axis.
    oversampling : float
        Of the grid within, as finufft takes it (0: its own choice); what is computed is as precise with each.

    Returns
    -------
    (size, ..., size // 2 + 1) complex
        Sum of ``weight * exp(-2 pi i k x / size)``: a non-uniform transform (Barnett, Magland & af Klinteberg 2019,
        doi:10.1137/18M120885X), nothing is interpolated.
    """
    import finufft

    nufft = {2: finufft.nufft2d1, 3: finufft.nufft3d1}[points.shape[1]]
    angles = [np.ascontiguousarray(axis) for axis in (2 * pi / size * points).T]
    modes = (size,) * points.shape[1]
    options = {"eps": PRECISION, "isign": -1, "modeord": 1, "nthreads": 1, "upsampfac": oversampling}
    whole = nufft(*angles, weights.astype(complex), modes, **options)
    return whole[..., : size // 2 + 1]


def density(structure: Structure, box: int, pixel_size: float) -> np.ndarray:
    """The structure on a grid, band-limited and not aliased, (box, box, box) in z, y, x."""
    full, half = np.fft.fftfreq(box, pixel_size), np.fft.rfftfreq(box, pixel_size)
    squared = full[:, None, None] ** 2 + full[:, None] ** 2 + half**2
    points = structure.centres[:, ::-1] / pixel_size + box // 2
    spectrum = transform(points, structure.weights, box) * np.exp(-2 * (pi * structure.sigma) ** 2 * squared)
    return np.fft.irfftn(spectrum, s=(box,) * 3, axes=(0, 1, 2)).astype(np.float32)
