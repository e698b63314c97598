"""A classification as sheets of pictures, the classes with most particles first: pages of a PDF, or one PNG."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from py2rely_core.judging.classes import Classification, Verdict, verdicts_of
from py2rely_core.judging.selection import Selection
from py2rely_core.report import pictures
from py2rely_core.report.choosing import averages_of, class_rows, scale_bar, shared_limits
from py2rely_core.report.drawing import INK, SOFT, paper, text

#: Of a page, A4, dots per inch and pixels.
DPI, PAGE = 150, (1240, 1754)
MARGIN, HEAD, GAP = 70, 145, 18
#: Classes side by side and below one another, of averages and of maps.
GRIDS = {"2D": (5, 5), "3D": (2, 5)}
KEPT, DROPPED = "#0b6e62", "#8a5200"


def write_class_sheets(
    classification: Classification,
    path: Path,
    *,
    verdicts: Mapping[int, Verdict] | None = None,
    kept: Sequence[int] | None = None,
    reason: str = "",
    name: str = "",
) -> int:
    """Write pages with the picture, the particles, resolution and accuracies of every class.

    Parameters
    ----------
    classification : Classification
    path : Path
        A PDF of these pages; or by its ending a PNG, in which they stand below one another without what is empty.
    verdicts : mapping of int to Verdict, optional
        What a rule thinks of each class, by its number.
    kept : sequence of int, optional
        Classes that were chosen; they are framed in place of those that the rule would keep.
    reason : str
        What the rule says of all of them.
    name : str
        What the classification is called; not given: by its directory.

    Returns
    -------
    int
        Pages.
    """
    rows = sorted(class_rows(classification), key=lambda row: (-row["particles"], row["class"]))
    verdicts = verdicts or {}
    (across, down), slices = GRIDS[classification.kind], 1 if classification.images else 3
    pages, total = [], sum(row["particles"] for row in rows)
    count = -(-len(rows) // (across * down)) or 1
    title = name or "/".join(classification.job.parts[-2:])
    if classification.iteration is not None:
        title += f", iteration {classification.iteration}"
    drawn = _drawn(classification, [row["class"] for row in rows], _cell(across, down))
    for number in range(count):
        page = paper(*PAGE)
        text(page, (PAGE[0] / 2, 50), title, 26)
        facts = f"{len(rows)} classes, {total} particles; page {number + 1} of {count}"
        text(page, (PAGE[0] / 2, 84), facts, 17, SOFT)
        text(page, (PAGE[0] / 2, 110), textwrap.shorten(reason, 130, placeholder="..."), 15, SOFT)
        for place, row in enumerate(rows[number * across * down : (number + 1) * across * down]):
            frame = _frame(row["class"], verdicts, kept)
            _draw(page, _corner(place, across, down), row, next(drawn), verdicts.get(row["class"]), frame, slices)
        pages.append(page)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".png":
        last = pages[-1]
        filled = -(-(len(rows) - (count - 1) * across * down) // across) or 1
        pages[-1] = last.crop((0, 0, last.width, HEAD + filled * _cell(across, down)[1]))
        _below_one_another(pages).save(path)
    else:
        pages[0].save(path, "PDF", save_all=True, append_images=pages[1:], resolution=DPI, quality=92, title=title)
    return count


def write_choice(classification: Classification, selection: Selection, path: Path) -> None:
    """Write the sheets of a classification with what was decided of each class; nothing is, where none is kept."""
    verdicts = verdicts_of(selection) if selection.kept else {}
    write_class_sheets(classification, path, verdicts=verdicts, reason=selection.reason)


def _below_one_another(pages: list[Image.Image]) -> Image.Image:
    whole, top = paper(PAGE[0], sum(page.height for page in pages)), 0
    for page in pages:
        whole.paste(page, (0, top))
        top += page.height
    return whole


def _cell(across: int, down: int) -> tuple[int, int]:
    """Width and height of the place of a class, pixels."""
    return (PAGE[0] - 2 * MARGIN + GAP) // across, (PAGE[1] - HEAD - MARGIN) // down


def _corner(place: int, across: int, down: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of a place, pixels, without the gap."""
    width, height = _cell(across, down)
    return MARGIN + place % across * width, HEAD + place // across * height, width - GAP, height - GAP


def _drawn(classification: Classification, numbers: list[int], cell: tuple[int, int]) -> Iterator[Image.Image | None]:
    """The picture of each class, with a scale bar; None for an empty one."""
    width = cell[0] - GAP
    if classification.images:
        averages, pixel_size = averages_of(classification)
        extent = pixel_size * averages.shape[-1]
        for number in numbers:
            tile = pictures.average_tile(averages, number, width)
            yield tile and _with_bar(tile.resize((width, width), Image.Resampling.BICUBIC), extent)
        return
    limits, edge = shared_limits(classification), (width - 2 * 6) // 3
    for number in numbers:
        volume = pictures.load(classification.maps.get(number))
        if volume is None:
            yield None
            continue
        row = paper(3 * edge + 12, edge)
        for place, tile in enumerate(pictures.slice_tiles(volume, edge, limits)):
            # Slices are shown without an eighth of the box on each side.
            extent = volume.pixel_size * (volume.data.shape[0] - 2 * (volume.data.shape[0] // 8))
            row.paste(_with_bar(tile, extent), (place * (edge + 6), 0))
        yield row


def _with_bar(tile: Image.Image, extent: float) -> Image.Image:
    """A picture with a bar of a round length, and that length."""
    length = scale_bar(extent) if extent else 0
    picture = tile.convert("RGB")
    if not length:
        return picture
    edge, pen = picture.width, ImageDraw.Draw(picture)
    left, bottom, right = edge * 0.06, edge * 0.94, edge * (0.06 + length / extent)
    pen.rectangle((left - 1, bottom - 4, right + 1, bottom + 1), fill="#000000")
    pen.rectangle((left, bottom - 3, right, bottom), fill="#ffffff")
    place = ((left + right) / 2, bottom - 6)
    pen.text(place, f"{length} A", "#ffffff", anchor="md", stroke_width=2, stroke_fill="#000000")
    return picture


def _frame(number: int, verdicts: Mapping[int, Verdict], kept: Sequence[int] | None) -> bool | None:
    """Whether a class is kept; None where nobody says."""
    if kept is not None:
        return number in kept
    return verdicts[number].keep if number in verdicts else None


def _draw(
    page: Image.Image, corner: tuple[int, int, int, int], row: dict[str, Any], picture: Image.Image | None,
    verdict: Verdict | None, kept: bool | None, slices: int,
) -> None:  # fmt: skip
    left, top, width, _ = corner
    height = picture.height if picture else width // slices
    pen = ImageDraw.Draw(page)
    if picture:
        page.paste(picture, (left, top))
    else:
        pen.rectangle((left, top, left + width, top + height), outline=SOFT)
        text(page, (left + width / 2, top + height / 2), "empty", 15, SOFT)
    word, ink = ("", INK) if kept is None else (", kept", KEPT) if kept else (", dropped", DROPPED)
    if kept is not None:
        pen.rectangle((left - 4, top - 4, left + width + 3, top + height + 3), outline=ink, width=3)
    middle = left + width / 2
    text(page, (middle, top + height + 16), f"class {row['class']}{word}", 16, ink)
    numbers = f"{row['particles']} ({row['share']:.1%}), {_known(row['resolution'], ' A')}"
    text(page, (middle, top + height + 36), numbers, 14)
    accuracies = f"{_known(row['accuracy_rotation'], ' deg')}, {_known(row['accuracy_translation'], ' A')}"
    score = "" if verdict is None or verdict.score is None else f", score {verdict.score:.2g}"
    text(page, (middle, top + height + 54), accuracies + score, 13, SOFT)
    if verdict and verdict.why:
        lines = textwrap.wrap(verdict.why, max(width // 7, 8), max_lines=2, placeholder="...")
        text(page, (middle, top + height + 66 + 7 * len(lines)), "\n".join(lines), 12, SOFT)


def _known(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.1f}{unit}"
