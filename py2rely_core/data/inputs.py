"""What the user hands over: tilt series and particles, loaded once, with everything that could not be loaded noted."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from py2rely_core.data import kinds
from py2rely_core.data.tables import Blocks, candidates, read_star, read_stars, resolve, split_image_name
from py2rely_core.problems import Problem, ProblemError, merged


@dataclass
class TiltSeries:
    """One tilt series: its row of the global table, its tilts, and the stacks that hold its images."""

    name: str
    star_file: Path
    tilts: pd.DataFrame
    stacks: list[Path]


@dataclass
class Inputs:
    """The tables of one data set.

    Attributes
    ----------
    project : Path
        Directory from which relative paths are resolved.
    particles_file, tilt_series_file : Path
        Absolute paths of the two STAR files.
    particles, optics, tomograms : DataFrame
        Rows as they are in the files; empty when a file could not be read.
    tilt_series : dict of str to TiltSeries
        By tomogram name.
    problems : list of Problem
        What could not be read.
    """

    project: Path
    particles_file: Path
    tilt_series_file: Path
    particles: pd.DataFrame = field(default_factory=pd.DataFrame)
    optics: pd.DataFrame = field(default_factory=pd.DataFrame)
    tomograms: pd.DataFrame = field(default_factory=pd.DataFrame)
    tilt_series: dict[str, TiltSeries] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def without(self, names: Collection[str]) -> Inputs:
        """The same without some tilt series and their particles."""
        series = {name: one for name, one in self.tilt_series.items() if name not in names}
        tables = {
            key: table[~table["rlnTomoName"].astype(str).isin(set(names))] if "rlnTomoName" in table else table
            for key, table in (("particles", self.particles), ("tomograms", self.tomograms))
        }
        return replace(self, tilt_series=series, **{key: one.reset_index(drop=True) for key, one in tables.items()})

    def stacks(self) -> list[Path]:
        """Every image stack, once, in the order of the tilt series."""
        return list(dict.fromkeys(stack for series in self.tilt_series.values() for stack in series.stacks))


#: Labels of which one makes a file the one that is wanted, whatever else is in it.
WANTED = {
    "particles": {"rlnCenteredCoordinateXAngst", "rlnCoordinateZ"},
    "tilt series": {"rlnTomoTiltSeriesStarFile"},
}
#: File names that one problem lists.
LISTED = 100


def load_inputs(particles: Path | None, tilt_series: Path | None, project: Path) -> Inputs:
    """Read both STAR files and every per-tilt-series STAR file.

    Parameters
    ----------
    particles, tilt_series : Path
        STAR files, absolute or relative to `project`; None for one that could not be made, of which others tell.
    project : Path
        Absolute path of the project directory.

    Returns
    -------
    Inputs
        Never raises for what is wrong with the files: see ``Inputs.problems``.
    """
    inputs = Inputs(project, project / (particles or ""), project / (tilt_series or ""))
    blocks: Blocks = {}
    if particles:
        inputs.particles_file, blocks = _read(inputs, inputs.particles_file, "particles", "particles")
    inputs.particles = blocks.get("particles", pd.DataFrame())
    inputs.optics = _block(inputs, blocks, inputs.particles_file, "optics")
    blocks = {}
    if tilt_series:
        inputs.tilt_series_file, blocks = _read(inputs, inputs.tilt_series_file, "tilt series", "global")
    inputs.tomograms = blocks.get("global", pd.DataFrame())
    if {"rlnTomoName", "rlnTomoTiltSeriesStarFile"} <= set(inputs.tomograms.columns):
        _load_all_series(inputs)
    return inputs


def _read(inputs: Inputs, path: Path, wanted: str, block: str) -> tuple[Path, Blocks]:
    """A file's blocks; none when it is of another kind or lacks its main block. Of an optimisation set, its file's."""
    try:
        path = from_optimisation_set(path, wanted, inputs.project)
        blocks = read_star(path)
    except ProblemError as error:
        inputs.problems += error.problems
        return path, {}
    kind, expected = kinds.of_blocks(blocks), kinds.KINDS[wanted]
    as_wanted = WANTED[wanted] & set(blocks.get(block, pd.DataFrame()).columns)
    if kind and kind is not expected and not as_wanted:
        inputs.problems.append(kinds.problem_of(kind, path, expected.name, f"block data_{block}"))
        return path, {}
    _block(inputs, blocks, path, block)
    return path, blocks if block in blocks else {}


#: Labels of an optimisation set, by what they name.
IN_SET = {
    "particles": "rlnTomoParticlesFile",
    "tilt series": "rlnTomoTomogramsFile",
    "trajectories": "rlnTomoTrajectoriesFile",
}


def from_optimisation_set(path: Path, wanted: str, project: Path) -> Path:
    """The file that an optimisation set names; any other file itself.

    Parameters
    ----------
    path : Path
        Absolute, or relative to the current directory.
    wanted : {"particles", "tilt series", "trajectories"}
        Which of its files.
    project : Path
        Absolute path of the directory from which its names hold.

    Raises
    ------
    ProblemError
        The set names no such file, or one that is not there.
    """
    if kinds.look(path) is not kinds.KINDS["optimisation set"]:
        return path
    label = IN_SET[wanted]
    values = [str(table[label].iloc[0]) for table in read_star(path).values() if label in table and len(table)]
    named = next((value for value in values if value not in ("", "None", "nan")), None)
    what = f"This is an optimisation set, and it names no {label}."
    if named is not None:
        found = resolve(named, Path(path).absolute(), project)
        if found.is_file():
            return found
        what = f"This is an optimisation set, and the file that it names is missing: {named}."
    fix = "Start in the directory of the RELION project, or give the file itself."
    raise ProblemError(Problem(what, str(path), f"{label} with an existing file", fix))


def _block(inputs: Inputs, blocks: Blocks, path: Path, name: str) -> pd.DataFrame:
    if blocks and name not in blocks:
        found = ", ".join(f"data_{found}" for found in blocks)
        fix = "Add the block, or give the file that has it."
        inputs.problems.append(Problem(f"The block data_{name} is missing.", f"{path} (it has {found})", "", fix))
    return blocks.get(name, pd.DataFrame())


def _load_all_series(inputs: Inputs) -> None:
    """Every tilt series of the global table; the files that are missing are one problem, as there may be many."""
    names = inputs.tomograms["rlnTomoName"].astype(str)
    if names.isna().any():
        row = int(names.isna().to_numpy().argmax()) + 1
        what, where = "A tilt series has no name.", f"{inputs.tilt_series_file}, row {row} of data_global"
        inputs.problems.append(Problem(what, where, "rlnTomoName", "Name it as the particles do."))
        return
    files = {
        name: resolve(str(file), inputs.tilt_series_file, inputs.project)
        for name, file in zip(names, inputs.tomograms["rlnTomoTiltSeriesStarFile"], strict=True)
    }
    names_of: dict[Path, list[str]] = {}
    for name, path in files.items():
        names_of.setdefault(path, []).append(name)
    missing, unreadable = [], []
    for path, blocks in read_stars(names_of).items():
        if isinstance(blocks, ProblemError):
            missing += [str(path)] if not path.exists() and not path.is_symlink() else []
            unreadable += blocks.problems if path.exists() or path.is_symlink() else []
            continue
        for name in names_of[path]:
            try:
                tilts = blocks[block_of(name, blocks, names_of[path], set(files), path)]
            except ProblemError as error:
                unreadable += error.problems
                continue
            inputs.tilt_series[name] = _series(inputs, name, path, tilts)
    inputs.problems += merged(unreadable)
    if missing:
        more = f" and {len(missing) - LISTED} more" if len(missing) > LISTED else ""
        fix = "Start the run in the project directory, or correct rlnTomoTiltSeriesStarFile."
        what = f"{len(missing)} STAR files of tilt series are missing."
        where = f"{inputs.tilt_series_file} names {', '.join(missing[:LISTED])}{more}"
        inputs.problems.append(Problem(what, where, "existing files", fix))


def block_of(name: str, blocks: Blocks, sharing: list[str], names: set[str], path: Path) -> str:
    """The block that describes a tilt series: that of its name, as RELION takes it, or the only one.

    Parameters
    ----------
    name : str
        Of the tomogram.
    blocks : dict of str to DataFrame
        Of the STAR file of its tilt series.
    sharing : list of str
        Names of all tomograms whose tilt series are in this file.
    names : set of str
        Names of all tomograms.
    path : Path
        The file, for messages.

    Raises
    ------
    ProblemError
        There is no block of the name, and the only one is another tomogram's, or would serve for several.
    """
    if name in blocks:
        return name
    found = ", ".join(f"data_{block}" for block in blocks)
    only = next(iter(blocks)) if len(blocks) == 1 else None
    if only is None or only in names or len(sharing) > 1:
        what = f"The tilt series of {name} has no block of its name in its STAR file."
        fix = "Correct rlnTomoTiltSeriesStarFile, or the block's name: RELION takes the block of the tomogram's name."
        raise ProblemError(Problem(what, f"{path} (it has {found})", f"data_{name}", fix))
    return only


def _series(inputs: Inputs, name: str, star_file: Path, tilts: pd.DataFrame) -> TiltSeries:
    stacks = []
    if "rlnMicrographName" in tilts:
        files = dict.fromkeys(split_image_name(image)[1] for image in tilts["rlnMicrographName"])
        stacks = [resolve(stack, star_file, inputs.project) for stack in files]
    return TiltSeries(name, star_file, tilts, stacks)


def referenced_files(star_files: list[Path], project: Path) -> list[Path]:
    """Every place where a file that these STAR files name may be (tilt series of a global file, their stacks).

    Parameters
    ----------
    star_files : list of Path
        Absolute paths. What cannot be read names nothing here: the preflight reports it.
    project : Path
        Absolute path of the project directory.
    """
    found: dict[Path, None] = {}
    for star_file, blocks in read_stars(star_files).items():
        for table in () if isinstance(blocks, ProblemError) else blocks.values():
            for label in ("rlnTomoTiltSeriesStarFile", "rlnMicrographName"):
                names = dict.fromkeys(split_image_name(name)[1] for name in table.get(label, ()))
                for name in names:
                    found.update(dict.fromkeys(candidates(name, star_file, project)))
    return list(found)
