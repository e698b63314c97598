"""Maps: resampling, filters, FSC, masks, templates, alignment; against analytic densities."""

import mrcfile
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from py2rely_core.maps.filters import gaussian_low_pass
from py2rely_core.maps.fsc import first_crossing, fsc, shell_resolutions
from py2rely_core.maps.io import Map, read_header, read_map, write_map
from py2rely_core.maps.masks import density_threshold, is_degenerate, spherical_mask
from py2rely_core.maps.resample import centre_offset, resample
from py2rely_core.maps.surface import LIGHT, MARGIN, VIEW, surface_view
from py2rely_core.maps.template import make_template
from py2rely_core.problems import ProblemError
from py2rely_core.simulation.structures import Structure, density
from py2rely_core.simulation.truth import align_to

CENTRES = np.array([[20.0, -10, 5], [-15, 12, 18], [0, 25, -22], [8, 8, 8]])
BLOBS = Structure(CENTRES, np.array([1.0, 0.7, 1.2, 0.9]), sigma=8.0)


@pytest.mark.parametrize(
    ("voxel_in", "voxel_out", "box"), [(3.0, 4.0, 40), (4.0, 3.0, 64), (3.3, 3.3, 50), (2.0, 5.1, 33)]
)
def test_resampling_is_exact(voxel_in, voxel_out, box):
    source = density(BLOBS, 2 * int(80 / voxel_in), voxel_in) * voxel_in**-3
    expected = density(BLOBS, box, voxel_out) * voxel_out**-3
    assert np.abs(resample(source, voxel_in, voxel_out, box) - expected).max() < 2e-3 * expected.max()


def test_non_cubic_and_odd_input_keep_their_centre():
    full = density(BLOBS, 64, 3.0)
    cut = full[32 - 25 : 32 + 26, 32 - 22 : 32 + 22, 32 - 24 : 32 + 25]
    assert cut.shape == (51, 44, 49)
    result = make_template(Map(cut, 3.0), 4.0, 40, 20.0)
    expected = make_template(Map(full, 3.0), 4.0, 40, 20.0)
    assert result.data.shape == (40, 40, 40)
    assert np.abs(result.data - expected.data).max() < 0.02 * expected.data.max()


def test_low_pass_is_a_half_at_the_cut_off():
    axis = np.arange(48)
    wave = np.broadcast_to(np.cos(2 * np.pi * axis * 6 / 48), (48, 48, 48))
    filtered = gaussian_low_pass(wave, 2.0, 48 * 2.0 / 6)
    assert np.allclose(filtered, 0.5 * wave, atol=1e-5)


def test_centring_inverting_mirroring():
    data = density(BLOBS, 48, 4.0)
    moved = resample(data, 4.0, 4.0, 48, centre=np.array([-2.5, 3.0, -1.25]))
    offset = centre_offset(moved) - centre_offset(data)
    assert np.allclose(offset, [2.5, -3.0, 1.25], atol=0.1)
    one = make_template(Map(moved, 4.0), 4.0, 48, 16.0, centre=True).data
    two = make_template(Map(data, 4.0), 4.0, 48, 16.0, centre=True).data
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.999
    inverted = make_template(Map(data, 4.0), 4.0, 48, 16.0, invert=True).data
    assert np.allclose(inverted, -make_template(Map(data, 4.0), 4.0, 48, 16.0).data)
    twice = make_template(make_template(Map(data, 4.0), 4.0, 48, 0.001, mirror=True), 4.0, 48, 0.001, mirror=True)
    assert np.allclose(twice.data, data, atol=1e-4)


def test_fsc_of_signal_in_noise():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(32, 32, 32))
    one, two = signal + rng.normal(size=signal.shape), signal + rng.normal(size=signal.shape)
    assert np.allclose(fsc(one, two)[4:], 0.5, atol=0.1)
    assert np.allclose(fsc(one, one), 1)
    resolutions = shell_resolutions(32, 2.0)
    assert resolutions[8] == 8.0
    assert first_crossing(resolutions, np.r_[np.ones(9), 0.1, np.ones(7)], 0.143) == 8.0
    assert first_crossing(resolutions, np.ones(17), 0.143) is None


def test_threshold_finds_the_particle_whatever_the_maps_scale():
    rng = np.random.default_rng(2)
    clean = density(BLOBS, 48, 4.0)
    inside = clean > 0.25 * clean.max()
    for scale, offset in ((1.0, 0.0), (1e-5, 0.0), (50.0, 1e3)):
        noisy = scale * (clean + 0.05 * clean.max() * rng.normal(size=clean.shape)) + offset
        chosen = density_threshold(noisy, 4.0, 110.0, 20.0)
        found = gaussian_low_pass(noisy, 4.0, 20.0) > chosen.threshold
        overlap = (found & inside).sum() / inside.sum()
        assert overlap > 0.9
        assert found.sum() < 4 * inside.sum()


def test_degenerate_maps():
    assert is_degenerate(np.zeros((4, 4, 4))) == "every voxel is 0"
    assert "not finite" in is_degenerate(np.full((4, 4, 4), np.nan))
    assert is_degenerate(spherical_mask(8, 2)) is None


def test_alignment_recovers_any_pose_and_the_hand():
    fixed = Map(density(BLOBS, 48, 4.0), 4.0)
    turn = Rotation.from_euler("ZYZ", [50, 70, -20], degrees=True)
    turned = Structure((turn.apply(CENTRES) + np.array([3.0, -5, 2])) * [1, 1, -1], BLOBS.weights, 8.0)
    moved, frame = align_to(Map(density(turned, 48, 4.0), 4.0), fixed, 120.0)
    assert frame.mirrored
    assert np.corrcoef(moved.data.ravel(), fixed.data.ravel())[0, 1] > 0.98
    found = turned.centres * [1, 1, -1] @ frame.rotation.T + frame.shift
    assert np.abs(found - CENTRES).max() < 0.2


@pytest.mark.parametrize("broken", ["missing", "truncated", "text", "two-dimensional", "oblong"])
def test_broken_maps_are_named(tmp_path, broken):
    path = tmp_path / "map.mrc"
    if broken == "text":
        path.write_text("no map")
    elif broken == "two-dimensional":
        mrcfile.write(path, np.zeros((8, 8), np.float32))
    elif broken != "missing":
        write_map(path, np.ones((8, 8, 8)), 2.0)
        if broken == "truncated":
            path.write_bytes(path.read_bytes()[:-100])
        else:
            with mrcfile.open(path, mode="r+") as mrc:
                mrc.voxel_size = (2.0, 2.0, 3.0)
    with pytest.raises(ProblemError, match=r"map\.mrc"):
        read_map(path)


def test_header(tmp_path):
    write_map(tmp_path / "map.mrc", np.ones((4, 5, 6)), 2.5)
    header = read_header(tmp_path / "map.mrc")
    assert (header.shape, header.pixel_size, header.mode) == ((4, 5, 6), 2.5, 2)


def test_a_surface_as_one_sees_it():
    """A ball is a disc, bright where the light comes from; something above it on the picture hides what is behind."""
    ball = Map(spherical_mask(48, 12, 4).astype(np.float32), 2.0)
    picture = surface_view(ball, 0.5, 200)
    seen = picture < 255
    assert seen.sum() == pytest.approx(np.pi * (100 / MARGIN) ** 2, rel=0.12)
    rows, columns = np.nonzero(seen)
    assert abs(rows.mean() - 99.5) < 2 and abs(columns.mean() - 99.5) < 2
    light = picture[seen].astype(float)
    most = light > np.percentile(light, 95)
    brightest = np.array([columns[most].mean(), rows[most].mean()])
    assert (np.sign(brightest - 99.5) == np.sign([LIGHT[0], -LIGHT[1]])).all()
    # A bead where the eye is hides the ball's middle, and one behind it is hidden; to the right of it is to the right.
    eye, right = Rotation.from_euler("xyz", VIEW, degrees=True).inv().as_matrix()[:, [2, 0]].T
    grid = np.indices((48, 48, 48))[::-1] - 24
    bead = lambda place: (np.linalg.norm(grid - np.reshape(place, (3, 1, 1, 1)), axis=0) < 4).astype(np.float32)  # noqa: E731
    behind, before = (
        surface_view(Map(np.maximum(ball.data, bead(one)), 2.0), 0.5, 200) for one in (-13 * eye, 13 * eye)
    )
    assert np.array_equal(behind < 255, before < 255)
    assert np.abs(behind[90:110, 90:110].astype(float) - before[90:110, 90:110]).max() > 10
    beside = surface_view(Map(bead(18 * right), 2.0), 0.5, 200) < 255
    assert np.nonzero(beside)[1].min() > 100
    assert (surface_view(ball, 2.0, 100) == 255).all()
