"""``py2rely slab`` as the reference's pages print it: on copick's picks and tomograms, and with real RELION."""

import copick
import mrcfile
import numpy as np
import pytest
from helpers import cli, copick_project, write_picks

from py2rely_core.data.tables import read_star, split_image_name
from py2rely_core.relion.slabs import read_index

VOXEL, SIZE = 10.0, (80, 80, 40)


def disc(volume, place, radius):
    grids = np.meshgrid(*[np.arange(n) for n in volume.shape], indexing="ij")
    distance = np.sqrt(sum((grid - p) ** 2 for grid, p in zip(grids, place[::-1], strict=True)))
    volume -= 3 / (1 + np.exp(2 * (distance - radius)))


@pytest.fixture
def picked(tmp_path, monkeypatch):
    """Two runs with 20 picks each at dark discs of two sizes, with orientations; one pick of each is at the border."""
    monkeypatch.chdir(tmp_path)
    config = copick_project(tmp_path / "copick", {"run1": (SIZE, VOXEL), "run2": (SIZE, VOXEL)})
    root, rng = copick.from_file(str(config)), np.random.default_rng(3)
    for run in ("run1", "run2"):
        volume = rng.normal(0, 0.5, SIZE[::-1]).astype(np.float32)
        grid = [(x, y) for x in (16, 28, 40, 52, 64) for y in (16, 32, 48, 64)]
        places = np.array([(x, y, 20) for x, y in grid[:-1]] + [(77, 70, 20)]) + rng.uniform(-0.5, 0.5, (20, 3))
        for number, place in enumerate(places):
            disc(volume, place, 2 if number % 2 else 4)
        transforms = np.tile(np.eye(4), (20, 1, 1))
        transforms[:, :3, :3] = [np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in places]
        transforms[:, :3, :3] *= np.sign(np.linalg.det(transforms[:, :3, :3]))[:, None, None]
        tomogram = root.get_run(run).get_voxel_spacing(VOXEL).get_tomograms("wbp")[0]
        tomogram.from_numpy(volume)
        root.get_run(run).new_picks("ribosome", "1", "octopi").from_numpy(places * VOXEL, transforms)
    return config


@pytest.mark.relion
@pytest.mark.parametrize("algorithm", ["2DEM", "VDAM"])
def test_from_copick_to_classes_and_back(picked, capsys, tmp_path, algorithm):
    words = ["-ic", picked, "-iv", picked, "-o", ".", "-es", "240,240,100", "-vs", VOXEL, "-ps", 2.5]
    cli("slab", "make", *words, "-ta", "wbp", "-uid", "octopi", "-pn", "ribosome", "-sid", 1)
    assert "38 slabs of 40 picks" in capsys.readouterr().out
    images = read_star(tmp_path / "stack/particles_relion.star")
    assert (images["optics"]["rlnImageSize"][0], images["optics"]["rlnImagePixelSize"][0]) == (24, VOXEL)
    assert min(split_image_name(name)[0] for name in images["particles"]["rlnImageName"]) == 1
    words = ["-p", "stack/particles_relion.star", "-nc", 2, "-alg", algorithm, "-ni", 6, "-pd", 100, "-tau", 2]
    switches = ["--do-ctf-correction", "no", "--ctf-intact-first-peak", "no", "--highres-limit", -1]
    switches += ["--dont-skip-align", "yes", "--use-gpu", "yes", "--nr-threads", 1, "-cc", "yes"]
    cli("slab", "class2d", *words, *switches)
    assert "py2rely slab select -p Class2D/job001/run_it006_data.star" in capsys.readouterr().out
    cli("slab", "summary", "-i", "Class2D/job001/run_it006_classes.mrcs", "-o", "summary.pdf")
    cli("slab", "select", "-p", "Class2D/job001/run_it006_data.star", "-c", "1,2")
    picks, kept = (read_star(tmp_path / name)["particles"] for name in ("picks.star", "Select/job002/particles.star"))
    assert kept.equals(picks)  # all classes, and those at the border
    # Discs of one size are in one class.
    data = read_star(tmp_path / "Class2D/job001/run_it006_data.star")["particles"]
    number = {split_image_name(n)[::-1]: c for n, c in zip(data["rlnImageName"], data["rlnClassNumber"], strict=True)}
    index = read_index(tmp_path / "stack")
    judged = index[index["image"] != ""]
    classes = np.array([number[split_image_name(name)[::-1]] for name in judged["image"]])
    large = judged["row"].to_numpy() % 20 % 2 == 0
    agree = np.mean((classes == 1) == large)
    if algorithm == "2DEM":
        assert max(agree, 1 - agree) > 0.9, classes
    assert "relion.class2d" in (tmp_path / "default_pipeline.star").read_text()


def test_what_is_missing_is_said(picked, capsys):
    for words in (
        ["make", "-ic", picked, "-pn", "ribosome"],
        ["make", "-ic", picked, "-ta", "wbp"],
        ["make", "-ic", "picks.star"],
    ):
        cli("slab", *words, code=2)
    cli("slab", "make", "-ic", picked, "-ta", "denoised", "-pn", "ribosome", "-vs", 10, "-o", "x", code=65)
    assert "10 A: wbp" in capsys.readouterr().err


def test_several_copick_projects(picked, tmp_path, capsys):
    """Slabs of all of them in one table; runs of one name are refused, as are several files of other kinds."""
    other = copick_project(tmp_path / "other", {"run3": (SIZE, VOXEL)})
    places = np.array([(30, 30, 20), (50, 40, 20)]) * VOXEL
    write_picks(other, "octopi", {"run3": places})
    words = ["-o", "both", "-es", "240,240,100", "-vs", VOXEL, "-ps", 2.5, "-ta", "wbp", "-pn", "ribosome"]
    cli("slab", "make", "-ic", picked, "-ic", other, *words)
    assert "40 slabs of 42 picks" in capsys.readouterr().out
    images = read_star(tmp_path / "both/stack/particles_relion.star")["particles"]
    assert images["rlnMicrographName"].value_counts().to_dict() == {"run1": 19, "run2": 19, "run3": 2}
    cli("slab", "make", "-ic", picked, "-o", "one", *words[2:])
    alone = read_star(tmp_path / "one/stack/particles_relion.star")["particles"]
    for name in ("run1", "run2"):
        assert (images["rlnMicrographName"] == name).sum() == (alone["rlnMicrographName"] == name).sum()
        stacks = [mrcfile.read(tmp_path / f"{job}/stack/stacks/{name}.mrcs") for job in ("both", "one")]
        assert np.array_equal(*stacks)
    cli("slab", "make", "-ic", picked, "-ic", picked, *words, code=65)
    assert "2 runs are also in an earlier project, such as run1" in capsys.readouterr().err
    cli("slab", "make", "-ic", picked, "-ic", "picks.star", *words, code=2)
    cli("slab", "make", "-ic", picked, "-iv", "a", "-iv", "b", *words, code=2)
