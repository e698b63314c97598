"""Particles for cryoDRGN-ET and tomoDRGN: 2D stacks without CTF premultiplication, and one STAR file of their images.

The file has one table with a row for every image, with Warp's labels: cryoDRGN reads it as it reads its own
``cryodrgn_utils parse_relion``'s, tomoDRGN as a file of Warp 1. Their conventions:

* ``rlnGroupName`` says which images are one particle's. Images of a particle follow each other in the order of dose.
* ``rlnCtfScalefactor`` is the cosine of the tilt (cryoDRGN ranks tilts by it, tomoDRGN weights by it), and
  ``rlnCtfBfactor`` minus four times the dose before the image (tomoDRGN's dose).
* Angles are those of the particle in the image's own frame; shifts are zero, as images are cut out around the particle.
* Both programs invert images, and expect them light on dark, as RELION writes them.
"""

from __future__ import annotations

import contextlib
from ast import literal_eval
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from py2rely_core.data.geometry import matrix_to_euler, orientations, projected, tilt_matrices, true_positions
from py2rely_core.data.inputs import Inputs
from py2rely_core.data.tables import read_star, write_star
from py2rely_core.exporters.run import Source
from py2rely_core.exporters.series import dose_of, move_series, tilt_angles
from py2rely_core.importers.result import refuse_existing
from py2rely_core.maps.io import read_header
from py2rely_core.parameters.boxes import box_size
from py2rely_core.problems import ExitCode, Problem, ProblemError
from py2rely_core.relion.outputs.job import row_count
from py2rely_core.relion.outputs.particles import check_extract
from py2rely_core.relion.run import run_job

#: Images of a particle that cryoDRGN encodes, as its own default.
ENCODED_TILTS = 10
EXTRACT = Path("Extract")
STAR = "particles.star"


@dataclass(frozen=True)
class Stacks:
    """What is extracted.

    Attributes
    ----------
    binning : int
    box : int
        Pixels at this binning, even.
    min_tilts : int
        Particles that are seen in fewer images are left out.
    threads : int
    """

    binning: int
    box: int
    min_tilts: int = 1
    threads: int = 1


def planned_stacks(source: Source, binning: int, box: int | None, min_tilts: int, threads: int) -> Stacks:
    """What is asked for; the box is as large as the run's own would be at this binning where it is not given.

    Raises
    ------
    ProblemError
        A number is impossible.
    """
    problems = []
    if binning < 1:
        problems.append(Problem(f"{binning} is no binning.", "--binning", "1 or more", "Correct it."))
    elif box is None:
        level = source.level
        scaling = source.dataset["parameters"]["resolutions"]["box_scaling"]
        box = box_size(source.dataset["particle_diameter"], level["pixel_size"] / level["binning"], binning, scaling)
    elif box < 8 or box % 2:
        problems.append(Problem(f"{box} pixels is no box.", "--box", "even, 8 or more", "Correct it."))
    if min_tilts < 1:
        problems.append(Problem(f"{min_tilts} tilts are none.", "--min-tilts", "1 or more", "Correct it."))
    if problems:
        raise ProblemError(problems, ExitCode.BAD_PARAMETERS)
    return Stacks(binning, box or 0, min_tilts, threads)


def export_heterogeneity(
    source: Source, output: Path, stacks: Stacks, particles: Path | None = None, overwrite: bool = False
) -> list[str]:
    """Extract the stacks, and write the STAR file and the commands to start with.

    Parameters
    ----------
    source : Source
    output : Path
        Directory.
    stacks : Stacks
    particles : Path, optional
        Other particles than the final ones, such as those of a class.
    overwrite : bool
        Replace what an earlier export wrote.

    Returns
    -------
    list of str
        What was written.

    Raises
    ------
    ProblemError
        A table or an image is missing, RELION failed, or something is there already.
    """
    refuse_existing([output / STAR], overwrite)
    inputs = source.inputs(particles.absolute() if particles else None)
    _check_images(inputs)
    moved = move_series(inputs, lambda _, path: str(path.absolute()), set(inputs.particles["rlnTomoName"].astype(str)))
    given = {"optics": inputs.optics, "particles": inputs.particles}
    for name, blocks in (moved.tables | {"given_particles.star": given}).items():
        write_star(_below(blocks, "tables"), output / "tables" / name)
    command = ["relion_tomo_subtomo", "--t", "tables/tomograms.star", "--p", "tables/given_particles.star"]
    command += ["--o", f"{EXTRACT}/", "--b", str(stacks.box), "--bin", str(stacks.binning), "--stack2d", "--no_ctf"]
    command += ["--min_frames", str(stacks.min_tilts), "--j", str(stacks.threads)]
    if source.final["motion"]:
        command += ["--mot", str(source.file(source.final["motion"]))]
    pixel_size = float(inputs.tomograms["rlnTomoTiltSeriesPixelSize"].iloc[0]) * stacks.binning
    with contextlib.chdir(output):
        run_job(EXTRACT, command)
        _check_min_tilts(EXTRACT / "particles.star", len(inputs.particles), stacks.min_tilts)
        check_extract(EXTRACT, Path("tables/given_particles.star"), stacks.box, pixel_size)
        blocks = read_star(EXTRACT / "particles.star")
    table = image_table(blocks["particles"], blocks["optics"], inputs)
    write_star({"": table}, output / STAR)
    counts = table["rlnGroupName"].value_counts()
    (output / "start.sh").write_text(start_commands(table, inputs))
    lost = len(inputs.particles) - len(counts)
    images = f"{counts.min()} to {counts.max()} images" if counts.min() < counts.max() else f"{counts.min()} images"
    size = f"{stacks.box} x {stacks.box} pixels of {pixel_size:.4g} A"
    notes = [f"{output / STAR}: {len(counts)} particles with {images} each, {size}, CTF not applied"]
    notes += [f"left out {lost} particles that too few tilts see"] if lost else []
    return [*notes, f"{output / 'start.sh'}: the commands to start with, of cryoDRGN and of tomoDRGN"]


def _below(blocks: dict[str, pd.DataFrame], folder: str) -> dict[str, pd.DataFrame]:
    """Tables whose paths of tilt series begin one directory higher."""
    label = "rlnTomoTiltSeriesStarFile"
    return {name: table.assign(**{label: [f"{folder}/{path}" for path in table[label]]}) if label in table else table
            for name, table in blocks.items()}  # fmt: skip


def _check_min_tilts(extracted: Path, given: int, min_tilts: int) -> None:
    """Most particles were left out as it was asked for: that is said as what it is, and not as a failed extraction."""
    left = row_count(extracted)
    if min_tilts > 1 and left < 0.5 * given:
        what = f"Only {left} of {given} particles are seen in {min_tilts} images or more."
        raise ProblemError(Problem(what, "--min-tilts", "half of the particles or more", "Give a smaller number."))


def _check_images(inputs: Inputs) -> None:
    missing = [str(path) for path in inputs.stacks() if not path.is_file()]
    if missing:
        fix = "Copy the tilt images back to where they were during the run."
        what = f"{len(missing)} stacks of tilt images are missing, such as {missing[0]}."
        raise ProblemError(Problem(what, str(inputs.tilt_series_file), "existing files", fix))


def image_table(particles: pd.DataFrame, optics: pd.DataFrame, inputs: Inputs) -> pd.DataFrame:
    """One row for every image of every particle.

    Parameters
    ----------
    particles, optics : DataFrame
        What ``relion_tomo_subtomo --stack2d`` wrote: a stack has the images in which a particle is seen, in the order
        of the tilt-series table.
    inputs : Inputs
        The tilt series.

    Raises
    ------
    ProblemError
        The images have the CTF applied, or are no 2D stacks.
    """
    premultiplied = optics.get("rlnCtfDataAreCtfPremultiplied", pd.Series([1]))
    if premultiplied.astype(int).any() or (optics["rlnImageDimensionality"].astype(int) != 2).any():
        fix = "Use RELION 5, and leave the command as it is."
        raise ProblemError(Problem("The images are not as asked for.", "data_optics", "2D, CTF not applied", fix))
    merged = particles.merge(optics, on="rlnOpticsGroup", how="left", validate="many_to_one", suffixes=("", "_optics"))
    rotations, positions = orientations(particles), true_positions(particles)
    rows = merged.groupby(merged["rlnTomoName"].astype(str), sort=False).indices
    parts = [
        _images_of(merged.iloc[mine], rotations[mine], positions[mine], inputs, name) for name, mine in rows.items()
    ]
    return pd.concat(parts, ignore_index=True)


def _images_of(
    particles: pd.DataFrame, rotations: np.ndarray, positions: np.ndarray, inputs: Inputs, name: str
) -> pd.DataFrame:
    """The rows of one tomogram's particles."""
    series = inputs.tilt_series[name]
    row = inputs.tomograms[inputs.tomograms["rlnTomoName"].astype(str) == name].iloc[0]
    tilts, pixel_size = series.tilts, float(row["rlnTomoTiltSeriesPixelSize"])
    seen = np.array([literal_eval(str(text)) for text in particles["rlnTomoVisibleFrames"]], dtype=bool)
    dose = _column(tilts, "rlnMicrographPreExposure")
    # (particle, tilt) of every image, particle by particle in the order of dose.
    order = np.argsort(dose, kind="stable")
    who, place = np.nonzero(seen[:, order])
    tilt = order[place]
    section = np.cumsum(seen, axis=1)[who, tilt]
    camera = tilt_matrices(tilts)
    # As Tomogram::getCtf does (src/jaz/tomography/tomogram.cpp): the defocus changes with the depth along the beam.
    slope = float(row.get("rlnTomoHand", 1)) * float(row.get("rlnTomoDefocusSlope", 1))
    depth = slope * np.einsum("ij,ij->i", camera[tilt, 2], positions[who])
    height, width = read_header(series.stacks[0]).shape[1:]
    places = projected(tilts, positions)[tilt, who] / pixel_size + np.array([width, height]) / 2
    angles = matrix_to_euler(camera[tilt] @ rotations[who])
    mine = particles.iloc[who].reset_index(drop=True)
    table = pd.DataFrame({"rlnMagnification": np.full(len(who), 10000.0)})
    table["rlnDetectorPixelSize"] = table["rlnImagePixelSize"] = mine["rlnImagePixelSize"].astype(float)
    table["rlnImageSize"] = mine["rlnImageSize"].astype(int)
    for label in ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"):
        table[label] = mine[label].astype(float)
    table["rlnPhaseShift"] = _column(tilts, "rlnPhaseShift")[tilt]
    table["rlnDefocusU"] = _column(tilts, "rlnDefocusU")[tilt] + depth
    table["rlnDefocusV"] = _column(tilts, "rlnDefocusV")[tilt] + depth
    table["rlnDefocusAngle"] = _column(tilts, "rlnDefocusAngle")[tilt]
    stacks = mine["rlnImageName"]
    table["rlnImageName"] = [f"{number:06d}@{stack}" for number, stack in zip(section, stacks, strict=True)]
    table["rlnMicrographName"] = name
    table["rlnCoordinateX"], table["rlnCoordinateY"] = places.T
    table["rlnAngleRot"], table["rlnAngleTilt"], table["rlnAnglePsi"] = angles.T
    table["rlnOriginX"] = table["rlnOriginY"] = 0.0
    table["rlnCtfBfactor"] = -4 * dose[tilt]
    table["rlnCtfScalefactor"] = np.clip(camera[tilt, 2, 2], 0, 1)
    table["rlnMicrographPreExposure"] = dose[tilt]
    table["rlnTomoYTilt"] = _column(tilts, "rlnTomoYTilt")[tilt]
    if "rlnRandomSubset" in mine:
        table["rlnRandomSubset"] = mine["rlnRandomSubset"].astype(int)
    return table.assign(rlnGroupName=mine["rlnTomoParticleName"].astype(str))


def _column(tilts: pd.DataFrame, label: str) -> np.ndarray:
    return tilts[label].to_numpy(dtype=float) if label in tilts else np.zeros(len(tilts))


def start_commands(table: pd.DataFrame, inputs: Inputs) -> str:
    """The shell commands to start both programs with, in the directory of the STAR file."""
    used = [inputs.tilt_series[name].tilts for name in table["rlnMicrographName"].unique()]
    doses = [dose[0] for tilts in used if (dose := dose_of(tilts))]
    steps = [float(np.median(np.diff(found))) for tilts in used if len(found := tilt_angles(tilts)) > 1]
    tilts = int(min(ENCODED_TILTS, table["rlnGroupName"].value_counts().min()))
    # cryoDRGN filters by dose only where it is told one.
    filtered = f" --dose-per-tilt {np.median(doses):.4g}" if doses else ""
    filtered += f" --angle-per-tilt {np.median(steps):.4g}" if steps else ""
    data = "--poses pose.pkl --ctf ctf.pkl --datadir ."
    weights = "--recon-tilt-weight --recon-dose-weight" if doses else "--recon-tilt-weight"
    return "\n".join(
        [
            "# In this directory. First see that backprojection gives the map that you know; then train.",
            "# Images are light on dark, as both programs expect them: no --uninvert-data.",
            "",
            "# cryoDRGN-ET",
            f"cryodrgn parse_pose_star {STAR} -o pose.pkl",
            f"cryodrgn parse_ctf_star {STAR} -o ctf.pkl",
            f"cryodrgn backproject_voxel {STAR} {data} --tilt --ntilts {tilts}{filtered} -o cryodrgn_backproject",
            f"cryodrgn train_vae {STAR} {data} --encode-mode tilt --ntilts {tilts}{filtered} --zdim 8 --num-epochs 50 "
            "--beta .025 -o cryodrgn_train",
            "",
            "# tomoDRGN",
            f"tomodrgn backproject_voxel {STAR} --datadir . {weights} -o tomodrgn_backproject/map.mrc",
            f"tomodrgn train_vae {STAR} --datadir . {weights} --zdim 8 --num-epochs 50 -o tomodrgn_train",
            "",
        ]
    )
