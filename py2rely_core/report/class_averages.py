"""Averages of 2D classes as pictures: pages of a PDF, a PNG, and those of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from py2rely_core.maps.io import read_images
from py2rely_core.report.drawing import INK, SOFT, paper, text
from py2rely_core.report.pictures import data_address

#: Classes along each edge of a page.
PER_EDGE = 5
#: Pixels of a class's picture, and below it for its words.
EDGE, WORDS = 220, 46
#: Length of the bar, Angstrom.
BAR = 100
KEPT, DROPPED = "#2e7d32", "#c62828"


def read_averages(path: Path | None) -> tuple[np.ndarray, float] | None:
    """Averages (n, box, box) and Angstrom per pixel; None for a file that is missing or empty."""
    if path is None or not path.is_file() or path.stat().st_size == 0:
        return None
    return read_images(path)


def average_picture(image: np.ndarray, edge: int) -> Image.Image:
    """One average in its own grey scale, y downwards as RELION shows it; a class of nothing is grey."""
    low, high = np.percentile(image, (0.5, 99.8))
    shown = (image - low) / (high - low) if high > low else np.full(image.shape, 0.5)
    return Image.fromarray((np.clip(shown, 0, 1) * 255).astype(np.uint8)).resize((edge, edge), Image.Resampling.BICUBIC)


def pages(averages: np.ndarray, pixel_size: float, classes: list[dict[str, Any]], title: str = "") -> list[Image.Image]:
    """All classes, the largest first: :data:`PER_EDGE` squared on a page, with particles, share and resolution.

    Parameters
    ----------
    averages : (n, box, box) float
    pixel_size : float
        Angstrom; a bar of 100 A is drawn where it is known.
    classes : list of dict
        As :func:`py2rely_core.judging.selection.as_records` returns them; ``kept`` None where nothing was decided.
    title : str
        Above the first page.
    """
    order = sorted(classes, key=lambda one: (-one["particles"], one["class"]))
    size = PER_EDGE**2
    result = []
    for start in range(0, len(order), size):
        shown = order[start : start + size]
        rows = -(-len(shown) // PER_EDGE)
        page = paper(PER_EDGE * (EDGE + 12) + 12, rows * (EDGE + WORDS + 12) + 48)
        text(page, (page.width / 2, 22), title if not start else f"{title} (continued)".strip(), 16)
        for number, one in enumerate(shown):
            x, y = 12 + number % PER_EDGE * (EDGE + 12), 44 + number // PER_EDGE * (EDGE + WORDS + 12)
            _class(page, (x, y), averages[one["class"] - 1], pixel_size, one)
        result.append(page)
    return result


def _class(
    page: Image.Image, corner: tuple[int, int], image: np.ndarray, pixel_size: float, one: dict[str, Any]
) -> None:
    x, y = corner
    page.paste(average_picture(image, EDGE), (x, y))
    pen = ImageDraw.Draw(page)
    if pixel_size > 0:
        length = BAR / (image.shape[-1] * pixel_size) * EDGE
        if length < EDGE:
            pen.line([(x + 8, y + EDGE - 10), (x + 8 + length, y + EDGE - 10)], "#ffffff", 4)
    if one.get("kept") is not None:
        pen.rectangle([x - 2, y - 2, x + EDGE + 1, y + EDGE + 1], outline=KEPT if one["kept"] else DROPPED, width=3)
    resolution = "-" if one["resolution"] is None else f"{one['resolution']:.0f} A"
    text(page, (x + EDGE / 2, y + EDGE + 14), f"class {one['class']}: {one['particles']}, {one['share']:.1%}", 15, INK)
    text(page, (x + EDGE / 2, y + EDGE + 33), resolution, 14, SOFT)


def addresses(path: Path | None, edge: int = 110) -> list[str]:
    """Data addresses of all averages, in their order; none where there are none."""
    found = read_averages(path)
    return [data_address(average_picture(one, edge)) for one in found[0]] if found else []


def write_pages(found: list[Image.Image], path: Path) -> None:
    """Write pages as a PDF, or as one PNG below one another, by the file's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".pdf":
        found[0].save(path, save_all=True, append_images=found[1:], resolution=100.0)
        return
    whole = paper(max(page.width for page in found), sum(page.height for page in found))
    y = 0
    for page in found:
        whole.paste(page, (0, y))
        y += page.height
    whole.save(path)
