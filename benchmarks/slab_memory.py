"""Peak memory of cutting slabs by the number of tomograms; see benchmarks/slab_memory."""

import multiprocessing
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import zarr

from py2rely_core.data.tables import write_star
from py2rely_core.relion.slabs import Settings, Tomogram, make_slabs, opened

NUMBERS, PICKS = (1, 4, 16), 20
SHAPE, VOXEL = (200, 693, 693), 10.0
#: Share by which the peak of most tomograms may be above that of one.
GROWTH = 0.1


def write_tomogram(place: Path) -> None:
    """One of noise, as MRC and as zarr in copick's chunks; all names stand for it."""
    rng = np.random.default_rng(1)
    store = zarr.open_group(str(place / "t.zarr"), mode="w").create_dataset(
        "0", shape=SHAPE, chunks=(256, 256, 256), dtype=np.float32
    )
    with mrcfile.new_mmap(place / "t.mrc", SHAPE, mrc_mode=2) as mrc:
        for z in range(0, SHAPE[0], 50):
            mrc.data[z : z + 50] = store[z : z + 50] = rng.normal(size=(50, *SHAPE[1:])).astype(np.float32)
        mrc.voxel_size = VOXEL


@contextmanager
def in_zarr(place: Path) -> Iterator[Tomogram]:
    """The tomogram as copick's are opened."""
    yield Tomogram(zarr.open(str(place / "t.zarr"), mode="r")["0"], VOXEL)


def cut(place: Path, kind: str, number: int, answer: multiprocessing.Queue) -> None:
    """Cut the slabs of so many tomograms, at the same places in each; the answer is the peak of this process, GB."""
    names = [f"TS_{n:02d}" for n in range(number)]
    rng = np.random.default_rng(2)
    table = pd.DataFrame({"rlnTomoName": np.repeat(names, PICKS), "rlnOpticsGroup": 1})
    for axis, edge in zip("XYZ", (2400, 2400, 400), strict=True):
        table[f"rlnCenteredCoordinate{axis}Angst"] = np.tile(rng.uniform(-edge, edge, PICKS), number)
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnTomoTiltSeriesPixelSize": [VOXEL]})
    particles = place / f"{kind}_{number}.star"
    write_star({"optics": optics, "particles": table}, particles)
    source = opened(dict.fromkeys(names, place / "t.mrc")) if kind == "MRC" else lambda name: in_zarr(place)
    make_slabs(place / f"{kind}_{number}", particles, Settings(500, 400, 250), source)
    # Unlike ru_maxrss, not that of the process that started this one.
    status = Path("/proc/self/status").read_text()
    answer.put(int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1e6)


def main() -> None:
    """Print the peaks; end with an error where they grow."""
    spawn, grown = multiprocessing.get_context("spawn"), False
    with tempfile.TemporaryDirectory() as place:
        write_tomogram(Path(place))
        for kind in ("MRC", "zarr"):
            peaks = []
            for number in NUMBERS:
                answer = spawn.Queue()
                process = spawn.Process(target=cut, args=(Path(place), kind, number, answer))
                process.start()
                peaks.append(answer.get(timeout=1200))
                process.join()
                print(f"{kind}: {number} tomograms of {PICKS} picks, {peaks[-1]:.2f} GB", flush=True)
            grown |= max(peaks) > (1 + GROWTH) * peaks[0]
    sys.exit("the peak grows with the number of tomograms" if grown else 0)


if __name__ == "__main__":
    main()
