"""What coordinates mean: their unit, and where they are counted from. Labels and metadata say it, else the user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import pandas as pd

from py2rely_core.data.geometry import centred_from_pixels
from py2rely_core.problems import Problem, ProblemError

#: Angstrom fill a tomogram when they reach this share of an edge; by less, their unit is not certain.
FILLED = 0.6
#: Pixels are of the unbinned tomogram when they reach this share of its edge in x or y: of one that was binned 1.18
#: times or more (programs bin 1.33, 1.5, 2, ... times) none lie so far. Depths differ, and do not count.
FILLED_BY_PIXELS = 0.85
#: Where more than this share is negative, along x and along y, they are not a few particles outside of a corner.
CENTRED_SHARE = 0.1


class Unit(Enum):
    """Units of coordinates, each with the frame that it is counted in; the values are what ``--units`` takes.

    ``CENTRED`` is Angstrom from the centre of the tomogram, ``ANGSTROM`` from its first corner. ``PIXEL`` is voxels of
    a tomogram of some voxel size from its first corner, ``FRACTION`` shares of its edges.
    """

    CENTRED = "centred"
    ANGSTROM = "angstrom"
    PIXEL = "pixel"
    FRACTION = "fraction"

    @property
    def text(self) -> str:
        return {
            "centred": "Angstrom from the centre", "angstrom": "Angstrom from the corner",
            "pixel": "pixels from the corner", "fraction": "shares of the tomogram's edges",
        }[self.value]  # fmt: skip


UNITS = ("auto", *(unit.value for unit in Unit))
ANY = tuple(Unit)


@dataclass(frozen=True)
class Given:
    """What the user says of coordinates.

    Attributes
    ----------
    units : str
        One of :data:`UNITS`.
    voxel_size : float or None
        Of the voxels that coordinates are in, Angstrom.
    """

    units: str = "auto"
    voxel_size: float | None = None

    def __post_init__(self) -> None:
        if self.units not in UNITS:
            raise ProblemError(Problem(f"'{self.units}' is no unit.", "--units", ", ".join(UNITS), "Correct --units."))
        if self.voxel_size is not None and not 0 < self.voxel_size < 1000:
            what = f"{self.voxel_size:g} A is no voxel size."
            raise ProblemError(Problem(what, "--voxel-size", "Angstrom > 0", "Correct --voxel-size."))
        if self.voxel_size is not None and self.units not in ("auto", "pixel"):
            what = f"A voxel size is given for coordinates that are {Unit(self.units).text}."
            fix = "Leave out one of the two: a voxel size belongs to pixels."
            raise ProblemError(Problem(what, "--units, --voxel-size", "--units pixel", fix))


@dataclass(frozen=True)
class Coordinates:
    """Coordinates, and what their file says of them.

    Attributes
    ----------
    values : (n, 3) float
        As in the file.
    allowed : tuple of Unit
        What they can be; one where labels or the format say it.
    voxel_size : float or None
        Of the voxels of ``PIXEL``, Angstrom; None where the file does not say it.
    first : float
        Number of the first voxel: 0, or 1 in programs that count from 1.
    source : str
        What says so, for messages: a label, the format, or the user.
    """

    values: np.ndarray
    allowed: tuple[Unit, ...] = ANY
    voxel_size: float | None = None
    first: float = 0.0
    source: str = ""

    @property
    def unit(self) -> Unit | None:
        """The unit, where only one is left."""
        return self.allowed[0] if len(self.allowed) == 1 else None

    @property
    def meaning(self) -> tuple[object, ...]:
        """All but the values: parts of a table for which it is the same are taken together."""
        return (self.allowed, self.voxel_size, self.first, self.source)

    def with_given(self, given: Given, where: str) -> tuple[Coordinates, list[str]]:
        """The same with what the user says, and what a person must know about it.

        Raises
        ------
        ProblemError
            The user and the file say different units.
        """
        if given == Given():
            return self, []
        asked = Unit.PIXEL if given.units == "auto" else Unit(given.units)
        if self.unit not in (None, asked):
            option = f"--units {given.units}" if given.units != "auto" else f"--voxel-size {given.voxel_size:g}"
            what = f"The coordinates are {self.unit.text} ({self.source}), and {option} is given."
            raise ProblemError(Problem(what, where, f"--units {self.unit.value}", f"Leave out {option}."))
        notes = []
        if given.voxel_size and self.voxel_size and abs(given.voxel_size - self.voxel_size) > 5e-3 * self.voxel_size:
            said = f"{self.source} says voxels of {self.voxel_size:g} A"
            notes.append(f"{said}; --voxel-size {given.voxel_size:g} is used")
        first = self.first if asked is Unit.PIXEL else 0.0
        voxel = given.voxel_size or self.voxel_size
        return replace(self, allowed=(asked,), voxel_size=voxel, first=first, source="as given"), notes


def place(
    coordinates: Coordinates,
    extent: np.ndarray,
    names: pd.Series,
    pixel_size: float,
    where: str,
    row_at: Callable[[int], str] | None = None,
) -> tuple[np.ndarray, str]:
    """Centred positions in Angstrom, (n, 3), and in words what the coordinates were taken for and why.

    Parameters
    ----------
    coordinates : Coordinates
        With what the user says.
    extent : (n, 3) float
        Of each particle's tomogram, Angstrom.
    names : Series of str
        Tomogram of each particle.
    pixel_size : float
        Of the unbinned tilt series, Angstrom.
    where : str
        For messages.
    row_at : callable or None
        Says where a row, counted from 0, stands in its file.

    Raises
    ------
    ProblemError
        The unit is not known, or particles are outside of their tomograms.
    """

    def row_text(row: int) -> str:
        seen = ", ".join(f"{value:g}" for value in coordinates.values[row])
        return f"{row_at(row) if row_at else f'{where}, first in row {row + 1}'}: ({seen})"

    if not len(coordinates.values):
        raise ProblemError(Problem("There are no particles.", where, "at least one", "Pick particles first."))
    if not np.isfinite(coordinates.values).all():
        row = int((~np.isfinite(coordinates.values)).any(axis=1).argmax())
        what = "Coordinates are no finite numbers."
        raise ProblemError(Problem(what, row_text(row), "finite numbers", "Correct or remove these particles."))
    told = coordinates if _is_known(coordinates) else _recognised(coordinates, extent, pixel_size, where, row_text)
    values, voxel = told.values - told.first, told.voxel_size or pixel_size
    if told.unit is Unit.CENTRED:
        centred = values
    elif told.unit is Unit.FRACTION:
        centred = (values - 0.5) * extent
    else:
        size = voxel if told.unit is Unit.PIXEL else 1.0
        centred = centred_from_pixels(values, extent / size, size)
    text = told.unit.text
    if told.unit is Unit.PIXEL:
        text = f"pixels of {voxel:g} A from the corner" + (", counted from 1" if told.first == 1 else "")
    text = f"{text} ({told.source}"
    _must_be_inside(centred, told, extent, names, f"{text})", row_text)
    return centred, f"coordinates: {text}; all {len(centred)} are inside of their tomograms)"


def _is_known(coordinates: Coordinates) -> bool:
    """Whether nothing has to be recognised: the unit, and of pixels, the tomogram that they are of."""
    unit = coordinates.unit
    return unit not in (None, Unit.PIXEL) or (
        unit is Unit.PIXEL and (coordinates.voxel_size is not None or coordinates.source == "as given")
    )


def _must_be_inside(
    centred: np.ndarray,
    told: Coordinates,
    extent: np.ndarray,
    names: pd.Series,
    text: str,
    row_text: Callable[[int], str],
) -> None:
    outside = (np.abs(centred) > (1 + 1e-6) * extent / 2).any(axis=1)
    if not outside.any():
        return
    row = int(outside.argmax())
    what = f"{int(outside.sum())} of {len(centred)} particles are outside of their tomogram, as {text}."
    fix = "Correct --units or --voxel-size, or the size of the tomogram."
    if told.unit is not Unit.CENTRED and (told.values[outside] < -1e-6).any(axis=1).all():
        fix = "They lie before the corner: correct or remove them."
        if _both_sides(told.values):
            fix = "If the coordinates are Angstrom from the centre, give --units centred."
    size = " x ".join(f"{value:.0f}" for value in extent[row])
    raise ProblemError(Problem(what, f"{row_text(row)} of {names.iloc[row]}", f"within {size} A", fix))


def _both_sides(values: np.ndarray) -> bool:
    return bool(((values[:, :2] < -1e-6).mean(axis=0) > CENTRED_SHARE).all())


def _recognised(
    coordinates: Coordinates, extent: np.ndarray, pixel: float, where: str, row_text: Callable[[int], str]
) -> Coordinates:
    """Coordinates with the one unit that fits, where there is no doubt."""
    allowed, values = coordinates.allowed, coordinates.values
    as_pixel = float(((values - coordinates.first) * pixel / extent).max())
    as_angstrom = float((values / extent).max())

    def taken(unit: Unit, why: str) -> Coordinates:
        first = coordinates.first if unit is Unit.PIXEL else 0.0
        voxel = pixel if unit is Unit.PIXEL else None
        return replace(coordinates, allowed=(unit,), voxel_size=voxel, first=first, source=why)

    negative = (values < -1e-6).any(axis=1)
    if negative.any() and Unit.CENTRED in allowed:
        if _both_sides(values) and (np.abs(values) <= (1 + 1e-6) * extent / 2).all():
            return taken(Unit.CENTRED, f"{negative.mean():.0%} have negative ones")
        seen, row = f"{int(negative.sum())} of {len(values)} particles have negative ones", int(negative.argmax())
        raise ProblemError(Problem(f"{_UNKNOWN}: {seen}.", row_text(row), "one unit that fits all", _choices(allowed)))
    if Unit.ANGSTROM in allowed and not negative.any() and as_pixel > 1 and FILLED <= as_angstrom <= 1:
        why = f"they fill {as_angstrom:.0%} of the tomograms, and as pixels {as_pixel:.0%}"
        return taken(Unit.ANGSTROM, why)
    only_pixel = Unit.ANGSTROM not in allowed
    wide = float(((values - coordinates.first) * pixel / extent)[:, :2].max())
    if Unit.PIXEL in allowed and as_pixel <= 1 and wide >= FILLED_BY_PIXELS and (only_pixel or as_angstrom < FILLED):
        why = f"they fill {wide:.0%} of the tomograms, and as Angstrom only {as_angstrom:.0%}"
        return taken(Unit.PIXEL, why)
    reach = f"as unbinned pixels they reach {as_pixel:.0%} of the tomograms' edges, as Angstrom {as_angstrom:.0%}"
    unknown = "It cannot be told of which tomogram the coordinates are pixels" if only_pixel else _UNKNOWN
    raise ProblemError(Problem(f"{unknown}: {reach}.", where, "one unit that fits", _choices(allowed)))


_UNKNOWN = "It cannot be told what unit the coordinates have"


def _choices(allowed: tuple[Unit, ...]) -> str:
    """What the user can say."""
    units = [f"--units {unit.value} ({unit.text})" for unit in allowed if unit is not Unit.PIXEL]
    pixels = ["--voxel-size (that of the tomogram in which they were picked, Angstrom)"] * (Unit.PIXEL in allowed)
    return f"Give {' or '.join([*pixels, *units])}."
