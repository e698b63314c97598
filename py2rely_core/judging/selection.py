"""Which classes go on: the table of a Class3D job, and the rule by which classes are kept.

The rule, ``auto``, for any number of classes:

1. A class with less than ``min_share`` of the particles is *small*.
2. A class has *no features* when its angles are known more than :data:`FEATURELESS` times worse than in the class, of
   those that are not small, where they are known best: noise that was aligned to the reference still resembles it at
   low resolution. The best class is, of those that are not small and have features, the one with the best
   resolution; of classes with the same, the one with the most particles.
3. A class *agrees* with the best one when, up to the ``agreement`` resolution (by default :data:`AGREEMENT` times the
   best class's), the Fourier shell correlation of their maps, within the mask, stays above 0.5, and is at least
   :data:`ALIKE` of what it is for two maps of one structure with their noise: another conformation resembles the best
   class closely, and differs by more than noise all the same (see :func:`likeness`). It does not agree where its images
   tell it from the best (:meth:`.Votes.distinct`), whatever the maps say.
4. Kept are the best class and all that agree with it, are not small and have features; and those that do not, but that
   nothing but chance tells from the best by their images (see :mod:`~py2rely_core.judging.class_test`): what makes them
   differ is noise.
5. No class is preferred, and all particles are kept, when RELION left them in the classes that it had drawn at random
   (see :func:`~py2rely_core.relion.outputs.refinements.is_stuck`); when another structure is as good as the best: a
   class that does not agree with it, is not small, has features, its resolution, and at least :data:`RIVAL` times the
   particles of those kept; or when fewer than ``min_per_half`` particles would be left in a half set.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from py2rely_core.data.tables import Blocks, read_star
from py2rely_core.judging.class_test import Votes
from py2rely_core.maps.fsc import first_crossing, fsc, shell_resolutions
from py2rely_core.maps.io import Map, Volume, read_map
from py2rely_core.maps.masks import is_degenerate, spherical_mask
from py2rely_core.problems import ExitCode, Problem, ProblemError
from py2rely_core.relion.outputs.refinements import is_stuck, share_moved

#: A class must agree with the best one up to this multiple of the best one's resolution.
AGREEMENT = 1.25
#: Angles that are known this many times worse than in the sharpest class are those of a map without features.
FEATURELESS = 3.0
#: A structure with this share of the kept particles, and the best resolution, is as good as the one that is kept.
RIVAL = 0.5
_CLASS_BLOCK = re.compile(r"model_class_\d+")
#: Correlation of two class maps that counts as agreement.
AGREEMENT_FSC = 0.5
#: Share of the correlation that noise allows, from which on two maps are of one structure.
ALIKE = 0.92


@dataclass(frozen=True)
class Choice:
    """How classes are chosen; the fields of the recipe's ``classification`` block."""

    selection: str = "auto"
    keep: tuple[int, ...] = ()
    best: int | None = None
    agreement: float | None = None
    min_share: float = 0.05
    min_per_half: int = 25


@dataclass(frozen=True)
class Selection:
    """Classes with what is known of each, which are kept, and the sentence that says why.

    Attributes
    ----------
    classes : DataFrame
        A row per class: ``class``, ``particles``, ``share``, ``resolution``, ``accuracy_rotation`` (degrees),
        ``accuracy_translation`` (Angstrom), ``similarity`` (Angstrom up to which it correlates with the best above
        0.5), ``likeness`` (see :func:`likeness`; NaN where it is not known), ``apart`` (how far its images tell it from
        the best, 0 to 1, see :meth:`.Votes.apart`; None where it is not known), ``kept``, ``why``.
    best : int or None
        Class that the next reference is made from; None: from all that are kept.
    reason : str
        The decision in one sentence.
    """

    classes: pd.DataFrame
    best: int | None
    reason: str

    @property
    def kept(self) -> list[int]:
        """Numbers of the classes that are kept."""
        return [int(number) for number in self.classes["class"][self.classes["kept"]]]


def choose_classes(
    job: Path, diameter: float, choice: Choice, mask: Path | None = None, votes: Votes | None = None
) -> Selection:
    """Judge the classes of a Class3D job.

    Parameters
    ----------
    job : Path
        Holds ``run_model.star``, ``run_data.star`` and ``run_class001.mrc``, ...
    diameter : float
        Of the particle, Angstrom: where there is no mask, maps are compared within a sphere.
    choice : Choice
    mask : Path, optional
    votes : Votes, optional
        Of the test whether classes are told apart by their images.

    Raises
    ------
    ProblemError
        The job's files are missing, or a class is named that it does not have.
    """
    count = len(read_star(job / "run_model.star")["model_classes"])
    maps = class_maps(job, count)
    stuck = is_stuck(share_moved(job))
    return judge_classes(job / "run_model.star", job / "run_data.star", maps, diameter, choice, mask, stuck, votes)


def agreement_limit(job: Path, choice: Choice) -> float:
    """To which resolution, Angstrom, classes are compared: given, or :data:`AGREEMENT` times the best class's."""
    blocks, particles = read_star(job / "run_model.star"), read_star(job / "run_data.star")["particles"]
    table = class_table(blocks, particles)
    return _limit(table, _best_of(table, choice.min_share), choice)


def _limit(table: pd.DataFrame, best: int, choice: Choice) -> float:
    return choice.agreement or AGREEMENT * float(table.set_index("class").loc[best, "resolution"])


def class_maps(job: Path, count: int) -> dict[int, Path]:
    """The map of each class of a finished classification, by its number from 1."""
    return {number: job / f"run_class{number:03d}.mrc" for number in range(1, count + 1)}


def judge_classes(
    model: Path,
    data: Path,
    map_files: dict[int, Path],
    diameter: float,
    choice: Choice,
    mask: Path | None = None,
    stuck: bool = False,
    votes: Votes | None = None,
) -> Selection:
    """Judge the classes of one iteration's files; as :func:`choose_classes`. `stuck`: they are as they were drawn."""
    particles = read_star(data)["particles"]
    blocks = read_star(model)
    table = class_table(blocks, particles)
    maps = {number: read_map(path) for number, path in map_files.items() if path.is_file()}
    best = _best_of(table, 0.0 if choice.selection == "manual" else choice.min_share)
    limit = _limit(table, best, choice)
    window = read_map(mask).data if mask else None
    compared = _with_likeness(table, maps, _signal_to_noise(blocks), best, limit, diameter, window)
    compared["apart"] = [votes.apart(number, best) if votes and number != best else None for number in table["class"]]
    if choice.selection == "manual":
        found = _manual(compared, choice)
    else:
        found = _automatic(compared, best, limit, choice, half_sets(particles), stuck, votes)
    return replace(found, reason=f"{found.reason} {votes.text}") if votes else found


def class_table(model: Blocks, particles: pd.DataFrame) -> pd.DataFrame:
    """What RELION says of each class in a ``model.star``, and how many particles it has."""
    numbers = particles["rlnClassNumber"].astype(int)
    counts = numbers.value_counts()
    rows = [
        {
            "class": number,
            "particles": int(counts.get(number, 0)),
            "share": counts.get(number, 0) / max(len(numbers), 1),
            "resolution": _known(row.get("rlnEstimatedResolution"), 998.0),
            "accuracy_rotation": _known(row.get("rlnAccuracyRotations"), 998.0),
            "accuracy_translation": _known(row.get("rlnAccuracyTranslationsAngst"), 998.0),
        }
        for number, row in enumerate(model["model_classes"].to_dict("records"), start=1)
    ]
    return pd.DataFrame(rows)


def _known(value: Any, unknown_from: float) -> float:
    """A number of RELION's, NaN where it stands for "not known" (999)."""
    number = float("nan") if value is None else float(value)
    return number if np.isfinite(number) and number < unknown_from else float("nan")


def half_sets(particles: pd.DataFrame) -> np.ndarray:
    """Class number and half set of every particle, (n, 2) int; half set 0 where it is not known."""
    halves = particles.get("rlnRandomSubset", 0)
    return particles.assign(half=halves)[["rlnClassNumber", "half"]].to_numpy(dtype=int)


def featureless(table: pd.DataFrame, min_share: float) -> pd.Series:
    """Which classes have no features, bool; unknown accuracies (no orientation could be judged) count as features."""
    sharpest = table["accuracy_rotation"][table["share"] >= min_share].min()
    return table["accuracy_rotation"] > FEATURELESS * sharpest


def _best_of(table: pd.DataFrame, min_share: float) -> int:
    eligible = table[(table["share"] >= min_share) & ~featureless(table, min_share)]
    eligible = eligible if len(eligible) else table
    order = eligible.assign(resolution=eligible["resolution"].fillna(np.inf))
    return int(order.sort_values(["resolution", "particles", "class"], ascending=[True, False, True])["class"].iloc[0])


def _signal_to_noise(model: Blocks) -> dict[int, np.ndarray]:
    """RELION's signal-to-noise ratio of each class's map, shell by shell from shell 0."""
    tables = {int(name.rsplit("_", 1)[1]): block for name, block in model.items() if _CLASS_BLOCK.fullmatch(name)}
    return {
        number: table["rlnSsnrMap"].to_numpy(dtype=float) for number, table in tables.items() if "rlnSsnrMap" in table
    }


def _with_likeness(
    table: pd.DataFrame,
    maps: dict[int, Map],
    ratios: dict[int, np.ndarray],
    best: int,
    limit: float,
    diameter: float,
    mask: Volume | None,
) -> pd.DataFrame:
    similarity, alike = [], []
    for number in table["class"]:
        similarity.append(np.nan)
        alike.append(np.nan)
        if not {number, best} <= set(maps):
            continue
        curve = correlation(maps[number], maps[best], diameter, mask)
        resolutions = shell_resolutions(maps[best].data.shape[0], maps[best].pixel_size)
        similarity[-1] = agreement(curve, resolutions)
        if {number, best} <= set(ratios) and np.isfinite([limit, similarity[-1]]).all():
            alike[-1] = likeness(curve, resolutions, (ratios[number], ratios[best]), limit)
    return table.assign(similarity=similarity, likeness=alike)


def correlation(first: Map, second: Map, diameter: float, mask: Volume | None = None) -> np.ndarray | None:
    """Fourier shell correlation of two maps, within a mask, or a sphere of `diameter` (Angstrom) where there is none.

    None for a map of nothing.
    """
    if is_degenerate(first.data) or is_degenerate(second.data):
        return None
    window = spherical_mask(first.data.shape[0], diameter / 2 / first.pixel_size) if mask is None else mask
    return fsc(first.data, second.data, window)


def agreement(curve: np.ndarray | None, resolutions: np.ndarray) -> float:
    """Resolution, Angstrom, up to which a correlation is above :data:`AGREEMENT_FSC`; inf for a map of nothing.

    Parameters
    ----------
    curve : (n,) array or None
        Of :func:`correlation`.
    resolutions : (n,) array
        Of its shells, Angstrom.
    """
    if curve is None:
        return float("inf")
    return first_crossing(resolutions, curve, AGREEMENT_FSC) or float(resolutions[-1])


def likeness(curve: np.ndarray, resolutions: np.ndarray, ratios: tuple[np.ndarray, np.ndarray], limit: float) -> float:
    """How much two maps correlate, as a share of what they would if they were of one structure.

    Two maps of one structure with signal-to-noise ratios S1 and S2 in a shell correlate by
    sqrt(S1 / (1 + S1)) sqrt(S2 / (1 + S2)) (Rosenthal & Henderson, 2003). Correlation and expectation are summed over
    the shells s up to `limit`, weighted with s^2 as their numbers of Fourier components: 1 for one structure.

    Parameters
    ----------
    curve : (n,) array
        Of :func:`correlation`.
    resolutions : (n,) array
        Of its shells, Angstrom.
    ratios : ((m,) array, (m,) array)
        Signal-to-noise ratio of each map, from shell 0.
    limit : float
        Angstrom.
    """
    shells = np.arange(min(len(curve), *map(len, ratios)))
    used = shells[(shells > 0) & (resolutions[shells] >= limit * (1 - 1e-6))]
    first, second = (np.clip(one[used], 0, None) for one in ratios)
    expected = np.sqrt(first / (1 + first) * second / (1 + second))
    total = float((expected * used**2).sum())
    return float((curve[used] * used**2).sum()) / total if total > 0 else np.nan


def _automatic(
    table: pd.DataFrame,
    best: int,
    limit: float,
    choice: Choice,
    halves: np.ndarray,
    stuck: bool,
    votes: Votes | None,
) -> Selection:
    small = table["share"] < choice.min_share
    empty = featureless(table, choice.min_share)
    # Neither is, where it is not known.
    same = pd.Series([bool(votes) and votes.alike(number, best) for number in table["class"]])
    distinct = pd.Series([bool(votes) and votes.distinct(number, best) for number in table["class"]])
    differs = (table["likeness"] < ALIKE) | distinct
    agrees = (table["similarity"] <= limit * (1 + 1e-6)) & ~differs
    left_out = small | (empty | ~agrees) & ~same
    kept = ~left_out | (table["class"] == best)
    why = [
        _why(one, best, *map(bool, (is_small, is_empty, good, is_same, is_distinct)), limit)
        for one, is_small, is_empty, good, is_same, is_distinct in zip(
            table.to_dict("records"), small, empty, agrees, same, distinct, strict=True
        )
    ]
    table = table.assign(kept=kept, why=why)
    drawn = "RELION left the particles in the classes that it had drawn at random." if stuck else None
    reason = drawn or _no_preference(table, best, small | empty, halves, choice)
    if reason:
        return Selection(table.assign(kept=True), None, f"All classes are kept: {reason}")
    numbers = ", ".join(str(number) for number in table["class"][kept])
    reason = f"Kept: class {numbers}, up to {limit:.1f} A one structure; class {best} is the best."
    return Selection(table, None, reason)


def _why(
    row: dict[str, Any], best: int, small: bool, empty: bool, agrees: bool, same: bool, distinct: bool, limit: float
) -> str:
    if row["class"] == best:
        return "the best resolution"
    if small:
        return "small"
    if same and (empty or not agrees):
        return "its images are not told apart from the best's"
    if empty:
        return f"no features: angles known to {row['accuracy_rotation']:.1f} degrees only"
    if distinct:
        return f"told apart from the best by its images: {row['apart']:.0%}"
    if row["similarity"] <= limit * (1 + 1e-6) and not agrees:
        return f"differs from the best by more than noise: {row['likeness']:.0%} alike to {limit:.1f} A"
    to = f"to {row['similarity']:.1f} A" if np.isfinite(row["similarity"]) else "nowhere"
    return f"agrees with the best {to}, " + ("enough" if agrees else f"not to {limit:.1f} A")


def _no_preference(
    table: pd.DataFrame, best: int, no_rival: pd.Series, halves: np.ndarray, choice: Choice
) -> str | None:
    """Why no class can be preferred, or None."""
    kept = table["kept"]
    if kept.all():
        return "they agree with one another."
    if not np.isfinite(table.set_index("class").loc[best, "resolution"]):
        return "no class has a resolution."
    rivals = table[
        ~kept
        & ~no_rival
        & (table["resolution"] <= table.loc[table["class"] == best, "resolution"].item() * (1 + 1e-6))
        & (table["particles"] >= RIVAL * table["particles"][kept].sum())
    ]
    if len(rivals):
        numbers = ", ".join(str(number) for number in rivals["class"])
        return f"class {numbers} is another structure, as good as class {best}: choose with --class_selection manual."
    left = halves[np.isin(halves[:, 0], table["class"][kept])]
    fewest = min((left[:, 1] == half).sum() for half in (1, 2)) if left[:, 1].any() else len(left) // 2
    if fewest < choice.min_per_half:
        return f"only {fewest} particles per half set would be left, of at least {choice.min_per_half}."
    return None


def _manual(table: pd.DataFrame, choice: Choice) -> Selection:
    known = {int(number) for number in table["class"]}
    unknown = sorted(set(choice.keep) - known | ({choice.best} - known - {None}))
    if unknown:
        what = f"There is no class {', '.join(map(str, unknown))}."
        raise ProblemError(
            Problem(what, "keep_classes", f"1 to {max(known)}", "Correct the numbers."), ExitCode.BAD_PARAMETERS
        )
    kept = table["class"].isin(choice.keep) if choice.keep else pd.Series(False, index=table.index)
    why = ["chosen" if one else "not chosen" if choice.keep else "to be chosen" for one in kept]
    table = table.assign(kept=kept, why=why)
    if not choice.keep:
        return Selection(table, None, "Classes are to be chosen.")
    numbers = ", ".join(map(str, choice.keep))
    return Selection(table, choice.best, f"Kept: class {numbers}; the next reference is class {choice.best}.")


def of_classes(blocks: Blocks, classes: list[int]) -> Blocks:
    """A particle set's blocks, with the particles of some classes only; optics groups without particles go, too."""
    particles = blocks["particles"]
    kept = particles[particles["rlnClassNumber"].astype(int).isin(classes)]
    result = dict(blocks) | {"particles": kept}
    if "optics" in blocks and "rlnOpticsGroup" in kept:
        result["optics"] = blocks["optics"][blocks["optics"]["rlnOpticsGroup"].isin(kept["rlnOpticsGroup"])]
    return result


def as_records(selection: Selection) -> list[dict[str, Any]]:
    """The table as JSON-ready rows; None for what is not known."""
    table = selection.classes.astype(object)
    finite = table.map(lambda value: not isinstance(value, float) or np.isfinite(value))
    return table.where(finite, None).to_dict("records")


def records_as_text(records: list[dict[str, Any]], alike: bool = True) -> list[str]:
    """The rows of :func:`as_records` as lines for a terminal, a heading first; `alike`: with how alike classes are."""
    heads = ("resol. A", "rot. deg", "shift A", *(("alike A", "alike", "apart") if alike else ()))
    known = ("resolution", "accuracy_rotation", "accuracy_translation", *(("similarity",) if alike else ()))
    lines = [f"{'class':>5} {'particles':>9} {'share':>6} " + " ".join(f"{head:>8}" for head in heads) + "  kept  why"]
    for row in records:
        numbers = (row[key] for key in known)
        shown = " ".join(f"{'-' if number is None else format(number, '.1f'):>8}" for number in numbers)
        shares = (row["likeness"], row.get("apart")) if alike else ()
        shown += "".join(f" {'-' if share is None else format(share, '.0%'):>8}" for share in shares)
        kept = "yes" if row["kept"] else "no"
        lines.append(f"{row['class']:>5} {row['particles']:>9} {row['share']:>6.1%} {shown}  {kept:<4}  {row['why']}")
    return lines


def as_text(selection: Selection, alike: bool = True) -> str:
    """The table for a terminal, and the sentence below it; `alike` as for :func:`records_as_text`."""
    return "\n".join([*records_as_text(as_records(selection), alike), selection.reason]) + "\n"
