"""Particle tables: where particles truly are, and which of them are one."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from py2rely_core.data.geometry import true_positions

#: Labels by which the better of two particles is known, the first that is there; higher is better.
SCORES = ("rlnLogLikeliContribution", "rlnMaxValueProbDistribution")


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
