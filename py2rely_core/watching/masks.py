"""Masks to look at: the one that a run would make with given settings, what it holds, and the FSC within it."""

from __future__ import annotations

import json
import shlex
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from py2rely_core.judging.masks import mask_settings, randomise_shell
from py2rely_core.maps.filters import cosine_low_pass
from py2rely_core.maps.fsc import first_crossing, fsc, randomise_phases, shell_resolutions, without_mask
from py2rely_core.maps.io import Map, Volume, read_map
from py2rely_core.maps.masks import MaskThreshold, soft_mask
from py2rely_core.problems import Problem, ProblemError
from py2rely_core.relion.outputs.averages import RANDOMISED_FSC_LIMIT
from py2rely_core.report.drawing import grey_tile
from py2rely_core.report.pictures import (
    SLICE_EDGE,
    SLICE_NAMES,
    SmallVolume,
    central_slices,
    data_address,
    small_volume,
)
from py2rely_core.watching.jobs import HalfMaps

#: Colour of the mask over the slices.
TINT = (64, 120, 255)
#: Edge of the 3D view, in diameters: a mask needs more room than its particle.
MARGIN = 1.6
#: Share of the box that a particle is taken for whose diameter nobody knows.
UNKNOWN_DIAMETER = 0.7
#: Settings that sliders reach, voxels.
LARGEST_EXTENSION, LARGEST_EDGE = 20, 30


@dataclass(frozen=True)
class Setting:
    """Of ``relion_mask_create``: threshold in the map's units, low-pass in Angstrom, the rest in voxels."""

    threshold: float
    low_pass: float
    extend: int
    edge: int

    def for_recipe(self, binning: int | None) -> str:
        """What makes a run use it, as text of the parameter file: for its level, where that is known."""
        block = {
            "mask_create": {
                "ini_threshold": float(f"{self.threshold:.6g}"),
                "extend_inimask": self.extend,
                "width_mask_edge": self.edge,
            }
        }
        return json.dumps({"levels": {str(binning): block}} if binning else block, indent=2)

    def command(self, source: str) -> str:
        """What RELION would be called with."""
        words = ["relion_mask_create", "--i", source, "--o", "mask.mrc", "--lowpass", f"{self.low_pass:.3f}"]
        words += ["--ini_threshold", f"{self.threshold:.6g}", "--extend_inimask", str(self.extend)]
        return shlex.join([*words, "--width_soft_edge", str(self.edge)])


@dataclass
class Looker:
    """Maps that somebody looks at, and what does not change with the settings of the mask.

    Attributes
    ----------
    merged : Map
        Of all particles; the mean of the half maps where no file has it.
    halves : (Map, Map)
        The half maps.
    low_pass : float
        That a run would choose, Angstrom.
    threshold : MaskThreshold
        That a run would choose.
    shell : int
        From where ``relion_postprocess`` randomises phases.
    unmasked : (n_shells,) float
        FSC of the half maps as they are.
    randomised : ((n, n, n) array, (n, n, n) array)
        The half maps with random phases from `shell` on.
    shown : SmallVolume
        The map of all particles for the 3D view.
    """

    merged: Map
    halves: tuple[Map, Map]
    low_pass: float
    threshold: MaskThreshold
    shell: int
    unmasked: np.ndarray
    randomised: tuple[Volume, Volume]
    shown: SmallVolume
    _filtered: tuple[float, Volume] | None = field(default=None, repr=False)

    def mask(self, setting: Setting) -> Volume:
        """The mask that ``relion_mask_create`` makes."""
        if self._filtered is None or self._filtered[0] != setting.low_pass:
            filtered = cosine_low_pass(self.merged.data, self.merged.pixel_size, setting.low_pass)
            self._filtered = (setting.low_pass, filtered)
        return soft_mask(self._filtered[1], setting.threshold, setting.extend, setting.edge)

    def judge(self, mask: Volume) -> dict[str, Any]:
        """What a mask holds and what it does to the FSC.

        Returns
        -------
        dict
            ``occupied`` (share of the box, soft edge counted as far as it is there), ``fsc`` (as in ``results.json``),
            ``resolution`` (Angstrom, where the corrected FSC falls below 0.143; None at Nyquist), ``randomised`` (the
            phase-randomised FSC there), ``wide_enough`` (whether a run would take the mask).
        """
        masked = fsc(self.halves[0].data, self.halves[1].data, mask, as_relion=True)
        noise = fsc(self.randomised[0], self.randomised[1], mask, as_relion=True)
        curve = without_mask(masked, noise, self.shell)
        shells = shell_resolutions(len(mask), self.merged.pixel_size)
        resolution = first_crossing(shells, curve, 0.143)
        at = int(np.abs(shells[1:] - min(resolution or shells[-1], shells[1])).argmin()) + 1
        curves = {"resolution": shells, "corrected": curve, "masked": masked, "unmasked": self.unmasked}
        curves["randomised"] = noise
        return {
            "occupied": float(mask.mean()),
            "fsc": {name: values[1:].round(4).tolist() for name, values in curves.items()},
            "resolution": None if resolution is None else float(min(resolution, shells[1])),
            "randomised": float(noise[at]),
            "wide_enough": bool(noise[at] < RANDOMISED_FSC_LIMIT),
        }

    def slices(self, mask: Volume) -> list[tuple[str, str]]:
        """Name and data address of the central slices, with the mask's own tinted."""
        low, high = np.percentile(self.merged.data, [0.5, 99.9])
        pictures = []
        for name, plane, cover in zip(SLICE_NAMES, central_slices(self.merged.data), central_slices(mask), strict=True):
            grey = grey_tile(plane, low, high, SLICE_EDGE).convert("RGB")
            share = grey_tile(cover, 0, 1, SLICE_EDGE).point(lambda value: round(0.4 * value))
            pictures.append((name, data_address(Image.composite(Image.new("RGB", grey.size, TINT), grey, share))))
        return pictures


def _prepare(files: HalfMaps, diameter: float | None) -> Looker:
    halves = read_map(files.first), read_map(files.second)
    merged = read_map(files.merged) if files.merged else Map((halves[0].data + halves[1].data) / 2, 0.0)
    box, pixel_size = halves[0].data.shape[0], halves[0].pixel_size
    if any(one.data.shape != (box,) * 3 for one in (*halves, merged)) or not pixel_size:
        fix = "Look at maps of one cubic grid, with their pixel size in the header."
        raise ProblemError(Problem("These maps cannot be masked.", str(files.first), "one cubic grid", fix))
    merged = Map(merged.data, pixel_size)
    diameter = diameter or UNKNOWN_DIAMETER * box * pixel_size
    low_pass, threshold = mask_settings(merged, halves, diameter)
    unmasked = fsc(halves[0].data, halves[1].data, as_relion=True)
    shell, _ = randomise_shell(*halves)
    randomised = tuple(randomise_phases(half.data, shell, seed) for seed, half in enumerate(halves))
    shown = small_volume(merged, diameter, margin=MARGIN)
    return Looker(merged, halves, low_pass, threshold, shell, unmasked, randomised, shown)  # type: ignore[arg-type]


class Desk:
    """The maps that were looked at last: one mask after the other is tried on them, one at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._last: tuple[Any, Looker] | None = None

    def looker(self, files: HalfMaps, diameter: float | None) -> Looker:
        """Ready for masks; to be called with the lock."""
        paths: list[Path] = [files.first, files.second, *([files.merged] if files.merged else [])]
        state = ([(path, path.stat().st_mtime_ns) for path in paths], diameter)
        if self._last is None or self._last[0] != state:
            self._last = (state, _prepare(files, diameter))
        return self._last[1]
