"""A small output directory with everything that a report can show: real maps, numbers as RELION gives them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from py2rely_core.judging.directions import resolution_by_direction, sampling_by_direction
from py2rely_core.judging.particle_plot import Point, line_of
from py2rely_core.maps import directions
from py2rely_core.maps.filters import gaussian_low_pass
from py2rely_core.maps.fsc import shell_resolutions
from py2rely_core.maps.io import read_map, write_map
from py2rely_core.maps.masks import radii
from py2rely_core.parameters.recipe import Recipe
from py2rely_core.report import find_in
from py2rely_core.report.outcome import write_outcome
from py2rely_core.results.collect import collect_results
from py2rely_core.simulation.structures import density, make_structure

DIAMETER = 150.0
#: Binning: box, resolution, unmasked resolution, particles.
LEVELS = {4: (28, 20.8, 22.6, 5210), 2: (48, 12.4, 13.9, 4480), 1: (84, 7.9, 9.3, 3912)}
PIXEL_SIZE = 2.62
START = 1_760_000_000.0
FAILURE = {
    "step": "REFINE3D (ribosome bin1)",
    "dataset": "ribosome",
    "job": "Refine3D/bin1",
    "what": "Refine3D/bin1: relion_refine_mpi ran out of memory or was killed (exit code 137).",
    "exit_code": 137,
    "to_do": "Give the step more memory, or fewer ranks or threads, or use '--pad 1' in other_args; then -resume.",
    "last_lines": ["last lines of Refine3D/bin1/run.err:", "| ERROR: std::bad_alloc <script>alert(1)</script>"],
    "work_dir": "/scratch/work/ab/cdef0123",
}


def make_plan(identity: str = "ribosome", project: str = "", mode: str = "template") -> dict[str, Any]:
    recipe = Recipe().model_dump(by_alias=True)
    recipe["refine3D"] |= {"sym_name": "O", "particle_diameter": DIAMETER, "ini_high": 50.0}
    recipe["resolutions"] |= {"angpix": PIXEL_SIZE}
    levels = [
        {"name": f"bin{binning}", "binning": binning, "pixel_size": PIXEL_SIZE * binning, "size": box,
         "extract": {"box": box + 20 * (binning == 1)}, "refine": {"low_pass": 50.0 if binning == 4 else None}}
        for binning, (box, *_) in LEVELS.items()
    ]  # fmt: skip
    warning = {
        "what": "No particle is further than 41% of the way from the centre to the edge on any axis.",
        "where": "particles.star", "expected": "a spread over the tomogram", "fix": "Check the coordinates' unit.",
        "severity": "warning",
    }  # fmt: skip
    planned = {
        "id": identity, "project": project, "mode": mode, "start": "picks", "motion": None, "recipe": recipe,
        "levels": levels, "polishing": {"cycles": 2},
    }  # fmt: skip
    return {"relion": "5.1.0", "datasets": [planned], "warnings": [warning]}


def make_jobs(binnings: tuple[int, ...] = (4, 2, 1), polished: bool = True) -> dict[str, dict[str, Any]]:
    """What every job noted."""
    rng = np.random.default_rng(5)
    names = [f"TS_{number:02d}" for number in range(1, 9)]
    defocus = rng.uniform(22000, 41000, len(names)).round(1)
    series = [
        {"name": name, "particles": int(rng.integers(500, 900)), "tilts": 41, "tilt_min": -60.0, "tilt_max": 60.0,
         "defocus": value, "defocus_min": value - 420.0, "defocus_max": value + 510.0, "dose": 123.0,
         "motion": round(rng.uniform(3, 8), 2)}
        for name, value in zip(names, defocus, strict=True)
    ]  # fmt: skip
    jobs = [_job("Import/tilt_series", 0, tilt_series=len(names), particles_out=5602, series=series)]
    clock, before = START, 5602
    for binning in binnings:
        made, clock = _level_jobs(binning, clock, before, rng)
        jobs += made
        before = LEVELS[binning][3]
    if polished:
        jobs += _polishing_jobs(names, defocus, clock, rng) + analysis_jobs()
    return {job["job"]: job for job in jobs}


def _job(name: str, seconds: float, started: float = 0.0, command: str = "", **numbers: Any) -> dict[str, Any]:
    timed = {"started": started, "cpu_seconds": round(7.3 * seconds, 1), "peak_memory": 5120.5} if command else {}
    commands = [command] if command else []
    return {"job": name, "wall_seconds": seconds + 4, "relion_seconds": seconds, "commands": commands} | timed | numbers


def _level_jobs(binning: int, clock: float, before: int, rng: Any) -> tuple[list[dict[str, Any]], float]:
    box, resolution, unmasked, kept = LEVELS[binning]
    pixel_size, scale = PIXEL_SIZE * binning, (4 / binning) ** 1.6
    visible = before - 12 * (binning == 4)
    shells = shell_resolutions(box, pixel_size)[1:]
    curves = {
        "resolution": shells.round(4).tolist(), "corrected": _curve(shells, resolution),
        "masked": _curve(shells, 0.96 * resolution), "unmasked": _curve(shells, unmasked),
        "randomised": (0.9 * np.exp(-np.arange(len(shells)) / 3) + 0.01).round(4).tolist(),
    }  # fmt: skip
    history = [None, 48.0, *np.geomspace(44, resolution, 11).round(2).tolist()]
    height = np.linspace(1, -1, 19)
    counts = rng.poisson(3.0 + 5 * np.exp(-(((np.arange(18) - 8.5) / 4) ** 2))[:, None] * np.ones(36)).tolist()
    angles = {
        "rot": np.linspace(-180, 180, 37).tolist(),
        "tilt": np.degrees(np.arccos(height)).tolist(),
        "counts": counts,
    }
    refine = f"mpirun -n 3 relion_refine_mpi --o Refine3D/bin{binning}/run --auto_refine --j 8 --gpu 0:1"
    removed = visible - kept if binning == 4 else 0
    lost = ["12 particles are not visible in any tilt and were left out."] if visible < before else []
    sharp = "The phase-randomised FSC at 12.4 A is 0.14: the mask is too sharp, and the masked FSC better than the map."
    made = [
        _job(f"Extract/bin{binning}", 60 * scale, clock, "mpirun -n 8 relion_tomo_subtomo_mpi --j 1",
             particles_in=before, particles_out=visible, warnings=lost),
        _job(f"Refine3D/bin{binning}", 900 * scale, clock + 60 * scale, refine, particles_in=visible,
             particles_out=visible, resolution=1.02 * resolution, iterations=12, history=history, angles=angles),
        _job(f"Select/bin{binning}", 0, particles_in=visible if binning == 4 else kept, particles_out=kept,
             duplicates_removed=removed, distance=45.0),
        _job(f"PostProcess/bin{binning}_result", 40 * scale, clock + 960 * scale, "relion_postprocess --i half1.mrc",
             resolution=resolution, resolution_unmasked=unmasked, nyquist_limited=False, low_pass=1.5 * resolution,
             fsc=curves, mask={"low_pass": 18.0, "threshold": 0.0042, "from_density": True},
             warnings=[sharp] if binning == 2 else []),
    ]  # fmt: skip
    verdict = {4: "not determined", 2: "partly", 1: "consistent"}[binning]
    made.append(_job(f"Orientations/bin{binning}", 20, clock + 1000 * scale, "relion_refine --iter 1",
                     orientations=orientation_test(verdict)))  # fmt: skip
    if binning == 2:
        made += _class_jobs(clock, visible)
    return made, clock + 1010 * scale


def orientation_test(judgement: str) -> dict[str, Any]:
    """What the test of orientations noted, of 200 particles."""
    within = {"consistent": 171, "partly": 80, "not determined": 7}[judgement]
    edges = np.arange(0, 181, 5)
    spread = np.exp(-np.arange(36) / 1.2)
    by_chance = np.diff((np.radians(edges) - np.sin(np.radians(edges))) / np.pi) * 24 * (edges[:-1] < 60)
    by_chance = 200 * by_chance / by_chance.sum()
    counts = (within * spread / spread.sum() + (200 - within) / 200 * by_chance).round().astype(int)
    return {
        "judgement": judgement, "text": f"{judgement}: {within} of 200 particles have the same orientation.",
        "judged": 200, "within": within, "degrees": 15.0, "chance": 0.0226, "share": within / 200, "median": 6.1,
        "chance_median": 41.2, "edges": edges.tolist(), "counts": counts.tolist(), "expected": by_chance.tolist(),
    }  # fmt: skip


def _class_jobs(clock: float, particles: int) -> list[dict[str, Any]]:
    keep = LEVELS[2][3]
    rows = [(1, keep, 12.9, 1.4, 1.9, 12.9, 1.0, None, True, "the best resolution"),
            (2, particles - keep - 131, 26.0, 4.8, 6.1, 41.2, 0.41, 0.93, False,
             "no features: angles known to 4.8 degrees only"),
            (3, 131, 38.5, 12.5, 9.9, None, None, 0.55, False, "small")]  # fmt: skip
    keys = (
        "class",
        "particles",
        "resolution",
        "accuracy_rotation",
        "accuracy_translation",
        "similarity",
        "likeness",
        "apart",
        "kept",
        "why",
    )
    classes = [dict(zip(keys, row, strict=True)) | {"share": row[1] / particles} for row in rows]
    command = "mpirun -n 3 relion_refine_mpi --o Class3D/bin2/run --K 3 --j 8 --gpu 0:1"
    return [
        _job("Class3D/bin2", 1400, clock + 3000, command, particles_in=particles, particles_out=particles),
        _job("Select/bin2_classes", 0, particles_in=particles, particles_out=keep, classes=classes,
             reason="In classes 2 and 3, which were not kept."),
    ]  # fmt: skip


def _polishing_jobs(names: list[str], defocus: Any, clock: float, rng: Any) -> list[dict[str, Any]]:
    steps = [
        ("ctf", "ctf_refine", 1, 7.6, 8.71, "better", "7.60 A instead of 7.90 A"),
        ("polish", "polish", 1, 7.1, 9.23, "better", "7.10 A instead of 7.60 A"),
        ("ctf", "ctf_refine", 2, 7.1, 9.21, "worse", "7.10 A as before, area -0.20%"),
    ]
    verdicts = [
        _job(f"PostProcess/bin1_cycle{cycle}_{ending}", 30, clock + 7500, "relion_postprocess", step=step, cycle=cycle,
             resolution=resolution, area=area, judgement=judgement, accepted=judgement != "worse", why=why,
             nyquist_limited=False, particles=f"Select/bin1_cycle{cycle}_{ending}/particles.star",
             tilt_series={"tomograms": f"Polish/bin1_cycle{cycle}/tomograms.star", "motion": ""})
        for ending, step, cycle, resolution, area, judgement, why in steps
    ]  # fmt: skip
    changes = {
        name: {"before": value, "after": round(value + rng.normal(60, 130), 1), "change_std": 20.0 + index}
        for index, (name, value) in enumerate(zip(names, defocus, strict=True))
    }
    motion = {"rms": 2.41, "per_tomogram": {name: round(rng.uniform(1.2, 4.1), 2) for name in names}}
    return [
        _job("CtfRefine/bin1_cycle1", 2100, clock, "relion_tomo_refine_ctf --j 16", defocus=changes),
        _job("Polish/bin1_cycle1", 5400, clock + 2100, "relion_tomo_align --j 16", motion=motion),
        *verdicts,
    ]


def analysis_jobs(name: str = "bin1_cycle1_polish", resolution: float = 7.1) -> list[dict[str, Any]]:
    """What the steps on the best map noted."""
    box = LEVELS[1][0]
    shells = shell_resolutions(box, PIXEL_SIZE)[1:]
    squared = (1 / shells**2).round(6)
    amplitude = -2.0 - 18 * np.sqrt(squared) ** 0.5 - 62 * squared
    weight = np.log(np.array(_curve(shells, resolution)) + 1e-3)
    fitted = np.flatnonzero((shells < 10) & (shells > resolution))
    slope, intercept = np.polyfit(squared[fitted], (amplitude + weight)[fitted], 1)
    guinier = {
        "frequency_squared": squared.tolist(), "original": amplitude.round(4).tolist(),
        "weighted": _known(amplitude + weight, shells > 0.9 * resolution),
        "sharpened": _known(amplitude + weight - slope * squared, shells > 0.9 * resolution),
    }  # fmt: skip
    sharpening = {
        "sharpened": True, "b_factor": 4 * slope, "source": "Guinier plot", "slope": slope, "intercept": intercept,
        "why": "The slope of the Guinier plot from 10 A to 7.1 A, 9 shells.", "correlation": -0.97, "lowest": 10.0,
        "guinier": guinier,
    }  # fmt: skip
    axes = directions.directions()
    reached = resolution * (0.93 + 0.5 * axes[:, 2] ** 4)
    curves = np.array([_curve(shells, one) for one in reached])
    tilts = np.radians(np.arange(-60, 61, 3))
    views = directions.view_counts(np.stack([np.sin(tilts), 0 * tilts, np.cos(tilts)], axis=1))
    found = resolution_by_direction(np.c_[np.ones(len(axes)), curves], PIXEL_SIZE)
    found |= sampling_by_direction(views, axes, "D2")
    edges = np.linspace(6.2, 11.4, 41)
    counts = (
        9000 * np.exp(-(((edges[:-1] - 7.3) / 0.7) ** 2)) + 900 * np.exp(-(((edges[:-1] - 10) / 0.8) ** 2))
    ).round()
    local = {
        "best": 6.4, "median": 7.4, "worst": 10.2, "sampling": 25.0, "range": [6.2, 11.4],
        "edges": edges.round(3).tolist(), "counts": counts.astype(int).tolist(),
    }  # fmt: skip
    halves = np.array(_curve(shells, resolution))
    template = {
        "judgement": "partly", "low_pass": 37.5, "resolution": resolution, "agrees_to": 13.2, "share": 0.55,
        "text": "Beyond the 37.5 A to which the template was given, the map agrees with it in part (55% of what the "
        "half maps allow): they differ.",
        "fsc": {"resolution": shells.round(4).tolist(), "template": _curve(shells, 12.0), "halves": halves.tolist(),
                "allowed": np.sqrt(2 * halves / (1 + halves)).round(4).tolist()},
    }  # fmt: skip
    points = [Point(*row, False) for row in ((3912, 7.1), (1956, 7.62), (978, 8.25), (489, 9.02))]
    plot = {"points": [vars(point) for point in points]} | line_of(points)
    command = "mpirun -n 8 relion_postprocess_mpi --locres --i half1.mrc"
    return [
        _job(
            f"PostProcess/{name}_sharpened", 2, START + 20000, "relion_postprocess --auto_bfac", sharpening=sharpening
        ),
        _job(f"LocalRes/{name}", 190, START + 20000, command, local_resolution=local),
        _job(f"Directions/{name}", 0, directions=found),
        _job(f"Template/{name}", 0, template=template),
        _job(f"ParticlePlot/{name}", 5, START + 20100, "relion_postprocess", particle_plot=plot),
    ]


def _known(values: np.ndarray, known: np.ndarray) -> list[float | None]:
    return [round(float(value), 4) if one else None for value, one in zip(values, known, strict=True)]


def _curve(shells: np.ndarray, resolution: float) -> list[float]:
    """Falls through 0.143 at the resolution."""
    return (1 / (1 + 6 * (resolution / shells) ** 9)).round(4).tolist()


def make_maps(run: Path, binnings: tuple[int, ...] = (4, 2, 1), project: str = "") -> None:
    """Post-processed maps of a simulated structure, and class averages."""
    root = run / project
    structure, rng = make_structure(DIAMETER, "O", 3), np.random.default_rng(1)
    for binning in binnings:
        box, resolution = LEVELS[binning][:2]
        data = density(structure, box, PIXEL_SIZE * binning)
        data = gaussian_low_pass(data, PIXEL_SIZE * binning, resolution)
        data += rng.normal(scale=0.02 * data.std(), size=data.shape).astype(np.float32)
        write_map(root / f"PostProcess/bin{binning}_result/postprocess.mrc", data, PIXEL_SIZE * binning)
    if 1 in binnings:
        # The best step of polishing.
        best = root / "PostProcess/bin1_cycle1_polish"
        shutil.copytree(root / "PostProcess/bin1_result", best)
        shutil.copytree(best, root / "PostProcess/bin1_cycle1_polish_sharpened")
        _write_local_resolution(root / "LocalRes/bin1_cycle1_polish", best / "postprocess.mrc")
    for number, low_pass in ((1, 13), (2, 26), (3, 60)) if 2 in binnings else ():
        data = gaussian_low_pass(density(structure, 48, 2 * PIXEL_SIZE), 2 * PIXEL_SIZE, low_pass)
        write_map(root / f"Class3D/bin2/run_class{number:03d}.mrc", data, 2 * PIXEL_SIZE)


def _write_local_resolution(job: Path, best: Path) -> None:
    """Worse towards one side, and not known in the corners."""
    filtered = read_map(best)
    box = filtered.data.shape[0]
    local = np.broadcast_to(np.linspace(5.5, 12.0, box, dtype=np.float32), filtered.data.shape)
    write_map(job / "relion_locres.mrc", np.where(radii(box) < 0.45 * box, local, 0), filtered.pixel_size)
    write_map(job / "relion_locres_filtered.mrc", filtered.data, filtered.pixel_size)


def make_run(run: Path, failed: bool = False) -> dict[str, Any]:
    """A run in an output directory: results.json, report.html and the maps; ``failed`` in its last refinement."""
    binnings = (4, 2) if failed else (4, 2, 1)
    plan, jobs = make_plan(), make_jobs(binnings, polished=not failed)
    make_maps(run, binnings)
    results = collect_results(plan, {"ribosome": jobs}, [FAILURE] if failed else [], {"nextflow": "25.04.4"})
    write_outcome(results, find_in(run), run)
    return json.loads((run / "results.json").read_text())
