"""The preflight: every broken copy of a good data set is found, and all of it in one list."""

import shutil

import numpy as np
import pytest

from py2rely_core.checks import run_checks
from py2rely_core.checks.context import CheckContext
from py2rely_core.inputs import load_inputs, referenced_files
from py2rely_core.maps.io import write_map
from py2rely_core.preflight import import_inputs
from py2rely_core.recipe import new_recipe
from py2rely_core.tables import read_star, write_star


@pytest.fixture
def data(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "data")


def problems(data, mode="known", reference=None, **changes):
    options = {"tilt_series": "tilt_series.star", "particles": "particles.star", "pixel_size": 5, "symmetry": "O"}
    options |= {"low_pass": 50, "diameter": 150, "denovo": False, "box_scaling": 1.5, "binnings": "2", "threads": 2}
    inputs = load_inputs("particles.star", "tilt_series.star", data)
    return run_checks(CheckContext(new_recipe(**options | changes), inputs, mode, reference))


def edit(path, block, change):
    blocks = read_star(path)
    blocks[block] = change(blocks[block])
    write_star(blocks, path)


def test_good_data_has_no_errors(data):
    assert [one for one in problems(data) if one.is_error] == []


BROKEN = {
    "particles gone": (lambda d: (d / "particles.star").unlink(), "particles.star"),
    "tilt series gone": (lambda d: (d / "tilt_series/TS_02.star").unlink(), "TS_02.star"),
    "stack gone": (lambda d: (d / "tilt_series/TS_01.mrcs").unlink(), "TS_01.mrcs"),
    "stack cut short": (
        lambda d: (d / "tilt_series/TS_01.mrcs").write_bytes((d / "tilt_series/TS_01.mrcs").read_bytes()[:5000]),
        "TS_01.mrcs",
    ),
    "sections beyond the stack": (
        lambda d: write_map(d / "tilt_series/TS_01.mrcs", np.ones((5, 160, 160)), 5.0),
        "stack that has 5",
    ),
    "particle label": (
        lambda d: edit(d / "particles.star", "particles", lambda t: t.drop(columns="rlnCenteredCoordinateXAngst")),
        "rlnCenteredCoordinateXAngst",
    ),
    "orientation label": (
        lambda d: edit(d / "particles.star", "particles", lambda t: t.drop(columns="rlnAngleTilt")), "rlnAngleTilt",
    ),
    "tilt label": (
        lambda d: edit(d / "tilt_series/TS_01.star", "TS_01", lambda t: t.drop(columns="rlnMicrographPreExposure")),
        "rlnMicrographPreExposure",
    ),
    "tilt value": (
        lambda d: edit(d / "tilt_series/TS_01.star", "TS_01", lambda t: t.assign(rlnTomoYTilt="nan")), "rlnTomoYTilt",
    ),
    "global label": (
        lambda d: edit(d / "tilt_series.star", "global", lambda t: t.drop(columns="rlnTomoHand")), "rlnTomoHand",
    ),
    "hands differ": (
        lambda d: edit(d / "tilt_series.star", "global", lambda t: t.assign(rlnTomoHand=[1.0, -1.0])), "rlnTomoHand",
    ),
    "names": (
        lambda d: edit(d / "particles.star", "particles", lambda t: t.assign(rlnTomoName="rec_" + t["rlnTomoName"])),
        "rec_TS_01",
    ),
    "outside": (
        lambda d: edit(d / "particles.star", "particles", lambda t: t.assign(rlnCenteredCoordinateXAngst=9999.0)),
        "tomogram",
    ),
    "pixel size": (
        lambda d: edit(d / "particles.star", "optics", lambda t: t.assign(rlnTomoTiltSeriesPixelSize=2.5)), "2.5 A",
    ),
    "optics group": (
        lambda d: edit(d / "particles.star", "particles", lambda t: t.assign(rlnOpticsGroup=7)), "7",
    ),
    "few particles": (lambda d: edit(d / "particles.star", "particles", lambda t: t.head(6)), "half set"),
    "one half set": (
        lambda d: edit(d / "particles.star", "particles", lambda t: t.assign(rlnRandomSubset=1)), "half set",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_copies(data, name):
    change, text = BROKEN[name]
    change(data)
    found = [one for one in problems(data) if one.is_error]
    assert any(text in str(one) for one in found), "\n".join(map(str, found))
    assert all(one.what and one.where and one.fix for one in found)


def test_all_problems_at_once(data):
    for name in ("stack gone", "tilt label", "names", "optics group"):
        BROKEN[name][0](data)
    text = "\n".join(map(str, problems(data)))
    assert all(BROKEN[name][1] in text for name in ("stack gone", "tilt label", "names", "optics group"))


def test_pixel_size_of_the_parameter_file(data):
    assert any("pixel size" in one.what for one in problems(data, pixel_size=4.0))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda path: None, "missing"),
        (lambda path: write_map(path, np.zeros((30, 30, 30)), 10.0), "no usable density"),
        (lambda path: write_map(path, np.random.default_rng(0).normal(size=(30, 30, 30)), 0.0), "voxel size"),
        (lambda path: write_map(path, np.random.default_rng(0).normal(size=(30, 30, 30)), 1.0), "30 A across"),
    ],
)
def test_references(data, make, text):
    make(data / "ref.mrc")
    found = problems(data, "template", data / "ref.mrc")
    assert any(text in one.what for one in found), "\n".join(map(str, found))


def test_good_reference(data):
    assert not [one for one in problems(data, "template", data / "template.mrc") if one.is_error]


def test_files_are_found_beside_the_star_file(data, tmp_path):
    names = referenced_files([data / "tilt_series.star"], tmp_path)
    assert data / "tilt_series/TS_01.star" in names
    assert data / "tilt_series/TS_01.mrcs" in referenced_files([data / "tilt_series/TS_01.star"], tmp_path)


def test_import_keeps_odd_names_and_links(data, tmp_path):
    odd = "TS 1 (ä)"
    edit(data / "particles.star", "particles", lambda t: t.replace({"rlnTomoName": {"TS_01": odd}}))
    edit(data / "tilt_series.star", "global", lambda t: t.replace({"rlnTomoName": {"TS_01": odd}}))
    job, picks = import_inputs("particles.star", "tilt_series.star", data, tmp_path / "out", "O")
    table = read_star(job / "tomograms.star")["global"]
    assert (
        set(table["rlnTomoName"])
        == {odd, "TS_02"}
        == set(read_star(picks / "particles.star")["particles"]["rlnTomoName"])
    )
    for name in table["rlnTomoTiltSeriesStarFile"]:
        assert " " not in name
        tilts = next(iter(read_star(tmp_path / "out" / name).values()))
        stack = tmp_path / "out" / tilts["rlnMicrographName"].iloc[0].split("@")[1]
        assert stack.is_symlink()
        assert stack.stat().st_size > 0
