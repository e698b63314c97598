"""A real run that is looked at while it goes on, when it was killed, and when it is over; then RELION opens it."""

import signal
import subprocess
import time

import numpy as np
import pytest
from helpers import LONG, PLAIN, REPO, STEADY, environment, make_data, status_of, write_parameters

from py2rely_core.data.tables import read_star
from py2rely_core.maps.io import read_map

pytestmark = [pytest.mark.relion, pytest.mark.nextflow, pytest.mark.slow]
LAUNCHER = str(REPO / "bin/py2rely")


def look(directory, *arguments):
    done = subprocess.run([LAUNCHER, "status", directory, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def start(tmp_path):
    """Start the pipeline there; what still runs at the end of a test is ended."""
    started = []

    def run():
        command = [LAUNCHER, "pipelines", "sta", "-p", "sta.json", "--cpus", "2"]
        with (tmp_path / "printed.txt").open("w") as out:
            started.append(subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=out, stderr=out))
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(120)


def until(process, directory, condition, seconds=600):
    """The first status that a condition holds for, while the run goes on."""
    deadline = time.time() + seconds
    while time.time() < deadline and process.poll() is None:
        if (directory / "results/run.json").is_file():
            run, steps = status_of(directory)
            if condition(steps):
                return run, steps
        time.sleep(0.3)
    raise AssertionError((directory / "printed.txt").read_text())


def refines(steps):
    refine = steps.get("Refine3D/bin2", {})
    return refine.get("state") == "running" and len(refine["progress"].get("history", [])) > 2


def test_status_from_start_to_end_and_the_project_in_relion(tmp_path, start):
    data = make_data(tmp_path / "data", **STEADY)
    write_parameters(tmp_path / "sta.json", data, refine3D=LONG, **PLAIN)
    process = start()
    run, steps = until(process, tmp_path, refines)
    assert run["state"] == "running"
    refine = steps["Refine3D/bin2"]
    assert 0 < refine["progress"]["history"][-1]["resolution"] < 100
    assert refine["progress"]["iteration"] == refine["progress"]["history"][-1]["iteration"]
    assert refine["started"] + refine["seconds"] <= time.time()
    assert steps["Extract/bin2"]["result"] == "40 particles"
    assert steps["PostProcess/bin2_result"]["state"] == "waiting"
    text = look(tmp_path)
    assert "\x1b" not in text
    assert "running   Refine3D/bin2" in text
    # The command became Nextflow: a signal to it reaches the run, which ends its tasks.
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) != 0
    run, steps = status_of(tmp_path)
    assert run["state"] in ("failed", "crashed")
    assert steps["Refine3D/bin2"]["state"] in ("stopped", "failed")
    assert steps["PostProcess/bin2_result"]["state"] == "skipped"
    process = start()
    watched = subprocess.run([LAUNCHER, "status", tmp_path, "--watch", "--interval", "1", "--json"],
                             capture_output=True, text=True, check=True)  # fmt: skip
    assert process.wait(600) == 0, (tmp_path / "printed.txt").read_text()
    assert len(watched.stdout.splitlines()) >= 1
    run, steps = status_of(tmp_path / "results")
    assert run["state"] == "finished"
    assert steps["Extract/bin2"]["state"] == "cached"
    assert {step["state"] for step in steps.values()} == {"done", "cached"}
    assert " A" in steps["PostProcess/bin2_result"]["result"]
    opens_in_relion(tmp_path / "results")


def opens_in_relion(results):
    """RELION's pipeliner takes the project, shows what came from what, and works on with it."""
    before = read_star(results / "default_pipeline.star")
    processes = before["pipeline_processes"]
    names = dict(zip(processes["rlnPipeLineProcessAlias"], processes["rlnPipeLineProcessName"], strict=True))
    assert set(processes["rlnPipeLineProcessStatusLabel"]) == {"Succeeded"}
    assert {"Import/tilt_series/", "Refine3D/bin2/", "MaskCreate/bin2_result/", "PostProcess/bin2_result/"} <= set(
        names
    )
    edges = {tuple(row) for row in before["pipeline_input_edges"].to_numpy().tolist()}
    for node, job in (
        ("Extract/bin2/particles.star", "Refine3D/bin2/"), ("Reconstruct/bin2_start/half1.mrc", "Refine3D/bin2/"),
        ("Refine3D/bin2/run_data.star", "Select/bin2/"),
        ("MaskCreate/bin2_result/mask.mrc", "PostProcess/bin2_result/"),
    ):  # fmt: skip
        maker, file = node.rsplit("/", 1)
        assert (f"{names[maker + '/']}{file}", names[job]) in edges
        assert (results / names[job] / "run.out").is_file() or job.startswith("Select")
    job_star = f"{names['PostProcess/bin2_result/']}job.star"
    subprocess.run(["relion_pipeliner", "--addJobFromStar", job_star], cwd=results, check=True, capture_output=True)
    new = read_star(results / "default_pipeline.star")["pipeline_processes"].iloc[-1]["rlnPipeLineProcessName"]
    subprocess.run(["relion_pipeliner", "--RunJobs", new, "--schedule", "again", "--sec_wait_after", "0"],
                   cwd=results, check=True, capture_output=True)  # fmt: skip
    maps = [read_map(results / name / "postprocess.mrc").data for name in ("PostProcess/bin2_result", new)]
    assert np.array_equal(*maps)
    # RELION knows the run's jobs by their numbers, also where they are named in a form.
    edges = {tuple(row) for row in read_star(results / "default_pipeline.star")["pipeline_input_edges"].to_numpy()}
    assert (f"{names['Reconstruct/bin2_result/']}half1.mrc", new) in edges
    # Another run keeps the job that was added, and every number.
    subprocess.run([LAUNCHER, "task", "project", results], check=True)
    after = read_star(results / "default_pipeline.star")["pipeline_processes"]
    assert new in set(after["rlnPipeLineProcessName"])
    kept = dict(zip(after["rlnPipeLineProcessAlias"], after["rlnPipeLineProcessName"], strict=True))
    assert {alias: kept[alias] for alias in names} == names
