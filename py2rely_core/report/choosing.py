"""A classification as one page on which classes are chosen by looking at them, and as a PDF to pass on."""

from __future__ import annotations

import base64
import io
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from py2rely_core.data.tables import read_star
from py2rely_core.judging.classes import Classification, Verdict, read_classification
from py2rely_core.judging.selection import class_table
from py2rely_core.maps.io import read_images
from py2rely_core.report import environment, pictures

#: Stand in a :class:`Way` where the page writes the classes that are kept, the one of the next reference, and the
#: command that started the run. They are characters that no text has.
KEEP, BEST, RUN = "\ue000", "\ue001", "\ue002"
#: Class averages are shown with at most so many pixels along their edge.
IMAGE_EDGE = 192
#: Edge of a slice of a class map, pixels.
SLICE_EDGE = 176


@dataclass(frozen=True)
class Way:
    """A way to go on with the classes that are chosen, which the page shows with their numbers in it.

    Attributes
    ----------
    title : str
        What it is called.
    text : str
        What is to be copied, with :data:`KEEP`, :data:`BEST` and :data:`RUN`.
    note : str
        A sentence below it.
    replaces : tuple of str
        Parameters of a run, without hyphens, that `text` sets: an earlier choice is taken out of the run's command.
    """

    title: str
    text: str
    note: str = ""
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassPicture:
    """What is seen of one class.

    Attributes
    ----------
    slices : list of (str, str)
        Name and data address of each picture; of a class average there is one; of an empty class there is none.
    volume : pictures.SmallVolume or None
        Of a map, for its surface.
    """

    slices: list[tuple[str, str]]
    volume: pictures.SmallVolume | None = None


def ways_of_run(number: int | None = None, dataset: str = "") -> list[Way]:
    """How a run goes on that waits for the classes of a 3D classification, or has chosen others.

    Parameters
    ----------
    number : int, optional
        Of classes, where classifications with several numbers of classes lie side by side.
    dataset : str
        Where there are several data sets, this one's id: the choice stands in the parameter file then.
    """
    options = f"--class_selection manual --keep_classes {KEEP} --best_class {BEST}"
    options += f" --classification.of_classes {number}" if number else ""
    block = f'"run": true, "selection": "manual", "keep_classes": [{KEEP}], "best_class": {BEST}'
    block += f', "of_classes": {number}' if number else ""
    replaces = ("class_selection", "keep_classes", "best_class", "classification.of_classes")
    replaces += ("classification.selection", "classification.keep_classes", "classification.best_class")
    run = Way("Command of the run", f"{RUN} {options}", "Only the choice and what follows it is run.", replaces)
    of = f" of {dataset}" if dataset else ""
    note = f"In the parameter file{of}, in place of its block classification; then the run again with -resume."
    entry = Way("Parameter file", f'"classification": {{{block}}}', note)
    return [entry] if dataset else [run, entry]


def ways_by_hand(classification: Classification, project: Path = Path()) -> list[Way]:
    """How the particles of chosen classes become a set of their own in a RELION project.

    Parameters
    ----------
    classification : Classification
    project : Path
        Where the command is started.
    """
    data = _from(classification.data, project)
    note = "In the project's directory; writes a Select job."
    ways = [Way("Select", f"py2rely routines select -p {shlex.quote(data)} -c {KEEP}", note)]
    if classification.kind == "3D" and read_classification(classification.job).model.name == classification.model.name:
        job = shlex.quote(_from(classification.job, project))
        command = f"py2rely routines select -cj {job} -kc {KEEP} -bc {BEST} --run-refinement"
        note = "Of the last iteration; refines them against the reference that is marked, with sta_parameters.json."
        ways.append(Way("Select and refine", command, note))
    return ways


def _from(path: Path, project: Path) -> str:
    path, project = path.absolute(), project.absolute()
    return str(path.relative_to(project) if path.is_relative_to(project) else path)


def class_rows(classification: Classification) -> list[dict[str, Any]]:
    """What RELION says of each class, and how many particles it has: JSON-ready rows, None for what is not known."""
    table = class_table(read_star(classification.model), read_star(classification.data)["particles"]).astype(object)
    known = table.map(lambda value: not isinstance(value, float) or math.isfinite(value))
    return table.where(known, None).to_dict("records")


def class_page(
    classification: Classification,
    ways: Sequence[Way],
    *,
    verdicts: Mapping[int, Verdict] | None = None,
    reason: str = "",
    chosen: Sequence[int] | None = None,
    best: int | None = None,
    diameter: float = 0.0,
    name: str = "",
    command: str | None = None,
    others: Sequence[tuple[str, str]] = (),
) -> str:
    """The page of a classification: every class to be kept or dropped, and the command that goes on with these.

    Parameters
    ----------
    classification : Classification
    ways : sequence of Way
        How one goes on; the first is the one to be shown first.
    verdicts : mapping of int to Verdict, optional
        What a rule thinks of each class, by its number.
    reason : str
        What the rule says of all of them.
    chosen : sequence of int, optional
        Classes that are kept at first; not given: those that the rule would keep, or all.
    best : int, optional
        Of 3D, class of the next reference at first; not given: the best resolved one.
    diameter : float
        Of the particle, Angstrom, for surfaces; 0: half of the box.
    name : str
        What the classification is called; not given: by its directory.
    command : str, optional
        By which a run was started.
    others : sequence of (str, str)
        Text and address of pages of other classifications of the same particles.
    """
    rows, verdicts = class_rows(classification), verdicts or {}
    numbers = [row["class"] for row in rows]
    thought = [number for number in numbers if number in verdicts and verdicts[number].keep]
    undecided = not any(verdicts[number].keep is not None for number in verdicts)
    kept = list(chosen) if chosen is not None else numbers if undecided else thought
    rank = sorted(rows, key=lambda row: (row["class"] not in kept, row["resolution"] or math.inf, -row["particles"]))
    images = _Pictures(classification, diameter or None, len(rows))
    settings = {
        "kind": classification.kind, "kept": kept, "best": best or (rank[0]["class"] if rank else None),
        "rule": None if undecided else thought, "ways": [asdict(way) for way in ways],
        "marks": {"keep": KEEP, "best": BEST, "run": RUN},
        "references": any(BEST in way.text for way in ways),
    }  # fmt: skip
    made = environment()
    for part in ("choose.css", "choose.js"):
        made.globals[part.replace(".", "_")] = Markup(files("py2rely_core.report").joinpath(part).read_text())
    return made.get_template("choose.html.j2").render(
        classification=classification, rows=rows, verdicts=verdicts, reason=reason, settings=settings,
        title=name or "/".join(classification.job.parts[-2:]), pictures=images, command=command, others=others,
        total=sum(row["particles"] for row in rows), bar=scale_bar(images.extent),
    )  # fmt: skip


def write_class_page(classification: Classification, ways: Sequence[Way], path: Path, **settings: Any) -> None:
    """Write the page of :func:`class_page`, which has the settings."""
    path.write_text(class_page(classification, ways, **settings))


class _Pictures:
    """Pictures of every class, made one after the other: a map is in memory for as long as it is looked at."""

    def __init__(self, classification: Classification, diameter: float | None, count: int):
        self.classification, self.diameter = classification, diameter
        self.edge = pictures.volume_edge(count)
        #: Edge of what an average shows, Angstrom; 0 where it is not known.
        self.extent = 0.0
        self._limits: np.ndarray | None = None
        if classification.images:
            self.averages, pixel_size = averages_of(classification)
            self.extent = pixel_size * self.averages.shape[-1]

    def of(self, number: int) -> ClassPicture:
        """What is seen of a class."""
        if self.classification.images:
            tile = pictures.average_tile(self.averages, number, IMAGE_EDGE)
            return ClassPicture([("average", _png(tile))] if tile else [])
        volume = pictures.load(self.classification.maps.get(number))
        if volume is None:
            return ClassPicture([])
        tiles = pictures.slice_tiles(volume, SLICE_EDGE, self.limits())
        slices = [(name, pictures.data_address(tile)) for name, tile in zip(pictures.SLICE_NAMES, tiles, strict=True)]
        extent = volume.data.shape[0] * volume.pixel_size
        small = pictures.small_volume(volume, self.diameter or extent / 2, self.edge) if volume.pixel_size else None
        return ClassPicture(slices, small)

    def limits(self) -> np.ndarray:
        if self._limits is None:
            self._limits = shared_limits(self.classification)
        return self._limits


def scale_bar(extent: float) -> int:
    """Length of a scale bar in a picture, Angstrom: a round number below 0.4 of its edge."""
    return max((length for length in (5, 10, 20, 50, 100, 200, 500, 1000) if length <= 0.4 * extent), default=1)


def averages_of(classification: Classification) -> tuple[np.ndarray, float]:
    """Class averages (n, y, x), and their pixel size, Angstrom; 0 where it is not known."""
    assert classification.images is not None
    data, pixel_size = read_images(classification.images)
    general = read_star(classification.model).get("model_general")
    if general is not None and "rlnPixelSize" in general:
        pixel_size = float(general["rlnPixelSize"].iloc[0])
    return data, pixel_size


def shared_limits(classification: Classification) -> np.ndarray:
    """Densities of black and white for all maps of a classification: RELION writes them in one grey scale."""
    maps = (pictures.load(path) for path in classification.maps.values())
    found = [np.percentile(one.data, [0.5, 99.9]) for one in maps if one]
    return np.array([min(low for low, _ in found), max(high for _, high in found)]) if found else np.array([0.0, 1.0])


def _png(tile: Image.Image) -> str:
    buffer = io.BytesIO()
    tile.save(buffer, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
