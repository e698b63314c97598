"""Slabs of tomograms that RELION makes: where particles truly are, and beside RELION's own projections along z."""

import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
from helpers import TINY, make_data
from scipy import ndimage

from py2rely_core.data.geometry import true_positions
from py2rely_core.data.tables import read_star, split_image_name
from py2rely_core.maps.slabs import shifted
from py2rely_core.relion import slabs as work


def cut(data, monkeypatch, **settings):
    """Slabs of a simulated data set, made in its directory: index and table of its particles."""
    monkeypatch.chdir(data)
    table = read_star(data / "tilt_series.star")["global"]
    asked = work.Settings(**{"box": 240, "thickness": 160, "diameter": 130, "binning": 2} | settings)
    job = Path("Extract/slabs")
    work.make_slabs(job, Path("particles.star"), asked, work.reconstructed(job, table, asked), table)
    assert not (job / "tomogram").exists()
    return work.read_index(job)


def image_of(name):
    section, file = split_image_name(name)
    return mrcfile.read(file)[section - 1]


@pytest.mark.relion
@pytest.mark.parametrize("binning", [2, 3])
def test_beads_are_at_the_centre(tmp_path, monkeypatch, binning):
    # At bin 3 neither edge of these tomograms is a whole number of voxels.
    settings = {"tilt_series": 1, "image_size": 200, "particles": 1, "false_picks": 12.0, "junk": "beads"}
    data = make_data(tmp_path / "data", **TINY | settings)
    index = cut(data, monkeypatch, binning=binning, thickness=120)
    truth = pd.read_csv("truth/particles.csv")
    beads = index[(index["image"] != "") & (truth["label"] == "false").to_numpy()]
    assert len(beads) >= 8
    mean = np.mean([image_of(name) for name in beads["image"]], axis=0)
    axis = np.arange(len(mean)) - len(mean) // 2
    weights = np.clip(mean, 0, None) ** 2 * (np.hypot(axis[:, None], axis) < 60 / (5 * binning))
    centre = [(weights * grid).sum() / weights.sum() for grid in (axis[:, None], axis)]
    assert np.allclose(centre, 0, atol=0.1), centre
    assert mean[len(mean) // 2, len(mean) // 2] > 3  # bright


@pytest.mark.relion
def test_slabs_as_thick_as_the_box_are_like_relions_own_projections(tmp_path, monkeypatch):
    """Moved by the part of a voxel that RELION leaves out: it cuts at the voxel below a particle's place."""
    data = make_data(tmp_path / "data", **TINY | {"thickness": 96, "noise": 0.3})
    index = cut(data, monkeypatch, thickness=240)
    for words in (
        "relion_tomo_reconstruct_tomogram --t tilt_series.star --o tomo/ --w 160 --h 160 --d 96 --bin 2 --j 1",
        "relion_tomo_subtomo --t tomo/tomograms.star --p particles.star --o own/ --b 24 --bin 2 --real_subtomo --j 1",
    ):
        subprocess.run(words.split(), check=True, capture_output=True)
    own = read_star(data / "own/particles_for_class2d.star")["particles"].set_index("rlnImageName")
    source = read_star(data / "particles.star")["particles"]
    places, found = true_positions(source) / 10 + np.array([40, 40, 24]), []
    for name, place in zip(own.index, true_positions(own), strict=True):
        row = int(np.linalg.norm(true_positions(source) - place, axis=1).argmin())
        if index["image"][row]:
            left_out = (places[row] % 1)[1::-1]
            one, other = shifted(image_of(index["image"][row]), left_out), image_of(name)
            # RELION weights tilts anew for each particle: what is neither smooth nor noise is alike.
            bands = [ndimage.gaussian_filter(image, 1) - ndimage.gaussian_filter(image, 3) for image in (one, other)]
            found.append(np.corrcoef(*[band[5:-5, 5:-5].ravel() for band in bands])[0, 1])
    assert len(found) >= 10
    assert np.median(found) > 0.35, np.round(found, 2)  # 0.52; images of different particles: 0
