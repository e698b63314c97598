"""What all tests share: which components are there, the simulated data sets, and how the pipeline is run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock
from helpers import NOISY, REPO, TINY, make_data, pipeline, write_template_parameters

COMPONENTS = {"relion": "relion_refine", "nextflow": "nextflow", "browser": "chromium"}


def pytest_runtest_setup(item):
    for name, program in COMPONENTS.items():
        if item.get_closest_marker(name) and shutil.which(program) is None:
            text = f"{program} is not on PATH: run 'make test', or 'make setup' and source .tools/activate"
            if os.environ.get("CI"):
                pytest.fail(text)
            pytest.skip(text)


def pytest_collection_modifyitems(items):
    """Tests that mostly wait for a scheduler come first, so that others run beside them."""
    items.sort(key=lambda item: "slurm" not in getattr(item, "fixturenames", ()))


def _shared(tmp_path_factory, name: str, make) -> Path:
    """A directory that is made once for all workers."""
    base = tmp_path_factory.getbasetemp()
    path = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"shared_{name}"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            part = path.with_name(f"{path.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            make(part)
            part.rename(path)
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """Two small tilt series of an octahedral particle, poses a few degrees and Angstrom off; never written to."""
    return _shared(tmp_path_factory, "tiny", lambda path: make_data(path, **TINY, angle_error=2.0, shift_error=3.0))


@pytest.fixture(scope="session")
def extracted(tiny, tmp_path_factory) -> Path:
    """A project directory with `tiny` extracted at bin 2 (Extract/bin2) and averaged (Reference)."""

    def make(path: Path) -> None:
        path.mkdir()
        for name in ("tilt_series", "tilt_series.star", "particles.star"):
            (path / name).symlink_to(tiny / name)
        given = "--t tilt_series.star --p particles.star --b 24 --bin 2 --j 2"
        for program in (
            f"relion_tomo_subtomo {given} --stack2d --float16 --o Extract/bin2/",
            f"relion_tomo_reconstruct_particle {given} --sym O --j_in 1 --j_out 2 --o Reference/",
        ):
            subprocess.run(program.split(), cwd=path, check=True, capture_output=True)

    return _shared(tmp_path_factory, "extracted", make)


@pytest.fixture(scope="session")
def blind(tmp_path_factory) -> Path:
    """The same with random orientations."""
    return _shared(
        tmp_path_factory,
        "blind",
        lambda path: make_data(path, **TINY | NOISY, random_angles=True, shift_error=3.0),
    )


@pytest.fixture(scope="session")
def outside(blind, tmp_path_factory) -> Path:
    """Results of `blind`, from its template, as they are without image and without scheduler."""

    def make(path: Path) -> None:
        path.mkdir()
        parameters = write_template_parameters(path / "sta.json", blind)
        run = pipeline(path, "--parameter", parameters, "--reference_template", blind / "template.mrc")
        assert run.code == 0, run.text

    return _shared(tmp_path_factory, "outside", make) / "results"


@pytest.fixture(scope="session")
def image(tmp_path_factory) -> Path:
    """The CPU image, built by the fast way when it is not there, with the Apptainer that tools/setup provides."""
    if shutil.which("apptainer") is None:
        text = "apptainer is not on PATH: run 'make test', or 'tools/setup apptainer' and source .tools/activate"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    with FileLock(REPO / ".tools/images.lock"):
        done = subprocess.run([REPO / "containers/build", "cpu", "--fast"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(done.stdout.splitlines()[-1])
