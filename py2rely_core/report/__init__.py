"""``results.json`` and the maps beside it as one self-contained page; two runs side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from py2rely_core.parameters.recipe import Recipe
from py2rely_core.report import figures, pictures
from py2rely_core.report.charts import sky_map
from py2rely_core.results.collect import resolution_text

__all__ = ["duration", "environment", "find_in", "report_page", "write_comparison", "write_report"]

#: Stands for a value that is not known.
UNKNOWN = "\N{EN DASH}"
#: From a path as it stands in results.json to the file, or None.
Finder = Callable[[str], Path | None]


def find_in(run: Path) -> Finder:
    """Finds files in the output directory of a run."""

    def find(name: str) -> Path | None:
        path = run / name
        return path if path.is_file() else None

    return find


def write_report(results: dict[str, Any], find: Finder, path: Path) -> None:
    """Write the page of a run, complete or failed, as :func:`report_page` makes it."""
    path.write_text(report_page(results, find))


def report_page(results: dict[str, Any], find: Finder) -> str:
    """The page of a run, complete or failed.

    Parameters
    ----------
    results : dict
        As :func:`py2rely_core.results.collect.collect_results` returns it.
    find : callable
        Gives the file of a map by its path in `results`; where there is none, the page has no picture.
    """
    maps = _Maps(find, pictures.volume_edge(len(results["datasets"])))
    return environment().get_template("report.html.j2").render(
        results=results, slices=maps.slices, local_slices=maps.local_slices, volume=maps.volume, shown=shown_level,
        averages=lambda name: pictures.average_addresses(find(name)) if name else [], defaults=_defaults(),
    )  # fmt: skip


def write_comparison(pairs: list[Any], names: tuple[str, str], finders: tuple[Finder, Finder], path: Path) -> None:
    """Write the page of two runs side by side.

    Parameters
    ----------
    pairs : list of py2rely_core.report.compare.Pair
        The data sets.
    names : (str, str)
        What the runs are called.
    finders : (callable, callable)
        As for :func:`write_report`, of either run.
    path : Path
        The HTML file.
    """
    maps = [_Maps(find, pictures.volume_edge(2 * len(pairs))) for find in finders]
    page = environment().get_template("compare.html.j2").render(
        pairs=pairs, names=names, shown=shown_level,
        slices=lambda run, *what: maps[run].slices(*what), volume=lambda run, *what: maps[run].volume(*what),
    )  # fmt: skip
    path.write_text(page)


def shown_level(dataset: dict[str, Any]) -> dict[str, Any] | None:
    """The finest level that has a map."""
    return next((level for level in reversed(dataset["levels"]) if level["map"]), None)


class _Maps:
    """Pictures of the maps of one run; a map is read once for all of its pictures."""

    def __init__(self, find: Finder, edge: int):
        self.find, self.edge = find, edge
        self.last: tuple[str, Any] = ("", None)

    def load(self, name: str | None) -> Any:
        if name and self.last[0] != name:
            self.last = (name, pictures.load(self.find(name)))
        return self.last[1] if name else None

    def slices(self, name: str | None, edge: int = pictures.SLICE_EDGE) -> list[tuple[str, str]]:
        volume = self.load(name)
        return pictures.slice_images(volume, edge) if volume else []

    def local_slices(self, found: dict[str, Any], edge: int = pictures.SLICE_EDGE) -> list[tuple[str, str]]:
        filtered, local = (pictures.load(self.find(found[name])) for name in ("filtered", "map"))
        return pictures.local_slices(filtered, local, found["range"], edge) if filtered and local else []

    def volume(
        self, name: str | None, diameter: float, found: dict[str, Any] | None = None
    ) -> pictures.SmallVolume | None:
        """A map for the 3D view, coloured by its local resolution where that was `found`."""
        volume = self.load(name)
        if not volume or not volume.pixel_size:
            return None
        local = pictures.load(self.find(found["map"])) if found else None
        limits = found["range"] if found else (0, 1)
        return pictures.small_volume(volume, diameter, self.edge, local=local, limits=limits)


def environment(*packages: str) -> jinja2.Environment:
    """What templates are made with: every value is escaped, a missing one is an error.

    Parameters
    ----------
    packages : str
        Packages with templates beside those of this one.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name, ".") for name in ("py2rely_core.report", *packages)]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    for name in ("style.css", "page.js"):
        text = files("py2rely_core.report").joinpath(name).read_text()
        environment.globals[name.split(".")[1]] = Markup(text)
    environment.globals |= {
        "fsc_chart": figures.fsc_chart,
        "history_chart": figures.history_chart,
        "resolution_chart": figures.resolution_chart,
        "overlay_chart": figures.overlay_chart,
        "levels_chart": figures.levels_chart,
        "guinier_chart": figures.guinier_chart,
        "directions_chart": figures.directions_chart,
        "resolution_sky": figures.resolution_sky,
        "sampling_sky": figures.sampling_sky,
        "template_chart": figures.template_chart,
        "orientation_chart": figures.orientation_chart,
        "particle_chart": figures.particle_chart,
        "local_resolution_chart": figures.local_resolution_chart,
        "sky_map": sky_map,
        "resolution_text": resolution_text,
    }
    environment.filters |= {
        "duration": duration,
        "finest": shown_level,
        "number": number,
        "angstrom": lambda value: UNKNOWN if value is None else f"{number(value)} Å",
        "count": lambda value: UNKNOWN if value is None else f"{value:,}".replace(",", "\u202f"),
        "moment": lambda value: time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(value)),
    }
    return environment


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, a dash for what is not known."""
    if value is None:
        return UNKNOWN
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e+" in text else text


def duration(seconds: float | None) -> str:
    """A time as one says it: ``8 s``, ``12 min``, ``3 h 05 min``, ``2 d 4 h``."""
    if seconds is None:
        return UNKNOWN
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def _defaults() -> dict[str, Any]:
    """Every block's default parameters, also of blocks that a recipe may leave out."""
    defaults = {}
    for name, field in Recipe.model_fields.items():
        candidates = (field.annotation, *getattr(field.annotation, "__args__", ()))
        model = next((one for one in candidates if hasattr(one, "model_fields")), None)
        if model:
            defaults[name] = model().model_dump(by_alias=True)
    return defaults
