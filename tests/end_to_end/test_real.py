"""Real RELION on simulated data; the truth is the judge."""

import json
import shutil
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from helpers import (
    LONG,
    PLAIN,
    REFINEMENT_FAILS,
    TINY,
    cli,
    make_data,
    pipeline,
    stand_in,
    tasks_of,
    write_parameters,
    write_template_parameters,
)

from py2rely_core.data.symmetry import asymmetric_unit, rotations_of
from py2rely_core.data.tables import read_star, write_star
from py2rely_core.maps.filters import cosine_low_pass
from py2rely_core.maps.io import read_map, write_map
from py2rely_core.parameters.recipe import Recipe
from py2rely_core.planning.plan import Machine, plan_dataset
from py2rely_core.simulation.truth import compare_map, compare_run, draw

pytestmark = [pytest.mark.relion, pytest.mark.nextflow, pytest.mark.slow]


@pytest.mark.parametrize(
    ("symmetry", "seed", "settings"),
    [
        ("O", 0, {"tilt_step": 6, "particles": 15}),
        ("D3", 1, {"tilt_step": 3, "particles": 20}),
        ("C1", 2, {"tilt_step": 3, "particles": 24, "image_size": 480, "tilt_series": 3}),
    ],
)
def test_geometry_of_the_simulation(tmp_path, symmetry, seed, settings):
    """With the true poses RELION's own reconstruction is the truth, over the whole band."""
    data = make_data(tmp_path / "data", symmetry=symmetry, seed=seed, noise=0.3, **{"image_size": 400} | settings)
    subprocess.run(
        ["relion_tomo_reconstruct_particle", "--t", "tilt_series.star", "--p", "particles.star", "--o", "rec/",
         "--b", "144", "--crop", "96", "--bin", "1", "--sym", symmetry, "--j", "2", "--j_in", "1", "--j_out", "2"],
        cwd=data, check=True, capture_output=True,
    )  # fmt: skip
    found = compare_map(data / "rec/merged.mrc", data / "truth/structure.mrc", 130.0)
    band = found.resolutions > 8.0
    assert found.fsc[band].min() > 0.95, np.round(found.fsc, 3)


def test_wrong_hand_is_worse(tmp_path):
    """rlnTomoHand = -1 is what the simulated defocus follows."""
    data = make_data(
        tmp_path / "data", symmetry="C1", noise=2.0, tilt_series=1, particles=40, image_size=640, tilt_step=4
    )
    curves = {}
    for hand in ("-1.000000", "1.000000"):
        (data / f"ts{hand}.star").write_text((data / "tilt_series.star").read_text().replace("-1.000000", hand))
        subprocess.run(
            ["relion_tomo_reconstruct_particle", "--t", f"ts{hand}.star", "--p", "particles.star", "--o", f"rec{hand}/",
             "--b", "144", "--crop", "96", "--bin", "1", "--j", "2", "--j_in", "1", "--j_out", "2"],
            cwd=data, check=True, capture_output=True,
        )  # fmt: skip
        curves[hand] = compare_map(data / f"rec{hand}/merged.mrc", data / "truth/structure.mrc", 130.0).fsc
    high = slice(24, 46)
    assert curves["-1.000000"][high].mean() > curves["1.000000"][high].mean() + 0.01


def test_point_groups_are_relions_own():
    for group in ("C5", "D2", "D7", "T", "O", "I", "I1", "I3", "I4"):
        command = ["relion_refine", "--sym", group, "--print_symmetry_ops"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        printed = [np.array(part.split("=")[1].split()[:9], dtype=float) for part in text.split("R(")[1:]]
        known = rotations_of(group).as_matrix()
        distances = np.abs(np.array(printed).reshape(-1, 1, 3, 3) - known).max((2, 3))
        assert distances.shape == (len(known), len(known))
        assert distances.min(axis=0).max() < 1e-4, group


def judge(run: Path, data: Path, worst_fsc: float, angles: float | None, shifts: float = 4.0) -> None:
    maps, poses = compare_run(run, data)
    for one in maps:
        assert one.before_nyquist > worst_fsc, (one.binning, np.round(one.fsc, 3))
    if angles is not None:
        assert poses["angle_error"].median() < angles
        assert poses["shift_error"].median() < shifts


def test_known_orientations_to_bin_1(tiny, tmp_path):
    """Two levels with crop, from a directory with an odd name; then nothing is repeated."""
    data = shutil.copytree(tiny, tmp_path / "my data (ä)")
    home = tmp_path / "run here"
    home.mkdir()
    parameters = write_parameters(home / "sta.json", data, "2,1", levels={"1": {"refine3D": {"sampling": "1.8 degrees",
        "auto_local_sampling": "1.8 degrees", "offset_range": 1}}}, polishing={"cycles": 0},
        map_analysis={"local_resolution": "yes", "locres_sampling": 50})  # fmt: skip
    run = pipeline(home, "--parameter", parameters)
    assert run.code == 0, run.text
    judge(home / "results", data, 0.9, 3.0)
    (dataset,) = run.results["datasets"]
    assert [(level["box"], level["extraction_box"], level["pixel_size"]) for level in dataset["levels"]] == [
        (24, 24, 10.0), (48, 72, 5.0),
    ]  # fmt: skip
    final = dataset["final"]
    for path in (final["map"], final["mask"], final["particles"], final["tilt_series"], *final["half_maps"]):
        assert (home / "results" / path).is_file()
    assert read_map(home / "results" / final["map"]).data.shape == (48, 48, 48)
    for level in dataset["levels"]:
        assert level["particles_in"] == level["particles_out"] == 24
        assert level["resolution"]["masked"] <= level["resolution"]["unmasked"] + 1e-6
        assert len(level["fsc"]["corrected"]) == level["box"] // 2
        assert 0 < level["relion_seconds"] <= level["wall_seconds"]
        assert level["versions"]["relion"].startswith("5.")
    assert dataset["levels"][0]["nyquist_limited"]
    assert [level["orientations"]["judgement"] for level in dataset["levels"]] == ["consistent"] * 2
    page = (home / "results/report.html").read_text()
    assert page.count("data:image/jpeg") >= 5
    assert "://" not in page
    _directions_are_within_our_asymmetric_unit(home / "results/Refine3D/bin2/run_it000_sampling.star", "O")
    _the_best_map_is_looked_at(home / "results", dataset)
    _opens_as_a_relion_project(home / "results", final)
    draw(compare_run(home / "results", data)[0], tmp_path / "truth.png")
    assert (tmp_path / "truth.png").stat().st_size > 10_000
    again = pipeline(home, "--parameter", parameters, "-resume")
    assert (again.code, again.executed) == (0, set()), again.text


def _directions_are_within_our_asymmetric_unit(sampling: Path, group: str) -> None:
    """RELION's own list of the view directions that it samples."""
    table = read_star(sampling)["sampling_directions"]
    rot, tilt = np.radians(table[["rlnAngleRot", "rlnAngleTilt"]].to_numpy(dtype=float).T)
    directions = np.stack([np.sin(tilt) * np.cos(rot), np.sin(tilt) * np.sin(rot), np.cos(tilt)], axis=1)
    assert len(directions) > 10
    assert (directions @ asymmetric_unit(group).T).min() > -1e-3


def _the_best_map_is_looked_at(results: Path, dataset: dict) -> None:
    """Sharpening, directions and local resolution are there, in the results and as jobs of RELION."""
    about, final = dataset["map_analysis"], dataset["final"]
    sharpened = about["sharpening"]
    assert sharpened["sharpened"] == (final["sharpened"] is not None)
    assert sharpened["sharpened"] or sharpened["why"]
    local = about["local_resolution"]
    assert all((results / local[name]).is_file() for name in ("map", "filtered"))
    assert 10.0 <= local["best"] <= local["median"] <= local["worst"] <= 50.0
    found = about["directions"]
    assert found["best"] <= found["median"] <= found["worst"] < 30
    assert found["unsampled"] == 0
    assert about["template"] is None
    text = (results / "LocalRes/bin1_result/job.star").read_text()
    assert "relion.localres.own" in text
    processes = read_star(results / "default_pipeline.star")["pipeline_processes"]
    labels = dict(zip(processes["rlnPipeLineProcessAlias"], processes["rlnPipeLineProcessTypeLabel"], strict=True))
    assert labels["LocalRes/bin1_result/"] == "relion.localres.own"
    assert labels["Directions/bin1_result/"] == "relion.external"


def _opens_as_a_relion_project(results: Path, final: dict) -> None:
    """The published STAR files work with RELION in the output directory, without the work directory."""
    subprocess.run(
        ["relion_tomo_reconstruct_particle", "--t", final["tilt_series"], "--p", final["particles"],
         "--o", "Reconstruct/again/", "--b", "24", "--bin", "2", "--sym", "O", "--j", "2",
         "--j_in", "1", "--j_out", "2"],
        cwd=results, check=True, capture_output=True,
    )  # fmt: skip
    again, first = (read_map(results / f"Reconstruct/{name}/merged.mrc") for name in ("again", "bin2_result"))
    assert np.corrcoef(again.data.ravel(), first.data.ravel())[0, 1] > 0.95
    shutil.rmtree(results / "Reconstruct/again")


@pytest.mark.parametrize(("group", "worst_fsc", "refine"), [("D2", 0.95, {}), ("C1", 0.9, LONG)])
@pytest.mark.long
def test_other_point_groups(tmp_path, group, worst_fsc, refine):
    settings = {"symmetry": group, "seed": 3, "particles": 30, "image_size": 240}
    data = make_data(tmp_path / "data", **(TINY | settings), angle_error=2.0, shift_error=3.0)
    parameters = write_parameters(tmp_path / "sta.json", data, refine3D=refine | {"sym_name": group})
    run = pipeline(tmp_path, "--parameter", parameters)
    assert run.code == 0, run.text
    judge(tmp_path / "results", data, worst_fsc, 4.0)


@pytest.mark.parametrize("iterations", [3, pytest.param(0, marks=pytest.mark.long)])
def test_template(blind, outside, tmp_path, iterations):
    """Random orientations are found from a blurred map on another grid, with and without the global alignment."""
    results = outside
    if not iterations:
        parameters = write_template_parameters(tmp_path / "sta.json", blind, iterations)
        run = pipeline(tmp_path, "--parameter", parameters, "--reference_template", blind / "template.mrc")
        assert run.code == 0, run.text
        results = tmp_path / "results"
    judge(results, blind, 0.9, 3.0)
    (dataset,) = json.loads((results / "results.json").read_text())["datasets"]
    found = dataset["map_analysis"]["template"]
    assert dataset["final"]["orientations"] == "consistent", dataset["final"]["orientations_text"]
    # The particles hold more than the blurred template was given to, and it agrees as far as it goes.
    assert found["low_pass"] > 1.5 * found["resolution"]
    assert found["judgement"] in ("confirmed", "partly")
    noted = json.loads((results / "Reference/template/job.json").read_text())
    assert (noted["box"], noted["pixel_size"]) == (24, 10.0)
    assert noted["was"]["pixel_size"] != 10.0
    names = [task["name"] for task in tasks_of(results.parent / "trace.tsv")]
    assert sum("CLASS3D_ALIGN" in name for name in names) == (2 if iterations else 0)
    if iterations:
        _each_half_begins_with_its_own_map(results)


def _each_half_begins_with_its_own_map(results):
    """No particle of one half set has had a part in the other's reference."""
    both = read_star(results / "Select/bin2_template/particles.star")["particles"]
    maps = []
    for half in (1, 2):
        job = results / f"Class3D/bin2_template_half{half}"
        own = read_star(job / "run_data.star")["particles"]
        assert set(own["rlnRandomSubset"]) == {half}
        assert set(own["rlnTomoParticleName"]) == set(both.loc[both["rlnRandomSubset"] == half, "rlnTomoParticleName"])
        maps.append(read_map(results / f"Select/bin2_template/half{half}.mrc").data)
        assert np.array_equal(maps[-1], read_map(job / "run_class001.mrc").data)
    assert not np.array_equal(*maps)
    # What RELION itself began with, low-passed as it was told.
    seen = [cosine_low_pass(one, 10.0, 50.0) for one in maps]
    (work,) = results.parent.glob("work/*/*/Refine3D/bin2")
    begun = [read_map(work / f"run_it000_half{half}_class001.mrc").data for half in (1, 2)]
    own = [[np.corrcoef(one.ravel(), other.ravel())[0, 1] for other in seen] for one in begun]
    assert own[0][0] > own[0][1]
    assert own[1][1] > own[1][0]
    refined = read_star(results / "Refine3D/bin2/run_data.star")["particles"]
    halves = dict(zip(refined["rlnTomoParticleName"], refined["rlnRandomSubset"], strict=True))
    assert halves == dict(zip(both["rlnTomoParticleName"], both["rlnRandomSubset"], strict=True))


@pytest.mark.parametrize(("noise", "judgement"), [(0.0, "consistent"), (200.0, "not determined")])
def test_orientations_of_particles_and_of_noise(extracted, tmp_path, monkeypatch, noise, judgement):
    """Against the same maps: images of particles find the same orientation from either half, noise does not."""
    monkeypatch.chdir(shutil.copytree(extracted, tmp_path / "project", symlinks=True))
    rng = np.random.default_rng(0)
    for path in Path("Extract/bin2/Subtomograms").rglob("*.mrcs"):
        with mrcfile.open(path, mode="r+") as file:
            data = file.data.astype(np.float32)
            file.set_data((data + noise * data.std() * rng.normal(size=data.shape)).astype(np.float16))
    blocks = read_star("Extract/bin2/particles.star")
    blocks["particles"]["rlnRandomSubset"] = np.arange(24) % 2 + 1
    write_star(blocks, Path("Extract/bin2/particles.star"))
    recipe = Recipe.model_validate({"refine3D": {"sym_name": "O", "particle_diameter": 150}})
    # Averages are as many times larger than RELION's own maps as there are tilts.
    average = read_map(Path("Reference/merged.mrc"))
    write_map(Path("reference.mrc"), average.data / 7, average.pixel_size)
    settings = plan_dataset(recipe, "known", 2, Machine(2))["levels"][0]["orientations"]
    job = Path("Orientations/bin2")
    cli("task", "split-tilts", job, "--particles", "Extract/bin2/particles.star", "--tomograms", "tilt_series.star",
        "--most", 200)  # fmt: skip
    for half in (1, 2):
        words = (
            f"relion_refine --K 1 --iter 1 --o {job}/run_half{half} --i {job}/half{half}.star "
            "--tomograms tilt_series.star --ref reference.mrc --trust_ref_size --ini_high 25 "
            "--strict_highres_exp 25 --particle_diameter 150 "
            f"--sym O --j 2 {settings['options']}"
        )
        cli("task", "relion", "--may-fail", job, "--", *words.split())
    cli("task", "check-orientations", job, "--symmetry", "O")
    found = json.loads((job / "job.json").read_text())["orientations"]
    assert (found["judgement"], found["judged"]) == (judgement, 24), found


def test_denovo(blind, tmp_path):
    """No map and no orientations: the structure is found from the particles alone."""
    parameters = write_parameters(
        tmp_path / "sta.json", blind,
        refine3D={"sampling": "15 degrees", "auto_local_sampling": "7.5 degrees", "offset_range": 2},
        initial_model={"nr_iter": 8, "offset_range": 2, "sym_name": "O", "particle_diameter": 150}, **PLAIN,
    )  # fmt: skip
    run = pipeline(tmp_path, "--parameter", parameters, "--run_denovo_generation")
    assert run.code == 0, run.text
    judge(tmp_path / "results", blind, 0.9, None)


#: Overwrites the first thousand voxels with bytes that are no number.
SPOIL = r"""
"$REAL" "$@"
for map in Reconstruct/*/merged.mrc; do
    head -c 4096 /dev/zero | tr '\0' '\377' | dd of=$map bs=1024 seek=1 conv=notrunc status=none
done
"""
EMPTY = 'for word in "$@"; do case $word in Extract/*) mkdir -p "$word"; : > "$word/particles.star";; esac; done'
#: Left to `make test-long`: others of their kind are tried every time.
LIKE_OTHERS = ("empty output", "killed")
FAILURES = {
    "empty output": ("relion_tomo_subtomo", EMPTY, ["EXTRACT", "particles.star"]),
    "not a number": ("relion_tomo_reconstruct_particle", SPOIL, ["RECONSTRUCT (bin2_start)", "not finite"]),
    "killed": ("mpirun", REFINEMENT_FAILS.format(failure="kill -9 $$"), ["REFINE3D", "killed", "to do"]),
    "out of memory": (
        "mpirun",
        REFINEMENT_FAILS.format(failure="echo 'CUDA error: out of memory' >&2; exit 1"),
        ["REFINE3D", "out of memory", "--pad 1"],
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name in LIKE_OTHERS else []) for name in FAILURES]
)
def test_failures_are_loud(tiny, tmp_path, name):
    """A stand-in for one RELION program lies or dies: the run fails, and names the step, the reason and what to do."""
    program, script, texts = FAILURES[name]
    parameters = write_parameters(tmp_path / "sta.json", tiny)
    run = pipeline(tmp_path, "--parameter", parameters, env=stand_in(tmp_path, program, script))
    assert run.code != 0
    for text in texts:
        assert text in run.text, run.text
    assert run.results["status"] == "failed"


@pytest.mark.long
def test_duplicates_are_removed_into_a_new_file(tiny, tmp_path):
    """Every fifth pick is there twice, a few Angstrom apart."""
    data = shutil.copytree(tiny, tmp_path / "data")
    blocks = read_star(data / "particles.star")
    table = blocks["particles"]
    twice = table.iloc[::5].copy()
    twice["rlnCenteredCoordinateXAngst"] += 6.0
    blocks["particles"] = type(table)([*table.to_dict("records"), *twice.to_dict("records")])
    write_star(blocks, data / "particles.star")
    run = pipeline(tmp_path, "--parameter", write_parameters(tmp_path / "sta.json", data, **PLAIN))
    assert run.code == 0, run.text
    (level,) = run.results["datasets"][0]["levels"]
    assert (level["particles_in"], level["particles_out"], level["duplicates_removed"]) == (29, 24, 5)
    assert len(read_star(tmp_path / "results/Select/bin2/particles.star")["particles"]) == 24
    assert len(read_star(tmp_path / "results/Refine3D/bin2/run_data.star")["particles"]) == 29


def test_a_level_searches_anew_where_the_one_before_determined_nothing(tmp_path):
    """Much noise, and pixels that are the limit: the next level has the samplings of the first, and says why."""
    data = make_data(tmp_path / "data", **TINY | {"noise": 9.0}, random_angles=True, shift_error=3.0)
    parameters = write_template_parameters(tmp_path / "sta.json", data, binnings="3,2")
    run = pipeline(tmp_path, "--parameter", parameters, "--reference_template", data / "template.mrc")
    assert run.code == 0, run.text
    first, second = run.results["datasets"][0]["levels"]
    assert first["nyquist_limited"]
    assert first["orientations"]["judgement"] in ("partly", "not determined")
    assert not [text for text in first["warnings"] if "searched anew" in text]
    assert [text for text in second["warnings"] if "searched anew" in text]
    assert first["low_pass"] == second["low_pass"] == 50
    made = read_map(tmp_path / "results/Reference/bin2_template/reference.mrc")
    assert (made.data.shape[0], made.pixel_size) == (second["box"], pytest.approx(second["pixel_size"], abs=1e-3))
    jobs = [json.loads((tmp_path / f"results/Refine3D/bin{binning}/job.json").read_text()) for binning in (3, 2)]
    assert ["--healpix_order 1 --auto_local_healpix_order 3 " in job["commands"][0] for job in jobs] == [True, True]
    # It begins with the template again: half maps of wrong orientations would draw the particles there.
    assert "--ref Reference/reference.mrc " in jobs[1]["commands"][0]
    assert "--solvent_mask" not in jobs[1]["commands"][0]
