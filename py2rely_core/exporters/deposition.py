"""A run's result as EMDB and EMPIAR ask for it, in one directory.

Nothing is invented: what the run does not know is blank in Table 1, and listed at the end of the directory's README.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from PIL import Image

from py2rely_core.data.inputs import Inputs
from py2rely_core.data.tables import read_star, write_star
from py2rely_core.exporters.fsc_xml import check_fsc_xml, fsc_xml
from py2rely_core.exporters.paper import Map, Row, as_csv, as_markdown, methods, table_one
from py2rely_core.exporters.run import Source
from py2rely_core.exporters.series import Moved, move_series, without_files
from py2rely_core.maps.io import Map as Density
from py2rely_core.maps.io import read_map
from py2rely_core.maps.masks import density_threshold, is_degenerate
from py2rely_core.maps.surface import surface_view
from py2rely_core.problems import ExitCode, Problem, ProblemError

IMAGES = ("link", "copy", "none")
SUMS = "sha256sums.txt"
#: What the maps are, as their headers and the README say it.
MAPS = {
    "emdb/map.mrc": "primary map: post-processed, sharpened where the run sharpened it",
    "emdb/half1.mrc": "half map 1: unfiltered, unmasked",
    "emdb/half2.mrc": "half map 2: unfiltered, unmasked",
    "emdb/mask.mrc": "mask of the FSC and of post-processing",
    "emdb/unsharpened.mrc": "additional map: average, neither filtered nor sharpened nor masked",
}
CONTOUR_RULE = (
    "The recommended contour level is the density that separates particle from solvent: three standard deviations of "
    "the solvent (outside of a sphere with the particle's diameter) above its mean, and at least 15 % of the way from "
    "there to the particle's level (95th percentile of what is above the solvent). It is the rule of the mask's "
    "threshold, applied to the primary map as it is. Look at the map at this level before you deposit it."
)
#: What no run of a workflow knows.
ONLY_A_PERSON = [
    "authors, title, funding, release date; sample, organism, specimen preparation, grid, vitrification",
    "how tilt images were aligned, CTFs estimated and particles picked, before the run began",
    "raw movies and their gain references (EMPIAR asks for what the tilt series were made of)",
    "the absolute hand, where the resolution does not show it ('py2rely check-hand' tests the tilt series' hand)",
]
#: Edge of the picture of the map, pixels, as EMDB shows it.
PICTURE_EDGE = 500
IMAGE_LABELS = ["rlnImageSize", "rlnImagePixelSize", "rlnImageDimensionality", "rlnTomoSubtomogramBinning",
                "rlnCtfDataAreCtfPremultiplied"]  # fmt: skip


@dataclass(frozen=True)
class Package:
    """What was written.

    Attributes
    ----------
    files : int
        How many, linked images included.
    contour : float
        Recommended level.
    missing : list of str
        What the run does not know or have.
    warnings : list of Problem
        Why this may not be what one deposits.
    """

    files: int
    contour: float
    missing: list[str]
    warnings: list[Problem]


def export_deposition(source: Source, output: Path, images: str = "link", overwrite: bool = False) -> Package:
    """Write the package, complete or not at all.

    Parameters
    ----------
    source : Source
    output : Path
        Directory that is made.
    images : {"link", "copy", "none"}
        What becomes of the tilt images: symbolic links to them, copies, or nothing.
    overwrite : bool
        Replace a package that is there.

    Raises
    ------
    ProblemError
        A file of the result is missing or broken, maps are not on one grid, or there is something at `output`.
    """
    if images not in IMAGES:
        problem = Problem(f"'{images}' is no choice.", "--images", ", ".join(IMAGES), "Correct --images.")
        raise ProblemError(problem, ExitCode.BAD_PARAMETERS)
    _refuse(output, overwrite)
    maps, inputs = _read_maps(source), source.inputs()
    made = output.with_name(f".{output.name}.part")
    shutil.rmtree(made, ignore_errors=True)
    try:
        package = _write(source, maps, inputs, made, images)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    if output.exists():
        shutil.rmtree(output)
    made.rename(output)
    return package


def _refuse(output: Path, overwrite: bool) -> None:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not overwrite:
        fix = "Choose another --output, or give --overwrite."
        raise ProblemError(Problem("The output is there already.", str(output), "a new directory", fix))
    if not (output / SUMS).is_file():
        fix = "Choose another --output: only an earlier package is replaced."
        raise ProblemError(Problem("The output is no package of an earlier export.", str(output), SUMS, fix))


def _read_maps(source: Source) -> dict[str, Density]:
    """The maps of the package by their paths in it, all on one grid."""
    final = source.final
    places = {
        "emdb/map.mrc": _primary(source),
        "emdb/half1.mrc": final["half_maps"][0],
        "emdb/half2.mrc": final["half_maps"][1],
        "emdb/mask.mrc": final["mask"],
    }
    merged = source.file(final["half_maps"][0]).with_name("merged.mrc")
    found, problems = {}, []
    for name, place in [*places.items(), *([("emdb/unsharpened.mrc", str(merged))] if merged.is_file() else [])]:
        try:
            found[name] = read_map(source.file(place))
        except ProblemError as error:
            problems += error.problems
            continue
        reason = is_degenerate(found[name].data)
        problems += [Problem(f"A map holds nothing: {reason}.", place, "a map", "Make it anew.")] if reason else []
    if problems:
        raise ProblemError(problems)
    primary = found["emdb/map.mrc"]
    for name, one in found.items():
        if one.data.shape != primary.data.shape or abs(one.pixel_size - primary.pixel_size) > 1e-3 * primary.pixel_size:
            grid = f"{one.data.shape}, {one.pixel_size:g} A"
            expected = f"{primary.data.shape}, {primary.pixel_size:g} A, as the primary map"
            fix = "Do not mix files of several runs in one output directory."
            raise ProblemError(Problem(f"The maps are not on one grid: {name}.", grid, expected, fix))
    return found


def contour_level(density: Density, diameter: float) -> float:
    """The level that :data:`CONTOUR_RULE` recommends.

    Parameters
    ----------
    density : Map
    diameter : float
        Of the particle, Angstrom.
    """
    # Filtered no further than to Nyquist: the surface that is drawn is that of the map as it is.
    nyquist = 2 * density.pixel_size
    return density_threshold(density.data, density.pixel_size, diameter, nyquist).threshold


def _not_to_deposit(source: Source) -> list[Problem]:
    """What one does not deposit: a map at a coarse binning, or one that Nyquist limits."""
    final, found = source.final, []
    where = f"{source.run}, data set {source.dataset['id']}"
    if final["binning"] > 1:
        what = f"The run ended at binning {final['binning']}: this is not what one deposits."
        fix = "Add finer binnings to binning_list, down to 1, and run on with -resume."
        found.append(Problem(what, where, "a map at binning 1", fix, "warning"))
    if final["nyquist_limited"]:
        what = "The resolution is limited by Nyquist: it is a bound, not a result."
        found.append(Problem(what, where, "", "Run on at a finer binning.", "warning"))
    return found


def _write(source: Source, maps: dict[str, Density], inputs: Inputs, folder: Path, images: str) -> Package:
    for name, one in maps.items():
        _write_map(folder / name, one, MAPS[name])
    primary = maps["emdb/map.mrc"]
    contour = contour_level(primary, source.dataset["particle_diameter"])
    Image.fromarray(surface_view(primary, contour, PICTURE_EDGE)).save(folder / "emdb/image.png")
    measured = Map(primary.data.shape[0], primary.pixel_size, contour, _b_factor(source))
    missing = [f"{MAPS[name]} ({name})" for name in MAPS if name not in maps]
    missing += _write_fsc(source, folder)
    moved, dropped = _write_tables(source, inputs, folder / "empiar", images)
    missing += [f"tilt images: {path} is not there" for path in _missing_images(moved, images)]
    missing += ["tilt images (left out with --images none)"] if images == "none" else []
    rows = table_one(source, inputs, measured)
    (folder / "table1.md").write_text(as_markdown(rows, source.dataset["id"]))
    (folder / "table1.csv").write_text(as_csv(rows))
    (folder / "methods.md").write_text(methods(source, inputs, measured))
    blank = [f"{row.group}: {row.item}" for row in rows if not row.value]
    missing += [f"blank in Table 1: {'; '.join(blank)}"] if blank else []
    missing += ONLY_A_PERSON
    warnings = [*source.warnings, *_not_to_deposit(source)]
    (folder / "README.md").write_text(_readme(source, rows, folder, missing, dropped, warnings))
    return Package(_write_sums(folder), contour, missing, warnings)


def _write_map(path: Path, density: Density, label: str) -> None:
    """A map with a plain header: its first voxel is the origin, 32-bit floats, space group 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.ascontiguousarray(density.data, dtype=np.float32))
        mrc.set_volume()
        mrc.voxel_size = density.pixel_size
        mrc.header.origin = (0.0, 0.0, 0.0)
        mrc.nstart = (0, 0, 0)
        mrc.add_label(f"py2rely-nf: {label}"[:79])


def _primary(source: Source) -> str:
    """The map that is deposited: the sharpened one, where the run made one."""
    return source.final.get("sharpened") or source.final["map"]


def _b_factor(source: Source) -> float | None:
    """What ``relion_postprocess`` says that it used; None where its file is not there."""
    path = source.file(_primary(source)).with_name("postprocess.star")
    general = read_star(path).get("general") if path.is_file() else None
    label = "rlnBfactorUsedForSharpening"
    return float(general[label].iloc[0]) if general is not None and label in general else None


def _write_fsc(source: Source, folder: Path) -> list[str]:
    curves = (source.best_step or source.level)["fsc"]
    text = fsc_xml(curves)
    if not text:
        return ["Fourier shell correlation (emdb/fsc.xml): the run did not note the curve"]
    path = folder / "emdb/fsc.xml"
    path.write_text(text)
    wrong = check_fsc_xml(path)
    if wrong:
        fix = "Look at the FSC in report.html: the curve of the run is not as it should be."
        raise ProblemError(Problem(f"EMDB would not take the FSC: {wrong[0]}.", source.final["map"], "", fix))
    return []


def _write_tables(source: Source, inputs: Inputs, folder: Path, images: str) -> tuple[Moved, list[str]]:
    """STAR files with paths that are valid from their directory; what was left out of them."""
    used = set(inputs.particles["rlnTomoName"].astype(str))
    moved = move_series(inputs, lambda name, _: f"tilt_images/{name}", used)
    particles, dropped = without_files(inputs.particles)
    optics = inputs.optics.drop(columns=IMAGE_LABELS, errors="ignore")
    tables: dict[str, Any] = moved.tables | {"particles.star": {"optics": optics, "particles": particles}}
    for name, blocks in tables.items():
        write_star(blocks, folder / name)
    if source.final["motion"]:
        shutil.copyfile(source.file(source.final["motion"]), folder / "motion.star")
    for name, path in moved.images.items():
        if images != "none" and path.is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if images == "copy":
                shutil.copyfile(path, target)
            else:
                target.symlink_to(path.resolve())
    return moved, [*dropped, *moved.dropped]


def _missing_images(moved: Moved, images: str) -> list[str]:
    return [] if images == "none" else [name for name, path in moved.images.items() if not path.is_file()]


def _readme(
    source: Source, rows: list[Row], folder: Path, missing: list[str], dropped: list[str], warnings: list[Problem]
) -> str:
    written = {name: text for name, text in MAPS.items() if (folder / name).is_file()}
    contour = next(row.value for row in rows if row.item == "Recommended contour level")
    other = {
        "emdb/image.png": "the primary map's surface at the recommended level, for its page at EMDB",
        "emdb/fsc.xml": "Fourier shell correlation of the half maps, corrected; EMDB's XML",
        "empiar/particles.star": "positions, orientations and half sets of the particles in the map (RELION 5)",
        "empiar/tomograms.star": "the tilt series; its paths, and those of all tables, begin in empiar/",
        "empiar/tilt_series": "alignment, CTF and dose of every tilt image",
        "empiar/tilt_images": "the images that the run used",
        "empiar/motion.star": "trajectories of the particles, from Bayesian polishing",
        "table1.md": "Table 1 of a paper; also as table1.csv",
        "methods.md": "a paragraph of methods, with references",
        SUMS: f"checksums: sha256sum -c {SUMS}",
    }
    there = written | {name: text for name, text in other.items() if name == SUMS or (folder / name).exists()}
    said = [f"* **{one.what}** {one.fix}" for one in warnings] or ["None."]
    left = [f"Columns that named files outside of the package were left out: {', '.join(dict.fromkeys(dropped))}.", ""]
    return "\n".join(
        [
            f"# {source.dataset['id']}: files for EMDB and EMPIAR", "",
            *(f"* `{name}`: {text}" for name, text in there.items()), "",
            "All maps have one grid, their first voxel at the origin, and 32-bit floats. The extracted particles are "
            "not here: RELION's Extract job makes them from the tables and images in `empiar/`.", "",
            *(left if dropped else []),
            f"## Contour level: {contour}", "", CONTOUR_RULE, "", "## Warnings", "", *said, "",
            "## What is missing", "", *(f"* {one}" for one in missing),
        ]
    ) + "\n"  # fmt: skip


def _write_sums(folder: Path) -> int:
    """Checksums of all files, as ``sha256sum -c`` reads them; how many files there are."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = []
    for path in files:
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.relative_to(folder)}\n")
    (folder / SUMS).write_text("".join(lines))
    return len(files) + 1
