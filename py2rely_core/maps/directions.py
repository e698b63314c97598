"""Directions of Fourier space: how far half maps agree along each, and how densely views sample them.

A direction and its opposite are the same here, so that a hemisphere stands for the sphere. Directions are unit vectors
x, y, z in the map's frame.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import fft, ndimage

from py2rely_core.maps.fsc import crossing_shells
from py2rely_core.maps.io import Volume

#: Half-angle of the cones, degrees: that of 3DFSC (Tan et al. 2017, doi:10.1038/nmeth.4347).
CONE = 20.0
#: Directions that are looked at: cells of equal area, of which a sphere has twice as many rows.
ROWS, COLUMNS = 9, 36
#: Rings of the fine cells into which components and views are sorted: 2.25 degrees wide.
RINGS = 40
#: Weights of a shell and its neighbours.
WINDOW = np.array([1.0, 2.0, 3.0, 2.0, 1.0])
#: Planes of a transform that are sorted at once.
PLANES = 16


def directions() -> np.ndarray:
    """Centres of the cells, (ROWS * COLUMNS, 3), from the pole down, along each row from rot -180 to 180 degrees."""
    height = 1 - (np.arange(ROWS) + 0.5) / ROWS
    around = np.radians(-180 + (np.arange(COLUMNS) + 0.5) * 360 / COLUMNS)
    z, rot = (grid.ravel() for grid in np.meshgrid(height, around, indexing="ij"))
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(rot), radius * np.sin(rot), z], axis=1)


def conical_fsc(first: Volume, second: Volume, mask: Volume, axes: np.ndarray, cone: float = CONE) -> np.ndarray:
    """FSC of two maps within a double cone around each of several axes.

    Parameters
    ----------
    first, second, mask : (n, n, n) array
        The mask multiplies both maps.
    axes : (n_axes, 3) float
        Unit vectors.
    cone : float
        Half-angle, degrees.

    Returns
    -------
    (n_axes, n // 2 + 1) float
        Shells as those of :func:`py2rely_core.maps.fsc.fsc`. As a cone holds few components, each shell is a mean with
        its neighbours, by :data:`WINDOW` and by the number of components.
    """
    sums = _cell_sums(first * mask, second * mask)
    within = (np.abs(axes @ _cells().T) >= np.cos(np.radians(cone))).astype(float)
    cross, power_1, power_2, count = np.einsum("ac,qcs->qas", within, sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        curves = cross / np.sqrt(power_1 * power_2)
    known = np.where(count > 0, curves, 0.0)
    weighted, weight = (_with_neighbours(values) for values in (known * count, count))
    smooth = weighted / np.maximum(weight, 1e-12)
    # No component at all: so near to the origin that half maps agree.
    return np.where(weight > 0, smooth, 1.0)


def _with_neighbours(values: np.ndarray) -> np.ndarray:
    return ndimage.convolve1d(values, WINDOW, axis=1, mode="constant")


def area_ratio(curves: np.ndarray) -> float:
    """The conical FSC area ratio, cFAR: the smallest area under one of the curves over the largest.

    As CryoSPARC defines it (v4.4, guide.cryosparc.com, Orientation Diagnostics); here areas end where a curve first
    falls below 0.143, so that they hold no noise.

    Parameters
    ----------
    curves : (n_axes, n_shells) float
        As :func:`conical_fsc` gives them.

    Returns
    -------
    float
        0 to 1; 1 where all directions are alike.
    """
    shells = np.arange(1, curves.shape[1])
    held = shells <= crossing_shells(curves)[:, None]
    areas = (np.clip(curves[:, 1:], 0, None) * held).sum(axis=1)
    return float(areas.min() / areas.max()) if areas.max() > 0 else 0.0


def _cell_sums(first: Volume, second: Volume) -> np.ndarray:
    """Of each fine cell and shell: products, both powers, and components, (4, n_cells, n // 2 + 1)."""
    n = first.shape[0]
    shells, cells = n // 2 + 1, len(_cells())
    a, b = (fft.rfftn(volume.astype(np.float32)) for volume in (first, second))
    full, half = fft.fftfreq(n, 1 / n), fft.rfftfreq(n, 1 / n)
    # Components with positive x frequency stand for their conjugates, too.
    multiplicity = np.where(half == 0, 1.0, 2.0)
    sums = np.zeros((4, cells * shells))
    for start in range(0, n, PLANES):
        planes = slice(start, min(start + PLANES, n))
        z, y, x = np.broadcast_arrays(*np.meshgrid(full[planes], full, half, indexing="ij", sparse=True))
        radius = np.sqrt(x**2 + y**2 + z**2)
        shell = np.rint(radius).astype(int)
        keep = (shell < shells) & (shell > 0)
        vectors = np.stack([axis[keep] for axis in (x, y, z)], axis=1) / radius[keep][:, None]
        place = _cell_of(vectors) * shells + shell[keep]
        weight = np.broadcast_to(multiplicity, shell.shape)[keep]
        one, other = a[planes][keep], b[planes][keep]
        for total, values in zip(sums, ((one * other.conj()).real, abs(one) ** 2, abs(other) ** 2, 1.0), strict=True):
            total += np.bincount(place, weights=values * weight, minlength=total.size)
    return sums.reshape(4, cells, shells)


@cache
def _columns() -> np.ndarray:
    """Cells of each ring, about as wide as high."""
    middle = (np.arange(RINGS) + 0.5) * np.pi / 2 / RINGS
    return np.maximum(1, np.rint(4 * RINGS * np.sin(middle))).astype(int)


@cache
def _cells() -> np.ndarray:
    """Centres of the fine cells of the hemisphere, (n_cells, 3)."""
    columns = _columns()
    tilt = np.repeat((np.arange(RINGS) + 0.5) * np.pi / 2 / RINGS, columns)
    rot = np.concatenate([(np.arange(count) + 0.5) * 2 * np.pi / count for count in columns])
    return np.stack([np.sin(tilt) * np.cos(rot), np.sin(tilt) * np.sin(rot), np.cos(tilt)], axis=1)


def _cell_of(vectors: np.ndarray) -> np.ndarray:
    """Numbers of the cells that unit vectors (n, 3), or their opposites, lie in."""
    columns = _columns()
    upper = np.where(vectors[:, 2:] < 0, -vectors, vectors)
    tilt = np.arccos(np.clip(upper[:, 2], -1, 1))
    ring = np.minimum((tilt / (np.pi / 2) * RINGS).astype(int), RINGS - 1)
    turn = np.arctan2(upper[:, 1], upper[:, 0]) / (2 * np.pi) % 1.0
    column = np.minimum((turn * columns[ring]).astype(int), columns[ring] - 1)
    return np.concatenate([[0], np.cumsum(columns)[:-1]])[ring] + column


def view_counts(views: np.ndarray) -> np.ndarray:
    """How many of the viewing directions (n, 3) lie in each fine cell, (n_cells,) int."""
    return np.bincount(_cell_of(views), minlength=len(_cells()))


def sampling(counts: np.ndarray, axes: np.ndarray, band: float = CONE / 4) -> np.ndarray:
    """How densely views sample directions, relative to as many views from everywhere.

    A view samples the central plane across it: a direction is sampled by the views that are perpendicular to it
    (Baldwin & Lyumkis 2020, doi:10.1016/j.pbiomolbio.2019.09.002).

    Parameters
    ----------
    counts : (n_cells,) array
        As :func:`view_counts` gives them.
    axes : (n_axes, 3) float
        Unit vectors.
    band : float
        How far from perpendicular a view may be, degrees.

    Returns
    -------
    (n_axes,) float
        1 for even sampling, 0 where nothing is known of a direction.
    """
    across = np.abs(axes @ _cells().T) <= np.sin(np.radians(band))
    area = np.repeat(_ring_areas() / _columns(), _columns())
    return across @ counts / counts.sum() / (across @ area)


def compensation(densities: np.ndarray) -> float:
    """The sampling compensation factor, SCF, of Baldwin & Lyumkis (2020): the harmonic mean of the sampling.

    Parameters
    ----------
    densities : (n_axes,) float
        As :func:`sampling` gives them, of directions in cells of equal area.

    Returns
    -------
    float
        1 for even sampling; 0 where a direction is not sampled at all.
    """
    return float(1 / np.mean(1 / densities)) if (densities > 0).all() else 0.0


def whole_sphere(values: np.ndarray) -> np.ndarray:
    """Values of :func:`directions`, (ROWS * COLUMNS,), on both hemispheres: (2 * ROWS, COLUMNS)."""
    upper = values.reshape(ROWS, COLUMNS)
    return np.concatenate([upper, np.roll(upper[::-1], COLUMNS // 2, axis=1)])


def _ring_areas() -> np.ndarray:
    """Area of each ring as a share of the hemisphere."""
    edges = np.cos(np.arange(RINGS + 1) * np.pi / 2 / RINGS)
    return edges[:-1] - edges[1:]
