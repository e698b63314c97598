"""AreTomo2 and AreTomo3: what the files beside an ``.aln`` mean together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from py2rely_core.importers import sizes
from py2rely_core.importers.dose import (
    Doses,
    Exposure,
    Source,
    find_exposure,
    of_mdoc,
    of_order_list,
    of_tilt_list,
    refuse_other_sections,
)
from py2rely_core.importers.formats.aretomo import Alignment, read_aln, read_ctf
from py2rely_core.importers.formats.mdoc import ENDINGS, Mdoc, read_mdoc
from py2rely_core.importers.formats.tilt_list import read_tilt_list
from py2rely_core.importers.optics import Optics
from py2rely_core.importers.result import Import
from py2rely_core.importers.tilt_series import Alignment as Aligned
from py2rely_core.importers.tilt_series import Layout, Series, check_scale, import_all, mean_axis, series_of
from py2rely_core.maps.io import known_pixel_size, read_header
from py2rely_core.problems import Problem, ProblemError


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
    ``NAME_ctf.txt``); and, where there, ``NAME_TLT.txt`` or ``NAME.rawtlt``, ``NAME.mdoc`` (``.mrc.mdoc``,
    ``.st.mdoc``), ``NAME_Imod/NAME_order_list.csv`` and ``NAME_Vol.mrc``.

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
        Used where no file has the dose.
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
        if directory.is_file():
            fix = "This is a file: give the directory that it lies in."
        elif any(directory.glob("*.xf")) or any(directory.glob("*/*.xf")):
            fix = "There are .xf files, as IMOD writes them: 'py2rely import imod', or --imod in a run."
        raise ProblemError(Problem("There are no .aln files.", str(directory), "AreTomo's output", fix))
    doses = doses or Doses()

    def read(file: Path) -> Series | str:
        reason = _other_pixel_size(file, pixel_size) if skip_other_pixel_size else None
        return f"left out {file.stem}: {reason}" if reason else _read(file, prefix, pixel_size, thickness, doses)

    return import_all(files, read, optics, hand, layout, doses, f"{len(files)} .aln files in {directory}")


def _stack_of(aln: Path) -> Path:
    return _beside(aln, ".mrc", ".mrcs", ".st") or aln.with_name(f"{aln.stem}.mrc")


def _other_pixel_size(aln: Path, pixel_size: float | None) -> str | None:
    found = known_pixel_size(read_header(_stack_of(aln)).pixel_size)
    if pixel_size is None or not found or abs(found - pixel_size) <= sizes.SAME_PIXEL * pixel_size:
        return None
    return f"{found:g} A per pixel, not {pixel_size:g} (--pixel-size)"


def _beside(aln: Path, *endings: str) -> Path | None:
    return next((path for end in endings if (path := aln.with_name(aln.stem + end)).is_file()), None)


def _read(file: Path, prefix: str, pixel_size: float | None, thickness: int | None, doses: Doses) -> Series:
    name, aln = prefix + file.stem, read_aln(file)
    mdocs = [read_mdoc(path) for end in ENDINGS if (path := _beside(file, end))]
    stack = sizes.open_stack(_stack_of(file), pixel_size, tuple(map(sizes.of_mdoc, mdocs)))
    if stack.count != aln.count:
        what = f"The stack has {stack.count} sections, the alignment is of {aln.count}."
        fix = "Put the aligned stack beside it."
        raise ProblemError(Problem(what, f"{stack.path} and {file}", "the same stack", fix))
    sizes.same_size(stack, sizes.Said(file, "RawSize", aln.size[:2]))
    ctf = _ctf(file, aln)
    scale = check_scale(aln.rows["GMAG"].to_numpy(), name)
    exposure, nominal, warnings = _exposure(file, name, aln, mdocs, doses)
    rows = aln.rows
    volume = _beside(file, "_Vol.mrc", "_rec.mrc")
    size = sizes.tomogram_size(volume, stack, mean_axis(rows["ROT"].to_numpy()), thickness, f"{name}, {file}")
    dark = f", {len(aln.dark)} dark frames left out" if len(aln.dark) else ""
    notes = [scale] if scale else []
    notes.append(f"{name}: {len(rows)} of {aln.count} images{dark}; sections counted from {aln.first}")
    section, tilt, rotation = (rows[label].to_numpy() for label in ("SEC", "TILT", "ROT"))
    aligned = Aligned(section, tilt, rotation, rows[["TX", "TY"]].to_numpy(), nominal)
    series = series_of(name, stack, aligned, ctf, exposure, size, notes)
    series.warnings += warnings
    return series


def _ctf(file: Path, aln: Alignment) -> pd.DataFrame:
    """CTF of the images that were kept, by section.

    The file numbers images in the order of their tilt angles: those that were kept, or all of them.
    """
    path = _beside(file, "_CTF.txt", "_ctf.txt")
    if path is None:
        fix = "Run AreTomo with CTF estimation (-Kv, -Cs, -AmpContrast), and keep its _CTF.txt beside the .aln file."
        raise ProblemError(Problem("There are no CTF values.", f"{file.with_suffix('')}_CTF.txt", "a file", fix))
    table, kept, frames = read_ctf(path), len(aln.rows), aln.frames()
    numbers = table.index - table.index.min()
    if len(table) == kept and list(numbers) == list(range(kept)):
        chosen = table
    elif len(table) == aln.count and list(numbers) == list(range(aln.count)):
        chosen = table.iloc[frames]
    elif len(table) == kept and list(table.index - 1) == list(frames):
        chosen = table
    else:
        numbers = sorted(set(range(1, aln.count + 1)) - set(table.index))
        what = f"It has {len(table)} rows of {table.shape[1] + 1} values"
        what += f"; images {', '.join(map(str, numbers[:5]))} are missing." if numbers else "."
        fix = "The alignment and the CTF are not of the same run: run AreTomo again."
        expected = f"{kept} rows (or {aln.count} with the dark frames) of 4 to 7 values"
        raise ProblemError(Problem(what, str(path), expected, fix))
    return chosen.set_axis(aln.rows["SEC"].to_numpy())


def _exposure(
    file: Path, name: str, aln: Alignment, mdocs: list[Mdoc], doses: Doses
) -> tuple[Exposure, np.ndarray, list[Problem]]:
    """Pre-exposure and nominal angle of every section of the stack, the dark ones too; and warnings."""
    path = _beside(file, "_TLT.txt", ".rawtlt")
    order_list = file.parent / f"{file.stem}_Imod" / f"{file.stem}_order_list.csv"
    sources: list[Source] = []
    aligned, angles = aln.angles(), aln.angles_of_all()
    if path:
        listed = read_tilt_list(path, aln.count)
        refuse_other_sections(aligned, listed.angle, path, "the tilt list")
        refuse_other_sections(aln.nominal_of_dark(), listed.angle, path, "the tilt list")
        angles = listed.angle
        sources.append(of_tilt_list(listed))
    # An offset that AreTomo itself added is known: without it, the angles are the microscope's.
    stage = angles if path else angles - aln.offset
    sources += [of_mdoc(mdoc, stage, is_stage=path is not None) for mdoc in mdocs]
    if order_list.is_file():
        sources.append(of_order_list(order_list, aligned, aln.by_angle()))
    fix = "Put NAME.mdoc, or NAME_TLT.txt (angle, order of acquisition, dose), beside the .aln file."
    where = f"{path or file.with_suffix('')}{'' if path else '_TLT.txt'}; {file.with_suffix('.mdoc')}; {order_list}"
    missing = Problem("The order of acquisition is not known.", where, "an order for every image", fix)
    exposure = find_exposure(sources, doses, aln.count, name, missing)
    warnings = []
    if exposure.source.is_doubtful:
        what = "The order of acquisition runs through the tilt angles from one end to the other."
        fix = "Right for a one-way scheme. Early versions of AreTomo3 list sections there instead: see the mdoc."
        warnings.append(Problem(what, str(order_list), "the order of acquisition", fix, "warning"))
    return exposure, angles, warnings
