"""What a map has that particles can be aligned to: how far it is from a ball, or on its one axis from a cylinder."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import numpy as np

from py2rely_core.data.symmetry import main_axis
from py2rely_core.maps.filters import gaussian_low_pass
from py2rely_core.maps.io import Map
from py2rely_core.maps.resample import centre_offset, resample

#: Where less of a template's power than this is off its rotational average, particles find little to align to: of noisy
#: simulated apoferritin (0.5 % at 50 A) most could not be aligned, ribosomes (20 %) could (docs/orientations.md).
LITTLE = 0.02
#: Low-passes, Angstrom, among which one is looked for with which it differs by more.
LOW_PASSES = (60.0, 50.0, 45.0, 40.0, 35.0, 30.0, 25.0, 20.0, 15.0, 12.0, 10.0)
#: Of the grid on which this is computed, voxels to a low-pass.
VOXELS = 10
#: Most voxels along its edge: a large particle then has fewer of them to a low-pass, and at least the next number.
LARGEST, FEWEST = 256, 3
#: Pairs of axes in whose plane a map is turned.
AXES = ((0, 1), (0, 2), (1, 2))


class Seen:
    """A map as searches see it: centred, and low-passed.

    Parameters
    ----------
    source : Map
        Any shape and pixel size.
    diameter : float
        Of the particle, Angstrom.
    """

    def __init__(self, source: Map, diameter: float) -> None:
        self.source, self.diameter = source, diameter
        self.centre = centre_offset(source.data)
        self._maps: dict[float, np.ndarray] = {}

    def to(self, low_pass: float) -> np.ndarray:
        """The map to a low-pass (Angstrom), on a grid that goes with it; cubic."""
        if low_pass not in self._maps:
            pixel_size = self._pixel_size(low_pass)
            box = 2 * ceil(self._extent(low_pass) / pixel_size / 2 - 1e-6)
            data = resample(self.source.data, self.source.pixel_size, pixel_size, box, self.centre)
            # The last one only: they are large.
            self._maps = {low_pass: gaussian_low_pass(data, pixel_size, low_pass)}
        return self._maps[low_pass]

    def low_passes(self, coarsest: float, finest: float = 0.0) -> Iterator[float]:
        """Those of :data:`LOW_PASSES` between two, the first one excluded, to which this map can be seen."""
        for one in LOW_PASSES:
            held = one > 2 * self.source.pixel_size and LARGEST * one >= FEWEST * self._extent(one)
            if finest <= one < coarsest and held:
                yield one

    def shape(self, low_pass: float, group: str = "C1") -> float:
        """What there is to align to: :func:`power_off_ball` of the map to a low-pass.

        Parameters
        ----------
        low_pass : float
            Of the search, Angstrom.
        group : str
            Point group: with one axis, the smaller of this and :func:`power_off_cylinder`.
        """
        seen = self.to(low_pass)
        ball = power_off_ball(seen)
        return min(ball, power_off_cylinder(seen)) if main_axis(group) > 1 else ball

    def change(self, low_pass: float, degrees: float) -> float:
        """By what share of its power the map differs from itself turned: mean over x, y and z.

        ``|map - turned|^2 / (2 |map|^2)``: 0 for what looks the same, 1 for what has nothing in common.

        Parameters
        ----------
        low_pass, degrees : float
            Of the search, Angstrom; by how much it is turned.
        """
        from scipy.ndimage import rotate

        seen = self.to(low_pass)
        power = 2 * float((seen**2).sum()) or 1.0
        turned = (rotate(seen, degrees, axes, reshape=False, order=3) for axes in AXES)
        return float(np.mean([((one - seen) ** 2).sum() for one in turned])) / power

    def _extent(self, low_pass: float) -> float:
        return 1.5 * (self.diameter + low_pass)

    def _pixel_size(self, low_pass: float) -> float:
        return max(low_pass / VOXELS, self.source.pixel_size, self._extent(low_pass) / LARGEST)


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
