"""Commands of import and export with their flags, as a person types them."""

from __future__ import annotations

import json
import os
import subprocess

import numpy as np
import pandas as pd
import particle_formats
import pytest
from formats import DARK, PIXEL, SIZE, THICKNESS, write_aretomo, write_imod, write_warp
from helpers import REPO, cli, copick_project
from particle_formats import write_coords, write_dynamo

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.simulation.simulate import Settings, write_dataset

CENTRED = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]
SERIES = "input/tiltSeries/aligned_tilt_series.star"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_is_there_for_every_command():
    commands = {
        "import": ["aretomo", "imod", "relion", "warp", "particles", "csv", "copick", "combine-particles",
                   "combine-tilt-series", "filter-unused-tilts"],
        "prepare": ["tilt-series", "particles", "import-particles", "combine-particles", "combine-tilt-series",
                    "filter-unused-tilts"],
        "export": ["star2copick", "star", "csv", "chimerax", "warp", "dynamo", "class2star", "deposition",
                   "heterogeneity"],
    }  # fmt: skip
    for group, names in commands.items():
        done = subprocess.run([REPO / "bin/py2rely", group, "-h"], capture_output=True, text=True, check=True)
        assert all(name in done.stdout for name in names)


def test_help_imports_nothing_heavy():
    code = "import sys; import py2rely_core.cli.import_data, py2rely_core.cli.export, py2rely_core.cli.check_hand; " \
           "print([m for m in ('numpy', 'pandas', 'copick', 'scipy') if m in sys.modules])"  # fmt: skip
    python = subprocess.run(["python", "-c", code], capture_output=True, text=True, check=True, env=os.environ | {
        "PYTHONPATH": str(REPO)})  # fmt: skip
    assert python.stdout.strip() == "[]"


def test_aretomo(folder, capsys):
    write_aretomo(folder / "in", dark=DARK)
    cli("import", "aretomo", "in", "--voltage", 300, "--hand", -1, "--prefix", "s_")
    printed = capsys.readouterr().out
    assert "s_TS_01: 9 of 11 images, 2 dark frames left out; sections counted from 1" in printed
    assert "assumed, as it was not given: --spherical-aberration 2.7" in printed
    assert "--voltage" not in printed.split("assumed")[-1]
    assert list(read_star(SERIES)["global"]["rlnTomoName"]) == ["s_TS_01"]
    link = folder / "input/tiltSeries/stacks/s_TS_01.mrcs"
    assert link.resolve() == (folder / "in/TS_01.mrc").resolve()
    cli("import", "aretomo", "in", "--voltage", 300, "--hand", -1, "--prefix", "s_", code=65)
    assert "give --overwrite" in capsys.readouterr().err
    cli("import", "aretomo", "in", "--voltage", 300, "--hand", 1, "--prefix", "s_", "--overwrite")
    assert list(read_star(SERIES)["global"]["rlnTomoHand"]) == [1.0]


@pytest.mark.parametrize("option", ["--voltage", "--hand"])
def test_voltage_and_hand_are_never_assumed_on_import(folder, capsys, option):
    write_aretomo(folder / "in")
    options = [word for name, value in (("--voltage", 300), ("--hand", -1)) if name != option for word in (name, value)]
    for source in ("aretomo", "imod"):
        cli("import", source, "in", *options, code=2)
        assert option in capsys.readouterr().err


def test_aretomo_with_every_value_given(folder):
    write_aretomo(folder / "in", doses=False, volume=False)
    cli(
        "import", "aretomo", "in", "-v", 200, "--hand", 1, "-o", "out", "-ps", PIXEL, "-z", 50, "--dose-per-tilt", 3,
        "-sa", 2.0, "-ac", 0.1,
    )  # fmt: skip
    row = read_star("out/aligned_tilt_series.star")["global"].iloc[0]
    values = [row[f"rln{name}"] for name in ("Voltage", "SphericalAberration", "AmplitudeContrast", "TomoHand")]
    assert values == [200, 2.0, 0.1, 1]
    assert row["rlnTomoSizeZ"] == 50
    assert read_star("out/tilt_series/TS_01.star")["TS_01"]["rlnMicrographPreExposure"].max() == 30


@pytest.mark.parametrize("long", [True, False])
def test_prepare_tilt_series_with_every_flag(folder, capsys, long):
    write_aretomo(folder / "aretomo/23dec21/run001", doses=False)
    write_aretomo(folder / "aretomo/23dec21/run001", "other", pixel=2.0)
    flags = {
        ("--session", "-s"): "23dec21", ("--run", "-r"): "run001", ("--output", "-o"): "out",
        ("--pixel-size", "-ps"): 4, ("--total-dose", "-td"): 66,
        ("--symlinks", "-sym"): "links", ("--voltage", "-v"): 200,
        ("--spherical-aberration", "-sa"): 2.0, ("--amplitude-contrast", "-ac"): 0.1, ("--optics-group", "-og"): 2,
        ("--optics-group-name", "-ogn"): "mine",
    }  # fmt: skip
    arguments = [word for names, value in flags.items() for word in (names[0 if long else 1], value)]
    cli("prepare", "tilt-series", "--base-project", "aretomo", *arguments)
    printed = capsys.readouterr().out
    assert "left out other: 2 A per pixel, not 4 (--pixel-size)" in printed
    assert "assumed, as it was not given: --hand -1" in printed
    assert "--total-dose" not in printed
    row = read_star("out/23dec21_tiltSeries/aligned_tilt_series.star")["global"].iloc[0]
    assert (row["rlnTomoName"], row["rlnVoltage"], row["rlnOpticsGroupName"]) == ("23dec21_TS_01", 200, "mine")
    tilts = read_star("out/23dec21_tiltSeries/23dec21_TS_01.star")["23dec21_TS_01"]
    assert tilts["rlnMicrographPreExposure"].max() == pytest.approx(60)
    assert (folder / "links/23dec21_TS_01.mrcs").is_symlink()


def test_prepare_tilt_series_prints_what_it_assumes(folder, capsys):
    write_aretomo(folder / "a/23dec21", doses=False)
    cli("prepare", "tilt-series", "--base-project", "a", "-ps", 4)
    printed = capsys.readouterr().out
    for text in ("--session 23dec21", "--total-dose 60", "--voltage 300", "--hand -1"):
        assert f"assumed, as it was not given: {text}" in printed
    cli("prepare", "tilt-series", "-ps", 4, code=2)


def test_imod_relion_and_warp(folder, capsys):
    write_imod(folder / "imod")
    cli("import", "imod", "imod", "--voltage", 300, "--hand", -1, "-o", "a")
    cli("import", "relion", "a/aligned_tilt_series.star", "-o", "b", "--hand", 1)
    assert list(read_star("b/aligned_tilt_series.star")["global"]["rlnTomoHand"]) == [1.0]
    write_warp(folder / "warp")
    cli("import", "warp", "warp/x_optimisation_set.star", "-o", "c")
    assert len(read_star("c/tilt_series/TS_01.star")["TS_01"]) == 11
    write_warp(folder / "dummy", dummy=True)
    cli("import", "warp", "dummy/x_tomograms.star", "-o", "d", code=65)
    assert "Warp's dummies" in capsys.readouterr().err
    assert not (folder / "d").exists()


def picks(count=30, seed=0):
    rng = np.random.default_rng(seed)
    half = np.array([SIZE, SIZE, THICKNESS]) * PIXEL / 2
    table = pd.DataFrame(rng.uniform(-0.9, 0.9, (count, 3)) * half, columns=["x", "y", "z"])
    return table.assign(tomogram="TS_01", rot=10.0, tilt=20.0, psi=30.0)


def test_particles_csv_and_combining(folder, capsys):
    write_aretomo(folder / "in")
    cli("import", "aretomo", "in", "--voltage", 300, "--hand", -1)
    picks().to_csv("a.csv", index=False)
    picks(seed=1).to_csv("b.csv", index=False)
    cli("import", "csv", "-i", "a.csv", "-ts", SERIES, "-o", "a.star")
    cli("import", "csv", "-i", "b.csv", "-ts", SERIES, "-o", "b.star", "--units", "centred")
    capsys.readouterr()
    cli("import", "particles", "-i", "a.star", "-ts", SERIES, "-o", "again.star")
    assert "coordinates: Angstrom from the centre" in capsys.readouterr().out
    for group in ("import", "prepare"):
        out = f"{group}.star"
        cli(group, "combine-particles", "-i", "a.star", "-i", "b.star", "-i", "none.star", "-sm", "-o", out)
        assert len(read_star(out)["particles"]) == 60
        cli(group, "combine-particles", "-i", "a.star", "-i", "none.star", "-sm", "False", "-o", "x.star", code=65)
        cli(group, "combine-tilt-series", "-i", SERIES, "-o", f"{group}_series.star")
        series = f"{group}_series.star"
        before = (folder / series).read_bytes()
        cli(group, "filter-unused-tilts", "-p", "a.star", "-t", series)
        text = capsys.readouterr().out
        assert "1 tilt series, 1 of them have particles" in text
        assert f"Wrote {group}_series_used.star" in text
        cli(group, "filter-unused-tilts", "-p", "a.star", "-t", series, code=65)
        cli(group, "filter-unused-tilts", "-p", "a.star", "-t", series, "-o", series, code=65)
        assert "--overwrite" in capsys.readouterr().err
        assert (folder / series).read_bytes() == before
        cli(group, "filter-unused-tilts", "-p", "a.star", "-t", series, "-o", series, "--overwrite")
        assert "1 tilt series, 1 of them have particles" in capsys.readouterr().out
    assert not (folder / "x.star").exists()


def test_prepare_import_particles(folder, capsys):
    rng = np.random.default_rng(0)
    size = np.array([512.0, 512, 200])
    table = pd.DataFrame({"rlnTomoName": "A"}, index=range(50))
    table[[f"rlnCoordinate{axis}" for axis in "XYZ"]] = rng.uniform(0.02, 0.98, (50, 3)) * size
    write_star({"particles": table}, folder / "p.star")
    cli("prepare", "import-particles", "-i", "p.star", "-x", 512, "-y", 512, "-z", 200, "-ps", 3)
    printed = capsys.readouterr().out
    assert "pixels of 3 A from the corner" in printed
    assert "assumed, as it was not given: --voltage 300" in printed
    assert "-x" not in printed
    found = read_star("full_picks.star")["particles"][CENTRED].to_numpy()
    assert np.allclose(found, (table.iloc[:, 1:].to_numpy() - size / 2) * 3, atol=1e-3)
    cli("prepare", "import-particles", "-i", "p.star", "-o", "b.star", code=65)
    assert "It cannot be told what unit" in capsys.readouterr().err


@pytest.mark.parametrize("long", [True, False])
def test_copick_both_ways_with_every_flag(folder, capsys, long):
    pytest.importorskip("copick")
    import copick

    size = ((SIZE // 4, SIZE // 4, THICKNESS // 4), 4 * PIXEL)
    config = copick_project(folder / "project", {"01_Vol": size, "02_Vol": size})
    root = copick.from_file(str(config))
    corner = picks()[["x", "y", "z"]].to_numpy() + np.array([SIZE, SIZE, THICKNESS]) * PIXEL / 2
    for run in root.runs:
        run.new_picks("ribosome", "5", "me").from_numpy(corner)
    flags = {
        ("--config", "-c"): config, ("--session", "-s"): "TS", ("--output", "-o"): "out", ("--name", "-n"): "ribosome",
        ("--session-id", "-sid"): 5, ("--user-id", "-uid"): "me", ("--run-ids", "-rids"): "01_Vol,02_Vol",
        ("--voxel-size", "-vs"): 4 * PIXEL, ("--pixel-size", "-ps"): PIXEL, ("--voltage", "-v"): 200,
        ("--spherical-aberration", "-sa"): 2.0, ("--amplitude-contrast", "-ac"): 0.1, ("--optics-group", "-og"): 3,
        ("--optics-group-name", "-ogn"): "mine",
    }  # fmt: skip
    arguments = [word for names, value in flags.items() for word in (names[0 if long else 1], value)]
    sizes = ["-x", SIZE, "-y", SIZE, "-z", THICKNESS]
    cli("prepare", "particles", *arguments)
    path = folder / "out/TS_me_5_ribosome.star"
    blocks = read_star(path)
    assert list(blocks["optics"].iloc[0][["rlnOpticsGroup", "rlnOpticsGroupName", "rlnVoltage"]]) == [3, "mine", 200]
    assert list(blocks["particles"]["rlnTomoName"].unique()) == ["TS_01", "TS_02"]
    assert np.allclose(blocks["particles"][CENTRED].iloc[:30], picks()[["x", "y", "z"]], atol=1e-3)
    assert json.loads((folder / "out/import.json").read_text())[0]["user_id"] == "me"
    cli("prepare", "particles", *arguments, "--relion5", "False", "--overwrite", code=65)
    cli("prepare", "particles", *arguments, *sizes, "--relion5", "False", "--overwrite")
    assert np.allclose(read_star(path)["particles"]["rlnCoordinateX"].iloc[:30], corner[:, 0] / PIXEL, atol=1e-3)
    cli("prepare", "particles", *arguments, "--overwrite")
    back = {
        ("--particles", "-p"): path, ("--configs", "-c"): config, ("--sessions", "-s"): "TS", ("--suffix",) * 2: "_Vol",
        ("--name", "-n"): "ribosome", ("--user-id", "-uid"): "relion", ("--session-id", "-sid"): 99,
        ("-x",) * 2: SIZE, ("-y",) * 2: SIZE, ("-z",) * 2: THICKNESS,
    }  # fmt: skip
    arguments = [word for names, value in back.items() for word in (names[0 if long else 1], value)]
    cli("export", "star2copick", *arguments)
    (made,) = copick.from_file(str(config)).get_run("02_Vol").get_picks("ribosome", "relion", "99")
    assert np.allclose(made.full_positions(), corner, atol=0.01)
    capsys.readouterr()
    cli("export", "star2copick", *arguments, code=65)
    assert "--existing overwrite or new-session" in capsys.readouterr().err
    cli("export", "star2copick", *arguments, "--existing", "new-session")
    assert "relion/100" in capsys.readouterr().out


def test_import_copick(folder):
    pytest.importorskip("copick")
    import copick

    write_aretomo(folder / "in")
    cli("import", "aretomo", "in", "--voltage", 300, "--hand", -1)
    config = copick_project(folder / "project", {"TS_01": ((SIZE // 4, SIZE // 4, THICKNESS // 4), 4 * PIXEL)})
    copick.from_file(str(config)).get_run("TS_01").new_picks("ribosome", "5", "me").from_numpy(np.full((1, 3), 80.0))
    cli("import", "copick", "-c", config, "-n", "ribosome", "-ts", SERIES)
    found = read_star("input/full_picks.star")
    assert np.allclose(found["particles"][CENTRED], 80 - np.array([[SIZE, SIZE, THICKNESS]]) * PIXEL / 2)
    assert found["optics"]["rlnTomoTiltSeriesPixelSize"].iloc[0] == PIXEL


def test_particles_of_other_programs(folder, capsys):
    """From the command line: units are asked for, names matched, other kinds named in one line."""
    write_dynamo(folder / "d")
    series = pd.DataFrame(
        [{"rlnTomoName": name, "rlnTomoSizeX": size[0], "rlnTomoSizeY": size[1], "rlnTomoSizeZ": size[2],
          "rlnTomoTiltSeriesPixelSize": particle_formats.PIXEL, "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7,
          "rlnAmplitudeContrast": 0.07, "rlnTomoTiltSeriesStarFile": f"{name}.star", "rlnTomoHand": -1.0}
         for name, size in particle_formats.SIZES.items()]
    )  # fmt: skip
    write_star({"global": series}, folder / "series.star")
    cli("import", "particles", "-i", "d/crop.tbl", "-ts", "series.star", code=65)
    assert "--voxel-size" in capsys.readouterr().err
    cli("import", "particles", "-i", "d/crop.tbl", "-ts", "series.star", "--voxel-size", 10, "--doc", "d/crop.doc")
    assert "counted from 1" in capsys.readouterr().out
    assert set(read_star("input/full_picks.star")["particles"]["rlnTomoName"]) == {"TS_01", "TS_02"}
    cli("import", "csv", "-i", "d/crop.tbl", "-ts", "series.star", code=65)
    assert "This is a table of Dynamo" in capsys.readouterr().err
    cli("import", "particles", "-i", "d/crop.doc", "-ts", "series.star", code=65)
    assert "Give the .tbl" in capsys.readouterr().err
    write_coords(folder / "c")
    given = ("-ts", "series.star", "-o", "c.star", "--units", "pixel", "--voxel-size", 10)
    cli("import", "particles", "-i", "c/TS_01.coords", *given, "--tomogram", "TS_01_rec.mrc")
    assert len(read_star("c.star")["particles"]) == 6
    cli("prepare", "relion5-parameters", "-ts", "series.star", "-p", "d/crop.doc", code=65)
    assert "This is the list of tomograms of a Dynamo table (.doc), not a particle file" in capsys.readouterr().err
    cli("prepare", "import-particles", "-i", "d/crop.tbl", "-ts", "series.star", "--voxel-size", 10, "-o", "p.star")
    assert len(read_star("p.star")["particles"]) == 12


def test_other_exports(folder, capsys):
    write_aretomo(folder / "in")
    cli("import", "aretomo", "in", "--voltage", 300, "--hand", -1)
    picks().to_csv("a.csv", index=False)
    cli("import", "csv", "-i", "a.csv", "-ts", SERIES, "-o", "a.star")
    cli("export", "star", "-p", "a.star", "-o", "plain.star")
    cli("export", "csv", "-p", "a.star", "-o", "plain.csv", "-ts", SERIES, "--voxel-size", 8)
    cli("export", "csv", "-p", "a.star", "-o", "x.csv", "--voxel-size", 8, code=65)
    cli("export", "chimerax", "-p", "a.star", "-ts", SERIES, "--voxel-size", 8, "-o", "cx", "--radius", 40)
    assert 'radius="40"' in (folder / "cx/TS_01.cmm").read_text()
    capsys.readouterr()
    cli("export", "warp", "-p", "a.star", "-ts", SERIES, "-o", "w.star", "--voxel-size", 8)
    assert "--coords_angpix 8" in capsys.readouterr().out
    cli("import", "particles", "-i", "w.star", "-ts", SERIES, "-o", "back.star", "--voxel-size", 8)
    assert np.allclose(
        read_star("back.star")["particles"][CENTRED], read_star("a.star")["particles"][CENTRED], atol=0.01
    )

    cli("export", "dynamo", "-p", "a.star", "-ts", SERIES, "--voxel-size", 8, "-o", "d.tbl", "--tomogram-file",
        "t/{name}.mrc")  # fmt: skip
    assert (folder / "d.doc").read_text() == "1 t/TS_01.mrc\n"
    table = np.loadtxt("d.tbl")
    assert table.shape == (30, 42)
    tilts = next(iter(read_star(read_star(SERIES)["global"]["rlnTomoTiltSeriesStarFile"][0]).values()))["rlnTomoYTilt"]
    assert np.allclose(table[:, 12:15], [1, tilts.min(), tilts.max()], atol=1e-4)

    blocks = read_star("a.star")
    blocks["particles"]["rlnClassNumber"] = [1, 2, 3] * 10
    write_star(blocks, folder / "Class3D/job001/run_it025_data.star")
    cli("export", "class2star", "--export-classes", "1,3")
    assert len(read_star("job001_classes_1_3.star")["particles"]) == 20
    cli("export", "class2star", "-cj", "job001", "--export-classes", "2", "--export-path", "two.star")
    cli("export", "class2star", "-p", "Class3D/job001/run_it025_data.star", "--export-classes", "9", code=65)
    assert len(read_star("two.star")["particles"]) == 10


@pytest.mark.relion
@pytest.mark.slow
def test_check_hand_finds_the_hand(folder, capsys):
    """The simulated images have hand -1, and the STAR file says 1."""
    write_dataset(
        folder / "d",
        Settings(tilt_series=2, particles=16, pixel_size=2.0, image_size=400, thickness=100, diameter=90.0,
                 tilt_range=50, tilt_step=25, noise=0.3),
    )  # fmt: skip
    blocks = read_star("d/tilt_series.star")
    blocks["global"]["rlnTomoHand"] = 1.0
    write_star(blocks, folder / "d/tilt_series.star")
    cli("check-hand", "-ts", "d/tilt_series.star", "-p", "d/particles.star", "-pd", 90, "-s", "O")
    printed = capsys.readouterr().out
    assert "Better: hand -1, NOT as the tilt series say" in printed
    cli("check-hand", "-ts", "d/tilt_series.star", "-p", "d/particles.star", "-pd", 90, code=65)
    assert "not empty" in capsys.readouterr().err


def test_check_hand_needs_orientations(folder, capsys):
    write_aretomo(folder / "in")
    cli("import", "aretomo", "in", "--voltage", 300, "--hand", -1)
    picks().drop(columns=["rot", "tilt", "psi"]).to_csv("a.csv", index=False)
    cli("import", "csv", "-i", "a.csv", "-ts", SERIES, "-o", "a.star")
    cli("check-hand", "-ts", SERIES, "-p", "a.star", "-pd", 90, code=65)
    assert "The particles have no orientations" in capsys.readouterr().err
