"""A classification's RELION steps without Nextflow, with the plan's own flags; and its choice against the truth."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from helpers import LONG, TINY, cli, make_data, write_parameters
from scipy.spatial import cKDTree

from py2rely_core.data.geometry import AXES, true_positions
from py2rely_core.data.tables import read_star
from py2rely_core.parameters.files import load_recipe
from py2rely_core.planning.plan import Machine, plan_dataset

#: Larger images than TINY's hold as many false picks as particles; with more of them classes are told apart.
ROOMY = TINY | {"image_size": 240, "tilt_step": 10.0, "particles": 20}
#: Picks of nothing fit everywhere a little: refinements spend minutes on them once the sampling becomes fine.
ITERATIONS = 4


@dataclass(frozen=True)
class Score:
    """Particles of a selection that are wanted, as a share of the selection and of all that are wanted."""

    precision: float
    recall: float


def labels_of(particles: Path, data: Path) -> pd.Series:
    """What each particle truly is: the label of the nearest pick of the simulation."""
    table = read_star(particles)["particles"].reset_index(drop=True)
    truth = pd.read_csv(data / "truth/particles.csv", dtype={"tomogram": str})
    labels = pd.Series("", index=table.index)
    for name, rows in table.groupby("rlnTomoName").indices.items():
        picks = truth[truth["tomogram"] == name]
        _, nearest = cKDTree(picks[[axis.lower() for axis in AXES]]).query(true_positions(table.iloc[rows]))
        labels.iloc[rows] = picks["label"].to_numpy()[nearest]
    return labels


def score(selected: Path, data: Path, wanted: str) -> Score:
    """Precision and recall of a particle set, against the picks of one label."""
    found = labels_of(selected, data) == wanted
    all_wanted = (pd.read_csv(data / "truth/particles.csv")["label"] == wanted).sum()
    return Score(float(found.mean()), float(found.sum() / all_wanted))


def classify(home: Path, classes: int, *, min_per_half: int = 4, **settings: object) -> Path:
    """Simulate, align with the first iterations of a refinement, and classify at bin 2.

    Returns
    -------
    Path
        `home`, which holds ``data``, ``Class3D/bin2`` and ``Select``.
    """
    home.mkdir(parents=True, exist_ok=True)
    make_data(home / "data", **ROOMY | {"angle_error": 2.0, "shift_error": 3.0} | settings)
    parameters = write_parameters(
        home / "sta.json", home / "data",
        refine3D=LONG | {"other_args": f"--auto_iter_max {ITERATIONS}"}, class3D={"nr_classes": classes, "nr_iter": 12},
        classification={"run": True, "min_per_half": min_per_half},
    )  # fmt: skip
    plan = plan_dataset(load_recipe(parameters), "known", 2, Machine(2))["levels"][0]
    saved = Path.cwd()
    os.chdir(home)
    try:
        _steps(plan)
    finally:
        os.chdir(saved)
    return home


def _steps(plan: dict) -> None:
    series, size, run = "--t Import/tomograms.star", f"--box {plan['size']} --pixel-size 10", plan["classification"]
    cli("task", "import", "--project", ".", "--particles", "data/particles.star", "--tilt-series",
        "data/tilt_series.star", "--symmetry", "O", "--output", ".")  # fmt: skip
    series = f"--t {next(Path('Import').glob('*/tomograms.star'))}"
    grid = f"--b {plan['extract']['box']} --crop {plan['extract']['crop']} --bin 2 --j 2"

    def average(name: str, particles: str) -> None:
        _relion(f"Reconstruct/{name}", f"relion_tomo_reconstruct_particle {series} --p {particles}"
                f" --o Reconstruct/{name}/ {grid} --sym O --j_out 2 --j_in 1")  # fmt: skip
        cli("task", "mask-threshold", f"Reconstruct/{name}/merged.mrc", "--half-map", f"Reconstruct/{name}/half1.mrc",
            "--diameter", plan["diameter"], "--output", f"MaskCreate/{name}", "--threshold", "")  # fmt: skip
        found = dict(line.split("=", 1) for line in Path(f"MaskCreate/{name}/settings.sh").read_text().splitlines())
        randomise = found["randomise"].strip("'")
        for edge in plan["mask"]["edges"]:
            _relion(f"MaskCreate/{name}", f"relion_mask_create --i Reconstruct/{name}/merged.mrc"
                    f" --o MaskCreate/{name}/mask.mrc --lowpass {found['low_pass']}"
                    f" --ini_threshold {found['threshold']}"
                    f" --extend_inimask {plan['mask']['extend']} --width_soft_edge {edge}")  # fmt: skip
            _relion(f"PostProcess/{name}", f"relion_postprocess --i Reconstruct/{name}/half1.mrc"
                    f" --mask MaskCreate/{name}/mask.mrc --o PostProcess/{name}/postprocess {randomise}")  # fmt: skip
            if _succeeds("mask-is-wide-enough", f"PostProcess/{name}", "--edge", edge):
                break
        cli("task", "check-postprocess", f"PostProcess/{name}", "--mask", f"MaskCreate/{name}/mask.mrc", *size.split())

    def refine(job: str, flags: str, options: dict, reference: str, mask: str) -> None:
        _relion(job, f"mpirun -n {options['ranks']} relion_refine_mpi --o {job}/run"
                f" {series.replace('--t', '--tomograms')}"
                f" --ref {reference} --trust_ref_size --solvent_mask {mask} --particle_diameter {plan['diameter']}"
                f" --sym O --j {options['threads']} {flags} {options['options']}")  # fmt: skip

    _relion("Extract/bin2", f"relion_tomo_subtomo {series} --p Select/input/particles.star --o Extract/bin2/ {grid}"
            f" {plan['extract']['options']}")  # fmt: skip
    average("bin2_start", "Select/input/particles.star")
    low_pass, reference = _number("PostProcess/bin2_start", "low_pass"), "Reconstruct/bin2_start/half1.mrc"
    refine("Refine3D/bin2", f"--i Extract/bin2/particles.star --solvent_correct_fsc --ini_high {low_pass}",
           plan["refine"], reference, "MaskCreate/bin2_start/mask.mrc")  # fmt: skip
    cli("task", "select", f"Refine3D/bin2/run_it{ITERATIONS:03d}_data.star", "--distance", plan["select"]["distance"],
        "--output", "Select/bin2")  # fmt: skip
    average("bin2_result", "Select/bin2/particles.star")
    mask, reference = "MaskCreate/bin2_result/mask.mrc", "Reconstruct/bin2_result/merged.mrc"
    how = run["run"]
    refine("Class3D/bin2", f"--i Select/bin2/particles.star --K {how['classes']} --iter {how['iterations']}"
           f" --tau2_fudge {how['tau']} --ini_high {how['low_pass']}", how, reference, mask)  # fmt: skip
    cli("task", "check-classes", "Class3D/bin2", "--iterations", run["run"]["iterations"], "--classes",
        run["run"]["classes"], "--particles", "Select/bin2/particles.star", "--reference", reference)  # fmt: skip
    _test_classes(run, series.replace("--t", "--tomograms"), mask)
    cli("task", "select-classes", "Class3D/bin2", "--tests", "ClassTest", "--mask", mask, "--diameter",
        plan["diameter"], "--choice", json.dumps(run["choice"]), "--output", "Select/bin2_classes",
        "--reference", "Select/bin2_reference")  # fmt: skip


def _test_classes(plan: dict, series: str, mask: str) -> None:
    job, block = "ClassTest/bin2", plan["test"]
    cli("task", "split-classes", job, "--classification", "Class3D/bin2", *series.split(), "--choice", "{}")
    found = dict(line.split("=", 1) for line in Path(f"{job}/settings.sh").read_text().splitlines())
    found = {name: value.strip("'") for name, value in found.items()}
    flags = f"--iter 1 --tau2_fudge 1 --skip_align {series} --trust_ref_size --ini_high {found['low_pass']}"
    flags += f" --solvent_mask {mask} --particle_diameter {block['diameter']} --sym {block['symmetry']} --j 2"
    flags += f" {block['options']}"
    for name in found["averages"].split():
        _relion(job, f"relion_refine {flags} --K 1 --i {job}/{name}.star --o {job}/run_{name}"
                f" --ref Class3D/bin2/run_{name.split('_')[0]}.mrc")  # fmt: skip
    for half in found["halves"].split():
        _relion(job, f"relion_refine {flags} --K {found['number']} --i {job}/half{half}.star --o {job}/run_half{half}"
                f" --ref {job}/references{half}.star")  # fmt: skip
    cli("task", "check-class-test", job)


def _relion(job: str, command: str) -> None:
    from py2rely_core.relion.run import run_job

    run_job(Path(job), command.split())


def _succeeds(*task: object) -> bool:
    return subprocess.run(["py2rely", "task", *map(str, task)], check=False, capture_output=True).returncode == 0


def _number(job: str, name: str) -> float:
    return json.loads((Path(job) / "job.json").read_text())[name]
