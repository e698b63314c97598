"""The Nextflow command that a request amounts to, and where the workflow is."""

import subprocess
import tomllib
from pathlib import Path

import pytest
from helpers import REPO

from py2rely_core.launching.launch import (
    INSTALLED,
    PIPELINE_VARIABLE,
    Cluster,
    nextflow_command,
    parameters_of,
    pipeline_directory,
)
from py2rely_core.problems import ProblemError


def test_slurm_has_the_reference_systems_defaults():
    assert parameters_of(Cluster(True)) == {
        "num_gpus": 4, "gpu_constraint": None, "cpu_constraint": "4,16", "timeout": "48",
    }  # fmt: skip
    asked = Cluster(True, 3, ("a100", "h100"), "8,4", 12.5)
    assert parameters_of(asked) == {
        "num_gpus": 3, "gpu_constraint": "a100,h100", "cpu_constraint": "8,4", "timeout": "12.5",
    }  # fmt: skip


def test_this_machine():
    assert parameters_of(Cluster(False)) == {"gpus": None, "cpus": None}
    assert parameters_of(Cluster(False, 2, (), "6,4")) == {"gpus": "0,1", "cpus": 6}


@pytest.mark.parametrize(
    "cluster",
    [Cluster(False, gpu_constraint=("a100",)), Cluster(False, timeout=3), Cluster(True, cpu_constraint="4"),
     Cluster(True, cpu_constraint="4.5,16"), Cluster(True, cpu_constraint="x,y"), Cluster(True, -1)],
)  # fmt: skip
def test_nothing_is_ignored(cluster):
    with pytest.raises(ProblemError):
        parameters_of(cluster)


def test_the_command():
    parameters = {"parameter": Path("a b.json"), "run_denovo_generation": True, "x": False, "y": None, "low_pass": 10.0}
    command = nextflow_command(parameters, "local", extra=["-stub-run"])
    assert command == [
        "nextflow", "run", str(REPO), "-profile", "local", "-resume", "--parameter", "a b.json",
        "--run_denovo_generation", "true", "--low_pass", "10", "-stub-run",
    ]  # fmt: skip
    assert "-resume" not in nextflow_command({}, "slurm", resume=False)


def test_where_the_workflow_is(tmp_path, monkeypatch):
    assert pipeline_directory() == REPO
    monkeypatch.setenv(PIPELINE_VARIABLE, str(tmp_path))
    with pytest.raises(ProblemError, match="workflow's files"):
        pipeline_directory()
    (tmp_path / "main.nf").touch()
    assert pipeline_directory() == tmp_path


def test_an_installed_package_has_the_whole_workflow():
    """What git has of the workflow goes where an installed py2rely looks for it."""
    listed = subprocess.run(
        ["git", "ls-files", "*.nf", "nextflow.config", "nextflow_schema.json", "conf", "bin", "assets"],
        cwd=REPO, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    places = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    installed = {
        f"{Path(place).relative_to(INSTALLED)}/{path.name}".removeprefix("./")
        for place, patterns in places.items()
        for pattern in patterns
        for path in REPO.glob(pattern)
    }
    assert not set(listed) - installed
    assert installed
