"""One command of ``py2rely`` as a job of the cluster: the site's settings, a script, and sbatch."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from py2rely_core.launching.job_script import account_lines, activation, time_line
from py2rely_core.launching.launch import Cluster
from py2rely_core.launching.site import Value
from py2rely_core.problems import ExitCode, Problem, ProblemError

#: Of Open MPI 4 and 5.
MPI = {
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "PRTE_MCA_mapby": ":oversubscribe",
    "PRTE_MCA_bindto": "none",
}
LAUNCHER = Path(__file__).resolve().parents[2] / "bin/py2rely"


@dataclass(frozen=True)
class Resources:
    """What a job asks the scheduler for: GPUs, cores, GB per core, hours, and types of GPU of which any will do."""

    gpus: int
    cpus: int
    memory: float
    hours: float
    gpu_types: tuple[str, ...] = ()


def resources_of(cluster: Cluster, site: Mapping[str, Value], uses_gpu: bool) -> Resources:
    """What was asked for, else the site's settings, else the reference system's numbers.

    Raises
    ------
    ProblemError
        The cores and their memory are not understood, or a number is impossible.
    """
    gpus = cluster.num_gpus if cluster.num_gpus is not None else int(site.get("num_gpus", 4))
    given = cluster.cpu_constraint or f"{site.get('cpus', 4)},{site.get('slurm_memory_per_cpu', 16)}"
    hours = cluster.timeout if cluster.timeout is not None else float(site.get("timeout", 48))
    try:
        cpus, memory = (float(part) for part in given.split(","))
    except ValueError:
        cpus = memory = 0
    if cpus < 1 or cpus != int(cpus) or memory <= 0 or gpus < 0 or hours <= 0:
        what = f"These are no resources: --num-gpus {gpus}, --cpu-constraint {given}, --timeout {hours:g}."
        expected = "0 or more GPUs, 'CPUs,GB' such as 4,16, more than 0 hours"
        raise ProblemError(Problem(what, "", expected, "Correct the option."), ExitCode.BAD_PARAMETERS)
    types = cluster.gpu_constraint or tuple(str(site.get("gpu_constraint", "")).replace(",", " ").split())
    return Resources(gpus if uses_gpu else 0, int(cpus), memory, hours, types)


def routine_script(name: str, words: list[str], site: Mapping[str, Value], wanted: Resources) -> str:
    """The script that runs a command of ``py2rely`` in the directory in which it is submitted.

    Parameters
    ----------
    name : str
        Of the job and its output file.
    words : list of str
        What follows ``py2rely``.
    site : mapping
        The site's settings.
    wanted : Resources
    """
    lines = ["#!/bin/bash", f"#SBATCH --job-name={name}", f"#SBATCH --output={name}_%j.out", "#SBATCH --nodes=1"]
    lines += ["#SBATCH --ntasks=1", f"#SBATCH --cpus-per-task={wanted.cpus}"]
    lines += [f"#SBATCH --mem-per-cpu={round(1024 * wanted.memory)}M", time_line(wanted.hours / 24)]
    partition = site.get("slurm_gpu_partition") if wanted.gpus else None
    lines += account_lines(dict(site) | ({"slurm_partition": partition} if partition else {}))
    if wanted.gpus:
        kind = f"{site['gpu_type']}:" if site.get("gpu_type") else ""
        request = "gpus=" if site.get("gpu_request") == "gpus" else "gres=gpu:"
        lines.append(f"#SBATCH --{request}{kind}{wanted.gpus}")
        lines += [f"#SBATCH --constraint={'|'.join(wanted.gpu_types)}"] if wanted.gpu_types else []
    elif site.get("slurm_constraint"):
        lines.append(f"#SBATCH --constraint={site['slurm_constraint']}")
    lines += [f"#SBATCH {option}" for option in shlex.split(str(site.get("slurm_options", "")))]
    lines += ["set -euo pipefail", 'cd "${SLURM_SUBMIT_DIR:-$PWD}"', *activation()]
    lines += ["# The ranks share the job's cores as py2rely says, not as the scheduler counts tasks."]
    lines += [f"export {name}={value}" for name, value in MPI.items()]
    lines += str(site.get("relion_load", "")).splitlines()
    command = [str(LAUNCHER) if LAUNCHER.is_file() else "py2rely", *words]
    if site.get("image"):
        gpu = ["--nv"] if wanted.gpus else []
        seen = ["--bind", str(Path.cwd()), "--bind", str(LAUNCHER.parents[1]), "--pwd", str(Path.cwd())]
        command = ["apptainer", "exec", *gpu, *seen, str(site["image"]), *command]
    lines.append(shlex.join(command))
    return "\n".join(lines) + "\n"


def submit(script: Path, wait: bool) -> str:
    """Give a script to sbatch; the job's number, or with `wait` after it has ended.

    Raises
    ------
    ProblemError
        There is no SLURM, it does not take the job, or the job was waited for and failed.
    """
    if shutil.which("sbatch") is None:
        fix = f"Start this where SLURM is, or run the script here: bash {script}"
        raise ProblemError(Problem("sbatch is not there.", "PATH", "SLURM", fix), ExitCode.MISSING_COMPONENT)
    # Variables of a job that this command may itself run in are none of the new one's.
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
    kept = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    command = ["sbatch", "--parsable", *(["--wait"] if wait else []), str(script)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=clean | kept)
    number = done.stdout.strip().split(";")[0]
    if done.returncode:
        what = f"Job {number} failed." if number else "SLURM does not take the job."
        where = f"{script.stem}_{number}.out" if number else str(script)
        fix = (
            "Look at the job's output."
            if number
            else "See its message above; correct the site's settings (py2rely config)."
        )
        raise ProblemError(Problem(what, where, "", fix), ExitCode.RELION_FAILED if number else ExitCode.BAD_PARAMETERS)
    return number
