"""Whether orientations follow from images: the parts of the tilts, the verdict, and what is told of both."""

import json

import mrcfile
import numpy as np
import pandas as pd
import pytest
from report_fixture import make_jobs, make_plan, orientation_test
from scipy.spatial.transform import Rotation

from py2rely_core.checks.context import CheckContext
from py2rely_core.checks.reference import check_reference
from py2rely_core.data.geometry import matrix_to_euler
from py2rely_core.data.inputs import Inputs
from py2rely_core.data.symmetry import angles_between, rotations_of
from py2rely_core.data.tables import read_star, write_star
from py2rely_core.judging.orientations import check_orientations, consistency, finest_useful, write_parts
from py2rely_core.judging.tilt_parts import parts_of
from py2rely_core.maps.filters import gaussian_low_pass
from py2rely_core.maps.io import Map, write_map
from py2rely_core.maps.masks import spherical_mask
from py2rely_core.maps.shape import LARGEST, LITTLE, LOW_PASSES, Seen, power_off_ball, power_off_cylinder
from py2rely_core.parameters.recipe import Recipe
from py2rely_core.planning.low_pass import template_low_pass, with_low_passes
from py2rely_core.planning.plan import Machine, plan_dataset
from py2rely_core.results.collect import collect_results, summary
from py2rely_core.simulation.structures import KNOWN, density, structure_of

GROUPS = ["C1", "C7", "D2", "O"]


def poses(count, seed=0):
    return Rotation.random(count, rng=np.random.default_rng(seed)).as_matrix()


def near(matrices, degrees, group, seed=1):
    """The same orientations, off by some degrees, each by another of the group's equivalents."""
    rng = np.random.default_rng(seed)
    operators = rotations_of(group).as_matrix()
    axes = rng.normal(size=(len(matrices), 3))
    error = Rotation.from_rotvec(degrees * axes / np.linalg.norm(axes, axis=1, keepdims=True), degrees=True).as_matrix()
    return matrices @ error @ operators[rng.integers(len(operators), size=len(matrices))]


@pytest.mark.parametrize("group", GROUPS)
def test_angles_are_modulo_the_group(group):
    first = poses(50)
    found = angles_between(first, near(first, 9.0, group), rotations_of(group).as_matrix())
    assert np.allclose(found, 9.0, atol=1e-6)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize(("right", "judgement"), [(0.0, "not determined"), (0.3, "partly"), (0.9, "consistent")])
def test_verdict_follows_the_share_that_is_determined(group, right, judgement):
    """Whatever chance does: it is large in large groups."""
    count = 100
    first, second = poses(count), poses(count, seed=5)
    same = int(right * count)
    second[:same] = near(first[:same], 6.0, group)
    found = consistency(first, second, np.arange(count) % 2 + 1, group)
    assert found.judgement == judgement
    assert found.share == pytest.approx(right, abs=0.06)
    chance = angles_between(poses(4000, 8), poses(4000, 9), rotations_of(group).as_matrix()) <= 15
    assert found.chance == pytest.approx(chance.mean(), abs=0.01)
    assert f"{found.within} of {count} particles" in found.text
    assert ("do not interpret" in found.text) == (judgement == "not determined")


@pytest.mark.parametrize("group", ["C7", "D7", "C12", "D2"])
def test_a_cylinder_has_an_axis_and_no_orientation(group):
    """With D7, half of the particles agree within 15 degrees whatever the rotation around the axis is."""
    count = 100
    first = near(poses(count), 4.0, group, 2)
    turns = Rotation.from_euler("z", np.random.default_rng(4).uniform(0, 360, (count, 1)), degrees=True).as_matrix()
    found = consistency(first, near(first @ turns, 4.0, group), np.arange(count) % 2 + 1, group)
    assert found.within > 0.6 * count * min(1, 30 / 360 * int(group[1:]))
    assert found.same_axis == count
    assert found.judgement == "not determined"
    assert "100 have the same axis" in found.text
    whole = consistency(first, near(first, 4.0, group), np.arange(count) % 2 + 1, group)
    assert whole.judgement == "consistent"
    assert "axis" not in whole.text


def test_what_all_particles_prefer_is_chance():
    """A missing wedge, or a map's own anisotropy, may draw all particles to one orientation: that determines none."""
    count = 100
    one = np.repeat(poses(1), count, axis=0)
    found = consistency(near(one, 4.0, "C1", 1), near(one, 4.0, "C1", 2), np.arange(count) % 2 + 1, "C1")
    assert found.within == count
    assert found.judgement == "not determined"


def test_a_few_particles_that_agree_by_luck_are_not_enough():
    count = 20
    first, second = poses(count), poses(count, seed=3)
    second[:2] = near(first[:2], 1.0, "O")
    assert consistency(first, second, np.arange(count) % 2 + 1, "O").judgement == "not determined"


def test_parts_have_as_many_images_and_as_much_dose():
    doses = np.random.default_rng(0).permutation(40) * 3.0
    parts = parts_of(doses)
    assert [int((parts == part).sum()) for part in (0, 1)] == [20, 20]
    assert doses[parts == 0].sum() == doses[parts == 1].sum()
    assert set(parts_of(np.zeros(5))) == {0, 1}


@pytest.fixture
def refined(tmp_path, monkeypatch):
    """Refined particles with 2D stacks whose images are numbered, one particle seen in three tilts only."""
    monkeypatch.chdir(tmp_path)
    tilts = pd.DataFrame({"rlnMicrographPreExposure": [12.0, 6.0, 0.0, 3.0, 9.0]})
    write_star({"TS 1": tilts}, tmp_path / "ts.star")
    write_star({"global": pd.DataFrame({"rlnTomoName": ["1"], "rlnTomoTiltSeriesStarFile": ["ts.star"]})},
               tmp_path / "tomograms.star")  # fmt: skip
    rows = []
    for number, frames in enumerate(([1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [0, 1, 0, 1, 1], [1, 1, 1, 1, 0])):
        path = tmp_path / f"{number}_stack2d.mrcs"
        seen = np.flatnonzero(frames)
        with mrcfile.new(path) as file:
            file.set_data((np.ones((1, 6, 6)) * seen[:, None, None]).astype(np.float16))
            file.set_image_stack()
            file.voxel_size = 10.0
        rows.append({"rlnTomoName": "1", "rlnTomoParticleName": f"1/{number}", "rlnRandomSubset": number % 2 + 1,
                     "rlnTomoVisibleFrames": str(frames).replace(" ", ""), "rlnImageName": str(path)})  # fmt: skip
    general = pd.DataFrame({"rlnTomoSubTomosAre2DStacks": [1]})
    write_star({"general": general, "particles": pd.DataFrame(rows)}, tmp_path / "particles.star")
    return tmp_path


def test_each_part_has_its_own_images(refined):
    job = refined / "Orientations/bin4"
    job.mkdir(parents=True)
    write_parts(job, refined / "particles.star", refined / "tomograms.star", most=200)
    found = pd.concat([read_star(job / f"half{half}.star")["particles"] for half in (1, 2)])
    assert sorted(found["rlnTomoParticleName"]) == ["1/0_0", "1/0_1", "1/1_0", "1/1_1", "1/3_0", "1/3_1"]
    assert int(read_star(job / "half1.star")["general"]["rlnTomoSubTomosAre2DStacks"].iloc[0]) == 1
    for name, rows in found.groupby(found["rlnTomoParticleName"].str[:-2]):
        seen = []
        for row in rows.itertuples():
            frames = np.flatnonzero(json.loads(row.rlnTomoVisibleFrames))
            with mrcfile.open(row.rlnImageName) as file:
                assert file.data.dtype == np.float16
                assert file.data[:, 0, 0].tolist() == frames.tolist()
                assert float(file.voxel_size.x) == 10.0
            seen += frames.tolist()
        whole = read_star(refined / "particles.star")["particles"].set_index("rlnTomoParticleName")
        assert sorted(seen) == np.flatnonzero(json.loads(whole.loc[name, "rlnTomoVisibleFrames"])).tolist()


def searched(job, count=40, right=1.0, halves=(1, 2)):
    """What RELION leaves of the search."""
    job.mkdir(parents=True)
    (job / "images").mkdir()
    for half in halves:
        first = poses(count, half)
        same = np.arange(count)[:, None, None] < right * count
        second = np.where(same, near(first, 3.0, "O"), poses(count, half + 9))
        angles = matrix_to_euler(np.concatenate([first, second]))
        names = [f"TS_{number}/1_{part}" for part in (0, 1) for number in range(count)]
        columns = dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), angles.T, strict=True))
        table = pd.DataFrame({"rlnTomoParticleName": names} | columns)
        write_star({"particles": table.sample(frac=1, random_state=1)}, job / f"run_half{half}_it001_data.star")
    return job


@pytest.mark.parametrize(("right", "judgement"), [(1.0, "consistent"), (0.0, "not determined")])
def test_the_job_notes_its_verdict_and_leaves_no_images(tmp_path, right, judgement):
    job = searched(tmp_path / "bin4", right=right)
    check_orientations(job, "O")
    numbers = json.loads((job / "job.json").read_text())
    assert numbers["orientations"]["judgement"] == judgement
    assert numbers["warnings"] == ([] if judgement == "consistent" else [numbers["orientations"]["text"]])
    assert sum(numbers["orientations"]["counts"]) == 80
    assert sorted(path.name for path in job.iterdir()) == ["job.json", "orientations.star"]
    table = read_star(job / "orientations.star")["particles"]
    assert (table["py2relyAnglesApart"] <= 15).sum() == numbers["orientations"]["within"]


@pytest.mark.parametrize("halves", [(), (1,)])
def test_a_search_that_failed_is_said(tmp_path, halves):
    check_orientations(searched(tmp_path / "bin4", halves=halves), "O")
    numbers = json.loads((tmp_path / "bin4/job.json").read_text())
    assert numbers["orientations"]["judgement"] == "not tested"
    assert "relion_refine failed" in numbers["warnings"][0]


@pytest.mark.parametrize(
    ("given", "start", "why"),
    [
        ({}, "picks", ""),
        ({"orientations": {"test": "no"}}, "picks", "orientations.test"),
        ({"pseudo_subtomo": {"do_output_2dstacks": "no"}}, "picks", "pseudo-subtomograms"),
        ({"pseudo_subtomo": {"do_real_subtomo": "yes"}}, "picks", "extracted as subtomograms"),
        ({"refine3D": {"sym_name": "C2v"}}, "picks", "more than rotations"),
        ({"helix": {"outer_diameter": 100}}, "picks", "filament"),
        ({"resolutions": {"binning_list": "1"}}, "polish", "began with polishing"),
    ],
)
def test_where_it_is_not_tested_the_plan_says_why(given, start, why):
    recipe = Recipe.model_validate(given)
    level = plan_dataset(recipe, "known", 4, Machine(2), start)["levels"][0]
    assert why in level["orientations_untested"]
    assert bool(level["orientations"]) == (why == "")


def test_no_option_of_the_recipe_holds_orientations_in_place():
    recipe = Recipe.model_validate(
        {"refine3D": {"other_args": "--sigma_ang 1"}, "priors": {"sigma_tilt": 5}, "orientations": {"particles": 50}}
    )
    settings = plan_dataset(recipe, "known", 4, Machine(2))["levels"][0]["orientations"]
    assert "sigma" not in settings["options"]
    assert settings["most"] == 50
    assert settings["finest"] == pytest.approx(finest_useful(recipe.refine3D.particle_diameter), abs=0.01)


@pytest.mark.parametrize("judgement", ["consistent", "partly", "not determined"])
def test_no_resolution_without_the_verdict(judgement):
    jobs = make_jobs(polished=False)
    jobs["Orientations/bin1"]["orientations"] = orientation_test(judgement)
    results = collect_results(make_plan(), {"ribosome": jobs})
    final = results["datasets"][0]["final"]
    assert final["orientations"] == judgement
    first = summary(results).splitlines()[:2]
    assert ("ORIENTATIONS NOT DETERMINED" in first[0]) == (judgement == "not determined")
    assert final["orientations_text"] in first[1]


def test_what_was_not_tested_says_so():
    jobs = make_jobs(polished=False)
    del jobs["Orientations/bin1"]
    plan = make_plan()
    plan["datasets"][0]["levels"][-1]["orientations_untested"] = "nobody asked"
    final = collect_results(plan, {"ribosome": jobs})["datasets"][0]["final"]
    assert final["orientations"] == "not tested"
    assert final["orientations_text"] == "Orientations were not tested: nobody asked."


@pytest.mark.parametrize(
    ("structure", "low_pass", "least", "most"),
    [("apoferritin", 50, 0.003, 0.01), ("apoferritin", 20, 0.02, 0.05), ("ribosome", 50, 0.15, 0.25)],
)
def test_how_much_a_template_differs_from_a_ball(structure, low_pass, least, most):
    """Also where it is not in the middle of its box."""
    box, pixel_size = (64, 4.0) if structure == "apoferritin" else (96, 5.0)
    data = density(structure_of(structure, pixel_size), box, pixel_size)
    for moved in (0, 3):
        source = Map(np.roll(data, moved, axis=0), pixel_size)
        assert least < Seen(source, KNOWN[structure].diameter).shape(low_pass) < most


def test_a_ball_is_one():
    ball = gaussian_low_pass(spherical_mask(64, 16), 1.0, 8.0)
    assert power_off_ball(ball) < 1e-3
    assert power_off_cylinder(ball) < 1e-3
    assert max(Seen(Map(ball, 1.0), 32).change(8.0, degrees) for degrees in (7.5, 45)) < 3e-3


def cylinder(pillars=0):
    """Along z, 64 voxels of 4 A; with pillars on its surface."""
    axis = np.arange(64) - 32
    z, y, x = axis[:, None, None], axis[None, :, None], axis[None, None, :]
    data = ((np.hypot(y, x) < 12) & (abs(z) < 18)).astype(np.float32)
    for angle in np.arange(pillars) * 2 * np.pi / max(pillars, 1):
        data += (np.hypot(y - 14 * np.sin(angle), x - 14 * np.cos(angle)) < 4) & (abs(z) < 18)
    return Map(gaussian_low_pass(data, 4.0, 12.0), 4.0)


def test_a_large_particle_is_seen_on_few_voxels():
    """A virus of 700 A: no more is computed than fits, and no low-pass that this does not hold."""
    seen = Seen(Map(gaussian_low_pass(spherical_mask(80, 38), 10.0, 25.0), 10.0), 700)
    assert list(seen.low_passes(60)) == [50, 45, 40, 35, 30, 25]
    seen = Seen(Map(spherical_mask(80, 30), 1.0), 2000)
    assert list(seen.low_passes(100)) == [60, 50, 45, 40]
    assert len(seen.to(40)) <= LARGEST


def test_a_cylinder_on_its_axis_is_one():
    """No ball, and all the same there is no rotation around its axis to find."""
    plain, with_pillars = Seen(cylinder(), 160), Seen(cylinder(7), 160)
    assert plain.shape(20.0) > 0.1
    assert plain.shape(20.0, "D7") < 2e-3
    assert with_pillars.shape(20.0, "C7") > LITTLE
    assert with_pillars.shape(60.0, "C7") < LITTLE
    small, large = (plain.change(20.0, degrees) for degrees in (7.5, 90))
    assert 0 < small < 0.3 * large


def test_a_template_that_is_nearly_a_cylinder_is_warned_of(tmp_path):
    write_map(tmp_path / "t.mrc", cylinder(7).data, 4.0)
    fields = {"particle_diameter": 160, "ini_high": 60, "sym_name": "D7"}
    recipe = Recipe.model_validate({"refine3D": fields, "class3D": {"ini_high": 40}})
    inputs = Inputs(tmp_path, tmp_path / "p.star", tmp_path / "t.star")
    (found,) = check_reference(CheckContext(recipe, inputs, "template", tmp_path / "t.mrc"))
    assert "nearly a cylinder" in found.what
    assert "turned by the search's 7.5 degrees it changes by" in found.what
    assert "Give it to about" in found.fix


@pytest.mark.parametrize(("structure", "diameter", "finer"), [("apoferritin", 130, True), ("ribosome", 290, None)])
def test_a_template_that_is_nearly_a_ball_is_warned_of(tmp_path, structure, diameter, finer):
    write_map(tmp_path / "t.mrc", density(structure_of(structure, 5.0), 2 * diameter // 6, 5.0), 5.0)
    coarse = {"refine3D": {"particle_diameter": diameter, "ini_high": 50}, "class3D": {"ini_high": 25}}
    recipe = Recipe.model_validate(coarse)
    inputs = Inputs(tmp_path, tmp_path / "p.star", tmp_path / "t.star")
    found = list(check_reference(CheckContext(recipe, inputs, "template", tmp_path / "t.mrc")))
    assert [one.severity for one in found] == (["warning"] if finer else [])
    if finer:
        assert "nearly a ball" in found[0].what
        value = float(found[0].fix.split("--class3D.ini_high ")[1].split(")")[0])
        assert 10 < value < recipe.class3D.ini_high
    assert not list(check_reference(CheckContext(recipe, inputs, "known", tmp_path / "t.mrc")))


def test_the_first_low_pass_where_none_is_given():
    """By size, and finer for what is nearly a ball to this; what is given stays."""
    maps = {name: Map(density(structure_of(name, 5.0), 84, 5.0), 5.0) for name in ("apoferritin", "ribosome")}

    def chosen(diameter, template=None, angpix=1.5, **given):
        resolutions = {"angpix": angpix, "binning_list": [4]}
        blocks = {"refine3D": {"particle_diameter": diameter} | given, "resolutions": resolutions}
        return with_low_passes(Recipe.model_validate(blocks), maps.get(template))

    assert template_low_pass(chosen(150)) == 50
    assert template_low_pass(chosen(290)) == 60
    assert template_low_pass(chosen(290, "ribosome")) == 60
    found = template_low_pass(chosen(150, "apoferritin"))
    assert Seen(maps["apoferritin"], 150).shape(found) >= LITTLE
    coarser = min(one for one in LOW_PASSES if one > found)
    assert Seen(maps["apoferritin"], 150).shape(coarser) < LITTLE
    # No finer than the first level holds, though it be nearly a ball then.
    assert template_low_pass(chosen(150, "apoferritin", 4.0)) == 40
    # Nor finer than it shows more: this one ends at 40 A.
    maps["blurred"] = Map(gaussian_low_pass(maps["apoferritin"].data, 5.0, 40.0), 5.0)
    assert 25 <= template_low_pass(chosen(150, "blurred")) < 45
    assert template_low_pass(chosen(150, angpix=10.0)) == 80
    given = chosen(150, "apoferritin", ini_high=40.0)
    assert (given.refine3D.ini_high, template_low_pass(given)) == (40, 40)
