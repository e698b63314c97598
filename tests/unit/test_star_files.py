"""STAR files that are not what they should be, and tilt series whose block is chosen by name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from formats import SIZE, THICKNESS, truth, write_aretomo, write_warp

from py2rely_core.data.inputs import load_inputs
from py2rely_core.data.tables import read_star, read_stars, write_star
from py2rely_core.importers.aretomo import import_aretomo
from py2rely_core.importers.optics import Optics
from py2rely_core.importers.relion import import_relion
from py2rely_core.importers.result import write_import
from py2rely_core.importers.tilt_series import Layout
from py2rely_core.importers.warp import import_warp
from py2rely_core.maps.io import write_map
from py2rely_core.problems import ProblemError

GOOD = "data_a\n\nloop_\n_rlnTomoName #1\n_rlnVoltage #2\nTS_01 300\nTS_02 200\n\n"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_star_files_of_any_encoding(tmp_path, encoding, newline):
    path = tmp_path / "a.star"
    path.write_bytes(GOOD.replace("\n", newline).encode(encoding))
    assert read_star(path)["a"].to_numpy().tolist() == [["TS_01", 300], ["TS_02", 200]]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (GOOD.replace("TS_02 200", "TS_02"), "line 7"),
        (GOOD.replace("TS_02 200", "TS_02 200 1"), "line 7"),
        (GOOD.replace("TS_01 300", "TS_01"), "line 6"),
        (GOOD.replace("TS_02 200", "'TS_02 200"), "quotation mark"),
        (GOOD.replace("loop_\n", ""), "no loop_"),
        (GOOD + GOOD, "data_a is there twice"),
        (GOOD.replace("Name #1", "Name #2").replace("Voltage #2", "Voltage #1"), "contradict their own numbers"),
        (GOOD.replace("_rlnVoltage #2", "_rlnTomoName #2"), "there twice"),
        (GOOD.replace("TS_02 200", "_rlnHand #3"), "among the rows"),
        (GOOD.replace("TS_02 200", "loop_"), "among the rows"),
        ("TS_01 300\n" + GOOD, "before its first data block"),
        ("data_a\n_rlnVoltage\n", "0 values instead of one"),
        ("data_a\n_rlnVoltage 300\n_rlnVoltage 200\n", "there twice"),
    ],
)
def test_broken_star_files_are_named_with_the_line(tmp_path, content, text):
    (tmp_path / "a.star").write_text(content)
    with pytest.raises(ProblemError) as error:
        read_star(tmp_path / "a.star")
    assert text in str(error.value)
    assert "a.star" in str(error.value)
    together = read_stars([tmp_path / "a.star"])
    assert str(together[tmp_path / "a.star"]) == str(error.value)


def test_a_row_that_is_too_short_is_found_among_many_files(tmp_path):
    paths = [tmp_path / f"{n}.star" for n in range(3)]
    for path in paths:
        path.write_text(GOOD)
    paths[1].write_text(GOOD.replace("TS_01 300\nTS_02 200", "TS_01 300 TS_02\n200"))
    found = read_stars(paths)
    assert isinstance(found[paths[1]], ProblemError)
    assert found[paths[2]]["a"]["rlnVoltage"].tolist() == [300, 200]


def test_a_file_that_was_broken_is_read_anew(tmp_path):
    path = tmp_path / "a.star"
    path.write_text("data_a\n\nloop_\n_rlnVoltage #1\n300 1\n")
    with pytest.raises(ProblemError):
        read_star(path)
    path.write_text("data_b\n\nloop_\n_rlnVoltage #1\n200\n")
    assert read_star(path)["b"]["rlnVoltage"].tolist() == [200]


def test_a_map_in_place_of_a_table_is_named(tmp_path):
    write_map(tmp_path / "map.mrc", np.ones((8, 8, 8), np.float32), 1.5)
    row = {"rlnTomoName": ["TS_01"], "rlnTomoTiltSeriesStarFile": [str(tmp_path / "map.mrc")]}
    write_star({"global": pd.DataFrame(row)}, tmp_path / "t.star")
    problems = load_inputs(tmp_path / "p.star", tmp_path / "t.star", tmp_path).problems
    (problem,) = [one for one in problems if "p.star" not in one.where]
    assert "a map or an image stack (MRC), not a STAR file" in problem.what
    assert "map.mrc" in problem.where


# One file with the blocks of all tilt series


@pytest.fixture
def one_file(tmp_path):
    """Two tilt series as RELION 5 has them, with both blocks in one file."""
    for number, name in ((1, "TS_1"), (2, "TS_2")):
        write_aretomo(tmp_path / "in", name, number)
    write_import(import_aretomo(tmp_path / "in", Optics(300.0), -1, Layout(tmp_path)))
    blocks = {name: read_star(tmp_path / f"tilt_series/{name}.star")[name] for name in ("TS_1", "TS_2")}
    write_star(blocks, tmp_path / "all.star")
    table = read_star(tmp_path / "aligned_tilt_series.star")["global"]
    write_star({"global": table.assign(rlnTomoTiltSeriesStarFile=str(tmp_path / "all.star"))}, tmp_path / "t.star")
    return tmp_path


def test_the_block_of_a_tilt_series_is_that_of_its_name(one_file):
    inputs = load_inputs(one_file / "none.star", one_file / "t.star", one_file)
    for name, number in (("TS_1", 1), ("TS_2", 2)):
        assert np.allclose(inputs.tilt_series[name].tilts["rlnDefocusU"], truth(number)["rlnDefocusU"], atol=0.01)
    found = import_relion(one_file / "t.star", Layout(one_file / "out"), one_file)
    table = found.tables[one_file / "out/tilt_series/TS_2.star"]["TS_2"]
    assert np.allclose(table["rlnDefocusU"], truth(2)["rlnDefocusU"], atol=0.01)


@pytest.mark.parametrize("kept", [["TS_1"], ["TS_1", "other"], ["other"]])
def test_a_tilt_series_without_its_block_is_named(one_file, kept):
    blocks = read_star(one_file / "all.star")
    blocks["other"] = blocks["TS_2"]
    write_star({name: blocks[name] for name in kept}, one_file / "all.star")
    problems = load_inputs(one_file / "none.star", one_file / "t.star", one_file).problems
    (problem,) = [one for one in problems if "TS_2" in one.what]
    assert "no block of its name" in problem.what
    assert "all.star" in problem.where
    assert f"data_{kept[0]}" in problem.where


def test_the_only_block_of_a_file_may_have_another_name(one_file):
    table = read_star(one_file / "aligned_tilt_series.star")["global"]
    write_star({"global": table.assign(rlnTomoName=["A", "B"])}, one_file / "t.star")
    assert set(load_inputs(one_file / "none.star", one_file / "t.star", one_file).tilt_series) == {"A", "B"}


@pytest.mark.parametrize(
    ("file", "change", "text"),
    [
        ("tilt_series/TS_1.star", lambda t: t.assign(rlnTomoYTilt=["x", *t["rlnTomoYTilt"][1:]]), "rlnTomoYTilt"),
        ("tilt_series/TS_1.star", lambda t: pd.concat([t, t.iloc[:1]]), "there twice"),
        ("tilt_series/TS_1.star", lambda t: t.assign(rlnDefocusU=1e9), "rlnDefocusU"),
        ("tilt_series/TS_1.star", lambda t: t.replace("11@", "12@", regex=True), "has 11"),
        ("tilt_series/TS_1.star", lambda t: t.drop(columns="rlnMicrographName"), "names no images"),
        ("aligned_tilt_series.star", lambda t: t.assign(rlnTomoHand=0.5), "neither 1 nor -1"),
        ("aligned_tilt_series.star", lambda t: t.assign(rlnTomoName="TS_1"), "called TS_1"),
        ("aligned_tilt_series.star", lambda t: t.assign(rlnTomoSizeX="wide"), "rlnTomoSizeX"),
    ],
)
def test_broken_tables_of_relion(one_file, file, change, text):
    path = one_file / file
    name, table = next(iter(read_star(path).items()))
    write_star({name: change(table)}, path)
    with pytest.raises(ProblemError) as error:
        import_relion(one_file / "aligned_tilt_series.star", Layout(one_file / "out"), one_file)
    assert text in str(error.value), error.value


# Warp


def warp_file(folder, change_global=None, change=None):
    path = folder / "x_tomograms.star"
    blocks = read_star(path)
    blocks["global"] = change_global(blocks["global"]) if change_global else blocks["global"]
    blocks["TS_01"] = change(blocks["TS_01"]) if change else blocks["TS_01"]
    write_star(blocks, path)
    return path


def angles_of(table, shifts=False):
    tilts = truth()
    labels = [
        f"rlnTomo{name}" for name in ("XTilt", "YTilt", "ZRot", *(("XShiftAngst", "YShiftAngst") if shifts else ()))
    ]
    table = table.drop(columns=[label for label in table if label.startswith("rlnTomoProj")])
    return table.assign(**{label: tilts[label] for label in labels})


@pytest.mark.parametrize("dummy", [True, False])
def test_angles_without_shifts_are_named_once(tmp_path, dummy):
    write_warp(tmp_path / "in", dummy=dummy)
    blocks = read_star(tmp_path / "in/x_tomograms.star")
    names = [f"{n:03d}.tomostar" for n in range(14)]
    blocks = {"global": pd.concat([blocks["global"]] * 14).assign(rlnTomoName=names)} | {
        name: angles_of(blocks["TS_01"]) for name in names
    }
    write_star(blocks, tmp_path / "in/x_tomograms.star")
    with pytest.raises(ProblemError) as error:
        import_warp(tmp_path / "in/x_tomograms.star", Layout(tmp_path / "out"))
    (problem,) = error.value.problems
    assert "14 tilt series with angles and CTF, without the shifts" in problem.what
    assert ("dummies" in problem.what) == dummy
    assert "py2rely import aretomo" in problem.fix


def test_angles_with_shifts_and_images_are_read(tmp_path):
    write_warp(tmp_path / "in")
    path = warp_file(tmp_path / "in", change=lambda t: angles_of(t, shifts=True))
    table = import_warp(path, Layout(tmp_path / "out")).tables[tmp_path / "out/tilt_series/TS_01.star"]["TS_01"]
    for label in ("rlnTomoYTilt", "rlnTomoZRot", "rlnTomoXShiftAngst", "rlnDefocusU", "rlnMicrographPreExposure"):
        assert np.allclose(table[label], truth()[label]), label


@pytest.mark.parametrize(
    ("change_global", "change", "text"),
    [
        (lambda g: g.assign(rlnTomoFrameCount=12), None, "rlnTomoFrameCount is 12"),
        (lambda g: g.assign(rlnTomoTiltSeriesPixelSize=2.0), None, "header says 4 A"),
        (lambda g: g.assign(rlnTomoSizeX="x"), None, "rlnTomoSizeX"),
        (lambda g: g.assign(rlnTomoSizeX=40 * SIZE, rlnTomoSizeZ=40 * THICKNESS), None, "within its images"),
        (lambda g: pd.concat([g, g]), None, "one name"),
        (None, lambda t: t.assign(rlnDefocusU="x"), "rlnDefocusU"),
        (None, lambda t: t.assign(rlnDefocusU=-5.0), "defocus > 0"),
        (None, lambda t: t.iloc[[1, 0, *range(2, 9), 10, 9]], "neither in the order"),
        (None, lambda t: t.assign(rlnTomoProjX="[1,nan,0,0]"), "no row of a matrix"),
    ],
)
def test_broken_tables_of_warp(tmp_path, change_global, change, text):
    write_warp(tmp_path / "in")
    path = warp_file(tmp_path / "in", change_global, change)
    with pytest.raises(ProblemError) as error:
        import_warp(path, Layout(tmp_path / "out"))
    assert text in str(error.value), error.value


def test_warps_own_files_are_named(tmp_path):
    (tmp_path / "TS.xml").write_text('<?xml version="1.0"?>\n<TiltSeries/>\n')
    table = pd.DataFrame({"wrpMovieName": ["a.mrc"], "wrpAngleTilt": [3.0]})
    write_star({"": table}, tmp_path / "TS.tomostar")
    for name, text in (("TS.xml", "XML"), ("TS.tomostar", "tomostar")):
        with pytest.raises(ProblemError, match=text) as error:
            import_warp(tmp_path / name, Layout(tmp_path / "out"))
        assert "ts_export_particles" in str(error.value)
