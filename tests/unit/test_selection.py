"""Which classes are kept: every branch of the rule, on maps and tables that are made for it."""

import json

import numpy as np
import pandas as pd
import pytest

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.judging.class_job import noted_opinion, select_classes
from py2rely_core.judging.class_test import Votes
from py2rely_core.judging.selection import (
    ALIKE,
    Choice,
    agreement,
    as_records,
    choose_classes,
    correlation,
    likeness,
    of_classes,
)
from py2rely_core.maps.filters import gaussian_low_pass
from py2rely_core.maps.fsc import shell_resolutions
from py2rely_core.maps.io import Map, write_map
from py2rely_core.problems import ExitCode, ProblemError
from py2rely_core.relion.outputs.refinements import check_classes, share_moved
from py2rely_core.simulation.structures import density, make_structure

BOX, PIXEL, DIAMETER = 32, 5.0, 130.0
#: A resolution that RELION gives when it knows none.
UNKNOWN = 999.0


@pytest.fixture(scope="module")
def maps():
    """The structure, another one, one that agrees to about 40 Angstrom only, and noise."""
    good = density(make_structure(DIAMETER, "C1", 0), BOX, PIXEL)
    other = density(make_structure(DIAMETER, "C1", 1), BOX, PIXEL)
    blurred = gaussian_low_pass(good, PIXEL, 40.0)
    noise = np.random.default_rng(0).normal(size=good.shape) * good.std()
    return {"good": good, "other": other, "coarse": blurred + 0.3 * gaussian_low_pass(noise, PIXEL, 12.0),
            "noise": noise, "flat": np.zeros_like(good)}  # fmt: skip


def job(path, maps, *classes, halves=True):
    """A Class3D job; each class: map, particles, resolution, accuracy of angles."""
    path.mkdir()
    numbers = np.repeat(np.arange(1, len(classes) + 1), [one[1] for one in classes])
    particles = pd.DataFrame({"rlnTomoName": "a", "rlnOpticsGroup": 1, "rlnClassNumber": numbers})
    if halves:
        particles["rlnRandomSubset"] = np.arange(len(particles)) % 2 + 1
    write_star({"optics": pd.DataFrame([{"rlnOpticsGroup": 1}]), "particles": particles}, path / "run_data.star")
    model = [
        {"rlnReferenceImage": f"run_class{number:03d}.mrc", "rlnEstimatedResolution": one[2],
         "rlnAccuracyRotations": one[3], "rlnAccuracyTranslationsAngst": 2.0}
        for number, one in enumerate(classes, start=1)
    ]  # fmt: skip
    write_star({"model_classes": pd.DataFrame(model)}, path / "run_model.star")
    for number, one in enumerate(classes, start=1):
        write_map(path / f"run_class{number:03d}.mrc", maps[one[0]].astype(np.float32), PIXEL)
    return path


def votes_of(agree, disagree):
    """A test of two classes: particles of which both parts agree, and of which they do not, in each of four cells."""
    counts = np.zeros((2, 2, 2, 2), dtype=int)
    counts[:, 0] = counts[:, 1] = [[agree, disagree], [disagree, agree]]
    return Votes((1, 2), counts)


def draw(path, moved):
    """Give a job the first iteration of which a share of the particles moved."""
    blocks = read_star(path / "run_data.star")
    particles = blocks["particles"].assign(rlnTomoParticleName=[f"a/{n}" for n in range(len(blocks["particles"]))])
    write_star({"particles": particles}, path / "run_data.star")
    first = particles["rlnClassNumber"].astype(int)
    first = first.where(np.arange(len(first)) >= round(moved * len(first)), first % first.max() + 1)
    write_star({"particles": particles.assign(rlnClassNumber=first).iloc[::-1]}, path / "run_it001_data.star")
    return path


def why(selection):
    return dict(zip(selection.classes["class"], selection.classes["why"], strict=True))


@pytest.mark.parametrize(("moved", "kept"), [(0.0, [1, 2]), (0.03, [1, 2]), (0.06, [1]), (0.5, [1])])
def test_classes_that_are_still_as_they_were_drawn_decide_nothing(maps, tmp_path, moved, kept):
    path = draw(job(tmp_path / "bin4", maps, ("good", 100, 20.0, 2.0), ("other", 60, 30.0, 3.0)), moved)
    assert share_moved(path) == pytest.approx(moved, abs=0.005)
    found = choose_classes(path, DIAMETER, Choice())
    assert found.kept == kept
    assert ("drawn at random" in found.reason) == (len(kept) > 1)
    write_map(path / "reference.mrc", maps["good"].astype(np.float32), PIXEL)
    check_classes(path, path / "run_data.star", path / "reference.mrc", 2)
    noted = json.loads((path / "job.json").read_text())
    assert bool(noted.get("warnings")) == (len(kept) > 1)
    assert noted["moved"] == pytest.approx(moved, abs=0.005)


@pytest.mark.parametrize(
    ("agree", "kept", "words"),
    [(40, [1], "2 groups of classes are told apart: 1 | 2."), (20, [1, 2], "no class is told apart from another.")],
)
def test_a_class_that_only_chance_tells_from_the_best_is_kept(maps, tmp_path, agree, kept, words):
    path = job(tmp_path / "j", maps, ("good", 100, 20.0, 2.0), ("other", 60, 30.0, 3.0))
    votes = votes_of(agree, 40 - agree)
    found = choose_classes(path, DIAMETER, Choice(), votes=votes)
    assert found.kept == kept
    assert found.reason.endswith(words)
    assert as_records(found)[0]["apart"] is None
    assert as_records(found)[1]["apart"] == pytest.approx(votes.apart(1, 2))
    assert ("not told apart" in why(found)[2]) == (kept == [1, 2])
    by_hand = choose_classes(path, DIAMETER, Choice("manual", (2,), 2), votes=votes)
    assert by_hand.kept == [2]
    assert words in by_hand.reason


def test_a_class_that_its_images_tell_apart_goes_though_its_map_agrees(maps, tmp_path):
    path = job(tmp_path / "j", maps, ("good", 140, 20.0, 2.0), ("good", 60, 22.0, 2.2))
    assert choose_classes(path, DIAMETER, Choice()).kept == [1, 2]
    found = choose_classes(path, DIAMETER, Choice(), votes=votes_of(38, 2))
    assert found.kept == [1]
    assert why(found)[2] == "told apart from the best by its images: 90%"
    assert choose_classes(path, DIAMETER, Choice(), votes=votes_of(32, 8)).kept == [1, 2]


def test_a_small_class_is_left_out_whatever_its_images_say(maps, tmp_path):
    path = job(tmp_path / "j", maps, ("good", 100, 20.0, 2.0), ("other", 4, 30.0, 3.0))
    assert choose_classes(path, DIAMETER, Choice(), votes=votes_of(20, 20)).kept == [1]


def test_where_the_first_iteration_is_gone_nothing_is_said_of_it(maps, tmp_path):
    path = job(tmp_path / "j", maps, ("good", 100, 20.0, 2.0), ("other", 60, 30.0, 3.0))
    assert share_moved(path) is None
    assert choose_classes(path, DIAMETER, Choice()).kept == [1]


def test_classes_that_agree_are_kept_together(maps, tmp_path):
    found = choose_classes(
        job(tmp_path / "j", maps, ("good", 100, 20.0, 2.0), ("other", 40, 30.0, 3.0), ("good", 80, 22.0, 2.2)),
        DIAMETER, Choice(),
    )  # fmt: skip
    assert found.kept == [1, 3]
    assert "not to 25.0 A" in why(found)[2]
    assert found.reason == "Kept: class 1, 3, up to 25.0 A one structure; class 1 is the best."
    assert found.classes["share"].tolist() == pytest.approx([100 / 220, 40 / 220, 80 / 220])


def test_a_small_class_is_neither_kept_nor_the_best(maps, tmp_path):
    found = choose_classes(
        job(tmp_path / "j", maps, ("good", 4, 12.0, 1.0), ("good", 100, 20.0, 2.0), ("noise", 60, 40.0, 5.0)),
        DIAMETER, Choice(),
    )  # fmt: skip
    assert found.kept == [2]
    assert why(found) == {1: "small", 2: "the best resolution", 3: why(found)[3]}


def test_a_class_without_features_is_not_kept_though_its_map_agrees(maps, tmp_path):
    found = choose_classes(
        job(tmp_path / "j", maps, ("good", 100, 20.0, 2.0), ("good", 60, 20.0, 6.1), ("good", 60, 20.0, 5.9)),
        DIAMETER, Choice(),
    )  # fmt: skip
    assert found.kept == [1, 3]
    assert why(found)[2] == "no features: angles known to 6.1 degrees only"


def test_noise_with_a_better_resolution_is_not_the_best(maps, tmp_path):
    found = choose_classes(
        job(tmp_path / "j", maps, ("noise", 120, 18.0, 9.0), ("good", 100, 20.0, 2.0)), DIAMETER, Choice()
    )
    assert found.kept == [2]
    assert why(found) == {1: "no features: angles known to 9.0 degrees only", 2: "the best resolution"}


def test_of_equal_resolutions_the_larger_class_is_the_best(maps, tmp_path):
    found = choose_classes(
        job(tmp_path / "j", maps, ("other", 70, 20.0, 2.0), ("good", 150, 20.0, 2.0)), DIAMETER, Choice()
    )
    assert why(found)[2] == "the best resolution"
    assert found.kept == [2]


def test_another_structure_that_is_as_good_leaves_everything(maps, tmp_path):
    found = choose_classes(
        job(tmp_path / "j", maps, ("good", 100, 20.0, 2.0), ("other", 60, 20.0, 2.0)), DIAMETER, Choice()
    )
    assert found.kept == [1, 2]
    assert "class 2 is another structure, as good as class 1: choose with --class_selection manual" in found.reason


def test_agreement_is_the_users_where_it_is_given(maps, tmp_path):
    classes = [("good", 100, 10.0, 2.0), ("coarse", 60, 12.0, 2.0)]
    assert choose_classes(job(tmp_path / "a", maps, *classes), DIAMETER, Choice()).kept == [1]
    found = choose_classes(job(tmp_path / "b", maps, *classes), DIAMETER, Choice(agreement=60.0))
    assert found.kept == [1, 2]
    assert found.reason == "All classes are kept: they agree with one another."


def test_homogeneous_particles_are_kept_whole(maps, tmp_path):
    found = choose_classes(
        job(tmp_path / "j", maps, ("good", 60, 20.0, 2.0), ("good", 60, 21.0, 2.1)), DIAMETER, Choice()
    )
    assert found.kept == [1, 2]
    assert found.reason == "All classes are kept: they agree with one another."


@pytest.mark.parametrize(("halves", "least"), [(True, 25), (False, 25), (True, 24)])
def test_too_few_per_half_set_leaves_everything(maps, tmp_path, halves, least):
    classes = [("good", 48, 20.0, 2.0), ("noise", 20, 40.0, 9.0)]
    found = choose_classes(job(tmp_path / "j", maps, *classes, halves=halves), DIAMETER, Choice(min_per_half=least))
    assert found.kept == ([1, 2] if least == 25 else [1])
    assert ("only 24 particles per half set would be left, of at least 25" in found.reason) == (least == 25)


def test_no_resolution_is_no_preference(maps, tmp_path):
    found = choose_classes(
        job(tmp_path / "j", maps, ("good", 60, UNKNOWN, UNKNOWN), ("noise", 60, UNKNOWN, UNKNOWN)), DIAMETER, Choice()
    )
    assert found.kept == [1, 2]
    assert "no class has a resolution" in found.reason
    json.dumps(as_records(found), allow_nan=False)


def test_an_empty_map_agrees_with_nothing(maps, tmp_path):
    found = choose_classes(
        job(tmp_path / "j", maps, ("good", 100, 20.0, 2.0), ("flat", 20, 40.0, 2.0)), DIAMETER, Choice()
    )
    assert found.kept == [1]
    assert why(found)[2] == "agrees with the best nowhere, not to 25.0 A"
    assert as_records(found)[1]["similarity"] is None


SHELLS = shell_resolutions(BOX, PIXEL)


def test_agreement_of_two_maps(maps):
    first = Map(maps["good"], PIXEL)

    def to(other):
        return agreement(correlation(Map(maps[other], PIXEL), first, DIAMETER), SHELLS)

    assert to("good") == 2 * PIXEL
    assert 15.0 < to("coarse") < 60.0
    assert to("flat") == float("inf")


@pytest.mark.parametrize("noise", [0.1, 0.3, 0.5])
def test_another_conformation_differs_by_more_than_noise(noise):
    """Their maps correlate above 0.5; those of one structure correlate as much as their noise allows."""
    rng = np.random.default_rng(0)
    shapes = [density(make_structure(DIAMETER, "O", 3, moved), BOX, PIXEL) for moved in (False, False, True)]
    noisy = [Map(one + noise * rng.normal(size=one.shape) * one.std(), PIXEL) for one in shapes]
    power, background = (shell_power(one) for one in (shapes[0], noisy[0].data - shapes[0]))
    ratios = (power / background,) * 2
    curves = [correlation(noisy[0], noisy[n], DIAMETER) for n in (1, 2)]
    same, other = (likeness(curve, SHELLS, ratios, 20.0) for curve in curves)
    assert same > ALIKE + 0.02
    assert other < ALIKE - 0.02
    assert agreement(curves[1], SHELLS) < 60.0


def shell_power(data):
    n = data.shape[0]
    shell = np.rint(np.linalg.norm(np.stack(np.meshgrid(*[np.fft.fftfreq(n, 1 / n)] * 3)), axis=0)).astype(int)
    power = np.abs(np.fft.fftn(data)) ** 2
    return (np.bincount(shell.ravel(), power.ravel()) / np.bincount(shell.ravel()))[: n // 2 + 1]


def test_what_noise_explains_is_no_other_structure(tmp_path):
    """The decision follows RELION's signal-to-noise ratios, where the model has them."""
    found = {}
    moved = density(make_structure(DIAMETER, "O", 3, True), BOX, PIXEL)
    two = {"first": density(make_structure(DIAMETER, "O", 3), BOX, PIXEL), "second": moved}
    for name, ratio in (("clear", 1000.0), ("noisy", 3.0)):
        path = job(tmp_path / name, two, ("first", 100, 20.0, 2.0), ("second", 40, 20.0, 2.0))
        blocks = read_star(path / "run_model.star")
        rows = pd.DataFrame({"rlnSsnrMap": [ratio] * (BOX // 2 + 1)})
        write_star(blocks | {f"model_class_{n}": rows for n in (1, 2)}, path / "run_model.star")
        found[name] = choose_classes(path, DIAMETER, Choice(agreement=20.0))
    assert found["clear"].kept == [1]
    assert "differs from the best by more than noise" in why(found["clear"])[2]
    assert found["noisy"].kept == [1, 2]


def test_manual(maps, tmp_path):
    path = job(tmp_path / "j", maps, ("good", 60, 20.0, 2.0), ("good", 50, 20.0, 2.0), ("noise", 40, 40.0, 8.0))
    waiting = choose_classes(path, DIAMETER, Choice("manual"))
    assert (waiting.kept, waiting.reason) == ([], "Classes are to be chosen.")
    assert set(waiting.classes["why"]) == {"to be chosen"}
    chosen = choose_classes(path, DIAMETER, Choice("manual", (1, 3), 3))
    assert (chosen.kept, chosen.best) == ([1, 3], 3)
    assert list(chosen.classes["why"]) == ["chosen", "not chosen", "chosen"]
    with pytest.raises(ProblemError, match="no class 4, 7") as error:
        choose_classes(path, DIAMETER, Choice("manual", (1, 4), 7))
    assert error.value.exit_code == ExitCode.BAD_PARAMETERS


def test_what_a_selection_writes(maps, tmp_path):
    path = job(tmp_path / "j", maps, ("good", 60, 20.0, 2.0), ("good", 50, 20.0, 2.0), ("noise", 40, 40.0, 8.0))
    output, reference = tmp_path / "Select/x", tmp_path / "Select/reference"
    select_classes([path], Choice("manual"), DIAMETER, None, output, reference)
    assert not reference.exists()
    assert not (output / "particles.star").exists()
    assert "to be chosen" in (output / "classes.txt").read_text()
    select_classes([path], Choice("manual", (1, 3), 3), DIAMETER, None, output, reference)
    assert read_star(output / "particles.star")["particles"]["rlnClassNumber"].value_counts().to_dict() == {
        1: 60,
        3: 40,
    }
    assert set(read_star(reference / "particles.star")["particles"]["rlnClassNumber"]) == {3}
    noted = json.loads((output / "job.json").read_text())
    assert (noted["particles_in"], noted["particles_out"]) == (150, 100)
    assert [row["kept"] for row in noted["classes"]] == [True, False, True]
    verdicts, reason = noted_opinion(noted, "j")
    assert [verdicts[number].keep for number in (1, 2, 3)] == [True, True, False]
    assert verdicts[3].why.startswith("no features")
    assert reason.startswith("Kept: class 1, 2")
    assert noted_opinion({}, "j") == ({}, "")


def test_optics_groups_without_particles_go():
    particles = pd.DataFrame({"rlnClassNumber": [1, 2], "rlnOpticsGroup": [1, 2]})
    blocks = {"optics": pd.DataFrame({"rlnOpticsGroup": [1, 2]}), "particles": particles}
    left = of_classes(blocks, [2])
    assert left["optics"]["rlnOpticsGroup"].tolist() == left["particles"]["rlnOpticsGroup"].tolist() == [2]
