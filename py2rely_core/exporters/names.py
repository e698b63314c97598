"""Names of tilt series as other programs have them."""

from __future__ import annotations

from pathlib import Path

from py2rely_core.data.tables import read_star
from py2rely_core.importers.result import Import
from py2rely_core.problems import Problem, ProblemError


def ts_to_position(source: Path, output: Path) -> Import:
    """The same file with ``Position_`` for ``TS_`` in every tilt series' name, and without ``_1`` at its end.

    Raises
    ------
    ProblemError
        The file has no names, or two of them would become the same.
    """
    blocks = read_star(source)
    named = {name: table for name, table in blocks.items() if "rlnTomoName" in table}
    if not named:
        problem = Problem("There are no tilt series in it.", str(source), "rlnTomoName", "Give another --input.")
        raise ProblemError(problem)
    old = sorted({str(name) for table in named.values() for name in table["rlnTomoName"]})
    new = {name: name.replace("TS_", "Position_").removesuffix("_1") for name in old}
    owners: dict[str, list[str]] = {}
    for name, renamed in new.items():
        owners.setdefault(renamed, []).append(name)
    problems = [
        Problem(
            f"{' and '.join(names)} would both be called {renamed}.", str(source), "names of their own", "Rename one."
        )
        for renamed, names in owners.items()
        if len(names) > 1
    ]
    if problems:
        raise ProblemError(problems)
    changed = {name: table.assign(rlnTomoName=table["rlnTomoName"].map(new)) for name, table in named.items()}
    count = sum(name != renamed for name, renamed in new.items())
    return Import(
        {output: blocks | changed}, notes=[f"{source}: {count} of {len(new)} names changed", f"Wrote {output}"]
    )
