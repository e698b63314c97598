"""IMOD and etomo: ``.xf``, ``.tlt``, ``tilt.com``, ``.defocus``, and the ``.mdoc`` for dose and order."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from py2rely_core.data.geometry import from_imod_transforms
from py2rely_core.importers.aretomo import Doses, read_tilt_list
from py2rely_core.importers.optics import Optics
from py2rely_core.importers.result import Import
from py2rely_core.importers.tilt_series import (
    Layout,
    Series,
    assemble,
    check_scale,
    pre_exposure,
    stack_header,
    tomogram_size,
)
from py2rely_core.problems import Problem, ProblemError

#: Bits of the first number of a .defocus file (IMOD's ctfphaseflip).
ASTIGMATISM, AXIS_IN_RADIANS, PHASE, PHASE_IN_RADIANS = 1, 2, 4, 8


def read_com(path: Path | None) -> dict[str, str]:
    """Values of an etomo command file, keys in capitals; none for a file that is not there."""
    if path is None or not path.is_file():
        return {}
    values = {}
    for line in path.read_text(errors="replace").splitlines():
        words = line.split(None, 1)
        if words and words[0][0] not in "$#":
            values[words[0].upper()] = words[1].strip() if len(words) > 1 else ""
    return values


def read_views(text: str) -> set[int]:
    """Views of a list such as ``1-3,7``."""
    views: set[int] = set()
    for part in re.split(r"[,\s]+", text.strip()):
        if part:
            first, _, last = part.partition("-")
            views |= set(range(int(first), int(last or first) + 1))
    return views


def read_mdoc(path: Path, count: int) -> pd.DataFrame:
    """Sections of an ``.mdoc`` in the stack's order: the values that are numbers, and ``DateTime``.

    Raises
    ------
    ProblemError
        It does not describe the stack's sections.
    """
    sections: list[dict[str, str]] = []
    for line in path.read_text(errors="replace").splitlines():
        heading = re.match(r"\[ZValue\s*=\s*(\d+)\]", line.strip())
        if heading:
            sections.append({"ZValue": heading[1]})
        elif sections and "=" in line:
            key, _, value = line.partition("=")
            sections[-1][key.strip()] = value.strip()
    table = pd.DataFrame(sections)
    if len(table) != count:
        fix = "Use the .mdoc of this stack."
        raise ProblemError(Problem(f"It describes {len(table)} sections.", str(path), f"{count} sections", fix))
    table["ZValue"] = table["ZValue"].astype(int)
    return table.sort_values("ZValue").reset_index(drop=True)


def exposure_of_mdoc(path: Path, count: int, doses: Doses, name: str) -> np.ndarray:
    """Pre-exposure of every section: from the dose before it, or from times and doses."""
    table = read_mdoc(path, count)
    if "PriorRecordDose" in table and table["PriorRecordDose"].astype(float).max() > 0:
        return table["PriorRecordDose"].astype(float).to_numpy()
    if "DateTime" not in table:
        fix = "Give a NAME_TLT.txt with angle, order of acquisition and dose instead."
        raise ProblemError(Problem("It has neither PriorRecordDose nor DateTime.", str(path), "times", fix))
    times = pd.to_datetime(table["DateTime"], format="mixed", dayfirst=True)
    dose = table["ExposureDose"].astype(float).to_numpy() if "ExposureDose" in table else np.zeros(count)
    return pre_exposure(times.to_numpy().astype("int64"), dose if (dose > 0).all() else doses.of(count, name))


def read_defocus(path: Path, count: int) -> pd.DataFrame:
    """CTF of every view of a ``.defocus`` file; a view outside of all ranges takes the nearest.

    Raises
    ------
    ProblemError
        It is no ``.defocus`` file.
    """
    try:
        lines = [[float(value) for value in line.split()] for line in path.read_text().splitlines() if line.split()]
        flags, offset = (int(lines[0][0]), 1) if len(lines[0]) >= 5 and lines[0][1] == 0 else (0, 0)
        rows = lines[offset:]
        assert rows
        assert all(len(row) >= 5 for row in rows)
    except (ValueError, IndexError, AssertionError) as error:
        fix = "Estimate the CTF with ctfplotter, or give a NAME_CTF.txt as ctffind writes it."
        problem = Problem("The defocus file cannot be read.", str(path), "an IMOD .defocus file", fix)
        raise ProblemError(problem) from error
    middle = np.array([(row[0] + row[1]) / 2 for row in rows])
    chosen = [rows[int(np.abs(middle - view).argmin())] for view in range(1, count + 1)]
    table = []
    for row in chosen:
        first, rest = row[4] * 10, row[5:]
        second, axis, phase = first, 0.0, 0.0
        if flags & ASTIGMATISM:
            second, axis, rest = rest[0] * 10, rest[1], rest[2:]
            axis = np.degrees(axis) if flags & AXIS_IN_RADIANS else axis
        if flags & PHASE:
            phase = np.degrees(rest[0]) if flags & PHASE_IN_RADIANS else rest[0]
        table.append((first, second, axis, phase))
    return pd.DataFrame(table, columns=["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift"])


def import_imod(
    directory: Path,
    optics: Optics,
    hand: float,
    layout: Layout,
    pixel_size: float | None = None,
    thickness: int | None = None,
    doses: Doses | None = None,
    prefix: str = "",
    ignore_placement: bool = False,
) -> Import:
    """Tilt series that IMOD aligned: `directory` is one etomo directory, or holds one per tilt series.

    Beside each ``NAME.xf`` are needed: ``NAME.tlt``, the stack (``NAME.st``, ``.mrc`` or ``.mrcs``), CTF values
    (``NAME.defocus`` or ``NAME_CTF.txt``), and dose and order (``NAME.st.mdoc``, ``NAME.mrc.mdoc``, ``NAME.mdoc`` or
    ``NAME_TLT.txt``). ``tilt.com`` gives excluded views, the angle offset and the size of the tomogram.

    Parameters
    ----------
    directory : Path
    optics : Optics
    hand : float
    layout : Layout
    pixel_size : float or None
        Of the stacks, Angstrom; None takes it from their headers.
    thickness : int or None
        Unbinned voxels; None takes it from ``tilt.com``.
    doses : Doses or None
        Used where no file has the dose.
    prefix : str
        Put before every name.
    ignore_placement : bool
        Leave out SHIFT and XAXISTILT of ``tilt.com``, which move the tomogram and not the images.

    Raises
    ------
    ProblemError
        With every problem of every series.
    """
    derived = ("_fid", "_nonfid", ".rotation", "prexf", "rotation")
    files = sorted(p for p in {*directory.glob("*.xf"), *directory.glob("*/*.xf")} if not p.stem.endswith(derived))
    files = [path for path in files if path.with_suffix(".tlt").is_file()]
    if not files:
        fix = "Give an etomo directory with a final alignment, or the directory above several."
        what = "There is no .xf file with a .tlt file beside it."
        raise ProblemError(Problem(what, str(directory), "IMOD's NAME.xf and NAME.tlt", fix))
    series, problems, doses = [], [], doses or Doses()
    notes = [f"{len(files)} IMOD alignments in {directory}"]
    for file in files:
        try:
            series.append(_read_series(file, prefix, pixel_size, thickness, doses, ignore_placement, notes))
        except ProblemError as error:
            problems += error.problems
    if problems:
        raise ProblemError(problems)
    result = assemble(series, optics, hand, layout)
    result.notes = notes + result.notes
    if doses.used:
        result.notes.append(f"dose per image as given, for {len(doses.used)} series whose files have none")
    return result


def _numbers(path: Path, columns: int, count: int | None = None) -> np.ndarray:
    try:
        values = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        fix = "Write it again with IMOD."
        problem = Problem(f"A file of IMOD cannot be read: {error}.", str(path), f"{columns} numbers per line", fix)
        raise ProblemError(problem) from error
    if values.shape[1] != columns or (count is not None and len(values) != count):
        what = f"It has {len(values)} lines of {values.shape[1]} numbers."
        expected = f"{count or 'some'} lines of {columns}"
        raise ProblemError(Problem(what, str(path), expected, "Use the files of one alignment of this stack."))
    return values


def _first(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _read_series(
    xf: Path,
    prefix: str,
    pixel_size: float | None,
    thickness: int | None,
    doses: Doses,
    ignore_placement: bool,
    notes: list[str],
) -> Series:
    folder, stem, name = xf.parent, xf.stem, prefix + xf.stem
    stack = _first(*(folder / f"{stem}{end}" for end in (".st", ".mrc", ".mrcs"))) or folder / f"{stem}.st"
    header, pixel = stack_header(stack, pixel_size)
    count = header.shape[0]
    rotation, shift, scale = from_imod_transforms(_numbers(xf, 6, count))
    angles = _numbers(xf.with_suffix(".tlt"), 1, count)[:, 0]
    tilt_com = read_com(_first(folder / "tilt.com", folder / f"{stem}_tilt.com"))
    _refuse_placement(tilt_com, folder, stem, ignore_placement, notes, name)
    offset = float(tilt_com.get("OFFSET", "0").split()[0])
    note = check_scale(scale, name)
    notes += [note] if note else []
    excluded = read_views(tilt_com.get("EXCLUDELIST", "")) | read_views(tilt_com.get("EXCLUDELIST2", ""))
    tilts = pd.DataFrame(
        {
            "section": np.arange(1, count + 1),
            "rlnTomoXTilt": 0.0,
            "rlnTomoYTilt": angles + offset,
            "rlnTomoZRot": rotation,
            "rlnTomoXShiftAngst": shift[:, 0] * pixel,
            "rlnTomoYShiftAngst": shift[:, 1] * pixel,
            "rlnMicrographPreExposure": _exposure(folder, stem, count, doses, name),
            "rlnTomoNominalStageTiltAngle": angles,
            "rlnTomoNominalTiltAxisAngle": rotation,
        }
    )
    tilts = pd.concat([tilts, _ctf(folder, stem, count)], axis=1)
    tilts = tilts[~tilts["section"].isin(excluded)].reset_index(drop=True)
    full = [int(float(value)) for value in tilt_com.get("FULLIMAGE", "").replace(",", " ").split()]
    thick = thickness or int(float(tilt_com.get("THICKNESS", "0").split()[0])) or None
    size = tomogram_size(None, header, float(np.mean(rotation)), pixel, thick, name)
    if len(full) == 2:
        size = (full[0], full[1], size[2])
    left = f", excluded views {sorted(excluded)} left out" if excluded else ""
    added = f", angle offset {offset:g} added" if offset else ""
    notes.append(f"{name}: {len(tilts)} of {count} images{left}{added}")
    return Series(name, stack, tilts, size, pixel)


def _refuse_placement(com: dict[str, str], folder: Path, stem: str, ignore: bool, notes: list[str], name: str) -> None:
    """SHIFT, XAXISTILT and .xtilt angles turn and move the tomogram in ways that RELION's tilt series do not hold."""
    found = [f"XAXISTILT {com['XAXISTILT']}"] if abs(float(com.get("XAXISTILT", "0").split()[0])) > 0.01 else []
    if any(abs(float(value)) > 0.01 for value in com.get("SHIFT", "0").replace(",", " ").split()):
        found.append(f"SHIFT {com['SHIFT']}")
    xtilt = folder / f"{stem}.xtilt"
    if xtilt.is_file() and np.abs(_numbers(xtilt, 1)).max() > 0.01:
        found.append(f"angles in {xtilt.name}")
    if found and not ignore:
        fix = (
            "Picks made in this tomogram are in its moved frame: reconstruct it without them (or with RELION) and pick "
            "there; or give --ignore-placement when the picks are from elsewhere."
        )
        what = f"The tomogram was turned or moved: {', '.join(found)}."
        raise ProblemError(Problem(what, f"{folder}/tilt.com", "0 for each", fix))
    if found:
        notes.append(f"{name}: left out as asked for: {', '.join(found)}")


def _exposure(folder: Path, stem: str, count: int, doses: Doses, name: str) -> np.ndarray:
    listed = _first(folder / f"{stem}_TLT.txt")
    if listed:
        table = read_tilt_list(listed, count)
        if "order" in table:
            dose = table["dose"].to_numpy() if "dose" in table else doses.of(count, name)
            return pre_exposure(table["order"].to_numpy(), dose)
    mdoc = _first(*(folder / f"{stem}{end}" for end in (".st.mdoc", ".mrc.mdoc", ".mrcs.mdoc", ".mdoc")))
    if mdoc:
        return exposure_of_mdoc(mdoc, count, doses, name)
    fix = f"Put {stem}.mdoc, or {stem}_TLT.txt (angle, order of acquisition, dose), beside the .xf file."
    where = f"{folder}/{stem}.mdoc, {folder}/{stem}_TLT.txt"
    raise ProblemError(Problem("The order of acquisition is not known.", where, "one of these files", fix))


def _ctf(folder: Path, stem: str, count: int) -> pd.DataFrame:
    from py2rely_core.importers.aretomo import Alignment, read_ctf

    defocus = _first(folder / f"{stem}.defocus")
    if defocus:
        return read_defocus(defocus, count)
    text = _first(folder / f"{stem}_CTF.txt", folder / f"{stem}_ctf.txt")
    if text is None:
        fix = "Estimate the CTF with ctfplotter, or give a NAME_CTF.txt as ctffind writes it."
        raise ProblemError(Problem("There are no CTF values.", f"{folder}/{stem}.defocus", "a file", fix))
    whole = Alignment(pd.DataFrame(index=range(count)), pd.DataFrame({"frame": [], "SEC": []}), count, 1)
    return read_ctf(text, whole)
