"""Checks of the particles: labels, names, coordinates, numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from py2rely_core.checks.context import CheckContext, examples, missing_labels, not_numbers
from py2rely_core.problems import Problem, nearest

CENTRED = ("rlnCenteredCoordinateXAngst", "rlnCenteredCoordinateYAngst", "rlnCenteredCoordinateZAngst")
PIXEL = ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ")
ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
SIZES = ("rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ")

#: Below this many particles per half set, RELION's half maps mean nothing.
MINIMUM_PER_HALF = 5
#: Below this many, a run is allowed but unlikely to converge.
USUAL_PER_HALF = 50


def check_labels(context: CheckContext) -> Iterator[Problem]:
    """Required labels of the particles and of their optics groups."""
    inputs = context.inputs
    fix = "Add the labels; RELION 5 wants centred coordinates in Angstrom."
    required = ("rlnTomoName", "rlnOpticsGroup", *CENTRED)
    if context.mode == "known":
        required += ANGLES
        fix += " Known orientations are needed when there is neither a template nor a de novo model."
    yield from missing_labels(inputs.particles, required, f"{inputs.particles_file}, block data_particles", fix)
    optics = ("rlnOpticsGroup", "rlnOpticsGroupName", "rlnTomoTiltSeriesPixelSize")
    yield from missing_labels(inputs.optics, optics, f"{inputs.particles_file}, block data_optics", "Add the labels.")
    yield from not_numbers(inputs.particles, (*CENTRED, *ANGLES), f"{inputs.particles_file}, block data_particles")


def check_coordinate_conventions(context: CheckContext) -> Iterator[Problem]:
    """Centred and corner coordinates are not mixed."""
    present = [label for label in PIXEL if label in context.inputs.particles]
    if present and CENTRED[0] in context.inputs.particles:
        what = f"Both coordinate conventions are present: {present[0]} and {CENTRED[0]}."
        fix = "RELION 5 uses the centred coordinates; remove rlnCoordinateX/Y/Z if they are stale."
        yield Problem(what, str(context.inputs.particles_file), "one convention", fix, "warning")


def check_names(context: CheckContext) -> Iterator[Problem]:
    """Every particle belongs to a tilt series that is there."""
    particles, tomograms = context.inputs.particles, context.inputs.tomograms
    if "rlnTomoName" not in particles or "rlnTomoName" not in tomograms:
        return
    known = set(tomograms["rlnTomoName"])
    unknown = [str(name) for name in particles["rlnTomoName"].unique() if name not in known]
    if unknown:
        count = int(particles["rlnTomoName"].isin(unknown).sum())
        what = f"{count} particles belong to {len(unknown)} tilt series that are not there: {examples(unknown)}."
        hint = nearest(unknown[0], known)
        where = f"rlnTomoName in {context.inputs.particles_file} and {context.inputs.tilt_series_file}"
        fix = f"{unknown[0]}: {hint} " if hint else ""
        yield Problem(what, where, "the same names in both files", fix + "Rename, or remove these particles.")


def check_coordinates(context: CheckContext) -> Iterator[Problem]:
    """Every particle lies inside of its tomogram."""
    table = _with_sizes(context)
    if table.empty:
        return
    centred = table[list(CENTRED)].apply(pd.to_numeric, errors="coerce").to_numpy()
    sizes = table[list(SIZES)].apply(pd.to_numeric, errors="coerce").to_numpy()
    half = sizes / 2 * context.recipe.resolutions.angpix
    outside = (np.abs(centred) > half).any(axis=1)
    if outside.any():
        row = int(outside.argmax())
        what = f"{int(outside.sum())} of {len(table)} particles lie outside of their tomogram."
        seen = ", ".join(f"{value:.1f}" for value in centred[row])
        where = f"{context.inputs.particles_file}, first particle: {table.index[row] + 1} at ({seen}) A"
        expected = "within " + ", ".join(f"{value:.0f}" for value in half[row]) + " A of the centre (x, y, z)"
        fix = "Coordinates are Angstrom from the tomogram's centre: convert pixels or corner-based ones first."
        yield Problem(what, where, expected, fix)
    spread = np.nanmax(np.abs(centred), axis=0) / np.nanmin(half, axis=0)
    if len(table) >= 20 and (spread < 0.2).all():
        what = f"No particle is further than {spread.max():.0%} of the way from the centre to the edge on any axis."
        fix = "Check that the coordinates are Angstrom, not binned or unbinned pixels."
        yield Problem(what, str(context.inputs.particles_file), "a spread over the tomogram", fix, "warning")


def _with_sizes(context: CheckContext) -> pd.DataFrame:
    particles, tomograms = context.inputs.particles, context.inputs.tomograms
    needed = {"rlnTomoName", *SIZES}
    if not {"rlnTomoName", *CENTRED} <= set(particles) or not needed <= set(tomograms):
        return pd.DataFrame()
    sizes = tomograms.drop_duplicates("rlnTomoName").set_index("rlnTomoName")[list(SIZES)]
    table = particles[["rlnTomoName", *CENTRED]].join(sizes, on="rlnTomoName")
    return table.dropna(subset=list(SIZES))


def check_pixel_size(context: CheckContext) -> Iterator[Problem]:
    """The optics groups have the tilt series' pixel size and agree with one another."""
    optics, where = context.inputs.optics, f"{context.inputs.particles_file}, block data_optics"
    for label in ("rlnTomoTiltSeriesPixelSize", "rlnVoltage", "rlnSphericalAberration"):
        if label in optics and optics[label].nunique() > 1:
            values = examples([str(value) for value in optics[label].unique()])
            fix = "Split the particles into data sets of one optics each, or correct the values."
            yield Problem(f"Optics groups differ in {label}: {values}.", where, "one value", fix)
    if "rlnTomoTiltSeriesPixelSize" not in optics:
        return
    found = pd.to_numeric(optics["rlnTomoTiltSeriesPixelSize"], errors="coerce").iloc[0]
    expected = context.recipe.resolutions.angpix
    if not abs(found - expected) <= 1e-3 * expected:
        fix = "Correct the optics table or the parameter file."
        yield Problem(f"The particles' pixel size is {found:g} A.", where, f"resolutions.angpix = {expected:g} A", fix)


def check_optics_groups(context: CheckContext) -> Iterator[Problem]:
    """Every particle's optics group is described once."""
    particles, optics = context.inputs.particles, context.inputs.optics
    if "rlnOpticsGroup" not in particles or "rlnOpticsGroup" not in optics:
        return
    where = str(context.inputs.particles_file)
    unknown = sorted(set(particles["rlnOpticsGroup"]) - set(optics["rlnOpticsGroup"]))
    if unknown:
        fix = "Add a row to data_optics for each group."
        yield Problem(f"Optics groups without a row in data_optics: {unknown}.", where, "", fix)
    if optics["rlnOpticsGroup"].duplicated().any():
        yield Problem("An optics group is described twice.", where, "unique rlnOpticsGroup", "Merge the rows.")


def check_count(context: CheckContext) -> Iterator[Problem]:
    """There are enough particles for two half sets."""
    particles, where = context.inputs.particles, str(context.inputs.particles_file)
    if particles.empty:
        if not context.inputs.problems:
            yield Problem("There are no particles.", where, "at least one row", "Pick particles first.")
        return
    halves = [len(particles) // 2]
    if "rlnRandomSubset" in particles:
        halves = [int((particles["rlnRandomSubset"] == half).sum()) for half in (1, 2)]
    if min(halves) < MINIMUM_PER_HALF:
        what = f"A half set has only {min(halves)} particles."
        yield Problem(what, where, f"at least {MINIMUM_PER_HALF} per half set", "Add particles.")
    elif min(halves) < USUAL_PER_HALF:
        what = f"A half set has only {min(halves)} particles: expect a low resolution or none."
        yield Problem(what, where, f"{USUAL_PER_HALF} or more", "Add particles if you can.", "warning")


CHECKS = (
    check_labels,
    check_coordinate_conventions,
    check_names,
    check_coordinates,
    check_pixel_size,
    check_optics_groups,
    check_count,
)
