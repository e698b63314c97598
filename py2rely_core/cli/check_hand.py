"""``py2rely check-hand``: which hand the tilt series have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    tilt_series: Annotated[Path, typer.Option("--tilt-series", "-ts", help="Tilt-series STAR file.")],
    particles: Annotated[Path, typer.Option("--particles", "-p", help="Particles with orientations.")],
    diameter: Annotated[float, typer.Option("--protein-diameter", "-pd", help="Particle diameter, Angstrom.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New directory for the maps.")] = Path("check_hand"),
    count: Annotated[int, typer.Option("--count", "-n", min=20, help="Particles to use.")] = 1000,
    binning: Annotated[int, typer.Option("--binning", "-b", min=1, help="Binning; the hand shows at fine ones.")] = 1,
    symmetry: Annotated[str, typer.Option("--symmetry", "-s", help="Point group of the particle.")] = "C1",
    threads: Annotated[int, typer.Option("--nthreads", "-nj", min=1, help="Threads.")] = 2,
) -> None:
    """Reconstruct a subset of particles with both hands (rlnTomoHand) and show which is better."""
    from py2rely_core.judging.hand import HANDS, check_hand

    found = check_hand(tilt_series, particles, diameter, output, count, binning, symmetry, threads)
    nyquist = found.resolutions[-1]
    typer.echo(f"{found.particles} particles, half maps compared up to {nyquist:.1f} A, in {output}/Reconstruct")
    for hand in HANDS:
        resolution = found.resolution(hand)
        text = f"{resolution:.1f} A" if resolution else f"better than {nyquist:.1f} A"
        mean = found.curves[hand][1:].mean()
        stated = "   <- rlnTomoHand of the tilt series" if hand == found.stated else ""
        typer.echo(f"  hand {hand:+d}: FSC 0.143 at {text}, mean FSC {mean:.4f}{stated}")
    parts = ", ".join(f"{2 * value:+.2%}" for value in found.differences)
    typer.echo(f"  signal with hand +1 compared with -1, in {len(found.differences)} parts of the particles: {parts}")
    if found.better is None:
        typer.echo(
            "No answer: the parts do not agree, or hardly differ. Use more particles, better orientations, or a finer "
            "binning."
        )
    else:
        agrees = "as the tilt series say" if found.better == found.stated else "NOT as the tilt series say"
        typer.echo(f"Better: hand {found.better:+d}, {agrees} (by {abs(found.certainty):.1f} standard errors)")
