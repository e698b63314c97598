"""What the user hands over: tilt series and particles, loaded once, with everything that could not be loaded noted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from py2rely_core.problems import Problem, ProblemError
from py2rely_core.tables import Blocks, candidates, read_star, resolve, split_image_name


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

    def stacks(self) -> list[Path]:
        """Every image stack, once, in the order of the tilt series."""
        return list(dict.fromkeys(stack for series in self.tilt_series.values() for stack in series.stacks))


def load_inputs(particles: Path, tilt_series: Path, project: Path) -> Inputs:
    """Read both STAR files and every per-tilt-series STAR file.

    Parameters
    ----------
    particles, tilt_series : Path
        STAR files, absolute or relative to `project`.
    project : Path
        Absolute path of the project directory.

    Returns
    -------
    Inputs
        Never raises for what is wrong with the files: see ``Inputs.problems``.
    """
    inputs = Inputs(project, project / particles, project / tilt_series)
    blocks = _read(inputs, inputs.particles_file)
    inputs.particles = _block(inputs, blocks, inputs.particles_file, "particles")
    inputs.optics = _block(inputs, blocks, inputs.particles_file, "optics")
    blocks = _read(inputs, inputs.tilt_series_file)
    inputs.tomograms = _block(inputs, blocks, inputs.tilt_series_file, "global")
    if {"rlnTomoName", "rlnTomoTiltSeriesStarFile"} <= set(inputs.tomograms.columns):
        for row in inputs.tomograms.itertuples():
            _load_series(inputs, str(row.rlnTomoName), str(row.rlnTomoTiltSeriesStarFile))
    return inputs


def _read(inputs: Inputs, path: Path) -> Blocks:
    try:
        return read_star(path)
    except ProblemError as error:
        inputs.problems += error.problems
        return {}


def _block(inputs: Inputs, blocks: Blocks, path: Path, name: str) -> pd.DataFrame:
    if blocks and name not in blocks:
        old = "rlnTomoImportCtfFindFile" in " ".join(c for table in blocks.values() for c in table.columns)
        advice = "This looks like a RELION 4 file: import it into RELION 5 first." if old else "Add the block."
        found = ", ".join(f"data_{found}" for found in blocks)
        inputs.problems.append(Problem(f"The block data_{name} is missing.", f"{path} (it has {found})", "", advice))
    return blocks.get(name, pd.DataFrame())


def _load_series(inputs: Inputs, name: str, file: str) -> None:
    star_file = resolve(file, inputs.tilt_series_file, inputs.project)
    blocks = _read(inputs, star_file)
    if not blocks:
        return
    tilts = next(iter(blocks.values()))
    stacks = []
    if "rlnMicrographName" in tilts:
        files = dict.fromkeys(split_image_name(image)[1] for image in tilts["rlnMicrographName"])
        stacks = [resolve(stack, star_file, inputs.project) for stack in files]
    inputs.tilt_series[name] = TiltSeries(name, star_file, tilts, stacks)


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
    for star_file in star_files:
        try:
            tables = read_star(star_file).values()
        except ProblemError:
            continue
        for table in tables:
            for label in ("rlnTomoTiltSeriesStarFile", "rlnMicrographName"):
                names = dict.fromkeys(split_image_name(name)[1] for name in table.get(label, ()))
                for name in names:
                    found.update(dict.fromkeys(candidates(name, star_file, project)))
    return list(found)
