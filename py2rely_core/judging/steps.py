"""A step of polishing, put to the test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from py2rely_core.judging.polishing import Curve, Verdict, judge
from py2rely_core.problems import ProblemError
from py2rely_core.relion.outputs.averages import check_postprocess, check_reconstruct, read_fsc
from py2rely_core.relion.outputs.job import bad_output, write_numbers
from py2rely_core.relion.run import commands


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
