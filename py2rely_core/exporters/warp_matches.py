"""What Warp's template matching found, as picks of a copick project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from py2rely_core.data.geometry import ANGLES, PIXEL, euler_to_matrix
from py2rely_core.data.tables import read_star
from py2rely_core.exporters.copick import Match, Target, object_problem, session_problem, write_picks
from py2rely_core.importers.copick import open_project, tomogram_of
from py2rely_core.importers.particles import numbers
from py2rely_core.problems import Problem, ProblemError

NAME, SCORE = "rlnMicrographName", "rlnAutopickFigureOfMerit"


def export_matches(source: Path, target: Target, voxel_size: float, tag: str) -> list[str]:
    """Write matches as picks, after everything was found to be possible.

    Parameters
    ----------
    source : Path
        STAR file of matches: rlnMicrographName (``NAME.tomostar``), coordinates in voxels or, all of them between 0 and
        1, in shares of the tomogram, and the angles of RELION.
    target : Target
        One configuration; object, user and session of the picks.
    voxel_size : float
        Of the tomograms that were searched, Angstrom.
    tag : str
        A run is called ``NAME`` and this.

    Returns
    -------
    list of str
        What was written.

    Raises
    ------
    ProblemError
        The file holds no matches, there is no such object, or there are such picks already.
    """
    if not voxel_size > 0:
        raise ProblemError(Problem(f"{voxel_size:g} A is no voxel size.", "--voxel-size", "> 0", "Correct it."))
    table = _read(source)
    root = open_project(target.configs[0])
    problems = object_problem(root, target.configs[0], target.name)
    known = {run.name: run for run in root.runs}
    shares = bool(table[PIXEL].max().max() <= 1)
    found, missing = [], []
    for name, rows in table.groupby(NAME, sort=True).indices.items():
        run_name = f"{str(name).removesuffix('.tomostar')}{tag}"
        if run_name not in known:
            missing.append(run_name)
        match = Match(known.get(run_name), rows, target.session)
        if match.run is not None:
            problems += session_problem(match, target)
        scale = _scale(match.run, run_name, voxel_size, shares, problems)
        found.append((run_name, match, table[PIXEL].to_numpy(dtype=float)[rows] * scale))
    if problems:
        raise ProblemError(problems)
    notes = [f"{source}: {len(table)} matches, {'shares of tomograms' if shares else f'voxels of {voxel_size:g} A'}"]
    notes += [f"made {len(missing)} runs: {', '.join(missing[:5])}"] if missing else []
    rotations = euler_to_matrix(table[ANGLES].to_numpy(dtype=float))
    scores = table[SCORE].to_numpy(dtype=float) if SCORE in table else np.ones(len(table))
    for run_name, match, positions in found:
        match.run = match.run or root.new_run(run_name)
        write_picks(match, positions, rotations[match.rows], scores[match.rows], target, oriented=True)
        notes.append(f"{run_name}: {len(match.rows)} picks of {target.name}, {target.user}/{match.session}")
    return notes


def _read(source: Path) -> pd.DataFrame:
    labels = {NAME, *PIXEL, *ANGLES}
    table = next((one for one in read_star(source).values() if labels <= set(one)), None)
    if table is None or table.empty:
        fix = "Give a STAR file of Warp's template matching, with the matches of one or of all tomograms."
        raise ProblemError(Problem("There are no matches in it.", str(source), ", ".join(sorted(labels)), fix))
    numbers(table, [*PIXEL, *ANGLES], str(source))
    return table.reset_index(drop=True)


def _scale(run: Any, name: str, voxel_size: float, shares: bool, problems: list[Problem]) -> np.ndarray | float:
    """Angstrom per unit of the coordinates."""
    if not shares:
        return voxel_size
    own = tomogram_of(run, voxel_size) if run is not None else None
    if own is None:
        what = f"The matches are shares of the tomogram, and run {name} has none of {voxel_size:g} A voxels."
        fix = "Add the tomogram to the project, or correct --voxel-size."
        problems.append(Problem(what, f"run {name}", "a tomogram", fix))
        return 1.0
    return own[0] * own[1]
