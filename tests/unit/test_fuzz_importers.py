"""Broken copies of every file of every tilt-series importer: the same result, or a message; see ``mutations``.

What cannot be seen is left out, each with its reason: a value that becomes another possible value; lines that may be
away (a view that is excluded, an offset); rows of files without an index of their own, in which two are exchanged.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from formats import DARK, PIXEL, SETTINGS, truth, write_aretomo, write_imod, write_mdoc, write_warp
from hypothesis import given
from mutations import FIELDS, FUZZ, Mutation, mutations, outcome

from py2rely_core.data.geometry import ANGLES, CENTRED
from py2rely_core.data.tables import write_star
from py2rely_core.importers.aretomo import import_aretomo
from py2rely_core.importers.combine import combine_particles, combine_tilt_series
from py2rely_core.importers.dose import Doses
from py2rely_core.importers.imod import import_imod
from py2rely_core.importers.optics import Optics
from py2rely_core.importers.relion import import_relion
from py2rely_core.importers.result import Import, write_import
from py2rely_core.importers.tilt_series import Layout
from py2rely_core.importers.warp import import_warp

LAYOUT, OPTICS = Layout(Path("out")), Optics(300.0)


@dataclass(frozen=True)
class Good:
    """Good files of one program, and how they are imported."""

    write: Callable[[Path], object]
    read: Callable[[Path], Import]


def _aretomo(**options):
    def write(folder):
        tilts = write_aretomo(folder, **options)
        if options.get("doses", True) is None:
            write_mdoc(folder / "TS_01.mdoc", tilts, by_time=True)

    return Good(write, lambda folder: import_aretomo(folder, OPTICS, -1, LAYOUT, doses=Doses(per_tilt=SETTINGS.dose)))


def _imod(folder):
    write_imod(folder, excluded="1,10-11")
    (folder / "TS_01.rawtlt").write_text("".join(f"{angle:.1f}\n" for angle in truth()["rlnTomoYTilt"]))


def _relion(folder):
    write_aretomo(folder / "aretomo", "TS_01")
    write_aretomo(folder / "aretomo", "TS_02", 2)
    write_import(import_aretomo(folder / "aretomo", OPTICS, -1, Layout(folder)))


def _two_of_each(folder):
    """Two imports, with particles as RELION writes them."""
    for number, series in enumerate(("TS_01", "TS_02"), 1):
        write_aretomo(folder / series, series, number)
        write_import(import_aretomo(folder / series, OPTICS, -1, Layout(folder / f"session{number}")))
        rng = np.random.default_rng(number)
        table = pd.DataFrame(rng.uniform(-300, 300, (6, 3)).round(3), columns=CENTRED)
        table[ANGLES] = rng.uniform(0, 90, (6, 3)).round(3)
        table = table.assign(rlnTomoName=series, rlnRandomSubset=[1, 2] * 3, rlnOpticsGroup=1)
        optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["opticsGroup1"], "rlnVoltage": [300.0],
                               "rlnTomoTiltSeriesPixelSize": [PIXEL]})  # fmt: skip
        write_star({"optics": optics, "particles": table}, folder / f"particles{number}.star")


def _combined(combine, name):
    return Good(
        _two_of_each, lambda folder: combine([folder / name.format(1), folder / name.format(2)], Path("out.star"))
    )


GOOD = {
    "aretomo": _aretomo(dark=DARK, offset=1.5),
    "aretomo2": _aretomo(first=0, doses=None, order_list=True, ctf_of_dark=True, dark=(1,)),
    "imod": Good(_imod, lambda folder: import_imod(folder, OPTICS, -1, LAYOUT)),
    "warp": Good(write_warp, lambda folder: import_warp(folder / "x_optimisation_set.star", LAYOUT)),
    "relion": Good(_relion, lambda folder: import_relion(folder / "aligned_tilt_series.star", LAYOUT)),
    "combined_particles": _combined(combine_particles, "particles{}.star"),
    "combined_tilt_series": _combined(combine_tilt_series, "session{}/aligned_tilt_series.star"),
}
#: Their rows have names of their own, and are copied as they are.
TABLES = ("relion", "combined_particles", "combined_tilt_series")
FILES = [
    ("aretomo", "TS_01.aln"), ("aretomo", "TS_01_CTF.txt"), ("aretomo", "TS_01_TLT.txt"), ("aretomo2", "TS_01.aln"),
    ("aretomo2", "TS_01_CTF.txt"), ("aretomo2", "TS_01.mdoc"), ("aretomo2", "TS_01_Imod/TS_01_order_list.csv"),
    ("imod", "TS_01.xf"), ("imod", "TS_01.tlt"), ("imod", "TS_01.rawtlt"), ("imod", "TS_01.defocus"),
    ("imod", "TS_01.st.mdoc"), ("imod", "tilt.com"), ("warp", "x_tomograms.star"), ("warp", "x_optimisation_set.star"),
    ("relion", "aligned_tilt_series.star"), ("relion", "tilt_series/TS_01.star"),
    ("combined_particles", "particles1.star"), ("combined_tilt_series", "session1/aligned_tilt_series.star"),
]  # fmt: skip


def tables(result: Import) -> dict[str, pd.DataFrame]:
    return {f"{path.name} {name}": table for path, blocks in result.tables.items() for name, table in blocks.items()}


def same(found: Import, expected: Import) -> bool:
    ours, theirs = tables(found), tables(expected)
    return list(ours) == list(theirs) and all(_equal(ours[name], theirs[name]) for name in theirs)


def _equal(found: pd.DataFrame, expected: pd.DataFrame) -> bool:
    return list(found) == list(expected) and found.astype(str).equals(expected.astype(str))


def fewer(found: Import, expected: Import) -> bool:
    """Tilt series or images are gone, and what is left is as it was."""
    ours, theirs = tables(found), tables(expected)
    rows = [
        table.astype(str).apply(tuple, axis=1).isin(list(theirs[name].astype(str).apply(tuple, axis=1))).all()
        for name, table in ours.items()
        if name in theirs
    ]
    return set(ours) <= set(theirs) and all(rows)


def invisible(file: str, mutation: Mutation, text: str) -> bool:
    """What no reader can see."""
    lines = mutation.lines_of(text)
    if file.endswith(".xf") and mutation.kind == "exchange":
        # Its rows have no index: two that are exchanged are as possible as before.
        return True
    if file.endswith(".mdoc") and mutation.kind == "exchange":
        # A value that another section had is another possible value.
        keys = [line.partition("=")[0].strip() for line in lines]
        return keys[0] == keys[1] and not keys[0].startswith("[")
    if file.endswith("aligned_tilt_series.star") and mutation.kind in FIELDS:
        # A name may be any text: of a tilt series, of an optics group.
        return lines[0].startswith("TS_") and mutation.field % len(lines[0].split()) < 2
    if file == "particles1.star" and mutation.kind in FIELDS:
        words = lines[0].split()
        return bool(words) and words[mutation.field % len(words)].startswith(("TS_", "opticsGroup"))
    if file == "tilt.com":
        # Lines that need not be there: excluded views, an offset.
        return mutation.kind == "truncate" or any(line.startswith("EXCLUDE") for line in lines)
    return False


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Folder and result of the good files of each program, made when they are first asked for."""
    made: dict[str, tuple[Path, Import]] = {}

    def of(program: str) -> tuple[Path, Import]:
        if program not in made:
            folder = tmp_path_factory.mktemp("fuzz") / program
            GOOD[program].write(folder)
            made[program] = folder, GOOD[program].read(folder)
        return made[program]

    return of


@pytest.mark.parametrize(("program", "file"), FILES)
def test_fuzz(good, program, file):
    folder, expected = good(program)
    path, copy = folder / file, folder / f"{file}.good"
    shutil.copy(path, copy)
    text = path.read_text()
    optional_rows = program in TABLES

    @FUZZ
    @given(mutations())
    def broken(mutation):
        if invisible(file, mutation, text):
            return
        path.write_bytes(mutation.apply(text))
        found = outcome(lambda: GOOD[program].read(folder), folder, path)
        if mutation.is_harmless:
            assert found is not None, mutation
        if found is not None and not same(found, expected):
            assert optional_rows, mutation
            assert mutation.kind in ("drop", "truncate", "exchange"), mutation
            lengths = [[len(table) for table in tables(one).values()] for one in (found, expected)]
            assert mutation.kind != "exchange" or lengths[0] == lengths[1], mutation
            assert fewer(found, expected), mutation

    try:
        broken()
    finally:
        shutil.move(copy, path)


@pytest.mark.parametrize("program", [name for name in GOOD if not name.startswith("combined")])
def test_the_good_files_are_imported_with_the_true_dose(good, program):
    """What the broken copies are compared with is itself right."""
    result = tables(good(program)[1])["TS_01.star TS_01"]
    doses = dict(zip(np.round(truth()["rlnTomoYTilt"]), truth()["rlnMicrographPreExposure"], strict=True))
    offset = 1.5 if program == "aretomo" else 0.0
    found = [doses[round(angle - offset)] for angle in result["rlnTomoYTilt"]]
    assert np.allclose(found, result["rlnMicrographPreExposure"])
    assert re.match(r"\d+@", result["rlnMicrographName"].iloc[0])
