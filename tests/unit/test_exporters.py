"""Exporters, and copick both ways: checked with copick's own reader and conversion."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from helpers import copick_project
from scipy.spatial.transform import Rotation

from py2rely_core.data.geometry import CENTRED, euler_to_matrix, matrix_to_euler, orientations, true_positions
from py2rely_core.data.tables import read_star, write_star
from py2rely_core.exporters.classes import data_of_job, export_classes, parse_classes
from py2rely_core.exporters.copick import Target, export_copick, run_names
from py2rely_core.exporters.dynamo import dynamo, dynamo_angles
from py2rely_core.exporters.poses import read_poses
from py2rely_core.exporters.tables import artiax, plain_csv, plain_star, voxels, warp, write_export
from py2rely_core.importers.copick import Picks, import_copick
from py2rely_core.importers.optics import Optics
from py2rely_core.importers.particles import Tomograms, import_csv, import_star
from py2rely_core.importers.result import write_import
from py2rely_core.problems import ProblemError

copick = pytest.importorskip("copick")

PIXEL = 2.0
#: Tomograms of two sizes and voxel sizes: 4 and 8 times binned.
RUNS = {"one_Vol": ((50, 60, 20), 8.0), "two_Vol": ((40, 30, 26), 16.0)}
SIZES = {"s1_one": np.array([200.0, 240, 80]), "s1_two": np.array([320.0, 240, 208])}
TOMOGRAMS = Tomograms(SIZES, PIXEL, Optics(300.0).row(PIXEL))
ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
SUBTOMOGRAM = [f"rlnTomoSubtomogram{name}" for name in ("Rot", "Tilt", "Psi")]
ORIGIN = [f"rlnOrigin{axis}Angst" for axis in "XYZ"]


def angle_between(first, second):
    """Degrees, between rotations (n, 3, 3)."""
    return np.degrees((Rotation.from_matrix(first).inv() * Rotation.from_matrix(second)).magnitude())


@pytest.fixture
def project(tmp_path):
    return copick_project(tmp_path / "project", RUNS)


@pytest.fixture
def refined(tmp_path):
    """Refined particles, with shifts and subtomogram angles."""
    rng = np.random.default_rng(1)
    names = np.repeat(list(SIZES), 15)
    table = pd.DataFrame({"rlnTomoName": names})
    table[CENTRED] = rng.uniform(-0.8, 0.8, (30, 3)) * [SIZES[name] * PIXEL / 2 for name in names]
    table[SUBTOMOGRAM] = rng.uniform(0, 170, (30, 3))
    table[ANGLES] = rng.uniform(-170, 170, (30, 3))
    table[ORIGIN] = rng.normal(0, 8, (30, 3))
    table["rlnMaxValueProbDistribution"] = rng.uniform(0.1, 1, 30)
    table["rlnOpticsGroup"], table["rlnClassNumber"] = 1, np.repeat([1, 3], 15)
    write_star({"optics": pd.DataFrame([TOMOGRAMS.optics]), "particles": table}, tmp_path / "run_data.star")
    return tmp_path / "run_data.star"


def target(project, **changes):
    return Target(**{"configs": [project], "sessions": ["s1"]} | changes)


def points(project, run, session="99"):
    """Corner positions in Angstrom, rotations and scores of a run's picks, by copick's own reader."""
    (picks,) = copick.from_file(str(project)).get_run(run).get_picks("ribosome", "relion", session)
    return picks.full_positions(), picks.numpy()[1][:, :3, :3], picks.scores(), picks


def test_picks_are_where_the_refinement_put_them(project, refined):
    notes = export_copick(read_poses(refined), target(project))
    assert notes[-1] == "30 of 30 particles written to 2 runs"
    table = read_star(refined)["particles"]
    for name, run in (("s1_one", "one_Vol"), ("s1_two", "two_Vol")):
        rows = table[table["rlnTomoName"] == name]
        corner, rotations, scores, picks = points(project, run)
        assert np.abs(corner - SIZES[name] * PIXEL / 2 - true_positions(rows)).max() < 1e-6
        assert angle_between(rotations, orientations(rows)).max() < 1e-5
        assert np.allclose(scores, rows["rlnMaxValueProbDistribution"])
        # copick's own conversion of RELION's rows, shifts and subtomogram angles included.
        kept = (corner, rotations)
        picks.from_df(rows.reset_index(drop=True), tomogram_center=tuple(SIZES[name] * PIXEL / 2))
        assert np.abs(picks.full_positions() - kept[0]).max() < 1e-6
        assert angle_between(picks.numpy()[1][:, :3, :3], kept[1]).max() < 1e-5


def test_a_shift_that_is_left_out_would_be_seen(project, refined):
    """The size of the error that ignoring shifts makes: these tests are not blind to it."""
    poses = read_poses(refined)
    centred = read_star(refined)["particles"][CENTRED].to_numpy()
    assert np.linalg.norm(poses.positions - centred, axis=1).mean() > 5
    assert "refined shifts applied" in "\n".join(poses.notes)
    assert "subtomogram angles applied" in poses.notes


def test_there_and_back(project, refined, tmp_path):
    """Picks -> STAR -> picks: positions within 0.01 A, angles within 0.01 degrees."""
    export_copick(read_poses(refined), target(project))
    picks = Picks("ribosome", "relion", "99")
    result = import_copick(project, picks, tmp_path / "picks.star", TOMOGRAMS, "s1_", "_Vol")
    write_import(result)
    back, before = read_star(tmp_path / "picks.star")["particles"], read_star(refined)["particles"]
    assert list(back["rlnTomoName"]) == list(before["rlnTomoName"])
    assert np.abs(true_positions(back) - true_positions(before)).max() < 0.01
    assert angle_between(orientations(back), orientations(before)).max() < 0.01
    assert "30 particles in 2 tomograms, with orientations" in result.notes
    first = [points(project, run)[:2] for run in RUNS]
    export_copick(read_poses(tmp_path / "picks.star"), target(project, session="100"))
    for run, (corner, rotations) in zip(RUNS, first, strict=True):
        again = points(project, run, "100")
        assert np.abs(again[0] - corner).max() < 0.01
        assert angle_between(again[1], rotations).max() < 0.01


def test_translations_of_transformations_belong_to_the_position(project, tmp_path):
    run = copick.from_file(str(project)).get_run("one_Vol")
    transform = np.tile(np.eye(4), (2, 1, 1))
    transform[:, :3, 3] = [[5, 0, -3], [0, 0, 0]]
    run.new_picks("ribosome", "1", "me").from_numpy(np.array([[200.0, 240, 80], [100, 100, 60]]), transform)
    result = import_copick(project, Picks("ribosome", runs=["one_Vol"]), tmp_path / "p.star", TOMOGRAMS, "s1_", "_Vol")
    found = result.tables[tmp_path / "p.star"]["particles"]
    assert np.allclose(found[CENTRED], [[5, 0, -3], [-100, -140, -20]])
    assert "probably not known" in "\n".join(result.notes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"sessions": ["s2"]}, "particles of tomogram s1_one have no run"),
        ({"suffix": "_rec"}, "did you mean 'one_Vol'?"),
        ({"name": "ribosom"}, "did you mean 'ribosome'?"),
        ({"sessions": ["s1", "s2"]}, "1 configurations and 2 sessions"),
        ({"existing": "maybe"}, "no choice"),
    ],
)
def test_misses_are_all_reported_and_nothing_is_written(project, refined, changes, text):
    with pytest.raises(ProblemError) as error:
        export_copick(read_poses(refined), target(project, **changes))
    assert text in str(error.value)
    root = copick.from_file(str(project))
    assert all(run.picks == [] for run in root.runs)


def test_missing_runs_can_be_left_out(tmp_path, refined):
    config = copick_project(tmp_path / "other", {"one": RUNS["one_Vol"]})
    with pytest.raises(ProblemError, match="tomogram s1_two"):
        export_copick(read_poses(refined), target(config))
    notes = export_copick(read_poses(refined), target(config), skip_missing=True)
    assert "left out 15 particles of s1_two" in notes[0]
    assert len(points(config, "one")[0]) == 15


def test_runs_are_matched_by_the_longest_session(tmp_path, refined):
    blocks = read_star(refined)
    blocks["particles"]["rlnTomoName"] = ["s1_one"] * 15 + ["s1_b_one"] * 15
    write_star(blocks, refined)
    first = copick_project(tmp_path / "a", {"one": RUNS["one_Vol"], "b_one": RUNS["one_Vol"]})
    second = copick_project(tmp_path / "b", {"one": RUNS["two_Vol"]})
    export_copick(read_poses(refined), target(first, configs=[first, second], sessions=["s1", "s1_b"]))
    assert len(points(first, "one")[0]) == 15
    assert len(points(second, "one")[0]) == 15
    assert copick.from_file(str(first)).get_run("b_one").picks == []
    assert run_names("s1_x", "s1", "_Vol") == ["x", "x_Vol"]
    assert run_names("s2_x", "s1", "_Vol") == []
    assert run_names("x_Vol", "", "_Vol") == ["x_Vol", "x_Vol_Vol", "x"]


def test_existing_picks_are_handled_as_told(project, refined):
    poses = read_poses(refined)
    export_copick(poses, target(project))
    with pytest.raises(ProblemError, match="such picks already"):
        export_copick(poses, target(project))
    half = read_poses(refined)
    half.positions[:] += 1
    export_copick(half, target(project, existing="new-session"))
    assert np.allclose(points(project, "one_Vol", "100")[0], points(project, "one_Vol")[0] + 1)
    export_copick(half, target(project, existing="overwrite"))
    assert np.allclose(points(project, "one_Vol", "100")[0], points(project, "one_Vol")[0])


def test_duplicates_are_handled_as_told(refined):
    blocks = read_star(refined)
    table = blocks["particles"]
    table.loc[1, [*CENTRED, *ORIGIN, *SUBTOMOGRAM]] = table.loc[0, [*CENTRED, *ORIGIN, *SUBTOMOGRAM]]
    table.loc[1, "rlnTomoName"] = table.loc[0, "rlnTomoName"]
    table.loc[[0, 1], "rlnMaxValueProbDistribution"] = [0.2, 0.9]
    write_star(blocks, refined)
    with pytest.raises(ProblemError, match="1 particles are closer than 1 A"):
        read_poses(refined)
    best = read_poses(refined, "best")
    assert len(best.table) == 29
    assert 0.9 in set(best.table["rlnMaxValueProbDistribution"].head(1))
    assert len(read_poses(refined, "keep").table) == 30


def test_sizes_of_tomograms_that_the_project_does_not_have(tmp_path, refined):
    config = copick_project(tmp_path / "p", {})
    root = copick.from_file(str(config))
    for run in ("one", "two"):
        root.new_run(run)
    with pytest.raises(ProblemError, match="size of tomogram s1_one is not known"):
        export_copick(read_poses(refined), target(config))
    extents = {name: size * PIXEL for name, size in SIZES.items()}
    notes = export_copick(read_poses(refined), target(config), extents)
    assert "size of its tilt series" in notes[0]
    found = points(config, "two")[0]
    rows = read_star(refined)["particles"].iloc[15:]
    assert np.abs(found - SIZES["s1_two"] * PIXEL / 2 - true_positions(rows)).max() < 1e-6


def test_filters_of_the_copick_import(project, tmp_path):
    root, out = copick.from_file(str(project)), tmp_path / "p.star"
    places = np.array([[200.0, 200, 80], [100, 100, 60]])
    for run, user, session in (("one_Vol", "a", "1"), ("one_Vol", "b", "2"), ("two_Vol", "a", "1")):
        root.get_run(run).new_picks("ribosome", session, user).from_numpy(places + (10 if user == "b" else 0))

    def take(**filters):
        options = {"own_sizes": filters.pop("own_sizes", False)}
        options["skip_unknown"] = filters.pop("skip_unknown", False)
        tomograms = filters.pop("tomograms", TOMOGRAMS)
        prefix = filters.pop("prefix", "s1_")
        result = import_copick(project, Picks("ribosome", **filters), out, tomograms, prefix, "_Vol", **options)
        return result.tables[out]["particles"], "\n".join(result.notes)

    with pytest.raises(ProblemError, match="Run one_Vol has 2 sets of picks: user a, session 1; user b, session 2"):
        take()
    assert len(take(user="a")[0]) == 4
    assert len(take(session="2")[0]) == 2
    table, notes = take(user="a", voxel_size=16.0)
    assert set(table["rlnTomoName"]) == {"s1_two"}
    assert "left out 1 runs without voxel size 16" in notes
    assert set(take(user="a", runs=["one_Vol"])[0]["rlnTomoName"]) == {"s1_one"}
    for filters, text in (
        ({"runs": ["three"]}, "no runs three"),
        ({"user": "c"}, "no such picks"),
        ({"user": "a", "authors": ["Somebody"]}, "data portal"),
        ({"user": "a", "prefix": "s2_"}, "There is no tilt series s2_one"),
    ):
        with pytest.raises(ProblemError) as error:
            take(**filters)
        assert text in str(error.value)
    one = Tomograms({"s1_one": SIZES["s1_one"]}, PIXEL, TOMOGRAMS.optics)
    table, notes = take(user="a", tomograms=one, skip_unknown=True)
    assert set(table["rlnTomoName"]) == {"s1_one"}
    assert "two_Vol: left out, there is no tilt series s1_two" in notes
    wrong = Tomograms({name: size * 2 for name, size in SIZES.items()}, PIXEL, TOMOGRAMS.optics)
    with pytest.raises(ProblemError, match="The tomogram of run one_Vol is 400 x 480 x 160 A"):
        take(user="a", tomograms=wrong)
    # Each tomogram's own size and voxel size, though one size was given for all.
    general = Tomograms({}, PIXEL, TOMOGRAMS.optics, np.array([4096.0, 4096, 1200]))
    table, notes = take(user="a", tomograms=general, own_sizes=True)
    assert np.allclose(table[CENTRED].iloc[2:], places - SIZES["s1_two"] * PIXEL / 2)
    with pytest.raises(ProblemError, match="There is no object"):
        import_copick(project, Picks("virus"), out, TOMOGRAMS)
    root.get_run("two_Vol").get_picks("ribosome", "a")[0].delete()
    picks = copick.from_file(str(project)).get_run("two_Vol").new_picks("ribosome", "1", "a")
    picks.meta.trust_orientation = False
    picks.from_numpy(places)
    table, notes = take(user="a")
    assert "rlnAngleRot" not in table
    assert "orientations left out: the picks of two_Vol" in notes
    picks.from_numpy(places * 10)
    with pytest.raises(ProblemError, match="outside of their tomogram"):
        take(user="a")
    with pytest.raises(ProblemError, match="configuration is missing"):
        import_copick(tmp_path / "none.json", Picks("x"), out, TOMOGRAMS)


def test_plain_star_and_csv_say_the_same(refined, tmp_path):
    poses = read_poses(refined)
    write_export(plain_star(poses, tmp_path / "plain.star"))
    write_export(plain_csv(poses, tmp_path / "plain.csv", TOMOGRAMS, 4.0))
    before = read_star(refined)["particles"]
    for result in (
        import_star(tmp_path / "plain.star", tmp_path / "a.star", TOMOGRAMS),
        import_csv(tmp_path / "plain.csv", tmp_path / "a.star", TOMOGRAMS),
    ):
        found = result.tables[tmp_path / "a.star"]["particles"]
        assert not set(ORIGIN) & set(found)
        assert np.abs(found[CENTRED] - true_positions(before)).to_numpy().max() < 1e-4
        assert angle_between(euler_to_matrix(found[ANGLES].to_numpy()), orientations(before)).max() < 0.01
    table = pd.read_csv(tmp_path / "plain.csv")
    assert np.allclose(table["voxel_x"], (table["x"] + np.repeat([200, 320], 15)) / 4)
    with pytest.raises(ProblemError, match="exists already"):
        write_export(plain_star(poses, tmp_path / "plain.star"))


def test_artiax_and_chimerax(refined, tmp_path):
    """ArtiaX draws a RELION particle at (coordinate - origin) * pixel size; a marker is in Angstrom."""
    poses = read_poses(refined)
    write_export(artiax(poses, tmp_path / "x", TOMOGRAMS, 8.0, 40))
    table = read_star(tmp_path / "x/s1_two_artiax.star")["particles"]
    expected = poses.positions[15:] + SIZES["s1_two"] * PIXEL / 2
    drawn = table[[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy() * 8.0
    assert np.abs(drawn - expected).max() < 1e-3
    assert not table[[f"rlnOrigin{axis}" for axis in "XYZ"]].to_numpy().any()
    assert angle_between(euler_to_matrix(table[ANGLES].to_numpy()), poses.rotations[15:]).max() < 0.01
    markers = [[float(one.get(axis)) for axis in "xyz"] for one in ET.parse(tmp_path / "x/s1_two.cmm").getroot()]
    assert np.abs(np.array(markers) - expected).max() < 1e-2


def test_names_that_artiax_cannot_take_apart_are_left_to_the_files(refined, tmp_path):
    """ArtiaX makes rlnTomoName a number after a prefix, and opens no file where that fails."""
    blocks = read_star(refined)
    names = blocks["particles"]["rlnTomoName"].replace({"s1_one": "TS_07", "s1_two": "lamella_a"})
    write_star(blocks | {"particles": blocks["particles"].assign(rlnTomoName=names)}, tmp_path / "p.star")
    known = Tomograms({"TS_07": SIZES["s1_one"], "lamella_a": SIZES["s1_two"]}, PIXEL, TOMOGRAMS.optics)
    export = artiax(read_poses(tmp_path / "p.star"), tmp_path / "x", known, 8.0, 40)
    write_export(export)
    assert set(read_star(tmp_path / "x/TS_07_artiax.star")["particles"]["rlnTomoName"]) == {"TS_07"}
    other = read_star(tmp_path / "x/lamella_a_artiax.star")["particles"]
    assert "rlnTomoName" not in other
    assert len(other) == 15
    text = "\n".join(export.notes)
    assert "rlnTomoName is left out for lamella_a" in text
    assert "_NUMBER" in text
    with pytest.raises(ProblemError, match="This is a list of coordinates"):
        (tmp_path / "c.star").write_text("1 2 3\n4 5 6\n")
        read_poses(tmp_path / "c.star")


def test_warp(refined, tmp_path):
    poses = read_poses(refined)
    write_export(warp(poses, tmp_path / "w.star", TOMOGRAMS, 4.0))
    table = read_star(tmp_path / "w.star")["particles"]
    assert set(table["rlnMicrographName"]) == {"s1_one.tomostar", "s1_two.tomostar"}
    result = import_star(tmp_path / "w.star", tmp_path / "a.star", TOMOGRAMS, voxel_size=4.0)
    found = result.tables[tmp_path / "a.star"]["particles"]
    assert np.abs(found[CENTRED].to_numpy() - poses.positions).max() < 1e-3
    with pytest.raises(ProblemError, match="size of 1 tomograms is not known"):
        voxels(poses, Tomograms({"s1_one": SIZES["s1_one"]}, PIXEL, TOMOGRAMS.optics), 4.0)


def turn(axis, angle):
    """A turn about x or z in the mathematical sense, built by hand."""
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]] if axis == "x" else [[c, -s, 0], [s, c, 0], [0, 0, 1]])


def dynamo_matrix(tdrot, tilt, narot):
    """What Dynamo's own dynamo_euler2matrix makes of a row: from the particle to the template."""
    return turn("z", narot) @ turn("x", tilt) @ turn("z", tdrot)


def test_dynamo_angles_are_dynamos():
    """Against what dynamo_euler2matrix returns, and a pair of angles with which both programs average alike."""
    published = [[-0.0173, -0.5477, 0.8365], [0.9012, -0.3709, -0.2241], [0.4330, 0.7500, 0.5000]]
    assert np.abs(dynamo_matrix(30, 60, 75) - published).max() < 1e-4
    found = dynamo_angles(dynamo_matrix(30, 60, 75).T[None])
    assert np.allclose(found, [[30, 60, 75]])
    relion = euler_to_matrix(np.array([[137.7, 1.1777, 42.727]]))
    assert np.allclose(dynamo_angles(relion), [[-47.273, 1.1777, -132.3]])


def test_dynamo_table(refined, tmp_path):
    poses = read_poses(refined)
    ranges = {"s1_one": (-60.0, 57.0)}
    write_export(dynamo(poses, tmp_path / "d.tbl", TOMOGRAMS, 8.0, ranges, "tomo/{name}.mrc"))
    table = np.loadtxt(tmp_path / "d.tbl")
    assert table.shape == (30, 42)
    assert np.array_equal(table[:, 0], np.arange(1, 31))
    assert (tmp_path / "d.doc").read_text() == "1 tomo/s1_one.mrc\n2 tomo/s1_two.mrc\n"
    assert np.array_equal(table[:, 19], np.repeat([1, 2], 15))
    assert np.array_equal(table[:, 21], np.repeat([1, 3], 15))
    # Pixels from 1, whole ones and a shift of less than half of one.
    assert np.array_equal(table[:, 23:26], np.rint(table[:, 23:26]))
    assert np.abs(table[:, 3:6]).max() <= 0.5
    before = read_star(refined)["particles"]
    corners = np.repeat([SIZES["s1_one"] * PIXEL / 2, SIZES["s1_two"] * PIXEL / 2], 15, axis=0)
    places = (table[:, 23:26] + table[:, 3:6] - 1) * 8.0 - corners
    assert np.abs(places - true_positions(before)).max() < 1e-3
    matrices = np.array([dynamo_matrix(*angles).T for angles in table[:, 6:9]])
    assert angle_between(matrices, orientations(before)).max() < 0.01
    assert np.allclose(table[:, 9], before["rlnMaxValueProbDistribution"], atol=1e-5)
    assert [list(table[row, 12:15]) for row in (0, 29)] == [[1, -60, 57], [0, 0, 0]]
    assert set(table[:, 35]) == {8.0}


def test_dynamo_table_without_orientations_or_with_alike_names(refined, tmp_path):
    blocks = read_star(refined)
    write_star({"particles": blocks["particles"].drop(columns=[*ANGLES, *SUBTOMOGRAM])}, tmp_path / "x.star")
    made = dynamo(read_poses(tmp_path / "x.star"), tmp_path / "d.tbl", TOMOGRAMS, 8.0, {})
    write_export(made)
    assert not np.loadtxt(tmp_path / "d.tbl")[:, 6:9].any()
    assert "2 tomograms have no known tilt range" in made.notes[-1]
    for pattern in ("one.mrc", "my tomograms/{name}"):
        with pytest.raises(ProblemError, match="cannot be told apart"):
            dynamo(read_poses(refined), tmp_path / "e.tbl", TOMOGRAMS, 8.0, {}, pattern)


def test_all_exports_say_the_same(project, refined, tmp_path):
    """Every program's file, read by that program's rules, gives the same places (Angstrom from a corner) and turns."""
    poses = read_poses(refined)
    corner = np.repeat([SIZES["s1_one"] * PIXEL / 2, SIZES["s1_two"] * PIXEL / 2], 15, axis=0)
    for made in (warp(poses, tmp_path / "w.star", TOMOGRAMS, 4.0), artiax(poses, tmp_path / "x", TOMOGRAMS, 4.0, 40),
                 dynamo(poses, tmp_path / "d.tbl", TOMOGRAMS, 4.0, {})):  # fmt: skip
        write_export(made)
    export_copick(poses, target(project))
    found = {}
    files = [tmp_path / f"x/s1_{name}_artiax.star" for name in ("one", "two")]
    for program, tables in (("warp", [tmp_path / "w.star"]), ("artiax", files)):
        table = pd.concat([read_star(path)["particles"] for path in tables])
        places = table[[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy() * 4.0
        found[program] = places, euler_to_matrix(table[ANGLES].to_numpy())
    table = np.loadtxt(tmp_path / "d.tbl")
    turns = np.array([dynamo_matrix(*angles).T for angles in table[:, 6:9]])
    found["dynamo"] = (table[:, 23:26] + table[:, 3:6] - 1) * 4.0, turns
    parts = [points(project, run) for run in RUNS]
    found["copick"] = tuple(np.concatenate([part[i] for part in parts]) for i in (0, 1))
    for program, (places, matrices) in found.items():
        assert np.abs(places - (poses.positions + corner)).max() < 1e-2, program
        assert angle_between(matrices[:, :3, :3], poses.rotations).max() < 0.01, program


def test_files_without_poses_are_refused(refined, tmp_path):
    blocks = read_star(refined)
    for change, text in (
        (lambda t: t.drop(columns=CENTRED[0]), CENTRED[0]),
        (lambda t: t.head(0), "no particles"),
        (lambda t: t.drop(columns="rlnAngleTilt"), "of three angles"),
        (lambda t: t.assign(rlnOriginXAngst="nan"), "no numbers"),
    ):
        write_star(blocks | {"particles": change(blocks["particles"])}, tmp_path / "x.star")
        with pytest.raises(ProblemError, match=text):
            read_poses(tmp_path / "x.star")
    write_star(blocks | {"particles": blocks["particles"].drop(columns=ANGLES)}, tmp_path / "x.star")
    assert "the particles have no orientations" in read_poses(tmp_path / "x.star").notes


def test_classes(refined, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = tmp_path / "Class3D/job007"
    job.mkdir(parents=True)
    blocks = read_star(refined)
    for iteration, shift in ((9, 0), (10, 1)):
        changed = blocks["particles"].assign(rlnClassNumber=blocks["particles"]["rlnClassNumber"] + shift)
        write_star(blocks | {"particles": changed}, job / f"run_it{iteration:03d}_data.star")
    assert data_of_job("job007", tmp_path).name == "run_it010_data.star"
    assert data_of_job("Class3D/job007", tmp_path).name == "run_it010_data.star"
    result = export_classes(data_of_job("job007", tmp_path), [4], tmp_path / "c.star")
    assert len(result.tables[tmp_path / "c.star"]["particles"]) == 15
    assert "class 2: 15 particles, left out" in result.notes
    assert set(result.tables[tmp_path / "c.star"]) == {"optics", "particles"}
    with pytest.raises(ProblemError, match="The classes 1 have no particles"):
        export_classes(data_of_job("job007", tmp_path), [1, 2], tmp_path / "c.star")
    with pytest.raises(ProblemError, match="job007"):
        data_of_job("job008", tmp_path)
    assert parse_classes("[3, 1]") == [1, 3]
    for text in ("0,1", "a", ""):
        with pytest.raises(ProblemError):
            parse_classes(text)


def test_angles_without_a_tilt_give_the_same_matrix():
    for psi in (0.0, 33.0):
        matrix = euler_to_matrix(np.array([[20.0, 0.0, psi]]))
        assert angle_between(euler_to_matrix(matrix_to_euler(matrix)), matrix).max() < 1e-5
