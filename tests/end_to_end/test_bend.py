"""One data set fails in the middle, one has a broken tilt series: what can be right is, and the list is clear."""

import mrcfile
import numpy as np
import pytest
from helpers import PLAIN, TINY, make_data, pipeline, stand_in, status_of, write_parameters

from py2rely_core.data.tables import read_star
from py2rely_core.maps.io import read_map

pytestmark = [pytest.mark.relion, pytest.mark.nextflow, pytest.mark.slow]

#: In place of mpirun: the refinement of one diameter fails.
FAILS = (
    'if [[ "$*" == *--auto_refine* && "$*" == *"--particle_diameter 151"* ]]; then\n'
    'echo \'ERROR: no such luck\' >&2; exit 1; fi; exec "$REAL" "$@"'
)


def test_failures_stay_where_they_are(tmp_path):
    settings = TINY | {"angle_error": 2.0, "shift_error": 3.0}
    data = make_data(tmp_path / "data", **settings)
    broken = make_data(tmp_path / "broken", **settings | {"tilt_series": 3})
    with mrcfile.open(broken / "tilt_series/TS_02.mrcs", mode="r+") as mrc:
        mrc.data[2, 60:70, :] = np.nan  # where the preflight does not look
    rows = ["id,parameters"]
    for name, source, diameter in (("good", data, 150), ("fails", data, 151), ("holed", broken, 150)):
        parameters = write_parameters(
            tmp_path / f"{name}.json", source, refine3D={"particle_diameter": diameter}, **PLAIN
        )
        rows.append(f"{name},{parameters}")
    (tmp_path / "sheet.csv").write_text("\n".join(rows) + "\n")
    common = ["--sample_sheet", "sheet.csv", "--tilt_series_per_task", "2", "-resume"]
    arguments = [*common, "--max_lost_tilt_series", "34%"]
    run = pipeline(tmp_path, *arguments, env=stand_in(tmp_path, "mpirun", FAILS))
    assert run.code != 0
    assert "FAILED: REFINE3D (fails: bin2)" in run.text
    assert "Refine3D/bin2: relion_refine_mpi failed with exit code 1." in run.text
    results = run.results
    assert results["status"] == "failed"
    (failure,) = results["failures"]
    assert (failure["dataset"], failure["job"], failure["exit_code"]) == ("fails", "Refine3D/bin2", 70)
    assert any("no such luck" in line for line in failure["last_lines"])
    found = {one["id"]: one for one in results["datasets"]}
    assert {name: one["status"] for name, one in found.items()} == {
        "good": "complete", "fails": "unfinished", "holed": "complete",
    }  # fmt: skip
    assert found["fails"]["final"] is None
    page = (tmp_path / "results/report.html").read_text()
    assert "fails failed at REFINE3D" in page
    about, _ = status_of(tmp_path / "results")
    assert about["state"] == "failed"
    assert "Steps failed: 1" in about["error"]

    # The broken tilt series is gone, with its reason and its particles; what is left is right.
    (lost,) = found["holed"]["lost_tilt_series"]
    assert (lost["tilt_series"], lost["particles"]) == ("TS_02", 12)
    assert "not finite" in lost["reason"]
    assert found["good"]["lost_tilt_series"] == []
    particles = read_star(tmp_path / "results" / found["holed"]["final"]["particles"])["particles"]
    assert set(particles["rlnTomoName"]) == {"TS_01", "TS_03"}
    steps = {step["job"]: step for step in found["holed"]["particle_steps"]}
    assert (steps["Extract/bin2"]["particles_in"], steps["Extract/bin2"]["particles_out"]) == (36, 24)
    maps = [read_map(tmp_path / "results" / found[name]["final"]["map"]).data.ravel() for name in ("good", "holed")]
    assert np.corrcoef(*maps)[0, 1] > 0.9

    # The same command mends the one, and repeats nothing else.
    mended = pipeline(tmp_path, *arguments)
    assert mended.code == 0, mended.text
    assert not {task for task in mended.executed if "(good" in task or "(holed" in task}
    assert "REFINE3D (fails: bin2)" in mended.executed
    assert {one["status"] for one in mended.results["datasets"]} == {"complete"}
    assert mended.results["failures"] == []
    # Fewer may be lost now than were.
    strict = pipeline(tmp_path, *common)
    assert strict.code != 0
    assert "TS_02" in strict.text
