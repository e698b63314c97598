"""The result of a run: what every job noted, in one document. The report and the closing lines are made from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from py2rely_core import __version__

#: Jobs of one level, in the order in which they run.
LEVEL_JOBS = (
    "Reference/template",
    "Extract/bin{}",
    "Class3D/bin{}_template",
    "InitialModel/bin{}",
    "Reconstruct/bin{}_start",
    "MaskCreate/bin{}_start",
    "PostProcess/bin{}_start",
    "Refine3D/bin{}",
    "Select/bin{}",
    "Reconstruct/bin{}_result",
    "PostProcess/bin{}_result",
)
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
    final, binning = levels[-1], planned["levels"][-1]["binning"]
    root = f"{planned['project']}/" if planned["project"] else ""
    return {
        "id": planned["id"],
        "initial_reference": planned["mode"],
        "symmetry": planned["recipe"]["refine3D"]["sym_name"].upper(),
        "particle_diameter": planned["recipe"]["refine3D"]["particle_diameter"],
        "particles_in": jobs.get("Import/tilt_series", {}).get("particles_out"),
        "tilt_series": jobs.get("Import/tilt_series", {}).get("tilt_series"),
        "final": {
            "map": f"{root}PostProcess/bin{binning}_result/postprocess.mrc",
            "half_maps": [f"{root}Reconstruct/bin{binning}_result/half{half}.mrc" for half in (1, 2)],
            "mask": f"{root}MaskCreate/bin{binning}_result/mask.mrc",
            "particles": f"{root}Select/bin{binning}/particles.star",
            "tilt_series": f"{root}Import/tilt_series/tomograms.star",
            "resolution": final["resolution"]["masked"],
            "nyquist_limited": final["nyquist_limited"],
            "binning": binning,
        },
        "levels": levels,
        "warnings": [f"bin {level['binning']}: {text}" for level in levels for text in level["warnings"]],
        "parameters": planned["recipe"],
    }


def _level(
    level: dict[str, Any], index: int, planned: dict[str, Any], jobs: dict[str, Job], versions: dict[str, str]
) -> dict[str, Any]:
    binning = level["binning"]
    names = [name.format(binning) for name in LEVEL_JOBS]
    done = [jobs[name] for name in names if name in jobs and (index == 0 or "{}" in LEVEL_JOBS[names.index(name)])]
    refine, select = jobs.get(f"Refine3D/bin{binning}", {}), jobs.get(f"Select/bin{binning}", {})
    result, start = jobs.get(f"PostProcess/bin{binning}_result", {}), jobs.get(f"PostProcess/bin{binning}_start", {})
    return {
        "binning": binning,
        "pixel_size": level["pixel_size"],
        "box": level["size"],
        "extraction_box": level["extract"]["box"],
        "particles_in": jobs.get(f"Extract/bin{binning}", {}).get("particles_in"),
        "particles_out": select.get("particles_out"),
        "duplicates_removed": select.get("duplicates_removed", 0),
        "low_pass": planned["levels"][0]["refine"]["low_pass"] if index == 0 else start.get("low_pass"),
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
        "jobs": [{key: job[key] for key in ("job", "wall_seconds", "relion_seconds", "commands")} for job in done],
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
        lines += [f"    warning    {text}" for text in dataset["warnings"]]
    lines += ["  report       report.html", "  all numbers  results.json"]
    return "\n".join(lines) + "\n"
