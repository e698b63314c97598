"""3D classification with real RELION: the choice against the truth, by hand and by the rule, and what is repeated."""

import json
import re

import pytest
from classification import ROOMY, classify, labels_of, score
from helpers import NOISY, make_data, pipeline, write_parameters

from py2rely_core.data.tables import read_star

pytestmark = [pytest.mark.relion, pytest.mark.nextflow, pytest.mark.slow]


def test_by_hand_and_by_the_rule(tmp_path):
    """False picks; the run waits for a choice, goes on with it, and with the rule, and repeats no work.

    Poses are true, and not refined: that takes minutes for false picks.
    """
    data = make_data(tmp_path / "data", **ROOMY | NOISY | {"particles": 16, "false_picks": 0.5})
    parameters = write_parameters(
        tmp_path / "sta.json", data, refine3D={"other_args": "--skip_align"}, classification={"min_per_half": 4},
        class3D={"nr_classes": 2, "nr_iter": 12},
    )  # fmt: skip
    arguments = ["--parameter", parameters, "--run_class3D"]
    waiting = pipeline(tmp_path, *arguments, "--class_selection", "manual")
    assert waiting.code == 0, waiting.text
    assert "Classes are to be chosen" in waiting.text
    (command,) = [line for line in waiting.text.splitlines() if "--keep_classes 1,3 --best_class 1" in line]
    assert "--class_selection manual -resume" in command
    (dataset,) = waiting.results["datasets"]
    assert dataset["status"] == "choose classes"
    classes = dataset["levels"][0]["classes"]
    assert [row["why"] for row in classes] == ["to be chosen"] * 2
    assert sum(row["particles"] for row in classes) == 48
    select = tmp_path / "results/Select"
    assert (select / "bin2_classes/classes.png").stat().st_size > 5000
    assert "to be chosen" in (select / "bin2_classes/classes.txt").read_text()
    assert not (select / "bin2_classes/particles.star").exists()
    page = select / "bin2_classes/classes.html"
    assert f"  {page}" in waiting.text.splitlines()
    known = json.loads(re.search(r'id="run-command">(.*?)</script>', page.read_text())[1])
    assert command.strip() == f"{known} -resume --keep_classes 1,3 --best_class 1"
    assert page.read_text().count('<figure class="view"') == 2
    work = {"CLASS3D (bin2)", "REFINE3D (bin2)", "EXTRACT (bin2)", "IMPORT (tilt_series)"}
    assert work <= waiting.executed

    particles = tmp_path / "results/Class3D/bin2/run_data.star"
    labels, numbers = (
        labels_of(particles, data),
        read_star(particles)["particles"]["rlnClassNumber"].reset_index(drop=True),
    )
    good = int(numbers[labels == "a"].mode().iloc[0])
    automatic = pipeline(tmp_path, *arguments, "--class_selection", "auto", "-resume")
    assert automatic.code == 0, automatic.text
    assert "SELECT_CLASSES (bin2)" in automatic.executed
    assert not work & automatic.executed
    found = score(select / "bin2_classes/particles.star", data, "a")
    print((select / "bin2_classes/classes.txt").read_text(), found)
    assert found.precision >= 0.9
    assert found.recall >= 0.9
    (dataset,) = automatic.results["datasets"]
    assert dataset["status"] == "complete"
    assert "bin2_selected" in dataset["final"]["map"]
    assert '--class_selection auto -resume"</script>' in page.read_text()

    chosen = pipeline(
        tmp_path, *arguments, "--class_selection", "manual", "-resume", "--keep_classes", good, "--best_class", good
    )
    assert chosen.code == 0, chosen.text
    assert "SELECT_CLASSES (bin2)" in chosen.executed
    assert not work & chosen.executed
    (dataset,) = chosen.results["datasets"]
    assert [row["class"] for row in dataset["levels"][0]["classes"] if row["kept"]] == [good]
    kept = read_star(select / "bin2_classes/particles.star")["particles"]
    assert set(kept["rlnClassNumber"]) == {good}
    assert len(kept) == (numbers == good).sum()


@pytest.mark.parametrize(
    ("classes", "settings"),
    [
        (2, {"seed": 1, "false_picks": 0.5}),
        pytest.param(2, {"seed": 1, "second_conformation": 0.3}, marks=pytest.mark.long),
        pytest.param(2, {"seed": 3}, marks=pytest.mark.long),
        pytest.param(3, {"seed": 7, "second_conformation": 0.3, "particles": 30}, marks=pytest.mark.long),
        pytest.param(3, {"seed": 2, "false_picks": 0.3}, marks=pytest.mark.long),
    ],
)
def test_the_rule_against_the_truth(tmp_path, classes, settings):
    """Without Nextflow: false picks and another conformation go, particles of one structure all stay."""
    home = classify(tmp_path / "run", classes, **settings)
    found = score(home / "Select/bin2_classes/particles.star", home / "data", "a")
    table = (home / "Select/bin2_classes/classes.txt").read_text()
    print(table, found)
    assert found.precision >= 0.9, table
    assert found.recall >= 0.9, table
    if not settings.keys() & {"false_picks", "second_conformation"}:
        assert "All classes are kept: they agree with one another." in table
