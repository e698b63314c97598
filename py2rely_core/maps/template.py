"""A map made ready as a reference: on a grid of exactly the wanted box and pixel size."""

from __future__ import annotations

from math import ceil

import numpy as np

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


def power_off_ball(data: np.ndarray) -> float:
    """Share of a map's power that is not in its average over all rotations about the centre; 0 for a ball.

    Parameters
    ----------
    data : (n, n, n) float
        A smooth map: its profile by radius is linear between voxels.
    """
    axis = np.arange(len(data)) - len(data) // 2
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    inside = radius < len(data) // 2
    radius, values = radius[inside], data[inside].astype(float)
    lower = radius.astype(int)
    upper = radius - lower
    size = len(data) // 2 + 2
    weights = np.bincount(lower, 1 - upper, size) + np.bincount(lower + 1, upper, size)
    sums = np.bincount(lower, (1 - upper) * values, size) + np.bincount(lower + 1, upper * values, size)
    profile = np.divide(sums, weights, out=np.zeros(size), where=weights > 0)
    ball = profile[lower] * (1 - upper) + profile[lower + 1] * upper
    power = float((values**2).sum())
    return float(((values - ball) ** 2).sum()) / power if power else 0.0


def shape_to_align(source: Map, diameter: float, low_pass: float) -> float:
    """:func:`power_off_ball` of a map as a search sees it, centred and low-passed.

    Parameters
    ----------
    source : Map
        Any shape and pixel size.
    diameter, low_pass : float
        Of the particle, and of the search, Angstrom.
    """
    pixel_size = max(low_pass / VOXELS, source.pixel_size)
    box = 2 * ceil(0.75 * (diameter + low_pass) / pixel_size)
    return power_off_ball(make_template(source, pixel_size, box, low_pass, centre=True).data)
