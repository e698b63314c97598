"""The short part of the table of truth (``benchmarks/truth``)."""

import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.relion, pytest.mark.nextflow, pytest.mark.slow]


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import truth

    monkeypatch.setattr(truth, "HOME", tmp_path)
    yield lambda *names: list(truth.outcomes(list(names), [], None))
    del sys.modules["truth"]


def test_the_short_part_of_the_table(table):
    (protein,) = table("short")
    assert protein.angle < 5
    assert protein.shift < 4
    assert protein.right > 0.8
    assert protein.correlations[0] > 0.9
    assert protein.verdict in ("consistent", "partly")
    assert protein.shells <= 1


@pytest.mark.long
def test_noise_alone_determines_nothing(table):
    (noise,) = table("short-noise-only")
    assert noise.verdict == "not determined"
    assert noise.correlations[1] < 0.5
