"""Checks of the particles: labels, names, optics, half sets, duplicates. Where they are is in ``coordinates``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from py2rely_core.checks.context import (
    CheckContext,
    as_numbers,
    at_rows,
    examples,
    missing_labels,
    not_numbers,
)
from py2rely_core.data.geometry import ANGLES, CENTRED, ORIGINS, PIXEL
from py2rely_core.data.names import match
from py2rely_core.data.particles import filaments, half_sets
from py2rely_core.problems import Problem, nearest

SUBTOMOGRAM = tuple(f"rlnTomoSubtomogram{name}" for name in ("Rot", "Tilt", "Psi"))
#: Below this many particles per half set, RELION's half maps mean nothing.
MINIMUM_PER_HALF = 5
#: Below this many, a run is allowed but unlikely to converge.
USUAL_PER_HALF = 50
#: Positions closer than this, Angstrom, are written from the same pick.
SAME_POSITION = 0.01


def check_labels(context: CheckContext) -> Iterator[Problem]:
    """Required labels of the particles and of their optics groups, and numbers in them."""
    inputs = context.inputs
    where, fix = f"{inputs.particles_file}, block data_particles", "Add the labels."
    required = ["rlnTomoName", "rlnOpticsGroup"]
    if not set(PIXEL) <= set(inputs.particles):
        required += CENTRED
        fix += " RELION 5 wants centred coordinates in Angstrom."
    if context.mode == "known":
        required += ANGLES
        fix += " Known orientations are needed when there is neither a template nor a de novo model."
    yield from missing_labels(inputs.particles, required, where, fix)
    yield from not_numbers(inputs.particles, (*CENTRED, *ANGLES, *ORIGINS, *SUBTOMOGRAM), where)


def check_orientations(context: CheckContext) -> Iterator[Problem]:
    """Orientations that are taken as known are not all the same: programs that have none write zeros."""
    local = context.recipe.initial_reference.known_search == "local"
    known = context.particle_values([*ANGLES])
    if context.mode != "known" or not local or known is None or len(known) < 2 or known.any():
        return
    own = context.particle_values([*SUBTOMOGRAM])
    if own is None or not own.any():
        what = f"All {len(known)} particles have the same orientation, 0: it is not known."
        fix = "Give --reference_template, or --run_denovo_generation; or particles with orientations."
        yield Problem(what, str(context.inputs.particles_file), "orientations of their own", fix, "warning")


def check_optics_labels(context: CheckContext) -> Iterator[Problem]:
    """Required labels of the optics groups, and numbers in them."""
    where = f"{context.inputs.particles_file}, block data_optics"
    required = ("rlnOpticsGroup", "rlnOpticsGroupName", "rlnTomoTiltSeriesPixelSize")
    required += ("rlnVoltage", "rlnSphericalAberration")
    yield from missing_labels(context.inputs.optics, required, where, "Add the labels.")
    yield from not_numbers(context.inputs.optics, required[2:], where)


def check_names(context: CheckContext) -> Iterator[Problem]:
    """Every particle belongs to a tilt series that is there."""
    tomograms = context.inputs.tomograms
    if "rlnTomoName" not in tomograms or not context.particle_rows:
        return
    known = set(tomograms["rlnTomoName"].astype(str))
    unknown = [name for name in context.particle_rows if name not in known]
    if unknown:
        count = sum(len(context.particle_rows[name]) for name in unknown)
        what = f"{count} particles belong to {len(unknown)} tilt series that are not there: {examples(unknown)}."
        where = f"rlnTomoName in {context.inputs.particles_file} and {context.inputs.tilt_series_file}"
        yield Problem(
            what,
            where,
            "the same names in both files",
            f"{_proposal(unknown, known)}Rename, or remove these particles.",
        )


def _proposal(unknown: list[str], known: set[str]) -> str:
    """Which known names are meant: what is left without a program's decoration, or else the nearest name."""
    matched, _ = match(unknown[:3], sorted(known))
    found = [f"{name}: did you mean '{meant}'?" for name, meant in matched.items()]
    if not found:
        found = [f"{name}: {hint}" for name in unknown[:3] if (hint := nearest(name, known))]
    return " ".join([*found, ""])


def check_unused(context: CheckContext) -> Iterator[Problem]:
    """Every tilt series holds particles."""
    tomograms = context.inputs.tomograms
    if "rlnTomoName" not in tomograms or not context.particle_rows:
        return
    names = list(tomograms["rlnTomoName"].astype(str).unique())
    unused = [name for name in names if name not in context.particle_rows]
    if unused and len(unused) < len(names):
        what = f"{len(unused)} of {len(names)} tilt series hold no particles and are left out."
        where = f"{context.inputs.tilt_series_file}: {examples(unused)}"
        yield Problem(what, where, "particles in each", "Nothing, if that is meant.", "warning")


def check_pixel_size(context: CheckContext) -> Iterator[Problem]:
    """The optics groups have the tilt series' pixel size, voltage and aberration, and agree with one another."""
    optics, where = context.inputs.optics, f"{context.inputs.particles_file}, block data_optics"
    for label in ("rlnTomoTiltSeriesPixelSize", "rlnVoltage", "rlnSphericalAberration"):
        if label in optics and optics[label].nunique() > 1:
            values = examples([str(value) for value in optics[label].unique()])
            fix = "Split the particles into data sets of one optics each, or correct the values."
            yield Problem(f"Optics groups differ in {label}: {values}.", where, "one value", fix)
    for label in ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"):
        if label in optics and label in context.inputs.tomograms:
            ours, theirs = as_numbers(optics[label])[:1], as_numbers(context.inputs.tomograms[label])[:1]
            if ours.size and theirs.size and abs(ours[0] - theirs[0]) > 1e-3 * max(1.0, abs(theirs[0])):
                what = f"{label} is {ours[0]:g} for the particles and {theirs[0]:g} for the tilt series."
                yield Problem(what, where, "the same value", "Correct the one that is wrong.")
    if "rlnTomoTiltSeriesPixelSize" in optics:
        found, expected = as_numbers(optics["rlnTomoTiltSeriesPixelSize"])[0], context.pixel_size
        if abs(found - expected) > 1e-3 * expected:
            what, fix = f"The particles' pixel size is {found:g} A.", "Correct the optics table or the parameter file."
            yield Problem(what, where, f"resolutions.angpix = {expected:g} A", fix)


def check_optics_groups(context: CheckContext) -> Iterator[Problem]:
    """Every particle's optics group is described once, and groups that are the same are one."""
    particles, optics = context.inputs.particles, context.inputs.optics
    where = str(context.inputs.particles_file)
    if "rlnOpticsGroup" not in particles or "rlnOpticsGroup" not in optics:
        return
    unknown = sorted(set(particles["rlnOpticsGroup"].unique().tolist()) - set(optics["rlnOpticsGroup"].tolist()))
    if unknown:
        fix = "Add a row to data_optics for each group."
        yield Problem(f"Optics groups without a row in data_optics: {unknown}.", where, "", fix)
    if optics["rlnOpticsGroup"].duplicated().any():
        yield Problem("An optics group is described twice.", where, "unique rlnOpticsGroup", "Merge the rows.")
    values = optics.drop(columns=["rlnOpticsGroup", "rlnOpticsGroupName"], errors="ignore")
    if len(optics) > 1 and len(values.drop_duplicates()) == 1:
        what = f"{len(optics)} optics groups are the same: RELION estimates noise and scale for each on its own."
        fix = "Give all particles one optics group, unless each stands for a microscope session."
        yield Problem(what, where, "one group", fix, "warning")


def check_extraction_traces(context: CheckContext) -> Iterator[Problem]:
    """Box and pixel size of an earlier extraction, where they are written, are one."""
    optics = context.inputs.optics
    for label in ("rlnImageSize", "rlnImagePixelSize", "rlnTomoSubtomogramBinning"):
        if label in optics and optics[label].nunique() > 1:
            values = examples([str(value) for value in optics[label].unique()])
            what = f"Optics groups come from extractions that differ in {label}: {values}."
            fix = "The particles are extracted anew; check that the sets that were joined belong together."
            yield Problem(what, f"{context.inputs.particles_file}, block data_optics", "one value", fix, "warning")


def check_count(context: CheckContext) -> Iterator[Problem]:
    """There are enough particles for two half sets."""
    particles, where = context.inputs.particles, str(context.inputs.particles_file)
    if particles.empty:
        if not context.inputs.problems:
            yield Problem("There are no particles.", where, "at least one row", "Pick particles first.")
        return
    subset = as_numbers(particles["rlnRandomSubset"]) if "rlnRandomSubset" in particles else half_sets(particles)
    halves = [int((subset == half).sum()) for half in (1, 2)]
    if min(halves) < MINIMUM_PER_HALF:
        what = f"A half set has only {min(halves)} particles."
        yield Problem(what, where, f"at least {MINIMUM_PER_HALF} per half set", "Add particles.")
    elif min(halves) < USUAL_PER_HALF:
        what = f"A half set has only {min(halves)} particles: expect a low resolution or none."
        yield Problem(what, where, f"{USUAL_PER_HALF} or more", "Add particles if you can.", "warning")


def check_half_sets(context: CheckContext) -> Iterator[Problem]:
    """Every particle is in half set 1 or 2, and the two are of about the same size."""
    particles = context.inputs.particles
    if "rlnRandomSubset" not in particles or particles.empty:
        return
    subset = as_numbers(particles["rlnRandomSubset"])
    bad = ~np.isin(subset, (1, 2))
    if bad.any():
        fix = "Remove the label, and RELION splits the particles anew; or give every particle a half set."
        what = f"{int(bad.sum())} of {len(bad)} particles are in no half set."
        yield Problem(what, at_rows(context.inputs.particles_file, bad), "rlnRandomSubset 1 or 2", fix)
    first, second = (int((subset == half).sum()) for half in (1, 2))
    if min(first, second) and max(first, second) > 1.5 * min(first, second):
        what = f"The half sets are uneven: {first} and {second} particles."
        fix = "Remove the label, and RELION splits the particles anew."
        yield Problem(what, str(context.inputs.particles_file), "about half of the particles each", fix, "warning")


def check_filaments(context: CheckContext) -> Iterator[Problem]:
    """No filament is in both half sets, and half sets of whole filaments are about even."""
    particles, where = context.inputs.particles, str(context.inputs.particles_file)
    filament = filaments(particles)
    if filament is None:
        return
    yield from not_numbers(particles, ("rlnHelicalTubeID",), where)
    if "rlnRandomSubset" not in particles:
        first, second = (int((half_sets(particles) == half).sum()) for half in (1, 2))
        if max(first, second) > 1.5 * min(first, second):
            what = f"Whole filaments do not divide evenly: half sets of {first} and {second} particles."
            fix = (
                "There are few filaments, or one is long: add others, or give its parts rlnHelicalTubeID of their own."
            )
            yield Problem(what, f"{where}: {filament.max() + 1} filaments", "about half each", fix, "warning")
        return
    subset = as_numbers(particles["rlnRandomSubset"])
    halves = pd.DataFrame({"filament": filament, "half": subset}).groupby("filament")["half"].nunique()
    split = np.isin(filament, halves.index[halves.to_numpy() > 1])
    if split.any():
        count = int((halves > 1).sum())
        what = (
            f"{count} of {len(halves)} filaments are in both half sets: neighbours share noise, which raises the FSC."
        )
        fix = "Remove rlnRandomSubset: whole filaments are then put into one half set each. "
        fix += "If these are no filaments, remove rlnHelicalTubeID."
        # Refined against both half maps, particles cannot be made independent any more.
        severity = "error" if context.start == "picks" else "warning"
        fix += "" if context.start == "picks" else " Half sets that a refinement used have to be refined anew for that."
        expected = "each filament (rlnTomoName and rlnHelicalTubeID) in one half set"
        yield Problem(what, at_rows(context.inputs.particles_file, split), expected, fix, severity)


def check_particle_names(context: CheckContext) -> Iterator[Problem]:
    """No two particles have the same name."""
    particles = context.inputs.particles
    if "rlnTomoParticleName" not in particles:
        return
    twice = particles["rlnTomoParticleName"].duplicated().to_numpy()
    if twice.any():
        what = f"{int(twice.sum())} names of particles are used twice."
        fix = "Remove the label, and RELION names the particles; or remove particles that are there twice."
        yield Problem(what, at_rows(context.inputs.particles_file, twice), "unique rlnTomoParticleName", fix)


def check_duplicates(context: CheckContext) -> Iterator[Problem]:
    """No particle is there twice; and how many are so close that they are one."""
    if context.positions is None:
        return
    limit = context.recipe.duplicates.distance_fraction * context.recipe.refine3D.particle_diameter
    nearest_other = np.full(len(context.positions), np.inf)
    for rows in context.particle_rows.values():
        finite = rows[np.isfinite(context.positions[rows]).all(axis=1)]
        if len(finite) > 1:
            positions = context.positions[finite]
            nearest_other[finite] = cKDTree(positions).query(positions, k=2)[0][:, 1]
    same = np.flatnonzero(nearest_other < SAME_POSITION)
    values = [context.positions, context.particle_values(ANGLES)]
    poses = np.column_stack([one[same] for one in values if one is not None])
    table = pd.DataFrame(np.rint(poses / SAME_POSITION))
    table["name"] = context.inputs.particles["rlnTomoName"].to_numpy()[same]
    copied = same[table.duplicated().to_numpy()]
    near = np.setdiff1d(np.flatnonzero(nearest_other <= limit), same[table.duplicated(keep=False).to_numpy()])
    count, where = len(context.positions), str(context.inputs.particles_file)
    if copied.size:
        what = f"{copied.size} of {count} particles are copies of another: same position, same angles."
        where_first = f"{where}, first in row {copied[0] + 1}"
        fix = "Remove the copies: in two half sets, they make the FSC better than the map."
        yield Problem(what, where_first, "each particle once", fix)
    if near.size:
        what = f"{near.size} of {count} particles are closer to another than {limit:.0f} A."
        fix = "The worse of two is removed after the first refinement (duplicates.distance_fraction)."
        yield Problem(what, f"{where}, first in row {near[0] + 1}", f"{limit:.0f} A or more", fix, "warning")


def check_subtomogram_angles(context: CheckContext) -> Iterator[Problem]:
    """Orientations of the subtomograms' own frames are complete, and known to be used."""
    present = [label for label in SUBTOMOGRAM if label in context.inputs.particles]
    where = str(context.inputs.particles_file)
    if present and len(present) < len(SUBTOMOGRAM):
        gone = [label for label in SUBTOMOGRAM if label not in present]
        fix = "Write all three, or none."
        yield Problem(f"Of the subtomogram's angles, {', '.join(gone)} is missing.", where, ", ".join(SUBTOMOGRAM), fix)
    values = context.particle_values(SUBTOMOGRAM)
    if values is not None and (np.nan_to_num(values) != 0).any():
        what = "Subtomograms have orientations of their own (rlnTomoSubtomogramRot/Tilt/Psi are not zero)."
        fix = "rlnAngleRot/Tilt/Psi and shifts are relative to them; other programs often ignore them."
        yield Problem(what, where, "", fix, "warning")


CHECKS = (
    check_labels,
    check_orientations,
    check_optics_labels,
    check_names,
    check_unused,
    check_pixel_size,
    check_optics_groups,
    check_extraction_traces,
    check_count,
    check_half_sets,
    check_filaments,
    check_particle_names,
    check_duplicates,
    check_subtomogram_angles,
)
