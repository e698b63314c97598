"""Tomograms that RELION makes for a step, and subtomograms that it cuts out of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from py2rely_core.data.geometry import CENTRED, SIZES
from py2rely_core.data.tables import read_star, write_star
from py2rely_core.data.tomograms import RECONSTRUCTED
from py2rely_core.parameters.lost import may_lose
from py2rely_core.problems import ExitCode, ProblemError
from py2rely_core.relion.outputs.job import bad_output
from py2rely_core.relion.run import run_job

#: Table of the tilt series with their tomograms, in the directory of these.
TABLE = "tomograms.star"
BINNING = "rlnTomoTomogramBinning"


def even_edges(sizes: np.ndarray, binning: float) -> np.ndarray:
    """Edges of tomograms, unbinned pixels, with an even number of voxels.

    Their middle is then that of the tilt series.

    Parameters
    ----------
    sizes : (..., 3) float
        ``rlnTomoSizeX/Y/Z``.
    binning : float
        Of the tomograms.
    """
    return np.round(2 * binning * np.ceil(np.asarray(sizes, dtype=float) / (2 * binning))).astype(int)


def make_tomogram(job: Path, row: pd.DataFrame, binning: float, threads: int, options: tuple[str, ...],
                  work: Path) -> Path:  # fmt: skip
    """Have RELION make the tomogram of a tilt series; its path.

    Parameters
    ----------
    job : Path
        Gets RELION's output and commands.
    row : DataFrame
        The tilt series' row; its file is named from the current directory.
    binning : float
        Of the tomogram.
    threads : int
        Of the program.
    options : tuple of str
        More of its command line.
    work : Path
        Directory that is made for it.

    Raises
    ------
    ProblemError
        RELION failed, or there is no tomogram.
    """
    work.mkdir(parents=True)
    write_star({"global": row}, work / "tilt_series.star")
    width, height, depth = even_edges(row[SIZES].to_numpy(dtype=float)[0], binning)
    command = ["relion_tomo_reconstruct_tomogram", "--t", str(work / "tilt_series.star"), "--o", f"{work}/"]
    command += ["--w", str(width), "--h", str(height), "--d", str(depth)]
    command += ["--bin", f"{binning:g}", "--j", str(threads), *options]
    run_job(job, command)
    made = sorted(work.glob("tomograms/*.mrc"))
    if len(made) != 1:
        raise bad_output(job, f"there is no tomogram of {row['rlnTomoName'].iloc[0]}.")
    return made[0]


def make_tomograms(job: Path, particles: Path, tilt_series: Path, binning: int, threads: int, output: Path) -> None:
    """Make the tomogram of every tilt series that holds particles, and the table with which RELION cuts them.

    Where tilt series may be lost, one of which RELION makes no tomogram has none: the step that cuts it fails on it.

    Parameters
    ----------
    job : Path
        Of the extraction that they are for.
    particles, tilt_series : Path
        STAR files.
    binning : int
        Of the extraction.
    threads : int
        Of the program.
    output : Path
        Directory that gets :data:`TABLE`.
    """
    shutil.rmtree(output, ignore_errors=True)
    table = read_star(tilt_series)["global"].reset_index(drop=True)
    used = set(read_star(particles)["particles"]["rlnTomoName"].astype(str))
    files = []
    for number, name in enumerate(table["rlnTomoName"].astype(str), start=1):
        work = output / f"{number:04d}"
        try:
            made = make_tomogram(job, table.iloc[[number - 1]], binning, threads, (), work) if name in used else work
        except ProblemError as error:
            if error.exit_code != ExitCode.RELION_FAILED or not may_lose():
                raise
            made = work / "missing.mrc"
        files.append(str(made))
    edges = even_edges(table[SIZES].to_numpy(dtype=float), binning)
    table = table.assign(**dict(zip(SIZES, edges.T, strict=True)), **{BINNING: float(binning), RECONSTRUCTED: files})
    write_star({"global": table}, output / TABLE)


def settle_subtomograms(job: Path, tilt_series: Path, tomograms: Path) -> None:
    """Note where RELION has cut subtomograms, and remove the tomograms.

    RELION (5.1.0) cuts around the voxel below a particle's place, and writes that there is no offset. So the place that
    belongs to each subtomogram is written: what is found by aligning it counts from there.

    Parameters
    ----------
    job : Path
        The extraction, whose tables are written anew.
    tilt_series : Path
        Table of the tilt series without tomograms, which later steps use.
    tomograms : Path
        Directory of the tomograms.
    """
    made = read_star(tomograms / TABLE)["global"].set_index("rlnTomoName")
    blocks = read_star(job / "particles.star")
    rows = blocks["particles"]
    own = made.loc[rows["rlnTomoName"]]
    voxel = (own["rlnTomoTiltSeriesPixelSize"].to_numpy(dtype=float) * own[BINNING].to_numpy(dtype=float))[:, None]
    # Edges hold an even number of voxels, so that the middle is a voxel.
    cut = np.floor(rows[CENTRED].to_numpy(dtype=float) / voxel) * voxel
    blocks["particles"] = rows.assign(**dict(zip(CENTRED, cut.T, strict=True)))
    write_star(blocks, job / "particles.star")
    sets = read_star(job / "optimisation_set.star")
    name = next(iter(sets))
    sets[name] = sets[name].assign(rlnTomoTomogramsFile=str(tilt_series))
    write_star(sets, job / "optimisation_set.star")
    shutil.rmtree(tomograms)
