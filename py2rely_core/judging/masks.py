"""Where the particle is: the threshold of its mask from its own density, or the user's mask on the map's grid."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from py2rely_core.maps.fsc import first_crossing, fsc, shell_resolutions
from py2rely_core.maps.io import Map, read_map, write_map
from py2rely_core.maps.masks import MaskThreshold, density_threshold, spherical_mask
from py2rely_core.problems import Problem, ProblemError

#: ``relion_postprocess`` randomises phases from where the FSC falls below this.
RANDOMISE_AT_FSC = 0.8


def _other_half(half_map: Path) -> Path:
    return half_map.with_name(half_map.name.replace("half1", "half2"))


def randomise_shell(first: Map, second: Map) -> tuple[int, bool]:
    """From which shell on phases are randomised, and whether ``relion_postprocess`` finds that by itself.

    It takes the first shell where the half maps' FSC is below 0.8, and stops where there is none.
    """
    below = np.flatnonzero(~(fsc(first.data, second.data, as_relion=True)[1:] >= RANDOMISE_AT_FSC))
    return (int(below[0]) + 1, True) if below.size else (3 * first.data.shape[0] // 8, False)


def randomise_from(half_map: Path) -> str:
    """The flag that ``relion_postprocess`` needs when the half maps' FSC never falls below 0.8, as it stops then."""
    first, second = read_map(half_map), read_map(_other_half(half_map))
    shell, found = randomise_shell(first, second)
    resolution = shell_resolutions(first.data.shape[0], first.pixel_size)[shell]
    return "" if found else f"--randomize_at_A {resolution:.3f}"


def bring_mask(source: Path, like: Path, output: Path) -> None:
    """Write the user's mask on the grid of a map, values from 0 to 1.

    Raises
    ------
    ProblemError
        The mask has no value above a half: it would hide everything.
    """
    from py2rely_core.maps.resample import resample

    mask, grid = read_map(source), read_map(like)
    box, pixel_size = grid.data.shape[0], grid.pixel_size
    data = np.clip(resample(mask.data, mask.pixel_size or pixel_size, pixel_size, box), 0, 1)
    if data.max() < 0.5:
        fix = "Give a mask that is 1 within the particle, with its voxel size in the header."
        raise ProblemError(Problem("The mask is empty on the map's grid.", str(source), "values from 0 to 1", fix))
    write_map(output / "mask.mrc", data, pixel_size)


def mask_settings(merged: Map, half_maps: tuple[Map, Map], diameter: float) -> tuple[float, MaskThreshold]:
    """The low-pass, Angstrom, and the threshold of a mask, from the half maps and the density.

    Parameters
    ----------
    merged : Map
        Of all particles.
    half_maps : (Map, Map)
        On the same grid.
    diameter : float
        Of the particle, Angstrom.
    """
    box, pixel_size = merged.data.shape[0], merged.pixel_size
    sphere = spherical_mask(box, diameter / 2 / pixel_size)
    shells = shell_resolutions(box, pixel_size)
    curve = fsc(half_maps[0].data, half_maps[1].data, sphere)
    resolution = first_crossing(shells, curve, 0.143) or 2 * pixel_size
    # A mask must not follow detail: never finer than a tenth of the particle, as coarse as needed for a noisy map.
    low_pass = float(min(max(1.5 * resolution, diameter / 10, 2.5 * pixel_size), diameter / 2))
    return low_pass, density_threshold(merged.data, pixel_size, diameter, low_pass)


def choose_threshold(source: Path, half_map: Path, diameter: float, job: Path, threshold: float | None) -> None:
    """Write what masking and post-processing need, all of it from the half maps and the density.

    That is a low-pass and a threshold for ``relion_mask_create``; and, for ``relion_postprocess``, from where to
    randomise phases when the half maps' FSC never falls below 0.8, as it stops then.

    Parameters
    ----------
    source, half_map : Path
        The merged map and its first half map; the second is found by its name.
    diameter : float
        Particle diameter, Angstrom.
    job : Path
        Gets ``threshold.json`` and ``settings.sh``.
    threshold : float or None
        The recipe's own; None for one from the density.
    """
    half_maps = read_map(half_map), read_map(_other_half(half_map))
    low_pass, chosen = mask_settings(read_map(source), half_maps, diameter)
    randomise = randomise_from(half_map)
    value = chosen.threshold if threshold is None else threshold
    job.mkdir(parents=True, exist_ok=True)
    numbers = {"low_pass": low_pass, "threshold": value, "from_density": threshold is None}
    numbers |= {"solvent_mean": chosen.solvent_mean, "solvent_std": chosen.solvent_std}
    (job / "threshold.json").write_text(json.dumps(numbers, indent=1) + "\n")
    settings = f"low_pass={low_pass:.3f}\nthreshold={value:.6g}\nrandomise='{randomise}'\n"
    (job / "settings.sh").write_text(settings)
