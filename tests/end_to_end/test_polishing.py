"""CTF refinement and polishing with real RELION, from results that are given; the truth is the judge."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import cli, make_data, pipeline

from py2rely_core.tables import read_star, write_star
from py2rely_core.truth import compare_map

pytestmark = [pytest.mark.relion, pytest.mark.nextflow, pytest.mark.slow]


def refined(path, **settings):
    """A simulated data set whose particles have half sets, as after a refinement, and its truth."""
    make_data(path, **settings)
    blocks = read_star(path / "particles.star")
    blocks["particles"]["rlnRandomSubset"] = np.arange(len(blocks["particles"])) % 2 + 1
    write_star(blocks, path / "particles.star")
    return path


def write_recipe(path, data, pixel_size, **blocks):
    cli(
        "prepare", "relion5-parameters", "-o", path, "-ts", data / "tilt_series.star", "-p", data / "particles.star",
        "-ps", pixel_size, "-s", "O", "-lp", 40, "-pd", 150, "-bs", 1.5, "-bl", "1",
    )  # fmt: skip
    recipe = json.loads(path.read_text())
    recipe["refine3D"] |= {"sampling": "1.8 degrees", "auto_local_sampling": "1.8 degrees", "offset_range": 2}
    for name, fields in blocks.items():
        recipe[name] = None if fields is None else recipe.get(name, {}) | fields
    path.write_text(json.dumps(recipe))
    return path


def defocus_errors(series, data):
    """Mean error of each tilt series' defocus, Angstrom, in its tilts up to 10 degrees.

    They have the most signal; with so few particles the astigmatism of higher tilts is not determined.
    """
    errors = {}
    for name, file in series.items():
        found = next(iter(read_star(file).values()))
        truth = pd.read_csv(data / f"truth/{name}_defocus.csv")
        low = truth["rlnTomoYTilt"].abs() < 10.1
        mean = found[["rlnDefocusU", "rlnDefocusV"]].mean(axis=1)
        errors[name] = float((mean - truth["rlnDefocusU"])[low].abs().mean())
    return errors


def fsc_to_truth(run, data, name):
    """Mean FSC to the truth from a third of Nyquist on."""
    curve = compare_map(
        run.directory / f"results/Reconstruct/{name}/merged.mrc", data / "truth/structure.mrc", 130.0
    ).fsc
    return float(curve[len(curve) // 3 : -1].mean())


def test_wrong_defocus_and_motion_are_corrected(tmp_path, monkeypatch):
    data = refined(tmp_path / "data", pixel_size=2.5, image_size=320, particles=20, tilt_series=2, noise=1.0,
                   tilt_step=10, defocus_error=2500, motion=4, seed=0)  # fmt: skip
    parameters = write_recipe(tmp_path / "sta.json", data, 2.5, polishing={"cycles": 1, "refine": False})
    run = pipeline(tmp_path, "--parameter", parameters, "--start", "polish")
    assert run.code == 0, run.text
    (dataset,) = run.results["datasets"]
    steps = {step["step"]: step for step in dataset["polishing"]["cycles"]}
    assert list(steps) == ["ctf_refine", "polish"]
    assert all(step["accepted"] for step in steps.values())
    assert dataset["polishing"]["best"] == steps["polish"]["name"]
    final = dataset["final"]
    assert "bin1_cycle1_polish" in final["map"]
    assert "Polish/bin1_cycle1" in final["tilt_series"]
    monkeypatch.chdir(tmp_path / "results")
    before = defocus_errors({name: data / f"tilt_series/{name}.star" for name in ("TS_01", "TS_02")}, data)
    refined_series = read_star("CtfRefine/bin1_cycle1/tomograms.star")["global"]
    files = dict(zip(refined_series["rlnTomoName"], refined_series["rlnTomoTiltSeriesStarFile"], strict=True))
    after = defocus_errors(files, data)
    qualities = [fsc_to_truth(run, data, f"bin1_{name}") for name in ("result", "cycle1_ctf", "cycle1_polish")]
    print("defocus", before, after, "FSC to the truth", qualities)
    for name in before:
        assert after[name] < 0.5 * before[name]
    assert max(before.values()) > 500.0
    assert qualities[0] < qualities[1] < qualities[2]
    assert qualities[2] > qualities[0] + 0.1
    motion = json.loads(Path("Polish/bin1_cycle1/job.json").read_text())["motion"]
    assert 0.02 < motion["rms"] < 10
