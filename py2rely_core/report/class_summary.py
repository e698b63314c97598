"""A classification by hand, in any RELION project: its page and its PDF, beside its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from py2rely_core.judging.classes import Classification, Verdict
from py2rely_core.report.choosing import ways_by_hand, write_class_page
from py2rely_core.report.class_sheets import write_class_sheets


def write_by_hand(
    classification: Classification, output: Path | None = None, *, project: Path = Path(), **settings: Any
) -> Path:
    """Write the page on which classes are chosen; it is written anew where it is there.

    Parameters
    ----------
    classification : Classification
    output : Path, optional
        Directory, made when it is missing; not given: the job's.
    project : Path
        Where the page's command is to be started.
    **settings
        ``verdicts``, ``reason`` and ``diameter``, as for :func:`py2rely_core.report.choosing.class_page`.

    Returns
    -------
    Path
        ``run_it025_classes.html``, by the iteration's names.
    """
    folder = output or classification.job
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"{_stem(classification)}_classes.html"
    write_class_page(classification, ways_by_hand(classification, project), page, **settings)
    return page


def write_summary(
    classification: Classification, output: Path | None = None, *,
    verdicts: Mapping[int, Verdict] | None = None, reason: str = "", **settings: Any,
) -> tuple[Path, Path]:  # fmt: skip
    """Write the page, and beside it a PDF; parameters as of :func:`write_by_hand`."""
    page = write_by_hand(classification, output, verdicts=verdicts, reason=reason, **settings)
    document = page.with_suffix(".pdf")
    write_class_sheets(classification, document, verdicts=verdicts, reason=reason)
    return page, document


def _stem(classification: Classification) -> str:
    return classification.model.name.removesuffix("_model.star")
