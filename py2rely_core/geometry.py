"""Conventions of angles and positions, the only place where they are written down.

* RELION's Euler matrix ``A(rot, tilt, psi) = (Rz(rot) Ry(tilt) Rz(psi))^T`` takes a vector of the reference to the
  tomogram.
* Positions are Angstrom from the tomogram's centre: ``rlnCenteredCoordinate - A_sub * rlnOrigin``.
* A tilt image sees a position at ``Rz(rlnTomoZRot) Ry(rlnTomoYTilt) Rx(rlnTomoXTilt) r + shift`` from its centre.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

AXES = ("X", "Y", "Z")
ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")


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
    centred = _columns(particles, [f"rlnCenteredCoordinate{axis}Angst" for axis in AXES])
    origin = _columns(particles, [f"rlnOrigin{axis}Angst" for axis in AXES])
    return centred - np.einsum("nij,nj->ni", subtomogram_matrices(particles), origin)


def orientations(particles: pd.DataFrame) -> np.ndarray:
    """Orientations of particles, (n, 3, 3): the subtomogram's times the particle's own."""
    own = euler_to_matrix(_columns(particles, list(ANGLES)))
    return subtomogram_matrices(particles) @ own


def tilt_matrices(tilts: pd.DataFrame) -> np.ndarray:
    """Rotation from the tomogram to each tilt image's camera frame, (n_tilts, 3, 3)."""
    angles = tilts[["rlnTomoZRot", "rlnTomoYTilt", "rlnTomoXTilt"]].to_numpy(dtype=float)
    return Rotation.from_euler("ZYX", angles, degrees=True).as_matrix()
