"""Starting the workflow: where it is, and the Nextflow command that a request amounts to."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import py2rely_core
from py2rely_core.problems import ExitCode, Problem, ProblemError

#: Names a directory with main.nf in it, and is looked at first.
PIPELINE_VARIABLE = "PY2RELY_PIPELINE"
#: Where ``pip install`` puts the workflow's files, below the environment's directory; as in pyproject.toml.
INSTALLED = "share/py2rely-nf"


@dataclass(frozen=True)
class Cluster:
    """What ``--submitit`` asks for; None where the option was not given.

    Attributes
    ----------
    submit : bool
        Run on SLURM.
    num_gpus : int
        GPUs per job.
    gpu_constraint : list of str
        GPU types, any of which will do.
    cpu_constraint : str
        ``"CPUs,GB"`` per job.
    timeout : float
        Hours per job.
    """

    submit: bool
    num_gpus: int | None = None
    gpu_constraint: tuple[str, ...] = ()
    cpu_constraint: str | None = None
    timeout: float | None = None


def pipeline_directory() -> Path:
    """The directory of main.nf: the one that :data:`PIPELINE_VARIABLE` names, the checkout's, or the installed one.

    Raises
    ------
    ProblemError
        There is none.
    """
    named = os.environ.get(PIPELINE_VARIABLE)
    checkout = Path(py2rely_core.__file__).resolve().parents[1]
    places = [Path(named)] if named else [checkout, Path(sys.prefix) / INSTALLED, checkout / INSTALLED]
    for place in places:
        if (place / "main.nf").is_file():
            return place.absolute()
    tried = ", ".join(str(place) for place in places)
    fix = f"Set {PIPELINE_VARIABLE} to the directory that holds main.nf, or install again with pip."
    raise ProblemError(
        Problem("The workflow's files are not there.", tried, "main.nf", fix), ExitCode.MISSING_COMPONENT
    )


def parameters_of(cluster: Cluster) -> dict[str, Any]:
    """The workflow's parameters for what was asked of the cluster or, without it, of this machine.

    Raises
    ------
    ProblemError
        An option that this machine has no use for, or a value that is none.
    """
    problems = []
    cpus = _cpus(cluster.cpu_constraint, problems)
    if cluster.num_gpus is not None and cluster.num_gpus < 0:
        problems.append(Problem(f"--num-gpus {cluster.num_gpus} is no number of GPUs.", "--num-gpus", "0 or more"))
    if not cluster.submit:
        problems += [
            Problem(f"{option} is for SLURM.", option, "--submitit True", "Add --submitit True, or leave it out.")
            for option, value in (("--gpu-constraint", cluster.gpu_constraint), ("--timeout", cluster.timeout))
            if value
        ]
    if problems:
        raise ProblemError(problems, ExitCode.BAD_PARAMETERS)
    if cluster.submit:
        return {
            "num_gpus": 4 if cluster.num_gpus is None else cluster.num_gpus,
            "gpu_constraint": ",".join(cluster.gpu_constraint) or None,
            "cpu_constraint": cluster.cpu_constraint or "4,16",
            "timeout": f"{48 if cluster.timeout is None else cluster.timeout:g}",
        }
    return {"gpus": ",".join(map(str, range(cluster.num_gpus or 0))) or None, "cpus": cpus}


def _cpus(constraint: str | None, problems: list[Problem]) -> int | None:
    if constraint is None:
        return None
    try:
        cpus, memory = (float(part) for part in constraint.split(","))
    except ValueError:
        cpus = memory = 0
    if cpus < 1 or memory <= 0 or cpus != int(cpus):
        what = f"--cpu-constraint '{constraint}' is not understood."
        problems.append(Problem(what, "--cpu-constraint", "'CPUs,GB' such as 4,16", "Write the two numbers so."))
    return int(cpus)


def first_binning(parameter_file: Path) -> int:
    """The first binning of a parameter file.

    Raises
    ------
    ProblemError
        The file is missing or wrong.
    """
    from py2rely_core.parameters.files import load_recipe

    return load_recipe(parameter_file).resolutions.binning_list[0]


def check_request(parameter: Path, class3d: bool, manual_classes: bool, extra: Iterable[str]) -> None:
    """See to what can be known before Nextflow starts: the workflow checks all the rest.

    Raises
    ------
    ProblemError
        The parameter file is missing, or classes are to be chosen and there are none.
    """
    problems = []
    if not parameter.is_file() and "-params-file" not in extra:
        fix = "Write one with 'py2rely prepare relion5-parameters', or give --parameter FILE."
        problems.append(Problem("The parameter file is missing.", str(parameter), "a JSON file", fix))
    if manual_classes and not class3d:
        fix = "Add --run-class3D True, or leave --class-selection out."
        problems.append(Problem("There are no classes to choose.", "--class-selection manual", "--run-class3D", fix))
    if problems:
        raise ProblemError(problems, ExitCode.BAD_PARAMETERS)


def nextflow_command(
    parameters: Mapping[str, Any], profile: str, resume: bool = True, extra: Iterable[str] = ()
) -> list[str]:
    """The command that runs the workflow.

    Parameters
    ----------
    parameters : mapping
        Parameters of the workflow; those that are None, False or empty are left out.
    profile : str
        Nextflow's profile, such as ``local`` or ``slurm``.
    resume : bool
        Use what earlier runs computed.
    extra : iterable of str
        Arguments for ``nextflow run``, as they are.
    """
    command = ["nextflow", "run", str(pipeline_directory()), "-profile", profile]
    command += ["-resume"] if resume else []
    for name, value in parameters.items():
        if value is not None and value is not False and value != "":
            command += [f"--{name}", _text(value)]
    return [*command, *extra]


def _text(value: Any) -> str:
    return "true" if value is True else f"{value:g}" if isinstance(value, float) else str(value)


def start(command: list[str]) -> None:
    """Become the program: its exit code, signals and terminal are then this command's own. Does not return.

    Raises
    ------
    ProblemError
        The program is missing.
    """
    if shutil.which(command[0]) is None:
        fix = "Put it on PATH; in a checkout 'make setup' provides it, and 'source .tools/activate' puts it there."
        problem = Problem(f"{command[0]} is not there.", "PATH", command[0], fix)
        raise ProblemError(problem, ExitCode.MISSING_COMPONENT)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvp(command[0], command)
