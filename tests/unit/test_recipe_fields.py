"""Fields of the recipe for what people set by themselves: what RELION is called with, and that RELION follows."""

import contextlib
import shlex
import subprocess
from dataclasses import asdict
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
from helpers import NOISY, TINY, make_data
from numpy.testing import assert_allclose

from py2rely_core.checks import machine, run_checks
from py2rely_core.checks.context import CheckContext
from py2rely_core.data.geometry import ANGLES, CENTRED, PRIORS, euler_to_matrix
from py2rely_core.data.import_job import import_inputs
from py2rely_core.data.inputs import load_inputs
from py2rely_core.data.symmetry import has_fixed_frame, rotations_of
from py2rely_core.data.tables import read_star, write_star
from py2rely_core.maps.io import read_map, write_map
from py2rely_core.maps.resample import resample
from py2rely_core.parameters.files import parse_recipe
from py2rely_core.planning.forecast import effort_of
from py2rely_core.planning.plan import Machine, helix_flags, plan_dataset, prior_flags
from py2rely_core.planning.resources import Workload, add_memory
from py2rely_core.problems import ProblemError
from py2rely_core.relion.tomograms import TABLE, make_tomograms, settle_subtomograms

BASE = {
    "resolutions": {"angpix": 5, "binning_list": "2,1", "box_scaling": 2},
    "refine3D": {"sym_name": "C1", "particle_diameter": 150, "ini_high": 50},
    "initial_model": {},
    "classification": {"run": "yes"},
    "class3D": {"nr_classes": 2, "dont_skip_align": "yes"},
}
TUBE = {"outer_diameter": 100, "inner_diameter": 20, "nr_asu": 3, "twist": 30, "rise": 8, "z_percentage": 0.25}


def recipe(**blocks):
    return parse_recipe(BASE | {name: BASE.get(name, {}) | fields for name, fields in blocks.items()}, "test")


def options(mode="template", **blocks):
    """The options of each step that aligns, by name."""
    plan = plan_dataset(recipe(**blocks), mode, 2, Machine(2))
    first, second = plan["levels"]
    found = {"start": plan["initial_reference"], "first": first["refine"], "classes": first["classification"]["run"],
             "second": second["refine"], "reconstruct": first["reconstruct"]}  # fmt: skip
    return {name: shlex.split(settings.get("options", "")) for name, settings in found.items()}


def with_flag(flag, *args, **blocks):
    return {name for name, words in options(*args, **blocks).items() if flag in words}


def value(words, flag):
    return words[words.index(flag) + 1]


@pytest.mark.parametrize(("block", "mode", "steps"), [
    ("refine3D", "template", {"first", "second"}), ("class3D", "template", {"start", "classes"}),
    ("initial_model", "denovo", {"start"}),
])  # fmt: skip
def test_blush(block, mode, steps):
    assert with_flag("--blush", mode) == set()
    assert with_flag("--blush", mode, **{block: {"do_blush": "yes"}}) == steps


def test_blush_needs_its_program(tmp_path, monkeypatch):
    planned = [machine.Planned(CheckContext(recipe(refine3D={"do_blush": "yes"}), None, "template", None), {})]
    monkeypatch.setenv("PATH", str(tmp_path))
    (missing,) = machine.check_blush(planned)
    assert missing.is_error and "has no program for it" in missing.what and missing.where == "refine3D.do_blush"
    program = tmp_path / machine.BLUSH
    program.write_text("#!/bin/sh\necho 'ModuleNotFoundError: torch' >&2; exit 1\n")
    program.chmod(0o755)
    (broken,) = machine.check_blush(planned)
    assert "does not run: ModuleNotFoundError: torch" in broken.what
    program.write_text("#!/bin/sh\nexit 0\n")
    assert list(machine.check_blush(planned)) == []
    assert list(machine.check_blush([machine.Planned(CheckContext(recipe(), None, "template", None), {})])) == []


def test_priors_hold_where_orientations_are_searched():
    priors = {"sigma_tilt": 4, "sigma_psi": 6, "keep_fixed": "yes"}
    assert with_flag("--sigma_tilt") == set()
    assert with_flag("--sigma_tilt", priors=priors) == with_flag("--sigma_psi", priors=priors) == {"start", "first"}
    assert with_flag("--keep_priors_fixed", priors=priors) == {"start", "first", "classes", "second"}
    assert with_flag("--sigma_tilt", "known", priors=priors) == set()  # within the search around what is known
    found = options(priors=priors, class3D={"sigma_tilt": 9, "do_local_ang_searches": "no"})
    assert [value(found[step], "--sigma_tilt") for step in ("start", "first", "classes")] == ["9", "4", "9"]
    assert with_flag("--sigma_tilt", "denovo", priors=priors) == {"start", "first"}


def test_a_helix():
    steps = {"start", "first", "classes", "second"}
    assert with_flag("--helix") == set()
    assert with_flag("--helix", helix=TUBE) == with_flag("--helical_rise_initial", helix=TUBE) == steps
    assert with_flag("--helical_rise", helix=TUBE) == {"reconstruct"}
    assert with_flag("--ignore_helical_symmetry", helix=TUBE) == set()
    plain = {"outer_diameter": 100}
    assert with_flag("--ignore_helical_symmetry", helix=plain) == steps
    assert with_flag("--helical_rise", helix=plain) == set()
    assert with_flag("--helical_keep_tilt_prior_fixed", helix=plain | {"keep_tilt_prior_fixed": "no"}) == set()


@pytest.mark.parametrize(("change", "field", "expected"), [
    ({"outer_diameter": -1}, "helix.outer_diameter", "at most refine3D.particle_diameter (150 A)"),
    ({"outer_diameter": 151}, "helix.outer_diameter", "at most"),
    ({"inner_diameter": 100}, "helix.inner_diameter", "< 100"),
    ({"rise": 0}, "helix.rise", "> 0"), ({"z_percentage": 0.4}, "helix.z_percentage", "less than 0.35"),
])  # fmt: skip
def test_a_helix_that_cannot_be(change, field, expected):
    with pytest.raises(ProblemError) as error:
        recipe(helix=TUBE | change)
    (problem,) = error.value.problems
    assert problem.where == f"test: {field}"
    assert expected in problem.expected


def test_the_solvent_corrected_fsc():
    for word, expected in (("yes", True), ("no", False)):
        plan = plan_dataset(recipe(refine3D={"solvent_correct_fsc": word}), "template", 2, Machine(2))
        assert {level["refine"]["solvent_correct_fsc"] for level in plan["levels"]} == {expected}


@pytest.mark.parametrize(("group", "fixed"), [("C1", False), ("C4", False), ("D1", False), ("D1H", False), ("D2", True),
                                              ("D10", True), ("T", True), ("O", True), ("I2", True)])  # fmt: skip
def test_groups_that_hold_a_map_in_its_place(group, fixed):
    assert has_fixed_frame(group) is fixed


SUBTOMOGRAMS = {"pseudo_subtomo": {"do_real_subtomo": "yes"}}


def test_subtomograms_in_real_space():
    """At the first level, in what is extracted, planned and forecast."""
    plans = {}
    for name, blocks in (("stacks", {}), ("subtomograms", SUBTOMOGRAMS)):
        plan = plan_dataset(recipe(**blocks), "template", 2, Machine(2))
        assert [level["extract"]["images"] for level in plan["levels"]] == [name, "stacks"]
        work = Workload(particles=100, tilts=20, image=(400, 400), voxels=4e10)
        add_memory(plan, work)
        plans[name] = plan | {"workload": asdict(work)}
    words = [shlex.split(level["extract"]["options"]) for level in plans["subtomograms"]["levels"]]
    assert "--real_subtomo" in words[0] and "--stack2d" not in words[0]
    assert "--stack2d" in words[1] and "--real_subtomo" not in words[1]
    memory = {name: [level["extract"]["memory"] for level in plan["levels"]] for name, plan in plans.items()}
    assert memory["subtomograms"][0] > 100 > memory["stacks"][0]  # a tomogram of 5e9 voxels
    assert memory["subtomograms"][1] == memory["stacks"][1]
    first, second = (
        [effort_of(f"Refine3D/bin{binning}", plan).seconds for plan in plans.values()] for binning in (2, 1)
    )
    assert second[0] == second[1]
    # Half a ball has 2 / 3 * edge times the pixels of half a disc; a stack has 20 of these.
    edge = plans["stacks"]["levels"][0]["size"]
    assert first[1] / first[0] == pytest.approx(2 / 3 * edge / 20, rel=0.1)


@pytest.mark.parametrize(("blocks", "where"), [
    (SUBTOMOGRAMS | {"resolutions": {"binning_list": "1"}}, "pseudo_subtomo.do_real_subtomo"),
    ({"levels": {"1": SUBTOMOGRAMS}}, "levels.1.pseudo_subtomo.do_real_subtomo"),
])  # fmt: skip
def test_subtomograms_that_cannot_be(blocks, where):
    with pytest.raises(ProblemError) as error:
        recipe(**blocks)
    assert [problem.where for problem in error.value.problems] == [f"test: {where}"]


@pytest.mark.parametrize(("version", "problems"), [("5.0.1", 1), ("5.1.0", 0), ("6.0-beta", 0)])
def test_subtomograms_need_a_newer_relion(monkeypatch, version, problems):
    monkeypatch.setattr(machine, "relion_version", lambda: version)
    for blocks, found in ((SUBTOMOGRAMS, problems), ({}, 0)):
        asked = recipe(**blocks)
        plan = plan_dataset(asked, "template", 2, Machine(2))
        planned = [machine.Planned(CheckContext(asked, None, "template", None), plan)]
        assert len(list(machine.check_subtomograms(planned))) == found


@pytest.mark.relion
def test_subtomograms_lie_where_their_table_says(tmp_path):
    """Points are in the middle of what is cut out around them, once the table says where that was."""
    (tmp_path / "point.csv").write_text("x,y,z,weight\n0,0,0,1000\n")
    point = {"structure": str(tmp_path / "point.csv"), "noise": 0.01, "tilt_step": 5.0}
    data = make_data(tmp_path / "data", **TINY | point)
    particles, tables = Path("Select/input/particles.star"), Path("Import/tilt_series/tomograms.star")
    import_inputs(Path("data/particles.star"), Path("data/tilt_series.star"), tmp_path, tmp_path / "place")
    job, made = Path("Extract/bin4"), Path("made")
    with contextlib.chdir(tmp_path / "place"):
        make_tomograms(job, particles, tables, 4, 1, made)
        command = f"relion_tomo_subtomo --t {made / TABLE} --p {particles} --o {job}/ --b 16 --bin 4 --real_subtomo"
        subprocess.run(command.split(), check=True, capture_output=True)
        settle_subtomograms(job, tables, made)
        assert not made.exists()
        assert read_star(job / "optimisation_set.star")[""]["rlnTomoTomogramsFile"].tolist() == [str(tables)]
        rows = read_star(job / "particles.star")["particles"]
        volumes = np.array([mrcfile.read(name) for name in rows["rlnImageName"]])
    truth = pd.read_csv(data / "truth/particles.csv", dtype={"tomogram": str})
    away = []
    for row, volume in zip(rows.itertuples(), volumes, strict=True):
        place = np.array([getattr(row, label) for label in CENTRED])
        own = truth[truth["tomogram"] == row.rlnTomoName][["x", "y", "z"]].to_numpy() - place
        expected = own[np.linalg.norm(own, axis=1).argmin()] / 20
        middle = volume[5:12, 5:12, 5:12]
        weights = np.clip(middle - 0.4 * middle.max(), 0, None)
        found = [np.average(grid, weights=weights) - 3 for grid in np.indices(middle.shape)[::-1]]
        away.append(np.array(found) - expected)
    assert np.abs(np.mean(away, axis=0)).max() < 0.15
    assert np.abs(away).max() < 0.4


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A small data set, imported: with priors, and 6 particles per filament."""
    path = tmp_path_factory.mktemp("fields")
    data = make_data(path / "data", **TINY | NOISY)
    picks = read_star(data / "particles.star")
    table = picks["particles"]
    table = table.assign(**{prior: table[label] for label, prior in PRIORS.items()})
    picks["particles"] = table.assign(rlnHelicalTubeID=np.arange(len(table)) // 6 + 1, rlnHelicalTrackLengthAngst=0.0)
    write_star(picks, data / "particles.star")
    return path


def test_what_the_preflight_says_of_priors_and_filaments(project, tmp_path):
    def said(table=lambda one: one, **blocks):
        inputs = load_inputs("data/particles.star", "data/tilt_series.star", project)
        inputs.particles = table(inputs.particles)
        found = run_checks(CheckContext(recipe(**blocks), inputs, "template", None))
        return {(one.severity, one.what) for one in found if "prior" in one.what.lower() or "filament" in one.what}

    bare = lambda one: one.drop(columns=[*PRIORS.values(), "rlnHelicalTubeID"])  # noqa: E731
    widths = {"sigma_tilt": 4, "sigma_psi": 6}
    assert said(priors=widths) == said(bare) == said(helix=TUBE, priors=widths) == set()
    assert said() == {("warning", f"The particles have {prior}, which is not used.") for prior in PRIORS.values()}
    assert {severity for severity, _ in said(bare, priors=widths | {"keep_fixed": "yes"})} == {"error"}
    assert len(said(bare, priors=widths | {"keep_fixed": "yes"})) == 3
    assert {severity for severity, _ in said(bare, helix=TUBE)} == {"warning"}


@pytest.mark.parametrize("group", ["C4", "D2", "O"])
def test_priors_are_turned_with_the_orientations(project, tmp_path, group):
    before = read_star(project / "data/particles.star")["particles"]
    given = [Path("data/particles.star"), Path("data/tilt_series.star"), project]
    _job, picks = import_inputs(*given, tmp_path, group)
    after = read_star(tmp_path / picks / "particles.star")["particles"]
    tilted = [after[label].to_numpy() for label in (ANGLES[0], *PRIORS.values())]
    own, prior = (euler_to_matrix(one.to_numpy(float)) for one in (after[ANGLES], pd.DataFrame(tilted).T))
    assert_allclose(own, prior, atol=1e-5)  # each particle lies on its prior, as before
    relative = euler_to_matrix(before[ANGLES].to_numpy(float)).transpose(0, 2, 1) @ own
    operators = rotations_of(group).as_matrix()
    assert all(np.abs(operators - one).max(axis=(1, 2)).min() < 1e-5 for one in relative)
    assert not np.allclose(before[ANGLES[1]], after[ANGLES[1]]) or group == "C4"


def extracted(project, place, **options):
    """The particles of `project`, imported and extracted in `place`."""
    import_inputs(Path("data/particles.star"), Path("data/tilt_series.star"), project, place, **options)
    tables = "--t Import/tilt_series/tomograms.star --p Select/input/particles.star"
    command = f"relion_tomo_subtomo {tables} --o Extract/ --b 48 --crop 32 --bin 2 --stack2d"
    subprocess.run(command.split(), cwd=place, check=True, capture_output=True)
    return place


@pytest.mark.relion
def test_dose_weighting_by_a_b_factor(project, tmp_path):
    """Late images lose more of their contrast the larger the B-factor; the first one has had no dose."""
    contrast = {}
    for factor in (0, 2, 20):
        place = extracted(project, tmp_path / str(factor), bfactor_per_dose=factor)
        stacks = sorted((place / "Extract").rglob("1_stack2d.mrcs"))
        contrast[factor] = np.mean([mrcfile.read(one).std(axis=(1, 2)) for one in stacks], axis=0)
    (tilts,) = read_star(next((project / "data/tilt_series").glob("*.star"))).values()
    dose = tilts["rlnMicrographPreExposure"]
    ratio = contrast[20] / contrast[2]
    assert_allclose(ratio[dose.argmin()], 1, atol=1e-3)
    assert ratio[dose.argmax()] < 0.99
    assert not np.allclose(contrast[0], contrast[2])


def refined(project, place, flags):
    """Tables (model, optimiser, particles) of an iteration of RELION on the project's particles, with more flags."""
    extracted(project, place)
    template = read_map(project / "data/template.mrc")
    write_map(place / "ref.mrc", resample(template.data, template.pixel_size, 10.0, 32), 10.0)
    command = "relion_refine --i Extract/particles.star --tomograms Import/tilt_series/tomograms.star --o ./run "
    command += "--ref ref.mrc --trust_ref_size --ini_high 50 --particle_diameter 150 --K 1 --iter 1 --flatten_solvent "
    command += "--zero_mask --ctf --norm --scale --pad 2 --j 1 --healpix_order 2 --offset_range 2 --offset_step 2 "
    words = [*command.split(), "--firstiter_cc", *shlex.split(" ".join(flags))]
    subprocess.run(words, cwd=place, check=True, capture_output=True)
    names = (("model", "model_general"), ("optimiser", "optimiser_general"), ("data", "particles"))
    return [read_star(place / f"run_it001_{name}.star")[block] for name, block in names]


@pytest.mark.relion
def test_relion_holds_particles_to_priors(project, tmp_path):
    asked = recipe(priors={"sigma_tilt": 1, "sigma_psi": 6, "keep_fixed": "yes"})
    model, _, table = refined(project, tmp_path, prior_flags(asked, around_known=False))
    assert model.loc[0, ["rlnSigmaPriorTiltAngle", "rlnSigmaPriorPsiAngle"]].tolist() == [1, 6]
    before = read_star(project / "data/particles.star")["particles"]
    assert_allclose(table["rlnAngleTiltPrior"], before["rlnAngleTiltPrior"], atol=1e-3)
    away = np.abs(table["rlnAngleTilt"] - table["rlnAngleTiltPrior"])
    assert away.max() < 15  # three sigma, and a step of 15 degrees; without priors they are anywhere


@pytest.mark.relion
def test_relion_refines_a_helix(project, tmp_path):
    asked = recipe(helix=TUBE, priors={"sigma_tilt": 1, "sigma_psi": 3})
    _, optimiser, _ = refined(project, tmp_path, prior_flags(asked, around_known=False) + helix_flags(asked))
    values = {
        "DoHelicalRefine": 1, "IgnoreHelicalSymmetry": 0, "HelicalTwistInitial": 30, "HelicalRiseInitial": 8,
        "HelicalCentralProportion": 0.25, "HelicalMaskTubeInnerDiameter": 20, "HelicalMaskTubeOuterDiameter": 100,
        "HelicalKeepTiltPriorFixed": 1,
    }  # fmt: skip
    assert {name: optimiser[f"rln{name}"].iloc[0] for name in values} == values


def test_a_later_level_may_search_all_orientations():
    """With the samplings of the first level, where orientations had been searched; and with its priors."""

    def anew(mode="template", **blocks):
        levels = plan_dataset(recipe(**blocks), mode, 2, Machine(2))["levels"]
        assert levels[0]["refine_anew"] is None
        return levels[1]["refine_anew"]

    words = shlex.split(anew(refine3D={"sampling": "15 degrees", "auto_local_sampling": "3.7 degrees"})["options"])
    assert (value(words, "--healpix_order"), value(words, "--auto_local_healpix_order")) == ("1", "3")
    second = options(refine3D={"sampling": "15 degrees"})["second"]
    assert value(second, "--healpix_order") == value(second, "--auto_local_healpix_order")
    assert "at bin 2 they were not consistent" in anew()["reason"]
    fine = {"resolutions": {"angpix": 2.5, "binning_list": "2,1", "box_scaling": 2}}
    assert (anew()["coarse"], anew(**fine)["coarse"]) == (True, False)  # the level before shows 20 and 10 A
    assert value(shlex.split(anew(priors={"sigma_tilt": 9})["options"]), "--sigma_tilt") == "9"
    assert anew("denovo", initial_model={}) is not None
    assert anew("known", initial_reference={"known_search": "global"}) is not None
    assert anew("known") is None
    assert anew(orientations={"search_anew": "no"}) is None
    assert anew(refine3D={"sampling": "1.8 degrees"}) is None
    assert anew(orientations={"test": "no"}) is None
    assert anew(levels={"1": {"refine3D": {"sampling": "3.7 degrees"}}}) is None
