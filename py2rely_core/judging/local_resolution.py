"""What ``relion_postprocess --locres`` found, as a distribution within the map's mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from py2rely_core.maps.io import read_map
from py2rely_core.relion.outputs.job import bad_output, check_map, write_numbers

MAP, FILTERED = "relion_locres.mrc", "relion_locres_filtered.mrc"
#: Bars of the histogram.
BARS = 40
#: Colours span the distribution without so many percent at either end.
TAIL = 2.0


def check_local_resolution(job: Path, mask: Path, box: int, pixel_size: float, sampling: float) -> None:
    """Prove both maps of a local resolution, and note its distribution.

    Parameters
    ----------
    job, mask : Path
        The job, and the best map's mask.
    box : int
        Voxels.
    pixel_size, sampling : float
        Of the map, and distance of the points at which the resolution was estimated, Angstrom.
    """
    for name in (MAP, FILTERED):
        check_map(job, job / name, box, pixel_size)
    values, inside = read_map(job / MAP).data, read_map(mask).data > 0.5
    known = values[inside & (values > 0)]
    if not known.size:
        raise bad_output(job, f"{MAP} has no resolution within the mask.")
    low, high = np.percentile(known, [TAIL, 100 - TAIL])
    counts, edges = np.histogram(np.clip(known, low, high), bins=BARS, range=(low, max(high, low + 0.01)))
    best, median, worst = (round(float(value), 3) for value in np.percentile(known, [5, 50, 95]))
    write_numbers(
        job,
        box=box,
        pixel_size=pixel_size,
        local_resolution={
            "best": best,
            "median": median,
            "worst": worst,
            "sampling": sampling,
            "range": [round(float(low), 3), round(float(high), 3)],
            "edges": edges.round(3).tolist(),
            "counts": counts.tolist(),
        },
    )
