"""What is looked at: runs of the pipeline and RELION projects, as the same list of steps."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from py2rely_core.parameters.request import SINGLE_ID
from py2rely_core.problems import Problem, ProblemError
from py2rely_core.results.collect import binning_of
from py2rely_core.results.project import PIPELINE, read_pipeline
from py2rely_core.results.remembered import remembered
from py2rely_core.results.status import RECORD, TRACE, find_run, is_alive, plan_of, read_status
from py2rely_core.results.tasks import Step, jobs_in, jobs_of_ended, read_json
from py2rely_core.watching.iterations import diameter_of
from py2rely_core.watching.places import TASK, Inside, Place, of_run, within

#: Who looks again within so many seconds sees the same.
FRESH_SECONDS = 1.0
#: What only time tells, such as that a run is silent, is seen within so many seconds.
STALE_SECONDS = 60.0
#: A step by its data set and its name.
Key = tuple[str, str]
ENDED = ("done", "cached", "failed", "stopped")
#: RELION's words for how a job stands, and the files by which it says so before it writes them into its project.
STATES = {
    "Succeeded": "done", "Running": "running", "Failed": "failed", "Aborted": "stopped", "Scheduled": "waiting",
}  # fmt: skip
MARKS = {"RELION_JOB_EXIT_SUCCESS": "done", "RELION_JOB_EXIT_FAILURE": "failed", "RELION_JOB_EXIT_ABORTED": "stopped"}


@dataclass(frozen=True)
class Look:
    """What was seen.

    Attributes
    ----------
    run : dict
        As :func:`py2rely_core.results.status.read_status` says it; of a project what is known of that.
    steps : dict of Key to Step
        In their order.
    inputs : dict of Key to list of Key
        Steps from which a step got files.
    """

    run: dict[str, Any]
    steps: dict[Key, Step]
    inputs: dict[Key, list[Key]] = field(default_factory=dict)

    def nearest(self) -> dict[Key, list[Key]]:
        """Of what each step got, that which did not come to it by another of its inputs, too."""
        try:
            order = list(TopologicalSorter(self.inputs).static_order())
        except CycleError:  # which no project should have
            return self.inputs
        before: dict[Key, set[Key]] = {}
        for key in order:
            given = self.inputs.get(key, [])
            before[key] = set(given).union(*(before[one] for one in given))
        return {
            key: [one for one in given if not any(one in before[other] for other in given)]
            for key, given in self.inputs.items()
        }

    def following(self, key: Key) -> list[Key]:
        """Steps that got files from a step."""
        return [other for other, given in self.inputs.items() if key in given]


class Source:
    """A directory that is looked at; a subclass knows how it is read."""

    kind = ""

    def __init__(self, directory: Path):
        self.directory = directory.resolve()
        #: What it is called: the end of its path.
        self.label = "/".join(self.directory.parts[-2:])
        self._lock = threading.Lock()
        self._last: Look | None = None
        self._last_state: Any = None
        self._checked = self._read_at = float("-inf")

    def look(self) -> Look:
        """What is there now, or was a moment ago; the same object for as long as nothing changed."""
        with self._lock:
            now = time.monotonic()
            if self._last is None or now - self._checked > FRESH_SECONDS:
                self._checked = now
                last = self._last or self._read()
                state = self._state(last)
                if state != self._last_state or now - self._read_at > STALE_SECONDS:
                    last, self._last_state, self._read_at = self._read(), state, now
                self._last = last
            return self._last

    def _state(self, last: Look) -> Any:
        """What tells at little cost that something changed since a look."""
        raise NotImplementedError

    def _read(self) -> Look:
        raise NotImplementedError

    def places(self, step: Step) -> dict[str, Place]:
        """The jobs of a step by their names, that after which it is called last."""
        raise NotImplementedError

    def task(self, step: Step) -> Place | None:
        """Where a step's task ran; None for a job that is no task."""
        return None

    def plan(self, look: Look) -> dict[str, Any]:
        """What was planned; empty where nobody knows."""
        return {}

    def diameter(self, look: Look, key: Key) -> float | None:
        """The particle's diameter, Angstrom; of a project from the nearest job before that one that has it."""
        waiting, seen = [key], {key}
        while waiting:
            one = waiting.pop(0)
            for place in self.places(look.steps[one]).values():
                found = diameter_of(place)
                if found:
                    return found
            more = [given for given in look.inputs.get(one, ()) if given not in seen and given in look.steps]
            seen.update(more)
            waiting += more
        return None


class Run(Source):
    """A run of the pipeline, by its output directory."""

    kind = "run"

    def _read(self) -> Look:
        found = read_status(self.directory)
        steps = [Step(**one) for one in found["steps"]]
        work = found["run"]["work_dir"]
        if not Path(work).is_dir():
            # The tasks' directories are gone: what was published is left.
            return Look(found["run"], *_published(self.directory, steps))
        jobs = {(step.dataset, step.name): _jobs(work, step) for step in steps if step.directory}
        makers = {(key[0], name): key for key, (own, _) in jobs.items() for name in own}
        inputs = {
            key: list(dict.fromkeys(makers[key[0], name] for name in given if (key[0], name) in makers))
            for key, (_, given) in jobs.items()
        }
        return Look(found["run"], {(step.dataset, step.name): step for step in steps}, inputs)

    def _state(self, last: Look) -> Any:
        work = Path(last.run["work_dir"])
        files = [self.directory / RECORD, self.directory / TRACE, work, *_subdirectories(work)]
        for step in last.steps.values():
            if step.state in ("running", "submitted"):
                task = Path(step.directory)
                job = task / step.name
                files += [task, task / ".command.begin", task / ".exitcode", job, job / "run.out"]
        return [_stamp(path) for path in files], last.run["state"] == "running" and is_alive(_known_record(files[0]))

    def _inside(self) -> tuple[Path, Inside]:
        work = Path(self.look().run["work_dir"])
        return work, of_run(self.directory, work)

    def task(self, step: Step) -> Place | None:
        work, inside = self._inside()
        directory = _task_directory(str(work), step.directory)
        return Place(directory, inside) if directory and directory.is_dir() else None

    def places(self, step: Step) -> dict[str, Place]:
        task = self.task(step)
        if task:
            own, _ = _jobs(str(self._inside()[0]), step)
            return {name: Place(task.directory / name, task.inside) for name in own}
        root = self.directory if step.dataset in ("", SINGLE_ID) else self.directory / step.dataset
        known = {name for name, _ in _project_jobs(root)}
        return {step.name: Place(root / step.name, self._inside()[1])} if step.name in known else {}

    def plan(self, look: Look) -> dict[str, Any]:
        return plan_of(list(look.steps.values()), self.directory)

    def diameter(self, look: Look, key: Key) -> float | None:
        planned = {one["id"]: one for one in self.plan(look).get("datasets", ())}.get(key[0])
        try:
            return float(planned["recipe"]["refine3D"]["particle_diameter"])
        except (KeyError, TypeError, ValueError):
            return super().diameter(look, key)


_known_record = remembered(read_json)


@cache
def _task_directory(work: str, directory: str) -> Path | None:
    """A task's directory, if it is what Nextflow makes below its work directory."""
    path = Path(directory)
    named = TASK.fullmatch(f"{path.parent.name}/{path.name}")
    return path if directory and named and path.parent.parent == Path(work) else None


def _jobs(work: str, step: Step) -> tuple[list[str], list[str]]:
    """Jobs that a step's task made, and those that it was given."""
    directory = _task_directory(work, step.directory)
    if directory is None:
        return [], []
    return jobs_of_ended(directory) if step.state in ENDED else jobs_in(directory)


def _subdirectories(work: Path) -> list[Path]:
    try:
        return [path for path in work.iterdir() if len(path.name) == 2]
    except OSError:
        return []


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _published(outdir: Path, steps: list[Step]) -> tuple[dict[Key, Step], dict[Key, list[Key]]]:
    """Steps of a run from the projects in its output directory, and from its trace what is no job of these."""
    jobs: dict[Key, Step] = {}
    inputs: dict[Key, list[Key]] = {}
    for root in [outdir, *sorted({path.parent for path in outdir.glob(f"*/{PIPELINE}")})]:
        dataset = SINGLE_ID if root == outdir else root.name
        found, given = project_steps(root, dataset)
        jobs |= found
        inputs |= given
    known = {kind.split("/")[0].lower() for _, kind in jobs}
    others = {
        (step.dataset, step.name): step
        for step in steps
        if (step.dataset, step.name) not in jobs and step.name.split()[0].lower() not in known
    }
    return others | jobs, inputs


class Project(Source):
    """A RELION project, by its ``default_pipeline.star``."""

    kind = "project"

    def _read(self) -> Look:
        steps, inputs = project_steps(self.directory, "")
        runs = any(step.state == "running" for step in steps.values())
        started = [step.started for step in steps.values() if step.started]
        about = {
            "name": "RELION project", "state": "running" if runs else "at rest", "started": min(started, default=None),
            "ended": None, "seconds": None, "host": "", "output_dir": str(self.directory), "command": "", "error": None,
            "last_sign_of_life": (self.directory / PIPELINE).stat().st_mtime, "remaining": None,
        }  # fmt: skip
        return Look(about, steps, inputs)

    def _state(self, last: Look) -> Any:
        active = [step for step in last.steps.values() if step.state == "running"]
        marks = [Path(step.directory) / mark for step in active for mark in MARKS]
        return [_stamp(path) for path in (self.directory / PIPELINE, *marks)]

    def places(self, step: Step) -> dict[str, Place]:
        return {step.name: Place(Path(step.directory), within(self.directory))}


def project_steps(project: Path, dataset: str) -> tuple[dict[Key, Step], dict[Key, list[Key]]]:
    """The jobs of a RELION project as steps, by their aliases where they have some, and what each got from which."""
    pipeline = _pipeline(project / PIPELINE) if (project / PIPELINE).is_file() else _NOTHING
    names = dict(_project_jobs(project))
    called = {number: name for name, number in names.items()}
    states = {row[0].rstrip("/"): row[3] for row in pipeline["pipeline_processes"]}
    steps = {}
    for name, number in names.items():
        steps[dataset, name] = _project_step(project / number, name, dataset, STATES.get(states[number], "waiting"))
    makers = {node: process.rstrip("/") for process, node in pipeline["pipeline_output_edges"]}
    inputs: dict[Key, list[Key]] = {}
    for node, process in pipeline["pipeline_input_edges"]:
        maker, user = makers.get(node) or "/".join(node.split("/")[:2]), process.rstrip("/")
        if maker in called and user in called and maker != user:
            given = inputs.setdefault((dataset, called[user]), [])
            given += [(dataset, called[maker])] if (dataset, called[maker]) not in given else []
    return steps, inputs


_NOTHING: dict[str, Any] = {f"pipeline_{name}": [] for name in ("processes", "input_edges", "output_edges")}


@remembered
def _pipeline(path: Path) -> dict[str, Any]:
    return read_pipeline(path.parent)


def _project_jobs(project: Path) -> Iterable[tuple[str, str]]:
    """Name and numbered directory of each job of a project; only what RELION would have written there."""
    path = project / PIPELINE
    rows = _pipeline(path)["pipeline_processes"] if path.is_file() else []
    for number, alias, *_ in rows:
        number, alias = number.rstrip("/"), alias.rstrip("/")
        if _is_job(number):
            yield (alias if _is_job(alias) else number), number


def _is_job(name: str) -> bool:
    kind, _, job = name.partition("/")
    return bool(kind and job) and "/" not in job and not {kind, job} & {".", ".."}


def _project_step(directory: Path, name: str, dataset: str, state: str) -> Step:
    if state == "running":
        state = next((word for mark, word in MARKS.items() if (directory / mark).exists()), state)
    started, ended = (_times_of_ended if state in ENDED else _times)(directory)
    step = Step(name, dataset, binning_of(name), state, started, directory=str(directory))
    if state in ENDED and started and ended:
        step.seconds = round(ended - started, 1)
    return step


def _times(directory: Path) -> tuple[float | None, float | None]:
    """When a job began and when it last wrote: it notes its settings first, and its output until its end."""

    def time_of(*names: str) -> float | None:
        for name in names:
            try:
                return (directory / name).stat().st_mtime
            except OSError:
                continue
        return None

    return time_of("job.star", "job_pipeline.star", "run.job"), time_of(*MARKS, "run.out")


_times_of_ended = cache(_times)


def open_sources(directories: list[Path]) -> list[Source]:
    """What lies in some directories, each called by as much of the end of its path as tells it from the others.

    Raises
    ------
    ProblemError
        Of each that holds neither a run, nor a RELION project.
    """
    sources, problems = {}, []
    for directory in directories:
        try:
            source = open_source(directory)
            sources[source.directory] = source
        except ProblemError as error:
            problems += error.problems
    if problems:
        raise ProblemError(problems)
    found = list(sources.values())
    for depth in range(2, max(len(source.directory.parts) for source in found) + 1):
        for source in found:
            source.label = "/".join(source.directory.parts[-depth:])
        if len({source.label for source in found}) == len(found):
            break
    return found


def open_source(directory: Path) -> Source:
    """What lies in a directory.

    Raises
    ------
    ProblemError
        Neither a run, nor a RELION project.
    """
    try:
        return Run(find_run(directory))
    except ProblemError:
        if (directory / PIPELINE).is_file():
            return Project(directory)
    fix = "Give a run's output directory, the directory where it was started, or a RELION project."
    what = "There is neither a run nor a RELION project."
    raise ProblemError(Problem(what, str(directory), f"a directory with {RECORD} or {PIPELINE}", fix))
