"""The final particles of a run into a copick project, and before the run whether that will be possible."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from py2rely_core.data.geometry import SIZES
from py2rely_core.data.inputs import Inputs
from py2rely_core.exporters.copick import Target, export_copick
from py2rely_core.exporters.poses import Poses, read_poses
from py2rely_core.importers.copick import open_project
from py2rely_core.importers.particles import tomograms_of
from py2rely_core.problems import Problem, ProblemError

#: Parameters of a run by the options of ``py2rely export star2copick`` that messages name.
PARAMETERS = {
    "--existing": "--imports.export_existing",
    "--session-id": "--export_session_id",
    "--suffix": "--imports.export_suffix",
    "--sessions": "--imports.export_session",
    "--skip-missing": "--imports.export_skip_missing yes",
    "--config": "--copick",
}


def export_problems(export: dict[str, Any], inputs: Inputs) -> list[Problem]:
    """What would keep the particles of a run from being written as picks at its end.

    Parameters
    ----------
    export : dict
        Of ``parameters.imports.export_settings``.
    inputs : Inputs
        The tables that the run begins with.
    """
    table = inputs.particles
    if "rlnTomoName" not in table or not {"rlnTomoName", *SIZES} <= set(inputs.tomograms):
        return []
    nothing = np.zeros((len(table), 3))
    poses = Poses(table, inputs.optics, nothing, np.zeros((len(table), 3, 3)), True, [])
    known = {str(name): np.ones(3) for name in inputs.tomograms["rlnTomoName"]}
    try:
        with contextlib.chdir(export["launch_dir"]):
            export_copick(poses, _target(export), known, None, export["skip_missing"] == "yes", write=False)
    except ProblemError as error:
        return [_as_parameters(problem) for problem in error.problems]
    return []


def export_particles(export: dict[str, Any], particles: Path, tilt_series: Path) -> list[str]:
    """Write particles as picks.

    Parameters
    ----------
    export : dict
        Of ``parameters.imports.export_settings``.
    particles, tilt_series : Path
        STAR files.

    Returns
    -------
    list of str
        What was written, and what was left out and why.

    Raises
    ------
    ProblemError
        It is not possible; nothing was written.
    """
    poses, tomograms = read_poses(particles.absolute(), "keep"), tomograms_of(tilt_series)
    sizes = {name: size * tomograms.pixel_size for name, size in tomograms.sizes.items()}
    try:
        with contextlib.chdir(export["launch_dir"]):
            notes = export_copick(poses, _target(export), sizes, None, export["skip_missing"] == "yes")
    except ProblemError as error:
        raise ProblemError([_as_parameters(one) for one in error.problems], error.exit_code) from error
    return [*poses.notes, *notes]


def _target(export: dict[str, Any]) -> Target:
    """Where picks go; a new session is one that is new in every run, so that all picks have the same."""
    session, existing = export["session_id"], export["existing"]
    if existing == "new-session":
        session, existing = _free_session(export), "error"
    return Target(
        [Path(export["config"])], [export["session"]], export["suffix"], export["name"], export["user_id"], session,
        existing,
    )  # fmt: skip


def _free_session(export: dict[str, Any]) -> str:
    wanted = export["session_id"]
    taken = {
        str(picks.session_id)
        for run in open_project(Path(export["config"])).runs
        for picks in run.get_picks(object_name=export["name"], user_id=export["user_id"])
    }
    later = (str(int(wanted) + n) if wanted.isdigit() else f"{wanted}-{n + 1}" for n in itertools.count(1))
    return wanted if wanted not in taken else next(one for one in later if one not in taken)


def _as_parameters(problem: Problem) -> Problem:
    words = problem.fix.split(" ")
    fix = " ".join(PARAMETERS.get(bare := word.rstrip(",."), bare) + word[len(bare) :] for word in words)
    return Problem(problem.what, problem.where, problem.expected, fix, problem.severity)
