"""Checkpoints, leases, retries, resources and groups: what needs no workflow."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
from helpers import REPO

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.parameters.gpus import gpu_problems
from py2rely_core.planning.groups import number_of_groups
from py2rely_core.planning.plan import Machine
from py2rely_core.planning.resources import Workload, granted, refine_memory, tomo_memory
from py2rely_core.problems import ExitCode, ProblemError
from py2rely_core.relion.checkpoints import Checkpoint, checkpoint_of, fingerprint, is_own
from py2rely_core.relion.groups import merge_extract, merge_sums, split_particles
from py2rely_core.relion.leases import gpu_pool, gpus_wanted
from py2rely_core.relion.run import commands, run_job

JOB = Path("Refine3D/bin2")
COMMAND = shlex.split(
    "mpirun -n 3 relion_refine_mpi --o Refine3D/bin2/run --i Extract/bin2/particles.star --ref Reference/half1.mrc "
    "--tomograms Import/tomograms.star --ini_high 50 --norm --sigma_ang 2 --sym O --j 4 --gpu 0:1 --pool 30 "
    "--solvent_correct_fsc --auto_refine"
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A task's directory, with the inputs of COMMAND."""
    task = tmp_path / "work/ab" / ("c" * 30)
    task.mkdir(parents=True)
    monkeypatch.chdir(task)
    for name in ("half1", "half2"):
        _write_map(Path(f"Reference/{name}.mrc"))
    stacks = [f"Extract/bin2/Subtomograms/{n}.mrcs" for n in range(3)]
    for stack in stacks:
        _write_map(Path(stack))
    write_star({"particles": pd.DataFrame({"rlnImageName": stacks})}, Path("Extract/bin2/particles.star"))
    Path("Extract/bin2/job.json").write_text('{"started": 1}')
    series = {"rlnTomoName": ["a", "b"], "rlnTomoTiltSeriesStarFile": ["Import/a.star", "Import/b.star"]}
    write_star({"global": pd.DataFrame(series)}, Path("Import/tomograms.star"))
    for name in "ab":
        write_star({name: pd.DataFrame({"rlnDefocusU": [1.0, 2.0]})}, Path(f"Import/{name}.star"))
    return task


def _write_map(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(np.ones((4, 4, 4), dtype=np.float32))


def _append(name: str) -> None:
    with Path(name).open("ab") as file:
        file.write(b"\n\n")


CHANGES = {
    "option": lambda: [*COMMAND, "--tau2_fudge", "2"],
    "value": lambda: [word.replace("50", "51") for word in COMMAND],
    "reference": lambda: _append("Reference/half1.mrc"),
    "other half map": lambda: _append("Reference/half2.mrc"),
    "particles": lambda: _append("Extract/bin2/particles.star"),
    "images": lambda: _append("Extract/bin2/Subtomograms/1.mrcs"),
    "extracted anew": lambda: _append("Extract/bin2/job.json"),
    "tilt series": lambda: _append("Import/b.star"),
    "RELION": None,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_checkpoint_is_for_one_input_and_one_set_of_options(project, change):
    before = checkpoint_of(JOB, COMMAND, "5.1.0").directory
    assert before.parent == project.parent.parent / "checkpoints"
    assert checkpoint_of(JOB, COMMAND, "5.1.0").directory == before
    command = (CHANGES[change]() if CHANGES[change] else None) or COMMAND
    from py2rely_core.relion import checkpoints

    checkpoints._read.cache_clear()
    assert checkpoint_of(JOB, command, "5.0.1" if change == "RELION" else "5.1.0").directory != before


def test_speed_is_no_part_of_a_fingerprint(project):
    other = " ".join(COMMAND).replace("-n 3", "-n 5").replace("--j 4 --gpu 0:1 --pool 30", "--pool 3 --j 1").split()
    assert fingerprint(JOB, other, "5") == fingerprint(JOB, COMMAND, "5")


@pytest.mark.parametrize("extra", [["--relax_sym", "C2"], ["--keep_priors_fixed"], ["--an_option_of_tomorrow"]])
def test_options_that_relion_forgets_start_anew(project, extra):
    assert checkpoint_of(JOB, [*COMMAND, *extra], "5") is None
    assert checkpoint_of(JOB, ["relion_mask_create", "--i", "x"], "5") is None


def _iteration(number: int, root: str = "Refine3D/bin2/run") -> None:
    """The files of one iteration, as RELION names them."""
    at = f"{root}_it{number:03d}"
    Path(root).parent.mkdir(parents=True, exist_ok=True)
    _write_map(Path(f"{at}_class001.mrc"))
    classes = pd.DataFrame({"rlnReferenceImage": [f"{at}_class001.mrc"], "rlnClassDistribution": [1.0]})
    write_star({"model_classes": classes}, Path(f"{at}_model.star"))
    write_star({"particles": pd.DataFrame({"rlnImageName": list("abc")})}, Path(f"{at}_data.star"))
    write_star({"sampling_general": pd.DataFrame({"rlnIs3DSampling": [1]})}, Path(f"{at}_sampling.star"))
    general = {"rlnOutputRootName": root, "rlnModelStarFile": f"{at}_model.star"}
    general |= {"rlnExperimentalDataStarFile": f"{at}_data.star", "rlnOrientSamplingStarFile": f"{at}_sampling.star"}
    write_star({"optimiser_general": pd.DataFrame([general])}, Path(f"{at}_optimiser.star"))


def _kept(checkpoint, *numbers: int) -> None:
    for number in numbers:
        _iteration(number)
    checkpoint.keep()
    checkpoint.keep()
    shutil.rmtree(JOB)
    JOB.mkdir()


def test_goes_on_after_the_last_complete_iteration(project):
    checkpoint = checkpoint_of(JOB, COMMAND, "5")
    assert checkpoint.restore() is None
    _kept(checkpoint, 1, 2, 3)
    assert checkpoint_of(JOB, COMMAND, "5").restore() == 3
    assert Path("Refine3D/bin2/run_it003_class001.mrc").is_file()
    assert len(list(JOB.glob("*_model.star"))) == 3  # the history of resolutions stays whole
    assert not Path("Refine3D/bin2/run_it001_data.star").exists()
    command = " ".join(checkpoint.continuation(3))
    assert command.startswith("mpirun -n 3 relion_refine_mpi --continue Refine3D/bin2/run_it003_optimiser.star ")
    assert " --o Refine3D/bin2/./run " in command  # older versions would append _ct3 to the same name
    assert " --j 4 --gpu 0:1 --pool 30 --solvent_correct_fsc" in command
    for option in ("--norm", "--sigma_ang", "--ini_high", "--ref", "--i", "--auto_refine"):
        assert option not in command.split()
    checkpoint.remove()
    assert checkpoint.restore() is None


@pytest.mark.parametrize("damage", ["truncated", "missing", "rows"])
def test_a_broken_iteration_is_passed_over(project, damage):
    checkpoint = checkpoint_of(JOB, COMMAND, "5")
    _kept(checkpoint, 1, 2, 3)
    broken = checkpoint.directory / "it003/run_it003_data.star"
    if damage == "truncated":
        os.truncate(broken, broken.stat().st_size // 2)
    elif damage == "missing":
        broken.unlink()
    else:
        checkpoint.particles = 4
    assert checkpoint.restore() == (None if damage == "rows" else 2)
    _kept(checkpoint, 3)
    assert (checkpoint.directory / "it003").exists() or damage == "rows"


def test_what_is_half_written_is_not_kept(project):
    checkpoint = checkpoint_of(JOB, COMMAND, "5")
    for number, name in enumerate(("class001.mrc", "model.star", "sampling.star"), start=1):
        _iteration(number)
        path = Path(f"Refine3D/bin2/run_it{number:03d}_{name}")
        os.truncate(path, path.stat().st_size - 100) if name.endswith("mrc") else path.unlink()
    checkpoint.keep()
    checkpoint.keep()
    assert checkpoint.restore() is None


def test_a_second_task_does_not_write_to_a_checkpoint(project):
    one, other = checkpoint_of(JOB, COMMAND, "5"), checkpoint_of(JOB, COMMAND, "5")
    with one.kept(), other.kept():
        _iteration(1)
        other_thread_wrote = other._lock is not None
    assert not other_thread_wrote


# GPUs


@pytest.mark.parametrize(("gpus", "wanted"), [("0:1:2:0", 3), ("0", 1), ("0,1", 2), ("0:0", 1)])
def test_gpus_of_a_command(gpus, wanted):
    assert gpus_wanted(["relion_refine", "--gpu", gpus]) == wanted
    assert gpus_wanted(["relion_refine", "--j", "2"]) == 0


def test_gpu_numbers_count_what_is_visible():
    assert gpu_pool({"PY2RELY_GPUS": "0,1"}) == ("0", "1")
    assert gpu_pool({"PY2RELY_GPUS": "1", "CUDA_VISIBLE_DEVICES": "4,6"}) == ("6",)
    assert gpu_pool({"CUDA_VISIBLE_DEVICES": "4,6"}) == ()
    with pytest.raises(ProblemError, match="leaves 1 GPUs"):
        gpu_pool({"PY2RELY_GPUS": "1", "CUDA_VISIBLE_DEVICES": "4"})
    assert Machine.of(4, 0).gpus == ("0",)  # Nextflow makes a number of --gpus 0
    assert Machine.of(4, "2,3").gpus == ("0", "1")
    assert Machine.of(4, None).gpus == ()
    assert not gpu_problems("0,1")
    assert gpu_problems("0,0")
    assert gpu_problems("two")


#: Notes the GPUs that it got, and holds them for a while.
STAND_IN = """#!/bin/bash
echo "start $CUDA_VISIBLE_DEVICES $*" >> "$RECORD"
sleep "${HOLD:-1}"
echo "end $CUDA_VISIBLE_DEVICES" >> "$RECORD"
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    program = tmp_path / "bin/relion_gpu"
    program.parent.mkdir()
    program.write_text(STAND_IN)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(tmp_path / "record.txt"))
    monkeypatch.setenv("PY2RELY_LEASES", str(tmp_path / "leases"))
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    return tmp_path / "record.txt"


def _task(name: str, gpus: str, tmp_path: Path, **env: str) -> subprocess.Popen:
    code = (
        "import pathlib, sys\nfrom py2rely_core.relion.run import run_job\n"
        "run_job(pathlib.Path(sys.argv[1]), sys.argv[2:])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / name), "relion_gpu", "--gpu", gpus]
    return subprocess.Popen(command, env=os.environ | env, cwd=tmp_path, start_new_session=True)


def _held_at_once(record: Path) -> dict[str, int]:
    """For each GPU, how many tasks held it at the same time at most."""
    now: dict[str, int] = {}
    most: dict[str, int] = {}
    for line in record.read_text().splitlines():
        step, gpus = line.split()[:2]
        for gpu in gpus.split(","):
            now[gpu] = now.get(gpu, 0) + (1 if step == "start" else -1)
            most[gpu] = max(most.get(gpu, 0), now[gpu])
    return most


@pytest.mark.parametrize("shared_by", [1, 2])
def test_no_two_tasks_on_one_gpu_unless_asked(stand_in, tmp_path, shared_by):
    env = {"PY2RELY_GPUS": "0,1,2", "PY2RELY_TASKS_PER_GPU": str(shared_by), "CUDA_VISIBLE_DEVICES": "5,6,7"}
    tasks = [_task(str(n), gpus, tmp_path, **env) for n, gpus in enumerate(["0:1", "0", "0:1:2:0", "0", "0:1"])]
    assert [task.wait(60) for task in tasks] == [0] * 5
    most = _held_at_once(stand_in)
    assert set(most) == {"5", "6", "7"}
    assert max(most.values()) <= shared_by
    starts = [line.split() for line in stand_in.read_text().splitlines() if line.startswith("start")]
    assert sorted(len(words[1].split(",")) for words in starts) == [1, 1, 2, 2, 3]
    assert all(len(set(words[1].split(","))) == len(words[1].split(",")) for words in starts)
    assert len(commands(tmp_path / "2")[0]["gpus"]) == 3


def test_a_lease_ends_with_its_task_however_it_ends(stand_in, tmp_path):
    """kill -9 of the task and its program; before that, nobody gets the GPU, not even when py2rely alone is killed."""
    first = _task("first", "0", tmp_path, PY2RELY_GPUS="0", HOLD="60")
    _until(lambda: stand_in.exists())
    second = _task("second", "0", tmp_path, PY2RELY_GPUS="0", HOLD="0")
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    time.sleep(1.5)
    assert second.poll() is None  # the program itself still computes
    os.killpg(first.pid, signal.SIGKILL)
    assert second.wait(30) == 0


def _until(condition, seconds: float = 30) -> None:
    deadline = time.time() + seconds
    while not condition() and time.time() < deadline:
        time.sleep(0.05)
    assert condition()


def test_more_gpus_than_there_are(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("PY2RELY_GPUS", "0")
    with pytest.raises(ProblemError, match="needs 2 GPUs") as caught:
        run_job(tmp_path / "job", ["relion_gpu", "--gpu", "0:1"])
    assert caught.value.exit_code == ExitCode.BAD_PARAMETERS


def test_a_full_gpu_is_tried_once_more_with_one_thread(stand_in, tmp_path):
    """The stand-in has memory enough for one thread, or for none."""
    script = (
        'echo "$*" >> "$RECORD"; case "$*" in *"--j 1"*) exit $SECOND;; esac; echo "CUDA error: out of memory"; exit 1'
    )
    (tmp_path / "bin/relion_gpu").write_text(f"#!/bin/bash\n{script}\n")
    for second in (0, 3):
        os.environ["SECOND"] = str(second)
        stand_in.unlink(missing_ok=True)
        try:
            run_job(tmp_path / f"job{second}", ["relion_gpu", "--j", "8", "--pool", "3"])
            code = 0
        except ProblemError as error:
            code = error.exit_code
        finally:
            del os.environ["SECOND"]
        assert stand_in.read_text().splitlines() == ["--j 8 --pool 3", "--j 1 --pool 3"]
        assert code == (0 if second == 0 else ExitCode.RELION_FAILED)  # the first try's text is not the second's


@pytest.mark.parametrize(("pixel_size", "offset"), [(10.0, "100"), (0.8, "10")])
def test_no_weights_are_tried_once_more_with_free_offsets(stand_in, tmp_path, monkeypatch, pixel_size, offset):
    """The stand-in's first prior is too narrow; its second attempt starts anew, and the job says why it was made."""
    monkeypatch.chdir(tmp_path)
    script = (
        'echo "$*" >> "$RECORD"; case "$*" in *--fix_sigma_offset*) ls job/run_it* 2> /dev/null; exit 0;; esac; '
        'touch job/run_it003_data.star; echo "ERROR!!! zero sum of weights...."; exit 1'
    )
    program = tmp_path / "bin/relion_refine"
    program.write_text(f"#!/bin/bash\n{script}\n")
    program.chmod(0o755)
    write_star({"optics": pd.DataFrame({"rlnImagePixelSize": [pixel_size]})}, tmp_path / "particles.star")
    command = ["relion_refine", "--i", "particles.star", "--o", "job/run", "--sym", "D2"]
    run_job(Path("job"), command)
    first, second = commands(Path("job"))
    assert first["command"] == command
    assert second["command"] == [*command, "--fix_sigma_offset", "--offset", offset]
    assert "prior on offsets" in second["because"]
    assert "run_it003" not in Path("job/run.out").read_text()
    with pytest.raises(ProblemError, match="exit code 1"):
        run_job(Path("still"), [*command, "--skip_align"])
    assert len(commands(Path("still"))) == 1


def test_sigterm_is_passed_on_and_classed(stand_in, tmp_path):
    task = _task("job", "0", tmp_path, HOLD="60")
    _until(lambda: stand_in.exists())
    os.kill(task.pid, signal.SIGTERM)
    assert task.wait(20) != 0
    (done,) = commands(tmp_path / "job")
    assert done["exit_code"] == 143


# Resources and groups


def test_memory_grows_with_what_is_worked_on():
    work = Workload(particles=1000, tilts=41, image=(1000, 1000))
    base = refine_memory(96, work, ranks=3, threads=2)
    assert refine_memory(192, work, 3, 2) > 4 * base / 2
    assert refine_memory(96, work, 5, 2) > base
    assert refine_memory(96, work, 3, 4) > base
    assert refine_memory(96, work, 3, 2, classes=4) > base
    assert refine_memory(96, work, 3, 2, pad=1) < base
    assert tomo_memory(96, work, 2, 4, sums=True) > tomo_memory(96, work, 2, 4) > tomo_memory(96, work, 1, 4)
    assert granted(0.01) == 1
    assert granted(10) == 13


def test_groups_only_where_there_are_many():
    assert [number_of_groups(n) for n in (1, 50, 51, 1000)] == [1, 1, 2, 20]
    assert number_of_groups(7, 2) == 4


def test_split_keeps_every_particle_once(tmp_path):
    particles, tomograms = tmp_path / "Select/input/particles.star", tmp_path / "tomograms.star"
    rows = pd.DataFrame({"rlnTomoName": [f"ts{n % 7}" for n in range(40)], "n": range(40)})
    write_star({"optics": pd.DataFrame({"rlnOpticsGroup": [1]}), "particles": rows}, particles)
    write_star({"global": pd.DataFrame({"rlnTomoName": [f"ts{n}" for n in reversed(range(9))]})}, tomograms)
    written = split_particles(particles, tomograms, 3, tmp_path / "groups")
    assert [path.name for path in written] == [f"input_group00{n}" for n in (1, 2, 3)]
    parts = [read_star(part / "particles.star")["particles"] for part in written]
    assert [sorted(set(part["rlnTomoName"])) for part in parts] == [
        ["ts4", "ts5", "ts6"],
        ["ts2", "ts3"],
        ["ts0", "ts1"],
    ]
    assert sorted(n for part in parts for n in part["n"]) == list(range(40))


def _relion(job: str, command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True)
    (Path(job) / "commands.jsonl").write_text(
        json.dumps({"command": [command], "started": 0, "seconds": 1, "exit_code": 0}) + "\n"
    )


@pytest.mark.relion
@pytest.mark.parametrize("halves", [False, True])
def test_groups_give_what_one_job_gives(tiny, tmp_path, monkeypatch, halves):
    """Extraction to the bit, and an average to the rounding of RELION's 4-byte sums; the particles are interleaved."""
    for name in ("tilt_series", "tilt_series.star"):
        (tmp_path / name).symlink_to(tiny / name)
    monkeypatch.chdir(tmp_path)
    blocks = read_star(tiny / "particles.star")
    table = blocks["particles"].sample(frac=1, random_state=0, ignore_index=True)
    if halves:
        table["rlnRandomSubset"] = 1 + np.arange(len(table)) % 2
    write_star(blocks | {"particles": table}, Path("Select/input/particles.star"))
    parts = split_particles(Path("Select/input/particles.star"), Path("tilt_series.star"), 2, Path("Select"))
    extract = "relion_tomo_subtomo --t tilt_series.star --b 24 --bin 2 --stack2d --float16 --j 2 --o"
    average = "relion_tomo_reconstruct_particle --t tilt_series.star --b 36 --crop 24 --bin 2 --sym O"
    average += " --j 2 --j_in 1 --j_out 2 --o"
    _relion("Extract/bin2", f"{extract} Extract/bin2/ --p Select/input/particles.star")
    _relion("one", f"{average} one/ --p Select/input/particles.star")
    for number, part in enumerate(parts):
        (tmp_path / f"{number}").mkdir()
        monkeypatch.chdir(tmp_path / f"{number}")
        for name in ("tilt_series", "tilt_series.star", "Select"):
            Path(name).symlink_to(tmp_path / name)
        _relion("Extract/bin2", f"{extract} Extract/bin2/ --p {part}/particles.star")
        _relion("sum", f"{average} sum/ --p {part}/particles.star --no_recon")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "merged").mkdir()
    merge_extract([Path("0/Extract/bin2"), Path("1/Extract/bin2")], Path("merged/Extract/bin2"))
    whole, merged = (read_star(Path(root) / "Extract/bin2/particles.star") for root in ("", "merged"))
    assert list(merged) == list(whole)
    for block, rows in whole.items():
        pd.testing.assert_frame_equal(merged[block], rows)
    for image in whole["particles"]["rlnImageName"]:
        # All but the header's labels, which hold the time of day.
        one, other = Path(image).read_bytes(), Path("merged", image).read_bytes()
        assert one[:224] == other[:224]
        assert one[1024:] == other[1024:]
    merge_sums([Path("0/sum"), Path("1/sum")], Path("tilt_series.star"), Path("both"))
    _relion("both", f"{average} both/ --p Select/input/particles.star --only_do_unfinished")
    for name in ("merged", *(("half1", "half2") if halves else ())):
        one, both = (mrcfile.read(f"{root}/{name}.mrc") for root in ("one", "both"))
        assert np.abs(one - both).max() < 1e-5 * one.std()


# Places that others can write, too


NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes files of another user")


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_locks_are_for_everyone_whatever_the_umask(stand_in, tmp_path):
    before = os.umask(0o077)
    try:
        assert _task("one", "0", tmp_path, PY2RELY_GPUS="0", HOLD="0").wait(30) == 0
    finally:
        os.umask(before)
    assert _mode(tmp_path / "leases") == 0o1777
    assert {_mode(path) for path in (tmp_path / "leases").iterdir()} == {0o644}


def _link_away(leases: Path, elsewhere: Path) -> None:
    leases.symlink_to(elsewhere)


def _link_inside(leases: Path, elsewhere: Path) -> None:
    leases.mkdir()
    (leases / "0.0").symlink_to(elsewhere / "made")


def _pipe(leases: Path, _elsewhere: Path) -> None:
    leases.mkdir()
    os.mkfifo(leases / "queue")


def _file(leases: Path, _elsewhere: Path) -> None:
    leases.touch()


@pytest.mark.parametrize("spoil", [_link_away, _link_inside, _pipe, _file])
def test_a_spoilt_place_for_locks_stops_nobody(stand_in, tmp_path, spoil):
    """Nothing is made where a link leads; the locks are in the user's own directory, and it is said."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    spoil(tmp_path / "leases", elsewhere)
    env = os.environ | {"PY2RELY_GPUS": "0", "HOLD": "0", "HOME": str(tmp_path / "home")}
    code = (
        "import pathlib, sys\nfrom py2rely_core.relion.run import run_job\nrun_job(pathlib.Path('job'), sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "relion_gpu", "--gpu", "0"]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True)
    assert "do not see those of others" in done.stdout
    assert not list(elsewhere.iterdir())
    (own,) = (tmp_path / "home/.cache/py2rely").iterdir()
    assert (own / "0.0").is_file()


@as_root
def test_only_own_checkpoints_are_trusted(tmp_path):
    """What somebody else made, or could write into, is neither taken, written nor removed; no link is followed."""
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o700)
    assert is_own(mine)
    foreign, open_to_all, link = tmp_path / "foreign", tmp_path / "open", tmp_path / "link"
    for path in (foreign, open_to_all):
        path.mkdir()
        (path / "it001").mkdir()
        (path / "it001/checksums.json").write_text("{}")
    os.chown(foreign, NOBODY, NOBODY)
    open_to_all.chmod(0o777)
    link.symlink_to(mine)
    for path in (foreign, open_to_all, link):
        checkpoint = Checkpoint("Refine3D/x/run", ["relion_refine"], path, 1)
        assert checkpoint.restore() is None
        with checkpoint.kept() as kept:
            assert not kept
        checkpoint.remove()
        assert os.path.lexists(path)
        assert (path / "it001").exists() == (path != link)
    new = Checkpoint("Refine3D/x/run", ["relion_refine"], tmp_path / "shared/new", 1)
    with new.kept() as kept:
        assert kept
        assert _mode(tmp_path / "shared/new") == 0o700
        assert _mode(tmp_path / "shared/new/lock") == 0o600
