"""A complete run whose result is there with everything: maps, half maps, mask, tables, and tilt images with truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from report_fixture import PIXEL_SIZE, make_run

from py2rely_core.data.geometry import (
    ANGLES,
    CENTRED,
    ORIGINS,
    euler_to_matrix,
    matrix_to_euler,
    subtomogram_matrices,
)
from py2rely_core.data.tables import read_star, write_star
from py2rely_core.maps.io import read_map, write_map
from py2rely_core.maps.masks import spherical_mask
from py2rely_core.simulation.simulate import Settings, write_dataset

SIMULATED = Settings(
    tilt_series=2, particles=4, pixel_size=PIXEL_SIZE, image_size=240, thickness=80, symmetry="C1", tilt_step=20.0,
    noise=0.05, dose=3.0,
)  # fmt: skip
TABLES = {"particles": "Select/bin1/particles.star", "tilt_series": "Import/tilt_series/tomograms.star"}


def make_package_run(run: Path) -> dict[str, Any]:
    """The run of report_fixture without polishing; its tables and images are those of a simulation.

    Particles have shifts and subtomogram angles that are not zero: their true places and orientations are those of
    ``Import/data/truth/particles.csv``.
    """
    make_run(run)
    results = json.loads((run / "results.json").read_text())
    dataset = results["datasets"][0]
    root = "bin1_result"
    dataset["polishing"] = None
    dataset["final"] |= TABLES | {
        "map": f"PostProcess/{root}/postprocess.mrc", "sharpened": None, "mask": f"MaskCreate/{root}/mask.mrc",
        "half_maps": [f"Reconstruct/{root}/half{half}.mrc" for half in (1, 2)], "resolution": 7.9,
    }  # fmt: skip
    _write_maps(run, root)
    _write_tables(run)
    (run / "results.json").write_text(json.dumps(results))
    return results


def _write_maps(run: Path, root: str) -> None:
    final = read_map(run / f"PostProcess/{root}/postprocess.mrc")
    rng = np.random.default_rng(4)
    for name in ("half1", "half2", "merged"):
        noise = rng.normal(scale=0.05 * final.data.std(), size=final.data.shape)
        write_map(run / f"Reconstruct/{root}/{name}.mrc", final.data + noise, final.pixel_size)
    mask = spherical_mask(final.data.shape[0], 30)
    write_map(run / f"MaskCreate/{root}/mask.mrc", mask, final.pixel_size)
    general = {"rlnFinalResolution": [7.9], "rlnBfactorUsedForSharpening": [-85.0]}
    write_star({"general": pd.DataFrame(general)}, run / f"PostProcess/{root}/postprocess.star")


def _write_tables(run: Path) -> None:
    data = run / "Import/data"
    write_dataset(data, SIMULATED)
    tomograms = read_star(data / "tilt_series.star")["global"]
    for name in tomograms["rlnTomoName"]:
        tilts = read_star(data / f"tilt_series/{name}.star")[name]
        tilts["rlnMicrographName"] = [text.replace("@", "@Import/data/") for text in tilts["rlnMicrographName"]]
        # Columns of RELION's that name files of the run.
        tilts["rlnCtfImage"] = [f"CtfFind/job003/{name}_{number}.ctf" for number in range(len(tilts))]
        tilts["rlnMicrographMovieName"] = f"{run}/frames/{name}.eer"
        write_star({name: tilts}, run / f"Import/tilt_series/tilt_series/{name}.star")
    tomograms["rlnTomoTiltSeriesStarFile"] = [
        f"Import/tilt_series/tilt_series/{name}.star" for name in tomograms["rlnTomoName"]
    ]
    write_star({"global": tomograms}, run / TABLES["tilt_series"])
    blocks = read_star(data / "particles.star")
    table, rng = blocks["particles"], np.random.default_rng(3)
    n = len(table)
    true = euler_to_matrix(table[ANGLES].to_numpy())
    for name in ("Rot", "Tilt", "Psi"):
        table[f"rlnTomoSubtomogram{name}"] = rng.uniform(0, 170, n)
    frames, shifts = subtomogram_matrices(table), rng.normal(0, 5, (n, 3))
    table[ANGLES] = matrix_to_euler(frames.transpose(0, 2, 1) @ true)
    table[CENTRED] = table[CENTRED].to_numpy() + np.einsum("nij,nj->ni", frames, shifts)
    table[ORIGINS] = shifts
    table["rlnRandomSubset"] = np.arange(n) % 2 + 1
    table["rlnTomoParticleName"] = [f"{name}/{number}" for number, name in enumerate(table["rlnTomoName"], start=1)]
    table["rlnImageName"] = [f"{run}/Extract/bin1/Subtomograms/{name}_stack2d.mrcs" for name in range(n)]
    write_star(blocks | {"particles": table}, run / TABLES["particles"])
