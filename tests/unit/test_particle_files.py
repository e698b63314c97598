"""Particle files of other programs: known poses come back, other kinds are named, and what is in doubt is asked for."""

from __future__ import annotations

import gzip
import re
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from mutations import FUZZ, Mutation, mutations, outcome
from particle_formats import (
    PIXEL,
    SIZES,
    TOMOGRAMS,
    VOXEL,
    Truth,
    relion_matrices,
    turned,
    write_cbox,
    write_coords,
    write_csv,
    write_dynamo,
    write_files,
    write_m,
    write_pytom,
    write_relion4,
    write_warp_matching,
)

from py2rely_core.data import kinds
from py2rely_core.data.inputs import load_inputs
from py2rely_core.data.names import match, stems
from py2rely_core.data.tables import read_star, write_star
from py2rely_core.importers.combine import combine_particles, filter_unused_tilts
from py2rely_core.importers.coordinates import Given
from py2rely_core.importers.particles import Options, Tomograms, import_csv, import_particles, import_star, tomograms_of
from py2rely_core.importers.pickers import dynamo_matrices
from py2rely_core.importers.result import Import
from py2rely_core.maps.io import read_map, write_map
from py2rely_core.problems import ProblemError, nearest

CENTRED = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]
PX = [f"rlnCoordinate{axis}" for axis in "XYZ"]
ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]


def words(error) -> str:
    return "\n".join(str(problem) for problem in error.value.problems)


def taken(source, tmp_path, voxel_size=None, units="auto", tomograms=TOMOGRAMS, **options) -> Import:
    options = Options(Given(units, voxel_size), **options)
    return import_particles(source, tmp_path / "out.star", tomograms, options)


def particles_of(result: Import) -> pd.DataFrame:
    return next(iter(result.tables.values()))["particles"]


def assert_poses(result: Import, expected: Truth, oriented: bool = True, tolerance: float = 0.02) -> None:
    """Every pose, tomogram by tomogram; matrices by RELION's own definition, built without the code under test."""
    found = particles_of(result)
    for name in SIZES:
        rows, true = found[found["rlnTomoName"] == name], expected.names == name
        assert np.abs(rows[CENTRED].to_numpy() - expected.positions[true]).max() < tolerance
        if oriented:
            matrices = relion_matrices(rows[ANGLES].to_numpy())
            assert np.abs(matrices - expected.matrices[true]).max() < 1e-4
    assert len(found) == len(expected.names)
    assert oriented == (set(ANGLES) <= set(found))


def test_dynamo_poses_come_back(tmp_path):
    expected = write_dynamo(tmp_path)
    result = taken(tmp_path / "crop.tbl", tmp_path, VOXEL)
    assert_poses(result, expected)
    notes = "\n".join(result.notes)
    assert "crop.doc" in notes
    assert "pixels of 10 A from the corner, counted from 1" in notes
    assert "TS_01_rec.mrc is TS_01" in notes


def test_dynamos_axis_lies_along_a_filament():
    """In its tables of tubes tilt is 90 and tdrot minus the angle from y to the tangent; narot turns about the tube."""
    direction = np.array([-5.0, -80.0, 12.0, 171.0])
    tangent = np.column_stack([-np.sin(np.radians(direction)), np.cos(np.radians(direction)), np.zeros(4)])
    for narot in (0.0, 77.0):
        angles = np.column_stack([-direction, np.full(4, 90.0), np.full(4, narot)])
        matrices = dynamo_matrices(angles)
        assert np.allclose(matrices[:, :, 2], tangent)
    # By more narot, the reference's x turns clockwise about the particle's own axis.
    change = dynamo_matrices([[30, 90, 20]])[0] @ dynamo_matrices([[30, 90, 0]])[0].T
    axis = dynamo_matrices([[30, 90, 0]])[0][:, 2]
    sine = np.array([change[2, 1] - change[1, 2], change[0, 2] - change[2, 0], change[1, 0] - change[0, 1]]) / 2
    assert np.allclose(sine, -np.sin(np.radians(20)) * axis)
    assert np.allclose(dynamo_matrices([[30, 0, 20]])[0], turned("z", np.array([-50.0]))[0])


def test_dynamo_says_what_it_needs(tmp_path):
    write_dynamo(tmp_path / "a")
    with pytest.raises(ProblemError) as error:
        taken(tmp_path / "a/crop.tbl", tmp_path)
    assert "of which tomogram the coordinates are pixels" in words(error)
    assert "--voxel-size" in words(error)
    for units in ("centred", "angstrom"):
        with pytest.raises(ProblemError, match=f"--units {units} is given"):
            taken(tmp_path / "a/crop.tbl", tmp_path, units=units)
    (tmp_path / "a/crop.doc").rename(tmp_path / "a/names.txt")
    with pytest.raises(ProblemError, match="names of the tomograms are not known"):
        taken(tmp_path / "a/crop.tbl", tmp_path, VOXEL)
    result = taken(tmp_path / "a/crop.tbl", tmp_path, VOXEL, doc=tmp_path / "a/names.txt")
    assert len(particles_of(result)) == 12
    (tmp_path / "a/names.txt").write_text("3 TS_01.mrc\n")
    with pytest.raises(ProblemError, match="Tomograms of the table have no name: 7"):
        taken(tmp_path / "a/crop.tbl", tmp_path, VOXEL, doc=tmp_path / "a/names.txt")
    (tmp_path / "a/names.txt").write_text("3 TS_01.mrc\n3 TS_02.mrc\n7 TS_02.mrc\n")
    with pytest.raises(ProblemError, match="Tomogram 3 has two names"):
        taken(tmp_path / "a/crop.tbl", tmp_path, VOXEL, doc=tmp_path / "a/names.txt")
    for name in ("x.doc", "y.doc"):
        (tmp_path / "a" / name).write_text("3 TS_01.mrc\n7 TS_02.mrc\n")
    with pytest.raises(ProblemError, match=r"Several files may name the tomograms: x\.doc, y\.doc"):
        taken(tmp_path / "a/crop.tbl", tmp_path, VOXEL)


def test_dynamo_with_a_pixel_size_needs_no_other(tmp_path):
    expected = write_dynamo(tmp_path, columns=42, pixel_size=VOXEL)
    result = taken(tmp_path / "crop.tbl", tmp_path)
    assert_poses(result, expected)
    assert "column 36" in "\n".join(result.notes)
    other = taken(tmp_path / "crop.tbl", tmp_path, VOXEL * 0.9)
    assert "column 36 of the table says voxels of 10 A; --voxel-size 9 is used" in "\n".join(other.notes)


@pytest.mark.parametrize("source", ["", "TS_01_rec.cbox"])
def test_cryolo_boxes(tmp_path, source):
    expected = write_cbox(tmp_path / "CBOX_3D")
    result = taken(tmp_path / "CBOX_3D" / source, tmp_path, VOXEL)
    if source:
        rows = expected.names == "TS_01"
        expected = Truth(expected.names[rows], expected.positions[rows], expected.matrices[rows])
        assert np.abs(particles_of(result)[CENTRED].to_numpy() - expected.positions).max() < 0.02
    else:
        assert_poses(result, expected, oriented=False)
        assert "12 particles of 2 files" in result.notes[0]


def test_cryolo_filaments_are_kept(tmp_path):
    write_cbox(tmp_path / "CBOX_3D", filaments=True)
    found = particles_of(taken(tmp_path / "CBOX_3D", tmp_path, VOXEL))
    assert list(found["rlnHelicalTubeID"]) == [0, 0, 0, 1, 1, 1] * 2
    blocks = read_star(tmp_path / "CBOX_3D/TS_01_rec.cbox")
    write_star(blocks | {"cryolo": blocks["cryolo"].assign(CoordinateZ="<NA>")}, tmp_path / "flat.cbox")
    with pytest.raises(ProblemError, match="The boxes have no z"):
        taken(tmp_path / "flat.cbox", tmp_path, VOXEL)


def test_coordinates_do_not_say_their_unit(tmp_path):
    """crYOLO and TomoTwin write pixels into .coords, ArtiaX Angstrom: nothing in the file tells."""
    expected = write_coords(tmp_path / "COORDS")
    with pytest.raises(ProblemError) as error:
        taken(tmp_path / "COORDS", tmp_path)
    for text in ("cannot be told what unit", "--voxel-size", "--units angstrom", "--units centred"):
        assert text in words(error)
    assert_poses(taken(tmp_path / "COORDS", tmp_path, VOXEL), expected, oriented=False)
    np.savetxt(tmp_path / "ribosome.coords", expected.corner[::2])
    with pytest.raises(ProblemError, match="without a tilt series: ribosome"):
        taken(tmp_path / "ribosome.coords", tmp_path, units="angstrom")
    result = taken(tmp_path / "ribosome.coords", tmp_path, units="angstrom", tomogram="TS_01")
    assert np.allclose(particles_of(result)[CENTRED], expected.positions[::2], atol=1e-3)
    with pytest.raises(ProblemError, match="for a directory of files"):
        taken(tmp_path / "COORDS", tmp_path, VOXEL, tomogram="TS_01")


def test_the_first_pose_of_m(tmp_path):
    expected = write_m(tmp_path / "m.star")
    result = taken(tmp_path / "m.star", tmp_path)
    assert_poses(result, expected)
    notes = "\n".join(result.notes)
    assert "M has 2 poses" in notes
    assert "Angstrom from the corner (wrpCoordinateX1" in notes
    assert list(particles_of(result)["rlnRandomSubset"]) == [1, 2] * 6
    assert_poses(taken(tmp_path / "m.star", tmp_path, units="angstrom"), expected)
    with pytest.raises(ProblemError, match="--voxel-size 10 is given"):
        taken(tmp_path / "m.star", tmp_path, VOXEL)
    table = read_star(tmp_path / "m.star")[""]
    write_star({"": table.drop(columns="wrpAngleRot1")}, tmp_path / "cut.star")
    with pytest.raises(ProblemError, match="wrpAngleRot1"):
        taken(tmp_path / "cut.star", tmp_path)


@pytest.mark.parametrize("relion5", [False, True])
def test_pytom_match_pick(tmp_path, relion5):
    expected = write_pytom(tmp_path / "p.star", relion5=relion5)
    result = taken(tmp_path / "p.star", tmp_path)
    assert_poses(result, expected)
    assert ("rlnDetectorPixelSize of the particles" in "\n".join(result.notes)) == (not relion5)
    assert "rec_TS_01 is TS_01" in "\n".join(result.notes)


def test_warps_matching_gives_shares(tmp_path):
    expected = write_warp_matching(tmp_path / "w.star")
    assert_poses(taken(tmp_path / "w.star", tmp_path), expected)
    table = read_star(tmp_path / "w.star")[""].drop(columns="rlnAutopickFigureOfMerit")
    write_star({"": table}, tmp_path / "x.star")
    with pytest.raises(ProblemError) as error:
        taken(tmp_path / "x.star", tmp_path)
    assert "--units fraction" in words(error)
    assert_poses(taken(tmp_path / "x.star", tmp_path, units="fraction"), expected)


def test_relion_4_needs_no_unit_however_small_the_reach(tmp_path):
    """The optics table makes them pixels of the unbinned tomogram, also where all lie in one corner of it."""
    expected = write_relion4(tmp_path / "r.star")
    assert_poses(taken(tmp_path / "r.star", tmp_path), expected)
    blocks = read_star(tmp_path / "r.star")
    near = blocks["particles"].assign(**{label: blocks["particles"][label] / 4 for label in PX})
    write_star(blocks | {"particles": near}, tmp_path / "r.star")
    found = particles_of(taken(tmp_path / "r.star", tmp_path))
    assert np.allclose(found[CENTRED], expected.corner / 4 - (expected.corner - expected.positions), atol=1e-3)


def test_an_image_pixel_size_says_what_pixels_are(tmp_path):
    expected = write_relion4(tmp_path / "r.star")
    table = read_star(tmp_path / "r.star")["particles"].drop(columns="rlnOpticsGroup")
    table[PX] = table[PX] * PIXEL / VOXEL
    write_star({"particles": table.assign(rlnImagePixelSize=VOXEL)}, tmp_path / "w.star")
    assert_poses(taken(tmp_path / "w.star", tmp_path), expected)
    write_star({"particles": table.assign(rlnImagePixelSize=[VOXEL, 5.0] * 6)}, tmp_path / "w.star")
    with pytest.raises(
        ProblemError, match="rlnImagePixelSize, which says what the coordinates are pixels of, is 5, 10"
    ):
        taken(tmp_path / "w.star", tmp_path)


@pytest.mark.parametrize("fits", [True, False])
def test_one_negative_pixel_makes_no_file_centred(tmp_path, fits):
    """Pixels over the whole tomogram, one of them just before the corner."""
    rng = np.random.default_rng(1)
    values = rng.uniform(0.05, 0.97, (200, 3)) * SIZES["TS_01"]
    values[17, 2] = -3.2
    values = values if fits else values / 4
    table = pd.DataFrame(values, columns=PX).assign(rlnTomoName="TS_01")
    write_star({"particles": table}, tmp_path / "p.star")
    with pytest.raises(ProblemError) as error:
        taken(tmp_path / "p.star", tmp_path)
    assert "centred" not in words(error)
    assert "from the centre" not in words(error)
    assert ("1 of 200 particles are outside" in words(error)) == fits
    if fits:
        assert re.search(r"p\.star, line \d+, first in row 18: \(.*-3\.2\) of TS_01", words(error))
        lines = (tmp_path / "p.star").read_text().splitlines()
        assert "-3.2" in lines[int(re.search(r"line (\d+)", words(error))[1]) - 1]
        assert "before the corner" in words(error)
    else:
        assert "--voxel-size" in words(error)
    csv = table.rename(columns=dict(zip(PX, "xyz", strict=True))).rename(columns={"rlnTomoName": "tomogram"})
    csv.to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(ProblemError) as error:
        import_csv(tmp_path / "p.csv", tmp_path / "o.star", TOMOGRAMS)
    assert "1 of 200 particles have negative ones" in words(error)
    assert "--units centred" in words(error)


@pytest.mark.parametrize("binning", [1.0, 1.2, 1.25, 4 / 3, 1.5, 2.0])
@pytest.mark.parametrize("kind", ["cbox", "coords", "star", "x_px"])
def test_a_binned_tomogram_is_never_taken_for_the_unbinned_one(tmp_path, kind, binning):
    """However much of it the picks fill; those of z reach as far as they like, as tomograms differ in depth."""
    centre = SIZES["TS_01"] * np.random.default_rng(5).uniform(0.05, 0.99, (300, 3)) / [binning, binning, 1]
    path = tmp_path / f"TS_01.{kind if kind != 'x_px' else 'csv'}"
    if kind == "cbox":
        table = pd.DataFrame(centre, columns=[f"Coordinate{axis}" for axis in "XYZ"])
        write_star({"cryolo": table.assign(Width=0.0, Height=0.0)}, path)
    elif kind == "star":
        write_star({"particles": pd.DataFrame(centre, columns=PX).assign(rlnTomoName="TS_01")}, path)
    elif kind == "coords":
        np.savetxt(path, centre)
    else:
        pd.DataFrame(centre, columns=["x_px", "y_px", "z_px"]).assign(tomogram="TS_01").to_csv(path, index=False)
    if binning == 1:
        found = particles_of(taken(path, tmp_path))
        assert np.allclose(found[CENTRED], (centre - SIZES["TS_01"] / 2) * PIXEL, atol=1e-3)
        return
    with pytest.raises(ProblemError) as error:
        taken(path, tmp_path)
    assert "cannot be told" in words(error)
    assert "--voxel-size" in words(error)


def test_columns_of_a_csv_file_say_their_unit(tmp_path):
    expected = write_csv(tmp_path / "p.csv")
    table = pd.read_csv(tmp_path / "p.csv")
    corner = table.assign(x=expected.corner[:, 0], y=expected.corner[:, 1], z=expected.corner[:, 2])
    scaled = corner.assign(**{axis: corner[axis] / VOXEL for axis in "xyz"})

    def written(data, names):
        data.rename(columns=dict(zip("xyz", names, strict=True))).to_csv(tmp_path / "c.csv", index=False)
        return tmp_path / "c.csv"

    assert_poses(taken(written(table, CENTRED), tmp_path), expected)
    assert_poses(taken(written(scaled, ["x_px", "y_px", "z_px"]), tmp_path, VOXEL), expected)
    # Without the ending, pixels of a binned tomogram and Angstrom from a corner cannot be told apart.
    for names in (["x_px", "y_px", "z_px"], PX, list("xyz")):
        with pytest.raises(ProblemError, match="cannot be told"):
            taken(written(scaled, names), tmp_path)
    assert_poses(taken(written(corner, ["x_angst", "y_angst", "z_angst"]), tmp_path, units="angstrom"), expected)
    with pytest.raises(ProblemError, match="--voxel-size 10 is given"):
        taken(written(table, CENTRED), tmp_path, VOXEL)


def test_tables_of_particle_files(tmp_path):
    expected = write_files(tmp_path)
    result = taken(tmp_path / "files.star", tmp_path, VOXEL)
    assert_poses(result, expected, oriented=False)
    (tmp_path / "TS_02.coords").rename(tmp_path / "gone")
    with pytest.raises(ProblemError, match="1 particle files are missing"):
        taken(tmp_path / "files.star", tmp_path, VOXEL)


def test_a_table_of_particle_files_may_not_name_itself(tmp_path):
    """Nor another that names it, nor through an optimisation set."""
    files = {"rlnTomoName": ["TS_01"]}
    for name, other in (("a", "a"), ("a", "b"), ("a", "set")):
        write_star({"": pd.DataFrame(files | {"rlnTomoImportParticleFile": [f"{other}.star"]})}, tmp_path / "a.star")
        write_star({"": pd.DataFrame(files | {"rlnTomoImportParticleFile": [f"{name}.star"]})}, tmp_path / "b.star")
        named = pd.DataFrame({"rlnTomoParticlesFile": ["a.star"], "rlnTomoTomogramsFile": ["t.star"]})
        write_star({"": named}, tmp_path / "set.star")
        with pytest.raises(ProblemError, match="A table of particle files names a table of particle files"):
            taken(tmp_path / "a.star", tmp_path)


@pytest.mark.parametrize(("halves", "kept"), [((0, 1), True), ((1, 2), True), ((0, 1, 2), False), ((1,), False)])
def test_half_sets_of_m_are_two_or_not_used(tmp_path, halves, kept):
    write_m(tmp_path / "m.star")
    table = read_star(tmp_path / "m.star")[""]
    write_star({"": table.assign(wrpRandomSubset=np.resize(halves, len(table)))}, tmp_path / "m.star")
    result = taken(tmp_path / "m.star", tmp_path)
    assert ("rlnRandomSubset" in particles_of(result)) == kept
    assert ("the column is not used" in "\n".join(result.notes)) != kept


def test_options_that_say_what_the_file_says(tmp_path):
    write_m(tmp_path / "m.star")
    with pytest.raises(ProblemError, match=r"The file names its tomograms \(TS_01.tomostar, TS_02.tomostar\)"):
        taken(tmp_path / "m.star", tmp_path, tomogram="TS_01")
    with pytest.raises(ProblemError, match=r"A \.doc is given"):
        taken(tmp_path / "m.star", tmp_path, doc=tmp_path / "x.doc")


def test_tables_without_rows(tmp_path):
    write_m(tmp_path / "m.star")
    write_files(tmp_path)
    for file, text in (("m.star", "There are no particles"), ("files.star", "The table names no particle files")):
        blocks = read_star(tmp_path / file)
        write_star({name: table.head(0) for name, table in blocks.items()}, tmp_path / file)
        with pytest.raises(ProblemError, match=text):
            taken(tmp_path / file, tmp_path, VOXEL)


@pytest.mark.parametrize("skip", [False, True])
def test_every_particle_has_the_name_of_a_tomogram(tmp_path, skip):
    """nan is no name, and particles without one are not left out as those of unknown tomograms are."""
    write_m(tmp_path / "m.star")
    write_files(tmp_path)
    write_relion4(tmp_path / "r.star")
    for file, label in (("m.star", "wrpSourceName"), ("files.star", "rlnTomoName"), ("r.star", "rlnTomoName")):
        text = (tmp_path / file).read_text()
        name = "TS_02.tomostar" if file == "m.star" else "TS_02"
        lines = text.splitlines()
        number = next(n for n, line in enumerate(lines) if name in line.split())
        lines[number] = lines[number].replace(name, "nan", 1)
        (tmp_path / file).write_text("\n".join(lines) + "\n")
        with pytest.raises(ProblemError, match=f"{label} is empty, or nan, in 1 rows") as error:
            taken(tmp_path / file, tmp_path, None if file != "files.star" else VOXEL, skip_unknown=skip)
        assert f"line {number + 1}" in words(error)


def test_filaments_have_whole_numbers(tmp_path):
    write_cbox(tmp_path, filaments=True)
    blocks = read_star(tmp_path / "TS_01_rec.cbox")
    for value in (1e30, 0.5):
        write_star(blocks | {"cryolo": blocks["cryolo"].assign(filamentid=value)}, tmp_path / "TS_01_rec.cbox")
        with pytest.raises(ProblemError, match=f"filamentid is {re.escape(f'{value:g}')}"):
            taken(tmp_path / "TS_01_rec.cbox", tmp_path, VOXEL)


def test_a_file_in_a_table_is_of_its_tomogram(tmp_path):
    """pytom-match-pick lists one file for each tomogram, and the names in the files stand for the rows."""
    expected = write_pytom(tmp_path / "all.star")
    table = {"rlnTomoName": ["TS_01", "TS_02"], "rlnTomoImportParticleFile": ["all.star", "all.star"]}
    write_star({"particles": pd.DataFrame(table)}, tmp_path / "files.star")
    assert_poses(taken(tmp_path / "files.star", tmp_path), expected)
    table["rlnTomoName"] = ["TS_01", "other"]
    write_star({"particles": pd.DataFrame(table)}, tmp_path / "files.star")
    with pytest.raises(ProblemError, match="particles are of other, their file says rec_TS_01, rec_TS_02"):
        taken(tmp_path / "files.star", tmp_path)


@pytest.mark.parametrize("loop", [False, True])
def test_an_optimisation_set_stands_for_its_files(tiny, tmp_path, monkeypatch, loop):
    monkeypatch.chdir(tmp_path)
    for name in ("tilt_series", "tilt_series.star", "particles.star"):
        (tmp_path / name).symlink_to(tiny / name)
    labels = ("rlnTomoParticlesFile particles.star", "rlnTomoTomogramsFile tilt_series.star",
              'rlnTomoTrajectoriesFile ""')  # fmt: skip
    job = tmp_path / "Refine3D/job023"
    job.mkdir(parents=True)
    if loop:
        rows = [one.split() for one in labels[:2]]
        text = "data_\n\nloop_\n" + "".join(f"_{label}\n" for label, _ in rows) + " ".join(file for _, file in rows)
    else:
        text = "data_\n\n" + "\n".join(f"_{one}" for one in labels)
    (job / "set.star").write_text(text + "\n")
    given = job / "set.star"
    found = particles_of(import_particles(given, tmp_path / "o.star", tomograms_of(given), Options()))
    assert len(found) == len(read_star(tiny / "particles.star")["particles"])
    inputs = load_inputs(given, given, tmp_path)
    assert inputs.problems == []
    assert (inputs.particles_file, inputs.tilt_series_file) == (
        tmp_path / "particles.star",
        tmp_path / "tilt_series.star",
    )
    assert len(filter_unused_tilts(given, given, tmp_path / "u.star").tables[tmp_path / "u.star"]["global"]) == 2
    with pytest.raises(ProblemError, match="would replace an optimisation set"):
        filter_unused_tilts(given, given, given)
    (tmp_path / "particles.star").unlink()
    with pytest.raises(ProblemError, match=r"the file that it names is missing: particles\.star"):
        import_particles(given, tmp_path / "o.star", tomograms_of(given), Options())
    with pytest.raises(ProblemError, match="optimisation set"):
        combine_particles([given], tmp_path / "c.star")


# Names


@pytest.mark.parametrize(
    "name",
    [
        "TS_01", "TS_01.mrc", "tomostar/TS_01.tomostar", "TS_01_rec", "rec_TS_01.mrc", "TS_01_Vol", "TS_01_ali.mrc",
        "TS_01_SIRT.rec", "TS_01_10.00Apx", "TS_01_rec.mrc_10.00Apx", "TS_01_bin4.rec", "TS_01_full_rec.mrc",
        "TS_01_bin4_SIRT_rec.mrc", "TS_01_10.00Apx_denoised.mrc", "tomogram_TS_01", "TS_01_13.4A_dctf.mrc",
    ],
)  # fmt: skip
def test_names_are_matched_through_endings(name):
    assert match([name], ["TS_01", "TS_02", "TS_011"]) == ({name: "TS_01"}, {})
    assert match(["TS_01"], [name, "TS_02"]) == ({"TS_01": name}, {})


def test_names_are_matched_only_where_one_is_meant(tmp_path):
    assert match(["TS_01_rec"], ["TS_01_Vol", "TS_01_ali"]) == ({}, {"TS_01_rec": ["TS_01_Vol", "TS_01_ali"]})
    assert match(["a_rec"], ["a", "a_rec"]) == ({"a_rec": "a_rec"}, {})
    assert match(["TS_1", "TS_01_flipx"], ["TS_01"]) == ({}, {})
    assert stems("rec") == ["rec"]
    assert nearest("TS_2", ["TS_12", "TS_21", "TS_02"]) == "did you mean 'TS_02'?"
    expected = write_relion4(tmp_path / "r.star")
    blocks = read_star(tmp_path / "r.star")
    names = [f"{name}_bin4" if n < 6 else f"{name}_bin8" for n, name in enumerate(expected.names)]
    write_star(blocks | {"particles": blocks["particles"].assign(rlnTomoName=names)}, tmp_path / "r.star")
    with pytest.raises(ProblemError, match="Tomograms of several names are all TS_01: TS_01_bin4, TS_01_bin8"):
        taken(tmp_path / "r.star", tmp_path)
    one = Tomograms({"TS_01_Vol": SIZES["TS_01"], "TS_01_ali": SIZES["TS_01"]}, PIXEL, TOMOGRAMS.optics)
    with pytest.raises(ProblemError, match="TS_01_bin4 could be TS_01_Vol or TS_01_ali"):
        taken(tmp_path / "r.star", tmp_path, tomograms=one)
    write_star(blocks | {"particles": blocks["particles"].assign(rlnTomoName="xyz")}, tmp_path / "r.star")
    with pytest.raises(ProblemError, match="The tilt series are called TS_01, TS_02"):
        taken(tmp_path / "r.star", tmp_path)


# Kinds


def matrix_rows(count):
    rng = np.random.default_rng(2)
    first = rng.uniform(0, 100, (count, 16))
    matrices = relion_matrices(rng.uniform(0, 180, (count, 3))).reshape(count, 9)
    return "\n".join(" ".join(f"{v:.6g}" for v in row) for row in np.column_stack([first, matrices, np.ones(count)]))


def em_file(path):
    header = np.zeros(128, dtype="<i4")
    header[0] = int.from_bytes(bytes([6, 0, 0, 5]), "little")
    header[1:4] = [20, 30, 1]
    path.write_bytes(header.tobytes() + np.zeros(600, dtype="<f4").tobytes())


STAR = "data_\n\nloop_\n{labels}\n{row}\n"
#: Name of a kind: (what writes such a file, a part of its name, a part of what is to be done).
OTHERS = {
    "stopgap": ("data_stopgap_motivelist\n\nloop_\n_motl_idx\n_tomo_num\n_orig_x\n1 1 3.0\n", "STOPGAP", "cryoCAT"),
    "tomostar": ("data_\n\nloop_\n_wrpMovieName\n_wrpAngleTilt\na.mrc -60\n", ".tomostar", "aretomo"),
    "emclarity": (matrix_rows(5) + "\n", "emClarity", "CSV"),
    "peet": ("CCC,reserved,reserved,pIndex\n1,0,0,1\n", "PEET", "CSV"),
    "imod model": (b"IMODV1.2model" + bytes(300), "model of IMOD", "model2point"),
    "eman list": ("#LSX\n# This file is in fast LST format\n0\ta.hdf\n", "EMAN2", "CSV"),
    "eman boxes": ('{"boxes_3d": [[1, 2, 3, "manual", 0.0, 0]], "apix_unbin": 2.5}', "boxes of EMAN2", "boxes_3d"),
    "eman": ('{"(\'a.lst\', 0)": {"xform.align3d": {}}}', "EMAN2", "CSV"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(500), "HDF5", "EMAN2"),
    "pickle": (b"\x80\x04\x95" + bytes(range(1, 200)), "TomoTwin", "tomotwin_pick.py"),
    "em": (em_file, "EM file", "motl2relion"),
    "gzip": (lambda p: p.write_bytes(gzip.compress(b"data_\n" * 9)), "gzip", "gunzip"),
    "matlab": (b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + b" " * 90 + bytes(300), "Dynamo", "dwrite"),
    "numpy": (b"\x93NUMPY\x01\x00v\x00{'descr': '<f8'}" + bytes(300), "cryoSPARC", "csparc2star"),
    "sqlite": (b"SQLite format 3\x00" + bytes(300), "Scipion", "Export"),
    "parquet": (b"PAR1" + bytes(300), "Parquet", "CSV"),
    "boxes": ("100\t200\t32\t32\t0.5\t30\t29\n120\t20\t32\t32\t0.6\t30\t31\n", "crYOLO before 1.8", "CBOX_3D"),
    "boxes 3d": ("100\t200\t50\t32\t32\n120\t20\t40\t32\t32\n", "x y z and the size", "awk"),
    "numbers": ("1 100 200 30\n2 120 20 40\n", "numbers without names", "Name its columns"),
    "tiff": (b"II*\x00" + bytes(300), "TIFF or EER", "MRC"),
    "map": (lambda p: write_map(p, np.ones((8, 8, 8)), 2.0), "map or an image stack (MRC)", "not the images"),
    "copick": ('{"config_type": "filesystem", "pickable_objects": []}', "copick configuration", "import copick"),
    "copick picks": ('{"pickable_object_name": "a", "points": []}', "picks of copick", "import copick"),
    "data portal": ('{"type": "point", "location": {"x": 1}}\n', "data portal", "copick"),
    "xml": ('<?xml version="1.0"?>\n<TiltSeries />\n', "XML", "Warp"),
    "mdoc": ("PixelSpacing = 1.3\n\n[ZValue = 0]\nTiltAngle = 3\n", ".mdoc", "aretomo"),
    "dynamo names": ("1 a_rec.mrc\n2 b_rec.mrc\n", "list of tomograms of a Dynamo", "Give the .tbl"),
    "markers": ('<marker_set name="a">\n</marker_set>\n', "ChimeraX", "CSV"),
    "trajectories": ("data_general\n\n_rlnParticleNumber 1\n\ndata_TS_01/1\n\nloop_\n_rlnOriginXAngst\n0.1\n",
                     "trajectories", "--motion"),
    "model": ("data_model_general\n\n_rlnReferenceDimensionality 3\n", "model file", "run_data.star"),
    "images": ("data_particles\n\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnMicrographName\n1 2 a.mrc\n",
               "no z", "three coordinates"),
    "tilt series": ("data_global\n\nloop_\n_rlnTomoName\n_rlnTomoTiltSeriesStarFile\na a.star\n",
                    "a tilt-series file", "exchanged"),
    "old tomograms": ("data_global\n\nloop_\n_rlnTomoName\n_rlnTomoTiltSeriesName\na a.mrc\n",
                      "RELION 4", "import warp"),
    "one tilt series": ("data_a\n\nloop_\n_rlnMicrographName\n_rlnTomoYTilt\na.mrc 3\n",
                        "one tilt series", "lists all"),
}  # fmt: skip


def made(path, content):
    if callable(content):
        content(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content)
    return path


@pytest.mark.parametrize("key", OTHERS)
def test_other_kinds_are_named_everywhere(tiny, tmp_path, key):
    """By content: the name of the file says something else."""
    content, name, fix = OTHERS[key]
    path = made(tmp_path / "x.star", content)
    assert kinds.look(path) is kinds.KINDS[key]
    places = [
        lambda: taken(path, tmp_path), lambda: import_csv(path, tmp_path / "o.star", TOMOGRAMS),
        lambda: import_star(path, tmp_path / "o.star", TOMOGRAMS),
    ]  # fmt: skip
    if key not in ("tilt series", "old tomograms"):
        places.append(lambda: tomograms_of(path))
    for place in places:
        with pytest.raises(ProblemError) as error:
            place()
        assert name in words(error), words(error)
        assert fix in words(error), words(error)
        assert str(path) in words(error)
    inputs = load_inputs(path, tiny / "tilt_series.star", tiny)
    assert name in "\n".join(map(str, inputs.problems))
    if key not in ("map", "em", "tilt series", "old tomograms", "one tilt series"):
        inputs = load_inputs(tiny / "particles.star", path, tiny)
        assert name in "\n".join(map(str, inputs.problems))
    if key != "map":
        with pytest.raises(ProblemError) as error:
            read_map(path)
        assert name in words(error)


def test_archives_texts_and_nothing(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.star", "w") as archive:
        archive.writestr("p.star", "data_\n")
    assert kinds.look(tmp_path / "a.star").key == "zip"
    (tmp_path / "e.star").write_text("\n")
    with pytest.raises(ProblemError, match="This is an empty file, not a particle file"):
        taken(tmp_path / "e.star", tmp_path)
    (tmp_path / "t.star").write_text("Dear colleague,\nhere are the particles.\n")
    with pytest.raises(ProblemError, match="It cannot be told what kind of file this is"):
        taken(tmp_path / "t.star", tmp_path)
    with pytest.raises(ProblemError, match="missing"):
        taken(tmp_path / "none.star", tmp_path)
    with pytest.raises(ProblemError, match="directory holds no picks"):
        taken(tmp_path, tmp_path)
    write_csv(tmp_path / "p.csv")
    assert len(particles_of(taken(tmp_path / "p.csv", tmp_path))) == 12
    write_dynamo(tmp_path)
    with pytest.raises(ProblemError, match="This is a table of Dynamo"):
        import_csv(tmp_path / "crop.tbl", tmp_path / "o.star", TOMOGRAMS)


def test_binary_files_are_known_by_their_names_where_nothing_else_says_it(tmp_path):
    for name, text, fix in (("a.tbl", "Dynamo writes long tables", "dread"), ("a.cbox", "crYOLO's are not", "1.8")):
        (tmp_path / name).write_bytes(b"\x01\x00\x02" * 300)
        with pytest.raises(ProblemError) as error:
            taken(tmp_path / name, tmp_path)
        assert text in words(error)
        assert fix in words(error)
    for name, content in (("a.pdb", "ATOM      1  N   ALA A   1      11.104   6.134  -6.504  1.00  0.00\n"),
                          ("a.cif", "data_1ABC\n#\n_entry.id 1ABC\nloop_\n_atom_site.id\n1\n")):  # fmt: skip
        (tmp_path / name).write_text(content)
        with pytest.raises(ProblemError, match="This is an atomic model"):
            taken(tmp_path / name, tmp_path)
    (tmp_path / "b.txt").write_text("tomogram x y z\nTS_01 10 20 30\nTS_02 40 50 35\n")
    assert len(particles_of(taken(tmp_path / "b.txt", tmp_path, VOXEL))) == 2


def test_a_stack_in_place_of_a_table_is_not_read_whole(tmp_path, monkeypatch):
    """A stack of any size is known by its first bytes, also where a tilt series' table is wanted."""
    write_map(tmp_path / "stack.mrc", np.ones((4, 8, 8)), 2.0)
    with (tmp_path / "stack.mrc").open("ab") as file:
        file.truncate(3 * 2**30)
    table = {"rlnTomoName": ["A"], "rlnTomoTiltSeriesStarFile": ["stack.mrc"]}
    write_star({"global": pd.DataFrame(table)}, tmp_path / "series.star")
    write_star({"optics": pd.DataFrame([TOMOGRAMS.optics])}, tmp_path / "p.star")
    inputs = load_inputs("p.star", "series.star", tmp_path)
    text = "\n".join(map(str, inputs.problems))
    assert "This is a map or an image stack (MRC), not a STAR file" in text
    assert "stack.mrc" in text


def test_any_encoding(tmp_path):
    expected = write_relion4(tmp_path / "r.star")
    text = (tmp_path / "r.star").read_text()
    for encoding in ("utf-16", "utf-8-sig", "utf-16-le"):
        (tmp_path / "e.star").write_bytes(text.encode(encoding))
        assert_poses(taken(tmp_path / "e.star", tmp_path), expected)
    (tmp_path / "e.star").write_bytes(("# \xe5ngstr\xf6m\n" + text).encode("latin-1"))
    assert_poses(taken(tmp_path / "e.star", tmp_path), expected)


def test_numbers_are_numbers_or_messages_with_their_line(tmp_path):
    write_relion4(tmp_path / "r.star")
    good = (tmp_path / "r.star").read_text()
    last = [line for line in good.splitlines() if line.startswith("TS_")][4]
    number = good.splitlines().index(last) + 1
    for change, text in (
        (lambda line: re.sub(r"\d+\.\d+", "abc", line, count=1), "no numbers in 1 rows"),
        (lambda line: line.rsplit(None, 1)[0], "6 values|7 values"),
        (lambda line: line + " 7", "9 values|8 values"),
        (lambda line: re.sub(r"(\d)\.(\d)", r"\1,\2", line, count=1), "decimal point"),
        (lambda line: line.rsplit(None, 1)[0] + " 1e30", "no angles"),
        (lambda line: line.rsplit(None, 1)[0] + " inf", "no numbers"),
    ):
        (tmp_path / "r.star").write_text(good.replace(last, change(last)))
        with pytest.raises(ProblemError) as error:
            taken(tmp_path / "r.star", tmp_path)
        assert re.search(text, words(error)), words(error)
        assert f"r.star, line {number}" in words(error)
    (tmp_path / "r.star").write_text(good)
    assert len(particles_of(taken(tmp_path / "r.star", tmp_path))) == 12


def test_tilt_series_tables_with_text_for_numbers_are_refused(tiny, tmp_path):
    table = read_star(tiny / "tilt_series.star")["global"]
    for change, text in (
        (table.assign(rlnTomoSizeX="wide"), "rlnTomoSizeX"),
        (table.assign(rlnTomoSizeZ=["64", "nan"]), "no numbers"),
        (table.assign(rlnTomoName="A"), "named twice: A"),
        (table.assign(rlnVoltage="high"), "no numbers"),
    ):
        write_star({"global": change}, tmp_path / "t.star")
        with pytest.raises(ProblemError, match=text):
            tomograms_of(tmp_path / "t.star")


# What files say twice, or in another way

XYZ, CENTRE = "rlnCoordinateX rlnCoordinateY rlnCoordinateZ", " ".join(CENTRED)


def star_of(labels, *rows):
    names = "\n".join(f"_{label}" for label in f"rlnTomoName {labels}".split())
    return "data_particles\n\nloop_\n" + names + "\n" + "\n".join(f"TS_01 {row}" for row in rows) + "\n"


#: What is wrong: (a file, parts of what is said).
SAID = {
    "places of two kinds": (star_of(f"{CENTRE} {XYZ}", "1 2 3 10 20 30", "51 2 3 10 90 30", "1 9 3 60 20 30"),
                            ("different places", "rlnCoordinateX/Y/Z", "out of date")),
    "half set 0": (star_of(f"{CENTRE} rlnRandomSubset", "1 2 3 0", "2 2 3 1"), ("rlnRandomSubset is 0", "line 9")),
    "half a class": (star_of(f"{CENTRE} rlnClassNumber", "1 2 3 1.5"), ("rlnClassNumber is 1.5", "line 9")),
    "half a filament": (star_of(f"{CENTRE} rlnHelicalTubeID", "1 2 3 1.5"), ("rlnHelicalTubeID is 1.5", "line 9")),
    "two shifts": (star_of(f"{CENTRE} rlnOriginXAngst rlnOriginYAngst", "1 2 3 1 1"), ("rlnOriginZAngst is missing",)),
    "shifts in pixels": (star_of(f"{CENTRE} rlnOriginX rlnOriginY rlnOriginZ", "1 2 3 1 1 1"),
                         ("rlnOriginX/Y/Z are pixels", "rlnOriginX/Y/ZAngst")),
    "units of columns": ("tomogram,x_px,y_angst,z_px\nTS_01,1,1,1\n", ("x_px, y_angst, z_px say different units",)),
    "names and no rows": ("tomogram,x,y,z\n", ("There are no particles",)),
    "thousands": ('tomogram,x,y,z\nTS_01,"1,010.5",10,1\n', ("1,010.5", "are no numbers", "line 2")),
    "truth": ("tomogram,x,y,z\nTS_01,True,True,True\n", ("are no numbers", "line 2")),
    "a count": ("2\n10 10 10\n20 20 20\n", ("The line has 1 values", "line 1")),
    "an end": ("10 10 10\n20 20 20\nEND\n", ("The line has 1 values", "line 3")),
    "another name": ("tomogram,x,y,z\nTS_01#a,10,10,10\n", ("without a tilt series: TS_01#a", "did you mean 'TS_01'")),
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_contradictions_and_other_writings_are_named(tmp_path, name):
    text, parts = SAID[name]
    (tmp_path / "x.star").write_text(text)
    with pytest.raises(ProblemError) as error:
        taken(tmp_path / "x.star", tmp_path)
    for part in parts:
        assert part in words(error), words(error)


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\ntomogram;x_angst;y_angst;z_angst\n# said\nTS_01;100.5;20;30 # so\n",
        '"tomogram","x_angst","y_angst","z_angst"\n"TS_01 ","100.5","20","30"\n',
        ",tomogram,x_angst,y_angst,z_angst\n7,TS_01,100.5,20,30\n",
    ],
)
def test_tables_as_other_programs_save_them(tmp_path, text):
    (tmp_path / "x.csv").write_text(text)
    table = particles_of(import_csv(tmp_path / "x.csv", tmp_path / "o.star", TOMOGRAMS, "centred"))
    assert table[["rlnTomoName", *CENTRED]].to_numpy().tolist() == [["TS_01", 100.5, 20, 30]]


@pytest.mark.parametrize("name", ["01", "1e5", "1_2", "1", "NA"])
def test_names_that_look_like_numbers(tmp_path, name):
    """In every kind of file they are the tilt series of this very name, and not of a number."""
    sizes = {one: SIZES["TS_01"] for one in (name, "100000.0", "12", "2")}
    tomograms = Tomograms(sizes, PIXEL, TOMOGRAMS.optics)
    m = " ".join(
        f"wrp{one}1" for one in ("CoordinateX", "CoordinateY", "CoordinateZ", "AngleRot", "AngleTilt", "AnglePsi")
    )
    files = {
        "a.star": star_of(CENTRE, "1 2 3").replace("TS_01", name),
        "b.star": star_of(CENTRE, "1 2 3").replace("rlnTomoName", "rlnMicrographName").replace("TS_01", name),
        "m.star": star_of(m, "100 100 100 0 0 0").replace("rlnTomoName", "wrpSourceName").replace("TS_01", name),
        "c.csv": f"tomogram,x_px,y_px,z_px\n{name},10,10,10\n",
        f"{name}.coords": "10 10 10\n",
        "d.star": star_of("rlnTomoImportParticleFile", f"{tmp_path}/{name}.coords").replace("TS_01 ", f"{name} "),
    }
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    for file in files:
        voxel = None if file in ("a.star", "b.star", "m.star") else VOXEL
        found = particles_of(taken(tmp_path / file, tmp_path, voxel, tomograms=tomograms))
        assert list(found["rlnTomoName"]) == [name], file


def test_angles_that_may_be_radians_are_noted(tmp_path):
    rows = [f"{n} 2 3 {n / 4} 0.5 0.1" for n in range(1, 13)]
    (tmp_path / "x.star").write_text(star_of(f"{CENTRE} rlnAngleRot rlnAngleTilt rlnAnglePsi", *rows))
    assert any("radians have to be converted" in note for note in taken(tmp_path / "x.star", tmp_path).notes)


# Broken files

#: Name of a format: (writes good files, the one that is broken, the voxel size that is given).
FORMATS = {
    "dynamo": (write_dynamo, "crop.tbl", VOXEL),
    "dynamo names": (write_dynamo, "crop.doc", VOXEL),
    "cbox": (lambda d: write_cbox(d, filaments=True), "TS_01_rec.cbox", VOXEL),
    "coords": (write_coords, "TS_01.coords", VOXEL),
    "m": (lambda d: write_m(d / "m.star"), "m.star", None),
    "pytom": (lambda d: write_pytom(d / "p.star"), "p.star", None),
    "warp matching": (lambda d: write_warp_matching(d / "w.star"), "w.star", None),
    "relion 4": (lambda d: write_relion4(d / "r.star"), "r.star", None),
    "csv": (lambda d: write_csv(d / "p.csv"), "p.csv", None),
    "table of files": (write_files, "files.star", VOXEL),
}  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Each format once: the directory, the good text, and the poses that come of it."""
    found = {}
    for name, (write, file, voxel) in FORMATS.items():
        folder = tmp_path_factory.mktemp(name.replace(" ", "_"))
        write(folder)
        source = folder / ("crop.tbl" if name == "dynamo names" else file)
        found[name] = (folder, source, folder / file, (folder / file).read_text(), poses(source, folder, voxel))
    return found


def poses(source, folder, voxel) -> pd.DataFrame:
    """Names, positions and the rest of a result, rounded, in an order that does not depend on the file's."""
    table = particles_of(taken(source, folder, voxel))
    if set(ANGLES) <= set(table):
        matrices = relion_matrices(table.pop(ANGLES[0]).to_frame().join(table[ANGLES[1:]])[ANGLES].to_numpy())
        table = table.drop(columns=ANGLES[1:]).join(pd.DataFrame(matrices.reshape(-1, 9), index=table.index))
    table.columns = table.columns.astype(str)
    numeric = table.select_dtypes("number").columns
    table[numeric] = table[numeric].astype(float).round(3) + 0.0
    return table.sort_values(["rlnTomoName", *CENTRED]).reset_index(drop=True)


def is_part_of(found: pd.DataFrame, expected: pd.DataFrame) -> bool:
    """Whether every particle that is there is one of the good file's, unchanged, and none is there twice."""
    if set(found) != set(expected) or found.duplicated().any():
        return False
    return len(found.merge(expected, on=list(expected))) == len(found)


@pytest.mark.parametrize("name", FORMATS)
@FUZZ
@given(mutation=mutations())
def test_fuzz_of_particle_files(good, name, mutation: Mutation):
    """The same result, a part of it where lines are gone, a changed value that is still possible, or a message."""
    folder, source, file, text, expected = good[name]
    voxel = FORMATS[name][2]
    file.write_bytes(mutation.apply(text))
    try:
        found = outcome(lambda: poses(source, folder, voxel), source, file)
    finally:
        file.write_text(text)
    if mutation.is_harmless:
        assert found is not None, mutation
        assert found.equals(expected), mutation
    elif found is not None:
        assert is_part_of(found, expected) or allowed(found, expected, mutation, text), (mutation, found, expected)


#: Values that are kept as the file has them: another number is not to be told from the right one.
FREE = {"rlnLCCmax", "rlnAutopickFigureOfMerit", "rlnHelicalTubeID", "rlnRandomSubset", "rlnOpticsGroup"}


def allowed(found: pd.DataFrame, expected: pd.DataFrame, mutation: Mutation, text: str) -> bool:
    """Whether a difference cannot be seen in the file: a value that nothing contradicts, or a column that is gone."""
    labels = [label for label in expected if label not in FREE and label in found]
    return set(expected) - set(found) <= FREE and is_part_of(found[labels], expected[labels])
