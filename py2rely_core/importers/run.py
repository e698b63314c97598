"""The imports of a run: tilt series, then particles in them; everything that is wrong in one list."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from py2rely_core.data import kinds
from py2rely_core.data.geometry import ANGLES
from py2rely_core.importers.aretomo import Doses, import_aretomo
from py2rely_core.importers.coordinates import Given
from py2rely_core.importers.copick import Picks, import_copick
from py2rely_core.importers.imod import import_imod
from py2rely_core.importers.optics import Optics
from py2rely_core.importers.particles import Options, Tomograms, import_particles, tomograms_of
from py2rely_core.importers.result import Import, write_import
from py2rely_core.importers.tilt_series import Layout
from py2rely_core.importers.warp import import_warp
from py2rely_core.parameters.imports import NOTES
from py2rely_core.parameters.recipe import Imports
from py2rely_core.parameters.table import ALL
from py2rely_core.problems import Problem, ProblemError

#: Edge of a tomogram in which everything lies, unbinned voxels.
UNLIMITED = 1e9
#: Parameters of a run that stand for options of ``py2rely import copick``, where their names differ.
OF_COPICK = {"name": "particle_name", "config": "copick", "prefix": "run_prefix", "remove": "run_remove"}

Result = TypeVar("Result")


@dataclass
class Done:
    """What the imports of a data set made.

    Attributes
    ----------
    files : dict of str to (Path or None)
        Of ``tilt_series`` and ``particles``, those that were asked for; None for what could not be made.
    notes : list of str
        What was read, used and left out.
    warnings, problems : list of Problem
    """

    files: dict[str, Path | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def take(self, what: str, path: Path, result: Import) -> None:
        """Write an import, and keep what it says."""
        write_import(result)
        self.files[what] = path
        self.notes += result.notes
        self.warnings += [replace(_as_parameters(one), severity="warning") for one in result.warnings]

    def attempt(self, make: Callable[[], Result], names: dict[str, str] | None = None) -> Result | None:
        """What is made; None, and the problems noted, where it cannot be. `names` are of parameters, by options."""
        try:
            return make()
        except ProblemError as error:
            self.problems += [_as_parameters(one, names) for one in error.problems]
            return None


def run_imports(settings: dict[str, Any], directory: Path) -> Done:
    """Import a data set's tilt series and particles, as far as nothing is wrong.

    Particles are read, and everything is said that is wrong with them, also where the tilt series cannot be imported.

    Parameters
    ----------
    settings : dict
        Of ``parameters.imports.import_settings``, or of ``sources.source_files``.
    directory : Path
        Gets ``imported/`` with ``tiltSeries/aligned_tilt_series.star``, ``particles.star`` and ``notes.json``; names
        in the tables start from it.

    Returns
    -------
    Done
        Never raises for what is wrong with the data: see ``problems``.

    Raises
    ------
    ProblemError
        A file cannot be written, or copick is missing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    done, root = Done(), directory.absolute()
    given = Imports.model_validate(settings["options"])
    # Tables name files from the current directory on.
    with contextlib.chdir(root):
        table = Path(settings["table"] or root / NOTES.parent / "tiltSeries/aligned_tilt_series.star")
        if settings["tilt_series"]:
            done.files["tilt_series"] = None
            made = done.attempt(lambda: _tilt_series(settings, given, Layout(table.parent)))
            if made is not None:
                done.take("tilt_series", table, made)
                done.notes.append(_microscope(given))
        if settings["particles"]:
            _import_particles(done, settings, given, table, root / NOTES.parent / "particles.star")
    _write_notes(done, root)
    return done


def _import_particles(done: Done, settings: dict[str, Any], given: Imports, table: Path, output: Path) -> None:
    """Particles in the tomograms of `table`; anywhere, where that could not be made, and only for their problems."""
    done.files["particles"] = None
    there = settings["table"] or done.files["tilt_series"]
    tomograms = done.attempt(lambda: tomograms_of(table)) if there else None
    picks, place = settings["particles"], tomograms or _anywhere(settings["pixel_size"])
    if picks["program"] == "copick":
        # Relative names in the configuration start where the run does.
        with contextlib.chdir(settings["launch_dir"]):
            made = done.attempt(lambda: _picks(picks, given, place, output), OF_COPICK)
    else:
        with contextlib.chdir(settings["launch_dir"]):
            made = done.attempt(lambda: _particles(Path(picks["source"]), given, place, output))
    if made is not None and tomograms is not None:
        done.take("particles", output, made)


def _tilt_series(settings: dict[str, Any], given: Imports, layout: Layout) -> Import:
    program, path = settings["tilt_series"]["program"], Path(settings["tilt_series"]["source"])
    optics = None
    if given.voltage is not None:
        optics = Optics(given.voltage, given.spherical_aberration, given.amplitude_contrast)
    if program == "warp":
        project = Path(settings["launch_dir"]) / given.project if given.project else None
        result = import_warp(path, layout, optics, project)
        return result if given.hand is None else _with_hand(result, layout, given.hand)
    doses = Doses(given.total_dose, given.dose_per_tilt)
    common = (path, optics, given.hand, layout, given.pixel_size, given.thickness, doses, given.prefix)
    if program == "aretomo":
        return import_aretomo(*common)
    return import_imod(*common, given.ignore_placement)


def _with_hand(result: Import, layout: Layout, hand: float) -> Import:
    table = result.tables[layout.directory / "aligned_tilt_series.star"]["global"]
    before = sorted({float(value) for value in table["rlnTomoHand"]})
    table["rlnTomoHand"] = float(hand)
    result.notes.append(f"rlnTomoHand is {hand:g} as asked for; the file had {before}")
    return result


def _microscope(given: Imports) -> str:
    if given.voltage is None:
        return "microscope as the file says it"
    values = f"{given.voltage:g} kV, spherical aberration {given.spherical_aberration:g} mm"
    return f"microscope: {values}, amplitude contrast {given.amplitude_contrast:g}"


def _anywhere(pixel_size: float) -> Tomograms:
    """Tomograms of any name and size, to see what is wrong with particles themselves."""
    labels = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnTomoTiltSeriesPixelSize")
    optics = dict.fromkeys(labels, np.nan) | {"rlnOpticsGroup": 1}
    return Tomograms({}, pixel_size, optics, np.full(3, UNLIMITED))


def _picks(source: dict[str, str], given: Imports, tomograms: Tomograms, output: Path) -> Import:
    wanted = Picks(
        source["name"], given.user_id or None, given.session_id or None, _list(given.run_ids), given.voxel_size,
        _list(given.authors),
    )  # fmt: skip
    result = import_copick(
        Path(source["source"]), wanted, output, tomograms, given.run_prefix, given.run_remove,
        tomograms.default is not None, given.skip_unknown, given.drop_duplicates,
    )  # fmt: skip
    table = result.tables[output]["particles"]
    if set(ANGLES) <= set(table) and not table[[*ANGLES]].to_numpy().any():
        # Picking programs write the identity; a run would take it for known orientations.
        result.tables[output]["particles"] = table.drop(columns=[*ANGLES])
        result.notes.append("orientations left out: all are the identity")
    return result


def _particles(source: Path, given: Imports, tomograms: Tomograms, output: Path) -> Import:
    # Without the tomograms' sizes, coordinates that do not say their unit are not taken for anything.
    kind = kinds.look(source)
    says_unit = kind is not None and kind.key not in ("particles", "csv", "coordinates", "plain coordinates")
    told = tomograms.default is None or given.units != "auto" or given.voxel_size or says_unit
    coordinates = Given(given.units if told else "centred", given.voxel_size)
    doc, tomogram = Path(given.doc) if given.doc else None, given.tomogram or None
    options = Options(coordinates, given.skip_unknown, given.drop_duplicates, doc, tomogram)
    return import_particles(source, output, tomograms, options)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _as_parameters(problem: Problem, names: dict[str, str] | None = None) -> Problem:
    """A problem with the parameters of a run where it names options of ``py2rely import``."""

    def parameter(found: re.Match[str]) -> str:
        option = found[1].replace("-", "_")
        name = (names or {}).get(option, option)
        if name in ALL:
            return f"--{name}"
        return f"--imports.{name}" if name in Imports.model_fields else found[0]

    what, where, expected, fix = (
        re.sub(r"(?<!\S)--([a-z][a-z-]*)", parameter, text)
        for text in (problem.what, problem.where, problem.expected, problem.fix)
    )
    return replace(problem, what=what, where=where, expected=expected, fix=fix)


def _write_notes(done: Done, root: Path) -> None:
    """What later tasks must know."""
    paths = {what: path and str(path.relative_to(root)) for what, path in done.files.items()}
    problems = {
        "warnings": [one.as_dict() for one in done.warnings],
        "problems": [one.as_dict() for one in done.problems],
    }
    (root / NOTES).parent.mkdir(exist_ok=True)
    (root / NOTES).write_text(json.dumps({"files": paths, "notes": done.notes} | problems, indent=1))
