"""Line charts and sky maps as SVG, coloured by the page's style sheet, so that they follow light, dark and print."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import acos, ceil, cos, degrees, floor, isfinite, log10, pi, radians, sin, sqrt
from typing import Any

import numpy as np
from markupsafe import Markup

from py2rely_core.report.drawing import ramp

WIDTH, HEIGHT = 480, 290
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 40
#: Shades of a sky map.
SHADES = 7

Number = float | None


@dataclass(frozen=True)
class Series:
    """One curve: its name, style class and values; None interrupts it."""

    name: str
    style: str
    x: Sequence[float]
    y: Sequence[Number]
    marked: bool = False


@dataclass(frozen=True)
class Axis:
    """Range, ticks as (value, label), and title of an axis."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    title: str


@dataclass(frozen=True)
class Line:
    """A straight line across the chart, along x or y, with a label."""

    value: float
    along: str
    label: str = ""


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from `low` to `high`."""
    span = max(high - low, 1e-9)
    power = 10 ** floor(log10(span / count))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if span / (factor * power) <= count)
    return [round(index * step, 10) for index in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def frequency_ticks(last: float, count: int = 6) -> list[tuple[float, str]]:
    """Ticks of an axis of frequencies, 1/Angstrom, up to `last`, labelled with resolutions in Angstrom."""
    ticks: list[tuple[float, str]] = []
    for index in range(1, count + 1):
        exact = count / (last * index)
        digits = 1 if exact < 10 else 0
        label = f"{exact:.{digits}f}"
        ticks.append((1 / float(label), label))
    return [tick for tick in ticks if tick[0] <= last * 1.02]


def line_chart(
    series: Sequence[Series], x: Axis, y: Axis, title: str, lines: Sequence[Line] = (), readout: str = ""
) -> Markup:
    """A chart of curves with a legend.

    Parameters
    ----------
    title : str
        What a screen reader says.
    readout : str
        When given, the values under the pointer are shown below the chart, after this word.
    """
    scale = _Scale(x, y)
    parts = [*_axes(scale), *(_rule(line, scale) for line in lines), *(_curve(one, scale) for one in series)]
    data = ""
    if readout and series:
        values = {"x": list(series[0].x), "word": readout, "low": x.low, "high": x.high}
        values |= {"series": [{"name": one.name, "y": list(one.y)} for one in series]}
        data = f' data-readout="{escape(json.dumps(values))}"'
    svg = (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}"{data}>'
        f"{''.join(parts)}</svg>"
    )
    return Markup(svg + _legend(series) + ('<p class="readout">Point at the chart for the values.</p>' if data else ""))


def histogram(edges: Sequence[float], counts: Sequence[int], x: Axis, title: str) -> Markup:
    """Bars, coloured from the first to the last as local resolution is.

    Parameters
    ----------
    edges : sequence of float
        Of the bars, one more than these.
    counts : sequence of int
        Their heights.
    title : str
        What a screen reader says.
    """
    total, most = sum(counts), max(counts)
    shares = [(percent * total / 100, f"{percent:g}") for percent in nice_ticks(0, 100 * most / total, 4)]
    scale = _Scale(x, Axis(0, 1.05 * most, shares, "% of the voxels"))
    bars = []
    for number, (left, right, height) in enumerate(zip(edges, edges[1:], counts, strict=False)):
        red, green, blue = ramp(np.array(number / max(len(counts) - 1, 1))).round().astype(int)
        top, bottom = scale.y(height), scale.y(0)
        bars.append(
            f'<path fill="rgb({red},{green},{blue})" d="M{scale.x(left)} {bottom}V{top}H{scale.x(right)}V{bottom}Z"/>'
        )
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join([*_axes(scale), *bars])}</svg>"
    )


def _legend(series: Sequence[Series]) -> str:
    if len(series) < 2:
        return ""
    entries = "".join(f'<span class="key {one.style}">{escape(one.name)}</span>' for one in series)
    return f'<p class="legend">{entries}</p>'


@dataclass(frozen=True)
class _Scale:
    """Data to picture."""

    horizontal: Axis
    vertical: Axis

    def x(self, value: float) -> float:
        share = (value - self.horizontal.low) / (self.horizontal.high - self.horizontal.low)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.vertical.low) / (self.vertical.high - self.vertical.low)
        return round(HEIGHT - BOTTOM - min(max(share, -0.02), 1.02) * (HEIGHT - TOP - BOTTOM), 1)


def _axes(scale: _Scale) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value, label in scale.vertical.ticks:
        y = scale.y(value)
        parts.append(f'<path class="grid" d="M{LEFT} {y}H{right}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{y + 4}" text-anchor="end">{escape(label)}</text>')
    for value, label in scale.horizontal.ticks:
        x = scale.x(value)
        parts.append(f'<path class="tick" d="M{x} {bottom}v5"/>')
        parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{escape(label)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {bottom}H{right}"/>')
    middle, title = (LEFT + right) / 2, escape(scale.horizontal.title)
    parts.append(f'<text class="title" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{title}</text>')
    height = (TOP + bottom) / 2
    parts.append(
        f'<text class="title" transform="translate(12 {height}) rotate(-90)" text-anchor="middle">'
        f"{escape(scale.vertical.title)}</text>"
    )
    return parts


def _rule(line: Line, scale: _Scale) -> str:
    if line.along == "x":
        y = scale.y(line.value)
        label = f'<text class="note" x="{WIDTH - RIGHT - 2}" y="{y - 5}" text-anchor="end">{escape(line.label)}</text>'
        return f'<path class="rule" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>{label}'
    x = scale.x(line.value)
    side, anchor = (x - 5, "end") if x > 0.6 * WIDTH else (x + 5, "start")
    label = f'<text class="note" x="{side}" y="{TOP + 12}" text-anchor="{anchor}">{escape(line.label)}</text>'
    return f'<path class="rule strong" d="M{x} {TOP}V{HEIGHT - BOTTOM}"/>{label}'


def _curve(series: Series, scale: _Scale) -> str:
    path, pen, marks = [], "M", []
    for value, height in zip(series.x, series.y, strict=True):
        if height is None or not isfinite(height):
            pen = "M"
            continue
        x, y = scale.x(value), scale.y(height)
        path.append(f"{pen}{x} {y}")
        pen = "L"
        if series.marked:
            marks.append(f'<circle class="mark {series.style}" cx="{x}" cy="{y}" r="3.4"/>')
    return f'<path class="curve {series.style}" d="{"".join(path)}"/>{"".join(marks)}'


def sky_map(angles: dict[str, Any], title: str) -> Markup:
    """Viewing directions over the whole sphere.

    Parameters
    ----------
    angles : dict
        As :func:`py2rely_core.relion.outputs.refinements.viewing_directions` returns it.
    title : str
        What a screen reader says.
    """
    most = max((value for row in angles["counts"] for value in row), default=0)
    return shaded_sky(angles["counts"], (0, most), title, _scale_text(most))


def shaded_sky(rows: Sequence[Sequence[float]], limits: tuple[float, float], title: str, scale: str) -> Markup:
    """Values over the whole sphere, in an equal-area (Mollweide) projection.

    Parameters
    ----------
    rows : sequence of sequence of float
        Rows of equal height from tilt 0 to 180 degrees, of cells from rot -180 to 180 degrees; what is not above the
        lower limit is left blank.
    limits : (float, float)
        Values of the lightest and the darkest shade.
    title : str
        What a screen reader says.
    scale : str
        What the shades mean.
    """
    low, high = limits
    count, shades = len(rows), {}
    tilts = [degrees(acos(1 - 2 * number / count)) for number in range(count + 1)]
    for row, upper, lower in zip(rows, tilts, tilts[1:], strict=False):
        width = 360 / len(row)
        for column, value in enumerate(row):
            if value > low:
                shade = min(SHADES, ceil(SHADES * (value - low) / (high - low)))
                left = -180 + column * width
                shades.setdefault(shade, []).append(_cell(left, left + width, 90 - upper, 90 - lower))
    width, height = 480, 262
    outline = _polygon([mollweide(-180, latitude) for latitude in range(-90, 91, 5)]
                       + [mollweide(180, latitude) for latitude in range(90, -91, -5)])  # fmt: skip
    grid = [
        _open([mollweide(longitude, latitude) for latitude in range(-90, 91, 6)]) for longitude in range(-120, 121, 60)
    ]
    grid += [_open([mollweide(longitude, latitude) for longitude in (-180, 180)]) for latitude in (-45, 0, 45)]
    parts = [f'<path class="globe" d="{outline}"/>']
    parts += [
        f'<path class="cell" style="fill-opacity:{0.12 + 0.88 * shade / SHADES:.2f}" d="{"".join(cells)}"/>'
        for shade, cells in sorted(shades.items())
    ]
    parts += [f'<path class="grid" d="{line}"/>' for line in grid]
    for latitude, text in ((90, "tilt 0°"), (-90, "tilt 180°")):
        x, y = mollweide(0, latitude)
        parts.append(f'<text x="{x}" y="{y - 6 if latitude > 0 else y + 15}" text-anchor="middle">{text}</text>')
    return Markup(
        f'<svg class="chart sky" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
        f'<p class="legend"><span class="shade"></span> {scale}</p>'
    )


def _scale_text(most: int) -> str:
    return f"0 to {most} particle{'s' if most != 1 else ''} in a cell of 1/648 of the sphere"


def mollweide(longitude: float, latitude: float) -> tuple[float, float]:
    """Position in the picture of a direction in degrees."""
    target, theta = pi * sin(radians(latitude)), radians(latitude)
    for _ in range(40):
        slope = 2 + 2 * cos(2 * theta)
        if abs(slope) < 1e-9:
            break
        theta -= 0.9 * (2 * theta + sin(2 * theta) - target) / slope
    x = 2 * sqrt(2) / pi * radians(longitude) * cos(theta)
    y = sqrt(2) * sin(theta)
    return round(240 + x * 78, 1), round(131 - y * 78, 1)


def _cell(left: float, right: float, upper: float, lower: float) -> str:
    middle = (upper + lower) / 2
    return _polygon(
        [mollweide(left, upper), mollweide(right, upper), mollweide(right, middle), mollweide(right, lower),
         mollweide(left, lower), mollweide(left, middle)]
    )  # fmt: skip


def _open(points: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x} {y}" for x, y in points)


def _polygon(points: list[tuple[float, float]]) -> str:
    return _open(points) + "Z"
