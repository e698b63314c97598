"""Every command that the reference page prints, as it prints it, with data of one's own."""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers import REPO, cli, copick_project, environment, status_of

from py2rely_core.cli.main import COMMANDS, build, with_values
from py2rely_core.data.tables import read_star, write_star
from py2rely_core.maps.io import read_map, write_map
from py2rely_core.parameters.files import load_recipe
from py2rely_core.parameters.request import load_datasets
from py2rely_core.parameters.table import CONFIGURATION
from py2rely_core.simulation.structures import density, make_structure

LAUNCHER = str(REPO / "bin/py2rely")
PARAMETERS = """py2rely prepare relion5-parameters \
-p input/24jan01_virus_like_particle.star \
-ts input/tiltSeries/aligned_tilt_series.star \
-ps 1.54 -lp 50 -pd 290 -bs 1.75 \
-s C1 -bl 4,2,1"""
PARAMETERS_I2 = """py2rely prepare relion5-parameters \
-ts input/tiltSeries/aligned_tilt_series.star \
-p input/24jan01_virus_like_particle.star \
-ps 1.54 -s I2 \
-pd 290 -bl 4,2,1"""
TEMPLATE = """py2rely prepare template \
-i ribosome_3883.map -o reference.mrc \
-ivs 0.83 -ovs 8.3 -lp 50 -b 64"""
TEMPLATE_I2 = """py2rely prepare template \
-i VLP_emd_41917.map -o reference.mrc \
-ivs 0.83 -ovs 6.16 -lp 50 -b 84"""
SELECT = """py2rely routines select \
--parameter sta_parameters.json \
--class-job job001 \
--keep-classes 1,2,3 \
--best-class 1"""
EXPORT = """py2rely export star2copick \
--particles Refine3D/job024/run_data.star \
--configs config.json \
--sessions 24mar08a \
--particle-name virus-like-particle \
--export-user-id relion \
--export-session-id 1"""
#: Printed command, and what it asks of the workflow.
PIPELINES = {
    "py2rely pipelines sta --parameter sta_parameters.json --reference-template reference.mrc": {
        "reference_template": "reference.mrc"
    },
    "py2rely pipelines sta --parameter sta_parameters.json --run-denovo-generation True": {
        "run_denovo_generation": "true"
    },
    "py2rely pipelines sta --parameter sta_parameters.json": {},
    "py2rely pipelines sta --parameter sta_parameters.json --reference-template reference.mrc --run-class3D True "
    "--class-selection auto": {
        "reference_template": "reference.mrc",
        "run_class3D": "true",
        "class_selection": "auto",
    },
    "py2rely pipelines sta --parameter sta_parameters.json --reference-template initial.mrc": {
        "reference_template": "initial.mrc"
    },
    "py2rely pipelines sta --submitit True": {
        "num_gpus": "4",
        "cpu_constraint": "4,16",
        "timeout": "48",
    },
}


def words(printed):
    return shlex.split(printed)[1:]


@pytest.fixture
def project(tiny, tmp_path, monkeypatch):
    """A directory as the page has it: tables under input/, to start from."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny / "tilt_series", "input/tiltSeries/tilt_series")
    shutil.copy(tiny / "tilt_series.star", "input/tiltSeries/aligned_tilt_series.star")
    shutil.copy(tiny / "particles.star", "input/24jan01_virus_like_particle.star")
    return tmp_path


@pytest.fixture
def nextflow_arguments(tmp_path, monkeypatch):
    """What Nextflow is started with: it is replaced by a program that writes its arguments, and exits with 3."""
    program = tmp_path / "programs/nextflow"
    program.parent.mkdir()
    program.write_text(f"#!/bin/bash\nprintf '%s\\n' \"$@\" > {tmp_path}/arguments\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    def run(printed):
        done = subprocess.run([LAUNCHER, *words(printed)], capture_output=True, text=True, check=False)
        assert done.returncode == 3, done.stderr
        arguments = (tmp_path / "arguments").read_text().splitlines()
        assert shlex.join(["nextflow", *arguments]) in done.stdout
        return arguments

    return run


def parameters_in(arguments):
    options = [n for n, word in enumerate(arguments) if word.startswith("--")]
    return {arguments[n][2:]: arguments[n + 1] for n in options}


def test_the_parameter_file(project, capsys):
    cli(*words(PARAMETERS))
    text = capsys.readouterr().out
    for line in ("Box Size: 84 @ bin=4", "Box Size: 168 @ bin=2", "Box Size: 352 @ bin=1"):
        assert f"[Initialize] {line}" in text
    cli(*words(PARAMETERS_I2))
    assert load_recipe(project / "sta_parameters.json").symmetry == "I2"


@pytest.mark.relion
def test_the_template_and_its_axes(project):
    write_map("ribosome_3883.map", density(make_structure(60.0, "C1", 1), 100, 0.83), 0.83)
    shutil.copy("ribosome_3883.map", "VLP_emd_41917.map")
    for printed, box, pixel_size in ((TEMPLATE, 64, 8.3), (TEMPLATE_I2, 84, 6.16)):
        cli(*words(printed))
        result = read_map("reference.mrc")
        assert (result.data.shape, result.pixel_size) == ((box,) * 3, pytest.approx(pixel_size))
    # RELION's own program as printed, and through py2rely; on a small map, as it takes its time.
    write_map("reference.mrc", density(make_structure(100.0, "C1", 1), 24, 8.3), 8.3)
    before = read_map("reference.mrc").data
    for start in ([], [LAUNCHER, "relion"]):
        command = [*start, "relion_align_symmetry", "--i", "reference.mrc", "--o", "reference.mrc", "--sym", "D2"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert not np.allclose(read_map("reference.mrc").data, before)


@pytest.mark.parametrize("printed", PIPELINES)
def test_pipelines_start_nextflow(project, nextflow_arguments, printed):
    """The command is shown, its exit code passed on, and the workflow takes every parameter that it is given."""
    cli(*words(PARAMETERS), "-nc", 2)
    arguments = nextflow_arguments(printed)
    profile = "slurm" if "--submitit" in printed else "local"
    assert arguments[:5] == ["run", str(REPO), "-profile", profile, "-resume"]
    given = parameters_in(arguments)
    assert given == {"parameter": "sta_parameters.json"} | PIPELINES[printed]
    request = {name: value for name, value in given.items() if name not in CONFIGURATION}
    found = load_datasets({"launch_dir": str(project), "params": request})
    assert found["datasets"][0]["tilt_series"].endswith("input/tiltSeries/aligned_tilt_series.star")


def test_every_flag_of_the_pipelines(project, nextflow_arguments):
    cli(*words(PARAMETERS))
    cluster = "-ng 2 -gc a100 -gc h100 -cc 8,32 -t 12"
    expected = {"parameter": "sta_parameters.json", "num_gpus": "2", "gpu_constraint": "a100,h100"}
    expected |= {"cpu_constraint": "8,32", "timeout": "12"}
    given = nextflow_arguments(
        "py2rely pipelines sta -p sta_parameters.json -rt r.mrc -dg False -rc3d True -cs manual -e3d True -mm True "
        f"-s {cluster}"
    )
    assert parameters_in(given) == expected | {
        "reference_template": "r.mrc", "run_class3D": "true", "class_selection": "manual",
        "levels.4.pseudo_subtomo.do_output_2dstacks": "no", "resolutions.binning_list": "[4]",
    }  # fmt: skip
    given = nextflow_arguments(
        "py2rely pipelines bin1 -p sta_parameters.json -tomo t.star -pts p.star -m m.mrc -lp 12 -rr True "
        f"-s True {cluster}"
    )
    assert "-resume" not in given
    assert parameters_in(given) == expected | {
        "start": "bin1", "tomograms": "t.star", "particles": "p.star", "mask": "m.mrc", "low_pass": "12",
    }  # fmt: skip
    given = nextflow_arguments(
        "py2rely pipelines polish -p sta_parameters.json -pts p.star -m m.mrc -tomo t.star -mo mo.star -niter 3 "
        f"-s {cluster}"
    )
    assert parameters_in(given) == expected | {
        "start": "polish", "tomograms": "t.star", "particles": "p.star", "mask": "m.mrc", "motion": "mo.star",
        "polishing.cycles": "3",
    }  # fmt: skip
    given = nextflow_arguments("py2rely pipelines sta --gpus 0,1 --cpus 6 --outdir out -- -stub-run --x y")
    own = ["--parameter", "sta_parameters.json", "--outdir", "out", "--gpus", "0,1", "--cpus", "6"]
    assert given[5:] == [*own, "-stub-run", "--x", "y"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["-p", "none.json"], "parameter file is missing"),
        (["-cs", "manual"], "--run-class3D True"),
        (["-t", "3"], "--submitit True"),
        (["-s", "-cc", "4"], "CPUs,GB"),
    ],
)
def test_what_cannot_be_is_said_at_once(project, capsys, arguments, text):
    cli(*words(PARAMETERS))
    cli("pipelines", "sta", *arguments, code=66)
    assert text in capsys.readouterr().err


@pytest.mark.nextflow
def test_pipelines_with_nextflow(project):
    """As printed, with Nextflow itself; RELION's work is left out."""
    cli("prepare", "relion5-parameters", "-ts", "input/tiltSeries/aligned_tilt_series.star", "-p",
        "input/24jan01_virus_like_particle.star", "-ps", 5, "-pd", 150, "-bs", 1.5, "-bl", "2")  # fmt: skip
    write_map("reference.mrc", density(make_structure(130.0, "C1", 1), 24, 10.0), 10.0)
    printed = next(iter(PIPELINES))
    done = subprocess.run(
        [LAUNCHER, *words(printed), "--", "-stub-run"], capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("nextflow run ")
    run, steps = status_of(project)
    assert run["state"] == "finished"
    assert {step["state"] for step in steps.values()} == {"done"}
    processes = read_star("results/default_pipeline.star")["pipeline_processes"]
    assert "Refine3D/bin2/" in set(processes["rlnPipeLineProcessAlias"])
    # A run that fails says so with its exit code, and the command stays usable.
    (project / "reference.mrc").unlink()
    again = subprocess.run([LAUNCHER, *words(printed)], capture_output=True, text=True, check=False, env=environment())
    assert again.returncode == 1
    run, _ = status_of(project)
    assert run["state"] == "failed"


MODEL = """
data_model_classes
loop_
_rlnReferenceImage #1
_rlnClassDistribution #2
_rlnEstimatedResolution #3
"""


def classification(job, classes):
    """A Class3D job's last iteration with so many particles in each class."""
    job.mkdir(parents=True)
    numbers = [n for n, count in enumerate(classes, start=1) for _ in range(count)]
    import pandas as pd

    particles = pd.DataFrame({"rlnTomoName": "TS_01", "rlnClassNumber": numbers, "rlnOpticsGroup": 1})
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["one"]})
    write_star({"optics": optics, "particles": particles}, job / "run_it015_data.star")
    rows = [f"x.mrc {count / len(numbers)} {20 + n}" for n, count in enumerate(classes)]
    (job / "run_it015_model.star").write_text(MODEL + "\n".join(rows) + "\n")


def test_select_as_printed(project, capsys):
    classification(project / "Class3D/job001", [5, 3, 4, 8])
    cli(*words(SELECT))
    text = capsys.readouterr().out
    assert "Kept: class 1, 2, 3" in text
    blocks = read_star("Select/job002/particles.star")
    assert blocks["particles"]["rlnClassNumber"].tolist() == [1] * 5 + [2] * 3 + [3] * 4
    assert "optics" in blocks
    noted = json.loads((project / "Select/job002/job.json").read_text())
    assert (noted["classes_kept"], noted["best_class"], noted["particles_in"], noted["particles_out"]) == (
        [1, 2, 3],
        1,
        20,
        12,
    )
    assert [one["kept"] for one in noted["classes"]] == [True, True, True, False]


def test_select_with_every_flag(project, capsys):
    classification(project / "results/Class3D/bin4", [5, 3, 4])
    for name in ("bin4", "results/Class3D/bin4", str(project / "results/Class3D/bin4")):
        cli("routines", "select", "-p", "none.json", "-cj", name, "-kc", "1,3", "-bc", "3", "-o", "some/chosen.star")
        assert len(read_star("some/chosen.star")["particles"]) == 9
        shutil.rmtree("some")
    for wrong in (["-kc", "1,4"], ["-kc", "a"], ["-kc", "1", "-bc", "2"]):
        cli("routines", "select", "-cj", "bin4", *wrong, code=66)
    cli("routines", "select", "-cj", "bin9", code=65)
    assert not (project / "Select").exists()
    assert "results/Class3D/bin4" in capsys.readouterr().err


def test_picks_go_back_to_copick(project):
    import copick

    blocks = read_star("input/24jan01_virus_like_particle.star")
    blocks["particles"] = blocks["particles"].assign(
        rlnTomoName="24mar08a_" + blocks["particles"]["rlnTomoName"].astype(str)
    )
    Path("Refine3D/job024").mkdir(parents=True)
    write_star(blocks, Path("Refine3D/job024/run_data.star"))
    runs = {name: ((80, 80, 40), 10.0) for name in ("TS_01", "TS_02")}
    copick_project(project / "copick", runs, "virus-like-particle").rename("config.json")
    cli(*words(EXPORT))
    root = copick.from_file("config.json")
    found = [root.get_run(run).get_picks("virus-like-particle", "relion", "1") for run in runs]
    assert sum(len(picks.points) for (picks,) in found) == len(blocks["particles"])


def test_flags_stand_alone_or_take_a_value():
    import typer

    command = typer.main.get_command(build("pipelines"))

    def given(text):
        return with_values(text.split(), command)

    assert given("pipelines sta -s True -dg False -rc3d") == ["pipelines", "sta", "-s", "-rc3d"]
    assert given("pipelines sta --submitit=True --run-class3D=false") == ["pipelines", "sta", "--submitit"]
    assert given("pipelines sta -s -p x.json -- --x True") == [
        "pipelines",
        "sta",
        "-s",
        "-p",
        "x.json",
        "--",
        "--x",
        "True",
    ]
    command = typer.main.get_command(build("routines"))
    assert given("routines refine3d -rcg False -g True") == ["routines", "refine3d", "--no-ref-correct-greyscale", "-g"]


#: Options that the reference system has, by command.
OPTIONS = {
    "pipelines sta": (
        "--parameter -p --reference-template -rt --run-denovo-generation -dg --run-class3D -rc3d "
        "--class-selection -cs --extract3D -e3d --manual-masking -mm --submitit -s --num-gpus -ng --gpu-constraint "
        "-gc --cpu-constraint -cc --timeout -t"
    ),
    "pipelines bin1": (
        "--parameter -p --tomograms -tomo --particles -pts --mask -m --low-pass -lp --rerun -rr --submitit -s"
    ),
    "pipelines polish": (
        "--parameter -p --particles -pts --mask -m --tomograms -tomo --motion -mo --num-iterations -niter"
    ),
    "routines extract": (
        "--parameter -param --particles -p --binfactor -bf --tomogram -t --motion -m --boxsize -bs --cropsize "
        "-cs -apex -j -np"
    ),
    "routines reconstruct": "-param -p --tomograms -t --motion -m -bf -bs -cs -sym -j -np",
    "routines refine3d": (
        "-param -p --tomogram -t --motion -mo --reference -r --mask -ma -lp --diameter -d -sym "
        "--sampling-angle -ang --local-sampling-angle -lan -rcg --continue-iter -j -np -npool --use-gpu -g"
    ),
    "routines class3d": (
        "--parameter --particles --reference -r --mask -m --ini-high -tau --nr-iter -ni -rcg --tomogram -t "
        "--align-particles -align --nr-classes"
    ),
    "routines mask-create": "--map -m -thr -ext -w -lp -j",
    "routines post-process": "--half-map -hm --mask -m -lp",
    "routines select": (
        "--parameter -p --class-job -cj --keep-classes -kc --best-class -bc --run-refinement -rr --mask-path -mp -c -o "
        "--particles --classes"
    ),
    "prepare relion5-parameters": "-o -ts -p -ps -s -lp -pd -dg -bs -bl -nj -np",
    "prepare template": "-i -o -ivs -ovs -c -lp -b --invert -m --log",
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_of_the_reference_is_there(name):
    import typer

    group, command = name.split()
    found = typer.main.get_command(build(group)).commands[group].commands[command]
    known = {option for parameter in found.params for option in parameter.opts}
    assert set(OPTIONS[name].split()) <= known


def test_help_is_grouped_and_quick():
    """Processor time, as others may be using the machine; wall time of an idle one is no more."""
    import resource

    for arguments in (["--help"], ["pipelines", "sta", "--help"], ["routines", "--help"], ["status", "--help"]):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([LAUNCHER, *arguments], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = sum(getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime"))
        assert used < 1.0, (arguments, used)
        if "sta" in arguments:
            assert all(
                panel in done.stdout for panel in ("First reference", "SLURM cluster", "This machine", "The run")
            )


def test_help_imports_only_what_it_shows():
    """What keeps it quick: no numpy, pandas or pydantic models of ours are loaded to show a help."""
    code = (
        "import sys\nfrom py2rely_core.cli.main import main\nsys.argv = ['py2rely', *sys.argv[1:]]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(*{name.split('.')[0] for name in sys.modules}, *[name for name in sys.modules if 'recipe' in name])\n"
    )
    import sys

    for group in COMMANDS:
        done = subprocess.run(
            [sys.executable, "-c", code, group, "--help"], capture_output=True, text=True, check=True,
            env=os.environ | {"PYTHONPATH": str(REPO)},
        )  # fmt: skip
        loaded = set(done.stdout.splitlines()[-1].split())
        slow = {"numpy", "pandas", "scipy", "starfile", "mrcfile", "matplotlib", "py2rely_core.parameters.recipe"}
        assert not loaded & slow, group
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(REPO)},
    )  # fmt: skip
    assert "rich" not in done.stdout.splitlines()[-1].split()


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("py2rely pipel", "pipelines"),
        ("py2rely pipelines s", "sta"),
        ("py2rely pipelines sta --run-c", "--run-class3D"),
    ],
)
def test_the_shell_completes(typed, expected):
    shell = os.environ | {
        "_PY2RELY_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)
    }  # fmt: skip
    done = subprocess.run([LAUNCHER], env=shell, capture_output=True, text=True, check=False)
    assert expected in done.stdout.split()


def test_completion_can_be_shown():
    # Within a shell, as which one it is is found among the parent processes.
    words = ["bash", "-c", '"$0" --show-completion bash; true', LAUNCHER]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "_PY2RELY_COMPLETE" in done.stdout, done.stderr


def test_relion_programs(tmp_path, monkeypatch, capfd):
    program = tmp_path / "relion_try"
    program.write_text('#!/bin/bash\necho "$@"\nexit 7\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("relion_try", "try"):
        done = subprocess.run(
            [LAUNCHER, "relion", name, "--help", "-h", "a b"], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (7, "--help -h a b\n")
    cli("relion", "relion_trie", code=69)
    assert "did you mean 'relion_try'" in capfd.readouterr().err
    cli("relion")
    assert "relion_try" in capfd.readouterr().out


def test_relion_programs_of_an_image(tmp_path, monkeypatch):
    """The image's program is called, with the present directory bound; Apptainer's own work is not tested here."""
    from py2rely_core.relion.programs import IMAGE_VARIABLE, program_command

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(IMAGE_VARIABLE, "none.sif")
    cli("relion", "relion_refine", code=69)
    (tmp_path / "none.sif").touch()
    command = [word for word in program_command("refine") if word != "--nv"]
    place = str(tmp_path)
    assert command == ["apptainer", "exec", "--bind", place, "--pwd", place, "none.sif", "relion_refine"]
