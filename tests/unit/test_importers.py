"""Importers: files as the other programs write them, from known truth; and a broken copy for every message."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from formats import DARK, PIXEL, SETTINGS, SIZE, THICKNESS, matrices, stack, write_aretomo, write_imod, write_warp

from py2rely_core.checks import run_checks
from py2rely_core.checks.context import CheckContext
from py2rely_core.data.geometry import (
    centred_from_pixels,
    from_projection_matrices,
    matrix_to_euler,
    pixels_from_centred,
    projected,
    true_positions,
)
from py2rely_core.data.inputs import load_inputs
from py2rely_core.data.tables import read_star, write_star
from py2rely_core.importers.aretomo import import_aretomo
from py2rely_core.importers.combine import combine_particles, combine_tilt_series, filter_unused_tilts
from py2rely_core.importers.dose import Doses, pre_exposure
from py2rely_core.importers.formats.aretomo import read_aln
from py2rely_core.importers.formats.imod import views_of
from py2rely_core.importers.imod import import_imod
from py2rely_core.importers.optics import Optics, merge_optics
from py2rely_core.importers.particles import Tomograms, import_csv, import_star, tomograms_of
from py2rely_core.importers.relion import import_relion
from py2rely_core.importers.result import Import, write_import
from py2rely_core.importers.text import Word
from py2rely_core.importers.tilt_series import REQUIRED, Layout
from py2rely_core.importers.warp import import_warp
from py2rely_core.maps.io import write_map
from py2rely_core.parameters.files import new_recipe
from py2rely_core.problems import ProblemError

OPTICS = Optics(300.0)
POINTS = np.random.default_rng(5).uniform(-60, 60, (9, 3))


def tilts_of(result: Import, name: str = "TS_01") -> pd.DataFrame:
    return next(blocks[name] for path, blocks in result.tables.items() if path.name == f"{name}.star")


def assert_same_projections(found: pd.DataFrame, expected: pd.DataFrame, tolerance=0.03):
    """Every image sees points where it truly does: .aln and .xf files have three decimals of a pixel."""
    assert np.abs(projected(found, POINTS) - projected(expected, POINTS)).max() < tolerance
    assert np.allclose(found["rlnDefocusU"], expected["rlnDefocusU"], atol=0.01)
    assert np.allclose(found["rlnDefocusV"], expected["rlnDefocusV"], atol=0.01)
    assert np.allclose(found["rlnMicrographPreExposure"], expected["rlnMicrographPreExposure"])


def words(error) -> str:
    return "\n".join(str(problem) for problem in error.value.problems)


ACQUIRED = [5, 6, 4, 7, 3, 8, 2, 9, 1, 10, 0]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"first": 0},
        {"dark": DARK},
        {"first": 0, "dark": DARK},
        {"dark": DARK, "ctf_of_dark": True},
        {"first": 0, "stack_order": ACQUIRED, "dark": (1,)},
        {"order_list": True, "doses": None, "dark": DARK},
    ],
)
def test_aretomo_gives_the_truth(tmp_path, options):
    expected = write_aretomo(tmp_path / "in", **options)
    result = import_aretomo(tmp_path / "in", OPTICS, -1, Layout(tmp_path / "out"), doses=Doses(per_tilt=SETTINGS.dose))
    found = tilts_of(result)
    kept = [i for i in range(len(expected)) if i not in options.get("dark", ())]
    assert_same_projections(found, expected.loc[kept])
    assert np.allclose(found["rlnPhaseShift"], np.degrees(0.5))
    order = list(options.get("stack_order", range(len(expected))))
    sections = [int(name.split("@")[0]) for name in found["rlnMicrographName"]]
    assert sections == [order.index(i) + 1 for i in kept]
    row = result.tables[tmp_path / "out/aligned_tilt_series.star"]["global"].iloc[0]
    assert (row["rlnTomoSizeX"], row["rlnTomoSizeY"], row["rlnTomoSizeZ"]) == (SIZE, SIZE, THICKNESS)
    assert row["rlnTomoTiltSeriesPixelSize"] == PIXEL
    notes = "\n".join(result.notes)
    assert f"{len(kept)} of {len(expected)} images" in notes
    assert f"counted from {options.get('first', 1)}" in notes
    assert ("2 dark frames left out" in notes) == (options.get("dark") == DARK)


@pytest.mark.parametrize("order_list", [True, False])
def test_dose_does_not_follow_a_tilt_offset(tmp_path, order_list):
    """An offset of more than half a tilt step: the nearest angle would be that of the wrong image."""
    expected = write_aretomo(tmp_path / "in", offset=7.5, order_list=order_list, doses=None if order_list else True)
    result = import_aretomo(tmp_path / "in", OPTICS, -1, Layout(tmp_path / "out"), doses=Doses(total=33.0))
    found = tilts_of(result)
    assert np.allclose(found["rlnTomoYTilt"], expected["rlnTomoYTilt"] + 7.5)
    assert np.allclose(found["rlnMicrographPreExposure"], expected["rlnMicrographPreExposure"])
    if not order_list:
        assert np.allclose(found["rlnTomoNominalStageTiltAngle"], expected["rlnTomoYTilt"])


def test_dark_frames_count_in_the_dose(tmp_path):
    """An image that AreTomo took for dark was exposed all the same."""
    assert list(pre_exposure(np.array([2, 1, 3]), np.array([1.0, 2.0, 4.0]))) == [2.0, 0.0, 3.0]


def edit(path, change):
    path.write_text(change(path.read_text()))


BROKEN_ARETOMO = {
    "no .aln": (lambda d: (d / "TS_01.aln").unlink(), "no .aln files"),
    "no CTF": (lambda d: (d / "TS_01_CTF.txt").unlink(), "There are no CTF values"),
    "CTF of another run": (
        lambda d: edit(d / "TS_01_CTF.txt", lambda t: "\n".join(t.splitlines()[:-2])), "11 rows",
    ),
    "impossible defocus": (lambda d: edit(d / "TS_01_CTF.txt", lambda t: t.replace("   1   ", "   1   -")), "defocus"),
    "text for CTF": (lambda d: (d / "TS_01_CTF.txt").write_text("nothing"), "CTF values cannot be read"),
    "no stack": (lambda d: (d / "TS_01.mrc").unlink(), "TS_01.mrc"),
    "short stack": (lambda d: stack(d / "TS_01.mrc", 7), "The stack has 7 sections"),
    "sections": (lambda d: edit(d / "TS_01.aln", lambda t: t.replace("    3   ", "   44   ")), "sections of its table"),
    "no RawSize": (lambda d: edit(d / "TS_01.aln", lambda t: t.replace("RawSize", "Size")), "RawSize"),
    "tilt angles that AreTomo garbled": (
        lambda d: edit(d / "TS_01.aln", lambda t: t.replace("  -50.00", "  1567301525373.0")), "not possible",
    ),
    "magnification": (lambda d: edit(d / "TS_01.aln", lambda t: t.replace("1.00000", "1.05000")), "magnification"),
    "no order": (lambda d: (d / "TS_01_TLT.txt").unlink(), "order of acquisition is not known"),
    "order only of zeros": (
        lambda d: (d / "TS_01_TLT.txt").write_text("\n".join(f"{a} 0" for a in range(-50, 51, 10))),
        "order of acquisition is not known",
    ),
    "order twice": (
        lambda d: edit(d / "TS_01_TLT.txt", lambda t: t.replace("   1   ", "   2   ")), "same place in the order",
    ),
    "no dose": (
        lambda d: edit(d / "TS_01_TLT.txt", lambda t: t.replace("  3.00", "")), "Give --dose-per-tilt or --total-dose",
    ),
    "negative dose": (
        lambda d: edit(d / "TS_01_TLT.txt", lambda t: t.replace("  3.00", " -3.00")), "dose is not possible",
    ),
    "list of another stack": (
        lambda d: edit(d / "TS_01_TLT.txt", lambda t: "\n".join(t.splitlines()[::-1])), "in the tilt list",
    ),
    "short list": (lambda d: edit(d / "TS_01_TLT.txt", lambda t: "\n".join(t.splitlines()[1:])), "has 10 lines"),
    "pixel size unknown": (lambda d: stack(d / "TS_01.mrc", 11, 0.0), "Give --pixel-size"),
    "no volume": (lambda d: (d / "TS_01_Vol.mrc").unlink(), "Give --thickness"),
    "volume of another stack": (
        lambda d: write_map(d / "TS_01_Vol.mrc", np.ones((9, 30, 50)), 16.0), "does not fit its images",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_ARETOMO)
def test_broken_aretomo_is_named_and_nothing_is_written(tmp_path, name):
    change, text = BROKEN_ARETOMO[name]
    write_aretomo(tmp_path / "in")
    change(tmp_path / "in")
    with pytest.raises(ProblemError) as error:
        write_import(import_aretomo(tmp_path / "in", OPTICS, -1, Layout(tmp_path / "out")))
    assert text in words(error), words(error)
    assert all(one.what and one.where and one.fix for one in error.value.problems)
    assert not (tmp_path / "out").exists()


def test_every_broken_series_is_in_one_list(tmp_path):
    write_aretomo(tmp_path / "in", "A")
    write_aretomo(tmp_path / "in", "B")
    (tmp_path / "in/A_CTF.txt").unlink()
    (tmp_path / "in/B_TLT.txt").unlink()
    with pytest.raises(ProblemError) as error:
        import_aretomo(tmp_path / "in", OPTICS, -1, Layout(tmp_path / "out"))
    assert "A_CTF.txt" in words(error)
    assert "B_TLT.txt" in words(error)


def test_pixel_sizes(tmp_path):
    write_aretomo(tmp_path / "in", "A")
    write_aretomo(tmp_path / "in", "B", pixel=5.0)
    layout = Layout(tmp_path / "out")
    with pytest.raises(ProblemError, match="different pixel sizes"):
        import_aretomo(tmp_path / "in", OPTICS, -1, layout)
    with pytest.raises(ProblemError, match="header says 5 A"):
        import_aretomo(tmp_path / "in", OPTICS, -1, layout, PIXEL)
    result = import_aretomo(tmp_path / "in", OPTICS, -1, layout, PIXEL, skip_other_pixel_size=True)
    assert "left out B: 5 A per pixel" in "\n".join(result.notes)
    assert len(result.tables) == 2


def test_hand_and_voltage_are_checked(tmp_path):
    write_aretomo(tmp_path / "in")
    with pytest.raises(ProblemError, match="no hand"):
        import_aretomo(tmp_path / "in", OPTICS, 0, Layout(tmp_path / "out"))
    with pytest.raises(ProblemError, match="--voltage"):
        Optics(3e5)


def test_one_way_order_list_is_noted(tmp_path):
    write_aretomo(tmp_path / "in", doses=None, order_list=True)
    file = tmp_path / "in/TS_01_Imod/TS_01_order_list.csv"
    angles = sorted(float(line.split(",")[1]) for line in file.read_text().splitlines()[1:])
    file.write_text("ImageNumber, TiltAngle\n" + "".join(f"{n},{a}\n" for n, a in enumerate(angles, start=1)))
    result = import_aretomo(tmp_path / "in", OPTICS, -1, Layout(tmp_path / "out"), doses=Doses(total=30))
    assert "from one end to the other" in str(result.warnings[0])


def test_aretomo3_with_dark_frames_from_zero(tmp_path):
    write_aretomo(tmp_path / "in", dark=DARK)
    path = tmp_path / "in/TS_01.aln"
    edit(path, lambda t: t.replace("   0    1 ", "   0    0 ").replace("   9   10 ", "   9    9 "))
    assert sorted(read_aln(path).dark["SEC"]) == [1, 10]


def test_imod_gives_the_truth(tmp_path):
    expected = write_imod(tmp_path / "in/TS_01", excluded="1,10-11")
    result = import_imod(tmp_path / "in", OPTICS, -1, Layout(tmp_path / "out"))
    assert_same_projections(tilts_of(result), expected.iloc[1:9])
    assert np.allclose(tilts_of(result)["rlnDefocusAngle"], expected["rlnDefocusAngle"][1:9], atol=1e-3)
    assert "excluded views [1, 10, 11] left out" in "\n".join(result.notes)
    assert views_of(Word("1-3,7 9", tmp_path, 1), "EXCLUDELIST") == {1, 2, 3, 7, 9}


def test_imod_angle_offset_and_small_magnification(tmp_path):
    expected = write_imod(tmp_path / "in", scale=1.01)
    edit(tmp_path / "in/tilt.com", lambda t: t.replace("OFFSET 0.0", "OFFSET -2.5"))
    result = import_imod(tmp_path / "in", OPTICS, 1, Layout(tmp_path / "out"))
    found = tilts_of(result)
    assert np.allclose(found["rlnTomoYTilt"], expected["rlnTomoYTilt"] - 2.5)
    assert np.allclose(found["rlnTomoZRot"], expected["rlnTomoZRot"], atol=1e-4)
    assert np.allclose(found["rlnTomoXShiftAngst"], expected["rlnTomoXShiftAngst"], atol=1e-3)
    assert "magnification changes of up to 1.00% are left out" in "\n".join(result.notes)


BROKEN_IMOD = {
    "no tlt": (lambda d: (d / "TS_01.tlt").unlink(), "no .xf file with a .tlt file"),
    "xf of another stack": (lambda d: edit(d / "TS_01.xf", lambda t: "\n".join(t.splitlines()[:6])), "lines of 6"),
    "no ctf": (lambda d: (d / "TS_01.defocus").unlink(), "no CTF values"),
    "broken ctf": (lambda d: (d / "TS_01.defocus").write_text("1 2 3\n"), "defocus file cannot be read"),
    "no mdoc": (lambda d: (d / "TS_01.st.mdoc").unlink(), "order of acquisition is not known"),
    "short mdoc": (lambda d: edit(d / "TS_01.st.mdoc", lambda t: t.split("[ZValue = 10]")[0]), "describes 10 sections"),
    "no times": (
        lambda d: edit(d / "TS_01.st.mdoc", lambda t: t.replace("DateTime", "Time")), "neither PriorRecordDose",
    ),
    "no dose": (lambda d: edit(d / "TS_01.st.mdoc", lambda t: t.replace("ExposureDose", "X")), "--dose-per-tilt"),
    "moved tomogram": (
        lambda d: edit(d / "tilt.com", lambda t: t.replace("SHIFT 0.0 0.0", "SHIFT 0.0 12")), "SHIFT 0.0 12",
    ),
    "turned tomogram": (
        lambda d: edit(d / "tilt.com", lambda t: t.replace("XAXISTILT 0.0", "XAXISTILT 3.1")), "XAXISTILT 3.1",
    ),
    "no size": (lambda d: (d / "tilt.com").unlink(), "Give --thickness"),
    "no stack": (lambda d: (d / "TS_01.st").unlink(), "TS_01.st"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_IMOD)
def test_broken_imod(tmp_path, name):
    change, text = BROKEN_IMOD[name]
    write_imod(tmp_path / "in")
    change(tmp_path / "in")
    with pytest.raises(ProblemError) as error:
        import_imod(tmp_path / "in", OPTICS, -1, Layout(tmp_path / "out"))
    assert text in words(error), words(error)
    assert all(one.what and one.where and one.fix for one in error.value.problems)


def test_imod_placement_can_be_ignored(tmp_path):
    write_imod(tmp_path / "in")
    edit(tmp_path / "in/tilt.com", lambda t: t.replace("XAXISTILT 0.0", "XAXISTILT 3.1"))
    result = import_imod(tmp_path / "in", OPTICS, -1, Layout(tmp_path / "out"), ignore_placement=True)
    assert "left out as asked for: XAXISTILT 3.1" in "\n".join(result.notes)


@pytest.mark.parametrize("name", ["x_tomograms.star", "x_optimisation_set.star"])
def test_projection_matrices_give_the_truth(tmp_path, name):
    expected = write_warp(tmp_path / "in")
    result = import_warp(tmp_path / "in" / name, Layout(tmp_path / "out"))
    assert_same_projections(tilts_of(result), expected, 1e-4)
    tilted = expected.assign(rlnTomoXTilt=4.0)
    angles, shift = from_projection_matrices(
        matrices(tilted), np.array([SIZE, SIZE, THICKNESS]), np.array([SIZE, SIZE])
    )
    assert np.allclose(angles, tilted[["rlnTomoXTilt", "rlnTomoYTilt", "rlnTomoZRot"]])
    assert np.allclose(shift * PIXEL, tilted[["rlnTomoXShiftAngst", "rlnTomoYShiftAngst"]])


def test_dummies_of_warp_are_refused_with_the_reason(tmp_path):
    write_warp(tmp_path / "in", dummy=True)
    with pytest.raises(ProblemError) as error:
        import_warp(tmp_path / "in/x_optimisation_set.star", Layout(tmp_path / "out"))
    assert "dummies (dummy_tiltseries.mrc: it has 2 x 2 pixels)" in words(error)
    assert "py2rely import aretomo" in words(error)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda b: b | {"TS_01": b["TS_01"].drop(columns="rlnTomoProjX")}, "labels are missing"),
        (lambda b: b | {"TS_01": b["TS_01"].assign(rlnTomoProjX="[1,2,3]")}, "no row of a matrix"),
        (lambda b: b | {"TS_01": b["TS_01"].assign(rlnTomoProjX="[2,0,0,0]")}, "no rotation"),
        (lambda b: b | {"TS_01": b["TS_01"].iloc[1:]}, "11 sections for 10 tilts"),
        (lambda b: b | {"global": b["global"].drop(columns="rlnVoltage")}, "Give --voltage"),
        (lambda b: b | {"global": b["global"].drop(columns="rlnTomoHand")}, "rlnTomoHand"),
        (lambda b: b | {"global": b["global"].assign(rlnTomoHand=0.5)}, "neither 1 nor -1"),
    ],
)
def test_broken_projection_matrices(tmp_path, change, text):
    write_warp(tmp_path / "in")
    path = tmp_path / "in/x_tomograms.star"
    write_star(change(read_star(path)), path)
    with pytest.raises(ProblemError) as error:
        import_warp(path, Layout(tmp_path / "out"))
    assert text in words(error), words(error)


def test_a_relion_project_is_read_from_its_latest_job(tiny, tmp_path, monkeypatch):
    project = tmp_path / "project"
    (project / "AlignTiltSeries/job003").mkdir(parents=True)
    shutil.copytree(tiny / "tilt_series", project / "tilt_series")
    shutil.copy(tiny / "tilt_series.star", project / "AlignTiltSeries/job003/aligned_tilt_series.star")
    monkeypatch.chdir(tmp_path)
    result = import_relion(project, Layout(tmp_path / "out"), hand=1)
    write_import(result)
    table = read_star(tmp_path / "out/aligned_tilt_series.star")["global"]
    assert list(table["rlnTomoHand"]) == [1.0, 1.0]
    inputs = load_inputs(tiny / "particles.star", tmp_path / "out/aligned_tilt_series.star", tmp_path)
    assert inputs.problems == []
    before = read_star(tiny / "tilt_series/TS_01.star")["TS_01"].drop(columns="rlnMicrographName")
    assert inputs.tilt_series["TS_01"].tilts.drop(columns="rlnMicrographName").equals(before)
    assert inputs.tilt_series["TS_01"].stacks[0].resolve() == (project / "tilt_series/TS_01.mrcs").resolve()
    (project / "tilt_series/TS_02.mrcs").unlink()
    with pytest.raises(ProblemError, match=r"TS_02\.mrcs"):
        import_relion(project, Layout(tmp_path / "again"))


def test_other_files_are_not_taken_for_a_relion_5_project(tmp_path):
    write_warp(tmp_path / "in")
    with pytest.raises(ProblemError, match="py2rely import warp"):
        import_relion(tmp_path / "in/x_tomograms.star", Layout(tmp_path / "out"))
    with pytest.raises(ProblemError, match="no tilt series in this project"):
        import_relion(tmp_path / "in", Layout(tmp_path / "out"))
    write_star(
        {"global": pd.DataFrame({"rlnTomoName": ["A"], "rlnTomoTiltSeriesStarFile": ["A.star"]})}, tmp_path / "g.star"
    )
    write_star({"A": pd.DataFrame({"rlnMicrographName": ["1@dummy_tiltseries.mrc"]})}, tmp_path / "A.star")
    write_map(tmp_path / "dummy_tiltseries.mrc", np.zeros((2, 2, 2)), 1.0)
    with pytest.raises(ProblemError, match="dummies"):
        import_relion(tmp_path / "g.star", Layout(tmp_path / "out"))


@pytest.mark.relion
@pytest.mark.parametrize("program", ["aretomo", "imod"])
def test_relions_own_import_says_the_same(tmp_path, monkeypatch, program):
    """RELION reads what an alignment program left in its job; the program is replaced by one that does nothing."""
    monkeypatch.chdir(tmp_path)
    job = tmp_path / f"{program}/external/TS_01"
    job.mkdir(parents=True)
    if program == "aretomo":
        expected = write_aretomo(tmp_path / "in", first=0)
        result = import_aretomo(tmp_path / "in", OPTICS, -1, Layout(tmp_path / "out"))
        # RELION takes the rows of the local alignment for images.
        (job / "TS_01.aln").write_text((tmp_path / "in/TS_01.aln").read_text().split("# Local")[0])
        shutil.copy(tmp_path / "in/TS_01_CTF.txt", job / "TS_01_ctf.txt")
        options = ["--aretomo2", "--aretomo_ctf", "--aretomo_exe", "/bin/true"]
    else:
        expected = write_imod(tmp_path / "in")
        result = import_imod(tmp_path / "in", OPTICS, -1, Layout(tmp_path / "out"))
        for name in ("TS_01.xf", "TS_01.tlt"):
            shutil.copy(tmp_path / "in" / name, job)
        options = ["--imod_fiducials", "--batchtomo_exe", "/bin/true"]
    (job / "align.log").write_text("AngleOffset = 0.0\n")
    stack(tmp_path / "TS_01.mrcs", len(expected))
    tilts = pd.DataFrame({"rlnMicrographName": [f"{n}@TS_01.mrcs" for n in range(1, len(expected) + 1)]})
    tilts["rlnTomoNominalStageTiltAngle"] = expected["rlnTomoYTilt"]
    tilts["rlnMicrographPreExposure"] = expected["rlnMicrographPreExposure"]
    tilts = tilts.assign(rlnTomoNominalTiltAxisAngle=85.0, rlnTomoNominalDefocus=-3.0, rlnTomoTiltMovieFrameCount=1)
    write_star({"TS_01": tilts}, tmp_path / "ts/TS_01.star")
    row = OPTICS.columns() | {"rlnTomoName": "TS_01", "rlnTomoTiltSeriesStarFile": "ts/TS_01.star", "rlnTomoHand": -1.0}
    row |= {"rlnMicrographOriginalPixelSize": PIXEL, "rlnTomoTiltSeriesPixelSize": PIXEL}
    write_star({"global": pd.DataFrame([row])}, tmp_path / "series.star")
    command = ["relion_align_tiltseries", "--i", "series.star", "--o", f"{program}/", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    files = list((tmp_path / program).rglob("ts/TS_01.star"))
    assert files, done.stdout + done.stderr
    theirs, ours = next(iter(read_star(files[0]).values())), tilts_of(result)
    labels = [label for label in REQUIRED if label in theirs]
    assert len(labels) >= 6
    assert np.abs(theirs[labels].to_numpy(dtype=float) - ours[labels].to_numpy(dtype=float)).max() < 1e-3


# Particles

SIZES = {"TS_01": np.array([400.0, 420.0, 160.0]), "TS_02": np.array([400.0, 420.0, 200.0])}
TOMOGRAMS = Tomograms(SIZES, PIXEL, OPTICS.row(PIXEL))


def positions(count=40):
    """Centred, Angstrom, over the whole of each tomogram."""
    names = pd.Series(np.where(np.arange(count) % 2, "TS_02", "TS_01"))
    share = np.random.default_rng(3).uniform(-0.95, 0.95, (count, 3))
    share[:2] = [[-0.9, 0.95, 0.9], [0.95, -0.9, -0.9]]
    return names, share * TOMOGRAMS.of(names) * PIXEL / 2


def star_of(path, names, columns, block="particles", **more):
    table = pd.DataFrame({"rlnTomoName": names, **columns, **more})
    write_star({block: table}, path)
    return path


def axes(labels, values):
    return {label: values[:, i] for i, label in enumerate(labels)}


PX = [f"rlnCoordinate{axis}" for axis in "XYZ"]
CENTRED = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]


def test_units_are_recognised_and_proven(tmp_path):
    names, centred = positions()
    pixel = pixels_from_centred(centred, TOMOGRAMS.of(names), PIXEL)
    assert np.allclose(centred_from_pixels(pixel, TOMOGRAMS.of(names), PIXEL), centred)
    cases = {
        "centred": (axes(CENTRED, centred), {}, "Angstrom from the centre"),
        "pixel": (axes(PX, pixel), {}, "pixels of 4 A from the corner (they fill"),
        "angstrom": (axes(PX, pixel * PIXEL), {}, "Angstrom from the corner (they fill"),
        "binned": (axes(PX, pixel / 6), {"voxel_size": 24.0}, "pixels of 24 A from the corner"),
        "as told": (axes(PX, pixel), {"units": "pixel"}, "as given"),
    }
    for columns, options, text in cases.values():
        path = star_of(tmp_path / "p.star", names, columns)
        result = import_star(path, tmp_path / "out.star", TOMOGRAMS, **options)
        found = result.tables[tmp_path / "out.star"]["particles"]
        assert np.allclose(found[CENTRED], centred, atol=1e-3), text
        assert text in "\n".join(result.notes)


def test_what_cannot_be_told_or_does_not_fit_is_an_error(tmp_path):
    names, centred = positions()
    pixel = pixels_from_centred(centred, TOMOGRAMS.of(names), PIXEL)
    cases = [
        (axes(PX, pixel / 4), {}, "cannot be told"),
        (axes(PX, pixel * 40), {}, "cannot be told"),
        (axes(PX, pixel / 4), {"voxel_size": 24.0}, "outside of their tomogram"),
        (axes(PX, pixel * PIXEL), {"units": "pixel"}, "outside of their tomogram"),
        (axes(CENTRED, centred * 1.2), {}, "outside of their tomogram"),
        (axes(CENTRED, centred.astype(str)) | {CENTRED[1]: ["x"] * len(names)}, {}, "no numbers in 40 rows"),
        (axes(PX[:2], pixel), {}, "no coordinates"),
        (axes(PX, pixel), {"units": "inch"}, "no unit"),
    ]
    for columns, options, text in cases:
        path = star_of(tmp_path / "p.star", names, columns)
        with pytest.raises(ProblemError) as error:
            import_star(path, tmp_path / "out.star", TOMOGRAMS, **options)
        assert text in words(error), words(error)


def test_shifts_and_subtomogram_angles_go_into_the_coordinates(tmp_path):
    names, centred = positions()
    rng = np.random.default_rng(0)
    more = axes([f"rlnOrigin{axis}Angst" for axis in "XYZ"], rng.normal(0, 9, (40, 3)))
    more |= axes([f"rlnTomoSubtomogram{name}" for name in ("Rot", "Tilt", "Psi")], rng.uniform(0, 170, (40, 3)))
    more |= axes(["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"], rng.uniform(0, 170, (40, 3)))
    more |= {"rlnRandomSubset": np.arange(40) % 2 + 1, "rlnNormCorrection": np.ones(40)}
    path = star_of(tmp_path / "p.star", names, axes(CENTRED, 0.8 * centred), **more)
    result = import_star(path, tmp_path / "out.star", TOMOGRAMS)
    found = result.tables[tmp_path / "out.star"]["particles"]
    assert np.allclose(found[CENTRED], true_positions(read_star(path)["particles"]))
    assert np.allclose(true_positions(found), found[CENTRED])
    assert "rlnNormCorrection" in "\n".join(result.notes)
    assert {"rlnRandomSubset", "rlnTomoSubtomogramRot"} <= set(found)


def test_particles_of_warp_and_relion_4(tmp_path):
    """One unnamed block, .tomostar names, pixels of the matched tomogram, shifts in pixels."""
    names, centred = positions()
    binned = pixels_from_centred(0.9 * centred, TOMOGRAMS.of(names) / 5, 20.0)
    warp = names.map(lambda name: f"tomostar/{name}.tomostar")
    table = pd.DataFrame({"rlnMicrographName": warp} | axes(PX, binned) | {"rlnOriginX": 1.0})
    table[["rlnOriginY", "rlnOriginZ"]] = 0.0
    write_star({"": table}, tmp_path / "warp.star")
    result = import_star(tmp_path / "warp.star", tmp_path / "out.star", TOMOGRAMS, voxel_size=20.0)
    found = result.tables[tmp_path / "out.star"]["particles"]
    assert np.allclose(found[CENTRED], 0.9 * centred - [20.0, 0, 0], atol=1e-3)
    assert set(found["rlnTomoName"]) == {"TS_01", "TS_02"}


def test_names_optics_and_duplicates(tmp_path):
    names, centred = positions()
    path, out = tmp_path / "p.star", tmp_path / "out.star"
    star_of(path, names.replace("TS_02", "TS_2"), axes(CENTRED, centred))
    with pytest.raises(ProblemError, match="did you mean 'TS_02'"):
        import_star(path, out, TOMOGRAMS)
    result = import_star(path, out, TOMOGRAMS, skip_unknown=True)
    assert len(result.tables[out]["particles"]) == 20
    assert "left out 20 particles of 1 tomograms" in "\n".join(result.notes)

    twice = pd.concat([names, names[:3]], ignore_index=True)
    star_of(path, twice, axes(CENTRED, np.concatenate([centred, centred[:3]])))
    with pytest.raises(ProblemError, match="3 particles are at the place"):
        import_star(path, out, TOMOGRAMS)
    assert len(import_star(path, out, TOMOGRAMS, drop_duplicates=True).tables[out]["particles"]) == 40

    for label, value in (("rlnTomoTiltSeriesPixelSize", 1.35), ("rlnVoltage", 200.0)):
        optics = pd.DataFrame([TOMOGRAMS.optics | {label: value}])
        write_star({"optics": optics, "particles": pd.DataFrame({"rlnTomoName": names} | axes(CENTRED, centred))}, path)
        with pytest.raises(ProblemError, match=f"{label} of the particles is {value:g}"):
            import_star(path, out, TOMOGRAMS)


def test_csv(tmp_path):
    names, centred = positions()
    table = pd.DataFrame({"Tomogram": names, "X": centred[:, 0], "Y": centred[:, 1], "Z": centred[:, 2]})
    table[["rot", "tilt", "psi"]] = np.random.default_rng(1).uniform(0, 180, (40, 3))
    path, out = tmp_path / "p.csv", tmp_path / "out.star"
    for separator in (",", ";", "\t"):
        table.to_csv(path, index=False, sep=separator)
        result = import_csv(path, out, TOMOGRAMS)
        found = result.tables[out]["particles"]
        assert np.allclose(found[CENTRED], centred)
        assert np.allclose(found[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]], table[["rot", "tilt", "psi"]])
    table.drop(columns="psi").to_csv(path, index=False)
    with pytest.raises(ProblemError, match="of the three angles"):
        import_csv(path, out, TOMOGRAMS)
    table.drop(columns="Z").to_csv(path, index=False)
    with pytest.raises(ProblemError, match="Columns are missing: z"):
        import_csv(path, out, TOMOGRAMS)
    table.assign(x_px=1).to_csv(path, index=False)
    with pytest.raises(ProblemError, match="mean the same"):
        import_csv(path, out, TOMOGRAMS)


def test_sizes_come_from_the_tilt_series(tiny, tmp_path):
    found = tomograms_of(tiny / "tilt_series.star")
    assert list(found.sizes["TS_01"]) == [160, 160, 64]
    assert found.pixel_size == 5
    table = read_star(tiny / "tilt_series.star")["global"]
    for change, text in (
        (table.assign(rlnTomoSizeZ=0), "size of the tomogram TS_01"),
        (table.assign(rlnTomoTiltSeriesPixelSize=[5.0, 4.0]), "rlnTomoTiltSeriesPixelSize"),
        (table.drop(columns="rlnVoltage"), "rlnVoltage"),
    ):
        write_star({"global": change}, tmp_path / "t.star")
        with pytest.raises(ProblemError, match=text):
            tomograms_of(tmp_path / "t.star")


# Combining


def optics(group, name="opticsGroup1", pixel=PIXEL, voltage=300.0):
    return Optics(voltage, group=group, group_name=name).row(pixel)


def particle_file(path, rows, seed=0, groups=(1,), **labels):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"rlnTomoName": ["TS_01"] * 6} | axes(CENTRED, rng.uniform(-300, 300, (6, 3))))
    table["rlnOpticsGroup"] = np.resize(groups, 6)
    write_star({"optics": pd.DataFrame(rows), "particles": table.assign(**labels)}, path)
    return path


def test_equal_optics_groups_are_merged_and_others_are_not(tmp_path):
    files = [
        particle_file(tmp_path / "a.star", [optics(1)], 1),
        particle_file(tmp_path / "b.star", [optics(1, voltage=200.0), optics(2)], 2, (1, 2)),
        particle_file(tmp_path / "c.star", [optics(7, "other")], 3, (7,)),
    ]
    result = combine_particles(files, tmp_path / "out.star")
    merged = result.tables[tmp_path / "out.star"]
    assert list(merged["optics"]["rlnOpticsGroup"]) == [1, 2]
    assert list(merged["optics"]["rlnVoltage"]) == [300.0, 200.0]
    assert merged["optics"]["rlnOpticsGroupName"].is_unique
    assert list(merged["particles"]["rlnOpticsGroup"]) == [1] * 6 + [2, 1] * 3 + [1] * 6
    assert "4 optics groups became 2" in result.notes[-1]


def test_combining_refuses_what_does_not_belong_together(tmp_path):
    one, out = particle_file(tmp_path / "a.star", [optics(1)], 1), tmp_path / "out.star"
    cases = {
        "rlnTomoTiltSeriesPixelSize is not the same": particle_file(tmp_path / "b.star", [optics(1, pixel=2.0)], 2),
        "at the place of another": particle_file(tmp_path / "c.star", [optics(1)], 1),
        "Only some files have rlnAngleRot": particle_file(tmp_path / "d.star", [optics(1)], 4, rlnAngleRot=1.0),
        "An optics group is described twice": particle_file(tmp_path / "e.star", [optics(1), optics(1)], 5),
        "optics group without a row": particle_file(tmp_path / "f.star", [optics(2)], 6),
        "A STAR file is missing": tmp_path / "none.star",
    }
    for text, other in cases.items():
        with pytest.raises(ProblemError) as error:
            combine_particles([one, other], out)
        assert text in words(error), words(error)
    with pytest.raises(ProblemError, match="given twice"):
        combine_particles([one, one], out)
    names = [f"TS_01/{n}" for n in range(6)]
    named = [particle_file(tmp_path / f"n{i}.star", [optics(1)], i, rlnTomoParticleName=names) for i in (8, 9)]
    with pytest.raises(ProblemError, match="used twice"):
        combine_particles(named, out)
    result = combine_particles([one, tmp_path / "none.star"], out, skip_missing=True)
    assert "left out" in result.notes[0]
    assert len(result.tables[out]["particles"]) == 6


@pytest.mark.parametrize(
    ("block", "label", "value", "said"),
    [
        ("optics", "rlnOpticsGroup", "abc", "rlnOpticsGroup are no numbers in 1 rows"),
        ("optics", "rlnOpticsGroup", "1.5", "'1.5' is not possible: rlnOpticsGroup"),
        ("optics", "rlnOpticsGroupName", "nan", "rlnOpticsGroupName is empty, or nan"),
        ("optics", "rlnTomoTiltSeriesPixelSize", "abc", "'abc' is not possible: rlnTomoTiltSeriesPixelSize"),
        ("optics", "rlnVoltage", "nan", "'nan' is not possible: rlnVoltage"),
        ("particles", "rlnTomoName", "nan", "rlnTomoName is empty, or nan, in 1 rows"),
        ("particles", CENTRED[0], "nan", f"{CENTRED[0]} are no numbers in 1 rows"),
        ("particles", CENTRED[1], "abc", f"{CENTRED[1]} are no numbers in 1 rows"),
        ("particles", CENTRED[2], "1e300", f"'1e+300' is not possible: {CENTRED[2]}"),
        ("particles", "rlnOpticsGroup", "abc", "rlnOpticsGroup are no numbers in 1 rows"),
        ("particles", "rlnAngleTilt", "abc", "rlnAngleTilt are no numbers in 1 rows"),
        ("particles", "rlnOriginXAngst", "nan", "rlnOriginXAngst are no numbers in 1 rows"),
    ],
)
def test_combining_names_the_line_of_what_cannot_be_read(tmp_path, block, label, value, said):
    more = {name: 1.0 for name in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst")}
    files = [particle_file(tmp_path / f"{n}.star", [optics(1)], n, **more) for n in (1, 2)]
    blocks = read_star(files[1])
    table = blocks[block].astype({label: object})
    table.loc[len(table) - 1, label] = value
    write_star(blocks | {block: table}, files[1])
    with pytest.raises(ProblemError) as error:
        combine_particles(files, tmp_path / "out.star")
    assert said in words(error)
    line = int(re.search(r"2\.star, line (\d+)", words(error))[1])
    assert value.lower() in files[1].read_text().splitlines()[line - 1].lower()


@pytest.mark.parametrize(
    ("label", "value"),
    [("rlnTomoHand", "abc"), ("rlnTomoHand", "nan"), ("rlnTomoHand", "0.5"), ("rlnTomoTiltSeriesPixelSize", "abc"),
     ("rlnVoltage", "x"), ("rlnTomoSizeZ", "nan"), ("rlnTomoName", "nan")],
)  # fmt: skip
def test_combining_tilt_series_reads_their_numbers(tiny, tmp_path, monkeypatch, label, value):
    """A hand that is none, or only in some files, is not left out of all with a note."""
    monkeypatch.chdir(tmp_path)
    table = read_star(tiny / "tilt_series.star")["global"]
    table["rlnTomoTiltSeriesStarFile"] = [str(tiny / name) for name in table["rlnTomoTiltSeriesStarFile"]]
    parts = [tmp_path / "t0.star", tmp_path / "t1.star"]
    write_star({"global": table.iloc[:1]}, parts[0])
    write_star({"global": table.iloc[1:].astype({label: object}).assign(**{label: value})}, parts[1])
    with pytest.raises(ProblemError) as error:
        combine_tilt_series(parts, tmp_path / "x.star")
    assert label in words(error)
    assert re.search(r"t1\.star, line \d+", words(error))
    if label != "rlnTomoName":
        write_star({"global": table.iloc[1:].drop(columns=label)}, parts[1])
        with pytest.raises(ProblemError, match=f"Only some files have {label}"):
            combine_tilt_series(parts, tmp_path / "x.star")


@pytest.mark.parametrize("block", ["particles", "global"])
def test_a_file_that_was_cut_before_its_rows_is_not_combined(tiny, tmp_path, block):
    """Its labels alone would take the others' columns away: those that it lacks are left out of all."""
    source = tiny / ("particles.star" if block == "particles" else "tilt_series.star")
    head, separator, _ = source.read_text().partition("_rlnTomoHand" if block == "global" else "_rlnAngleRot")
    assert separator
    (tmp_path / "cut.star").write_text(head)
    combine = combine_particles if block == "particles" else combine_tilt_series
    with pytest.raises(ProblemError, match=f"data_{block} has no rows") as error:
        combine([source, tmp_path / "cut.star"], tmp_path / "x.star")
    assert "cut.star" in words(error)


def test_optics_groups_with_one_name_get_names_of_their_own():
    merged, numbers = merge_optics([pd.DataFrame([optics(1)]), pd.DataFrame([optics(1, voltage=200.0)])])
    assert numbers == [{1: 1}, {1: 2}]
    assert merged["rlnOpticsGroupName"].is_unique


def test_tilt_series_are_combined_and_filtered(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = read_star(tiny / "tilt_series.star")["global"]
    files = [str(tiny / name) for name in table["rlnTomoTiltSeriesStarFile"]]
    parts = []
    for i in range(2):
        parts.append(tmp_path / f"t{i}.star")
        row = table.assign(rlnTomoTiltSeriesStarFile=files).iloc[i : i + 1]
        write_star({"global": row}, parts[-1])
    out = tmp_path / "all.star"
    write_import(combine_tilt_series(parts, out))
    assert list(read_star(out)["global"]["rlnTomoName"]) == ["TS_01", "TS_02"]
    assert load_inputs(tiny / "particles.star", out, tmp_path).problems == []
    with pytest.raises(ProblemError, match="names are used twice, such as TS_01"):
        combine_tilt_series([parts[0], out], tmp_path / "x.star")
    write_star(
        {"global": table.assign(rlnTomoName=["A", "B"], rlnTomoHand=1.0, rlnTomoTiltSeriesStarFile=files)}, parts[1]
    )
    with pytest.raises(ProblemError, match="rlnTomoHand is not the same"):
        combine_tilt_series([out, parts[1]], tmp_path / "x.star")

    picks = read_star(tiny / "particles.star")
    picks["particles"] = picks["particles"][picks["particles"]["rlnTomoName"] == "TS_02"]
    write_star(picks, tmp_path / "p.star")
    result = filter_unused_tilts(tmp_path / "p.star", out, tmp_path / "used.star")
    assert list(result.tables[tmp_path / "used.star"]["global"]["rlnTomoName"]) == ["TS_02"]
    assert "left out, without particles: TS_01" in result.notes
    with pytest.raises(ProblemError, match="exists already"):
        write_import(filter_unused_tilts(tmp_path / "p.star", out, out))
    write_import(filter_unused_tilts(tmp_path / "p.star", out, out), overwrite=True)
    assert len(read_star(out)["global"]) == 1
    picks["particles"] = picks["particles"].assign(rlnTomoName="other")
    write_star(picks, tmp_path / "p.star")
    with pytest.raises(ProblemError, match="No tilt series has particles"):
        filter_unused_tilts(tmp_path / "p.star", out, tmp_path / "x.star")


def test_existing_files_are_not_overwritten_and_failures_leave_nothing(tmp_path):
    blocks = {"a": pd.DataFrame({"rlnTomoName": ["x"]})}
    write_import(Import(tables={tmp_path / "a.star": blocks}))
    with pytest.raises(ProblemError, match="exists already"):
        write_import(Import(tables={tmp_path / "b.star": blocks, tmp_path / "a.star": blocks}))
    assert not (tmp_path / "b.star").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ProblemError, match="cannot be written"):
        write_import(Import(tables={tmp_path / "c.star": blocks, tmp_path / "file/d.star": blocks}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.star", "file"]


def test_the_imported_result_passes_the_preflight(tmp_path, monkeypatch):
    """AreTomo series and CSV picks, through the checks that stand before every run."""
    monkeypatch.chdir(tmp_path)
    for number, name in ((1, "A"), (2, "B")):
        write_aretomo(tmp_path / "in", name, number, dark=DARK[:1])
    write_import(import_aretomo(tmp_path / "in", OPTICS, -1, Layout(tmp_path / "input/tiltSeries")))
    series = tmp_path / "input/tiltSeries/aligned_tilt_series.star"
    rng = np.random.default_rng(4)
    half = np.array([SIZE, SIZE, THICKNESS]) * PIXEL / 2
    rows = pd.DataFrame(rng.uniform(-0.9, 0.9, (120, 3)) * half, columns=["x", "y", "z"])
    rows.insert(0, "tomogram", ["A", "B"] * 60)
    rows[["rot", "tilt", "psi"]] = matrix_to_euler(np.tile(np.eye(3), (120, 1, 1)))
    rows.to_csv(tmp_path / "p.csv", index=False)
    write_import(import_csv(tmp_path / "p.csv", tmp_path / "input/full_picks.star", tomograms_of(series)))
    inputs = load_inputs("input/full_picks.star", "input/tiltSeries/aligned_tilt_series.star", tmp_path)
    recipe = new_recipe(
        tilt_series=str(series), particles="input/full_picks.star", pixel_size=PIXEL, symmetry="C1", low_pass=50,
        diameter=100, denovo=False, box_scaling=1.5, binnings="2", threads=2,
    )  # fmt: skip
    assert not [str(one) for one in run_checks(CheckContext(recipe, inputs, "known")) if one.is_error]
