"""What a reconstruction and its post-processing must have left behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from py2rely_core.data.tables import read_star
from py2rely_core.maps.fsc import first_crossing
from py2rely_core.relion.outputs.job import bad_output, check_map, check_maps, particles_of, write_numbers

#: Mask is wide enough when the phase-randomised FSC at the resolution is below this.
RANDOMISED_FSC_LIMIT = 0.1


def check_reconstruct(job: Path, particles: Path, box: int, pixel_size: float) -> None:
    """An average, with its half maps when the particles have half sets."""
    halves = ["half1.mrc", "half2.mrc"] if "rlnRandomSubset" in particles_of(job, particles) else []
    check_maps(job, ["merged.mrc", *halves], box, pixel_size)


def mask_is_wide_enough(job: Path) -> bool:
    """Whether the phase-randomised FSC at the reported resolution is below the limit."""
    curve, resolution = read_fsc(job)
    at = curve.loc[(curve["resolution"] - resolution).abs().idxmin()]
    return bool(at["randomised"] < RANDOMISED_FSC_LIMIT)


def read_fsc(job: Path, name: str = "postprocess.star") -> tuple[pd.DataFrame, float]:
    """RELION's FSC table of a post-processing, with short names, and its resolution in Angstrom."""
    path = job / name
    if not path.is_file():
        raise bad_output(job, f"{name} was not written.")
    blocks = read_star(path)
    table, resolution = blocks["fsc"], float(blocks["general"]["rlnFinalResolution"].iloc[0])
    names = {
        "rlnAngstromResolution": "resolution",
        "rlnFourierShellCorrelationCorrected": "corrected",
        "rlnFourierShellCorrelationUnmaskedMaps": "unmasked",
        "rlnFourierShellCorrelationMaskedMaps": "masked",
        "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps": "randomised",
    }
    curve = table[list(names)].rename(columns=names).astype(float)
    return curve.iloc[1:].reset_index(drop=True), resolution


def check_postprocess(job: Path, mask: Path, box: int, pixel_size: float) -> None:
    """A post-processing: maps, the resolutions, and the low-pass for the next reference.

    The low-pass is where the corrected FSC first falls below 0.5, Nyquist where it does not: what is beyond it
    differs between the half maps and must not seed both halves of the next refinement.
    """
    check_map(job, job / "postprocess.mrc", box, pixel_size)
    check_map(job, mask, box, pixel_size)
    curve, reported = read_fsc(job)
    shells = np.concatenate([[np.inf], curve["resolution"]])
    nyquist = 2 * pixel_size

    def crossing(name: str, threshold: float) -> float | None:
        values = np.concatenate([[1.0], curve[name].fillna(-1.0)])
        found = first_crossing(shells, values, threshold)
        return None if found is None else float(min(found, shells[1]))

    resolution = crossing("corrected", 0.143)
    warnings = []
    if resolution is None:
        warnings.append("The resolution is limited by Nyquist: it is a bound, not a result.")
    at = curve.loc[(curve["resolution"] - reported).abs().idxmin()]
    if at["randomised"] >= RANDOMISED_FSC_LIMIT:
        warnings.append(
            f"The phase-randomised FSC at {reported:.1f} A is {at['randomised']:.2f}: the mask is too sharp, "
            "and the masked FSC better than the map."
        )
    write_numbers(
        job,
        box=box,
        pixel_size=pixel_size,
        resolution=resolution or nyquist,
        resolution_unmasked=crossing("unmasked", 0.143) or nyquist,
        resolution_relion=reported,
        nyquist_limited=resolution is None,
        low_pass=crossing("corrected", 0.5) or nyquist,
        mask=json.loads((mask.parent / "threshold.json").read_text()),
        fsc=curve.round(5).astype(object).where(curve.notna(), None).to_dict(orient="list"),
        warnings=warnings,
    )
