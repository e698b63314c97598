"""The charts of the page, from the numbers of ``results.json``."""

from __future__ import annotations

from dataclasses import replace
from math import log2, sqrt
from typing import Any

from markupsafe import Markup

from py2rely_core.report.charts import (
    Axis,
    Line,
    Series,
    frequency_ticks,
    histogram,
    line_chart,
    nice_ticks,
    shaded_sky,
)

#: Curve to its name; the order is the legend's.
CURVES = {
    "corrected": "corrected",
    "masked": "masked",
    "unmasked": "unmasked",
    "randomised": "phase-randomised",
}
_FIFTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
SHARES = Axis(-0.1, 1.02, [(value, f"{value:g}") for value in (0, 0.25, 0.5, 0.75, 1)], "FSC")


def fsc_chart(level: dict[str, Any]) -> Markup | None:
    """A level's FSC curves, with the resolution marked; None without curves."""
    resolution = None if level["nyquist_limited"] else level["resolution"]["masked"]
    return curves_chart(level["fsc"], resolution, f"Fourier shell correlation at bin {level['binning']}")


def curves_chart(fsc: dict[str, Any], resolution: float | None, title: str) -> Markup | None:
    """The FSC curves of half maps; None without curves.

    Parameters
    ----------
    fsc : dict
        ``resolution`` of every shell, Angstrom, and the values of :data:`CURVES`; a list may be empty.
    resolution : float or None
        Is marked.
    title : str
        What a screen reader says.
    """
    if not fsc["resolution"]:
        return None
    frequency = [1 / value for value in fsc["resolution"]]
    lines = [Line(0.143, "x", "0.143")]
    if resolution:
        lines.append(Line(1 / resolution, "y", f"{resolution:.1f} Å"))
    series = [Series(text, f"c-{name}", frequency, fsc[name]) for name, text in CURVES.items() if fsc[name]]
    return line_chart(series, frequency_axis(frequency[-1]), SHARES, title, lines, readout="at")


def levels_chart(dataset: dict[str, Any]) -> Markup | None:
    """The corrected FSC of every level; None with less than two of them."""
    levels = [level for level in reversed(dataset["levels"]) if level["fsc"]["resolution"]]
    if len(levels) < 2:
        return None
    title = "Corrected Fourier shell correlation of every level"
    return overlay_chart([(f"bin {level['binning']}", level) for level in levels], title)


def overlay_chart(
    curves: list[tuple[str, dict[str, Any]]], title: str = "Corrected Fourier shell correlation of both runs"
) -> Markup | None:
    """The corrected FSC of several levels, each with a name; None where none has curves."""
    series = [
        Series(name, f"c-run{index}", [1 / value for value in level["fsc"]["resolution"]], level["fsc"]["corrected"])
        for index, (name, level) in enumerate(curves)
        if level["fsc"]["resolution"]
    ]
    if not series:
        return None
    last = max(one.x[-1] for one in series)
    same = all(list(one.x) == list(series[0].x) for one in series)
    return line_chart(
        series, frequency_axis(last), SHARES, title,
        [Line(0.143, "x", "0.143")], readout="at" if same else "",
    )  # fmt: skip


def history_chart(level: dict[str, Any]) -> Markup | None:
    """The resolution after each iteration of a level's refinement; None with less than two of them."""
    points = [(number, value) for number, value in enumerate(level["history"]) if value]
    if len(points) < 2:
        return None
    x, y = [number for number, _ in points], [1 / value for _, value in points]
    steps = nice_ticks(0, x[-1], 6)
    horizontal = Axis(0, x[-1], [(tick, f"{tick:g}") for tick in steps if tick == int(tick)], "iteration")
    vertical = resolution_axis([value for _, value in points] + [2 * level["pixel_size"]])
    nyquist = Line(1 / (2 * level["pixel_size"]), "x", f"Nyquist {2 * level['pixel_size']:.3g} Å")
    series = [Series("Refine3D", "c-corrected", x, y, marked=True)]
    title = f"Resolution after each iteration of Refine3D at bin {level['binning']}"
    return line_chart(series, horizontal, vertical, title, [nyquist])


def guinier_chart(sharpening: dict[str, Any]) -> Markup | None:
    """Logarithms of a map's amplitudes against the squared frequency; None where they are not known."""
    plot, names = sharpening["guinier"], {"original": "as reconstructed", "mtf_corrected": "MTF corrected"}
    names |= {"weighted": "weighted by FSC", "sharpened": "sharpened"}
    # The mean of a map, at frequency 0, is whatever its background is.
    plot = {name: values[1:] for name, values in plot.items()}
    x = plot["frequency_squared"]
    heights = [value for name in names for value in plot[name] if value is not None]
    if len(x) < 2 or not heights:
        return None
    series = [Series(text, f"g-{name}", x, plot[name]) for name, text in names.items() if plot[name]]
    if sharpening["slope"] is not None:
        # RELION's fit ends at the last shell with amplitude after weighting: that of the resolution.
        begin = 1 / sharpening["lowest"] ** 2
        end = max(value for value, height in zip(x, plot["weighted"], strict=True) if height is not None)
        line = [sharpening["intercept"] + sharpening["slope"] * value for value in (begin, end)]
        series.append(Series("fit", "g-fit", [begin, end], line))
    ticks = [(1 / float(f"{1 / sqrt(x[-1] * part):.2g}") ** 2, f"{1 / sqrt(x[-1] * part):.2g}") for part in _FIFTHS]
    low, high = min(heights), max(heights)
    margin = 0.05 * (high - low) or 1.0
    vertical = Axis(low - margin, high + margin, [(v, f"{v:g}") for v in nice_ticks(low, high)], "ln(amplitude)")
    horizontal = Axis(0, x[-1], ticks, "resolution, Å, on the scale of 1/d²")
    return line_chart(series, horizontal, vertical, "Guinier plot of the best map")


def directions_chart(found: dict[str, Any]) -> Markup:
    """The FSC's range over all directions."""
    fsc = found["fsc"]
    x = [1 / value for value in fsc["resolution"]]
    names = {"best": "best 5 % of directions", "median": "median", "worst": "worst 5 %"}
    series = [Series(text, f"d-{name}", x, fsc[name]) for name, text in names.items()]
    title = "Conical Fourier shell correlation over all directions"
    return line_chart(series, frequency_axis(x[-1]), SHARES, title, [Line(0.143, "x", "0.143")], readout="at")


def resolution_sky(found: dict[str, Any]) -> Markup:
    """Resolution by direction: the finer, the darker."""
    rows = [[1 / value for value in row] for row in found["resolution"]]
    worst, best = (function(value for row in found["resolution"] for value in row) for function in (max, min))
    return shaded_sky(rows, _range(rows), "Resolution by direction", f"{worst:.1f} to {best:.1f} Å")


def sampling_sky(found: dict[str, Any]) -> Markup:
    """How densely directions are sampled, up to twice as densely as evenly."""
    return shaded_sky(found["sampling"], (0.0, 2.0), "Sampling of directions", "0 to 2 times even sampling, and more")


def _range(rows: list[list[float]]) -> tuple[float, float]:
    """Of shades: the least value has the lightest, and none is left blank."""
    values = [value for row in rows for value in row]
    low, high = min(values), max(values)
    return low - 0.15 * (high - low), high


def local_resolution_chart(found: dict[str, Any]) -> Markup:
    """How many voxels have which local resolution."""
    edges = found["edges"]
    ticks = [(value, f"{value:g}") for value in nice_ticks(edges[0], edges[-1], 6)]
    horizontal = Axis(edges[0], edges[-1], ticks, "local resolution, Å")
    return histogram(edges, found["counts"], horizontal, "Distribution of the local resolution")


def particle_chart(found: dict[str, Any]) -> Markup | None:
    """Resolution against the number of particles; None with a single point."""
    points = [point for point in found["points"] if not point["nyquist_limited"]]
    if len(points) < 2:
        return None
    points.sort(key=lambda point: point["particles"])
    x, y = [log2(point["particles"]) for point in points], [1 / point["resolution"] ** 2 for point in points]
    series = [Series("averages of parts of the particles", "p-points", x, y, marked=True)]
    last, high = x[-1], y[-1]
    if found["target_particles"]:
        last, high = log2(found["target_particles"]), 1 / found["target_resolution"] ** 2
        series.append(Series("by the line", "p-line", [x[-1], last], [y[-1], high], marked=True))
    margin = 0.08 * (last - x[0])
    ticks = [(value, f"{point['particles']}") for value, point in zip(x, points, strict=True)]
    ticks += [(last, f"{found['target_particles']}")] if found["target_particles"] else []
    low, high = 0.9 * min(y), 1.1 * max([*y, high])
    steps = [float(f"{1 / sqrt(low + part * (high - low)):.2g}") for part in (0.05, 0.35, 0.65, 0.95)]
    vertical = Axis(low, high, [(1 / step**2, f"{step:g}") for step in dict.fromkeys(steps)], "resolution, Å (1/d²)")
    horizontal = Axis(x[0] - margin, last + margin, ticks, "particles")
    return line_chart(series, horizontal, vertical, "Resolution against the number of particles")


def orientation_chart(level: dict[str, Any]) -> Markup:
    """How far the orientations from both halves of the tilts are apart, beside what chance would give."""
    found = level["orientations"]
    last = max((edge for edge, count, by_chance in zip(found["edges"], found["counts"], found["expected"], strict=False)
                if count or by_chance >= 0.05), default=0) + found["edges"][1]  # fmt: skip
    shown = [edge for edge in found["edges"][:-1] if edge < last]
    x = [edge + found["edges"][1] / 2 for edge in shown]
    counts, expected = (found[name][: len(shown)] for name in ("counts", "expected"))
    series = [Series("particles", "p-points", x, counts, marked=True), Series("by chance", "p-line", x, expected)]
    high = 1.15 * max([*counts, *expected, 1])
    vertical = Axis(0, high, [(value, f"{value:g}") for value in nice_ticks(0, high, 4)], "particles")
    horizontal = Axis(0, last, [(value, f"{value:g}°") for value in nice_ticks(0, last, 6)], "angle between both")
    within = Line(found["degrees"], "y", f"the same within {found['degrees']:g}°")
    title = f"Angles between the orientations from either half of the tilts at bin {level['binning']}"
    return line_chart(series, horizontal, vertical, title, [within], readout="at")


def template_chart(found: dict[str, Any]) -> Markup:
    """FSC of the map with its template beside that of the half maps."""
    fsc = found["fsc"]
    x = [1 / value for value in fsc["resolution"]]
    names = {"template": "map and template", "halves": "half maps", "allowed": "what these allow"}
    series = [Series(text, f"t-{name}", x, fsc[name]) for name, text in names.items()]
    given = Line(1 / found["low_pass"], "y", f"given to {found['low_pass']:.0f} Å")
    title = "Fourier shell correlation of the map with its template"
    # Room for the line's label above the curves.
    return line_chart(series, frequency_axis(x[-1]), replace(SHARES, high=1.18), title, [given], readout="at")


def resolution_chart(dataset: dict[str, Any]) -> Markup | None:
    """Resolution against step: every level's starting low-pass, refinement and result, then the polishing cycles."""
    steps = list(_steps(dataset))
    if sum(bool(values.get("masked")) for _, values in steps) < 2:
        return None
    known = [value for _, values in steps for value in values.values() if value]
    count = len(steps)
    horizontal = Axis(-0.4, max(count - 0.6, 0.6), [(index, name) for index, (name, _) in enumerate(steps)], "step")
    names = {"masked": "masked", "unmasked": "unmasked", "nyquist": "Nyquist"}
    series = []
    for key, text in names.items():
        values = [step.get(key) for _, step in steps]
        if any(values):
            heights = [1 / value if value else None for value in values]
            series.append(Series(text, f"s-{key}", range(count), heights, marked=key != "nyquist"))
    return line_chart(series, horizontal, resolution_axis(known), "Resolution against step")


def _steps(dataset: dict[str, Any]) -> Any:
    """Name and resolutions of every step."""
    for level in dataset["levels"]:
        nyquist = {"nyquist": 2 * level["pixel_size"]}
        several = len(dataset["levels"]) > 3
        if level["low_pass"] and not several:
            yield "start", nyquist | {"masked": level["low_pass"]}
        if level["resolution"]["masked"]:
            result = {key: level["resolution"][key] for key in ("masked", "unmasked")}
            yield f"bin {level['binning']}", nyquist | result
    polishing = dataset["polishing"] or {"cycles": []}
    short = {"ctf_refine": "ctf", "polish": "pol", "refine": "ref"}
    nyquist = {"nyquist": 2 * dataset["levels"][-1]["pixel_size"]}
    for cycle in polishing["cycles"]:
        yield f"{short[cycle['step']]} {cycle['cycle']}", nyquist | {"masked": cycle["resolution"]}


def frequency_axis(last: float) -> Axis:
    """An axis of frequencies up to `last`, 1/Angstrom, labelled with resolutions."""
    return Axis(0, last, frequency_ticks(last), "resolution, Å")


def resolution_axis(values: list[float]) -> Axis:
    """An axis of resolutions, better ones higher up, linear in frequency."""
    best = 1.08 / min(values)
    return Axis(0, best, frequency_ticks(best, 5), "resolution, Å")
