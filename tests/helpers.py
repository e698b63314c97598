"""Calls of the command line and the pipeline, and the small data set's parameters."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
from scipy.spatial.transform import Rotation

from py2rely_core.cli.main import main
from py2rely_core.data.tables import read_star, write_star
from py2rely_core.maps.io import read_map
from py2rely_core.simulation.simulate import Settings, write_dataset

REPO = Path(__file__).resolve().parents[1]
#: 10 A per pixel at bin 2: RELION's steps take seconds.
TINY = {"pixel_size": 5.0, "image_size": 160, "thickness": 64, "particles": 12, "tilt_series": 2, "noise": 1.5,
        "tilt_step": 20.0}  # fmt: skip
#: A file name that makes another file where a shell reads it as text.
HOSTILE = "-o O'Brien's $(touch MARKER) `touch MARKER`; touch MARKER.mrc"
#: For particles whose orientations are unknown: more noise than in TINY, and RELION finds them all the same.
NOISY = {"noise": 2.0}
#: A refinement that needs no more than seconds. The first pass of RELION's searches looks at 12 pixels of an image, at
#: 40 A in these data: a local search is then four times as fast, and finds the same.
QUICK = {"sampling": "3.7 degrees", "auto_local_sampling": "3.7 degrees", "offset_range": 2, "offset_step": 1,
         "auto_faster": True, "other_args": "--coarse_size 12"}  # fmt: skip
#: A run without the steps that judge a result and look at its map, where neither is the question.
PLAIN = {"orientations": {"test": "no"}, "map_analysis": {"sharpening": "no", "directions": "no"}}
#: One that goes on, with STEADY data for ten seconds, so that there is something to look at and to kill.
LONG = {"auto_faster": False}
STEADY = TINY | NOISY | {"particles": 20, "angle_error": 2.0, "shift_error": 3.0}


def make_data(path: Path, **settings: object) -> Path:
    write_dataset(path, Settings(**settings))
    return path


def cli(*arguments: object, code: int = 0) -> None:
    """Run py2rely in this process."""
    saved, sys.argv = sys.argv, ["py2rely", *map(str, arguments)]
    try:
        main()
        found = 0
    except SystemExit as error:
        found = error.code or 0
    finally:
        sys.argv = saved
    assert found == code


def write_parameters(path: Path, data: Path, binnings: str = "2", low_pass: float = 50, **blocks: dict) -> Path:
    """A parameter file for a data set of TINY, with fields changed."""
    cli(
        "prepare", "relion5-parameters", "-o", path, "-ts", data / "tilt_series.star", "-p", data / "particles.star",
        "-ps", 5, "-s", "O", "-lp", low_pass, "-pd", 150, "-bs", 1.5, "-bl", binnings,
    )  # fmt: skip
    parameters = json.loads(path.read_text())
    parameters["refine3D"] |= QUICK
    parameters["initial_reference"]["known_sigma_ang"] = 2.0
    for name, fields in blocks.items():
        parameters.setdefault(name, {})
        parameters[name] = (parameters[name] or {}) | fields
    path.write_text(json.dumps(parameters))
    return path


def write_template_parameters(path: Path, data: Path, iterations: int = 3, binnings: str = "2") -> Path:
    """A parameter file for a data set of TINY whose orientations are found with a template."""
    return write_parameters(
        path, data, binnings,
        refine3D={"sampling": "15 degrees", "auto_local_sampling": "3.7 degrees", "offset_range": 2},
        class3D={"sampling": "15 degrees", "offset_range": 2}, initial_reference={"template_iterations": iterations},
    )  # fmt: skip


#: Names of tilt series that a shell would take for commands and options.
ODD_NAMES = {"TS_01": "TS;$(>MARKER)&", "TS_02": "-o`>MARKER`|x"}


def ended_with_odd_names(results: Path) -> bool:
    """Whether every pick of :func:`odd_slabs` was looked at, under its name, and no name was taken for a command."""
    source = read_star(results / "Extract/slabs/source.star")["particles"]
    images = read_star(results / "Extract/slabs/particles_relion.star")["particles"]
    (found,) = json.loads((results / "results.json").read_text())["datasets"]
    return (
        set(source["rlnTomoName"]) == set(images["rlnMicrographName"]) == set(ODD_NAMES.values())
        and found["status"] == "choose classes"
        and not list(results.parent.rglob("MARKER"))
    )


def odd_slabs(home: Path, tiny: Path) -> list[object]:
    """Arguments of a short run with real steps, on a copy of `tiny` whose directory and tilt series have odd names.

    Slabs of tomograms of noise, which are there, are classified once, and the run waits for a choice.
    """
    data = shutil.copytree(tiny, home / "O'Brien's $(touch MARKER) ; data")
    tables = {name: read_star(data / f"{name}.star") for name in ("tilt_series", "particles")}
    series = tables["tilt_series"]["global"]
    (data / "made").mkdir()
    for old, name in ODD_NAMES.items():
        file = data / f"tilt_series/{old}.star"
        (tilts,) = read_star(file).values()
        file.unlink()
        write_star({name: tilts}, file.with_name(f"{name}.star"))
        rows = series["rlnTomoName"] == old
        series.loc[rows, "rlnTomoTiltSeriesStarFile"] = f"tilt_series/{name}.star"
        with mrcfile.new(data / f"made/{name}.mrc") as mrc:
            mrc.set_data(np.random.default_rng(1).normal(size=(32, 80, 80)).astype(np.float32))
            mrc.voxel_size = 10
    for blocks in tables.values():
        for table in blocks.values():
            if "rlnTomoName" in table:
                table["rlnTomoName"] = table["rlnTomoName"].replace(ODD_NAMES)
    for name, blocks in tables.items():
        write_star(blocks, data / f"{name}.star")
    slabs = {"tomograms": str(data / "made"), "box": 240, "thickness": 120, "nr_classes": 2, "nr_iter": 1}
    parameters = write_parameters(data / "sta.json", data, slabs=slabs)
    return ["--parameter", parameters, "--run_class2D", "--class2D_selection", "manual"]


def _short(name: str) -> str:
    """A task's name without the workflows that it is in, such as ``RECONSTRUCT (bin2_start)``."""
    path, *tag = name.split(" (", 1)
    return " (".join([path.rsplit(":", 1)[-1], *tag])


@dataclass
class Run:
    """A finished run of the pipeline."""

    directory: Path
    code: int
    text: str
    tasks: list[dict[str, str]]

    @property
    def executed(self) -> set[str]:
        """Names of the tasks that were run, without the workflow's prefix, such as ``REFINE3D (bin2)``."""
        return {_short(row["name"]) for row in self.tasks if row["status"] != "CACHED"}

    @property
    def results(self) -> dict:
        return json.loads((self.directory / "results/results.json").read_text())


#: What is on the command line stays text, as Nextflow from 26.04 on leaves it.
AS_TEXT = "NXF_DISABLE_PARAMS_TYPE_DETECTION"


def environment(**extra: str) -> dict[str, str]:
    return os.environ | {"NXF_ANSI_LOG": "false", "PY2RELY_SITE_CONFIG": "/dev/null", AS_TEXT: "true"} | extra


def command(*arguments: object, profile: str = "local", checkout: Path = REPO) -> list[str]:
    return ["nextflow", "-log", "nextflow.log", "run", str(checkout), "-profile", profile, "-with-trace", "trace.tsv",
            "--cpus", "2", *map(str, arguments)]  # fmt: skip


def pipeline(
    directory: Path,
    *arguments: object,
    env: dict[str, str] | None = None,
    profile: str = "local",
    checkout: Path = REPO,
) -> Run:
    """Run the pipeline in a directory, and read its trace."""
    directory.mkdir(parents=True, exist_ok=True)
    trace = directory / "trace.tsv"
    trace.unlink(missing_ok=True)
    done = subprocess.run(
        command(*arguments, profile=profile, checkout=checkout), cwd=directory, env=environment(**env or {}),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return Run(directory, done.returncode, done.stdout + done.stderr, tasks_of(trace))


def tasks_of(trace: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(trace.open(), delimiter="\t")) if trace.exists() else []


def assert_same_numbers(results: Path, others: Path) -> None:
    """Two runs on the same data found the same: resolution, map, and the pose of every particle."""
    first, second = (json.loads((path / "results.json").read_text())["datasets"][0] for path in (results, others))
    assert first["final"]["resolution"] == second["final"]["resolution"]
    maps = [read_map(path / first["final"]["map"]).data.ravel() for path in (results, others)]
    assert np.corrcoef(*maps)[0, 1] > 0.9999
    one, other = (read_star(path / first["final"]["particles"])["particles"] for path in (results, others))
    assert len(one) == len(other)
    for label in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"):
        assert np.allclose(one[label], other[label], atol=0.05), label


def status_of(directory: Path) -> tuple[dict, dict[str, dict]]:
    """What ``py2rely status`` says of a run, and of its steps by their names."""
    words = [REPO / "bin/py2rely", "status", directory, "--json"]
    found = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return found["run"], {step["name"]: step for step in found["steps"]}


def _family(leader: int) -> set[int]:
    """Every process of a session, and their children in sessions of their own."""
    table = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            table[int(entry.name)] = (int(fields[1]), int(fields[3]))
    doomed = {leader} | {pid for pid, (_, session) in table.items() if session == leader}
    while more := {pid for pid, (parent, _) in table.items() if parent in doomed} - doomed:
        doomed |= more
    return doomed


def kill_family(process: subprocess.Popen) -> None:
    """kill -9 of a process that leads a session, and of everything that it started."""
    for pid in _family(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


#: A stand-in for mpirun that fails in auto-refinements, and is itself elsewhere: the preflight tries it, too.
REFINEMENT_FAILS = 'case "$*" in *--auto_refine*) {failure};; *) exec "$REAL" "$@";; esac'


def stand_in(home: Path, program: str, script: str) -> dict[str, str]:
    """A shell script in place of a program, which it finds as ``$REAL``; the environment in which it is found."""
    fake = home / "fake" / program
    fake.parent.mkdir(exist_ok=True)
    fake.write_text(f"#!/bin/bash\nREAL={shutil.which(program)}\n{script}\n")
    fake.chmod(0o755)
    return {"PATH": f"{fake.parent}:{os.environ['PATH']}"}


#: In place of apptainer: more options for `exec`, and for nothing else. They come last, just before the image: of two
#: binds at one place Apptainer takes the first.
WITH_OPTIONS = """words=()
for word in "$@"; do
    if [[ ${{words[*]}} == *exec* && $word == *.sif ]]; then words+=({options}); fi
    words+=("$word")
done
exec "$REAL" "${{words[@]}}"
"""


def copick_project(path: Path, runs: dict[str, tuple[tuple[int, int, int], float]], name: str = "ribosome"):
    """A copick project on disk with a tomogram (x, y, z voxels, voxel size) for each run; its configuration."""
    import copick
    import numpy as np

    path.mkdir(parents=True)
    config = {
        "config_type": "filesystem", "name": "test", "description": "", "version": "1.0.0", "user_id": "tester",
        "pickable_objects": [{"name": name, "is_particle": True, "label": 1, "color": [0, 255, 0, 255], "radius": 100}],
        "overlay_root": f"local://{path}/overlay", "overlay_fs_args": {"auto_mkdir": True},
    }  # fmt: skip
    (path / "config.json").write_text(json.dumps(config))
    root = copick.from_file(str(path / "config.json"))
    for run, (size, voxel) in runs.items():
        spacing = root.new_run(run).new_voxel_spacing(voxel)
        spacing.new_tomogram("wbp").from_numpy(np.zeros(size[::-1], dtype=np.float32))
    return path / "config.json"


def write_picks(config: Path, user: str, picks: dict[str, np.ndarray], oriented: bool = True, name: str = "ribosome"):
    """Picks of session 1 by run: positions (n, 3), Angstrom from the corner, with random orientations or with none."""
    import copick

    root = copick.from_file(str(config))
    for number, (run, positions) in enumerate(picks.items()):
        transforms = np.tile(np.eye(4), (len(positions), 1, 1))
        if oriented:
            transforms[:, :3, :3] = Rotation.random(len(positions), random_state=number).as_matrix()
        root.get_run(run).new_picks(name, "1", user).from_numpy(positions, transforms)
