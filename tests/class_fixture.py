"""Classifications as RELION leaves them, with pictures: averages of slabs, and maps of two structures and noise."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial.transform import Rotation

from py2rely_core.data.tables import write_star
from py2rely_core.maps.filters import gaussian_low_pass
from py2rely_core.maps.io import write_map
from py2rely_core.simulation.structures import density, make_structure

DIAMETER, PIXEL_SIZE = 150.0, 5.0
#: What RELION writes where it knows no number.
UNKNOWN = 999.0
#: Particles, resolution and accuracies of each class of :func:`make_class2d`; the last one is empty.
CLASSES_2D = [
    (412, 14.2, 3.1, 2.0), (388, 14.9, 3.4, 2.2), (57, 41.0, 19.0, 9.1), (240, 16.1, 4.0, 2.9), 
    (23, 60.0, UNKNOWN, UNKNOWN),
    (301, 15.2, 3.6, 2.4), (96, 28.4, 9.5, 5.0), (178, 17.7, 4.8, 3.0), (64, 45.1, 21.0, 9.9), (1204, 33.0, 15.0, 7.5),
    (133, 19.0, 5.5, 3.3), (0, UNKNOWN, UNKNOWN, UNKNOWN),
]  # fmt: skip
#: Of them, those with a particle.
GOOD_2D = [1, 2, 4, 6, 8, 11]
#: Map, particles, resolution and accuracies of each class of :func:`make_class3d`.
CLASSES_3D = [
    ("good", 1480, 12.5, 2.0, 1.6), ("other", 610, 14.0, 2.6, 2.1), ("noise", 930, 38.0, 11.0, 7.4),
    ("good", 502, 13.1, 2.2, 1.8),
]  # fmt: skip


def make_class2d(job: Path, iteration: int = 25, box: int = 48) -> Path:
    """A Class2D job with averages of slabs of a particle, from several sides, and of junk."""
    job.mkdir(parents=True)
    rng, structure = np.random.default_rng(3), _structure(2, box)
    images = np.zeros((len(CLASSES_2D), box, box), np.float32)
    y, x = (np.arange(box) - box // 2)[:, None], (np.arange(box) - box // 2)[None]
    for index, (particles, *_) in enumerate(CLASSES_2D):
        if index + 1 in GOOD_2D:
            turn = Rotation.random(random_state=index).as_matrix()
            centre = np.full(3, box // 2)
            turned = ndimage.affine_transform(structure, turn, centre - turn @ centre, order=1)
            images[index] = turned.sum(axis=0)
        elif particles:
            where = rng.normal(0, box / 8, 2)
            images[index] = 8 * structure.max() * np.exp(-((x - where[0]) ** 2 + (y - where[1]) ** 2) / (box * 1.5))
        if particles:
            noise = ndimage.gaussian_filter(rng.normal(size=(box, box)), 1.2)
            images[index] += noise * 25 * structure.max() / np.sqrt(particles)
            images[index] *= 1 / (1 + np.exp((np.hypot(x, y) - 0.45 * box) * 2))
    stem = f"run_it{iteration:03d}"
    with mrcfile.new(job / f"{stem}_classes.mrcs", overwrite=True) as mrc:
        mrc.set_data(images)
        mrc.set_image_stack()
        mrc.voxel_size = PIXEL_SIZE
    names = [f"{n:06d}@{job.parent.name}/{job.name}/{stem}_classes.mrcs" for n in range(1, len(CLASSES_2D) + 1)]
    _tables(job, stem, names, CLASSES_2D, 2)
    return job


def make_class3d(job: Path, iteration: int | None = None, box: int = 40) -> Path:
    """A Class3D job with two classes of one structure, one of another, and one of noise."""
    job.mkdir(parents=True)
    good = _structure(0, box)
    noise = np.random.default_rng(0).normal(size=good.shape) * good.std()
    maps = {
        "good": good, "other": _structure(1, box),
        "noise": gaussian_low_pass(noise, PIXEL_SIZE, 25.0) * 2,
    }  # fmt: skip
    stem = "run" if iteration is None else f"run_it{iteration:03d}"
    names = [f"{stem}_class{number:03d}.mrc" for number in range(1, len(CLASSES_3D) + 1)]
    for name, (kind, *_) in zip(names, CLASSES_3D, strict=True):
        write_map(job / name, maps[kind], PIXEL_SIZE)
    _tables(job, stem, names, [row[1:] for row in CLASSES_3D], 3)
    return job


@cache
def _structure(seed: int, box: int) -> np.ndarray:
    return density(make_structure(DIAMETER, "D2", seed), box, PIXEL_SIZE)


def settings_of(page: str) -> dict:
    """What a page of classes hands to its script."""
    return json.loads(re.search(r'id="settings">(.*?)</script>', page)[1])


def _tables(job: Path, stem: str, names: list[str], rows: list[tuple], dimensions: int) -> None:
    numbers = np.repeat(np.arange(1, len(rows) + 1), [row[0] for row in rows])
    particles = pd.DataFrame({"rlnTomoName": "a", "rlnOpticsGroup": 1, "rlnClassNumber": numbers})
    particles["rlnImageName"] = [f"{n + 1}@Extract/job001/stack.mrcs" for n in range(len(numbers))]
    particles["rlnRandomSubset"] = np.arange(len(particles)) % 2 + 1
    optics = pd.DataFrame([{"rlnOpticsGroup": 1}])
    write_star({"optics": optics, "particles": particles}, job / f"{stem}_data.star")
    total = sum(row[0] for row in rows)
    classes = [
        {"rlnReferenceImage": name, "rlnClassDistribution": row[0] / total, "rlnAccuracyRotations": row[2],
         "rlnAccuracyTranslationsAngst": row[3], "rlnEstimatedResolution": row[1]}
        for name, row in zip(names, rows, strict=True)
    ]  # fmt: skip
    general = {"rlnReferenceDimensionality": dimensions, "rlnPixelSize": PIXEL_SIZE, "rlnNrClasses": len(rows)}
    blocks = {"model_general": pd.DataFrame([general]), "model_classes": pd.DataFrame(classes)}
    write_star(blocks, job / f"{stem}_model.star")
