"""Imports as part of a run: parameters, what is read, what is made, and every problem in one list."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from formats import DARK, PIXEL, SIZE, THICKNESS, truth, write_aretomo, write_imod, write_warp
from helpers import cli, copick_project, write_picks

from py2rely_core.checks.preflight import check_parameters
from py2rely_core.data.geometry import CENTRED
from py2rely_core.data.inputs import load_inputs
from py2rely_core.data.tables import read_star, write_star
from py2rely_core.exporters.final_picks import export_particles
from py2rely_core.importers.copick import planned_volumes
from py2rely_core.importers.run import run_imports
from py2rely_core.importers.sources import source_files, tomogram_files
from py2rely_core.parameters.files import new_recipe, write_recipe
from py2rely_core.parameters.imports import NOTES, needs_import
from py2rely_core.parameters.request import load_datasets
from py2rely_core.problems import ExitCode, ProblemError

EXTENT = np.array([SIZE, SIZE, THICKNESS]) * PIXEL
#: Of a run on AreTomo's tilt series with the picks of the copick project.
RUN = {
    "aretomo": "aretomo", "voltage": 300, "hand": -1, "copick": "copick/config.json", "particle_name": "ribosome",
    "run_denovo_generation": True,
}  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A directory with AreTomo's tilt series A and B, a copick project with their picks, and a parameter file."""
    pytest.importorskip("copick")
    monkeypatch.chdir(tmp_path)
    for number, name in ((1, "A"), (2, "B")):
        write_aretomo(tmp_path / "aretomo", name, number, dark=DARK)
    config = copick_project(tmp_path / "copick", {name: ((24, 24, 10), 4 * PIXEL) for name in "AB"})
    write_picks(config, "picker", {name: positions(number) for number, name in enumerate("AB")})
    recipe = new_recipe("t.star", "p.star", PIXEL, "C1", 50, 100, False, 1.5, "2", 2)
    write_recipe(recipe, tmp_path / "sta.json")
    return tmp_path


def positions(seed: int, count: int = 30) -> np.ndarray:
    """Places within the tomogram, Angstrom from its first corner."""
    return np.random.default_rng(seed).uniform(0.3, 0.7, (count, 3)) * EXTENT


def dataset_of(home: Path, **params: object) -> dict:
    (found,) = load_datasets({"launch_dir": str(home), "params": {"parameter": "sta.json"} | params})["datasets"]
    return found


def imported(home: Path, **params: object):
    dataset = dataset_of(home, **params)
    shutil.rmtree(home / "out", ignore_errors=True)
    return run_imports(source_files(dataset["imports"], dataset["export"])["settings"], home / "out")


def problems_of(home: Path, **params: object) -> str:
    with pytest.raises(ProblemError) as error:
        dataset_of(home, **params)
    return str(error.value)


@pytest.mark.parametrize(
    ("left_out", "more", "texts"),
    [
        (("voltage", "hand"), {}, ("Add --voltage", "Add --hand")),
        (("particle_name",), {}, ("--particle_name NAME",)),
        (("copick",), {}, ("--particle_name names an object", "--copick CONFIG")),
        ((), {"imod": "imod", "tomograms": "t.star"}, ("given 3 times: --aretomo, --imod, --tomograms",)),
        ((), {"particles": "p.csv"}, ("given twice: --copick, --particles",)),
        ((), {"hand": 2}, ("imports.hand = 2", "1 or -1")),
        ((), {"voltage": "high"}, ("imports.voltage = 'high'",)),
        ((), {"imports": {"unit": "pixel"}}, ("did you mean 'units'?",)),
        (("copick", "particle_name"), {"export_copick": True}, ("--export_copick writes into a copick project",)),
        ((), {"export_copick": True, "imports": {"run_prefix": "S1-"}}, ("a prefix that ends with _",)),
        ((), {"export_copick": True, "user_id": "relion"}, ("Say which session is imported",)),
    ],
)  # fmt: skip
def test_what_is_missing_or_does_not_go_together_is_named(home, left_out, more, texts):
    text = problems_of(home, **{name: value for name, value in RUN.items() if name not in left_out} | more)
    for wanted in texts:
        assert wanted in text


def test_parameters_and_the_block_of_the_parameter_file_meet(home):
    """Names that look like numbers stay names; what is typed wins."""
    recipe = json.loads((home / "sta.json").read_text())
    recipe["imports"] |= {"voltage": 200, "user_id": "them"}
    (home / "sta.json").write_text(json.dumps(recipe))
    options = dataset_of(home, **RUN | {"session_id": 12})["imports"]["options"]
    assert (options["voltage"], options["user_id"], options["session_id"], options["hand"]) == (300, "them", "12", -1)
    assert dataset_of(home)["imports"] is None


def test_names_stay_as_they_are_written(home, tmp_path):
    """In a parameter file, on the command line, and in a sample sheet; a number that lost its text is refused."""
    recipe = (home / "sta.json").read_text().rstrip()[:-1]
    block = '"run_ids": 1e5, "run_prefix": 1.50, "run_remove": "1_2", "export_session": true, "authors": "01"'
    (home / "sta.json").write_text(f'{recipe}, "imports": {{{block}}}}}')
    options = dataset_of(home, **RUN | {"session_id": "01", "user_id": "1e5"})["imports"]["options"]
    wanted = {"run_ids": "1e5", "run_prefix": "1.50", "run_remove": "1_2", "authors": "01", "session_id": "01"}
    assert {name: options[name] for name in wanted} == wanted
    assert options["user_id"] == "1e5"
    assert "session_id = 100000.0: it is a name, and was written as the number 100000" in problems_of(
        home, **RUN | {"session_id": 1e5}
    )
    assert "--particle_name is a text" in problems_of(home, **RUN | {"particle_name": 1e5})
    sheet = "id,parameters,aretomo,copick,particle_name,run_denovo_generation\n"
    (home / "sheet.csv").write_text(
        f"{sheet}01,sta.json,aretomo,copick/config.json,1_2,true\n1e5,sta.json,aretomo,copick/config.json,01,true\n"
    )
    given = {"sample_sheet": "sheet.csv", "voltage": 300, "hand": -1}
    found = load_datasets({"launch_dir": str(home), "params": given})["datasets"]
    assert [(one["id"], one["imports"]["particles"]["name"]) for one in found] == [("01", "1_2"), ("1e5", "01")]


def test_tables_are_what_the_commands_make_of_the_same_files(home):
    done = imported(home, **RUN)
    assert not done.problems
    cli("import", "aretomo", "aretomo", "--voltage", 300, "--hand", -1, "-o", "by_hand")
    cli("import", "copick", "-c", "copick/config.json", "-n", "ribosome", "-ts",
        "by_hand/aligned_tilt_series.star", "-o", "by_hand/picks.star")  # fmt: skip
    for one, other in (("particles.star", "picks.star"), ("tiltSeries/tilt_series/A.star", "tilt_series/A.star")):
        first, second = read_star(home / "out/imported" / one), read_star(home / "by_hand" / other)
        for name, table in first.items():
            own = table.drop(columns="rlnMicrographName", errors="ignore")
            pd.testing.assert_frame_equal(own, second[name][own.columns])
    inputs = load_inputs(
        home / "out/imported/particles.star", home / "out/imported/tiltSeries/aligned_tilt_series.star", home / "out"
    )
    assert inputs.problems == []
    assert [stack.resolve().name for stack in inputs.stacks()] == ["A.mrc", "B.mrc"]
    found = read_star(home / "out/imported/particles.star")["particles"]
    wanted = np.concatenate([positions(0), positions(1)]) - EXTENT / 2
    assert np.allclose(found[CENTRED].to_numpy(), wanted, atol=1e-3)
    notes = json.loads((home / "out" / NOTES).read_text())["notes"]
    assert any("300 kV, spherical aberration 2.7 mm" in note for note in notes)


@pytest.mark.parametrize("program", ["imod", "warp"])
def test_other_programs_tilt_series(home, program):
    write = {"imod": write_imod, "warp": write_warp}[program]
    write(home / program)
    source = program if program == "imod" else "warp/x_tomograms.star"
    name = "TS_01"
    pd.DataFrame(positions(3) - EXTENT / 2, columns=["x", "y", "z"]).assign(tomogram=name).to_csv("p.csv", index=False)
    done = imported(home, **{program: source}, voltage=300, hand=-1, particles="p.csv", run_denovo_generation=True)
    assert not done.problems
    tilts = read_star(home / f"out/imported/tiltSeries/tilt_series/{name}.star")[name]
    assert np.allclose(tilts["rlnTomoYTilt"], truth()["rlnTomoYTilt"], atol=0.01)
    assert set(read_star(done.files["tilt_series"])["global"]["rlnTomoHand"]) == {-1.0}
    assert len(read_star(done.files["particles"])["particles"]) == 30


def test_problems_of_tilt_series_and_particles_are_one_list(home):
    """Without a tilt series nothing is said of units and sizes, which cannot be known."""
    text = (home / "aretomo/A.aln").read_text()
    (home / "aretomo/A.aln").write_text(text.replace("# RawSize", "# Size"))
    pd.DataFrame({"tomogram": ["A", "B"], "x": [1, "?"], "y": [2, 3], "z": [4, 5]}).to_csv("p.csv", index=False)
    without = {name: value for name, value in RUN.items() if name not in ("copick", "particle_name")}
    first = imported(home, **without, particles="p.csv")
    assert ["A.aln" in one.where or "p.csv" in one.where for one in first.problems] == [True, True]
    second = imported(home, **RUN | {"particle_name": "ribosom"})
    assert "did you mean 'ribosome'?" in second.problems[1].fix
    assert len(second.problems) == 2
    assert len(imported(home, **RUN).problems) == 1
    assert not list((home / "out/imported").rglob("*.star"))


def test_messages_name_the_parameters_of_the_run(home):
    for name in "AB":
        write_aretomo(home / "aretomo", name, dark=DARK, doses=False)
        (home / f"aretomo/{name}_Vol.mrc").unlink()
    text = "\n".join(map(str, imported(home, **RUN).problems))
    assert "--dose_per_tilt or --total_dose" in text
    assert "--dose-per-tilt" not in text
    assert not imported(home, **RUN | {"dose_per_tilt": 3, "thickness": THICKNESS}).problems
    config = home / "copick/config.json"
    write_picks(config, "other", {"A": positions(5)})
    (problem,) = imported(home, **RUN | {"dose_per_tilt": 3, "thickness": THICKNESS}).problems
    assert "--user_id" in problem.fix


def test_everything_that_is_read_is_listed(home):
    write_star({"global": pd.DataFrame({"rlnTomoName": ["A"]})}, home / "t.star")
    found = source_files(dataset_of(home, **RUN)["imports"])
    names = {Path(name).name for name in found["files"]}
    assert {f"{name}{ending}" for name in "AB" for ending in (".aln", ".mrc", "_CTF.txt", "_TLT.txt")} <= names
    assert {"config.json", "picker_1_ribosome.json", ".zarray"} <= names
    assert found["roots"] == [str(home / "copick/overlay")]
    # Picks of others, and of what is not asked for, are not read.
    write_picks(home / "copick/config.json", "other", {"A": positions(5)})
    picked = [source_files(dataset_of(home, **RUN | {"user_id": user})["imports"]) for user in ("picker", "")]
    assert [sum("Picks" in name for name in one["files"]) for one in picked] == [2, 3]
    warp = write_warp(home / "warp")
    assert len(warp)
    found = source_files(dataset_of(home, **RUN | {"aretomo": None, "warp": "warp/x_optimisation_set.star"})["imports"])
    assert {"x_optimisation_set.star", "x_tomograms.star", "TS_01.mrc"} <= {Path(name).name for name in found["files"]}


def test_picks_that_are_no_files_here_are_looked_at(home):
    """What they say is part of the settings, so that a changed pick repeats the import."""
    config = json.loads((home / "copick/config.json").read_text()) | {"overlay_root": "memory://picks"}
    (home / "remote.json").write_text(json.dumps(config | {"overlay_fs_args": {}}))
    import copick

    root = copick.from_file("remote.json")
    for name in "AB":
        root.new_run(name)
    write_picks(Path("remote.json"), "picker", {"A": positions(0)})
    settings = dataset_of(home, **RUN | {"copick": "remote.json"})["imports"]
    first = source_files(settings)
    assert not [name for name in first["files"] if "Picks" in name]
    assert source_files(settings)["settings"]["seen"] == first["settings"]["seen"] != ""
    (picks,) = copick.from_file("remote.json").get_run("A").get_picks("ribosome")
    picks.from_numpy(positions(7))
    assert source_files(settings)["settings"]["seen"] != first["settings"]["seen"]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("tomogram,x,y,z\nA,1,2,3\n", True),
        ("data_particles\nloop_\n_rlnTomoName #1\n_rlnCoordinateX #2\nA 1\n", True),
        ("data_particles\nloop_\n_rlnTomoName #1\n_rlnCenteredCoordinateXAngst #2\nA 1\n", False),
        ("data_global\nloop_\n_rlnTomoName #1\n_rlnTomoTiltSeriesStarFile #2\nA A.star\n", False),
        ("MAP\0 ", False), ("", False), (None, False),
    ],
)  # fmt: skip
def test_particle_files_that_are_imported(tmp_path, content, wanted):
    if content is not None:
        (tmp_path / "file.star").write_text(content)
    assert needs_import(tmp_path / "file.star") == wanted


def check(home: Path, **params: object):
    return check_parameters(
        {"parameter": "sta.json"} | params, None, [], home, home / "work", home / "results"
    )  # fmt: skip


def test_check_imports_and_leaves_nothing(home):
    before = set(home.rglob("*"))
    checked = check(home, **RUN)
    errors = [one for one in checked.problems if one.is_error]
    assert not errors, errors
    assert any("30 picks of picker/1" in note for note in checked.numbers[0]["imported"])
    assert {one.where.split(",")[0] for one in checked.problems} >= {"imported/particles.star"}
    assert set(home.rglob("*")) == before


def test_check_lists_problems_of_imports_with_all_others(home):
    (home / "aretomo/B_CTF.txt").unlink()
    checked = check(home, **RUN | {"particle_name": "nothing", "mask": "none.mrc"})
    text = "\n".join(str(one) for one in checked.problems if one.is_error)
    assert all(name in text for name in ("There are no CTF values", "no object 'nothing'", "none.mrc"))
    assert sum(one.is_error for one in checked.problems) == 3
    # Particles that were not imported are not missed once more.
    write_aretomo(home / "aretomo", "B", 2, dark=DARK)
    errors = [one.what for one in check(home, **RUN | {"user_id": "nobody"}).problems if one.is_error]
    assert errors == ["There are no such picks."]


def test_orientations_that_nobody_knows_are_no_known_ones(home):
    config = home / "copick/config.json"
    write_picks(config, "blind", {name: positions(n) for n, name in enumerate("AB")}, oriented=False)
    run = RUN | {"run_denovo_generation": None, "user_id": "blind"}
    errors = [one for one in check(home, **run).problems if one.is_error]
    assert ["rlnAngleRot" in one.what and "neither a template nor" in one.fix for one in errors] == [True]
    assert not [one for one in check(home, **run | {"user_id": "picker"}).problems if one.is_error]


def test_what_was_written_is_not_imported_again(home):
    """The final particles go in beside the picks, under another user; a run that is resumed takes the picks still."""
    run = RUN | {"export_copick": True}
    done = imported(home, **run)
    export = dataset_of(home, **run)["export"]
    notes = export_particles(export, done.files["particles"], done.files["tilt_series"])
    assert any("60 of 60 particles written to 2 runs" in note for note in notes)
    again = source_files(dataset_of(home, **run)["imports"], export)
    assert again["settings"]["options"]["user_id"] == "picker"
    assert again["files"] == source_files(dataset_of(home, **RUN)["imports"], export)["files"]
    # A run that computes anew writes a session of its own; or, where it must not, says so before it computes anything.
    assert not [one for one in check(home, **run).problems if one.is_error]
    strict = run | {"imports": {"export_existing": "error"}}
    errors = [one for one in check(home, **strict).problems if one.is_error]
    assert {one.what for one in errors} == {"There are such picks already."}
    assert "--imports.export_existing" in errors[0].fix
    assert not [one for one in check(home, **strict | {"export_session_id": "100"}).problems if one.is_error]
    notes = export_particles(export, done.files["particles"], done.files["tilt_series"])
    assert [note.split(";")[0] for note in notes if "picks of" in note] == [
        f"{name}: 30 picks of ribosome, relion/100" for name in "AB"
    ]


def test_a_run_says_at_its_start_that_copick_is_missing(home, monkeypatch):
    monkeypatch.setitem(sys.modules, "copick", None)
    with pytest.raises(ProblemError, match="copick is not installed") as error:
        source_files(dataset_of(home, **RUN)["imports"])
    assert error.value.exit_code == ExitCode.MISSING_COMPONENT


def test_what_is_left_out_of_run_names_is_their_suffix(home):
    run = RUN | {"export_copick": True, "imports": {"run_remove": "_rec", "run_prefix": "S_"}}
    export = dataset_of(home, **run)["export"]
    assert (export["suffix"], export["session"], export["user_id"], export["session_id"]) == (
        "_rec",
        "S",
        "relion",
        "99",
    )


def test_export_is_checked_before_the_run(home):
    errors = [one for one in check(home, **RUN | {"export_copick": True, "imports": {"export_session": "S"}}).problems
              if one.is_error]  # fmt: skip
    assert len(errors) == 2
    assert all("have no run" in one.what and "--imports.export_session" in one.fix for one in errors)


def test_a_sample_sheet_imports_for_each_data_set(home):
    (home / "sheet.csv").write_text(
        "id,parameters,aretomo,copick,particle_name,particles\n"
        "one,sta.json,aretomo,copick/config.json,ribosome,\n"
        "two,sta.json,,,,p.star\n"
    )
    params = {"sample_sheet": "sheet.csv", "voltage": 300, "hand": -1, "export_copick": True}
    one, two = load_datasets({"launch_dir": str(home), "params": params})["datasets"]
    assert one["imports"]["tilt_series"] == {"program": "aretomo", "source": str(home / "aretomo")}
    assert (one["particles"], one["tilt_series"]) == (None, None)
    assert one["export"]["config"] == str(home / "copick/config.json")
    assert (two["imports"], two["export"]) == (None, None)


#: Slabs of the copick project's own tomograms.
SLABS = RUN | {"slabs": {"run": "yes", "tomo_alg": "wbp", "voxel_spacing": 4 * PIXEL}}


def slab_errors(home: Path, **fields: object) -> str:
    checked = check(home, **SLABS | {"slabs": SLABS["slabs"] | fields})
    return "\n".join(str(one) for one in checked.problems if one.is_error)


def test_slabs_of_copicks_own_tomograms(home):
    """The preflight finds each tilt series' tomogram, and says where one is missing or is another volume."""
    checked = check(home, **SLABS)
    assert not [one for one in checked.problems if one.is_error]
    found = checked.plans[0]["slabs"]["tomograms"]
    assert found["copick"]["runs"] == {"A": "A", "B": "B"}
    assert [Path(found["files"][name]).parts[-3:] for name in "AB"] == [
        (name, "VoxelSpacing16.000", "wbp.zarr") for name in "AB"
    ]
    assert str(home).split("/")[2] in checked.plans[0]["binds"]
    for fields in ({"tomo_alg": "denoised"}, {"voxel_spacing": 10}):
        text = slab_errors(home, **fields)
        assert "2 of 2 tilt series have no tomogram" in text and "its run has 16 A: wbp" in text
    import copick

    run = copick.from_file("copick/config.json").get_run("B")
    run.get_voxel_spacing(16).new_tomogram("denoised").from_numpy(np.zeros((10, 24, 24), np.float32))
    assert "1 of 2 tilt series" in slab_errors(home, tomo_alg="denoised")
    run.get_voxel_spacing(16).get_tomograms("wbp")[0].from_numpy(np.zeros((24, 24, 10), np.float32))
    sizes = "Run B has tomograms of different sizes at 16 A, voxels: denoised 24 x 24 x 10; wbp 10 x 24 x 24"
    assert sizes in slab_errors(home)
    run.get_voxel_spacing(16).get_tomograms("denoised")[0].from_numpy(np.zeros((24, 24, 10), np.float32))
    text = slab_errors(home)
    assert "The tomogram of run B is 160 x 384 x 384 A, that of its tilt series 384 x 384 x 160 A" in text
    (home / "copick/config.json").write_text("{}")
    assert slab_errors(home).count("copick project cannot be opened") == 1


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"slabs": {"run": "yes", "tomo_alg": "wbp"}}, "only one of type and voxel size"),
        ({"slabs": {"run": "yes", "voxel_spacing": 10}}, "only one of type and voxel size"),
        ({"slabs": SLABS["slabs"] | {"tomograms": "rec"}}, "from copick's tomograms, and from others"),
        ({"copick": None, "particle_name": None, "particles": "p.star"}, "--copick CONFIG"),
    ],
)
def test_which_tomograms_are_meant_is_said_once(home, changed, text):
    assert text in problems_of(home, **SLABS | changed)


def test_a_changed_tomogram_is_another_one(home):
    """Of files of this machine, and of those elsewhere: what a task is handed changes with the voxels."""
    import copick

    config = json.loads((home / "copick/config.json").read_text()) | {"overlay_root": "memory://volumes"}
    (home / "remote.json").write_text(json.dumps(config | {"overlay_fs_args": {}}))
    copick.from_file("remote.json").new_run("A").new_voxel_spacing(16).new_tomogram("wbp").from_numpy(
        np.zeros((10, 24, 24), np.float32)
    )
    for name, stores in (("copick/config.json", True), ("remote.json", False)):
        asked = dataset_of(home, **SLABS | {"copick": name})["slab_copick"]
        first = tomogram_files(asked)["runs"]["A"]
        assert bool(first["store"]) == stores and first["size"] == [24, 24, 10]
        assert tomogram_files(asked)["runs"]["A"] == first
        tomogram = copick.from_file(name).get_run("A").get_voxel_spacing(16).get_tomograms("wbp")[0]
        tomogram.from_numpy(np.random.default_rng(1).normal(size=(10, 24, 24)).astype(np.float32))
        assert tomogram_files(asked)["runs"]["A"]["seen"] != first["seen"]


def test_runs_that_are_not_called_as_their_tilt_series(home):
    """Names are put together as for the picks; where the configuration's directory is relative, from the run's on."""
    import copick

    config = json.loads((home / "copick/config.json").read_text()) | {"overlay_root": "local://other"}
    (home / "other.json").write_text(json.dumps(config))
    for name in ("x-A_rec", "x-B_rec"):
        volume = copick.from_file("other.json").new_run(name).new_voxel_spacing(16).new_tomogram("wbp")
        volume.from_numpy(np.ones((10, 24, 24), np.float32))
    write_picks(Path("other.json"), "picker", {f"x-{name}_rec": positions(1) for name in "AB"})
    run = SLABS | {"copick": "other.json", "imports": {"run_remove": "x-"}}
    checked = check(home, **run)
    assert not [one for one in checked.problems if one.is_error]
    planned = checked.plans[0]["slabs"]["tomograms"]["copick"]
    assert planned["runs"] == {"A": "x-A_rec", "B": "x-B_rec"}
    (home / "elsewhere").mkdir()
    with contextlib.chdir(home / "elsewhere"), planned_volumes(planned)("B") as tomogram:
        assert (tomogram.voxels.shape, tomogram.voxel_size) == ((10, 24, 24), 16)
        assert np.asarray(tomogram.voxels[2:4]).mean() == 1
