"""The Fourier shell correlation as EMDB takes it: an XML file, and a check of its structure.

The structure is the one that EMDB publishes (``emdb_fsc.xsd``) and that ``relion_postprocess`` writes: one element
``fsc`` with the attributes ``title``, ``xaxis`` and ``yaxis``, and in it a ``coordinate`` for every shell with exactly
one ``x`` and one ``y``, decimal numbers. The published file itself is not part of this package: :func:`check_fsc_xml`
is written from its description.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from typing import Any

TITLE = "Fourier shell correlation of the half maps, masked, corrected by phase randomisation"
ATTRIBUTES = {"title", "xaxis", "yaxis"}
#: An XML schema's decimal: without an exponent.
_DECIMAL = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)\s*")


def fsc_xml(curves: dict[str, Any]) -> str:
    """The corrected curve; empty where there is none.

    Parameters
    ----------
    curves : dict
        ``resolution`` (Angstrom, from low to high) and ``corrected`` of a part of ``results.json``; shells whose
        correlation is not known are left out.
    """
    known = zip(curves["resolution"], curves["corrected"], strict=True)
    points = [(1 / shell, value) for shell, value in known if value is not None]
    if not points:
        return ""
    root = ET.Element("fsc", title=TITLE, xaxis="Resolution (A-1)", yaxis="Correlation Coefficient")
    for frequency, value in points:
        point = ET.SubElement(root, "coordinate")
        ET.SubElement(point, "x").text = f"{frequency:.6f}"
        ET.SubElement(point, "y").text = f"{value:.5f}"
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def check_fsc_xml(path: Path) -> list[str]:
    """What is wrong with a file, as far as its structure says it; empty where nothing is."""
    try:
        root = ET.parse(path).getroot()
    except ET.ParseError as error:
        return [f"it is no XML: {error}"]
    if root.tag != "fsc":
        return [f"its root is '{root.tag}', not 'fsc'"]
    found = [f"the attribute '{name}' is unknown" for name in sorted(set(root.attrib) - ATTRIBUTES)]
    found += [f"the attribute '{name}' is missing" for name in sorted(ATTRIBUTES - set(root.attrib))]
    found += [] if len(root) else ["it has no coordinate"]
    frequencies = []
    for number, point in enumerate(root, start=1):
        texts = [part.text or "" for part in point]
        if point.tag != "coordinate" or [part.tag for part in point] != ["x", "y"]:
            found.append(f"element {number} is no coordinate with one x and one y")
        elif not all(_DECIMAL.fullmatch(text) for text in texts):
            found.append(f"coordinate {number} holds no decimal numbers: {texts}")
        else:
            frequencies.append(float(texts[0]))
            found += [f"coordinate {number} is no correlation: {texts[1]}"] if abs(float(texts[1])) > 1 else []
    rising = all(first < second for first, second in pairwise(frequencies))
    return found if rising else [*found, "its frequencies do not rise"]
