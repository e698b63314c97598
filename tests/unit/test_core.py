"""Pure functions of the core: numbers, names, parameter file, plan."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from helpers import REPO
from scipy.spatial.transform import Rotation

from py2rely_core.data.geometry import euler_to_matrix, matrix_to_euler, orientations, true_positions
from py2rely_core.data.particles import without_duplicates
from py2rely_core.data.symmetry import asymmetric_unit, into_asymmetric_unit, parse_point_group, rotations_of
from py2rely_core.data.tables import read_star, split_image_name, write_star
from py2rely_core.parameters import recipe_docs
from py2rely_core.parameters.boxes import BOX_SIZES, box_size, crop_and_box
from py2rely_core.parameters.files import load_recipe, new_recipe, parse_recipe, write_recipe
from py2rely_core.parameters.request import load_datasets
from py2rely_core.parameters.sampling import healpix_order, sampling_order
from py2rely_core.parameters.table import CONFIGURATION, RUN_PARAMETERS
from py2rely_core.planning.plan import Machine, plan_dataset, refinement_ranks, tomo_ranks
from py2rely_core.planning.resources import Workload, add_memory
from py2rely_core.problems import ExitCode, Problem, ProblemError, format_problems


def recipe(**changes):
    options = {"tilt_series": "ts.star", "particles": "p.star", "pixel_size": 1.54, "symmetry": "C1", "low_pass": 50}
    options |= {"diameter": 290, "denovo": False, "box_scaling": 2.0, "binnings": "4,2,1", "threads": 8}
    return new_recipe(**options | changes)


def test_boxes_of_the_reference_example():
    assert [box_size(290, 1.54, binning, 2.0) for binning in (4, 2, 1)] == [96, 192, 384]
    assert crop_and_box(290, 1.54, 4, 2.0) == (96, 96, None)
    assert crop_and_box(150, 2.5, 1, 1.5) == (96, 144 if 144 in BOX_SIZES else 168, 96)


def test_box_beyond_the_list_is_refused():
    with pytest.raises(ProblemError, match="larger than any"):
        crop_and_box(1500, 1.0, 1, 2.0)


def test_sampling():
    assert sampling_order("7.5 degrees") == 2
    assert healpix_order(2.5, 2, 150) == 2
    assert healpix_order(2.5, 1, 300) == 5 - 1
    with pytest.raises(ProblemError, match="no angular sampling"):
        sampling_order("8 degrees")


@pytest.mark.parametrize("name", ["C1", "c7", "D2", "T", "O", "I", "I3"])
def test_point_groups_are_closed(name):
    rotations = rotations_of(name)
    matrices = rotations.as_matrix()
    expected = {"C1": 1, "c7": 7, "D2": 4, "T": 12, "O": 24, "I": 60, "I3": 60}[name]
    assert len(rotations) == expected
    products = np.einsum("aij,bjk->abik", matrices, matrices).reshape(-1, 3, 3)
    distance = np.abs(products[:, None] - matrices[None]).max((2, 3)).min(1)
    assert distance.max() < 1e-9


@pytest.mark.parametrize("name", ["X2", "C0", "", "D", "I9"])
def test_unknown_point_group(name):
    with pytest.raises(ProblemError, match="not a point group"):
        parse_point_group(name)


def test_euler_angles_round_trip():
    matrices = Rotation.random(50, rng=np.random.default_rng(3)).as_matrix()
    assert np.allclose(euler_to_matrix(matrix_to_euler(matrices)), matrices)


def test_positions_and_orientations_with_subtomogram_frames():
    rng = np.random.default_rng(1)
    angles = rng.uniform(0, 180, (2, 5, 3))
    table = pd.DataFrame(rng.normal(size=(5, 6)), columns=[
        *[f"rlnCenteredCoordinate{a}Angst" for a in "XYZ"], *[f"rlnOrigin{a}Angst" for a in "XYZ"]])  # fmt: skip
    for i, name in enumerate(("Rot", "Tilt", "Psi")):
        table[f"rlnTomoSubtomogram{name}"], table[f"rlnAngle{name}"] = angles[0][:, i], angles[1][:, i]
    frame, own = euler_to_matrix(angles[0]), euler_to_matrix(angles[1])
    assert np.allclose(orientations(table), frame @ own)
    shift = np.einsum("nij,nj->ni", frame, table.iloc[:, 3:6])
    assert np.allclose(true_positions(table), table.iloc[:, :3] - shift)


def test_of_duplicates_the_better_one_is_kept():
    table = pd.DataFrame({
        "rlnTomoName": ["a", "a", "b", "a"],
        "rlnCenteredCoordinateXAngst": [0.0, 5, 0, 100], "rlnCenteredCoordinateYAngst": 0.0,
        "rlnCenteredCoordinateZAngst": 0.0, "rlnOriginXAngst": [0.0, 0, 0, 97], "rlnOriginYAngst": 0.0,
        "rlnOriginZAngst": 0.0, "rlnLogLikeliContribution": [1.0, 2, 0, 3],
    })  # fmt: skip
    kept = without_duplicates(table, 10)
    assert list(kept.index) == [2, 3]
    assert len(without_duplicates(table, 1)) == 4


def test_problems_name_everything():
    text = format_problems([Problem("Broken.", "file", "whole", "Mend it.")])
    assert all(word in text for word in ("Broken.", "file", "whole", "Mend it."))


def test_star_files_keep_names_as_text(tmp_path):
    write_star(
        {"particles": pd.DataFrame({"rlnTomoName": ["001", "002"], "rlnOpticsGroup": [1, 1]})}, tmp_path / "p.star"
    )
    assert list(read_star(tmp_path / "p.star")["particles"]["rlnTomoName"]) == ["001", "002"]
    assert split_image_name("12@a/b.mrcs") == (12, "a/b.mrcs")


@pytest.mark.parametrize("content", ["", "nothing of a star file\n"])
def test_broken_star_file(tmp_path, content):
    (tmp_path / "x.star").write_text(content)
    with pytest.raises(ProblemError, match=r"x\.star"):
        read_star(tmp_path / "x.star")


# The parameter file


def test_recipe_round_trip(tmp_path):
    write_recipe(recipe(), tmp_path / "sta.json")
    assert load_recipe(tmp_path / "sta.json") == recipe()
    data = json.loads((tmp_path / "sta.json").read_text())
    assert data["resolutions"]["binning_list"] == "[4, 2, 1]"
    assert data["refine3D"]["do_ctf_correction"] == "yes"
    assert data["ctf_refine"]["lambda"] == 0.1


def test_misspelt_keys_name_the_nearest():
    with pytest.raises(ProblemError, match="ini_high") as error:
        parse_recipe({"refine3D": {"ini_hihg": 40}, "resolution": {}}, "file")
    assert "resolutions" in str(error.value)
    assert error.value.exit_code == ExitCode.BAD_PARAMETERS


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"binnings": "1,2"}, "descending"), ({"binnings": "4,4"}, "descending"), ({"binnings": ""}, "descending"),
        ({"symmetry": "Q3"}, "point group"), ({"box_scaling": 0.5}, "larger than the box"),
        ({"diameter": 2500}, "larger than any"), ({"diameter": -1}, "not positive"),
        ({"pixel_size": 0}, "not positive"),
        ({"low_pass": 5}, "finer than the first level"),
    ],
)  # fmt: skip
def test_impossible_values(changes, text):
    with pytest.raises(ProblemError, match=text):
        recipe(**changes)


def test_level_overrides():
    data = recipe().model_dump(by_alias=True)
    good = parse_recipe(data | {"levels": {"2": {"refine3D": {"nr_pool": 5}}}}, "file")
    assert (good.block_at(2, "refine3D").nr_pool, good.block_at(4, "refine3D").nr_pool) == (5, 30)
    for levels, text in (
        ({"3": {}}, "no level at bin 3"),
        ({"2": {"refine": {}}}, "refine3D"),
        ({"2": {"refine3D": {"nr_pol": 5}}}, "nr_pool"),
        ({"2": {"refine3D": {"nr_pool": "many"}}}, "nr_pool"),
    ):
        with pytest.raises(ProblemError, match=text):
            parse_recipe(data | {"levels": levels}, "file")


# Machine and plan


@pytest.mark.parametrize("gpus", [0, 1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("cpus", [1, 2, 3, 7, 16, 64])
def test_ranks_fit_any_machine(gpus, cpus):
    machine = Machine.of(cpus, ",".join(map(str, range(gpus))))
    ranks, threads, listed = refinement_ranks(machine, 8)
    assert ranks >= 3
    assert ranks % 2 == 1
    assert threads >= 1
    assert (ranks - 1) * threads <= max(cpus, 2 if not gpus else 2 * ((gpus + 1) // 2))
    if gpus:
        assert len(listed.split(":")) == ranks - 1
        assert set(listed.split(":")) == {str(n) for n in range(gpus)}
    for n in (1, 3, 50):
        ranks, threads = tomo_ranks(machine, 8, n)
        assert 1 <= ranks <= n
        assert ranks * threads <= cpus


@pytest.mark.parametrize("binnings", [[4, 2, 1], [4], [8, 4], [2], [4, 1], [6, 3, 1]])
@pytest.mark.parametrize("mode", ["template", "denovo", "known"])
def test_plan(binnings, mode):
    text = ",".join(map(str, binnings))
    plan = plan_dataset(recipe(binnings=text, denovo=True, low_pass=60), mode, 2, Machine(4))
    assert [level["binning"] for level in plan["levels"]] == binnings
    assert plan["initial_reference"]["mode"] == mode
    for level in plan["levels"]:
        one = level["binning"] == 1
        assert (level["extract"]["crop"] == level["size"]) == one
        assert (level["extract"]["box"] >= 1.5 * level["size"]) == one
        assert level["select"]["distance"] == (0.3 * 290 if level is plan["levels"][0] else 0)
    json.dumps(plan)


def _programs(block):
    """Every block of a plan that a program is run with."""
    if isinstance(block, dict):
        yield from [block] if "threads" in block else []
        for value in block.values():
            yield from _programs(value)
    elif isinstance(block, list):
        for value in block:
            yield from _programs(value)


def test_every_program_gets_memory():
    """Also the refinement of the particles of chosen classes."""
    data = recipe(denovo=True).model_dump(by_alias=True)
    data |= {"classification": {"run": True}, "ctf_refine": {}, "bayesian_polish": {}}
    data["map_analysis"] = {"local_resolution": "yes"}
    data["class3D"]["nr_classes"] = 3
    plan = plan_dataset(parse_recipe(data, "file"), "denovo", 2, Machine(4))
    add_memory(plan, Workload(particles=1000, tilts=41, image=(4000, 4000)))
    programs = list(_programs(plan))
    assert plan["levels"][0]["classification"]["refine"] in programs
    assert len(programs) > 10
    assert [one for one in programs if not one.get("memory", 0) > 0] == []


def test_known_orientations_are_searched_locally_unless_asked():
    data = recipe().model_dump(by_alias=True)
    assert "--sigma_ang 5" in plan_dataset(recipe(), "known", 2, Machine(2))["levels"][0]["refine"]["options"]
    free = parse_recipe(data | {"initial_reference": {"known_search": "global"}}, "file")
    assert "--sigma_ang" not in plan_dataset(free, "known", 2, Machine(2))["levels"][0]["refine"]["options"]


def test_other_args_reach_their_program():
    data = recipe(denovo=True).model_dump(by_alias=True)
    for block in ("refine3D", "class3D", "initial_model", "pseudo_subtomo", "reconstruct", "mask_create"):
        data[block]["other_args"] = f"--mine_{block}"
    data["postprocess"]["other_args"] = "--mine_postprocess"
    one = parse_recipe(data, "file")
    level = plan_dataset(one, "template", 2, Machine(2))["levels"][0]
    assert "--mine_refine3D" in level["refine"]["options"]
    assert "--mine_pseudo_subtomo" in level["extract"]["options"]
    assert "--mine_reconstruct" in level["reconstruct"]["options"]
    assert "--mine_mask_create" in level["mask"]["options"]
    assert "--mine_postprocess" in level["postprocess"]["options"]
    assert "--mine_class3D" in plan_dataset(one, "template", 2, Machine(2))["initial_reference"]["options"]
    assert "--mine_initial_model" in plan_dataset(one, "denovo", 2, Machine(2))["initial_reference"]["options"]


# The request


def request(tmp_path, **params):
    return {"launch_dir": str(tmp_path), "params": params}


def test_parameter_file_blocks_and_command_line_meet(tmp_path):
    write_recipe(recipe(), tmp_path / "sta.json")
    blocks = recipe().model_dump(by_alias=True)
    from_file = load_datasets(request(tmp_path, parameter="sta.json"))["datasets"][0]
    from_blocks = load_datasets(request(tmp_path, **blocks))["datasets"][0]
    assert from_file == from_blocks
    assert from_file["mode"] == "known"
    assert from_file["particles"] == str(tmp_path / "p.star")
    changed = load_datasets(request(tmp_path, parameter="sta.json", refine3D={"ini_high": 60}))["datasets"][0]
    assert changed["recipe"]["refine3D"]["ini_high"] == 60
    assert changed["recipe"]["refine3D"]["particle_diameter"] == 290


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"paramter": "x"}, "parameter"), ({"referenceTemplate": "x"}, "reference_template"),
        ({"sample-sheet": "x"}, "--sample_sheet"), ({"refine3d": {}}, "refine3D"), ({}, "no parameter file"),
        ({"parameter": "none.json"}, "missing"), ({"sample_sheet": "none.csv"}, "missing"),
        ({"parameter": "sta.json", "reference_template": "a.mrc", "run_denovo_generation": True}, "both asked for"),
        ({"parameter": "bad.json"}, "not JSON"),
    ],
)  # fmt: skip
def test_request_problems(tmp_path, params, text):
    write_recipe(recipe(), tmp_path / "sta.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ProblemError, match=text):
        load_datasets(request(tmp_path, **params))


def test_kebab_case_of_the_reference_is_understood(tmp_path):
    write_recipe(recipe(), tmp_path / "sta.json")
    params = {"parameter": "sta.json", "run-denovo-generation": True, "runDenovoGeneration": True}
    assert load_datasets(request(tmp_path, **params))["datasets"][0]["mode"] == "denovo"


def test_sample_sheet(tmp_path):
    write_recipe(recipe(), tmp_path / "sta.json")
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("id,parameters,reference_template,run_denovo_generation\na,sta.json,ref.mrc,\nb,sta.json,,true\n")
    found = load_datasets(request(tmp_path, sample_sheet="sheet.csv"))["datasets"]
    assert [(one["id"], one["mode"], one["project"]) for one in found] == [("a", "template", "a"), ("b", "denovo", "b")]
    sheet.write_text("id,parameter\na b,sta.json\na,sta.json\na,sta.json\nmain,sta.json\n")
    with pytest.raises(ProblemError) as error:
        load_datasets(request(tmp_path, sample_sheet="sheet.csv"))
    for text in ("Unknown column 'parameter'", "'a b' is no usable id", "used twice", "'main' is no usable id"):
        assert text in str(error.value)


@pytest.mark.parametrize(
    "group", ["C1", "C2", "C3", "C7", "D1", "D2", "D3", "D7", "T", "O", "I", "I1", "I2", "I3", "I4"]
)
def test_every_orientation_has_one_equivalent_in_the_asymmetric_unit(group):
    matrices = Rotation.random(500, rng=np.random.default_rng(1)).as_matrix()
    operators, normals = rotations_of(group).as_matrix(), asymmetric_unit(group)
    inside = [((matrices @ one)[:, 2] @ normals.T > 0).all(axis=1) for one in operators]
    assert (np.sum(inside, axis=0) == 1).all()
    moved = into_asymmetric_unit(matrices, group)
    assert (moved[:, 2] @ normals.T > 0).all()
    # Still the same orientation, but for one of the group's rotations.
    between = np.einsum("nji,njk->nik", matrices, moved)
    distances = np.abs(between[:, None] - operators).max(axis=(2, 3)).min(axis=1)
    assert distances.max() < 1e-6


def test_the_page_of_the_recipe_is_that_of_the_models():
    page = recipe_docs.as_markdown()
    assert (REPO / "docs/recipe.md").read_text() == f"{page}\n", recipe_docs.__doc__
    assert "None" not in page


def test_the_page_of_parameters_knows_every_parameter_of_a_run_and_no_other():
    page = (REPO / "docs/parameters.md").read_text().split("## The parameter file")[0]
    named = set(re.findall(r"`--(\w+)`", page))
    assert set(RUN_PARAMETERS) <= named
    assert named <= {*RUN_PARAMETERS, *CONFIGURATION}
    clusters = (REPO / "docs/clusters.md").read_text()
    assert not [name for name in CONFIGURATION if name not in page + clusters]
