"""The result of a run: what every job noted, in one document. The report and the closing lines are made from it."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import shlex
from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from py2rely_core import __version__
from py2rely_core.judging.numbers import comparison_text
from py2rely_core.judging.polishing import best_step
from py2rely_core.judging.selection import records_as_text
from py2rely_core.judging.slab_classes import not_judged_text
from py2rely_core.problems import ExitCode, Problem, ProblemError
from py2rely_core.relion.outputs.job import lost_text, one_line
from py2rely_core.results.explanations import explain
from py2rely_core.results.failure import failures_of
from py2rely_core.results.schema import Dataset, validated
from py2rely_core.results.tasks import steps_of

#: Jobs of one level, in the order in which they run. Others of the level's binning come after them.
LEVEL_JOBS = (
    "Reference/template",
    "Reference/bin{}_template",
    "Extract/bin{}",
    "Class3D/bin{}_template",
    "Class3D/bin{}_template_half1",
    "Class3D/bin{}_template_half2",
    "Select/bin{}_template",
    "InitialModel/bin{}",
    "Reconstruct/bin{}_start",
    "PostProcess/bin{}_start",
    "Refine3D/bin{}",
    "Select/bin{}",
    "Reconstruct/bin{}_result",
    "PostProcess/bin{}_result",
    "Class3D/bin{}",
    "ClassTest/bin{}",
    "Select/bin{}_classes",
    "Reconstruct/bin{}_selected_start",
    "PostProcess/bin{}_selected_start",
    "Refine3D/bin{}_selected",
    "Select/bin{}_selected",
    "Reconstruct/bin{}_selected_result",
    "PostProcess/bin{}_selected_result",
    "Orientations/bin{}",
    "Orientations/bin{}_selected",
)
#: Jobs that choose picks by 2D classification, in their order; they come before all levels.
SLAB_JOBS = ("Extract/slabs", "Class2D/slabs_first", "Select/slabs_first", "Class2D/slabs", "Select/slabs")
#: Steps on the best map: their names in the plan and in results, and the jobs that note what they found.
ANALYSES = {
    "sharpening": "PostProcess/{}_sharpened",
    "local_resolution": "LocalRes/{}",
    "directions": "Directions/{}",
    "template": "Template/{}",
    "particle_plot": "ParticlePlot/{}",
}
#: What is said of a resolution with which orientations it was reached.
ORIENTATIONS = {
    "consistent": ", orientations consistent",
    "partly": ", orientations consistent in part",
    "not determined": " of a map that means nothing: ORIENTATIONS NOT DETERMINED",
    "not tested": ", orientations not tested",
}
#: Resolution, Angstrom, from which on the pitch of helices shows a map's hand.
HAND_SHOWS = 5.0
#: Steps of a cycle of polishing, in their order, by the ending of the names of their jobs.
STEPS = {"ctf": "ctf_refine", "polish": "polish", "refine": "refine"}
#: Python packages that compute or draw.
PACKAGES = ("numpy", "scipy", "pandas", "mrcfile", "pydantic", "jinja2", "pillow")
_BINNING = re.compile(r"/bin(\d+)(?:_|$)")
#: Of several classifications side by side.
_NUMBER = re.compile(r"_k\d+$")
_CYCLE = re.compile(r"_cycle(\d+)")
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


def collect_results(
    plan: dict[str, Any],
    jobs: dict[str, dict[str, Job]],
    failures: Sequence[dict[str, Any]] = (),
    versions: dict[str, str] | None = None,
    ended: Collection[str] | None = None,
) -> dict[str, Any]:
    """The content of ``results.json``.

    Parameters
    ----------
    plan : dict
        As :func:`py2rely_core.checks.preflight.make_plan` returns it.
    jobs : dict
        As :func:`read_jobs` returns it.
    failures : sequence of dict
        What failed, each as :class:`py2rely_core.results.schema.Failure`; the one that ended the run is the first.
    versions : dict, optional
        Of what this process cannot know, such as Nextflow.
    ended : collection of str, optional
        Ids of the data sets that came to the end of their steps; without it, those whose levels are complete.

    Returns
    -------
    dict
        As :class:`py2rely_core.results.schema.Results` says; paths are relative to outdir, lengths in Angstrom, times
        in seconds.
    """
    known = _versions(plan["relion"]) | (versions or {})
    datasets = [
        _dataset(planned, jobs.get(planned["id"], {}), known, bool(failures), ended) for planned in plan["datasets"]
    ]
    return validated(
        {
            "status": "failed" if failures else "complete",
            "failure": next(iter(failures), None),
            "failures": list(failures),
            "versions": known,
            "warnings": [f"{one['what']} {one['where']}".strip() for one in plan["warnings"]],
            "warning_details": _warning_details(plan["warnings"], datasets),
            "datasets": datasets,
        }
    )


def refuse_lost(plan: dict[str, Any], results: dict[str, Any]) -> None:
    """Stop where more tilt series were left out than may be: the limit was lowered after they were.

    Raises
    ------
    ProblemError
        With the tilt series of every such data set.
    """
    limits = {one["id"]: one["lose"] for one in plan["datasets"]}
    problems = []
    for dataset in results["datasets"]:
        lost, limit = dataset["lost_tilt_series"], limits[dataset["id"]]
        if len(lost) > limit:
            what = f"{dataset['id']}: {lost_text(lost)}."
            fix = "Allow as many with --max_lost_tilt_series, or repair them and start without -resume."
            problems.append(Problem(what, "--max_lost_tilt_series", f"at most {limit}", fix))
    if problems:
        raise ProblemError(problems, ExitCode.BAD_PARAMETERS)


def refuse_missing_levels(results: dict[str, Any]) -> None:
    """Stop where a data set that came to its end lacks a level that was planned.

    Raises
    ------
    ProblemError
        With every level that is missing.
    """
    missing = [
        f"{dataset['id']}: bin {level['binning']}"
        for dataset in results["datasets"]
        for level in dataset["levels"]
        if dataset["status"] == "complete" and level["status"] != "complete"
    ]
    if missing:
        what = f"Levels are missing, and no step failed: {', '.join(missing)}."
        fix = "This is a fault of the pipeline's: please report it, with plan.json and .nextflow.log."
        raise ProblemError(Problem(what, "plan.json", "a result of every level", fix), ExitCode.INTERNAL)


def collect_failed(run: dict[str, Any]) -> dict[str, Any]:
    """The content of ``results.json`` of a run that failed: why, and what was complete until then.

    Parameters
    ----------
    run : dict
        What Nextflow knows: ``plan`` (path, empty when the run failed before it), ``jobs`` (data set, project and
        directory of each job that is complete), ``ended`` (data sets that came to their end), ``error_report``,
        ``error_message``, ``exit_status``, ``nextflow``, and ``outdir``, where the run noted its tasks.
    """
    plan_file = Path(run["plan"]) if run["plan"] else None
    plan = json.loads(plan_file.read_text()) if plan_file else {"relion": "", "datasets": [], "warnings": []}
    entries = [(identity, Path(path) / "job.json") for identity, _, path in run["jobs"]]
    jobs = read_jobs([entry for entry in entries if entry[1].is_file()])
    failures = failures_of(run, steps_of(Path(run["outdir"])))
    return collect_results(plan, jobs, failures, {"nextflow": run["nextflow"]}, run["ended"])


def datasets_so_far(plan: dict[str, Any], jobs: dict[str, dict[str, Job]]) -> list[dict[str, Any]]:
    """The data sets of a run that goes on, as in ``results.json``; final is only what is complete.

    Parameters
    ----------
    plan : dict
        As :func:`py2rely_core.checks.preflight.make_plan` returns it.
    jobs : dict
        Jobs that are done, as :func:`read_jobs` returns them.
    """
    known = _versions(plan["relion"])
    found = [_dataset(planned, jobs.get(planned["id"], {}), known, True, None) for planned in plan["datasets"]]
    return [Dataset.model_validate(one).model_dump(by_alias=True, mode="json") for one in found]


def _versions(relion: str) -> dict[str, str]:
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"py2rely-nf": __version__, "relion": relion, "python": platform.python_version()} | packages


def _warning_details(planned: list[dict[str, str]], datasets: list[dict[str, Any]]) -> list[dict[str, str]]:
    details = [
        {"text": one["what"], "where": one["where"], "to_do": one["fix"]} | explain(one["what"]) for one in planned
    ]
    for dataset in datasets:
        for level in dataset["levels"]:
            place = {"dataset": dataset["id"], "where": f"bin {level['binning']}"}
            details += [{"text": text} | place | explain(text) for text in level["warnings"]]
    return details


def _dataset(
    planned: dict[str, Any],
    jobs: dict[str, Job],
    versions: dict[str, str],
    failed: bool,
    ended: Collection[str] | None,
) -> dict[str, Any]:
    ordered = sorted(jobs.values(), key=lambda job: _order(job["job"], planned))
    levels = [_level(level, index, planned, ordered, versions) for index, level in enumerate(planned["levels"])]
    averaged = all(level["status"] == "complete" for level in levels)
    complete = (averaged or not failed) if ended is None else planned["id"] in ended
    waits = [level["name"] for level in planned["levels"] if (level.get("classification") or {}).get("waits")]
    slabs = _slabs(planned, jobs)
    slabs_wait = slabs is not None and slabs["particles_out"] is None
    choose = slabs_wait or (bool(waits) and (f"Select/{waits[0]}_classes" in jobs or complete))
    reached = [level for level in levels if level["status"] == "complete"] or levels
    polishing = _polishing(planned, jobs)
    final = _final(planned, reached[-1], polishing) if (complete or choose or averaged) and not slabs_wait else None
    analysis = _map_analysis(final, jobs)
    imported = jobs.get("Import/tilt_series", {})
    return {
        "id": planned["id"],
        "status": "choose classes" if choose else "complete" if complete else "unfinished",
        "project": planned["project"],
        "start": planned["start"],
        "initial_reference": planned["mode"],
        "symmetry": planned["recipe"]["refine3D"]["sym_name"].upper(),
        "particle_diameter": planned["recipe"]["refine3D"]["particle_diameter"],
        "particles_in": imported.get("particles_out"),
        "tilt_series": imported.get("tilt_series"),
        "series": imported.get("series", []),
        "lost_tilt_series": _lost(ordered),
        "imported": planned.get("imported", []),
        "slabs": slabs,
        "final": final and final | _sharpened_map(final, analysis),
        "levels": levels,
        "particle_steps": _particle_steps(ordered),
        "polishing": polishing,
        "map_analysis": analysis,
        "corrections": [
            {key: job.get(key, empty) for key, empty in (("job", ""), ("defocus", {}), ("motion", None))}
            for job in ordered
            if "defocus" in job or "motion" in job
        ],
        "warnings": [f"bin {level['binning']}: {text}" for level in levels for text in level["warnings"]],
        "parameters": planned["recipe"],
    }


def _slabs(planned: dict[str, Any], jobs: dict[str, Job]) -> dict[str, Any] | None:
    """How 2D classification chose picks; None where it has not, or not yet."""
    cut, found, selected = (jobs.get(name) for name in ("Extract/slabs", "Class2D/slabs", "Select/slabs"))
    if not planned.get("slabs") or selected is None or "classes" not in selected:
        return None
    root = f"{planned['project']}/" if planned["project"] else ""
    names = ("particles_in", "kept", "rejected", "not_judged", "not_judged_go_on", "particles_out", "classes", "reason")
    noted = {name: selected[name] for name in names if name in selected}
    noted |= {name: (cut or {}).get(name) for name in ("box", "pixel_size", "thickness", "tomograms")}
    first = jobs.get("Select/slabs_first", {})
    noted |= {"first_round": first.get("classes", []), "first_reason": first.get("reason", "")}
    averages = (found or {}).get("averages")
    noted |= {"job": f"{root}Class2D/slabs", "averages": f"{root}Class2D/slabs/{averages}" if averages else None}
    return {"kept": None, "rejected": None, "particles_out": None} | noted


def _lost(jobs: list[Job]) -> list[dict[str, Any]]:
    """Every tilt series that was left out, once, with the first job that lost it."""
    found: dict[str, dict[str, Any]] = {}
    for job in jobs:
        for one in job.get("lost", []):
            found.setdefault(one["tilt_series"], one | {"job": job["job"]})
    return list(found.values())


def _final(planned: dict[str, Any], level: dict[str, Any], polishing: dict[str, Any] | None) -> dict[str, Any]:
    """The best that came out: the last level's result, or the best step of polishing; paths relative to outdir."""
    root = f"{planned['project']}/" if planned["project"] else ""
    name = level["name"]
    final = {
        "map": f"{root}PostProcess/{name}_result/postprocess.mrc",
        "unsharpened": f"{root}Reconstruct/{name}_result/merged.mrc",
        "half_maps": [f"{root}Reconstruct/{name}_result/half{half}.mrc" for half in (1, 2)],
        "mask": f"{root}MaskCreate/{name}_result/mask.mrc",
        "particles": f"{root}Select/{'input' if planned['start'] == 'polish' else name}/particles.star",
        "tilt_series": f"{root}Import/tilt_series/tomograms.star",
        "motion": f"{root}Import/tilt_series/motion.star" if planned["motion"] else None,
        "resolution": level["resolution"]["masked"],
        "nyquist_limited": level["nyquist_limited"],
        "binning": level["binning"],
    }
    tested = level["orientations"]
    final |= {"orientations": tested["judgement"], "orientations_text": tested["text"]} if tested else {}
    best = next((step for step in (polishing or {"cycles": []})["cycles"] if step["name"] == polishing["best"]), None)
    if best is None:
        return final
    return final | {
        "map": f"{root}PostProcess/{best['name']}/postprocess.mrc",
        "unsharpened": f"{root}Reconstruct/{best['name']}/merged.mrc",
        "half_maps": [f"{root}Reconstruct/{best['name']}/half{half}.mrc" for half in (1, 2)],
        "particles": f"{root}{best['particles']}",
        "tilt_series": f"{root}{best['tilt_series']}",
        "motion": f"{root}{best['motion']}" if best["motion"] else None,
        "resolution": best["resolution"],
        "nyquist_limited": best["nyquist_limited"],
    }


def _map_analysis(final: dict[str, Any] | None, jobs: dict[str, Job]) -> dict[str, Any]:
    """What each step on the best map noted."""
    name = Path(final["map"]).parent.name if final else ""
    found = {step: jobs.get(job.format(name), {}) for step, job in ANALYSES.items()}
    analysis = {step: job[step] for step, job in found.items() if step in job}
    if "local_resolution" in analysis:
        place = f"{final['map'].split('PostProcess/')[0]}LocalRes/{name}/"
        names = {"map": f"{place}relion_locres.mrc", "filtered": f"{place}relion_locres_filtered.mrc"}
        analysis["local_resolution"] = analysis["local_resolution"] | names
    return analysis | {"hand": _hand(final["resolution"]) if final else ""}


def _hand(resolution: float | None) -> str:
    """What is to be said of the map's hand."""
    if resolution is not None and resolution <= HAND_SHOWS:
        return ""
    return (
        f"The hand of the map is not known: only from about {HAND_SHOWS:g} A on do helices show it. 'py2rely prepare "
        "template --mirror' makes a map's mirror image; 'py2rely check-hand' finds rlnTomoHand, the sign of the "
        "defocus across tilted images, which is another thing."
    )


def _sharpened_map(final: dict[str, Any], analysis: dict[str, Any]) -> dict[str, Any]:
    if not analysis.get("sharpening", {}).get("sharpened"):
        return {}
    return {"sharpened": final["map"].replace("/postprocess.mrc", "_sharpened/postprocess.mrc")}


def _polishing(planned: dict[str, Any], jobs: dict[str, Job]) -> dict[str, Any] | None:
    """Every step of every cycle with its verdict, and the name of the best result; None when nothing was polished."""
    steps = []
    for number in range(1, (planned["polishing"] or {}).get("cycles", 0) + 1):
        for ending, step in STEPS.items():
            name = f"bin1_cycle{number}_{ending}"
            job = jobs.get(f"PostProcess/{name}")
            if job is not None:
                steps.append({"name": name, "cycle": number, "step": step} | _verdict(job))
    if not steps:
        return None
    best = best_step(steps)
    return {"best": best["name"] if best else f"{planned['levels'][-1]['name']}_result", "cycles": steps}


def _verdict(job: Job) -> dict[str, Any]:
    names = ("judgement", "accepted", "why", "resolution", "area", "nyquist_limited", "particles", "fsc")
    tables = job["tilt_series"]
    noted = {"resolution": None, "nyquist_limited": False} | {name: job[name] for name in names if name in job}
    return noted | {"tilt_series": tables["tomograms"], "motion": tables["motion"]}


def binning_of(job: str) -> int | None:
    """The binning in a job's name, such as 4 of ``Refine3D/bin4``; None where there is none."""
    found = _BINNING.search(job)
    return int(found[1]) if found else None


def _order(name: str, planned: dict[str, Any]) -> tuple[Any, ...]:
    """Where a job comes in the run: its level, its place in the level, its cycle."""
    if name in SLAB_JOBS:
        return (-1, len(LEVEL_JOBS) + 1 + SLAB_JOBS.index(name), 0, name)
    binnings = [level["binning"] for level in planned["levels"]]
    binning = binning_of(name)
    level = binnings.index(binning) if binning in binnings else -1
    pattern = _NUMBER.sub("", _BINNING.sub(lambda found: found[0].replace(found[1], "{}", 1), name))
    place = LEVEL_JOBS.index(pattern) if pattern in LEVEL_JOBS else len(LEVEL_JOBS)
    cycle = _CYCLE.search(name)
    return (level, place, int(cycle[1]) if cycle else 0, name)


def _jobs_of(binning: int, index: int, jobs: list[Job]) -> list[Job]:
    """A level's jobs; the first level has also those of no binning, but for the import."""
    own = [job for job in jobs if binning_of(job["job"]) == binning]
    if index:
        return own
    return [
        job
        for job in jobs
        if job["job"] in SLAB_JOBS
        or (binning_of(job["job"]) is None and not job["job"].startswith(("Import/", "Select/")))
    ] + own


def _level(
    level: dict[str, Any], index: int, planned: dict[str, Any], jobs: list[Job], versions: dict[str, str]
) -> dict[str, Any]:
    binning = level["binning"]
    done = _jobs_of(binning, index, jobs)
    by_name = {job["job"]: job for job in done}
    plain = level["name"]
    name = f"{plain}_selected" if f"PostProcess/{plain}_selected_result" in by_name else plain
    refine, select = by_name.get(f"Refine3D/{name}", {}), by_name.get(f"Select/{plain}", {})
    result, start = by_name.get(f"PostProcess/{name}_result"), by_name.get(f"PostProcess/{plain}_start", {})
    classes = by_name.get(f"Select/{plain}_classes", {})
    numbers = result or {}
    # Polishing that starts from given particles has no refinement before it: they are what the level has.
    imported = next((job for job in jobs if job["job"] == "Import/tilt_series"), {})
    given = imported.get("particles_out") if planned["start"] == "polish" else None
    root = f"{planned['project']}/" if planned["project"] else ""
    return {
        "status": "complete" if result else "unfinished" if done else "waiting",
        "name": name,
        "binning": binning,
        "pixel_size": level["pixel_size"],
        "box": level["size"],
        "extraction_box": level["extract"]["box"],
        "particles_in": by_name.get(f"Extract/{plain}", {}).get("particles_in", given),
        "particles_out": classes.get("particles_out", select.get("particles_out", given)),
        "duplicates_removed": select.get("duplicates_removed", 0),
        "low_pass": _begun_with(refine) or level["refine"]["low_pass"] or start.get("low_pass"),
        "resolution": {
            "masked": numbers.get("resolution"),
            "unmasked": numbers.get("resolution_unmasked"),
            "refine3D": refine.get("resolution"),
        },
        "nyquist_limited": numbers.get("nyquist_limited", False),
        "map": f"{root}PostProcess/{name}_result/postprocess.mrc" if result else None,
        "iterations": refine.get("iterations"),
        "history": refine.get("history", []),
        "angles": refine.get("angles"),
        "mask": numbers.get("mask"),
        "fsc": numbers.get("fsc", {}),
        "orientations": _orientations(by_name.get(f"Orientations/{name}", {}), level) if result else None,
        "classes": classes.get("classes", []),
        "classes_reason": classes.get("reason", ""),
        "classes_job": classes.get("classes_job", ""),
        "classifications": classes.get("classifications", []),
        "wall_seconds": round(sum(job["wall_seconds"] for job in done), 1),
        "relion_seconds": round(sum(job["relion_seconds"] for job in done), 1),
        "jobs": [_job(job) for job in done],
        "versions": versions,
        "warnings": list(dict.fromkeys(text for job in done for text in job.get("warnings", []))),
    }


def _begun_with(refine: Job) -> float | None:
    """The low-pass that a refinement was called with; None before it has run."""
    words = [word for command in refine.get("commands", ()) for word in shlex.split(command)]
    return float(words[words.index("--ini_high") + 1]) if "--ini_high" in words else None


def _orientations(job: Job, level: dict[str, Any]) -> dict[str, Any]:
    """The verdict on a level's orientations; where there is none, why."""
    why = level.get("orientations_untested") or "the test is not done"
    return job.get("orientations") or {"judgement": "not tested", "text": f"Orientations were not tested: {why}."}


def _job(job: Job) -> dict[str, Any]:
    names = (
        "job",
        "started",
        "wall_seconds",
        "relion_seconds",
        "cpu_seconds",
        "peak_memory",
        "particles_in",
        "particles_out",
        "commands",
    )
    return {name: job[name] for name in names if name in job} | _computing(job["commands"])


def _computing(commands: list[str]) -> dict[str, Any]:
    """Ranks, threads and GPUs of a job, from the command line that used most of them."""
    words = max((command.split() for command in commands), key=_ranks, default=[])
    if not words:
        return {}
    following = dict(pairwise(words))
    threads = following.get("--j", "1")
    return {
        "ranks": _ranks(words),
        "threads": int(threads) if threads.isdigit() else None,
        "gpus": following.get("--gpu", ""),
    }


def _ranks(command: str | list[str]) -> int:
    found = re.search(r"mpirun -n (\d+)", command if isinstance(command, str) else " ".join(command))
    return int(found[1]) if found else 1


def _particle_steps(jobs: list[Job]) -> list[dict[str, Any]]:
    """Where particles came in and where they were lost, in the order of the run."""
    steps = []
    for job in jobs:
        before, after = job.get("particles_in"), job.get("particles_out")
        if job["job"] == "Import/tilt_series" and after is not None:
            steps.append({"job": job["job"], "particles_out": after, "reason": "Particles as they were given."})
        elif before is not None and after is not None and after != before:
            steps.append({"job": job["job"], "particles_in": before, "particles_out": after, "reason": _reason(job)})
    return steps


def _reason(job: Job) -> str:
    if job.get("reason"):
        return job["reason"]
    if job.get("duplicates_removed"):
        return f"Closer to another particle than {job['distance']:.3g} Å after the refinement: duplicates."
    if job["job"] in SLAB_JOBS:
        left = f"; {job['not_judged']} were not judged" if job.get("not_judged") else ""
        return f"In 2D classes of slabs that were not kept{left}."
    kind = job["job"].split("/")[0]
    known = {"Extract": "Not visible in any tilt image.", "Select": "In classes that were not kept."}
    return known.get(kind, "")


def resolution_text(dataset: dict[str, Any]) -> str:
    """The resolution as one says it: a number, or the bound that Nyquist sets."""
    final = dataset["final"]
    if final is None:
        return "unfinished"
    if final["resolution"] is None:
        return "not known"
    worth = ORIENTATIONS[final["orientations"]]
    if final["nyquist_limited"]:
        return f"Nyquist-limited at {final['resolution']:.1f} Å (bin {final['binning']}){worth}"
    return f"{final['resolution']:.1f} Å (masked FSC 0.143, bin {final['binning']}){worth}"


def polishing_as_text(polishing: dict[str, Any]) -> list[str]:
    """The table of all steps of all cycles, and which of them is the final map."""
    lines = [
        f"cycle {step['cycle']:>2}  {step['step']:<10}  {step['judgement']:<6}  {step['why']}"
        for step in polishing["cycles"]
    ]
    return [*lines, f"best: {polishing['best']}"]


def slabs_text(slabs: dict[str, Any]) -> list[str]:
    """The table of 2D classes of slabs, and what became of the picks, as lines of a summary."""
    lines = ["    2D classes of slabs", *(f"      {line}" for line in records_as_text(slabs["classes"], alike=False))]
    lines += [f"      {slabs['reason']}"]
    if slabs["not_judged"]:
        lines += [f"      {slabs['not_judged']} picks were not judged: {not_judged_text(slabs['not_judged_go_on'])}"]
    return [*lines, f"    averages   {slabs['averages']}"]


def summary(results: dict[str, Any]) -> str:
    """The lines that a run ends with; paths relative to the output directory."""
    lines = []
    for failure in results["failures"]:
        lines += [f"  FAILED: {failure['step']}", f"    {failure['what']}"]
        lines += [f"    to do      {failure['to_do']}"] if failure["to_do"] else []
        lines += [f"    where      {failure['work_dir']}"] if failure["work_dir"] else []
    for dataset in results["datasets"]:
        final = dataset["final"]
        if dataset["slabs"] and dataset["status"] == "choose classes" and final is None:
            lines += [f"  {dataset['id']}: classes are to be chosen", *slabs_text(dataset["slabs"])]
            continue
        if final is None:
            levels = [level for level in dataset["levels"] if level["status"] == "complete"]
            done = "; ".join(f"bin {level['binning']}: {level['map']}" for level in levels) or "no level"
            lines += [f"  {dataset['id']}: unfinished; complete: {done}"]
            continue
        reached = next(level for level in reversed(dataset["levels"]) if level["binning"] == final["binning"])
        particles = reached["particles_out"] or dataset["particles_in"]
        until = "; unfinished, this is the best until then" if dataset["status"] == "unfinished" else ""
        lines += [
            f"  {dataset['id']}: {resolution_text(dataset)}, {particles} particles{until}",
            f"    {final['orientations_text']}",
            f"    map        {final['map']}",
            *([f"    sharpened  {final['sharpened']}"] if final["sharpened"] else []),
            f"    half maps  {'  '.join(final['half_maps'])}",
            f"    mask       {final['mask']}",
            f"    particles  {final['particles']}",
        ]
        lines += slabs_text(dataset["slabs"]) if dataset["slabs"] else []
        for level in dataset["levels"]:
            if level["classes"]:
                table = [*records_as_text(level["classes"]), level["classes_reason"]]
                table = [*comparison_text(level["classifications"]), *table] if level["classifications"] else table
                lines += [f"    classes at bin {level['binning']}", *(f"      {line}" for line in table)]
        if dataset["polishing"]:
            lines += ["    polishing", *(f"      {line}" for line in polishing_as_text(dataset["polishing"]))]
        lines += [f"    lost       {one_line(one)}" for one in dataset["lost_tilt_series"]]
        lines += [f"    warning    {text}" for text in dataset["warnings"]]
    lines += ["  report       report.html", "  all numbers  results.json"]
    return "\n".join(lines) + "\n"
