"""``py2rely prepare template``: any map as a reference on the grid that is asked for."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

log = logging.getLogger("py2rely")
#: Of a template's box, where its diameter is not known.
BOX_OVER_DIAMETER = 1.5
#: Degrees by which it is turned to tell how much that changes: one angle, as it takes seconds.
TURNED = 15.0


def template(
    source: Annotated[Path, typer.Option("--input", "-i", help="Density map (MRC).")],
    output_voxel: Annotated[
        float, typer.Option("--output-voxel-size", "-ovs", help="Angstrom per voxel of the result.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Map to write.", show_default="template_{stem}_{voxel}A.mrc")
    ] = None,
    input_voxel: Annotated[
        float | None,
        typer.Option("--input-voxel-size", "-ivs", help="Angstrom per voxel of the input.", show_default="header"),
    ] = None,
    centre: Annotated[bool, typer.Option("--center", "-c", help="Centre the density by its centre of mass.")] = False,
    low_pass: Annotated[
        float | None, typer.Option("--low-pass", "-lp", help="Angstrom; amplitude 0.5 there.", show_default="2 x voxel")
    ] = None,
    box: Annotated[int | None, typer.Option("--box-size", "-b", help="Voxels.", show_default="the whole map")] = None,
    invert: Annotated[bool, typer.Option("--invert", help="Multiply by -1.")] = False,
    mirror: Annotated[bool, typer.Option("--mirror", "-m", help="Mirror along the first axis.")] = False,
    symmetry: Annotated[
        str | None, typer.Option("--align-symmetry", help="Turn the map onto the axes of this point group.")
    ] = None,
    level: Annotated[int, typer.Option("--log", help="Logging level (10 debug, 20 info, 30 warnings).")] = 20,
) -> None:
    """Resample, filter and centre a map as a reference."""
    from py2rely_core.data.symmetry import parse_point_group
    from py2rely_core.maps.io import Map, known_pixel_size, read_map, write_map
    from py2rely_core.maps.shape import LITTLE, Seen
    from py2rely_core.maps.template import make_template
    from py2rely_core.problems import Problem, ProblemError

    logging.basicConfig(level=level, format="%(levelname)s: %(message)s")
    group = parse_point_group(symmetry) if symmetry else None
    original = read_map(source)
    voxel = input_voxel or original.pixel_size
    if not voxel or voxel <= 0 or output_voxel <= 0:
        fix = "Give --input-voxel-size."
        raise ProblemError(Problem("The input's voxel size is not known.", str(source), "Angstrom per voxel > 0", fix))
    if input_voxel and original.pixel_size and abs(input_voxel - original.pixel_size) > 1e-3:
        log.warning("the header says %g A per voxel; --input-voxel-size %g is used", original.pixel_size, input_voxel)
    if not input_voxel and known_pixel_size(original.pixel_size) is None:
        log.warning("the header says exactly 1 A per voxel, as programs write that do not know: see --input-voxel-size")
    edge = box or natural_box(max(original.data.shape) * voxel / output_voxel)
    resolution = low_pass or 2 * output_voxel
    if resolution < 2 * output_voxel:
        log.warning("a low-pass of %g A is finer than the result holds (%g A)", resolution, 2 * output_voxel)
    given = Map(original.data, voxel)
    result = make_template(given, output_voxel, edge, resolution, centre, invert, mirror)
    path = output or Path(f"template_{source.name.removesuffix(source.suffix)}_{output_voxel:g}A.mrc")
    write_map(path, result.data, output_voxel)
    if group:
        align_symmetry(path, group, edge, output_voxel)
    shape = " x ".join(str(n) for n in original.data.shape)
    log.info("%s: %s voxels of %g A", source, shape, voxel)
    log.info("%s: %d^3 voxels of %g A, low-pass %g A", path, edge, output_voxel, resolution)
    diameter = edge * output_voxel / BOX_OVER_DIAMETER
    # On its axes, a map of one axis may be a cylinder; it has been low-passed then.
    seen, finest = (Seen(read_map(path), diameter), 2 * output_voxel) if group else (Seen(given, diameter), resolution)
    share = seen.shape(finest, group or "C1")
    log.info("%.1f %% of its power is off its rotational average: what particles can be aligned to", 100 * share)
    change = seen.change(finest, TURNED)
    log.info("turned by %g degrees it changes by %.1f %% of its power", TURNED, 100 * change)
    if share < LITTLE:
        log.warning("That is little, to this low-pass: see docs/orientations.md.")


def natural_box(edge: float) -> int:
    """The smallest usual box that holds the whole map."""
    from math import ceil

    from py2rely_core.parameters.boxes import BOX_SIZES

    return next((size for size in BOX_SIZES if size >= edge - 1e-6), 2 * ceil(edge / 2))


def align_symmetry(path: Path, group: str, box: int, pixel_size: float) -> None:
    """Turn a map onto the axes of its point group with RELION, in place of the map that was just written."""
    import shutil
    import tempfile

    from py2rely_core.data.symmetry import ALIGNMENT_TRIALS
    from py2rely_core.relion.outputs.job import check_map
    from py2rely_core.relion.run import run_job

    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        job = Path(scratch) / "AlignSymmetry"
        aligned = job / "aligned.mrc"
        command = ["relion_align_symmetry", "--i", str(path), "--o", str(aligned), "--sym", group]
        run_job(job, [*command, "--nr_uniform", str(ALIGNMENT_TRIALS)])
        check_map(job, aligned, box, pixel_size)
        shutil.move(aligned, path)
    log.info("turned onto the axes of %s", group)
