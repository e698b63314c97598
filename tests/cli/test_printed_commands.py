"""Every command of py2rely's pages as it is printed there, page by page, with what it must mean.

What computes nothing runs on small data; what would start RELION, Nextflow or SLURM is stopped there, and what would
have been started is looked at.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from formats import write_aretomo
from helpers import cli, copick_project

from py2rely_core.data.geometry import CENTRED, PIXEL, euler_to_matrix
from py2rely_core.data.tables import read_star, write_star
from py2rely_core.launching import launch, routines
from py2rely_core.maps.io import read_map, write_map
from py2rely_core.parameters.files import load_recipe

RUNS = {"TS_1": ((60, 50, 40), 10.0), "TS_2": ((60, 50, 40), 10.0)}
SIZE = np.array([4096, 4096, 1200])


def words(printed):
    return [word.replace("/path/to/aretomo", "aretomo") for word in shlex.split(printed)[1:]]


def run(printed, code=0):
    cli(*words(printed), code=code)


def particles(path, names=("TS_1", "TS_2"), classes=(1,), **optics):
    """A particle file with four particles in each tomogram and class."""
    rows = [(name, number) for name in names for number in classes for _ in range(4)]
    table = pd.DataFrame(rows, columns=["rlnTomoName", "rlnClassNumber"])
    table[CENTRED] = np.random.default_rng(0).uniform(-150, 150, (len(rows), 3))
    table[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]] = np.random.default_rng(1).uniform(0, 170, (len(rows), 3))
    table["rlnOpticsGroup"] = 1
    group = {"rlnOpticsGroup": 1, "rlnOpticsGroupName": "opticsGroup1", "rlnTomoTiltSeriesPixelSize": 1.54}
    group |= {"rlnVoltage": 300.0, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.07} | optics
    write_star({"optics": pd.DataFrame([group]), "particles": table}, Path(path))
    return table


def picks(config, name, scale=1.0):
    """Two picks in each run, Angstrom from the corner, in the order of the runs."""
    import copick

    root = copick.from_file(str(config))
    places = scale * np.array([[3000.0, 3100, 900], [3200.0, 3300, 950]])
    for run_name in RUNS:
        root.get_run(run_name).new_picks(name, "1", "picker").from_numpy(places)
    return places


def picks_in(config, run_name, *given):
    import copick

    (found,) = copick.from_file(str(config)).get_run(run_name).get_picks(*given)
    return found.numpy()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PY2RELY_SITE_CONFIG", raising=False)
    return tmp_path


@pytest.fixture
def aretomo(folder):
    """Two sessions of AreTomo output with images of 1.54 A."""
    for session in ("aretomo/24jan01/run001", "24jan01", "24feb15"):
        write_aretomo(folder / session, doses=False, pixel=1.54)


@pytest.fixture
def inputs(folder):
    """Files that the pages name, as far as commands only look whether they are there."""
    for name in ("input/24jan01_virus_like_particle.star", "input/full_picks.star"):
        particles(name)
    write_star({"global": pd.DataFrame([{"rlnTomoName": "TS_1"}])}, Path("input/tiltSeries/aligned_tilt_series.star"))
    for name in ("reference.mrc", "initial_model.mrc", "initial.mrc"):
        write_map(name, np.ones((8, 8, 8), dtype=np.float32), 8.0)


# Importing data


@pytest.mark.parametrize(
    ("printed", "written"),
    [
        (
            "py2rely prepare particles --config copick_config.json --session 24jan01 --name virus-like-particle "
            "-ps 1.54 -x 4096 -y 4096 -z 1200 -v 300 -sa 2.7 -ac 0.1",
            "input/24jan01_virus-like-particle.star",
        ),
        (
            "py2rely prepare particles --config copick_config.json --session 24jan01 --name ribosome --output input "
            "--pixel-size 1.54 --x 4096 --y 4096 --z 1200",
            "input/24jan01_ribosome.star",
        ),
        (
            "py2rely prepare particles -c copick_config.json -s 24jan01 -n ribosome -o in -sid 1 -uid picker "
            "-rids TS_1,TS_2 -vs 10 -ps 1.54 -x 4096 -y 4096 -z 1200 -v 200 -sa 2.0 -ac 0.1 -og 2 -ogn mine "
            "--relion5 True",
            "in/24jan01_picker_1_ribosome.star",
        ),
    ],
)
def test_picks_come_from_copick(folder, printed, written):
    name = "ribosome" if "ribosome" in printed else "virus-like-particle"
    # The project's tomograms are as large as the sizes that are given.
    runs = {run_name: ((631, 631, 185), 10.0) for run_name in RUNS}
    config = copick_project(folder / "copick", runs, name)
    places = picks(config, name)
    config.rename("copick_config.json")
    run(printed)
    blocks = read_star(written)
    table, optics = blocks["particles"], blocks["optics"].iloc[0]
    assert table["rlnTomoName"].tolist() == ["24jan01_TS_1"] * 2 + ["24jan01_TS_2"] * 2
    # The centre is that of the tomogram in which picks were made, whose size is rounded to whole voxels.
    assert np.allclose(table[CENTRED][:2], places - SIZE * 1.54 / 2, atol=10)
    assert optics["rlnAmplitudeContrast"] == (0.1 if "-ac 0.1" in printed else 0.07)
    if "-ogn" in printed:
        assert (optics["rlnOpticsGroupName"], optics["rlnOpticsGroup"], optics["rlnVoltage"]) == ("mine", 2, 200)


def test_picks_of_an_author_of_the_portal(monkeypatch):
    """The portal is elsewhere: what would be asked of it."""
    from py2rely_core.importers import copick

    class AskedError(Exception):
        pass

    def ask(config, picks, *given, **more):
        raise AskedError(config, picks)

    monkeypatch.setattr(copick, "import_copick", ask)
    with pytest.raises(AskedError) as asked:
        run('py2rely prepare particles --config 10445_config.json --session 10445 --name virus-like-particle '
            '-a "Jonathan Schwartz" -ps 1.54 -x 4096 -y 4096 -z 1200')  # fmt: skip
    config, wanted = asked.value.args
    assert config == Path("10445_config.json")
    assert (wanted.name, wanted.authors) == ("virus-like-particle", ["Jonathan Schwartz"])


def test_particles_of_several_files():
    for name in ("session1_particles", "session2_particles", "manual_picks"):
        particles(f"input/{name}.star", names=[name])
    run("py2rely prepare combine-particles --input input/session1_particles.star --input "
        "input/session2_particles.star --input input/manual_picks.star --output input/all_particles.star")  # fmt: skip
    assert len(read_star("input/all_particles.star")["particles"]) == 12


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [("--x 4096 --y 4096 --z 1200", SIZE), ("-x 1000 -y 1000 -z 400", np.array([1000, 1000, 400]))],
)
def test_particles_of_another_file(sizes, expected):
    table = pd.DataFrame({"rlnTomoName": ["TS_1", "TS_1"]})
    table[PIXEL] = [[500.0, 510, 200], [600, 620, 210]]
    write_star({"particles": table}, Path("p.star"))
    run(f"py2rely prepare import-particles --input p.star --output full_picks.star {sizes} --pixel-size 1.54 "
        "--voltage 300 --spherical-aberration 2.7 --amplitude-contrast 0.07 --optics-group 1 "
        "--optics-group-name opticsGroup1 --units pixel")  # fmt: skip
    found = read_star("full_picks.star")["particles"][CENTRED]
    assert np.allclose(found, (table[PIXEL].to_numpy() - expected / 2) * 1.54)


@pytest.mark.parametrize(
    "printed",
    [
        "py2rely prepare tilt-series --base-project /path/to/aretomo -s 24jan01 -r run001 -v 300 -sa 2.7 -ac 0.1 "
        "--pixel-size 1.54 --total-dose 60",
        "py2rely prepare tilt-series --session 24jan01 --output input/",
        "py2rely prepare tilt-series --session 24feb15 --output input/",
        "py2rely prepare tilt-series --session 24jan01 --output input --pixel-size 1.54",
    ],
)
def test_tilt_series_of_aretomo(aretomo, printed):
    run(printed)
    session = "24feb15" if "24feb15" in printed else "24jan01"
    table = read_star(f"input/{session}_tiltSeries/aligned_tilt_series.star")["global"].iloc[0]
    assert table["rlnTomoName"] == f"{session}_TS_01"
    assert table["rlnTomoTiltSeriesPixelSize"] == 1.54
    assert table["rlnAmplitudeContrast"] == (0.1 if "-ac" in printed else 0.07)
    doses = read_star(table["rlnTomoTiltSeriesStarFile"])[f"{session}_TS_01"]["rlnMicrographPreExposure"]
    assert doses.max() == pytest.approx(60 * 10 / 11)


def test_tilt_series_of_several_sessions(aretomo):
    for session in ("24jan01", "24feb15"):
        run(f"py2rely prepare tilt-series --session {session} --output input/")
        made = Path(f"input/{session}_tiltSeries/aligned_tilt_series.star")
        Path("input/tiltSeries").mkdir(exist_ok=True)
        shutil.copy(made, f"input/tiltSeries/aligned_tilt_series_{session}.star")
    run("py2rely prepare combine-tilt-series --input input/tiltSeries/aligned_tilt_series_24jan01.star --input "
        "input/tiltSeries/aligned_tilt_series_24feb15.star "
        "--output input/tiltSeries/aligned_tilt_series.star")  # fmt: skip
    table = read_star("input/tiltSeries/aligned_tilt_series.star")["global"]
    assert table["rlnTomoName"].tolist() == ["24jan01_TS_01", "24feb15_TS_01"]


@pytest.mark.parametrize(
    "printed",
    [
        "py2rely prepare filter-unused-tilts --particles input/24jan01_virus_like_particle.star --tomograms "
        "input/tiltSeries/aligned_tilt_series.star",
        "py2rely prepare filter-unused-tilts -p input/24jan01_virus_like_particle.star -t "
        "input/tiltSeries/aligned_tilt_series.star",
    ],
)
def test_tilt_series_without_particles(printed):
    """Nothing is lost: the file that was given stays, and a second call replaces nothing."""
    particles("input/24jan01_virus_like_particle.star", names=["TS_1"])
    given = Path("input/tiltSeries/aligned_tilt_series.star")
    write_star({"global": pd.DataFrame({"rlnTomoName": ["TS_1", "TS_2"]})}, given)
    before = given.read_bytes()
    run(printed)
    used = Path("input/tiltSeries/aligned_tilt_series_used.star")
    assert read_star(used)["global"]["rlnTomoName"].tolist() == ["TS_1"]
    run(printed, code=65)
    assert given.read_bytes() == before


# Quick start and 3D sub-tomogram averaging


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (
            "py2rely prepare relion5-parameters --tilt-series input/tiltSeries/aligned_tilt_series.star --particles "
            "input/full_picks.star --tilt-series-pixel-size 1.54 --symmetry C1 --protein-diameter 290 --output "
            "sta_parameters.json",
            # The reference's default is 50 A; here it follows from the particle.
            {"symmetry": "C1", "box_scaling": 2.0, "low_pass": None},
        ),
        (
            "py2rely prepare relion5-parameters -p input/24jan01_virus_like_particle.star -ts "
            "input/tiltSeries/aligned_tilt_series.star -ps 1.54 -lp 45 -pd 290 -bs 1.75 -s I2 -bl 4,2,1",
            {"symmetry": "I2", "box_scaling": 1.75, "low_pass": 45},
        ),
        (
            "py2rely prepare relion5-parameters -dg True -nc 2 -nim 3 -md 90 -nj 4 -np 5",
            {"symmetry": "C1", "classes": 2, "models": 3, "max_dose": 90},
        ),
    ],
)
def test_the_parameter_file(inputs, printed, expected):
    run(printed)
    recipe = load_recipe(Path("sta_parameters.json"))
    found = {
        "symmetry": recipe.symmetry, "box_scaling": recipe.resolutions.box_scaling,
        "classes": recipe.class3D.nr_classes, "low_pass": recipe.refine3D.ini_high,
        "max_dose": recipe.pseudo_subtomo.max_dose,
        "models": recipe.initial_model.nr_classes if recipe.initial_model else None,
    }  # fmt: skip
    assert expected.items() <= found.items()
    assert recipe.resolutions.binning_list == [4, 2, 1]


@pytest.mark.parametrize(
    ("printed", "box", "voxel"),
    [
        ("py2rely prepare template -i ribosome_3883.map -o reference.mrc -ivs 0.83 -ovs 8.3 -lp 50 -b 64", 64, 8.3),
        ("py2rely prepare template -i ribosome_3883.map -o reference.mrc -ivs 0.8 -ovs 9.24 -lp 40 -b 64", 64, 9.24),
        ("py2rely prepare template --input ribosome_3883.map --output reference.mrc --input-voxel-size 0.83 "
         "--output-voxel-size 6.16 --low-pass 50 --box-size 84 --center --invert --mirror --log 30", 84, 6.16),
    ],
)  # fmt: skip
def test_the_template(printed, box, voxel):
    data = np.zeros((120, 120, 120), dtype=np.float32)
    data[40:60, 50:70, 50:70] = 1
    write_map("ribosome_3883.map", data, 0.83)
    run(printed)
    made = read_map("reference.mrc")
    assert (made.data.shape, made.pixel_size) == ((box,) * 3, pytest.approx(voxel))
    assert (made.data.sum() < 0) == ("--invert" in printed)
    # The block's middle is 10.5 voxels before the map's, unless it is brought there.
    place = np.average(np.arange(box), weights=np.abs(made.data).sum(axis=(1, 2))) - box // 2
    before = 0 if "--center" in printed else -10.5 * (0.8 if "0.8 " in printed else 0.83) / voxel
    assert place == pytest.approx(before, abs=0.15)


STA = "py2rely pipelines sta --parameter sta_parameters.json"
SLURM = {"num_gpus": "4", "cpu_constraint": "4,16", "timeout": "48"}


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (STA, {}),
        (f"{STA} --reference-template initial_model.mrc", {"reference_template": "initial_model.mrc"}),
        (f"{STA} --run-denovo-generation True", {"run_denovo_generation": "true"}),
        (f"{STA} --run-class3D True --class-selection auto", {"run_class3D": "true", "class_selection": "auto"}),
        (f"{STA} --run-class3D True --class-selection manual", {"run_class3D": "true", "class_selection": "manual"}),
        (f"{STA} --reference-template reference.mrc --submitit True", {"reference_template": "reference.mrc"} | SLURM),
        (
            f'{STA} --reference-template reference.mrc --submitit True --num-gpus 4 --gpu-constraint "a100|h100" '
            "--cpu-constraint 8,32 --timeout 72",
            {
                "reference_template": "reference.mrc", "num_gpus": "4", "gpu_constraint": "a100,h100",
                "cpu_constraint": "8,32", "timeout": "72",
            },
        ),
    ],
)  # fmt: skip
def test_the_pipeline(inputs, monkeypatch, printed, expected):
    run("py2rely prepare relion5-parameters -nc 2")
    started = []
    monkeypatch.setattr(launch, "start", started.append)
    run(printed)
    (command,) = started
    given = {name[2:]: value for name, value in pairwise(command) if name.startswith("--")}
    assert given == {"parameter": "sta_parameters.json"} | expected
    assert command[command.index("-profile") + 1] == ("slurm" if "--submitit" in printed else "local")


def test_the_script_of_the_pipeline(inputs):
    run("py2rely prepare relion5-parameters")
    run("py2rely prepare relion5-pipeline --parameter sta_parameters.json --reference-template reference.mrc "
        "--submitit True --num-gpus 2 --gpu-constraint 'a100|h100' --cpu-constraint 8,32 --timeout 12 --num-days 3 "
        "--new-pipeline True")  # fmt: skip
    text = Path("pipeline.sh").read_text()
    for part in ("--time=3-00:00:00", "--gpu_constraint a100,h100", "--cpus 8", "--slurm_memory_per_cpu 32",
                 "--timeout 12", "--num_gpus 2", "--reference_template reference.mrc"):  # fmt: skip
        assert part in text


def classification(folder, classes=(5, 3, 4)):
    """A Class3D job's last iteration with so many particles in each class."""
    Path(folder).mkdir(parents=True)
    numbers = [n for n, count in enumerate(classes, start=1) for _ in range(count)]
    table = pd.DataFrame({"rlnTomoName": "TS_1", "rlnClassNumber": numbers, "rlnOpticsGroup": 1})
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["one"]})
    write_star({"optics": optics, "particles": table}, Path(folder) / "run_it025_data.star")
    model = {"rlnReferenceImage": "x.mrc", "rlnClassDistribution": [count / len(numbers) for count in classes]}
    model["rlnEstimatedResolution"] = [20.0 + n for n in range(len(classes))]
    write_star({"model_classes": pd.DataFrame(model)}, Path(folder) / "run_it025_model.star")


@pytest.mark.parametrize(
    ("printed", "kept"),
    [
        ("py2rely routines select --parameter sta_parameters.json --class-job job001 --keep-classes 1,2,3 "
         "--best-class 1", 12),
        ("py2rely routines select -p sta_parameters.json -cj job001 -kc 1,3 -bc 3", 9),
        ("py2rely routines select -p Class3D/job001/run_it025_data.star -c 1,3", 9),
        ("py2rely routines select --particles Class3D/job001/run_it025_data.star --classes 2", 3),
    ],
)  # fmt: skip
def test_classes_of_a_classification(printed, kept):
    classification("Class3D/job001")
    before = Path("Class3D/job001/run_it025_data.star").read_bytes()
    run(printed)
    assert len(read_star("Select/job002/particles.star")["particles"]) == kept
    assert json.loads(Path("Select/job002/job.json").read_text())["particles_out"] == kept
    assert Path("Class3D/job001/run_it025_data.star").read_bytes() == before
    processes = read_star("default_pipeline.star")["pipeline_processes"]
    assert processes["rlnPipeLineProcessStatusLabel"].tolist()[-1] == "Succeeded"


@pytest.mark.parametrize("where", ["", " -o chosen.star"])
def test_classes_of_images(where, capsys):
    """Of a Class2D job, which has no class maps; all blocks and columns stay."""
    folder = Path("Class2D/job001")
    particles(folder / "run_it025_data.star", classes=range(1, 13))
    blocks = read_star(folder / "run_it025_data.star")
    blocks["particles"]["rlnImageName"] = [f"{n}@stack.mrcs" for n in range(1, 97)]
    write_star(blocks | {"general": pd.DataFrame([{"rlnTomoSubTomosAre2DStacks": 0}])}, folder / "run_it025_data.star")
    run(f"py2rely routines select -p Class2D/job001/run_it025_data.star -c 3,7,12{where}")
    found = read_star("chosen.star" if where else "Select/job002/particles.star")
    assert list(found) == ["optics", "particles", "general"]
    assert sorted(set(found["particles"]["rlnClassNumber"])) == [3, 7, 12]
    wanted = blocks["particles"][blocks["particles"]["rlnClassNumber"].isin([3, 7, 12])]
    assert found["particles"]["rlnImageName"].tolist() == wanted["rlnImageName"].tolist()
    run(f"py2rely routines select -p Class2D/job001/run_it025_data.star -c 3,13{where}", code=65)
    run("py2rely routines select -p Class2D/job001/run_it025_data.star", code=2)
    run("py2rely routines select -p Class2D/job001/run_it025_data.star -c 3 -bc 3", code=2)
    assert "13" in capsys.readouterr().err


# Export


@pytest.mark.parametrize(
    ("printed", "user", "session"),
    [
        (
            "py2rely export star2copick --particles Refine3D/job001/run_data.star "
            '--configs "config1.json,config2.json" --sessions "24jan01,24feb15" --particle-name ribosome '
            "--export-user-id relion --export-session-id 99",
            "relion", "99",
        ),
        (
            "py2rely export star2copick -p Refine3D/job001/run_data.star -c config1.json,config2.json "
            "-s 24jan01,24feb15 -n ribosome -uid me -sid 3 --dim-x 390 --dim-y 325 --dim-z 260",
            "me", "3",
        ),
        (
            "py2rely export star2copick -p Refine3D/job001/run_data.star -c config1.json,config2.json "
            "-s 24jan01,24feb15 -x 390 -y 325 -z 260",
            "relion", "99",
        ),
    ],
)  # fmt: skip
def test_particles_go_back_to_copick(folder, printed, user, session):
    sized = "-x" in printed
    for number in (1, 2):
        # Without a tomogram the size comes from the options.
        config = copick_project(folder / f"copick{number}", {} if sized else RUNS)
        if sized:
            import copick

            for name in RUNS:
                copick.from_file(str(config)).new_run(name)
        config.rename(f"config{number}.json")
    names = [f"{session_name}_{name}" for session_name in ("24jan01", "24feb15") for name in RUNS]
    table = particles("Refine3D/job001/run_data.star", names=names)
    run(printed)
    size = np.array([390, 325, 260]) * 1.54 if sized else np.array([600, 500, 400])
    for number, session_name in ((1, "24jan01"), (2, "24feb15")):
        points, transforms = picks_in(f"config{number}.json", "TS_2", "ribosome", user, session)
        rows = table[table["rlnTomoName"] == f"{session_name}_TS_2"]
        assert np.allclose(points, rows[CENTRED] + size / 2, atol=0.01)
        angles = rows[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy()
        assert np.allclose(transforms[:, :3, :3], euler_to_matrix(angles), atol=1e-4)


@pytest.mark.parametrize(
    ("printed", "written"),
    [
        ("py2rely export class2star --parameter sta_parameters.json --class-job job001 --export-classes 1,2,3 --output "
         "input/best_classes.star", "input/best_classes.star"),
        ("py2rely export class2star -p sta_parameters.json -cj job001 --export-classes 1,2,3 --export-path b.star",
         "b.star"),
    ],
)  # fmt: skip
def test_classes_as_a_file(inputs, printed, written):
    run("py2rely prepare relion5-parameters")
    classification("Class3D/job001", (5, 3, 4, 6))
    run(printed)
    assert len(read_star(written)["particles"]) == 12
    run(printed.replace("sta_parameters.json", "none.json"), code=66)


# Single jobs


@pytest.fixture
def started(monkeypatch):
    """Commands of RELION that would have been run."""
    from py2rely_core.cli import routines as typed

    commands = []
    monkeypatch.setattr(routines, "_done", lambda job, command, check: commands.append(" ".join(command)) or job)
    monkeypatch.setattr(typed, "_print_classes", lambda job: None)
    monkeypatch.setattr(typed, "_print", lambda job, name: None)
    particles("particles.star", rlnImagePixelSize=6.16, rlnImageSize=64)
    series = [{"rlnTomoName": name, "rlnTomoTiltSeriesPixelSize": 1.54} for name in RUNS]
    write_star({"global": pd.DataFrame(series)}, Path("tomograms.star"))
    for name in ("reference.mrc", "mask.mrc", "half1.mrc"):
        write_map(name, np.ones((64, 64, 64), dtype=np.float32), 6.16)
    return commands


ROUTINES = {
    "extract --particles particles.star --binfactor 4 --tomogram tomograms.star --motion m.star --boxsize 96 "
    "--cropsize 64 --apex True -j 4 -np 1": [
        "relion_tomo_subtomo --t tomograms.star --p particles.star", "--b 96 --crop 64 --bin 4", "--mot m.star",
        "--j 4", "--no_ctf --no_comb"],
    "extract -p particles.star -bf 2 -t tomograms.star -m m.star -bs 64 -cs 48 -j 2 -np 3 -apex False": [
        "mpirun -n 3 relion_tomo_subtomo_mpi", "--b 64 --crop 48 --bin 2", "--j 2"],
    "reconstruct -p particles.star --tomograms tomograms.star -m m.star -bf 4 -bs 96 -cs 64 -sym D2 -j 4 -np 1": [
        "relion_tomo_reconstruct_particle --t tomograms.star --p particles.star", "--b 96 --crop 64 --bin 4",
        "--mot m.star", "--sym D2", "--j 4 --j_out 4"],
    "refine3d -p particles.star --tomogram tomograms.star --reference reference.mrc --mask mask.mrc -lp 30 "
    "--diameter 300 -sym O --sampling-angle '3.7 degrees' --local-sampling-angle '0.9 degrees' -rcg False -j 4 -np 3 "
    "--nr-pool 8 --use-gpu False": [
        "mpirun -n 3 relion_refine_mpi", "--ref reference.mrc", "--ini_high 30", "--particle_diameter 300", "--sym O",
        "--healpix_order 3", "--auto_local_healpix_order 5", "--firstiter_cc", "--pool 8", "--solvent_mask mask.mrc",
        "--solvent_correct_fsc", "--j 4"],
    "refine3d -p particles.star -t tomograms.star -mo m.star -r reference.mrc -ma mask.mrc -lp 30 -d 280 -ang "
    "'7.5 degrees' -lan '1.8 degrees' -npool 16 -g False -np 3": [
        "--trajectories m.star", "--healpix_order 2", "--auto_local_healpix_order 4", "--pool 16"],
    "class3d --particles particles.star -r reference.mrc -m mask.mrc --ini-high 40 -tau 2 -ni 20 -rcg True -t "
    "tomograms.star --nr-classes 4 -np 1": [
        "relion_refine --o Class3D/job001/run --K 4 --iter 20 --tau2_fudge 2", "--ini_high 40", "--skip_align"],
    "class3d --particles particles.star -r reference.mrc --align-particles True --nr-iter 10 -np 1": [
        "--K 5 --iter 10"],
    "mask-create --map reference.mrc -thr 0.2 -ext 4 -w 6 -lp 20 -j 2": [
        "relion_mask_create --i reference.mrc", "--ini_threshold 0.2 --extend_inimask 4 --width_soft_edge 6 --j 2",
        "--lowpass 20"],
    "post-process --half-map half1.mrc --mask mask.mrc -lp 12": [
        "relion_postprocess --i half1.mrc --mask mask.mrc", "--low_pass 12"],
}  # fmt: skip


@pytest.mark.parametrize("printed", ROUTINES)
def test_single_jobs(started, monkeypatch, printed):
    if printed.startswith("post-process"):
        monkeypatch.setattr(Path, "read_text", lambda path, original=Path.read_text: '{"resolution": 10}'
                            if path.name == "job.json" else original(path))  # fmt: skip
    run(f"py2rely routines {printed}")
    (command,) = started
    for part in ROUTINES[printed]:
        assert part in command
    assert ("--firstiter_cc" in command) == ("-rcg False" in printed)
    assert ("--no_ctf" in command) == ("apex True" in printed)
    assert ("--skip_align" in command) == (printed.startswith("class3d") and "align" not in printed)


def test_several_numbers_of_classes(started, monkeypatch, capsys):
    """One job for each; their table at the end."""

    def done(job, command, check):
        started.append(" ".join(command))
        shutil.rmtree(job)
        classification(job, [4] * int(command[command.index("--K") + 1]))
        return job

    monkeypatch.setattr(routines, "_done", done)
    given = "py2rely routines class3d --particles particles.star -r reference.mrc -np 1"
    run(f"{given} --nr-classes 2,8,2")
    assert [command.split("--K ")[1].split()[0] for command in started] == ["2", "4", "6", "8"]
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[-4:]]
    assert [row[:3] for row in rows] == [[f"Class3D/job00{n}", str(2 * n), "20.0"] for n in range(1, 5)]
    assert [len(row[3:]) for row in rows] == [2, 4, 6, 8]
    for wrong in ("2,8", "a", "0", "8,2,2"):
        run(f"{given} --nr-classes {wrong}", code=2)


@pytest.fixture
def scheduler(folder, monkeypatch):
    """A stand-in for sbatch that numbers jobs and notes how it was called."""
    program = folder / "programs/sbatch"
    program.parent.mkdir()
    program.write_text(f'#!/bin/bash\necho "$@" >> {folder}/asked\nwc -l < {folder}/asked\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return lambda: (folder / "asked").read_text().splitlines()


def test_a_single_job_on_a_cluster(started, scheduler, capsys):
    run("py2rely config --partition cpus --gpu-partition gpus --account lab --load 'module load relion/5.0.1'")
    run("py2rely routines refine3d -p particles.star -t tomograms.star -r reference.mrc -sym O -rcg False "
        "--submitit True -ng 2 -gc 'a100|h100' -cc 8,32 --timeout 12 --wait")  # fmt: skip
    assert not started
    assert scheduler() == ["--parsable --wait refine3d.sh"]
    text = Path("refine3d.sh").read_text()
    for line in ("--partition=gpus", "--account=lab", "--gres=gpu:2", "--constraint=a100|h100", "--cpus-per-task=8",
                 "--mem-per-cpu=32768M", "--time=0-12:00:00", "--output=refine3d_%j.out"):  # fmt: skip
        assert f"#SBATCH {line}\n" in text
    assert "module load relion/5.0.1\n" in text
    typed = shlex.split(text.splitlines()[-1])
    assert typed[0].endswith("bin/py2rely")
    assert typed[1:] == [
        "routines", "refine3d", "--particles", "particles.star", "--reference", "reference.mrc", "--tomogram",
        "tomograms.star", "--symmetry", "O", "--no-ref-correct-greyscale",
    ]  # fmt: skip
    assert subprocess.run(["bash", "-n", "refine3d.sh"], check=False).returncode == 0
    # What it starts is understood, and is the job that was meant.
    cli(*typed[1:], "-np", 3, "-g", "False")
    assert "--sym O" in started[0] and "--firstiter_cc" in started[0]
    run("py2rely routines reconstruct -p particles.star --submitit True")
    assert "--partition=cpus" in Path("reconstruct.sh").read_text()
    assert "gres" not in Path("reconstruct.sh").read_text()
    run("py2rely routines reconstruct -p particles.star -ng 2", code=66)
    run("py2rely routines reconstruct -p particles.star --submitit -cc 8", code=66)
    assert "--submitit True" in capsys.readouterr().err


def test_several_jobs_side_by_side(started, scheduler):
    run("py2rely routines class3d --particles particles.star -r reference.mrc --nr-classes 2,8,2 --submitit True")
    assert sorted(scheduler()) == [f"--parsable class3d_{number}.sh" for number in (2, 4, 6, 8)]
    for number in (2, 4, 6, 8):
        typed = shlex.split(Path(f"class3d_{number}.sh").read_text().splitlines()[-1])
        assert typed[typed.index("--nr-classes") + 1] == str(number)
        assert "--submitit" not in typed


def test_without_a_cluster(started, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    run("py2rely routines reconstruct -p particles.star --submitit True", code=69)
    assert "bash reconstruct.sh" in capsys.readouterr().err


# The site, and names


def answers(monkeypatch, *lines):
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


@pytest.mark.parametrize("printed", ["py2rely config add", "py2rely config add --python-load 'module load anaconda' "
                                     "--relion-load 'module load relion/5.0'"])  # fmt: skip
def test_what_loads_python_and_relion(monkeypatch, capsys, printed):
    answers(monkeypatch, "module load anaconda", "module load relion/5.0")
    run(printed)
    capsys.readouterr()
    for show in ("py2rely config print", "py2rely config --show-only"):
        run(show)
        assert "relion_load = 'module load anaconda\\nmodule load relion/5.0'" in capsys.readouterr().out


def test_settings_of_the_reference_are_taken_over(capsys):
    Path("env_config.json").write_text('{"python_load": "ml anaconda", "relion_load": "ml relion/5.0"}')
    run("py2rely config import env_config.json")
    run("py2rely config print")
    assert "ml anaconda" in capsys.readouterr().out


def test_config_asks(monkeypatch):
    answers(monkeypatch, "", "module load relion/5.0", "", "", "", "", "", "")
    run("py2rely config")
    assert "module load relion/5.0" in Path("home/.config/py2rely/site.config").read_text()


def test_names_of_the_microscope(capsys):
    particles("warp.star", names=["TS_7_1", "TS_11_1", "TS_12"])
    run("py2rely utils ts2position -i warp.star -o named.star")
    found = read_star("named.star")
    assert list(dict.fromkeys(found["particles"]["rlnTomoName"])) == ["Position_7", "Position_11", "Position_12"]
    assert len(found["optics"]) == 1
    particles("twice.star", names=["TS_7_1", "TS_7"])
    run("py2rely utils ts2position --input twice.star --output x.star", code=65)
    assert "Position_7" in capsys.readouterr().err
    assert not Path("x.star").exists()


@pytest.mark.parametrize("shares", [False, True])
def test_matches_of_warp_as_picks(folder, shares, capsys):
    config = copick_project(folder / "copick", {"TS_1_10.00Apx": RUNS["TS_1"]})
    config.rename("config.json")
    names = ["TS_1.tomostar"] * 3 + ([] if shares else ["TS_2.tomostar"] * 2)
    table = pd.DataFrame({"rlnMicrographName": names})
    table[PIXEL] = np.random.default_rng(0).uniform(0.1, 0.9, (len(names), 3)) * (1 if shares else [60, 50, 40])
    table[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]] = np.random.default_rng(1).uniform(0, 170, (len(names), 3))
    table["rlnAutopickFigureOfMerit"] = np.linspace(5, 9, len(names))
    write_star({"": table}, Path("matching.star"))
    printed = (
        "py2rely utils warp-tm2copick -i matching.star -c config.json -n ribosome --user-id warp --session-id 1 "
        "--voxel-size 10.0 --export-tag _10.00Apx"
    )
    run(printed)
    scale = np.array([600.0, 500, 400]) if shares else 10.0
    for name in set(names):
        rows = table[table["rlnMicrographName"] == name]
        points, transforms = picks_in("config.json", name.replace(".tomostar", "_10.00Apx"), "ribosome", "warp", "1")
        assert np.allclose(points, rows[PIXEL] * scale, atol=1e-3)
        angles = rows[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy()
        assert np.allclose(transforms[:, :3, :3], euler_to_matrix(angles), atol=1e-4)
    run(printed, code=65)
    run(f"{printed} --existing overwrite")
    run(printed.replace("ribosome", "ribosom"), code=65)
    assert "did you mean 'ribosome'" in capsys.readouterr().err
