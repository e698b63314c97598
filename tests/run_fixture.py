"""A run's directories as Nextflow and RELION leave them while it goes on, when it failed, and when it died."""

import json
import os
import shutil
import socket
import time
from datetime import datetime

import numpy as np
from report_fixture import DIAMETER, LEVELS, PIXEL_SIZE, make_jobs, make_plan

from py2rely_core.maps.filters import gaussian_low_pass
from py2rely_core.maps.io import write_map
from py2rely_core.results.status import read_status
from py2rely_core.simulation.structures import density, make_structure

NOW = 1_800_000_000.0
MODEL = """
data_model_general
_rlnCurrentResolution {resolution}

data_model_classes
loop_
_rlnReferenceImage #1
_rlnClassDistribution #2
_rlnEstimatedResolution #3
"""


def at(path, moment):
    os.utime(path, (moment, moment))


class FakeRun:
    """A run's output and work directories, with as much in them as the test puts there."""

    def __init__(self, root, now=NOW, **record):
        self.root, self.results, self.work, self.now = root, root / "results", root / "work", now
        self.results.mkdir(parents=True)
        self.rows = []
        self.record = {
            "name": "calm_fermi", "launch_dir": str(root), "work_dir": str(self.work), "started": now - 1000,
            "command": "nextflow run .", "profile": "local", "host": "another", "pid": 1, "state": "running",
        } | record  # fmt: skip
        (self.results / "run.json").write_text(json.dumps(self.record))
        at(self.results / "run.json", self.record["started"])

    def task(self, key, name, begin, job=None, exit_code=None, end=None, status=None, numbers=None):
        directory = self.work / key / f"{key}0123456789"
        directory.mkdir(parents=True)
        (directory / ".command.run").write_text(f"#!/bin/bash\n### ---\n### name: '{name}'\n")
        (directory / ".command.sh").write_text("py2rely task relion JOB -- relion_refine --iter 25 --o x\n")
        (directory / ".command.begin").touch()
        if job:
            (directory / job).mkdir(parents=True)
            if numbers is not None:
                (directory / job / "job.json").write_text(json.dumps(numbers))
        if exit_code is not None:
            (directory / ".exitcode").write_text(str(exit_code))
            at(directory / ".exitcode", end)
        for file in (".command.run", ".command.begin", ".command.sh"):
            at(directory / file, begin)
        if status:
            times = [datetime.fromtimestamp(moment).isoformat(sep=" ") for moment in (begin, begin, end)]
            self.rows.append("\t".join([name, status, str(exit_code), *times, str(directory)]))
            lines = ["name\tstatus\texit\tsubmit\tstart\tcomplete\tworkdir", *self.rows]
            (self.results / "trace.tsv").write_text("\n".join(lines) + "\n")
            at(self.results / "trace.tsv", end)
        return directory

    def plan(self, *binnings, mode="known"):
        directory = self.task("aa", "STA:PLAN (1)", self.now - 900, exit_code=0, end=self.now - 890, status="COMPLETED")
        levels = [{"binning": binning} for binning in binnings]
        plan = {"datasets": [{"id": "main", "initial_reference": {"mode": mode, "iterations": 3}, "levels": levels}]}
        (directory / "plan.json").write_text(json.dumps(plan))

    def status(self):
        found = read_status(self.results, self.now)
        return found["run"], {step["name"]: step for step in found["steps"]}


def iteration(job, number, resolution, moment, classes=((1.0, None),), half="half1_"):
    rows = [f"map{n}.mrc {share} {value or resolution}" for n, (share, value) in enumerate(classes)]
    path = job / f"run_it{number:03d}_{half}model.star"
    path.write_text(MODEL.format(resolution=resolution) + "\n".join(rows) + "\n")
    at(path, moment)


#: What RELION writes of an iteration, as far as it is looked at.
ITERATION_MODEL = """
data_model_general
_rlnCurrentResolution {resolution}
_rlnPixelSize {pixel_size}

data_model_classes
loop_
_rlnReferenceImage #1
_rlnClassDistribution #2
_rlnAccuracyRotations #3
_rlnAccuracyTranslationsAngst #4
_rlnEstimatedResolution #5
map.mrc 1.0 1.2 1.5 {resolution}

data_model_class_1
loop_
_rlnSpectralIndex #1
_rlnAngstromResolution #2
_rlnGoldStandardFsc #3
0 999.0 1.0
{shells}
"""
OPTIMISER = """
data_optimiser_general
_rlnParticleDiameter 150.0
_rlnChangesOptimalOrientations {change}
_rlnChangesOptimalOffsets {change}
_rlnChangesOptimalClasses 0
"""
#: A line of an output that would be more than text if it were ever taken for markup.
HOSTILE = "<script>document.title = 'broken'</script><img src=x onerror=alert(1)>"


class WatchedRun(FakeRun):
    """Two levels: the first is done, the second is in its refinement."""

    def __init__(self, root, now=None, **record):
        super().__init__(root, now or time.time(), **record)
        self.structure = make_structure(DIAMETER, "O", 3)
        self.numbers = make_jobs((4, 2), polished=False)
        plan = make_plan("main")
        plan["datasets"][0]["initial_reference"] = {"mode": "known", "iterations": 3}
        for level in plan["datasets"][0]["levels"]:
            level["mask"] = {"threshold": "", "extend": 2, "edges": [3, 6]}
        planning = self.task("aa", "STA:PLAN (1)", self.now - 990, exit_code=0, end=self.now - 980, status="COMPLETED")
        (planning / "plan.json").write_text(json.dumps(plan))
        self.places = {}
        self.done("ab", "IMPORT", "Import/tilt_series", 970)
        self.done("ac", "EXTRACT", "Extract/bin4", 950, "Import/tilt_series")
        refine = self.done("ad", "REFINE3D", "Refine3D/bin4", 900, "Extract/bin4")
        write_map(refine / "Refine3D/bin4/run_class001.mrc", self.map(4), 4 * PIXEL_SIZE)
        self.done("ae", "SELECT", "Select/bin4", 500, "Refine3D/bin4")
        average = (
            self.done("af", "RECONSTRUCT", "Reconstruct/bin4_result", 480, "Select/bin4") / "Reconstruct/bin4_result"
        )
        for seed, name in enumerate(("half1", "half2", "merged")):
            write_map(average / f"{name}.mrc", self.map(4, noise=0.3, seed=seed), 4 * PIXEL_SIZE)
        post = self.done("ba", "POSTPROCESS", "PostProcess/bin4_result", 460, "Reconstruct/bin4_result")
        write_map(post / "PostProcess/bin4_result/postprocess.mrc", self.map(4), 4 * PIXEL_SIZE)
        (post / "MaskCreate/bin4_result").mkdir(parents=True)
        self.done("bb", "EXTRACT", "Extract/bin2", 440, "Select/bin4")
        self.refine = self.task("bc", "STA:REFINE3D (bin2)", self.now - 400, "Refine3D/bin2")
        self.stage(self.refine, "Extract/bin2")
        self.job = self.refine / "Refine3D/bin2"
        (self.job / "run.out").write_text(f"first line\n {HOSTILE}\n")
        for number in range(4):
            self.iterate(number)

    def done(self, key, process, job, ago, *inputs):
        numbers = self.numbers.get(job, {"job": job, "wall_seconds": 5, "relion_seconds": 4, "commands": []})
        directory = self.task(
            key,
            f"STA:{process} ({job.partition('/')[2]})",
            self.now - ago,
            job,
            0,
            self.now - ago + 10,
            "COMPLETED",
            numbers,
        )
        noted = {"command": ["relion_program", "--o", f"{job}/", "it's"], "exit_code": 0, "seconds": 4}
        noted["inputs"] = [f"{one}/{'half1.mrc' if 'Reconstruct' in one else 'particles.star'}" for one in inputs]
        noted["started"] = self.now - ago
        (directory / job / "commands.jsonl").write_text(json.dumps(noted) + "\n")
        (directory / job / "run.out").write_text(f"{job} says that it is done\n")
        (directory / ".command.err").touch()
        self.places[job] = directory / job
        self.stage(directory, *inputs)
        return directory

    def stage(self, directory, *jobs):
        """Link the jobs that a task is given, as Nextflow does."""
        for job in jobs:
            (directory / job).parent.mkdir(exist_ok=True)
            (directory / job).symlink_to(self.places[job])

    def map(self, binning, noise=0.02, seed=0, resolution=None):
        box, final = LEVELS[binning][:2]
        data = gaussian_low_pass(
            density(self.structure, box, PIXEL_SIZE * binning), PIXEL_SIZE * binning, resolution or final
        )
        return data + np.random.default_rng(seed).normal(scale=noise * data.std(), size=data.shape).astype(np.float32)

    def iterate(self, number):
        """RELION's files of one more iteration."""
        resolution = round(60 / (number + 1), 2)
        shells = [(48 * 2 * PIXEL_SIZE / n, round(1 / (1 + (n / (4 + 3 * number)) ** 6), 4)) for n in range(1, 25)]
        text = "\n".join(f"{n} {shell:.3f} {value}" for n, (shell, value) in enumerate(shells, start=1))
        for half in (1, 2):
            data = self.map(2, seed=half, resolution=resolution)
            write_map(self.job / f"run_it{number:03d}_half{half}_class001.mrc", data, 2 * PIXEL_SIZE)
        (self.job / f"run_it{number:03d}_optimiser.star").write_text(OPTIMISER.format(change=8 / (number + 1)))
        model = ITERATION_MODEL.format(resolution=resolution, pixel_size=2 * PIXEL_SIZE, shells=text)
        (self.job / f"run_it{number:03d}_half1_model.star").write_text(model)
        with (self.job / "run.out").open("a") as file:
            file.write(f" Auto-refine: Iteration= {number}\n")

    def end(self, state, **more):
        """How the run ends: as it says itself, or (crashed) without a word."""
        if state == "crashed":
            self.record |= {"host": socket.gethostname(), "pid": 2**22 - 1}
        else:
            self.record |= {"state": state, "ended": self.now - 1} | more
        (self.results / "run.json").write_text(json.dumps(self.record))

    def fail(self):
        """The refinement runs out of memory, and the run ends."""
        (self.job / "run.err").write_text(
            f"terminate called after throwing an instance of 'std::bad_alloc' {HOSTILE}\n"
        )
        (self.refine / ".command.err").write_text(
            "py2rely: 1 problem\n1. [error] Refine3D/bin2: relion_refine_mpi ran out of memory or was killed.\n"
            "    to do: Give the step more memory.\n"
        )
        (self.refine / ".exitcode").write_text("137")
        self.end("failed", error=f"Process failed {HOSTILE}")

    def lose_work(self):
        """The work directory is gone; what was published is left."""
        for job, place in self.places.items():
            shutil.copytree(place, self.results / job)
        shutil.rmtree(self.work)
