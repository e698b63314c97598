"""Particles with absolute positions: plain STAR and CSV, ArtiaX and ChimeraX, Warp and M."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import pandas as pd

from py2rely_core.data.geometry import ANGLES, AXES, CENTRED, PIXEL, pixels_from_centred
from py2rely_core.data.tables import Blocks, text_rows, write_star
from py2rely_core.exporters.poses import Poses
from py2rely_core.exporters.series import safe_name
from py2rely_core.importers.particles import Tomograms
from py2rely_core.importers.result import refuse_existing
from py2rely_core.problems import Problem, ProblemError, nearest

#: Names of tomograms that ArtiaX takes apart: a prefix, and a number after an underscore.
NUMBERED = re.compile(r".+_\d+", re.ASCII)
#: Labels that other programs understand and that do not change with a particle's frame.
KEPT = ["rlnRandomSubset", "rlnClassNumber", "rlnTomoParticleName", "rlnMaxValueProbDistribution", "rlnHelicalTubeID"]


@dataclass
class Export:
    """Files that are not written yet: STAR files, and texts."""

    tables: dict[Path, Blocks] = field(default_factory=dict)
    texts: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def write_export(export: Export, overwrite: bool = False) -> None:
    """Write every file of an export, none when one is there already and must not be replaced."""
    refuse_existing([*export.tables, *export.texts], overwrite)
    for path, blocks in export.tables.items():
        write_star(blocks, path)
    for path, text in export.texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def voxels(poses: Poses, tomograms: Tomograms, voxel_size: float) -> np.ndarray:
    """Positions in voxels of `voxel_size`, (n, 3), counted from a corner of each particle's own tomogram.

    Raises
    ------
    ProblemError
        A tomogram is not known.
    """
    unknown = sorted(set(poses.names) - set(tomograms.sizes))
    if unknown:
        hint = nearest(unknown[0], tomograms.sizes)
        fix = f"{hint} Give the tilt series of these particles.".strip()
        what = f"The size of {len(unknown)} tomograms is not known, such as {unknown[0]}."
        raise ProblemError(Problem(what, "--tilt-series", "every tomogram of the particles", fix))
    if not voxel_size > 0:
        problem = Problem(f"{voxel_size:g} A is no voxel size.", "--voxel-size", "> 0", "Correct --voxel-size.")
        raise ProblemError(problem)
    sizes = tomograms.of(poses.names) * tomograms.pixel_size / voxel_size
    return pixels_from_centred(poses.positions, sizes, voxel_size)


def plain_star(poses: Poses, output: Path) -> Export:
    """A particle file of RELION 5 without shifts or subtomogram angles: they are in the coordinates and angles."""
    table = pd.DataFrame({"rlnTomoName": poses.names})
    for i, label in enumerate(CENTRED):
        table[label] = poses.positions[:, i]
    table = pd.concat([table, _angles(poses), poses.table[_present(poses, [*KEPT, "rlnOpticsGroup"])]], axis=1)
    blocks = {"optics": _plain_optics(poses.optics)} if not poses.optics.empty else {}
    return Export(tables={output: blocks | {"particles": table}}, notes=[f"{output}: {len(table)} particles"])


def _plain_optics(optics: pd.DataFrame) -> pd.DataFrame:
    images = ["rlnImageSize", "rlnImagePixelSize", "rlnImageDimensionality", "rlnTomoSubtomogramBinning",
              "rlnCtfDataAreCtfPremultiplied"]  # fmt: skip
    return optics.drop(columns=images, errors="ignore")


def plain_csv(poses: Poses, output: Path, tomograms: Tomograms | None, voxel_size: float | None) -> Export:
    """A CSV file: tomogram, x, y, z (Angstrom from the centre), rot, tilt, psi; and voxels where sizes are known."""
    table = pd.DataFrame({"tomogram": poses.names})
    table[["x", "y", "z"]] = poses.positions
    if poses.oriented:
        table[["rot", "tilt", "psi"]] = poses.angles
    if tomograms:
        table[["voxel_x", "voxel_y", "voxel_z"]] = voxels(poses, tomograms, voxel_size or tomograms.pixel_size)
    short = {"rlnRandomSubset": "half", "rlnClassNumber": "class", "rlnMaxValueProbDistribution": "probability"}
    for label in _present(poses, list(short)):
        table[short[label]] = poses.table[label].to_numpy()
    text = "".join([",".join(table.columns), "\n", *text_rows(table, _csv_word, ",", "")])
    return Export(texts={output: text}, notes=[f"{output}: {len(table)} particles"])


def _csv_word(value: object) -> str:
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if re.search('[",\r\n]', text) else text


def artiax(poses: Poses, directory: Path, tomograms: Tomograms, voxel_size: float, radius: float) -> Export:
    """Per tomogram, a STAR file for ArtiaX and a marker file (.cmm) that ChimeraX opens without it.

    ArtiaX takes ``rlnTomoName`` for a prefix and a number, and opens no file where it is something else: such names
    stand in the names of the files alone.
    """
    positions, angles = voxels(poses, tomograms, voxel_size), _angles(poses)
    export, unnumbered = Export(), []
    for name, rows in poses.table.groupby(poses.names.to_numpy()).indices.items():
        table = pd.DataFrame(index=range(len(rows)))
        if NUMBERED.fullmatch(str(name)):
            table["rlnTomoName"] = name
        else:
            unnumbered.append(str(name))
        table[PIXEL] = positions[rows]
        # ArtiaX wants the labels of shifts, which are applied already.
        table[[f"rlnOrigin{axis}" for axis in AXES]] = 0.0
        table = pd.concat([table, angles.iloc[rows].reset_index(drop=True)], axis=1)
        if not poses.oriented:
            table[ANGLES] = 0.0
        file = safe_name(str(name))
        export.tables[directory / f"{file}_artiax.star"] = {"particles": table}
        export.texts[directory / f"{file}.cmm"] = _markers(str(name), positions[rows] * voxel_size, radius)
    pixel = f"set the pixel size of the particle list in ArtiaX to {voxel_size:g}"
    export.notes.append(f"{directory}: {len(poses.table)} particles in {len(export.tables)} tomograms; {pixel}")
    if unnumbered:
        what = f"rlnTomoName is left out for {', '.join(unnumbered[:3])}{', ...' if len(unnumbered) > 3 else ''}"
        export.notes.append(f"{what}: ArtiaX opens only names that end in _NUMBER; the files' names say the tomogram")
    return export


def _markers(name: str, positions: np.ndarray, radius: float) -> str:
    lines = [f"<marker_set name={quoteattr(name)}>"]
    lines += [
        f'<marker id="{number}" x="{x:.3f}" y="{y:.3f}" z="{z:.3f}" r="1" g="0.8" b="0.2" radius="{radius:g}"/>'
        for number, (x, y, z) in enumerate(positions, start=1)
    ]
    return "\n".join([*lines, "</marker_set>\n"])


def warp(poses: Poses, output: Path, tomograms: Tomograms, voxel_size: float) -> Export:
    """A STAR file for ``WarpTools ts_export_particles`` and ``MTools create_species``."""
    table = pd.DataFrame({"rlnMicrographName": [f"{name.removesuffix('.tomostar')}.tomostar" for name in poses.names]})
    table[PIXEL] = voxels(poses, tomograms, voxel_size)
    kept = _present(poses, ["rlnRandomSubset", "rlnClassNumber"])
    table = pd.concat([table, _angles(poses), poses.table[kept]], axis=1)
    # M takes the pixel size of coordinates from here, Warp from --coords_angpix.
    table["rlnImagePixelSize"] = voxel_size
    note = (
        f"{output}: {len(table)} particles; give Warp --coords_angpix {voxel_size:g}, M --angpix_coords {voxel_size:g}"
    )
    return Export(tables={output: {"particles": table}}, notes=[note])


def _angles(poses: Poses) -> pd.DataFrame:
    return pd.DataFrame(poses.angles, columns=ANGLES) if poses.oriented else pd.DataFrame(index=range(len(poses.table)))


def _present(poses: Poses, labels: list[str]) -> list[str]:
    return [label for label in labels if label in poses.table]
