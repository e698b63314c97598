"""Simulated tilt series with known truth: a sum of Gaussians is projected analytically, so nothing is interpolated."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from math import ceil, log, pi, sqrt
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from py2rely_core.data.geometry import AXES, euler_to_matrix, matrix_to_euler
from py2rely_core.data.tables import write_star
from py2rely_core.maps.io import write_map
from py2rely_core.simulation.optics import AMPLITUDE_CONTRAST, SPHERICAL_ABERRATION, VOLTAGE
from py2rely_core.simulation.projection import project
from py2rely_core.simulation.recording import astigmatic, blurred, counted, drifts, misaligned, transmission
from py2rely_core.simulation.settings import Settings, Stream
from py2rely_core.simulation.structures import (
    INVENTED,
    Structure,
    density,
    make_junk,
    make_structure,
    second_of,
    structure_of,
)
from py2rely_core.simulation.surroundings import OVERSAMPLING, surroundings


def tilt_table(settings: Settings, number: int, rng: np.random.Generator) -> pd.DataFrame:
    """Alignment and CTF values of one tilt series, ordered by tilt, exposed from the middle outwards."""
    angles = np.arange(-settings.tilt_range, settings.tilt_range + 1e-6, settings.tilt_step)
    order = np.argsort(np.argsort(np.abs(angles), kind="stable"))
    defocus = 1e4 * (settings.defocus + settings.defocus_spread * (number % 3 - 1)) + rng.normal(0, 50, len(angles))
    return pd.DataFrame(
        {
            "rlnTomoXTilt": 0.0,
            "rlnTomoYTilt": angles,
            "rlnTomoZRot": 85.0 + rng.normal(0, 0.3) + rng.normal(0, 0.1, len(angles)),
            "rlnTomoXShiftAngst": rng.normal(0, 8, len(angles)),
            "rlnTomoYShiftAngst": rng.normal(0, 8, len(angles)),
            "rlnCtfScalefactor": 1.0,
            "rlnDefocusU": defocus,
            "rlnDefocusV": defocus,
            "rlnDefocusAngle": 0.0,
            "rlnMicrographPreExposure": settings.dose * order,
        }
    )


def place(settings: Settings, count: int, rng: np.random.Generator) -> np.ndarray:
    """Positions that do not overlap and stay in every image, (count, 3) Angstrom from the centre.

    Raises
    ------
    ValueError
        They do not fit.
    """
    size = np.array([settings.image_size, settings.image_size, settings.thickness]) * settings.pixel_size
    # A whole box around each particle must be in every image.
    half = np.maximum(size / 2 - np.array([1.0, 1.0, 0.5]) * settings.diameter - 30, 1.0)
    positions: list[np.ndarray] = []
    for _ in range(200_000):
        if len(positions) == count:
            break
        candidate = rng.uniform(-half, half)
        if all(np.linalg.norm(candidate - other) > 0.9 * settings.diameter for other in positions):
            positions.append(candidate)
    if len(positions) < count:
        raise ValueError(f"{count} particles of {settings.diameter:g} A do not fit: use larger or more images")
    return np.array(positions)


def displacements(
    positions: np.ndarray, tilts: pd.DataFrame, motion: float, rng: np.random.Generator, extent: float
) -> np.ndarray:
    """Beam-induced motion: a random walk with the dose, the same for neighbours and different across the field.

    Parameters
    ----------
    positions : (n, 3) float
        Angstrom from the tomogram's centre.
    tilts : DataFrame
        As :func:`tilt_table` makes it.
    motion : float
        Root mean square after the last exposure, Angstrom, along each axis.
    rng : Generator
        The same numbers are the same motion, whatever the positions are.
    extent : float
        Of the field, Angstrom from its centre.

    Returns
    -------
    (n, n_tilts, 3) float
        Angstrom; zero at the first exposure.
    """
    order = np.argsort(tilts["rlnMicrographPreExposure"].to_numpy(), kind="stable")
    steps = rng.normal(0, motion / sqrt(max(len(tilts) - 1, 1)), (len(tilts), 4, 3))
    steps[0] = 0.0
    walk = np.empty_like(steps)
    walk[order] = np.cumsum(steps, axis=0)
    # One part for all particles, and one along each axis of the field.
    fields = np.concatenate([np.ones((len(positions), 1)), positions / extent], axis=1) / sqrt(2)
    return np.einsum("nf,tfx->ntx", fields, walk)


def write_dataset(directory: Path, settings: Settings) -> pd.DataFrame:
    """Simulate a data set and write it; the same settings write the same bytes.

    Parameters
    ----------
    directory : Path
        Gets ``tilt_series.star``, ``tilt_series/``, ``particles.star``, ``template.mrc`` and ``truth/``.
    settings : Settings

    Returns
    -------
    DataFrame
        The truth, a row per pick: tomogram, position, angles and label (``a``, ``b`` or ``false``).
    """
    structures = _structures(settings)
    for path in ("tilt_series", "truth/tilt_series"):
        (directory / path).mkdir(parents=True, exist_ok=True)
    names = [f"{settings.name_prefix}{number:02d}" for number in range(1, settings.tilt_series + 1)]
    written = [
        _write_tilt_series(directory, settings, structures, name, number) for number, name in enumerate(names, start=1)
    ]
    table, others = (pd.concat(tables, ignore_index=True) for tables in zip(*written, strict=True))
    for place in ("", "truth/"):
        rows = pd.DataFrame([_global_row(settings, name, f"{place}tilt_series/{name}.star") for name in names])
        write_star({"global": rows}, directory / f"{place}tilt_series.star")
    _write_particles(directory, settings, table)
    _write_truth(directory, settings, structures, table)
    if len(others):
        others.to_csv(directory / "truth/surroundings.csv", index=False, float_format="%.5f")
    return table


def _structures(settings: Settings) -> dict[str, Structure]:
    """By the labels of the truth: the structure, and its second conformation where there is one."""
    if settings.structure == INVENTED:
        shape = (settings.diameter, settings.symmetry, settings.seed)
        first, second = make_structure(*shape), partial(make_structure, *shape, moved=True)
    else:
        first = structure_of(settings.structure, settings.pixel_size)
        second = partial(second_of, settings.structure, settings.second)
    return {"a": first} | ({"b": second()} if settings.second_conformation > 0 else {})


@dataclass(frozen=True)
class _Picks:
    """The picks of one tomogram, (n,): what truly is there, and which kind of junk where none of the structures is."""

    positions: np.ndarray
    poses: np.ndarray
    labels: np.ndarray
    kinds: np.ndarray


def _picks(settings: Settings, rng: np.random.Generator) -> _Picks:
    n_false = round(settings.false_picks * settings.particles)
    positions = place(settings, settings.particles + n_false, rng)
    labels = np.array(["a"] * settings.particles + ["false"] * n_false)
    labels[: round(settings.second_conformation * settings.particles)] = "b"
    kinds = settings.junk.split(",") if settings.junk else ["nothing"]
    of_kind = [""] * settings.particles + [kinds[n % len(kinds)] for n in range(n_false)]
    poses = Rotation.random(len(labels), rng=rng).as_matrix()
    return _Picks(positions, poses, labels, np.array(of_kind, dtype=object))


def _write_tilt_series(
    directory: Path, settings: Settings, structures: dict[str, Structure], name: str, number: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Its picks in a random order, and what else is in the tomogram."""
    rng = np.random.default_rng([settings.seed, number])
    effects = settings.effects
    tilts = tilt_table(settings, number, rng)
    tilts = astigmatic(tilts, effects.astigmatism, settings.stream(number, Stream.ASTIGMATISM))
    picks = _picks(settings, rng)
    others = surroundings(settings, number, picks.positions, structures["a"])
    extent = max(float(np.abs(picks.positions).max()), 1.0)

    def moved(positions: np.ndarray) -> np.ndarray:
        return displacements(positions, tilts, settings.motion, settings.stream(number, Stream.MOTION), extent)

    images = _particle_images(settings, structures, picks, tilts, moved(picks.positions), number)
    for group in others:
        images = images + project(
            group.structure, group.poses, group.positions, tilts, settings, moved(group.positions), group.diameter,
            OVERSAMPLING,
        )  # fmt: skip
    drift = drifts(tilts, effects.drift, settings.stream(number, Stream.DRIFT))
    signal = _signal(structures["a"], settings)
    images = _recorded(images, tilts, drift, signal, settings, rng, settings.stream(number, Stream.ELECTRONS))
    file = f"tilt_series/{name}.mrcs"
    _write_stack(directory / file, images, settings.pixel_size)
    tilts.insert(0, "rlnMicrographName", [f"{section}@{file}" for section in range(1, len(tilts) + 1)])
    _write_tilts(directory, settings, name, number, tilts)
    exposures = pd.DataFrame({"rlnTomoYTilt": tilts["rlnTomoYTilt"], "transmission": transmission(tilts, effects)})
    exposures.assign(drift_x=drift[:, 0], drift_y=drift[:, 1]).to_csv(
        directory / f"truth/{name}_exposures.csv", index=False
    )
    np.save(directory / f"truth/{name}_motion.npy", moved(picks.positions).astype(np.float32))
    order = rng.permutation(len(picks.labels))
    angles = matrix_to_euler(picks.poses)
    columns = {"tomogram": name, "label": picks.labels}
    columns |= {axis.lower(): picks.positions[:, i] for i, axis in enumerate(AXES)}
    columns |= {angle: angles[:, i] for i, angle in enumerate(("rot", "tilt", "psi"))}
    columns |= {"kind": picks.kinds} if settings.junk else {}
    return pd.DataFrame(columns).iloc[order], pd.concat([pd.DataFrame(), *(group.rows(name) for group in others)])


def _particle_images(
    settings: Settings,
    structures: dict[str, Structure],
    picks: _Picks,
    tilts: pd.DataFrame,
    moved: np.ndarray,
    number: int,
) -> np.ndarray:
    """Noise-free images of what is at the picks, (n_tilts, size, size) float32."""

    def shown(structure: Structure, which: np.ndarray) -> np.ndarray:
        return project(structure, picks.poses[which], picks.positions[which], tilts, settings, moved[which])

    images = sum(shown(structure, picks.labels == label) for label, structure in structures.items())
    for kind in dict.fromkeys(kind for kind in picks.kinds if kind):
        # Ice differs from place to place; of the others only the view does.
        places = np.flatnonzero(picks.kinds == kind)
        for one, here in enumerate(np.split(places, len(places)) if kind == "blobs" else [places]):
            junk = make_junk(kind, settings.diameter, settings.seed + (1000 * number + one if kind == "blobs" else 0))
            if junk is not None:
                images = images + shown(junk, here)
    return images


def _recorded(
    images: np.ndarray,
    tilts: pd.DataFrame,
    drift: np.ndarray,
    signal: float,
    settings: Settings,
    white: np.random.Generator,
    electrons: np.random.Generator,
) -> np.ndarray:
    """What the detector has of noise-free images, (n_tilts, size, size) float.

    With white noise images are scaled so that it is the same in all: the signal falls with the root of the electrons.
    """
    effects = settings.effects
    if effects.dqe < 1 or effects.drift > 0:
        images = blurred(images, settings.pixel_size, effects.dqe, drift)
    left = transmission(tilts, effects)
    # Drawn with shot noise, too: what is drawn after it stays the same.
    noise = white.normal(0, settings.white_noise * signal, images.shape)
    if effects.shot_noise:
        background = settings.dose * settings.pixel_size**2 * left
        return counted(images * (effects.contrast / signal), background, electrons)
    return images * np.sqrt(left)[:, None, None] + noise


def _write_stack(path: Path, images: np.ndarray, pixel_size: float) -> None:
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(images.astype(np.float32))
        mrc.set_image_stack()
        mrc.voxel_size = pixel_size
        # The time of writing would make two runs differ.
        mrc.header.label[:] = b""
        mrc.header.nlabl = 0


def _write_tilts(directory: Path, settings: Settings, name: str, number: int, tilts: pd.DataFrame) -> None:
    """The tilt series' table with its errors, and without them in ``truth/``."""
    write_star({name: tilts}, directory / f"truth/tilt_series/{name}.star")
    tilts[["rlnTomoYTilt", "rlnDefocusU"]].to_csv(directory / f"truth/{name}_defocus.csv", index=False)
    kinds = (Stream.ALIGNMENT_SHIFT, Stream.ALIGNMENT_ROTATION, Stream.AXIS)
    wrong = misaligned(tilts, settings.effects, tuple(settings.stream(number, kind) for kind in kinds))
    wrong[["rlnDefocusU", "rlnDefocusV"]] += settings.stream(number, Stream.DEFOCUS).normal(0, settings.defocus_error)
    write_star({name: wrong}, directory / f"tilt_series/{name}.star")


def _signal(structure: Structure, settings: Settings) -> float:
    """Standard deviation of a particle's untilted image within its diameter."""
    tilts = pd.DataFrame([dict.fromkeys(("rlnTomoXTilt", "rlnTomoYTilt", "rlnTomoZRot"), 0.0)])
    tilts = tilts.assign(rlnTomoXShiftAngst=0.0, rlnTomoYShiftAngst=0.0, rlnMicrographPreExposure=0.0)
    tilts = tilts.assign(rlnDefocusU=1e4 * settings.defocus, rlnDefocusV=1e4 * settings.defocus, rlnDefocusAngle=0.0)
    image = project(structure, np.eye(3)[None], np.zeros((1, 3)), tilts, settings)[0]
    axis = (np.arange(settings.image_size) - settings.image_size // 2) * settings.pixel_size
    return float(image[np.hypot(axis[:, None], axis) < settings.diameter / 2].std())


def _global_row(settings: Settings, name: str, tilts: str) -> dict[str, object]:
    return {
        "rlnTomoName": name,
        "rlnVoltage": VOLTAGE,
        "rlnSphericalAberration": SPHERICAL_ABERRATION,
        "rlnAmplitudeContrast": AMPLITUDE_CONTRAST,
        "rlnMicrographOriginalPixelSize": settings.pixel_size,
        "rlnTomoHand": -1.0,
        "rlnOpticsGroupName": "opticsGroup1",
        "rlnTomoTiltSeriesPixelSize": settings.pixel_size,
        "rlnTomoTiltSeriesStarFile": tilts,
        "rlnTomoSizeX": settings.image_size,
        "rlnTomoSizeY": settings.image_size,
        "rlnTomoSizeZ": settings.thickness,
    }


def _write_particles(directory: Path, settings: Settings, truth: pd.DataFrame) -> None:
    rng = np.random.default_rng([settings.seed, 0])
    positions = truth[["x", "y", "z"]].to_numpy() + rng.normal(0, settings.shift_error, (len(truth), 3))
    poses = euler_to_matrix(truth[["rot", "tilt", "psi"]].to_numpy())
    error = Rotation.from_rotvec(rng.normal(0, settings.angle_error, (len(truth), 3)), degrees=True).as_matrix()
    unknown = Rotation.random(len(truth), rng=rng).as_matrix()
    angles = matrix_to_euler(unknown if settings.random_angles else poses @ error)
    particles = pd.DataFrame({"rlnTomoName": truth["tomogram"].to_numpy(), "rlnOpticsGroup": 1})
    for i, axis in enumerate(AXES):
        particles[f"rlnCenteredCoordinate{axis}Angst"] = positions[:, i]
    for i, angle in enumerate(("Rot", "Tilt", "Psi")):
        particles[f"rlnAngle{angle}"] = angles[:, i]
    optics = {
        "rlnOpticsGroup": 1,
        "rlnOpticsGroupName": "opticsGroup1",
        "rlnVoltage": VOLTAGE,
        "rlnSphericalAberration": SPHERICAL_ABERRATION,
        "rlnAmplitudeContrast": AMPLITUDE_CONTRAST,
        "rlnTomoTiltSeriesPixelSize": settings.pixel_size,
    }
    write_star({"optics": pd.DataFrame([optics]), "particles": particles}, directory / "particles.star")


def _write_truth(directory: Path, settings: Settings, structures: dict[str, Structure], truth: pd.DataFrame) -> None:
    box = 2 * ceil(0.75 * settings.diameter / settings.pixel_size)
    for label, structure in structures.items():
        name = "structure.mrc" if label == "a" else f"structure_{label}.mrc"
        write_map(directory / "truth" / name, density(structure, box, settings.pixel_size), settings.pixel_size)
    truth.to_csv(directory / "truth" / "particles.csv", index=False, float_format="%.5f")
    pd.Series(asdict(settings)).to_json(directory / "truth" / "settings.json", indent=1)
    # A user's map never is on the pipeline's grid: neither is this one.
    voxel = 1.24 * settings.pixel_size
    size = 2 * ceil(0.7 * settings.diameter / voxel)
    known = structures["a"]
    blurred = Structure(known.centres, known.weights, sqrt(known.sigma**2 + 30.0**2 * log(2) / (2 * pi**2)))
    write_map(directory / "template.mrc", density(blurred, size, voxel), voxel)
