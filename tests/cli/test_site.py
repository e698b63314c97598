"""The site's settings and the job script of the head process."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from helpers import REPO, cli

from py2rely_core.launching.site import SETTINGS, read_settings
from py2rely_core.parameters.files import new_recipe, write_recipe
from py2rely_core.parameters.request import load_datasets
from py2rely_core.parameters.table import CONFIGURATION
from py2rely_core.planning.binds import stack_binds


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PY2RELY_SITE_CONFIG", raising=False)
    (tmp_path / "relion.sif").touch()
    recipe = new_recipe(tilt_series="ts.star", particles="p.star", pixel_size=1.5, symmetry="C1", low_pass=50,
                        diameter=290, denovo=False, box_scaling=2.0, binnings="4,2", threads=8, classes=1,
                        initial_models=1, max_dose=-1, processes=None)  # fmt: skip
    write_recipe(recipe, tmp_path / "sta_parameters.json")
    return tmp_path / "home"


def test_every_setting_is_known_everywhere():
    """One list in three languages: table.py, nextflow.config and what the workflow reads, nextflow_schema.json."""
    config = (REPO / "nextflow.config").read_text()
    schema = (REPO / "nextflow_schema.json").read_text()
    for name in CONFIGURATION:
        assert f"    {name} = " in config
        assert f'"{name}"' in schema
    example = (REPO / "conf/site.config.example").read_text()
    shown = {line.split("=")[0].strip(" /") for line in example.splitlines() if " = " in line}
    assert shown == {*SETTINGS, "workDir"}


def test_settings_with_every_flag(home, capsys):
    flags = {
        "--image": "relion.sif", "--load": "module load 'relion'\nmodule load cuda", "--partition": "cpu",
        "--gpu-partition": "gpu", "--account": "lab", "--qos": "long", "--constraint": "avx2",
        "--gpu-constraint": "a100,h100", "--gpu-request": "gpus", "--gpu-type": "a100", "--num-gpus": 4, "--cpus": 32,
        "--memory-per-cpu": 3.5, "--timeout": 24, "--options": "--exclude=node7", "--scratch": "/scratch",
    }  # fmt: skip
    cli("config", *[word for pair in flags.items() for word in pair])
    text = (home / ".config/py2rely/site.config").read_text()
    found = read_settings(text)
    assert found == {
        "image": str(home.parent / "relion.sif"), "relion_load": "module load 'relion'\nmodule load cuda",
        "slurm_partition": "cpu", "slurm_gpu_partition": "gpu", "slurm_account": "lab", "slurm_qos": "long",
        "slurm_constraint": "avx2", "gpu_constraint": "a100,h100", "gpu_request": "gpus", "gpu_type": "a100",
        "num_gpus": 4, "cpus": 32, "slurm_memory_per_cpu": 3.5, "timeout": 24, "slurm_options": "--exclude=node7",
    }  # fmt: skip
    assert "workDir = \"/scratch/${System.getenv('USER')" in text
    cli("config", "print")
    assert "slurm_qos = 'long'" in capsys.readouterr().out


def test_other_lines_of_the_file_stay(home):
    own = "// ours\nparams {\n    slurm_qos = 'long' // ask Ada\n    cpus = 8\n}\nprocess { cache = 'deep' }\n"
    path = home.parent / "own.config"
    path.write_text(own)
    cli("config", "-o", path, "--cpus", 16, "--partition", "cpu")
    assert path.read_text() == own.replace("cpus = 8\n", "cpus = 16\n    slurm_partition = 'cpu'\n")


def test_questions(home):
    answers = f"{home.parent}/relion.sif\n\ncpu\ngpu\n\n\n2\n\n"
    env = os.environ | {"HOME": str(home)}
    subprocess.run([REPO / "bin/py2rely", "config"], input=answers, text=True, check=True, capture_output=True, env=env)
    found = read_settings((home / ".config/py2rely/site.config").read_text())
    assert found == {"image": f"{home.parent}/relion.sif", "slurm_partition": "cpu", "slurm_gpu_partition": "gpu",
                     "num_gpus": 2}  # fmt: skip


def test_import(home, capsys):
    old = {"python_load": "ml anaconda\nconda activate /x", "relion_load": "ml relion/5.0"}
    (home.parent / "env_config.json").write_text(json.dumps(old))
    cli("config", "import", "env_config.json")
    path = home / ".config/py2rely/site.config"
    assert read_settings(path.read_text()) == {"relion_load": "ml anaconda\nconda activate /x\nml relion/5.0"}
    (home.parent / "other.config").write_text("params {\n    slurm_account = 'lab'\n}\n")
    cli("config", "import", "other.config")
    assert set(read_settings(path.read_text())) == {"relion_load", "slurm_account"}
    cli("config", "import", "none.json", code=65)
    (home.parent / "empty.config").write_text("process { }\n")
    cli("config", "import", "empty.config", code=65)


@pytest.mark.parametrize("arguments", [["--image", "none.sif"], ["--gpu-request", "tres"]])
def test_wrong_settings_write_nothing(home, arguments):
    cli("config", *arguments, code=66)
    assert not (home / ".config/py2rely/site.config").exists()


def script(*arguments: object) -> str:
    cli("prepare", "relion5-pipeline", *arguments)
    subprocess.run(["bash", "-n", "pipeline.sh"], check=True)
    return Path("pipeline.sh").read_text()


@pytest.mark.parametrize("long", [True, False])
def test_job_script_with_every_flag(home, long):
    (home.parent / "ref map.mrc").touch()
    cli("config", "--image", "relion.sif", "--partition", "cpu", "--qos", "long")
    flags = {
        ("--parameter", "-p"): "sta_parameters.json", ("--reference-template", "-rt"): "ref map.mrc",
        ("--run-denovo-generation", "-dg"): "False", ("--run-class3D", "-rc3d"): "True",
        ("--class-selection", "-cs"): "manual", ("--extract3D", "-e3d"): "True", ("--manual-masking", "-mm"): "True",
        ("--submitit", "--submitit"): "True", ("--num-gpus", "-ng"): 3, ("--gpu-constraint", "-gc"): "a100,h100",
        ("--cpu-constraint", "-cc"): "8,12", ("--timeout", "-t"): 36, ("--num-days", "-ndays"): 3.5,
        ("--new-pipeline", "--new-pipeline"): "False", ("--output", "-o"): "pipeline.sh",
    }  # fmt: skip
    text = script(*[word for names, value in flags.items() for word in (names[0 if long else 1], value)])
    for words in (
        "#SBATCH --time=3-12:00:00", "#SBATCH --partition=cpu", "#SBATCH --qos=long",
        "-profile slurm,apptainer -resume ", "--resolutions.binning_list '[4]'",
        "--parameter sta_parameters.json", "--reference_template 'ref map.mrc'", "--run_class3D true",
        "--class_selection manual", "--levels.4.pseudo_subtomo.do_output_2dstacks no",
        "--num_gpus 3", "--gpu_constraint a100,h100", "--cpus 8", "--slurm_memory_per_cpu 12", "--timeout 36",
    ):  # fmt: skip
        assert words in text, words
    assert "denovo" not in text


def test_job_script_defaults_and_bare_flags(home):
    text = script("-dg")
    assert "-profile slurm -resume " in text
    assert "--run_denovo_generation true" in text
    assert "--num_gpus 4" in text
    for absent in ("class", "levels", "binning_list", "timeout", "cpus ", "constraint"):
        assert absent not in text.replace("--cpus-per-task", ""), absent
    assert "\nrm " not in text
    state = home.parent / ".nextflow"
    state.mkdir()
    text = script("--new-pipeline", "--submitit", "False")
    assert '-profile local "${resume[@]}"' in text
    assert "SLURM_RESTART_COUNT" in text
    assert state.is_dir()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["-p", "none.json"], 66), (["-rt", "none.mrc"], 65), (["-cc", "4"], 2), (["-cs", "best"], 2), (["-ng", -1], 2),
        (["-ndays", 0], 66), (["--submitit", "False", "-gc", "a100"], 66), (["-rc3d", "maybe"], 2),
    ],
)  # fmt: skip
def test_impossible_job_scripts_are_not_written(home, arguments, code):
    cli("prepare", "relion5-pipeline", *arguments, code=code)
    assert not (home.parent / "pipeline.sh").exists()


def test_gpus_of_a_run(home):
    base = {"parameter": "sta_parameters.json"}
    for name in ("ts.star", "p.star"):
        (home.parent / name).touch()

    def gpus(**given):
        request = {"launch_dir": str(home.parent), "params": base | given}
        return load_datasets(request)["machine"]["gpus"]

    assert gpus(num_gpus=3) == "0,1,2"
    assert gpus(num_gpus=0) is None
    assert gpus(gpus=0) == "0"
    assert gpus(gpus="2,3") == "2,3"
    assert gpus(num_gpus=1, gpus="5") == "0"
    assert gpus() is None


def test_stacks_that_a_container_must_see(tmp_path):
    """The real place of each, by its first two levels; nothing twice, nothing within another, never the root."""
    target = tmp_path / "archive/session/TS_1"
    target.mkdir(parents=True)
    (target / "TS_1.mrcs").touch()
    link = tmp_path / "TS_1.mrcs"
    link.symlink_to(target / "TS_1.mrcs")
    (tmp_path / "disk").symlink_to(tmp_path / "archive")
    first, second = target.parts[1:3]
    assert stack_binds([link]) == f"-B '/{first}/{second}'"
    assert stack_binds([tmp_path / "disk/session/TS_1/TS_1.mrcs"]) == f"-B '/{first}/{second}'"
    (tmp_path / "tmp").symlink_to("/none/disk/tmp")
    assert stack_binds([tmp_path / "tmp/mask.mrc"]) == "-B '/none/disk'"
    assert stack_binds([Path("/x.mrcs")]) == ""
    several = [Path("/data/s1/TS_1/x.mrcs"), Path("/data/s1/TS_2/x.mrcs"), Path("/raw/x.mrcs"), Path("/raw/s2/y.mrcs")]
    assert stack_binds(several) == "-B '/data/s1' -B '/raw'"
    assert stack_binds([*several, Path("/x.mrcs"), Path("/data/x.mrcs")]) == "-B '/data' -B '/raw'"
    assert stack_binds([]) == ""
