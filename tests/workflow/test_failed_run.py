"""A run that fails has a page and a results.json of its own, and nothing of an earlier run is left to be mistaken."""

import json
import subprocess

import pytest
from helpers import REFINEMENT_FAILS, pipeline, stand_in, status_of, write_parameters

from py2rely_core.data.tables import read_star
from py2rely_core.results.schema import read_results


@pytest.mark.nextflow
@pytest.mark.relion
@pytest.mark.slow
def test_relion_fails_in_the_middle(tiny, tmp_path):
    """A stand-in for mpirun says what RELION says when no orientation fits, in Refine3D only."""
    fake = stand_in(
        tmp_path, "mpirun", REFINEMENT_FAILS.format(failure="echo 'ERROR: zero sum of weights' >&2; exit 1")
    )
    parameters = write_parameters(tmp_path / "sta.json", tiny, "4,2")
    run = pipeline(tmp_path, "--parameter", parameters, env=fake)
    assert run.code == 1
    assert "report.html" in run.text
    results = read_results(tmp_path / "results")
    failure = results["failure"]
    assert (results["status"], failure["step"], failure["job"]) == ("failed", "REFINE3D (bin4)", "Refine3D/bin4")
    assert failure["exit_code"] == 70
    assert any("zero sum of weights" in line for line in failure["last_lines"])
    assert "no orientation" in failure["explanation"]
    (dataset,) = results["datasets"]
    assert dataset["final"] is None
    assert [level["status"] for level in dataset["levels"]] == ["unfinished", "waiting"]
    jobs = [job["job"] for job in dataset["levels"][0]["jobs"]]
    assert jobs == ["Extract/bin4", "Reconstruct/bin4_start", "PostProcess/bin4_start"]
    assert dataset["levels"][0]["jobs"][1]["cpu_seconds"] > 0.05
    assert "zero sum of weights" in (tmp_path / "results/report.html").read_text()
    assert "FAILED" in (tmp_path / "results/summary.txt").read_text()
    _can_be_looked_at(tmp_path)


def _can_be_looked_at(home):
    """Status has the job that failed; so has RELION's project, with RELION's own output."""
    run, steps = status_of(home)
    assert run["state"] == "failed"
    failed = steps["Refine3D/bin4"]
    assert (failed["state"], failed["exit_code"]) == ("failed", 70)
    table = read_star(home / "results/default_pipeline.star")["pipeline_processes"]
    row = table[table["rlnPipeLineProcessAlias"] == "Refine3D/bin4/"].iloc[0]
    assert row["rlnPipeLineProcessStatusLabel"] == "Failed"
    assert "zero sum of weights" in (home / "results" / row["rlnPipeLineProcessName"] / "run.err").read_text()
    command = ["relion_pipeliner", "--check_job_completion"]
    subprocess.run(command, cwd=home / "results", check=True, capture_output=True)


@pytest.mark.nextflow
@pytest.mark.parametrize("core", [pytest.param("there", marks=pytest.mark.long), "missing"])
def test_an_earlier_result_is_replaced(tmp_path, core):
    """Also where the head has no Python packages: then by what Nextflow itself knows."""
    outdir = tmp_path / "results"
    outdir.mkdir()
    for name in ("results.json", "report.html", "summary.txt"):
        (outdir / name).write_text('{"status": "complete"}')
    env = {}
    if core == "missing":
        (tmp_path / "broken/py2rely_core").mkdir(parents=True)
        (tmp_path / "broken/sitecustomize.py").write_text("import sys\nsys.exit('no Python packages here')\n")
        env = {"PYTHONPATH": str(tmp_path / "broken")}
    run = pipeline(tmp_path, "--parameter", "none.json", env=env)
    assert run.code != 0
    results = json.loads((outdir / "results.json").read_text())
    assert results["status"] == "failed"
    assert read_results(outdir)["datasets"] == []
    if core == "there":
        assert any("none.json" in line for line in results["failure"]["last_lines"])
        assert "none.json" in (outdir / "report.html").read_text()
    else:
        assert "there is no report" in run.text
        assert not {"report.html", "summary.txt"} & {path.name for path in outdir.iterdir()}
