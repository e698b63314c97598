"""The microscope's values, and optics groups: merged when they are equal, never when they are not."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from py2rely_core.problems import Problem, ProblemError

#: Labels in which optics groups may differ without describing another microscope.
NAMES = ("rlnOpticsGroup", "rlnOpticsGroupName")


@dataclass(frozen=True)
class Optics:
    """What describes the microscope.

    Attributes
    ----------
    voltage : float
        kV.
    spherical_aberration : float
        mm.
    amplitude_contrast : float
        Share, 0 to 1.
    group : int
        Number of the optics group.
    group_name : str
    """

    voltage: float
    spherical_aberration: float = 2.7
    amplitude_contrast: float = 0.07
    group: int = 1
    group_name: str = "opticsGroup1"

    def __post_init__(self) -> None:
        limits = (
            ("--voltage", self.voltage, 50, 1500, "kV"),
            ("--spherical-aberration", self.spherical_aberration, 0, 10, "mm"),
            ("--amplitude-contrast", self.amplitude_contrast, 0, 1, ""),
        )
        problems = [
            Problem(
                f"{value:g} is no possible value.", option, f"{low} to {high} {unit}".rstrip(), f"Correct {option}."
            )
            for option, value, low, high, unit in limits
            if not low <= value <= high
        ]
        if problems:
            raise ProblemError(problems)

    def row(self, pixel_size: float) -> dict[str, object]:
        """The row of ``data_optics``; the pixel size is that of the unbinned tilt series, Angstrom."""
        return {"rlnOpticsGroup": self.group} | self.columns() | {"rlnTomoTiltSeriesPixelSize": pixel_size}

    def columns(self) -> dict[str, object]:
        """The columns that tilt series and optics groups share."""
        return {
            "rlnOpticsGroupName": self.group_name,
            "rlnVoltage": self.voltage,
            "rlnSphericalAberration": self.spherical_aberration,
            "rlnAmplitudeContrast": self.amplitude_contrast,
        }


def merge_optics(tables: list[pd.DataFrame]) -> tuple[pd.DataFrame, list[dict[int, int]]]:
    """One optics table of several, equal groups merged.

    Parameters
    ----------
    tables : list of DataFrame
        ``data_optics`` of each file, whose groups are whole numbers.

    Returns
    -------
    optics : DataFrame
        Groups numbered from 1; a group keeps its name when it is not taken.
    numbers : list of dict of int to int
        For each file, its group numbers to the new ones.
    """
    rows: list[dict[str, object]] = []
    numbers = []
    for table in tables:
        mapping = {}
        for row in table.to_dict("records"):
            content = {key: value for key, value in row.items() if key not in NAMES}
            same = next((i for i, other in enumerate(rows) if _equal(other, content)), None)
            if same is None:
                same = len(rows)
                rows.append(content | {"rlnOpticsGroupName": _free(str(row.get("rlnOpticsGroupName", "")), rows)})
            mapping[int(row["rlnOpticsGroup"])] = same + 1
        numbers.append(mapping)
    merged = pd.DataFrame(rows)
    merged.insert(0, "rlnOpticsGroup", range(1, len(rows) + 1))
    merged.insert(1, "rlnOpticsGroupName", merged.pop("rlnOpticsGroupName"))
    return merged, numbers


def _equal(row: dict[str, object], content: dict[str, object]) -> bool:
    row = {key: value for key, value in row.items() if key not in NAMES}
    if set(row) != set(content):
        return False
    for key, value in content.items():
        numbers = isinstance(value, (int, float)) and isinstance(row[key], (int, float))
        if not (abs(float(value) - float(row[key])) <= 1e-6 * abs(float(value)) if numbers else value == row[key]):
            return False
    return True


def _free(name: str, rows: list[dict[str, object]]) -> str:
    taken = {row["rlnOpticsGroupName"] for row in rows}
    if name and name not in taken:
        return name
    return next(other for n in range(1, len(rows) + 2) if (other := f"opticsGroup{n}") not in taken)
