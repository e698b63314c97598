"""What a RELION job must have left behind, checked; and its numbers for the workflow and the report: ``job.json``."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd

from py2rely_core.maps.fsc import first_crossing
from py2rely_core.maps.io import read_map
from py2rely_core.maps.masks import is_degenerate
from py2rely_core.problems import ExitCode, Problem, ProblemError
from py2rely_core.relion import commands, last_lines
from py2rely_core.tables import read_star, split_image_name, write_star

#: Stacks of extracted particles that are looked into.
SAMPLED_STACKS = 50
#: Mask is wide enough when the phase-randomised FSC at the resolution is below this.
RANDOMISED_FSC_LIMIT = 0.1
#: ``relion_postprocess`` randomises phases from where the FSC falls below this.
RANDOMISE_AT_FSC = 0.8


def write_numbers(job: Path, **numbers: Any) -> None:
    """Write ``job.json``: the job's name, the numbers, and what it took."""
    ran = commands(job)
    wall = time.time() - ran[0]["started"] if ran else 0.0
    numbers |= {"job": str(job), "relion_seconds": round(sum(one["seconds"] for one in ran), 3)}
    numbers["wall_seconds"] = round(wall, 3)
    continued = [one["continued_after_iteration"] for one in ran if "continued_after_iteration" in one]
    numbers |= {"continued_after_iteration": continued[-1]} if continued else {}
    numbers["commands"] = [" ".join(one["command"]) for one in ran]
    (job / "job.json").write_text(json.dumps(numbers, indent=1, allow_nan=False) + "\n")


def bad_output(job: Path, what: str) -> ProblemError:
    """The program said that all is well, and it is not."""
    fix = "RELION did not report this failure: read run.out and run.err; then run the same command with -resume."
    where = f"{job}\n{last_lines(job)}"
    return ProblemError(Problem(f"{job}: {what}", where, "complete output", fix), ExitCode.BAD_OUTPUT)


def particles_of(job: Path, path: Path) -> pd.DataFrame:
    """The particle table of a job's output, which must be there and not empty."""
    if not path.is_file():
        raise bad_output(job, f"{path.name} was not written.")
    try:
        table = read_star(path).get("particles", pd.DataFrame())
    except ProblemError as error:
        raise bad_output(job, f"{path.name} cannot be read: {error}") from error
    if table.empty:
        raise bad_output(job, f"{path.name} holds no particles.")
    return table


def check_map(job: Path, path: Path, box: int | None = None, pixel_size: float | None = None) -> None:
    """A map that is there, finite, not constant, and on the planned grid."""
    try:
        result = read_map(path)
    except ProblemError as error:
        raise bad_output(job, f"{path.name} cannot be read ({error.problems[0].what})") from error
    reason = is_degenerate(result.data)
    if reason:
        raise bad_output(job, f"{path.name} is no map: {reason}.")
    if box and result.data.shape != (box,) * 3:
        raise bad_output(job, f"{path.name} has the shape {result.data.shape}, not a box of {box}.")
    if pixel_size and abs(result.pixel_size - pixel_size) > 2e-3 * pixel_size:
        raise bad_output(job, f"{path.name} has {result.pixel_size:g} A per pixel, not {pixel_size:g}.")


def check_extract(job: Path, particles: Path, box: int, pixel_size: float) -> None:
    """Extracted particles: rows as expected, images there and with content."""
    before, after = particles_of(job, particles), particles_of(job, job / "particles.star")
    optics = read_star(job / "particles.star")["optics"].iloc[0]
    if int(optics["rlnImageSize"]) != box:
        raise bad_output(job, f"the images have {optics['rlnImageSize']} pixels, not {box}.")
    if abs(float(optics["rlnImagePixelSize"]) - pixel_size) > 2e-3 * pixel_size:
        raise bad_output(job, f"the images have {optics['rlnImagePixelSize']} A per pixel, not {pixel_size:g}.")
    lost = len(before) - len(after)
    if lost > 0.5 * len(before):
        raise bad_output(job, f"{lost} of {len(before)} particles were lost: are their coordinates right?")
    rows = np.unique(np.linspace(0, len(after) - 1, SAMPLED_STACKS).astype(int))
    for name in after["rlnImageName"].iloc[rows]:
        _check_stack(job, Path(split_image_name(name)[1]))
    warnings = [f"{lost} particles are not visible in any tilt and were left out."] if lost else []
    write_numbers(
        job, particles_in=len(before), particles_out=len(after), box=box, pixel_size=pixel_size, warnings=warnings
    )


def _check_stack(job: Path, stack: Path) -> None:
    try:
        with mrcfile.open(stack, permissive=True) as mrc:
            reason = is_degenerate(np.asarray(mrc.data, dtype=np.float32))
    except (OSError, ValueError) as error:
        raise bad_output(job, f"{stack} cannot be read: {error}") from error
    if reason:
        raise bad_output(job, f"{stack} holds no image: {reason}.")


def check_maps(job: Path, names: list[str], box: int | None, pixel_size: float | None) -> None:
    """Maps of a job, each on the planned grid."""
    for name in names:
        check_map(job, job / name, box, pixel_size)
    write_numbers(job, box=box, pixel_size=pixel_size)


def check_reconstruct(job: Path, particles: Path, box: int, pixel_size: float) -> None:
    """An average, with its half maps when the particles have half sets."""
    halves = ["half1.mrc", "half2.mrc"] if "rlnRandomSubset" in particles_of(job, particles) else []
    check_maps(job, ["merged.mrc", *halves], box, pixel_size)


def grid_of(extract: Path) -> tuple[int, float]:
    """Box and pixel size of extracted particles."""
    optics = read_star(extract / "particles.star")["optics"].iloc[0]
    return int(optics["rlnImageSize"]), float(optics["rlnImagePixelSize"])


def check_refinement(job: Path, particles: Path, reference: Path, maps: list[str]) -> dict[str, Any]:
    """A refinement or classification: as many particles as went in, maps on the reference's grid, a model."""
    before, after = particles_of(job, particles), particles_of(job, job / "run_data.star")
    if len(before) != len(after):
        raise bad_output(job, f"{len(before)} particles went in, {len(after)} came out.")
    start = read_map(reference)
    for name in maps:
        check_map(job, job / name, start.data.shape[0], start.pixel_size)
    return {"particles_in": len(before), "particles_out": len(after), "reference": str(reference)}


def check_refine(job: Path, particles: Path, reference: Path) -> None:
    """An auto-refinement that converged."""
    maps = ["run_class001.mrc", "run_half1_class001_unfil.mrc", "run_half2_class001_unfil.mrc"]
    numbers = check_refinement(job, particles, reference, maps)
    general = read_star(job / "run_model.star")["model_general"].iloc[0]
    iterations = len(list(job.glob("run_it*_half1_model.star")))
    history = [
        float(read_star(path)["model_classes"]["rlnEstimatedResolution"].iloc[0])
        for path in sorted(job.glob("run_it*_half1_model.star"))
    ]
    write_numbers(
        job,
        **numbers,
        resolution=float(general["rlnCurrentResolution"]),
        iterations=iterations,
        history=[value if math.isfinite(value) else None for value in history],
    )


def finish_classification(job: Path, iterations: int) -> None:
    """Give the last iteration's files the names that a refinement gives its result."""
    last = f"run_it{iterations:03d}"
    for suffix in ("data.star", "model.star", *[path.name[len(last) + 1 :] for path in job.glob(f"{last}_class*.mrc")]):
        source = job / f"{last}_{suffix}"
        if not source.is_file():
            raise bad_output(job, f"{source.name} was not written.")
        (job / f"run_{suffix}").unlink(missing_ok=True)
        (job / f"run_{suffix}").hardlink_to(source)


def mask_is_wide_enough(job: Path) -> bool:
    """Whether the phase-randomised FSC at the reported resolution is below the limit."""
    curve, resolution = read_fsc(job)
    at = curve.loc[(curve["resolution"] - resolution).abs().idxmin()]
    return bool(at["randomised"] < RANDOMISED_FSC_LIMIT)


def read_fsc(job: Path) -> tuple[pd.DataFrame, float]:
    """RELION's FSC table of a post-processing, with short names, and its resolution in Angstrom."""
    path = job / "postprocess.star"
    if not path.is_file():
        raise bad_output(job, "postprocess.star was not written.")
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


def select_particles(source: Path, distance: float, job: Path) -> None:
    """Write a new particle set: without duplicates closer than `distance` (Angstrom, 0 keeps all)."""
    from py2rely_core.particles import without_duplicates

    blocks = read_star(source)
    before = blocks["particles"]
    blocks["particles"] = without_duplicates(before, distance) if distance > 0 else before
    write_star(blocks, job / "particles.star")
    removed = len(before) - len(blocks["particles"])
    kept = len(blocks["particles"])
    if kept < 4:
        raise bad_output(job, f"only {kept} of {len(before)} particles are left when duplicates are removed.")
    write_numbers(job, particles_in=len(before), particles_out=kept, duplicates_removed=removed, distance=distance)


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
    from py2rely_core.maps.fsc import fsc, shell_resolutions
    from py2rely_core.maps.masks import density_threshold, spherical_mask

    merged, first = read_map(source), read_map(half_map)
    second = read_map(half_map.with_name(half_map.name.replace("half1", "half2")))
    box, pixel_size = merged.data.shape[0], merged.pixel_size
    sphere = spherical_mask(box, diameter / 2 / pixel_size)
    shells = shell_resolutions(box, pixel_size)
    resolution = first_crossing(shells, fsc(first.data, second.data, sphere), 0.143) or 2 * pixel_size
    falls = first_crossing(shells, fsc(first.data, second.data), RANDOMISE_AT_FSC) is not None
    randomise = "" if falls else f"--randomize_at_A {shells[3 * box // 8]:.3f}"
    # A mask must not follow detail: never finer than a tenth of the particle, as coarse as needed for a noisy map.
    low_pass = float(min(max(1.5 * resolution, diameter / 10, 2.5 * pixel_size), diameter / 2))
    chosen = density_threshold(merged.data, pixel_size, diameter, low_pass)
    value = chosen.threshold if threshold is None else threshold
    job.mkdir(parents=True, exist_ok=True)
    numbers = {"low_pass": low_pass, "threshold": value, "from_density": threshold is None}
    numbers |= {"solvent_mean": chosen.solvent_mean, "solvent_std": chosen.solvent_std}
    (job / "threshold.json").write_text(json.dumps(numbers, indent=1) + "\n")
    settings = f"low_pass={low_pass:.3f}\nthreshold={value:.6g}\nrandomise='{randomise}'\n"
    (job / "settings.sh").write_text(settings)
