"""Particles for Dynamo: a table (``.tbl``) and the names of its tomograms (``.doc``).

Conventions, from Dynamo's wiki (*Table convention*, *Euler angles convention*) and from what ``dynamo_euler2matrix``
returns: with rotations in the mathematical sense, ``Rz(narot) Rx(tilt) Rz(tdrot)`` takes a particle to the template, so
its transpose is RELION's orientation. Columns 24 to 26 count pixels from 1; the particle is there plus columns 4 to 6.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from py2rely_core.exporters.poses import Poses
from py2rely_core.exporters.tables import Export, voxels
from py2rely_core.importers.particles import Tomograms
from py2rely_core.problems import Problem, ProblemError

#: Columns of a table, those of eigencomponents included; programs that read tables expect no fewer than 40.
N_COLUMNS = 42
#: Fourier sampling of a single tilt series around y.
SINGLE_TILT = 1


def dynamo_angles(rotations: np.ndarray) -> np.ndarray:
    """Dynamo's angles of orientations.

    Parameters
    ----------
    rotations : (n, 3, 3) float
        From the reference to the tomogram.

    Returns
    -------
    (n, 3) float
        tdrot, tilt, narot, degrees.
    """
    with warnings.catch_warnings():
        # Without a tilt, tdrot and narot turn about one axis: narot is 0 then, and the orientation is the same.
        warnings.filterwarnings("ignore", message="Gimbal lock")
        return Rotation.from_matrix(rotations).inv().as_euler("zxz", degrees=True)


def dynamo(
    poses: Poses,
    output: Path,
    tomograms: Tomograms,
    voxel_size: float,
    tilt_ranges: dict[str, tuple[float, float]],
    tomogram_file: str = "{name}",
) -> Export:
    """A Dynamo table, and beside it the ``.doc`` with the tomograms' numbers and names.

    Parameters
    ----------
    poses : Poses
    output : Path
        The table; the names go to the same path with ``.doc``.
    tomograms : Tomograms
    voxel_size : float
        Of the tomograms that Dynamo uses, Angstrom.
    tilt_ranges : dict of str to (float, float)
        Lowest and highest tilt of each tomogram, degrees; where one is missing, the table says full sampling.
    tomogram_file : str
        What the ``.doc`` has for a tomogram; ``{name}`` stands for its name.

    Raises
    ------
    ProblemError
        A tomogram is not known, or `tomogram_file` makes one name of two.
    """
    # Dynamo counts from 1, and crops around whole pixels.
    places = voxels(poses, tomograms, voxel_size) + 1
    whole = np.rint(places)
    names = sorted(set(poses.names))
    files = [tomogram_file.replace("{name}", name) for name in names]
    _check_files(files)
    numbers = {name: number for number, name in enumerate(names, start=1)}
    table = np.zeros((len(poses.table), N_COLUMNS))
    columns = {1: np.arange(1, len(table) + 1), 2: 1, 3: 1, 10: poses.scores, 20: poses.names.map(numbers)}
    for number, values in columns.items():
        table[:, number - 1] = values
    table[:, 3:6], table[:, 23:26] = places - whole, whole
    if poses.oriented:
        table[:, 6:9] = dynamo_angles(poses.rotations)
    if "rlnClassNumber" in poses.table:
        table[:, 21] = poses.table["rlnClassNumber"]
    for name, (lowest, highest) in tilt_ranges.items():
        table[np.ix_((poses.names == name).to_numpy(), [12, 13, 14])] = SINGLE_TILT, lowest, highest
    table[:, 35] = voxel_size
    unknown = len(set(names) - set(tilt_ranges))
    note = f"{output}: {len(table)} particles in {len(names)} tomograms of {voxel_size:g} A voxels"
    notes = [note, f"{output.with_suffix('.doc')}: the tomograms' numbers and names"]
    if unknown:
        notes.append(f"{unknown} tomograms have no known tilt range: their missing wedge is not in the table")
    doc = "".join(f"{number} {file}\n" for number, file in enumerate(files, start=1))
    text = "".join(" ".join(f"{value:.5f}".rstrip("0").rstrip(".") for value in row) + "\n" for row in table)
    return Export(texts={output: text, output.with_suffix(".doc"): doc}, notes=notes)


def _check_files(files: list[str]) -> None:
    if len(set(files)) < len(files) or any(len(file.split()) != 1 for file in files):
        fix = "Let it have {name} once, and no blanks, such as 'tomograms/{name}.mrc'."
        what = "Tomograms cannot be told apart by their files."
        raise ProblemError(Problem(what, f"--tomogram-file, {files[0]!r}", "one word with {name}", fix))
