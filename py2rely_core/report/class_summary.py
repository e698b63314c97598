"""A classification by hand, in any RELION project: its page and its PDF, beside its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from py2rely_core.judging.classes import Classification, Verdict
from py2rely_core.report.choosing import ways_by_hand, write_class_page
from py2rely_core.report.class_pdf import write_class_pdf


def write_by_hand(
    classification: Classification,
    output: Path | None = None,
    *,
    verdicts: Mapping[int, Verdict] | None = None,
    reason: str = "",
    diameter: float = 0.0,
    project: Path = Path(),
) -> Path:
    """Write the page on which classes are chosen; parameters and result as the first one's of :func:`write_summary`."""
    folder = output or classification.job
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"{_stem(classification)}_classes.html"
    ways = ways_by_hand(classification, project)
    write_class_page(classification, ways, page, verdicts=verdicts, reason=reason, diameter=diameter)
    return page


def write_summary(
    classification: Classification,
    output: Path | None = None,
    *,
    verdicts: Mapping[int, Verdict] | None = None,
    reason: str = "",
    diameter: float = 0.0,
    project: Path = Path(),
) -> tuple[Path, Path]:
    """Write the page on which classes are chosen, and the PDF; those that are there are written anew.

    Parameters
    ----------
    classification : Classification
    output : Path, optional
        Directory, made when it is missing; not given: the job's.
    verdicts : mapping of int to Verdict, optional
        What a rule thinks of each class, by its number.
    reason : str
        What the rule says of all of them.
    diameter : float
        Of the particle, Angstrom, for surfaces; 0: half of the box.
    project : Path
        Where the page's command is to be started.

    Returns
    -------
    (Path, Path)
        ``run_it025_classes.html`` and ``run_it025_classes.pdf``, by the iteration's names.
    """
    settings = {"verdicts": verdicts, "reason": reason}
    page = write_by_hand(classification, output, diameter=diameter, project=project, **settings)
    document = page.with_suffix(".pdf")
    write_class_pdf(classification, document, **settings)
    return page, document


def _stem(classification: Classification) -> str:
    return classification.model.name.removesuffix("_model.star")
