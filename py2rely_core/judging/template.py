"""Whether the best map knows more than the template that it was begun from.

A template is given to the search to a low-pass only. What half maps have in common beyond it comes from the particles;
if there is nothing, the map may be the template again, found in noise. And what the map has in common with the template
there was not given either: it confirms both.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from py2rely_core.maps.alignment import align_nearby
from py2rely_core.maps.fsc import corrected_fsc, first_crossing, shell_resolutions
from py2rely_core.maps.io import Map, read_map
from py2rely_core.maps.resample import resample
from py2rely_core.relion.outputs.averages import read_fsc
from py2rely_core.relion.outputs.job import write_numbers

#: Shells beyond a low-pass into which its soft edge, and the mask's blur, carry what the template had below it.
EDGE = 2
#: A map agrees with a structure without noise to where their FSC is a half (Rosenthal & Henderson 2003).
AGREES = 0.5
#: Share of what the half maps allow, beyond the low-pass, from which on the template has the map's detail.
SAME, SOME = 0.7, 0.25


@dataclass(frozen=True)
class Comparison:
    """Curves (n,) without shell 0, from low to high resolution.

    Attributes
    ----------
    resolutions : (n,) float
        Angstrom.
    halves : (n,) float
        Corrected FSC of the half maps.
    template : (n,) float
        Corrected FSC of the whole map with the template.
    low_pass : float
        To which the template was given, Angstrom.
    """

    resolutions: np.ndarray
    halves: np.ndarray
    template: np.ndarray
    low_pass: float

    @property
    def allowed(self) -> np.ndarray:
        """FSC with a structure without noise that the half maps allow: sqrt(2 FSC / (1 + FSC))."""
        halves = np.clip(np.nan_to_num(self.halves), 0, 1)
        return np.sqrt(2 * halves / (1 + halves))

    @property
    def resolution(self) -> float:
        """To where the half maps agree, Angstrom."""
        return _crossing(self.resolutions, self.halves, 0.143)

    @property
    def beyond(self) -> np.ndarray:
        """Shells beyond the template's low-pass and its edge in which the half maps agree, (n,) bool."""
        shells = np.arange(1, len(self.resolutions) + 1)
        given = round(self.resolutions[0] / self.low_pass) + EDGE
        return (shells > given) & (self.resolutions >= self.resolution)

    @property
    def share(self) -> float | None:
        """Of what the half maps allow beyond the low-pass, how much the template has; None without shells there."""
        if not self.beyond.any():
            return None
        return float(np.nan_to_num(self.template)[self.beyond].sum() / self.allowed[self.beyond].sum())


def _crossing(resolutions: np.ndarray, curve: np.ndarray, threshold: float) -> float:
    """Of curves without shell 0: the resolution of the last shell before the fall, at most that of the first shell."""
    found = first_crossing(np.r_[resolutions[0], resolutions], np.r_[1.0, curve], threshold)
    return float(resolutions[-1] if found is None else found)


def verdict(found: Comparison) -> tuple[str, str]:
    """``nothing``, ``confirmed``, ``partly`` or ``other``, and what that means."""
    given, reached = f"{found.low_pass:.1f} A", f"{found.resolution:.1f} A"
    if not found.beyond.any():
        return "nothing", (
            f"The map knows no more than the template: the half maps agree to {reached}, and the template was given to "
            f"{given}."
        )
    share = f"{max(found.share, 0):.0%} of what the half maps allow"
    if found.share >= SAME:
        return "confirmed", f"The map agrees with the template beyond the {given} to which it was given ({share})."
    if found.share >= SOME:
        return "partly", (
            f"Beyond the {given} to which the template was given, the map agrees with it in part ({share}): "
            "they differ."
        )
    return "other", (
        f"Beyond the {given} to which the template was given, the map has little in common with it ({share}); its half "
        f"maps agree to {reached}. Either the template has no such detail, or it is another structure."
    )


def compare(whole: Map, template: Map, mask: Map, halves: np.ndarray, low_pass: float, diameter: float) -> Comparison:
    """Correlate a map with its template.

    Parameters
    ----------
    whole, mask : Map
        The average of both half maps, and its mask.
    template : Map
        As the user gave it, on any grid; aligned here to where the map has moved.
    halves : (n // 2,) float
        Corrected FSC of the half maps, without shell 0.
    low_pass : float
        To which the template was given, Angstrom.
    diameter : float
        Of the particle, Angstrom.
    """
    box, pixel_size = whole.data.shape[0], whole.pixel_size
    known = Map(resample(template.data, template.pixel_size, pixel_size, box), pixel_size)
    aligned = align_nearby(known, whole, diameter, low_pass)
    shell = max(1, round(box * pixel_size / low_pass))
    curve = corrected_fsc(whole.data, aligned.data, mask.data, shell)
    resolutions = shell_resolutions(box, pixel_size)
    # Finer than its own pixels, the template holds nothing.
    curve[resolutions < 2 * template.pixel_size] = 0.0
    return Comparison(resolutions[1:], np.asarray(halves, dtype=float), curve[1:], low_pass)


def check_template(
    job: Path, source: Path, maps: Path, mask: Path, postprocess: Path, low_pass: float, diameter: float
) -> None:
    """Note how the map compares with the template; a warning where it knows no more.

    Parameters
    ----------
    job : Path
        Gets ``job.json``.
    source : Path
        The template, as the user gave it.
    maps, mask, postprocess : Path
        The reconstruction, the map's mask, and its post-processing.
    low_pass, diameter : float
        To which the template was given, and of the particle, Angstrom.
    """
    halves = read_fsc(postprocess)[0]["corrected"].to_numpy(dtype=float)
    found = compare(read_map(maps / "merged.mrc"), read_map(source), read_map(mask), halves, low_pass, diameter)
    judgement, text = verdict(found)
    share = found.share
    numbers: dict[str, Any] = {
        "judgement": judgement,
        "text": text,
        "low_pass": low_pass,
        "resolution": json.loads((postprocess / "job.json").read_text())["resolution"],
        "agrees_to": round(_crossing(found.resolutions, found.template, AGREES), 3),
        "share": None if share is None else round(share, 3),
        "fsc": {
            "resolution": found.resolutions.round(5).tolist(),
            "template": np.nan_to_num(found.template).round(4).tolist(),
            "halves": np.nan_to_num(found.halves).round(4).tolist(),
            "allowed": found.allowed.round(4).tolist(),
        },
    }
    job.mkdir(parents=True, exist_ok=True)
    write_numbers(job, template=numbers, warnings=[text] if judgement == "nothing" else [])
