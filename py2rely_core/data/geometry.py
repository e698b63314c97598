"""Conventions of angles and positions, the only place where they are written down.

* RELION's Euler matrix ``A(rot, tilt, psi) = (Rz(rot) Ry(tilt) Rz(psi))^T`` takes a vector of the reference to the
  tomogram.
* Positions are Angstrom from the tomogram's centre: ``rlnCenteredCoordinate - A_sub * rlnOrigin``.
* A tilt image sees a position at ``Rz(rlnTomoZRot) Ry(rlnTomoYTilt) Rx(rlnTomoXTilt) r + shift`` from its centre.
* A tomogram's centre is half its size: a voxel (counted from 0) is at ``(voxel - size / 2) * voxel size`` from it.
* An AreTomo ``.aln`` row has RELION's own values: ``ROT``, ``TILT``, and ``TX``, ``TY`` in pixels of the images.
* An IMOD ``.xf`` row ``A d`` takes an image to the aligned one, about the centres: its inverse is RELION's
  ``Rz(rlnTomoZRot)``, and the shift is ``-A^-1 d``, as in RELION's own import.
* A copick point's transformation is RELION's orientation, and its position the location plus the transformation's
  translation, Angstrom from the tomogram's first corner.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

AXES = ("X", "Y", "Z")
#: Labels of RELION's particle tables: orientation, and the priors on it; place in Angstrom from the tomogram's centre,
#: the same in pixels from a corner (RELION 4), and the shift from that place that a refinement found.
ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
PRIORS = {"rlnAngleTilt": "rlnAngleTiltPrior", "rlnAnglePsi": "rlnAnglePsiPrior"}
CENTRED = [f"rlnCenteredCoordinate{axis}Angst" for axis in AXES]
PIXEL = [f"rlnCoordinate{axis}" for axis in AXES]
ORIGINS = [f"rlnOrigin{axis}Angst" for axis in AXES]
#: Of a tilt series' row: its tomogram, in unbinned pixels.
SIZES = [f"rlnTomoSize{axis}" for axis in AXES]


def euler_to_matrix(angles: np.ndarray) -> np.ndarray:
    """Matrices that take reference vectors to the tomogram.

    Parameters
    ----------
    angles : (n, 3) float
        Rot, tilt, psi in degrees.

    Returns
    -------
    (n, 3, 3) float
        RELION's Euler matrices.
    """
    return Rotation.from_euler("ZYZ", angles, degrees=True).inv().as_matrix()


def matrix_to_euler(matrices: np.ndarray) -> np.ndarray:
    """Rot, tilt, psi in degrees, (n, 3), of matrices (n, 3, 3) as :func:`euler_to_matrix` makes them."""
    with warnings.catch_warnings():
        # Without a tilt, rot and psi turn about one axis: psi is 0 then, and the matrix is the same.
        warnings.filterwarnings("ignore", message="Gimbal lock")
        return Rotation.from_matrix(matrices).inv().as_euler("ZYZ", degrees=True)


def _columns(table: pd.DataFrame, labels: list[str]) -> np.ndarray:
    if not set(labels) <= set(table.columns):
        return np.zeros((len(table), 3))
    return table[labels].to_numpy(dtype=float)


def subtomogram_matrices(particles: pd.DataFrame) -> np.ndarray:
    """Orientation of every subtomogram's own frame, (n, 3, 3); identity where there is none."""
    return euler_to_matrix(_columns(particles, [f"rlnTomoSubtomogram{name}" for name in ("Rot", "Tilt", "Psi")]))


def true_positions(particles: pd.DataFrame) -> np.ndarray:
    """Positions of particles with their refined shifts applied, (n, 3) Angstrom from the tomogram's centre."""
    centred = _columns(particles, CENTRED)
    origin = _columns(particles, ORIGINS)
    return centred - np.einsum("nij,nj->ni", subtomogram_matrices(particles), origin)


def orientations(particles: pd.DataFrame) -> np.ndarray:
    """Orientations of particles, (n, 3, 3): the subtomogram's times the particle's own."""
    own = euler_to_matrix(_columns(particles, ANGLES))
    return subtomogram_matrices(particles) @ own


def tilt_matrices(tilts: pd.DataFrame) -> np.ndarray:
    """Rotation from the tomogram to each tilt image's camera frame, (n_tilts, 3, 3)."""
    angles = tilts[["rlnTomoZRot", "rlnTomoYTilt", "rlnTomoXTilt"]].to_numpy(dtype=float)
    return Rotation.from_euler("ZYX", angles, degrees=True).as_matrix()


def projected(tilts: pd.DataFrame, positions: np.ndarray) -> np.ndarray:
    """Where tilt images see positions, (n_tilts, n, 2) Angstrom from the images' centres.

    Parameters
    ----------
    tilts : DataFrame
        Rows of a tilt-series STAR file.
    positions : (n, 3) float
        Angstrom from the tomogram's centre.
    """
    shifts = tilts[["rlnTomoXShiftAngst", "rlnTomoYShiftAngst"]].to_numpy(dtype=float)
    return np.einsum("tij,nj->tni", tilt_matrices(tilts)[:, :2], positions) + shifts[:, None]


def from_imod_transforms(transforms: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tilt axis and shift of images from the rows of an IMOD ``.xf`` file.

    Parameters
    ----------
    transforms : (n, 6) float
        ``A11 A12 A21 A22 DX DY``, the shift in pixels.

    Returns
    -------
    rotation : (n,) float
        ``rlnTomoZRot``, degrees.
    shift : (n, 2) float
        x and y, pixels.
    scale : (n, 2) float
        Singular values of the linear part: 1 where it is a pure rotation.
    """
    linear, moved = transforms[:, :4].reshape(-1, 2, 2), transforms[:, 4:]
    left, scale, right = np.linalg.svd(linear)
    turned = left @ right
    shift = -np.linalg.solve(linear, moved[..., None])[..., 0]
    return np.degrees(np.arctan2(turned[:, 0, 1], turned[:, 0, 0])), shift, scale


def from_projection_matrices(
    matrices: np.ndarray, tomogram_size: np.ndarray, image_size: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Angles and shifts of the projection matrices that RELION 4 and Warp write.

    Parameters
    ----------
    matrices : (n, 4, 4) float
        From voxels of the unbinned tomogram to pixels of the images, both counted from a corner.
    tomogram_size : (3,) int
        x, y, z in unbinned voxels.
    image_size : (2,) int
        x, y in pixels.

    Returns
    -------
    angles : (n, 3) float
        ``rlnTomoXTilt``, ``rlnTomoYTilt``, ``rlnTomoZRot``, degrees.
    shift : (n, 2) float
        x and y, pixels.
    """
    turned = matrices[:, :3, :3]
    centre = turned @ (np.asarray(tomogram_size) / 2) + matrices[:, :3, 3]
    angles = Rotation.from_matrix(turned).as_euler("ZYX", degrees=True)[:, ::-1]
    return angles, centre[:, :2] - np.asarray(image_size) // 2


def centred_from_pixels(pixels: np.ndarray, sizes: np.ndarray, pixel_size: float) -> np.ndarray:
    """Angstrom from the centre, (n, 3), of voxels counted from a corner of tomograms of (n, 3) voxels."""
    return (pixels - np.asarray(sizes) / 2) * pixel_size


def pixels_from_centred(centred: np.ndarray, sizes: np.ndarray, pixel_size: float) -> np.ndarray:
    """Voxels counted from a corner, (n, 3), of positions in Angstrom from the centre: the inverse of the above."""
    return centred / pixel_size + np.asarray(sizes) / 2
