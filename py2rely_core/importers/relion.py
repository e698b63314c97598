"""Tilt series of an existing RELION 5 project: copied with paths that hold from here, checked, never changed there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from py2rely_core.data import kinds
from py2rely_core.data.inputs import Inputs, TiltSeries, from_optimisation_set, load_inputs
from py2rely_core.data.tables import TEXT_LABELS, read_star, row_line, split_image_name
from py2rely_core.importers.dose import Doses, Source, find_exposure, of_mdoc
from py2rely_core.importers.formats.mdoc import ENDINGS, read_mdoc
from py2rely_core.importers.result import Import, project_path
from py2rely_core.importers.sizes import SAME_PIXEL
from py2rely_core.importers.text import LARGEST_NUMBER
from py2rely_core.importers.tilt_series import LIMITS, Layout, numbers_in, refuse_other_axes
from py2rely_core.importers.warp import refuse_dummies
from py2rely_core.maps.io import known_pixel_size, read_header
from py2rely_core.problems import Problem, ProblemError

DOSE, NOMINAL = "rlnMicrographPreExposure", "rlnTomoNominalStageTiltAngle"
#: Jobs of a RELION project that write tilt series, those that refine them first.
JOBS = ("Polish", "CtfRefine", "Tomograms", "AlignTiltSeries", "ExcludeTiltImages", "CtfFind", "Import")
NAMES = ("tomograms.star", "aligned_tilt_series.star", "selected_tilt_series.star", "tilt_series_ctf.star",
         "tilt_series.star")  # fmt: skip


def find_tilt_series(project: Path) -> Path:
    """The tilt series of a project's most refined and latest job; a STAR file stands for itself.

    Raises
    ------
    ProblemError
        There are none.
    """
    if project.is_file():
        return project
    for job in JOBS:
        for name in NAMES:
            found = sorted(project.glob(f"{job}/*/{name}"), key=lambda path: path.stat().st_mtime)
            if found:
                return found[-1]
    fix = "Give the STAR file of the tilt series itself."
    expected = "a job with aligned tilt series, such as AlignTiltSeries/job007/aligned_tilt_series.star"
    raise ProblemError(Problem("There are no tilt series in this project.", str(project), expected, fix))


def import_relion(source: Path, layout: Layout, project: Path | None = None, hand: float | None = None) -> Import:
    """Tilt series of a RELION 5 project.

    Parameters
    ----------
    source : Path
        The project's directory, or a STAR file of tilt series or an optimisation set in it.
    layout : Layout
    project : Path or None
        Directory from which the paths in the STAR files hold; None for `source`, or where it is found from the file.
    hand : float or None
        Replaces ``rlnTomoHand``.

    Raises
    ------
    ProblemError
        It is of RELION 4 or of Warp, or files are missing.
    """
    star, found = _named_by_set(find_tilt_series(source), project)
    root = (project or found or (source if source.is_dir() else _project_of(star))).absolute()
    _refuse_others(star)
    inputs = load_inputs(Path("no-particles.star"), star.absolute(), root)
    problems = [one for one in inputs.problems if "no-particles.star" not in one.where]
    missing = {str(stack) for one in inputs.tilt_series.values() for stack in one.stacks if not stack.is_file()}
    if missing:
        fix = "Give the project's directory with --project."
        what = f"{len(missing)} images or stacks are missing."
        problems.append(Problem(what, ", ".join(sorted(missing)[:3]), "existing files", fix))
    others = _other_numbers(inputs)
    problems += others or _other_axes(inputs)
    if hand is not None and hand not in (1, -1):
        problems.append(Problem(f"{hand:g} is no hand.", "--hand", "1 or -1", "Correct --hand."))
    if problems:
        raise ProblemError(problems)
    refuse_dummies(inputs)
    result = _rewritten(list(inputs.tilt_series.values()), inputs.tomograms, star, layout, hand)
    for one in inputs.tilt_series.values():
        _compare_stacks(one, inputs.tomograms, result)
        _compare_doses(one, root, result)
        _warn_of_one_dose(one, result)
    return result


def _warn_of_one_dose(one: TiltSeries, result: Import) -> None:
    """Every image has seen more than those before it: two with the same dose are not of one order."""
    if DOSE not in one.tilts:
        return
    before = numbers_in(one.tilts[DOSE], str(one.star_file), DOSE, _rows_of(one))
    values, counts = np.unique(before, return_counts=True)
    if (counts > 1).any():
        value = values[counts > 1][0]
        row = int(np.flatnonzero(before == value)[1])
        what = f"{int((counts - 1).sum())} images of {one.name} have the dose of another one, such as {value:g} e/A^2."
        fix = "The order of acquisition is not in it, and dose weights may be wrong: correct rlnMicrographPreExposure."
        result.warnings.append(Problem(what, _rows_of(one)(row), "a dose of its own for each image", fix, "warning"))


def _rows_of(one: TiltSeries) -> Callable[[int], str]:
    """What gives file and line of a row of a tilt series."""
    return lambda row: row_line(one.star_file, one.name, row)


def _named_by_set(path: Path, project: Path | None) -> tuple[Path, Path | None]:
    """The tilt series that an optimisation set names, and the directory from which its names hold; else the file."""
    if kinds.look(path) is not kinds.KINDS["optimisation set"]:
        return path, None
    folder = path.absolute().parent
    above = [one for one in folder.parents[:3] if one != one.parent]
    roots = [project.absolute()] if project else [folder, *above, Path.cwd()]
    problem: ProblemError | None = None
    for root in roots:
        try:
            found = from_optimisation_set(path.absolute(), "tilt series", root)
        except ProblemError as error:
            problem = problem or error
            continue
        # What lies elsewhere was found from the set's own folders, not from this one.
        if project or found.is_relative_to(root):
            return found, root
    if problem:
        raise problem
    return from_optimisation_set(path.absolute(), "tilt series", folder), None


def _compare_doses(one: TiltSeries, root: Path, result: Import) -> None:
    """Compare doses with the .mdoc, which lies beside the STAR file or the stack, or in the project's mdoc/."""
    places = [one.star_file.parent, *(stack.parent for stack in one.stacks[:1]), root / "mdoc"]
    beside = [path for place in places for end in ENDINGS if (path := place / f"{one.name}{end}").is_file()]
    found = list({path.resolve(): path for path in reversed(beside)}.values())[::-1]
    if not found or not {NOMINAL, DOSE} <= set(one.tilts):
        return
    nominal = numbers_in(one.tilts[NOMINAL], str(one.star_file), NOMINAL)
    said = [of_mdoc(read_mdoc(path), nominal, is_stage=True) for path in found]
    before = numbers_in(one.tilts[DOSE], str(one.star_file), DOSE)
    # Doses that repeat are no order; how much they grow is compared all the same.
    order = before if len(np.unique(before)) == len(before) else said[0].order
    own = Source(one.star_file, order=order, before=before, meaning=f"{DOSE} of {one.star_file.name}")
    none = Problem("There is no order of acquisition.", str(one.star_file), DOSE, "Import the tilt series again.")
    exposure = find_exposure([own, *said], Doses(), len(before), one.name, none)
    result.notes += [*exposure.notes, *(f"{one.name}: {path.name} agrees" for path in found)]


def _other_numbers(inputs: Inputs) -> list[Problem]:
    """Values that are no possible numbers, and names that are there twice."""
    problems, table = [], inputs.tomograms
    where = f"{inputs.tilt_series_file}, block data_global"
    tables = [(table, where)]
    tables += [(one.tilts, f"{one.star_file}, tilt series {one.name}") for one in inputs.tilt_series.values()]
    for one, place in tables:
        for label in one:
            try:
                if label in LIMITS:
                    numbers_in(one[label], place, label)
                elif label not in TEXT_LABELS:
                    _refuse_stray(one[label], place, label)
            except ProblemError as error:
                problems += error.problems
    if "rlnTomoName" in table and table["rlnTomoName"].duplicated().any():
        name = table["rlnTomoName"][table["rlnTomoName"].duplicated()].iloc[0]
        fix = "Give every tilt series a name of its own."
        problems.append(Problem(f"Two tilt series are called {name}.", where, "names of their own", fix))
    for one in inputs.tilt_series.values():
        if one.tilts.empty:
            fix = "Remove it from the list, or write its STAR file again."
            problems.append(Problem(f"{one.name} has no images.", str(one.star_file), "a row for each image", fix))
        elif "rlnMicrographName" not in one.tilts:
            fix = "Give the project's job that holds motion-corrected images: rlnMicrographName."
            problems.append(Problem("The tilt series names no images.", str(one.star_file), "rlnMicrographName", fix))
        elif one.tilts["rlnMicrographName"].duplicated().any():
            row = int(one.tilts["rlnMicrographName"].duplicated().argmax())
            what = f"The image {one.tilts['rlnMicrographName'].iloc[row]} is there twice."
            fix = "Remove one of the rows."
            problems.append(Problem(what, f"{one.star_file}, row {row + 1} of its table", "each image once", fix))
    return problems


def _other_axes(inputs: Inputs) -> list[Problem]:
    """Images whose tilt axis is not that of the others of their series."""
    problems = []
    for one in inputs.tilt_series.values():
        if "rlnTomoZRot" in one.tilts:
            try:
                refuse_other_axes(one.tilts, str(one.star_file))
            except ProblemError as error:
                problems += error.problems
    return problems


def _refuse_stray(column: pd.Series, place: str, label: str) -> None:
    """Where most values of a column are numbers, all are, or RELION's nan.

    Raises
    ------
    ProblemError
        With the first that is none.
    """
    values = pd.to_numeric(column, errors="coerce")
    bad = (values.isna() & column.notna() & (column.astype(str).str.lower() != "nan")) | (values.abs() > LARGEST_NUMBER)
    if 0 < bad.sum() <= len(bad) / 2:
        row = int(bad.to_numpy().argmax())
        what = f"{str(column.iloc[row])!r} is not possible: {label}."
        fix = "Correct this row, or write the file again."
        raise ProblemError(Problem(what, f"{place}, row {row + 1} of its table", "a number, as in other rows", fix))


def _compare_stacks(one: TiltSeries, tomograms: pd.DataFrame, result: Import) -> None:
    """Sections that are used are in their stack, and its header says the table's pixel size.

    Raises
    ------
    ProblemError
        A section is beyond the stack.
    """
    images = [split_image_name(name) for name in one.tilts["rlnMicrographName"]]
    row = tomograms[tomograms["rlnTomoName"].astype(str) == one.name].iloc[0]
    for name, stack in zip(dict.fromkeys(file for _, file in images), one.stacks, strict=True):
        header = read_header(stack)
        sections = [section for section, file in images if file == name]
        if not 1 <= min(sections) <= max(sections) <= header.shape[0]:
            what = f"Sections {min(sections)} to {max(sections)} are used of a stack that has {header.shape[0]}."
            fix = "Sections are counted from 1: correct rlnMicrographName, or use the complete stack."
            raise ProblemError(Problem(what, f"{one.star_file} and {stack}", f"1 to {header.shape[0]}", fix))
        if len(sections) < header.shape[0]:
            result.notes.append(f"{one.name}: {len(sections)} of {header.shape[0]} sections of {stack.name} are used")
        said, found = row.get("rlnTomoTiltSeriesPixelSize"), known_pixel_size(header.pixel_size)
        if said is not None and found and abs(found - said) > SAME_PIXEL * said:
            what = f"The header says {found:g} A per pixel, and rlnTomoTiltSeriesPixelSize is {said:g}."
            fix = "RELION takes the table's: correct it, or the header."
            result.warnings.append(Problem(what, f"{stack} and {one.star_file}", "one pixel size", fix, "warning"))
            return


def _project_of(star: Path) -> Path:
    """The directory above the job (``Job/job001/file.star``); the file's own where it is not in one."""
    folder = star.absolute().parent
    return next((path.parent for path in (folder, *folder.parents) if path.name in JOBS), folder)


def _refuse_others(star: Path) -> None:
    blocks = read_star(star)
    kind, wanted = kinds.of_blocks(blocks), kinds.KINDS["tilt series"]
    if kind not in (None, wanted, kinds.KINDS["old tomograms"]) and "rlnTomoTiltSeriesStarFile" not in blocks.get(
        "global", ()
    ):
        raise ProblemError(kinds.problem_of(kind, star, wanted.name))
    if "global" not in blocks:
        fix = "Give the STAR file with the block data_global."
        raise ProblemError(Problem("It is no STAR file of tilt series.", str(star), "data_global", fix))
    if "rlnTomoTiltSeriesStarFile" not in blocks["global"]:
        fix = "Use 'py2rely import warp', which reads such files when their images are there."
        what = "This is a file of RELION 4 or Warp: the tilt series are not STAR files of their own."
        raise ProblemError(Problem(what, str(star), "rlnTomoTiltSeriesStarFile (RELION 5)", fix))


def _rewritten(series: list[TiltSeries], tomograms, star: Path, layout: Layout, hand: float | None) -> Import:
    result = Import(notes=[f"{star}: {len(series)} tilt series"])
    tomograms = tomograms.copy()
    files, links = {}, layout.links or layout.directory / "stacks"
    for one in series:
        by_name = dict(zip(dict.fromkeys(split_image_name(n)[1] for n in one.tilts["rlnMicrographName"]), one.stacks,
                           strict=True))  # fmt: skip
        tilts, names = one.tilts.copy(), {}
        for number, (name, stack) in enumerate(by_name.items()):
            suffix = "" if len(by_name) == 1 else f"_{number:03d}"
            link = links / f"{one.name}{suffix}{'.mrcs' if stack.suffix == '.mrcs' else stack.suffix}"
            result.links[link], names[name] = stack, project_path(link)
        tilts["rlnMicrographName"] = [_renamed(image, names) for image in tilts["rlnMicrographName"]]
        files[one.name] = layout.directory / layout.per_series / f"{one.name}.star"
        result.tables[files[one.name]] = {one.name: tilts}
    tomograms["rlnTomoTiltSeriesStarFile"] = [project_path(files[str(name)]) for name in tomograms["rlnTomoName"]]
    if hand is not None:
        known = pd.to_numeric(tomograms.get("rlnTomoHand", pd.Series(dtype=float)), errors="coerce")
        before = sorted(set(known.dropna()))
        tomograms["rlnTomoHand"] = float(hand)
        result.notes.append(f"rlnTomoHand is {hand:g} as asked for; the file had {before or 'none'}")
    result.tables[layout.directory / "aligned_tilt_series.star"] = {"global": tomograms}
    images = sum(len(one.tilts) for one in series)
    result.notes.append(f"{len(series)} tilt series with {images} images; the project itself is not changed")
    return result


def _renamed(image: str, names: dict[str, str]) -> str:
    section, at, file = str(image).partition("@")
    return f"{section}@{names[file]}" if at else names[str(image)]
