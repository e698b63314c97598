"""2D classification of slabs as a step of a run, with real RELION: groups, the choice by hand, and what is repeated."""

import os
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
from helpers import TINY, copick_project, make_data, pipeline, write_parameters, write_picks

from py2rely_core.data.tables import read_star
from py2rely_core.relion import slabs as work


@pytest.mark.nextflow
@pytest.mark.relion
@pytest.mark.slow
def test_classes_of_slabs_are_waited_for(tmp_path):
    settings = {"image_size": 240, "particles": 16, "false_picks": 0.5, "junk": "nothing,beads", "angle_error": 2.0}
    data = make_data(tmp_path / "data", **TINY | settings)
    slabs = {"nr_classes": 3, "nr_iter": 4, "min_particles": 8}
    parameters = write_parameters(tmp_path / "sta.json", data, slabs=slabs, map_analysis={"directions": "no"})
    words = ["--parameter", parameters, "--run_class2D", "--tilt_series_per_task", 1]
    manual = [*words, "--class2D_selection", "manual"]
    first = pipeline(tmp_path, *manual)
    assert first.code == 0, first.text
    assert "--class2D_keep 1,3" in first.text
    assert {"SLABS_GROUP (slabs 1)", "SLABS_GROUP (slabs 2)", "MERGE_SLABS (slabs)"} <= first.executed
    found = first.results["datasets"][0]
    assert (found["status"], found["final"]) == ("choose classes", None)
    shown = found["slabs"]["classes"]
    assert sum(one["particles"] for one in shown) + found["slabs"]["not_judged"] == found["particles_in"] == 48
    assert "2D classes of slabs" in (tmp_path / "results/report.html").read_text()

    project = (tmp_path / "results/default_pipeline.star").read_text()
    assert "relion.class2d" in project and "run_it004_optimiser.star" in project
    assert "relion.class2d" in (tmp_path / "results/Class2D/slabs/job.star").read_text()
    # What is chosen by repeats no classification.
    again = pipeline(tmp_path, *manual, "--slabs.keep_not_judged", "no", "-resume")
    assert again.code == 0, again.text
    assert {task for task in again.executed if "slabs" in task} == {"SELECT_SLABS (slabs)"}


@pytest.mark.nextflow
@pytest.mark.relion
@pytest.mark.long
def test_a_second_round_and_data_sets_side_by_side(tmp_path):
    data = make_data(tmp_path / "data", **TINY)
    write_parameters(tmp_path / "two.json", data, slabs={"run": "yes", "second_classes": 2})
    write_parameters(tmp_path / "none.json", data)
    (tmp_path / "sheet.csv").write_text("id,parameters\ntwo,two.json\nnone,none.json\n")
    run = pipeline(tmp_path, "--sample_sheet", "sheet.csv", "-stub-run")
    assert run.code == 0, run.text
    steps = ("SLABS", "CLASS2D_AGAIN", "SELECT_SLABS_AGAIN")
    assert {f"{name} (two: slabs)" for name in steps} <= run.executed
    assert {"CLASS2D (two: slabs_first)", "SELECT_SLABS (two: slabs_first)", "REFINE3D (two: bin2)"} <= run.executed
    assert not [task for task in run.executed if "(none: slabs" in task]
    assert "REFINE3D (none: bin2)" in run.executed


@pytest.mark.nextflow
@pytest.mark.relion
@pytest.mark.long
def test_slabs_of_copicks_tomograms(tmp_path, monkeypatch):
    """What RELION made, kept in a copick project, gives the same images there; a changed voxel repeats them."""
    copick = pytest.importorskip("copick")
    data = make_data(tmp_path / "data", **TINY | {"image_size": 240, "particles": 16})
    monkeypatch.chdir(data)
    table = read_star("tilt_series.star")["global"]
    asked = work.Settings(240, 160, 150, 2)
    config = copick_project(tmp_path / "copick", {name: ((120, 120, 32), 10) for name in table["rlnTomoName"]})
    root, truth = copick.from_file(str(config)), pd.read_csv("truth/particles.csv")
    for name, rows in truth.groupby("tomogram"):
        with work.reconstructed(tmp_path / "made", table, asked)(name) as made:
            spacing = root.get_run(name).get_voxel_spacing(10)
            spacing.new_tomogram("denoised").from_numpy(np.array(made.voxels, np.float32))
        places = rows[["x", "y", "z"]].to_numpy() + np.array([600, 600, 160])
        write_picks(config, "picker", {name: places}, oriented=False)
    work.make_slabs(
        tmp_path / "expected", Path("particles.star"), asked, work.reconstructed(tmp_path / "made", table, asked), table
    )
    parameters = write_parameters(
        tmp_path / "sta.json", data, pseudo_subtomo={"in_particles": ""}, reconstruct={"in_particles": ""},
        slabs={"tomo_alg": "denoised", "voxel_spacing": 10, "box": 240, "thickness": 160, "nr_classes": 2,
               "nr_iter": 1},
    )  # fmt: skip
    words = ["--parameter", parameters, "--copick", config, "--particle_name", "ribosome", "--run_denovo_generation"]
    words += ["--run_class2D", "--class2D_selection", "manual", "-resume"]
    first = pipeline(tmp_path, *words)
    assert first.code == 0, first.text
    assert not list((tmp_path / "results/Extract/slabs").glob("commands.jsonl"))  # RELION made none
    for name in table["rlnTomoName"]:
        found, expected = (
            mrcfile.read(job / f"stacks/{name}.mrcs")
            for job in (tmp_path / "results/Extract/slabs", tmp_path / "expected")
        )
        assert found.shape == expected.shape and np.allclose(found, expected, atol=1e-3)
    assert pipeline(tmp_path, *words).executed == {"SOURCES"}
    chunk = next((tmp_path / "copick").rglob("TS_02/VoxelSpacing10.000/denoised.zarr/0/0/0/0"))
    os.utime(chunk, (1e9, 1e9))
    changed = pipeline(tmp_path, *words)
    assert changed.code == 0, changed.text
    assert {"SLABS (slabs)", "CLASS2D (slabs)"} <= changed.executed
    assert not {"IMPORT_DATA (imported)", "IMPORT (tilt_series)"} & changed.executed
