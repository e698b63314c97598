"""What is found out about the best map, against what was put into simulated half maps."""

import json
import subprocess
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.judging.directions import check_directions, resolution_by_direction, sampling_by_direction
from py2rely_core.judging.local_resolution import check_local_resolution
from py2rely_core.judging.particle_plot import Point, check_particle_plot, line_of, write_subsets
from py2rely_core.judging.sharpening import check_sharpening, sharpen_by
from py2rely_core.judging.template import check_template
from py2rely_core.maps import directions
from py2rely_core.maps.filters import cosine_low_pass, spatial_frequencies
from py2rely_core.maps.fsc import corrected_fsc, crossing_shells
from py2rely_core.maps.io import read_map, write_map
from py2rely_core.maps.masks import radii, spherical_mask
from py2rely_core.problems import ProblemError
from py2rely_core.relion.outputs.averages import check_postprocess
from py2rely_core.simulation.structures import Structure, density, make_structure

BOX, PIXEL = 64, 3.0
MASK = spherical_mask(BOX, 24, 5)
TRUE = make_structure(120, "C1", 3)


def noted(job):
    return json.loads((job / "job.json").read_text())


def half_maps(signal, target, pixel_size=PIXEL, mask=MASK, seed=0):
    """Two maps whose FSC within a mask falls through 0.143 at `target` Angstrom, which may differ by component."""
    rng, frequency = np.random.default_rng(seed), spatial_frequencies(signal.shape, pixel_size)
    transform = np.fft.rfftn(signal)
    shell = np.rint(frequency * signal.shape[0] * pixel_size).astype(int)
    power = np.bincount(shell.ravel(), np.abs(transform.ravel()) ** 2) / np.maximum(np.bincount(shell.ravel()), 1)
    # FSC = 1 / (1 + noise / signal), and 0.143 is a seventh.
    level = np.sqrt(power[shell] * 6 * (frequency * target) ** 8 / signal.size / (mask**2).mean())
    noise = (np.fft.rfftn(rng.normal(size=signal.shape)) for _ in (1, 2))
    return [np.fft.irfftn(transform + level * one, s=signal.shape, axes=(0, 1, 2)) for one in noise]


def write_halves(path, halves, mask, pixel_size=PIXEL):
    """Reconstruct, MaskCreate and, by RELION, PostProcess of half maps."""
    for name, data in {"half1": halves[0], "half2": halves[1], "merged": np.mean(halves, axis=0)}.items():
        write_map(path / f"Reconstruct/best/{name}.mrc", data, pixel_size)
    write_map(path / "MaskCreate/best/mask.mrc", np.clip(mask, 0, 1), pixel_size)
    (path / "MaskCreate/best/threshold.json").write_text("{}")
    postprocess(path, "PostProcess/best")
    check_postprocess(path / "PostProcess/best", path / "MaskCreate/best/mask.mrc", mask.shape[0], pixel_size)


def postprocess(path, job, *more):
    (path / job).mkdir(parents=True, exist_ok=True)
    words = ["relion_postprocess", "--i", "Reconstruct/best/half1.mrc", "--mask", "MaskCreate/best/mask.mrc"]
    subprocess.run([*words, "--o", f"{job}/postprocess", *more], cwd=path, check=True, capture_output=True)


#: A Gaussian of this width, Angstrom, falls as a B-factor of 8 pi^2 sigma^2.
SIGMA = 1.7


@pytest.fixture(scope="module")
def sharp(tmp_path_factory):
    """Half maps to about 4 A of scatterers with a known B-factor, post-processed.

    Noise ends not far from the mask: RELION's Guinier plot is of the whole box, and solvent noise makes it flatter.
    """
    path, rng = tmp_path_factory.mktemp("sharp"), np.random.default_rng(0)
    centres = rng.normal(size=(500, 3))
    centres *= 22 * rng.uniform(size=(500, 1)) ** (1 / 3) / np.linalg.norm(centres, axis=1, keepdims=True)
    signal = density(Structure(centres, np.ones(500), SIGMA), BOX, 1.5)
    mask = spherical_mask(BOX, 18, 6)
    halves = half_maps(signal, 4.2, 1.5, mask)
    around = spherical_mask(BOX, 22, 6)
    write_halves(path, [signal + (one - signal) * around for one in halves], mask, 1.5)
    return path


SETTINGS = {"lowest": 10.0, "given": None, "mtf": ""}


def sharpened(path, name, *more, **settings):
    """The numbers of a sharpening, as the module SHARPEN makes it."""
    job, best = path / f"PostProcess/{name}", path / "PostProcess/best"
    wanted = SETTINGS | settings
    flag, _ = sharpen_by(best, wanted["lowest"], wanted["given"])
    job.mkdir(exist_ok=True)
    if flag:
        postprocess(path, f"PostProcess/{name}", *flag.split(), *more)
    check_sharpening(job, best, wanted, (BOX, 1.5))
    return noted(job)["sharpening"]


@pytest.mark.relion
def test_the_b_factor_that_was_put_in_is_found(sharp):
    found = sharpened(sharp, "auto")
    assert (found["sharpened"], found["source"]) == (True, "Guinier plot")
    assert found["b_factor"] == pytest.approx(-8 * np.pi**2 * SIGMA**2, rel=0.1)
    assert found["slope"] == pytest.approx(found["b_factor"] / 4, rel=1e-3)
    plot = found["guinier"]
    used = np.array(plot["frequency_squared"]) <= 1 / 5.5**2
    before, after = (np.array(plot[name], dtype=float)[used][8:] for name in ("weighted", "sharpened"))
    assert np.ptp(after) < 0.5 * np.ptp(before)
    best, other = (read_map(sharp / f"PostProcess/{name}/postprocess.mrc").data for name in ("best", "auto"))
    high = spatial_frequencies(best.shape, 1.5) > 1 / 7
    powers = [np.abs(np.fft.rfftn(data)[high]).mean() / np.abs(np.fft.rfftn(data)).mean() for data in (best, other)]
    assert powers[1] > 1.5 * powers[0]


@pytest.mark.relion
def test_a_given_b_factor_and_the_mtf_are_used(sharp):
    frequency = np.linspace(0, 0.5, 51)
    mtf = {"rlnResolutionInversePixel": frequency, "rlnMtfValue": 1 - 1.6 * frequency}
    write_star({"": pd.DataFrame(mtf)}, sharp / "mtf.star")
    found = sharpened(sharp, "given", "--mtf", "mtf.star", "--mtf_angpix", "1.0", given=-120, mtf="mtf.star")
    assert (found["b_factor"], found["source"], found["mtf"], found["slope"]) == (-120, "given", "mtf.star", None)
    change = np.subtract(found["guinier"]["mtf_corrected"], found["guinier"]["original"])
    at = 1 / 6.0  # 1/A: with 1 A per detector pixel as much per pixel
    shell = np.abs(np.sqrt(found["guinier"]["frequency_squared"]) - at).argmin()
    assert change[shell] == pytest.approx(-np.log(1 - 1.6 * at), abs=0.03)


@pytest.mark.relion
@pytest.mark.parametrize(("share", "why"), [(0.9, "is not better than"), (1.15, "too few for a B-factor")])
def test_where_there_is_no_line_there_is_no_b_factor(sharp, share, why):
    """The line would begin beyond the resolution, or just before it."""
    lowest = share * noted(sharp / "PostProcess/best")["resolution"]
    found = sharpened(sharp, f"from_{share}", lowest=lowest)
    assert why in found["why"]
    assert (found["sharpened"], found["source"], found["b_factor"]) == (False, "none", None)
    assert not (sharp / f"PostProcess/from_{share}/postprocess.mrc").exists()
    assert len(found["guinier"]["original"]) > 10


@pytest.mark.relion
def test_a_map_is_not_blurred(sharp, tmp_path):
    """The amplitudes of this one grow with frequency."""
    transform = np.fft.rfftn(read_map(sharp / "Reconstruct/best/merged.mrc").data)
    transform *= np.exp(120 * np.minimum(spatial_frequencies((BOX,) * 3, 1.5), 0.2) ** 2)
    rising = np.fft.irfftn(transform, s=(BOX,) * 3, axes=(0, 1, 2))
    mask = spherical_mask(BOX, 18, 6)
    write_halves(tmp_path, half_maps(rising, 5.0, 1.5, mask), mask, 1.5)
    found = sharpened(tmp_path, "rising")
    assert "would blur the map" in found["why"]
    assert (found["sharpened"], found["b_factor"]) == (False, None)
    assert not (tmp_path / "PostProcess/rising/postprocess.mrc").exists()
    assert noted(tmp_path / "PostProcess/rising")["warnings"]


def uneven_target(best, worst):
    """Resolution by Fourier component: `best` across z, `worst` along it."""
    z, y, x = (np.fft.fftfreq(BOX)[:, None, None], np.fft.fftfreq(BOX)[:, None], np.fft.rfftfreq(BOX))
    height = np.abs(z) / np.maximum(np.sqrt(x**2 + y**2 + z**2), 1e-9)
    return best + (worst - best) * height**2


def by_direction(halves):
    axes = directions.directions()
    curves = directions.conical_fsc(*halves, MASK, axes)
    return axes, BOX * PIXEL / crossing_shells(curves), resolution_by_direction(curves, PIXEL)


def test_a_preferred_orientation_is_found():
    signal = density(TRUE, BOX, PIXEL)
    axes, by_axis, found = by_direction(half_maps(signal, uneven_target(12.0, 22.0)))
    errors = by_axis / (12 + 10 * axes[:, 2] ** 2) - 1
    assert abs(errors.mean()) < 0.06
    assert errors.std() < 0.15
    assert found["best"] == pytest.approx(12, rel=0.1)
    assert found["worst"] == pytest.approx(21.5, rel=0.1)
    assert found["worst_direction"][1] < 40
    assert found["best_direction"][1] > 60
    assert found["area_ratio"] < 0.6
    even = by_direction(half_maps(signal, 12.0))[2]
    assert even["area_ratio"] > 0.75
    assert even["worst"] / even["best"] < 1.35


def open_wedge(transform):
    """Components that tilts about y to 60 degrees do not reach."""
    z, x = np.fft.fftfreq(BOX)[:, None, None], np.fft.rfftfreq(BOX)
    return np.broadcast_to(np.abs(x) < np.abs(z) * np.tan(np.radians(30)), transform.shape)


def test_an_open_wedge_is_found_in_the_map_and_in_its_views(tmp_path):
    """Half maps without signal in a wedge; particles all in one orientation, under tilts to 60 degrees."""
    signal = density(TRUE, BOX, PIXEL)
    transform = np.fft.rfftn(signal)
    missing = open_wedge(transform)
    halves = half_maps(signal, 12.0)
    for seed, one in enumerate(halves):
        noise = np.fft.rfftn(half_maps(signal, 12.0, seed=10 + seed)[0]) - transform
        filled = np.where(missing, noise, np.fft.rfftn(one))
        halves[seed] = np.fft.irfftn(filled, s=signal.shape, axes=(0, 1, 2))
        write_map(tmp_path / f"half{seed + 1}.mrc", halves[seed], PIXEL)
    write_map(tmp_path / "mask.mrc", MASK, PIXEL)
    angles = np.arange(-60.0, 61.0, 3.0)
    tilts = pd.DataFrame({"rlnTomoXTilt": 0.0, "rlnTomoYTilt": angles, "rlnTomoZRot": 30.0})
    write_star({"a": tilts}, tmp_path / "a.star")
    series = {"rlnTomoName": ["a"], "rlnTomoTiltSeriesStarFile": [str(tmp_path / "a.star")]}
    write_star({"global": pd.DataFrame(series)}, tmp_path / "tomograms.star")
    pose = {"rlnTomoName": "a", "rlnAngleRot": 0.0, "rlnAngleTilt": 0.0, "rlnAnglePsi": 0.0}
    write_star({"particles": pd.DataFrame([pose] * 4)}, tmp_path / "particles.star")
    check_directions(
        tmp_path,
        tmp_path / "mask.mrc",
        tmp_path / "particles.star",
        tmp_path / "tomograms.star",
        "C1",
        tmp_path / "job",
    )
    numbers = noted(tmp_path / "job")
    found = numbers["directions"]
    sampling, resolution = np.array(found["sampling"])[:9].ravel(), np.array(found["resolution"])[:9].ravel()
    axes = directions.directions()
    # Well within the wedge, a cone does not reach out of it: in the plane of the beams (x and z).
    inside = (axes[:, 2] > 0.9) & (np.abs(axes[:, 1]) > np.abs(axes[:, 0]))
    outside = np.abs(axes[:, 0]) > 0.8
    empty = (axes[:, 2] > 0.4) & (np.abs(axes[:, 0]) < axes[:, 2] * np.tan(np.radians(20)))
    assert (sampling[empty] == 0).all()
    assert (sampling[outside] > 0.5).all()
    assert np.median(resolution[inside]) > 1.8 * np.median(resolution[outside])
    assert np.median(resolution[outside]) == pytest.approx(12, rel=0.12)
    # A third of all tilts is missing; of the directions about a quarter.
    assert 0.15 < found["unsampled"] < 0.35
    assert found["compensation"] == 0
    assert found["area_ratio"] < 0.5
    assert len(numbers["warnings"]) == 2


def test_views_from_everywhere_and_symmetry_fill_the_sphere():
    views = np.random.default_rng(0).normal(size=(50_000, 3))
    axes = directions.directions()
    even = directions.sampling(directions.view_counts(views / np.linalg.norm(views, axis=1, keepdims=True)), axes)
    assert np.abs(even - 1).max() < 0.1
    assert directions.compensation(even) > 0.99
    tilts = np.radians(np.arange(-60, 61, 3))
    counts = directions.view_counts(np.stack([np.sin(tilts), 0 * tilts, np.cos(tilts)], axis=1))
    assert sampling_by_direction(counts, axes, "C1")["unsampled"] > 0.15
    assert sampling_by_direction(counts, axes, "O")["unsampled"] == 0


LOW_PASS = 40.0


def compared(tmp_path, halves, template, resolution=None):
    """Numbers of a comparison with a template, with the FSC as post-processing would give it."""
    for name, data in {"half1": halves[0], "half2": halves[1], "merged": np.mean(halves, axis=0)}.items():
        write_map(tmp_path / f"maps/{name}.mrc", data, PIXEL)
    write_map(tmp_path / "mask.mrc", MASK, PIXEL)
    write_map(tmp_path / "template.mrc", template, PIXEL)
    curve = corrected_fsc(*halves, MASK, 4)
    shells = BOX * PIXEL / np.arange(1, len(curve))
    table = {"rlnAngstromResolution": np.r_[999.0, shells]}
    for kind in ("Corrected", "UnmaskedMaps", "MaskedMaps"):
        table[f"rlnFourierShellCorrelation{kind}"] = curve
    table["rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps"] = 0.0
    general = pd.DataFrame([{"rlnFinalResolution": 12.0}])
    write_star({"general": general, "fsc": pd.DataFrame(table)}, tmp_path / "post/postprocess.star")
    (tmp_path / "post/job.json").write_text(json.dumps({"resolution": 12.0}))
    check_template(
        tmp_path / "job", tmp_path / "template.mrc", tmp_path / "maps", tmp_path / "mask.mrc", tmp_path / "post",
        LOW_PASS, 120.0,
    )  # fmt: skip
    numbers = noted(tmp_path / "job")
    return numbers["template"], numbers["warnings"]


def moved(structure, turn, shift):
    return replace(structure, centres=Rotation.from_euler("zyx", turn, degrees=True).apply(structure.centres) + shift)


def test_a_right_template_is_confirmed_also_where_the_map_has_drifted(tmp_path):
    template = density(moved(TRUE, [2, -1.5, 1], [2, -1, 1.5]), BOX, PIXEL)
    found, warnings = compared(tmp_path, half_maps(density(TRUE, BOX, PIXEL), 12.0), template)
    assert (found["judgement"], warnings) == ("confirmed", [])
    assert found["share"] > 0.95
    assert found["agrees_to"] < 14


def test_a_template_that_is_a_little_wrong_is_told_from_the_map(tmp_path):
    """One third of the structure is elsewhere in the template; the particles have it right."""
    template = density(make_structure(120, "C1", 3, moved=True), BOX, PIXEL)
    found, warnings = compared(tmp_path, half_maps(density(TRUE, BOX, PIXEL), 12.0), template)
    assert (found["judgement"], warnings) == ("partly", [])
    assert 0.3 < found["share"] < 0.7
    assert "they differ" in found["text"]
    curves = {name: np.array(values) for name, values in found["fsc"].items()}
    beyond = (curves["resolution"] < 25) & (curves["resolution"] > 14)
    assert (curves["template"][beyond] < curves["allowed"][beyond] - 0.2).all()


def test_a_map_that_is_the_template_in_noise_is_warned_of(tmp_path):
    template = density(make_structure(120, "C1", 3, moved=True), BOX, PIXEL)
    given, rng = cosine_low_pass(template, PIXEL, LOW_PASS), np.random.default_rng(0)
    halves = [given + given.std() * rng.normal(size=given.shape) for _ in (1, 2)]
    found, warnings = compared(tmp_path, halves, template)
    assert found["judgement"] == "nothing"
    assert warnings == [found["text"]]
    assert "knows no more than the template" in found["text"]


SMEARED, CLEAR, LOCAL_PIXEL, LOCAL_BOX = 18.0, 10.0, 4.0, 48


@pytest.mark.relion
def test_local_resolution_finds_the_part_that_is_smeared(tmp_path):
    """Two balls of scatterers side by side, one of them filtered to 18 A, the other to 10 A, in noise."""
    rng, apart, radius = np.random.default_rng(1), 40.0, 34.0
    grid = (np.arange(LOCAL_BOX) - LOCAL_BOX // 2) * LOCAL_PIXEL
    balls, parts = [], []
    for side, low_pass in ((-1, SMEARED), (1, CLEAR)):
        points = rng.normal(size=(60, 3))
        points *= radius * rng.uniform(size=(60, 1)) ** (1 / 3) / np.linalg.norm(points, axis=1, keepdims=True)
        ball = density(Structure(points + np.array([side * apart, 0, 0]), np.ones(60), 1.0), LOCAL_BOX, LOCAL_PIXEL)
        balls.append(cosine_low_pass(ball, LOCAL_PIXEL, low_pass))
        parts.append((grid[:, None, None] ** 2 + grid[:, None] ** 2 + (grid - side * apart) ** 2) ** 0.5)
    signal, mask = sum(balls), np.minimum(*parts) < apart
    halves = [signal + 1.5 * signal[mask].std() * rng.normal(size=signal.shape) for _ in (1, 2)]
    for number, data in enumerate(halves, start=1):
        write_map(tmp_path / f"half{number}.mrc", data, LOCAL_PIXEL)
    write_map(tmp_path / "mask.mrc", mask.astype(float), LOCAL_PIXEL)
    job = tmp_path / "LocalRes/best"
    job.mkdir(parents=True)
    subprocess.run(
        ["relion_postprocess", "--locres", "--i", "half1.mrc", "--mask", "mask.mrc", "--o", "LocalRes/best/relion",
         "--angpix", "4", "--adhoc_bfac", "0", "--locres_sampling", "30"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    check_local_resolution(job, tmp_path / "mask.mrc", LOCAL_BOX, LOCAL_PIXEL, 30.0)
    values = read_map(job / "relion_locres.mrc").data
    for distance, put_in in zip(parts, (SMEARED, CLEAR), strict=True):
        assert np.median(values[distance < 0.6 * apart]) == pytest.approx(put_in, rel=0.15)
    found = noted(job)["local_resolution"]
    assert found["best"] == pytest.approx(CLEAR, rel=0.15)
    assert found["worst"] == pytest.approx(SMEARED, rel=0.15)
    assert sum(found["counts"]) == mask.sum()
    low, high = found["range"]
    assert low < CLEAR * 1.1 < SMEARED * 0.9 < high
    write_map(job / "relion_locres.mrc", np.where(radii(LOCAL_BOX) < 2, 5.0, 0.0), LOCAL_PIXEL)
    write_map(tmp_path / "mask.mrc", (radii(LOCAL_BOX) > 20).astype(float), LOCAL_PIXEL)
    with pytest.raises(ProblemError, match="no resolution within the mask"):
        check_local_resolution(job, tmp_path / "mask.mrc", LOCAL_BOX, LOCAL_PIXEL, 30.0)


def particles_for(resolution, b_factor, now, at):
    """How many particles give a resolution, where `now` give `at`."""
    return round(now * np.exp(b_factor / 2 * (resolution**-2.0 - at**-2.0)))


def test_the_line_says_how_many_particles_a_better_map_takes():
    points = [Point(particles_for(d, 400.0, 4000, 8.0), d, False) for d in (8.0, 8.6, 9.4, 10.4)]
    found = line_of(points)
    assert found["b_factor"] == pytest.approx(400, rel=0.01)
    assert found["target_resolution"] == 7.2
    assert found["target_particles"] == pytest.approx(particles_for(7.2, 400.0, 4000, 8.0), rel=0.05)
    assert f"For 7.2 A about {found['target_particles']} particles" in found["text"]


@pytest.mark.parametrize(
    ("points", "why"),
    [
        ([(400, 8.0, False), (200, 9.0, False)], "2 points; it takes 3"),
        ([(400, 8.0, True), (200, 8.0, True), (100, 9.0, False), (50, 9.9, False)], "2 of them limited by Nyquist"),
        ([(400, 8.0, False), (200, 8.0, False), (100, 8.0, False)], "the same resolution"),
        ([(400, 9.0, False), (200, 8.0, False), (100, 9.5, False)], "on no line"),
        ([(400, 8.0, False), (200, 8.05, False), (100, 8.1, False)], "more than 10 times as many"),
    ],
)
def test_nothing_is_predicted_where_there_is_no_line(points, why):
    found = line_of([Point(*point) for point in points])
    assert why in found["text"]
    assert found["target_particles"] is None


def test_parts_are_within_each_other_and_have_as_many_of_either_half(tmp_path):
    table = pd.DataFrame({"rlnTomoName": "a", "number": np.arange(97), "rlnRandomSubset": [1] * 52 + [2] * 45})
    write_star({"particles": table}, tmp_path / "particles.star")
    sets = write_subsets(tmp_path / "particles.star", "best", tmp_path / "Select")
    assert [one.name for one in sets] == ["best_of2", "best_of4", "best_of8"]
    parts = [read_star(one / "particles.star")["particles"] for one in sets]
    assert [part["rlnRandomSubset"].value_counts().to_dict() for part in parts] == [
        {1: 26, 2: 22}, {1: 13, 2: 11}, {1: 6, 2: 5},
    ]  # fmt: skip
    numbers = [set(part["number"]) for part in parts]
    assert numbers[2] < numbers[1] < numbers[0]
    few = write_subsets(sets[2] / "particles.star", "few", tmp_path / "Select")
    assert [one.name for one in few] == ["few_of2"]


def test_the_points_of_the_plot_are_the_post_processings(tmp_path):
    """A part whose half maps had nothing in common is no point."""
    frequency = np.arange(33) / 96.0
    for name, resolution, count in (("best/postprocess", 8.0, 40), ("plot/best_of2", 10.0, 20)):
        curve = 1 / (1 + 6 * (frequency * resolution) ** 8)
        table = {"rlnAngstromResolution": np.r_[999.0, 1 / frequency[1:]]}
        for kind in ("Corrected", "UnmaskedMaps", "MaskedMaps"):
            table[f"rlnFourierShellCorrelation{kind}"] = curve
        table["rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps"] = 0.0
        general = pd.DataFrame([{"rlnFinalResolution": resolution}])
        write_star({"general": general, "fsc": pd.DataFrame(table)}, tmp_path / f"{name}.star")
        particles = {"particles": pd.DataFrame({"rlnTomoName": ["a"] * count})}
        write_star(particles, tmp_path / f"sets/{name.split('/')[1]}/particles.star")
    (tmp_path / "sets/postprocess").rename(tmp_path / "whole")
    write_star({"particles": pd.DataFrame({"rlnTomoName": ["a"] * 10})}, tmp_path / "sets/best_of4/particles.star")
    whole = tmp_path / "whole/particles.star"
    check_particle_plot(tmp_path / "plot", tmp_path / "sets", tmp_path / "best", whole, 64, 1.5)
    points = noted(tmp_path / "plot")["particle_plot"]["points"]
    assert [point["particles"] for point in points] == [40, 20]
    assert [point["resolution"] for point in points] == pytest.approx([8.0, 10.0], rel=0.01)
