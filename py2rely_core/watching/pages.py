"""What is seen, as text for the browser: every value is escaped by the templates."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup

from py2rely_core.data.tables import read_star
from py2rely_core.maps.io import Map
from py2rely_core.parameters.recipe import MaskCreate
from py2rely_core.problems import Problem, ProblemError
from py2rely_core.relion.outputs.refinements import viewing_directions
from py2rely_core.report import environment
from py2rely_core.report import figures as report_figures
from py2rely_core.report.charts import sky_map
from py2rely_core.report.pictures import load, slice_images, small_mask, small_volume
from py2rely_core.results.collect import datasets_so_far
from py2rely_core.results.forecast import forecast_text, source_text
from py2rely_core.results.remembered import remembered
from py2rely_core.results.tasks import Step
from py2rely_core.watching import classes, figures
from py2rely_core.watching.iterations import newest_particles, read_iterations
from py2rely_core.watching.jobs import describe, half_maps_of, maps_of, numbers_of
from py2rely_core.watching.machine import Machine
from py2rely_core.watching.masks import LARGEST_EDGE, LARGEST_EXTENSION, UNKNOWN_DIAMETER, Desk, Looker, Setting
from py2rely_core.watching.sources import Key, Look, Source

#: Tables of particles with more bytes take too long to be read while somebody waits.
LARGEST_TABLE = 200_000_000
#: What a report is made from.
REPORTED = "results.json"
#: Of states that are over, what they are counted as.
DONE = ("done", "cached")
#: Numbers of a job that are shown, where it has them, with their units.
NUMBERS = {
    "resolution": ("resolution", "Å"), "resolution_unmasked": ("unmasked", "Å"), "particles_in": ("particles in", ""),
    "particles_out": ("particles out", ""), "duplicates_removed": ("duplicates removed", ""),
    "iterations": ("iterations", ""), "low_pass": ("next low-pass", "Å"), "box": ("box", "px"),
    "pixel_size": ("pixel", "Å"), "peak_memory": ("peak memory", "MB"), "tilt_series": ("tilt series", ""),
}  # fmt: skip


class Pages:
    """Makes them for some sources."""

    def __init__(self, sources: list[Source]):
        self.sources = sources
        self.machine = Machine()
        self.desk = Desk()
        self.environment = environment("py2rely_core.watching")
        self.environment.filters |= {"step_id": step_id, "forecast": forecast_text, "source": source_text}
        self.environment.globals |= {"link": link, "chip": self.chip, "classes_link": classes.classes_link}
        self.parts = self.environment.get_template("watch_parts.html.j2").module
        self._chip = lru_cache(maxsize=8192)(lambda *values: Markup(self.parts.chip_text(*values)))

    def shell(self) -> str:
        """The page, empty."""
        return self.environment.get_template("watch.html.j2").render(sources=self.sources)

    def load(self) -> str:
        """The machine's load."""
        return str(self.parts.machine(self.machine.load()))

    def card(self, number: int) -> str:
        """A run in short."""
        source = self.sources[number]
        look = source.look()
        steps = list(look.steps.values())
        active = [step for step in steps if step.state in ("running", "submitted")]
        failed = [step for step in steps if step.state in ("failed", "stopped")]
        results = [step for step in steps if step.state in DONE and step.name.startswith("PostProcess/")]
        return str(
            self.parts.card(
                number, source, look.run, sum(step.state in DONE for step in steps), len(steps), active, failed,
                {step.dataset: step for step in results}, classes.waiting(source, look),
            )
        )  # fmt: skip

    def chip(self, number: int, step: Step) -> Markup:
        """A step in short, which leads to it."""
        return self._chip(number, step.dataset, step.name, step.state, detail(step), *_time(step))

    def run(self, number: int) -> str:
        """A run: every data set with its steps, level by level."""
        source = self.sources[number]
        look = source.look()
        lanes: dict[str, dict[int | None, list[Step]]] = {}
        for step in look.steps.values():
            lanes.setdefault(step.dataset, {}).setdefault(step.binning, []).append(step)
        return str(self.parts.run(number, source, look, lanes, look.nearest(), (source.directory / REPORTED).is_file()))

    def summary(self, number: int) -> str:
        """What the jobs that are done have found so far: levels, particles that were lost, warnings."""
        source = self.sources[number]
        look = source.look()
        plan = source.plan(look)
        if not plan:
            return ""
        jobs: dict[str, dict[str, Any]] = {}
        for step in look.steps.values():
            if step.state in DONE and step.dataset:
                for name, place in source.places(step).items():
                    numbers = numbers_of(place)
                    if numbers:
                        jobs.setdefault(step.dataset, {})[name] = numbers
        return str(self.parts.summary(datasets_so_far(plan, jobs)))

    def job(self, number: int, key: Key) -> str:
        """A step: text, numbers and charts."""
        source = self.sources[number]
        look = source.look()
        about = describe(source, look, key)
        step, numbers = about["step"], about["numbers"]
        place = source.places(step).get(step.name)
        iterations = read_iterations(place) if place else []
        facts = [(text, numbers[name], unit) for name, (text, unit) in NUMBERS.items() if numbers.get(name) is not None]
        particles = newest_particles(place) if place and iterations else None
        return str(
            self.parts.job(
                number, about, classes.classifications(source, look, key), facts, iterations,
                _charts(numbers, iterations),
                numbers.get("angles") or (_directions(particles) if particles else None), sky_map,
            )
        )  # fmt: skip

    def picture(self, number: int, key: Key, name: str) -> str:
        """A map of a step, by what it is called: its surface and central slices."""
        source = self.sources[number]
        look = source.look()
        path = maps_of(source, look.steps[key]).get(name)
        volume = load(path)
        if volume is None:
            return str(self.parts.no_picture())
        extent = volume.data.shape[0] * volume.pixel_size
        diameter = source.diameter(look, key) or UNKNOWN_DIAMETER * extent
        small = small_volume(volume, diameter) if volume.pixel_size and _is_cube(volume) else None
        return str(self.parts.picture(small, slice_images(volume) if _is_cube(volume) else [], name))

    def classes(self, number: int, key: Key) -> str:
        """The page on which the classes of a classification are chosen."""
        source = self.sources[number]
        return classes.page_of(number, source, source.look(), key)

    def mask(self, number: int, key: Key) -> str:
        """The map of a step with the mask that a run would make, and sliders."""
        source = self.sources[number]
        look = source.look()
        with self.desk.lock:
            looker = self._looker(source, look, key)
        planned = _planned_mask(source, look, key)
        threshold = float(planned["threshold"] or looker.threshold.threshold)
        return str(
            self.parts.mask(
                number, look.steps[key], looker, threshold, planned, LARGEST_EXTENSION, LARGEST_EDGE
            )
        )  # fmt: skip

    def masked(self, number: int, key: Key, threshold: float, extend: int, edge: int) -> dict[str, Any]:
        """What a mask does: ``volume`` for the 3D view, and parts of the page."""
        source = self.sources[number]
        look = source.look()
        with self.desk.lock:
            looker = self._looker(source, look, key)
            setting = Setting(threshold, looker.low_pass, extend, edge)
            mask = looker.mask(setting)
            found = looker.judge(mask)
            slices = looker.slices(mask)
        chart = report_figures.curves_chart(found["fsc"], found["resolution"], "Fourier shell correlation in the mask")
        step = look.steps[key]
        binning = step.binning if source.kind == "run" else None
        return {
            "volume": small_mask(mask, looker.merged.pixel_size, looker.shown),
            "parts": {
                "mask-slices": str(self.parts.slices(slices, "Map in the mask")),
                "mask-numbers": str(self.parts.mask_numbers(found, looker)),
                "mask-chart": chart or "",
            },
            "setting": setting.for_recipe(binning),
            "command": setting.command("merged.mrc"),
        }

    def _looker(self, source: Source, look: Look, key: Key) -> Looker:
        files = half_maps_of(source, look, look.steps[key])
        if files is None:
            fix = "Look at the mask of a Reconstruct, Refine3D or PostProcess job that is done."
            raise ProblemError(Problem("There are no half maps to mask.", key[1], "two half maps", fix))
        return self.desk.looker(files, source.diameter(look, key))


def _planned_mask(source: Source, look: Look, key: Key) -> dict[str, Any]:
    """The mask's settings of a step's level: ``threshold`` (empty: from the density), ``extend``, ``edge``."""
    for dataset in source.plan(look).get("datasets", ()):
        for level in dataset["levels"]:
            if dataset["id"] == key[0] and level["binning"] == look.steps[key].binning and "mask" in level:
                mask = level["mask"]
                return {"threshold": mask["threshold"], "extend": mask["extend"], "edge": mask["edges"][0]}
    block = MaskCreate()
    return {"threshold": "", "extend": block.extend_inimask, "edge": block.width_mask_edge}


def _is_cube(volume: Map) -> bool:
    return len(set(volume.data.shape)) == 1


@remembered
def _directions(path: Path) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > LARGEST_TABLE:
            return None
        return viewing_directions(read_star(path)["particles"])
    except (OSError, ProblemError, KeyError, ValueError):
        return None  # It is being written.


def _charts(numbers: dict[str, Any], iterations: list[dict[str, Any]]) -> list[tuple[Any, str]]:
    """Charts of a job, each with what it shows."""
    found: list[tuple[Any, str]] = []
    if numbers.get("fsc"):
        resolution = None if numbers.get("nyquist_limited") else numbers.get("resolution")
        chart = report_figures.curves_chart(numbers["fsc"], resolution, "Fourier shell correlation")
        found.append((chart, "Fourier shell correlation of the half maps"))
    if iterations:
        found += [
            (figures.resolution_by_iteration(iterations), "Resolution after each iteration"),
            (figures.fsc_by_iteration(iterations), "FSC of the half sets, the newest iteration and some before it"),
            (figures.changes_by_iteration(iterations), "How much orientations and offsets still change, on average"),
            (figures.shares_by_iteration(iterations), "Share of every class"),
        ]
    return [(chart, caption) for chart, caption in found if chart]


def detail(step: Step) -> str:
    """What is to be said of a step in a few words."""
    if step.state == "running" and step.progress:
        progress = step.progress
        number, of = progress["iteration"], progress["iterations"]
        words = ["no iteration yet" if number is None else f"iteration {number}" + (f" of {of}" if of else "")]
        words += [f"{progress['resolution']:.1f} Å"] if progress["resolution"] else []
        words += [f"next {progress['within']:.0%}"] if progress["within"] is not None else []
        return ", ".join(words)
    if step.state in ("failed", "stopped") and step.exit_code is not None:
        return f"exit code {step.exit_code}"
    if step.state == "submitted":
        return "waits for its turn"
    return step.result.replace(" A", " Å")


def _time(step: Step) -> tuple[float | None, float | None]:
    """Of a step that runs, since when; of one that is over, how long it took."""
    if step.state in ("running", "submitted"):
        return step.started, None
    return None, step.seconds if step.state != "cached" else None


def step_id(key: Key) -> str:
    """A step's name within the page."""
    return "s-" + hashlib.sha256("\0".join(key).encode()).hexdigest()[:16]


def link(number: int, key: Key | None = None, **more: str) -> str:
    """The address of a run or a step within the page."""
    words = {"run": str(number)} | ({"dataset": key[0], "job": key[1]} if key else {}) | more
    return "#" + urlencode(words)
