"""Every command with every flag, as a person types it."""

import json
import subprocess
import time
from dataclasses import asdict

import numpy as np
import pytest
from helpers import REPO, cli

from py2rely_core.data.tables import read_star
from py2rely_core.maps.fsc import fsc
from py2rely_core.maps.io import read_map, write_map
from py2rely_core.parameters.files import load_recipe
from py2rely_core.simulation.effects import NO_EFFECTS, REALISTIC
from py2rely_core.simulation.structures import density, make_structure

LAUNCHER = REPO / "bin/py2rely"


@pytest.fixture
def stars(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ts.star").touch()
    (tmp_path / "p.star").touch()


def test_help_and_version():
    for arguments in (["--help"], ["-h"], ["prepare", "--help"], ["prepare", "template", "-h"], ["demo-data", "--help"],
                      ["compare-truth", "--help"], ["prepare", "relion5-parameters", "--help"]):  # fmt: skip
        done = subprocess.run([LAUNCHER, *arguments], capture_output=True, text=True, check=True)
        assert "Usage: py2rely" in done.stdout
    assert subprocess.run([LAUNCHER, "--version"], capture_output=True, text=True, check=True).stdout.startswith(
        "py2rely "
    )
    assert subprocess.run([LAUNCHER, "no-such"], capture_output=True, check=False).returncode == 2


def test_the_launcher_works_through_a_link(tmp_path):
    (tmp_path / "py2rely").symlink_to(LAUNCHER)
    start = time.perf_counter()
    assert subprocess.run([tmp_path / "py2rely", "--help"], capture_output=True, check=True).stdout
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("long", [True, False])
def test_parameter_file_with_every_flag(stars, tmp_path, capsys, long):
    flags = {
        ("--output", "-o"): "sta.json", ("--tilt-series", "-ts"): "ts.star", ("--particles", "-p"): "p.star",
        ("--tilt-series-pixel-size", "-ps"): 1.54, ("--symmetry", "-s"): "D2", ("--low-pass", "-lp"): 40,
        ("--protein-diameter", "-pd"): 250, ("--max-dose", "-md"): 60, ("--denovo-generation", "-dg"): "True",
        ("--box-scaling", "-bs"): 2, ("--nclasses", "-nc"): 3, ("--ninit-models", "-nim"): 2,
        ("--binning-list", "-bl"): "4,2,1", ("--nthreads", "-nj"): 16, ("--nprocesses", "-np"): 5,
    }  # fmt: skip
    arguments = [word for names, value in flags.items() for word in (names[0 if long else 1], value)]
    cli("prepare", "relion5-parameters", *arguments)
    recipe = load_recipe(tmp_path / "sta.json")
    assert recipe.refine3D.sym_name == "D2"
    assert (recipe.refine3D.ini_high, recipe.refine3D.particle_diameter, recipe.refine3D.nr_threads) == (40, 250, 16)
    assert recipe.resolutions.angpix == 1.54
    assert recipe.resolutions.binning_list == [4, 2, 1]
    assert recipe.pseudo_subtomo.max_dose == 60
    assert (recipe.class3D.nr_classes, recipe.initial_model.nr_classes) == (3, 2)
    assert "-n 5" in recipe.refine3D.mpi_command
    printed = capsys.readouterr().out
    assert "[Initialize] Box Size: 84 @ bin=4" in printed
    assert "[Initialize] Box Size: 168 @ bin=2" in printed
    assert "[Initialize] Box Size: 352 @ bin=1" in printed


def test_flags_stand_alone_or_with_a_value(stars, tmp_path):
    base = ["prepare", "relion5-parameters", "-o", "x.json", "-ts", "ts.star", "-p", "p.star"]
    cli(*base, "-dg", "-s", "O")
    assert load_recipe(tmp_path / "x.json").initial_model is not None
    cli(*base, "-dg", "False")
    assert load_recipe(tmp_path / "x.json").initial_model is None


@pytest.mark.parametrize(
    "arguments",
    [["-s", "Q"], ["-bl", "1,2"], ["-pd", "5000"], ["-bs", "0.3"], ["-ps", "-1"], ["-lp", "2"], ["-p", "none.star"]],
)
def test_impossible_values_write_no_file(stars, tmp_path, capsys, arguments):
    code = 65 if "none.star" in arguments else 66
    defaults = ["-o", "x.json", "-ts", "ts.star", "-p", "p.star"]
    cli("prepare", "relion5-parameters", *defaults, *arguments, code=code)
    assert not (tmp_path / "x.json").exists()
    assert "to do:" in capsys.readouterr().err


def test_a_file_of_the_reference_system_is_read(tmp_path):
    """Its values are text, its lists are text, and some of its blocks have no effect here."""
    blocks = {
        "resolutions": {"angpix": 1.54, "box_scaling": 2.0, "binning_list": "[4, 2, 1]"},
        "reconstruct": {"in_tomograms": "ts.star", "in_particles": "p.star", "point_group": "C1", "nr_threads": 8},
        "pseudo_subtomo": {"in_tomograms": "ts.star", "in_particles": "p.star", "do_float16": "yes", "max_dose": -1},
        "refine3D": {
            "sym_name": "C1",
            "particle_diameter": 290,
            "sampling": "7.5 degrees",
            "use_gpu": "yes",
            "ini_high": 50,
        },
        "class3D": {"nr_classes": 3, "tau_fudge": 3, "dont_skip_align": "no"},
        "select": {"do_select_values": "yes", "select_label": "rlnClassNumber"},
        "mask_create": {"lowpass_filter": 20, "extend_inimask": 3, "width_mask_edge": 5},
        "ctf_refine": {"do_defocus": "yes", "focus_range": 3000, "lambda": 0.1},
        "bayesian_polish": {"do_motion": "yes", "sigma_vel": 0.2, "sigma_div": 5000},
    }
    (tmp_path / "sta.json").write_text(json.dumps(blocks))
    recipe = load_recipe(tmp_path / "sta.json")
    assert recipe.resolutions.binning_list == [4, 2, 1]
    assert recipe.refine3D.use_gpu is True


@pytest.mark.parametrize("long", [True, False])
def test_template_with_every_flag(tmp_path, monkeypatch, long):
    monkeypatch.chdir(tmp_path)
    structure = make_structure(120.0, "C1", 3)
    write_map("in.mrc", density(structure, 60, 3.0), 6.0)
    flags = {
        ("--input", "-i"): "in.mrc", ("--output", "-o"): "out.mrc", ("--input-voxel-size", "-ivs"): 3.0,
        ("--output-voxel-size", "-ovs"): 5.0, ("--low-pass", "-lp"): 25.0, ("--box-size", "-b"): 48,
    }  # fmt: skip
    arguments = [word for names, value in flags.items() for word in (names[0 if long else 1], value)]
    plain = [*arguments, "--log", 30]
    cli("prepare", "template", *plain)
    result = read_map("out.mrc")
    assert result.data.shape == (48, 48, 48)
    assert result.pixel_size == pytest.approx(5.0)
    truth = density(structure, 48, 5.0)
    assert fsc(result.data, truth)[1:8].min() > 0.999
    cli("prepare", "template", *plain, "--invert")
    assert np.allclose(read_map("out.mrc").data, -result.data, atol=1e-6)
    cli("prepare", "template", *plain, "--mirror" if long else "-m")
    assert np.allclose(np.roll(read_map("out.mrc").data[::-1], 1, axis=0), result.data, atol=1e-4)
    cli("prepare", "template", *plain, "--center" if long else "-c")
    assert not np.allclose(read_map("out.mrc").data, result.data, atol=1e-6)


def test_template_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_map("my map.mrc", density(make_structure(100.0, "C1", 1), 50, 4.0), 4.0)
    cli("prepare", "template", "-i", "my map.mrc", "-ovs", 8)
    assert read_map("template_my map_8A.mrc").data.shape[0] * 8 >= 200


@pytest.mark.parametrize(
    "arguments", [["-i", "none.mrc"], ["-i", "in.mrc", "-ovs", "-1"], ["-i", "in.mrc", "--align-symmetry", "Q"]]
)
def test_template_problems(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    write_map("in.mrc", np.ones((8, 8, 8)), 2.0)
    code = 66 if "Q" in arguments else 65
    cli("prepare", "template", "-ovs", 4, *arguments, code=code)


@pytest.mark.relion
def test_template_is_turned_onto_its_axes(tmp_path, monkeypatch):
    from scipy.spatial.transform import Rotation

    from py2rely_core.simulation.structures import Structure

    monkeypatch.chdir(tmp_path)
    made = make_structure(120.0, "D2", 5)
    turned = Rotation.from_euler("ZYZ", [20, 15, 30], degrees=True).apply(made.centres)
    write_map("in.mrc", density(Structure(turned, made.weights, 4.0), 48, 4.0), 4.0)
    cli(
        "prepare", "template", "-i", "in.mrc", "-o", "out.mrc", "-ovs", 5, "-b", 40, "-lp", 20, "--align-symmetry", "D2"
    )
    result = read_map("out.mrc").data
    assert result.shape == (40, 40, 40)
    half_turn = np.roll(result[:, ::-1, ::-1], (1, 1), axis=(1, 2))
    assert np.corrcoef(result.ravel(), half_turn.ravel())[0, 1] > 0.95


def test_demo_data_with_every_flag(tmp_path, capsys):
    cli(
        "demo-data", tmp_path / "d", "--tilt-series", 1, "--particles", 4, "--pixel-size", 5, "--image-size", 140,
        "--thickness", 60, "--diameter", 110, "--symmetry", "D3", "--tilt-range", 40, "--tilt-step", 20,
        "--defocus", 2.5, "--dose", 2, "--noise", 0.5, "--seed", 7, "--angle-error", 3, "--shift-error", 2,
        "--random-angles",
        "--false-picks", 0.5, "--second-conformation", 0.25, "--defocus-error", 500,
        "--motion", 4, "--name-prefix", "mine_",
    )  # fmt: skip
    table = read_star(tmp_path / "d/tilt_series.star")["global"]
    assert list(table["rlnTomoName"]) == ["mine_01"]
    tilts = read_star(tmp_path / "d/tilt_series/mine_01.star")["mine_01"]
    assert len(tilts) == 5
    assert tilts["rlnMicrographPreExposure"].max() == 8
    assert "(truth: 3 a, 2 false, 1 b)" in capsys.readouterr().out
    cli("demo-data", tmp_path / "e", "--particles", 500, "--image-size", 100, code=65)


def test_realistic_demo_data_are_as_stated_and_what_is_given_wins(tmp_path, capsys):
    small = ["--tilt-series", 1, "--particles", 2, "--pixel-size", 8, "--image-size", 120, "--thickness", 60,
             "--tilt-step", 30]  # fmt: skip

    def effects(name, *options):
        cli("demo-data", tmp_path / name, *small, *options)
        return json.loads((tmp_path / name / "truth/settings.json").read_text())["effects"]

    plain, realistic = effects("plain"), effects("realistic", "--realistic")
    assert plain == asdict(NO_EFFECTS)
    assert realistic == asdict(REALISTIC)
    # What is tuned is at other values, what is a switch is on; only constants and another noise stay.
    same = {name for name, value in realistic.items() if value == plain[name]}
    assert same == {"mean_free_path", "snr", "contrast"}
    assert effects("own", "--realistic", "--ice", 0, "--beads", 1, "--no-shot-noise") == realistic | {
        "ice": 0.0, "beads": 1, "shot_noise": False,
    }  # fmt: skip
    assert effects("white", "--realistic", "--snr", 0.1) == realistic | {"snr": 0.1, "shot_noise": False}
    assert not effects("known", "--realistic", "--noise", 0)["shot_noise"]
    assert effects("some", "--dqe", 0.5, "--astigmatism", 500) == plain | {"dqe": 0.5, "astigmatism": 500.0}
    capsys.readouterr()
    cli("demo-data", tmp_path / "both", *small, "--snr", 0.1, "--shot-noise", code=2)
    assert "--snr and --shot-noise" in capsys.readouterr().err
    cli("demo-data", tmp_path / "full", *small, "--neighbours", 200, code=65)
    assert "no room for another protein" in capsys.readouterr().err


def test_compare_truth_names_what_is_missing(tmp_path, capsys):
    cli("compare-truth", tmp_path, tmp_path, code=65)
    assert "results.json" in capsys.readouterr().err
