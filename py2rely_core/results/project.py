"""The output directory as a RELION project: ``default_pipeline.star``, with every job and what it read and wrote.

RELION knows jobs by a number, ``Refine3D/job007``, and lets a person give them names. The jobs of a run have names,
``Refine3D/bin4``: here they get numbers, too, as links beside them, and their names become RELION's aliases.
Jobs that somebody added with RELION stay as they are.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from py2rely_core.problems import ExitCode, Problem, ProblemError
from py2rely_core.relion.job_star import input_paths, job_type

PIPELINE = "default_pipeline.star"
LOCK = ".relion_lock"
LOCK_SECONDS = 20
NUMBERED = re.compile(r"job(\d{3,})")
STATES = ("Succeeded", "Running", "Failed", "Aborted", "Scheduled")

#: Directories that hold jobs: RELION's label for a job of this kind whose command does not say.
KINDS = {
    "Import": "relion.importtomo",
    "Select": "relion.select.onvalue",
    "Extract": "relion.pseudosubtomo",
    "Reference": "relion.external",
    "InitialModel": "relion.initialmodel.tomo",
    "Class2D": "relion.class2d",
    "Class3D": "relion.class3d",
    "ClassTest": "relion.external",
    "Reconstruct": "relion.reconstructparticletomo",
    "Refine3D": "relion.refine3d.tomo",
    "MaskCreate": "relion.maskcreate",
    "PostProcess": "relion.postprocess",
    "CtfRefine": "relion.ctfrefinetomo",
    "Polish": "relion.framealigntomo",
    "Orientations": "relion.external",
    "LocalRes": "relion.localres.own",
    "Directions": "relion.external",
    "Template": "relion.external",
    "ParticlePlot": "relion.external",
}
#: What jobs leave that other jobs read: file and RELION's label for it; of iterations, the last.
OUTPUTS = {
    "Import": {"tomograms.star": "TomogramGroupMetadata.star.relion.tomo.import"},
    "Select": {"particles.star": "ParticleGroupMetadata.star.relion"},
    "Extract": {
        "particles.star": "ParticleGroupMetadata.star.relion.tomo.extract",
        "optimisation_set.star": "TomoOptimisationSet.star.relion.tomo.extract",
        "particles_relion.star": "ParticleGroupMetadata.star.relion",
    },
    "Class2D": {
        "run_it*_data.star": "ParticleGroupMetadata.star.relion.class2d",
        "run_it*_optimiser.star": "OptimiserData.star.relion.class2d",
    },
    "Reference": {"reference.mrc": "DensityMap.mrc.relion"},
    "InitialModel": {"initial_model.mrc": "DensityMap.mrc.relion.initialmodel"},
    "Class3D": {
        "run_it*_data.star": "ParticleGroupMetadata.star.relion.class3d",
        "run_it*_optimiser.star": "OptimiserData.star.relion.class3d",
        "run_it*_class???.mrc": "DensityMap.mrc.relion.class3d",
        "run_data.star": "ParticleGroupMetadata.star.relion.class3d",
        "run_class???.mrc": "DensityMap.mrc.relion.class3d",
    },
    "Reconstruct": {
        "merged.mrc": "DensityMap.mrc.relion.tomo.map.reconstruct",
        "half1.mrc": "DensityMap.mrc.relion.tomo.halfmap.reconstruct",
    },
    "Refine3D": {
        "run_data.star": "ParticleGroupMetadata.star.relion.refine3d",
        "run_optimiser.star": "OptimiserData.star.relion.refine3d",
        "run_half1_class001_unfil.mrc": "DensityMap.mrc.relion.halfmap.refine3d",
        "run_class001.mrc": "DensityMap.mrc.relion.refine3d",
    },
    "MaskCreate": {"mask.mrc": "Mask3D.mrc.relion"},
    "PostProcess": {
        "postprocess.mrc": "DensityMap.mrc.relion.postprocess",
        "postprocess_masked.mrc": "DensityMap.mrc.relion.postprocess.masked",
        "logfile.pdf": "LogFile.pdf.relion.postprocess",
        "postprocess.star": "ProcessData.star.relion.postprocess",
    },
    "CtfRefine": {
        "tomograms.star": "TomogramGroupMetadata.star.relion.tomo.ctfrefine",
        "particles.star": "ParticleGroupMetadata.star.relion.ctfrefine",
        "optimisation_set.star": "TomoOptimisationSet.star.relion.tomo.ctfrefine",
    },
    "Polish": {
        "tomograms.star": "TomogramGroupMetadata.star.relion.tomo.polish",
        "particles.star": "ParticleGroupMetadata.star.relion.tomo.polish",
        "motion.star": "TomoTrajectoryData.star.relion.polish",
        "optimisation_set.star": "TomoOptimisationSet.star.relion.tomo.polish",
    },
    "ClassTest": {"votes.star": "ParticleGroupMetadata.star.relion"},
    "Orientations": {"orientations.star": "ParticleGroupMetadata.star.relion"},
    "LocalRes": {
        "relion_locres_filtered.mrc": "DensityMap.mrc.relion.localresfiltered",
        "relion_locres.mrc": "Image3D.mrc.relion.localresmap",
        "histogram.pdf": "LogFile.pdf.relion.localres",
    },
    "Directions": {},
    "Template": {},
    "ParticlePlot": {},
}
#: Labels of files that no job of the project made, by what they are.
FOREIGN_LABELS = {".mrc": "DensityMap.mrc", ".star": "ParticleGroupMetadata.star.relion"}

_COLUMNS = {
    "pipeline_processes": ("ProcessName", "ProcessAlias", "ProcessTypeLabel", "ProcessStatusLabel"),
    "pipeline_nodes": ("NodeName", "NodeTypeLabel", "NodeTypeLabelDepth"),
    "pipeline_input_edges": ("EdgeFromNode", "EdgeProcess"),
    "pipeline_output_edges": ("EdgeProcess", "EdgeToNode"),
}


@dataclass
class Job:
    """One job: where it is, and what RELION should know of it. Paths are relative to the project."""

    name: str
    directory: Path
    state: str
    label: str
    started: float
    inputs: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return self.name.split("/")[0]


def new_job(project: Path, kind: str) -> Path:
    """Make the next numbered job of a project, such as ``Refine3D/job012``, which counts as running.

    Parameters
    ----------
    project : Path
        A RELION project, or what will be one.
    kind : str
        One of :data:`KINDS`.

    Returns
    -------
    Path
        The job's directory, relative to `project`.
    """
    with _locked(project):
        pipeline = read_pipeline(project)
        used = [int(found[1]) for path in project.glob("*/job*") if (found := NUMBERED.fullmatch(path.name))]
        number = max([pipeline["counter"], *[one + 1 for one in used]])
        job = Path(kind) / f"job{number:03d}"
        (project / job).mkdir(parents=True)
        pipeline["counter"] = number + 1
        pipeline["pipeline_processes"].append((f"{job}/", "None", KINDS[kind], "Running"))
        _write(project, pipeline)
    return job


def update_project(project: Path, unfinished: Mapping[str, tuple[Path, str]] | None = None) -> list[str]:
    """Write ``default_pipeline.star`` for the jobs that a project has now, and the links with their numbers.

    Parameters
    ----------
    project : Path
        The output directory, or that of one data set in it.
    unfinished : mapping of str to (Path, str), optional
        Jobs that left nothing here, by name: where they ran, and their state, one of :data:`STATES`.

    Returns
    -------
    list of str
        Names of the jobs, such as ``Refine3D/bin4``, in their order.

    Raises
    ------
    ProblemError
        RELION holds the project's lock.
    """
    jobs = {job.name: job for job in _finished(project)}
    for name, (directory, state) in (unfinished or {}).items():
        if name not in jobs and directory.is_dir() and name.split("/")[0] in KINDS:
            jobs[name] = _job(name, directory, state)
    ordered = sorted(jobs.values(), key=lambda job: (job.started, job.name))
    if not ordered:
        return []
    with _locked(project):
        _write(project, _merged(project, read_pipeline(project), ordered))
    return [job.name for job in ordered]


def update_projects(outdir: Path) -> None:
    """Do so for every data set of a run, with the jobs that did not end well.

    Parameters
    ----------
    outdir : Path
        The run's output directory.
    """
    from py2rely_core.parameters.request import SINGLE_ID
    from py2rely_core.results.status import read_status, unfinished_jobs

    status = read_status(outdir)
    for dataset in sorted({step["dataset"] for step in status["steps"]} - {""}):
        project = outdir if dataset == SINGLE_ID else outdir / dataset
        update_project(project, unfinished_jobs(status, dataset))


def _finished(project: Path) -> Iterator[Job]:
    for kind in KINDS:
        for directory in sorted((project / kind).glob("*")):
            numbered = NUMBERED.fullmatch(directory.name)
            if numbered and (directory.is_symlink() or not _noted(directory)):
                continue  # A link of ours, or a job of RELION's own.
            # A run publishes what was proven; a single job is proven when its numbers are there.
            if (directory / "job.json").is_file() or (not numbered and (_noted(directory) or kind == "Select")):
                yield _job(f"{kind}/{directory.name}", directory, "Succeeded")
            elif numbered:
                yield _job(f"{kind}/{directory.name}", directory, "Failed")


def _noted(directory: Path) -> bool:
    return any((directory / name).is_file() for name in ("job.json", "commands.jsonl"))


def _job(name: str, directory: Path, state: str) -> Job:
    ran = _lines(directory / "commands.jsonl")
    numbers = _json(directory / "job.json")
    kind = name.split("/")[0]
    known = [label for one in ran if (label := job_type(one.get("asked", one["command"])))]
    inputs = [path for one in ran for path in one.get("inputs") or input_paths(one["command"])]
    inputs += numbers.get("inputs") or []
    # Beside the notes, the data set's tables: every job on tilt series starts from them.
    started = ran[0]["started"] if ran else _age(directory)
    inputs = [path for path in dict.fromkeys(inputs) if not path.startswith(f"{name}/")]
    label = known[0] if known and KINDS[kind] != "relion.external" else KINDS[kind]
    return Job(name, directory, state, label, started, inputs)


def _age(directory: Path) -> float:
    path = directory / "job.json"
    return (path if path.is_file() else directory).stat().st_mtime


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def _merged(project: Path, old: dict[str, Any], jobs: list[Job]) -> dict[str, Any]:
    """The pipeline with these jobs in place of those of earlier runs, and all others as they were."""
    by_alias = {alias.rstrip("/"): name for name, alias, *_ in old["pipeline_processes"] if alias != "None"}
    numbers = [int(found[1]) for name, *_ in old["pipeline_processes"] if (found := NUMBERED.search(name))]
    counter = max([int(old["counter"]), *[number + 1 for number in numbers]])
    places: dict[str, str] = {}
    for job in jobs:
        numbered = NUMBERED.fullmatch(job.name.split("/")[1])
        if numbered:
            places[job.name] = job.name
            counter = max(counter, int(numbered[1]) + 1)
    for job in jobs:
        if job.name not in places and job.name in by_alias:
            places[job.name] = by_alias[job.name].rstrip("/")
        elif job.name not in places:
            places[job.name] = f"{job.kind}/job{counter:03d}"
            counter += 1
    for job in jobs:
        if places[job.name] != job.name:
            _link(project, places[job.name], job)
    result = _without(old, {f"{place}/" for place in places.values()} | _gone(project, old))
    result["counter"] = counter
    for job in jobs:
        _add(result, job, places)
    result["pipeline_processes"].sort(key=lambda row: NUMBERED.search(row[0])[1] if NUMBERED.search(row[0]) else "")
    return result


def _gone(project: Path, old: dict[str, Any]) -> set[str]:
    """Jobs with an alias of ours whose directory is no longer there."""
    rows = [(name, alias) for name, alias, *_ in old["pipeline_processes"] if alias != "None"]
    return {name for name, alias in rows if not (project / alias).exists() and not (project / name).is_dir()}


def _link(project: Path, place: str, job: Job) -> None:
    link = project / place
    link.parent.mkdir(parents=True, exist_ok=True)
    here = job.directory.parent == link.parent
    target = Path(job.directory.name) if here else job.directory.absolute()
    if link.is_symlink():
        if link.readlink() == target:
            return
        link.unlink()
    if not link.exists():
        link.symlink_to(target)


def _without(old: dict[str, Any], names: set[str]) -> dict[str, Any]:
    result = dict(old)
    result["pipeline_processes"] = [row for row in old["pipeline_processes"] if row[0] not in names]
    result["pipeline_input_edges"] = [row for row in old["pipeline_input_edges"] if row[1] not in names]
    result["pipeline_output_edges"] = [row for row in old["pipeline_output_edges"] if row[0] not in names]
    needed = {row[0] for row in result["pipeline_input_edges"]} | {row[1] for row in result["pipeline_output_edges"]}
    result["pipeline_nodes"] = [row for row in old["pipeline_nodes"] if row[0] in needed]
    return result


def _add(result: dict[str, Any], job: Job, places: dict[str, str]) -> None:
    place = places[job.name]
    alias = "None" if place == job.name else f"{job.name}/"
    result["pipeline_processes"].append((f"{place}/", alias, job.label, job.state))
    nodes = {row[0] for row in result["pipeline_nodes"]}
    for name, label in outputs_of(job).items():
        node = f"{place}/{name}"
        if node not in nodes:
            result["pipeline_nodes"].append((node, label, "1"))
        result["pipeline_output_edges"].append((f"{place}/", node))
    nodes = {row[0] for row in result["pipeline_nodes"]}
    for path in job.inputs:
        maker = next((name for name in places if path.startswith(f"{name}/")), None)
        node = f"{places[maker]}{path.removeprefix(maker)}" if maker else path
        if node not in nodes:
            label = FOREIGN_LABELS.get(Path(path).suffix)
            if label is None:
                continue
            label = _label(maker.split("/")[0], Path(path).name) or label if maker else label
            result["pipeline_nodes"].append((node, label, "1"))
            nodes.add(node)
            if maker:
                result["pipeline_output_edges"].append((f"{places[maker]}/", node))
        result["pipeline_input_edges"].append((node, f"{place}/"))


def _label(kind: str, name: str) -> str:
    return next((label for pattern, label in OUTPUTS[kind].items() if Path(name).match(pattern)), "")


def outputs_of(job: Job) -> dict[str, str]:
    """Files that a job left for others, with RELION's labels; of an iterative job those of its last iteration."""
    found: dict[str, str] = {}
    for pattern, label in OUTPUTS[job.kind].items():
        names = sorted(path.name for path in job.directory.glob(pattern))
        if "run_it*" in pattern and names:
            last = re.match(r"run_it\d+_", names[-1])[0]
            names = [name for name in names if name.startswith(last)]
        found |= dict.fromkeys(names, label)
    return found


def read_pipeline(project: Path) -> dict[str, Any]:
    """A project's ``default_pipeline.star``: ``counter``, and rows of its tables; empty where there is none."""
    from py2rely_core.data.tables import read_star

    empty: dict[str, Any] = {"counter": 1} | {name: [] for name in _COLUMNS}
    if not (project / PIPELINE).is_file():
        return empty
    blocks = read_star(project / PIPELINE)
    empty["counter"] = int(blocks["pipeline_general"]["rlnPipeLineJobCounter"].iloc[0])
    for name, columns in _COLUMNS.items():
        table = blocks.get(name)
        if table is not None and len(table):
            labels = [f"rlnPipeLine{column}" for column in columns]
            empty[name] = [tuple(str(value) for value in row) for row in table[labels].itertuples(index=False)]
    return empty


def _write(project: Path, pipeline: dict[str, Any]) -> None:
    version = "\n# version 50001\n\n"
    text = f"{version}data_pipeline_general\n\n_rlnPipeLineJobCounter {pipeline['counter']:23d}\n \n"
    for name, columns in _COLUMNS.items():
        if not pipeline[name]:
            continue
        text += f"{version}data_{name}\n\nloop_ \n"
        text += "".join(f"_rlnPipeLine{column} #{n} \n" for n, column in enumerate(columns, start=1))
        text += "".join(" ".join(row) + "\n" for row in pipeline[name]) + " \n"
    part = project / f"{PIPELINE}.part"
    part.write_text(text)
    part.replace(project / PIPELINE)


@contextmanager
def _locked(project: Path) -> Iterator[None]:
    """RELION's own lock on the pipeline: a directory."""
    project.mkdir(parents=True, exist_ok=True)
    lock = project / LOCK
    deadline = time.time() + LOCK_SECONDS
    while True:
        try:
            lock.mkdir()
            break
        except FileExistsError:
            if time.time() > deadline:
                fix = f"Wait for RELION to finish; if none runs, remove {lock}."
                problem = Problem("RELION is writing to the project.", str(lock), "no such directory", fix)
                raise ProblemError(problem, ExitCode.BAD_OUTPUT) from None
            time.sleep(0.2)
    try:
        yield
    finally:
        lock.rmdir()
