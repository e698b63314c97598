"""Particles of any known kind of file, placed in the tomograms of tilt series and proven against their sizes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from py2rely_core.data import kinds
from py2rely_core.data.geometry import ANGLES, CENTRED, PIXEL, SIZES, pixels_from_centred
from py2rely_core.data.inputs import from_optimisation_set
from py2rely_core.data.names import match
from py2rely_core.data.tables import Blocks, read_star, row_line
from py2rely_core.importers.coordinates import Coordinates, Given, Unit
from py2rely_core.importers.coordinates import place as place_coordinates
from py2rely_core.importers.labelled import main_table, read_csv, read_relion
from py2rely_core.importers.optics import Optics
from py2rely_core.importers.picked import Picked, numbers
from py2rely_core.importers.pickers import read_cbox, read_coordinates, read_dynamo, read_files, read_m
from py2rely_core.importers.result import Import
from py2rely_core.problems import Problem, ProblemError, nearest

#: As many particles cannot by chance all have small angles.
SOME = 10
#: Two particles of a tomogram at less than this from each other are one, Angstrom.
SAME_PLACE = 0.1


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
        codes, unique = pd.factorize(names)
        sizes = np.array([self.sizes.get(name, unknown) for name in unique], dtype=float).reshape(-1, 3)
        return sizes[codes] if len(sizes) else np.empty((0, 3))


def tomograms_of(tilt_series: Path) -> Tomograms:
    """Sizes, pixel size and microscope from a tilt-series STAR file.

    Raises
    ------
    ProblemError
        Sizes are unknown, or tilt series differ in pixel size or microscope.
    """
    tilt_series = from_optimisation_set(tilt_series, "tilt series", Path.cwd())
    blocks = read_star(tilt_series)
    table = blocks.get("global", pd.DataFrame())
    optics = ["rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnTomoTiltSeriesPixelSize"]
    missing = [label for label in ("rlnTomoName", *SIZES, *optics) if label not in table]
    if missing:
        kind = kinds.of_blocks(blocks)
        if kind and kind.key not in ("tilt series", "old tomograms"):
            raise ProblemError(kinds.problem_of(kind, tilt_series, "a tilt-series file"))
        fix = "Give the tilt-series STAR file of RELION 5 or of 'py2rely import'."
        raise ProblemError(Problem(f"Labels are missing: {', '.join(missing)}.", str(tilt_series), "data_global", fix))

    def place(row: int) -> str:
        return row_line(tilt_series, "global", row)

    values, microscope = (numbers(table, labels, str(tilt_series), place) for labels in (SIZES, optics))
    names = [str(name) for name in table["rlnTomoName"]]
    if (values <= 0).any():
        name = names[int((values <= 0).any(axis=1).argmax())]
        fix = "Set rlnTomoSizeX/Y/Z to the size of the tomogram in unbinned voxels."
        raise ProblemError(Problem(f"The size of the tomogram {name} is not known.", str(tilt_series), "> 0", fix))
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        fix = "Give every tilt series a name of its own."
        what = f"Tilt series are named twice: {', '.join(twice[:3])}."
        raise ProblemError(Problem(what, str(tilt_series), "unique rlnTomoName", fix))
    different = [label for label, column in zip(optics, microscope.T, strict=True) if len(np.unique(column)) > 1]
    if different:
        fix = "Import particles of one pixel size and microscope at a time."
        raise ProblemError(
            Problem(f"Tilt series differ in {', '.join(different)}.", str(tilt_series), "one value", fix)
        )
    made = Optics(
        *(float(value) for value in microscope[0, :3]),
        group_name=str(table.iloc[0].get("rlnOpticsGroupName", "opticsGroup1")),
    )
    pixel = float(microscope[0, 3])
    return Tomograms(dict(zip(names, values, strict=True)), pixel, made.row(pixel))


#: What can be read, for messages.
KNOWN = "a particle file of RELION, Warp, M, Dynamo, crYOLO, TomoTwin or pytom-match-pick, a list of x y z, or CSV"


@dataclass(frozen=True)
class Options:
    """How particles are taken.

    Attributes
    ----------
    given : Given
        What the user says of the coordinates.
    skip_unknown : bool
        Leave out particles of tomograms that are not there instead of stopping.
    drop_duplicates : bool
        Keep the first of particles at one place instead of stopping.
    doc : Path or None
        Names of the tomograms of a Dynamo table.
    tomogram : str or None
        Of a file that does not name it.
    """

    given: Given = field(default_factory=Given)
    skip_unknown: bool = False
    drop_duplicates: bool = False
    doc: Path | None = None
    tomogram: str | None = None


def import_particles(source: Path, output: Path, tomograms: Tomograms, options: Options) -> Import:
    """Particles of a file of any known kind, or of a directory of .cbox or .coords files.

    Parameters
    ----------
    source, output : Path
    tomograms : Tomograms
    options : Options

    Raises
    ------
    ProblemError
        The file holds no particles, or they cannot be placed.
    """
    parts = _read_any(source, options)
    _refuse_unused(parts, source, options)
    return _placed(parts, output, tomograms, options, str(source))


def _refuse_unused(parts: list[Picked], source: Path, options: Options) -> None:
    """Stop where an option says what the file says itself."""
    named = {str(name) for one in parts for name in one.table["rlnTomoName"].unique()}
    if options.tomogram is not None and named != {options.tomogram}:
        what = f"The file names its tomograms ({', '.join(sorted(named)[:3])}), and --tomogram is given."
        raise ProblemError(Problem(what, str(source), "a file that names none", "Leave out --tomogram."))
    if options.doc is not None and kinds.look(source) is not kinds.KINDS["dynamo"]:
        what = "A .doc is given, and the particles are not of a Dynamo table."
        raise ProblemError(Problem(what, str(source), "a .tbl of Dynamo", "Leave out --doc."))


def import_star(
    source: Path,
    output: Path,
    tomograms: Tomograms,
    units: str = "auto",
    voxel_size: float | None = None,
    skip_unknown: bool = False,
    drop_duplicates: bool = False,
) -> Import:
    """Particles of a STAR file: see :func:`import_particles`.

    Parameters
    ----------
    source, output : Path
    tomograms : Tomograms
    units : {"auto", "centred", "angstrom", "pixel", "fraction"}
        Of the coordinates, where the file does not say it; all but ``centred`` count from the first corner.
    voxel_size : float or None
        Of the pixels that coordinates are in, Angstrom.
    skip_unknown, drop_duplicates : bool
        See :class:`Options`.

    Raises
    ------
    ProblemError
        The file has no particles, or they cannot be placed.
    """
    options = Options(Given(units, voxel_size), skip_unknown, drop_duplicates)
    return import_particles(source, output, tomograms, options)


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

    The parameters are those of :func:`import_star`; ``labelled.CSV_COLUMNS`` has the names that are understood.
    """
    kind = kinds.look(source)
    if kind is not None and kind.key != "csv":
        raise ProblemError(kinds.problem_of(kind, source, "a CSV file that names its columns"))
    options = Options(Given(units, voxel_size), skip_unknown, drop_duplicates)
    return _placed([read_csv(source)], output, tomograms, options, str(source))


# Reading


def _read_any(source: Path, options: Options) -> list[Picked]:
    if source.is_dir():
        return _read_directory(source, options)
    source = from_optimisation_set(source, "particles", Path.cwd())
    kind = kinds.look(source)
    if kind is None and source.is_file() and not kinds.is_star(source):
        fix = kinds.CSV
        raise ProblemError(Problem("It cannot be told what kind of file this is.", str(source), KNOWN, fix))
    if kind is None or kind.is_star:
        return _read_tables(source, options)
    if kind.key == "dynamo":
        return [read_dynamo(source, options.doc)]
    if kind.key == "coordinates":
        return [read_coordinates(source, options.tomogram)]
    if kind.key == "csv":
        return [read_csv(source)]
    raise ProblemError(kinds.problem_of(kind, source, "a particle file"))


def _read_directory(source: Path, options: Options) -> list[Picked]:
    """Every file of a directory of picks, one file for each tomogram."""
    found = {ending: sorted(source.glob(f"*{ending}")) for ending in (".cbox", ".coords")}
    there = [files for files in found.values() if files]
    if len(there) != 1 or options.tomogram:
        what = "The directory holds .cbox and .coords files." if len(there) > 1 else "The directory holds no picks."
        if options.tomogram and len(there) == 1:
            what = "One name of a tomogram is given for a directory of files, each of which is of its own tomogram."
        fix = "Give a file, or a directory with the .cbox or the .coords of crYOLO or TomoTwin, without --tomogram."
        raise ProblemError(Problem(what, str(source), "*.cbox or *.coords", fix))
    picked, problems = [], []
    for file in there[0]:
        try:
            picked += _read_any(file, options)
        except ProblemError as error:
            problems += error.problems
    if problems:
        raise ProblemError(problems)
    return picked


def _read_tables(source: Path, options: Options) -> list[Picked]:
    blocks = read_star(source)
    kind = kinds.of_blocks(blocks)
    key = kind.key if kind else ""
    if key == "m":
        return [read_m(blocks, source)]
    if key == "cbox":
        return [read_cbox(blocks, source, options.tomogram)]
    if key == "particle files":
        cached: dict[Path, list[Picked]] = {}

        def read(file: Path, name: str) -> list[Picked]:
            # A table that names itself, or another that names it, has no end.
            if kinds.look(from_optimisation_set(file, "particles", Path.cwd())) is kind:
                fix = "Name the files of the particles themselves."
                what = "A table of particle files names a table of particle files."
                raise ProblemError(Problem(what, f"{source}: {file}", "files of particles", fix))
            if file not in cached:
                cached[file] = _read_any(file, replace(options, tomogram=name))
            return cached[file]

        return read_files(blocks, source, read)
    if kind is not None and key not in ("particles", "pytom", "plain coordinates"):
        table = main_table(blocks)
        if table is None or not ({*CENTRED} <= set(table) or {*PIXEL} <= set(table)):
            raise ProblemError(kinds.problem_of(kind, source, "a particle file"))
    return [read_relion(blocks, source, options.tomogram)]


# Placing


def _placed(parts: list[Picked], output: Path, tomograms: Tomograms, options: Options, where: str) -> Import:
    """Particles of one or several files in their tomograms, as one particle file."""
    count = sum(len(one.table) for one in parts)
    notes = [f"{where}: {count} particles" + (f" of {len(parts)} files" if len(parts) > 1 else "")]
    for one in parts:
        _check_optics(one.optics, tomograms, one.where)
    table = _joined(parts)
    names, said = match_names(table["rlnTomoName"], tomograms, where)
    known, left = _known(names, tomograms, where, options.skip_unknown)
    notes += [*dict.fromkeys(note for one in parts for note in one.notes), *said, *left]
    centred, said = _centred(parts, table["rlnTomoName"], names, known, tomograms, options.given, where)
    table = table[known].reset_index(drop=True)
    table["rlnTomoName"] = names[known].to_numpy()
    if set(ANGLES) <= set(table) and len(table) >= SOME and 0 < np.abs(table[ANGLES].to_numpy(dtype=float)).max() < 6.3:
        said = [*said, "all angles lie within 6.3 of 0: they are taken as degrees; radians have to be converted"]
    return finish(table, centred, tomograms, output, notes + said, where, options.drop_duplicates)


def _centred(
    parts: list[Picked], written: pd.Series, names: pd.Series, known: np.ndarray, tomograms: Tomograms, given: Given,
    where: str,
) -> tuple[np.ndarray, list[str]]:  # fmt: skip
    """Positions of the particles that are `known`, (n, 3) Angstrom from the centre, and what was taken for what.

    Coordinates that mean the same are taken together, from whichever of the `parts` they are.
    """
    lengths = [len(one.table) for one in parts]
    starts, groups = np.cumsum([0, *lengths]), _groups(parts)
    values = np.concatenate([one.coordinates.values for one in parts])
    shift = np.concatenate([np.zeros((n, 3)) if one.shift is None else one.shift
                            for one, n in zip(parts, lengths, strict=True)])  # fmt: skip
    in_pixels, group = np.repeat([one.shift_in_pixels for one in parts], lengths), np.repeat(groups, lengths)
    centred, notes = np.empty_like(values), []
    for number in np.unique(group[known]):
        rows = np.flatnonzero(known & (group == number))
        meaning = parts[groups.index(number)].coordinates.meaning
        told, said = Coordinates(values[rows], *meaning).with_given(given, where)
        here = names.iloc[rows]
        _one_frame(written.iloc[rows].to_numpy(), here.to_numpy(), told, where)

        def row_at(row: int, rows: np.ndarray = rows) -> str:
            part = int(np.searchsorted(starts, rows[row], side="right")) - 1
            return parts[part].row(int(rows[row] - starts[part]))

        if told.unit in (Unit.CENTRED, Unit.ANGSTROM, Unit.FRACTION) and shift[rows][in_pixels[rows]].any():
            what = "rlnOriginX/Y/Z are pixels, and nothing says of which images; the coordinates are in Angstrom."
            fix = "Write rlnOriginX/Y/ZAngst (RELION 3.1 and later do): the shifts times the pixel size of the images."
            raise ProblemError(Problem(what, where, "shifts in Angstrom", fix))
        extent = tomograms.of(here) * tomograms.pixel_size
        centred[rows], text = place_coordinates(told, extent, here, tomograms.pixel_size, where, row_at)
        voxel = told.voxel_size or tomograms.pixel_size
        centred[rows] -= shift[rows] * np.where(in_pixels[rows], voxel, 1.0)[:, None]
        notes += [*said, text]
    return centred[known], notes


def _check_optics(optics: pd.DataFrame, tomograms: Tomograms, source: str) -> None:
    """Stop where the particles say another microscope or pixel size than the tilt series."""
    problems = []
    for label in ("rlnTomoTiltSeriesPixelSize", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"):
        for value in np.unique(numbers(optics, [label], f"{source}, data_optics")) if label in optics else ():
            expected = float(tomograms.optics[label])
            if abs(value - expected) > 2e-3 * abs(expected):
                fix = "Correct the one that is wrong; other pixel sizes or microscopes go into a run of their own."
                what = f"{label} of the particles is {value:g}, of the tilt series {expected:g}."
                problems.append(Problem(what, f"{source}, data_optics", "the same value", fix))
    if problems:
        raise ProblemError(problems)


def _groups(parts: list[Picked]) -> list[int]:
    """A number for each part: the same where coordinates mean the same."""
    meanings = list(dict.fromkeys(one.coordinates.meaning for one in parts))
    return [meanings.index(one.coordinates.meaning) for one in parts]


def _joined(parts: list[Picked]) -> pd.DataFrame:
    """The tables of all parts; only labels that all have."""
    if len(parts) == 1:
        return parts[0].table
    labels = dict.fromkeys(label for one in parts for label in one.table)
    some = [label for label in labels if not all(label in one.table for one in parts)]
    if some:
        lacking = next(one.where for one in parts if some[0] not in one.table)
        fix = "Import files that differ one by one, and join them with 'py2rely import combine-particles'."
        raise ProblemError(Problem(f"Only some files have {', '.join(some)}.", lacking, "the same labels in all", fix))
    return pd.concat([one.table for one in parts], ignore_index=True)


def match_names(names: pd.Series, tomograms: Tomograms, where: str) -> tuple[pd.Series, list[str]]:
    """Names as the tilt series have them, without what other programs add; and which were changed.

    Parameters
    ----------
    names : Series of str
    tomograms : Tomograms
        Names that it does not know stay as they are.
    where : str
        For messages.

    Raises
    ------
    ProblemError
        A name could mean several tilt series.
    """
    unique = [str(name) for name in names.unique()]
    found, several = match(unique, tomograms.sizes)
    if several:
        name, meant = next(iter(several.items()))
        fix = "Rename the tomograms of the particles as the tilt series are called."
        what = f"The tomogram {name} could be {' or '.join(meant[:4])}."
        raise ProblemError(Problem(what, where, "a name that only one tilt series has", fix))
    if tomograms.default is not None:
        found = {name: _without_file_ending(name) for name in unique} | found
    changed = [f"{name} is {meant}" for name, meant in found.items() if meant != name]
    more = f" and {len(changed) - 2} more" if len(changed) > 2 else ""
    notes = [f"names of tomograms: {', '.join(changed[:2])}{more}"] if changed else []
    return names.map({name: found.get(name, name) for name in unique}), notes


def _without_file_ending(name: str) -> str:
    return re.sub(r"\.(tomostar|mrcs?|rec|st|star|cbox|coords)$", "", Path(name).name)


def _one_frame(written: np.ndarray, names: np.ndarray, told: Coordinates, where: str) -> None:
    """Stop where pixels of tomograms of several names belong to one tilt series: they may be of several binnings."""
    if told.unit in (Unit.CENTRED, Unit.ANGSTROM):
        return
    pairs = pd.DataFrame({"name": names, "written": written}).drop_duplicates()
    twice = pairs[pairs["name"].duplicated(keep=False)].sort_values("name", kind="stable")
    if len(twice):
        first = twice[twice["name"] == twice["name"].iloc[0]]
        what = f"Tomograms of several names are all {first['name'].iloc[0]}: {', '.join(first['written'][:4])}."
        fix = "Are they of several binnings? Import the particles of each on their own, then combine them."
        raise ProblemError(Problem(what, where, "one tomogram for each tilt series", fix))


def _known(names: pd.Series, tomograms: Tomograms, where: str, skip: bool) -> tuple[np.ndarray, list[str]]:
    """Which particles are of tomograms that are there, (n,) bool, and what was left out."""
    if tomograms.default is not None:
        return np.ones(len(names), dtype=bool), []
    known = names.isin(list(tomograms.sizes)).to_numpy()
    if known.all():
        return known, []
    gone = [str(name) for name in names[~known].unique()]
    text = f"{int((~known).sum())} particles of {len(gone)} tomograms without a tilt series: {', '.join(gone[:3])}"
    if skip and known.any():
        return known, [f"left out {text}"]
    hint = nearest(gone[0], tomograms.sizes)
    there = f"The tilt series are called {', '.join(list(tomograms.sizes)[:3])}."
    fix = f"{gone[0]}: {hint} " if hint else f"{there} "
    fix += "Rename them, or leave them out with --skip-unknown."
    raise ProblemError(Problem(f"There are {text}.", where, "the names of the tilt series", fix))


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
