"""What a file is, told by its content: which program wrote it, and what to do with it.

Entry: :func:`look` for a file, :func:`of_blocks` for STAR tables that are read already.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from py2rely_core.data.text import binary_kind, decoded
from py2rely_core.problems import Problem

#: As much of a file as tells its kind, bytes.
LOOKED_AT = 65536
IMPORT = "Import it: 'py2rely import particles -i FILE -ts TILT_SERIES.star'."
CSV = (
    "Write its particles as CSV (tomogram, x, y, z, and RELION's rot, tilt, psi), and import that: "
    "'py2rely import csv -i FILE -ts TILT_SERIES.star'."
)


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes
    ----------
    key : str
        For programs.
    name : str
        With its article and the program that writes it, for messages.
    fix : str
        How it gets into the pipeline.
    is_star : bool
        Whether it consists of STAR tables.
    """

    key: str
    name: str
    fix: str
    is_star: bool = False


def _kinds(*rows: tuple[str, str, str], is_star: bool = False) -> dict[str, Kind]:
    return {key: Kind(key, name, fix, is_star) for key, name, fix in rows}


_OTHER = "Give the file that is meant."
_TILT_SERIES = "It describes tilt series: give it as --tilt-series, and a particle file here."
KINDS = _kinds(
    ("particles", "a particle file",
     "It is given as particles (in_particles): the two files may have been exchanged. One of another program is "
     "imported with 'py2rely import particles'."),
    ("tilt series", "a tilt-series file",
     "It is given as tilt series (in_tomograms, --tilt-series): the two files may have been exchanged."),
    ("one tilt series", "the file of one tilt series",
     "Give the file that lists all tilt series, one row for each (data_global)."),
    ("old tomograms", "a RELION 4 tomograms.star (Warp and M write it, too)",
     "Import it into RELION 5 first: 'py2rely import warp FILE'."),
    ("optimisation set", "an optimisation set", "Give the particle file and the tilt-series file that it names."),
    ("particle files", "a table of particle files (rlnTomoImportParticleFile)", IMPORT),
    ("m", "M's particle table (wrpCoordinateX1)", IMPORT + " Its first pose is taken."),
    ("tomostar", "a .tomostar file of Warp",
     "It lists the images of one tilt series: import the alignment ('py2rely import aretomo' or 'imod') with the "
     "stacks of 'WarpTools ts_stack'."),
    ("stopgap", "a motive list of STOPGAP",
     "Convert it to a particle file of RELION with cryoCAT (StopgapMotl to RelionMotl)."),
    ("cbox", "a .cbox file of crYOLO", IMPORT),
    ("pytom", "a particle list of pytom-match-pick", IMPORT),
    ("plain coordinates", "a STAR file of coordinates without tomogram names, as TomoTwin writes it",
     "Say which tomogram it is of: 'py2rely import particles -i FILE --tomogram NAME'."),
    ("images", "a particle file of single images (it has no z)", "Subtomograms have three coordinates: " + _OTHER),
    ("movies", "a file of movies or micrographs of RELION", _OTHER),
    ("trajectories", "a file of trajectories (motion.star)", "It is given as --motion."),
    ("model", "a model file of RELION (run_model.star)", "The particles are in the run_data.star beside it."),
    ("optimiser", "an optimiser or sampling file of RELION", "The particles are in the run_data.star beside it."),
    ("job", "a job or pipeline file of RELION", "Give the file that the job wrote."),
    is_star=True,
) | _kinds(
    ("dynamo", "a table of Dynamo (.tbl)", IMPORT + " The .doc file that names its tomograms goes beside it."),
    ("dynamo names", "the list of tomograms of a Dynamo table (.doc)", "Give the .tbl; this file stays beside it."),
    ("emclarity", "a table of emClarity",
     CSV),
    ("boxes", "a list of boxes in single images (EMAN's .box, or a .cbox of crYOLO before 1.8: x y width height)",
     "They have no z: pick tomograms with crYOLO 1.8 or later and --tomogram, and import the .cbox of its CBOX_3D."),
    ("boxes 3d", "a list of boxes of crYOLO or EMAN (x y z and the size of the box)",
     "Its first three columns are the centres, in pixels of the tomogram: keep these "
     "(awk '{print $1, $2, $3}' FILE > NAME.coords), and import that with --voxel-size."),
    ("numbers", "a table of numbers without names",
     "Name its columns in a first line (tomogram x y z, and RELION's rot tilt psi), and import it: "
     "'py2rely import csv -i FILE -ts TILT_SERIES.star'. A list of positions has three columns, a table of Dynamo at "
     "least 26."),
    ("peet", "a motive list of PEET (_MOTL.csv)",
     CSV + " The positions are in the .mod beside it."),
    ("imod model", "a model of IMOD (.mod)",
     "Write its points as text with 'model2point -float input.mod points.txt', and import that: they are pixels of the "
     "tomogram."),
    ("imod text model", "a text model of IMOD",
     "Write its points as text with 'model2point -float input.mod points.txt', and import that: they are pixels of the "
     "tomogram."),
    ("coordinates", "a list of coordinates (x y z), as crYOLO, TomoTwin and model2point write it", IMPORT),
    ("csv", "a table with named columns (CSV)", "Import it: 'py2rely import csv -i FILE -ts TILT_SERIES.star'."),
    ("eman list", "a list of EMAN2 (.lst)",
     CSV),
    ("eman boxes", "boxes of EMAN2 (info/*.json)",
     CSV + " In boxes_3d are x, y, z in pixels of the tomogram that was picked in."),
    ("eman", "a file of EMAN2 (JSON)", CSV),
    ("copick", "a copick configuration", "Import its picks: 'py2rely import copick -c FILE -n OBJECT -ts ...'."),
    ("copick picks", "picks of copick (JSON)",
     "Give the project's configuration: 'py2rely import copick -c config.json -n OBJECT -ts ...'."),
    ("data portal", "annotations of the data portal (ndjson)",
     "Import them through copick ('copick config dataportal'), or write tomogram, x, y, z as CSV."),
    ("parameters", "a parameter file (JSON)", "It is given as --parameter."),
    ("json", "a JSON file", _OTHER),
    ("xml", "an XML file, as Warp and M write for tilt series, populations and species",
     "M's particles are in the species' *_particles.star; Warp's tilt series come from AreTomo or IMOD."),
    ("markers", "a marker file of ChimeraX (.cmm)", "Write the positions as CSV with their tomogram."),
    ("mdoc", "an .mdoc of SerialEM", "It belongs beside the alignment: 'py2rely import aretomo' or 'imod' read it."),
    ("aln", "an alignment of AreTomo (.aln)", "Import the directory: 'py2rely import aretomo DIR'."),
    ("pickle", "a pickled table of Python, as TomoTwin writes (.tloc, .temb, .tumap)",
     "Write coordinates: 'tomotwin_pick.py' makes .coords and .cbox files of it, which can be imported."),
    ("em", "an EM file: a motive list or a volume of AV3, TOM, Artiatomi or ArtiaX",
     "Convert a motive list to a particle file of RELION with 'motl2relion' (reliontomotools) or cryoCAT, a volume to "
     "MRC."),
    ("hdf5", "an HDF5 file, as EMAN2 (.hdf) and IMARIS write it",
     "EMAN2 converts volumes with 'e2proc3d.py in.hdf out.mrc'; particles have to be a STAR or CSV file."),
    ("map", "a map or an image stack (MRC)", "Give the table, not the images."),
    ("tiff", "a TIFF or EER image", "Frames are aligned and written as MRC stacks first."),
    ("matlab", "a file of MATLAB, as Dynamo saves catalogues, models and tables (.mat, .omd, .ctlg)",
     "Write the table as text in Dynamo, dwrite(t, 'particles.tbl') where t is the table, and import that."),
    ("dynamo binary", "a binary file called .tbl, as Dynamo writes long tables",
     "Write it as text in Dynamo: t = dread('FILE'); dlmwrite('particles.tbl', t, ' '). Import that."),
    ("cbox binary", "a binary file called .cbox, which crYOLO's are not: they are text",
     "Copy it again (not as an archive), or pick anew: crYOLO 1.8 and later write .cbox as STAR tables."),
    ("numpy", "a numpy file, as cryoSPARC (.cs) and TomoTwin write them",
     "Convert a .cs of cryoSPARC with csparc2star.py (pyem); it holds single images, or positions of them. " + CSV),
    ("picture", "a picture or a document (PNG, PDF)", _OTHER),
    ("sqlite", "a SQLite database, as Scipion keeps its sets",
     "Export the coordinates in Scipion as a STAR file of RELION, and import that."),
    ("parquet", "a table in Parquet", CSV),
    ("atomic model", "an atomic model (PDB, mmCIF)", "A reference is a map: ChimeraX's molmap or EMAN2's e2pdb2mrc.py "
     "makes one. Particles are tables."),
    ("gzip", "a compressed file (gzip)", "Unpack it: gunzip FILE."),
    ("zip", "a compressed archive (zip)", "Unpack it, and give the file in it."),
    ("binary", "a binary file", _OTHER),
    ("empty", "an empty file", "Write it again, or copy it again."),
    ("directory", "a directory", "Give the file in it."),
)  # fmt: skip
#: Kinds that hold particles and are read.
PARTICLES = ("particles", "m", "cbox", "pytom", "particle files", "optimisation set", "dynamo", "coordinates",
             "plain coordinates", "csv")  # fmt: skip

#: Labels of which one tells a STAR file's kind, the first that fits: what only this kind has comes first.
_LABELS: tuple[tuple[str, set[str]], ...] = (
    ("optimisation set", {"rlnTomoParticlesFile", "rlnTomoTomogramsFile"}),
    ("particle files", {"rlnTomoImportParticleFile"}),
    ("tomostar", {"wrpMovieName"}),
    ("m", {"wrpCoordinateX1", "wrpCoordinateX", "wrpSourceHash", "wrpSourceName"}),
    ("stopgap", {"motl_idx", "subtomo_num"}),
    ("cbox", {"CoordinateX"}),
    ("old tomograms", {"rlnTomoProjX", "rlnTomoTiltSeriesName", "rlnTomoImportCtfFindFile", "rlnTomoImportImodDir"}),
    ("one tilt series", {"rlnTomoTiltMovieIndex", "rlnMicrographMovieName", "rlnTomoYTilt"}),
    ("tilt series", {"rlnTomoTiltSeriesStarFile"}),
    ("pytom", {"rlnSearchStd"}),
    ("particles", {"rlnCenteredCoordinateXAngst"}),
    ("model", {"rlnReferenceImage", "rlnReferenceDimensionality"}),
    ("optimiser", {"rlnOutputRootName", "rlnHealpixOrder"}),
    ("job", {"rlnJobTypeLabel", "rlnPipeLineJobCounter", "rlnJobOptionVariable"}),
    ("trajectories", {"rlnParticleNumber"}),
)
_LABEL = re.compile(r"^_(\S+)", re.MULTILINE)
_ATOMS = re.compile(r"^_(?:atom_site|entry|cell)\.", re.MULTILINE)
_PDB = re.compile(r"^(?:ATOM  |HETATM)[ \d]{5} ", re.MULTILINE)
_BLOCK = re.compile(r"^\s*data_(\S*)", re.MULTILINE)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|nan|inf", re.ASCII | re.IGNORECASE)
_BINARY = {
    "a gzip archive": "gzip",
    "a zip archive": "zip",
    "an HDF5 file": "hdf5",
    "a TIFF image": "tiff",
    "a map or an image stack (MRC)": "map",
    "a numpy file": "numpy",
    "a PNG image": "picture",
    "a PDF document": "picture",
    "a SQLite database": "sqlite",
}
#: Binary files that are known by their names alone.
_NAMED = {".tbl": "dynamo binary", ".cbox": "cbox binary"}
#: Columns that a Dynamo table has at least and at most; emClarity's has 26, of which 17 to 25 are a rotation.
DYNAMO_COLUMNS = (26, 43)


def look(path: Path) -> Kind | None:
    """What a file is, by its first bytes.

    Returns
    -------
    Kind or None
        None where it cannot be told, or cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return KINDS["directory"]
    try:
        with path.open("rb") as file:
            start = file.read(LOOKED_AT)
    except OSError:
        return None
    binary = _of_bytes(start)
    if binary:
        return KINDS[_NAMED.get(path.suffix.lower(), binary) if binary == "binary" else binary]
    text = decoded(start)
    if not text.strip():
        return KINDS["empty"]
    found = _of_star(text) if _BLOCK.search(text) else _of_text(text.lstrip())
    return KINDS.get(found or "")


def is_star(path: Path) -> bool:
    """Whether a text has a data block in what is looked at, so that a STAR reader can say what is wrong with it."""
    with Path(path).open("rb") as file:
        return bool(_BLOCK.search(decoded(file.read(LOOKED_AT))))


def _of_bytes(start: bytes) -> str | None:
    if start.startswith(b"IMODV"):
        return "imod model"
    if start.startswith(b"\x80") and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    if start.startswith(b"MATLAB ") and b"MAT-file" in start[:124]:
        return "matlab"
    if start.startswith(b"PAR1"):
        return "parquet"
    name = binary_kind(start)
    if name is None or name in _BINARY:
        return _BINARY.get(name or "")
    # EM: the machine, two free bytes, the type; then three sizes.
    if len(start) >= 512 and start[0] in range(7) and start[3] in (1, 2, 4, 5, 8, 9) and not any(start[1:3]):
        sizes = np.frombuffer(start[4:16], dtype="<i4" if start[0] != 5 else ">i4")
        if ((sizes > 0) & (sizes < 10**7)).all():
            return "em"
    return "binary"


def of_labels(labels: Iterable[str], blocks: Iterable[str] = ()) -> Kind | None:
    """What STAR tables with these labels, in blocks of these names, are."""
    found = set(labels)
    if any(name.startswith("stopgap") for name in blocks):
        return KINDS["stopgap"]
    for key, own in _LABELS:
        if own & found:
            return KINDS[key]
    if "rlnCoordinateX" in found:
        if not {"rlnCoordinateZ", "rlnTomoName"} & found:
            return KINDS["images"]
        named = {"rlnTomoName", "rlnMicrographName", "rlnImageName"} & found
        return KINDS["particles" if named else "plain coordinates"]
    return KINDS["movies"] if "rlnMicrographName" in found else None


def of_blocks(blocks: dict[str, pd.DataFrame]) -> Kind | None:
    """What STAR tables are; None where it cannot be told."""
    return of_labels((column for table in blocks.values() for column in table.columns), blocks)


def _of_star(text: str) -> str | None:
    if _ATOMS.search(text):
        return "atomic model"
    kind = of_labels(_LABEL.findall(text), _BLOCK.findall(text))
    return kind.key if kind else None


def _of_text(text: str) -> str | None:
    first = text.partition("\n")[0].strip()
    for sign, key in (
        ("#LSX", "eman list"), ("imod ", "imod text model"), ("# AreTomo", "aln"), ("<marker_set", "markers"),
        ("<?xml", "xml"), ("<TiltSeries", "xml"), ("CCC,", "peet"),
    ):  # fmt: skip
        if first.startswith(sign):
            return key
    if "[ZValue" in text or (first.startswith("[T =") or first.startswith("PixelSpacing")):
        return "mdoc"
    if first[:1] in "{[":
        return _of_json(text)
    if _PDB.search(text):
        return "atomic model"
    return _of_rows(text)


def _of_json(text: str) -> str:
    for sign, key in (
        ('"boxes_3d"', "eman boxes"), ('"pickable_objects"', "copick"), ('"pickable_object_name"', "copick picks"),
        ('"xform.align3d"', "eman"), ('"xform.projection"', "eman"), ('"apix_unbin"', "eman"),
        ('"resolutions"', "parameters"),
    ):  # fmt: skip
        if sign in text:
            return key
    first = text.partition("\n")[0]
    if '"location"' in first and '"type"' in first:
        return "data portal"
    return "json"


def _of_rows(text: str) -> str | None:
    """A text of rows: by the number of columns, and whether they are numbers."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    lines = lines[1:] if lines and re.fullmatch(r'"?sep=."?', lines[0].strip(), re.IGNORECASE) else lines
    # The last line may be cut where the look ends.
    lines = lines[:-1] if len(lines) > 1 and len(text) >= LOOKED_AT // 2 else lines
    rows = [line.replace(",", " ").split() for line in lines[:50]]
    numeric = [[bool(_NUMBER.fullmatch(word)) for word in row] for row in rows]
    if not rows:
        return None
    if all(len(row) == 2 and row[0].isdigit() and not _NUMBER.fullmatch(row[1]) for row in rows):
        return "dynamo names"
    widths = {len(row) for row in rows}
    most = max(widths)
    almost = sum(sum(row) for row in numeric) >= 0.9 * sum(len(row) for row in numeric)
    if almost and DYNAMO_COLUMNS[0] <= most <= DYNAMO_COLUMNS[1]:
        return "emclarity" if most == 26 and _are_rotations(rows, numeric) else "dynamo"
    if almost and most == 3 and len(widths) == 1:
        return "coordinates"
    three = sum(len(row) == 3 and all(row) for row in numeric)
    if three >= 2 and three >= len(rows) - 2 and any(numeric[0]):
        return "coordinates"  # but for one or two lines, which its reader names
    if len(widths) == 1 and all(map(all, numeric)):
        return _of_numbers(np.array(rows, dtype=float))
    return "csv" if _is_csv(lines, numeric) else None


def _of_numbers(values: np.ndarray) -> str:
    """A table of numbers, (n, columns): boxes have one size, in columns 3 and 4 of an image, 4 and 5 of a tomogram."""
    columns = values.shape[1]
    for key, first, widths in (("boxes", 2, (4, 5, 7)), ("boxes 3d", 3, (5, 6, 7, 8, 9, 10, 11))):
        size = values[:, first : first + 2]
        if columns in widths and size.shape[1] == 2 and size[0, 0] >= 2 and (size == size[0, 0]).all():
            return key
    return "numbers"


def _are_rotations(rows: list[list[str]], numeric: list[list[bool]]) -> bool:
    for row, good in zip(rows, numeric, strict=True):
        if len(row) != 26 or not all(good):
            return False
        matrix = np.array(row[16:25], dtype=float).reshape(3, 3)
        if not np.allclose(matrix @ matrix.T, np.eye(3), atol=0.02):
            return False
    return True


def _is_csv(lines: list[str], numeric: list[list[bool]]) -> bool:
    """Whether the first line names the columns of lines that have as many."""
    for separator in (",", ";", "\t"):
        counts = {len(row) for row in csv.reader(lines[:50], delimiter=separator)}
        if len(counts) == 1 and counts.pop() > 2 and not any(numeric[0]):
            return True
    # Between blanks: names, then as many values, among them the coordinates.
    widths = {len(row) for row in numeric}
    return len(numeric) > 1 and len(widths) == 1 and not any(numeric[0]) and all(sum(row) >= 3 for row in numeric[1:])


def problem_of(kind: Kind, path: Path, wanted: str, expected: str = "") -> Problem:
    """That a file is of another kind than the one that is wanted.

    Parameters
    ----------
    kind : Kind
        What it is.
    path : Path
    wanted : str
        What it should be, with its article.
    expected : str
        More on what it should hold.
    """
    return Problem(f"This is {kind.name}, not {wanted}.", str(path), expected or wanted, kind.fix)
