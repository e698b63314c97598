"""Slabs: where they are cut, how they are numbered, and that nothing of a particle is lost on the way through them."""

import csv
import json
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
from helpers import cli

from py2rely_core.data.geometry import true_positions
from py2rely_core.data.tables import read_star, split_image_name, write_star
from py2rely_core.data.tomograms import find_tomograms
from py2rely_core.judging.slab_classes import SlabChoice, choose_slab_classes, kept_particles, read_class2d
from py2rely_core.maps.slabs import cut_slab, normalised
from py2rely_core.planning.plan import default_slab_classes
from py2rely_core.problems import ProblemError
from py2rely_core.relion import slabs as work

VOXEL = 10.0
SETTINGS = work.Settings(box=160, thickness=80, diameter=80, invert=False)


def blob(shape, centre, sigma=2.0):
    """A Gaussian at x, y, z (voxels from 0) of a volume of shape (z, y, x)."""
    axes = [np.exp(-((np.arange(n) - c) ** 2) / (2 * sigma**2)) for n, c in zip(shape, centre[::-1], strict=True)]
    return np.einsum("z,y,x->zyx", *axes).astype(np.float32)


@pytest.mark.parametrize("rest", [(0, 0, 0), (0.25, -0.4, 0.3), (0.5, 0.5, 0.5), (-0.49, 0.1, -0.2)])
def test_the_place_is_at_the_centre_to_a_part_of_a_voxel(rest):
    centre = np.array([20, 24, 16]) + np.array(rest)
    image = cut_slab(blob((32, 48, 40), centre), centre, 16, 12)
    axis = np.arange(16) - 8
    weights = np.clip(image, 0, None)
    found = [(weights * axis[:, None]).sum() / weights.sum(), (weights * axis).sum() / weights.sum()]
    assert np.allclose(found, 0, atol=0.02)
    # A slab sums what is within its thickness, wherever its faces are.
    assert np.isclose(image.sum(), 0.9973 * (2 * np.pi * 4) ** 1.5, rtol=0.01)


def test_slices_at_the_faces_count_by_their_share():
    ones = np.ones((20, 12, 12), dtype=np.float32)
    for z, thickness in ((10, 4), (10.3, 4), (10.5, 3.5), (9.99, 6.4)):
        assert np.allclose(cut_slab(ones, np.array([6, 6, z]), 8, thickness), thickness, atol=1e-4)
    layers = np.broadcast_to(np.arange(20, dtype=np.float32)[:, None, None], (20, 12, 12))
    assert np.allclose(cut_slab(layers, np.array([6, 6, 10.3]), 8, 4), 4 * 10.3, atol=1e-3)


def test_what_leaves_the_tomogram_is_not_cut():
    volume = np.zeros((20, 40, 40), dtype=np.float32)
    assert cut_slab(volume, np.array([20, 20, 10]), 16, 12) is not None
    for place in ((7, 20, 10), (20, 34, 10), (20, 20, 5), (20, 20, 14)):
        assert cut_slab(volume, np.array(place), 16, 12) is None
    assert cut_slab(volume, np.array([8, 32, 10]), 16, 12) is not None  # just within


def test_images_are_normalised_beside_what_is_bright():
    rng = np.random.default_rng(0)
    image = rng.normal(50, 3, (32, 32)).astype(np.float32)
    image[:4, :4] = 5000  # a bead at the edge
    found = normalised(image, 10)
    axis = np.arange(32) - 16
    outside = (axis[:, None] ** 2 + axis**2 > 100) & (found > -100)
    assert abs(float(np.median(found[outside]))) < 0.1
    assert 0.85 < float(found[outside].std()) < 1.15
    assert np.allclose(normalised(image, 10, invert=False), -found)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Two tomograms whose particles have the same numbers; of each, one particle is at the border."""
    monkeypatch.chdir(tmp_path)
    shape, rng = (24, 48, 48), np.random.default_rng(1)
    rows = []
    Path("tomograms").mkdir()
    for name in ("TS_01", "TS_02"):
        volume = rng.normal(0, 0.05, shape).astype(np.float32)
        for number in range(6):
            place = rng.uniform(-12, 12, 3) * [1, 1, 0.4] if number != 3 else np.array([22.0, 0, 0])
            volume += (1 + number) * blob(shape, place + np.array(shape[::-1]) / 2)
            angles = zip(("Rot", "Tilt", "Psi"), rng.uniform(0, 90, 3), strict=True)
            row = {"rlnTomoName": name, "rlnTomoParticleName": f"{name}/{number + 1}", "rlnParticleNumber": number + 1}
            row |= {f"rlnCenteredCoordinate{a}Angst": v * VOXEL for a, v in zip("XYZ", place, strict=True)}
            row |= {f"rlnAngle{a}": v for a, v in angles} | {
                "rlnAngleTiltPrior": 90.0,
                "rlnRandomSubset": 1 + number % 2,
            }
            rows.append(row | {"rlnAutopickFigureOfMerit": 0.5, "rlnOpticsGroup": 1, "rlnOriginXAngst": 1.5})
        with mrcfile.new(f"tomograms/rec_{name}.mrc") as mrc:
            mrc.set_data(volume)
            mrc.voxel_size = VOXEL
    table = pd.DataFrame(rows)
    table = table.iloc[rng.permutation(len(table))]  # tomograms mixed
    optics = pd.DataFrame([{"rlnOpticsGroup": 1, "rlnOpticsGroupName": "a", "rlnVoltage": 200.0,
                            "rlnSphericalAberration": 2.0, "rlnAmplitudeContrast": 0.08,
                            "rlnTomoTiltSeriesPixelSize": 2.5}])  # fmt: skip
    write_star({"optics": optics, "particles": table}, Path("particles.star"))
    return tmp_path


def cut(project, job="Extract/job001"):
    names = pd.DataFrame({"rlnTomoName": ["TS_01", "TS_02"]})
    files = find_tomograms("tomograms", names, project / "particles.star", project)
    work.make_slabs(Path(job), Path("particles.star"), SETTINGS, work.opened(files))
    return Path(job)


def image_of(name):
    section, file = split_image_name(name)
    assert section >= 1
    return mrcfile.read(file)[section - 1]


def test_images_are_numbered_from_one_and_are_their_particles(project):
    job = cut(project)
    source, index = read_star(job / "source.star")["particles"], work.read_index(job)
    images = read_star(job / "particles_relion.star")
    assert list(index["row"]) == list(range(12))
    left = index[index["image"] == ""]
    assert len(left) == 2 and set(left["reason"]) == {work.AT_BORDER}
    assert set(source["rlnParticleNumber"].iloc[left["row"]]) == {4}
    assert sorted(images["particles"]["rlnImageName"]) == sorted(index["image"][index["image"] != ""])
    assert images["particles"]["rlnImageName"].is_unique
    for name in ("TS_01", "TS_02"):
        numbers = [split_image_name(one)[0] for one in index["image"] if name in one]
        assert sorted(numbers) == [1, 2, 3, 4, 5]
    for row in index[index["image"] != ""].itertuples():
        # By its own place, whatever the order in which images were written.
        with work.opened({row.tomogram: Path(f"tomograms/rec_{row.tomogram}.mrc")})(row.tomogram) as tomogram:
            place = true_positions(source.iloc[[row.row]])[0] / VOXEL + np.array([24, 24, 12])
            assert np.array_equal(image_of(row.image), normalised(cut_slab(tomogram.voxels, place, 16, 8), 4, False))
    assert set(images["particles"]["rlnMicrographName"]) == {"TS_01", "TS_02"}
    optics = images["optics"].iloc[0]
    assert (optics["rlnVoltage"], optics["rlnImageSize"], optics["rlnImagePixelSize"]) == (200, 16, VOXEL)
    noted = json.loads((job / "job.json").read_text())
    assert (noted["particles_in"], noted["images"], noted["not_judged"]) == (12, 10, 2)


def classified(job, classes):
    """A Class2D job's last iteration, with classes as they are given by image."""
    folder = Path("Class2D/job002")
    folder.mkdir(parents=True, exist_ok=True)
    blocks = read_star(job / "particles_relion.star")
    # RELION writes its own zeros, orders rows anew, and puts in its own angles and origins.
    table = blocks["particles"].iloc[::-1].assign(rlnAngleRot=0.0, rlnAnglePsi=33.0, rlnOriginXAngst=7.0)
    table["rlnClassNumber"] = [classes[name] for name in table["rlnImageName"]]
    table["rlnImageName"] = [name.lstrip("0").zfill(9) for name in table["rlnImageName"]]
    write_star(blocks | {"particles": table}, folder / "run_it025_data.star")
    rows = [{"rlnReferenceImage": f"{n}@x", "rlnClassDistribution": 0.5, "rlnEstimatedResolution": r,
             "rlnAccuracyRotations": 3.0, "rlnAccuracyTranslationsAngst": 2.0}
            for n, r in ((1, 30.0), (2, 60.0), (3, 36.0))]  # fmt: skip
    write_star({"model_classes": pd.DataFrame(rows)}, folder / "run_it025_model.star")
    averages = np.stack([blob((1, 12, 12), (6, 6, 0))[0] * scale for scale in (1, 1, 1.2)])
    with mrcfile.new(folder / "run_it025_classes.mrcs", overwrite=True) as mrc:
        mrc.set_data(averages.astype(np.float32))
        mrc.voxel_size = VOXEL
    return folder


def test_kept_particles_get_back_everything_that_they_had(project):
    job = cut(project)
    index = work.read_index(job)
    names = [name for name in index["image"] if name]
    classes = {name: 1 + n % 3 for n, name in enumerate(names)}
    found = read_class2d(classified(job, classes))
    before = read_star(Path("particles.star"))["particles"].reset_index(drop=True)
    for kept, with_border in (([1], False), ([1, 3], True)):
        after = kept_particles(job, found.data, kept, with_border)
        rows = [row.row for row in index.itertuples() if (row.image and classes[row.image] in kept)
                or (not row.image and with_border)]  # fmt: skip
        pd.testing.assert_frame_equal(after.blocks["particles"].reset_index(drop=True),
                                      before.iloc[rows].reset_index(drop=True))  # fmt: skip
        assert after.not_judged == 2
        assert len(after.images["particles"]) == after.judged == sum(one in kept for one in classes.values())


def test_groups_of_tilt_series_give_the_same_as_one(project):
    whole = cut(project)
    blocks = read_star(Path("particles.star"))
    files = {name: Path(f"tomograms/rec_{name}.mrc") for name in ("TS_01", "TS_02")}
    parts = []
    for number, name in enumerate(files, start=1):
        rows = blocks["particles"][blocks["particles"]["rlnTomoName"] == name]
        write_star(blocks | {"particles": rows}, Path(f"part{number}.star"))
        parts.append(Path(f"groups/{number}/slabs"))
        work.make_slabs(parts[-1], Path(f"part{number}.star"), SETTINGS, work.opened(files), may_be_none=True)
    merged = Path("Extract/merged")
    work.merge_slabs(parts, Path("particles.star"), merged)
    one, other = work.read_index(whole), work.read_index(merged)
    assert list(one["row"]) == list(other["row"]) and list(one["reason"]) == list(other["reason"])
    for first, second in zip(one["image"], other["image"], strict=True):
        assert bool(first) == bool(second)
        if first:
            assert np.array_equal(image_of(first), image_of(second))
    assert len(read_star(merged / "particles_relion.star")["particles"]) == 10


def test_picks_of_a_tomogram_that_cannot_be_read_are_not_judged(project):
    files = {name: Path(f"tomograms/rec_{name}.mrc") for name in ("TS_01", "TS_02")}
    files["TS_02"].write_bytes(files["TS_02"].read_bytes()[:5000])
    with pytest.raises(ProblemError, match="TS_02 cannot be read"):
        work.make_slabs(Path("job"), Path("particles.star"), SETTINGS, work.opened(files))
    work.make_slabs(Path("job"), Path("particles.star"), SETTINGS, work.opened(files), may_fail=True)
    index = work.read_index(Path("job"))
    assert set(index["reason"][index["tomogram"] == "TS_02"]) == {work.NO_TOMOGRAM}
    noted = json.loads(Path("job/job.json").read_text())
    assert (noted["images"], noted["not_judged"]) == (5, 7)
    assert "TS_02" in noted["warnings"][0]


def test_memory_does_not_grow_with_the_number_of_tomograms(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def peak(count):
        names = np.repeat([f"T{n}" for n in range(count)], 5)
        rows = pd.DataFrame({"rlnTomoName": names} | {f"rlnCenteredCoordinate{a}Angst": 0.0 for a in "XYZ"})
        write_star({"particles": rows}, Path("many.star"))

        @contextmanager
        def open_one(name):
            yield work.Tomogram(np.ones((40, 128, 128), dtype=np.float32), VOXEL)

        tracemalloc.start()
        work.make_slabs(Path("slabs"), Path("many.star"), SETTINGS, open_one)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(12) < 1.3 * peak(3)


def test_tomograms_of_another_volume_or_voxel_are_refused(project):
    series = pd.DataFrame([{"rlnTomoName": name, "rlnTomoSizeX": 192, "rlnTomoSizeY": 192, "rlnTomoSizeZ": 96,
                            "rlnTomoTiltSeriesPixelSize": 2.5} for name in ("TS_01", "TS_02")])  # fmt: skip
    files = find_tomograms("tomograms", series, project / "t.star", project)
    work.make_slabs(Path("good"), Path("particles.star"), SETTINGS, work.opened(files), series)
    with pytest.raises(ProblemError, match="48 x 48 x 24"):
        turned = series.assign(rlnTomoSizeZ=192, rlnTomoSizeY=96)
        work.make_slabs(Path("bad"), Path("particles.star"), SETTINGS, work.opened(files), turned)
    with mrcfile.open(files["TS_02"], "r+") as mrc:
        mrc.voxel_size = 12.0
    with pytest.raises(ProblemError, match="voxels of 12"):
        work.make_slabs(Path("bad"), Path("particles.star"), SETTINGS, work.opened(files))
    files["TS_01"].unlink()
    with pytest.raises(ProblemError, match="TS_01"):
        find_tomograms("tomograms", series, project / "t.star", project)


def test_the_rule_prefers_honestly_or_keeps_everything(project):
    job = cut(project)
    names = [name for name in work.read_index(job)["image"] if name]

    def judged(numbers, diameter=120.0, **choice):
        found = read_class2d(classified(job, dict(zip(names, numbers, strict=True))))
        return choose_slab_classes(found, diameter, SlabChoice(**{"min_particles": 2} | choice))

    # Few images: none of the classes is a measure for the others.
    assert judged([1, 2, 3, 1, 2, 3, 1, 2, 3, 1]).reason.startswith("All particles are kept: no class")
    numbers = [1] * 8 + [2, 3]
    found = judged(numbers)
    assert found.kept == [1, 3]
    assert "no features: 60 A" in found.classes["why"][1]
    assert judged(numbers, diameter=80.0).kept == [1, 2, 3]  # 30 A is no feature of 80 A
    assert judged([1] * 9 + [3]).reason.startswith("All particles are kept: all of them")
    assert judged(numbers, min_particles=10).kept == [1, 2, 3]
    by_hand = judged(numbers, selection="manual", keep=(2,))
    assert by_hand.kept == [2]
    assert judged(numbers, selection="manual").kept == []
    with pytest.raises(ProblemError, match="no class 4"):
        judged(numbers, selection="manual", keep=(4,))


def test_number_of_classes():
    assert [default_slab_classes(n) for n in (15, 60, 300, 1000, 20_000)] == [2, 6, 8, 20, 100]


def test_by_hand(project, capsys):
    cli("slab", "make", "-ic", "particles.star", "-iv", "tomograms", "-o", ".", "-es", "160,160,80", "--invert", "no")
    assert "10 slabs of 12 picks" in capsys.readouterr().out
    assert len(read_star(Path("stack/particles_relion.star"))["particles"]) == 10
    index = list(csv.DictReader(Path("stack/index.csv").read_text().splitlines()))
    names = [row["image"] for row in index if row["image"]]
    job = classified(Path("stack"), {name: 1 + n % 3 for n, name in enumerate(names)})
    cli("slab", "summary", "-i", job / "run_it025_classes.mrcs")
    assert (job / "run_it025_classes.pdf").read_bytes()[:4] == b"%PDF"
    cli("slab", "select", "-p", job / "run_it025_data.star", "-c", "1,3", "-o", "kept.star", "--keep-not-judged", "no")
    kept, before = (read_star(Path(name))["particles"] for name in ("kept.star", "particles.star"))
    pd.testing.assert_frame_equal(
        kept.reset_index(drop=True),
        before[before["rlnTomoParticleName"].isin(kept["rlnTomoParticleName"])].reset_index(drop=True),
    )
    assert len(kept) == sum(1 + n % 3 in (1, 3) for n in range(10))
    cli("slab", "select", "-p", job, "-c", "2", "-o", "kept.star", code=65)  # it is there
    cli("slab", "make", "-ic", "particles.star", "-iv", "tomograms", "-o", "x", "-es", "160,100,80", code=66)
