"""AreTomo2 and AreTomo3: the ``.aln`` file, CTF text, tilt list with dose, and list of acquisition."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

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

GLOBAL_COLUMNS = ("SEC", "ROT", "GMAG", "TX", "TY", "SMEAN", "SFIT", "SCALE", "BASE", "TILT")
#: Angles in the .aln file are the tilt list's plus one offset, within this much of a tilt step.
SAME_ANGLE = 0.5


@dataclass
class Alignment:
    """An ``.aln`` file.

    Attributes
    ----------
    rows : DataFrame
        :data:`GLOBAL_COLUMNS` of the images that were kept; ``SEC`` counted from 1, whatever the file has.
    dark : DataFrame
        ``frame`` (in the order of the tilt angles, from 0) and ``SEC`` (from 1) of the images that were left out.
    count : int
        Sections of the stack.
    first : int
        The number that the file gives to the first section: 0 or 1.
    """

    rows: pd.DataFrame
    dark: pd.DataFrame
    count: int
    first: int


@dataclass
class Doses:
    """Where the dose comes from when no file has it.

    Attributes
    ----------
    total : float or None
        Of the whole series, e/A^2.
    per_tilt : float or None
        Of one image, e/A^2.
    """

    total: float | None = None
    per_tilt: float | None = None
    used: list[str] = field(default_factory=list)

    def of(self, count: int, name: str) -> np.ndarray:
        """Dose of each of `count` images."""
        if self.per_tilt is None and self.total is None:
            fix = "Give --dose-per-tilt or --total-dose (e/A^2), or a _TLT.txt with the dose in its third column."
            raise ProblemError(Problem("The dose is not known.", name, "a dose for every image", fix))
        value = self.per_tilt if self.per_tilt is not None else self.total / count
        if not value > 0:
            fix = "Correct --dose-per-tilt or --total-dose."
            raise ProblemError(Problem(f"{value:g} e/A^2 is no possible dose.", name, "a dose > 0", fix))
        self.used.append(name)
        return np.full(count, float(value))


def read_aln(path: Path) -> Alignment:
    """Read an AreTomo alignment; only its global part, as RELION has no local one.

    Raises
    ------
    ProblemError
        It is no ``.aln`` file, or its sections cannot be told.
    """
    size, dark, rows = None, [], []
    for line in path.read_text(errors="replace").splitlines():
        words = line.replace("=", " = ").split()
        if line.startswith("# Local Alignment"):
            break
        if line.startswith("#"):
            values = words[words.index("=") + 1 :] if "=" in words else []
            if "RawSize" in line:
                size = [int(value) for value in values]
            elif "DarkFrame" in line:
                dark.append(values[:2])
        elif len(words) >= len(GLOBAL_COLUMNS):
            rows.append(words[: len(GLOBAL_COLUMNS)])
    try:
        table = pd.DataFrame(rows, columns=GLOBAL_COLUMNS).astype(float)
        left_out = pd.DataFrame(dark, columns=("frame", "SEC")).astype(int)
    except (ValueError, TypeError) as error:
        raise ProblemError(_no_aln(path, str(error))) from error
    if table.empty or size is None or len(size) != 3:
        raise ProblemError(_no_aln(path, "RawSize or the table after '# SEC' is missing"))
    if not np.isfinite(table.to_numpy()).all() or (table["TILT"].abs() > 90).any():
        raise ProblemError(_no_aln(path, "it has tilt angles or shifts that are not possible"))
    table["SEC"] = table["SEC"].astype(int)
    return _counted_from_one(path, table, left_out, size[2])


def _no_aln(path: Path, reason: str) -> Problem:
    fix = "Look at the file; align the tilt series again."
    return Problem(
        f"An AreTomo alignment cannot be read: {reason}.", str(path), "an AreTomo2 or AreTomo3 .aln file", fix
    )


def _counted_from_one(path: Path, table: pd.DataFrame, dark: pd.DataFrame, count: int) -> Alignment:
    """Tell from the file whether its sections are counted from 0 (AreTomo, AreTomo2) or from 1 (AreTomo3)."""
    sections = sorted([*table["SEC"], *dark["SEC"]])
    for first in (0, 1):
        if sections == list(range(first, count + first)):
            break
    else:
        # AreTomo3 between the two: the table counts from 1 and the dark frames from 0.
        mixed = sorted([*table["SEC"], *(dark["SEC"] + 1)])
        if mixed != list(range(1, count + 1)):
            what = f"The sections of its table and dark frames are not the {count} of RawSize, from 0 or from 1."
            fix = "Align the tilt series again; RawSize, DarkFrame and the table must belong together."
            raise ProblemError(Problem(what, str(path), "every section once", fix))
        first, dark = 1, dark.assign(SEC=dark["SEC"] + 1)
        return Alignment(table, dark, count, first)
    shift = 1 - first
    return Alignment(table.assign(SEC=table["SEC"] + shift), dark.assign(SEC=dark["SEC"] + shift), count, first)


def read_ctf(path: Path, aln: Alignment) -> pd.DataFrame:
    """CTF of the images that were kept, in the order of the ``.aln`` table.

    The file has a row per image that was kept, or a row per image with the dark ones.

    Raises
    ------
    ProblemError
        It has another number of rows, or a defocus that is not possible.
    """
    try:
        values = np.loadtxt(path, comments="#", ndmin=2)
    except (OSError, ValueError) as error:
        fix = "Let AreTomo estimate the CTF, or give the file's name pattern with --ctf."
        problem = Problem(f"The CTF values cannot be read: {error}.", str(path), "a CTF text file of AreTomo", fix)
        raise ProblemError(problem) from error
    kept = len(aln.rows)
    if len(values) == aln.count and len(aln.dark):
        values = np.delete(values, aln.dark["frame"].to_numpy(), axis=0)
    if len(values) != kept or values.shape[1] < 4:
        what = f"It has {len(values)} rows of {values.shape[1]} values."
        fix = "The alignment and the CTF are not of the same run: run AreTomo again."
        expected = f"{kept} rows (or {aln.count} with the dark frames) of 4 to 7 values"
        raise ProblemError(Problem(what, str(path), expected, fix))
    if (values[:, 1:3] <= 0).any() or (values[:, 1:3] > 3e5).any():
        what = f"A defocus of {values[:, 1:3].min():.0f} to {values[:, 1:3].max():.0f} A is not possible."
        raise ProblemError(Problem(what, str(path), "0 to 300000 A", "Estimate the CTF again."))
    table = {
        "rlnDefocusU": values[:, 1],
        "rlnDefocusV": values[:, 2],
        "rlnDefocusAngle": values[:, 3],
        "rlnPhaseShift": np.degrees(values[:, 4]) if values.shape[1] > 4 else np.zeros(kept),
    }
    if values.shape[1] > 6:
        table |= {"rlnCtfFigureOfMerit": values[:, 5], "rlnCtfMaxResolution": values[:, 6]}
    return pd.DataFrame(table)


def read_tilt_list(path: Path, count: int) -> pd.DataFrame:
    """The tilt list: ``angle``, and ``order`` and ``dose`` where it has them, a row per section of the stack.

    Raises
    ------
    ProblemError
        Its rows are not the stack's sections, or its order is none.
    """
    try:
        values = np.loadtxt(path, comments="#", ndmin=2)
    except (OSError, ValueError) as error:
        fix = "Write it again: angle, order of acquisition and dose, one line per section."
        raise ProblemError(Problem(f"The tilt list cannot be read: {error}.", str(path), "numbers", fix)) from error
    if len(values) != count or values.shape[1] > 3:
        fix = "Use the tilt list that AreTomo wrote beside this stack."
        what = f"The tilt list has {len(values)} lines."
        raise ProblemError(Problem(what, str(path), f"{count}, one per section of the stack", fix))
    table = pd.DataFrame(values, columns=["angle", "order", "dose"][: values.shape[1]])
    # AreTomo3 writes 0 for all when it was not told the order.
    if "order" in table and (table["order"] == 0).all() and count > 1:
        table = table.drop(columns="order")
    if "order" in table and table["order"].duplicated().any():
        fix = "Correct its second column."
        raise ProblemError(Problem("Two images have the same place in the order.", str(path), "an order", fix))
    if "dose" in table and (not np.isfinite(table["dose"]).all() or (table["dose"] < 0).any()):
        raise ProblemError(Problem("A dose is not possible.", str(path), "doses >= 0", "Correct its third column."))
    if "dose" in table and (table["dose"] == 0).all():
        table = table.drop(columns="dose")
    return table


def read_order_list(path: Path, aln: Alignment) -> np.ndarray | None:
    """Order of acquisition per section, (count,), of a list of image number and angle; None if it lacks images.

    The list is in the order of acquisition, and its angles may have an offset: images are matched by their rank among
    the angles, never by the nearest angle.
    """
    try:
        values = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    except (OSError, ValueError) as error:
        fix = "Use the order list that AreTomo wrote: ImageNumber, TiltAngle."
        raise ProblemError(
            Problem(f"The order list cannot be read: {error}.", str(path), "two columns", fix)
        ) from error
    if len(values) != aln.count or len(np.unique(values[:, 0])) != len(values):
        return None
    sections = np.concatenate([aln.rows["SEC"], aln.dark["SEC"]]).astype(int)
    frames = np.concatenate([_frames(aln), aln.dark["frame"]]).astype(int)
    order = np.empty(aln.count)
    order[sections - 1] = values[np.argsort(values[:, 1], kind="stable"), 0][frames]
    return order


def _frames(aln: Alignment) -> np.ndarray:
    """Place of each row of the table among all images by their angle, from 0."""
    left = np.setdiff1d(np.arange(aln.count), aln.dark["frame"])
    frames = np.empty(len(aln.rows), dtype=int)
    frames[np.argsort(aln.rows["TILT"], kind="stable")] = left
    return frames


def import_aretomo(
    directory: Path,
    optics: Optics,
    hand: float,
    layout: Layout,
    pixel_size: float | None = None,
    thickness: int | None = None,
    doses: Doses | None = None,
    prefix: str = "",
    skip_other_pixel_size: bool = False,
) -> Import:
    """Tilt series that AreTomo2 or AreTomo3 aligned.

    Beside each ``NAME.aln`` are needed: the stack (``NAME.mrc``, ``.mrcs`` or ``.st``) and ``NAME_CTF.txt`` (or
    ``NAME_ctf.txt``); and, where there, ``NAME_TLT.txt`` or ``NAME.rawtlt``, ``NAME_Imod/NAME_order_list.csv`` and
    ``NAME_Vol.mrc``.

    Parameters
    ----------
    directory : Path
    optics : Optics
    hand : float
    layout : Layout
    pixel_size : float or None
        Of the stacks, Angstrom; None takes it from their headers.
    thickness : int or None
        Of the tomograms in unbinned voxels; None takes it from ``NAME_Vol.mrc``.
    doses : Doses or None
        Used where no tilt list has the dose.
    prefix : str
        Put before every name.
    skip_other_pixel_size : bool
        Leave out, with a note, series of another pixel size instead of stopping.

    Raises
    ------
    ProblemError
        With every problem of every series.
    """
    files = sorted(directory.glob("*.aln"))
    if not files:
        fix = "Give the directory that AreTomo wrote."
        raise ProblemError(Problem("There are no .aln files.", str(directory), "AreTomo's output", fix))
    series, problems, notes, warnings = [], [], [f"{len(files)} .aln files in {directory}"], []
    doses = doses or Doses()
    for file in files:
        try:
            header_problem = None
            if skip_other_pixel_size:
                header_problem = _other_pixel_size(file, pixel_size)
            if header_problem:
                notes.append(f"left out {file.stem}: {header_problem}")
                continue
            one = _read_series(file, prefix, pixel_size, thickness, doses, notes, warnings)
            series.append(one)
        except ProblemError as error:
            problems += error.problems
    if problems:
        raise ProblemError(problems)
    if not series:
        what = f"None of the {len(files)} tilt series has the pixel size that was asked for."
        raise ProblemError(
            Problem(what, str(directory), f"{pixel_size:g} A", "Correct --pixel-size.\n" + "\n".join(notes))
        )
    result = assemble(series, optics, hand, layout)
    result.notes = notes + result.notes
    result.warnings += warnings
    if doses.used:
        value = f"{doses.per_tilt:g} e/A^2 per image" if doses.per_tilt is not None else f"{doses.total:g} e/A^2 in all"
        result.notes.append(f"dose as given ({value}) for {len(doses.used)} series whose tilt list has none")
    return result


def _stack_of(aln: Path) -> Path:
    found = [aln.with_name(aln.stem + end) for end in (".mrc", ".mrcs", ".st")]
    return next((path for path in found if path.is_file()), found[0])


def _other_pixel_size(aln: Path, pixel_size: float | None) -> str | None:
    from py2rely_core.maps.io import read_header

    found = read_header(_stack_of(aln)).pixel_size
    if pixel_size is None or not found or abs(found - pixel_size) <= 0.01 * pixel_size:
        return None
    return f"{found:g} A per pixel, not {pixel_size:g} (--pixel-size)"


def _beside(aln: Path, *endings: str) -> Path | None:
    return next((path for end in endings if (path := aln.with_name(aln.stem + end)).is_file()), None)


def _read_series(
    file: Path,
    prefix: str,
    pixel_size: float | None,
    thickness: int | None,
    doses: Doses,
    notes: list[str],
    warnings: list[Problem],
) -> Series:
    name, aln = prefix + file.stem, read_aln(file)
    stack = _stack_of(file)
    header, pixel = stack_header(stack, pixel_size)
    if header.shape[0] != aln.count:
        what = f"The stack has {header.shape[0]} sections, the alignment is of {aln.count}."
        raise ProblemError(Problem(what, f"{stack} and {file}", "the same stack", "Put the aligned stack beside it."))
    ctf_file = _beside(file, "_CTF.txt", "_ctf.txt")
    if ctf_file is None:
        fix = "Run AreTomo with CTF estimation (-Kv, -Cs, -AmpContrast), and keep its _CTF.txt beside the .aln file."
        raise ProblemError(Problem("There are no CTF values.", f"{file.with_suffix('')}_CTF.txt", "a file", fix))
    ctf = read_ctf(ctf_file, aln)
    scale_note = check_scale(aln.rows["GMAG"].to_numpy(), name)
    notes += [scale_note] if scale_note else []
    exposure, nominal = _exposure(file, name, aln, doses, warnings)
    rows = aln.rows
    tilts = pd.DataFrame(
        {
            "section": rows["SEC"],
            "rlnTomoXTilt": 0.0,
            "rlnTomoYTilt": rows["TILT"],
            "rlnTomoZRot": rows["ROT"],
            "rlnTomoXShiftAngst": rows["TX"] * pixel,
            "rlnTomoYShiftAngst": rows["TY"] * pixel,
            "rlnMicrographPreExposure": exposure[rows["SEC"] - 1],
            "rlnTomoNominalStageTiltAngle": nominal[rows["SEC"] - 1],
            "rlnTomoNominalTiltAxisAngle": rows["ROT"],
        }
    )
    size = tomogram_size(
        _beside(file, "_Vol.mrc", "_rec.mrc"), header, float(rows["ROT"].mean()), pixel, thickness, name
    )
    dark = f", {len(aln.dark)} dark frames left out" if len(aln.dark) else ""
    notes.append(f"{name}: {len(rows)} of {aln.count} images{dark}; sections counted from {aln.first}")
    return Series(name, stack, pd.concat([tilts, ctf], axis=1), size, pixel)


def _exposure(
    file: Path, name: str, aln: Alignment, doses: Doses, warnings: list[Problem]
) -> tuple[np.ndarray, np.ndarray]:
    """Pre-exposure and nominal angle of every section of the stack, the dark ones too."""
    listed, order = _beside(file, "_TLT.txt", ".rawtlt"), None
    angles = pd.Series(aln.rows["TILT"].to_numpy(), index=aln.rows["SEC"]).reindex(range(1, aln.count + 1)).to_numpy()
    dose = None
    if listed:
        table = read_tilt_list(listed, aln.count)
        _same_sections(aln, table["angle"].to_numpy(), listed)
        angles = table["angle"].to_numpy()
        order = table["order"].to_numpy() if "order" in table else None
        dose = table["dose"].to_numpy() if "dose" in table else None
    order_list = file.parent / f"{file.stem}_Imod" / f"{file.stem}_order_list.csv"
    if order is None and order_list.is_file():
        order = read_order_list(order_list, aln)
        if order is not None and _is_monotonic(order, angles):
            what = "The order of acquisition runs through the tilt angles from one end to the other."
            fix = "Right for a one-way scheme. Early versions of AreTomo3 list sections there instead: see the mdoc."
            warnings.append(Problem(what, str(order_list), "the order of acquisition", fix, "warning"))
    if order is None:
        fix = "Put NAME_TLT.txt (angle, order of acquisition, dose) beside the .aln file, one line per section."
        where = f"{listed or file.with_suffix('')}{'' if listed else '_TLT.txt'}; {order_list}"
        raise ProblemError(Problem("The order of acquisition is not known.", where, "an order for every image", fix))
    return pre_exposure(order, doses.of(aln.count, name) if dose is None else dose), angles


def _is_monotonic(order: np.ndarray, angles: np.ndarray) -> bool:
    known = np.isfinite(angles)
    steps = np.diff(order[known][np.argsort(angles[known], kind="stable")])
    return len(steps) > 2 and (bool((steps > 0).all()) or bool((steps < 0).all()))


def _same_sections(aln: Alignment, angles: np.ndarray, path: Path) -> None:
    """The angles of alignment and tilt list differ by one offset, or their sections are not the same."""
    difference = aln.rows["TILT"].to_numpy() - angles[aln.rows["SEC"].to_numpy() - 1]
    steps = np.diff(np.sort(angles))
    tolerance = SAME_ANGLE * float(np.median(steps[steps > 1e-3])) if (steps > 1e-3).any() else 1.0
    worst = int(np.abs(difference - np.median(difference)).argmax())
    if abs(difference[worst] - np.median(difference)) > tolerance:
        section = int(aln.rows["SEC"].iloc[worst])
        what = (
            f"Section {section} is at {aln.rows['TILT'].iloc[worst]:.2f} degrees in the alignment and at "
            f"{angles[section - 1]:.2f} in the tilt list."
        )
        fix = "The tilt list is of another stack, or in another order: use the one that AreTomo wrote with this stack."
        raise ProblemError(Problem(what, str(path), "the same sections, one offset for all", fix))
