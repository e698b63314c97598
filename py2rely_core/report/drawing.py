"""Pictures for files (PNG): rows of grey tiles and a chart of curves, composed with Pillow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK, SOFT, PAPER = "#222222", "#666666", "#ffffff"
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd")
#: Red, green, blue of local resolution from the best to the worst; page.js and style.css have the same.
RAMP = np.array([[43, 97, 199], [237, 219, 115], [191, 51, 41]])
#: Drawn so many times larger and then reduced, which smooths lines.
OVERSAMPLING = 3


def ramp(shares: np.ndarray) -> np.ndarray:
    """Colours (..., 3), 0 to 255, of shares (...) from 0 to 1 of the way along :data:`RAMP`."""
    return np.stack([np.interp(shares, np.linspace(0, 1, len(RAMP)), channel) for channel in RAMP.T], axis=-1)


def grey_tile(image: np.ndarray, low: float, high: float, edge: int) -> Image.Image:
    """A section, y upwards, black at `low` and white at `high`, of `edge` pixels."""
    scaled = np.clip((image - low) / max(high - low, 1e-12) * 255, 0, 255).astype(np.uint8)[::-1]
    return Image.fromarray(scaled).resize((edge, edge), Image.Resampling.BICUBIC)


def paper(width: int, height: int) -> Image.Image:
    """An empty picture."""
    return Image.new("RGB", (width, height), PAPER)


def text(picture: Image.Image, place: tuple[float, float], words: str, size: int = 16, ink: str = INK) -> None:
    """Write words, with their middle at a place."""
    font = ImageFont.load_default(size)
    ImageDraw.Draw(picture).multiline_text(place, words, ink, font, anchor="mm", align="center")


def upright(words: str, size: int, ink: str = INK) -> Image.Image:
    """Words that read upwards."""
    box = ImageFont.load_default(size).getbbox(words)
    line = paper(int(box[2]) + 8, size + 8)
    text(line, (line.width / 2, line.height / 2), words, size, ink)
    return line.rotate(90, expand=True)


def curve_chart(
    curves: Sequence[tuple[str, np.ndarray, np.ndarray]], ticks: Sequence[tuple[float, str]], titles: tuple[str, str],
    size: tuple[int, int], level: float,
) -> Image.Image:  # fmt: skip
    """Curves between 0 and 1, with a legend and a dotted line.

    Parameters
    ----------
    curves : sequence of (str, (n,) float, (n,) float)
        Name, positions along x from 0, heights.
    ticks : sequence of (float, str)
        Along x; the last one is the end of the axis.
    titles : (str, str)
        Of x and y.
    size : (int, int)
        Width and height, pixels.
    level : float
        Height of the dotted line.
    """
    width, height = size
    left, right, top, bottom = 70, width - 20, 20, height - 70
    low, high, last = -0.1, 1.05, ticks[-1][0]

    def place(x: float, y: float) -> tuple[float, float]:
        return left + x / last * (right - left), bottom - (y - low) / (high - low) * (bottom - top)

    large = paper(width * OVERSAMPLING, height * OVERSAMPLING)
    pen = ImageDraw.Draw(large)

    def line(points: Sequence[tuple[float, float]], ink: str, thick: float) -> None:
        scaled = [(OVERSAMPLING * x, OVERSAMPLING * y) for x, y in points]
        pen.line(scaled, ink, round(OVERSAMPLING * thick), joint="curve")

    line([(left, top), (left, bottom), (right, bottom)], INK, 1)
    y = place(0, level)[1]
    for x in range(left, right, 6):
        line([(x, y), (x + 2, y)], SOFT, 1)
    for number, (_, x, heights) in enumerate(curves):
        line([place(*point) for point in zip(x, np.clip(heights, low, high), strict=True)], _colour(number), 2)
    picture = large.resize(size, Image.Resampling.LANCZOS)
    for value, label in ticks:
        text(picture, (place(value, 0)[0], bottom + 16), label, 14)
    for value in (0, 0.25, 0.5, 0.75, 1):
        text(picture, (left - 24, place(0, value)[1]), f"{value:g}", 14)
    text(picture, ((left + right) / 2, height - 24), titles[0], 16)
    side = upright(titles[1], 16)
    picture.paste(side, (2, (top + bottom - side.height) // 2))
    for number, (name, _, _) in enumerate(curves):
        y = bottom - 24 * (len(curves) - number)
        ImageDraw.Draw(picture).line([(left + 16, y), (left + 46, y)], _colour(number), 3)
        text(picture, (left + 84, y), name, 15)
    return picture


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
