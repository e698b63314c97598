"""The preflight: every broken copy of a good data set is found, all of it in one list, and quickly."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache

import mrcfile
import numpy as np
import pandas as pd
import pytest
from helpers import REPO, TINY, cli, make_data, write_parameters

from py2rely_core.checks import machine, run_checks
from py2rely_core.checks.context import CheckContext
from py2rely_core.checks.machine import Planned
from py2rely_core.checks.particles import SUBTOMOGRAM
from py2rely_core.data.geometry import ANGLES, CENTRED
from py2rely_core.data.import_job import import_inputs
from py2rely_core.data.inputs import load_inputs, referenced_files
from py2rely_core.data.tables import read_star, read_stars, write_star
from py2rely_core.maps.io import write_map
from py2rely_core.parameters.files import new_recipe, parse_recipe
from py2rely_core.planning.plan import Machine, plan_dataset
from py2rely_core.problems import ProblemError

SERIES = ("TS_01", "TS_02", "TS_03")
IMAGE, THICKNESS, PIXEL_SIZE, PER_SERIES = 160, 64, 5.0, 48


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Three tilt series with noise for images, and 144 particles on grids: nothing is wrong with it."""
    path, rng = tmp_path_factory.mktemp("good"), np.random.default_rng(0)
    angles = np.arange(-60.0, 61.0, 10.0)
    tilts = {"rlnTomoXTilt": 0.0, "rlnTomoYTilt": angles, "rlnTomoZRot": 85.0, "rlnTomoXShiftAngst": 4.0}
    tilts |= {"rlnTomoYShiftAngst": -3.0, "rlnDefocusU": 30100.0, "rlnDefocusV": 29900.0, "rlnDefocusAngle": 0.0}
    tilts |= {"rlnMicrographPreExposure": 2.0 * np.argsort(np.argsort(np.abs(angles), kind="stable"))}
    rows = []
    for name in SERIES:
        names = [f"{section}@tilt_series/{name}.mrcs" for section in range(1, len(angles) + 1)]
        write_star({name: pd.DataFrame({"rlnMicrographName": names} | tilts)}, path / f"tilt_series/{name}.star")
        write_map(path / f"tilt_series/{name}.mrcs", rng.normal(size=(len(angles), IMAGE, IMAGE)), PIXEL_SIZE)
        row = {"rlnTomoName": name, "rlnTomoTiltSeriesStarFile": f"tilt_series/{name}.star", "rlnTomoHand": -1.0}
        row |= {"rlnVoltage": 300.0, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.07}
        row |= {"rlnTomoTiltSeriesPixelSize": PIXEL_SIZE, "rlnTomoSizeX": IMAGE, "rlnTomoSizeY": IMAGE}
        rows.append(row | {"rlnTomoSizeZ": THICKNESS})
    write_star({"global": pd.DataFrame(rows)}, path / "tilt_series.star")
    grid = np.stack(np.meshgrid(np.linspace(-250, 250, 4), np.linspace(-250, 250, 4), [-60, 0, 60]), -1).reshape(-1, 3)
    picks = pd.DataFrame({"rlnTomoName": np.repeat(SERIES, PER_SERIES), "rlnOpticsGroup": 1})
    picks[list(CENTRED)] = np.tile(grid, (3, 1)) + rng.uniform(-5, 5, (3 * PER_SERIES, 3))
    picks[list(ANGLES)] = rng.uniform(0, 180, (len(picks), 3))
    optics = {"rlnOpticsGroup": 1, "rlnOpticsGroupName": "one", "rlnTomoTiltSeriesPixelSize": PIXEL_SIZE}
    optics |= {"rlnVoltage": 300.0, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.07}
    write_star({"optics": pd.DataFrame([optics]), "particles": picks}, path / "particles.star")
    # Flatter than it is wide: particles would find nothing to align to in a ball.
    flat = np.linalg.norm((np.indices((40, 40, 40)) - 20) * np.reshape([1.6, 1, 1], (3, 1, 1, 1)), axis=0) < 12
    write_map(path / "template.mrc", flat + rng.normal(0, 0.1, flat.shape), PIXEL_SIZE)
    return path


@pytest.fixture
def data(good, tmp_path):
    return shutil.copytree(good, tmp_path / "data")


def a_recipe(**changes):
    options = {"tilt_series": "tilt_series.star", "particles": "particles.star", "pixel_size": 5, "symmetry": "O"}
    options |= {"low_pass": 50, "diameter": 150, "denovo": False, "box_scaling": 1.5, "binnings": "2", "threads": 2}
    return new_recipe(**options | changes)


def a_context(data, mode="known", reference=None, **changes):
    inputs = load_inputs("particles.star", "tilt_series.star", data)
    return CheckContext(a_recipe(**changes), inputs, mode, reference)


def problems(data, mode="known", reference=None, **changes):
    return run_checks(a_context(data, mode, reference, **changes))


def edit(path, block, change):
    blocks = read_star(path)
    blocks[block] = change(blocks[block])
    write_star(blocks, path)


def particles(change):
    return lambda d: edit(d / "particles.star", "particles", change)


def optics(change):
    return lambda d: edit(d / "particles.star", "optics", change)


def tomograms(change):
    return lambda d: edit(d / "tilt_series.star", "global", change)


def tilts(change, *names):
    def broken(d):
        for name in names or ("TS_02",):
            edit(d / f"tilt_series/{name}.star", name, change)

    return broken


def setting(label, value, row=None):
    """A change of a table: a column, or one value of it."""

    def change(table):
        if row is None:
            return table.assign(**{label: value})
        column = list(table[label] if label in table else [0.0] * len(table))
        column[row] = value
        return table.assign(**{label: column})

    return change


def without(label):
    return lambda table: table.drop(columns=label)


def stack(change):
    def broken(d):
        path = d / "tilt_series/TS_01.mrcs"
        data = mrcfile.read(path).copy()
        write_map(path, change(data), PIXEL_SIZE)

    return broken


def blanked(data, sections):
    data[sections] = 7.0
    return data


def to_corner(table, scale=1.0, keep=False, offset=0.0):
    """Pixel coordinates from a corner, beside or instead of the centred ones."""
    sizes = (IMAGE, IMAGE, THICKNESS)
    corner = {
        f"rlnCoordinate{axis}": scale * (table[label] / PIXEL_SIZE + size / 2) + offset
        for axis, label, size in zip("XYZ", CENTRED, sizes, strict=True)
    }
    table = table.assign(**corner)
    return table if keep else table.drop(columns=list(CENTRED))


def scaled(table, factor, offset=(0.0, 0.0, 0.0)):
    return table.assign(**{label: table[label] * factor + shift for label, shift in zip(CENTRED, offset, strict=True)})


def old_tomograms(d):
    table = pd.DataFrame({"rlnTomoName": SERIES, "rlnTomoTiltSeriesName": "a.mrcs", "rlnTomoFrameCount": 13})
    tilts = pd.DataFrame({"rlnTomoProjX": ["[1,0,0,0]", "[1,0,0,0]"], "rlnDefocusU": [1.0, 2.0]})
    write_star({"global": table, "TS_01": tilts}, d / "tilt_series.star")


def linked(d, name):
    (d / name).unlink()
    (d / name).symlink_to(d / "gone")


def exchange(d):
    (d / "particles.star").rename(d / "x")
    (d / "tilt_series.star").rename(d / "particles.star")
    (d / "x").rename(d / "tilt_series.star")


#: Name: (what is broken, a part of the message, its severity).
BROKEN = {
    # Files and blocks.
    "particles gone": (lambda d: (d / "particles.star").unlink(), "A STAR file is missing", "error"),
    "particles link": (lambda d: linked(d, "particles.star"), "link to a file that is gone", "error"),
    "particles empty": (lambda d: (d / "particles.star").write_text(""), "cannot be read", "error"),
    "block gone": (
        lambda d: write_star({"optics": read_star(d / "particles.star")["optics"]}, d / "particles.star"),
        "block data_particles is missing",
        "error",
    ),
    "no optics block": (
        lambda d: write_star({"particles": read_star(d / "particles.star")["particles"]}, d / "particles.star"),
        "block data_optics is missing",
        "error",
    ),
    "series gone": (lambda d: (d / "tilt_series/TS_02.star").unlink(), "1 STAR files of tilt series are miss", "error"),
    "RELION 4": (old_tomograms, "This is a RELION 4 tomograms.star", "error"),
    "exchanged": (exchange, "This is a tilt-series file, not a particle file", "error"),
    "one tilt series": (
        lambda d: shutil.copy(d / "tilt_series/TS_01.star", d / "tilt_series.star"),
        "This is the file of one tilt series, not a tilt-series file",
        "error",
    ),
    "optimisation set": (
        lambda d: write_star({"": pd.DataFrame([{"rlnTomoParticlesFile": "p.star"}])}, d / "particles.star"),
        "This is an optimisation set",
        "error",
    ),
    # The table of tilt series.
    "global label": (tomograms(without("rlnTomoHand")), "labels are missing: rlnTomoHand", "error"),
    "global value": (tomograms(setting("rlnTomoSizeZ", "nan", 1)), "rlnTomoSizeZ is not a finite number", "error"),
    "named twice": (tomograms(setting("rlnTomoName", "TS_01", 1)), "named twice: TS_01", "error"),
    "forbidden": (tomograms(setting("rlnTomoName", "TS/01", 0)), "characters that RELION cannot use", "error"),
    "special": (tomograms(setting("rlnTomoName", "TS_ä", 0)), "blanks or special characters", "warning"),
    "size unknown": (tomograms(setting("rlnTomoSizeX", -999)), "rlnTomoSizeX is not positive", "error"),
    "odd size": (tomograms(setting("rlnTomoSizeY", 161)), "tomograms is odd", "warning"),
    "binned size": (
        tomograms(lambda t: t.assign(rlnTomoSizeX=40, rlnTomoSizeY=40)), "may be that of binned tomograms", "warning",
    ),
    "voltages": (tomograms(setting("rlnVoltage", 200.0, 2)), "rlnVoltage is not the same", "error"),
    "hands": (tomograms(setting("rlnTomoHand", 1.0, 2)), "rlnTomoHand is not the same", "error"),
    "hand": (tomograms(setting("rlnTomoHand", 0.0)), "rlnTomoHand is 0 in 3 rows", "error"),
    # Tilts.
    "tilt label": (tilts(without("rlnMicrographPreExposure")), "missing: rlnMicrographPreExposure", "error"),
    "not aligned": (tilts(without("rlnTomoYTilt")), "labels of tilts are missing: rlnTomoYTilt", "error"),
    "tilt value": (tilts(setting("rlnTomoYTilt", "nan", 4)), "rlnTomoYTilt is not a finite number in 1", "error"),
    "tilt text": (tilts(setting("rlnDefocusU", "bad", 4)), "rlnDefocusU is not a finite number in 1", "error"),
    "same image": (tilts(setting("rlnMicrographName", "3@tilt_series/TS_02.mrcs", 0)), "used for two tilts", "error"),
    "angle beyond": (tilts(setting("rlnTomoYTilt", 120.0, 0)), "beyond 90 degrees", "error"),
    "angles flat": (tilts(setting("rlnTomoYTilt", 0.0)), "All tilts of 1 tilt series have the same angle", "error"),
    "angle twice": (tilts(setting("rlnTomoYTilt", -50.0, 0)), "have the same angle as another", "warning"),
    "shift": (tilts(setting("rlnTomoXShiftAngst", 500.0, 0)), "their alignment failed", "warning"),
    "shifts": (tilts(setting("rlnTomoYShiftAngst", 900.0)), "Most images of 1 tilt series are shifted", "error"),
    "dose negative": (tilts(setting("rlnMicrographPreExposure", -2.0, 0)), "1 tilts is negative", "error"),
    "dose zero": (tilts(setting("rlnMicrographPreExposure", 0.0)), "no dose weighting", "warning"),
    "dose twice": (tilts(setting("rlnMicrographPreExposure", 2.0, 0)), "the same pre-exposure", "warning"),
    "dose high": (tilts(setting("rlnMicrographPreExposure", 4000.0, 0)), "beyond 400 e/A^2", "warning"),
    "defocus units": (
        tilts(lambda t: t.assign(rlnDefocusU=3.0, rlnDefocusV=3.0)), "cannot be Angstrom: 3", "error",
    ),
    "defocus outlier": (tilts(setting("rlnDefocusU", 90000.0, 0)), "far from the median", "warning"),
    "even alone": (
        tilts(setting("rlnMicrographNameEven", "a.mrc"), *SERIES), "without rlnMicrographNameOdd", "warning",
    ),
    "even is odd": (
        tilts(lambda t: t.assign(rlnMicrographNameEven="a.mrc", rlnMicrographNameOdd="a.mrc"), *SERIES),
        "the odd image of 39 tilts are one file",
        "warning",
    ),
    # Stacks.
    "stack gone": (lambda d: (d / "tilt_series/TS_01.mrcs").unlink(), "1 image stacks are missing", "error"),
    "stack link": (lambda d: linked(d, "tilt_series/TS_01.mrcs"), "stacks are links to files that are gone", "error"),
    "stack empty": (lambda d: (d / "tilt_series/TS_01.mrcs").write_bytes(b""), "stacks are empty files", "error"),
    "stack short": (
        lambda d: (d / "tilt_series/TS_01.mrcs").write_bytes((d / "tilt_series/TS_01.mrcs").read_bytes()[:5000]),
        "stack cannot be read",
        "error",
    ),
    "stack no MRC": (
        lambda d: (d / "tilt_series/TS_01.mrcs").write_text("text" * 900), "stack cannot be read", "error",
    ),
    "sections beyond": (stack(lambda data: data[:5]), "Sections 1 to 13 are used of a stack that has 5", "error"),
    "header pixel": (
        lambda d: write_map(d / "tilt_series/TS_01.mrcs", mrcfile.read(d / "tilt_series/TS_01.mrcs"), 1.0),
        "headers of 1 stacks say 1 A per pixel",
        "warning",
    ),
    "stack binned": (
        lambda d: write_map(d / "tilt_series/TS_01.mrcs", mrcfile.read(d / "tilt_series/TS_01.mrcs")[:, ::2, ::2], 10),
        "The images are binned 2 times",
        "error",
    ),
    "turned": (
        lambda d: (stack(lambda data: data[:, :96])(d), tomograms(setting("rlnTomoSizeY", 96))(d)),
        "x and y of 1 tomograms seem to be exchanged",
        "warning",
    ),
    "dummy": (stack(lambda data: np.zeros_like(data)), "1 tilt series are constant or not finite: they are", "error"),
    "not a number": (stack(lambda data: data * np.nan), "constant or not finite: they are dummies", "error"),
    "blank section": (stack(lambda data: blanked(data, 12)), "1 stacks hold images that are constant", "error"),
    # Particles.
    "label": (particles(without(CENTRED[0])), f"labels are missing: {CENTRED[0]}", "error"),
    "orientations": (particles(without("rlnAngleTilt")), "labels are missing: rlnAngleTilt", "error"),
    "value": (particles(setting(CENTRED[1], "inf", 7)), f"{CENTRED[1]} is not a finite number in 1", "error"),
    "optics label": (optics(without("rlnVoltage")), "labels are missing: rlnVoltage", "error"),
    "rec_": (particles(lambda t: t.assign(rlnTomoName="rec_" + t["rlnTomoName"])), "rec_TS_01: did you mean", "error"),
    "_Vol": (particles(lambda t: t.assign(rlnTomoName=t["rlnTomoName"] + "_Vol")), "did you mean 'TS_01'?", "error"),
    "Apx": (particles(lambda t: t.assign(rlnTomoName=t["rlnTomoName"] + "_10.00Apx")), "mean 'TS_03'?", "error"),
    "unused": (particles(lambda t: t[t["rlnTomoName"] != "TS_02"]), "1 of 3 tilt series hold no particles", "warning"),
    "pixel size": (optics(setting("rlnTomoTiltSeriesPixelSize", 2.5)), "particles' pixel size is 2.5 A", "error"),
    "voltage": (optics(setting("rlnVoltage", 200.0)), "rlnVoltage is 200 for the particles and 300", "error"),
    "optics differ": (
        optics(lambda t: pd.concat([t, t.assign(rlnOpticsGroup=2, rlnVoltage=200.0)])),
        "Optics groups differ in rlnVoltage",
        "error",
    ),
    "optics same": (optics(lambda t: pd.concat([t, t.assign(rlnOpticsGroup=2)])), "2 optics groups are the", "warning"),
    "optics twice": (optics(lambda t: pd.concat([t, t])), "An optics group is described twice", "error"),
    "optics gone": (particles(setting("rlnOpticsGroup", 7, 3)), "without a row in data_optics: [7]", "error"),
    "two extractions": (
        optics(lambda t: pd.concat([t.assign(rlnImageSize=32), t.assign(rlnOpticsGroup=2, rlnImageSize=64)])),
        "extractions that differ in rlnImageSize",
        "warning",
    ),
    "few": (particles(lambda t: t.head(6)), "A half set has only 3 particles.", "error"),
    "not many": (particles(lambda t: t.iloc[::3]), "only 24 particles: expect", "warning"),
    "none": (particles(lambda t: t.head(0)), "There are no particles", "error"),
    "one half set": (particles(setting("rlnRandomSubset", 1)), "A half set has only 0", "error"),
    "no half set": (
        particles(lambda t: t.assign(rlnRandomSubset=[0] * 9 + [1, 2] * 67 + [1])),
        "9 of 144 particles are in no half set",
        "error",
    ),
    "uneven halves": (
        particles(lambda t: t.assign(rlnRandomSubset=[1] * 90 + [2] * 54)), "uneven: 90 and 54", "warning",
    ),
    "filament in both halves": (
        particles(lambda t: t.assign(rlnHelicalTubeID=np.arange(len(t)) // 48, rlnRandomSubset=[1, 2] * 72)),
        "3 of 3 filaments are in both half sets",
        "error",
    ),
    "filaments uneven": (
        particles(lambda t: t.assign(rlnHelicalTubeID=[0] * 140 + [1, 2, 3, 4], rlnTomoName="TS_01")),
        "half sets of 140 and 4 particles",
        "warning",
    ),
    "names twice": (
        particles(lambda t: t.assign(rlnTomoParticleName=[f"TS_01/{n // 2}" for n in range(len(t))])),
        "72 names of particles are used twice",
        "error",
    ),
    "copies": (particles(lambda t: pd.concat([t, t.head(3)])), "3 of 147 particles are copies", "error"),
    "close": (
        particles(lambda t: pd.concat([t, scaled(t.head(2), 1.0, (10, 0, 0))])),
        "4 of 146 particles are closer",
        "warning",
    ),
    "all in one place": (
        particles(lambda t: t.assign(**dict.fromkeys(CENTRED, 0.0))), "144 of 144 particles are closer", "warning",
    ),
    "all angles 0": (
        particles(lambda t: t.assign(**dict.fromkeys(ANGLES, 0.0))), "have the same orientation, 0", "warning",
    ),
    "subtomogram angles": (
        particles(lambda t: t.assign(**dict.fromkeys(SUBTOMOGRAM, 30.0))), "orientations of their own", "warning",
    ),
    "subtomogram part": (
        particles(setting("rlnTomoSubtomogramRot", 0.0)), "rlnTomoSubtomogramTilt, rlnTomoSubtomogramPsi is", "error",
    ),
    # Where they are.
    "corner pixels": (particles(to_corner), "Coordinates are in pixels from a corner", "error"),
    "both": (particles(lambda t: to_corner(t, keep=True)), "Two coordinate conventions are present: rln", "warning"),
    "half pixel": (particles(lambda t: to_corner(t, keep=True, offset=0.5)), "differ by half a pixel", "warning"),
    "disagree": (particles(lambda t: to_corner(t, scale=0.5, keep=True)), "disagree in 144 particles", "error"),
    "outside": (particles(setting(CENTRED[0], 9999.0, 5)), "1 of 144 particles lie outside", "error"),
    "corner Angstrom": (particles(lambda t: scaled(t, 1.0, (400, 400, 160))), "Angstrom from a corner", "error"),
    "pixels": (particles(lambda t: scaled(t, 1 / 5)), "Times the pixel size (5)", "warning"),
    "one corner": (
        particles(lambda t: t.assign(**{label: t[label].abs() for label in CENTRED})),
        "No coordinate is negative",
        "warning",
    ),
    "origins": (
        particles(lambda t: t.assign(rlnOriginXAngst=900.0, rlnOriginYAngst=0.0, rlnOriginZAngst=0.0)),
        "144 particles are larger than half of their box",
        "warning",
    ),
    "not seen": (
        particles(lambda t: setting(CENTRED[0], 390.0, 0)(setting(CENTRED[1], 390.0, 0)(t))),
        "1 of 144 particles (0.7%) are seen by no tilt with a box of 24 at bin 2",
        "warning",
    ),
    "hardly seen": (
        particles(lambda t: setting(CENTRED[0], 395.0, 1)(setting(CENTRED[1], 0.0, 1)(t))),
        "1 particles are seen in fewer than a third of their tilts",
        "warning",
    ),
    "most not seen": (
        particles(lambda t: t.assign(**{label: 370.0 for label in CENTRED[:2]})), "are seen by no tilt", "error",
    ),
}  # fmt: skip


#: Parameters that make a problem of the good data set.
SETTINGS = {
    "parameter: pixel size": ({"pixel_size": 4.0}, "The tilt series have a pixel size of 5 A", "error"),
    "parameter: dose limit": ({"max_dose": 20}, "but not in reconstructions", "warning"),
    "parameter: box": ({"box_scaling": 6.0}, "larger than the images (160 pixels): 96 at bin 2", "error"),
    "parameter: diameter": ({"diameter": 400}, "is larger than 3 tomograms in one direction", "warning"),
}


@pytest.fixture(scope="module")
def found_in(good, tmp_path_factory):
    """What is found in a broken copy, or with other parameters; each is made once."""

    @cache
    def find(name):
        if name in SETTINGS:
            return problems(good, **SETTINGS[name][0])
        data = shutil.copytree(good, tmp_path_factory.mktemp("broken") / "data")
        BROKEN[name][0](data)
        return problems(data)

    return find


@pytest.mark.parametrize("name", [*BROKEN, *SETTINGS])
def test_broken_copies(found_in, name):
    _, text, severity = (BROKEN | SETTINGS)[name]
    found = found_in(name)
    matching = [one for one in found if text in str(one)]
    assert [one.severity for one in matching] == [severity], "\n".join(map(str, found))
    assert all(one.what and one.where and one.fix for one in found)


@pytest.mark.parametrize("module", ["tilt_series", "tilts", "stacks", "particles", "coordinates"])
def test_every_message_has_its_broken_copy(found_in, module):
    seen = "\n".join(one.what for name in [*BROKEN, *SETTINGS] for one in found_in(name))
    messages = templates(REPO / f"py2rely_core/checks/{module}.py")
    assert len(messages) > 5
    lacking = [text for text in messages if not re.search(".*".join(map(re.escape, text.split("X"))), seen)]
    assert not lacking, "\n".join(lacking)


def test_point_groups_that_differ(good):
    inputs = load_inputs("particles.star", "tilt_series.star", good)
    changed = a_recipe().model_dump(by_alias=True)
    changed["reconstruct"]["point_group"] = "C4"
    found = run_checks(CheckContext(parse_recipe(changed, "x"), inputs, "known"))
    assert [one.what for one in found] == ["reconstruct.point_group is C4, and refine3D.sym_name is O: O is used."]


def test_nothing_is_wrong_with_good_data(good):
    assert problems(good) == []
    assert problems(good, "template", good / "template.mrc") == []


def test_all_problems_at_once(data):
    names = ("stack gone", "not aligned", "rec_", "optics gone", "hands", "dose negative", "copies")
    for name in names:
        BROKEN[name][0](data)
    text = "\n".join(map(str, problems(data)))
    assert not [name for name in names if BROKEN[name][1] not in text], text


def test_one_problem_stands_for_all_tilt_series(data):
    tilts(setting("rlnMicrographPreExposure", -1.0), *SERIES)(data)
    found = [one for one in problems(data) if "is negative" in one.what]
    assert len(found) == 1
    assert "39 tilts" in found[0].what
    assert "and in 2 more tilt series" in found[0].where
    for name in SERIES:
        write_map(data / f"tilt_series/{name}.mrcs", np.random.default_rng(0).normal(size=(5, 160, 160)), 5.0)
    found = [one for one in problems(data) if "Sections 1 to 13" in one.what]
    assert len(found) == 1
    assert all(f"{name}.mrcs" in found[0].where for name in SERIES)
    for name in SERIES:
        (data / f"tilt_series/{name}.mrcs").write_bytes(b"short")
    found = [one for one in problems(data) if "stack cannot be read" in one.what]
    assert len(found) == 1
    assert "TS_03.mrcs" in found[0].where
    for name in SERIES:
        (data / f"tilt_series/{name}.star").write_text("")
    found = [one for one in problems(data) if "cannot be read" in one.what]
    assert len(found) == 1
    assert "TS_03.star" in found[0].where


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda path: None, "missing"),
        (lambda path: path.write_text("no map"), "cannot be read"),
        (lambda path: write_map(path, np.ones((1, 30, 30)), 10.0), "has the shape (1, 30, 30)"),
        (lambda path: write_map(path, np.zeros((30, 30, 30)), 10.0), "no usable density"),
        (lambda path: write_map(path, np.random.default_rng(0).normal(size=(30, 30, 30)), 0.0), "voxel size"),
        (lambda path: write_map(path, np.random.default_rng(0).normal(size=(30, 30, 30)), 1.0), "30 A across"),
        (lambda path: write_map(path, -mrcfile.read(path.with_name("template.mrc")), 5.0), "density seems to be black"),
    ],
)
def test_references(data, make, text):
    make(data / "ref.mrc")
    found = problems(data, "template", data / "ref.mrc")
    assert any(text in one.what for one in found), "\n".join(map(str, found))


def test_the_mtf(data):
    curve = pd.DataFrame({"rlnResolutionInversePixel": [0.0, 0.5], "rlnMtfValue": [1.0, 0.3]})
    write_star({"": curve}, data / "mtf.star")
    write_star({"": curve.drop(columns="rlnMtfValue")}, data / "no_mtf.star")
    for name, text in (("mtf.star", ""), ("no_mtf.star", "rlnMtfValue is missing"), ("gone.star", "missing")):
        context = a_context(data)
        context.recipe.postprocess.fn_mtf = str(data / name)
        found = [one for one in run_checks(context) if "mtf" in f"{one.what}{one.where}{one.expected}".lower()]
        assert bool(found) == bool(text)
        assert all(text in one.what for one in found)


# What RELION itself says.


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """Particles all over the tomograms, many of them at edges, extracted by RELION both ways."""
    data = make_data(tmp_path_factory.mktemp("relion") / "data", **TINY | {"particles": 4})
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"rlnTomoName": ["TS_01", "TS_02"] * 100, "rlnOpticsGroup": 1})
    table[list(CENTRED)] = rng.uniform(-1, 1, (200, 3)) * (410, 410, 170)
    table[list(ANGLES)] = 0.0
    edit(data / "particles.star", "particles", lambda _: table)
    for job, flags in (("flat", ["--stack2d", "--float16"]), ("volumes", [])):
        command = ["relion_tomo_subtomo", "--t", "tilt_series.star", "--p", "particles.star", "--o", f"{job}/"]
        command += ["--b", "32", "--bin", "2", "--min_frames", "1", "--j", "2", *flags]
        done = subprocess.run(command, cwd=data, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return data


@pytest.mark.relion
def test_visible_tilts_are_those_of_relion(extracted):
    context = a_context(extracted, diameter=200)
    assert context.levels[2].box == 32
    table = read_star(extracted / "flat/particles.star")["particles"]
    frames = table["rlnTomoVisibleFrames"].str.count("1").to_numpy()
    # RELION numbers the particles of each tilt series from 1.
    counts = context.visibility[2]
    expected = {}
    for name, rows in context.particle_rows.items():
        expected |= {f"{name}/{number}": counts[row] for number, row in enumerate(rows, start=1)}
    ours = np.array([expected[name] for name in table["rlnTomoParticleName"]])
    assert 50 < (counts == 0).sum() < 150
    assert len(table) == (counts > 0).sum()
    assert (ours == frames).all()


@pytest.mark.relion
@pytest.mark.parametrize(("job", "stacks", "half"), [("flat", True, True), ("volumes", False, False)])
def test_disk_space_is_that_of_relion(extracted, job, stacks, half):
    context = a_context(extracted, diameter=200)
    context.recipe.pseudo_subtomo.do_output_2dstacks = stacks
    context.recipe.pseudo_subtomo.do_float16 = half
    written = sum(path.stat().st_size for path in (extracted / job / "Subtomograms").rglob("*.mrc*"))
    assert machine.extraction_bytes(context)[2] == pytest.approx(written, rel=0.01)


# The machine.


def programs(tmp_path, monkeypatch, **scripts):
    """A PATH with these shell scripts and the system's tools."""
    for name, text in scripts.items():
        (tmp_path / name.replace("_smi", "-smi")).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name.replace("_smi", "-smi")).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def version(number):
    return f"echo 'RELION version: {number}'"


@pytest.mark.parametrize(
    ("scripts", "text", "severity"),
    [
        ({"relion_refine": version("5.0.0")}, "issue 1300", "warning"),
        ({"relion_refine": version("4.0.1")}, "RELION 4.0.1 is too old", "error"),
        ({}, "RELION is not there", "error"),
    ],
)
def test_relion_versions(tmp_path, monkeypatch, scripts, text, severity):
    programs(tmp_path, monkeypatch, **scripts)
    if not scripts and shutil.which("relion_refine"):
        pytest.skip("RELION is installed in the system")
    assert [(text in one.what, one.severity) for one in machine.check_relion()] == [(True, severity)]


def test_a_good_relion_version(tmp_path, monkeypatch):
    programs(tmp_path, monkeypatch, relion_refine=version("5.0.1"))
    assert list(machine.check_relion()) == []


@pytest.mark.relion
def test_mpi_gives_the_ranks():
    assert list(machine.check_mpi(3)) == []


RANK = "echo ' + Number of MPI processes                 = 1'"


def test_mpi_is_not_waited_for(tmp_path, monkeypatch):
    """The answer is enough: RELION ends without MPI_Finalize, and mpirun then waits for it."""
    programs(tmp_path, monkeypatch, mpirun=f"{RANK.replace('= 1', '= 3')}; exec sleep 60", relion_refine_mpi="true")
    monkeypatch.setattr(machine, "MPI_SECONDS", 20)
    assert list(machine.check_mpi(3)) == []


@pytest.mark.parametrize(
    ("mpirun", "text"),
    [
        (f"{RANK}; {RANK}; {RANK}", "MPI starts 3 runs of one rank each"),
        ("echo 'There are not enough slots available' >&2; exit 1", "does not start 3 ranks: There are not enough"),
        (
            "echo -----; echo 'PMIx could not mkdir:'; echo; echo '  Directory: /gone'; exit 1",
            "does not start 3 ranks: PMIx could not mkdir: Directory: /gone",
        ),
        ("sleep 5", "within 0.2 s"),
    ],
)
def test_mpi_that_does_not(tmp_path, monkeypatch, mpirun, text):
    programs(tmp_path, monkeypatch, mpirun=mpirun, relion_refine_mpi="true")
    monkeypatch.setattr(machine, "MPI_SECONDS", 0.2 if "sleep" in mpirun else 60)
    found = list(machine.check_mpi(3))
    assert len(found) == 1
    assert text in found[0].what
    assert ("TMPDIR" in found[0].fix) == ("mkdir" in mpirun)
    assert found[0].is_error


def planned(data, gpus="", cpus=4, **changes):
    context = a_context(data, **changes)
    return [Planned(context, plan_dataset(context.recipe, "known", 3, Machine.of(cpus, gpus)))]


def test_disk_space(good, tmp_path, monkeypatch):
    one = planned(good)
    assert list(machine.check_disk(one, tmp_path / "work/later", tmp_path / "results")) == []
    needed = machine.extraction_bytes(one[0].context)[2]
    assert needed == pytest.approx(144 * (13 * 24 * 24 * 2 + 1024), rel=0.01)
    usage = type("Usage", (), {"free": 1000.0, "total": 1e15})
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage)
    found = list(machine.check_disk(one, tmp_path, tmp_path))
    assert ["extracted particles need" in found[0].what, "in the output directory" in found[1].what] == [True, True]
    assert not any(one.is_error for one in found)
    usage.total = 1000.0
    assert next(machine.check_disk(one, tmp_path)).is_error


def test_disk_space_of_one_level_at_a_time(good, tmp_path, monkeypatch):
    """What is freed when its level is done does not add up; of data sets side by side it does."""
    both = planned(good, binnings="4,2")
    sizes = machine.extraction_bytes(both[0].context)
    usage = type("Usage", (), {"free": max(sizes.values()), "total": 1e15})
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage)
    (found,) = machine.check_disk(both, tmp_path)
    assert "--keep_stacks false" in found.fix
    assert list(machine.check_disk(both, tmp_path, keep_stacks=False)) == []
    assert len(list(machine.check_disk(both + both, tmp_path, keep_stacks=False))) == 1


def test_memory(good):
    one = planned(good, diameter=400, box_scaling=2.0)
    assert list(machine.check_memory(one)) == []
    found = list(machine.check_memory(one, total=1e7))
    assert "of memory" in found[0].what
    assert "bin 2" in found[0].where
    # 48 bytes per voxel of half a transform: RELION prints "Memory required for accumulation" from the same.
    assert machine.reconstruction_bytes(256, 1, 8) == pytest.approx(8 * 48 * 256**3 / 2, rel=0.01)
    assert machine.available_memory() > 1e8


def test_gpus(good, tmp_path, monkeypatch):
    programs(tmp_path, monkeypatch, nvidia_smi="printf '0, 24576\\n1, 6144\\n'")
    assert machine.gpu_memory() == {"0": 24576 * 2**20, "1": 6144 * 2**20}
    assert list(machine.check_gpus(planned(good, "0,1"), Machine.of(4, "0,1"))) == []
    found = list(machine.check_gpus(planned(good, "0,7"), Machine.of(4, "0,7")))
    assert [one.what for one in found] == ["GPU 7 is not there."]
    # Box 360 at bin 1: 20 bytes for each voxel of half of 720^3, for each of two followers of one GPU; and a reserve.
    wide = planned(good, "1", diameter=880, pixel_size=5.0, box_scaling=2.0, binnings="1")
    found = list(machine.check_gpus(wide, Machine.of(4, "1")))
    assert "A GPU needs about 8 GB" in found[0].what
    assert "2 followers" in found[0].where
    assert list(machine.check_gpus(wide, Machine.of(4, "1"), {})) == []


# The command.


@pytest.mark.relion
def test_check_command(good, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_parameters(tmp_path / "sta.json", good)
    capsys.readouterr()
    cli("check", "--parameter", "sta.json", "--cpus", 2)
    printed = capsys.readouterr().out
    assert "144 particles, 3 tilt series, 39 tilts" in printed
    assert "Ready to run." in printed
    assert "Errors" not in printed + "Warnings"[:0]
    cli("check", "-params-file", "sta.json", "--reference_template", good / "template.mrc", "--cpus", 2, "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["exit_code"], found["errors"], found["warnings"]) == (0, [], [])
    assert found["datasets"][0]["levels"][0]["particles_seen"] == 144
    assert not (tmp_path / "work").exists()


def test_check_command_with_problems(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("hands", "unused"):
        BROKEN[name][0](data)
    write_parameters(tmp_path / "sta.json", data)
    capsys.readouterr()
    cli("check", "--parameter", "sta.json", "--json", "--cpus", 1, code=65)
    found = json.loads(capsys.readouterr().out)
    assert found["exit_code"] == 65
    assert any("rlnTomoHand" in one["what"] for one in found["errors"])
    assert any("hold no particles" in one["what"] for one in found["warnings"])
    (tmp_path / "sheet.csv").write_text("id,parameters\na,sta.json\nb,sta.json\n")
    cli("check", "--sample_sheet", "sheet.csv", "--cpus", 1, code=65)
    printed = capsys.readouterr().out
    assert "Errors (" in printed
    assert "Warnings (" in printed
    assert "b: rlnTomoHand is not the same" in printed
    assert printed.index("rlnTomoHand is not") < printed.index("Warnings (") < printed.index("hold no particles")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--parameter", "none.json"], "none.json"),
        (["--parameter", "sta.json", "--refine3D.ini_hihg", "40"], "ini_high"),
        (["--parameter", "sta.json", "--refine3D.ini_high=2"], "finer than the first level"),
        (["--parameter", "sta.json", "--referense_template", "x"], "reference_template"),
        (["-params-file", "none.json"], "cannot be read"),
        (["--parameter", "sta.json", "word"], "'word' is no parameter"),
        ([], "There is no parameter file"),
    ],
)
def test_check_command_with_wrong_parameters(good, tmp_path, monkeypatch, capsys, arguments, text):
    monkeypatch.chdir(tmp_path)
    write_parameters(tmp_path / "sta.json", good)
    capsys.readouterr()
    cli("check", *arguments, code=66)
    assert text in capsys.readouterr().out


# Reading.


def test_files_are_found_beside_the_star_file(data, tmp_path):
    names = referenced_files([data / "tilt_series.star"], tmp_path)
    assert data / "tilt_series/TS_01.star" in names
    assert data / "tilt_series/TS_01.mrcs" in referenced_files([data / "tilt_series/TS_01.star"], tmp_path)


def test_many_files_are_read_as_one_by_one(data):
    """Alike files, and all kinds of others, with what is wrong with each."""
    folder = data / "tilt_series"
    text = (folder / "TS_01.star").read_text()
    (folder / "comment.star").write_text(text.replace("data_", "# made by hand\ndata_"))
    (folder / "comment_inside.star").write_text(text + "# the end\n")
    (folder / "two.star").write_text(text + text.replace("data_TS_01", "data_more"))
    (folder / "single.star").write_text("data_x\n\n_rlnVoltage 300\n")
    (folder / "empty.star").write_text("")
    (folder / "short.star").write_text(text.replace("  30100", " ", 1))
    (folder / "no_rows.star").write_text(text.split("1@")[0])
    paths = [*sorted(folder.glob("*.star")), folder / "gone.star"]
    together = read_stars(paths)
    assert list(together) == paths
    for path in paths:
        try:
            alone = read_star(path)
        except ProblemError as error:
            assert str(together[path]) == str(error)
            continue
        assert list(together[path]) == list(alone)
        for name, table in alone.items():
            pd.testing.assert_frame_equal(together[path][name], table, check_dtype=False)


def test_import_keeps_odd_names_and_links(data, tmp_path):
    odd = "TS 1 (ä)"
    particles(lambda t: t.replace({"rlnTomoName": {"TS_01": odd}}))(data)
    tomograms(lambda t: t.replace({"rlnTomoName": {"TS_01": odd}}))(data)
    job, picks = import_inputs("particles.star", "tilt_series.star", data, tmp_path / "out", "O")
    table = read_star(job / "tomograms.star")["global"]
    names = {odd, "TS_02", "TS_03"}
    assert set(table["rlnTomoName"]) == names == set(read_star(picks / "particles.star")["particles"]["rlnTomoName"])
    for name in table["rlnTomoTiltSeriesStarFile"]:
        assert " " not in name
        rows = next(iter(read_star(tmp_path / "out" / name).values()))
        file = tmp_path / "out" / rows["rlnMicrographName"].iloc[0].split("@")[1]
        assert file.is_symlink()
        assert file.stat().st_size > 0


def test_large_tables_cost_little_more_than_reading(tmp_path):
    command = [sys.executable, REPO / "benchmarks/tables", "--tilt-series", "40", "--particles", "40000"]
    done = subprocess.run(
        [*command, "--directory", tmp_path / "big", "--json", tmp_path / "numbers.json"],
        capture_output=True, text=True, check=False, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["preflight"]["result"].startswith("0 errors")
    assert numbers["preflight"]["cpu"] < 2 * numbers["starfile"]["cpu"] + 2
    assert numbers["preflight"]["gb"] < 1


# The documentation.


MODULES = ("checks/*.py", "data/inputs.py", "data/tables.py", "data/kinds.py", "maps/io.py")


def templates(path):
    """Messages that a module can give, with X for their values."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        texts = []
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Problem":
            texts = node.args[:1]
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "what":
            texts = [node.value]
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            names = [getattr(one, "id", "") for one in node.targets[0].elts]
            texts = [node.value.elts[names.index("what")]] if "what" in names else []
        for text in texts:
            if isinstance(text, ast.Constant):
                found.append(text.value)
            elif isinstance(text, ast.JoinedStr):
                found.append("".join(one.value if isinstance(one, ast.Constant) else "X" for one in text.values))
    return found


def documented():
    """Messages in the first column of docs/troubleshooting.md, as patterns: an ellipsis stands for a value."""
    rows = (REPO / "docs/troubleshooting.md").read_text().splitlines()
    cells = [
        message for row in rows if row.startswith("| *") for message in re.findall(r"\*([^*]+)\*", row.split("|")[1])
    ]
    assert all(len(cell.replace("…", "")) > 10 for cell in cells), cells
    return [re.compile(".*".join(map(re.escape, cell.split("…")))) for cell in cells]


def test_every_message_has_its_row():
    known = documented()
    messages = [text for name in MODULES for path in (REPO / "py2rely_core").glob(name) for text in templates(path)]
    assert len(messages) > 80
    lacking = [text for text in messages if text != "X: X" and not any(one.search(text) for one in known)]
    assert not lacking, "\n".join(lacking)


def test_binned_stacks_and_turned_tomograms_are_seen(data):
    """What two files both say: the size of images and tomogram, and the pixel size."""
    name = "tilt_series/TS_01.mrcs"
    images = mrcfile.read(data / name)
    write_map(data / name, images[:, ::2, ::2], 2 * PIXEL_SIZE)
    found = [one for one in problems(data) if "binned 2 times" in one.what]
    assert [one.is_error for one in found] == [True]
    assert name in found[0].where
    write_map(data / name, images[:, :96], PIXEL_SIZE)
    for x, y, seen in ((IMAGE, 96, True), (96, IMAGE, False)):
        tomograms(lambda t, x=x, y=y: t.assign(rlnTomoSizeX=[x, IMAGE, IMAGE], rlnTomoSizeY=[y, IMAGE, IMAGE]))(data)
        assert any("seem to be exchanged: TS_01" in one.what for one in problems(data)) == seen


def test_a_reference_of_exactly_one_angstrom_is_doubted(data):
    write_map(data / "ref.mrc", mrcfile.read(data / "template.mrc"), 1.0)
    found = [one for one in problems(data, "template", data / "ref.mrc") if "exactly 1 A" in one.what]
    assert [one.severity for one in found] == ["warning"]


def test_several_tilt_series_in_one_file(data):
    """RELION takes the block of the tomogram's name; the first block is that of another one."""
    blocks = {name: read_star(data / f"tilt_series/{name}.star")[name] for name in SERIES}
    write_star(blocks, data / "all.star")
    tomograms(lambda t: t.assign(rlnTomoTiltSeriesStarFile="all.star"))(data)
    inputs = load_inputs("particles.star", "tilt_series.star", data)
    assert [inputs.tilt_series[name].stacks[0].name for name in SERIES] == [f"{name}.mrcs" for name in SERIES]
    assert not [one for one in problems(data) if one.is_error]
    write_star({"TS_01": blocks["TS_01"]}, data / "all.star")
    assert any("TS_02 has no block of its name" in one.what for one in problems(data))
