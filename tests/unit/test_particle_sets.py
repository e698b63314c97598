"""What a run does with particle sets: half sets by filament, trajectories by name, optimisation sets by their files."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

from py2rely_core.checks.context import CheckContext
from py2rely_core.checks.given import check_motion
from py2rely_core.checks.particles import check_filaments
from py2rely_core.checks.reference import check_reference
from py2rely_core.cli.prepare import _must_be
from py2rely_core.data.import_job import import_inputs
from py2rely_core.data.inputs import load_inputs
from py2rely_core.data.particles import filaments, half_sets
from py2rely_core.data.tables import read_star, write_star
from py2rely_core.maps.io import write_map
from py2rely_core.parameters.files import new_recipe
from py2rely_core.parameters.request import load_datasets
from py2rely_core.problems import ProblemError
from py2rely_core.relion.outputs.tilt_series import motion_of


@pytest.fixture
def data(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "data")


def recipe():
    return new_recipe("tilt_series.star", "particles.star", 5.0, "O", 50.0, 150.0, False, 1.5, "2", 2)


def context(data, **changes):
    inputs = load_inputs("particles.star", "tilt_series.star", data)
    return CheckContext(recipe(), inputs, "known", **changes)


def tubes(count=400, seed=0):
    """Particles of tubes of 1 to 30 segments; numbers of tubes start anew in every tomogram."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 30, count)
    rows = [(f"TS_{n % 3}", n // 3) for n, length in enumerate(lengths) for _ in range(length)]
    return pd.DataFrame(rows, columns=["rlnTomoName", "rlnHelicalTubeID"]).sample(frac=1, random_state=1)


def test_whole_filaments_are_in_one_half_set():
    table = tubes()
    halves = half_sets(table)
    groups = table.assign(half=halves).groupby(["rlnTomoName", "rlnHelicalTubeID"])["half"]
    assert (groups.nunique() == 1).all()
    assert abs(np.bincount(halves)[1] - np.bincount(halves)[2]) <= 1
    assert len(np.unique(filaments(table))) == groups.ngroups
    assert list(half_sets(table)) == list(halves)
    # One tube number in two tomograms is two filaments.
    two = pd.DataFrame({"rlnTomoName": ["a"] * 5 + ["b"] * 5, "rlnHelicalTubeID": 1})
    assert sorted(set(half_sets(two)[:5].tolist() + half_sets(two)[5:].tolist())) == [1, 2]


def test_without_filaments_half_sets_are_as_before():
    table = pd.DataFrame({"rlnTomoName": ["a"] * 11})
    expected = np.random.default_rng(1).permutation(np.arange(11) % 2 + 1)
    assert list(half_sets(table)) == list(expected)


def test_a_run_divides_by_filament(data, tmp_path):
    blocks = read_star(data / "particles.star")
    tube = np.arange(len(blocks["particles"])) // 4
    write_star(blocks | {"particles": blocks["particles"].assign(rlnHelicalTubeID=tube)}, data / "particles.star")
    _, picks = import_inputs("particles.star", "tilt_series.star", data, tmp_path / "out")
    found = read_star(picks / "particles.star")["particles"]
    assert (found.groupby(["rlnTomoName", "rlnHelicalTubeID"])["rlnRandomSubset"].nunique() == 1).all()
    assert set(found["rlnRandomSubset"]) == {1, 2}
    assert list(check_filaments(context(data))) == []


@pytest.mark.parametrize(("start", "severity"), [("picks", "error"), ("bin1", "warning")])
def test_filaments_in_both_half_sets(data, start, severity):
    blocks = read_star(data / "particles.star")
    count = len(blocks["particles"])
    halves = np.arange(count) % 2 + 1
    table = blocks["particles"].assign(rlnHelicalTubeID=np.arange(count) // 4, rlnRandomSubset=halves)
    write_star(blocks | {"particles": table}, data / "particles.star")
    found = list(check_filaments(context(data, start=start)))
    assert [one.severity for one in found] == [severity]
    assert "Remove rlnRandomSubset" in found[0].fix
    write_star(blocks | {"particles": table.assign(rlnHelicalTubeID="a")}, data / "particles.star")
    assert "rlnHelicalTubeID is not a finite number" in str(next(check_filaments(context(data))))


def trajectories(path, names, moves):
    """As RELION writes them: one block for each particle, of its name."""
    blocks = {"general": pd.DataFrame([{"rlnParticleNumber": len(names)}])}
    for name, move in zip(names, moves, strict=True):
        blocks[name] = pd.DataFrame({"rlnOriginXAngst": [-move, move], "rlnOriginYAngst": 0.0, "rlnOriginZAngst": 0.0})
    write_star(blocks, path)


def test_motion_belongs_to_particles_by_name(tmp_path):
    """RELION writes tilt series by tilt series, whatever the order of the particles is."""
    table = pd.DataFrame({"rlnTomoName": ["B", "A", "B", "A"], "rlnTomoParticleName": ["B/1", "A/1", "B/2", "A/2"]})
    write_star({"particles": table}, tmp_path / "p.star")
    trajectories(tmp_path / "motion.star", ["A/1", "A/2", "B/1", "B/2"], [1.0, 1.0, 3.0, 3.0])
    found = motion_of(tmp_path / "motion.star", tmp_path / "p.star")
    assert found == {"rms": round(np.sqrt(5), 3), "per_tomogram": {"A": 1.0, "B": 3.0}}
    write_star({"particles": table.drop(columns="rlnTomoParticleName")}, tmp_path / "p.star")
    assert motion_of(tmp_path / "motion.star", tmp_path / "p.star") == found


def test_every_particle_needs_its_trajectory(data):
    blocks = read_star(data / "particles.star")
    names = [f"TS/{n}" for n in range(len(blocks["particles"]))]
    write_star(blocks | {"particles": blocks["particles"].assign(rlnTomoParticleName=names)}, data / "particles.star")
    path = data / "motion.star"

    def found():
        return "\n".join(map(str, check_motion(context(data, start="polish", given={"motion": path}))))

    trajectories(path, names[::-1], np.ones(len(names)))
    assert found() == ""
    # Trajectories of particles that were removed do no harm, and as many of others do not help.
    trajectories(path, [*names, "TS/more"], np.ones(len(names) + 1))
    assert found() == ""
    trajectories(path, [*names[1:], "TS/other"], np.ones(len(names)))
    assert "1 particles have none" in found()
    assert "TS/0" in found()
    shutil.copy(data / "particles.star", path)
    assert "This is a particle file, not a file of trajectories" in found()
    write_star(blocks, data / "particles.star")
    trajectories(path, names, np.ones(len(names)))
    assert "The particles have no names" in found()


@pytest.mark.parametrize("size", [1.0, 5.0])
def test_a_header_of_exactly_one_angstrom_says_nothing(data, size):
    ball = (np.linalg.norm(np.indices((40, 40, 40)) - 20, axis=0) < 12).astype(np.float32)
    write_map(data / "ref.mrc", ball, size)
    found = "\n".join(map(str, check_reference(context(data, reference=data / "ref.mrc"))))
    assert ("exactly 1 A per voxel" in found) == (size == 1.0)


def test_a_table_in_place_of_a_map_is_named(data):
    found = "\n".join(map(str, check_reference(context(data, reference=data / "particles.star"))))
    assert "this is a particle file" in found
    for path, wanted, text in (
        (data / "tilt_series.star", "particles", "This is a tilt-series file, not a particle file"),
        (data / "particles.star", "tilt series", "This is a particle file, not a tilt-series file"),
        (data / "tilt_series/TS_01.mrcs", "tilt series", "a map or an image stack"),
    ):
        with pytest.raises(ProblemError, match=text):
            _must_be(path, "--particles", wanted)
    _must_be(data / "particles.star", "--particles", "particles")


def test_a_run_declares_the_files_that_an_optimisation_set_names(data, tmp_path):
    """So that -resume sees when one of them changes, and trajectories go with the particles that they belong to."""
    names = {"rlnTomoParticlesFile": "particles.star", "rlnTomoTomogramsFile": "tilt_series.star"}
    trajectories(data / "motion.star", ["a"], [1.0])
    write_star({"": pd.DataFrame([names | {"rlnTomoTrajectoriesFile": "motion.star"}])}, data / "set.star")
    recipe_file = data / "sta.json"
    recipe_file.write_text(recipe().model_dump_json(by_alias=True))

    def dataset(**params):
        params = {"parameter": str(recipe_file), "particles": "set.star", "tomograms": "set.star"} | params
        return load_datasets({"launch_dir": str(data), "params": params})["datasets"][0]

    found = dataset()
    assert (found["particles"], found["tilt_series"]) == (str(data / "particles.star"), str(data / "tilt_series.star"))
    assert found["motion"] is None
    assert dataset(start="bin1")["motion"] == str(data / "motion.star")
    assert dataset(start="bin1", motion="set.star", particles="particles.star")["motion"] == str(data / "motion.star")
    write_star({"": pd.DataFrame([names])}, data / "set.star")
    assert dataset(start="bin1")["motion"] is None
