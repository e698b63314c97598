"""Picks of a copick project."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from py2rely_core.data import kinds
from py2rely_core.data.geometry import ANGLES, matrix_to_euler
from py2rely_core.data.names import match
from py2rely_core.importers.coordinates import Coordinates, Unit, place
from py2rely_core.importers.particles import Tomograms, finish
from py2rely_core.importers.result import Import
from py2rely_core.problems import ExitCode, Problem, ProblemError, nearest
from py2rely_core.relion.slabs import Open, Tomogram

#: Extents of a copick tomogram and of the tilt series' tomogram are the same within this share.
SAME_EXTENT = 0.02


@dataclass(frozen=True)
class Picks:
    """Which picks of a copick project are meant.

    Attributes
    ----------
    name : str
        Of the object.
    user, session : str or None
        None: those that are there, which must then be one.
    runs : list of str
        Empty for all.
    voxel_size : float or None
        Only runs that have this voxel spacing, Angstrom.
    authors : list of str
        Only picks of these authors; a data-portal project knows them.
    """

    name: str
    user: str | None = None
    session: str | None = None
    runs: list[str] = field(default_factory=list)
    voxel_size: float | None = None
    authors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Volumes:
    """Which tomograms of a copick project are meant.

    Attributes
    ----------
    kind : str
        Such as ``wbp`` or ``denoised``.
    voxel_size : float
        Angstrom.
    """

    kind: str
    voxel_size: float

    def of(self, run: Any) -> Any | None:
        """The run's tomogram, as copick has it; None where there is none."""
        spacings = [one for one in run.voxel_spacings if _same(one.voxel_size, self.voxel_size)]
        found = [tomogram for one in spacings for tomogram in one.get_tomograms(self.kind)]
        return found[0] if found else None


def open_project(config: Path) -> Any:
    """The root of a copick project.

    Raises
    ------
    ProblemError
        copick is missing, or the configuration cannot be read.
    """
    try:
        import copick
    except ImportError as error:
        fix = f"Add it with: {how_to_install()}"
        problem = Problem("copick is not installed.", str(config), "the Python package copick", fix)
        raise ProblemError(problem, ExitCode.MISSING_COMPONENT) from error
    if not config.is_file():
        problem = Problem("The copick configuration is missing.", str(config), "an existing file", "Correct --config.")
        raise ProblemError(problem)
    _refuse_others(config)
    try:
        return copick.from_file(str(config))
    except Exception as error:
        fix = "Look at the file; 'copick config' writes one."
        problem = Problem(f"The copick project cannot be opened: {_said(error)}.", str(config), "a configuration", fix)
        raise ProblemError(problem) from error


def _refuse_others(config: Path) -> None:
    """Stop where a file is of another kind: copick says of it only what is wrong with it as JSON."""
    kind = kinds.look(config)
    if kind is None or kind.key not in ("copick", "json"):
        wanted = "a copick configuration"
        fix = "Give the project's configuration (JSON); 'copick config' writes one."
        other = Problem(f"This is not {wanted}.", str(config), "JSON with pickable_objects", fix)
        raise ProblemError(kinds.problem_of(kind, config, wanted) if kind else other)


def _said(error: Exception) -> str:
    """What copick says of a configuration; of its fields in one line, not as its library prints them."""
    if not hasattr(error, "errors"):
        return str(error)
    wrong = [f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in error.errors()]
    return "; ".join(wrong[:3]) + ("; ..." if len(wrong) > 3 else "")


def how_to_install() -> str:
    """The one command that adds copick: of the checkout that this package belongs to, or of the environment."""
    setup = Path(__file__).resolve().parents[2] / "tools/setup"
    if setup.is_file() and sys.prefix == str(setup.parents[1] / ".tools/venv"):
        return f"{shlex.quote(str(setup))} copick"
    return f"{shlex.quote(sys.executable)} -m pip install 'py2rely-nf[copick]'"


def tomogram_of(run: Any, voxel_size: float | None = None) -> tuple[np.ndarray, float] | None:
    """Size (x, y, z in voxels) and voxel size of a run's finest tomograms, or of those of that voxel size.

    Returns
    -------
    tuple or None
        None: it has none.

    Raises
    ------
    ProblemError
        They are not of one size: picks count from the corner of one of them, and of which is not known.
    """
    import zarr

    spacings = [one for one in run.voxel_spacings if one.tomograms]
    if voxel_size is not None:
        spacings = [one for one in spacings if _same(one.voxel_size, voxel_size)]
    if not spacings:
        return None
    finest = min(spacings, key=lambda one: one.voxel_size)
    tomograms = sorted(finest.tomograms, key=lambda one: one.tomo_type)
    sizes = [np.array(zarr.open(one.zarr(), mode="r")["0"].shape[::-1], dtype=float) for one in tomograms]
    if (np.abs(np.array(sizes) - sizes[0]) > SAME_EXTENT * sizes[0] + 1).any():
        pairs = zip(tomograms, sizes, strict=True)
        shown = "; ".join(f"{one.tomo_type} {' x '.join(f'{value:.0f}' for value in size)}" for one, size in pairs)
        what = f"Run {run.name} has tomograms of different sizes at {finest.voxel_size:g} A, voxels: {shown}."
        fix = "Leave those that are the volume in which picks were made; give others a project of their own."
        raise ProblemError(Problem(what, f"run {run.name}", "tomograms of one size", fix))
    return sizes[0], float(finest.voxel_size)


def runs_of(configs: Iterable[Path]) -> dict[str, Any]:
    """Copick's runs of one or several projects, by name.

    Raises
    ------
    ProblemError
        Two projects have runs of one name: which tomogram is meant would not be known.
    """
    runs: dict[str, Any] = {}
    for config in configs:
        own = {run.name: run for run in open_project(config).runs}
        both = sorted(runs.keys() & own)
        if both:
            what = f"{len(both)} runs are also in an earlier project, such as {both[0]}."
            raise ProblemError(Problem(what, str(config), "runs of different names", "Give the projects one by one."))
        runs |= own
    return runs


def what_there_is(run: Any) -> str:
    """Voxel sizes and types of all tomograms of a run, for messages."""
    return "; ".join(
        f"{one.voxel_size:g} A: {', '.join(tomogram.tomo_type for tomogram in one.tomograms)}"
        for one in run.voxel_spacings
        if one.tomograms
    )


def series_of(run: str, known: Iterable[str], prefix: str = "", remove: str = "") -> str:
    """The tilt series of a run: called like the run, without the text `remove`, after `prefix`.

    A run may also be called as a program called its tomogram, where that means one of the `known` tilt series.
    """
    name = prefix + (run.replace(remove, "") if remove else run)
    return match([name], known)[0].get(name, name)


def volumes_of(runs: dict[str, Any], wanted: Volumes, launch: Path) -> Open:
    """Tomograms of copick projects, by name; they are read where they lie, slab by slab.

    Parameters
    ----------
    runs : dict of str to run
        copick's runs, by the names of their tomograms.
    wanted : Volumes
    launch : Path
        Relative names in a configuration start from it.
    """
    import zarr

    @contextlib.contextmanager
    def open_one(name: str) -> Any:
        with contextlib.chdir(launch):
            found = wanted.of(runs[name]) if name in runs else None
            if found is None:
                there = what_there_is(runs[name]) if name in runs else ""
                what = f"Run {name} has no tomogram '{wanted.kind}' with voxels of {wanted.voxel_size:g} A."
                fix = "Correct --tomo-alg and --voxel-spacing."
                raise ProblemError(Problem(what, f"it has {there or 'none'}", "a tomogram of each run", fix))
            try:
                voxels = zarr.open(found.zarr(), mode="r")["0"]
            except (OSError, KeyError, ValueError) as error:
                what, fix = f"The tomogram of {name} cannot be read: {error}.", "Copy or write it again."
                raise ProblemError(Problem(what, f"run {runs[name].name}", "a complete zarr store", fix)) from error
        yield Tomogram(voxels, float(found.voxel_spacing.voxel_size))

    return open_one


def planned_volumes(planned: dict[str, Any]) -> Open:
    """The tomograms of a copick project that a plan names.

    Parameters
    ----------
    planned : dict
        ``{"config", "launch_dir", "tomo_alg", "voxel_spacing", "runs": {tilt series: run}}``.
    """
    launch = Path(planned["launch_dir"])
    with contextlib.chdir(launch):
        runs = runs_of([Path(planned["config"])])
    by_name = {name: runs[run] for name, run in planned["runs"].items() if run in runs}
    return volumes_of(by_name, Volumes(planned["tomo_alg"], planned["voxel_spacing"]), launch)


def import_copick(
    config: Path,
    picks: Picks,
    output: Path,
    tomograms: Tomograms,
    prefix: str = "",
    remove: str = "",
    own_sizes: bool = False,
    skip_unknown: bool = False,
    drop_duplicates: bool = False,
) -> Import:
    """Picks of a copick project as a particle file.

    Positions are the picks' locations with the translations of their transformations, taken from the centre of each
    run's own tomogram where the project has one.

    Parameters
    ----------
    config : Path
    picks : Picks
    output : Path
    tomograms : Tomograms
    prefix, remove : str
        A run's tilt series is called like the run, without the text `remove`, after `prefix`.
    own_sizes : bool
        The runs' own tomograms count, and `tomograms` only for runs that have none.
    skip_unknown : bool
        Leave out runs without a tilt series instead of stopping.
    drop_duplicates : bool
        Keep the first of particles at one place instead of stopping.

    Raises
    ------
    ProblemError
        There are no such picks, more than one set of them, or they do not fit the tomograms.
    """
    root = open_project(config)
    known = [one.name for one in root.pickable_objects]
    if picks.name not in known:
        fix = f"{nearest(picks.name, known)} The project has {', '.join(known)}.".strip()
        raise ProblemError(Problem(f"There is no object '{picks.name}'.", str(config), "an object's name", fix))
    chosen, notes = _runs(root, picks, config)
    tables, centred, problems, untrusted = [], [], [], []
    for run in chosen:
        found = _picks_of(run, picks, config)
        if found is None or not found.points:
            notes.append(f"{run.name}: no picks")
            continue
        name = series_of(run.name, tomograms.sizes, prefix, remove)
        try:
            table, positions, text = _read_run(run, found, name, tomograms, own_sizes)
        except _Unknown:
            if not skip_unknown:
                hint = nearest(name, tomograms.sizes)
                fix = f"{hint} Use --prefix, or leave such runs out with --skip-unknown.".strip()
                problems.append(Problem(f"There is no tilt series {name}.", f"run {run.name} of {config}", "one", fix))
            notes.append(f"{run.name}: left out, there is no tilt series {name}")
            continue
        except ProblemError as error:
            problems += error.problems
            continue
        untrusted += [run.name] if found.trust_orientation is False else []
        tables.append(table)
        centred.append(positions)
        notes.append(text)
    if problems:
        raise ProblemError(problems)
    if not tables:
        where = f"{config}, object {picks.name}, user {picks.user or 'any'}, session {picks.session or 'any'}"
        fix = "Correct the filters.\n" + "\n".join(notes[:10])
        raise ProblemError(Problem("There are no such picks.", where, "at least one", fix))
    table = pd.concat(tables, ignore_index=True)
    if untrusted:
        table = table.drop(columns=ANGLES)
        notes.append(
            f"orientations left out: the picks of {', '.join(untrusted[:3])} say that they are not to be trusted"
        )
    elif not table[ANGLES].to_numpy().any():
        notes.append("all orientations are the identity: they are probably not known")
    return finish(table, np.concatenate(centred), tomograms, output, notes, str(config), drop_duplicates)


class _Unknown(Exception):
    """A run has no tilt series."""


def _runs(root: Any, picks: Picks, config: Path) -> tuple[list[Any], list[str]]:
    runs = {run.name: run for run in root.runs}
    missing = [name for name in picks.runs if name not in runs]
    if missing:
        fix = nearest(missing[0], runs) or f"The project has {', '.join(list(runs)[:5])}, ..."
        raise ProblemError(Problem(f"There are no runs {', '.join(missing)}.", str(config), "runs of the project", fix))
    chosen = [runs[name] for name in picks.runs] if picks.runs else list(runs.values())
    notes = [f"{config}: {len(runs)} runs, {len(chosen)} of them asked for"]
    if picks.voxel_size is not None:
        with_it = [run for run in chosen if _has_spacing(run, picks.voxel_size)]
        left = [run.name for run in chosen if run not in with_it]
        if left:
            notes.append(f"left out {len(left)} runs without voxel size {picks.voxel_size:g}: {', '.join(left[:5])}")
        chosen = with_it
    return chosen, notes


def _has_spacing(run: Any, voxel_size: float) -> bool:
    return any(_same(one.voxel_size, voxel_size) for one in run.voxel_spacings)


def _same(one: float, other: float) -> bool:
    """Whether two voxel sizes are the same, Angstrom."""
    return abs(one - other) <= 1e-3 * other


def _picks_of(run: Any, picks: Picks, config: Path) -> Any | None:
    filters: dict[str, Any] = {"object_name": picks.name, "user_id": picks.user, "session_id": picks.session}
    if picks.authors:
        if "portal_author_query" not in run.get_picks.__code__.co_varnames:
            fix = "Leave out --authors; filter by --user-id and --session-id."
            what = "Only projects of the data portal know the authors of picks."
            raise ProblemError(Problem(what, str(config), "a data-portal project", fix))
        filters["portal_author_query"] = picks.authors
    found = run.get_picks(**filters)
    if len(found) > 1:
        sets = "; ".join(f"user {one.user_id}, session {one.session_id}" for one in found)
        fix = "Choose one with --user-id and --session-id; import others into files of their own and combine them."
        raise ProblemError(Problem(f"Run {run.name} has {len(found)} sets of picks: {sets}.", str(config), "one", fix))
    return found[0] if found else None


def _read_run(
    run: Any, found: Any, name: str, tomograms: Tomograms, own_sizes: bool
) -> tuple[pd.DataFrame, np.ndarray, str]:
    own = tomogram_of(run)
    if own and own_sizes:
        size = own[0] * own[1] / tomograms.pixel_size
    elif name in tomograms.sizes:
        size = np.asarray(tomograms.sizes[name], dtype=float)
    elif tomograms.default is not None:
        size = np.asarray(tomograms.default, dtype=float)
    else:
        raise _Unknown
    if own and not own_sizes:
        _same_extent(own[0] * own[1], size * tomograms.pixel_size, run.name)
    transforms = np.array([point.transformation for point in found.points], dtype=float).reshape(-1, 4, 4)
    corner = np.array([[p.location.x, p.location.y, p.location.z] for p in found.points], dtype=float)
    corner = corner + transforms[:, :3, 3]
    # The centre is that of the tomogram in which picks were made: their size is rounded to whole binned voxels.
    middle = (own[0] * own[1] if own else size * tomograms.pixel_size) / 2
    names = pd.Series([name] * len(corner))
    extent = np.tile(size * tomograms.pixel_size, (len(corner), 1))
    told = Coordinates(corner - middle, (Unit.CENTRED,), source="copick")
    centred, _ = place(told, extent, names, tomograms.pixel_size, f"run {run.name}")
    angles = matrix_to_euler(transforms[:, :3, :3])
    table = pd.DataFrame({"rlnTomoName": names} | dict(zip(ANGLES, angles.T, strict=True)))
    where = f"its tomogram of {own[1]:g} A voxels" if own else "the size that is given"
    return table, centred, f"{run.name}: {len(corner)} picks of {found.user_id}/{found.session_id}, centre of {where}"


def _same_extent(own: np.ndarray, other: np.ndarray, run: str) -> None:
    if (np.abs(own - other) > SAME_EXTENT * other + 1).any():
        text = [" x ".join(f"{value:.0f}" for value in one) for one in (own, other)]
        what = f"The tomogram of run {run} is {text[0]} A, that of its tilt series {text[1]} A."
        fix = "Correct rlnTomoSizeX/Y/Z or the voxel size; the two must be the same volume."
        raise ProblemError(Problem(what, f"run {run}", "the same extent", fix))
