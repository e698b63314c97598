"""Whether classes are told apart by their images: what is handed to RELION, and what is made of what it finds."""

import json

import mrcfile
import numpy as np
import pandas as pd
import pytest

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.judging.class_test import LEAST, Votes, check_class_test, read_votes, split_classes
from py2rely_core.problems import ProblemError

TILTS = 8


def votes(*tables):
    """Of two classes: where both parts of their particles go, by half set; which class they were in hardly counts."""
    counts = np.zeros((2, 2, 2, 2), dtype=int)
    for half, table in enumerate(tables):
        counts[half, 0] = np.array(table) // 2
        counts[half, 1] = table - counts[half, 0]
    return Votes((1, 2), counts)


@pytest.mark.parametrize(
    ("found", "share", "told", "alike"),
    [
        (votes([[30, 0], [0, 30]], [[30, 0], [0, 30]]), 1.0, True, False),
        (votes([[15, 15], [15, 15]], [[15, 15], [15, 15]]), 0.0, False, True),
        (votes([[60, 0], [0, 0]], [[60, 0], [0, 0]]), 0.0, False, True),  # all go to the average with less noise
        (votes([[40, 0], [0, 0]], [[0, 0], [0, 40]]), 0.0, False, True),  # to another one in either half set
        (votes([[4, 2], [1, 3]], [[0, 0], [0, 0]]), 0.4, False, True),  # chance does so
        (votes([[60, 40], [40, 60]], [[60, 40], [40, 60]]), 0.2, False, False),  # more than chance, and little
        (votes([[70, 30], [30, 70]], [[70, 30], [30, 70]]), 0.4, True, False),
        (votes([[10, 40], [40, 10]], [[10, 40], [40, 10]]), -0.6, False, True),
    ],
)
def test_two_classes_are_told_apart_where_both_parts_of_the_tilts_agree(found, share, told, alike):
    assert found.apart(1, 2) == pytest.approx(share, abs=0.01)
    assert found.told_apart(1, 2) is told
    assert found.alike(1, 2) is alike
    assert found.apart(2, 1) == pytest.approx(found.apart(1, 2))
    assert found.deviations(2, 1) == pytest.approx(found.deviations(1, 2))


def test_of_a_class_that_was_not_tested_nothing_is_known():
    found = votes([[30, 0], [0, 30]], [[30, 0], [0, 30]])
    assert found.apart(1, 4) is None
    assert found.told_apart(4, 1) is None
    assert not found.alike(1, 4)


def division(seed, particles, size, distance):
    """Images of particles in one structure or two, divided by k-means, and asked part by part: a model of the test."""
    rng = np.random.default_rng(seed)
    true = rng.random(particles) < 0.4
    parts = rng.normal(size=(2, particles, size)) * np.sqrt(2) + true[:, None] * distance / np.sqrt(size)
    images = parts.mean(axis=0)
    classes = rng.integers(0, 2, particles)
    for _ in range(60):
        means = np.array([images[classes == one].mean(axis=0) for one in (0, 1)])
        classes = ((images[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    halves, counts = np.arange(particles) % 2, np.zeros((2, 2, 2, 2), dtype=int)
    for half in (0, 1):
        means = np.array([images[(halves != half) & (classes == one)].mean(axis=0) for one in (0, 1)])
        ends = ((parts[:, halves == half, None] - means) ** 2).sum(axis=3).argmin(axis=2)
        np.add.at(counts[half], (classes[halves == half], *ends), 1)
    return Votes((1, 2), counts), max((classes == true).mean(), (classes != true).mean())


@pytest.mark.parametrize(("particles", "size"), [(200, 20), (200, 60), (1000, 20), (1000, 200)])
def test_a_division_of_noise_is_not_told_apart_though_the_same_images_give_it_again(particles, size):
    for seed in range(4):
        found, _ = division(seed, particles, size, 0.0)
        assert not found.told_apart(1, 2)
        assert found.apart(1, 2) < 0.25


@pytest.mark.parametrize(("particles", "size", "distance"), [(200, 60, 6), (1000, 200, 5)])
def test_two_structures_are_told_apart(particles, size, distance):
    for seed in range(4):
        found, right = division(seed, particles, size, float(distance))
        assert right > 0.9
        assert found.told_apart(1, 2)


def test_classes_that_are_not_told_apart_are_one_group():
    counts = np.zeros((2, 4, 4, 4), dtype=int)
    for half in (0, 1):
        for one in (0, 1):
            counts[half, one, :2, :2] = 10  # 1 and 2 by chance
        counts[half, 2, 2, 2] = counts[half, 3, 3, 3] = 30
    found = Votes((1, 2, 3, 4), counts)
    assert found.groups == [[1, 2], [3], [4]]
    assert found.text == "By their images, 3 groups of classes are told apart: 1, 2 | 3 | 4."
    assert Votes((1, 2), counts[:, :2, :2, :2]).text == "By their images, no class is told apart from another."
    # 1 and 2 are told apart, and 3 goes to either.
    counts = np.zeros((2, 3, 3, 3), dtype=int)
    counts[:, 0, 0, 0] = counts[:, 1, 1, 1] = 40
    counts[:, :, [0, 0, 1, 1, 2], [2, 0, 2, 1, 2]] += 10
    counts[:, :, [2, 2], [0, 1]] += 10
    chained = Votes((1, 2, 3), counts)
    assert chained.groups == [[1, 2, 3]]
    assert chained.text == "By their images, classes are told apart (1 from 2), but do not fall into groups."
    # All particles of the third go to the first: that tells nothing of the second and the third.
    counts = np.zeros((2, 3, 3, 3), dtype=int)
    counts[:, 0, 0, 0], counts[:, 1, 1, 1], counts[:, 2, 0, 0] = 40, 40, 40
    assert Votes((1, 2, 3), counts).groups == [[1, 3], [2]]


@pytest.fixture
def classification(tmp_path, monkeypatch):
    """A Class3D job: 30 particles in class 1, 20 in class 2, and too few in class 3, halves alternating."""
    monkeypatch.chdir(tmp_path)
    job = tmp_path / "Class3D/bin4"
    job.mkdir(parents=True)
    (tmp_path / "images").mkdir()
    numbers = np.repeat([1, 2, 3], [30, 20, 2 * LEAST - 1])
    rows = []
    for place, number in enumerate(numbers):
        stack = tmp_path / f"images/{place}_stack2d.mrcs"
        with mrcfile.new(stack) as file:
            file.set_data(np.full((TILTS, 4, 4), place, dtype=np.float32))
        rows.append({"rlnTomoName": "a", "rlnOpticsGroup": 1, "rlnTomoParticleName": f"a/{place}",
                     "rlnClassNumber": number, "rlnRandomSubset": place % 2 + 1, "rlnImageName": str(stack),
                     "rlnTomoVisibleFrames": f"[{','.join('1' * TILTS)}]"})  # fmt: skip
    write_star(
        {"optics": pd.DataFrame([{"rlnOpticsGroup": 1}]), "particles": pd.DataFrame(rows)}, job / "run_data.star"
    )
    tilts = pd.DataFrame({"rlnMicrographPreExposure": np.arange(TILTS) * 3.0})
    write_star({"a": tilts}, tmp_path / "a.star")
    table = pd.DataFrame([{"rlnTomoName": "a", "rlnTomoTiltSeriesStarFile": str(tmp_path / "a.star")}])
    write_star({"global": table}, tmp_path / "tomograms.star")
    return job


def split(classification, tmp_path):
    job = tmp_path / "ClassTest/bin4"
    split_classes(job, classification, tmp_path / "tomograms.star", 25.0)
    return job


def searched(job, right):
    """Write what RELION would: each part of a particle goes to its own class with a probability; in another order."""
    for half in (1, 2):
        given = read_star(job / f"half{half}.star")["particles"]
        tested = sorted(given["rlnClassNumber"].astype(int).unique())
        places = given["rlnClassNumber"].astype(int).map(tested.index)
        stays = np.random.default_rng(half).random(len(given)) < right
        found = given.assign(rlnClassNumber=np.where(stays, places, 1 - places) + 1)
        write_star({"particles": found.iloc[::-1]}, job / f"run_half{half}_it001_data.star")


def test_each_part_is_given_to_averages_of_the_other_half_set(classification, tmp_path):
    job = split(classification, tmp_path)
    settings = (job / "settings.sh").read_text()
    assert "averages='class001_half1 class002_half1 class001_half2 class002_half2'" in settings
    assert "number='2'" in settings
    assert "low_pass='25'" in settings
    for half in (1, 2):
        own = read_star(job / f"half{half}.star")["particles"]
        assert len(own) == 50
        assert set(own["rlnRandomSubset"].astype(int)) == {half}
        assert set(own["rlnClassNumber"].astype(int)) == {1, 2}
        shown = own["rlnTomoVisibleFrames"].str.strip("[]").str.split(",", expand=True).astype(int)
        assert (shown.iloc[::2].to_numpy() + shown.iloc[1::2].to_numpy() == 1).all()
        with mrcfile.open(own["rlnImageName"].iloc[0]) as file:
            assert file.data.shape == (TILTS // 2, 4, 4)
        (block,) = read_star(job / f"references{half}.star").values()
        assert [f"_half{3 - half}_" in name for name in block["rlnReferenceImage"]] == [True, True]
        averaged = read_star(job / f"class002_half{half}.star")["particles"]
        assert len(averaged) == 10
        assert set(averaged["rlnRandomSubset"].astype(int)) == {half}


@pytest.mark.parametrize(("right", "told"), [(1.0, True), (0.5, False)])
def test_what_relion_found_is_counted_by_particle(classification, tmp_path, right, told):
    job = split(classification, tmp_path)
    searched(job, right)
    check_class_test(job)
    found = read_votes(job)
    assert found.classes == (1, 2)
    assert found.counts.sum(axis=(0, 2, 3)).tolist() == [30, 20]
    assert found.counts.sum(axis=(1, 2, 3)).tolist() == [25, 25]
    assert found.told_apart(1, 2) is told
    table = read_star(job / "votes.star")["particles"]
    was = read_star(classification / "run_data.star")["particles"].set_index("rlnTomoParticleName")["rlnClassNumber"]
    assert (was.reindex(table["rlnTomoParticleName"]).to_numpy() == table["rlnClassNumber"].to_numpy()).all()
    assert sorted(path.name for path in job.iterdir()) == ["job.json", "votes.star"]


def test_where_relion_failed_a_warning_says_so(classification, tmp_path):
    job = split(classification, tmp_path)
    check_class_test(job)
    noted = json.loads((job / "job.json").read_text())
    assert "relion_refine failed" in noted["warnings"][0]
    assert read_votes(job) is None


def test_lost_particles_are_an_error(classification, tmp_path):
    job = split(classification, tmp_path)
    searched(job, 1.0)
    found = read_star(job / "run_half1_it001_data.star")["particles"]
    write_star({"particles": found.iloc[4:]}, job / "run_half1_it001_data.star")
    with pytest.raises(ProblemError, match="lacks 2 of 25 particles"):
        check_class_test(job)


def test_one_class_with_particles_is_not_tested(classification, tmp_path):
    blocks = read_star(classification / "run_data.star")
    kept = blocks["particles"][blocks["particles"]["rlnClassNumber"].astype(int) != 2]
    write_star(blocks | {"particles": kept}, classification / "run_data.star")
    job = split(classification, tmp_path)
    assert "averages=''" in (job / "settings.sh").read_text()
    check_class_test(job)
    found = read_votes(job)
    assert "fewer than two have 5 particles" in found.text
    assert found.apart(1, 2) is None
