"""The charts of the page, from the numbers of ``results.json``."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from py2rely_core.report.charts import Axis, Line, Series, frequency_ticks, line_chart, nice_ticks

#: Curve to its name; the order is the legend's.
CURVES = {
    "corrected": "corrected",
    "masked": "masked",
    "unmasked": "unmasked",
    "randomised": "phase-randomised",
}
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
