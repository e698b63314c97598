"""Checks of the image stacks: their headers, and of each a few rows, never the whole file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np

from py2rely_core.checks.context import CheckContext, examples
from py2rely_core.data.tables import split_image_name
from py2rely_core.maps.io import MapHeader
from py2rely_core.problems import Problem, ProblemError, merged

#: Rows of a section that are looked at.
SAMPLED_ROWS = 5
#: From here on a larger pixel size in the header is that of a binned stack.
BINNED_FACTOR = 1.4


def check_there(context: CheckContext) -> Iterator[Problem]:
    """Every stack exists and holds something."""
    stacks = context.inputs.stacks()
    gone = [stack for stack in stacks if not stack.is_file()]
    links = [f"{stack} -> {stack.readlink()}" for stack in gone if stack.is_symlink()]
    missing = [str(stack) for stack in gone if not stack.is_symlink()]
    fix = "Start the run in the project directory, or correct rlnMicrographName in the tilt-series STAR files."
    if missing:
        yield Problem(f"{len(missing)} image stacks are missing.", examples(missing), "existing files", fix)
    if links:
        what = f"{len(links)} image stacks are links to files that are gone."
        yield Problem(what, examples(links), "existing files", "Copy the stacks, or make the links anew.")
    empty = [str(stack) for stack in stacks if stack.is_file() and not stack.stat().st_size]
    if empty:
        what = f"{len(empty)} image stacks are empty files, as dummy tilt series of Warp are."
        fix = "Extraction needs the images: export the tilt series with their stacks."
        yield Problem(what, examples(empty), "images", fix)


def check_headers(context: CheckContext) -> Iterator[Problem]:
    """Every stack is a complete MRC file."""
    errors = [header for stack, header in context.headers.items() if isinstance(header, ProblemError)]
    empty = {str(stack) for stack in context.headers if not stack.stat().st_size}
    found = [problem for error in errors for problem in error.problems if problem.where not in empty]
    yield from merged(found)


def check_sections(context: CheckContext) -> Iterator[Problem]:
    """Every stack holds the sections that are used of it."""
    found = []
    for series, stack, header, sections in _used(context):
        count = header.shape[0]
        if sections.min() < 1 or sections.max() > count:
            what = f"Sections {sections.min()} to {sections.max()} are used of a stack that has {count}."
            fix = "Sections are counted from 1: correct rlnMicrographName, or use the complete stack."
            found.append(Problem(what, f"{series.star_file} and {stack}", f"sections 1 to {count}", fix))
    yield from merged(found)


def broken_stacks(context: CheckContext) -> dict[str, str]:
    """Tilt series whose images cannot be used, each with the first reason; others may be right without them."""
    found = {}
    for name, series in context.inputs.tilt_series.items():
        alone = replace(context, inputs=replace(context.inputs, tilt_series={name: series}))
        problems = (problem for check in OF_ONE_SERIES for problem in check(alone) if problem.is_error)
        first = next(problems, None)
        if first:
            found[name] = f"{first.what} {first.where}"
    return found


def check_pixel_sizes(context: CheckContext) -> Iterator[Problem]:
    """The headers say the pixel size that the tables say; they are not used, but one of the two is wrong."""
    expected, differ = context.pixel_size, defaultdict(list)
    for stack, header in context.headers.items():
        known = isinstance(header, MapHeader) and header.pixel_size
        if known and abs(header.pixel_size - expected) > 0.01 * expected:
            differ[round(header.pixel_size, 3)].append(str(stack))
    for value, stacks in differ.items():
        what = f"The headers of {len(stacks)} stacks say {value:g} A per pixel; they are not used, but which is right?"
        yield Problem(what, examples(stacks), f"{expected:g} A", "Correct the header or the pixel size.", "warning")


def check_binned(context: CheckContext) -> Iterator[Problem]:
    """No stack is a binned copy: its header's pixel size and its width are both off by one factor."""
    found = []
    for name, series in context.inputs.tilt_series.items():
        header = context.headers.get(series.stacks[0]) if series.stacks else None
        size = context.tomogram_sizes.get(name)
        if not isinstance(header, MapHeader) or size is None or not header.pixel_size:
            continue
        factor = header.pixel_size / context.pixel_size
        edges = sorted(header.shape[1:])[-1] * factor, float(max(size[:2]))
        if factor > BINNED_FACTOR and abs(edges[0] - edges[1]) < 0.02 * edges[1]:
            what = f"The images are binned {factor:g} times: the tilt series' shifts and sizes are of unbinned ones."
            own = f"{header.shape[2]} x {header.shape[1]} pixels of {header.pixel_size:g} A"
            where = f"{series.stacks[0]} ({own}) and {context.inputs.tilt_series_file}"
            fix = "Name the unbinned stacks in rlnMicrographName."
            found.append(Problem(what, where, f"{context.pixel_size:g} A per pixel", fix))
    yield from merged(found)


def check_content(context: CheckContext) -> Iterator[Problem]:
    """The sampled images are no dummies: not constant, and finite."""
    dummies, blank = [], []
    for _, stack, header, sections in _used(context):
        valid = np.unique(sections[(sections >= 1) & (sections <= header.shape[0])])
        if not valid.size:
            continue
        chosen = np.unique(valid[[0, len(valid) // 2, -1]])
        bad = blank_sections(stack, chosen)
        if len(bad) == len(chosen):
            dummies.append(str(stack))
        elif bad:
            blank.append(f"{stack} (section {bad[0]})")
    if dummies:
        what = f"The images of {len(dummies)} tilt series are constant or not finite: they are dummies."
        fix = "Warp writes such stacks when it exports metadata alone: export the tilt series with their images."
        yield Problem(what, examples(dummies), "images", fix)
    if blank:
        what = f"{len(blank)} stacks hold images that are constant or not finite."
        yield Problem(what, examples(blank), "images", "Remove these tilts, or write the stack again.")


def blank_sections(stack: Path, sections: np.ndarray) -> list[int]:
    """Those of some sections (counted from 1) whose sampled rows are constant or not finite; only these are read."""
    with mrcfile.open(stack, mode="r", permissive=False, header_only=True) as mrc:
        dtype = mrcfile.utils.data_dtype_from_header(mrc.header)
        width, height, start = int(mrc.header.nx), int(mrc.header.ny), 1024 + int(mrc.header.nsymbt)
    blank = []
    with stack.open("rb") as file:
        for section in sections:
            rows = []
            for row in sampled_rows(height):
                file.seek(start + ((int(section) - 1) * height + int(row)) * width * dtype.itemsize)
                rows.append(np.frombuffer(file.read(width * dtype.itemsize), dtype=dtype))
            values = np.concatenate(rows).astype(np.float64)
            if not np.isfinite(values).all() or float(np.ptp(values)) == 0.0:
                blank.append(int(section))
    return blank


def sampled_rows(height: int) -> np.ndarray:
    """The rows of an image that are looked at, evenly spaced."""
    return np.unique(np.linspace(0, height - 1, SAMPLED_ROWS + 2)[1:-1].astype(int))


def _used(context: CheckContext) -> Iterator[tuple]:
    """Each readable stack with its tilt series, its header and the sections that are used of it."""
    for series in context.inputs.tilt_series.values():
        if "rlnMicrographName" not in series.tilts:
            continue
        sections = defaultdict(list)
        for image in series.tilts["rlnMicrographName"]:
            section, file = split_image_name(image)
            sections[file].append(section)
        for stack, used in zip(series.stacks, sections.values(), strict=True):
            header = context.headers.get(stack)
            if isinstance(header, MapHeader):
                yield series, stack, header, np.array(used)


#: What may be wrong with the images of one tilt series alone.
OF_ONE_SERIES = (check_there, check_headers, check_sections, check_content)
CHECKS = (check_there, check_headers, check_sections, check_pixel_sizes, check_binned, check_content)
