"""One routine as a job of a real SLURM, waited for."""

import numpy as np
import pytest
from helpers import cli

from py2rely_core.data.tables import read_star
from py2rely_core.maps.io import read_map, write_map

pytestmark = [pytest.mark.site, pytest.mark.relion]


def test_a_routine_is_a_job(slurm, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_CONF", slurm.env["SLURM_CONF"])
    monkeypatch.setenv("PY2RELY_SITE_CONFIG", str(tmp_path / "site.config"))
    cli("config", "--output", "site.config", "--partition", "cpu", "--options", "--comment=py2rely")
    blob = np.exp(-np.sum((np.indices((32, 32, 32)) - 16.0) ** 2, axis=0) / 50).astype(np.float32)
    write_map("map.mrc", blob, 5.0)
    given = ["routines", "mask-create", "-m", "map.mrc", "-thr", 0.3, "-w", 4, "-j", 2]
    cluster = ["--submitit", "True", "-cc", "2,1", "--timeout", 0.2, "--wait"]
    cli(*given, *cluster)
    assert "has ended" in capsys.readouterr().out
    assert 0 < read_map("MaskCreate/job001/mask.mrc").data.sum() < blob.size
    processes = read_star("default_pipeline.star")["pipeline_processes"]
    assert processes["rlnPipeLineProcessStatusLabel"].tolist() == ["Succeeded"]
    # A job that fails makes the command fail, and the message names the job's output.
    cli("routines", "mask-create", "-m", "none.mrc", *cluster, code=70)
    text = capsys.readouterr().err
    output = next(path for path in tmp_path.glob("mask-create_*.out") if "none.mrc" in path.read_text())
    assert output.name in text
