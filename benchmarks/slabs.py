"""Precision and recall of what 2D classification of slabs keeps, by share of junk and seed: see benchmarks/slabs.

Three crowded tomograms of one structure, without symmetry unless whole runs follow, with unknown orientations; false
picks lie in turn at nothing, blobs of ice, beads of gold, membranes, and another structure of the same size. The steps
are those of a run.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pandas as pd
from truth import COARSE, REPO, at_resolutions, called, coarse

from py2rely_core.data.tables import read_star
from py2rely_core.judging.slab_classes import SlabChoice, choose_slab_classes, read_class2d, select_slabs
from py2rely_core.parameters.recipe import Recipe
from py2rely_core.planning.plan import Machine, plan_dataset
from py2rely_core.relion import slabs as work
from py2rely_core.relion.outputs.refinements import check_class2d
from py2rely_core.relion.run import run_job
from py2rely_core.simulation.simulate import Settings, write_dataset
from py2rely_core.simulation.truth import compare_run

PICKS, TOMOGRAMS, DIAMETER = 80, 3, 150.0
JUNK = "nothing,blobs,beads,membranes,other"
#: Picks of each tomogram, and point group, of whole runs: a global search without symmetry would take hours.
OF_RUNS = (40, "O")


def simulate(place: Path, share: float, seed: int, noise: float, picks: int, symmetry: str) -> None:
    """A data set of which a share of the picks is junk."""
    good = round(picks * (1 - share))
    write_dataset(
        place,
        Settings(
            tilt_series=TOMOGRAMS, particles=good, pixel_size=5.0, image_size=400, thickness=100, diameter=DIAMETER,
            symmetry=symmetry, tilt_step=10.0, noise=noise, seed=seed, shift_error=5.0, random_angles=True,
            false_picks=(picks - good) / good, junk=JUNK,
        ),
    )  # fmt: skip


def classify(place: Path, second: int) -> float:
    """Cut, classify and choose, as a run does, in a second round with so many classes (0: none); seconds."""
    started = time.time()
    recipe = Recipe.model_validate({
        "resolutions": {"angpix": 5.0, "binning_list": [2]}, "refine3D": {"particle_diameter": DIAMETER},
        "slabs": {"run": True, "second_classes": second},
    })  # fmt: skip
    plan = plan_dataset(recipe, "known", TOMOGRAMS, Machine(1), n_particles=PICKS * TOMOGRAMS)["slabs"]
    table = read_star(place / "tilt_series.star")["global"]
    slabs = Path("Extract/slabs")
    saved = Path.cwd()
    os.chdir(place)
    try:
        settings = work.Settings(**plan["cut"]["settings"])
        source = work.reconstructed(slabs, table, settings)
        work.make_slabs(slabs, Path("particles.star"), settings, source, table, work.least_tilt(table, Path))
        star = slabs / work.PARTICLES
        for number, run in enumerate(plan["rounds"]):
            job, output = (Path(f"{kind}/slabs{'_second' * number}") for kind in ("Class2D", "Select"))
            command = ["relion_refine", "--o", f"{job}/run", "--i", str(star), "--K", str(run["classes"])]
            command += ["--iter", str(run["iterations"]), "--j", "1", *run["options"].split()]
            run_job(job, command)
            check_class2d(job, star, run["iterations"], run["classes"])
            found = read_class2d(job)
            selection = choose_slab_classes(found, DIAMETER, SlabChoice(**plan["choice"]))
            select_slabs(found, slabs, selection, output, True, [])
            star = output / "slabs.star"
    finally:
        os.chdir(saved)
    return time.time() - started


def judge(place: Path, name: str = "slabs") -> dict[str, object]:
    """What was kept, against the truth: the rows of the picks are those of the truth."""
    truth = pd.read_csv(place / "truth/particles.csv", dtype={"tomogram": str}, keep_default_na=False)
    picks, kept = (read_star(place / name)["particles"] for name in ("particles.star", f"Select/{name}/particles.star"))
    key = ["rlnTomoName", "rlnCenteredCoordinateXAngst", "rlnCenteredCoordinateYAngst", "rlnCenteredCoordinateZAngst"]
    index = picks.assign(row=range(len(picks))).merge(kept[key], on=key)["row"]
    label, kind = truth["label"].iloc[index], truth["kind"].iloc[index]
    good, other = int((label == "a").sum()), int((kind == "other").sum())
    noted = json.loads((place / f"Select/{name}/job.json").read_text())
    return {
        "picks": len(picks), "true": int((truth["label"] == "a").sum()), "kept": len(kept), "kept_true": good,
        "precision": good / len(kept), "recall": good / (truth["label"] == "a").sum(),
        "precision_without_other": good / (len(kept) - other), "not_judged": noted["not_judged"],
        "reason": noted["reason"],
    }  # fmt: skip


def run_both(place: Path) -> None:
    """Whole runs from the same picks, without and with the step: times, and maps beside the truth."""
    called(
        place, "py2rely", "prepare", "relion5-parameters", "--tilt-series", "tilt_series.star", "--particles",
        "particles.star", "--tilt-series-pixel-size", 5, "--symmetry", OF_RUNS[1], "--protein-diameter", DIAMETER,
        "--box-scaling", 1.5, "--binning-list", "2", log="prepare.txt",
    )  # fmt: skip
    for name, options in (("without", []), ("with", ["--run_class2D"])):
        words = ["nextflow", "run", REPO, "-profile", "local", "--parameter", "sta_parameters.json", "--outdir", name]
        words += ["--reference_template", "template.mrc", *COARSE, *options]
        words += ["--refine3D.other_args", coarse(DIAMETER, 10), "--refine3D.auto_faster", "yes"]
        seconds = called(place, *words, log=f"{name}.txt")
        (dataset,) = json.loads((place / name / "results.json").read_text())["datasets"]
        maps, _poses = compare_run(place / name, place)
        curve = " / ".join(f"{one:.2f}" for one in at_resolutions(maps[-1].resolutions, maps[-1].fsc)[:2])
        final = dataset["final"]
        used = len(read_star(place / name / final["particles"])["particles"])
        print(
            f"  {name:8} {used:5d} particles  FSC to the truth at 30, 20 A {curve}  "
            f"claimed {final['resolution']:.1f} A  orientations {final['orientations']}  "
            f"{seconds:.0f} s, of RELION's CPU {cpu_seconds(place / name):.0f} s",
            flush=True,
        )


def cpu_seconds(results: Path) -> float:
    """Of all RELION programs of a run: what a machine that does other work does not change."""
    own = (path for path in results.glob("*/*/job.json") if not path.parent.is_symlink())
    noted = [json.loads(path.read_text()) for path in own]
    return sum(one.get("cpu_seconds") or 0.0 for one in noted)


def main() -> None:
    """Measure what was asked for, and print a table."""
    root, second, runs = Path(sys.argv[1]).absolute(), 4 if "--second" in sys.argv else 0, "--runs" in sys.argv
    if not runs:
        print("  junk seed noise  picks  kept  precision  of them without another structure  recall  seconds")
    for text in [word for word in sys.argv[2:] if not word.startswith("--")]:
        share, seed, *rest = text.split(":")
        noise = float(rest[0]) if rest else 3.0
        place = root / f"{text.replace(':', '_')}{'_runs' * runs}"
        if not (place / "particles.star").is_file():
            simulate(place, float(share), int(seed), noise, *(OF_RUNS if runs else (PICKS, "C1")))
        if runs:
            print(f"{float(share):6.0%} junk, seed {seed}, noise {noise:g}", flush=True)
            run_both(place)
            continue
        seconds = classify(place, second)
        found = judge(place, "slabs_second" if second else "slabs")
        numbers = f"{float(share):6.0%} {seed:>4} {noise:5.1f} {found['picks']:6d} {found['kept']:5d}"
        shares = f"{found['precision']:10.2f} {found['precision_without_other']:34.2f} {found['recall']:7.2f}"
        print(f"{numbers} {shares} {seconds:8.0f}  {found['reason']}", flush=True)


if __name__ == "__main__":
    main()
