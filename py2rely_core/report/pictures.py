"""Maps as pictures: central slices, and the small volume that the page's 3D view makes its surface from."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from py2rely_core.maps.io import Map, Volume, read_images, read_map
from py2rely_core.maps.masks import density_threshold, is_degenerate
from py2rely_core.maps.resample import resample
from py2rely_core.report.drawing import grey_tile, ramp

#: Edge of a slice's picture, pixels.
SLICE_EDGE = 320
#: The 3D view's volume has at most this many voxels along its edge, fewer where many data sets share a page: all of
#: them together stay below this many bytes.
VOLUME_EDGE, VOLUMES_BYTES = 96, 3_500_000
#: Voxels along the edge of what colours it: local resolution changes slowly.
TINT_EDGE = 40
#: Edge of a class average in a table, pixels.
AVERAGE_EDGE = 110
#: Densities of a class average that are black and white, percentiles.
CONTRAST = (0.5, 99.7)
SLICE_NAMES = ("xy", "xz", "yz")


@dataclass(frozen=True)
class SmallVolume:
    """What the 3D view gets.

    Attributes
    ----------
    data : str
        Base64 of edge^3 unsigned bytes, x fastest.
    edge : int
        Voxels.
    level : int
        Where the surface is at first, 1 to 254.
    angstrom : float
        Edge of the volume.
    tint : str
        Base64 of tint_edge^3 unsigned bytes over the same space, which colour the surface; empty for none.
    tint_edge : int
        Voxels.
    """

    data: str
    edge: int
    level: int
    angstrom: float
    tint: str = ""
    tint_edge: int = 0


def load(path: Path | None) -> Map | None:
    """A map that can be shown, or None: it is missing, empty (of a stub run) or constant."""
    if path is None or not path.is_file() or path.stat().st_size == 0:
        return None
    volume = read_map(path)
    return None if is_degenerate(volume.data) else volume


def central_slices(data: Volume) -> list[np.ndarray]:
    """The slices through the origin, perpendicular to z, y and x."""
    centre = data.shape[0] // 2
    return [data[centre], data[:, centre], data[:, :, centre]]


def slice_tiles(volume: Map, edge: int = SLICE_EDGE, limits: np.ndarray | None = None) -> list[Image.Image]:
    """Pictures of the central slices without an eighth of the box on each side, in one grey scale: xy, xz, yz.

    Parameters
    ----------
    volume : Map
        Cubic.
    edge : int
        Of a picture, pixels.
    limits : (2,) float, optional
        Densities of black and white; the map's own when not given.
    """
    low, high = np.percentile(volume.data, [0.5, 99.9]) if limits is None else limits
    margin = volume.data.shape[0] // 8
    inner = slice(margin, volume.data.shape[0] - margin)
    return [grey_tile(image[inner, inner], low, high, edge) for image in central_slices(volume.data)]


def average_tile(averages: np.ndarray, number: int, edge: int) -> Image.Image | None:
    """A class average, y upwards and in its own grey scale, of at most `edge` pixels; None for one of nothing."""
    if number > len(averages):
        return None
    image = averages[number - 1]
    low, high = np.percentile(image, CONTRAST)
    if not (np.isfinite(image).all() and high > low):
        return None
    scaled = np.clip((image - low) / (high - low) * 255, 0, 255).round().astype(np.uint8)[::-1]
    picture = Image.fromarray(scaled)
    return picture if max(picture.size) <= edge else picture.resize((edge, edge), Image.Resampling.LANCZOS)


def average_addresses(path: Path | None, edge: int = AVERAGE_EDGE) -> list[str | None]:
    """Data address of each class average of a stack, None for one of nothing; none where the stack is missing."""
    if path is None or not path.is_file() or path.stat().st_size == 0:
        return []
    averages = read_images(path)[0]
    tiles = (average_tile(averages, number, edge) for number in range(1, len(averages) + 1))
    return [tile and data_address(tile) for tile in tiles]


def slice_images(volume: Map, edge: int = SLICE_EDGE) -> list[tuple[str, str]]:
    """Name and data address of a picture of each central slice, without an eighth of the box on each side."""
    return [(name, data_address(tile)) for name, tile in zip(SLICE_NAMES, slice_tiles(volume, edge), strict=True)]


def volume_edge(count: int) -> int:
    """Voxels along the edge of each of `count` volumes on one page."""
    return int(min(VOLUME_EDGE, (VOLUMES_BYTES * 3 / 4 / max(count, 1)) ** (1 / 3)))


def small_volume(
    volume: Map,
    diameter: float,
    edge: int = VOLUME_EDGE,
    margin: float = 1.25,
    local: Map | None = None,
    limits: tuple[float, float] = (0, 1),
) -> SmallVolume:
    """A map cropped to its particle, on a grid for the 3D view.

    Parameters
    ----------
    volume : Map
        Cubic.
    diameter : float
        Of the particle, Angstrom.
    edge : int
        At most so many voxels; a small map is interpolated, so that its surface is smooth.
    margin : float
        Edge of what is shown, in diameters.
    local : Map, optional
        On the map's grid: what its surface is coloured by, 0 where it is not known.
    limits : (float, float)
        Of the colours.
    """
    box, pixel_size = volume.data.shape[0], volume.pixel_size
    extent = min(margin * diameter, box * pixel_size)
    count = int(min(edge, max(48, 2 * round(extent / pixel_size))))
    data = resample(volume.data, pixel_size, extent / count, count)
    threshold = density_threshold(volume.data, pixel_size, diameter, 2.2 * pixel_size)
    wanted = threshold.solvent_mean + 0.45 * (threshold.particle_level - threshold.solvent_mean)
    low, high = min(threshold.solvent_mean, float(np.percentile(data, 5))), float(np.percentile(data, 99.98))
    scaled = np.clip((data - low) / max(high - low, 1e-12) * 255, 0, 255).round().astype(np.uint8)
    level = int(np.clip((max(wanted, threshold.threshold) - low) / max(high - low, 1e-12) * 255, 8, 247))
    small = SmallVolume(base64.b64encode(scaled.tobytes()).decode(), count, level, round(extent, 1))
    if local is None:
        return small
    return replace(small, tint=_tint(local, extent, limits), tint_edge=TINT_EDGE)


def _tint(local: Map, extent: float, limits: tuple[float, float]) -> str:
    """Values on TINT_EDGE^3 points over the space of a small volume, as bytes between limits."""
    known = np.where(local.data > 0, local.data, limits[1])
    axis = (np.arange(TINT_EDGE) - TINT_EDGE // 2) * extent / TINT_EDGE / local.pixel_size + local.data.shape[0] // 2
    values = ndimage.map_coordinates(known, np.meshgrid(axis, axis, axis, indexing="ij"), order=1, mode="nearest")
    scaled = 255 * share_of(values, limits)
    return base64.b64encode(scaled.round().astype(np.uint8).tobytes()).decode()


def share_of(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Where values lie between limits, from 0 to 1."""
    low, high = limits
    return np.clip((values - low) / max(high - low, 1e-12), 0, 1)


def local_slices(filtered: Map, local: Map, limits: tuple[float, float], edge: int) -> list[tuple[str, str]]:
    """Name and data address of the central slices of a map, coloured by its local resolution."""
    pictures = []
    margin = local.data.shape[0] // 8
    inner = slice(margin, local.data.shape[0] - margin)
    low, high = np.percentile(filtered.data, [0.5, 99.9])
    sections = zip(central_slices(filtered.data), central_slices(local.data), strict=True)
    for name, (density, values) in zip(SLICE_NAMES, sections, strict=True):
        light = 0.12 + 0.88 * share_of(density[inner, inner], (low, high))
        colours = ramp(share_of(values[inner, inner], limits)) * light[..., None]
        picture = Image.fromarray(colours.round().astype(np.uint8)[::-1])
        pictures.append((name, data_address(picture.resize((edge, edge), Image.Resampling.BICUBIC))))
    return pictures


def small_mask(mask: Volume, pixel_size: float, like: SmallVolume) -> str:
    """A mask on the grid of a map's small volume, as that one's `data`."""
    data = resample(mask, pixel_size, like.angstrom / like.edge, like.edge)
    return base64.b64encode(np.clip(data * 255, 0, 255).round().astype(np.uint8).tobytes()).decode()


def data_address(image: Image.Image) -> str:
    """A picture as an address that holds it."""
    buffer = io.BytesIO()
    image.save(buffer, format="jpeg", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
