"""Runs on simulated data beside the truth, and beside RELION's programs called by hand: see benchmarks/truth."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.maps.io import write_map
from py2rely_core.maps.masks import spherical_mask
from py2rely_core.simulation.truth import MapComparison, compare_map, compare_poses, compare_run

REPO = Path(__file__).resolve().parent.parent
HOME = REPO / ".demo/truth"
#: At which the FSC to the truth is printed, Angstrom.
RESOLUTIONS = (30.0, 20.0, 15.0, 10.0)
#: Within which an orientation counts as right, degrees.
RIGHT = 15.0
#: By which the resolution that is claimed may be better than the true one, in shells of the map.
MOST_SHELLS = 1.0
#: Of the box, by the particle's diameter; of images in RELION's first look at each pose, by the box.
BOX, FIRST_LOOK = 1.5, 0.55


@dataclass(frozen=True)
class Case:
    """One data set and one run of it.

    Attributes
    ----------
    structure, symmetry : str
        As ``py2rely demo-data`` takes them.
    diameter : float
        Of the mask, Angstrom.
    noise : float or None
        In units of an image's standard deviation; None: that of images as from a microscope.
    levels : str
        Binnings.
    mode : {"template", "denovo", "known"}
        The first reference.
    data, run : tuple of str
        More options of ``py2rely demo-data`` and of the run.
    pixel_size, image_size, thickness : float, int, int
        Of the images.
    by_hand : bool
        Whether RELION's programs are called by hand, too.
    """

    structure: str
    symmetry: str
    diameter: float
    noise: float | None
    levels: str
    mode: str = "template"
    data: tuple[str, ...] = ()
    run: tuple[str, ...] = ()
    pixel_size: float = 2.5
    image_size: int = 320
    thickness: int = 128
    particles: int = 20
    by_hand: bool = False
    seed: int = 1


#: Searches that end in minutes on two cores.
REFINE = (
    "--refine3D.sampling", "15 degrees", "--refine3D.auto_local_sampling", "3.7 degrees",
    "--refine3D.offset_range", "3",
)  # fmt: skip
COARSE = ("--class3D.sampling", "15 degrees", "--class3D.offset_range", "3",
          "--initial_reference.template_iterations", "5", *REFINE)  # fmt: skip
FAST = (*REFINE[:-1], "2", "--refine3D.auto_faster", "yes")
DENOVO = ("--initial_model.nr_iter", "50", "--initial_model.offset_range", "3", *REFINE)
#: Orientations, defocus and motion that bin 1 is to mend, and what of it ends in an hour.
UNREFINED = ("--angle-error", "3", "--defocus-error", "1000", "--motion", "4")
POLISHED = (*FAST, "--polishing.cycles", "1")
#: Four tilt series of other defoci, so that the zeros of their CTFs do not coincide.
DEFOCI = ("--tilt-series", "4", "--defocus-spread", "1.2")
LARGE: dict[str, Any] = {"pixel_size": 5.0, "image_size": 480, "thickness": 80}
MEDIUM: dict[str, Any] = {"pixel_size": 3.5, "image_size": 240, "thickness": 92}
DEMO: dict[str, Any] = {"pixel_size": 2.0, "image_size": 400, "thickness": 160, "particles": 12}
SMALL: dict[str, Any] = {"pixel_size": 5.0, "image_size": 240, "thickness": 64, "particles": 30}

CASES = {
    "short": Case("apoferritin", "O", 150, 4, "4", "known", ("--angle-error", "3"), FAST, **DEMO),
    "short-noise-only": Case("apoferritin", "O", 150, 100, "4", "known", ("--angle-error", "3"), FAST, **DEMO),
    "apoferritin": Case("apoferritin", "O", 150, 3, "4,2", run=COARSE, by_hand=True),
    "apoferritin-noisy": Case("apoferritin", "O", 150, 6, "4,2", run=COARSE),
    "apoferritin-noise-only": Case("apoferritin", "O", 150, 100, "4", run=COARSE),
    "apoferritin-realistic": Case("apoferritin", "O", 150, None, "4,2", data=("--realistic",), run=COARSE),
    "apoferritin-defaults": Case("apoferritin", "O", 150, 3, "4,2"),
    "apoferritin-known": Case("apoferritin", "O", 150, 3, "2,1", "known", UNREFINED, POLISHED, **MEDIUM),
    "invented-O": Case("invented", "O", 150, 5, "4,2", run=COARSE, by_hand=True),
    "invented-D2": Case("invented", "D2", 150, 3, "2", run=COARSE, **SMALL),
    "invented-D2-denovo": Case("invented", "D2", 150, 1.5, "2", "denovo", run=DENOVO, **SMALL),
    "invented-C1": Case("invented", "C1", 150, 3, "2", run=COARSE, **SMALL),
    "ribosome": Case("ribosome", "C1", 290, 5, "2", run=COARSE, by_hand=True, **LARGE),
    "ribosome-realistic": Case(
        "ribosome",
        "C1",
        290,
        None,
        "2",
        "known",
        ("--angle-error", "3", "--realistic", *DEFOCI),
        FAST,
        particles=10,
        **LARGE,
    ),
    "ribosome-known": Case("ribosome", "C1", 290, 5, "2,1", "known", UNREFINED, POLISHED, **LARGE),
}


@dataclass
class Outcome:
    """What came out of one case: a line of the table.

    Attributes
    ----------
    claimed, true : float
        Resolution, Angstrom: of the half maps (0.143), and FSC to the truth at 0.5; None: beyond Nyquist.
    angle, shift : float
        Median errors, degrees and Angstrom; None where a map of the other hand has no poses to compare.
    right : float
        Share of the particles that came through whose orientations are within ``RIGHT``.
    correlations : list of float
        FSC to the truth at ``RESOLUTIONS``; NaN beyond Nyquist.
    extent : float
        Edge of the map, Angstrom.
    """

    name: str
    claimed: float | None = None
    true: float | None = None
    angle: float | None = None
    shift: float | None = None
    right: float | None = None
    kept: int = 0
    particles: int = 0
    verdict: str = ""
    correlations: list[float] = field(default_factory=list)
    seconds: float = 0.0
    extent: float = 0.0

    @property
    def shells(self) -> float:
        """By how many shells the resolution claimed is better than the true one; negative: it is worse."""
        beyond = [1 / value if value else 0.0 for value in (self.claimed, self.true)]
        return (beyond[0] - beyond[1]) * self.extent if self.true else 0.0

    def row(self) -> str:
        """Of a Markdown table."""
        error = "" if self.angle is None else f"{self.angle:.1f}°, {self.shift:.1f} A"
        right = "" if self.right is None else f"{self.right:.0%}"
        curve = " / ".join("-" if value != value else f"{value:.2f}" for value in self.correlations)
        claimed, true = (f"{value:.1f}" if value else "to Nyquist" for value in (self.claimed, self.true))
        cells = (self.name, f"{self.kept} of {self.particles}", error, right, curve, f"{claimed} / {true}")
        return f"| {' | '.join(cells)} | {self.verdict} | {self.seconds / 60:.0f} min |"


HEAD = (
    f"| case | particles | median error | within {RIGHT:g}° | FSC to the truth at "
    f"{', '.join(f'{one:g}' for one in RESOLUTIONS)} A | claimed / true resolution, A | orientations | time |\n"
    "|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Run the cases that are named, and print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks/truth")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--seed", type=int)
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    arguments, options = parser.parse_args(words[:end]), words[end + 1 :]
    if arguments.list:
        print("\n".join(CASES))
        return
    unknown = set(arguments.names) - set(CASES)
    if unknown:
        parser.error(f"no case is called {', '.join(sorted(unknown))}: see --list")
    HOME.mkdir(parents=True, exist_ok=True)
    claims = []
    with (HOME / "table.md").open("w") as table:
        print(HEAD, flush=True)
        print(HEAD, file=table, flush=True)
        for outcome in outcomes(arguments.names or list(CASES), options, arguments.seed):
            print(outcome.row(), flush=True)
            print(outcome.row(), file=table, flush=True)
            if outcome.shells > MOST_SHELLS and outcome.verdict != "not determined":
                claims.append(f"{outcome.name}: better than the truth by {outcome.shells:.1f} shells")
    if claims:
        sys.exit("Resolution claimed:\n  " + "\n  ".join(claims))


def outcomes(names: list[str], options: list[str], seed: int | None) -> Iterator[Outcome]:
    """What came out of one case after the other, as they end."""
    for name in names:
        case = CASES[name]
        own = case.seed if seed is None else seed
        place = HOME / f"{name}-{own}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        simulate(case, place, own)
        yield by_pipeline(name, case, place, options)
        if case.by_hand:
            yield by_hand(name, case, place)


def called(place: Path, *words: object, log: str) -> float:
    """Run a program in a directory; seconds. Its output is in a file there."""
    started = time.time()
    with (place / log).open("w") as output:
        subprocess.run([str(word) for word in words], cwd=place, stdout=output, stderr=subprocess.STDOUT, check=True)
    return time.time() - started


def simulate(case: Case, place: Path, seed: int) -> None:
    """Two tilt series with picks a few Angstrom off; orientations are unknown unless the run begins with them."""
    options = ["--structure", case.structure, "--symmetry", case.symmetry, "--seed", seed]
    options += [] if case.noise is None else ["--noise", case.noise]
    options += ["--particles", case.particles, "--pixel-size", case.pixel_size, "--image-size", case.image_size]
    options += ["--thickness", case.thickness, "--shift-error", 3, "--tilt-step", 8, "--dose", 3, *case.data]
    options += [] if case.mode == "known" else ["--random-angles"]
    called(place, "py2rely", "demo-data", "data", *options, log="demo-data.txt")


def by_pipeline(name: str, case: Case, place: Path, options: list[str]) -> Outcome:
    """The run, from the parameter file on."""
    called(
        place, "py2rely", "prepare", "relion5-parameters", "--tilt-series", "data/tilt_series.star",
        "--particles", "data/particles.star", "--tilt-series-pixel-size", case.pixel_size, "--symmetry", case.symmetry,
        "--protein-diameter", case.diameter, "--box-scaling", BOX, "--binning-list", case.levels, log="prepare.txt",
    )  # fmt: skip
    first = {
        "template": ["--reference_template", "data/template.mrc"],
        "denovo": ["--run_denovo_generation"],
        "known": [],
    }
    words = ["nextflow", "run", REPO, "-profile", "local", "--parameter", "sta_parameters.json", *first[case.mode]]
    small = chain.from_iterable(
        (f"--levels.{binning}.refine3D.other_args", coarse(case.diameter, case.pixel_size * int(binning)))
        for binning in case.levels.split(",")
    )
    seconds = called(place, *words, *case.run, *small, *options, log="nextflow.txt")
    maps, poses = compare_run(place / "results", place / "data")
    (dataset,) = json.loads((place / "results/results.json").read_text())["datasets"]
    final = dataset["final"]
    outcome = Outcome(
        name, final["resolution"], maps[-1].resolution, particles=dataset["particles_in"], seconds=seconds
    )
    outcome.verdict = final["orientations"]
    outcome.extent = extent_of(maps[-1])
    outcome.correlations = at_resolutions(maps[-1].resolutions, maps[-1].fsc)
    return outcome if poses is None else with_poses(outcome, poses)


def coarse(diameter: float, pixel_size: float) -> str:
    """The option that limits RELION's first look at each pose to few pixels: fine samplings are several times faster.

    Parameters
    ----------
    diameter : float
        Of the particle, Angstrom; its box is ``BOX`` times that.
    pixel_size : float
        Angstrom.
    """
    return f"--coarse_size {2 * round(FIRST_LOOK * BOX * diameter / pixel_size / 2)}"


def by_hand(name: str, case: Case, place: Path) -> Outcome:
    """The same data through RELION's programs, at the last level's binning straight away, as its tutorial does it."""
    binning = int(case.levels.split(",")[-1])
    pixel_size = case.pixel_size * binning
    box = 2 * round(BOX * case.diameter / pixel_size / 2)
    work, data = place / "by_hand", place / "data"
    for job in ("Refine3D", "PostProcess"):
        (work / job).mkdir(parents=True)
    particles = lay_out(data, work)
    cores = os.cpu_count() or 1
    grid = ["-b", box, "--output-voxel-size", pixel_size, "-lp", 2 * pixel_size, "-o", "reference.mrc"]
    tables = ["--t", "tilt_series.star", "--b", box, "--bin", binning, "--j", cores]
    steps: dict[str, list[object]] = {
        "template": ["py2rely", "prepare", "template", "-i", "template.mrc", *grid],
        "extract": ["relion_tomo_subtomo", "--p", "picks.star", "--o", "Extract/", *tables, "--stack2d"],
        "refine": [
            "mpirun", "-n", 3, "relion_refine_mpi", "--o", "Refine3D/run", "--auto_refine",
            "--split_random_halves", "--low_resol_join_halves", 40, "--i", "Extract/particles.star",
            "--tomograms", "tilt_series.star", "--ref", "reference.mrc", "--trust_ref_size", "--firstiter_cc",
            "--ini_high", 40, "--ctf", "--particle_diameter", case.diameter, "--flatten_solvent", "--zero_mask",
            "--oversampling", 1, "--healpix_order", 1 if case.symmetry == "C1" else 2, "--auto_local_healpix_order", 4,
            "--offset_range", 3, "--offset_step", 1, "--sym", case.symmetry, "--norm", "--scale", "--pad", 2,
            "--pool", 30, "--dont_combine_weights_via_disc", "--j", 1,
            *coarse(case.diameter, pixel_size).split(),
        ],
        "reconstruct": ["relion_tomo_reconstruct_particle", "--p", "Refine3D/run_data.star", "--o", "Average/", *tables,
                        "--sym", case.symmetry],
        "postprocess": ["relion_postprocess", "--i", "Average/half1.mrc", "--mask", "mask.mrc", "--o",
                        "PostProcess/run", "--angpix", pixel_size],
    }  # fmt: skip
    write_map(work / "mask.mrc", spherical_mask(box, case.diameter / 2 / pixel_size), pixel_size)
    seconds = sum(called(work, *words, log=f"{step}.txt") for step, words in steps.items())
    compared = compare_map(work / "Average/merged.mrc", data / "truth/structure.mrc", case.diameter, binning,
                           align=case.symmetry.startswith("C"))  # fmt: skip
    claimed = re.search(r"FINAL RESOLUTION:\s*([\d.]+)", (work / "postprocess.txt").read_text())
    outcome = Outcome(f"{name}, by hand", claimed and float(claimed[1]), compared.resolution, seconds=seconds)
    outcome.particles, outcome.extent = particles, extent_of(compared)
    outcome.correlations = at_resolutions(compared.resolutions, compared.fsc)
    return with_poses(outcome, compare_poses(work / "Refine3D/run_data.star", data, case.symmetry, compared.frame))


def lay_out(data: Path, work: Path) -> int:
    """Make a directory in which RELION finds a data set, and ``picks.star`` with names of particles; their number."""
    for entry in data.iterdir():
        (work / entry.name).symlink_to(entry)
    blocks = read_star(data / "particles.star")
    picks = blocks["particles"]
    picks["rlnTomoParticleName"] = picks["rlnTomoName"] + [f"/{number}" for number in range(len(picks))]
    write_star(blocks, work / "picks.star")
    return len(picks)


def extent_of(compared: MapComparison) -> float:
    """Edge of a map, Angstrom."""
    return compared.result.data.shape[0] * compared.result.pixel_size


def at_resolutions(resolutions: np.ndarray, curve: np.ndarray) -> list[float]:
    """A curve at ``RESOLUTIONS``, between its shells; NaN beyond Nyquist."""
    frequencies = 1 / resolutions[1:]
    return [float(np.interp(1 / one, frequencies, curve[1:], right=np.nan)) for one in RESOLUTIONS]


def with_poses(outcome: Outcome, poses: pd.DataFrame) -> Outcome:
    """With the errors of the particles that came through."""
    outcome.kept = len(poses)
    outcome.angle, outcome.shift = float(poses["angle_error"].median()), float(poses["shift_error"].median())
    outcome.right = float((poses["angle_error"] < RIGHT).mean())
    return outcome


if __name__ == "__main__":
    main()
