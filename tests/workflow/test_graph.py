"""The whole graph with stubs in place of RELION: modes, binning lists, parameters, resume; and the linters."""

import json
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from formats import PIXEL, SIZE, THICKNESS, write_aretomo, write_imod, write_warp
from helpers import AS_TEXT, PLAIN, REPO, TINY, environment, make_data, pipeline, write_parameters

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.parameters.files import new_recipe, write_recipe

#: id: (mode, binnings)
SETS = {
    "template_4": ("template", "4"),
    "denovo_84": ("denovo", "8,4"),
    "known_2": ("known", "2"),
    "global_2": ("global", "2"),
    "together_4": ("together", "4"),
    "straight_41": ("straight", "4,1"),
    "known_looked_at": ("known", "2"),
    "known_8421": ("known", "8,4,2,1"),
}
FROM_TEMPLATE = ("template", "together", "straight")
#: Tasks by their names, at the first level by mode.
START = {"RECONSTRUCT ({}_start)", "POSTPROCESS ({}_start)"}
FIRST = {
    "known": START,
    "global": {"RECONSTRUCT ({}_start)"},
    "template": {"CLASS3D_ALIGN ({}_half1)", "CLASS3D_ALIGN ({}_half2)", "JOIN_HALVES ({})"},
    "together": {"CLASS3D_ALIGN ({})"},
    "straight": set(),
    "denovo": {"INITIAL_MODEL ({})"},
}
RESULT = {"RECONSTRUCT ({})", "POSTPROCESS ({})"}
#: Makes a file where it is taken for a command.
HOSTILE = "$(touch MARKER) `touch MARKER`; touch MARKER"
#: Steps on the best map, that of the last level's result.
BEST = {"SHARPEN ({})", "DIRECTIONS ({})"}
ALL_OF_IT = {"LOCAL_RESOLUTION ({})", "SUBSETS ({})", "PARTICLE_PLOT ({})"}
ALL_OF_IT |= {f"RECONSTRUCT ({{}}_of{part})" for part in (2, 4, 8)}
EVERY_LEVEL = {"EXTRACT ({})", "REFINE3D ({})", "SELECT ({})", "ORIENTATIONS ({})"} | RESULT


@pytest.mark.nextflow
@pytest.mark.relion
@pytest.mark.slow
def test_all_modes_and_lists_side_by_side(tmp_path):
    # Images that the box of bin 8 fits into; names that a shell would take for commands are names.
    data = make_data(tmp_path / f"O'Brien's {HOSTILE}", **TINY | {"image_size": 480})
    rows = ["id,parameters,reference_template,run_denovo_generation"]
    sheet = tmp_path / f"in another place {HOSTILE}/sheet.csv"
    sheet.parent.mkdir()
    template = data / f"-o'ne {HOSTILE}.mrc"
    (data / "template.mrc").rename(template)
    for name, (mode, binnings) in SETS.items():
        blocks = {"polishing": {"cycles": 0}}
        blocks |= {"initial_reference": {"template_iterations": 0}} if mode == "straight" else {}
        blocks |= {"initial_reference": {"known_search": "global"}} if mode == "global" else {}
        blocks |= {"initial_reference": {"independent_halves": False}} if mode == "together" else {}
        if name == "known_looked_at":
            blocks["map_analysis"] = {"local_resolution": "yes", "particle_plot": "yes", "directions": "no"}
        write_parameters(sheet.parent / f"{name}.parameters", data, binnings, 100, **blocks)
        given = template if mode in FROM_TEMPLATE else ""
        rows.append(f'{name},{name}.parameters,"{given}",{"true" if mode == "denovo" else ""}')
    sheet.write_text("\n".join(rows) + "\n")
    run = pipeline(tmp_path, "--sample_sheet", sheet, "-stub-run")
    assert run.code == 0, run.text
    for name, (mode, binnings) in SETS.items():
        levels = binnings.split(",")
        wanted = {task.format(f"{name}: bin{level}") for level in levels for task in EVERY_LEVEL}
        wanted |= {task.format(f"{name}: bin{level}") for level in levels[1:] for task in START}
        wanted |= {task.format(f"{name}: bin{levels[0]}") for task in FIRST[mode]} | {f"IMPORT ({name}: tilt_series)"}
        wanted |= {f"REFERENCE ({name}: template)"} if mode in FROM_TEMPLATE else set()
        steps = BEST | ({"COMPARE_TEMPLATE ({})"} if mode in FROM_TEMPLATE else set())
        steps = (steps - {"DIRECTIONS ({})"}) | ALL_OF_IT if name == "known_looked_at" else steps
        wanted |= {step.format(f"{name}: bin{levels[-1]}") for step in steps}
        assert {task for task in run.executed if f"({name}: " in task} == wanted
        assert (tmp_path / "results" / name / "Refine3D" / f"bin{levels[-1]}").is_dir()
    assert not list(tmp_path.rglob("MARKER"))
    # Inputs of the task that reads them: a change in one is seen by -resume.
    staged = {path.name for path in tmp_path.glob("work/*/*/parameters/*/*")}
    assert staged == {"sheet.csv", *(f"{name}.parameters" for name in SETS)}
    found = {one["id"]: one for one in run.results["datasets"]}
    assert {name: [level["binning"] for level in one["levels"]] for name, one in found.items()} == {
        name: [int(level) for level in binnings.split(",")] for name, (_, binnings) in SETS.items()
    }
    assert found["known_2"]["final"]["map"] == "known_2/PostProcess/bin2_result/postprocess.mrc"
    for one in found.values():
        assert all(
            (tmp_path / "results" / one["final"][key]).exists() for key in ("map", "mask", "particles", "tilt_series")
        )


@pytest.mark.nextflow
@pytest.mark.relion
@pytest.mark.long
def test_as_many_levels_as_there_are(tmp_path):
    data = make_data(tmp_path / "data", **TINY | {"image_size": 480})
    parameters = write_parameters(tmp_path / "sta.json", data, "8,7,6,5,4,3,2,1", 100, polishing={"cycles": 0})
    run = pipeline(tmp_path, "--parameter", parameters, "-stub-run")
    assert run.code == 0, run.text
    assert {f"REFINE3D (bin{level})" for level in range(1, 9)} <= run.executed


@pytest.mark.nextflow
@pytest.mark.relion
def test_other_programs_files_side_by_side(tmp_path):
    """Data sets of a sheet are for themselves: what changes in one, or one more, repeats nothing of the others."""
    write_recipe(new_recipe("t.star", "p.star", PIXEL, "C1", 50, 100, False, 1.5, "2", 2), tmp_path / "sta.json")
    for program, write in {"imod": write_imod, "warp": write_warp, "aretomo": write_aretomo}.items():
        write(tmp_path / program)
        where = np.random.default_rng(0).uniform(-0.2, 0.2, (30, 3)) * np.array([SIZE, SIZE, THICKNESS]) * PIXEL
        picks = pd.DataFrame(where, columns=["x", "y", "z"]).assign(tomogram="TS_01")
        picks.to_csv(tmp_path / f"{program}.csv", index=False)
    rows = [
        "id,parameters,imod,warp,aretomo,particles,run_denovo_generation",
        "imod,sta.json,imod,,,imod.csv,true",
        "warp,sta.json,,warp/x_tomograms.star,,warp.csv,true",
        "aretomo,sta.json,,,aretomo,aretomo.csv,true",
    ]
    (tmp_path / "sheet.csv").write_text("\n".join(rows) + "\n")
    words = ["--sample_sheet", "sheet.csv", "--voltage", 300, "--hand", -1, "--imports.units", "centred", "-stub-run"]
    run = pipeline(tmp_path, *words)
    assert run.code == 0, run.text
    for program in ("imod", "warp", "aretomo"):
        assert {f"IMPORT_DATA ({program}: imported)", f"REFINE3D ({program}: bin2)"} <= run.executed
        assert len(read_star(tmp_path / f"results/{program}/imported/particles.star")["particles"]) == 30
    picks = (tmp_path / "warp.csv").read_text().splitlines()
    (tmp_path / "warp.csv").write_text("\n".join(picks[:-1]) + "\n")
    (tmp_path / "sheet.csv").write_text("\n".join([*rows, "more,sta.json,imod,,,imod.csv,true"]) + "\n")
    again = pipeline(tmp_path, *words, "-resume")
    assert again.code == 0, again.text
    repeated = {task for task in again.executed if ": " in task}
    assert repeated >= {"IMPORT_DATA (warp: imported)", "IMPORT (warp: tilt_series)", "EXTRACT (warp: bin2)"}
    assert all("(warp: " in task or "(more: " in task for task in repeated), repeated
    assert len(read_star(tmp_path / "results/warp/imported/particles.star")["particles"]) == 29


@pytest.mark.nextflow
@pytest.mark.relion
@pytest.mark.slow
def test_numbers_of_classes_groups_and_freed_images(tmp_path):
    """Numbers of classes side by side, groups of tilt series also for trials, and images of levels that are done."""
    data = make_data(tmp_path / "data", **TINY | {"image_size": 240})
    blocks = {"class3D": {"nr_classes": [2, 3]}, "ctf_refine": {}, "bayesian_polish": {}, "polishing": {"cycles": 1}}
    parameters = write_parameters(tmp_path / "sta.json", data, "2,1", **blocks)
    arguments = ["--parameter", parameters, "--run_class3D", "--tilt_series_per_task", "1", "--keep_stacks", "false"]
    run = pipeline(tmp_path, *arguments, "-stub-run")
    assert run.code == 0, run.text
    assert {"CLASS3D (bin2_k2)", "CLASS3D (bin2_k3)", "SELECT_CLASSES (bin2)"} <= run.executed
    assert {"FREE_IMAGES (bin2)", "FREE_IMAGES (bin1)", "FREE_IMAGES (bin1_cycle1)"} <= run.executed
    for step in ("ctf", "polish", "refine"):
        assert {f"RECONSTRUCT_GROUP (bin1_cycle1_{step} {group})" for group in (1, 2)} <= run.executed
    assert {f"JUDGE_{step} (bin1_cycle1)" for step in ("CTF", "POLISH", "REFINE")} <= run.executed


@pytest.mark.nextflow
@pytest.mark.relion
@pytest.mark.slow
def test_resume_repeats_what_changed_and_nothing_else(tiny, tmp_path):
    data = shutil.copytree(tiny, tmp_path / "data")
    parameters = write_parameters(tmp_path / "sta.json", data, "4,2", **PLAIN)
    first = pipeline(tmp_path, "--parameter", parameters, "-stub-run")
    assert first.code == 0, first.text
    assert "Results in results" in first.text
    results = (tmp_path / "results/results.json").read_bytes()
    noted = (tmp_path / "results/run.json").read_bytes()
    looked = pipeline(tmp_path, "--parameter", parameters, "-preview", "-resume")
    assert looked.code == 0 and "ERROR" not in looked.text, looked.text
    assert (tmp_path / "results/results.json").read_bytes() == results
    assert (tmp_path / "results/run.json").read_bytes() == noted

    # What is typed is a number or a text, as Nextflow's version has it: the same run.
    other = pipeline(
        tmp_path, "-params-file", parameters, "-stub-run", "-resume", "--outdir", "other", env={AS_TEXT: ""}
    )
    assert other.code == 0, other.text
    assert not [task for task in other.executed if "bin" in task or "IMPORT" in task or "STACK_FILES" in task]
    assert (tmp_path / "other/results.json").is_file()

    changed = pipeline(tmp_path, "--parameter", parameters, "--levels.2.refine3D.nr_pool", "7", "-stub-run", "-resume")
    assert changed.code == 0, changed.text
    bins = {task for task in changed.executed if "bin" in task}
    assert "REFINE3D (bin2)" in bins
    assert not [task for task in bins if "bin4" in task or "EXTRACT" in task]
    assert (tmp_path / "results/results.json").read_bytes() != results
    back = pipeline(tmp_path, "--parameter", parameters, "-stub-run", "-resume")
    assert (back.code, back.executed) == (0, set()), back.text
    assert (tmp_path / "results/results.json").read_bytes() == results

    stack = data / "tilt_series/TS_01.mrcs"
    content = bytearray(stack.read_bytes())
    content[-1] ^= 1
    stack.write_bytes(content)
    touched = pipeline(tmp_path, "--parameter", parameters, "-stub-run", "-resume")
    assert touched.code == 0, touched.text
    assert {"IMPORT (tilt_series)", "EXTRACT (bin4)", "REFINE3D (bin2)"} <= touched.executed


@pytest.mark.nextflow
@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (
            ["-params-file", "misspelt.json", "--referense_template", "x", "--initial_reference", "map.mrc"],
            ("reference_template", "ini_high", "initial_reference"),
        ),
        ([], ("prepare relion5-parameters",)),
    ],
)
def test_wrong_parameters_stop_the_run(tmp_path, arguments, texts):
    (tmp_path / "misspelt.json").write_text(json.dumps({"refine3D": {"ini_hihg": 40}}))
    run = pipeline(tmp_path, *arguments)
    assert run.code != 0
    for text in texts:
        assert text in run.text
    assert "RECIPE" in run.text


@pytest.mark.nextflow
def test_what_is_no_word_stops_the_run_before_its_first_task(tmp_path):
    (tmp_path / "handed.json").write_text(json.dumps({"relion_load": "touch MARKER"}))
    refused = {
        "relion_load is in the parameter file": ["-params-file", "handed.json"],
        "not what a script can hold": [
            "--gpus", "$(touch MARKER)", "--max_lost_tilt_series", "`touch MARKER`",
            "--slurm_account", "a\ntouch MARKER",
        ],
    }  # fmt: skip
    for text, arguments in refused.items():
        run = pipeline(tmp_path, *arguments)
        assert run.code != 0
        assert text in run.text
        assert not run.tasks
    for name in ("gpus", "max_lost_tilt_series", "slurm_account"):
        assert f"--{name}" in run.text
    assert not list(tmp_path.rglob("MARKER"))


@pytest.mark.nextflow
@pytest.mark.relion
def test_all_problems_are_printed_before_anything_runs(tiny, tmp_path):
    data = shutil.copytree(tiny, tmp_path / "data")
    table = read_star(data / "tilt_series.star")["global"]
    rows = []
    for number in range(40):
        rows.append(table.iloc[0].to_dict() | {"rlnTomoName": f"gone_{number}"})
        rows[-1]["rlnTomoTiltSeriesStarFile"] = f"tilt_series/gone_{number}.star"
    write_star({"global": type(table)([*table.to_dict("records"), *rows])}, data / "tilt_series.star")
    (data / "tilt_series/TS_02.mrcs").unlink()
    run = pipeline(tmp_path, "--parameter", write_parameters(tmp_path / "sta.json", data))
    assert run.code != 0
    missing = [number for number in range(40) if f"gone_{number}.star" not in run.text]
    assert not missing, run.text
    assert "TS_02.mrcs" in run.text
    assert not [task for task in run.executed if "EXTRACT" in task or "IMPORT" in task]


@pytest.mark.nextflow
def test_nextflow_lint(tmp_path):
    files = ["main.nf", "nextflow.config", "conf", "modules", "subworkflows", "workflows"]
    done = subprocess.run(
        ["nextflow", "-log", tmp_path / "lint.log", "lint", *[REPO / name for name in files]],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "files had no errors" in done.stdout


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]])
def test_ruff(arguments):
    done = subprocess.run(["ruff", *arguments, REPO], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
