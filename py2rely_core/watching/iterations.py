"""What RELION wrote after each iteration of a refinement or a classification."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from py2rely_core.problems import ProblemError
from py2rely_core.results.remembered import remembered
from py2rely_core.watching.places import Place

MODEL = re.compile(r"run_it(\d{3})(?:_half1)?_model\.star")
OPTIMISER = re.compile(r"run_it(\d{3})_optimiser\.star")
DATA = re.compile(r"run_it(\d{3})_data\.star")
MAP = re.compile(r"run_it(\d{3})_(?:half([12])_)?class(\d{3})\.mrc")
#: RELION's number for what it does not know yet.
UNKNOWN = 900.0


def read_iterations(place: Place) -> list[dict[str, Any]]:
    """Every iteration that is complete, in their order.

    Returns
    -------
    list of dict
        ``iteration``; ``resolution`` of the best class, Angstrom; ``classes`` (share, resolution, accuracy of rotations
        in degrees and of translations in Angstrom); ``fsc`` of the half sets (resolution, values), empty where there
        are none; mean changes since the iteration before it: ``orientations`` (degrees), ``offsets`` (Angstrom),
        ``moved`` (share of particles that changed their class).
    """
    changes = {int(match[1]): _changes(path) for match, path in place.files(OPTIMISER)}
    found = []
    for match, path in place.files(MODEL):
        model = _model(path)
        if model:
            found.append({"iteration": int(match[1])} | model | changes.get(int(match[1]), _NO_CHANGES))
    return found


def newest_maps(place: Place) -> dict[str, Path]:
    """The maps of the newest iteration that has some, by what they are called here."""
    maps = [(int(match[1]), match[2], int(match[3]), path) for match, path in place.files(MAP)]
    newest = max((one[0] for one in maps), default=None)
    # Iterations before it are complete for sure; of the newest a map may be missing still.
    several = len({one[2] for one in maps}) > 1
    found = {}
    for number, half, cls, path in maps:
        if number == newest:
            words = [f"iteration {number}", f"half {half}" if half else "", f"class {cls}" if several else ""]
            found[", ".join(word for word in words if word)] = path
    return found


def newest_particles(place: Place) -> Path | None:
    """The particle table of the end, or of the newest iteration."""
    return place.file("run_data.star") or next((path for _, path in reversed(place.files(DATA))), None)


def diameter_of(place: Place) -> float | None:
    """The particle's diameter that a refinement or classification was told, Angstrom."""
    path = place.file("run_optimiser.star") or next((path for _, path in reversed(place.files(OPTIMISER))), None)
    return _changes(path)["diameter"] if path else None


def _read(path: Path) -> dict[str, Any]:
    from py2rely_core.data.tables import read_star

    try:
        return read_star(path)
    except ProblemError:
        return {}


@remembered
def _model(path: Path) -> dict[str, Any]:
    """Of a model; empty while it is being written."""
    blocks = _read(path)
    table = blocks.get("model_classes")
    if table is None or "rlnClassDistribution" not in table:
        return {}
    labels = {
        "share": "rlnClassDistribution", "resolution": "rlnEstimatedResolution",
        "rotations": "rlnAccuracyRotations", "translations": "rlnAccuracyTranslationsAngst",
    }  # fmt: skip
    rows = table.to_dict("records")
    classes = [{name: _number(row.get(label)) for name, label in labels.items()} for row in rows]
    known = [one["resolution"] for one in classes if one["resolution"]]
    first = blocks.get("model_class_1")
    fsc: dict[str, list[float]] = {"resolution": [], "values": []}
    if first is not None and "rlnGoldStandardFsc" in first and first["rlnGoldStandardFsc"].iloc[1:].any():
        fsc["resolution"] = first["rlnAngstromResolution"].iloc[1:].astype(float).tolist()
        fsc["values"] = first["rlnGoldStandardFsc"].iloc[1:].astype(float).tolist()
    general = blocks.get("model_general")
    pixel = None if general is None or not len(general) else _number(general.iloc[0].get("rlnPixelSize"))
    return {"resolution": min(known, default=None), "classes": classes, "fsc": fsc, "pixel_size": pixel}


_NO_CHANGES: dict[str, float | None] = {"orientations": None, "offsets": None, "moved": None, "diameter": None}


@remembered
def _changes(path: Path) -> dict[str, float | None]:
    table = _read(path).get("optimiser_general")
    if table is None or not len(table):
        return _NO_CHANGES
    row = table.iloc[0]
    labels = {
        "orientations": "rlnChangesOptimalOrientations", "offsets": "rlnChangesOptimalOffsets",
        "moved": "rlnChangesOptimalClasses", "diameter": "rlnParticleDiameter",
    }  # fmt: skip
    return {name: _number(row.get(label)) for name, label in labels.items()}


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 <= number < UNKNOWN else None
