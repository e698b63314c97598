"""The files that the imports of a run read, so that the run sees when one of them changes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from py2rely_core import __version__
from py2rely_core.data.tables import candidates, read_star
from py2rely_core.importers.copick import Volumes, open_project, tomogram_of, what_there_is
from py2rely_core.parameters.imports import copick_roots
from py2rely_core.problems import ExitCode, ProblemError

#: Endings of files that say something of tilt series or picks, with those of stacks and volumes.
ENDINGS = {
    ".aln", ".txt", ".csv", ".json", ".mrc", ".mrcs", ".st", ".rec", ".ali", ".map", ".rawtlt", ".tlt", ".xf", ".xtilt",
    ".com", ".defocus", ".ctf", ".mdoc", ".edf", ".star", ".xml", ".tomostar", ".cbox", ".coords", ".tbl", ".doc",
}  # fmt: skip
#: Directories below the one that is given, in which programs look.
DEPTH = 2
#: Labels whose values are files.
FILE_LABELS = (
    "rlnTomoParticlesFile", "rlnTomoTomogramsFile", "rlnTomoTrajectoriesFile", "rlnTomoTiltSeriesName",
    "rlnTomoTiltSeriesStarFile", "rlnTomoImportParticleFile", "rlnMicrographName",
)  # fmt: skip
#: Where a zarr store says how large its array is.
ZARR = (".zgroup", ".zattrs", "zarr.json", "0/.zarray", "0/zarr.json")


@dataclass
class Found:
    """What an import reads.

    Attributes
    ----------
    files : list of Path
        Absolute paths; some may be missing.
    seen : str
        Of picks that are no files of this machine: a sum over what they say.
    """

    files: list[Path] = field(default_factory=list)
    seen: str = ""


def source_files(settings: dict[str, Any], export: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the imports of a data set read, and their settings with everything that they depend on.

    Parameters
    ----------
    settings : dict
        Of ``parameters.imports.import_settings``.
    export : dict, optional
        Of ``parameters.imports.export_settings``: what is written there is not imported again.

    Returns
    -------
    dict
        ``{"settings", "files", "roots"}``, JSON-ready; `roots` are the directories of a copick project. Settings have
        the names of the files, those that cannot be read, and the core's version, so that an import is repeated when it
        may end differently.

    Raises
    ------
    ProblemError
        copick is needed and missing.
    """
    options, files, seen = dict(settings["options"]), [], ""
    launch = Path(settings["launch_dir"])
    if settings["tilt_series"]:
        files += _of_path(Path(settings["tilt_series"]["source"]), launch / options["project"])
    else:
        files += [Path(settings["table"])]
    picks = settings["particles"] or {}
    if picks.get("program") == "copick":
        options |= _only_user(picks, options, export, launch)
        found = _of_copick(Path(picks["source"]), picks["name"], options, launch)
        files, seen = files + found.files, found.seen
    elif picks:
        files += _of_path(Path(picks["source"]), launch) + ([launch / options["doc"]] if options["doc"] else [])
    files = sorted(dict.fromkeys(files))
    known = {
        "options": options,
        "files": [str(path) for path in files],
        "unreadable": [str(path) for path in files if path.exists() and not os.access(path, os.R_OK)],
        "seen": seen,
        "version": __version__,
    }
    roots = copick_roots(Path(picks["source"])) if picks.get("program") == "copick" else []
    return {"settings": settings | known, "files": known["files"], "roots": [str(root) for root in roots]}


def tomogram_files(asked: dict[str, Any]) -> dict[str, Any]:
    """The tomograms of a copick project that slabs are cut from.

    Parameters
    ----------
    asked : dict
        Of ``parameters.imports.slab_settings``.

    Returns
    -------
    dict
        ``{"runs": {name: {"store": directory on this machine or "", "size": [x, y, z] in voxels, "seen": a sum over
        names, sizes and times of its files}}, "others": {name: what tomograms a run has in place of those that are
        asked for}, "roots": directories of the project, "problems": [...]}``, JSON-ready.

    Raises
    ------
    ProblemError
        copick is missing.
    """
    import zarr

    config, wanted = Path(asked["config"]), Volumes(asked["tomo_alg"], asked["voxel_spacing"])
    found: dict[str, Any] = {"runs": {}, "others": {}, "problems": []}
    found["roots"] = [str(root) for root in copick_roots(config)]
    with contextlib.chdir(asked["launch_dir"]):
        try:
            runs = sorted(open_project(config).runs, key=lambda run: run.name)
        except ProblemError as error:
            if error.exit_code == ExitCode.MISSING_COMPONENT:
                raise
            return found | {"problems": [one.as_dict() for one in error.problems]}
        for run in runs:
            tomogram = wanted.of(run)
            if tomogram is None:
                found["others"][run.name] = what_there_is(run)
                continue
            store = tomogram.zarr()
            try:
                size = zarr.open(store, mode="r")["0"].shape[::-1]
            except (OSError, KeyError, ValueError) as error:
                found["others"][run.name] = f"one that cannot be read: {error}"
                continue
            place = store.path if _on_this_machine(store.fs) else ""
            found["runs"][run.name] = {"store": place, "size": list(size), "seen": _state(store)}
    return found


def _state(store: Any) -> str:
    """A sum over the files of a tomogram: their names, sizes and times, as their file system knows them."""
    known = ("size", "mtime", "ETag", "LastModified")
    files = store.fs.find(f"{store.path}/0", detail=True)
    said = [(name, [str(one.get(key)) for key in known]) for name, one in sorted(files.items())]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _of_path(source: Path, project: Path) -> list[Path]:
    """A directory's files, or a file with those that it names and those that lie beside it under its name."""
    if source.is_dir():
        return list(_walk(source, DEPTH))
    beside = [path for path in source.parent.glob(f"{_escaped(source.stem)}.*") if path.suffix.lower() in ENDINGS]
    beside += source.parent.glob("*.doc") if source.suffix.lower() == ".tbl" else []
    return [source, *beside, *_named(source, project)]


def _escaped(stem: str) -> str:
    return "".join(f"[{char}]" if char in "[*?" else char for char in stem)


def _walk(directory: Path, depth: int) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        for entry in sorted(directory.iterdir()):
            if entry.is_dir():
                yield from _walk(entry, depth - 1) if depth else ()
            elif entry.suffix.lower() in ENDINGS:
                yield entry


def _named(source: Path, project: Path) -> list[Path]:
    """The files that a STAR file names, and those that these name."""
    found: dict[Path, None] = {}
    waiting = [source]
    while waiting:
        path = waiting.pop()
        with contextlib.suppress(ProblemError):
            for name in _values(read_star(path).values() if path.suffix.lower() == ".star" else ()):
                new = [one for one in candidates(name, path.absolute(), project) if one not in found]
                found.update(dict.fromkeys(new))
                waiting += [one for one in new if one.suffix.lower() == ".star" and one.is_file()]
    return list(found)


def _values(tables: Iterable[Any]) -> list[str]:
    names = (name for table in tables for label in FILE_LABELS if label in table for name in table[label].unique())
    return list(dict.fromkeys(str(name).rpartition("@")[2] for name in names))


def _only_user(
    picks: dict[str, str], options: dict[str, Any], export: dict[str, Any] | None, launch: Path
) -> dict[str, str]:
    """The user whose picks are meant, where nobody says it: the only one besides the user whose picks are written."""
    if export is None or options["user_id"]:
        return {}
    with contextlib.suppress(ProblemError), contextlib.chdir(launch):
        runs = open_project(Path(picks["source"])).runs
        users = {str(one.user_id) for run in runs for one in run.get_picks(object_name=picks["name"])}
        others = users - {export["user_id"]}
        return {"user_id": others.pop()} if len(others) == 1 else {}
    return {}


def _of_copick(config: Path, name: str, options: dict[str, Any], launch: Path) -> Found:
    """Configuration, picks and descriptions of tomograms, where they are files of this machine; else what picks say."""
    found = Found([config])
    seen = hashlib.sha256()
    try:
        with contextlib.chdir(launch):
            runs = open_project(config).runs
    except ProblemError as error:
        if error.exit_code == ExitCode.MISSING_COMPONENT:
            raise
        return found
    filters = {"user_id": options["user_id"] or None, "session_id": options["session_id"] or None}
    for run in runs:
        for picks in run.get_picks(object_name=name, **filters):
            if _on_this_machine(getattr(picks, "fs", None)):
                found.files.append(Path(picks.path))
            else:
                points = [point.model_dump() for point in picks.points or []]
                said = [run.name, picks.user_id, picks.session_id, str(tomogram_of(run)), *points]
                seen.update(json.dumps(said, default=str).encode())
                found.seen = seen.hexdigest()
        found.files += _descriptions(run)
    return found


def _on_this_machine(file_system: Any) -> bool:
    protocol = getattr(file_system, "protocol", ())
    return "file" in ([protocol] if isinstance(protocol, str) else protocol)


def _descriptions(run: Any) -> list[Path]:
    """What says how large a run's tomograms are."""
    tomograms = [one for spacing in run.voxel_spacings for one in spacing.tomograms]
    stores = {getattr(one, name, "") for one in tomograms for name in ("static_path", "overlay_path")}
    return [path for store in sorted(filter(None, stores)) for name in ZARR if (path := Path(store) / name).is_file()]
