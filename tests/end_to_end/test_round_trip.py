"""Picks through real RELION and back; and imported tilt series through the pipeline's own graph."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from formats import DARK, PIXEL, SIZE, THICKNESS, write_aretomo
from helpers import cli, copick_project, pipeline
from scipy.spatial.transform import Rotation

from py2rely_core.data.geometry import euler_to_matrix, orientations, true_positions
from py2rely_core.data.tables import read_star, write_star
from py2rely_core.relion.run import run_job

ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
SUBTOMOGRAM = [f"rlnTomoSubtomogram{name}" for name in ("Rot", "Tilt", "Psi")]
ORIGIN = [f"rlnOrigin{axis}Angst" for axis in "XYZ"]
CENTRED = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]
#: The tiny data set's tomogram, Angstrom, and its size and voxel size in the copick project.
EXTENT, BINNED = np.array([800.0, 800, 320]), ((80, 80, 32), 10.0)


def angle_between(first, second):
    return np.degrees((Rotation.from_matrix(first).inv() * Rotation.from_matrix(second)).magnitude())


def extract(particles, job):
    """RELION's extraction at bin 2; it moves refined shifts into the coordinates."""
    command = ["relion_tomo_subtomo", "--t", "tilt_series.star", "--p", str(particles), "--o", f"{job}/", "--b", "32"]
    run_job(job, [*command, "--bin", "2", "--stack2d", "--float16", "--min_frames", "1", "--j", "2"])
    return read_star(job / "particles.star")["particles"]


def picks_of(config, run, session):
    import copick

    (picks,) = copick.from_file(str(config)).get_run(run).get_picks("ribosome", "relion", session)
    return picks.full_positions(), picks.numpy()[1][:, :3, :3]


@pytest.fixture
def project(tiny, tmp_path, monkeypatch):
    """A RELION project directory with the tiny data set, and a copick project with its true picks."""
    pytest.importorskip("copick")
    import copick

    for name in ("tilt_series.star", "tilt_series"):
        (tmp_path / name).symlink_to(tiny / name)
    monkeypatch.chdir(tmp_path)
    config = copick_project(tmp_path / "copick", {"01_Vol": BINNED, "02_Vol": BINNED})
    truth = pd.read_csv(tiny / "truth/particles.csv", dtype={"tomogram": str})
    # Away from the edges, where extraction leaves particles out.
    truth[["x", "y", "z"]] *= 0.8
    for name, rows in truth.groupby("tomogram"):
        transforms = np.tile(np.eye(4), (len(rows), 1, 1))
        transforms[:, :3, :3] = euler_to_matrix(rows[["rot", "tilt", "psi"]].to_numpy())
        run = copick.from_file(str(config)).get_run(f"{name[3:]}_Vol")
        run.new_picks("ribosome", "1", "truth").from_numpy(rows[["x", "y", "z"]].to_numpy() + EXTENT / 2, transforms)
    return tmp_path, config, truth


@pytest.mark.relion
def test_picks_through_relion_and_back(project):
    """Picks -> STAR -> extraction and reconstruction -> picks: nothing moved, so nothing may have moved."""
    folder, config, truth = project
    cli("prepare", "particles", "-c", config, "-s", "TS", "-n", "ribosome", "-uid", "truth", "-ts", "tilt_series.star")
    picks = folder / "input/TS_truth_ribosome.star"
    extracted = extract(picks, folder / "Extract/job001")
    assert len(extracted) == len(truth)
    command = ["relion_tomo_reconstruct_particle", "--t", "tilt_series.star", "--p", "Extract/job001/particles.star"]
    command += ["--o", "Reconstruct/job002/", "--b", "32", "--bin", "2", "--sym", "O", "--j", "2"]
    run_job(folder / "Reconstruct/job002", [*command, "--j_in", "1", "--j_out", "2"])
    cli("export", "star2copick", "-p", "Extract/job001/particles.star", "-c", config, "-s", "TS", "-sid", "7")
    for name, rows in truth.groupby("tomogram"):
        positions, rotations = picks_of(config, f"{name[3:]}_Vol", "7")
        assert np.abs(positions - EXTENT / 2 - rows[["x", "y", "z"]].to_numpy()).max() < 0.01
        known = euler_to_matrix(rows[["rot", "tilt", "psi"]].to_numpy())
        assert angle_between(rotations, known).max() < 0.01


@pytest.mark.relion
def test_refined_shifts_are_applied_as_relion_applies_them(project):
    """What RELION's extraction makes of shifts and subtomogram angles is what the export writes."""
    folder, config, truth = project
    rng = np.random.default_rng(2)
    count = len(truth)
    table = pd.DataFrame({"rlnTomoName": truth["tomogram"], "rlnOpticsGroup": 1})
    table[CENTRED] = truth[["x", "y", "z"]].to_numpy()
    table[ORIGIN] = rng.normal(0, 12, (count, 3))
    table[SUBTOMOGRAM] = rng.uniform(0, 170, (count, 3))
    table[ANGLES] = rng.uniform(-170, 170, (count, 3))
    table["rlnTomoParticleName"] = [f"{name}/{n}" for n, name in enumerate(table["rlnTomoName"], start=1)]
    blocks = read_star(folder / "tilt_series.star")
    optics = blocks["global"][["rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"]].head(1)
    optics = optics.assign(rlnOpticsGroup=1, rlnOpticsGroupName="opticsGroup1", rlnTomoTiltSeriesPixelSize=5.0)
    write_star({"optics": optics, "particles": table}, folder / "refined.star")
    moved = extract(folder / "refined.star", folder / "Extract/job001")
    moved = moved.set_index("rlnTomoParticleName").loc[table["rlnTomoParticleName"]].reset_index()
    assert np.abs(moved[ORIGIN].to_numpy() if ORIGIN[0] in moved else 0.0).max() < 1e-6
    assert np.linalg.norm(moved[CENTRED].to_numpy() - table[CENTRED].to_numpy(), axis=1).mean() > 10
    assert np.abs(moved[CENTRED].to_numpy() - true_positions(table)).max() < 0.01
    assert angle_between(orientations(moved), orientations(table)).max() < 0.01
    cli("export", "star2copick", "-p", "refined.star", "-c", config, "-s", "TS", "-sid", "8")
    for name, rows in moved.groupby("rlnTomoName"):
        positions, rotations = picks_of(config, f"{name[3:]}_Vol", "8")
        assert np.abs(positions - EXTENT / 2 - rows[CENTRED].to_numpy()).max() < 0.01
        assert angle_between(rotations, orientations(rows)).max() < 0.01


@pytest.mark.nextflow
def test_imported_data_run_through_the_graph(tmp_path, monkeypatch):
    """AreTomo3 tilt series and CSV picks, through the pipeline's preflight and its graph with stubs."""
    monkeypatch.chdir(tmp_path)
    for number, name in ((1, "A"), (2, "B")):
        write_aretomo(tmp_path / "aretomo", name, number, dark=DARK)
    cli("import", "aretomo", "aretomo", "--voltage", 300, "--hand", -1)
    rng = np.random.default_rng(4)
    picks = pd.DataFrame(rng.uniform(-0.9, 0.9, (60, 3)) * [SIZE, SIZE, THICKNESS] * PIXEL / 2, columns=["x", "y", "z"])
    picks.assign(tomogram=["A", "B"] * 30, rot=10.0, tilt=20.0, psi=30.0).to_csv("picks.csv", index=False)
    cli("import", "csv", "-i", "picks.csv", "-ts", "input/tiltSeries/aligned_tilt_series.star")
    cli("prepare", "relion5-parameters", "-ps", PIXEL, "-pd", 100, "-bs", 1.5, "-bl", "2", "-lp", 50)
    parameters = json.loads((tmp_path / "sta_parameters.json").read_text())
    assert parameters
    run = pipeline(tmp_path, "--parameter", "sta_parameters.json", "-stub-run")
    assert run.code == 0, run.text
    assert any(task.startswith("REFINE3D") for task in run.executed)
