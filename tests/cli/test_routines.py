"""Single jobs with real RELION in a project of their own, as typed; and RELION's own pipeliner on what they leave."""

import json
import subprocess

import numpy as np
import pytest
from helpers import cli, write_parameters

from py2rely_core.data.tables import read_star
from py2rely_core.maps.io import read_map, write_map
from py2rely_core.simulation.structures import density, make_structure

pytestmark = pytest.mark.relion


@pytest.fixture
def project(tiny, tmp_path, monkeypatch):
    """A directory from which the tilt series are found, without jobs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tilt_series").symlink_to(tiny / "tilt_series")
    for name in ("tilt_series.star", "particles.star"):
        (tmp_path / name).write_text((tiny / name).read_text())
    return tmp_path


def pipeliner(*arguments):
    return subprocess.run(["relion_pipeliner", *arguments], capture_output=True, text=True, check=True).stdout


def jobs_of(project):
    table = read_star(project / "default_pipeline.star")["pipeline_processes"]
    return dict(zip(table["rlnPipeLineProcessName"], table["rlnPipeLineProcessStatusLabel"], strict=True))


def test_extract_reconstruct_classify_select(project, capsys):
    """The way of the reference's routines; what RELION makes of their job.star is the same again, bit by bit."""
    series = ["-t", "tilt_series.star"]
    cli("routines", "extract", "-p", "particles.star", *series, "-bf", 2, "-bs", 24, "-j", 2, "-np", 1)
    particles = "Extract/job001/particles.star"
    assert int(read_star(particles)["optics"]["rlnImageSize"].iloc[0]) == 24
    cli("routines", "reconstruct", "-p", particles, *series, "-bf", 2, "-bs", 24, "-cs", 24, "-sym", "O", "-j", 2)
    average = "Reconstruct/job002/merged.mrc"
    assert read_map(average).data.shape == (24, 24, 24)
    cli("routines", "class3d", "--particles", particles, *series, "-r", average, "--nr-classes", 3, "-ni", 2,
        "--ini-high", 50, "-tau", 2, "-d", 150, "-np", 1, "-j", 2, "-rcg", "False")  # fmt: skip
    command = " ".join(json.loads((project / "Class3D/job003/commands.jsonl").read_text().splitlines()[0])["command"])
    for flag in ("--K 3", "--iter 2", "--tau2_fudge 2", "--skip_align", "--firstiter_cc", "--ini_high 50", "--j 2"):
        assert flag in command
    assert (project / "Class3D/job003/run_it002_classes.html").is_file()
    cli("routines", "select", "-cj", "job003", "-kc", "1,2,3", "-bc", 1)
    assert len(read_star("Select/job004/particles.star")["particles"]) == 24
    assert len(capsys.readouterr().out.split("Wrote ")) == 5
    names = ("Extract/job001/", "Reconstruct/job002/", "Class3D/job003/", "Select/job004/")
    assert jobs_of(project) == dict.fromkeys(names, "Succeeded")
    edges = read_star("default_pipeline.star")["pipeline_input_edges"].to_numpy().tolist()
    assert ["Class3D/job003/run_it002_data.star", "Select/job004/"] in edges
    assert [average, "Class3D/job003/"] in edges
    for name in names[1:3]:
        pipeliner("--addJobFromStar", f"{name}job.star")
    again = ["Reconstruct/job005/", "Class3D/job006/"]
    for number, name in enumerate(again):
        pipeliner("--RunJobs", name, "--schedule", f"s{number}", "--sec_wait_after", "0")
    for first, second in (
        (average, "Reconstruct/job005/merged.mrc"),
        ("Class3D/job003/run_it002_class001.mrc", "Class3D/job006/run_it002_class001.mrc"),
    ):
        assert np.array_equal(read_map(first).data, read_map(second).data)
    assert {jobs_of(project)[name] for name in again} == {"Succeeded"}
    # RELION's own jobs stay, and numbers go on after them.
    write_map("map.mrc", read_map(average).data, 10.0)
    cli("routines", "mask-create", "-m", average, "-thr", 0.02, "-ext", 1, "-w", 4, "-lp", 30, "-j", 2)
    assert set(jobs_of(project)) == {*names, *again, "MaskCreate/job007/"}


def test_post_process_and_its_low_pass(project):
    """With a low-pass the map is filtered there, and without it by the FSC: the option has an effect."""
    truth = density(make_structure(130.0, "O", 0), 32, 5.0)
    noise = np.random.default_rng(0)
    for half in (1, 2):
        write_map(f"half{half}.mrc", truth + noise.normal(0, truth.std(), truth.shape), 5.0)
    write_map("mask.mrc", np.ones_like(truth), 5.0)
    cli("routines", "post-process", "-hm", "half1.mrc", "-m", "mask.mrc")
    cli("routines", "post-process", "-hm", "half1.mrc", "-m", "mask.mrc", "-lp", 40)
    maps = [read_map(f"PostProcess/job00{n}/postprocess.mrc").data for n in (1, 2)]
    power = [np.abs(np.fft.rfftn(one))[0, 0, 8] for one in maps]
    assert power[1] < 0.01 * power[0]


def test_what_fails_is_noted_and_said(project, capsys):
    cli("routines", "extract", "-p", "particles.star", "-t", "tilt_series.star", "-bf", 2, "-bs", 25, code=66)
    cli("routines", "refine3d", "-p", "particles.star", "-r", "none.mrc", "-t", "tilt_series.star", code=65)
    cli("routines", "mask-create", "-m", "none.mrc", code=65)
    write_map("zero.mrc", density(make_structure(100.0, "C1", 1), 24, 5.0), 5.0)
    cli("routines", "mask-create", "-m", "zero.mrc", "-thr", 1e6, code=73)
    assert jobs_of(project)["MaskCreate/job001/"] == "Failed"
    assert "job001" in capsys.readouterr().err


@pytest.mark.slow
def test_refine_and_continue(tiny, project):
    """An auto-refinement, and one that goes on from one of its iterations: that one is not computed again."""
    write_parameters(project / "sta.json", tiny)
    series = ["-t", "tilt_series.star"]
    cli("routines", "extract", "-param", "sta.json", "-p", "particles.star", *series, "-bf", 2)
    cli("routines", "reconstruct", "-param", "sta.json", "-p", "particles.star", *series, "-bf", 2)
    data = ["-p", "Extract/job001/particles.star", *series, "-r", "Reconstruct/job002/merged.mrc"]
    given = ["-param", "sta.json", *data, "-lp", 40, "-npool", 12, "-np", 3, "-j", 1, "-g", "False"]  # fmt: skip
    cli("routines", "refine3d", *given, "-np", 4, code=66)
    cli("routines", "refine3d", *given)
    ran = json.loads((project / "Refine3D/job003/commands.jsonl").read_text())["command"]
    for flag, value in (("--ini_high", "40"), ("--pool", "12"), ("--sym", "O"), ("-n", "3")):
        assert ran[ran.index(flag) + 1] == value
    assert json.loads((project / "Refine3D/job003/job.json").read_text())["particles_out"] == 24
    last = sorted((project / "Refine3D/job003").glob("run_it*_optimiser.star"))[-2].name
    cli("routines", "refine3d", *given, "--continue-iter", int(last[6:9]))
    # RELION writes the iteration that it starts from once more.
    first = sorted((project / "Refine3D/job004").glob("run*_it*_half1_model.star"))[0].name
    assert int(first.split("_it")[1][:3]) == int(last[6:9])
    cli("routines", "refine3d", *given, "--continue-iter", 99, code=65)
