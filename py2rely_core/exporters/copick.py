"""Refined particles back into copick projects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from py2rely_core.exporters.poses import Poses
from py2rely_core.importers.copick import open_project, tomogram_of
from py2rely_core.problems import Problem, ProblemError, nearest

EXISTING = ("error", "overwrite", "new-session")


@dataclass(frozen=True)
class Target:
    """Where picks go.

    Attributes
    ----------
    configs : list of Path
        copick configurations.
    sessions : list of str
        For each configuration, what tomogram names begin with before the run's name; empty where nothing does.
    suffix : str
        What runs' names may end with that tomogram names do not have, and the other way round.
    name, user, session : str
        Object, user id and session id of the picks.
    existing : {"error", "overwrite", "new-session"}
        What to do where there are such picks.
    """

    configs: list[Path]
    sessions: list[str]
    suffix: str = "_Vol"
    name: str = "ribosome"
    user: str = "relion"
    session: str = "99"
    existing: str = "error"

    def __post_init__(self) -> None:
        if self.existing not in EXISTING:
            what, fix = f"'{self.existing}' is no choice.", "Correct --existing."
            raise ProblemError(Problem(what, "--existing", ", ".join(EXISTING), fix))


@dataclass
class Match:
    """A run and the rows of its particles; the session that its picks will have."""

    run: Any
    rows: np.ndarray
    session: str


def export_copick(
    poses: Poses,
    target: Target,
    sizes: dict[str, np.ndarray] | None = None,
    default: np.ndarray | None = None,
    skip_missing: bool = False,
    write: bool = True,
) -> list[str]:
    """Write particles as picks, after everything was found to be possible.

    Parameters
    ----------
    poses : Poses
    target : Target
    sizes : dict of str to (3,) array or None
        Extent of each tomogram, Angstrom, for runs whose project has no tomogram.
    default : (3,) array or None
        Extent of the others, Angstrom; None where the size must be known.
    skip_missing : bool
        Leave out particles of tomograms without a run instead of stopping.
    write : bool
        False: only see whether it is possible.

    Returns
    -------
    list of str
        What was written, and what was left out and why.

    Raises
    ------
    ProblemError
        Runs, the object or sizes are missing, or there are picks already.
    """
    if len(target.configs) != len(target.sessions):
        what = f"There are {len(target.configs)} configurations and {len(target.sessions)} sessions."
        fix = "Give one session per configuration, separated by commas; empty where names have no prefix."
        raise ProblemError(Problem(what, "--configs and --sessions", "as many", fix))
    roots = [open_project(config) for config in target.configs]
    problems = [problem for root, config in zip(roots, target.configs, strict=True)
                for problem in object_problem(root, config, target.name)]  # fmt: skip
    matches, missing = _match(poses, roots, target)
    if missing and not skip_missing:
        problems += [_missing_problem(name, count, roots, target) for name, count in missing.items()]
    centres, sources = {}, {}
    for match in matches:
        name = str(poses.names.iloc[match.rows[0]])
        centre, sources[id(match)] = _centre(match.run, name, sizes or {}, default)
        if centre is None:
            fix = "Give --tilt-series with this tomogram."
            problems.append(Problem(f"The size of tomogram {name} is not known.", f"run {match.run.name}", "", fix))
        centres[id(match)] = centre
        problems += session_problem(match, target)
    if problems:
        raise ProblemError(problems)
    notes = [f"left out {count} particles of {name}: there is no run for it" for name, count in missing.items()]
    for match in matches:
        if write:
            positions = poses.positions[match.rows] + centres[id(match)]
            rotations, scores = poses.rotations[match.rows], poses.scores[match.rows]
            write_picks(match, positions, rotations, scores, target, poses.oriented)
        made = f"{len(match.rows)} picks of {target.name}, {target.user}/{match.session}"
        notes.append(f"{match.run.name}: {made}; {sources[id(match)]}")
    total = sum(len(match.rows) for match in matches)
    if not total:
        raise ProblemError(Problem("No tomogram has a run.", "", "at least one", "Correct --sessions or --suffix."))
    return [*notes, f"{total} of {len(poses.table)} particles written to {len(matches)} runs"]


def object_problem(root: Any, config: Path, name: str) -> list[Problem]:
    """The problem, if a project has no such object."""
    known = {one.name: one for one in root.pickable_objects}
    if name in known:
        return []
    fix = f"{nearest(name, known)} The project has {', '.join(known)}; 'copick add object' adds one.".strip()
    return [Problem(f"There is no object '{name}'.", str(config), "a pickable object", fix)]


def run_names(name: str, session: str, suffix: str) -> list[str]:
    """Names that the run of a tomogram may have, the likeliest first; none for another session's tomogram."""
    if session:
        if not name.startswith(f"{session}_"):
            return []
        name = name[len(session) + 1 :]
    ends = [name, f"{name}{suffix}", name.removesuffix(suffix) if suffix else name]
    return list(dict.fromkeys(ends))


def _match(poses: Poses, roots: list[Any], target: Target) -> tuple[list[Match], dict[str, int]]:
    runs = [{run.name: run for run in root.runs} for root in roots]
    # The longest session first: '24jan01' must not take what belongs to '24jan01_b'.
    order = sorted(range(len(roots)), key=lambda i: -len(target.sessions[i]))
    matches, missing = [], {}
    taken: dict[int, str] = {}
    for name, rows in poses.table.groupby(poses.names.to_numpy(), sort=True).indices.items():
        run = next(
            (
                runs[i][one]
                for i in order
                for one in run_names(str(name), target.sessions[i], target.suffix)
                if one in runs[i]
            ),
            None,
        )
        if run is None:
            missing[str(name)] = len(rows)
            continue
        if id(run) in taken:
            fix = "Correct --sessions or --suffix, so that every tomogram has a run of its own."
            what = f"Two tomograms belong to run {run.name}: {taken[id(run)]} and {name}."
            raise ProblemError(Problem(what, str(run.name), "one", fix))
        taken[id(run)] = str(name)
        matches.append(Match(run, np.asarray(rows), target.session))
    return matches, missing


def _missing_problem(name: str, count: int, roots: list[Any], target: Target) -> Problem:
    known = [run.name for root in roots for run in root.runs]
    wanted = {one for session in target.sessions for one in run_names(name, session, target.suffix)}
    hint = next((text for one in sorted(wanted) if (text := nearest(one, known))), "")
    sessions = ", ".join(repr(session) for session in target.sessions)
    fix = f"{hint} Correct --sessions ({sessions}) or --suffix, or go on without them with --skip-missing.".strip()
    what = f"The {count} particles of tomogram {name} have no run."
    expected = " or ".join(sorted(wanted)) or f"a name that begins with one of {sessions}"
    return Problem(what, ", ".join(map(str, target.configs)), f"a run called {expected}", fix)


def _centre(
    run: Any, name: str, sizes: dict[str, np.ndarray], default: np.ndarray | None
) -> tuple[np.ndarray | None, str]:
    """The tomogram's centre, Angstrom from its first corner, and in words where its size is from."""
    own = tomogram_of(run)
    if own:
        return own[0] * own[1] / 2, f"size of its own tomogram of {own[1]:g} A voxels"
    if name in sizes:
        return np.asarray(sizes[name]) / 2, "size of its tilt series"
    return (None, "") if default is None else (np.asarray(default) / 2, "size as given by -x -y -z")


def session_problem(match: Match, target: Target) -> list[Problem]:
    """Decide the session of a run's picks; the problem if there are picks that must not be replaced."""

    def there(session: str) -> list[Any]:
        return match.run.get_picks(object_name=target.name, user_id=target.user, session_id=session)

    found = there(match.session)
    if not found:
        return []
    where = f"run {match.run.name}, {target.name}, {target.user}/{match.session}"
    if target.existing == "new-session":
        base = int(match.session) if match.session.isdigit() else None
        numbers = range(1, 10_000)
        match.session = next(
            one for n in numbers if not there(one := str(base + n) if base is not None else f"{target.session}-{n + 1}")
        )
        return []
    if target.existing == "overwrite":
        if getattr(found[0], "read_only", False):
            fix = "Choose another --session-id, or --existing new-session."
            return [Problem("The picks are read-only.", where, "picks that can be written", fix)]
        return []
    fix = "Give --existing overwrite or new-session, or another --session-id."
    return [Problem("There are such picks already.", where, "none", fix)]


def write_picks(
    match: Match, positions: np.ndarray, rotations: np.ndarray, scores: np.ndarray, target: Target, oriented: bool
) -> None:
    """Write the picks of a run.

    Parameters
    ----------
    match : Match
    positions : (n, 3) float
        Angstrom from the tomogram's first corner.
    rotations : (n, 3, 3) float
    scores : (n,) float
    target : Target
    oriented : bool
        The orientations are to be trusted.
    """
    transforms = np.tile(np.eye(4), (len(positions), 1, 1))
    transforms[:, :3, :3] = rotations
    picks = match.run.new_picks(target.name, match.session, target.user, exist_ok=target.existing == "overwrite")
    picks.meta.trust_orientation = oriented
    picks.from_numpy(positions=positions, transforms=transforms, scores=scores)
