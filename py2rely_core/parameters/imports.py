"""Other programs' data at the beginning and the end of a run: what is imported from where, what is written back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from py2rely_core.data import kinds
from py2rely_core.parameters.recipe import Imports, Recipe
from py2rely_core.problems import Problem

#: Parameters that name a program's tilt series; at most one of them is given.
TILT_SERIES = ("aretomo", "imod", "warp")
#: Parameters that name what is imported.
SOURCES = (*TILT_SERIES, "copick")
#: Parameters that stand for fields of the recipe's ``imports`` block.
FIELDS = (
    "voltage", "hand", "thickness", "dose_per_tilt", "total_dose", "units", "voxel_size", "user_id", "session_id",
    "export_user_id", "export_session_id",
)  # fmt: skip
#: What an import leaves in its directory: what was made, and what there is to say of it.
NOTES = Path("imported/notes.json")
#: As much of a file as tells whether its particles are RELION 5's, bytes.
#: Endings of files of which a directory is imported.
BOXES = (".cbox", ".coords")


def needs_import(path: Path) -> bool:
    """Whether a file, or a directory of them, has particles in a form other than RELION 5's that importers know.

    Of a file that is missing or no particle file, the preflight says so.
    """
    if path.is_dir():
        return any(one.suffix.lower() in BOXES for one in path.iterdir())
    kind = kinds.look(path)
    if kind is None or kind.key not in kinds.PARTICLES or kind.key == "optimisation set":
        return False
    return kind.key != "particles" or b"_rlnCenteredCoordinateXAngst" not in path.read_bytes()[: kinds.LOOKED_AT]


def import_problems(row: Mapping[str, Any], imports: Imports, export: bool, where: str) -> list[Problem]:
    """What of a data set's parameters about imports is missing or does not go together.

    Parameters
    ----------
    row : mapping
        The data set's parameters by name.
    imports : Imports
    export : bool
        Whether picks are to be written.
    where : str
        For messages.
    """
    problems: list[Problem] = []

    def add(what: str, expected: str, fix: str) -> None:
        problems.append(Problem(what, where, expected, fix))

    tilt_series = [name for name in (*TILT_SERIES, "tomograms") if row.get(name)]
    if len(tilt_series) > 1:
        add(f"Tilt series are given {len(tilt_series)} times: {_options(tilt_series)}.", "one of them",
            "Leave out the others.")  # fmt: skip
    if row.get("copick") and row.get("particles") and not export:
        add("Particles are given twice: --copick, --particles.", "one of them", "Leave out the other.")
    if row.get("copick") and not row.get("particle_name"):
        add("The object of the copick project is not named.", "--particle_name NAME", "Add --particle_name.")
    if row.get("particle_name") and not row.get("copick"):
        add("--particle_name names an object of a copick project, and there is none.", "--copick CONFIG",
            "Add --copick, or leave out --particle_name.")  # fmt: skip
    if export and not row.get("copick"):
        add("--export_copick writes into a copick project, and there is none.", "--copick CONFIG",
            "Add --copick and --particle_name, or leave out --export_copick.")  # fmt: skip
    for program in (name for name in ("aretomo", "imod") if row.get(name)):
        if imports.voltage is None:
            add(f"The voltage is not given, and no file of --{program} says it.", "kV", "Add --voltage, such as 300.")
        if imports.hand is None:
            add(f"The hand is not given, and no file of --{program} says it.", "1 or -1",
                "Add --hand; 'py2rely check-hand' finds out which it is.")  # fmt: skip
    if export and imports.run_prefix and not imports.run_prefix.endswith("_") and not imports.export_session:
        add(f"imports.run_prefix is {imports.run_prefix}: tomograms of runs that are written to are called prefix_run.",
            "a prefix that ends with _", "Change the prefix, or leave out --export_copick.")  # fmt: skip
    both = export and not row.get("particles")
    if both and imports.user_id == imports.export_user_id and not imports.session_id:
        add(f"Picks of user {imports.user_id} are imported from any session, and written to one.", "two sets of picks",
            "Say which session is imported (--session_id), or give another --export_user_id.")  # fmt: skip
    return problems


def _options(names: list[str]) -> str:
    return ", ".join(f"--{name}" for name in names)


def import_settings(
    sources: Mapping[str, Path],
    recipe: Recipe,
    name: str,
    particles: Path | None,
    tilt_series: Path | None,
    launch: Path,
) -> dict[str, Any] | None:
    """What the imports of a data set do; None where nothing is imported.

    Parameters
    ----------
    sources : mapping of str to Path
        What is given of :data:`SOURCES`, absolute.
    recipe : Recipe
    name : str
        Object of the copick project.
    particles, tilt_series : Path or None
        Files that are given, absolute; None where a program gives them.
    launch : Path
        Directory of the run, which relative names in a copick configuration start from.

    Returns
    -------
    dict or None
        ``{"tilt_series": {"program", "source"} or None, "particles": {"program", "source", "name"} or None, "table":
        the tilt-series file that is there, "pixel_size", "launch_dir", "options"}``, JSON-ready.
    """
    program = next((one for one in TILT_SERIES if one in sources), None)
    picks: dict[str, str] | None = None
    if "copick" in sources and particles is None:
        picks = {"program": "copick", "source": str(sources["copick"]), "name": name}
    elif particles is not None and needs_import(particles):
        picks = {"program": "file", "source": str(particles), "name": ""}
    if program is None and picks is None:
        return None
    options = recipe.imports.model_dump(by_alias=True)
    return {
        "tilt_series": {"program": program, "source": str(sources[program])} if program else None,
        "particles": picks,
        "table": None if program else str(tilt_series),
        "pixel_size": recipe.resolutions.angpix,
        "launch_dir": str(launch),
        "options": {field: value for field, value in options.items() if not field.startswith("export_")},
    }


def export_settings(config: Path, name: str, imports: Imports, launch: Path) -> dict[str, Any]:
    """Where the final particles are written, JSON-ready; `roots` are the directories that hold the project."""
    options = imports.model_dump(by_alias=True)
    fields = {field.removeprefix("export_"): value for field, value in options.items() if field.startswith("export_")}
    session = imports.export_session or imports.run_prefix.removesuffix("_")
    if imports.run_remove and imports.export_suffix == Imports.model_fields["export_suffix"].default:
        fields["suffix"] = imports.run_remove
    roots = [str(root) for root in copick_roots(config)]
    return {"config": str(config), "name": name, "launch_dir": str(launch), "roots": roots} | fields | {
        "session": session
    }  # fmt: skip


def slab_settings(config: Path, recipe: Recipe, launch: Path) -> dict[str, Any]:
    """Which tomograms of a copick project slabs are cut from, JSON-ready."""
    return {
        "config": str(config),
        "launch_dir": str(launch),
        "tomo_alg": recipe.slabs.tomo_alg,
        "voxel_spacing": recipe.slabs.voxel_spacing,
        "prefix": recipe.imports.run_prefix,
        "remove": recipe.imports.run_remove,
    }


def copick_roots(config: Path) -> list[Path]:
    """The directories of this machine that a copick configuration names, those that exist."""
    try:
        data = json.loads(config.read_text())
        names = [str(data.get(key) or "") for key in ("overlay_root", "static_root")]
    except (OSError, ValueError, AttributeError):
        return []
    places = [Path(re.sub("^(local|file)://", "", name)) for name in names if name]
    return [place for place in dict.fromkeys(places) if place.is_absolute() and place.is_dir()]


def with_imported(dataset: dict[str, Any], directory: Path) -> dict[str, Any]:
    """A data set with what its imports made in place of what they were made from.

    Parameters
    ----------
    dataset : dict
        Of ``load_datasets``.
    directory : Path
        Absolute path of the directory in which :data:`NOTES` lies; relative names in imported tables start there.
    """
    notes = json.loads((directory / NOTES).read_text())
    made = {what: str(directory / file) if file else None for what, file in notes.pop("files").items()}
    root = {"launch_dir": str(directory)} if "tilt_series" in made else {}
    return dataset | root | made | {"imported": notes}


def with_tomograms(dataset: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """A data set with the tomograms of its copick project, as ``importers.sources.tomogram_files`` found them."""
    return dataset | {"slab_copick": dataset["slab_copick"] | {"found": found}}
