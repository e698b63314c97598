"""A map made ready as a reference: on a grid of exactly the wanted box and pixel size."""

from __future__ import annotations

import numpy as np

from py2rely_core.maps.filters import gaussian_low_pass
from py2rely_core.maps.io import Map
from py2rely_core.maps.resample import centre_offset, resample


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
    data = resample(source.data, source.pixel_size, pixel_size, box, centre_offset(source.data) if centre else None)
    data = gaussian_low_pass(data, pixel_size, low_pass)
    if mirror:
        data = data[::-1]
        data = np.roll(data, 1, axis=0) if box % 2 == 0 else data
    return Map(-data if invert else data, pixel_size)
