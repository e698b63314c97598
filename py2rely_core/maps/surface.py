"""A map's surface as one sees it: a picture for where a page with a 3D view does not go."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from py2rely_core.maps.io import Map

#: From where one looks: a little from above and from the side, so that no symmetry axis points at the eye. Degrees.
VIEW = (-62.0, 0.0, 27.0)
#: Where the light comes from (right, up, towards the eye), and what every part of the surface has without it.
LIGHT, AMBIENT = np.array([-0.45, 0.6, 0.66]), 0.25
#: Share of the light that the deepest point of the surface gets.
DEPTH = 0.55
MARGIN = 1.08


def surface_view(volume: Map, level: float, edge: int) -> np.ndarray:
    """Brightness of the surface at a level, on white; parallel projection, Lambert's shading, darker with depth.

    Parameters
    ----------
    volume : Map
        Cubic.
    level : float
        Density of the surface.
    edge : int
        Of the picture, pixels.

    Returns
    -------
    (edge, edge) uint8
        First row on top; white where there is no surface.
    """
    count, centre = edge // 2, volume.data.shape[0] // 2
    inside = np.argwhere(volume.data > level) - centre
    if not len(inside):
        return np.full((edge, edge), 255, dtype=np.uint8)
    radius = MARGIN * max(1.0, float(np.linalg.norm(inside, axis=1).max()))
    values = _turned(volume.data, radius, count)
    solid = values > level
    hit, first = solid.any(axis=0), solid.argmax(axis=0)
    rows, columns = np.indices(hit.shape)
    before = values[np.maximum(first - 1, 0), rows, columns]
    at = values[first, rows, columns]
    part = np.clip((at - level) / np.maximum(at - before, 1e-12), 0, 1)
    depth = ndimage.gaussian_filter(np.where(hit, first - part, 0.0), 0.5)
    slopes = [axis[first, rows, columns] for axis in np.gradient(ndimage.gaussian_filter(values, 1.0))]
    # Density falls off outwards: the normal is against its gradient. Depth grows away from the eye, rows downwards.
    normals = np.stack([-slopes[2], slopes[1], slopes[0]], axis=-1)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    light = AMBIENT + (1 - AMBIENT) * np.clip(normals @ (LIGHT / np.linalg.norm(LIGHT)), 0, None)
    nearest, farthest = (float(np.percentile(depth[hit], share)) for share in (1, 99))
    away = np.clip((depth - nearest) / max(farthest - nearest, 1.0), 0, 1)
    shaded = np.where(hit, 235 * light * (1 - (1 - DEPTH) * away), 255.0)
    larger = ndimage.zoom(shaded, edge / count, order=1, mode="nearest", grid_mode=True)
    return np.clip(larger, 0, 255).round().astype(np.uint8)


def _turned(data: np.ndarray, radius: float, count: int) -> np.ndarray:
    """The map along the lines of sight, (depth, row, column), from the eye away."""
    axis = np.linspace(-radius, radius, count)
    depth, row, column = np.meshgrid(axis, axis, axis, indexing="ij")
    seen = np.stack([column.ravel(), -row.ravel(), -depth.ravel()])
    places = Rotation.from_euler("xyz", VIEW, degrees=True).inv().as_matrix() @ seen
    places = places[::-1] + data.shape[0] // 2
    low = float(data.min())
    values = ndimage.map_coordinates(data, places, order=1, mode="constant", cval=low, output=np.float32)
    return values.reshape(count, count, count)
