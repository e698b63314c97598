"""Maps turned and shifted onto each other, by their correlation."""

from __future__ import annotations

import numpy as np
from scipy import ndimage, optimize
from scipy.spatial.transform import Rotation

from py2rely_core.maps.filters import gaussian_low_pass
from py2rely_core.maps.io import Map, Volume
from py2rely_core.maps.masks import spherical_mask
from py2rely_core.maps.resample import resample

#: Box in which maps are aligned, voxels.
ALIGNMENT_BOX = 32
#: Units of a search nearby, in which rotation and shift change a map alike: radian; voxels of that box.
UNITS = np.array([0.06, 0.06, 0.06, 0.5, 0.5, 0.5])


def reduced(volume: Map, pixel_size: float, low_pass: float) -> Volume:
    """A map in the box in which maps are aligned, filtered, within a soft sphere."""
    data = resample(volume.data, volume.pixel_size, pixel_size, ALIGNMENT_BOX)
    return gaussian_low_pass(data, pixel_size, low_pass) * spherical_mask(ALIGNMENT_BOX, ALIGNMENT_BOX / 3)


def moved(data: Volume, pose: np.ndarray, order: int = 1, prefilter: bool = True) -> Volume:
    """Rotate (vector, radian, in z, y, x order) about the origin and shift (voxels).

    Parameters
    ----------
    data : (n, n, n) array
        The map, or with ``prefilter=False`` its spline's coefficients.
    pose : (6,) float
        Rotation and shift.
    order : int
        Of the spline.
    """
    matrix = Rotation.from_rotvec(pose[:3]).as_matrix()
    centre = np.array(data.shape) // 2
    offset = centre - matrix @ (centre + pose[3:])
    return ndimage.affine_transform(data, matrix, offset, order=order, prefilter=prefilter)


def disagreement(pose: np.ndarray, moving: Volume, fixed: Volume, order: int = 1) -> float:
    """Minus the correlation of a map that is moved with another one."""
    return -float(np.corrcoef(moved(moving, pose, order).ravel(), fixed.ravel())[0, 1])


def scaled_pose(pose: np.ndarray, factor: float) -> np.ndarray:
    """The same pose on a grid whose voxels are smaller by a factor."""
    return np.r_[pose[:3], pose[3:] * factor]


def align_nearby(moving: Map, fixed: Map, diameter: float, low_pass: float) -> Map:
    """Turn and shift a map by the little that a refinement may have moved another one from it.

    Parameters
    ----------
    moving, fixed : Map
        Cubic, on any grids.
    diameter, low_pass : float
        Of the particle, and of both maps for the comparison, Angstrom.

    Returns
    -------
    Map
        The moved map on its own grid.
    """
    pixel_size = 1.5 * diameter / ALIGNMENT_BOX
    one, other = (reduced(volume, pixel_size, max(low_pass, 2 * pixel_size)) for volume in (moving, fixed))
    coefficients = ndimage.spline_filter(one, 3)

    def differs(units: np.ndarray) -> float:
        turned = moved(coefficients, units * UNITS, order=3, prefilter=False)
        return -float(np.corrcoef(turned.ravel(), other.ravel())[0, 1])

    options = {"maxiter": 12, "maxfun": 100, "eps": 1e-3, "ftol": 1e-6}
    pose = optimize.minimize(differs, np.zeros(6), method="L-BFGS-B", options=options).x * UNITS
    scaled = scaled_pose(pose, pixel_size / moving.pixel_size)
    return Map(moved(moving.data, scaled, order=3), moving.pixel_size)
