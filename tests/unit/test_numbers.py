"""Classifications with several numbers of classes: which counts, by the rule and by hand, and when none can."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.judging import class_job
from py2rely_core.judging.class_job import select_classes
from py2rely_core.judging.numbers import Judged, choose_number, comparison, comparison_text
from py2rely_core.judging.selection import Choice, Selection
from py2rely_core.parameters.files import parse_recipe
from py2rely_core.planning.plan import Machine, plan_dataset
from py2rely_core.problems import ProblemError
from py2rely_core.results.expected_jobs import expected_jobs


def judged(number, keeps, particles=100):
    """A classification of so many particles into equal classes in order, of which the first `keeps` are kept."""
    classes = np.repeat(np.arange(1, number + 1), -(-particles // number))[:particles]
    table = pd.DataFrame({"class": range(1, number + 1), "share": 1 / number, "resolution": 20.0 - number})
    table = table.assign(accuracy_rotation=1.0, accuracy_translation=1.0, similarity=20.0, likeness=1.0)
    table = table.assign(kept=table["class"] <= keeps, why="", particles=particles // number)
    names = [f"{row}@x.mrcs" for row in range(particles)]
    blocks = {"particles": pd.DataFrame({"rlnImageName": names, "rlnClassNumber": classes})}
    return Judged(Path(f"Class3D/bin4_k{number}"), Selection(table, None, "Kept."), blocks)


def test_where_they_agree_the_fewest_classes_count():
    found, why = choose_number([judged(8, 4), judged(2, 1), judged(4, 2)])
    assert found.number == 2
    assert "2, 4, 8 classes keep the same particles" in why
    found, _ = choose_number([judged(2, 2), judged(4, 2), judged(8, 4)])  # of two no one is told apart
    assert found.number == 4


def test_where_they_do_not_nobody_is_left_out():
    found, why = choose_number([judged(2, 1), judged(4, 1)])
    assert found is None
    assert "2 and 4 classes keep different particles (50% in common)" in why
    found, why = choose_number([judged(2, 2), judged(4, 2)])  # one of two
    assert found is None
    assert "too few leave particles out (4)" in why
    assert choose_number([judged(2, 2), judged(4, 4)])[1].endswith("(none).")


def test_the_table_compares_them():
    all_of_them = [judged(4, 2), judged(2, 1)]
    rows = comparison(all_of_them, all_of_them[1])
    assert [(row["classes"], row["particles_kept"], row["chosen"]) for row in rows] == [(2, 50, True), (4, 50, False)]
    lines = comparison_text(json.loads(json.dumps(rows)))
    assert "yes" in lines[1]
    assert "25% 25% 25% 25%" in lines[2]


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """Jobs with two and four classes; their verdicts are given, the rule between them is not."""
    monkeypatch.chdir(tmp_path)
    verdicts = {2: judged(2, 1), 4: judged(4, 2)}
    for one in verdicts.values():
        write_star(one.blocks, one.job / "run_data.star")

    def verdict(job, _diameter, choice, _mask, _votes):
        selection = verdicts[int(job.name[-1])].selection
        if choice.selection == "auto":
            return selection
        return Selection(selection.classes.assign(kept=selection.classes["class"].isin(choice.keep)), choice.best, "m")

    monkeypatch.setattr(class_job, "choose_classes", verdict)
    return verdicts, [one.job for one in verdicts.values()]


def test_the_particles_of_the_one_that_counts_go_on(jobs):
    _, paths = jobs
    job, _ = select_classes(paths, Choice(), 100.0, None, Path("Select/x_classes"), Path("Select/x_reference"))
    assert job == Path("Class3D/bin4_k2")
    noted = json.loads(Path("Select/x_classes/job.json").read_text())
    assert (noted["classes_job"], noted["particles_out"]) == ("Class3D/bin4_k2", 50)
    assert [row["chosen"] for row in noted["classifications"]] == [True, False]
    assert "counts" in Path("Select/x_classes/classes.txt").read_text()
    assert len(read_star("Select/x_reference/particles.star")["particles"]) == 50


def test_when_the_rule_cannot_choose_all_go_on(jobs):
    verdicts, paths = jobs
    verdicts[4] = judged(4, 1)
    _, selection = select_classes(paths, Choice(), 100.0, None, Path("Select/x_classes"), Path("Select/x_reference"))
    assert "All particles are kept: 2 and 4 classes keep different particles" in selection.reason
    assert len(read_star("Select/x_classes/particles.star")["particles"]) == 100


def test_by_hand_the_number_is_named(jobs):
    _, paths = jobs
    waiting, output, reference = Choice("manual"), Path("Select/x_classes"), Path("Select/x_reference")
    _, selection = select_classes(paths, waiting, 100.0, None, output, reference)
    assert selection.reason.startswith("Classes are to be chosen")
    assert not (output / "particles.star").exists()
    named = Choice("manual", (1, 3), 3)
    job, _ = select_classes(paths, named, 100.0, None, output, reference, 4)
    assert job == Path("Class3D/bin4_k4")
    assert set(read_star(output / "particles.star")["particles"]["rlnClassNumber"]) == {1, 3}
    assert set(read_star(reference / "particles.star")["particles"]["rlnClassNumber"]) == {3}


def recipe(numbers, **classification):
    sizes = {"resolutions": {"angpix": 5.0, "binning_list": "2"}, "refine3D": {"particle_diameter": 150}}
    return parse_recipe(
        sizes | {"class3D": {"nr_classes": numbers}, "classification": {"run": True} | classification}, "x"
    )


def test_numbers_in_the_parameter_file():
    assert recipe("2,4,6").class_numbers == [2, 4, 6]
    assert recipe([6, 2]).class_numbers == [2, 6]
    assert recipe("3").class3D.nr_classes == 3
    dataset = plan_dataset(recipe([2, 4]), "known", 2, Machine(4))
    level = dataset["levels"][0]
    assert level["classification"]["numbers"] == [2, 4]
    assert level["classification"]["run"]["classes"] == 4  # for its memory
    names = [name for name, _ in expected_jobs(dataset | {"oriented": True})]
    assert {"Class3D/bin2_k2", "Class3D/bin2_k4"} <= set(names)
    assert "Class3D/bin2" not in names
    for numbers, classification, text in (
        ("2,8,2", {}, "named twice"),
        ([1, 2], {}, "into 1 class"),
        ([2, 4], {"selection": "manual", "keep_classes": [1]}, "not of which number"),
        ([2, 4], {"selection": "manual", "keep_classes": [3], "of_classes": 2}, "no class 3"),
    ):
        with pytest.raises(ProblemError, match=text):
            recipe(numbers, **classification)
    assert recipe([2, 4], selection="manual", keep_classes=[3], of_classes=4)
