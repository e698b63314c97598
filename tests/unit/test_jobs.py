"""What a job left behind is proven: programs that lie, die, or run out of memory are found out."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.judging.masks import randomise_from
from py2rely_core.maps.io import write_map
from py2rely_core.maps.masks import spherical_mask
from py2rely_core.problems import ExitCode, ProblemError
from py2rely_core.relion.outputs.averages import check_postprocess, mask_is_wide_enough
from py2rely_core.relion.outputs.job import check_maps
from py2rely_core.relion.outputs.particles import check_extract
from py2rely_core.relion.outputs.refinements import check_refinement
from py2rely_core.relion.programs import giving_way, own_session
from py2rely_core.relion.run import commands, last_lines, run_job
from py2rely_core.results.collect import collect_results, read_jobs, summary
from py2rely_core.simulation.simulate import Settings, write_dataset


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a program called relion_fake on PATH."""

    def make(script: str) -> None:
        path = tmp_path / "bin/relion_fake"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
        monkeypatch.chdir(tmp_path)

    return make


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("echo in: x.cpp >&2; echo 'ERROR: no such thing' >&2; exit 1", ExitCode.RELION_FAILED),
        ("echo 'CUDA error: out of memory'; exit 1", ExitCode.GPU_OUT_OF_MEMORY),
        ("echo std::bad_alloc >&2; exit 134", ExitCode.OUT_OF_MEMORY),
        ("kill -9 $$", ExitCode.OUT_OF_MEMORY),
        ("exit 137", ExitCode.OUT_OF_MEMORY),
        ("kill -11 $$", ExitCode.RELION_FAILED),
    ],
)
def test_failures_are_classed_and_show_the_last_lines(program, tmp_path, capsys, script, code):
    program(script)
    with pytest.raises(ProblemError) as error:
        run_job(tmp_path / "Refine3D/bin4", ["relion_fake"])
    assert error.value.exit_code == code
    assert "Refine3D/bin4" in str(error.value)
    if "no such thing" in script:
        assert "no such thing" in capsys.readouterr().err


def test_success_is_noted(program, tmp_path):
    program("echo done")
    run_job(tmp_path / "job", ["relion_fake", "--x"])
    assert commands(tmp_path / "job")[0]["command"] == ["relion_fake", "--x"]
    assert (tmp_path / "job/run.out").read_text() == "done\n"


def test_missing_program(tmp_path):
    with pytest.raises(ProblemError, match="relion_nonexistent") as error:
        run_job(tmp_path, ["relion_nonexistent"])
    assert error.value.exit_code == ExitCode.MISSING_COMPONENT


def test_last_lines_hold_the_error_and_not_the_noise(tmp_path):
    noise = "relion_refine(+0x94255) [0x5557]\n" * 30 + "-" * 40 + "\nMPI_ABORT was invoked\n  Proc: [[1],2]\n"
    (tmp_path / "run.err").write_text("ERROR:\nCannot read file x.mrc\n" + noise)
    text = last_lines(tmp_path)
    assert "Cannot read file x.mrc" in text
    assert "0x5557" not in text
    assert "MPI_ABORT" not in text


def test_maps_are_proven(tmp_path):
    rng = np.random.default_rng(0)
    write_map(tmp_path / "good.mrc", rng.normal(size=(8, 8, 8)), 2.0)
    check_maps(tmp_path, ["good.mrc"], 8, 2.0)
    assert json.loads((tmp_path / "job.json").read_text())["box"] == 8
    write_map(tmp_path / "nan.mrc", np.full((8, 8, 8), np.nan), 2.0)
    write_map(tmp_path / "flat.mrc", np.zeros((8, 8, 8)), 2.0)
    write_map(tmp_path / "mini.mrc", rng.normal(size=(4, 4, 4)), 2.0)
    write_map(tmp_path / "drift.mrc", rng.normal(size=(8, 8, 8)), 2.06)
    expected = {
        "nan": "not finite",
        "flat": "every voxel",
        "mini": "not a box of 8",
        "drift": "2.06",
        "none": "missing",
    }
    for name, text in expected.items():
        with pytest.raises(ProblemError, match=text) as error:
            check_maps(tmp_path, [f"{name}.mrc"], 8, 2.0)
        assert error.value.exit_code == ExitCode.BAD_OUTPUT


def particle_file(path, count):
    table = pd.DataFrame({"rlnTomoName": ["a"] * count, "rlnImageName": [f"{path.parent}/x.mrcs"] * count})
    optics = pd.DataFrame([{"rlnOpticsGroup": 1, "rlnImageSize": 8, "rlnImagePixelSize": 2.0}])
    write_star({"optics": optics, "particles": table}, path)


def test_extraction_is_proven(tmp_path):
    particle_file(tmp_path / "in/particles.star", 10)
    job = tmp_path / "job"
    with pytest.raises(ProblemError, match="not written"):
        check_extract(job, tmp_path / "in/particles.star", 8, 2.0)
    particle_file(job / "particles.star", 3)
    with pytest.raises(ProblemError, match="7 of 10 particles were lost"):
        check_extract(job, tmp_path / "in/particles.star", 8, 2.0)
    particle_file(job / "particles.star", 9)
    write_map(job / "x.mrcs", np.full((3, 8, 8), np.nan), 2.0)
    with pytest.raises(ProblemError, match="not finite"):
        check_extract(job, tmp_path / "in/particles.star", 8, 2.0)
    write_map(job / "x.mrcs", np.random.default_rng(0).normal(size=(3, 8, 8)), 2.0)
    check_extract(job, tmp_path / "in/particles.star", 8, 2.0)
    assert "1 particles are not visible" in json.loads((job / "job.json").read_text())["warnings"][0]
    (job / "particles.star").write_text("")
    with pytest.raises(ProblemError) as error:
        check_extract(job, tmp_path / "in/particles.star", 8, 2.0)
    assert error.value.exit_code == ExitCode.BAD_OUTPUT


def postprocess_file(job, randomised, corrected):
    shells = len(corrected)
    resolutions = [9999.0] + [80.0 / shell for shell in range(1, shells)]
    table = pd.DataFrame({
        "rlnAngstromResolution": resolutions, "rlnFourierShellCorrelationCorrected": corrected,
        "rlnFourierShellCorrelationUnmaskedMaps": corrected, "rlnFourierShellCorrelationMaskedMaps": corrected,
        "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps": [randomised] * shells,
    })  # fmt: skip
    write_star({"general": pd.DataFrame([{"rlnFinalResolution": 80.0 / 6}]), "fsc": table}, job / "postprocess.star")


def test_post_processing_gives_the_first_crossing(tmp_path):
    job, mask = tmp_path / "post", tmp_path / "mask/mask.mrc"
    rng = np.random.default_rng(0)
    for path in (job / "postprocess.mrc", mask):
        write_map(path, rng.normal(size=(16, 16, 16)), 5.0)
    (mask.parent / "threshold.json").write_text("{}")
    postprocess_file(job, 0.02, [1, 1, 0.9, 0.8, 0.4, 0.3, 0.05, 0.5, 0.6])
    assert mask_is_wide_enough(job)
    check_postprocess(job, mask, 16, 5.0)
    numbers = json.loads((job / "job.json").read_text())
    assert numbers["resolution"] == pytest.approx(80 / 5)
    assert numbers["low_pass"] == pytest.approx(80 / 3)
    assert not numbers["nyquist_limited"]
    postprocess_file(job, 0.4, [1.0] * 9)
    assert not mask_is_wide_enough(job)
    check_postprocess(job, mask, 16, 5.0)
    numbers = json.loads((job / "job.json").read_text())
    assert numbers["nyquist_limited"]
    assert numbers["resolution"] == 10.0
    assert any("Nyquist" in text for text in numbers["warnings"])
    assert any("too sharp" in text for text in numbers["warnings"])


def test_refinement_that_lost_particles(tmp_path):
    particle_file(tmp_path / "in/particles.star", 10)
    particle_file(tmp_path / "job/run_data.star", 9)
    write_map(tmp_path / "ref.mrc", np.ones((8, 8, 8)), 2.0)
    with pytest.raises(ProblemError, match="10 particles went in, 9 came out"):
        check_refinement(tmp_path / "job", tmp_path / "in/particles.star", tmp_path / "ref.mrc", [])


def test_simulation_is_reproducible(tmp_path):
    settings = Settings(tilt_series=1, particles=6, image_size=280, tilt_step=30, seed=4, false_picks=0.5,
                        second_conformation=0.5, name_prefix="x ")  # fmt: skip
    truth = write_dataset(tmp_path / "one", settings)
    write_dataset(tmp_path / "two", settings)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.mrc*")]
    assert files
    for path in files:
        if path.suffix == ".mrcs":
            assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()
    assert truth["label"].value_counts().to_dict() == {"a": 3, "b": 3, "false": 3}
    assert len(read_star(tmp_path / "one/particles.star")["particles"]) == 9
    assert (tmp_path / "one/truth/structure_b.mrc").is_file()


def test_simulation_that_does_not_fit(tmp_path):
    with pytest.raises(ValueError, match="do not fit"):
        write_dataset(tmp_path, Settings(particles=500, image_size=200))


def test_results_of_an_unfinished_run_say_so():
    recipe = {"refine3D": {"sym_name": "O", "particle_diameter": 150}}
    level = {
        "name": "bin4",
        "binning": 4,
        "pixel_size": 10.0,
        "size": 24,
        "extract": {"box": 24},
        "refine": {"low_pass": 50},
    }
    planned = {"id": "main", "project": "", "mode": "known", "recipe": recipe, "levels": [level]}
    planned |= {"start": "picks", "motion": None, "polishing": None}
    results = collect_results({"relion": "5.1.0", "datasets": [planned], "warnings": []}, read_jobs([]))
    assert "not known" in summary(results)


def test_resources_of_a_program_are_noted(program, tmp_path):
    """Also of one whose launcher ends without having waited for it."""
    (tmp_path / "busy.py").write_text("import time\nb = bytearray(90 << 20)\nwhile time.process_time() < 0.3: pass\n")
    program("python3 busy.py\n((python3 busy.py; touch ended) &)\nuntil [[ -e ended ]]; do sleep 0.05; done")
    run_job(tmp_path / "job", ["relion_fake"])
    (done,) = commands(tmp_path / "job")
    assert 0.55 < done["cpu_seconds"] < 2.5
    assert done["peak_memory"] > 90
    assert done["exit_code"] == 0


@pytest.mark.relion
@pytest.mark.parametrize(
    ("seed", "correlation", "stops"),
    # Of the second, the FSC falls to 0.76 or, as RELION weighs components, to 0.82; of the third, to 0.81 or 0.75.
    [(7, 0.99, True), (19, 0.88, True), (1, 0.9, False), (7, 0.5, False)],
)
def test_post_processing_of_half_maps_that_hardly_differ(tmp_path, seed, correlation, stops):
    """RELION stops where it sees no FSC below 0.8: there, and only there, it is told from where to randomise phases."""
    rng = np.random.default_rng(seed)
    one, other = rng.normal(size=(2, 24, 24, 24))
    write_map(tmp_path / "half1.mrc", one.astype(np.float32), 10.0)
    second = correlation * one + np.sqrt(1 - correlation**2) * other
    write_map(tmp_path / "half2.mrc", second.astype(np.float32), 10.0)
    write_map(tmp_path / "mask.mrc", spherical_mask(24, 8.0, 3.0).astype(np.float32), 10.0)
    (tmp_path / "post").mkdir()
    command = ["relion_postprocess", "--i", "half1.mrc", "--mask", "mask.mrc", "--o", "post/map"]
    alone = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert ("never drops below randomize_fsc_at" in alone.stdout + alone.stderr) == stops
    flag = randomise_from(tmp_path / "half1.mrc")
    assert bool(flag) == stops
    subprocess.run([*command, *flag.split()], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "post/map.mrc").is_file()


def test_the_leading_rank_gives_way():
    """Two programs in one run, of which the first gets rank 0; everything else is started as it is written."""
    words = ["--o", "r", "--j", "2"]
    leader, _, workers = " ".join(giving_way(["mpirun", "-n", "3", "relion_refine_mpi", *words])).partition(" : ")
    assert leader == "mpirun -n 1 nice -n 10 relion_refine_mpi --o r --j 2"
    assert workers == "-n 2 relion_refine_mpi --o r --j 2"
    for same in (
        ["mpirun", "-n", "3", "relion_tomo_align_mpi"],
        ["mpirun", "-n", "1", "relion_refine_mpi"],
        ["relion_refine"],
    ):
        assert giving_way(same) == same


def test_mpi_in_a_container_keeps_to_itself(monkeypatch):
    for name in ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"):
        monkeypatch.delenv(name, raising=False)
    with own_session(["mpirun", "-n", "3"]) as outside:
        assert outside == {}
    monkeypatch.setenv("APPTAINER_CONTAINER", "/images/relion.sif")
    with own_session(["relion_refine"]) as serial:
        assert serial == {}
    with own_session(["mpirun"]) as one, own_session(["mpirun"]) as other:
        assert {"TMPDIR", "OMPI_MCA_btl_sm_backing_directory"} <= one.keys()
        assert not set(one.values()) & set(other.values())
        assert all(Path(path).is_dir() for path in one.values())
    assert not any(Path(path).exists() for path in one.values())
