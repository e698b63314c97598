"""A first level of subtomograms in real space, and a second one of 2D stacks."""

import numpy as np
import pytest
from helpers import NOISY, PLAIN, TINY, make_data, pipeline, write_parameters

from py2rely_core.data.geometry import CENTRED
from py2rely_core.data.tables import read_star
from py2rely_core.simulation.truth import compare_poses, compare_run

pytestmark = [pytest.mark.relion, pytest.mark.nextflow, pytest.mark.slow]


def test_subtomograms_then_stacks(tmp_path):
    data = make_data(tmp_path / "data", **TINY | NOISY | {"tilt_step": 10.0, "random_angles": True, "shift_error": 3.0})
    coarse = {"sampling": "15 degrees", "offset_range": 2}
    parameters = write_parameters(
        tmp_path / "sta.json", data, "2,1", refine3D=coarse, class3D=coarse,
        pseudo_subtomo={"do_real_subtomo": "yes"}, map_analysis=PLAIN["map_analysis"], polishing={"cycles": 0},
        initial_reference={"template_iterations": 3}, levels={"1": {"refine3D": {"other_args": "--skip_align"}}},
    )  # fmt: skip
    run = pipeline(
        tmp_path, "--parameter", parameters, "--reference_template", data / "template.mrc",
        "--tilt_series_per_task", "1",
    )  # fmt: skip
    assert run.code == 0, run.text
    results = tmp_path / "results"
    said = {binning: (results / f"Extract/bin{binning}/commands.jsonl").read_text() for binning in (2, 1)}
    assert "--real_subtomo" in said[2] and "--stack2d" not in said[2]
    assert "--stack2d" in said[1] and "--real_subtomo" not in said[1]
    # Their table has the places at which they were cut: those of voxels.
    places = read_star(results / "Extract/bin2/particles.star")["particles"][CENTRED].to_numpy(dtype=float) / 10
    assert np.abs(places - places.round()).max() < 1e-4
    coarse = compare_poses(results / "Select/bin2/particles.star", data, "O")
    assert coarse["shift_error"].median() < 4.0
    assert coarse["angle_error"].median() < 6.0
    maps, _poses = compare_run(results, data)
    found = maps[-1].fsc[maps[-1].resolutions >= 20]
    assert found[-1] > 0.8, np.round(maps[-1].fsc, 2)
    first, second = run.results["datasets"][0]["levels"]
    assert first["orientations"]["judgement"] == "not tested"
    assert "subtomograms" in first["orientations"]["text"]
    assert second["orientations"]["judgement"] != "not tested"
