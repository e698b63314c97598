"""Steps of polishing are judged, and what is no result is rejected; settings become RELION's flags."""

import json

import numpy as np
import pandas as pd
import pytest

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.judging.polishing import Curve, best_step, judge
from py2rely_core.judging.steps import judge_step
from py2rely_core.maps.io import write_map
from py2rely_core.parameters.files import new_recipe, parse_recipe
from py2rely_core.parameters.request import load_datasets
from py2rely_core.planning.plan import Machine, plan_dataset
from py2rely_core.problems import ProblemError
from py2rely_core.relion.outputs.tilt_series import check_ctf_refine, check_polish, check_tables

BOX, PIXEL = 16, 2.0
SHELLS = BOX * PIXEL / np.arange(1, BOX // 2 + 1)


def curve(*values):
    return Curve(SHELLS, np.array(values, dtype=float))


GOOD = curve(1, 0.99, 0.9, 0.7, 0.4, 0.2, 0.1, 0.0)


@pytest.mark.parametrize(
    ("candidate", "judgement", "why"),
    [
        (curve(1, 0.99, 0.9, 0.6, 0.3, 0.2, 0.15, 0.0), "better", "4.57 A instead of 5.33 A"),
        (curve(1, 1, 1, 0.9, 0.8, 0.1, 0.1, 0.0), "worse", "6.40 A instead of 5.33 A"),
        (curve(1, 0.99, 0.9, 0.8, 0.5, 0.25, 0.1, 0.0), "better", "5.33 A as before, area +"),
        (curve(1, 0.99, 0.9, 0.6, 0.3, 0.15, 0.1, 0.0), "worse", "5.33 A as before, area -"),
        (GOOD, "equal", "area +0.00%"),
        (curve(1, 0.99, 0.9, 0.701, 0.4, 0.2, 0.1, 0.0), "equal", "area +0.04%"),
        (curve(1, 0.99, 0.9, 0.7, np.nan, 0.9, 0.9, 0.9), "worse", "instead of"),
        (curve(*[np.nan] * 8), "worse", "instead of"),
        (curve(*[1.0] * 8), "better", "4.00 A instead of"),
    ],
)
def test_judgement(candidate, judgement, why):
    verdict = judge(candidate, GOOD)
    assert verdict.judgement == judgement
    assert why in verdict.why
    assert verdict.accepted == (judgement != "worse")


def test_equal_shells_at_nyquist_are_decided_by_the_area():
    assert judge(curve(*[0.9] * 8), curve(*[0.8] * 8)).judgement == "better"
    assert judge(curve(*[0.8] * 8), curve(*[0.9] * 8)).judgement == "worse"


def test_low_shells_do_not_count():
    """Below half the frequency of the resolution nothing is gained."""
    assert judge(curve(1, 0.5, 0.9, 0.7, 0.4, 0.2, 0.1, 0.0), GOOD).judgement == "equal"


def test_best_is_the_last_that_was_better():
    steps = [{"name": name, "judgement": judgement} for name, judgement in
             (("a", "better"), ("b", "better"), ("c", "equal"), ("d", "worse"))]  # fmt: skip
    assert best_step(steps)["name"] == "b"
    assert best_step(steps[2:]) is None


def star_of(values):
    table = {"rlnAngstromResolution": np.concatenate([[999.0], SHELLS])}
    for kind in ("Corrected", "UnmaskedMaps", "MaskedMaps"):
        table[f"rlnFourierShellCorrelation{kind}"] = np.concatenate([[1.0], values])
    table["rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps"] = 0.0
    return {"general": pd.DataFrame([{"rlnFinalResolution": 5.0}]), "fsc": pd.DataFrame(table)}


@pytest.fixture
def step(tmp_path):
    """A step's reconstruction and post-processing, and the best so far: a step that is better."""
    rng = np.random.default_rng(0)
    write_star(
        {"particles": pd.DataFrame({"rlnTomoName": ["a"] * 8, "rlnRandomSubset": [1, 2] * 4})},
        tmp_path / "particles.star",
    )
    (tmp_path / "mask").mkdir()
    (tmp_path / "mask/threshold.json").write_text("{}")
    write_map(tmp_path / "mask/mask.mrc", rng.uniform(size=(BOX,) * 3), PIXEL)
    for name in ("merged", "half1", "half2"):
        (tmp_path / "maps").mkdir(exist_ok=True)
        write_map(tmp_path / f"maps/{name}.mrc", rng.normal(size=(BOX,) * 3), PIXEL)
    for name, values in (("job", [1, 0.99, 0.9, 0.8, 0.5, 0.25, 0.1, 0.0]), ("best", GOOD.values)):
        (tmp_path / name).mkdir()
        write_map(tmp_path / f"{name}/postprocess.mrc", rng.normal(size=(BOX,) * 3), PIXEL)
        write_star(star_of(values), tmp_path / f"{name}/postprocess.star")
    return tmp_path


def verdict_of(step, **note):
    note = {"cycle": 1, "step": "polish", "tilt_series": {}, "unusable": ""} | note
    found = judge_step(step / "job", note, step / "maps", step / "mask/mask.mrc", (BOX, PIXEL), step / "best",
                       step / "particles.star")  # fmt: skip
    return found, json.loads((step / "job/job.json").read_text())


def test_a_step_is_judged_and_noted(step):
    found, noted = verdict_of(step)
    assert found.judgement == "better"
    assert (noted["step"], noted["cycle"], noted["accepted"], noted["judgement"]) == ("polish", 1, True, "better")
    assert noted["area"] > noted["best_area"]


def spoil(step, what):
    if what == "constant":
        write_map(step / "maps/merged.mrc", np.zeros((BOX,) * 3), PIXEL)
    elif what == "not finite":
        write_map(step / "maps/half1.mrc", np.full((BOX,) * 3, np.nan), PIXEL)
    elif what == "miniature":
        write_map(step / "maps/merged.mrc", np.random.default_rng(0).normal(size=(4, 4, 4)), PIXEL)
    elif what == "no half map":
        (step / "maps/half2.mrc").unlink()
    elif what == "no post-processing":
        (step / "job/postprocess.star").unlink()
    elif what == "a program that failed":
        (step / "maps/commands.jsonl").write_text(json.dumps({
            "command": ["relion_tomo_reconstruct_particle"], "exit_code": 1, "seconds": 1, "started": 0}))  # fmt: skip
    elif what == "a constant post-processed map":
        write_map(step / "job/postprocess.mrc", np.ones((BOX,) * 3), PIXEL)


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("constant", "every voxel"),
        ("not finite", "not finite"),
        ("miniature", "not a box of 16"),
        ("no half map", "half2.mrc"),
        ("no post-processing", "postprocess.star was not written"),
        ("a program that failed", "relion_tomo_reconstruct_particle failed with exit code 1"),
        ("a constant post-processed map", "every voxel"),
    ],
)
def test_what_is_no_map_is_rejected(step, what, why):
    spoil(step, what)
    found, noted = verdict_of(step)
    assert (found.judgement, found.accepted, noted["accepted"]) == ("worse", False, False)
    assert found.why.startswith("no map: ")
    assert why in found.why
    assert noted["warnings"]
    assert noted["step"] == "polish"


def test_tables_that_cannot_be_used_are_rejected(step):
    found, noted = verdict_of(step, unusable="TS_01 has values that are not finite")
    assert not found.accepted
    assert "TS_01 has values that are not finite" in noted["why"]


def series(path, names=("a", "b"), tilts=5, **columns):
    path.mkdir(parents=True)
    table = pd.DataFrame({"rlnTomoYTilt": np.arange(tilts), "rlnDefocusU": 3e4, "rlnDefocusV": 3e4})
    for name in names:
        write_star({name: table.assign(**columns)}, path / f"{name}.star")
    files = [str(path / f"{name}.star") for name in names]
    write_star(
        {"global": pd.DataFrame({"rlnTomoName": names, "rlnTomoTiltSeriesStarFile": files})}, path / "tomograms.star"
    )
    return path


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"names": ("a",)}, "2 tilt series went in, 1 came out"),
        ({"tilts": 4}, "a has 4 tilts instead of 5"),
        ({"rlnDefocusU": np.nan}, "a has values that are not finite"),
        ({"rlnDefocusU": "x"}, "a has no defocus"),
    ],
)
def test_tables_are_proven(tmp_path, changes, reason):
    before, after = series(tmp_path / "before"), series(tmp_path / "after", **changes)
    assert check_tables(after, before / "tomograms.star") == reason


def test_tables_that_are_missing(tmp_path):
    before = series(tmp_path / "before")
    assert check_tables(tmp_path, before / "tomograms.star") == "tomograms.star was not written"
    after = series(tmp_path / "after")
    (after / "b.star").unlink()
    assert "b.star" in check_tables(after, before / "tomograms.star") or check_tables(after, before / "tomograms.star")


def test_a_ctf_refinement_is_noted(tmp_path):
    before = series(tmp_path / "before")
    after = series(tmp_path / "after", rlnDefocusU=3.1e4, rlnDefocusV=3.1e4)
    write_star({"particles": pd.DataFrame({"rlnTomoName": ["a"] * 3})}, tmp_path / "particles.star")
    check_ctf_refine(after, before / "tomograms.star", tmp_path / "particles.star", tmp_path / "Select/x")
    noted = json.loads((after / "job.json").read_text())
    assert noted["unusable"] == ""
    assert noted["defocus"]["a"] == {"before": 30000.0, "after": 31000.0, "change_std": 0.0}
    assert len(read_star(tmp_path / "Select/x/particles.star")["particles"]) == 3


def test_a_polishing_that_lost_particles_is_unusable(tmp_path):
    before, after = series(tmp_path / "before"), series(tmp_path / "after")
    write_star({"particles": pd.DataFrame({"rlnTomoName": ["a"] * 3})}, tmp_path / "particles.star")
    write_star({"particles": pd.DataFrame({"rlnTomoName": ["a"] * 2})}, after / "particles.star")
    check_polish(after, before / "tomograms.star", tmp_path / "particles.star", tmp_path / "Select/x")
    assert "not as many particles" in json.loads((after / "job.json").read_text())["unusable"]
    # What goes on is the set before it.
    assert len(read_star(tmp_path / "Select/x/particles.star")["particles"]) == 3


RECIPE = new_recipe("ts.star", "p.star", 2.5, "O", 40, 150, False, 1.5, "2,1", 2, classes=2).model_dump(by_alias=True)


def planned(**blocks):
    recipe = parse_recipe({name: RECIPE[name] | fields for name, fields in blocks.items()} | {
        name: block for name, block in RECIPE.items() if name not in blocks}, "test")  # fmt: skip
    return plan_dataset(recipe, "known", 2, Machine(2))


def flags(settings):
    return f" {settings['options']} "


@pytest.mark.parametrize(
    ("fields", "there", "absent"),
    [
        ({}, ["--do_defocus", "--d0 -3000 --d1 3000", "--do_reg_defocus --lambda 0.1", "--do_scale --per_frame_scale"],
         ["--per_tomogram_scale", "aberrations"]),
        ({"focus_range": 500, "lambda": 0.02}, ["--d0 -500 --d1 500", "--lambda 0.02"], []),
        ({"do_reg_def": "no"}, ["--do_defocus"], ["--do_reg_defocus", "--lambda"]),
        ({"do_defocus": "no"}, ["--do_scale"], ["defocus", "--d0", "--lambda"]),
        ({"do_frame_scale": "no", "do_tomo_scale": "yes"}, ["--per_tomogram_scale"], ["--per_frame_scale"]),
        ({"do_scale": "no"}, [], ["--do_scale", "--per_frame_scale"]),
        ({"do_even_aber": "yes", "nr_even_aber": 6}, ["--do_even_aberrations --ne 6"], ["--do_odd"]),
        ({"do_odd_aber": "yes", "nr_odd_aber": 5}, ["--do_odd_aberrations --no 5"], ["--do_even"]),
        ({"other_args": "--kmin 20"}, ["--kmin 20"], []),
    ],
)  # fmt: skip
def test_ctf_refine_becomes_flags(fields, there, absent):
    options = flags(planned(ctf_refine=fields)["polishing"]["ctf_refine"])
    assert all(f" {one} " in options for one in there), options
    assert not [one for one in absent if one in options], options


@pytest.mark.parametrize(
    ("fields", "there", "absent"),
    [
        ({}, ["--r 5", "--motion --s_vel 0.2 --s_div 5000"], ["--shift_only", "--sq_exp_ker"]),
        ({"max_error": 8, "sigma_vel": 0.5, "sigma_div": 800, "do_sq_exp_ker": "yes"},
         ["--r 8", "--s_vel 0.5 --s_div 800", "--sq_exp_ker"], []),
        ({"do_motion": "no"}, ["--r 5"], ["--motion", "--s_vel"]),
        ({"do_shift_align": "yes"}, ["--shift_only"], ["--motion", "--shift_only_by_particles"]),
        ({"do_shift_align": "yes", "shift_align_type": "Only particles"},
         ["--shift_only --shift_only_by_particles"], []),
        ({"other_args": "--min_frame 3"}, ["--min_frame 3"], []),
    ],
)  # fmt: skip
def test_bayesian_polish_becomes_flags(fields, there, absent):
    options = flags(planned(bayesian_polish=fields)["polishing"]["polish"])
    assert all(f" {one} " in options for one in there), options
    assert not [one for one in absent if one in options], options


def test_when_polishing_runs():
    found = planned(polishing={"cycles": 3, "patience": 1, "refine": "no"})["polishing"]
    assert (found["cycles"], found["patience"], found["refine"]) == (3, 1, None)
    refine = planned()["polishing"]["refine"]
    assert refine["low_pass"] is None
    assert planned(polishing={"cycles": 0})["polishing"] is None
    assert planned(resolutions={"binning_list": "4,2"})["polishing"] is None


def test_what_is_found_out_about_the_best_map():
    found = planned()["map_analysis"]
    assert [name for name, step in found.items() if step] == ["sharpening", "directions"]
    assert found["sharpening"] == {"lowest": 10, "given": None, "mtf": "", "options": ""}
    post = {"adhoc_bfac": -90, "autob_lowres": 8, "fn_mtf": "a b.star", "other_args": "--skip_fsc_weighting"}
    asked = {"directions": "no", "local_resolution": "yes", "particle_plot": "yes", "locres_sampling": 15}
    found = planned(postprocess=post, map_analysis=asked)["map_analysis"]
    assert found["directions"] is None
    mtf = "--mtf 'a b.star' --mtf_angpix 2.5"
    assert (found["sharpening"]["given"], found["sharpening"]["lowest"]) == (-90, 8)
    assert found["sharpening"]["options"] == f"{mtf} --skip_fsc_weighting"
    assert found["local_resolution"] == {
        "sampling": 15, "ranks": 2, "given": -90, "options": f"{mtf} --skip_fsc_weighting",
    }  # fmt: skip
    assert f"{mtf} " in planned(postprocess=post)["levels"][0]["postprocess"]["options"]
    movies = planned(postprocess=post | {"mtf_angpix": 1.25})
    assert "--mtf_angpix 1.25" in movies["map_analysis"]["sharpening"]["options"]


@pytest.mark.parametrize(("iterations", "low_pass"), [(10, 30.0), (0, 40.0)])
def test_to_where_a_template_is_given(iterations, low_pass):
    recipe = RECIPE | {"initial_reference": {"template_iterations": iterations}}
    found = plan_dataset(parse_recipe(recipe, "test"), "template", 2, Machine(2))
    assert found["map_analysis"]["template"] == {"low_pass": low_pass, "diameter": 150}
    if iterations:
        assert found["initial_reference"]["low_pass"] == low_pass
    else:
        assert found["levels"][0]["refine"]["low_pass"] == low_pass
    assert (
        plan_dataset(parse_recipe(recipe, "test"), "template", 2, Machine(2), "bin1")["map_analysis"]["template"]
        is None
    )


def test_classification_becomes_flags():
    assert [level["classification"] for level in planned()["levels"]] == [None, None]
    first, second = planned(classification={"run": "yes"})["levels"]
    assert second["classification"] is None
    assert "--skip_align" in first["classification"]["run"]["options"]
    assert first["classification"]["run"]["classes"] == 2
    assert not first["classification"]["waits"]
    first, second = planned(
        classification={"run": "yes", "binning": 1, "selection": "manual", "agreement": 18},
        class3D={"dont_skip_align": "yes", "sigma_angles": 6, "sampling": "3.7 degrees", "relax_sym": "C2"},
    )["levels"]
    assert first["classification"] is None
    options = second["classification"]["run"]["options"]
    assert "--skip_align" not in options
    for one in ("--healpix_order 3", "--sigma_ang 2", "--relax_sym C2", "--offset_range"):
        assert one in options
    assert second["classification"]["waits"]
    assert second["classification"]["choice"]["agreement"] == 18
    glob = planned(classification={"run": "yes"}, class3D={"dont_skip_align": "yes", "do_local_ang_searches": "no"})
    assert "--sigma_ang" not in glob["levels"][0]["classification"]["run"]["options"]
    chosen = planned(classification={"run": "yes", "selection": "manual", "keep_classes": "2,1"})["levels"][0]
    assert not chosen["classification"]["waits"]
    assert (chosen["classification"]["choice"]["keep"], chosen["classification"]["choice"]["best"]) == ([2, 1], 2)


def request(tmp_path, recipe=RECIPE, **params):
    for name in ("ts.star", "p.star", "map.mrc", "mask.mrc", "other.star"):
        (tmp_path / name).touch()
    (tmp_path / "sta.json").write_text(json.dumps(recipe))
    return {"launch_dir": str(tmp_path), "params": {"parameter": "sta.json"} | params}


def test_a_run_from_existing_results(tmp_path):
    (found,) = load_datasets(request(
        tmp_path, start="bin1", particles="other.star", mask="mask.mrc", low_pass=15, reference_template="map.mrc"
    ))["datasets"]  # fmt: skip
    assert found["recipe"]["resolutions"]["binning_list"] == "[1]"
    assert (found["mode"], found["start"], found["low_pass"]) == ("known", "bin1", 15.0)
    assert (found["mask"], found["particles"], found["reference"]) == tuple(
        str(tmp_path / name) for name in ("mask.mrc", "other.star", "map.mrc")
    )
    without = RECIPE | {"ctf_refine": None, "bayesian_polish": None}
    (found,) = load_datasets(request(tmp_path, without, start="polish"))["datasets"]
    assert found["recipe"]["ctf_refine"]
    assert found["recipe"]["bayesian_polish"]


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"start": "bin2"}, "cannot start from 'bin2'"),
        ({"start": "polish", "reference_template": "map.mrc"}, "A reference map is given, and start = polish"),
        ({"start": "bin1", "run_denovo_generation": True}, "A de novo model is asked for, and start = bin1"),
        ({"start": "polish", "low_pass": 10}, "low_pass is for start = bin1"),
        ({"low_pass": 10}, "low_pass is for start = bin1"),
        ({"start": "bin1", "low_pass": "x"}, "low_pass = x is no resolution"),
        ({"start": "bin1", "low_pass": -3}, "no resolution"),
        ({"start": "polish", "polishing": {"cycles": 0}}, "polishing.cycles = 0"),
        ({"run_class3D": True, "class3D": {"nr_classes": 1}}, "A classification into 1 class"),
        ({"run_class3D": True, "keep_classes": "1"}, "the selection is automatic"),
        ({"run_class3D": True, "class3D": {"do_fast_subsets": "yes"}}, "Fast subsets need 20 iterations"),
        ({"run_class3D": True, "class_selection": "manual", "keep_classes": "1,5"}, "There is no class 5"),
        ({"run_class3D": True, "class_selection": "manual", "keep_classes": "1", "best_class": 2}, "class, 2, is not"),
        ({"run_class3D": True, "class_selection": "both"}, "classification.selection"),
        ({"run_class3D": True, "classification": {"binning": 8}}, "at bin 8"),
    ],
)
def test_what_does_not_go_together(tmp_path, params, text):
    with pytest.raises(ProblemError) as error:
        load_datasets(request(tmp_path, **params))
    assert text in str(error.value)


def test_the_particle_plot_and_the_mtf_reach_the_recipe(tmp_path):
    recipe = RECIPE | {"postprocess": {"fn_mtf": "other.star"}}
    (found,) = load_datasets(request(tmp_path, recipe, particle_plot=True))["datasets"]
    assert found["recipe"]["map_analysis"]["particle_plot"] == "yes"
    assert found["recipe"]["postprocess"]["fn_mtf"] == str(tmp_path / "other.star")
    (found,) = load_datasets(request(tmp_path, particle_plot=False))["datasets"]
    assert found["recipe"]["map_analysis"]["particle_plot"] == "no"


def test_class_parameters_reach_the_recipe(tmp_path):
    (found,) = load_datasets(request(
        tmp_path, run_class3D=True, class_selection="manual", keep_classes=2, best_class=2
    ))["datasets"]  # fmt: skip
    block = found["recipe"]["classification"]
    assert (block["run"], block["selection"], block["keep_classes"], block["best_class"]) == ("yes", "manual", [2], 2)
    (found,) = load_datasets(request(tmp_path))["datasets"]
    assert found["recipe"]["classification"]["run"] == "no"
