"""``results.json`` as one self-contained page."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from py2rely_core.maps.io import Map, Volume, read_map
from py2rely_core.results import resolution_text

CURVES = {"corrected": "#0b6e4f", "masked": "#1f77b4", "unmasked": "#8c8c8c", "randomised": "#c0392b"}
CURVE_NAMES = {
    "corrected": "corrected",
    "masked": "masked",
    "unmasked": "unmasked",
    "randomised": "phase-randomised",
}


def write_report(results: dict[str, Any], maps: dict[tuple[str, str], Path], path: Path) -> None:
    """Write the page.

    Parameters
    ----------
    results : dict
        As :func:`py2rely_core.results.collect_results` returns it.
    maps : dict
        Post-processed map by data set id and job, such as ``bin4_result``; a level without one has no picture.
    path : Path
        The HTML file.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("py2rely_core.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {
        "fsc_figure": fsc_figure,
        "history_figure": history_figure,
        "resolution_text": resolution_text,
        "slices": lambda identity, binning: slices_figure(maps.get((identity, f"bin{binning}_result"))),
    }
    path.write_text(environment.get_template("report.html.j2").render(results=results))


def central_slices(data: Volume) -> list[np.ndarray]:
    """The slices through the origin, perpendicular to z, y and x."""
    centre = data.shape[0] // 2
    return [data[centre], data[:, centre], data[:, :, centre]]


def show_slices(axes: Any, volume: Map, limits: np.ndarray | None = None) -> None:
    """Draw the central slices into three axes, in one grey scale, the map's own where no `limits` are given."""
    low, high = np.percentile(volume.data, [0.5, 99.9]) if limits is None else limits
    margin = volume.data.shape[0] // 8
    for axis, image, name in zip(axes, central_slices(volume.data), ("xy", "xz", "yz"), strict=True):
        shown = image[margin:-margin, margin:-margin]
        axis.imshow(shown, cmap="gray", vmin=low, vmax=high, origin="lower", interpolation="bicubic")
        axis.set_xlabel(name, fontsize=9, color="#666666")
        axis.set_xticks([])
        axis.set_yticks([])


def slices_figure(path: Path | None) -> str:
    """Data address of a PNG with a map's central slices; empty without a map."""
    if path is None:
        return ""
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    show_slices(figure.subplots(1, 3), read_map(path))
    return _png(figure)


def draw_classes(classes: list[dict[str, Any]], maps: dict[int, Path], path: Path) -> None:
    """Write a PNG: the central slices of every class, in one grey scale, with its share and whether it is kept.

    Parameters
    ----------
    classes : list of dict
        As :func:`py2rely_core.selection.as_records` returns them.
    maps : dict of int to Path
        Map of each class.
    """
    volumes = {number: read_map(one) for number, one in maps.items()}
    values = np.concatenate([volume.data.ravel() for volume in volumes.values()])
    limits = np.percentile(values, [0.5, 99.9])
    figure = Figure(figsize=(2.1 * len(classes) + 0.4, 6.6), layout="constrained")
    columns = figure.subplots(3, len(classes), squeeze=False).T
    for axes, row in zip(columns, classes, strict=True):
        show_slices(axes, volumes[row["class"]], limits)
        kept = "kept" if row["kept"] else "left out" if row["why"] != "to be chosen" else "to be chosen"
        resolution = "" if row["resolution"] is None else f", {row['resolution']:.1f} Å"
        axes[0].set_title(f"class {row['class']}: {kept}\n{row['share']:.0%}{resolution}", fontsize=10)
    figure.savefig(path, dpi=130)


def fsc_figure(level: dict[str, Any]) -> str:
    """Data address of a PNG with a level's FSC curves; empty without curves."""
    fsc = level["fsc"]
    if not fsc:
        return ""
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axis = figure.subplots()
    frequency = 1 / np.array(fsc["resolution"])
    for name, colour in CURVES.items():
        width = 2.2 if name == "corrected" else 1.2
        axis.plot(frequency, fsc[name], color=colour, label=CURVE_NAMES[name], linewidth=width)
    axis.axhline(0.143, color="#444444", linewidth=0.8, linestyle=":")
    resolution = level["resolution"]["masked"]
    if resolution and not level["nyquist_limited"]:
        axis.axvline(1 / resolution, color="#444444", linewidth=0.8, linestyle="--")
    frequency_axis(axis, frequency[-1])
    axis.set_ylabel("FSC")
    axis.legend(frameon=False, fontsize=8)
    return _png(figure)


def frequency_axis(axis: Any, last: float) -> None:
    """Label a frequency axis with resolutions, from 0 to the `last` frequency, 1/Angstrom."""
    ticks = np.linspace(0, last, 6)[1:]
    axis.set_xticks(ticks, [f"{1 / tick:.1f}" for tick in ticks])
    axis.set_xlim(0, last)
    axis.set_ylim(-0.1, 1.05)
    axis.set_xlabel("resolution, Å")
    axis.spines[["top", "right"]].set_visible(False)


def history_figure(level: dict[str, Any]) -> str:
    """Data address of a PNG with the resolution after each iteration of a refinement; empty without one."""
    points = [(number, value) for number, value in enumerate(level["history"]) if value]
    if len(points) < 2:
        return ""
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axis = figure.subplots()
    axis.plot(*zip(*points, strict=True), color="#0b6e4f", marker="o", markersize=3)
    axis.set_xlabel("iteration of Refine3D")
    axis.set_ylabel("resolution, Å")
    axis.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
