"""The job script of the head process: Nextflow itself as a job of the cluster."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from py2rely_core.launching.site import Value
from py2rely_core.problems import ExitCode, Problem, ProblemError

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Head:
    """The head process.

    Attributes
    ----------
    days : float
        How long it may wait for all steps.
    fresh : bool
        Start anew instead of going on; results of earlier runs stay where they are, and are not used.
    profile : str
        Nextflow's profiles, such as ``slurm,apptainer``.
    site : mapping
        The site's settings: partition, account and qos of the head process, too.
    parameters : mapping
        Parameters of the run; those that are None are left out.
    """

    days: float
    fresh: bool
    profile: str
    site: Mapping[str, Value] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)


def job_script(head: Head) -> str:
    """The text of the script; it works with sbatch and, on a machine without SLURM, with bash."""
    if head.days * 1440 < 1:
        raise ProblemError(
            Problem(f"{head.days:g} days are no time.", "--num-days", "more than 0", "Give more."),
            ExitCode.BAD_PARAMETERS,
        )
    lines = ["#!/bin/bash", "#SBATCH --job-name=py2rely", "#SBATCH --output=py2rely_%j.out", "#SBATCH --nodes=1"]
    lines += ["#SBATCH --cpus-per-task=4", "#SBATCH --mem=16G", "#SBATCH --requeue"]
    lines += [time_line(head.days), *account_lines(head.site)]
    lines += ["# The head process: it submits every step as a job and waits. Submitted again, it goes on where it was."]
    lines += ["set -euo pipefail", 'cd "${SLURM_SUBMIT_DIR:-$PWD}"']
    lines += activation()
    resume = ["-resume"]
    if head.fresh:
        lines += ["# Started anew; only when the scheduler starts it again does it go on.", "resume=()"]
        lines += ["if ((${SLURM_RESTART_COUNT:-0})); then resume=(-resume); fi"]
        resume = ['"${resume[@]}"']
    command = [
        ["exec nextflow run", shlex.quote(str(PROJECT)), "-profile", shlex.quote(head.profile), *resume],
        ["-ansi-log false"],
    ]
    given = {name: _text(value) for name, value in head.parameters.items() if value is not None}
    command += [[f"--{name}", shlex.quote(value)] for name, value in given.items()]
    lines.append(" \\\n    ".join(" ".join(part) for part in command))
    return "\n".join(lines) + "\n"


def time_line(days: float) -> str:
    """The limit on a job's time."""
    minutes = max(1, round(days * 1440))
    return f"#SBATCH --time={minutes // 1440}-{minutes % 1440 // 60:02d}:{minutes % 60:02d}:00"


def account_lines(site: Mapping[str, Value]) -> list[str]:
    """Where a job belongs: the site's partition, account and quality of service."""
    given = ((option, site.get(f"slurm_{option}")) for option in ("partition", "account", "qos"))
    return [f"#SBATCH --{option}={value}" for option, value in given if value]


def activation() -> list[str]:
    """What puts a checkout's own programs on PATH; nothing elsewhere."""
    script = PROJECT / ".tools/activate"
    return [f"source {shlex.quote(str(script))}"] if script.is_file() else []


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
