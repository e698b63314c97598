"""The result of a run: what every job noted, in one document. The report and the closing lines are made from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from py2rely_core import __version__
from py2rely_core.polishing import best_step
from py2rely_core.selection import records_as_text

#: Jobs of one level, in the order in which they run; ``{}`` stands for the level's name.
LEVEL_JOBS = (
    "Extract/{}",
    "Reference/template",
    "Class3D/{}_template",
    "InitialModel/{}",
    "Reconstruct/{}_start",
    "PostProcess/{}_start",
    "Refine3D/{}",
    "Select/{}",
    "Reconstruct/{}_result",
    "PostProcess/{}_result",
    "Class3D/{}",
    "Select/{}_classes",
    "Reconstruct/{}_selected_start",
    "PostProcess/{}_selected_start",
    "Refine3D/{}_selected",
    "Select/{}_selected",
    "Reconstruct/{}_selected_result",
    "PostProcess/{}_selected_result",
)
#: Jobs of one cycle of polishing, likewise; ``{}`` stands for the cycle's name.
CYCLE_JOBS = (
    "CtfRefine/{}",
    "Reconstruct/{}_ctf",
    "PostProcess/{}_ctf",
    "Polish/{}",
    "Reconstruct/{}_polish",
    "PostProcess/{}_polish",
    "Extract/{}",
    "Refine3D/{}",
    "Reconstruct/{}_refine",
    "PostProcess/{}_refine",
)
#: Steps of a cycle, by the ending of the names of their jobs.
STEPS = {"ctf": "ctf_refine", "polish": "polish", "refine": "refine"}
Job = dict[str, Any]


def read_jobs(entries: list[tuple[str, Path]]) -> dict[str, dict[str, Job]]:
    """Jobs by data set and name.

    Parameters
    ----------
    entries : list of (str, Path)
        Data set id and ``job.json``.
    """
    jobs: dict[str, dict[str, Job]] = {}
    for identity, path in entries:
        job = json.loads(path.read_text())
        jobs.setdefault(identity, {})[job["job"]] = job
    return jobs


def collect_results(plan: dict[str, Any], jobs: dict[str, dict[str, Job]]) -> dict[str, Any]:
    """The content of ``results.json``.

    Parameters
    ----------
    plan : dict
        As :func:`py2rely_core.preflight.make_plan` returns it.
    jobs : dict
        As :func:`read_jobs` returns it.

    Returns
    -------
    dict
        ``{"versions", "warnings", "datasets": [...]}``; paths are relative to outdir, lengths in Angstrom,
        times in seconds.
    """
    versions = {"py2rely-nf": __version__, "relion": plan["relion"]}
    datasets = [_dataset(planned, jobs.get(planned["id"], {}), versions) for planned in plan["datasets"]]
    warnings = [f"{one['what']} {one['where']}".strip() for one in plan["warnings"]]
    return {"versions": versions, "warnings": warnings, "datasets": datasets}


def _dataset(planned: dict[str, Any], jobs: dict[str, Job], versions: dict[str, str]) -> dict[str, Any]:
    levels = [_level(level, index, planned, jobs, versions) for index, level in enumerate(planned["levels"])]
    done = [level for level in levels if level["particles_out"] is not None]
    waits = any(level["classes"] and level["classes_wanted"] for level in levels)
    polishing = _polishing(planned, jobs)
    return {
        "id": planned["id"],
        "status": "classes are to be chosen" if waits else "complete",
        "initial_reference": planned["mode"],
        "start": planned.get("start", "picks"),
        "symmetry": planned["recipe"]["refine3D"]["sym_name"].upper(),
        "particle_diameter": planned["recipe"]["refine3D"]["particle_diameter"],
        "particles_in": jobs.get("Import/tilt_series", {}).get("particles_out"),
        "tilt_series": jobs.get("Import/tilt_series", {}).get("tilt_series"),
        "final": _final(planned, done[-1] if waits and done else levels[-1], polishing),
        "levels": levels,
        "polishing": polishing,
        "warnings": [f"bin {level['binning']}: {text}" for level in levels for text in level["warnings"]]
        + [text for cycle in polishing.get("cycles", []) for text in cycle["warnings"]],
        "parameters": planned["recipe"],
    }


def _final(planned: dict[str, Any], level: dict[str, Any], polishing: dict[str, Any]) -> dict[str, Any]:
    """The best that came out: the last level's result, or the best step of polishing; paths relative to outdir."""
    root = f"{planned['project']}/" if planned["project"] else ""
    name = level["name"]
    given = planned.get("start") == "polish"
    final = {
        "map": f"{root}PostProcess/{name}_result/postprocess.mrc",
        "half_maps": [f"{root}Reconstruct/{name}_result/half{half}.mrc" for half in (1, 2)],
        "mask": f"{root}MaskCreate/{name}_result/mask.mrc",
        "particles": f"{root}Select/{'input' if given else name}/particles.star",
        "tilt_series": f"{root}Import/tilt_series/tomograms.star",
        "motion": f"{root}Import/tilt_series/motion.star" if planned.get("motion") else None,
        "resolution": level["resolution"]["masked"],
        "nyquist_limited": level["nyquist_limited"],
        "binning": level["binning"],
    }
    best = next((one for one in polishing.get("cycles", []) if one["name"] == polishing["best"]), None)
    if best is None:
        return final
    return final | {
        "map": f"{root}PostProcess/{best['name']}/postprocess.mrc",
        "half_maps": [f"{root}Reconstruct/{best['name']}/half{half}.mrc" for half in (1, 2)],
        "particles": f"{root}{best['particles']}",
        "tilt_series": f"{root}{best['tilt_series']['tomograms']}",
        "motion": f"{root}{best['tilt_series']['motion']}" if best["tilt_series"]["motion"] else None,
        "resolution": best["resolution"],
        "nyquist_limited": best["nyquist_limited"],
    }


def _polishing(planned: dict[str, Any], jobs: dict[str, Job]) -> dict[str, Any]:
    """Every step of every cycle with its verdict, and the name of the best; empty when nothing was polished."""
    cycles = []
    for number in range(1, (planned.get("polishing") or {}).get("cycles", 0) + 1):
        for ending, step in STEPS.items():
            name = f"bin1_cycle{number}_{ending}"
            job = jobs.get(f"PostProcess/{name}")
            if job is not None:
                cycles.append(_step(name, number, step, job, jobs))
    if not cycles:
        return {}
    best = best_step(cycles)
    ran = [jobs[one] for one in _cycle_jobs(planned) if one in jobs]
    return {
        "best": best["name"] if best else f"{planned['levels'][-1]['name']}_result",
        "cycles": cycles,
        "wall_seconds": round(sum(job["wall_seconds"] for job in ran), 1),
        "relion_seconds": round(sum(job["relion_seconds"] for job in ran), 1),
        "jobs": [_ran(job) for job in ran],
    }


def _cycle_jobs(planned: dict[str, Any]) -> list[str]:
    cycles = range(1, (planned.get("polishing") or {}).get("cycles", 0) + 1)
    return [name.format(f"bin1_cycle{number}") for number in cycles for name in CYCLE_JOBS]


def _step(name: str, number: int, step: str, job: Job, jobs: dict[str, Job]) -> dict[str, Any]:
    source = {"ctf_refine": f"CtfRefine/bin1_cycle{number}", "polish": f"Polish/bin1_cycle{number}"}.get(step, "")
    noted = {key: jobs.get(source, {}).get(key) for key in ("defocus", "motion") if key in jobs.get(source, {})}
    verdict = {key: job.get(key) for key in ("judgement", "accepted", "why", "resolution", "area", "particles")}
    return {
        "name": name,
        "cycle": number,
        "step": step,
        **verdict,
        "tilt_series": job.get("tilt_series", {"tomograms": "Import/tilt_series/tomograms.star", "motion": ""}),
        "nyquist_limited": job.get("nyquist_limited", False),
        "fsc": job.get("fsc", {}),
        **noted,
        "warnings": job.get("warnings", []),
    }


def _ran(job: Job) -> dict[str, Any]:
    return {key: job[key] for key in ("job", "wall_seconds", "relion_seconds", "commands")}


def _level(
    level: dict[str, Any], index: int, planned: dict[str, Any], jobs: dict[str, Job], versions: dict[str, str]
) -> dict[str, Any]:
    plain = level["name"]
    name = f"{plain}_selected" if f"Select/{plain}_selected" in jobs else plain
    names = [one.format(plain) for one in LEVEL_JOBS if index == 0 or "{}" in one]
    done = [jobs[one] for one in names if one in jobs]
    refine, select = jobs.get(f"Refine3D/{name}", {}), jobs.get(f"Select/{plain}", {})
    result, start = jobs.get(f"PostProcess/{name}_result", {}), jobs.get(f"PostProcess/{plain}_start", {})
    chosen = jobs.get(f"Select/{plain}_classes", {})
    return {
        "name": name,
        "binning": level["binning"],
        "pixel_size": level["pixel_size"],
        "box": level["size"],
        "extraction_box": level["extract"]["box"],
        "particles_in": jobs.get(f"Extract/{plain}", {}).get("particles_in"),
        "particles_out": chosen.get("particles_out", select.get("particles_out")),
        "duplicates_removed": select.get("duplicates_removed", 0),
        "classes": chosen.get("classes", []),
        "classes_reason": chosen.get("reason"),
        "classes_wanted": bool((level.get("classification") or {}).get("waits")),
        "low_pass": level["refine"]["low_pass"] or start.get("low_pass"),
        "resolution": {
            "masked": result.get("resolution"),
            "unmasked": result.get("resolution_unmasked"),
            "refine3D": refine.get("resolution"),
        },
        "nyquist_limited": result.get("nyquist_limited", False),
        "iterations": refine.get("iterations"),
        "history": refine.get("history", []),
        "mask": result.get("mask"),
        "fsc": result.get("fsc", {}),
        "wall_seconds": round(sum(job["wall_seconds"] for job in done), 1),
        "relion_seconds": round(sum(job["relion_seconds"] for job in done), 1),
        "jobs": [_ran(job) for job in done],
        "versions": versions,
        "warnings": list(dict.fromkeys(text for job in done for text in job.get("warnings", []))),
    }


def resolution_text(dataset: dict[str, Any]) -> str:
    """The resolution as one says it: a number, or the bound that Nyquist sets."""
    final = dataset["final"]
    if final["resolution"] is None:
        return "not known"
    if final["nyquist_limited"]:
        return f"Nyquist-limited at {final['resolution']:.1f} Å (bin {final['binning']})"
    return f"{final['resolution']:.1f} Å (masked FSC 0.143, bin {final['binning']})"


def polishing_as_text(polishing: dict[str, Any]) -> list[str]:
    """The table of all steps of all cycles, and which of them is the final map."""
    lines = [
        f"cycle {step['cycle']:>2}  {step['step']:<10}  {step['judgement']:<6}  {step['why']}"
        for step in polishing["cycles"]
    ]
    return [*lines, f"best: {polishing['best']}"]


def summary(results: dict[str, Any]) -> str:
    """The lines that a run ends with; paths relative to the output directory."""
    lines = []
    for dataset in results["datasets"]:
        final = dataset["final"]
        lines += [
            f"  {dataset['id']}: {resolution_text(dataset)}, {dataset['levels'][-1]['particles_out']} particles",
            f"    map        {final['map']}",
            f"    half maps  {'  '.join(final['half_maps'])}",
            f"    mask       {final['mask']}",
            f"    particles  {final['particles']}",
        ]
        for level in dataset["levels"]:
            if level["classes"]:
                table = [*records_as_text(level["classes"]), level["classes_reason"]]
                lines += [f"    classes at bin {level['binning']}", *(f"      {line}" for line in table)]
        if dataset["polishing"]:
            lines += ["    polishing", *(f"      {line}" for line in polishing_as_text(dataset["polishing"]))]
        lines += [f"    warning    {text}" for text in dataset["warnings"]]
    lines += ["  report       report.html", "  all numbers  results.json"]
    return "\n".join(lines) + "\n"
