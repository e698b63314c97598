"""Simulated tilt series with known truth: a sum of Gaussians is projected analytically, so nothing is interpolated."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from math import asin, ceil, log, pi, sqrt
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from py2rely_core.data.geometry import AXES, euler_to_matrix, matrix_to_euler, tilt_matrices
from py2rely_core.data.tables import write_star
from py2rely_core.maps.io import write_map
from py2rely_core.simulation.structures import (
    INVENTED,
    Structure,
    density,
    make_junk,
    make_structure,
    second_of,
    structure_of,
    transform,
)

VOLTAGE, SPHERICAL_ABERRATION, AMPLITUDE_CONTRAST = 300.0, 2.7, 0.07


@dataclass(frozen=True)
class Settings:
    """What is simulated. Lengths in Angstrom, defocus in micrometres, angles in degrees.

    Attributes
    ----------
    noise : float
        Standard deviation of the white noise, in units of the standard deviation of a particle's image.
    angle_error, shift_error : float
        Standard deviation of the errors of the orientations and positions in ``particles.star``.
    random_angles : bool
        Orientations in ``particles.star`` are random: unknown.
    structure : str
        ``invented``, or as :func:`py2rely_core.simulation.structures.structure_of` takes it.
    second : str
        What the second conformation is, as :func:`py2rely_core.simulation.structures.second_of` takes it.
    false_picks : float
        Picks without a particle, as a share of the particles.
    junk : str
        What lies at false picks, in turn, separated by commas: ``nothing``, ``blobs`` (ice), ``beads`` (gold),
        ``membranes``, ``other`` (another structure of this size). Empty: nothing.
    second_conformation : float
        Share of particles of which one domain has moved.
    defocus_error : float
        Standard deviation, Angstrom, of the error of each tilt series' defocus in its STAR file.
    motion : float
        Root mean square, Angstrom, of the particles' displacement after the whole dose, along each axis.
    """

    tilt_series: int = 2
    particles: int = 20
    pixel_size: float = 2.5
    image_size: int = 320
    thickness: int = 128
    diameter: float = 130.0
    symmetry: str = "O"
    tilt_range: float = 60.0
    tilt_step: float = 10.0
    defocus: float = 3.0
    dose: float = 1.0
    noise: float = 2.0
    seed: int = 0
    angle_error: float = 0.0
    shift_error: float = 0.0
    random_angles: bool = False
    false_picks: float = 0.0
    junk: str = ""
    second_conformation: float = 0.0
    defocus_error: float = 0.0
    motion: float = 0.0
    name_prefix: str = "TS_"
    structure: str = INVENTED
    second: str = "moved"


def wavelength(voltage: float) -> float:
    """Electron wavelength, Angstrom, of a voltage in kV."""
    volts = voltage * 1e3
    return 12.2643247 / sqrt(volts * (1 + volts * 0.978466e-6))


def ctf(frequency: np.ndarray, defocus: float) -> np.ndarray:
    """RELION's contrast transfer function, positive at low frequency.

    Parameters
    ----------
    frequency : array
        1/Angstrom.
    defocus : float
        Angstrom, positive for underfocus.
    """
    wave = wavelength(VOLTAGE)
    phase = pi * wave * defocus * frequency**2 - pi / 2 * SPHERICAL_ABERRATION * 1e7 * wave**3 * frequency**4
    return np.sin(phase + asin(AMPLITUDE_CONTRAST))


def damage(frequency: np.ndarray, dose: float) -> np.ndarray:
    """Amplitude left after a dose in e/A^2 (Grant and Grigorieff 2015)."""
    with np.errstate(divide="ignore"):
        critical = 0.245 * frequency ** (-1.665) + 2.81
    return np.exp(-dose / (2 * critical))


def tilt_table(settings: Settings, number: int, rng: np.random.Generator) -> pd.DataFrame:
    """Alignment and CTF values of one tilt series, ordered by tilt, exposed from the middle outwards."""
    angles = np.arange(-settings.tilt_range, settings.tilt_range + 1e-6, settings.tilt_step)
    order = np.argsort(np.argsort(np.abs(angles), kind="stable"))
    defocus = 1e4 * (settings.defocus + 0.4 * (number % 3 - 1)) + rng.normal(0, 50, len(angles))
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


def displacements(positions: np.ndarray, tilts: pd.DataFrame, motion: float, rng: np.random.Generator) -> np.ndarray:
    """Beam-induced motion: a random walk with the dose, the same for neighbours and different across the field.

    Parameters
    ----------
    positions : (n, 3) float
        Angstrom from the tomogram's centre.
    tilts : DataFrame
        As :func:`tilt_table` makes it.
    motion : float
        Root mean square after the last exposure, Angstrom, along each axis.

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
    extent = max(float(np.abs(positions).max()), 1.0)
    fields = np.concatenate([np.ones((len(positions), 1)), positions / extent], axis=1) / sqrt(2)
    return np.einsum("nf,tfx->ntx", fields, walk)


def project(
    structure: Structure,
    poses: np.ndarray,
    positions: np.ndarray,
    tilts: pd.DataFrame,
    settings: Settings,
    moved: np.ndarray | None = None,
) -> np.ndarray:
    """Noise-free images of particles of one structure.

    Parameters
    ----------
    structure : Structure
    poses : (n, 3, 3) float
        From the reference to the tomogram.
    positions : (n, 3) float
        Angstrom from the tomogram's centre.
    tilts : DataFrame
        As :func:`tilt_table` makes it.
    settings : Settings
    moved : (n, n_tilts, 3) float, optional
        Displacement of each particle in each tilt, Angstrom.

    Returns
    -------
    (n_tilts, image_size, image_size) float32
        Particles are dark.
    """
    size, pixel = settings.image_size, settings.pixel_size
    patch = 2 * ceil((settings.diameter + 300) / pixel / 2)
    fy, fx = np.fft.fftfreq(patch, pixel), np.fft.rfftfreq(patch, pixel)
    frequency = np.sqrt(fy[:, None] ** 2 + fx**2)
    envelope = np.exp(-2 * (pi * structure.sigma * frequency) ** 2)
    images = np.zeros((len(tilts), size, size))
    for tilt, (matrix, row) in enumerate(zip(tilt_matrices(tilts), tilts.itertuples(), strict=True)):
        decay = envelope * damage(frequency, row.rlnMicrographPreExposure)
        offsets = np.zeros_like(positions) if moved is None else moved[:, tilt]
        for pose, position in zip(poses, positions + offsets, strict=True):
            camera = matrix @ position
            blobs = structure.centres @ (matrix @ pose).T[:, :2]
            shift = np.array([row.rlnTomoXShiftAngst, row.rlnTomoYShiftAngst])
            centre = (camera[:2] + shift) / pixel + size // 2
            corner = np.rint(centre).astype(int) - patch // 2
            image = transform((blobs / pixel + centre - corner)[:, ::-1], structure.weights, patch)
            # rlnTomoHand = -1: what is nearer to the source has less defocus.
            image *= decay * ctf(frequency, row.rlnDefocusU - camera[2])
            _add(images[tilt], np.fft.irfft2(image, s=(patch, patch)), corner)
    return -images.astype(np.float32)


def _add(image: np.ndarray, patch: np.ndarray, corner: np.ndarray) -> None:
    x, y = corner
    low_y, high_y = max(0, y), min(image.shape[0], y + patch.shape[0])
    low_x, high_x = max(0, x), min(image.shape[1], x + patch.shape[1])
    if low_y < high_y and low_x < high_x:
        image[low_y:high_y, low_x:high_x] += patch[low_y - y : high_y - y, low_x - x : high_x - x]


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
    truth, tomograms = [], []
    (directory / "tilt_series").mkdir(parents=True, exist_ok=True)
    for number in range(1, settings.tilt_series + 1):
        rng = np.random.default_rng([settings.seed, number])
        name = f"{settings.name_prefix}{number:02d}"
        truth.append(_write_tilt_series(directory, settings, structures, name, number, rng))
        tomograms.append(_global_row(settings, name))
    table = pd.concat(truth, ignore_index=True)
    write_star({"global": pd.DataFrame(tomograms)}, directory / "tilt_series.star")
    _write_particles(directory, settings, table)
    _write_truth(directory, settings, structures, table)
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


def _write_tilt_series(
    directory: Path,
    settings: Settings,
    structures: dict[str, Structure],
    name: str,
    number: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    tilts = tilt_table(settings, number, rng)
    n_false = round(settings.false_picks * settings.particles)
    positions = place(settings, settings.particles + n_false, rng)
    labels = np.array(["a"] * settings.particles + ["false"] * n_false)
    labels[: round(settings.second_conformation * settings.particles)] = "b"
    poses = Rotation.random(len(labels), rng=rng).as_matrix()
    kinds = settings.junk.split(",") if settings.junk else ["nothing"]
    of_kind = np.array([""] * settings.particles + [kinds[n % len(kinds)] for n in range(n_false)], dtype=object)
    # Streams of their own: data without motion or defocus errors are the same whether or not others have them.
    moved = displacements(positions, tilts, settings.motion, np.random.default_rng([settings.seed, number, 1]))
    images = sum(
        project(structure, poses[labels == label], positions[labels == label], tilts, settings, moved[labels == label])
        for label, structure in structures.items()
    )
    for kind in dict.fromkeys(kinds if n_false else ()):
        # Ice differs from place to place; of the others only the view does.
        places = np.flatnonzero(of_kind == kind)
        for one, here in enumerate(np.split(places, len(places)) if kind == "blobs" else [places]):
            junk = make_junk(kind, settings.diameter, settings.seed + (1000 * number + one if kind == "blobs" else 0))
            if junk is not None:
                images = images + project(junk, poses[here], positions[here], tilts, settings, moved[here])
    images = images + rng.normal(0, settings.noise * _signal(structures["a"], settings), images.shape)
    file = f"tilt_series/{name}.mrcs"
    with mrcfile.new(directory / file, overwrite=True) as mrc:
        mrc.set_data(images.astype(np.float32))
        mrc.set_image_stack()
        mrc.voxel_size = settings.pixel_size
        # The time of writing would make two runs differ.
        mrc.header.label[:] = b""
        mrc.header.nlabl = 0
    names = [f"{section}@{file}" for section in range(1, len(tilts) + 1)]
    tilts.insert(0, "rlnMicrographName", names)
    (directory / "truth").mkdir(exist_ok=True)
    tilts[["rlnTomoYTilt", "rlnDefocusU"]].to_csv(directory / f"truth/{name}_defocus.csv", index=False)
    np.save(directory / f"truth/{name}_motion.npy", moved.astype(np.float32))
    error = np.random.default_rng([settings.seed, number, 2]).normal(0, settings.defocus_error)
    tilts[["rlnDefocusU", "rlnDefocusV"]] += error
    write_star({name: tilts}, directory / f"tilt_series/{name}.star")
    order = rng.permutation(len(labels))
    angles = matrix_to_euler(poses)
    columns = {"tomogram": name, "label": labels}
    columns |= {axis.lower(): positions[:, i] for i, axis in enumerate(AXES)}
    columns |= {angle: angles[:, i] for i, angle in enumerate(("rot", "tilt", "psi"))}
    columns |= {"kind": of_kind} if settings.junk else {}
    return pd.DataFrame(columns).iloc[order]


def _signal(structure: Structure, settings: Settings) -> float:
    """Standard deviation of a particle's untilted image within its diameter."""
    tilts = pd.DataFrame([dict.fromkeys(("rlnTomoXTilt", "rlnTomoYTilt", "rlnTomoZRot"), 0.0)])
    tilts = tilts.assign(rlnTomoXShiftAngst=0.0, rlnTomoYShiftAngst=0.0, rlnMicrographPreExposure=0.0)
    tilts["rlnDefocusU"] = 1e4 * settings.defocus
    image = project(structure, np.eye(3)[None], np.zeros((1, 3)), tilts, settings)[0]
    axis = (np.arange(settings.image_size) - settings.image_size // 2) * settings.pixel_size
    return float(image[np.hypot(axis[:, None], axis) < settings.diameter / 2].std())


def _global_row(settings: Settings, name: str) -> dict[str, object]:
    return {
        "rlnTomoName": name,
        "rlnVoltage": VOLTAGE,
        "rlnSphericalAberration": SPHERICAL_ABERRATION,
        "rlnAmplitudeContrast": AMPLITUDE_CONTRAST,
        "rlnMicrographOriginalPixelSize": settings.pixel_size,
        "rlnTomoHand": -1.0,
        "rlnOpticsGroupName": "opticsGroup1",
        "rlnTomoTiltSeriesPixelSize": settings.pixel_size,
        "rlnTomoTiltSeriesStarFile": f"tilt_series/{name}.star",
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
