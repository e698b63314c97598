"""What a RELION job must have left behind, checked; and its numbers for the workflow and the report: ``job.json``."""

from __future__ import annotations

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd

from py2rely_core.maps.fsc import first_crossing, fsc, shell_resolutions
from py2rely_core.maps.io import read_map, write_map
from py2rely_core.maps.masks import density_threshold, is_degenerate, spherical_mask
from py2rely_core.polishing import Curve, Verdict, judge
from py2rely_core.problems import ExitCode, Problem, ProblemError
from py2rely_core.relion import commands, last_lines
from py2rely_core.selection import Choice, Selection, as_records, as_text, choose_classes, of_classes
from py2rely_core.tables import read_star, split_image_name, write_star

# SciPy is imported where it is needed: that takes longer than most of these checks.

#: Stacks of extracted particles that are looked into.
SAMPLED_STACKS = 50
#: Mask is wide enough when the phase-randomised FSC at the resolution is below this.
RANDOMISED_FSC_LIMIT = 0.1
#: ``relion_postprocess`` randomises phases from where the FSC falls below this.
RANDOMISE_AT_FSC = 0.8
#: Class3D begins from the refined map, low-passed to this multiple of its resolution.
CLASS_LOW_PASS = 1.25
#: Cells of the angular distribution.
ROT_CELLS, TILT_CELLS = 36, 18


def write_numbers(job: Path, **numbers: Any) -> None:
    """Write ``job.json``: the job's name, the numbers, and what it took."""
    ran = commands(job)
    wall = time.time() - ran[0]["started"] if ran else 0.0
    numbers |= {"job": str(job), "relion_seconds": round(sum(one["seconds"] for one in ran), 3)}
    numbers["wall_seconds"] = round(wall, 3)
    if ran:
        numbers["started"] = round(ran[0]["started"], 3)
        numbers["cpu_seconds"] = round(sum(one.get("cpu_seconds", 0.0) for one in ran), 3)
        numbers["peak_memory"] = max(one.get("peak_memory", 0.0) for one in ran)
    continued = [one["continued_after_iteration"] for one in ran if "continued_after_iteration" in one]
    numbers |= {"continued_after_iteration": continued[-1]} if continued else {}
    changed = [one["because"] for one in ran if "because" in one]
    numbers |= {"warnings": [*numbers.get("warnings", []), *changed]} if changed else {}
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
        class_low_pass=round(CLASS_LOW_PASS * float(general["rlnCurrentResolution"]), 3),
        iterations=iterations,
        history=[value if math.isfinite(value) else None for value in history],
        angles=viewing_directions(read_star(job / "run_data.star")["particles"]),
    )


def viewing_directions(particles: pd.DataFrame) -> dict[str, Any]:
    """Where the particles are seen from: counts in cells of equal area on the sphere.

    Parameters
    ----------
    particles : DataFrame
        Rows of a STAR file.

    Returns
    -------
    dict
        ``{"rot": edges in degrees, "tilt": edges in degrees, "counts": rows of `tilt`, columns of `rot`}``; the tilt's
        edges are equidistant in its cosine.
    """
    from py2rely_core.geometry import matrix_to_euler, orientations

    rot, tilt, _ = matrix_to_euler(orientations(particles)).T
    rot_edges = np.linspace(-180, 180, ROT_CELLS + 1)
    height = np.linspace(1, -1, TILT_CELLS + 1)
    wrapped = (rot + 180) % 360 - 180
    counts, _, _ = np.histogram2d(-np.cos(np.radians(tilt)), wrapped, bins=(-height, rot_edges))
    edges = np.degrees(np.arccos(height))
    return {"rot": rot_edges.round(3).tolist(), "tilt": edges.round(3).tolist(), "counts": counts.astype(int).tolist()}


def tilt_series_summary(job: Path, particles: pd.DataFrame) -> list[dict[str, Any]]:
    """What is known of every tilt series of an import: its tilts, defocus (Angstrom) and motion, and its particles.

    Parameters
    ----------
    job : Path
        Holds ``tomograms.star``, whose paths are relative to the directory two above.
    particles : DataFrame
        Of the whole data set.
    """
    counts = particles["rlnTomoName"].value_counts()
    tomograms = read_star(job / "tomograms.star")["global"]
    rows = []
    for name, file in zip(tomograms["rlnTomoName"], tomograms["rlnTomoTiltSeriesStarFile"], strict=True):
        tilts = next(iter(read_star(job.parent.parent / file).values()))
        rows.append({"name": str(name), "particles": int(counts.get(name, 0)), "tilts": len(tilts)} | _ranges(tilts))
    return rows


def _ranges(tilts: pd.DataFrame) -> dict[str, float | None]:
    """Extremes and means of a tilt series' columns; None where a column is missing."""

    def of(label: str, function: Any) -> float | None:
        values = pd.to_numeric(tilts[label], errors="coerce").dropna() if label in tilts else pd.Series(dtype=float)
        return round(float(function(values)), 3) if len(values) else None

    angle = "rlnTomoNominalStageTiltAngle" if "rlnTomoNominalStageTiltAngle" in tilts else "rlnTomoYTilt"
    return {
        "tilt_min": of(angle, min),
        "tilt_max": of(angle, max),
        "defocus": of("rlnDefocusU", np.mean),
        "defocus_min": of("rlnDefocusU", min),
        "defocus_max": of("rlnDefocusU", max),
        "dose": of("rlnMicrographPreExposure", max),
        "motion": of("rlnAccumMotionTotal", np.mean),
    }


def finish_classification(job: Path, iterations: int) -> None:
    """Give the last iteration's files the names that a refinement gives its result."""
    last = f"run_it{iterations:03d}"
    for suffix in ("data.star", "model.star", *[path.name[len(last) + 1 :] for path in job.glob(f"{last}_class*.mrc")]):
        source = job / f"{last}_{suffix}"
        if not source.is_file():
            raise bad_output(job, f"{source.name} was not written.")
        (job / f"run_{suffix}").unlink(missing_ok=True)
        (job / f"run_{suffix}").hardlink_to(source)


def check_classes(job: Path, particles: Path, reference: Path, classes: int) -> None:
    """A classification: every particle has a class; of the classes' maps, at least one holds something."""
    numbers = check_refinement(job, particles, reference, [])
    broken = []
    for number in range(1, classes + 1):
        try:
            check_map(job, job / f"run_class{number:03d}.mrc")
        except ProblemError as error:
            broken.append(error)
    if len(broken) == classes:
        raise broken[0]
    write_numbers(job, **numbers, class_count=classes)


def select_classes(
    job: Path, choice: Choice, diameter: float, mask: Path | None, output: Path, reference: Path | None
) -> Selection:
    """Choose classes, and write the table, its picture and the particle set that goes on.

    Parameters
    ----------
    job : Path
        The Class3D job.
    choice : Choice
        How classes are chosen; with manual selection and none named, no particle set is written.
    diameter : float
        Of the particle, Angstrom.
    mask : Path or None
        Within which class maps are compared.
    output : Path
        Gets ``classes.txt``, ``classes.png`` and ``particles.star``.
    reference : Path or None
        Gets the ``particles.star`` that the next reference is made from.
    """
    from py2rely_core.report.pictures import draw_classes

    selection = choose_classes(job, diameter, choice, mask)
    output.mkdir(parents=True, exist_ok=True)
    (output / "classes.txt").write_text(as_text(selection))
    maps = {number: job / f"run_class{number:03d}.mrc" for number in selection.classes["class"]}
    draw_classes(as_records(selection), maps, output / "classes.png")
    blocks = read_star(job / "run_data.star")
    numbers = {"particles_in": len(blocks["particles"]), "classes": as_records(selection), "reason": selection.reason}
    if selection.kept:
        kept = of_classes(blocks, selection.kept)
        write_star(kept, output / "particles.star")
        numbers["particles_out"] = len(kept["particles"])
        if reference is not None:
            best = selection.kept if selection.best is None else [selection.best]
            write_star(of_classes(blocks, best), reference / "particles.star")
    write_numbers(output, **numbers)
    return selection


def check_tables(job: Path, tomograms: Path) -> str:
    """Why tilt-series tables that a step wrote cannot be used; empty when they can.

    Every tilt series is there, with as many tilts as before, and defocus and alignment are numbers.
    """
    path = job / "tomograms.star"
    if not path.is_file():
        return "tomograms.star was not written"
    try:
        before, after = tilt_tables(tomograms), tilt_tables(path)
    except ProblemError as error:
        return error.problems[0].what
    if set(before) != set(after):
        return f"{len(before)} tilt series went in, {len(after)} came out"
    for name, table in after.items():
        numbers = table.select_dtypes("number")
        if len(table) != len(before[name]):
            return f"{name} has {len(table)} tilts instead of {len(before[name])}"
        if not np.isfinite(numbers.to_numpy(dtype=float)).all():
            return f"{name} has values that are not finite"
        if "rlnDefocusU" in before[name] and "rlnDefocusU" not in numbers:
            return f"{name} has no defocus"
    return ""


def tilt_tables(tomograms: Path) -> dict[str, pd.DataFrame]:
    """The table of every tilt series that a ``tomograms.star`` names, paths as RELION resolves them."""
    table = read_star(tomograms)["global"]
    files = dict(zip(table["rlnTomoName"], table["rlnTomoTiltSeriesStarFile"], strict=True))
    return {name: next(iter(read_star(file).values())) for name, file in files.items()}


def check_ctf_refine(job: Path, tomograms: Path, particles: Path, output: Path) -> None:
    """Note what a CTF refinement changed, and write the particle set that belongs to it.

    Tables that cannot be used are noted (``unusable``), and do not end the run: the step is rejected.
    """
    reason = check_tables(job, tomograms)
    numbers: dict[str, Any] = {"unusable": reason}
    if not reason:
        before, after = tilt_tables(tomograms), tilt_tables(job / "tomograms.star")
        numbers["defocus"] = {name: _defocus_change(before[name], after[name]) for name in before}
    # RELION writes particles only when their optics changed.
    source = job / "particles.star" if (job / "particles.star").is_file() else particles
    _pass_on(source, output)
    write_numbers(job, **numbers)


def _defocus_change(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, float]:
    old, new = (table[["rlnDefocusU", "rlnDefocusV"]].to_numpy(dtype=float).mean(axis=1) for table in (before, after))
    changes = {"before": old.mean(), "after": new.mean(), "change_std": (new - old).std()}
    return {name: round(float(value), 1) for name, value in changes.items()}


def check_polish(job: Path, tomograms: Path, particles: Path, output: Path) -> None:
    """Note how particles moved, and write the particle set that belongs to the polished tilt series."""
    reason = check_tables(job, tomograms)
    # Where images are only shifted as a whole, RELION writes no particles: they are as before.
    shifted = any("--shift_only" in one["command"] for one in commands(job))
    polished = particles if shifted and not (job / "particles.star").exists() else job / "particles.star"
    if not reason and len(particles_of(job, particles)) != _row_count(polished):
        reason = "particles.star has not as many particles as before"
    numbers: dict[str, Any] = {"unusable": reason}
    if not reason and (job / "motion.star").is_file():
        numbers["motion"] = motion_of(job / "motion.star", particles)
    _pass_on(particles if reason else polished, output)
    write_numbers(job, **numbers)


def _row_count(path: Path) -> int:
    return len(read_star(path).get("particles", [])) if path.is_file() else 0


def _pass_on(source: Path, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, output / "particles.star")
    write_numbers(output, particles_out=_row_count(source))


def motion_of(path: Path, particles: Path) -> dict[str, Any]:
    """Root mean square of the particles' motion from their mean position, Angstrom, in all and by tilt series."""
    from py2rely_core.geometry import AXES

    tracks = [block for name, block in read_star(path).items() if name != "general"]
    names = read_star(particles)["particles"]["rlnTomoName"].to_numpy()
    labels = [f"rlnOrigin{axis}Angst" for axis in AXES]
    squares = []
    for track in tracks:
        positions = track[labels].to_numpy(dtype=float)
        squares.append(((positions - positions.mean(axis=0)) ** 2).sum(axis=1).mean())
    table = pd.DataFrame({"tomogram": names[: len(squares)], "square": squares})
    series = table.groupby("tomogram")["square"].mean() ** 0.5
    rms = float(np.sqrt(np.mean(squares))) if squares else 0.0
    return {"rms": round(rms, 3), "per_tomogram": {name: round(float(value), 3) for name, value in series.items()}}


def judge_step(
    job: Path, step: dict[str, Any], maps: Path, mask: Path, grid: tuple[int, float], best: Path, particles: Path
) -> Verdict:
    """Judge a step of polishing by its half maps' FSC, and note the verdict; whatever is wrong with it rejects it.

    Parameters
    ----------
    job : Path
        The step's post-processing; gets ``job.json``.
    step : dict
        ``cycle``, ``step``, ``tilt_series``, and why its tables are ``unusable``; noted as they are.
    maps, mask : Path
        The step's reconstruction, and the mask.
    grid : (int, float)
        Planned box and pixel size.
    best : Path
        Post-processing of the best map so far.
    particles : Path
        The particle set that was reconstructed.
    """
    noted = {**step, "particles": str(particles)}
    try:
        if step.get("unusable"):
            raise bad_output(job, f"{step['unusable']}.")
        _must_have_run(maps, job)
        check_reconstruct(maps, particles, *grid)
        check_postprocess(job, mask, *grid)
        verdict = judge(_corrected(job), _corrected(best))
    except ProblemError as error:
        verdict = Verdict("worse", "no map: " + " ".join(problem.what for problem in error.problems))
        job.mkdir(parents=True, exist_ok=True)
        for one in (maps, job):
            write_numbers(one, warnings=[f"{one}: the step is rejected, {verdict.why}"])
    numbers = json.loads((job / "job.json").read_text()) | noted | verdict.as_dict()
    (job / "job.json").write_text(json.dumps(numbers, indent=1, allow_nan=False) + "\n")
    return verdict


def _must_have_run(*jobs: Path) -> None:
    for job in jobs:
        failed = [one for one in commands(job) if one["exit_code"]]
        if failed:
            raise bad_output(job, f"{failed[0]['command'][0]} failed with exit code {failed[0]['exit_code']}.")


def _corrected(job: Path) -> Curve:
    curve, _ = read_fsc(job)
    return Curve(curve["resolution"].to_numpy(dtype=float), curve["corrected"].to_numpy(dtype=float))


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
    numbers = {"particles_in": len(before), "particles_out": kept, "duplicates_removed": removed, "distance": distance}
    write_numbers(job, **numbers, inputs=[str(source)])


def _other_half(half_map: Path) -> Path:
    return half_map.with_name(half_map.name.replace("half1", "half2"))


def randomise_from(half_map: Path) -> str:
    """The flag that ``relion_postprocess`` needs when the half maps' FSC never falls below 0.8, as it stops then."""
    first, second = read_map(half_map), read_map(_other_half(half_map))
    shells = shell_resolutions(first.data.shape[0], first.pixel_size)
    curve = fsc(first.data, second.data, as_relion=True)
    falls = first_crossing(shells, curve, RANDOMISE_AT_FSC) is not None
    return "" if falls else f"--randomize_at_A {shells[3 * first.data.shape[0] // 8]:.3f}"


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
    merged, first, second = read_map(source), read_map(half_map), read_map(_other_half(half_map))
    box, pixel_size = merged.data.shape[0], merged.pixel_size
    sphere = spherical_mask(box, diameter / 2 / pixel_size)
    shells = shell_resolutions(box, pixel_size)
    resolution = first_crossing(shells, fsc(first.data, second.data, sphere), 0.143) or 2 * pixel_size
    randomise = randomise_from(half_map)
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
