"""Tomograms that are there already: which file is that of which tilt series."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from py2rely_core.data.names import match
from py2rely_core.data.tables import resolve
from py2rely_core.problems import Problem, ProblemError

#: Endings of tomograms in a directory.
ENDINGS = (".mrc", ".rec", ".map", ".st", ".mrcs")
#: Where RELION notes the tomograms that it made.
RECONSTRUCTED = "rlnTomoReconstructedTomogram"
LISTED = 20


def find_tomograms(where: str, tomograms: pd.DataFrame, star_file: Path, project: Path) -> dict[str, Path]:
    """The tomogram of every tilt series.

    Parameters
    ----------
    where : str
        A directory, in which files are called after the tilt series; or a label of the tilt-series table, such as
        :data:`RECONSTRUCTED` or ``rlnTomoReconstructedTomogramDenoised``.
    tomograms : DataFrame
        Rows of the tilt series whose tomograms are wanted, with ``rlnTomoName``.
    star_file : Path
        Absolute path of their table.
    project : Path
        Absolute path of the directory from which names hold.

    Returns
    -------
    dict of str to Path
        By name of the tilt series; absolute paths.

    Raises
    ------
    ProblemError
        A tomogram is missing, or is not meant for sure.
    """
    names = [str(name) for name in tomograms["rlnTomoName"]]
    if where in tomograms:
        files = {
            name: resolve(str(file), star_file, project)
            for name, file in zip(names, tomograms[where], strict=True)
            if str(file) not in ("", "None", "nan")
        }
        found, place = {name: path for name, path in files.items() if path.is_file()}, f"{where} of {star_file}"
    else:
        folder = next((path for path in (project / where, star_file.parent / where) if path.is_dir()), None)
        if folder is None:
            labels = [label for label in tomograms if "ReconstructedTomogram" in label]
            fix = (
                f"The table has {', '.join(labels)}." if labels else "Correct it, or leave it out: they are then made."
            )
            what = f"There are no tomograms at '{where}'."
            expected = "a directory, or a label of the tilt-series table"
            raise ProblemError(Problem(what, f"{project}, {star_file}", expected, fix))
        found, place = _in_directory(folder, names), str(folder)
    missing = [name for name in names if name not in found]
    if missing:
        more = f" and {len(missing) - LISTED} more" if len(missing) > LISTED else ""
        what = f"{len(missing)} of {len(names)} tilt series have no tomogram: {', '.join(missing[:LISTED])}{more}."
        fix = "Name the files after the tilt series, or leave the tomograms out: they are then made."
        raise ProblemError(Problem(what, place, "one file for each tilt series", fix))
    return found


def _in_directory(folder: Path, names: list[str]) -> dict[str, Path]:
    """Files by the tilt series that they are called after."""
    files = {path.name: path for path in sorted(folder.iterdir()) if path.suffix.lower() in ENDINGS}
    matched, _ = match(files, names)
    by_name: dict[str, list[str]] = {}
    for file, name in matched.items():
        by_name.setdefault(name, []).append(file)
    several = {name: found for name, found in by_name.items() if len(found) > 1}
    if several:
        name, found = next(iter(several.items()))
        what = f"{len(several)} tilt series have several tomograms; {name}: {', '.join(found)}."
        fix = "Put those that are meant into a directory of their own."
        raise ProblemError(Problem(what, str(folder), "one file for each tilt series", fix))
    return {name: files[found[0]] for name, found in by_name.items()}
