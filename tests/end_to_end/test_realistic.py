"""RELION's own average of images as from a microscope: right with the truth's tables, worse with the errors in them."""

import subprocess
from dataclasses import replace

import numpy as np
import pytest
from helpers import make_data

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.simulation.effects import REALISTIC
from py2rely_core.simulation.truth import compare_map

pytestmark = [pytest.mark.relion, pytest.mark.slow]


def correlation(data, tilt_series):
    """FSC to the truth of the average with the true poses and these tables."""
    subprocess.run(
        ["relion_tomo_reconstruct_particle", "--t", tilt_series, "--p", "particles.star", "--o", "average/",
         "--b", "96", "--crop", "64", "--bin", "1", "--sym", "O", "--j", "2", "--j_in", "1", "--j_out", "2"],
        cwd=data, check=True, capture_output=True,
    )  # fmt: skip
    return compare_map(data / "average/merged.mrc", data / "truth/structure.mrc", 130.0).fsc


def test_realistic_images_average_to_the_truth(tmp_path):
    """Also in the presence of everything else that --realistic has; here with more astigmatism, so that it is seen."""
    data = make_data(
        tmp_path / "data", pixel_size=4.0, image_size=320, thickness=80, particles=20, tilt_step=4.0, dose=3.0,
        effects=replace(REALISTIC, astigmatism=4000.0),
    )  # fmt: skip
    right = correlation(data, "truth/tilt_series.star")
    misaligned = correlation(data, "tilt_series.star")
    # The truth, but for the direction of the astigmatism.
    for table in (data / "truth/tilt_series").iterdir():
        blocks = read_star(table)
        for tilts in blocks.values():
            tilts["rlnDefocusAngle"] = (tilts["rlnDefocusAngle"] + 90) % 180
        write_star(blocks, table)
    astigmatic = correlation(data, "truth/tilt_series.star")
    seen = np.round([right, misaligned, astigmatic], 2)
    # 43 to 10 A; what is wrong shows from 20 A on.
    assert right[6:26].min() > 0.8, seen
    assert misaligned[13:30].mean() < right[13:30].mean() - 0.1, seen
    assert astigmatic[13:30].mean() < right[13:30].mean() - 0.1, seen
