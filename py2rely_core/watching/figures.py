"""Charts of a refinement or classification, iteration by iteration."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from py2rely_core.report.charts import Axis, Line, Series, line_chart, nice_ticks
from py2rely_core.report.figures import SHARES, frequency_axis, resolution_axis

#: FSC curves that are drawn, the newest in colour.
CURVES = 4

Iterations = list[dict[str, Any]]


def resolution_by_iteration(iterations: Iterations) -> Markup | None:
    """The resolution after each iteration, of every class where there are several; None with less than two."""
    several = max((len(one["classes"]) for one in iterations), default=0)
    if several > 1:
        curves = [
            (f"class {n + 1}", [one["classes"][n]["resolution"] if n < len(one["classes"]) else None
                                for one in iterations])
            for n in range(several)
        ]  # fmt: skip
    else:
        curves = [("resolution", [one["resolution"] for one in iterations])]
    known = [value for _, values in curves for value in values if value]
    if len(known) < 2:
        return None
    pixel_size = next((one["pixel_size"] for one in reversed(iterations) if one["pixel_size"]), None)
    lines = [Line(1 / (2 * pixel_size), "x", f"Nyquist {2 * pixel_size:.3g} Å")] if pixel_size else []
    vertical = resolution_axis(known + ([2 * pixel_size] if pixel_size else []))
    series = [
        Series(name, f"c-run{n}", _numbers(iterations), [1 / value if value else None for value in values], marked=True)
        for n, (name, values) in enumerate(curves)
    ]
    return line_chart(series, _iterations(iterations), vertical, "Resolution after each iteration", lines)


def changes_by_iteration(iterations: Iterations) -> Markup | None:
    """Mean change of orientations (degrees) and offsets (Angstrom) at each iteration; None with less than two."""
    names = {"orientations, degrees": "orientations", "offsets, Å": "offsets"}
    known = [one[key] for one in iterations for key in names.values() if one[key] is not None]
    if len(known) < 2:
        return None
    top = 1.08 * max(known) or 1.0
    vertical = Axis(0, top, [(tick, f"{tick:g}") for tick in nice_ticks(0, top)], "mean change")
    series = [
        Series(name, f"c-run{n}", _numbers(iterations), [one[key] for one in iterations], marked=True)
        for n, (name, key) in enumerate(names.items())
    ]
    title = "Mean change of orientations and offsets at each iteration"
    return line_chart(series, _iterations(iterations), vertical, title)


def shares_by_iteration(iterations: Iterations) -> Markup | None:
    """The share of every class after each iteration; None without classes."""
    several = max((len(one["classes"]) for one in iterations), default=0)
    if several < 2 or len(iterations) < 2:
        return None
    series = [
        Series(
            f"class {n + 1}", f"c-run{n}", _numbers(iterations),
            [one["classes"][n]["share"] if n < len(one["classes"]) else None for one in iterations],
        )
        for n in range(several)
    ]  # fmt: skip
    shares = Axis(0, 1, [(value, f"{value:g}") for value in (0, 0.25, 0.5, 0.75, 1)], "share of the particles")
    return line_chart(series, _iterations(iterations), shares, "Share of every class after each iteration")


def fsc_by_iteration(iterations: Iterations) -> Markup | None:
    """The FSC of the half sets after the last iterations; None where there is none."""
    known = [one for one in iterations if one["fsc"]["values"]]
    if not known:
        return None
    chosen = list(reversed(known))[:: max(1, (len(known) + CURVES - 1) // CURVES)][:CURVES]
    series = [
        Series(f"iteration {one['iteration']}", f"c-run{n}",
               [1 / value for value in one["fsc"]["resolution"]], one["fsc"]["values"])
        for n, one in enumerate(chosen)
    ]  # fmt: skip
    same = len({tuple(one.x) for one in series}) == 1
    return line_chart(
        series, frequency_axis(series[0].x[-1]), SHARES, "Fourier shell correlation by iteration",
        [Line(0.143, "x", "0.143")], readout="at" if same else "",
    )  # fmt: skip


def _numbers(iterations: Iterations) -> list[int]:
    return [one["iteration"] for one in iterations]


def _iterations(iterations: Iterations) -> Axis:
    first, last = iterations[0]["iteration"], max(iterations[-1]["iteration"], iterations[0]["iteration"] + 1)
    ticks = [tick for tick in nice_ticks(first, last, 6) if tick == int(tick)]
    return Axis(first, last, [(tick, f"{tick:g}") for tick in ticks], "iteration")
