"""Seconds of the steps on the best map: sharpening, directions, comparison with the template, local resolution."""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from py2rely_core.judging.template import compare
from py2rely_core.maps import directions
from py2rely_core.maps.io import Map, write_map
from py2rely_core.maps.masks import spherical_mask
from py2rely_core.simulation.structures import density, make_structure

BOXES = (48, 96)
#: As wide as a box of 96 at 2.5 A, whatever the box.
EDGE, DIAMETER = 240.0, 130.0
#: Few points, each of which takes as long as with RELION's own distance.
SAMPLING = 60


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Seconds that a call takes, and what it returns."""
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def relion(place: Path, *more: str) -> str:
    """What ``relion_postprocess`` prints."""
    words = ["relion_postprocess", "--i", "half1.mrc", "--mask", "mask.mrc", "--o", "job/out", *more]
    return subprocess.run(words, cwd=place, check=True, capture_output=True, text=True).stdout


def measure(box: int) -> None:
    """Print a line for a box."""
    pixel_size, rng = EDGE / box, np.random.default_rng(0)
    signal = density(make_structure(DIAMETER, "C1", 0), box, pixel_size)
    halves = [signal + signal.std() * rng.normal(size=signal.shape).astype(np.float32) for _ in (1, 2)]
    mask = spherical_mask(box, 0.5 * DIAMETER / pixel_size)
    whole, given = Map((halves[0] + halves[1]) / 2, pixel_size), Map(signal, pixel_size)
    curve = np.linspace(1, 0, box // 2)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "job").mkdir()
        for part, data in {"half1": halves[0], "half2": halves[1], "mask": mask}.items():
            write_map(place / f"{part}.mrc", data, pixel_size)
        sharpening, _ = timed(lambda: relion(place, "--auto_bfac", "--autob_lowres", "20"))
        local, printed = timed(lambda: relion(place, "--locres", "--locres_sampling", str(SAMPLING)))
    axes = directions.directions()
    cones, _ = timed(lambda: directions.conical_fsc(*halves, mask, axes))
    template, _ = timed(lambda: compare(whole, given, Map(mask, pixel_size), curve, 40.0, DIAMETER))
    points = int(re.search(r"in (\d+) sampling points", str(printed))[1])
    print(
        f"box {box}: sharpening {sharpening:.1f} s, directions {cones:.1f} s, template {template:.1f} s, "
        f"local resolution {local:.1f} s for {points} points: {local / points / box**3:.1e} s per voxel and point",
        flush=True,
    )


for size in map(int, sys.argv[1:] or BOXES):
    measure(size)
