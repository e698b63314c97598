"""What else is in a tomogram: other proteins, gold beads and membranes, clear of the picks and of each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TypeVar

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from py2rely_core.data.geometry import AXES
from py2rely_core.simulation.settings import Settings, Stream
from py2rely_core.simulation.structures import BEAD_SIGMA, RESIDUE_SIGMA, Structure, make_junk

Found = TypeVar("Found")
#: Diameters of the other proteins, shares of the particle's; there is one protein of each.
NEIGHBOUR_SIZES = (0.5, 0.7, 0.9, 1.1)
#: Domains of another protein, balls within its diameter, and their diameters as a share of its.
DOMAINS, DOMAIN_SIZES = 5, (0.35, 0.6)
#: Points of another protein: one in a cube of such an edge (Angstrom), and so many at most.
SPACING, MOST_POINTS = 7.0, 3000
#: Edge of a patch of membrane is 1.5 times so many diameters of the particle.
PATCH = 2.0
#: What other things keep from the middle of a membrane, Angstrom: half of a bilayer.
MEMBRANE_RADIUS = 30.0
#: A bead is a Gaussian: what is taken for its radius, and twice that for its image, in units of sigma.
BEAD_RADIUS = 2.0
#: Places that are tried for each thing.
TRIES = 2000
#: Of the transforms of few points, which take half of the time with it.
OVERSAMPLING = 1.25
#: Weight by volume of an invented particle of 130 A, for which the contrast of ``make_junk`` is made; 1/Angstrom^3.
INVENTED_DENSITY = 400 / 130.0**3


@dataclass(frozen=True)
class Group:
    """Things of one structure in a tomogram.

    Attributes
    ----------
    kind : str
        ``other``, ``beads`` or ``membranes``.
    structure : Structure
    diameter : float
        Angstrom.
    poses : (n, 3, 3) float
        From the structure to the tomogram.
    positions : (n, 3) float
        Angstrom from the tomogram's centre.
    """

    kind: str
    structure: Structure
    diameter: float
    poses: np.ndarray
    positions: np.ndarray

    def rows(self, tomogram: str) -> pd.DataFrame:
        """Where the things are, a row for each."""
        places = {axis.lower(): self.positions[:, i] for i, axis in enumerate(AXES)}
        return pd.DataFrame({"tomogram": tomogram, "kind": self.kind, "diameter": self.diameter} | places)


@dataclass
class _Space:
    """A tomogram, and the balls in it that are taken: centres (n, 3) and radii (n,), Angstrom."""

    half: np.ndarray
    centres: np.ndarray
    radii: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def has(self, points: np.ndarray, radius: float) -> bool:
        """Whether balls of a radius about points, (m, 3), are free."""
        return bool((cdist(points, self.centres) > radius + self.radii).all())

    def take(self, points: np.ndarray, radius: float) -> None:
        self.centres = np.concatenate([self.centres, points])
        self.radii = np.concatenate([self.radii, np.full(len(points), radius)])

    def place(self, rng: np.random.Generator, radius: float) -> np.ndarray | None:
        """A place for a ball, of which only x and y may reach beyond the tomogram; None: it is taken."""
        within = np.maximum(self.half - np.array([0.0, 0.0, radius]), 1.0)
        position = rng.uniform(-within, within)
        return position if self.has(position[None], radius) else None


def surroundings(settings: Settings, number: int, picks: np.ndarray, particle: Structure) -> list[Group]:
    """What is in a tomogram beside its picks.

    Each thing has random numbers of its own: one that had to give way to another moves no third one.

    Parameters
    ----------
    settings : Settings
    number : int
        Of the tilt series, counted from 1.
    picks : (n, 3) float
        Angstrom from the tomogram's centre; nothing comes nearer than the particle's radius.
    particle : Structure
        The density of proteins, and the contrast of the others, follow from it.

    Raises
    ------
    ValueError
        They do not fit.
    """
    size = np.array([settings.image_size, settings.image_size, settings.thickness]) * settings.pixel_size
    space = _Space(size / 2, picks, np.full(len(picks), settings.diameter / 2))
    density = particle.weights.sum() / settings.diameter**3
    groups = [_membrane(settings, number, one, space, density) for one in range(settings.effects.membranes)]
    groups += _beads(settings, number, space, density)
    return groups + _neighbours(settings, number, space, density)


def _try(attempt: Callable[[], Found | None], what: str) -> Found:
    for _ in range(TRIES):
        found = attempt()
        if found is not None:
            return found
    raise ValueError(f"there is no room for {what} beside the picks: simulate fewer, or larger images")


def _membrane(settings: Settings, number: int, one: int, space: _Space, density: float) -> Group:
    """A flat bilayer in a random direction, cut off where the tomogram ends; most of it is within."""
    rng = settings.stream(number, Stream.MEMBRANES, one)
    whole = _scaled(make_junk("membranes", PATCH * settings.diameter, 0), density / INVENTED_DENSITY)
    leaflet = whole.centres * np.array([1.0, 1.0, 0.0])

    def attempt() -> Group | None:
        position, turn = rng.uniform(-space.half, space.half), Rotation.random(rng=rng)
        inside = (np.abs(turn.apply(whole.centres) + position) < space.half).all(axis=1)
        points = turn.apply(leaflet[inside]) + position
        if inside.mean() < 0.5 or not space.has(points, MEMBRANE_RADIUS):
            return None
        space.take(points, MEMBRANE_RADIUS)
        kept = replace(whole, centres=whole.centres[inside], weights=whole.weights[inside])
        extent = 2 * float(np.linalg.norm(kept.centres, axis=1).max())
        return Group("membranes", kept, extent, turn.as_matrix()[None], position[None])

    return _try(attempt, "a membrane")


def _beads(settings: Settings, number: int, space: _Space, density: float) -> list[Group]:
    bead = _scaled(make_junk("beads", settings.diameter, 0), density / INVENTED_DENSITY)
    radius, positions = BEAD_RADIUS * BEAD_SIGMA, []
    for one in range(settings.effects.beads):
        rng = settings.stream(number, Stream.BEADS, one)
        positions.append(_try(lambda rng=rng: space.place(rng, radius), "a gold bead"))
        space.take(positions[-1][None], radius)
    return [Group("beads", bead, 2 * radius, _upright(positions), np.array(positions))] if positions else []


def _neighbours(settings: Settings, number: int, space: _Space, density: float) -> list[Group]:
    """Proteins of several sizes, of the particle's own density."""
    places: dict[float, list[np.ndarray]] = {size: [] for size in NEIGHBOUR_SIZES}
    poses: dict[float, list[np.ndarray]] = {size: [] for size in NEIGHBOUR_SIZES}
    for one in range(round(settings.effects.neighbours * settings.particles)):
        rng = settings.stream(number, Stream.NEIGHBOURS, one)
        size = NEIGHBOUR_SIZES[rng.integers(len(NEIGHBOUR_SIZES))]
        poses[size].append(Rotation.random(rng=rng).as_matrix())
        radius = size * settings.diameter / 2
        places[size].append(_try(lambda rng=rng, radius=radius: space.place(rng, radius), "another protein"))
        space.take(places[size][-1][None], radius)
    groups = []
    for kind, size in enumerate(NEIGHBOUR_SIZES):
        if places[size]:
            diameter = size * settings.diameter
            protein = make_protein(diameter, density * diameter**3, np.random.default_rng([settings.seed, 3000, kind]))
            groups.append(Group("other", protein, diameter, np.array(poses[size]), np.array(places[size])))
    return groups


def make_protein(diameter: float, weight: float, rng: np.random.Generator) -> Structure:
    """A protein of several domains, evenly filled: the chain of ``make_structure`` fills no large one.

    Parameters
    ----------
    diameter : float
        Angstrom.
    weight : float
        Of the whole.
    rng : Generator
    """
    radii = diameter / 2 * rng.uniform(*DOMAIN_SIZES, DOMAINS)
    directions = rng.normal(size=(DOMAINS, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    middles = directions * (diameter / 2 - radii)[:, None]
    box = rng.uniform(-diameter / 2, diameter / 2, (ceil((diameter / SPACING) ** 3), 3))
    inside = (cdist(box, middles) < radii).any(axis=1)
    centres = box[inside][:MOST_POINTS]
    # Where they are few for their volume they are wide: then none stands out.
    apart = (inside.mean() * diameter**3 / len(centres)) ** (1 / 3)
    return Structure(centres, np.full(len(centres), weight / len(centres)), max(RESIDUE_SIGMA, apart / 3))


def _upright(positions: list[np.ndarray]) -> np.ndarray:
    return np.broadcast_to(np.eye(3), (len(positions), 3, 3))


def _scaled(structure: Structure, factor: float) -> Structure:
    return replace(structure, weights=structure.weights * factor)
