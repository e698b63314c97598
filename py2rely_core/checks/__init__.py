"""The preflight: each check is one function that yields problems; all of them are reported together.

A new check is a function that takes a :class:`CheckContext` and yields :class:`~py2rely_core.problems.Problem`,
listed in ``CHECKS`` of the module it belongs to; it passes over what is missing, as another check reports that. Its
message has a row in docs/troubleshooting.md.
"""

from __future__ import annotations

from py2rely_core.checks import coordinates, given, particles, reference, settings, stacks, tilt_series, tilts
from py2rely_core.checks.context import CheckContext
from py2rely_core.problems import Problem

CHECKS = (
    *tilt_series.CHECKS,
    *tilts.CHECKS,
    *stacks.CHECKS,
    *particles.CHECKS,
    *coordinates.CHECKS,
    *reference.CHECKS,
    *settings.CHECKS,
    *given.CHECKS,
)


def run_checks(context: CheckContext) -> list[Problem]:
    """Everything that is wrong with one data set, what could not be read first.

    Parameters
    ----------
    context : CheckContext
        The recipe and the loaded tables.
    """
    return context.inputs.problems + [problem for check in CHECKS for problem in check(context)]
