"""Where the particle is: thresholds for soft masks, spheres, and maps that hold nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from py2rely_core.maps.filters import cosine_low_pass
from py2rely_core.maps.io import Volume


@dataclass(frozen=True)
class MaskThreshold:
    """A binarisation threshold and what it came from, in the map's units."""

    threshold: float
    solvent_mean: float
    solvent_std: float
    particle_level: float


def radii(box: int) -> np.ndarray:
    """Distance of every voxel from the origin at ``box // 2``, voxels, (box, box, box)."""
    axis = (np.arange(box) - box // 2) ** 2
    return np.sqrt(axis[:, None, None] + axis[:, None] + axis)


def spherical_mask(box: int, radius: float, edge: float = 3) -> Volume:
    """A sphere with a raised-cosine edge.

    Parameters
    ----------
    box : int
        Voxels.
    radius, edge : float
        Radius where the edge begins and its width, voxels.

    Returns
    -------
    (box, box, box) float32
        1 inside, 0 outside.
    """
    position = np.clip((radii(box) - radius) / edge, 0, 1)
    return (0.5 + 0.5 * np.cos(np.pi * position)).astype(np.float32)


def density_threshold(data: Volume, pixel_size: float, diameter: float, low_pass: float) -> MaskThreshold:
    """The threshold for a mask from the particle's own, positive density.

    The solvent is what lies outside of the sphere with the particle's diameter. The threshold is three of its standard
    deviations above its mean, and at least 15 % of the way from its mean to the particle's level (the 95th percentile
    of what is above the solvent within the sphere), so that a noise-free map is not masked by its ripples.

    Parameters
    ----------
    data : (n, n, n) array
    pixel_size, diameter, low_pass : float
        Angstrom; the map is filtered as ``relion_mask_create --lowpass`` filters it.
    """
    filtered = cosine_low_pass(data, pixel_size, low_pass)
    inside = radii(data.shape[0]) <= diameter / 2 / pixel_size
    solvent = filtered[~inside]
    if solvent.size < 0.05 * filtered.size:
        solvent = np.sort(filtered, axis=None)[: filtered.size // 2]
    mean, std = float(solvent.mean()), float(solvent.std())
    particle = filtered[inside & (filtered > mean + std)]
    level = float(np.percentile(particle, 95)) if particle.size else float(filtered.max())
    # A solvent as strong as the particle must not leave the mask empty.
    threshold = mean + min(max(3 * std, 0.15 * (level - mean)), 0.5 * (level - mean))
    return MaskThreshold(threshold, mean, std, level)


def soft_mask(filtered: Volume, threshold: float, extend: float, edge: float) -> Volume:
    """The mask that ``relion_mask_create`` makes of a map (``autoMask`` in ``src/mask.cpp``).

    What lies at or above the threshold, extended by less than `extend` voxels, with a raised-cosine edge around it.

    Parameters
    ----------
    filtered : (n, n, n) array
        The map, low-passed as :func:`py2rely_core.maps.filters.cosine_low_pass` does.
    threshold : float
        In the map's units.
    extend, edge : float
        Voxels: ``--extend_inimask`` and ``--width_soft_edge``.

    Returns
    -------
    (n, n, n) float32
        From 0 to 1; all 0 where nothing reaches the threshold.
    """
    from scipy import ndimage  # which takes longer to import than most steps' other work with masks

    inside = filtered >= threshold
    result = np.zeros(filtered.shape, np.float32)
    if not inside.any():
        return result
    # Nothing further than this from the density belongs to the mask.
    margin = int(np.ceil(extend) + np.ceil(edge)) + 1
    around = ndimage.find_objects(inside.view(np.int8))[0]
    box = tuple(slice(max(0, one.start - margin), one.stop + margin) for one in around)
    part = inside[box]
    if extend > 0:
        part = ndimage.distance_transform_edt(~part) < extend
    if edge > 0:
        distance = np.minimum(ndimage.distance_transform_edt(~part) / edge, 1)
        result[box] = 0.5 + 0.5 * np.cos(np.pi * distance)
    else:
        result[box] = part
    return result


def is_degenerate(data: Volume) -> str | None:
    """Why a map holds nothing, or None when it holds something."""
    if not np.isfinite(data).all():
        return f"{int((~np.isfinite(data)).sum())} voxels are not finite numbers"
    if np.ptp(data) == 0:
        return f"every voxel is {float(data.flat[0]):g}"
    return None
