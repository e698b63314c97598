"""Errors of poses with several priors on offsets: see benchmarks/offsets."""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from truth import called, lay_out

from py2rely_core.simulation.truth import compare_map, compare_poses

HOME = Path(__file__).resolve().parent.parent / ".demo/offsets"


@dataclass(frozen=True)
class Sample:
    """A structure at a pixel size; lengths in Angstrom."""

    structure: str
    symmetry: str
    diameter: float
    pixel_size: float
    binning: int
    image_size: int
    thickness: int


SAMPLES = {
    "ribosome, C1, 20 A": Sample("ribosome", "C1", 290, 5, 4, 480, 80),
    "ribosome, C1, 10 A": Sample("ribosome", "C1", 290, 5, 2, 480, 80),
    "invented, D2, 10 A": Sample("invented", "D2", 150, 5, 2, 240, 64),
    "invented, D2, 5 A": Sample("invented", "D2", 150, 5, 1, 240, 64),
    "apoferritin, O, 8 A": Sample("apoferritin", "O", 150, 4, 2, 240, 80),
    "apoferritin, O, 4 A": Sample("apoferritin", "O", 150, 4, 1, 240, 80),
}
#: Name to options of relion_refine, of a pixel size in Angstrom.
PRIORS = {
    "RELION's": lambda pixel_size: [],
    "wide at first": lambda pixel_size: ["--offset", 10 * pixel_size],
    "wide and fixed": lambda pixel_size: ["--offset", 10 * pixel_size, "--fix_sigma_offset"],
}


def main() -> None:
    """Print a line per sample, noise and prior."""
    parser = argparse.ArgumentParser(prog="benchmarks/offsets")
    parser.add_argument("--noises", default="5,10,20", help="of demo-data")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--shift-error", type=float, default=6, help="of the picks, Angstrom")
    arguments = parser.parse_args()
    HOME.mkdir(parents=True, exist_ok=True)
    noises = [float(one) for one in arguments.noises.split(",")]
    with (HOME / "table.md").open("w") as table:
        for line in itertools.chain(HEAD, rows(noises, arguments.seeds, arguments.shift_error)):
            print(line, flush=True)
            print(line, file=table, flush=True)


HEAD = (
    f"| sample | noise | {' | '.join(PRIORS)} |",
    f"|---|---|{'---|' * len(PRIORS)}",
)


def rows(noises: list[float], seeds: int, shift_error: float) -> Iterator[str]:
    """Medians and 90 % of the errors of all seeds together."""
    for (name, sample), noise in itertools.product(SAMPLES.items(), noises):
        errors: dict[str, list[np.ndarray]] = {prior: [] for prior in PRIORS}
        failed = dict.fromkeys(PRIORS, 0)
        for seed in range(1, seeds + 1):
            place = HOME / f"{sample.structure}-{sample.pixel_size * sample.binning:g}-{noise:g}-{seed}"
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            extract(sample, noise, seed, shift_error, place)
            for prior in PRIORS:
                found = refine(sample, prior, place)
                failed[prior] += found is None
                errors[prior] += [] if found is None else [found]
        cells = [shown(errors[prior], failed[prior]) for prior in PRIORS]
        yield f"| {name} | {noise:g} | {' | '.join(cells)} |"


def shown(errors: list[np.ndarray], failed: int) -> str:
    """Angles and shifts of all particles; how often RELION ended with an error."""
    text = ""
    if errors:
        middle, most = np.percentile(np.concatenate(errors), [50, 90], axis=0)
        text = f"{middle[0]:.1f}° ({most[0]:.1f}), {middle[1]:.1f} A ({most[1]:.1f})"
    return f"{text}{' ' if text and failed else ''}{f'{failed} failed' if failed else ''}"


def extract(sample: Sample, noise: float, seed: int, shift_error: float, place: Path) -> None:
    """Images of 40 particles that are known to a few degrees and Angstrom."""
    options = ["--structure", sample.structure, "--symmetry", sample.symmetry, "--noise", noise, "--seed", seed]
    options += ["--pixel-size", sample.pixel_size, "--image-size", sample.image_size, "--thickness", sample.thickness]
    options += ["--angle-error", 8, "--shift-error", shift_error, "--tilt-step", 8, "--dose", 3]
    called(place, "py2rely", "demo-data", "data", *options, log="demo-data.txt")
    lay_out(place / "data", place)
    tables = ["--t", "tilt_series.star", "--b", box_of(sample), "--bin", sample.binning, "--j", os.cpu_count() or 1]
    called(place, "relion_tomo_subtomo", "--p", "picks.star", "--o", "Extract/", *tables, "--stack2d",
           log="extract.txt")  # fmt: skip
    grid = ["-b", box_of(sample), "--output-voxel-size", sample.pixel_size * sample.binning, "-lp", 30]
    called(place, "py2rely", "prepare", "template", "-i", "template.mrc", *grid, "-o", "reference.mrc",
           log="template.txt")  # fmt: skip


def box_of(sample: Sample) -> int:
    """Pixels."""
    return 2 * round(1.4 * sample.diameter / (sample.pixel_size * sample.binning) / 2)


def refine(sample: Sample, prior: str, place: Path) -> np.ndarray | None:
    """Errors of angles (degrees) and shifts (Angstrom) after a local refinement; None: RELION ended with an error."""
    pixel_size = sample.pixel_size * sample.binning
    name = prior.replace(" ", "_").replace("'", "")
    words = [
        "mpirun", "-n", 3, "relion_refine_mpi", "--o", f"{name}/run", "--auto_refine", "--split_random_halves",
        "--low_resol_join_halves", 40, "--i", "Extract/particles.star", "--tomograms", "tilt_series.star",
        "--ref", "reference.mrc", "--trust_ref_size", "--ini_high", 30, "--ctf", "--particle_diameter",
        sample.diameter, "--flatten_solvent", "--zero_mask", "--oversampling", 1, "--healpix_order", 3,
        "--auto_local_healpix_order", 3, "--offset_range", 3, "--offset_step", 2, "--sym", sample.symmetry, "--norm",
        "--scale", "--pad", 1, "--pool", 30, "--dont_combine_weights_via_disc", "--j", 1, "--random_seed", 1,
        "--coarse_size", 2 * round(0.3 * box_of(sample)), *PRIORS[prior](pixel_size),
    ]  # fmt: skip
    (place / name).mkdir()
    try:
        called(place, *words, log=f"{name}.txt")
    except subprocess.CalledProcessError:
        return None
    frame = None
    if sample.symmetry.startswith("C"):
        truth = place / "data/truth/structure.mrc"
        frame = compare_map(place / name / "run_class001.mrc", truth, sample.diameter, sample.binning, align=True).frame
    poses = compare_poses(place / name / "run_data.star", place / "data", sample.symmetry, frame)
    return poses[["angle_error", "shift_error"]].to_numpy()


if __name__ == "__main__":
    main()
