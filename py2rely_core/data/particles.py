"""Particle tables: where particles truly are, and which of them are one."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from py2rely_core.data.geometry import true_positions

#: Labels by which the better of two particles is known, the first that is there; higher is better.
SCORES = ("rlnLogLikeliContribution", "rlnMaxValueProbDistribution")


#: Of the division into half sets, where the particles have none.
HALVES_SEED = 1


def half_sets(particles: pd.DataFrame) -> np.ndarray:
    """A division into half sets of about the same size, (n,) of 1 and 2; whole filaments are in one of them.

    Neighbours in a filament overlap: in two half sets they would share noise, and raise the FSC. A filament is what has
    one ``rlnHelicalTubeID`` in one tomogram.

    Parameters
    ----------
    particles : DataFrame
        Of one data set.
    """
    rng = np.random.default_rng(HALVES_SEED)
    filament = filaments(particles)
    if filament is None:
        return rng.permutation(np.arange(len(particles)) % 2 + 1)
    counts = np.bincount(filament)
    order = rng.permutation(len(counts))
    half, sizes = np.zeros(len(counts), dtype=int), [0, 0]
    # The longest first, each to the smaller half.
    for one in order[np.argsort(-counts[order], kind="stable")]:
        smaller = int(sizes[1] < sizes[0])
        half[one] = smaller + 1
        sizes[smaller] += counts[one]
    return half[filament]


def filaments(particles: pd.DataFrame) -> np.ndarray | None:
    """The filament of each particle, (n,) int from 0; None where particles are in no filaments."""
    if "rlnHelicalTubeID" not in particles or "rlnTomoName" not in particles or particles.empty:
        return None
    return particles.groupby(["rlnTomoName", "rlnHelicalTubeID"], sort=False, dropna=False).ngroup().to_numpy()


def without_duplicates(particles: pd.DataFrame, distance: float) -> pd.DataFrame:
    """Of particles that are closer to each other than `distance`, keep those that score better.

    Parameters
    ----------
    particles : DataFrame
        Refined particles of any number of tomograms.
    distance : float
        Angstrom.

    Returns
    -------
    DataFrame
        The rows that are kept, in their order.
    """
    positions = true_positions(particles)
    label = next((label for label in SCORES if label in particles), None)
    score = particles[label].to_numpy(dtype=float) if label else -np.arange(len(particles), dtype=float)
    keep = np.ones(len(particles), dtype=bool)
    for rows in particles.reset_index(drop=True).groupby("rlnTomoName", sort=False).indices.values():
        tree = cKDTree(positions[rows])
        for local in np.argsort(-score[rows], kind="stable"):
            if keep[rows[local]]:
                close = [other for other in tree.query_ball_point(positions[rows[local]], distance) if other != local]
                keep[rows[close]] = False
    return particles[keep]
