"""IMOD and etomo: what the files beside an ``.xf`` mean together."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from py2rely_core.data.geometry import from_imod_transforms
from py2rely_core.importers import sizes
from py2rely_core.importers.dose import (
    Doses,
    Exposure,
    Source,
    find_exposure,
    of_mdoc,
    of_tilt_list,
    refuse_other_sections,
)
from py2rely_core.importers.formats.aretomo import read_ctf
from py2rely_core.importers.formats.imod import (
    Command,
    DefocusRow,
    read_angles,
    read_com,
    read_defocus,
    read_transforms,
)
from py2rely_core.importers.formats.mdoc import Mdoc, read_mdoc
from py2rely_core.importers.formats.tilt_list import read_tilt_list
from py2rely_core.importers.optics import Optics
from py2rely_core.importers.result import Import
from py2rely_core.importers.text import place
from py2rely_core.importers.tilt_series import (
    SAME_AXIS,
    Alignment,
    Layout,
    Series,
    check_scale,
    import_all,
    mean_axis,
    other_axis,
    outlier_axis,
    series_of,
)
from py2rely_core.problems import Problem, ProblemError

#: A transformation that shrinks an image to less than this is none.
LEAST_SCALE = 0.1
#: What is added to tilt angles is never more, degrees.
LARGEST_OFFSET = 60.0


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
        Leave out what moves or trims the tomogram and not the images: SHIFT, XAXISTILT, WIDTH, SLICE of ``tilt.com``,
        and the size of a volume beside it.

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
        if directory.is_file():
            fix = "This is a file: give the directory that it lies in."
        elif any(directory.glob("*.aln")):
            fix = "There are .aln files, as AreTomo writes them: 'py2rely import aretomo', or --aretomo in a run."
        what = "There is no .xf file with a .tlt file beside it."
        raise ProblemError(Problem(what, str(directory), "IMOD's NAME.xf and NAME.tlt", fix))
    doses = doses or Doses()

    def read(file: Path) -> Series:
        return _read(file, prefix, pixel_size, thickness, doses, ignore_placement)

    return import_all(files, read, optics, hand, layout, doses, f"{len(files)} IMOD alignments in {directory}")


def _first(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _read(
    xf: Path, prefix: str, pixel_size: float | None, thickness: int | None, doses: Doses, ignore_placement: bool
) -> Series:
    folder, stem, name = xf.parent, xf.stem, prefix + xf.stem
    found = _first(*(folder / f"{stem}{end}" for end in (".st", ".mrc", ".mrcs"))) or folder / f"{stem}.st"
    beside = [folder / f"{stem}{end}" for end in (".st.mdoc", ".mrc.mdoc", ".mrcs.mdoc", ".mdoc")]
    mdocs = [read_mdoc(path) for path in beside if path.is_file()]
    said = tuple(map(sizes.of_mdoc, mdocs))
    stack = sizes.open_stack(found, pixel_size, said)
    com = _command(folder, stem)
    warnings = _binned(stack, said[0] if said else None, _full_image(com, stack), pixel_size)
    transforms, tlt = read_transforms(xf, stack.count), xf.with_suffix(".tlt")
    angles = read_angles(tlt, stack.count, "an IMOD .tlt file")
    _refuse_flat(angles, tlt)
    excluded = _excluded(com, stack.count)
    kept = np.array([n for n in range(stack.count) if n + 1 not in excluded], dtype=int)
    if not len(kept):
        what = "All views are excluded."
        raise ProblemError(Problem(what, str(com.path), "views that are used", "Correct EXCLUDELIST."))
    rotation, shift, scale = _transformed(transforms, kept, xf, stack)
    offset = (com.numbers("OFFSET", 1, 1, -LARGEST_OFFSET, LARGEST_OFFSET) or [0.0])[0]
    scale_note = check_scale(scale, name)
    nominal = angles.to_numpy()
    ctf = _ctf(folder, stem, nominal, set(kept + 1))
    exposure = _exposure(folder, stem, nominal, mdocs, doses, name)
    thick = com.numbers("THICKNESS", 1, 1, 0, 1e5) or [0.0]
    thickness, where = thickness or int(thick[0]) or None, f"{name}, THICKNESS in {com.path}"
    size = sizes.tomogram_size(None, stack, mean_axis(rotation), thickness, where)
    notes = _placement(com, folder, stem, stack, size, ignore_placement, name)
    notes += [scale_note] if scale_note else []
    left = f", excluded views {sorted(excluded)} left out" if excluded else ""
    added = f", angle offset {offset:g} added" if offset else ""
    notes.append(f"{name}: {len(kept)} of {stack.count} images{left}{added}")
    aligned = Alignment(kept + 1, nominal[kept] + offset, rotation, shift, nominal)
    series = series_of(name, stack, aligned, ctf, exposure, size, notes)
    series.warnings += warnings
    return series


def _command(folder: Path, stem: str) -> Command:
    """What ``NAME_tilt.com`` says, else ``tilt.com``, which must be of this tilt series.

    Raises
    ------
    ProblemError
        It is of another series, or of one of several that it does not name.
    """
    path = _first(folder / f"{stem}_tilt.com", folder / "tilt.com")
    if path is None:
        return Command(folder / "tilt.com", {})
    com = read_com(path)
    names = [line for key in ("INPUTPROJECTIONS", "TILTFILE") for line in com.lines.get(key, []) if line.text]
    others = {other.stem for other in folder.glob("*.xf") if other.with_suffix(".tlt").is_file()} - {stem}
    fix = f"Put {stem}_tilt.com beside {stem}.xf, or each tilt series into a directory of its own."
    for line in names:
        if not _is_of(PurePosixPath(line.text.replace("\\", "/")).name, stem, others):
            raise line.error(f"{path.name} is of {line.text}, not of {stem}.", f"the command file of {stem}", fix)
    if not names and others and path.name == "tilt.com" and com.lines:
        what = f"{path.name} does not say of which of {len(others) + 1} tilt series it is."
        raise ProblemError(Problem(what, str(path), "InputProjections", fix))
    return com


def _is_of(file: str, stem: str, others: set[str]) -> bool:
    """Whether a file is called after a tilt series: its name, then an ending, and not that of a longer name."""
    names = [one for one in (stem, *others) if file.startswith(one) and not file[len(one) : len(one) + 1].isalnum()]
    return bool(names) and max(names, key=len) == stem


def _full_image(com: Command, stack: sizes.Stack) -> sizes.Said | None:
    """The size of the images in ``tilt.com``, which must be that of the stack, turned or not."""
    full = com.numbers("FULLIMAGE", 2, 2, 1, 1e6)
    if full is None:
        return None
    said = sizes.Said(com.path, "FULLIMAGE", (int(full[0]), int(full[1])))
    sizes.same_size(stack, said, may_be_turned=True)
    return said


def _binned(
    stack: sizes.Stack, mdoc: sizes.Said | None, full: sizes.Said | None, pixel_size: float | None
) -> list[Problem]:
    """Whether the stack was binned after the microscope; the alignment must then be that of the binned one.

    Raises
    ------
    ProblemError
        Nothing says so.
    """
    if mdoc is None or mdoc.size is None or max(mdoc.size) <= max(stack.size) + sizes.SAME_SIZE:
        return []
    own, theirs = (f"{a} x {b}" for a, b in (stack.size, mdoc.size))
    what = f"The stack has {own} pixels of {stack.pixel_size:g} A, and the .mdoc says {theirs}"
    what += f" of {mdoc.pixel_size:g} A" if mdoc.pixel_size else ""
    where, expected = f"{stack.path} and {mdoc.path}", "one size"
    fix = "The shifts of the .xf file are in pixels of the stack that was aligned: give that one"
    if full is None and pixel_size is None:
        fix += "; or confirm with --pixel-size that this one was."
        raise ProblemError(Problem(f"{what}: the stack was binned.", where, expected, fix))
    return [Problem(f"{what}: it was binned.", where, expected, f"{fix}, or go on if it is this one.", "warning")]


def _refuse_flat(angles: pd.Series, path: Path) -> None:
    if len(angles) > 1 and float(np.ptp(angles)) < 1e-3:
        what = f"All tilt angles are {angles.iloc[0]:g}."
        fix = "Write the tilt angles of the microscope into it (IMOD: extracttilts), and align again."
        raise ProblemError(Problem(what, str(path), "a range of angles", fix))


def _excluded(com: Command, count: int) -> set[int]:
    """Views that ``tilt.com`` leaves out.

    Raises
    ------
    ProblemError
        One is not in the stack.
    """
    excluded = com.views("EXCLUDELIST", "EXCLUDELIST2", "EXCLUDE")
    included = com.views("INCLUDE")
    beyond = sorted((excluded | included) - set(range(1, count + 1)))
    if beyond:
        what = f"View {beyond[0]} of EXCLUDELIST is not in the stack."
        fix = "Correct the list; tilt.com must be that of this stack."
        raise ProblemError(Problem(what, str(com.path), f"views 1 to {count}", fix))
    return excluded | (set(range(1, count + 1)) - included if included else set())


def _transformed(
    transforms: pd.DataFrame, kept: np.ndarray, path: Path, stack: sizes.Stack
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tilt axis, shift and scale of the views that are used.

    Raises
    ------
    ProblemError
        A transformation is none, or far from those of the other views.
    """
    rows = transforms.iloc[kept]
    fix = "Align this view again, or leave it out with EXCLUDELIST in tilt.com."
    values = rows.to_numpy()
    smallest = np.linalg.svd(values[:, :4].reshape(-1, 2, 2), compute_uv=False)[:, 1]
    if (smallest < LEAST_SCALE).any():
        bad = int((smallest < LEAST_SCALE).argmax())
        what = f"The transformation of view {kept[bad] + 1} is none: {_shown(values[bad])}."
        raise ProblemError(Problem(what, place(path, int(rows.index[bad])), "a rotation and a shift", fix))
    mirrored = np.linalg.det(values[:, :4].reshape(-1, 2, 2)) < 0
    if mirrored.any():
        bad = int(mirrored.argmax())
        what = f"The transformation of view {kept[bad] + 1} mirrors the image: {_shown(values[bad])}."
        raise ProblemError(Problem(what, place(path, int(rows.index[bad])), "a rotation and a shift", fix))
    rotation, shift, scale = from_imod_transforms(values)
    bad = outlier_axis(rotation)
    if bad is not None:
        what = other_axis(f"view {kept[bad] + 1}", rotation, bad)
        where = f"{place(path, int(rows.index[bad]))}: {_shown(values[bad])}"
        raise ProblemError(Problem(what, where, f"within {SAME_AXIS:g} degrees of the others", fix))
    far = np.abs(shift) > 2 * max(stack.size)
    if far.any():
        bad = int(far.any(axis=1).argmax())
        what = f"View {kept[bad] + 1} is shifted by {shift[bad, 0]:.0f}, {shift[bad, 1]:.0f} pixels."
        expected = f"within the images of {stack.size[0]} x {stack.size[1]} pixels"
        raise ProblemError(Problem(what, place(path, int(rows.index[bad])), expected, fix))
    return rotation, shift, scale


def _shown(row: np.ndarray) -> str:
    return " ".join(f"{value:g}" for value in row)


def _placement(
    com: Command, folder: Path, stem: str, stack: sizes.Stack, size: tuple[int, int, int], ignore: bool, name: str
) -> list[str]:
    """What turns, moves and trims the tomogram in ways that RELION's tilt series do not hold.

    SHIFT, XAXISTILT, WIDTH and SLICE of ``tilt.com``, ``.xtilt`` angles, and a volume beside it of another size.
    """
    turned, shift = com.numbers("XAXISTILT", 1, 1, -90, 90) or [0.0], com.numbers("SHIFT", 1, 2) or [0.0]
    found = [f"XAXISTILT {turned[0]:g}"] if abs(turned[0]) > 0.01 else []
    if any(abs(value) > 0.01 for value in shift):
        found.append(f"SHIFT {' '.join(com.last('SHIFT').text.split())}")
    width, slices = com.numbers("WIDTH", 1, 1, 0, 1e6), com.numbers("SLICE", 2, 3, -1e6, 1e6)
    if width and width[0] and abs(width[0] - size[0]) > sizes.SAME_SIZE:
        found.append(f"WIDTH {width[0]:g} of {size[0]}")
    if slices and (abs(slices[0]) > sizes.SAME_SIZE or abs(slices[1] + 1 - size[1]) > sizes.SAME_SIZE):
        found.append(f"SLICE {slices[0]:g} to {slices[1]:g} of 0 to {size[1] - 1}")
    xtilt = folder / f"{stem}.xtilt"
    if xtilt.is_file() and read_angles(xtilt, stack.count, "an IMOD .xtilt file").abs().max() > 0.01:
        found.append(f"angles in {xtilt.name}")
    volume = _first(*(folder / f"{stem}{end}" for end in ("_rec.mrc", ".rec", "_full_rec.mrc", "_full.rec")))
    other = sizes.other_volume(volume, stack, size) if volume else None
    if other:
        found.append(f"{volume.name} has {other} unbinned voxels, not {' x '.join(map(str, size))}")
    if found and not ignore:
        fix = (
            "Picks made in this tomogram are in its moved or trimmed frame: reconstruct it without them (or with "
            "RELION) and pick there; or give --ignore-placement when the picks are from elsewhere."
        )
        what = f"The tomogram was turned, moved or trimmed: {', '.join(found)}."
        where = f"{com.path}{f' and {volume}' if other else ''}"
        raise ProblemError(Problem(what, where, "the whole tomogram, not moved", fix))
    return [f"{name}: left out as asked for: {', '.join(found)}"] if found else []


def _exposure(folder: Path, stem: str, angles: np.ndarray, mdocs: list[Mdoc], doses: Doses, name: str) -> Exposure:
    sources: list[Source] = []
    raw = folder / f"{stem}.rawtlt"
    nominal, is_stage = angles, raw.is_file()
    if is_stage:
        # The stage's own angles: nearer to those of the microscope than aligned ones.
        nominal = read_angles(raw, len(angles), "an IMOD .rawtlt file").to_numpy()
        refuse_other_sections(angles, nominal, raw, "the .rawtlt file")
    listed = folder / f"{stem}_TLT.txt"
    if listed.is_file():
        table = read_tilt_list(listed, len(angles))
        refuse_other_sections(angles, table.angle, listed, "the tilt list")
        sources.append(of_tilt_list(table))
        is_stage, nominal = True, table.angle if not is_stage else nominal
    sources += [of_mdoc(mdoc, nominal, is_stage) for mdoc in mdocs]
    fix = f"Put {stem}.mdoc, or {stem}_TLT.txt (angle, order of acquisition, dose), beside the .xf file."
    where = f"{mdocs[0].path if mdocs else f'{folder}/{stem}.mdoc'}, {listed}"
    missing = Problem("The order of acquisition is not known.", where, "one of these files", fix)
    return find_exposure(sources, doses, len(angles), name, missing)


def _ctf(folder: Path, stem: str, angles: np.ndarray, kept: set[int]) -> pd.DataFrame:
    """CTF by section."""
    count = len(angles)
    defocus = _first(folder / f"{stem}.defocus")
    if defocus:
        return _ctf_of(read_defocus(defocus), defocus, angles, kept)
    text = _first(folder / f"{stem}_CTF.txt", folder / f"{stem}_ctf.txt")
    if text is None:
        fix = "Estimate the CTF with ctfplotter, or give a NAME_CTF.txt as ctffind writes it."
        raise ProblemError(Problem("There are no CTF values.", f"{folder}/{stem}.defocus", "a file", fix))
    table = read_ctf(text)
    table.index = table.index - table.index.min() + 1
    gone = sorted(set(range(1, count + 1)) - set(table.index))
    if gone or len(table) != count:
        what = (
            f"It has {len(table)} rows of {table.shape[1] + 1} values; images {', '.join(map(str, gone))} are missing."
        )
        fix = "Estimate the CTF of every section of this stack."
        raise ProblemError(Problem(what, str(text), f"{count} rows, one per section", fix))
    return table


def _ctf_of(rows: list[DefocusRow], path: Path, angles: np.ndarray, kept: set[int]) -> pd.DataFrame:
    """CTF of every view of a ``.defocus`` file; a view outside of all ranges takes the nearest range.

    Raises
    ------
    ProblemError
        Views are not the stack's, or are at other angles; or one has no fit where each has its own.
    """
    count = len(angles)
    # Early versions of ctfplotter counted views from 0.
    first = 0 if rows[0].views[0] == 0 and max(row.views[1] for row in rows) < count else 1
    views = np.array([row.views for row in rows]) + (1 - first)
    single = views[:, 0] == views[:, 1]
    for n, row in enumerate(rows):
        if views[n, 0] < 1 or views[n, 1] > count:
            raise row.line.error(f"View {row.views[1]} is not in the stack.", f"views 1 to {count}")
        if n and single[n] and single[n - 1] and views[n, 0] == views[n - 1, 0]:
            raise row.line.error(f"View {row.views[0]} is there twice.", "each view once")
    own = np.full(count, np.nan)
    for (view, _), row in zip(views[single], np.array(rows, dtype=object)[single], strict=True):
        own[view - 1] = np.mean(row.angles)
    refuse_other_sections(angles, own, path, "the .defocus file")
    if single.all():
        gone = sorted(kept - set(views[:, 0]))
        if gone:
            fix = "Fit the CTF of this view with ctfplotter, or exclude it in tilt.com."
            what = f"View {gone[0]} has no fit, and all others have one of their own."
            raise ProblemError(Problem(what, str(path), "a fit for every view", fix))
    middle = views.mean(axis=1)
    table = pd.DataFrame([rows[int(np.abs(middle - view).argmin())].values for view in range(1, count + 1)])
    return table.set_axis(range(1, count + 1))
