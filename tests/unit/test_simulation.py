"""What simulated images have beside particles and noise: each effect by its number, and none where it is off."""

import hashlib
import json
import subprocess
from dataclasses import replace

import mrcfile
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist, pdist, squareform

from py2rely_core.data.geometry import projected
from py2rely_core.data.tables import read_star
from py2rely_core.simulation.effects import MEAN_FREE_PATH, NO_EFFECTS, REALISTIC, Effects
from py2rely_core.simulation.optics import ctf, directed_defocus
from py2rely_core.simulation.recording import blurred
from py2rely_core.simulation.settings import Settings
from py2rely_core.simulation.simulate import write_dataset
from py2rely_core.simulation.structures import density, make_structure
from py2rely_core.simulation.surroundings import make_protein, surroundings

SMALL = {"pixel_size": 5.0, "image_size": 120, "thickness": 60, "tilt_series": 1, "particles": 4, "tilt_step": 30.0}
PATH_LENGTHS = np.array([2.0, 2 / np.sqrt(3), 1.0, 2 / np.sqrt(3), 2.0])
#: Files of a data set without effects, by what the code wrote before there were any (first digits of their SHA-256).
TABLES = {"particles.star": "8e9e2a9dc40f8c89", "tilt_series.star": "e09f3af928d081e8",
          "tilt_series/TS_01.star": "d22d2b42006eb08d", "truth/particles.csv": "08f28d3e6ce7a0c1",
          "truth/TS_01_defocus.csv": "2da1242b99576ee5"}  # fmt: skip
#: And of its images: their mean and standard deviation, and pixels of the untilted one.
MOMENTS = [(-0.0042, 1.4722), (-0.016, 1.4588), (-0.0179, 1.4809), (-0.0243, 1.4586), (-0.0271, 1.4663)]
PIXELS = [[0.15, 0.414, 1.22, 0.702], [-0.697, 0.205, -2.283, -0.171], [-3.098, 1.206, 1.213, -1.631],
          [2.447, 1.996, -1.912, -0.313]]  # fmt: skip


@pytest.fixture
def simulate(tmp_path):
    """Make a data set with effects; its directory and its images."""

    def make(effects=NO_EFFECTS, **settings):
        path = tmp_path / f"data{len(list(tmp_path.iterdir()))}"
        write_dataset(path, Settings(**SMALL | settings, effects=effects))
        return path, mrcfile.read(path / "tilt_series/TS_01.mrcs").astype(float)

    return make


def tilts_of(path, place=""):
    return read_star(path / place / "tilt_series/TS_01.star")["TS_01"]


def test_without_effects_the_data_are_those_of_before_there_were_any(simulate):
    path, images = simulate(
        image_size=140, thickness=50, diameter=110.0, symmetry="D2", particles=5, noise=1.5, seed=3, angle_error=2.0,
        shift_error=3.0, false_picks=0.8, junk="blobs,beads,other,membranes", second_conformation=0.4,
        defocus_error=400.0, motion=3.0,
    )  # fmt: skip
    assert {name: hashlib.sha256((path / name).read_bytes()).hexdigest()[:16] for name in TABLES} == TABLES
    assert np.allclose([(image.mean(), image.std()) for image in images], MOMENTS, atol=6e-5)
    assert np.allclose(images[2, ::35, ::35], PIXELS, atol=6e-4)
    assert not (path / "truth/surroundings.csv").exists()


def test_tilt_series_differ_in_defocus_by_the_spread(simulate):
    path, _ = simulate(tilt_series=3, particles=2, defocus=2.5, defocus_spread=1.0)
    tables = [read_star(path / f"tilt_series/TS_0{number}.star")[f"TS_0{number}"] for number in (1, 2, 3)]
    assert np.allclose([table["rlnDefocusU"].mean() for table in tables], (25000, 35000, 15000), atol=100)


def test_signal_falls_with_the_ice_in_the_beam(simulate):
    """The ice is as thick as the mean free path: untilted, 1/e of the electrons are left, at 60 degrees 1/e^2."""
    _, clear = simulate(noise=0.0)
    path, thick = simulate(Effects(ice=MEAN_FREE_PATH), noise=0.0)
    ratios = [(one * other).sum() / (other * other).sum() for one, other in zip(thick, clear, strict=True)]
    assert np.allclose(ratios, np.exp(-PATH_LENGTHS / 2), rtol=1e-4)
    said = pd.read_csv(path / "truth/TS_01_exposures.csv")
    assert np.allclose(said["transmission"], np.exp(-PATH_LENGTHS))


def test_shot_noise_has_the_counts_of_the_dose(simulate):
    """With next to no contrast: mean and variance are dose x area x what the ice leaves; neighbours are independent."""
    _, images = simulate(Effects(shot_noise=True, contrast=1e-6, ice=MEAN_FREE_PATH / 2, dqe=0.2), dose=2.0)
    assert (images == np.rint(images)).all()
    expected = 2.0 * 25 * np.exp(-PATH_LENGTHS / 2)
    assert np.allclose(images.mean((1, 2)), expected, rtol=0.02)
    assert np.allclose(images.var((1, 2)), expected, rtol=0.05)
    flat = images[2] - images[2].mean()
    assert abs((flat[:, 1:] * flat[:, :-1]).mean() / flat.var()) < 0.03


def within_particles(path, images, radius):
    """Standard deviations of the untilted image around each particle."""
    truth = pd.read_csv(path / "truth/particles.csv")
    places = projected(tilts_of(path), truth[["x", "y", "z"]].to_numpy())[2] / 5 + images.shape[1] // 2
    y, x = np.indices(images[2].shape)
    return [images[2][np.hypot(x - place[0], y - place[1]) < radius / 5].std() for place in places]


def test_contrast_is_that_of_a_particle(simulate):
    """With so many electrons that their noise is small."""
    path, images = simulate(Effects(shot_noise=True, contrast=0.08), dose=1e6, particles=1)
    (found,) = within_particles(path, images / images[2].mean(), 65)
    assert found == pytest.approx(0.08, rel=0.2)


def test_snr_is_the_ratio_of_variances_within_a_particle(simulate):
    path, clear = simulate(noise=0.0, particles=1)
    _, noisy = simulate(Effects(snr=0.04), particles=1)
    (signal,) = within_particles(path, clear, 65)
    assert signal**2 / (noisy - clear)[2].var() == pytest.approx(0.04, rel=0.4)
    _, as_noise = simulate(noise=5.0, particles=1)
    assert np.array_equal(noisy, as_noise)


def test_astigmatism_is_about_the_same_mean_and_along_one_direction(simulate):
    plain, clear = simulate(noise=0.0)
    path, images = simulate(Effects(astigmatism=2000.0), noise=0.0)
    before, tilts = tilts_of(plain), tilts_of(path)
    assert np.allclose(tilts["rlnDefocusU"] - tilts["rlnDefocusV"], 2000)
    assert np.allclose(tilts[["rlnDefocusU", "rlnDefocusV"]].mean(axis=1), before["rlnDefocusU"], atol=1e-3)
    angles = np.exp(2j * np.radians(tilts["rlnDefocusAngle"].to_numpy()))
    assert abs(angles.mean()) > 0.9
    assert np.corrcoef(images.ravel(), clear.ravel())[0, 1] < 0.99


@pytest.mark.relion
def test_astigmatic_ctf_is_relions(tmp_path):
    command = ["relion_ctf_toolbox", "--simulate", "ctf.mrc", "--angpix", "2.5", "--box", "128", "--kV", "300", "--Q0",
               "0.07", "--Cs", "2.7", "--defU", "20000", "--defV", "14000", "--defAng", "30"]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    frequency = np.fft.fftshift(np.fft.fftfreq(128, 2.5))
    y, x = frequency[:, None], frequency
    ours = ctf(np.hypot(x, y), directed_defocus(np.arctan2(y, x), 20000, 14000, 30))
    assert np.abs(mrcfile.read(tmp_path / "ctf.mrc") - ours).max() < 1e-5


def test_detector_keeps_the_root_of_its_dqe_at_nyquist():
    """Waves at Nyquist, at half of it, and at 0."""
    x = np.arange(64)
    waves = np.stack([np.tile(np.cos(np.pi * x * share), (64, 1)) for share in (1.0, 0.5, 0.0)]).astype(np.float32)
    result = blurred(waves, 3.0, 0.36, np.zeros((3, 2)))
    assert np.allclose(np.abs(result).max((1, 2)), [0.6, 0.6**0.25, 1.0], atol=1e-5)


def test_drift_takes_away_waves_along_its_direction():
    """A wave of 12 A moved by its own length is gone, by half of it 2 / pi are left, across it all is."""
    x = np.arange(64)
    along = np.tile(np.cos(2 * np.pi * x / 4), (64, 1)).astype(np.float32)
    result = blurred(np.stack([along, along, along.T]), 3.0, 1.0, np.array([[12.0, 0], [6.0, 0], [12.0, 0]]))
    assert np.allclose(np.abs(result).max((1, 2)), [0, 2 / np.pi, 1], atol=1e-5)


def test_drift_grows_with_the_tilt(simulate):
    path, images = simulate(Effects(drift=9.0), noise=0.0)
    _, still = simulate(noise=0.0)
    said = pd.read_csv(path / "truth/TS_01_exposures.csv")
    assert np.allclose(np.hypot(said["drift_x"], said["drift_y"]), 9 * PATH_LENGTHS)
    assert (images.std((1, 2)) < 0.98 * still.std((1, 2))).all()


def test_surroundings_are_clear_of_picks_and_of_each_other(simulate):
    path, images = simulate(
        Effects(neighbours=2.0, beads=4, membranes=1),
        image_size=240,
        particles=8,
        noise=0.0,
        false_picks=0.5,
        motion=4.0,
    )
    _, alone = simulate(image_size=240, particles=8, noise=0.0, false_picks=0.5, motion=4.0)
    found = pd.read_csv(path / "truth/surroundings.csv")
    assert found["kind"].value_counts().to_dict() == {"other": 16, "beads": 4, "membranes": 1}
    assert found.loc[found["kind"] == "other", "diameter"].nunique() > 2
    picks = pd.read_csv(path / "truth/particles.csv").assign(diameter=130.0)
    balls = pd.concat([picks, found[found["kind"] != "membranes"]])[["x", "y", "z", "diameter"]].to_numpy()
    touch = squareform(pdist(balls[:, :3])) - (balls[:, None, 3] + balls[:, 3]) / 2
    assert len(balls) == 32
    # Picks may come a little nearer to each other.
    assert touch[12:][:, :12].min() > 0
    assert (touch[12:, 12:] + 1e6 * np.eye(20)).min() > 0
    # What they add is where they are: every bead is dark in each image that it is in, and stands out.
    added = images - alone
    beads = found.loc[found["kind"] == "beads", ["x", "y", "z"]].to_numpy()
    for image, places in zip(added, projected(tilts_of(path), beads) / 5 + 120, strict=True):
        inside = np.rint(places[((places > 5) & (places < 234)).all(axis=1)]).astype(int)
        assert (image[inside[:, 1], inside[:, 0]] < -2 * alone.std()).all()


def test_alignment_is_wrong_in_the_tables_and_right_in_the_truth(simulate):
    settings = {"tilt_step": 1.0, "image_size": 100, "particles": 1}
    plain, clear = simulate(**settings)
    errors = Effects(alignment_shift=5.0, alignment_rotation=0.5, axis_error=3.0)
    path, images = simulate(errors, **settings)
    assert np.array_equal(images, clear)
    right, wrong = tilts_of(path, "truth"), tilts_of(path)
    assert right.equals(tilts_of(plain)) and right.equals(tilts_of(plain, "truth"))
    difference = wrong.drop(columns="rlnMicrographName") - right.drop(columns="rlnMicrographName")
    assert difference[["rlnTomoXShiftAngst", "rlnTomoYShiftAngst"]].std().between(4.2, 5.8).all()
    assert difference["rlnTomoZRot"].std() == pytest.approx(0.5, rel=0.15)
    assert 0.2 < abs(difference["rlnTomoZRot"].mean()) < 9
    assert (difference.drop(columns=["rlnTomoXShiftAngst", "rlnTomoYShiftAngst", "rlnTomoZRot"]) == 0).all(axis=None)
    series = read_star(path / "truth/tilt_series.star")["global"]
    assert read_star(path / series["rlnTomoTiltSeriesStarFile"][0])["TS_01"].equals(right)


def test_the_highest_tilts_are_dark(simulate):
    path, images = simulate(Effects(dark_tilts=2, shot_noise=True))
    assert np.allclose(images.mean((1, 2)), [0.5, 25, 25, 25, 0.5], rtol=0.05)
    assert pd.read_csv(path / "truth/TS_01_exposures.csv")["transmission"].tolist() == [0.02, 1, 1, 1, 0.02]


#: Of each effect, what it changes in the tables of a tilt series.
COLUMNS = {"astigmatism": ["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"], "alignment_rotation": ["rlnTomoZRot"],
           "alignment_shift": ["rlnTomoXShiftAngst", "rlnTomoYShiftAngst"], "axis_error": ["rlnTomoZRot"],
           "drift": [], "shot_noise": [], "ice": [], "dqe": [], "dark_tilts": [], "neighbours": []}  # fmt: skip


@pytest.mark.parametrize("name", COLUMNS)
def test_each_effect_has_a_stream_of_its_own(simulate, name):
    """Without one effect the others draw what they draw with it."""
    everything = replace(REALISTIC, beads=1, membranes=0)
    (whole, with_it), (path, without) = (
        simulate(effects) for effects in (everything, replace(everything, **{name: getattr(NO_EFFECTS, name)}))
    )
    alignment = name in ("alignment_shift", "alignment_rotation", "axis_error")
    assert np.array_equal(with_it, without) == alignment
    mine, theirs = tilts_of(path), tilts_of(whole)
    assert mine.drop(columns=COLUMNS[name]).equals(theirs.drop(columns=COLUMNS[name]))
    assert not any(mine[column].equals(theirs[column]) for column in COLUMNS[name])
    for file in ("particles.star", "truth/particles.csv"):
        assert (path / file).read_bytes() == (whole / file).read_bytes()
    mine, theirs = (pd.read_csv(one / "truth/surroundings.csv") for one in (path, whole))
    if name == "neighbours":
        theirs = theirs[theirs["kind"] == "beads"]
    assert mine.equals(theirs)
    mine, theirs = (pd.read_csv(one / "truth/TS_01_exposures.csv")[["drift_x", "drift_y"]] for one in (path, whole))
    assert mine.equals(theirs) == (name != "drift")


@pytest.mark.parametrize("diameter", [60.0, 150.0, 320.0])
def test_other_proteins_fill_their_size_evenly(diameter):
    """Of the weight that is asked for, and nowhere many times denser than on the average of what they fill."""
    protein = make_protein(diameter, 1000.0, np.random.default_rng(0))
    assert protein.weights.sum() == pytest.approx(1000)
    assert np.linalg.norm(protein.centres, axis=1).max() <= diameter / 2
    assert np.linalg.norm(protein.centres, axis=1).max() > 0.4 * diameter
    voxels = density(protein, 64, 1.2 * diameter / 64)
    # The densest half of the weight takes up a good part of the size (a random chain: 0.001 at 320 A).
    ordered = np.sort(voxels.ravel())[::-1]
    half = np.searchsorted(np.cumsum(ordered), voxels.sum() / 2)
    assert half * (1.2 / 64) ** 3 > 0.02


def test_membranes_are_clear_of_picks_and_end_with_the_tomogram():
    settings = Settings(**SMALL | {"image_size": 240}, effects=Effects(membranes=2))
    picks = np.random.default_rng(0).uniform(-1, 1, (12, 3)) * [500, 500, 80]
    groups = surroundings(settings, 1, picks, make_structure(130.0, "O", 0))
    assert [group.kind for group in groups] == ["membranes"] * 2
    for group in groups:
        points = group.structure.centres @ group.poses[0].T + group.positions[0]
        assert len(points) > 500
        assert (np.abs(points) < [600, 600, 150]).all()
        assert cdist(points, picks).min() > 65


def test_effects_are_in_the_settings_of_the_truth(simulate):
    path, _ = simulate(replace(REALISTIC, neighbours=0.0, membranes=0))
    said = json.loads((path / "truth/settings.json").read_text())
    assert said["diameter"] == 130
    assert Settings(**said | {"effects": Effects(**said["effects"])}) == Settings(
        **SMALL, effects=replace(REALISTIC, neighbours=0.0, membranes=0)
    )


def test_surroundings_that_do_not_fit(simulate):
    with pytest.raises(ValueError, match="no room for another protein"):
        simulate(Effects(neighbours=50.0))
