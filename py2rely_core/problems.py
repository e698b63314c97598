"""What is wrong, where, what was expected and what to do: the one form in which problems reach a person.

The exit codes that the command line and the workflow share are defined here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from enum import IntEnum

#: Places that a problem names which many files have.
MERGED_PLACES = 3


class ExitCode(IntEnum):
    """Exit codes of ``py2rely`` and of every task of the workflow."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    BAD_INPUT = 65
    BAD_PARAMETERS = 66
    MISSING_COMPONENT = 69
    RELION_FAILED = 70
    GPU_OUT_OF_MEMORY = 71
    BAD_OUTPUT = 73
    OUT_OF_MEMORY = 137
    INTERRUPTED = 143


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes
    ----------
    what : str
        The problem in one sentence.
    where : str
        File, row, label or parameter that it was found in.
    expected : str
        What would have been right.
    fix : str
        What the user can do about it.
    severity : {"error", "warning"}
        An error stops the run before anything is computed.
    """

    what: str
    where: str = ""
    expected: str = ""
    fix: str = ""
    severity: str = "error"

    @property
    def is_error(self) -> bool:
        return self.severity == "error"

    def as_dict(self) -> dict[str, str]:
        return asdict(self)

    def __str__(self) -> str:
        lines = [self.what]
        lines += [f"    {name}: {text}" for name, text in self._details() if text]
        return "\n".join(lines)

    def _details(self) -> list[tuple[str, str]]:
        return [("where", self.where), ("expected", self.expected), ("to do", self.fix)]


class ProblemError(Exception):
    """Raised when a step cannot go on; carries everything that was found, and the exit code.

    Parameters
    ----------
    problems : Problem or sequence of Problem
        What was found.
    exit_code : ExitCode
        What the process should exit with.
    """

    def __init__(self, problems: Problem | Sequence[Problem], exit_code: ExitCode = ExitCode.BAD_INPUT):
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        self.exit_code = exit_code
        super().__init__(format_problems(self.problems))


def format_problems(problems: Iterable[Problem]) -> str:
    """All problems as one numbered list, errors first."""
    ordered = sorted(problems, key=lambda problem: not problem.is_error)
    return "\n".join(f"{n}. [{problem.severity}] {problem}" for n, problem in enumerate(ordered, start=1))


def merged(problems: Iterable[Problem]) -> list[Problem]:
    """Problems with the same text as one, which names the first places and how many more there are."""
    places: dict[Problem, list[str]] = {}
    for problem in problems:
        places.setdefault(replace(problem, where=""), []).append(problem.where)
    result = []
    for problem, where in places.items():
        more = f" and {len(where) - MERGED_PLACES} more" if len(where) > MERGED_PLACES else ""
        result.append(replace(problem, where="; ".join(where[:MERGED_PLACES]) + more))
    return result


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the nearest known name, or an empty string.

    Of names that are about as near, the one with the same numbers is meant: ``TS_2`` is ``TS_02``, not ``TS_12``.

    Parameters
    ----------
    name : str
        What the user wrote.
    known : iterable of str
        What would have been understood.
    """
    lookup = {candidate.lower(): candidate for candidate in known}
    matches = get_close_matches(name.lower(), lookup, n=20, cutoff=0.6)
    best = next((match for match in matches if _numbers(match) == _numbers(name)), matches[0] if matches else "")
    return f"did you mean '{lookup[best]}'?" if best else ""


def _numbers(name: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", name, re.ASCII)]
