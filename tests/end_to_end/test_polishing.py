"""CTF refinement and polishing with real RELION, from results that are given; the truth is the judge."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import REPO, TINY, cli, make_data, pipeline

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.maps.fsc import fsc
from py2rely_core.maps.io import read_map, write_map
from py2rely_core.maps.masks import spherical_mask
from py2rely_core.relion.run import commands
from py2rely_core.simulation.truth import compare_map

pytestmark = [pytest.mark.relion, pytest.mark.nextflow, pytest.mark.slow]


def refined(path, **settings):
    """A simulated data set whose particles have half sets, as after a refinement, and its truth."""
    make_data(path, **settings)
    blocks = read_star(path / "particles.star")
    blocks["particles"]["rlnRandomSubset"] = np.arange(len(blocks["particles"])) % 2 + 1
    write_star(blocks, path / "particles.star")
    return path


def write_recipe(path, data, pixel_size, **blocks):
    cli(
        "prepare", "relion5-parameters", "-o", path, "-ts", data / "tilt_series.star", "-p", data / "particles.star",
        "-ps", pixel_size, "-s", "O", "-lp", 40, "-pd", 150, "-bs", 1.5, "-bl", "1",
    )  # fmt: skip
    recipe = json.loads(path.read_text())
    recipe["refine3D"] |= {"sampling": "1.8 degrees", "auto_local_sampling": "1.8 degrees", "offset_range": 2,
                           "auto_faster": True}  # fmt: skip
    for name, fields in blocks.items():
        recipe[name] = None if fields is None else recipe.get(name, {}) | fields
    path.write_text(json.dumps(recipe))
    return path


def defocus_errors(series, data):
    """Mean error of each tilt series' defocus, Angstrom, in its tilts up to 10 degrees.

    They have the most signal; with so few particles the astigmatism of higher tilts is not determined.
    """
    errors = {}
    for name, file in series.items():
        found = next(iter(read_star(file).values()))
        truth = pd.read_csv(data / f"truth/{name}_defocus.csv")
        low = truth["rlnTomoYTilt"].abs() < 10.1
        mean = found[["rlnDefocusU", "rlnDefocusV"]].mean(axis=1)
        errors[name] = float((mean - truth["rlnDefocusU"])[low].abs().mean())
    return errors


def fsc_to_truth(run, data, name):
    """Mean FSC to the truth from a third of Nyquist on."""
    curve = compare_map(
        run.directory / f"results/Reconstruct/{name}/merged.mrc", data / "truth/structure.mrc", 130.0
    ).fsc
    return float(curve[len(curve) // 3 : -1].mean())


def _again_as_one_job(job):
    """The command of a job that was worked on in groups without them, into ``again/``."""
    *_, last = commands(job)
    words = [word for word in last["command"] if word != "--only_do_unfinished"]
    assert len(words) == len(last["command"]) - 1
    words[words.index("--o") + 1] = "again/"
    subprocess.run(words, check=True, capture_output=True)


def _is_the_map_of_one_job(job):
    """The maps by which a step was judged, whose sums were made in groups, against those of one job."""
    _again_as_one_job(job)
    for name in ("half1.mrc", "half2.mrc", "merged.mrc"):
        found, expected = (read_map(folder / name).data for folder in (job, Path("again")))
        assert np.abs(found - expected).max() < 1e-4 * expected.std(), name
    shutil.rmtree("again")


def _are_the_tables_of_one_job(job):
    """The tables of a job that was worked on in groups, against those of its command without them."""
    _again_as_one_job(job)
    tables = sorted(path.relative_to("again") for path in Path("again").rglob("*.star"))
    assert len(tables) >= 6
    for table in tables:
        assert ("again" / table).read_text().replace("again/", f"{job}/") == (job / table).read_text(), table
    shutil.rmtree("again")


def test_wrong_defocus_and_motion_are_corrected(tmp_path, monkeypatch):
    """With the tilt series in groups, which must not make a difference."""
    data = refined(tmp_path / "data", pixel_size=2.5, image_size=320, particles=20, tilt_series=2, noise=1.0,
                   tilt_step=10, defocus_error=2500, motion=4, seed=0)  # fmt: skip
    parameters = write_recipe(tmp_path / "sta.json", data, 2.5, polishing={"cycles": 1, "refine": False})
    run = pipeline(
        tmp_path, "--parameter", parameters, "--start", "polish", "--tilt_series_per_task", 1, "--particle_plot"
    )
    assert run.code == 0, run.text
    assert sum("CTF_REFINE_GROUP" in row["name"] or "POLISH_GROUP" in row["name"] for row in run.tasks) == 4
    (dataset,) = run.results["datasets"]
    steps = {step["step"]: step for step in dataset["polishing"]["cycles"]}
    assert list(steps) == ["ctf_refine", "polish"]
    assert all(step["accepted"] for step in steps.values())
    assert dataset["polishing"]["best"] == steps["polish"]["name"]
    assert dataset["levels"][0]["particles_out"] == 40
    final = dataset["final"]
    assert "bin1_cycle1_polish" in final["map"]
    assert "Polish/bin1_cycle1" in final["tilt_series"]
    _the_best_map_is_looked_at(run, dataset)
    monkeypatch.chdir(tmp_path / "results")
    before = defocus_errors({name: data / f"tilt_series/{name}.star" for name in ("TS_01", "TS_02")}, data)
    refined_series = read_star("CtfRefine/bin1_cycle1/tomograms.star")["global"]
    files = dict(zip(refined_series["rlnTomoName"], refined_series["rlnTomoTiltSeriesStarFile"], strict=True))
    after = defocus_errors(files, data)
    qualities = [fsc_to_truth(run, data, f"bin1_{name}") for name in ("result", "cycle1_ctf", "cycle1_polish")]
    print("defocus", before, after, "FSC to the truth", qualities)
    for name in before:
        assert after[name] < 0.5 * before[name]
    assert max(before.values()) > 500.0
    assert qualities[0] < qualities[1] < qualities[2]
    assert qualities[2] > qualities[0] + 0.1
    motion = json.loads(Path("Polish/bin1_cycle1/job.json").read_text())["motion"]
    assert 0.02 < motion["rms"] < 10
    for job in ("CtfRefine/bin1_cycle1", "Polish/bin1_cycle1"):
        _are_the_tables_of_one_job(Path(job))
    _is_the_map_of_one_job(Path("Reconstruct/bin1_cycle1_polish"))


def _the_best_map_is_looked_at(run, dataset):
    """That of the polishing, with its particles and tilt series; parts of the particles are averaged in groups, too."""
    about, final = dataset["map_analysis"], dataset["final"]
    assert about["sharpening"]["source"] == "Guinier plot"
    assert -600 < about["sharpening"]["b_factor"] < 0
    before, after = (read_map(run.directory / "results" / final[name]) for name in ("map", "sharpened"))
    assert before.data.shape == after.data.shape == (96, 96, 96)
    assert about["directions"]["unsampled"] == 0  # an octahedral particle
    points = about["particle_plot"]["points"]
    assert [point["particles"] for point in points] == [40, 20, 10]
    resolutions = [point["resolution"] for point in points]
    assert resolutions == sorted(resolutions)
    assert sum("RECONSTRUCT_GROUP" in row["name"] and "_polish_of" in row["name"] for row in run.tasks) == 4


#: Stands in for relion_tomo_align: the real one runs, then its tables are spoilt as --harm says.
HARM = """#!{python}
import subprocess, sys
from pathlib import Path
sys.path.insert(0, {repo!r})
import numpy as np
from py2rely_core.data.tables import read_star, write_star
words = sys.argv[1:]
harm = words.pop(words.index("--harm") + 1) if "--harm" in words else None
words = [word for word in words if word != "--harm"]
if harm == "fail":
    sys.exit("ERROR: no such thing")
subprocess.run([{real!r}, *words], check=True)
job = words[words.index("--o") + 1]
rng = np.random.default_rng(0)
if harm:
    for file in read_star(job + "tomograms.star")["global"]["rlnTomoTiltSeriesStarFile"]:
        blocks = read_star(file)
        table = next(iter(blocks.values()))
        for axis in "XY":
            label = f"rlnTomo{{axis}}ShiftAngst"
            broken = np.where(table.index == 1, np.nan, 0)
            change = {{"shift": rng.normal(0, 12, len(table)), "away": 1e5, "nan": broken}}
            table[label] = table[label] + change[harm]
        write_star(blocks, Path(file))
"""
#: What the table says of each harm.
REJECTED = {"shift": " instead of ", "away": "no map: ", "nan": "not finite"}


def test_harmful_steps_are_rejected_and_do_not_end_the_run(tmp_path):
    data = refined(tmp_path / "data", **TINY)
    fake = tmp_path / "fake/relion_tomo_align"
    fake.parent.mkdir()
    fake.write_text(HARM.format(python=sys.executable, repo=str(REPO), real=shutil.which("relion_tomo_align")))
    fake.chmod(0o755)
    rows = ["id,parameters,start"]
    for harm in REJECTED:
        write_recipe(tmp_path / f"{harm}.json", data, 5.0, polishing={"cycles": 2, "patience": 1, "refine": False},
                     ctf_refine=None, bayesian_polish={"do_motion": False, "other_args": f"--harm {harm}"})  # fmt: skip
        rows.append(f"{harm},{harm}.json,polish")
    write_recipe(tmp_path / "shifted.json", data, 5.0, polishing={"cycles": 1, "refine": False}, ctf_refine=None,
                 bayesian_polish={"do_shift_align": True})  # fmt: skip
    rows.append("shifted,shifted.json,polish")
    (tmp_path / "sheet.csv").write_text("\n".join(rows) + "\n")
    run = pipeline(tmp_path, "--sample_sheet", "sheet.csv", env={"PATH": f"{fake.parent}:{os.environ['PATH']}"})
    assert run.code == 0, run.text
    found = {dataset["id"]: dataset for dataset in run.results["datasets"]}
    (step,) = found.pop("shifted")["polishing"]["cycles"]
    assert step["area"] > 1, step
    for dataset in found.values():
        (step,) = dataset["polishing"]["cycles"]
        assert (step["step"], step["accepted"]) == ("polish", False)
        assert REJECTED[dataset["id"]] in step["why"], step
        assert "bin1_result" in dataset["final"]["map"]
        assert "/Import/" in dataset["final"]["tilt_series"]
        assert (tmp_path / "results" / dataset["final"]["particles"]).is_file()


@pytest.mark.long
def test_from_bin_1_with_a_mask_and_a_map(tmp_path):
    """The mask is used as it is, the map is the reference; what RELION is told says so."""
    data = refined(tmp_path / "data", **TINY, angle_error=1.0)
    truth = read_map(data / "truth/structure.mrc")
    write_map(tmp_path / "mask.mrc", spherical_mask(60, 17.0).astype(np.float32), 5.0)
    parameters = write_recipe(tmp_path / "sta.json", data, 5.0, ctf_refine=None, bayesian_polish=None)
    recipe = json.loads(parameters.read_text())
    recipe["refine3D"]["other_args"] = "--skip_align"
    parameters.write_text(json.dumps(recipe))
    run = pipeline(
        tmp_path, "--parameter", parameters, "--start", "bin1", "--mask", "mask.mrc", "--low_pass", 25,
        "--reference_template", data / "truth/structure.mrc",
    )  # fmt: skip
    assert run.code == 0, run.text
    used = [read_map(path).data for path in sorted((tmp_path / "results/MaskCreate").glob("bin1_*/mask.mrc"))]
    assert len(used) == 2
    expected = spherical_mask(used[0].shape[0], 17.0)
    for mask in used:
        assert np.abs(mask - expected).max() < 0.05
    command = json.loads((tmp_path / "results/Refine3D/bin1/commands.jsonl").read_text())["command"]
    assert command[command.index("--ref") + 1] == "Reference/reference.mrc"
    assert float(command[command.index("--ini_high") + 1]) == 25
    assert "MaskCreate/bin1_start/mask.mrc" in command
    reference = read_map(tmp_path / "results/Reference/template/reference.mrc")
    inside = spherical_mask(reference.data.shape[0], 13.0)
    known = compare_map(tmp_path / "results/Reference/template/reference.mrc", data / "truth/structure.mrc", 130.0).fsc
    assert known[:5].min() > 0.95, (known, truth.pixel_size, fsc(reference.data, reference.data, inside)[:3])
    (dataset,) = run.results["datasets"]
    assert dataset["levels"][0]["particles_out"] == 24
    assert (
        compare_map(tmp_path / "results" / dataset["final"]["map"], data / "truth/structure.mrc", 130.0).before_nyquist
        > 0.8
    )


def test_changed_settings_repeat_the_polishing_only(tmp_path):
    """With stubs, after a level."""
    data = refined(tmp_path / "data", **TINY)
    left_out = dict.fromkeys(("sharpening", "directions"), "no")
    parameters = write_recipe(tmp_path / "sta.json", data, 5.0, polishing={"cycles": 2}, map_analysis=left_out)
    first = pipeline(tmp_path, "--parameter", parameters, "-stub-run")
    assert first.code == 0, first.text
    steps = {"CTF_REFINE", "POLISH", "EXTRACT", "REFINE3D", "JUDGE_CTF", "JUDGE_POLISH", "JUDGE_REFINE"}
    in_cycles = {task.split(" ")[0] for task in first.executed if "_cycle2" in task}
    assert steps <= in_cycles
    changed = pipeline(tmp_path, "--parameter", parameters, "-stub-run", "-resume", "--bayesian_polish.sigma_vel", 0.4)
    assert changed.code == 0, changed.text
    assert "POLISH (bin1_cycle1)" in changed.executed
    assert "CTF_REFINE (bin1_cycle1)" not in changed.executed, sorted(changed.executed)
    assert not [task for task in changed.executed if "bin1" in task and "_cycle" not in task]
    fewer = pipeline(tmp_path, "--parameter", parameters, "-stub-run", "-resume", "--polishing.cycles", 1)
    assert fewer.code == 0, fewer.text
    assert not [task for task in fewer.executed if "bin1" in task], fewer.executed
    (dataset,) = fewer.results["datasets"]
    assert {step["cycle"] for step in dataset["polishing"]["cycles"]} == {1}
