"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import typer


def is_true(text: str, option: str) -> bool:
    """The value of an option that is written as ``--option True``."""
    values = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.strip().lower() not in values:
        raise typer.BadParameter(f"{option} is True or False, not '{text}'")
    return values[text.strip().lower()]
