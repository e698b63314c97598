"""Which dose, which order of acquisition: all sources that there are, tested, compared, and the one that is used.

The rank of the sources is that of the list that an importer gives: a source that has order and dose comes before one
that has the order alone. Sources that contradict each other are an error that names both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from py2rely_core.importers.formats.mdoc import Mdoc
from py2rely_core.importers.formats.tilt_list import TiltList, read_order_list
from py2rely_core.problems import Problem, ProblemError

#: Angles of two files are those of the same images, with one offset for all, within this much of a tilt step.
SAME_ANGLE = 0.5
#: Angles that are the microscope's own are within this much of those in its file, degrees.
OWN_ANGLE = 0.1
#: No alignment and no pre-tilt of a lamella moves all angles further, degrees.
LARGEST_OFFSET = 30.0
#: An image never gets more, nor a whole series, e/A^2.
MOST_PER_IMAGE, MOST_PER_SERIES = 100.0, 1000.0
#: Doses that grow from image to image and are more than this together are sums, e/A^2.
SUMS = 400.0
#: Doses of images do not grow from each to the next by equal steps of as much as that; sums do, e/A^2.
SURE_STEP, EQUAL_STEPS = 0.5, 0.1
#: A first image of a series never gets more in any scheme in use, e/A^2.
MOST_OF_FIRST = 20.0
#: Two files say the same dose if neither is larger by more than this factor: calibrations differ.
SAME_DOSE = 2.0
#: A first image with no more dose before it than this many images give was taken again.
RETAKEN = 3.0


@dataclass
class Doses:
    """Where the dose comes from when no file has it.

    Attributes
    ----------
    total : float or None
        Of the whole series, e/A^2.
    per_tilt : float or None
        Of one image, e/A^2.
    """

    total: float | None = None
    per_tilt: float | None = None
    used: list[str] = field(default_factory=list)

    def of(self, count: int, name: str, notes: Sequence[str] = ()) -> np.ndarray:
        """Dose of each of `count` images; `notes` say why no file has it."""
        if self.per_tilt is None and self.total is None:
            fix = "Give --dose-per-tilt or --total-dose (e/A^2), or a _TLT.txt with the dose in its third column."
            what = " ".join(["The dose is not known.", *notes])
            raise ProblemError(Problem(what, name, "a dose for every image", fix))
        value = self.per_tilt if self.per_tilt is not None else self.total / count
        if not value > 0:
            fix = "Correct --dose-per-tilt or --total-dose."
            raise ProblemError(Problem(f"{value:g} e/A^2 is no possible dose.", name, "a dose > 0", fix))
        self.used.append(name)
        return np.full(count, float(value))


@dataclass
class Source:
    """What one file says of the sections of a stack.

    Attributes
    ----------
    path : Path
    order : (count,) float or None
        When each section was acquired: growing numbers, whole ones where images that are not in the stack count.
    dose : (count,) float or None
        Dose of each section's image, e/A^2.
    before : (count,) float or None
        Dose before each section, e/A^2.
    meaning : str
        What was taken from the file, for people.
    is_doubtful : bool
        The order may be that of the sections: any other source stands before it.
    notes : list of str
        What was found, and why something is not used.
    """

    path: Path
    order: np.ndarray | None = None
    dose: np.ndarray | None = None
    before: np.ndarray | None = None
    meaning: str = ""
    is_doubtful: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Exposure:
    """Dose before each section of a stack, (count,) e/A^2, and where it is from."""

    before: np.ndarray
    source: Source
    notes: list[str]


def pre_exposure(order: np.ndarray, doses: np.ndarray) -> np.ndarray:
    """Dose before each image, e/A^2: what the images before it in the order of acquisition got.

    Parameters
    ----------
    order : (n,) int
        When each image was acquired, any increasing numbers.
    doses : (n,) float
        Dose of each image.
    """
    rank = np.argsort(order, kind="stable")
    before = np.empty(len(order))
    before[rank] = np.concatenate([[0.0], np.cumsum(np.asarray(doses, dtype=float)[rank])[:-1]])
    return before


def missing_images(order: np.ndarray) -> np.ndarray:
    """Numbers of images that were taken and are not in the stack: gaps in numbers that count from 0 or 1.

    Numbers that leave out more than half are no such count: times, or doses.
    """
    values = np.sort(order)
    if (values != values.astype(int)).any() or values[0] < 0 or values[-1] + 1 > 1.5 * len(values) + 1:
        return np.zeros(0)
    return np.setdiff1d(np.arange(min(values[0], 1), values[-1]), values)


def find_exposure(sources: list[Source], doses: Doses, count: int, name: str, missing: Problem) -> Exposure:
    """The dose before each section, from the first source that has it; all others must agree.

    Parameters
    ----------
    sources : list of Source
        In the order of their rank.
    doses : Doses
        Used where no file has the dose.
    count : int
        Sections of the stack.
    name : str
        Of the tilt series.
    missing : Problem
        What is said when none of them has an order.

    Raises
    ------
    ProblemError
        There is no order, or no dose, or two sources contradict each other.
    """
    ordered = sorted((one for one in sources if one.order is not None), key=lambda one: one.is_doubtful)
    notes = [note for one in sources for note in one.notes]
    if not ordered:
        reasons = " ".join(notes)
        what = missing.what + (f" {reasons}" if reasons else "")
        raise ProblemError(Problem(what, missing.where, missing.expected, missing.fix))
    first = ordered[0]
    for other in ordered[1:]:
        if other.is_doubtful and not first.is_doubtful:
            notes.append(f"{other.path.name} is not used: it runs through the angles from one end to the other")
        else:
            _refuse_other_order(first, other)
    used = next((one for one in ordered if one.before is not None and one.is_doubtful == first.is_doubtful), None)
    if used is not None:
        before, text = used.before, used.meaning
    else:
        giving = next((one for one in sources if one.dose is not None), None)
        dose = (
            doses.of(count, name, [note for note in notes if "dose" in note.lower()]) if giving is None else giving.dose
        )
        used, before = first, _before(first.order, dose, notes)
        text = f"{first.meaning}, {'dose as given' if giving is None else giving.meaning}"
    for other in ordered:
        if other.before is not None and not (other.is_doubtful and not first.is_doubtful):
            _refuse_other_dose(Source(used.path, before=before, meaning=text), other)
    return Exposure(before, used, [f"{name}: dose before each image from {text}", *(f"{name}: {n}" for n in notes)])


def _before(order: np.ndarray, dose: np.ndarray, notes: list[str]) -> np.ndarray:
    gone = missing_images(order)
    if not len(gone):
        return pre_exposure(order, dose)
    typical = float(np.median(dose))
    numbers = ", ".join(f"{number:.0f}" for number in gone)
    notes.append(f"images {numbers} of the order are not in the stack; their dose counts ({typical:g} e/A^2 each)")
    everything = pre_exposure(np.concatenate([order, gone]), np.concatenate([dose, np.full(len(gone), typical)]))
    return everything[: len(order)]


def _refuse_other_order(first: Source, other: Source) -> None:
    ranks = [np.argsort(np.argsort(one.order, kind="stable")) for one in (first, other)]
    if (ranks[0] == ranks[1]).all():
        return
    section = int((ranks[0] != ranks[1]).argmax())
    what = (
        f"Two files have different orders of acquisition: section {section + 1} is number {ranks[0][section] + 1} in "
        f"{first.path.name} and number {ranks[1][section] + 1} in {other.path.name}."
    )
    fix = "One of them is of another stack, or in another order: correct or remove it."
    raise ProblemError(Problem(what, f"{first.path} and {other.path}", "one order", fix))


def _refuse_other_dose(used: Source, other: Source) -> None:
    ours, theirs = used.before - used.before.min(), other.before - other.before.min()
    least, most = sorted((float(ours.max()), float(theirs.max())))
    if most <= SAME_DOSE * least + 1e-6:
        return
    section = int(np.abs(ours - theirs).argmax())
    two = "Two files have different doses" if used.path != other.path else f"{used.path.name} says two different doses"
    what = (
        f"{two}: before section {section + 1} {ours[section]:g} e/A^2 ({used.meaning}), and {theirs[section]:g} "
        f"({other.meaning})."
    )
    fix = "Correct one of them, or remove it. Doses are e/A^2 of an image, not of a pixel and not of the series."
    where = " and ".join(dict.fromkeys((str(used.path), str(other.path))))
    raise ProblemError(Problem(what, where, "one dose", fix))


# Tilt lists and order lists


def of_tilt_list(listed: TiltList) -> Source:
    """Order and dose of a tilt list; a third column that holds sums is recognised.

    Raises
    ------
    ProblemError
        It cannot be told whether the third column is the dose of an image, or all until then.
    """
    source = Source(listed.path, listed.order, listed.dose, meaning=f"order and dose of {listed.path.name}")
    source.notes += listed.notes
    if listed.dose is None:
        source.meaning = f"the order of {listed.path.name}"
        return source if listed.order is None else _with_sums(source, "second")
    order = listed.order if listed.order is not None else listed.dose
    by_time = listed.dose[np.argsort(order, kind="stable")]
    if _are_sums(by_time) or _are_equal_steps(by_time):
        source.order, source.dose = order, None
        return _summed(source, listed.dose, "third")
    if (by_time == 0).any():
        section = int((listed.dose == 0).argmax())
        what = f"The dose of section {section + 1} is 0, and that of others is not."
        where = f"{listed.path}, line {listed.lines[section]}"
        raise ProblemError(Problem(what, where, "a dose for every image", "Correct its third column."))
    if listed.order is None:
        return source
    grows = len(by_time) > 2 and (np.diff(by_time) > 0).all()
    is_large = by_time[0] > MOST_OF_FIRST or (len(by_time) > 3 and by_time[-1] > RETAKEN * by_time[0])
    if by_time.max() > MOST_PER_IMAGE or (grows and is_large):
        what = f"The third column goes from {by_time.min():g} to {by_time.max():g} e/A^2: no doses of images, nor sums."
        fix = "Write the dose of each image into the third column, or the dose summed up in the order of acquisition."
        raise ProblemError(Problem(what, str(listed.path), "e/A^2 of each image", fix))
    source.before = _before(listed.order, listed.dose, source.notes)
    return source


def _with_sums(source: Source, column: str) -> Source:
    """A column for the order that holds doses summed up instead of numbers; as it is, where it holds numbers.

    Raises
    ------
    ProblemError
        It holds neither.
    """
    values = np.sort(source.order)
    whole = bool((values == values.astype(int)).all())
    if whole and values[-1] <= 1.5 * len(values) + 1:
        return source
    if _are_sums(values):
        return _summed(source, source.order, column)
    if whole:
        return source
    what = f"The {column} column goes from {values[0]:g} to {values[-1]:g}: no numbers of images, nor doses summed up."
    fix = "Number the images in the order of acquisition, or write the dose summed up in that order."
    raise ProblemError(Problem(what, str(source.path), "whole numbers", fix))


def _summed(source: Source, sums: np.ndarray, column: str) -> Source:
    """Dose before each image from sums: those after each begin with the first image's dose, those before it with 0."""
    by_time = np.sort(sums)
    step = float(np.median(np.diff(by_time)))
    source.before = sums - (min(float(by_time[0]), step) if by_time[0] > 0 else 0.0)
    source.meaning = f"the dose summed up in {source.path.name}"
    source.notes.append(f"the {column} column of {source.path.name} is the dose summed up, not that of each image")
    _take_away_earlier(source, step)
    return source


def _are_sums(by_time: np.ndarray) -> bool:
    """Whether values in the order of acquisition are sums: all grow, by steps of the size of the first, or alike."""
    if len(by_time) < 3:
        return False
    steps = np.diff(by_time)
    if (steps <= 0).any():
        return False
    step = float(np.median(steps))
    alike = bool((steps < 2.5 * step).all() and (steps > 0.4 * step).all())
    return alike and bool(by_time[0] <= 2.5 * step or by_time.sum() > SUMS or by_time[-1] > MOST_PER_IMAGE)


def _are_equal_steps(by_time: np.ndarray) -> bool:
    """Whether values in the order of acquisition grow by one image's dose, whatever was before the first."""
    steps = np.diff(by_time)
    return len(steps) > 1 and bool(steps.min() >= SURE_STEP and np.ptp(steps) <= EQUAL_STEPS * np.median(steps))


def _take_away_earlier(source: Source, step: float) -> None:
    """Dose before the first image that more than a few images gave is of an earlier series: taken away, and said."""
    earlier = float(source.before.min())
    if earlier > RETAKEN * max(step, 1e-6):
        source.before = source.before - earlier
        source.notes.append(f"{earlier:g} e/A^2 before the first image in {source.path.name} are taken away")
    if source.before.max() > MOST_PER_SERIES:
        what = f"A dose of {source.before.max():g} e/A^2 is not possible."
        expected = f"at most {MOST_PER_SERIES:g} e/A^2 in all"
        raise ProblemError(Problem(what, str(source.path), expected, "Correct the doses; their unit is e/A^2."))


def of_order_list(path: Path, angles: np.ndarray, by_angle: np.ndarray) -> Source:
    """Order of a list of image number and angle, whose images are matched by their rank among the angles.

    Its angles may have an offset: the nearest angle may be that of another image.

    Parameters
    ----------
    path : Path
    angles : (count,) float
        Of the sections; nan where they are not known.
    by_angle : (count,) int
        The sections, from 0, in the order of their angles.

    Raises
    ------
    ProblemError
        It is no order list, or its angles are others.
    """
    table = read_order_list(path)
    if len(table) != len(angles):
        reason = f"it has {len(table)} images for {len(angles)} sections"
        return Source(path, notes=[f"{path.name} is not used: {reason}."])
    theirs = np.argsort(table["angle"], kind="stable").to_numpy()
    _refuse_other_angles(angles[by_angle], table["angle"].to_numpy()[theirs], by_angle, path, "the order list")
    order = np.empty(len(angles))
    order[by_angle] = table["number"].to_numpy()[theirs]
    steps = np.diff(order[by_angle])
    doubtful = len(steps) > 2 and (bool((steps > 0).all()) or bool((steps < 0).all()))
    return _with_sums(Source(path, order, meaning=f"the order of {path.name}", is_doubtful=doubtful), "first")


def tolerance(angles: np.ndarray) -> float:
    """How far two angles of one image may be apart once the offset of all is taken away, degrees."""
    steps = np.diff(np.sort(angles[np.isfinite(angles)]))
    return SAME_ANGLE * float(np.median(steps[steps > 1e-3])) if (steps > 1e-3).any() else 1.0


def refuse_other_sections(ours: np.ndarray, theirs: np.ndarray, path: Path, other: str) -> None:
    """The angles of two files, section by section, differ by one offset, or their sections are not the same.

    Parameters
    ----------
    ours, theirs : (count,) float
        Degrees, by section; nan where one does not say.
    path : Path
        Of the other file.
    other : str
        What it is, for messages: "the tilt list".

    Raises
    ------
    ProblemError
        With the section that differs most, and both angles.
    """
    _refuse_other_angles(ours, theirs, np.arange(len(ours)), path, other)


def _refuse_other_angles(ours: np.ndarray, theirs: np.ndarray, sections: np.ndarray, path: Path, other: str) -> None:
    difference = ours - theirs
    if not np.isfinite(difference).any():
        return
    offset = float(np.nanmedian(difference))
    apart = np.nan_to_num(np.abs(difference - offset))
    worst = int(apart.argmax()) if abs(offset) <= LARGEST_OFFSET else int(np.nanargmax(np.abs(difference)))
    if apart[worst] <= tolerance(theirs) and abs(offset) <= LARGEST_OFFSET:
        return
    what = (
        f"Section {sections[worst] + 1} is at {ours[worst]:.2f} degrees in the alignment and at "
        f"{theirs[worst]:.2f} in {other}."
    )
    fix = "It is of another stack, or in another order: use the one that was written with this stack."
    expected = f"the same sections, one offset for all of at most {LARGEST_OFFSET:g} degrees"
    raise ProblemError(Problem(what, str(path), expected, fix))


# The microscope's file


def of_mdoc(mdoc: Mdoc, angles: np.ndarray, is_stage: bool = False) -> Source:
    """Order and dose of an ``.mdoc`` whose sections are matched with the stack's by angle.

    PriorRecordDose comes before times with ExposureDose. Each is tested: in every section, growing, agreeing.

    Parameters
    ----------
    mdoc : Mdoc
    angles : (count,) float
        Of the stack's sections.
    is_stage : bool
        They are the microscope's, not an alignment's: see :func:`match_sections`.

    Raises
    ------
    ProblemError
        It is of another series, or some sections lack what others have.
    """
    theirs = mdoc.column("TiltAngle", "the tilt angle", -90, 90)
    if theirs is None:
        raise ProblemError(Problem("It has no tilt angles.", str(mdoc.path), "TiltAngle in every section", _OTHER_MDOC))
    name, source = mdoc.path.name, Source(mdoc.path)
    prior = _prior_dose(mdoc, source)
    each = mdoc.column("ExposureDose", "the dose", 0, MOST_PER_IMAGE)
    each = None if each is None or not any(each) else np.array(each)
    if each is not None and (each <= 0).any():
        section = mdoc.sections[int((each <= 0).argmax())]
        what = f"ExposureDose of section {section.number} is 0, and that of others is not."
        raise section.heading.error(what, "a dose in every section, or in none", "Correct it, or remove all of them.")
    seconds = _seconds(mdoc, source)
    if prior is not None and seconds is not None:
        _refuse_two_orders(mdoc, prior, seconds)
    clock = prior if prior is not None else seconds
    chosen = match_sections(angles, np.array(theirs), mdoc, clock, is_stage)
    source.dose, source.meaning = None if each is None else each[chosen], f"ExposureDose of {name}"
    if clock is None:
        if prior is None and seconds is None and not source.notes:
            source.notes.append(f"{name} has neither PriorRecordDose nor DateTime.")
        return source
    numbers = _numbered(mdoc, clock)
    source.order = numbers[chosen]
    taken = None if each is None else _before(numbers, each, source.notes)[chosen]
    if prior is not None:
        source.before, source.meaning = prior[chosen], f"PriorRecordDose of {name}"
        _take_away_earlier(source, float(np.median(np.diff(np.sort(prior)))) if len(prior) > 1 else 0.0)
        if taken is not None:
            _refuse_other_dose(source, Source(mdoc.path, before=taken, meaning=f"ExposureDose of {name}, summed up"))
    elif taken is not None:
        source.before, source.meaning = taken, f"DateTime and ExposureDose of {name}"
    else:
        source.meaning = f"the order by DateTime of {name}"
    if len(theirs) > len(chosen):
        source.notes.append(f"{len(theirs) - len(chosen)} sections of {name} are not in the stack; their dose counts")
    return source


def _prior_dose(mdoc: Mdoc, source: Source) -> np.ndarray | None:
    """The dose before each section, where it grows from each to the next."""
    prior = mdoc.column("PriorRecordDose", "the dose before the image", 0, 1e5)
    if prior is None or len(np.unique(prior)) == len(prior):
        return None if prior is None else np.array(prior)
    found, counts = np.unique(prior, return_counts=True)
    value = f"{found[counts.argmax()]:g} in {counts.max()} of {len(prior)} sections"
    source.notes.append(f"PriorRecordDose of {mdoc.path.name} is not used: it is {value}.")
    return None


_OTHER_MDOC = "Use the .mdoc of this tilt series, or give a NAME_TLT.txt with angle, order of acquisition and dose."


def _seconds(mdoc: Mdoc, source: Source) -> np.ndarray | None:
    """When each section was taken, where the times differ."""
    times = mdoc.times()
    if times is None:
        return None
    seconds = np.array([(time - min(times)).total_seconds() for time in times])
    counts = np.unique(seconds, return_counts=True)[1]
    if counts.max() > 1:
        source.notes.append(f"DateTime of {mdoc.path.name} is not used: {counts.max()} sections have one time.")
        return None
    return seconds


def _numbered(mdoc: Mdoc, clock: np.ndarray) -> np.ndarray:
    """Numbers in the order of acquisition, from 1; where sections are in that order, a missing one was an image."""
    if len(clock) > 1 and (np.diff(clock) > 0).all():
        return np.array([section.number - mdoc.sections[0].number + 1.0 for section in mdoc.sections])
    return np.argsort(np.argsort(clock)) + 1.0


def _refuse_two_orders(mdoc: Mdoc, before: np.ndarray, seconds: np.ndarray) -> None:
    ranks = np.argsort(np.argsort(before)), np.argsort(np.argsort(seconds))
    if (ranks[0] != ranks[1]).any():
        section = mdoc.sections[int((ranks[0] != ranks[1]).argmax())]
        what = (
            f"PriorRecordDose and DateTime of section {section.number} contradict each other: "
            f"{section.values['PriorRecordDose'].text} and {section.values['DateTime'].text}."
        )
        raise section.heading.error(what, "dose that grows with time", _OTHER_MDOC)


def match_sections(
    angles: np.ndarray, theirs: np.ndarray, mdoc: Mdoc, clock: np.ndarray | None = None, is_stage: bool = False
) -> np.ndarray:
    """Which section of the ``.mdoc`` is each section of the stack, (count,) int, by angle with one offset for all.

    Parameters
    ----------
    angles, theirs : (count,), (n,) float
        Of the stack and of the ``.mdoc``, degrees.
    mdoc : Mdoc
    clock : (n,) float or None
        Numbers that grow with time, of each section of the ``.mdoc``.
    is_stage : bool
        The stack's angles are the microscope's: the smallest of several offsets that fit is right.

    Raises
    ------
    ProblemError
        Angles are others, sections of the stack are missing, or which ones are left out cannot be told.
    """
    known, limit, path = angles[np.isfinite(angles)], tolerance(angles), mdoc.path
    if len(theirs) < len(angles):
        what = f"It describes {len(theirs)} sections."
        raise ProblemError(Problem(what, str(path), f"{len(angles)} sections", _OTHER_MDOC))
    if len(known) < len(angles):
        raise ProblemError(
            Problem("The angles of some sections are not known.", str(path), "an angle for each", _OTHER_MDOC)
        )
    if len(theirs) == len(angles):
        if _is_same(angles, theirs, limit):
            return np.arange(len(angles))
        if _is_same(angles, -theirs, limit) and np.ptp(theirs) > 4 * limit:
            what = (
                f"Angles have opposite signs: section 1 is at {angles[0]:.2f} degrees in the alignment and at "
                f"{theirs[0]:.2f} in the .mdoc."
            )
            fix = "Turn the signs, or the order, of one of them: which image is which cannot be told."
            raise ProblemError(Problem(what, str(path), "the same angles", fix))
        ours, other = np.argsort(angles, kind="stable"), np.argsort(theirs, kind="stable")
        _refuse_other_angles(angles[ours], theirs[other], ours, path, path.name)
        chosen = np.empty(len(angles), dtype=int)
        chosen[ours] = other
        _refuse_no_order(theirs, clock, mdoc, chosen)
        return chosen
    return _subset(angles, theirs, limit, path, is_stage)


def _is_same(ours: np.ndarray, theirs: np.ndarray, limit: float) -> bool:
    difference = ours - theirs
    offset = float(np.median(difference))
    return abs(offset) <= LARGEST_OFFSET and bool((np.abs(difference - offset) <= limit).all())


def _refuse_no_order(theirs: np.ndarray, clock: np.ndarray | None, mdoc: Mdoc, chosen: np.ndarray) -> None:
    """Sections that are not the stack's are in the order of angles or of time: else single values were exchanged."""
    steps = np.diff(theirs)
    if (steps >= 0).all() or (steps <= 0).all() or clock is None or all(a <= b for a, b in pairwise(clock)):
        return
    section = int((np.arange(len(chosen)) != chosen).argmax())
    number = mdoc.sections[chosen[section]].number
    what = f"Section {section + 1} of the stack has the angle of section {number} of the .mdoc."
    expected = "sections in the order of the stack, of the angles, or of the times"
    raise ProblemError(Problem(what, str(mdoc.path), expected, _OTHER_MDOC))


def _subset(angles: np.ndarray, theirs: np.ndarray, limit: float, path: Path, is_stage: bool) -> np.ndarray:
    """Sections of an ``.mdoc`` that has more than the stack: the one offset with which all are there.

    Of images at one angle the last was kept: it was taken again. Where tilts are left out at an end, other offsets fit,
    too: then the stack's angles must be the microscope's, which have none.
    """
    middle = angles[len(angles) // 2]
    offsets = np.unique(np.round(np.concatenate([[0.0], middle - theirs]), 6))
    fits: list[tuple[float, np.ndarray]] = []
    for offset in sorted(offsets[np.abs(offsets) <= LARGEST_OFFSET], key=abs):
        chosen = _nearest(angles - offset, theirs, limit)
        if chosen is None:
            continue
        found = float(np.median(angles - theirs[chosen]))
        if all(abs(found - other) > limit for other, _ in fits):
            fits.append((found, chosen))
    fits = sorted(fits, key=lambda one: abs(one[0]))
    own = limit / 2 if is_stage else OWN_ANGLE
    if len(fits) == 1 or (fits and abs(fits[0][0]) <= own):
        return fits[0][1]
    if fits:
        values = " and ".join(f"{offset:.2f}" for offset, _ in fits[:2])
        what = f"Which sections of {path.name} are in the stack cannot be told: offsets of {values} degrees fit."
        expected = f"the microscope's angles of the stack's {len(angles)} sections, or an .mdoc of these alone"
        fix = "Put its NAME.rawtlt (IMOD: extracttilts), or NAME_TLT.txt (angle, order, dose), beside the alignment."
        raise ProblemError(Problem(what, str(path), expected, fix))
    apart = np.abs(angles[:, None] - theirs[None]).min(axis=1)
    section = int(apart.argmax())
    what = f"Section {section + 1} of the stack, at {angles[section]:.2f} degrees, is not in the .mdoc."
    raise ProblemError(Problem(what, str(path), "every section of the stack, one offset for all", _OTHER_MDOC))


def _nearest(angles: np.ndarray, theirs: np.ndarray, limit: float) -> np.ndarray | None:
    free, chosen = np.ones(len(theirs), dtype=bool), np.empty(len(angles), dtype=int)
    for section in range(len(angles) - 1, -1, -1):
        apart = np.where(free, np.abs(theirs - angles[section]), np.inf)
        near = np.flatnonzero(apart <= limit)
        if not len(near):
            return None
        chosen[section] = near[-1]
        free[near[-1]] = False
    return chosen
