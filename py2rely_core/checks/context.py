"""What every check may look at, and what several of them need, computed once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from py2rely_core.data.geometry import CENTRED, ORIGINS, SIZES, tilt_matrices, true_positions
from py2rely_core.data.inputs import Inputs
from py2rely_core.maps.io import MapHeader, read_header
from py2rely_core.parameters.boxes import Size, crop_and_box
from py2rely_core.parameters.recipe import Recipe
from py2rely_core.problems import Problem, ProblemError

ALIGNMENT = ("rlnTomoXTilt", "rlnTomoYTilt", "rlnTomoZRot", "rlnTomoXShiftAngst", "rlnTomoYShiftAngst")


@dataclass(frozen=True)
class CheckContext:
    """One data set before its run.

    Attributes
    ----------
    recipe : Recipe
        The parameter file.
    inputs : Inputs
        The loaded tables.
    mode : {"template", "denovo", "known"}
        How the initial reference is made.
    reference : Path or None
        Absolute path of the user's map.
    start : {"picks", "bin1", "polish"}
        Where the run begins.
    given : dict of str to Path
        Absolute paths of the user's ``mask`` and ``motion``, where there are any.
    """

    recipe: Recipe
    inputs: Inputs
    mode: str
    reference: Path | None = None
    start: str = "picks"
    given: dict[str, Path] = field(default_factory=dict)

    @property
    def pixel_size(self) -> float:
        """Angstrom per unbinned pixel."""
        return self.recipe.resolutions.angpix

    @cached_property
    def levels(self) -> dict[int, Size]:
        """The grid of each level, by its binning."""
        resolutions, diameter = self.recipe.resolutions, self.recipe.refine3D.particle_diameter
        return {
            binning: crop_and_box(diameter, resolutions.angpix, binning, resolutions.box_scaling)
            for binning in resolutions.binning_list
        }

    @cached_property
    def tilts(self) -> pd.DataFrame:
        """The tilts of all tilt series in one table; ``series`` is their place in :attr:`series_names`."""
        tables = [series.tilts for series in self.inputs.tilt_series.values()]
        if not tables:
            return pd.DataFrame({"series": np.zeros(0, dtype=int)})
        table = pd.concat(tables, ignore_index=True)
        return table.assign(series=np.repeat(np.arange(len(tables)), [len(one) for one in tables]))

    @cached_property
    def series_names(self) -> list[str]:
        """Names of the tilt series that could be read."""
        return list(self.inputs.tilt_series)

    def tilt_values(self, label: str) -> np.ndarray:
        """A column of :attr:`tilts` as float; NaN where it is no number or not there."""
        if label not in self.tilts:
            return np.full(len(self.tilts), np.nan)
        return as_numbers(self.tilts[label])

    def tilt_place(self, bad: np.ndarray) -> str:
        """Where the marked rows of :attr:`tilts` are: the first file and row, and how many more.

        Parameters
        ----------
        bad : (n_tilts,) bool
            At least one is true.
        """
        row, series = int(bad.argmax()), self.tilts["series"].to_numpy()
        first = series[row]
        file = self.inputs.tilt_series[self.series_names[first]].star_file
        more = len(np.unique(series[bad])) - 1
        text = f"{file}, first in row {row - int(np.searchsorted(series, first)) + 1}"
        return text + (f", and in {more} more tilt series" if more else "")

    @cached_property
    def headers(self) -> dict[Path, MapHeader | ProblemError]:
        """Header of every stack that exists, or why it cannot be read."""
        return {stack: _header(stack) for stack in self.inputs.stacks() if stack.is_file()}

    def image_size(self, name: str) -> tuple[int, int] | None:
        """Width and height of the images of a tilt series, pixels; None when they cannot be read."""
        series = self.inputs.tilt_series.get(name)
        header = self.headers.get(series.stacks[0]) if series and series.stacks else None
        return (header.shape[2], header.shape[1]) if isinstance(header, MapHeader) else None

    @cached_property
    def particle_rows(self) -> dict[str, np.ndarray]:
        """Rows of the particles of each tilt series, by its name."""
        if "rlnTomoName" not in self.inputs.particles:
            return {}
        codes, names = pd.factorize(self.inputs.particles["rlnTomoName"])
        order = np.argsort(codes, kind="stable")
        ends = np.searchsorted(codes[order], np.arange(len(names) + 1))
        return {str(name): order[ends[n] : ends[n + 1]] for n, name in enumerate(names)}

    @cached_property
    def centred(self) -> np.ndarray | None:
        """Coordinates as written, (n, 3) Angstrom from the tomogram's centre; None when a label is missing."""
        return self.particle_values(CENTRED)

    @cached_property
    def positions(self) -> np.ndarray | None:
        """Coordinates with refined shifts applied, (n, 3) Angstrom."""
        if self.centred is None or not set(ORIGINS) <= set(self.inputs.particles):
            return self.centred
        try:
            return true_positions(self.inputs.particles)
        except ValueError:
            return self.centred

    def particle_values(self, labels: list[str]) -> np.ndarray | None:
        """Columns of the particles as (n, n_labels) float; None when one is missing or there are no rows."""
        particles = self.inputs.particles
        if particles.empty or not set(labels) <= set(particles.columns):
            return None
        return np.column_stack([as_numbers(particles[label]) for label in labels])

    @cached_property
    def tomogram_sizes(self) -> dict[str, np.ndarray]:
        """Size of each tomogram, x, y, z in unbinned pixels; only those that have one."""
        table = self.inputs.tomograms
        if not {"rlnTomoName", *SIZES} <= set(table.columns):
            return {}
        sizes = np.column_stack([as_numbers(table[label]) for label in SIZES])
        known = (sizes > 0).all(axis=1)
        return dict(zip(table["rlnTomoName"].astype(str)[known], sizes[known], strict=True))

    @cached_property
    def sizes(self) -> np.ndarray:
        """Size of the tomogram that each particle lies in, (n, 3) unbinned pixels; NaN where it is not known."""
        sizes = np.full((len(self.inputs.particles), 3), np.nan)
        for name, rows in self.particle_rows.items():
            if name in self.tomogram_sizes:
                sizes[rows] = self.tomogram_sizes[name]
        return sizes

    @cached_property
    def visibility(self) -> dict[int, np.ndarray]:
        """In how many tilts RELION will see each particle at each binning: (n,) int, -1 where it cannot be told.

        A tilt counts when the whole box around the projected particle lies inside of the image, which is RELION's own
        rule, and when its dose is not beyond ``pseudo_subtomo.max_dose``.
        """
        counts = {binning: np.full(len(self.inputs.particles), -1) for binning in self.levels}
        if self.positions is None:
            return counts
        for name, rows in self.particle_rows.items():
            margins = self._margins(name, self.positions[rows])
            if margins is None:
                continue
            for binning, size in self.levels.items():
                counts[binning][rows] = (margins > binning * size.box / 2).sum(axis=1)
        return counts

    def _margins(self, name: str, positions: np.ndarray) -> np.ndarray | None:
        """Distance of projected particles to the nearest edge of each image, (n, n_tilts), pixels; negative outside."""
        series, image = self.inputs.tilt_series.get(name), self.image_size(name)
        if series is None or image is None or not set(ALIGNMENT) <= set(series.tilts.columns):
            return None
        alignment = np.column_stack([as_numbers(series.tilts[label]) for label in ALIGNMENT])
        used = np.isfinite(alignment).all(axis=1) & self.within_dose(series.tilts)
        table = pd.DataFrame(alignment[used], columns=ALIGNMENT)
        margins = np.full((len(positions), max(1, int(used.sum()))), np.inf)
        if not used.any():
            return -margins
        matrices = tilt_matrices(table) / self.pixel_size
        for axis, length in enumerate(image):
            projected = positions @ matrices[:, axis].T + alignment[used, 3 + axis] / self.pixel_size + length / 2
            margins = np.minimum(margins, np.minimum(projected, length - projected))
        return margins

    def within_dose(self, tilts: pd.DataFrame) -> np.ndarray:
        """Which tilts of a tilt series are used: those not beyond ``pseudo_subtomo.max_dose``, (n_tilts,) bool."""
        limit = self.recipe.pseudo_subtomo.max_dose
        if limit <= 0 or "rlnMicrographPreExposure" not in tilts:
            return np.ones(len(tilts), dtype=bool)
        return ~(as_numbers(tilts["rlnMicrographPreExposure"]) > limit)


def _header(stack: Path) -> MapHeader | ProblemError:
    try:
        return read_header(stack)
    except ProblemError as error:
        return error


def as_numbers(column: pd.Series) -> np.ndarray:
    """A column as float; NaN where it is no number."""
    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)


def missing_labels(table: pd.DataFrame, labels: tuple[str, ...], where: str, fix: str) -> list[Problem]:
    """One problem that names every required label that a table lacks; none for a table that could not be read."""
    missing = [label for label in labels if label not in table.columns]
    if table.empty or not missing:
        return []
    return [Problem(f"Required labels are missing: {', '.join(missing)}.", where, ", ".join(labels), fix)]


def not_numbers(table: pd.DataFrame, labels: tuple[str, ...], where: str) -> list[Problem]:
    """One problem per label whose values are not all finite numbers, with the first row that is wrong."""
    problems = []
    for label in labels:
        if label not in table.columns:
            continue
        bad = ~np.isfinite(as_numbers(table[label]))
        if bad.any():
            row = int(bad.argmax())
            what = f"{label} is not a finite number in {int(bad.sum())} of {len(table)} rows."
            seen = f"{where}, first in row {row + 1}: {table[label].iloc[row]!r}"
            problems.append(Problem(what, seen, "a finite number", "Correct or remove these rows."))
    return problems


def examples(names: list[str], limit: int = 3) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def at_rows(file: Path, bad: np.ndarray) -> str:
    """A file and the first of the rows that are marked in it."""
    return f"{file}, first in row {int(bad.argmax()) + 1}"
