"""The particle set that goes on from a refinement."""

from __future__ import annotations

from pathlib import Path

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.relion.outputs.job import bad_output, write_numbers


def select_particles(source: Path, distance: float, job: Path) -> None:
    """Write a new particle set: without duplicates closer than `distance` (Angstrom, 0 keeps all)."""
    from py2rely_core.data.particles import without_duplicates

    blocks = read_star(source)
    before = blocks["particles"]
    blocks["particles"] = without_duplicates(before, distance) if distance > 0 else before
    write_star(blocks, job / "particles.star")
    removed = len(before) - len(blocks["particles"])
    kept = len(blocks["particles"])
    if kept < 4:
        raise bad_output(job, f"only {kept} of {len(before)} particles are left when duplicates are removed.")
    numbers = {"particles_in": len(before), "particles_out": kept, "duplicates_removed": removed, "distance": distance}
    write_numbers(job, **numbers, inputs=[str(source)])
