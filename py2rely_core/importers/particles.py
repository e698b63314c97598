"""Particles of RELION 4, RELION 5 and Warp STAR files and of CSV files, proven against the tomograms' sizes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from py2rely_core.data.geometry import (
    ANGLES,
    AXES,
    CENTRED,
    PIXEL,
    centred_from_pixels,
    pixels_from_centred,
    subtomogram_matrices,
)
from py2rely_core.data.tables import Blocks, read_star
from py2rely_core.importers.optics import Optics
from py2rely_core.importers.result import Import
from py2rely_core.problems import Problem, ProblemError, nearest

#: What describes a particle itself; labels of images and of one refinement's statistics are left out.
KEPT = [
    *ANGLES,
    *(f"rlnTomoSubtomogram{name}" for name in ("Rot", "Tilt", "Psi")),
    "rlnAngleTiltPrior",
    "rlnAnglePsiPrior",
    "rlnHelicalTubeID",
    "rlnHelicalTrackLengthAngst",
    "rlnRandomSubset",
    "rlnClassNumber",
    "rlnTomoParticleName",
    "rlnLCCmax",
    "rlnAutopickFigureOfMerit",
]
#: Two particles of a tomogram at less than this from each other are one, Angstrom.
SAME_PLACE = 0.1
#: Coordinates fill a tomogram when they reach this share of an edge; by less, their unit is not certain.
FILLED = 0.6
UNITS = ("auto", "centred", "angstrom", "pixel")
CSV_COLUMNS = {
    "rlnTomoName": ("rlntomoname", "tomogram", "tomo", "tomo_name", "tomogram_name", "tilt_series", "run", "run_name"),
    "x": ("x", "x_angst", "x_px", "rlncoordinatex", "rlncenteredcoordinatexangst"),
    "y": ("y", "y_angst", "y_px", "rlncoordinatey", "rlncenteredcoordinateyangst"),
    "z": ("z", "z_angst", "z_px", "rlncoordinatez", "rlncenteredcoordinatezangst"),
    "rlnAngleRot": ("rot", "rlnanglerot", "phi"),
    "rlnAngleTilt": ("tilt", "rlnangletilt", "theta"),
    "rlnAnglePsi": ("psi", "rlnanglepsi"),
}


@dataclass(frozen=True)
class Tomograms:
    """What particles are placed in.

    Attributes
    ----------
    sizes : dict of str to (3,) array
        x, y, z of each tomogram in unbinned voxels.
    pixel_size : float
        Unbinned, Angstrom.
    optics : dict
        The row of ``data_optics``.
    default : (3,) array or None
        Size of tomograms that are not in `sizes`; None where every tomogram must be.
    """

    sizes: dict[str, np.ndarray]
    pixel_size: float
    optics: dict[str, object]
    default: np.ndarray | None = None

    def of(self, names: pd.Series) -> np.ndarray:
        """Size of the tomogram of each particle, (n, 3)."""
        unknown = np.full(3, np.nan) if self.default is None else self.default
        return np.array([self.sizes.get(name, unknown) for name in names], dtype=float).reshape(-1, 3)


def tomograms_of(tilt_series: Path) -> Tomograms:
    """Sizes, pixel size and microscope from a tilt-series STAR file.

    Raises
    ------
    ProblemError
        Sizes are unknown, or tilt series differ in pixel size or microscope.
    """
    table = read_star(tilt_series).get("global", pd.DataFrame())
    sizes = [f"rlnTomoSize{axis}" for axis in AXES]
    optics = ["rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnTomoTiltSeriesPixelSize"]
    missing = [label for label in ("rlnTomoName", *sizes, *optics) if label not in table]
    if missing:
        fix = "Give the tilt-series STAR file of RELION 5 or of 'py2rely import'."
        raise ProblemError(Problem(f"Labels are missing: {', '.join(missing)}.", str(tilt_series), "data_global", fix))
    values = table[sizes].to_numpy(dtype=float)
    if (values <= 0).any():
        name = table["rlnTomoName"].iloc[int((values <= 0).any(axis=1).argmax())]
        fix = "Set rlnTomoSizeX/Y/Z to the size of the tomogram in unbinned voxels."
        raise ProblemError(Problem(f"The size of the tomogram {name} is not known.", str(tilt_series), "> 0", fix))
    different = [label for label in optics if table[label].astype(float).nunique() > 1]
    if different:
        fix = "Import particles of one pixel size and microscope at a time."
        raise ProblemError(
            Problem(f"Tilt series differ in {', '.join(different)}.", str(tilt_series), "one value", fix)
        )
    row = table.iloc[0]
    group = str(row.get("rlnOpticsGroupName", "opticsGroup1"))
    made = Optics(*(float(row[label]) for label in optics[:3]), group_name=group)
    names = [str(name) for name in table["rlnTomoName"]]
    pixel = float(row["rlnTomoTiltSeriesPixelSize"])
    return Tomograms(dict(zip(names, values, strict=True)), pixel, made.row(pixel))


def import_star(
    source: Path,
    output: Path,
    tomograms: Tomograms,
    units: str = "auto",
    voxel_size: float | None = None,
    skip_unknown: bool = False,
    drop_duplicates: bool = False,
) -> Import:
    """Particles of a STAR file of RELION 4, RELION 5 or Warp.

    Parameters
    ----------
    source, output : Path
    tomograms : Tomograms
    units : {"auto", "centred", "angstrom", "pixel"}
        Of the coordinates; ``pixel`` and ``angstrom`` count from the first corner.
    voxel_size : float or None
        Of the pixels that coordinates are in, Angstrom; None: the unbinned ones.
    skip_unknown : bool
        Leave out particles of tomograms that are not there instead of stopping.
    drop_duplicates : bool
        Keep the first of particles at one place instead of stopping.

    Raises
    ------
    ProblemError
        The file has no particles, or they cannot be placed.
    """
    blocks = read_star(source)
    table, optics = _particles_block(blocks, source), blocks.get("optics", pd.DataFrame())
    _check_optics(optics, tomograms, source)
    if "rlnTomoName" not in table and "rlnMicrographName" not in table:
        fix = "Add the column: the name of the tilt series of each particle."
        raise ProblemError(Problem("There is no rlnTomoName (nor rlnMicrographName).", str(source), "names", fix))
    names = table["rlnTomoName" if "rlnTomoName" in table else "rlnMicrographName"].astype(str)
    table = table.assign(rlnTomoName=match_names(names, tomograms))
    labels, found = (CENTRED, "centred") if set(CENTRED) <= set(table) else (PIXEL, units)
    if not set(labels) <= set(table):
        fix = "Add rlnCenteredCoordinateX/Y/ZAngst (RELION 5) or rlnCoordinateX/Y/Z (RELION 4, Warp)."
        raise ProblemError(Problem("The particles have no coordinates.", str(source), "coordinates", fix))
    table, notes = _known(table, tomograms, str(source), skip_unknown)
    coordinates = numbers(table, labels, str(source))
    centred, text = place(coordinates, table["rlnTomoName"], tomograms, found, voxel_size, str(source))
    centred = centred - _origins(table, optics, voxel_size or tomograms.pixel_size, str(source))
    kept = [label for label in KEPT if label in table]
    left = sorted(set(table) - {*kept, "rlnTomoName", *CENTRED, *PIXEL, "rlnOpticsGroup"})
    notes = [f"{source}: {len(names)} particles", text, *notes]
    notes += [f"labels left out: {', '.join(left)}"] if left else []
    return finish(table[["rlnTomoName", *kept]], centred, tomograms, output, notes, str(source), drop_duplicates)


def import_csv(
    source: Path,
    output: Path,
    tomograms: Tomograms,
    units: str = "auto",
    voxel_size: float | None = None,
    skip_unknown: bool = False,
    drop_duplicates: bool = False,
) -> Import:
    """Particles of a CSV file with named columns: the tomogram, x, y, z, and (all or none) rot, tilt, psi.

    The parameters are those of :func:`import_star`; the names that are understood are in :data:`CSV_COLUMNS`.
    """
    try:
        table = pd.read_csv(source, sep=None, engine="python", dtype=str, comment="#", skipinitialspace=True)
    except (OSError, ValueError) as error:
        fix = "Give a CSV file whose first line names the columns."
        raise ProblemError(Problem(f"The CSV file cannot be read: {error}.", str(source), "a CSV file", fix)) from error
    table, named = _named(table, source)
    table["rlnTomoName"] = match_names(table["rlnTomoName"], tomograms)
    count = len(table)
    table, notes = _known(table, tomograms, str(source), skip_unknown)
    coordinates = numbers(table, ["x", "y", "z"], str(source))
    angles = [label for label in ANGLES if label in table]
    if 0 < len(angles) < 3:
        fix = "Add the missing columns, or remove the angles."
        raise ProblemError(Problem(f"Only {', '.join(angles)} of the three angles are there.", str(source), "", fix))
    if angles:
        table[angles] = numbers(table, angles, str(source))
    centred, text = place(coordinates, table["rlnTomoName"], tomograms, units, voxel_size, str(source))
    notes = [f"{source}: {count} particles ({named})", text, *notes]
    return finish(table[["rlnTomoName", *angles]], centred, tomograms, output, notes, str(source), drop_duplicates)


def _named(table: pd.DataFrame, source: Path) -> tuple[pd.DataFrame, str]:
    lower = {str(column).strip().lower(): column for column in table.columns}
    found = {}
    for label, names in CSV_COLUMNS.items():
        hits = [lower[name] for name in names if name in lower]
        if len(hits) > 1:
            fix = "Remove or rename one of them."
            raise ProblemError(Problem(f"The columns {hits} mean the same.", str(source), "one of them", fix))
        if hits:
            found[hits[0]] = label
    missing = [label for label in ("rlnTomoName", "x", "y", "z") if label not in found.values()]
    if missing:
        wanted = "; ".join(" or ".join(CSV_COLUMNS[label][:3]) for label in missing)
        what = f"Columns are missing: {', '.join(missing)}. The file has {', '.join(map(str, table.columns))}."
        raise ProblemError(Problem(what, str(source), wanted, "Name the columns in the first line."))
    text = ", ".join(f"{name}" for name in found)
    return table[list(found)].rename(columns=found), f"columns {text}"


def _particles_block(blocks: Blocks, source: Path) -> pd.DataFrame:
    named = blocks.get("particles")
    if named is None:
        tables = [table for name, table in blocks.items() if name not in ("optics", "general")]
        named = tables[0] if len(tables) == 1 else None
    if named is None or named.empty:
        fix = "Give a particle STAR file."
        seen = ", ".join(f"data_{name}" for name in blocks)
        raise ProblemError(Problem("There are no particles.", f"{source} (it has {seen})", "data_particles", fix))
    return named


def _check_optics(optics: pd.DataFrame, tomograms: Tomograms, source: Path) -> None:
    problems = []
    for label in ("rlnTomoTiltSeriesPixelSize", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"):
        for value in optics[label].astype(float).unique() if label in optics else ():
            expected = float(tomograms.optics[label])
            if abs(value - expected) > 2e-3 * abs(expected):
                fix = "Correct the one that is wrong; other pixel sizes or microscopes go into a run of their own."
                what = f"{label} of the particles is {value:g}, of the tilt series {expected:g}."
                problems.append(Problem(what, f"{source}, data_optics", "the same value", fix))
    if problems:
        raise ProblemError(problems)


def match_names(names: pd.Series, tomograms: Tomograms) -> list[str]:
    """Names as the tilt series have them: the same, or without Warp's and picking programs' endings."""
    lookup = {}
    for name in names.unique():
        bare = re.sub(r"\.(tomostar|mrcs?|rec|st|star)$", "", Path(str(name)).name)
        shorter = re.sub(r"_\d+(\.\d+)?Apx$", "", bare)
        known = (one for one in (str(name), bare, shorter, bare.removesuffix("_Vol")) if one in tomograms.sizes)
        lookup[name] = next(known, bare if tomograms.default is not None else str(name))
    return [lookup[name] for name in names]


def _known(table: pd.DataFrame, tomograms: Tomograms, where: str, skip: bool) -> tuple[pd.DataFrame, list[str]]:
    if tomograms.default is not None:
        return table.reset_index(drop=True), []
    unknown = ~table["rlnTomoName"].isin(list(tomograms.sizes))
    if not unknown.any():
        return table.reset_index(drop=True), []
    names = table["rlnTomoName"][unknown].unique()
    text = f"{int(unknown.sum())} particles of {len(names)} tomograms without a tilt series: {', '.join(names[:3])}"
    if skip and not unknown.all():
        return table[~unknown].reset_index(drop=True), [f"left out {text}"]
    hint = nearest(names[0], tomograms.sizes)
    fix = f"{names[0]}: {hint} Rename them, " if hint else "Rename them, "
    what = f"There are {text}."
    raise ProblemError(
        Problem(what, where, "the names of the tilt series", fix + "or leave them out with --skip-unknown.")
    )


def numbers(table: pd.DataFrame, labels: list[str], where: str) -> np.ndarray:
    """Columns as finite numbers, (n, len(labels)).

    Raises
    ------
    ProblemError
        With the first row that is none.
    """
    values = table[labels].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        what = f"{', '.join(labels)} are no numbers in {int(bad.sum())} rows."
        seen = f"{where}, first in row {row + 1}: {list(table[labels].iloc[row])}"
        raise ProblemError(Problem(what, seen, "finite numbers", "Correct or remove these rows."))
    return values


def place(
    coordinates: np.ndarray,
    names: pd.Series,
    tomograms: Tomograms,
    units: str,
    voxel_size: float | None,
    where: str,
) -> tuple[np.ndarray, str]:
    """Centred positions in Angstrom, (n, 3), and in words what the coordinates were taken for and why.

    Parameters
    ----------
    coordinates : (n, 3) float
        In any of the units.
    names : Series of str
        Tomogram of each.
    tomograms : Tomograms
    units : {"auto", "centred", "angstrom", "pixel"}
    voxel_size : float or None
        Of the pixels; given, coordinates that are not centred are pixels of it.
    where : str
        For messages.

    Raises
    ------
    ProblemError
        The unit cannot be told, or particles are outside of their tomograms.
    """
    if units not in UNITS:
        raise ProblemError(Problem(f"'{units}' is no unit.", "--units", ", ".join(UNITS), "Correct --units."))
    if not len(coordinates):
        raise ProblemError(Problem("There are no particles.", where, "at least one", "Pick particles first."))
    pixel, extent = tomograms.pixel_size, tomograms.of(names) * tomograms.pixel_size
    why = "as given"
    if units == "auto":
        if voxel_size:
            units = "pixel"
        else:
            units, why = _recognise(coordinates, extent, pixel, where)
    unit = {"centred": 1.0, "angstrom": 1.0, "pixel": voxel_size or pixel}[units]
    centred = coordinates if units == "centred" else centred_from_pixels(coordinates, extent / unit, unit)
    share = np.abs(centred) / (extent / 2)
    outside = (share > 1 + 1e-6).any(axis=1)
    text = {"centred": "Angstrom from the centre", "angstrom": "Angstrom from the corner"}.get(
        units, f"pixels of {unit:g} A from the corner"
    )
    if outside.any():
        row = int(outside.argmax())
        seen = ", ".join(f"{value:g}" for value in coordinates[row])
        what = f"{int(outside.sum())} of {len(centred)} particles are outside of their tomogram, as {text} ({why})."
        size = " x ".join(f"{value:.0f}" for value in extent[row])
        fix = "Correct --units or --voxel-size, or the size of the tomogram."
        problem = Problem(what, f"{where}, first in row {row + 1}: ({seen})", f"within {size} A", fix)
        raise ProblemError(problem)
    return centred, f"coordinates: {text} ({why}; all {len(centred)} are inside of their tomograms)"


def _recognise(coordinates: np.ndarray, extent: np.ndarray, pixel: float, where: str) -> tuple[str, str]:
    """Which unit coordinates are in, if only one of them fits."""
    if (coordinates < -1e-6).any():
        return "centred", "there are negative ones"
    as_pixel = float((coordinates * pixel / extent).max())
    as_angstrom = float((coordinates / extent).max())
    if as_pixel > 1 and FILLED <= as_angstrom <= 1:
        return "angstrom", f"they fill {as_angstrom:.0%} of the tomograms, and as pixels {as_pixel:.0%}"
    if pixel > 1.2 and FILLED <= as_pixel <= 1 and as_angstrom < 1 / 1.2 * as_pixel and as_angstrom < FILLED + 0.25:
        return "pixel", f"they fill {as_pixel:.0%} of the tomograms, and as Angstrom only {as_angstrom:.0%}"
    what = (
        f"It cannot be told what unit the coordinates have: as unbinned pixels they reach {as_pixel:.0%} of the "
        f"tomograms' edges, as Angstrom {as_angstrom:.0%}."
    )
    fix = "Give --units pixel or angstrom; and --voxel-size, if they are pixels of binned tomograms."
    raise ProblemError(Problem(what, where, "one unit that fits", fix))


def _origins(table: pd.DataFrame, optics: pd.DataFrame, pixel: float, where: str) -> np.ndarray:
    """Refined shifts in the tomogram's frame, (n, 3) Angstrom."""
    angst = [f"rlnOrigin{axis}Angst" for axis in AXES]
    plain = [f"rlnOrigin{axis}" for axis in AXES]
    if set(angst) <= set(table):
        shift = numbers(table, angst, where)
    elif set(plain) <= set(table):
        shift = numbers(table, plain, where) * pixel
    else:
        return np.zeros((len(table), 3))
    return np.einsum("nij,nj->ni", subtomogram_matrices(table), shift)


def finish(
    table: pd.DataFrame,
    centred: np.ndarray,
    tomograms: Tomograms,
    output: Path,
    notes: list[str],
    where: str,
    drop_duplicates: bool = False,
) -> Import:
    """The particle file of checked particles: one optics group, centred coordinates, no particle twice."""
    table = table.copy()
    table["rlnOpticsGroup"] = tomograms.optics["rlnOpticsGroup"]
    for i, label in enumerate(CENTRED):
        table.insert(1 + i, label, centred[:, i])
    twice = duplicates(table)
    if twice.any() and not drop_duplicates:
        row = int(twice.argmax())
        what = f"{int(twice.sum())} particles are at the place of an earlier one of the same tomogram."
        seen = f"{where}, first in row {row + 1} ({table['rlnTomoName'].iloc[row]})"
        fix = "Pick or merge without duplicates, or keep the first of each with --drop-duplicates."
        raise ProblemError(Problem(what, seen, f"more than {SAME_PLACE} A apart", fix))
    if twice.any():
        notes.append(f"left out {int(twice.sum())} particles at the place of an earlier one")
    table = table[~twice].reset_index(drop=True)
    names = table["rlnTomoName"].nunique()
    angles = "with orientations" if set(ANGLES) <= set(table) else "without orientations"
    notes.append(f"{len(table)} particles in {names} tomograms, {angles}")
    blocks = {"optics": pd.DataFrame([tomograms.optics]), "particles": table}
    return Import(tables={output: blocks}, notes=notes)


def duplicates(table: pd.DataFrame, distance: float = SAME_PLACE) -> np.ndarray:
    """Which particles, (n,) bool, are at the place of an earlier one of the same tomogram."""
    found = np.zeros(len(table), dtype=bool)
    positions = table[CENTRED].to_numpy(dtype=float)
    for rows in table.reset_index(drop=True).groupby("rlnTomoName", sort=False).indices.values():
        pairs = cKDTree(positions[rows]).query_pairs(distance, output_type="ndarray")
        found[rows[pairs.max(axis=1)]] = True
    return found


def as_pixels(blocks: Blocks, tomograms: Tomograms, result: Import) -> None:
    """Replace centred coordinates by RELION 4's, unbinned voxels from a corner; every size must be known.

    Raises
    ------
    ProblemError
        The size of a tomogram is not known.
    """
    table = blocks["particles"]
    sizes = tomograms.of(table["rlnTomoName"])
    if not np.isfinite(sizes).all():
        fix = "Give --tilt-series, or -x, -y and -z."
        raise ProblemError(Problem("The size of a tomogram is not known.", "--relion5 False", "sizes", fix))
    table[CENTRED] = pixels_from_centred(table[CENTRED].to_numpy(dtype=float), sizes, tomograms.pixel_size)
    blocks["particles"] = table.rename(columns=dict(zip(CENTRED, PIXEL, strict=True)))
    result.notes.append("coordinates are unbinned voxels from a corner (RELION 4)")
