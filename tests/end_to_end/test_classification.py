"""3D classification with real RELION: the rule's choice against the truth."""

import pytest
from classification import classify, score

pytestmark = [pytest.mark.relion, pytest.mark.slow]


def test_false_picks_are_found(tmp_path):
    """Half as many picks of nothing as particles."""
    home = classify(tmp_path / "run", 2, seed=1, false_picks=0.5)
    found = score(home / "Select/bin2_classes/particles.star", home / "data", "a")
    table = (home / "Select/bin2_classes/classes.txt").read_text()
    print(table, found)
    assert found.precision >= 0.9, table
    assert found.recall >= 0.9, table
