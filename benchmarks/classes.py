"""Ribosomes in two conformations, classified and chosen by the rule, beside the truth: see benchmarks/classes."""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from truth import REPO, called

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.simulation.structures import MISSING, ROTATED
from py2rely_core.simulation.truth import compare_poses

HOME = REPO / ".demo/classes"
SHARES, SEEDS = (0.2, 0.4), (1, 2)
#: Of the mask, Angstrom; binning of images with 5 A per pixel; particles of each of two tilt series.
DIAMETER, BINNING, PARTICLES = 290, 2, 100
HEAD = (
    "| second | share | seed | first + second of each class | pure | apart | kept | precision | recall | |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Print a line per set."""
    parser = argparse.ArgumentParser(prog="benchmarks/classes")
    parser.add_argument("sets", nargs="*")
    parser.add_argument("--noise", type=float, default=5)
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--resume", action="store_true", help="what is done already is not done again")
    given = parser.parse_args()
    every = [
        f"{second}:{share}:{seed}" for second, share, seed in itertools.product((*MISSING, ROTATED), SHARES, SEEDS)
    ]
    print(HEAD, flush=True)
    for text in given.sets or every:
        second, share, seed = text.split(":")
        place = HOME / f"{second.replace(' ', '_')}-{share}-{seed}-{given.noise:g}"
        if not given.resume or not (place / "sta_parameters.json").is_file():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            simulate(place, second, float(share), int(seed), given.noise, given.classes)
        run(place)
        print(row(place, second, float(share), int(seed)), flush=True)


def simulate(place: Path, second: str, share: float, seed: int, noise: float, classes: int) -> None:
    """Particles whose poses are a little off, as a refinement would have left them; and the parameters of the run."""
    called(
        place, "py2rely", "demo-data", "data", "--structure", "ribosome", "--symmetry", "C1", "--noise", noise,
        "--second", second, "--second-conformation", share, "--particles", PARTICLES, "--pixel-size", 5,
        "--image-size", 960, "--thickness", 100, "--angle-error", 1, "--shift-error", 1, "--tilt-step", 8,
        "--dose", 3, "--seed", seed, log="demo-data.txt",
    )  # fmt: skip
    called(
        place, "py2rely", "prepare", "relion5-parameters", "--tilt-series", "data/tilt_series.star", "--particles",
        "data/particles.star", "--tilt-series-pixel-size", 5, "--symmetry", "C1", "--protein-diameter", DIAMETER,
        "--box-scaling", 1.3, "--binning-list", BINNING, "--nclasses", classes, log="prepare.txt",
    )  # fmt: skip


def run(place: Path) -> None:
    """Average and classify particles as they are oriented; the run ends with the classes and what the rule thinks."""
    called(
        place, "nextflow", "run", REPO, "-profile", "local", "--parameter", "sta_parameters.json", "--run_class3D",
        "--class_selection", "manual", "--refine3D.other_args=--skip_align", "--orientations.test", "no", "-resume",
        log="nextflow.txt",
    )  # fmt: skip


def row(place: Path, second: str, share: float, seed: int) -> str:
    """A line of the table."""
    results = place / "results"
    noted = json.loads((results / f"Select/bin{BINNING}_classes/job.json").read_text())
    rule = noted["rule"][f"bin{BINNING}"]
    numbers = counts(results / f"Class3D/bin{BINNING}/run_data.star", place / "data")
    kept = {one["class"] for one in rule["classes"] if one["keep"]}
    apart = ", ".join("-" if one["apart"] is None else f"{one['apart']:.0%}" for one in noted["classes"])
    first, other = np.sum([found for number, found in numbers.items() if number in kept], axis=0)
    whole = np.sum(list(numbers.values()), axis=0)
    pure = sum(max(found) for found in numbers.values()) / whole.sum()
    shown = ", ".join(f"{a} + {b}" for a, b in numbers.values())
    cells = (second, f"{share:.0%}", seed, shown, f"{pure:.2f}", apart, ", ".join(map(str, sorted(kept))))
    judged = (f"{first / (first + other):.2f}", f"{first / whole[0]:.2f}", rule["reason"])
    return f"| {' | '.join(map(str, [*cells, *judged]))} |"


def counts(particles: Path, data: Path) -> dict[int, tuple[int, int]]:
    """By number of the class: particles of the first conformation, and of the second."""
    blocks = read_star(particles)
    table, found = blocks["particles"], {}
    for number, rows in table.groupby("rlnClassNumber"):
        with tempfile.TemporaryDirectory() as temporary:
            own = Path(temporary) / "class.star"
            write_star(blocks | {"particles": rows}, own)
            labels = compare_poses(own, data, "C1")["label"]
        found[int(number)] = (int((labels == "a").sum()), int((labels != "a").sum()))
    return found


if __name__ == "__main__":
    main()
