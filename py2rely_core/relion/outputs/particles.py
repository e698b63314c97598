"""What an extraction must have left behind."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np

from py2rely_core.data.tables import read_star, split_image_name
from py2rely_core.maps.masks import is_degenerate
from py2rely_core.relion.outputs.job import bad_output, kept_particles, particles_of, write_numbers

#: Stacks of extracted particles that are looked into.
SAMPLED_STACKS = 50


def check_extract(job: Path, particles: Path, box: int, pixel_size: float, of_tomograms: bool = False) -> None:
    """Extracted particles: rows as expected, images there and with content.

    Parameters
    ----------
    job : Path
        The extraction.
    particles : Path
        What was to be extracted.
    box : int
        Edge of the images, pixels.
    pixel_size : float
        Angstrom.
    of_tomograms : bool
        They were cut out of tomograms.
    """
    given, before = particles_of(job, particles), particles_of(job, kept_particles(job, particles))
    after = particles_of(job, job / "particles.star")
    optics = read_star(job / "particles.star")["optics"].iloc[0]
    if int(optics["rlnImageSize"]) != box:
        raise bad_output(job, f"the images have {optics['rlnImageSize']} pixels, not {box}.")
    if abs(float(optics["rlnImagePixelSize"]) - pixel_size) > 2e-3 * pixel_size:
        raise bad_output(job, f"the images have {optics['rlnImagePixelSize']} A per pixel, not {pixel_size:g}.")
    lost = len(before) - len(after)
    if lost > 0.5 * len(before):
        raise bad_output(job, f"{lost} of {len(before)} particles were lost: are their coordinates right?")
    rows = np.unique(np.linspace(0, len(after) - 1, SAMPLED_STACKS).astype(int))
    for name in after["rlnImageName"].iloc[rows]:
        _check_stack(job, Path(split_image_name(name)[1]))
    unseen = "too near the border of their tomogram" if of_tomograms else "not visible in any tilt"
    warnings = [f"{lost} particles are {unseen} and were left out."] if lost else []
    numbers = {"particles_in": len(given), "particles_out": len(after), "box": box, "pixel_size": pixel_size}
    left_out = len(given) - len(before)
    if left_out:
        more = f"; {lost} are {unseen}" if lost else ""
        numbers["reason"] = f"{left_out} are in tilt series that were left out{more}."
    write_numbers(job, warnings=warnings, **numbers)


def _check_stack(job: Path, stack: Path) -> None:
    try:
        with mrcfile.open(stack, permissive=True) as mrc:
            reason = is_degenerate(np.asarray(mrc.data, dtype=np.float32))
    except (OSError, ValueError) as error:
        raise bad_output(job, f"{stack} cannot be read: {error}") from error
    if reason:
        raise bad_output(job, f"{stack} holds no image: {reason}.")
