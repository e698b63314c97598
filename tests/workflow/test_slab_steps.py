"""2D classification of slabs as a step of a run, with real RELION: groups, the choice by hand, and what is repeated."""

import pytest
from helpers import TINY, make_data, pipeline, write_parameters


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
