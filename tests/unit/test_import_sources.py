"""Dose, order, sizes and pixel sizes when several files speak of them: the right one, or both in a message."""

from __future__ import annotations

import re
import shutil
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from formats import DARK, PIXEL, SETTINGS, SIZE, THICKNESS, stack, truth, write_aretomo, write_imod, write_mdoc

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.importers.aretomo import import_aretomo
from py2rely_core.importers.copick import open_project
from py2rely_core.importers.dose import Doses
from py2rely_core.importers.imod import import_imod
from py2rely_core.importers.optics import Optics
from py2rely_core.importers.relion import NOMINAL, import_relion
from py2rely_core.importers.tilt_series import Layout
from py2rely_core.maps.io import write_map
from py2rely_core.problems import ProblemError

OPTICS = Optics(300.0)
DOSE = SETTINGS.dose


def aretomo(folder, **options):
    return import_aretomo(folder / "in", OPTICS, -1, Layout(folder / "out"), **options)


def imod(folder, **options):
    return import_imod(folder / "in", OPTICS, -1, Layout(folder / "out"), **options)


def tilts_of(result):
    return next(blocks["TS_01"] for path, blocks in result.tables.items() if path.name == "TS_01.star")


def doses_of(result):
    return tilts_of(result)["rlnMicrographPreExposure"].to_numpy()


def size_of(result):
    row = next(blocks["global"] for path, blocks in result.tables.items() if "aligned" in path.name).iloc[0]
    return [row[f"rlnTomoSize{axis}"] for axis in "XYZ"]


def refused(run, *texts):
    with pytest.raises(ProblemError) as error:
        run()
    found = str(error.value)
    for text in texts:
        assert text in found, found
    assert all(one.where and one.fix for one in error.value.problems)


def edit(path, change):
    path.write_text(change(path.read_text()))


def sections_of(path):
    """Head and sections of an .mdoc, to be put together otherwise."""
    head, *rest = path.read_text().split("[ZValue = ")
    return head, [part.split("]", 1)[1] for part in rest]


def written(path, head, sections):
    path.write_text(head + "".join(f"[ZValue = {n}]{text}" for n, text in enumerate(sections)))


TRUE = truth()["rlnMicrographPreExposure"].to_numpy()


# The microscope's file


@pytest.mark.parametrize(
    "options", [{}, {"prior": True}, {"prior": True, "times": False}, {"by_time": True, "prior": True}]
)
@pytest.mark.parametrize("shuffled", [False, True])
def test_mdoc_sections_are_joined_by_angle(tmp_path, options, shuffled):
    """Stack and .tlt by angle, the .mdoc in the order of acquisition, or in none: the dose goes by the angle."""
    write_imod(tmp_path / "in")
    path = tmp_path / "in/TS_01.st.mdoc"
    write_mdoc(path, truth(), **({"by_time": True} | options))
    if shuffled:
        lines = path.read_text().split("\n[ZValue")
        path.write_text(
            lines[0] + "".join(f"\n[ZValue{part}\n" for part in np.random.default_rng(1).permutation(lines[1:]))
        )
    assert np.allclose(doses_of(imod(tmp_path)), TRUE)


@pytest.mark.parametrize("offset", [0.0, 2.4, -7.5, 12.0])
def test_one_offset_of_all_angles_is_allowed(tmp_path, offset):
    write_imod(tmp_path / "in")
    moved = truth()
    moved["rlnTomoYTilt"] = moved["rlnTomoYTilt"] + offset
    write_mdoc(tmp_path / "in/TS_01.st.mdoc", moved, by_time=True)
    assert np.allclose(doses_of(imod(tmp_path)), TRUE)


@pytest.mark.parametrize(
    "change",
    [lambda a: a - 54.0, lambda a: a / 4, lambda a: -a, lambda a: a + np.where(np.arange(len(a)) == 4, 8.0, 0.0)],
)
def test_the_mdoc_of_another_series_is_refused(tmp_path, change):
    write_imod(tmp_path / "in")
    other = truth()
    other["rlnTomoYTilt"] = np.clip(change(other["rlnTomoYTilt"].to_numpy()), -89, 89)
    write_mdoc(tmp_path / "in/TS_01.st.mdoc", other)
    refused(lambda: imod(tmp_path), "TS_01.st.mdoc", "degrees")


def test_images_taken_again_count_their_dose(tmp_path):
    """Two sections more than the stack has: at the same angles, the later ones were kept."""
    write_imod(tmp_path / "in")
    path = tmp_path / "in/TS_01.st.mdoc"
    taken = truth().sort_values("rlnMicrographPreExposure").reset_index(drop=True)
    again = pd.concat([taken.iloc[:3], taken.iloc[2:7], taken.iloc[6:]], ignore_index=True)
    again["rlnMicrographPreExposure"] = DOSE * np.arange(len(again))
    write_mdoc(path, again)
    expected = dict(zip(again["rlnTomoYTilt"], again["rlnMicrographPreExposure"], strict=True))
    result = imod(tmp_path)
    assert np.allclose(doses_of(result), [expected[angle] for angle in truth()["rlnTomoYTilt"]])
    assert "2 sections of TS_01.st.mdoc are not in the stack" in "\n".join(result.notes)


def listed(tilts, angle=0.0):
    """A tilt list of angle, order of acquisition and dose."""
    rank = np.argsort(np.argsort(tilts["rlnMicrographPreExposure"])) + 1
    rows = zip(tilts["rlnTomoYTilt"] + angle, rank, strict=True)
    return "".join(f"{a:.2f} {n} {DOSE}\n" for a, n in rows)


def with_more_tilts():
    """Tilts of the truth and one more at each end, which the stack does not have."""
    more = pd.concat([truth().iloc[[0]], truth(), truth().iloc[[-1]]], ignore_index=True)
    more["rlnTomoYTilt"] = np.linspace(-60, 60, len(more))
    more["rlnMicrographPreExposure"] = [*TRUE[:1] + 2 * DOSE, *TRUE, TRUE.max() + 2 * DOSE]
    return more


@pytest.mark.parametrize("offset", [4.0, 5.0, 7.0])
def test_tilts_left_out_at_the_ends_and_an_offset(tmp_path, offset):
    """With another offset the sections fit the neighbours': only the microscope's own angles can tell."""
    write_imod(tmp_path / "in")
    write_mdoc(tmp_path / "in/TS_01.st.mdoc", with_more_tilts(), prior=True, times=False)
    assert np.allclose(doses_of(imod(tmp_path)), TRUE)
    angles = truth()["rlnTomoYTilt"] + offset
    (tmp_path / "in/TS_01.tlt").write_text("".join(f"{a:.2f}\n" for a in angles))
    (tmp_path / "in/TS_01.defocus").rename(tmp_path / "in/TS_01.none")
    (tmp_path / "in/TS_01_CTF.txt").write_text("".join(f"{n} 30000 29000 10 0 .1 8\n" for n in range(1, 12)))
    refused(lambda: imod(tmp_path), "Which sections of TS_01.st.mdoc are in the stack cannot be told", ".rawtlt")
    (tmp_path / "in/TS_01.rawtlt").write_text("".join(f"{a - offset + 0.3:.2f}\n" for a in angles))
    assert np.allclose(doses_of(imod(tmp_path)), TRUE)
    (tmp_path / "in/TS_01.rawtlt").unlink()
    (tmp_path / "in/TS_01_TLT.txt").write_text(listed(truth()))
    assert np.allclose(doses_of(imod(tmp_path)), TRUE)


def test_the_offset_that_aretomo_added_is_known(tmp_path):
    write_aretomo(tmp_path / "in", doses=None, offset=7.0)
    write_mdoc(tmp_path / "in/TS_01.mdoc", with_more_tilts(), prior=True, times=False)
    assert np.allclose(doses_of(aretomo(tmp_path)), TRUE)
    edit(tmp_path / "in/TS_01.aln", lambda t: re.sub("# AlphaOffset.*\n", "", t))
    refused(lambda: aretomo(tmp_path), "offsets of -3.00 and 7.00 degrees fit", "NAME_TLT.txt")


def test_sections_that_were_cut_out_of_the_mdoc_count_their_dose(tmp_path):
    write_imod(tmp_path / "in")
    path = tmp_path / "in/TS_01.st.mdoc"
    write_mdoc(path, truth(), by_time=True)
    # The numbers of the sections say that the third and fourth image were taken again.
    for number in range(10, 1, -1):
        edit(path, lambda t, n=number: t.replace(f"[ZValue = {n}]", f"[ZValue = {n + 2}]"))
    later = TRUE + 2 * DOSE * (TRUE >= 2 * DOSE)
    assert np.allclose(doses_of(imod(tmp_path)), later)


@pytest.mark.parametrize("program", ["aretomo", "imod"])
def test_two_mdoc_files_beside_one_stack_must_agree(tmp_path, program):
    first, second = ("TS_01.mdoc", "TS_01.mrc.mdoc") if program == "aretomo" else ("TS_01.st.mdoc", "TS_01.mdoc")
    if program == "aretomo":
        write_aretomo(tmp_path / "in", doses=None)
    else:
        write_imod(tmp_path / "in")
    write_mdoc(tmp_path / "in" / first, truth(), by_time=True)
    write_mdoc(tmp_path / "in" / second, truth(), prior=True)
    run = {"aretomo": aretomo, "imod": imod}[program]
    assert np.allclose(doses_of(run(tmp_path)), TRUE)
    one_way = truth()
    one_way["rlnMicrographPreExposure"] = DOSE * np.arange(len(one_way))
    write_mdoc(tmp_path / "in" / second, one_way)
    refused(lambda: run(tmp_path), "different orders of acquisition", f"in {first}", f"in {second}")
    write_mdoc(tmp_path / "in" / second, truth(), prior=True, pixel=2 * PIXEL)
    refused(lambda: run(tmp_path), f"{PIXEL:g} A", f"{2 * PIXEL:g} A", second)


def test_a_constant_prior_dose_is_none(tmp_path):
    """PriorRecordDose 0 in all sections but one: times and doses are used, and it is said why."""
    write_imod(tmp_path / "in")
    path = tmp_path / "in/TS_01.st.mdoc"
    edit(
        path,
        lambda t: t.replace("ExposureDose", "PriorRecordDose = 0\nExposureDose", 10).replace(
            "ExposureDose = 3.0\nDateTime", "ExposureDose = 3.0\nDateTime"
        ),
    )
    edit(path, lambda t: t[::-1].replace("ExposureDose"[::-1], "PriorRecordDose = 30\nExposureDose"[::-1], 1)[::-1])
    result = imod(tmp_path)
    assert np.allclose(doses_of(result), TRUE)
    assert "PriorRecordDose of TS_01.st.mdoc is not used: it is 0 in 10 of 11" in "\n".join(result.notes)
    edit(path, lambda t: t.replace("DateTime", "Time"))
    refused(lambda: imod(tmp_path), "order of acquisition is not known", "PriorRecordDose", "TS_01.st.mdoc")


def test_a_value_that_one_section_lacks_is_named(tmp_path):
    write_imod(tmp_path / "in")
    path = tmp_path / "in/TS_01.st.mdoc"
    for key, options in (("PriorRecordDose", {"prior": True}), ("ExposureDose", {}), ("DateTime", {})):
        write_mdoc(path, truth(), **options)
        head, sections = sections_of(path)
        sections[4] = "\n".join(line for line in sections[4].splitlines() if not line.startswith(key)) + "\n"
        written(path, head, sections)
        refused(lambda: imod(tmp_path), "Section 4", key, "TS_01.st.mdoc, line")


def test_the_dose_of_an_earlier_series_is_taken_away(tmp_path):
    write_imod(tmp_path / "in")
    tilts = truth()
    tilts["rlnMicrographPreExposure"] += 70
    write_mdoc(tmp_path / "in/TS_01.st.mdoc", tilts, prior=True, times=False)
    result = imod(tmp_path)
    assert np.allclose(doses_of(result), TRUE)
    assert "70 e/A^2 before the first image in TS_01.st.mdoc are taken away" in "\n".join(result.notes)


@pytest.mark.parametrize("date", ["", "05-Nov-23  14:00:10"])
def test_blank_and_equal_times_are_no_order(tmp_path, date):
    write_imod(tmp_path / "in")
    path = tmp_path / "in/TS_01.st.mdoc"
    edit(path, lambda t: re.sub(r"DateTime = .*", f"DateTime = {date}", t))
    refused(lambda: imod(tmp_path), "order of acquisition is not known", "TS_01.st.mdoc")


@pytest.mark.parametrize(
    "form", ["%Y-%b-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S", "%d-%b-%Y  %H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f"]
)
def test_dates_of_any_form(tmp_path, form):
    write_imod(tmp_path / "in")
    edit(
        tmp_path / "in/TS_01.st.mdoc",
        lambda t: re.sub(
            r"05-Nov-23  14:(\d\d):10", lambda m: datetime(2023, 11, 5, 14, int(m[1]), 10).strftime(form), t
        ),
    )
    assert np.allclose(doses_of(imod(tmp_path)), TRUE)


def test_exposure_dose_of_zero_is_unknown(tmp_path):
    write_imod(tmp_path / "in")
    path = tmp_path / "in/TS_01.st.mdoc"
    write_mdoc(path, truth(), dose=0)
    refused(lambda: imod(tmp_path), "--dose-per-tilt")
    assert np.allclose(doses_of(imod(tmp_path, doses=Doses(per_tilt=DOSE))), TRUE)


def test_different_doses_name_both_labels_and_the_section(tmp_path):
    write_imod(tmp_path / "in")
    path = tmp_path / "in/TS_01.st.mdoc"
    write_mdoc(path, truth(), prior=True, dose=3 * DOSE)
    last = int(TRUE.argmax())
    refused(lambda: imod(tmp_path), f"TS_01.st.mdoc says two different doses: before section {last + 1} 30 e/A^2",
            "(PriorRecordDose of TS_01.st.mdoc), and 90 (ExposureDose of TS_01.st.mdoc, summed up)")  # fmt: skip
    write_mdoc(path, truth(), prior=True, dose=None)
    write_mdoc(tmp_path / "in/TS_01.mdoc", truth(), dose=3 * DOSE)
    refused(lambda: imod(tmp_path), f"Two files have different doses: before section {last + 1} 30 e/A^2",
            "(DateTime and ExposureDose of TS_01.mdoc)")  # fmt: skip


# Tilt lists


@pytest.mark.parametrize("program", ["aretomo", "imod"])
def test_columns_of_zeros_are_said(tmp_path, program):
    run = {"aretomo": aretomo, "imod": imod}[program]
    if program == "aretomo":
        write_aretomo(tmp_path / "in", doses=None)
    else:
        write_imod(tmp_path / "in")
        (tmp_path / "in/TS_01.st.mdoc").unlink()
    angles, path = truth()["rlnTomoYTilt"], tmp_path / "in/TS_01_TLT.txt"
    path.write_text("".join(f"{a:.2f} 0 {DOSE}\n" for a in angles))
    refused(lambda: run(tmp_path), "acquisition is not known", "in TS_01_TLT.txt (column 2) is not used: all are 0")
    path.write_text("".join(f"{a:.2f} {n} 0\n" for n, a in enumerate(angles)))
    refused(lambda: run(tmp_path), "The dose is not known", "in TS_01_TLT.txt (column 3) is not used: all are 0")
    assert len(tilts_of(run(tmp_path, doses=Doses(per_tilt=DOSE)))) == 11


@pytest.mark.parametrize("start", [0.0, DOSE, 70.0, 70 + DOSE])
@pytest.mark.parametrize("program", ["aretomo", "imod"])
def test_sums_in_the_third_column_are_recognised(tmp_path, program, start):
    (write_aretomo if program == "aretomo" else write_imod)(tmp_path / "in")
    rank = np.argsort(np.argsort(TRUE)) + 1
    rows = zip(truth()["rlnTomoYTilt"], rank, TRUE + start, strict=True)
    (tmp_path / "in/TS_01_TLT.txt").write_text("".join(f"{a:.2f} {n} {d:.2f}\n" for a, n, d in rows))
    result = (aretomo if program == "aretomo" else imod)(tmp_path)
    assert np.allclose(doses_of(result), TRUE)
    assert "is the dose summed up" in "\n".join(result.notes)


@pytest.mark.parametrize("start", [8.0, 21.0, 50.0])
def test_sums_of_a_series_after_another(tmp_path, start):
    """Too few and too small for their sum to tell: equal steps do; others are refused, not taken for images' doses."""
    write_imod(tmp_path / "in")
    rank = np.argsort(np.argsort(TRUE))
    path = tmp_path / "in/TS_01_TLT.txt"

    def write(sums):
        rows = zip(truth()["rlnTomoYTilt"], rank + 1, sums, strict=True)
        path.write_text("".join(f"{a:.2f} {n} {d:.2f}\n" for a, n, d in rows))

    write(start + DOSE * rank)
    result = imod(tmp_path)
    kept = start - DOSE if start - DOSE <= 3 * DOSE else 0.0
    assert np.allclose(doses_of(result), TRUE + kept)
    assert "is the dose summed up" in "\n".join(result.notes)
    if start == 21:
        write(start + np.where(rank > 0, 0.5, 0.0) + 1.2 * rank + 0.1 * rank**2)
        refused(lambda: imod(tmp_path), "no doses of images, nor sums", "TS_01_TLT.txt")


@pytest.mark.parametrize("step", [3.0, 2.5])
def test_sums_in_place_of_an_order_are_recognised(tmp_path, step):
    """RELION 4's order lists, and tilt lists of two columns, may have the dose summed up instead of numbers."""
    write_aretomo(tmp_path / "in", doses=None, order_list=True)
    sums = TRUE / DOSE * step + step
    path = tmp_path / "in/TS_01_Imod/TS_01_order_list.csv"
    path.write_text("".join(f"{d},{a}\n" for d, a in zip(sums, truth()["rlnTomoYTilt"], strict=True)))
    assert np.allclose(doses_of(aretomo(tmp_path)), TRUE / DOSE * step)
    path.unlink()
    (tmp_path / "in/TS_01_TLT.txt").write_text(
        "".join(f"{a} {d}\n" for d, a in zip(sums, truth()["rlnTomoYTilt"], strict=True))
    )
    assert np.allclose(doses_of(aretomo(tmp_path)), TRUE / DOSE * step)


def test_the_mdoc_may_be_of_binned_views_and_of_another_calibration(tmp_path):
    """SerialEM saves views binned 4 times beside the frames of which the stack is made."""
    write_aretomo(tmp_path / "in")
    for factor, size in ((4, (24, 24)), (0.5, (2 * SIZE, 2 * SIZE)), (1, (SIZE, SIZE - 1))):
        write_mdoc(tmp_path / "in/TS_01.mdoc", truth(), pixel=1.03 * PIXEL * factor, size=size)
        assert np.allclose(doses_of(aretomo(tmp_path)), TRUE)
    write_mdoc(tmp_path / "in/TS_01.mdoc", truth(), pixel=PIXEL, size=(24, 24))
    refused(lambda: aretomo(tmp_path), "4 A", "1 A", "TS_01.mdoc", "TS_01.mrc")


@pytest.mark.parametrize("first", [0, 1])
def test_orders_from_zero_and_from_one(tmp_path, first):
    write_aretomo(tmp_path / "in")
    rank = np.argsort(np.argsort(TRUE)) + first
    rows = zip(truth()["rlnTomoYTilt"], rank, strict=True)
    (tmp_path / "in/TS_01_TLT.txt").write_text("".join(f"{a:.2f} {n} {DOSE}\n" for a, n in rows))
    assert np.allclose(doses_of(aretomo(tmp_path)), TRUE)


def test_a_gap_in_the_order_is_an_image_that_was_taken(tmp_path):
    write_aretomo(tmp_path / "in")
    rank = np.argsort(np.argsort(TRUE)) + 1
    rank[rank > 4] += 1
    rows = zip(truth()["rlnTomoYTilt"], rank, strict=True)
    (tmp_path / "in/TS_01_TLT.txt").write_text("".join(f"{a:.2f} {n} {DOSE}\n" for a, n in rows))
    result = aretomo(tmp_path)
    assert np.allclose(doses_of(result), DOSE * (rank - 1))
    assert "images 5 of the order are not in the stack" in "\n".join(result.notes)


def test_doses_that_grow_with_the_tilt_are_no_sums(tmp_path):
    write_aretomo(tmp_path / "in")
    rank = np.argsort(np.argsort(TRUE))
    each = 3.0 + 0.2 * rank
    rows = zip(truth()["rlnTomoYTilt"], rank, each, strict=True)
    (tmp_path / "in/TS_01_TLT.txt").write_text("".join(f"{a:.2f} {n} {d:.2f}\n" for a, n, d in rows))
    expected = np.concatenate([[0], np.cumsum(np.sort(each))[:-1]])[rank]
    assert np.allclose(doses_of(aretomo(tmp_path)), expected)


@pytest.mark.parametrize("program", ["aretomo", "imod"])
def test_two_orders_that_contradict_each_other_are_both_named(tmp_path, program):
    (write_aretomo if program == "aretomo" else write_imod)(tmp_path / "in")
    write_mdoc(tmp_path / "in/TS_01.st.mdoc", truth(), prior=True)
    rows = "".join(f"{a:.2f} {n} {DOSE}\n" for n, a in enumerate(truth()["rlnTomoYTilt"]))
    (tmp_path / "in/TS_01_TLT.txt").write_text(rows)
    run = aretomo if program == "aretomo" else imod
    refused(lambda: run(tmp_path), "different orders", "TS_01_TLT.txt", "TS_01.st.mdoc")


# AreTomo's directories


@pytest.mark.parametrize("by_time", [True, False])
@pytest.mark.parametrize("prior", [True, False])
def test_the_mdoc_wins_over_a_one_way_order_list(tmp_path, by_time, prior):
    """A directory of the data portal: the order list numbers the sections of an .mdoc that is sorted by angle."""
    write_aretomo(tmp_path / "in", doses=None, dark=DARK)
    folder = tmp_path / "in/TS_01_Imod"
    folder.mkdir()
    rows = "".join(f"{n},{a:.2f}\n" for n, a in enumerate(truth()["rlnTomoYTilt"], start=1))
    (folder / "TS_01_order_list.csv").write_text("ImageNumber, TiltAngle\n" + rows)
    write_mdoc(tmp_path / "in/TS_01.mdoc", truth(), by_time=by_time, prior=prior)
    result = aretomo(tmp_path)
    kept = [i for i in range(len(TRUE)) if i not in DARK]
    assert np.allclose(doses_of(result), TRUE[kept])
    assert "TS_01.mdoc" in "\n".join(result.notes)
    assert "TS_01_order_list.csv is not used" in "\n".join(result.notes)
    assert not result.warnings


def test_an_order_list_and_the_doses_of_an_mdoc_without_times(tmp_path):
    write_aretomo(tmp_path / "in", doses=None, order_list=True)
    write_mdoc(tmp_path / "in/TS_01.mdoc", truth(), times=False)
    assert np.allclose(doses_of(aretomo(tmp_path)), TRUE)


def test_an_order_list_without_a_header(tmp_path):
    write_aretomo(tmp_path / "in", doses=None, order_list=True)
    edit(tmp_path / "in/TS_01_Imod/TS_01_order_list.csv", lambda t: t.split("\n", 1)[1])
    assert np.allclose(doses_of(aretomo(tmp_path, doses=Doses(per_tilt=DOSE))), TRUE)


def test_ctf_rows_go_by_their_number(tmp_path):
    write_aretomo(tmp_path / "in", dark=DARK)
    expected = tilts_of(aretomo(tmp_path))
    path = tmp_path / "in/TS_01_CTF.txt"
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *rows[::-1]]) + "\n")
    assert tilts_of(aretomo(tmp_path)).equals(expected)
    path.write_text("\n".join([head, *rows[:3], *rows[4:]]) + "\n")
    refused(lambda: aretomo(tmp_path), "TS_01_CTF.txt", "8 rows")


# Sizes and pixel sizes


def images(path, shape, pixel):
    write_map(path, np.random.default_rng(1).normal(size=shape).astype(np.float32), pixel)


def test_aretomo_compares_the_images_with_the_raw_size(tmp_path):
    write_aretomo(tmp_path / "in")
    edit(tmp_path / "in/TS_01.aln", lambda t: t.replace("96 96 11", "96 64 11"))
    images(tmp_path / "in/TS_01.mrc", (11, 64, 96), PIXEL)
    write_map(tmp_path / "in/TS_01_Vol.mrc", np.ones((10, 24, 16)), 4 * PIXEL)
    assert size_of(aretomo(tmp_path)) == [64, 96, THICKNESS]
    images(tmp_path / "in/TS_01.mrc", (11, 32, 48), 2 * PIXEL)
    refused(lambda: aretomo(tmp_path), "48 x 32", "96 x 64", "binned 2 times", "TS_01.aln", "TS_01.mrc")
    images(tmp_path / "in/TS_01.mrc", (11, 96, 64), PIXEL)
    refused(lambda: aretomo(tmp_path), "64 x 96", "was turned")


def test_imod_turns_the_tomogram_whatever_fullimage_says(tmp_path):
    write_imod(tmp_path / "in")
    images(tmp_path / "in/TS_01.st", (11, 64, 96), PIXEL)
    com = (tmp_path / "in/tilt.com").read_text()
    for text in ("FULLIMAGE 96 64", "FULLIMAGE 96,64", "FULLIMAGE 64 96", ""):
        (tmp_path / "in/tilt.com").write_text(com.replace("FULLIMAGE 96 96", text))
        assert size_of(imod(tmp_path)) == [64, 96, THICKNESS]
    edit(tmp_path / "in/tilt.com", lambda t: t.replace("THICKNESS", "FULLIMAGE 192 128\nTHICKNESS"))
    refused(lambda: imod(tmp_path), "FULLIMAGE", "192 x 128", "tilt.com", "TS_01.st")


def test_a_binned_stack_and_the_mdoc_of_the_unbinned_one(tmp_path):
    write_imod(tmp_path / "in")
    path = tmp_path / "in/TS_01.st.mdoc"
    write_mdoc(path, truth(), pixel=PIXEL / 2, size=(2 * SIZE, 2 * SIZE))
    result = imod(tmp_path)
    assert "it was binned" in str(result.warnings[0])
    edit(tmp_path / "in/tilt.com", lambda t: t.replace("FULLIMAGE 96 96", ""))
    refused(lambda: imod(tmp_path), "96 x 96", "192 x 192", "TS_01.st.mdoc", "--pixel-size")
    assert imod(tmp_path, pixel_size=PIXEL).warnings
    write_mdoc(path, truth(), pixel=PIXEL / 2, size=(SIZE, SIZE))
    refused(lambda: imod(tmp_path), "4 A", "2 A", "TS_01.st.mdoc")
    write_mdoc(path, truth(), pixel=PIXEL, size=(2 * SIZE, 2 * SIZE))
    refused(lambda: imod(tmp_path), "4 A", "8 A")
    write_mdoc(path, truth(), size=(SIZE, 70))
    refused(lambda: imod(tmp_path), "96 x 70")


@pytest.mark.parametrize("header", [0.0, 1.0])
def test_a_header_of_zero_or_one_is_unknown(tmp_path, header):
    write_aretomo(tmp_path / "in")
    stack(tmp_path / "in/TS_01.mrc", 11, header)
    refused(lambda: aretomo(tmp_path), "Give --pixel-size", "TS_01.mrc")
    assert tilts_of(aretomo(tmp_path, pixel_size=PIXEL)).equals(tilts_of(aretomo(tmp_path, pixel_size=PIXEL)))
    write_mdoc(tmp_path / "in/TS_01.mdoc", truth())
    result = aretomo(tmp_path)
    assert "pixel size 4 A from PixelSpacing" in "\n".join(result.notes)


# IMOD's own files


def test_outliers_among_transformations_are_named(tmp_path):
    write_imod(tmp_path / "in")
    path = tmp_path / "in/TS_01.xf"
    good = path.read_text().splitlines()
    for row, text in (("1 0 0 1 0 0", "tilt axis of view 5"), ("0 0 0 0 0 0", "transformation of view 5 is none")):
        path.write_text("\n".join([*good[:4], row, *good[5:]]) + "\n")
        refused(lambda: imod(tmp_path), text, "TS_01.xf, line 5")
        (tmp_path / "in/tilt.com").write_text((tmp_path / "in/tilt.com").read_text() + "EXCLUDELIST 5\n")
        assert len(tilts_of(imod(tmp_path))) == 10
        edit(tmp_path / "in/tilt.com", lambda t: t.replace("EXCLUDELIST 5\n", ""))


def test_a_mirrored_transformation_is_refused(tmp_path):
    write_imod(tmp_path / "in")
    path = tmp_path / "in/TS_01.xf"
    rows = [row.split() for row in path.read_text().splitlines()]
    path.write_text("".join(f"-{a} -{b} {' '.join(rest)}\n".replace("--", "") for a, b, *rest in rows))
    refused(lambda: imod(tmp_path), "transformation of view 1 mirrors the image", "TS_01.xf, line 1")


def test_outliers_among_tilt_axes_are_named(tiny, tmp_path):
    """Whatever the program: AreTomo's ROT, and RELION's tables; angles beyond 180 degrees are the same axis."""
    write_aretomo(tmp_path / "in")
    path = tmp_path / "in/TS_01.aln"
    good = path.read_text()
    row = next(line for line in good.splitlines() if line.startswith("    5 "))
    angle = float(row.split()[1])
    path.write_text(good.replace(row, row.replace(f"{angle:.4f}", f"{-angle:.4f}")))
    refused(lambda: aretomo(tmp_path), f"tilt axis of section 5 (-10.0 degrees) is at {-angle:.1f}", "TS_01.mrc")
    path.write_text(good.replace(row, row.replace(f"{angle:.4f}", f"{angle - 360:.4f}")))
    assert len(tilts_of(aretomo(tmp_path))) == 11
    project = shutil.copytree(tiny, tmp_path / "project")
    star = project / "tilt_series/TS_01.star"
    tilts = read_star(star)["TS_01"]
    tilts.loc[2, "rlnTomoZRot"] += 30
    write_star({"TS_01": tilts}, star)
    refused(lambda: import_relion(project / "tilt_series.star", Layout(tmp_path / "out"), project),
            "tilt axis of row 3", "TS_01.star")  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "views"),
    [
        ("EXCLUDELIST2 1\nEXCLUDELIST2 5", {1, 5}), ("EXCLUDELIST 1 - 2", {1, 2}), ("EXCLUDELIST 1,2", {1, 2}),
        ("EXCLUDELIST 1-3,7", {1, 2, 3, 7}), ("ExcludeList2\t2, 4 6", {2, 4, 6}), ("INCLUDE 2-11", {1}),
        ("EXCLUDELIST 1\nEXCLUDELIST2 2-3", {1, 2, 3}),
    ],
)  # fmt: skip
def test_every_list_of_views_counts(tmp_path, lines, views):
    write_imod(tmp_path / "in")
    edit(tmp_path / "in/tilt.com", lambda t: t.replace("THICKNESS", f"{lines}\nTHICKNESS"))
    found = {int(name.split("@")[0]) for name in tilts_of(imod(tmp_path))["rlnMicrographName"]}
    assert found == set(range(1, 12)) - views


def test_the_command_file_is_that_of_the_series(tmp_path):
    """NAME_tilt.com comes first; a tilt.com that names another series is not taken."""
    folder = tmp_path / "in"
    write_imod(folder)
    com = folder / "tilt.com"
    for line in ("InputProjections TS_01_ali.mrc", "InputProjections ../x/TS_01.ali", "TILTFILE TS_01.tlt"):
        edit(com, lambda t, line=line: f"{line}\n" + t.split("\n", 1)[1])
        assert len(tilts_of(imod(tmp_path))) == 11
    for line in ("InputProjections TS_010_ali.mrc", "TILTFILE other.tlt"):
        edit(com, lambda t, line=line: f"{line}\nEXCLUDELIST 1\n" + t.split("\n", 1)[1])
        refused(lambda: imod(tmp_path), f"tilt.com is of {line.split()[1]}, not of TS_01", "tilt.com, line 1")
    edit(com, lambda t: re.sub("TILTFILE.*|Input.*|EXCLUDE.*", "", t))
    (folder / "TS_01_tilt.com").write_text(f"InputProjections TS_01_ali.mrc\nEXCLUDELIST 3\n{com.read_text()}")
    assert len(tilts_of(imod(tmp_path))) == 10


def test_a_command_file_of_several_series(tmp_path):
    folder = tmp_path / "in"
    write_imod(folder)
    write_imod(folder, "TS_01_2", com=False)
    refused(lambda: imod(tmp_path), "tilt.com does not say of which of 2 tilt series it is")
    edit(folder / "tilt.com", lambda t: f"InputProjections TS_01_2_ali.mrc\n{t}")
    refused(lambda: imod(tmp_path), "tilt.com is of TS_01_2_ali.mrc, not of TS_01.", "TS_01_tilt.com")
    (folder / "TS_01_tilt.com").write_text((folder / "tilt.com").read_text().replace("TS_01_2", "TS_01"))
    assert len(imod(tmp_path).links) == 2


def test_a_trimmed_tomogram_is_refused(tmp_path):
    folder = tmp_path / "in"
    write_imod(folder)
    com = (folder / "tilt.com").read_text()
    (folder / "tilt.com").write_text(com + f"WIDTH {SIZE}\nSLICE 0,{SIZE - 1}\n")
    expected = tilts_of(imod(tmp_path))
    for line in ("WIDTH 80", "SLICE 10 40", "SLICE 0,80"):
        (folder / "tilt.com").write_text(f"{com}{line}\n")
        refused(lambda: imod(tmp_path), "turned, moved or trimmed", line.split()[0], "tilt.com")
        assert tilts_of(imod(tmp_path, ignore_placement=True)).equals(expected)
    (folder / "tilt.com").write_text(com)
    for shape, voxel in (((20, 48, 48), 8.0), ((96, 40, 96), 4.0), ((10, 24, 24), 0.0)):
        write_map(folder / "TS_01_rec.mrc", np.ones(shape, dtype=np.float32), voxel)
        assert tilts_of(imod(tmp_path)).equals(expected)
    for shape in ((50, 31, 80), (20, 96, 96), (40, 96, 80)):
        write_map(folder / "TS_01_rec.mrc", np.ones(shape, dtype=np.float32), 4.0)
        refused(lambda: imod(tmp_path), "TS_01_rec.mrc has", "not 96 x 96 x 40")


@pytest.mark.parametrize(
    "line",
    ["OFFSET", "OFFSET 1,0", "OFFSET abc", "OFFSET nan", "OFFSET 1 2", "OFFSET 400", "EXCLUDELIST", "EXCLUDELIST a",
     "EXCLUDELIST 3-1", "EXCLUDELIST 99", "EXCLUDELIST 1..3", "THICKNESS x", "FULLIMAGE 96", "SHIFT 0,x",
     "XAXISTILT", "OFFSET 5.0"],
)  # fmt: skip
def test_broken_lines_of_tilt_com_are_named(tmp_path, line):
    write_imod(tmp_path / "in")
    edit(tmp_path / "in/tilt.com", lambda t: t.replace("SHIFT 0.0 0.0", f"SHIFT 0.0 0.0\n{line}"))
    refused(lambda: imod(tmp_path), "tilt.com", line.split()[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.00\n" * 11, "All tilt angles are 0"),
        ("".join(f"{a} {n}\n" for n, a in enumerate(range(-50, 51, 10))), "2 columns"),
        (" ".join(map(str, range(-50, 51, 10))) + "\n", "on one line"),
        ("", "empty"),
        ("".join(f"{a}\n" for a in range(50, -51, -10)), "degrees in the alignment"),
        ("".join(f"{a},5\n" for a in range(-50, 51, 10)), "decimal comma"),
    ],
)
def test_broken_tilt_angles(tmp_path, text, message):
    write_imod(tmp_path / "in")
    (tmp_path / "in/TS_01.tlt").write_text(text)
    refused(lambda: imod(tmp_path), message, "TS_01.")


def test_views_of_the_defocus_file_are_those_of_the_stack(tmp_path):
    write_imod(tmp_path / "in")
    expected, path = tilts_of(imod(tmp_path)), tmp_path / "in/TS_01.defocus"
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *rows[::-1]]) + "\n")
    assert tilts_of(imod(tmp_path)).equals(expected)
    path.write_text("\n".join([head, *rows[:4], *rows[5:]]) + "\n")
    refused(lambda: imod(tmp_path), "View 5 has no fit", "TS_01.defocus")
    path.write_text("\n".join(rows) + "\n")
    refused(lambda: imod(tmp_path), "defocus file cannot be read", "TS_01.defocus")


def test_the_mdoc_of_a_relion_project_must_agree(tiny, tmp_path):
    """By angle, as for the other programs: a table with the doses in the order of its rows is not taken."""
    project = shutil.copytree(tiny, tmp_path / "project")
    star = project / "tilt_series/TS_01.star"
    tilts = read_star(star)["TS_01"]
    if NOMINAL not in tilts:
        tilts[NOMINAL] = tilts["rlnTomoYTilt"]
        write_star({"TS_01": tilts}, star)
    steps = np.unique(np.diff(np.sort(tilts["rlnMicrographPreExposure"])))
    write_mdoc(project / "mdoc_TS_01", tilts, by_time=True, prior=True, dose=float(steps[0]), times=False)
    (project / "mdoc").mkdir()
    (project / "mdoc_TS_01").rename(project / "mdoc/TS_01.mrc.mdoc")
    result = import_relion(project / "tilt_series.star", Layout(tmp_path / "out"), project)
    assert any("TS_01.mrc.mdoc agrees" in note for note in result.notes)
    one_way = tilts.assign(rlnMicrographPreExposure=np.arange(len(tilts)) * steps[0])
    write_mdoc(project / "TS_01.mdoc", one_way, prior=True, dose=None, times=False)
    for place in ("tilt_series", "mdoc"):
        (project / "TS_01.mdoc").rename(project / place / "TS_01.mdoc")
        refused(lambda: import_relion(project / "tilt_series.star", Layout(tmp_path / "out"), project),
                "different orders", "TS_01.mdoc")  # fmt: skip
        (project / place / "TS_01.mdoc").rename(project / "TS_01.mdoc")
    (project / "TS_01.mdoc").unlink()
    tilts["rlnMicrographPreExposure"] = np.arange(len(tilts)) * steps[0]
    write_star({"TS_01": tilts}, star)
    refused(lambda: import_relion(project / "tilt_series.star", Layout(tmp_path / "out"), project),
            "different orders", "TS_01.star", "TS_01.mrc.mdoc")  # fmt: skip


def test_an_optimisation_set_stands_for_its_tilt_series(tiny, tmp_path, monkeypatch):
    """Its names hold from the project, wherever the command is given; other files are named."""
    project = shutil.copytree(tiny, tmp_path / "project")
    (project / "Refine3D/job010").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    named = {"rlnTomoParticlesFile": ["particles.star"], "rlnTomoTomogramsFile": ["tilt_series.star"]}
    job = project / "Refine3D/job010/run_optimisation_set.star"
    for path in (job, project / "set.star"):
        write_star({"": pd.DataFrame(named)}, path)
        for folder, given in (("elsewhere", None), ("", None), ("project", None), ("elsewhere", project)):
            monkeypatch.chdir(tmp_path / folder)
            result = import_relion(path, Layout(tmp_path / "out"), given)
            assert len(result.tables) == 3
            assert all(stack.is_file() for stack in result.links.values())
    write_star({"": pd.DataFrame(named | {"rlnTomoTomogramsFile": ["gone.star"]})}, job)
    refused(lambda: import_relion(job, Layout(tmp_path / "out")), "the file that it names is missing: gone.star")
    one = project / "tilt_series/TS_01.star"
    refused(lambda: import_relion(one, Layout(tmp_path / "out")), "This is the file of one tilt series", "data_global")
    particles = project / "particles.star"
    refused(lambda: import_relion(particles, Layout(tmp_path / "out")), "This is a particle file, not a tilt-series")


def test_a_relion_tilt_series_without_images_or_with_a_dose_twice(tiny, tmp_path):
    project = shutil.copytree(tiny, tmp_path / "project")
    star = project / "tilt_series/TS_01.star"
    tilts = read_star(star)["TS_01"]
    assert not import_relion(project / "tilt_series.star", Layout(tmp_path / "out"), project).warnings
    dose = tilts["rlnMicrographPreExposure"].to_numpy().copy()
    dose[1] = dose[0]
    write_star({"TS_01": tilts.assign(rlnMicrographPreExposure=dose)}, star)
    (warning,) = import_relion(project / "tilt_series.star", Layout(tmp_path / "out"), project).warnings
    assert f"1 images of TS_01 have the dose of another one, such as {dose[0]:g} e/A^2" in warning.what
    assert re.search(r"TS_01\.star, line \d+$", warning.where)
    write_star({"TS_01": tilts.iloc[:0]}, star)
    refused(lambda: import_relion(project / "tilt_series.star", Layout(tmp_path / "out"), project),
            "TS_01 has no images", "TS_01.star")  # fmt: skip


def test_a_file_that_is_no_copick_configuration_is_named(tmp_path):
    pytest.importorskip("copick")
    write_star({"particles": pd.DataFrame({"rlnTomoName": ["A"], "rlnCenteredCoordinateXAngst": [1.0]})},
               tmp_path / "p.star")  # fmt: skip
    (tmp_path / "d.tbl").write_text("\n".join([" ".join(["1.5"] * 35)] * 3) + "\n")
    (tmp_path / "e.json").write_text('{"boxes_3d": [[1, 2, 3, "x", 1.0, 0]]}')
    (tmp_path / "t.txt").write_text("some words\n")
    (tmp_path / "x.json").write_text('{"name": "x"}')
    for name, text in (("p.star", "This is a particle file, not a copick configuration"),
                       ("d.tbl", "This is a table of Dynamo (.tbl), not a copick"),
                       ("e.json", "This is boxes of EMAN2 (info/*.json), not a copick"),
                       ("t.txt", "This is not a copick configuration"),
                       ("x.json", "pickable_objects: Field required")):  # fmt: skip
        refused(lambda name=name: open_project(tmp_path / name), text, name)
    with pytest.raises(ProblemError) as error:
        open_project(tmp_path / "x.json")
    assert "pydantic" not in str(error.value)


def test_a_defocus_in_another_unit_is_named(tmp_path):
    """Micrometres in a file of Angstrom, and in one of nanometres."""
    write_aretomo(tmp_path / "in")
    head, *rows = (tmp_path / "in/TS_01_CTF.txt").read_text().splitlines()
    small = [
        [row.split()[0], *(f"{float(value) / 1e4:.4f}" for value in row.split()[1:3]), *row.split()[3:]] for row in rows
    ]
    (tmp_path / "in/TS_01_CTF.txt").write_text("\n".join([head, *map(" ".join, small)]) + "\n")
    refused(lambda: aretomo(tmp_path), "in most images: its file may be in micrometres", "TS_01")
    shutil.rmtree(tmp_path / "in")
    write_imod(tmp_path / "in")
    edit(
        tmp_path / "in/TS_01.defocus",
        lambda text: re.sub(r"\d{4}\.\d{4}", lambda one: f"{float(one[0]) / 1e3:.4f}", text),
    )
    refused(lambda: imod(tmp_path), "may be in micrometres")


def test_angstrom_in_a_defocus_file_is_named(tmp_path):
    write_imod(tmp_path / "in")
    path = tmp_path / "in/TS_01.defocus"
    good = path.read_text()
    for factor in (7, 10, 20):
        path.write_text(re.sub(r"\d{4}\.\d{4}", lambda one, by=factor: f"{float(one[0]) * by:.4f}", good))
        refused(lambda: imod(tmp_path), "its unit seems to be Angstrom", "TS_01.defocus")
    head, first, *rest = good.splitlines()
    first = re.sub(r"\d{4}\.\d{4}", lambda one: f"{float(one[0]) * 20:.4f}", first)
    path.write_text("\n".join([head, first, *rest]) + "\n")
    refused(lambda: imod(tmp_path), "is not possible: a defocus (nm)", "TS_01.defocus, line 2")


def test_the_other_programs_directory_is_named(tmp_path):
    write_aretomo(tmp_path / "in")
    refused(lambda: imod(tmp_path), "There are .aln files", "import aretomo")
    refused(lambda: import_aretomo(tmp_path / "in/TS_01.aln", OPTICS, -1, Layout(tmp_path)), "This is a file")
    refused(lambda: import_imod(tmp_path / "in/TS_01.aln", OPTICS, -1, Layout(tmp_path)), "This is a file")
    shutil.rmtree(tmp_path / "in")
    write_imod(tmp_path / "in")
    refused(lambda: aretomo(tmp_path), "There are .xf files", "import imod")
