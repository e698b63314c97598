"""Whether classes are told apart by their images: what is handed to RELION, and what is made of what it finds."""

import json

import numpy as np
import pandas as pd
import pytest

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.judging.class_test import LEAST, Votes, check_class_test, read_votes, split_classes
from py2rely_core.problems import ProblemError


def votes(*rows):
    return Votes(tuple(range(1, len(rows) + 1)), np.array(rows))


@pytest.mark.parametrize(
    ("found", "share", "told"),
    [
        (votes([60, 0], [0, 60]), 1.0, True),
        (votes([60, 0], [60, 0]), 0.5, False),  # all go to the average with less noise
        (votes([30, 30], [30, 30]), 0.5, False),
        (votes([3, 2], [1, 4]), 0.7, False),  # chance does so
        (votes([600, 400], [400, 600]), 0.6, True),
        (votes([5600, 4400], [4400, 5600]), 0.56, False),  # however sure: little of the particles
        (votes([72, 14], [47, 7]), 0.483, False),
        (votes([10, 50], [50, 10]), 0.167, False),
    ],
)
def test_two_classes_are_told_apart_where_particles_go_where_they_came_from(found, share, told):
    assert found.apart(1, 2) == pytest.approx(share, abs=0.001)
    assert found.told_apart(1, 2) is told
    assert found.apart(2, 1) == found.apart(1, 2)


def test_of_a_class_that_was_not_tested_nothing_is_known():
    found = votes([20, 0, 0], [0, 20, 0], [0, 0, 20])
    assert found.apart(1, 4) is None
    assert found.told_apart(4, 1) is None
    assert votes([0, 0, 20], [0, 20, 0], [0, 0, 20]).apart(1, 2) is None


def test_classes_that_are_not_told_apart_are_one_group():
    found = votes([40, 40, 0, 0], [40, 40, 0, 0], [0, 0, 80, 0], [0, 0, 0, 9])
    assert found.groups == [[1, 2], [3], [4]]
    assert found.text == "By their images, 3 groups of classes are told apart: 1, 2 | 3 | 4."
    # 1 and 2 are told apart, and neither is from 3.
    chained = votes([40, 0, 40], [0, 40, 40], [20, 20, 40])
    assert chained.told_apart(1, 2)
    assert chained.groups == [[1, 2, 3]]
    assert chained.text == "By their images, no class is told apart from the others."


@pytest.fixture
def classification(tmp_path, monkeypatch):
    """A Class3D job: 30 particles in class 1, 20 in class 2, and too few in class 3, halves alternating."""
    monkeypatch.chdir(tmp_path)
    job = tmp_path / "Class3D/bin4"
    job.mkdir(parents=True)
    numbers = np.repeat([1, 2, 3], [30, 20, 2 * LEAST - 1])
    places = np.arange(len(numbers))
    particles = pd.DataFrame({"rlnClassNumber": numbers, "rlnRandomSubset": places % 2 + 1})
    particles = particles.assign(rlnTomoName="a", rlnOpticsGroup=1, rlnTomoParticleName=[f"a/{n}" for n in places])
    write_star({"optics": pd.DataFrame([{"rlnOpticsGroup": 1}]), "particles": particles}, job / "run_data.star")
    return job


def searched(job, right):
    """Write what RELION would: of each half set, in another order, a share of the particles in their own class."""
    for half in (1, 2):
        given = read_star(job / f"half{half}.star")["particles"]
        tested = sorted(given["rlnClassNumber"].astype(int).unique())
        places = given["rlnClassNumber"].astype(int).map(tested.index)
        stays = np.random.default_rng(half).random(len(given)) < right
        found = given.assign(rlnClassNumber=np.where(stays, places, 1 - places) + 1)
        write_star({"particles": found.iloc[::-1]}, job / f"run_half{half}_it001_data.star")


def test_each_particle_is_given_to_averages_of_the_other_half_set(classification, tmp_path):
    job = tmp_path / "ClassTest/bin4"
    split_classes(job, classification, 25.0)
    settings = (job / "settings.sh").read_text()
    assert "averages='class001_half1 class002_half1 class001_half2 class002_half2'" in settings
    assert "number='2'" in settings
    assert "low_pass='25'" in settings
    for half in (1, 2):
        own = read_star(job / f"half{half}.star")["particles"]
        assert set(own["rlnRandomSubset"].astype(int)) == {half}
        assert set(own["rlnClassNumber"].astype(int)) == {1, 2}
        others = read_star(job / f"references{half}.star")
        (block,) = others.values()
        assert [f"_half{3 - half}_" in name for name in block["rlnReferenceImage"]] == [True, True]
        averaged = read_star(job / f"class002_half{half}.star")["particles"]
        assert len(averaged) == 10
        assert set(averaged["rlnRandomSubset"].astype(int)) == {half}


@pytest.mark.parametrize(("right", "told"), [(1.0, True), (0.5, False)])
def test_what_relion_found_is_counted_by_particle(classification, tmp_path, right, told):
    job = tmp_path / "ClassTest/bin4"
    split_classes(job, classification, 25.0)
    searched(job, right)
    check_class_test(job)
    found = read_votes(job)
    assert found.classes == (1, 2)
    assert found.counts.sum(axis=1).tolist() == [30, 20]
    assert found.told_apart(1, 2) is told
    table = read_star(job / "votes.star")["particles"]
    assert len(table) == 50
    was = read_star(classification / "run_data.star")["particles"].set_index("rlnTomoParticleName")["rlnClassNumber"]
    assert (was.reindex(table["rlnTomoParticleName"]).to_numpy() == table["rlnClassNumber"].to_numpy()).all()
    assert sorted(path.name for path in job.iterdir()) == ["job.json", "votes.star"]


def test_where_relion_failed_a_warning_says_so(classification, tmp_path):
    job = tmp_path / "ClassTest/bin4"
    split_classes(job, classification, 25.0)
    check_class_test(job)
    noted = json.loads((job / "job.json").read_text())
    assert "relion_refine failed" in noted["warnings"][0]
    assert read_votes(job) is None


def test_lost_particles_are_an_error(classification, tmp_path):
    job = tmp_path / "ClassTest/bin4"
    split_classes(job, classification, 25.0)
    searched(job, 1.0)
    found = read_star(job / "run_half1_it001_data.star")["particles"]
    write_star({"particles": found.iloc[2:]}, job / "run_half1_it001_data.star")
    with pytest.raises(ProblemError, match="lacks 2 of 25 particles"):
        check_class_test(job)


def test_one_class_with_particles_is_not_tested(classification, tmp_path):
    blocks = read_star(classification / "run_data.star")
    kept = blocks["particles"][blocks["particles"]["rlnClassNumber"].astype(int) != 2]
    write_star(blocks | {"particles": kept}, classification / "run_data.star")
    job = tmp_path / "ClassTest/bin4"
    split_classes(job, classification, 25.0)
    assert "averages=''" in (job / "settings.sh").read_text()
    check_class_test(job)
    assert "not tested by their images" in json.loads((job / "job.json").read_text())["text"]
    assert read_votes(job) is None
