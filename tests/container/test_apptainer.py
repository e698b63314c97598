"""Every process in the image, with real Apptainer: the numbers, and an installation that its users cannot write to."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from helpers import (
    HOSTILE,
    PLAIN,
    REPO,
    WITH_OPTIONS,
    assert_same_numbers,
    ended_with_odd_names,
    environment,
    odd_slabs,
    pipeline,
    stand_in,
    write_parameters,
    write_template_parameters,
)

pytestmark = [pytest.mark.site, pytest.mark.relion, pytest.mark.nextflow, pytest.mark.slow]
#: Plain users that every Debian has: Apptainer wants one with an account.
USERS = ("nobody", "games")


def strict_apptainer(directory: Path) -> dict[str, str]:
    """PATH with an Apptainer that binds nothing by itself, and gives tasks a /tmp of their own unless they ask for the
    host's: there they might find things by luck."""
    own = directory / "own tmp"
    own.mkdir(parents=True)
    return stand_in(directory, "apptainer", WITH_OPTIONS.format(options=f"--no-mount tmp,cwd -B '{own}':/tmp"))


@pytest.fixture
def elsewhere():
    """A directory directly below the temporary directory, beside pytest's own: Nextflow then binds what both are in."""
    with tempfile.TemporaryDirectory(prefix="elsewhere_") as path:
        yield Path(path)


def installed(directory: Path) -> Path:
    """What of this checkout a run needs, in a directory."""
    for name in ("bin", "conf", "modules", "py2rely_core", "subworkflows", "workflows"):
        shutil.copytree(REPO / name, directory / name)
    for name in ("main.nf", "nextflow.config", "nextflow_schema.json"):
        shutil.copy(REPO / name, directory)
    return directory


def moved_behind_link(file: Path, directory: Path) -> None:
    """A link in place of a file, which is in another directory now."""
    shutil.move(file, directory)
    file.symlink_to(directory / file.name)


def test_the_same_numbers_as_outside(blind, image, outside, tmp_path, elsewhere):
    """All is below /tmp, one in the other, behind links: checkout, stacks, template, launch and work directory.

    Afterwards, where and how tasks run changes nothing that was computed.
    """
    disk = tmp_path / "disk"
    disk.symlink_to(elsewhere)
    checkout = tmp_path / "pipeline"
    checkout.symlink_to(installed(elsewhere / "software"))
    (disk / "archive/session 1").mkdir(parents=True)
    (disk / "scratch").mkdir()
    home = disk / "run"
    data = shutil.copytree(blind, home / "my data")
    template = (data / "template.mrc").rename(data / HOSTILE)
    for file in (template, *(data / "tilt_series").glob("*.mrcs")):
        moved_behind_link(file, disk / "archive/session 1")
    (home / "work").symlink_to(disk / "scratch")
    parameters = write_template_parameters(home / "sta.json", data)
    arguments = ["--image", image, "--parameter", parameters, "--reference_template", template]
    env = strict_apptainer(tmp_path / "strict")
    run = pipeline(home, *arguments, env=env, profile="local,apptainer", checkout=checkout)
    assert run.code == 0, run.text
    assert_same_numbers(home / "results", outside)
    scripts = [path.read_text() for path in home.glob("work/*/*/.command.run")]
    assert len(scripts) == len(run.tasks)
    assert all(f"{image} " in script for script in scripts)
    assert not list(home.rglob("MARKER"))
    again = pipeline(home, *arguments, "-resume", "--timeout", "7", "--relion_load", "true", "--slurm_account", "x",
                     env=env, profile="local,apptainer", checkout=checkout)  # fmt: skip
    assert (again.code, again.executed) == (0, set()), again.text


def test_names_that_a_shell_would_run(tiny, image, tmp_path):
    """Data and tilt series, with every process in the image."""
    words = odd_slabs(tmp_path, tiny)
    env = strict_apptainer(tmp_path / "strict")
    run = pipeline(tmp_path, "--image", image, *words, env=env, profile="local,apptainer")
    assert run.code == 0, run.text
    assert ended_with_odd_names(tmp_path / "results")


@pytest.mark.parametrize(
    ("directory", "name", "text"),
    [
        ("$(touch MARKER)", "sta.json", "cannot work in this directory"),
        ("run", "sta\ntouch MARKER\n.json", "sta?touch MARKER?.json"),
        pytest.param("run", "a${IFS}b.json", "no $ before a letter", marks=pytest.mark.long),
    ],
)
def test_names_that_nextflow_does_not_quote(tmp_path, directory, name, text):
    """They are refused before any task."""
    home = tmp_path / directory
    home.mkdir()
    (tmp_path / "x.sif").write_text("")
    (home / name).write_text("{}")
    run = pipeline(home, "--image", tmp_path / "x.sif", "--parameter", name, profile="local,apptainer")
    assert run.code != 0
    assert text in run.text
    assert not run.tasks
    assert not list(tmp_path.rglob("MARKER"))


#: Runs a command on a machine whose /tmp is a link to a larger disk.
TMP_IS_A_LINK = """
binds=()
for entry in /*; do
    case $entry in /tmp | /mnt | /proc | /dev | /sys) continue ;; esac
    if [[ -L $entry ]]; then binds+=(--symlink "$(readlink "$entry")" "$entry")
    elif [[ -d $entry ]]; then binds+=(--dev-bind "$entry" "$entry"); fi
done
exec bwrap "${binds[@]}" --dev-bind /dev /dev --dev-bind /proc /proc --dev-bind /sys /sys \\
    --dev-bind /tmp /mnt/disk --symlink mnt/disk /tmp --chdir "$PWD" "$@"
"""


def test_tmp_is_a_link(image):
    """The launcher of tools/setup brings a top directory that is a link into its Apptainer's root, by both names."""
    if not Path(shutil.which("apptainer")).resolve().is_relative_to(REPO / "tools"):
        pytest.skip("Apptainer is the machine's own, and sees the machine's directories")
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        (Path(place) / "given").write_text("seen ")
        real = f"/mnt/disk/{Path(place).name}"
        words = ["bash", "-c", TMP_IS_A_LINK, "bash", "apptainer", "exec", "--no-home", "-B", place, "-B", real, image,
                 "cat", "given", f"{real}/given"]  # fmt: skip
        done = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "seen seen "), done.stderr


#: In place of mpirun in the image: the real one gets the same process id in every container.
SAME_NUMBER = """#!/bin/bash
echo 5000 > /proc/sys/kernel/ns_last_pid
/usr/bin/mpirun "$@"
"""


def test_mpi_runs_side_by_side(image, tiny, extracted, tmp_path):
    """Processes have the same numbers in each container; Open MPI's files in the machine's /tmp and /dev/shm do not."""
    refine = (
        "--i Extract/bin2/particles.star --tomograms tilt_series.star --trust_ref_size --ini_high 50 "
        "--ref Reference/merged.mrc --particle_diameter 150 --sym O --auto_refine --split_random_halves "
        "--low_resol_join_halves 40 --norm --scale --oversampling 1 --healpix_order 3 --auto_local_healpix_order 3 "
        "--offset_range 2 --offset_step 2 --ctf --pool 30 --auto_ignore_angles --auto_resol_angles"
    )
    environ = environment(
        OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", PRTE_MCA_mapby=":oversubscribe",
        PRTE_MCA_bindto="none", TMPDIR="/tmp", APPTAINERENV_PREPEND_PATH=str(tmp_path),
    )  # fmt: skip
    (tmp_path / "mpirun").write_text(SAME_NUMBER)
    (tmp_path / "mpirun").chmod(0o755)
    # The containers have one /tmp and one /dev/shm, as on a machine, but not those of other tests.
    shared = {"/tmp": tmp_path / "tmp", "/dev/shm": tmp_path / "shm"}
    for path in shared.values():
        path.mkdir()
    bound = (REPO, tiny, extracted, tmp_path)
    # Where containers that start at once would each make the place of a bind.
    for path in bound:
        if path.is_relative_to("/tmp"):
            (shared["/tmp"] / path.relative_to("/tmp")).mkdir(parents=True, exist_ok=True)
    binds = ",".join([*map(str, bound), *(f"{own}:{at}" for at, own in shared.items())])
    running = []
    for name in "abc":
        job = tmp_path / name
        words = ["apptainer", "exec", "--no-home", "--pid", "--no-mount", "tmp", "-B", binds, image,
                 REPO / "bin/py2rely", "task", "relion", job, "--", "mpirun", "-n", 3, "relion_refine_mpi",
                 "--o", job / "run", *refine.split()]  # fmt: skip
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        running.append(subprocess.Popen([str(word) for word in words], cwd=extracted, env=environ, **pipes))
    try:
        texts = [one.communicate(timeout=300)[0] for one in running]
    finally:
        for one in running:
            one.kill()
    ends = {name: (one.returncode, text[-2000:]) for name, one, text in zip("abc", running, texts, strict=True)}
    assert [one.returncode for one in running] == [0, 0, 0], "\n".join(map(str, ends.items()))
    assert all((tmp_path / name / "run_data.star").is_file() for name in "abc")
    assert not [path for own in shared.values() for path in own.glob("mpi_*")]


@pytest.mark.parametrize(
    ("image_given", "text"),
    [(None, "make image"), pytest.param("/none/such.sif", "/none/such.sif", marks=pytest.mark.long)],
)
def test_no_image(tmp_path, image_given, text):
    (tmp_path / "sta.json").write_text("{}")
    arguments = ["--image", image_given] if image_given else []
    run = pipeline(tmp_path, "--parameter", "sta.json", *arguments, profile="local,apptainer")
    assert run.code != 0
    assert text in run.text
    assert not run.tasks


def test_two_users_of_a_read_only_installation(tiny, image, tmp_path):
    """Pipeline and image belong to root; two plain users run it at once, with RELION's programs as stubs."""
    if os.geteuid() != 0:
        pytest.skip("only root can become two other users")
    if not all(_can_read(path) for path in (REPO, shutil.which("apptainer"), shutil.which("nextflow"), distribution())):
        pytest.skip("other users cannot read the directory that this checkout and its tools are in")
    place = installed(tmp_path / "installed")
    shutil.copy(image, place)
    settings = place / "site.config"
    settings.write_text(f"params {{\n    image = '{place / image.name}'\n}}\n")
    before = set(place.rglob("*"))
    for directory in (tmp_path, *tmp_path.parents):  # pytest makes them for its own user only
        if Path(tempfile.gettempdir()) in directory.parents:
            directory.chmod(0o755)
    runs = []
    for user in USERS:
        home = tmp_path / user  # Nextflow cannot start where TMPDIR has a space
        data = shutil.copytree(tiny, home / "data")
        write_parameters(home / "sta.json", data, **PLAIN)
        for path in (home, *home.rglob("*")):
            shutil.chown(path, user)
        command = [*as_user(user), "nextflow", "-log", "log", "run", place,
                    "-profile", "local,apptainer", "-stub-run", "--cpus", "1", "--parameter",
                   "sta.json"]  # fmt: skip
        env = environment(
            PY2RELY_SITE_CONFIG="",
            HOME=str(home),
            NXF_HOME=str(home / ".nextflow"),
            NXF_DIST=distribution(),
            TMPDIR=str(home),
        )
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        runs.append((home, subprocess.Popen([str(word) for word in command], cwd=home, env=env, **pipes)))
    for home, process in runs:
        text, _ = process.communicate(timeout=600)
        assert process.returncode == 0, text
        assert json.loads((home / "results/results.json").read_text())["datasets"][0]["id"] == "main"
        assert all(str(place / image.name) in path.read_text() for path in home.glob("work/*/*/.command.run"))
    assert set(place.rglob("*")) == before


def _can_read(path: str | Path) -> bool:
    return subprocess.run([*as_user(USERS[0]), "test", "-r", str(path)], check=False).returncode == 0


def as_user(name: str) -> list[str]:
    return ["setpriv", f"--reuid={name}", "--regid=nogroup", "--clear-groups"]


def distribution() -> str:
    """Where Nextflow's own files are, which these users only read."""
    home = os.environ.get("NXF_HOME") or str(Path.home() / ".nextflow")
    return os.environ.get("NXF_DIST") or f"{home}/framework"
