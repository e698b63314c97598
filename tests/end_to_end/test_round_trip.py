"""Picks through real RELION and back; and a run that imports from AreTomo and copick, and writes back to copick."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from helpers import PLAIN, cli, copick_project, pipeline, write_parameters
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


def write_as_aretomo(data, folder):
    """A simulated data set as AreTomo3 leaves it: alignment, CTF, tilt list, stacks."""
    folder.mkdir()
    for series in sorted((data / "tilt_series").glob("*.star")):
        (tilts,) = read_star(series).values()
        section = [int(name.split("@")[0]) for name in tilts["rlnMicrographName"]]
        dose = np.sort(tilts["rlnMicrographPreExposure"])[1]
        rows = {"aln": [f"# AreTomo Alignment\n# RawSize = 160 160 {len(tilts)}\n# NumPatches = 0",
                        "# SEC ROT GMAG TX TY SMEAN SFIT SCALE BASE TILT"],
                "ctf": ["# Columns: #1 micrograph number; #2 - defocus 1 [A]; ..."], "tlt": []}  # fmt: skip
        for number, row in zip(section, tilts.to_dict("records"), strict=True):
            x, y = row["rlnTomoXShiftAngst"] / 5, row["rlnTomoYShiftAngst"] / 5
            angles = row["rlnTomoZRot"], row["rlnTomoYTilt"]
            rows["aln"].append(f"{number} {angles[0]:.4f} 1.0 {x:.3f} {y:.3f} 1 1 1 0 {angles[1]:.2f}")
            defocus = f"{row['rlnDefocusU']:.2f} {row['rlnDefocusV']:.2f} {row['rlnDefocusAngle']:.2f}"
            rows["ctf"].append(f"{number} {defocus} 0.0 0.1 8.0")
            order = round(row["rlnMicrographPreExposure"] / dose) + 1
            rows["tlt"].append(f"{angles[1]:.2f} {order} {dose:.2f}")
        for ending, name in (("aln", ".aln"), ("ctf", "_CTF.txt"), ("tlt", "_TLT.txt")):
            (folder / f"{series.stem}{name}").write_text("\n".join(rows[ending]) + "\n")
        (folder / f"{series.stem}.mrcs").symlink_to(series.with_suffix(".mrcs"))


@pytest.mark.nextflow
@pytest.mark.relion
@pytest.mark.slow
def test_one_run_from_aretomo_and_copick_to_copick(blind, tmp_path):
    """The reference workflow's four commands as one; what changes is repeated, what is wrong is one list."""
    pytest.importorskip("copick")
    import copick

    write_as_aretomo(blind, tmp_path / "aretomo")
    config = copick_project(tmp_path / "copick", {"TS_01": BINNED, "TS_02": BINNED})
    truth = pd.read_csv(blind / "truth/particles.csv", dtype={"tomogram": str})
    for name, rows in truth.groupby("tomogram"):
        transforms = np.tile(np.eye(4), (len(rows), 1, 1))
        transforms[:, :3, :3] = euler_to_matrix(rows[["rot", "tilt", "psi"]].to_numpy())
        picks = copick.from_file(str(config)).get_run(name).new_picks("ribosome", "1", "truth")
        picks.from_numpy(rows[["x", "y", "z"]].to_numpy() + EXTENT / 2, transforms)
    write_parameters(tmp_path / "sta.json", blind, **PLAIN)
    words = ["--parameter", "sta.json", "--aretomo", "aretomo", "--voltage", "300", "--hand", "-1", "--thickness", "64"]
    words += ["--copick", "copick/config.json", "--particle_name", "ribosome", "--export_copick", "-resume"]
    first = pipeline(tmp_path, *words)
    assert first.code == 0, first.text
    assert {"SOURCES", "IMPORT_DATA (imported)", "REFINE3D (bin2)", "EXPORT_COPICK (copick)"} <= first.executed
    (found,) = first.results["datasets"]
    assert any("300 kV" in note for note in found["imported"])
    assert (tmp_path / "results/imported/tiltSeries/aligned_tilt_series.star").is_file()
    refined = read_star(tmp_path / "results" / found["final"]["particles"])["particles"]
    written = json.loads((tmp_path / "results/copick_export.json").read_text())["notes"]
    assert f"{len(refined)} of {len(refined)} particles written to 2 runs" in written
    assert len(refined) > 0.6 * len(truth)
    for name, rows in truth.groupby("tomogram"):
        positions, rotations = picks_of(config, name, "99")
        distances = np.linalg.norm(
            positions[:, None] - EXTENT / 2 - rows[["x", "y", "z"]].to_numpy()[None], axis=2
        )  # fmt: skip
        nearest = distances.argmin(axis=1)
        assert np.median(distances.min(axis=1)) < 5
        true = euler_to_matrix(rows[["rot", "tilt", "psi"]].to_numpy())[nearest]
        group = Rotation.create_group("O").as_matrix()
        angles = np.min([angle_between(rotations, true @ one) for one in group], axis=0)
        assert np.median(angles) < 5

    again = pipeline(tmp_path, *words)
    assert again.code == 0, again.text
    assert again.executed == {"SOURCES"}

    # A stub in place of RELION from here on: what comes before it is the same.
    alignment = tmp_path / "aretomo/TS_01.aln"
    alignment.write_text(alignment.read_text() + "\n")
    changed = pipeline(tmp_path, *words, "-stub-run")
    assert changed.code == 0, changed.text
    assert {
        "IMPORT_DATA (imported)",
        "RECIPE",
        "PLAN (1)",
        "IMPORT (tilt_series)",
        "EXTRACT (bin2)",
    } <= changed.executed

    alignment.write_text(alignment.read_text().replace("# RawSize", "# Size"))
    for path in (tmp_path / "copick").rglob("truth_1_ribosome.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"points": []}))
    wrong = pipeline(tmp_path, *words, "--mask", "none.mrc")
    assert wrong.code != 0
    assert "3 problems were found" in wrong.text
    assert all(text in wrong.text for text in ("TS_01.aln", "There are no such picks", "none.mrc"))
    assert {task.split()[0] for task in wrong.executed} <= {
        "SOURCES", "IMPORT_DATA", "RECIPE", "TILT_SERIES_FILES", "STACK_FILES", "PLAN",
    }  # fmt: skip
