"""Several particle or tilt-series files as one, and tilt series without particles left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from py2rely_core.data import kinds
from py2rely_core.data.geometry import ANGLES, CENTRED, SIZES
from py2rely_core.data.inputs import from_optimisation_set
from py2rely_core.data.tables import TEXT_LABELS, read_star, resolve, row_line
from py2rely_core.importers.optics import merge_optics
from py2rely_core.importers.particles import duplicates
from py2rely_core.importers.picked import check_angles, names_of, numbers
from py2rely_core.importers.result import Import, project_path
from py2rely_core.importers.text import LARGEST_NUMBER
from py2rely_core.importers.tilt_series import LIMITS, numbers_in
from py2rely_core.problems import Problem, ProblemError

#: Labels of particles that RELION computes with; all files have them, or none.
VITAL = ("rlnAngle", "rlnTomoSubtomogram", "rlnRandomSubset", "rlnOrigin")
#: What a tilt series is nothing without: no file may lack it where others have it.
NEEDED = ("rlnTomoHand", "rlnTomoTiltSeriesPixelSize", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast",
          *SIZES)  # fmt: skip


def _read_all(inputs: list[Path], block: str, skip_missing: bool) -> tuple[dict[Path, dict], list[str]]:
    found, notes, problems = {}, [], []
    for path in inputs:
        if skip_missing and not path.is_file():
            notes.append(f"left out {path}: it is missing")
            continue
        if path in found:
            problems.append(Problem("A file is given twice.", str(path), "each once", "Give it once."))
            continue
        wanted = kinds.KINDS["particles" if block == "particles" else "tilt series"]
        try:
            blocks = read_star(from_optimisation_set(path, wanted.key, Path.cwd()))
        except ProblemError as error:
            problems += error.problems
            continue
        if block not in blocks:
            kind = kinds.of_blocks(blocks)
            fix = f"Give files with the block data_{block}."
            missing = Problem(f"The block data_{block} is missing.", str(path), f"data_{block}", fix)
            other = kind is not None and kind is not wanted
            problems.append(kinds.problem_of(kind, path, wanted.name) if other else missing)
        elif blocks[block].empty:
            fix = "Write the file again, or leave it out."
            problems.append(Problem(f"The block data_{block} has no rows.", str(path), "one or more", fix))
        found[path] = blocks
    if not found and not problems:
        problems.append(Problem("No input file is there.", ", ".join(map(str, inputs)), "files", "Correct --input."))
    if problems:
        raise ProblemError(problems)
    return found, notes


def combine_particles(inputs: list[Path], output: Path, skip_missing: bool = False) -> Import:
    """One particle file of several; optics groups are merged when they are equal.

    Parameters
    ----------
    inputs : list of Path
        Particle STAR files with ``data_optics`` and ``data_particles``.
    output : Path
    skip_missing : bool
        Leave out files that are not there instead of stopping.

    Raises
    ------
    ProblemError
        Pixel sizes differ, a particle is in two files, or labels are not the same.
    """
    found, notes = _read_all(inputs, "particles", skip_missing)
    problems = []
    for path, blocks in found.items():
        optics = blocks.get("optics", pd.DataFrame())
        if "rlnOpticsGroup" not in optics or "rlnOpticsGroup" not in blocks["particles"]:
            problems.append(Problem("Optics groups are missing.", str(path), "data_optics", "Import the file first."))
        elif optics["rlnOpticsGroup"].duplicated().any():
            problems.append(
                Problem("An optics group is described twice.", str(path), "once", "Remove one of the rows.")
            )
        elif not set(blocks["particles"]["rlnOpticsGroup"]) <= set(optics["rlnOpticsGroup"]):
            fix = "Add a row to data_optics for each group."
            problems.append(Problem("Particles have an optics group without a row.", str(path), "every group", fix))
        if not {"rlnTomoName", *CENTRED} <= set(blocks["particles"]):
            fix = "Import the file first: py2rely import particles."
            problems.append(Problem("There are no centred coordinates.", str(path), ", ".join(CENTRED), fix))
        for block in ("optics", "particles"):
            problems += _unreadable(blocks.get(block, pd.DataFrame()), path, block)
    if problems:
        raise ProblemError(problems)
    problems += _one_value({path: blocks.get("optics") for path, blocks in found.items()}, "rlnTomoTiltSeriesPixelSize")
    if problems:
        raise ProblemError(problems)
    optics, numbers = merge_optics([blocks["optics"] for blocks in found.values()])
    tables = []
    for (path, blocks), mapping in zip(found.items(), numbers, strict=True):
        table = blocks["particles"].copy()
        table["rlnOpticsGroup"] = table["rlnOpticsGroup"].map(mapping)
        tables.append(table)
        notes.append(f"{path}: {len(table)} particles in {table['rlnTomoName'].nunique()} tomograms")
    merged = pd.concat(tables, ignore_index=True)
    some = [label for label in merged if not all(label in table for table in tables)]
    vital = [label for label in some if label.startswith(VITAL)]
    if vital:
        fix = "Add the labels, or remove them from the other files."
        raise ProblemError(Problem(f"Only some files have {', '.join(vital)}.", ", ".join(map(str, found)), "all", fix))
    if some:
        merged = merged.drop(columns=some)
        notes.append(f"labels left out, as only some files have them: {', '.join(some)}")
    _refuse_twice(merged, tables, list(found))
    before = sum(len(blocks["optics"]) for blocks in found.values())
    notes.append(f"{len(merged)} particles; {before} optics groups became {len(optics)}")
    return Import(tables={output: {"optics": optics, "particles": merged}}, notes=notes)


def _unreadable(table: pd.DataFrame, path: Path, block: str) -> list[Problem]:
    """Names that are empty, and values that are no possible numbers, where RELION needs them."""
    where, problems = str(path), []

    def place(row: int) -> str:
        return row_line(path, block, row)

    def check(label: str) -> None:
        if label in ("rlnTomoName", "rlnOpticsGroupName", "rlnTomoTiltSeriesStarFile"):
            names_of(table, label, where, place)
        elif label in LIMITS:
            numbers_in(table[label], where, label, place)
        elif label == "rlnOpticsGroup" or label in CENTRED or (label.startswith(VITAL) and label not in TEXT_LABELS):
            values = numbers(table, [label], where, place)[:, 0]
            whole = label == "rlnOpticsGroup"
            bad = (np.abs(values) > LARGEST_NUMBER) | (whole & (values != np.round(values)))
            if bad.any():
                row = int(bad.argmax())
                expected = "a whole number" if whole else f"a number of at most {LARGEST_NUMBER:g}"
                what = f"{str(table[label].iloc[row])!r} is not possible: {label}."
                fix = "Correct this row, or write the file again."
                raise ProblemError(Problem(what, f"{place(row)}, first in row {row + 1} of its table", expected, fix))

    for label in table:
        try:
            check(label)
        except ProblemError as error:
            problems += error.problems
    if not problems and set(ANGLES) <= set(table):
        try:
            check_angles(table, where, place)
        except ProblemError as error:
            problems += error.problems
    return problems


def _refuse_twice(merged: pd.DataFrame, tables: list[pd.DataFrame], paths: list[Path]) -> None:
    problems = []
    origin = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    twice = duplicates(merged)
    if twice.any():
        first = int(twice.argmax())
        where = f"{paths[origin[first]]}, {merged['rlnTomoName'].iloc[first]}"
        fix = "Give each particle once; different species go into files and runs of their own."
        what = f"{int(twice.sum())} particles are at the place of another one."
        problems.append(Problem(what, where, "each particle once", fix))
    if "rlnTomoParticleName" in merged:
        names = merged["rlnTomoParticleName"]
        if names.duplicated().any():
            fix = "Remove the label rlnTomoParticleName, or rename the particles."
            what = f"The particle name {names[names.duplicated()].iloc[0]} is used twice."
            problems.append(Problem(what, ", ".join(map(str, paths)), "unique names", fix))
    if problems:
        raise ProblemError(problems)


def _one_value(tables: dict[Path, pd.DataFrame | None], label: str) -> list[Problem]:
    values = {
        path: sorted({float(value) for value in table[label]})
        for path, table in tables.items()
        if table is not None and label in table
    }
    every = [value for found in values.values() for value in found]
    if not every or max(every) - min(every) <= 1e-4 * abs(min(every)):
        return []
    seen = "; ".join(f"{path}: {', '.join(f'{value:g}' for value in found)}" for path, found in values.items())
    fix = "Data of different pixel sizes or hands go into runs of their own (--sample_sheet)."
    return [Problem(f"{label} is not the same.", seen, "one value", fix)]


def combine_tilt_series(inputs: list[Path], output: Path, skip_missing: bool = False) -> Import:
    """One tilt-series file of several; the STAR files per tilt series stay where they are.

    The parameters are those of :func:`combine_particles`.

    Raises
    ------
    ProblemError
        A name is used twice, a hand is neither 1 nor -1, or hands or pixel sizes differ.
    """
    found, notes = _read_all(inputs, "global", skip_missing)
    tables = {path: blocks["global"] for path, blocks in found.items()}
    problems = [one for path, table in tables.items() for one in _unreadable(table, path, "global")]
    if problems:
        raise ProblemError(problems)
    for label in ("rlnTomoTiltSeriesPixelSize", "rlnTomoHand"):
        problems += _one_value(tables, label)
    owners: dict[str, list[str]] = {}
    rows = []
    for path, table in tables.items():
        absent = [label for label in ("rlnTomoName", "rlnTomoTiltSeriesStarFile") if label not in table]
        if absent:
            problems.append(Problem(f"Labels are missing: {', '.join(absent)}.", str(path), "RELION 5", "Import it."))
            continue
        for name in table["rlnTomoName"]:
            owners.setdefault(str(name), []).append(str(path))
        files = [resolve(str(file), path.absolute(), Path.cwd()) for file in table["rlnTomoTiltSeriesStarFile"]]
        gone = [str(file) for file in files if not file.is_file()]
        if gone:
            fix = "Start in the directory from which its paths hold."
            problems.append(Problem(f"{len(gone)} files are missing.", f"{path}: {gone[0]}", "files", fix))
        rows.append(table.assign(rlnTomoTiltSeriesStarFile=[project_path(file) for file in files]))
        notes.append(f"{path}: {len(table)} tilt series")
    twice = {name: paths for name, paths in owners.items() if len(paths) > 1}
    if twice:
        name, paths = next(iter(twice.items()))
        fix = "Import one of the sessions with --prefix."
        what = f"{len(twice)} names are used twice, such as {name}."
        problems.append(Problem(what, ", ".join(paths), "unique rlnTomoName", fix))
    if problems:
        raise ProblemError(problems)
    merged = pd.concat(rows, ignore_index=True)
    incomplete = [label for label in merged if merged[label].isna().any()]
    lost = [label for label in NEEDED if label in incomplete]
    if lost:
        lacking = ", ".join(str(path) for path, table in tables.items() if lost[0] not in table)
        fix = "Add the labels to the other files."
        raise ProblemError(Problem(f"Only some files have {', '.join(lost)}.", lacking, "all", fix))
    if incomplete:
        merged = merged.drop(columns=incomplete)
        notes.append(f"labels left out, as only some files have them: {', '.join(incomplete)}")
    notes.append(f"{len(merged)} tilt series")
    return Import(tables={output: {"global": merged}}, notes=notes)


def filter_unused_tilts(particles: Path, tilt_series: Path, output: Path) -> Import:
    """Tilt series that have particles.

    Raises
    ------
    ProblemError
        None has, or particles belong to tilt series that are not there.
    """
    if kinds.look(output) is kinds.KINDS["optimisation set"]:
        fix = "Give --output: the set stays as it is."
        raise ProblemError(Problem("The output would replace an optimisation set.", str(output), "a new file", fix))
    particles = from_optimisation_set(particles, "particles", Path.cwd())
    tilt_series = from_optimisation_set(tilt_series, "tilt series", Path.cwd())
    picks, blocks = read_star(particles), read_star(tilt_series)
    for read, path, key in ((picks, particles, "particles"), (blocks, tilt_series, "tilt series")):
        kind = kinds.of_blocks(read)
        if kind is not None and kind.key != key and ("particles" if key == "particles" else "global") not in read:
            raise ProblemError(kinds.problem_of(kind, path, kinds.KINDS[key].name))
    table = picks.get("particles")
    if table is None or "rlnTomoName" not in table:
        raise ProblemError(Problem("There are no particles.", str(particles), "data_particles", "Correct --particles."))
    if "global" not in blocks or "rlnTomoName" not in blocks["global"]:
        fix = "Correct --tilt-series."
        raise ProblemError(Problem("There are no tilt series.", str(tilt_series), "data_global", fix))
    used, names = set(table["rlnTomoName"]), blocks["global"]["rlnTomoName"]
    keep = names.isin(used)
    if not keep.any():
        where = f"{particles} has {sorted(map(str, used))[:3]}, {tilt_series} has {list(names[:3])}"
        raise ProblemError(Problem("No tilt series has particles.", where, "common rlnTomoName", "Rename them."))
    notes = [f"{tilt_series}: {len(names)} tilt series, {int(keep.sum())} of them have particles"]
    unknown = sorted(used - set(names))
    if unknown:
        notes.append(f"particles of {len(unknown)} tomograms have no tilt series: {', '.join(map(str, unknown[:5]))}")
    left = list(names[~keep])
    notes += [f"left out, without particles: {', '.join(map(str, left))}"] if left else []
    kept = blocks["global"][keep].reset_index(drop=True).copy()
    if output.absolute().parent != tilt_series.absolute().parent and "rlnTomoTiltSeriesStarFile" in kept:
        kept["rlnTomoTiltSeriesStarFile"] = [
            project_path(resolve(str(file), tilt_series.absolute(), Path.cwd()))
            for file in kept["rlnTomoTiltSeriesStarFile"]
        ]
    return Import(tables={output: blocks | {"global": kept}}, notes=notes)
