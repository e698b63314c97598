"""Killed, interrupted and cut into groups: the run goes on, and ends as it would have."""

import json
import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import (
    LONG,
    PLAIN,
    REFINEMENT_FAILS,
    REPO,
    STEADY,
    command,
    environment,
    kill_family,
    make_data,
    pipeline,
    stand_in,
    write_parameters,
)

from py2rely_core.data.tables import read_star
from py2rely_core.maps.io import read_map
from py2rely_core.relion.run import commands

pytestmark = [pytest.mark.relion, pytest.mark.nextflow, pytest.mark.slow]


def _wait_for(found, process: subprocess.Popen, seconds: float = 300) -> None:
    deadline = time.time() + seconds
    while not found() and time.time() < deadline:
        assert process.poll() is None
        time.sleep(0.1)
    assert found()


def _last_kept(checkpoints: Path) -> int:
    kept = [int(path.name[2:]) for path in checkpoints.glob("*/it*") if path.name[2:].isdigit()]
    return max(kept, default=0)


def _started(work: Path) -> list[int]:
    """The iterations that RELION began in a task, from what it printed."""
    text = next(work.glob("*/*/Refine3D/bin2/job.json")).with_name("run.out").read_text()
    return [int(number) for number in re.findall(r"Expectation iteration (\d+)", text)]


def test_killed_run_goes_on_and_ends_as_groups_do(tmp_path):
    """kill -9 of Nextflow and of everything that it started, in the middle of Refine3D; then the same command.

    Beside it an uninterrupted run, whose tilt series were extracted and averaged in groups.
    """
    data = make_data(tmp_path / "data", **STEADY)
    parameters = write_parameters(tmp_path / "sta.json", data, refine3D=LONG, **PLAIN)
    arguments = ["--parameter", parameters, "-resume"]
    process = subprocess.Popen(
        command(*arguments), cwd=tmp_path, env=environment(), start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    checkpoints = tmp_path / "work/checkpoints"
    _wait_for(lambda: _last_kept(checkpoints) >= 2, process)
    kill_family(process)
    kept = _last_kept(checkpoints)
    assert not (tmp_path / "results/Refine3D").exists()

    run = pipeline(tmp_path, *arguments)
    assert run.code == 0, run.text
    assert "REFINE3D (bin2)" in run.executed
    assert not {task for task in run.executed if "EXTRACT" in task or "IMPORT" in task}
    (refined,) = commands(tmp_path / "results/Refine3D/bin2")
    assert refined["continued_after_iteration"] == kept
    assert min(_started(tmp_path / "work")) == kept + 1
    noted = json.loads((tmp_path / "results/Refine3D/bin2/job.json").read_text())
    assert noted["continued_after_iteration"] == kept
    assert len(noted["history"]) == noted["iterations"]  # from the first iteration on
    assert not list(checkpoints.glob("*/it*"))

    whole = pipeline(tmp_path / "whole", "--parameter", parameters, "--tilt_series_per_task", "1")
    assert whole.code == 0, whole.text
    assert sum("EXTRACT_GROUP" in row["name"] for row in whole.tasks) == 2
    assert sum("RECONSTRUCT_GROUP" in row["name"] for row in whole.tasks) == 4
    one, other = (read_star(at.directory / "results/Extract/bin2/particles.star") for at in (run, whole))
    for block, rows in one.items():
        assert other[block].equals(rows), block
    for image in one["particles"]["rlnImageName"]:
        contents = [(at.directory / "results" / image).read_bytes()[1024:] for at in (run, whole)]
        assert contents[0] == contents[1]
    starts = [read_map(at.directory / "results/Reconstruct/bin2_start/merged.mrc").data for at in (run, whole)]
    assert np.abs(starts[0] - starts[1]).max() < 1e-5 * starts[0].std()

    finals = [at.results["datasets"][0]["final"] for at in (run, whole)]
    assert finals[0]["resolution"] == finals[1]["resolution"]
    maps = [read_map(at.directory / "results" / finals[0]["map"]).data.ravel() for at in (run, whole)]
    assert np.corrcoef(*maps)[0, 1] > 0.99


COMMON = (
    "--i Extract/bin2/particles.star --tomograms tilt_series.star --particle_diameter 150 --sym O --j 1 --pool 10 "
    "--ctf --zero_mask --flatten_solvent --oversampling 1 --random_seed 1 --healpix_order 2 --offset_range 2 "
    "--offset_step 2"
)
KINDS = {
    "Class3D": f"mpirun -n 2 relion_refine_mpi --o Class3D/x/run --K 1 --ref Reference/merged.mrc --trust_ref_size "
    f"--ini_high 50 --iter 5 --tau2_fudge 3 --firstiter_cc --norm --scale --pad 1 {COMMON}",
    "InitialModel": f"relion_refine --grad --denovo_3dref --o InitialModel/x/run --iter 8 --grad_write_iter 2 --K 1 "
    f"--tau2_fudge 4 --pad 1 {COMMON}",
}


@pytest.mark.parametrize("kind", ["Class3D", pytest.param("InitialModel", marks=pytest.mark.long)])
def test_classification_and_initial_model_go_on(extracted, tmp_path, kind):
    """kill -9 in the middle: the second attempt starts behind the last complete iteration, and ends with the last."""
    for name in ("tilt_series", "tilt_series.star", "Extract", "Reference"):
        (tmp_path / name).symlink_to(extracted / name)
    env = os.environ | {"PY2RELY_CHECKPOINTS": str(tmp_path / "checkpoints"), "PYTHONPATH": str(REPO)}
    task = [REPO / "bin/py2rely", "task", "relion", f"{kind}/x", "--", *shlex.split(KINDS[kind])]
    process = subprocess.Popen(task, cwd=tmp_path, env=env, start_new_session=True)
    _wait_for(lambda: _last_kept(tmp_path / "checkpoints") >= 1, process)
    kill_family(process)
    kept = _last_kept(tmp_path / "checkpoints")
    last = int(re.search(r"--iter (\d+)", KINDS[kind]).group(1))
    assert kept < last
    shutil.rmtree(tmp_path / kind)  # the next attempt is in another directory
    done = subprocess.run(task, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"going on after iteration {kept} " in done.stdout
    (ran,) = commands(tmp_path / kind / "x")
    assert ran["continued_after_iteration"] == kept
    written = sorted(int(path.name[6:9]) for path in (tmp_path / kind / "x").glob("run_it*_optimiser.star"))
    assert written[0] == kept
    assert written[-1] == last
    assert np.isfinite(read_map(tmp_path / kind / "x" / f"run_it{last:03d}_class001.mrc").data).all()


#: Ends at the first try as a time limit does, and computes at the second.
STOPPED_ONCE = 'if mkdir "$0.once" 2>/dev/null; then kill -TERM $$; fi; exec "$REAL" "$@"'


def test_what_was_stopped_is_tried_again_with_more_memory_and_errors_are_not(tiny, tmp_path):
    fails = REFINEMENT_FAILS.format(failure="echo 'ERROR: no such thing' >&2; exit 1")
    env = stand_in(tmp_path, "relion_tomo_subtomo", STOPPED_ONCE) | stand_in(tmp_path, "mpirun", fails)
    parameters = write_parameters(tmp_path / "sta.json", tiny)
    run = pipeline(tmp_path, "--parameter", parameters, env=env)
    assert run.code != 0
    tried = {name: [row for row in run.tasks if f":{name} " in row["name"]] for name in ("EXTRACT", "REFINE3D")}
    assert [(row["status"], row["exit"]) for row in tried["EXTRACT"]] == [("FAILED", "143"), ("COMPLETED", "0")]
    assert [(row["status"], row["exit"]) for row in tried["REFINE3D"]] == [("FAILED", "70")]
