"""A map made ready as a reference: on a grid of exactly the wanted box and pixel size."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np

from py2rely_core.data.symmetry import main_axis
from py2rely_core.maps.filters import gaussian_low_pass
from py2rely_core.maps.io import Map
from py2rely_core.maps.resample import centre_offset, resample, shift


def make_template(
    source: Map,
    pixel_size: float,
    box: int,
    low_pass: float,
    centre: bool = False,
    invert: bool = False,
    mirror: bool = False,
) -> Map:
    """Centre, resample, filter, invert and mirror a map, in this order.

    Parameters
    ----------
    source : Map
        Any shape and pixel size.
    pixel_size, low_pass : float
        Angstrom; the filter has amplitude 0.5 at `low_pass`.
    box : int
        Voxels.
    centre : bool
        Move the centre of mass of the (squared, positive) density to the origin.
    invert, mirror : bool
        Multiply by -1; mirror along the first axis, about the origin.

    Returns
    -------
    Map
        (box, box, box) with exactly `pixel_size`.
    """
    data = shift(source.data, -centre_offset(source.data)) if centre else source.data
    data = resample(data, source.pixel_size, pixel_size, box)
    data = gaussian_low_pass(data, pixel_size, low_pass)
    if mirror:
        data = data[::-1]
        data = np.roll(data, 1, axis=0) if box % 2 == 0 else data
    return Map(-data if invert else data, pixel_size)


#: Where less of a template's power than this is off its rotational average, particles find little to align to: of noisy
#: simulated apoferritin (0.5 % at 50 A) most could not be aligned, ribosomes (20 %) could (docs/orientations.md).
LITTLE = 0.02
#: Low-passes, Angstrom, among which one is looked for with which it differs by more.
LOW_PASSES = (60.0, 50.0, 45.0, 40.0, 35.0, 30.0, 25.0, 20.0, 15.0, 12.0, 10.0)
#: Of the grid on which this is computed, voxels to a low-pass.
VOXELS = 10
#: Pairs of axes in whose plane a map is turned.
AXES = ((0, 1), (0, 2), (1, 2))


def power_off_ball(data: np.ndarray) -> float:
    """Share of a map's power that is not in its average over all rotations about the centre; 0 for a ball.

    Parameters
    ----------
    data : (n, n, n) float
        A smooth map: its profile by radius is linear between voxels.
    """
    squares = _squares(len(data))
    radius = np.sqrt(squares[:, None, None] + squares[None, :, None] + squares[None, None, :])
    return _power_off(data, radius, np.zeros(data.shape, dtype=int))


def power_off_cylinder(data: np.ndarray) -> float:
    """The same for rotations about z, slice by slice; 0 for a cylinder along z."""
    squares = _squares(len(data))
    radius = np.broadcast_to(np.sqrt(squares[:, None] + squares[None, :]), data.shape)
    slices = np.broadcast_to(np.arange(len(data))[:, None, None], data.shape)
    return _power_off(data, radius, slices)


def _squares(size: int) -> np.ndarray:
    return (np.arange(size) - size // 2) ** 2.0


def _power_off(data: np.ndarray, radius: np.ndarray, part: np.ndarray) -> float:
    """Share of the power that is not in the profiles by radius, one of each part."""
    inside = radius < len(data) // 2
    radius, values = radius[inside], data[inside].astype(float)
    width = len(data) // 2 + 2
    upper = radius % 1
    lower = part[inside] * width + radius.astype(int)
    size = (int(part.max()) + 1) * width
    weights = np.bincount(lower, 1 - upper, size) + np.bincount(lower + 1, upper, size)
    sums = np.bincount(lower, (1 - upper) * values, size) + np.bincount(lower + 1, upper * values, size)
    profile = np.divide(sums, weights, out=np.zeros(size), where=weights > 0)
    average = profile[lower] * (1 - upper) + profile[lower + 1] * upper
    power = float((values**2).sum())
    return float(((values - average) ** 2).sum()) / power if power else 0.0


def shape_to_align(source: Map, diameter: float, low_pass: float, group: str = "C1") -> float:
    """What there is to align to: :func:`power_off_ball` of a map as a search sees it, centred and low-passed.

    Parameters
    ----------
    source : Map
        Any shape and pixel size.
    diameter, low_pass : float
        Of the particle, and of the search, Angstrom.
    group : str
        Point group: with one axis, the smaller of this and :func:`power_off_cylinder`.
    """
    seen = _seen(source, diameter, low_pass)
    ball = power_off_ball(seen)
    return min(ball, power_off_cylinder(seen)) if main_axis(group) > 1 else ball


def changes_when_turned(source: Map, diameter: float, low_pass: float, degrees: Sequence[float]) -> list[float]:
    """By what share of its power a map, as a search sees it, differs from itself turned: mean over x, y and z.

    Parameters
    ----------
    source, diameter, low_pass
        As of :func:`shape_to_align`.
    degrees : sequence of float
        Angles.

    Returns
    -------
    list of float
        |map - turned|^2 / (2 |map|^2): 0 for what looks the same, 1 for what has nothing in common.
    """
    from scipy.ndimage import rotate

    seen = _seen(source, diameter, low_pass)
    power = 2 * float((seen**2).sum()) or 1.0
    return [
        float(np.mean([((rotate(seen, one, axes, reshape=False, order=3) - seen) ** 2).sum() for axes in AXES])) / power
        for one in degrees
    ]


def _seen(source: Map, diameter: float, low_pass: float) -> np.ndarray:
    pixel_size = max(low_pass / VOXELS, source.pixel_size)
    box = 2 * ceil(0.75 * (diameter + low_pass) / pixel_size)
    return make_template(source, pixel_size, box, low_pass, centre=True).data
