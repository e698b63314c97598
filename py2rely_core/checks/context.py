"""What every check may look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from py2rely_core.inputs import Inputs
from py2rely_core.problems import Problem
from py2rely_core.recipe import Recipe


@dataclass(frozen=True)
class CheckContext:
    """One data set before its run.

    Attributes
    ----------
    recipe : Recipe
        The parameter file.
    inputs : Inputs
        The loaded tables.
    mode : {"template", "denovo", "known"}
        How the initial reference is made.
    reference : Path or None
        Absolute path of the user's map.
    start : {"picks", "bin1", "polish"}
        Where the run begins.
    given : dict of str to Path
        Absolute paths of the user's ``mask`` and ``motion``, where there are any.
    """

    recipe: Recipe
    inputs: Inputs
    mode: str
    reference: Path | None = None
    start: str = "picks"
    given: dict[str, Path] = field(default_factory=dict)


def missing_labels(table: pd.DataFrame, labels: tuple[str, ...], where: str, fix: str) -> list[Problem]:
    """One problem that names every required label that a table lacks; none for a table that could not be read."""
    missing = [label for label in labels if label not in table.columns]
    if table.empty or not missing:
        return []
    return [Problem(f"Required labels are missing: {', '.join(missing)}.", where, ", ".join(labels), fix)]


def not_numbers(table: pd.DataFrame, labels: tuple[str, ...], where: str) -> list[Problem]:
    """One problem per label whose values are not all finite numbers, with the first row that is wrong."""
    problems = []
    for label in labels:
        if label not in table.columns:
            continue
        values = pd.to_numeric(table[label], errors="coerce").replace([float("inf"), float("-inf")], float("nan"))
        bad = values.isna()
        if bad.any():
            row = int(bad.to_numpy().argmax())
            what = f"{label} is not a finite number in {int(bad.sum())} of {len(table)} rows."
            seen = f"{where}, first in row {row + 1}: {table[label].iloc[row]!r}"
            problems.append(Problem(what, seen, "a finite number", "Correct or remove these rows."))
    return problems


def examples(names: list[str], limit: int = 3) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
