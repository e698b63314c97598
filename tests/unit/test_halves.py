"""Half sets that are aligned apart: what goes into each, and what comes out of both."""

import json

import numpy as np
import pandas as pd
import pytest

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.maps.io import read_map, write_map
from py2rely_core.problems import ExitCode, ProblemError
from py2rely_core.relion.halves import half_set, join_halves

NAMES = [f"TS_1/{number}" for number in range(9)]


def write_particles(path, halves):
    table = pd.DataFrame({"rlnTomoParticleName": NAMES[: len(halves)], "rlnRandomSubset": halves, "rlnAngleRot": 0.5})
    write_star({"optics": pd.DataFrame({"rlnOpticsGroup": [1]}), "particles": table}, path)


def test_there_and_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_particles(tmp_path / "all.star", [1, 2, 2, 1, 1, 2, 1, 2, 1])
    jobs = [tmp_path / f"Class3D/bin4_template_half{half}" for half in (1, 2)]
    for half, job in enumerate(jobs, start=1):
        half_set(tmp_path / "all.star", half, job)
        own = read_star(job / "particles.star")
        assert set(own["particles"]["rlnRandomSubset"]) == {half}
        own["particles"]["rlnAngleRot"] = 10.0 * half
        write_star(own, job / "run_data.star")
        write_map(job / "run_class001.mrc", np.full((4, 4, 4), float(half), dtype=np.float32), 10.0)
    joined = tmp_path / "Select/bin4_template"
    join_halves(jobs, joined)
    table = read_star(joined / "particles.star")["particles"].set_index("rlnTomoParticleName")
    assert sorted(table.index) == NAMES
    assert (table["rlnAngleRot"] == 10.0 * table["rlnRandomSubset"]).all()
    assert [read_map(joined / f"half{half}.mrc").data.mean() for half in (1, 2)] == [1.0, 2.0]
    noted = json.loads((joined / "job.json").read_text())
    assert noted["particles_in"] == noted["particles_out"] == len(NAMES)
    assert noted["inputs"] == [str(job / "run_data.star") for job in jobs]


def test_a_half_set_without_particles(tmp_path):
    write_particles(tmp_path / "all.star", [1, 1])
    with pytest.raises(ProblemError, match="half set 2") as error:
        half_set(tmp_path / "all.star", 2, tmp_path / "job")
    assert error.value.exit_code == ExitCode.BAD_OUTPUT
