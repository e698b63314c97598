"""A real SLURM: the whole chain as jobs, and what a cluster does to jobs."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from helpers import (
    HOSTILE,
    PLAIN,
    REPO,
    WITH_OPTIONS,
    assert_same_numbers,
    cli,
    command,
    ended_with_odd_names,
    environment,
    odd_slabs,
    stand_in,
    tasks_of,
    write_parameters,
    write_template_parameters,
)

pytestmark = [pytest.mark.site, pytest.mark.relion, pytest.mark.nextflow, pytest.mark.slow]
#: Looks at the queue often; a production site waits longer for the files of a job that is gone.
QUICK_QUEUE = "executor.exitReadTimeout = '15 sec'\n"
POLL = ["--slurm_poll", "1 sec"]
#: Stands in for mpirun in the image, on a GPU node: notes what a refinement was given, then does what the file `mode`
#: says. The RELION at hand knows no GPU, so its option is taken away in the end.
STAND_IN = """#!/bin/bash
case " $* " in *--auto_refine*) ;; *) exec /usr/bin/mpirun "$@" ;; esac
echo "gpus=${{CUDA_VISIBLE_DEVICES:-}} $*" >> {home}/noted
case $(cat {home}/mode) in
    wait) sleep 600 ;;
    fail) exit 1 ;;
    eat) python3 -c 'import time; held = [(bytearray(10**8), time.sleep(0.3)) for n in range(60)]' ; exit 1 ;;
    run)
        words=()
        while (($#)); do
            if [[ $1 == --gpu ]]; then shift; else words+=("$1"); fi
            shift
        done
        exec /usr/bin/mpirun "${{words[@]}}"
        ;;
esac
"""


class Workflow:
    """The pipeline in the background, with its output in a file."""

    def __init__(self, home: Path, *arguments: object, env: dict[str, str]):
        self.home = home
        self.output = home / "output.txt"
        (home / "trace.tsv").unlink(missing_ok=True)
        (home / "quick.config").write_text(QUICK_QUEUE)
        words = command("-c", "quick.config", "-resume", *POLL, *arguments, profile="slurm,apptainer")
        self.process = subprocess.Popen(
            words, cwd=home, env=environment(**env), stdout=self.output.open("w"), stderr=subprocess.STDOUT
        )

    def end(self) -> tuple[int, str, dict[str, str]]:
        """Exit code, output, and the status of every task by its name."""
        code = self.process.wait(900)
        rows = {row["name"].split(":")[-1]: row["status"] for row in tasks_of(self.home / "trace.tsv")}
        return code, self.output.read_text(), rows


@pytest.fixture
def start():
    """Starts workflows, and ends them with the test, also when it fails."""
    running: list[Workflow] = []

    def begin(home: Path, *arguments: object, env: dict[str, str]) -> Workflow:
        running.append(Workflow(home, *arguments, env=env))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.terminate()
            one.process.wait(120)


def header(home: Path, name: str) -> str:
    """What the newest task of this name, whatever workflow it is in, asked the scheduler for."""
    found = [path for path in home.glob("work/*/*/.command.run") if f":{name}'" in _start(path)]
    newest = max(found, key=lambda path: path.stat().st_mtime)
    return "\n".join(line for line in newest.read_text().splitlines() if line.startswith("#SBATCH"))


def _start(path: Path) -> str:
    return path.read_text()[:600].replace('"', "'").replace("\\", "")


def job_of(slurm, process: str) -> str:
    """The id of a process's job in the queue, or nothing."""
    rows = [line.split("|") for line in slurm.jobs("%i|%j|%T|%r")]
    return next((row[0] for row in rows if process in row[1]), "")


def test_the_whole_chain_from_the_job_script(slurm, blind, outside, image, tmp_path, monkeypatch):
    """The head process is a job, every step is one in the image; slurmctld is restarted in the middle."""
    monkeypatch.setenv("PY2RELY_SITE_CONFIG", str(tmp_path / "site.config"))
    monkeypatch.chdir(tmp_path)
    cli("config", "--output", "site.config", "--image", image, "--partition", "cpu", "--account", "structures",
        "--memory-per-cpu", "2", "--cpus", "2", "--options", "--comment=py2rely")  # fmt: skip
    write_template_parameters(tmp_path / "sta.json", blind)
    shutil.copy(blind / "template.mrc", tmp_path / HOSTILE)
    cli("prepare", "relion5-pipeline", "-p", "sta.json", "-ng", 0, "-t", 1, "--num-days", 0.5,
        "--reference-template", tmp_path / HOSTILE)  # fmt: skip
    monkeypatch.setenv("NXF_ANSI_LOG", "false")
    # As a user who put the pipeline's tools on PATH submits it; the poll is the test's own.
    script = Path("pipeline.sh").read_text()
    assert "#SBATCH --time=0-12:00:00\n#SBATCH --partition=cpu\n#SBATCH --account=structures\n" in script
    assert "-resume" in script
    Path("pipeline.sh").write_text(
        script.rstrip() + " \\\n    --slurm_poll '1 sec' --outdir results -with-trace trace.tsv\n"
    )
    answer = slurm.ask("sbatch", "pipeline.sh")
    assert "Submitted batch job" in answer, answer
    slurm.wait_for(lambda: job_of(slurm, "EXTRACT") or (tmp_path / "results/Extract").exists())
    slurm.stop("slurmctld")
    time.sleep(3)
    slurm.start_controller()
    slurm.wait_for(lambda: not slurm.jobs())
    output = next(tmp_path.glob("py2rely_*.out")).read_text()
    assert (tmp_path / "results/results.json").is_file(), output
    assert_same_numbers(tmp_path / "results", outside)
    assert not list(tmp_path.rglob("MARKER"))
    steps = [row for row in tasks_of(Path("trace.tsv")) if "bin2" in row["name"]]
    assert len(steps) >= 5
    assert all(row["native_id"].isdigit() and row["status"] == "COMPLETED" for row in steps)
    asked = header(tmp_path, "REFINE3D (bin2)")
    for words in ("-c 3", "-t 01:00:00", "--mem 6144M", "-p cpu", "--account=structures", "--comment=py2rely"):
        assert words in asked, asked
    assert "gpu" not in asked


def test_names_that_a_shell_would_run(slurm, tiny, image, start, tmp_path):
    """Data and tilt series, with every larger step a job in the image."""
    words = odd_slabs(tmp_path, tiny)
    code, text, rows = start(tmp_path, *words, "--image", image, "--slurm_partition", "cpu", env=slurm.env).end()
    assert code == 0, text
    assert {"SLABS (slabs)", "CLASS2D (slabs)"} <= rows.keys()
    assert ended_with_odd_names(tmp_path / "results")


def test_what_a_cluster_does_to_jobs(slurm, tiny, image, start, tmp_path):
    """A full queue, two GPUs, a cancelled job and a job over its memory; the same command goes on after each."""
    fake = tmp_path / "mpirun"
    fake.write_text(STAND_IN.format(home=tmp_path))
    fake.chmod(0o755)
    mode = tmp_path / "mode"
    mode.write_text("wait")
    noted = tmp_path / "noted"
    seen_first = WITH_OPTIONS.format(options=f"-B {fake}:/usr/local/bin/mpirun")
    env = slurm.env | stand_in(tmp_path, "apptainer", seen_first)
    parameters = write_parameters(tmp_path / "sta.json", tiny, **PLAIN)
    arguments = ["--parameter", parameters, "--image", image, "--num_gpus", 2, "--slurm_partition", "cpu",
                 "--slurm_gpu_partition", "gpu", "--gpu_constraint", "a100,h100", "--timeout", 1]  # fmt: skip

    (tmp_path / "all.sh").write_text("#!/bin/bash\nsleep 3000\n")
    slurm.ask("sbatch", "--exclusive", "--output=/dev/null", "--job-name=everything", tmp_path / "all.sh")
    first = start(tmp_path, *arguments, "--slurm_memory_per_cpu", 2, env=env)
    slurm.wait_for(lambda: any("EXTRACT" in row and "PENDING" in row for row in slurm.jobs("%j %T")))
    slurm.ask("scancel", "--name=everything")
    slurm.wait_for(noted.exists)

    job = job_of(slurm, "REFINE3D")
    note = noted.read_text()
    assert "gpus=0,1 " in note
    assert "--gpu 0:1 " in note
    assert "-n 1 nice -n 10 relion_refine_mpi " in note and " : -n 2 relion_refine_mpi " in note
    shown = slurm.ask("scontrol", "show", "job", job)
    for words in ("Partition=gpu", "TresPerNode=gres:gpu:2", "Features=a100|h100", "NumNodes=1", "TimeLimit=01:00:00"):
        assert words in shown, shown
    asked = header(tmp_path, "EXTRACT (bin2)")
    assert "-p cpu" in asked
    assert "gpu" not in asked

    mode.write_text("fail")  # for the case that the step is tried once more
    slurm.ask("scancel", job)
    code, text, rows = first.end()
    assert code != 0, text
    assert "REFINE3D (bin2)" in text
    assert rows["EXTRACT (bin2)"] == "COMPLETED"

    mode.write_text("eat")
    second = start(tmp_path, *arguments, "--slurm_memory_per_cpu", 0.2, env=env)
    job = slurm.wait_for(lambda: job_of(slurm, "REFINE3D"))
    code, text, rows = second.end()
    assert code != 0, text
    assert "REFINE3D (bin2)" in text
    assert rows["EXTRACT (bin2)"] == "CACHED"
    log = "".join(path.read_text() for path in tmp_path.glob("work/*/*/.command.log"))
    assert "exceeded memory limit" in log + slurm.ask("scontrol", "show", "job", job), log

    mode.write_text("run")
    third = start(tmp_path, *arguments, "--slurm_memory_per_cpu", 2, env=env)
    code, text, rows = third.end()
    assert code == 0, text
    assert rows["EXTRACT (bin2)"] == "CACHED"
    assert (tmp_path / "results/results.json").is_file()
    assert not slurm.jobs()


@pytest.mark.parametrize("request_form", ["gres", "gpus"])
def test_forms_of_a_gpu_request(tmp_path, request_form):
    """What a GPU step asks for, as Nextflow understands the configuration."""
    words = ["nextflow", "-log", "log", "config", REPO, "-profile", "slurm", "-flat"]
    settings = {"num_gpus": 4, "gpu_type": "'a100'", "slurm_qos": "'long'", "slurm_partition": "'main'",
                "cpu_constraint": "'8,16'", "gpu_request": f"'{request_form}'"}  # fmt: skip
    lines = "\n".join(f"    {name} = {value}" for name, value in settings.items())
    (tmp_path / "site.config").write_text(f"params {{\n{lines}\n}}\n")
    env = environment(PY2RELY_SITE_CONFIG=str(tmp_path / "site.config"), HOME=str(tmp_path))
    shown = subprocess.run(
        [str(word) for word in words], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    ).stdout
    form = {"gres": "--gres=gpu:a100:4", "gpus": "--gpus=a100:4"}[request_form]
    assert f"process.'withLabel:gpu'.clusterOptions = '--qos=long --nodes=1 {form}'" in shown
    assert "process.'withLabel:gpu'.queue = 'main'" in shown
    assert "params.cpus = 8" in shown
    assert "params.slurm_memory_per_cpu = 16" in shown
