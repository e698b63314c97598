"""Disk space that is freed after a run, and during one: what was promised to be resumed still is."""

import pytest
from helpers import PLAIN, TINY, cli, make_data, pipeline, write_parameters

pytestmark = [pytest.mark.relion, pytest.mark.nextflow, pytest.mark.slow]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("clean") / "data", **TINY, angle_error=2.0, shift_error=3.0)


def _images(work):
    return {path for path in work.glob("*/*/Extract/*/Subtomograms/**/*.mrcs") if path.is_file()}


def test_after_cleaning_a_later_level_is_computed_anew(data, tmp_path, capsys):
    parameters = write_parameters(tmp_path / "sta.json", data, "4,2", 100, **PLAIN)
    arguments = ["--parameter", parameters, "-resume"]
    first = pipeline(tmp_path, *arguments)
    assert first.code == 0, first.text
    cli("clean", tmp_path / "results", "--dry-run")
    assert len({path.parents[2].name for path in _images(tmp_path / "work")}) == 2
    cli("clean", tmp_path / "results")
    assert "freed" in capsys.readouterr().out
    assert {path.parents[2].name for path in _images(tmp_path / "work")} == {"bin2"}
    assert not list((tmp_path / "results").glob("Refine3D/bin4/run_it000*"))

    changed = pipeline(tmp_path, *arguments, "--levels.2.refine3D.nr_pool", "7")
    assert changed.code == 0, changed.text
    assert "REFINE3D (bin2)" in changed.executed
    assert not [task for task in changed.executed if "bin4" in task or "EXTRACT" in task]
    assert changed.results["datasets"][0]["final"]["resolution"] is not None


def test_stacks_go_during_the_run(data, tmp_path):
    """Also those of groups, which are the same files under other names."""
    parameters = write_parameters(tmp_path / "sta.json", data, "4", 100, **PLAIN)
    arguments = ["--parameter", parameters, "--tilt_series_per_task", "1", "--keep_stacks", "false", "-resume"]
    run = pipeline(tmp_path, *arguments)
    assert run.code == 0, run.text
    assert "FREE_IMAGES (bin4)" in run.executed
    assert not _images(tmp_path / "work")
    again = pipeline(tmp_path, *arguments)
    assert again.code == 0, again.text
    assert not again.executed
