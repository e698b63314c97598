"""Two runs side by side: which numbers, parameters and versions differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from py2rely_core.problems import Problem, ProblemError
from py2rely_core.report import UNKNOWN


@dataclass(frozen=True)
class Row:
    """One quantity of both runs, as text, and the difference where it is a number."""

    name: str
    values: tuple[str, str]
    change: str = ""

    @property
    def differs(self) -> bool:
        return self.values[0] != self.values[1]


@dataclass(frozen=True)
class Pair:
    """One data set of both runs.

    Attributes
    ----------
    name : str
        The data sets' id, or both ids.
    datasets : (dict, dict)
        As in ``results.json``.
    rows : list of Row
        The numbers of the results, level by level.
    parameters, versions : list of Row
        Only those that differ.
    """

    name: str
    datasets: tuple[dict[str, Any], dict[str, Any]]
    rows: list[Row]
    parameters: list[Row] = field(default_factory=list)
    versions: list[Row] = field(default_factory=list)


def run_names(first: Path, second: Path) -> tuple[str, str]:
    """Short names of two runs: the ends of their paths from where they differ."""
    one, other = first.resolve().parts, second.resolve().parts
    while len(one) > 1 and len(other) > 1 and one[-1] == other[-1]:
        one, other = one[:-1], other[:-1]
    return one[-1], other[-1]


def compare(first: dict[str, Any], second: dict[str, Any]) -> list[Pair]:
    """The data sets of two runs, paired by their ids; where each run has just one, these two.

    Parameters
    ----------
    first, second : dict
        As :func:`py2rely_core.results.schema.read_results` returns them.

    Raises
    ------
    ProblemError
        The runs have no data set in common.
    """
    ones, others = ({one["id"]: one for one in run["datasets"]} for run in (first, second))
    if len(ones) == len(others) == 1:
        pairs = [(next(iter(ones.values())), next(iter(others.values())))]
    else:
        pairs = [(ones[name], others[name]) for name in ones if name in others]
    if not pairs:
        what = "The runs have no data set in common."
        found = f"{', '.join(ones) or 'none'}; {', '.join(others) or 'none'}"
        raise ProblemError(Problem(what, found, "data sets with the same id", "Compare runs of the same data sets."))
    versions = _differences(first["versions"], second["versions"])
    return [_pair(one, other, versions) for one, other in pairs]


def _pair(one: dict[str, Any], other: dict[str, Any], versions: list[Row]) -> Pair:
    name = one["id"] if one["id"] == other["id"] else f"{one['id']} and {other['id']}"
    parameters = _differences(_flat(one["parameters"]), _flat(other["parameters"]))
    return Pair(name, (one, other), _result_rows(one, other), parameters, versions)


def _result_rows(one: dict[str, Any], other: dict[str, Any]) -> list[Row]:
    both = (one, other)
    rows = [
        Row("state", (one["status"], other["status"])),
        Row("initial reference", (one["initial_reference"], other["initial_reference"])),
        _number("particles in", both, lambda dataset: dataset["particles_in"], 0),
        _number("particles out", both, lambda dataset: dataset["levels"][-1]["particles_out"], 0),
    ]
    binnings = sorted({level["binning"] for dataset in both for level in dataset["levels"]}, reverse=True)
    for binning in binnings:
        rows += _level_rows(binning, tuple(_level(dataset, binning) for dataset in both))
    rows.append(_number("RELION's time", both, lambda run: sum(x["relion_seconds"] for x in run["levels"]), 0, " s"))
    rows.append(_number("CPU time", both, _cpu_seconds, 0, " s"))
    return rows


def _level_rows(binning: int, levels: tuple[dict[str, Any] | None, ...]) -> list[Row]:
    def of(*path: str) -> Any:
        def get(level: dict[str, Any] | None) -> Any:
            for key in path:
                level = level[key] if level is not None else None
            return level

        return get

    def bound(level: dict[str, Any] | None) -> str:
        return "≤ " if level and level["nyquist_limited"] else ""

    name = f"bin {binning}"
    masked = _number(f"{name} masked", levels, of("resolution", "masked"), 2, " Å", bound)
    return [
        masked,
        _number(f"{name} unmasked", levels, of("resolution", "unmasked"), 2, " Å"),
        _number(f"{name} particles", levels, of("particles_out"), 0),
        _number(f"{name} iterations", levels, of("iterations"), 0),
        _number(f"{name} time", levels, _wall_seconds, 0, " s"),
    ]


def _level(dataset: dict[str, Any], binning: int) -> dict[str, Any] | None:
    return next((level for level in dataset["levels"] if level["binning"] == binning), None)


def _wall_seconds(level: dict[str, Any] | None) -> float | None:
    return level["wall_seconds"] if level and level["jobs"] else None


def _cpu_seconds(dataset: dict[str, Any]) -> float | None:
    values = [job["cpu_seconds"] for level in dataset["levels"] for job in level["jobs"]]
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _number(name: str, both: tuple[Any, ...], get: Any, digits: int, unit: str = "", before: Any = None) -> Row:
    values = [get(one) for one in both]
    texts = tuple(
        UNKNOWN if value is None else f"{before(one) if before else ''}{value:.{digits}f}{unit}"
        for one, value in zip(both, values, strict=True)
    )
    if None in values or texts[0] == texts[1]:
        return Row(name, texts)
    return Row(name, texts, f"{values[1] - values[0]:+.{digits}f}{unit}")


def _differences(one: dict[str, Any], other: dict[str, Any]) -> list[Row]:
    rows = [Row(name, (_text(one.get(name)), _text(other.get(name)))) for name in dict.fromkeys([*one, *other])]
    return [row for row in rows if row.differs]


def _text(value: Any) -> str:
    return UNKNOWN if value is None else "(empty)" if value == "" else str(value)


def _flat(tree: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Leaves by their dotted names."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = value
    return flat


def as_text(pairs: list[Pair], names: tuple[str, str]) -> str:
    """The comparison as a table for a terminal."""
    lines = []
    for pair in pairs:
        lines += _table(pair.name, pair.rows, names)
        for title, rows in (("parameters that differ", pair.parameters), ("versions that differ", pair.versions)):
            lines += _table(title, rows, names) if rows else [f"{title}: none", ""]
    return "\n".join(lines)


def _table(title: str, rows: list[Row], names: tuple[str, str]) -> list[str]:
    cells = [(title, *names, "difference" if any(row.change for row in rows) else "")]
    cells += [(row.name, *row.values, row.change) for row in rows]
    widths = [max(len(cell[column]) for cell in cells) for column in range(4)]
    lines = [
        "  ".join(text.ljust(width) if column == 0 else text.rjust(width)
                  for column, (text, width) in enumerate(zip(cell, widths, strict=True))).rstrip()
        for cell in cells
    ]  # fmt: skip
    return [lines[0], "-" * (sum(widths) + 6), *lines[1:], ""]
