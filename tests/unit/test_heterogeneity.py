"""Particles for cryoDRGN-ET and tomoDRGN, extracted by RELION from simulated images whose truth is known."""

from __future__ import annotations

import argparse
import json
import subprocess

import mrcfile
import numpy as np
import pandas as pd
import pytest
from helpers import cli
from package_fixture import SIMULATED, TABLES, make_package_run

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.exporters.heterogeneity import image_table, planned_stacks
from py2rely_core.exporters.run import choose
from py2rely_core.problems import ProblemError
from py2rely_core.simulation.structures import make_structure

BOX, PIXEL = 48, 2 * SIMULATED.pixel_size
ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
#: What tomoDRGN knows a file of Warp 1 by (tomodrgn/starfile.py, TiltSeriesStarfile): one table with all of these.
TOMODRGN = {
    "rlnMagnification", "rlnDetectorPixelSize", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast",
    "rlnPhaseShift", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnImageName", "rlnMicrographName",
    "rlnCoordinateX", "rlnCoordinateY", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnCtfBfactor",
    "rlnCtfScalefactor", "rlnRandomSubset", "rlnGroupName",
}  # fmt: skip
#: What cryoDRGN's parse_pose_star, parse_ctf_star and tilt-series data ask for.
CRYODRGN = {
    *ANGLES, "rlnOriginX", "rlnOriginY", "rlnImagePixelSize", "rlnImageSize", "rlnDefocusU", "rlnDefocusV",
    "rlnDefocusAngle", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnPhaseShift",
    "rlnCtfScalefactor", "rlnGroupName", "rlnImageName",
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The run, with one particle at the edge of its tilt series: some images do not see it."""
    run = tmp_path_factory.mktemp("run") / "results"
    make_package_run(run)
    path = run / TABLES["particles"]
    blocks = read_star(path)
    table = blocks["particles"]
    edge = table.iloc[[0]].assign(rlnTomoParticleName="TS_01/edge", rlnCenteredCoordinateXAngst=240.0,
                                  rlnCenteredCoordinateYAngst=0.0, rlnCenteredCoordinateZAngst=0.0)  # fmt: skip
    write_star(blocks | {"particles": pd.concat([table, edge], ignore_index=True)}, path)
    return run


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "stacks"
    cli("export", "heterogeneity", finished, "-o", output, "-b", 2, "--box", BOX, "-j", 2)
    return output


def images_of(exported, table):
    images = []
    for name in table["rlnImageName"]:
        section, file = name.split("@")
        images.append(mrcfile.read(exported / file)[int(section) - 1])
    return np.array(images, dtype=float)


def z_turn(angle):
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def y_turn(angle):
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def cryodrgn_ctf(frequencies, defocus, row):
    """cryodrgn/ctf.py, compute_ctf, without astigmatism: negative at low resolution."""
    volts, cs, w = 1e3 * row.rlnVoltage, 1e7 * row.rlnSphericalAberration, row.rlnAmplitudeContrast
    wavelength = 12.2639 / np.sqrt(volts + 0.97845e-6 * volts**2)
    s2 = frequencies**2
    gamma = 2 * np.pi * (-0.5 * defocus * wavelength * s2 + 0.25 * cs * wavelength**3 * s2**2)
    return np.sqrt(1 - w**2) * np.sin(gamma) - w * np.cos(gamma)


def predicted(row, structure, offset=(0.0, 0.0)):
    """What cryoDRGN would make of the structure with a row's pose and CTF, images inverted as it inverts them.

    The padding keeps the delocalised signal of what lies `offset` (x, y, Angstrom) beside the centre.
    """
    turn = (z_turn(row.rlnAngleRot) @ y_turn(row.rlnAngleTilt) @ z_turn(row.rlnAnglePsi)).T
    x, y, _ = turn @ structure.centres.T + np.array([*offset, 0.0])[:, None]
    size = 3 * BOX
    fy, fx = np.meshgrid(*[np.fft.fftfreq(size, PIXEL)] * 2, indexing="ij")
    steps = np.fft.fftfreq(size, PIXEL)[:, None]
    waves = (np.exp(-2j * np.pi * steps * y) * structure.weights) @ np.exp(-2j * np.pi * steps * x).T
    frequencies = np.hypot(fx, fy)
    waves *= np.exp(-2 * (np.pi * structure.sigma * frequencies) ** 2)
    waves *= cryodrgn_ctf(frequencies, row.rlnDefocusU, row)
    cut = slice(size // 2 - BOX // 2, size // 2 + BOX // 2)
    return -np.fft.fftshift(np.fft.ifft2(waves).real)[cut, cut]


def in_one_image(table, row):
    """The rows of all particles in the tilt image of a row, and where they are in it, Angstrom from that one."""
    for other in table.itertuples():
        if (other.rlnMicrographName, other.rlnTomoYTilt) == (row.rlnMicrographName, row.rlnTomoYTilt):
            offset = np.array([other.rlnCoordinateX - row.rlnCoordinateX, other.rlnCoordinateY - row.rlnCoordinateY])
            if np.hypot(*offset) * SIMULATED.pixel_size < 1.2 * BOX * PIXEL:
                yield other, offset * SIMULATED.pixel_size


def likeness(first, second):
    axis = np.arange(BOX) - BOX // 2
    inside = np.hypot(*np.meshgrid(axis, axis)) < 0.42 * BOX
    return np.corrcoef(first[inside], second[inside])[0, 1]


@pytest.mark.relion
def test_images_are_what_the_programs_predict_from_their_rows(exported):
    """Pose, CTF, sign, order and place of every image at once: a program's model of the truth is the image."""
    table = read_star(exported / "particles.star")[""]
    table = table[table["rlnGroupName"] != "TS_01/edge"].reset_index(drop=True)
    assert len(table) == 8 * 7
    some = table.iloc[::2]
    images = images_of(exported, some)
    structure = make_structure(SIMULATED.diameter, "C1", SIMULATED.seed)
    models = [
        sum(predicted(other, structure, offset) for other, offset in in_one_image(table, row))
        for row in some.itertuples()
    ]
    found = [likeness(image, model) for image, model in zip(images, models, strict=True)]
    assert min(found) > 0.95
    # The test would see a wrong order, angle or sign.
    other = [likeness(image, model) for image, model in zip(np.roll(images, 1, axis=0), models, strict=True)]
    assert np.median(other) < 0.85


@pytest.mark.relion
def test_defocus_follows_depth_and_hand(finished, exported):
    """Untilted, a particle's depth is its z: with hand -1, what is higher has less defocus."""
    table = read_star(exported / "particles.star")[""]
    truth = pd.read_csv(finished / "Import/data/truth/particles.csv")
    for name in ("TS_01", "TS_02"):
        tilts = read_star(finished / f"Import/tilt_series/tilt_series/{name}.star")[name]
        own = tilts.loc[tilts["rlnTomoYTilt"] == 0, "rlnDefocusU"].item()
        rows = table[(table["rlnMicrographName"] == name) & (table["rlnTomoYTilt"] == 0)]
        rows = rows[rows["rlnGroupName"] != "TS_01/edge"]
        z = truth.loc[truth["tomogram"] == name, "z"].to_numpy()
        assert np.abs(rows["rlnDefocusU"].to_numpy() - (own - z)).max() < 0.05
        assert np.ptp(z) > 5


@pytest.mark.relion
def test_a_particle_that_some_images_do_not_see(finished, exported):
    particles = read_star(exported / "Extract/particles.star")["particles"].set_index("rlnTomoParticleName")
    seen = np.array(json.loads(particles.loc["TS_01/edge", "rlnTomoVisibleFrames"]), dtype=bool)
    assert 0 < seen.sum() < 7
    table = read_star(exported / "particles.star")[""]
    rows = table[table["rlnGroupName"] == "TS_01/edge"]
    tilts = read_star(finished / "Import/tilt_series/tilt_series/TS_01.star")["TS_01"][seen].reset_index(drop=True)
    sections = [int(name.split("@")[0]) for name in rows["rlnImageName"]]
    assert sorted(sections) == list(range(1, seen.sum() + 1))
    assert mrcfile.read(exported / rows["rlnImageName"].iloc[0].split("@")[1]).shape == (seen.sum(), BOX, BOX)
    for section, row in zip(sections, rows.itertuples(), strict=True):
        assert tilts["rlnTomoYTilt"][section - 1] == row.rlnTomoYTilt
        assert tilts["rlnMicrographPreExposure"][section - 1] == row.rlnMicrographPreExposure


@pytest.mark.relion
def test_form_of_the_star_file(exported):
    blocks = read_star(exported / "particles.star")
    assert list(blocks) == [""]
    table = blocks[""]
    assert set(table) >= TOMODRGN | CRYODRGN
    # tomoDRGN takes a column's type from its first row.
    lines = (exported / "particles.star").read_text().split("loop_\n")[1].splitlines()
    labels = [line.split()[0][1:] for line in lines if line.startswith("_")]
    first = dict(zip(labels, lines[len(labels)].split(), strict=True))
    whole = {label for label, text in first.items() if text.lstrip("-").isdigit()}
    assert whole == {"rlnImageSize", "rlnRandomSubset"}
    for _, images in table.groupby("rlnGroupName", sort=False):
        assert images.index.to_list() == list(range(images.index[0], images.index[0] + len(images)))
        assert images["rlnMicrographPreExposure"].is_monotonic_increasing
        assert images["rlnRandomSubset"].nunique() == 1
    assert np.allclose(table["rlnCtfScalefactor"], np.cos(np.radians(table["rlnTomoYTilt"])), atol=1e-4)
    assert np.allclose(table["rlnCtfBfactor"], -4 * table["rlnMicrographPreExposure"])
    optics = read_star(exported / "Extract/particles.star")["optics"]
    assert int(optics["rlnCtfDataAreCtfPremultiplied"].iloc[0]) == 0


@pytest.mark.relion
def test_cryodrgn_reads_it_as_it_reads_relion(exported, monkeypatch, tmp_path):
    """cryoDRGN's own parser of RELION 5, on what RELION extracted: the same rows, poses and defocus."""
    parser = pytest.importorskip("cryodrgn.commands_utils.parse_relion")
    reader = pytest.importorskip("cryodrgn.starfile")
    monkeypatch.chdir(exported)
    arguments = argparse.ArgumentParser()
    parser.add_args(arguments)
    given = ["-t", "tables/tomograms.star", "-p", "Extract/particles.star", "-o", str(tmp_path / "theirs.star")]
    parser.main(arguments.parse_args([*given, "--tilt-dim", "240", "240"]))
    ours, theirs = reader.Starfile("particles.star"), reader.Starfile(str(tmp_path / "theirs.star"))
    assert set(ours.apix) == {np.float32(PIXEL)}
    assert set(ours.resolution) == {BOX}
    for label in ("_rlnImageName", "_rlnGroupName"):
        assert (ours.df[label] == theirs.df[label]).all()
    for label in ("_rlnDefocusU", "_rlnDefocusV", "_rlnDefocusAngle", "_rlnDetectorPixelSize", "_rlnVoltage",
                  "_rlnAmplitudeContrast", "_rlnSphericalAberration", "_rlnPhaseShift", "_rlnMicrographPreExposure",
                  "_rlnAngleRot", "_rlnAngleTilt", "_rlnAnglePsi", "_rlnOriginX", "_rlnOriginY"):  # fmt: skip
        assert np.allclose(ours.df[label].astype(float), theirs.df[label].astype(float), atol=2e-5), label


@pytest.mark.relion
def test_commands_to_start_with(exported):
    text = (exported / "start.sh").read_text()
    subprocess.run(["bash", "-n", exported / "start.sh"], check=True)
    least = read_star(exported / "particles.star")[""]["rlnGroupName"].value_counts().min()
    assert f"--encode-mode tilt --ntilts {least} --dose-per-tilt 3 --angle-per-tilt 20" in text
    assert "--uninvert-data" not in "".join(line for line in text.splitlines() if not line.startswith("#"))


@pytest.mark.relion
def test_only_particles_that_enough_images_see(finished, tmp_path, capsys):
    cli("export", "heterogeneity", finished, "-o", tmp_path / "s", "-b", 4, "--box", 24, "--min-tilts", 7)
    assert "left out 1 particles that too few tilts see" in capsys.readouterr().out
    assert set(read_star(tmp_path / "s/particles.star")[""]["rlnGroupName"].value_counts()) == {7}
    cli("export", "heterogeneity", finished, "-o", tmp_path / "t", "-b", 4, "--box", 24, "--min-tilts", 8, code=65)
    assert "Only 0 of 9 particles are seen in 8 images or more" in capsys.readouterr().err
    cli("export", "heterogeneity", finished, "-o", tmp_path / "s", "-b", 4, "--box", 24, code=65)
    assert "give --overwrite" in capsys.readouterr().err


def test_box_of_the_run(finished):
    source = choose(json.loads((finished / "results.json").read_text()), finished, None)
    for binning in (1, 2, 4):
        level = next(level for level in source.dataset["levels"] if level["binning"] == binning)
        scaling = source.dataset["parameters"]["resolutions"]["box_scaling"]
        box = planned_stacks(source, binning, None, 1, 1).box
        assert box % 2 == 0
        assert box * level["pixel_size"] > scaling * source.dataset["particle_diameter"]
    for binning, box, tilts, text in ((0, None, 1, "no binning"), (1, 33, 1, "no box"), (1, 4, 1, "no box"),
                                      (1, None, 0, "tilts are none")):  # fmt: skip
        with pytest.raises(ProblemError, match=text):
            planned_stacks(source, binning, box, tilts, 1)


def test_images_with_ctf_are_refused(finished):
    inputs = choose(json.loads((finished / "results.json").read_text()), finished, None).inputs()
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnCtfDataAreCtfPremultiplied": [0], "rlnImageDimensionality": [2]})
    for change in ({"rlnCtfDataAreCtfPremultiplied": [1]}, {"rlnImageDimensionality": [3]}):
        with pytest.raises(ProblemError, match="not as asked for"):
            image_table(inputs.particles, optics.assign(**change), inputs)


def test_particles_of_another_run_are_refused(finished, tmp_path, capsys):
    blocks = read_star(finished / TABLES["particles"])
    blocks["particles"].loc[3, "rlnTomoName"] = "TS_77"
    write_star(blocks, tmp_path / "others.star")
    cli("export", "heterogeneity", finished, "-o", tmp_path / "s", "-b", 2, "-p", tmp_path / "others.star", code=65)
    assert "1 tilt series that the run does not have, such as 'TS_77'" in capsys.readouterr().err


def test_tilt_images_must_be_there(finished, tmp_path, capsys):
    path = finished / "Import/data/tilt_series/TS_02.mrcs"
    moved = path.rename(path.with_suffix(".gone"))
    try:
        cli("export", "heterogeneity", finished, "-o", tmp_path / "s", "-b", 2, code=65)
    finally:
        moved.rename(path)
    assert "1 stacks of tilt images are missing" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
