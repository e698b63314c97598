"""Classifications as pages and PDFs: what is read, what is written, and what is refused."""

import base64
import io
import json
import re

import mrcfile
import numpy as np
import pandas as pd
import pytest
from class_fixture import CLASSES_2D, CLASSES_3D, DIAMETER, GOOD_2D, PIXEL_SIZE, make_class2d, make_class3d, settings_of
from PIL import Image, ImageColor

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.judging.class_job import select_classes
from py2rely_core.judging.classes import Verdict, judge, open_classification, verdicts_of
from py2rely_core.judging.selection import Choice, Selection, class_table
from py2rely_core.maps.io import read_images, write_map
from py2rely_core.problems import ProblemError
from py2rely_core.report.choosing import (
    BEST,
    KEEP,
    RUN,
    Way,
    averages_of,
    class_page,
    class_rows,
    scale_bar,
    ways_by_hand,
    ways_of_run,
)
from py2rely_core.report.class_pages import write_class_pages
from py2rely_core.report.class_sheets import GRIDS, HEAD, KEPT, MARGIN, PAGE, write_choice, write_class_sheets
from py2rely_core.report.pictures import average_addresses


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A RELION project with a classification of either kind, and a run's job with an iteration's names."""
    base = tmp_path_factory.mktemp("project")
    make_class2d(base / "Class2D/job004")
    make_class3d(base / "Class3D/bin4")
    make_class3d(base / "Class3D/job007", 12)
    return base


@pytest.mark.parametrize(
    "name",
    [
        "job004",
        "Class2D/job004",
        *(f"Class2D/job004/run_it025_{n}" for n in ("classes.mrcs", "data.star", "model.star")),
    ],
)
def test_a_2d_classification_is_found(project, name):
    found = open_classification(name, project)
    assert (found.kind, found.iteration, found.maps) == ("2D", 25, {})
    assert found.images.name == "run_it025_classes.mrcs"
    rows = class_rows(found)
    assert [row["particles"] for row in rows] == [one[0] for one in CLASSES_2D]
    assert rows[0]["resolution"] == 14.2
    assert rows[-1]["resolution"] is rows[4]["accuracy_rotation"] is None
    images, pixel_size = averages_of(found)
    assert (images.shape, pixel_size) == ((12, 48, 48), PIXEL_SIZE)


@pytest.mark.parametrize(
    ("name", "iteration"), [("bin4", None), ("job007", 12), ("Class3D/job007/run_it012_class002.mrc", 12)]
)
def test_a_3d_classification_is_found(project, name, iteration):
    found = open_classification(name, project)
    assert (found.kind, found.iteration, sorted(found.maps)) == ("3D", iteration, [1, 2, 3, 4])


def test_an_iteration_that_was_continued_and_one_that_is_asked_for(tmp_path):
    job = make_class2d(tmp_path / "Class2D/job001")
    for path in job.glob("run_it025_*"):
        (job / path.name.replace("run_it025", "run_it009")).write_bytes(path.read_bytes())
        (job / path.name.replace("run_it025", "run_ct25_it030")).write_bytes(path.read_bytes())
    last = open_classification(job)
    assert (last.iteration, last.images.name) == (30, "run_ct25_it030_classes.mrcs")
    assert open_classification(job / "run_it009_data.star").iteration == 9


def test_what_is_no_classification_is_refused(project, tmp_path):
    with pytest.raises(ProblemError, match="no classification 'job099'"):
        open_classification("job099", project)
    (tmp_path / "other.star").touch()
    with pytest.raises(ProblemError, match="no file of a classification"):
        open_classification(tmp_path / "other.star")
    job = make_class2d(tmp_path / "Class2D/job001")
    (job / "run_it025_data.star").unlink()
    with pytest.raises(ProblemError, match=r"run_it025_data.star is missing"):
        open_classification(job)
    (make_class2d(tmp_path / "Class2D/job002") / "run_it025_classes.mrcs").unlink()
    with pytest.raises(ProblemError, match="no picture of a class"):
        open_classification(tmp_path / "Class2D/job002")
    with pytest.raises(ProblemError, match="cannot be read"):
        read_images(tmp_path / "other.star")


def test_the_page_of_averages(project):
    found = open_classification("job004", project)
    verdicts = {number: Verdict(number in GOOD_2D, "<b>why</b>", number / 10) for number in range(1, 12)}
    page = class_page(found, ways_by_hand(found, project), verdicts=verdicts, reason="<script>alert(1)</script>")
    assert page.count('<article class="class"') == 12
    assert page.count("data:image/png;base64,") == 11  # the empty one has none
    assert "<script>alert" not in page
    assert "<b>why" not in page
    settings = settings_of(page)
    assert settings["kept"] == settings["rule"] == GOOD_2D
    assert settings["references"] is False
    assert settings["ways"][0]["text"] == f"py2rely routines select -p Class2D/job004/run_it025_data.star -c {KEEP}"
    assert not re.search(r"https?://", page)


def test_without_a_rule_everything_is_kept_at_first(project):
    found = open_classification("job004", project)
    settings = settings_of(class_page(found, ways_by_hand(found, project)))
    assert (settings["rule"], settings["kept"]) == (None, list(range(1, 13)))
    settings = settings_of(class_page(found, ways_by_hand(found, project), chosen=[2, 3], verdicts={1: Verdict(True)}))
    assert (settings["rule"], settings["kept"]) == ([1], [2, 3])


def test_the_page_of_maps(project):
    found = open_classification("bin4", project)
    selection = judge(found, Choice(), DIAMETER)
    assert selection.kept == [1, 4]
    page = class_page(found, ways_of_run(), verdicts=verdicts_of(selection), reason=selection.reason, diameter=DIAMETER)
    assert page.count('<figure class="view"') == 4
    assert page.count("data:image/jpeg;base64,") == 12
    assert '<script type="application/json" id="run-command">null</script>' in page
    settings = settings_of(page)
    assert (settings["kept"], settings["best"], settings["references"]) == ([1, 4], 1, True)
    run, entry = settings["ways"]
    assert run["text"] == f"{RUN} --class_selection manual --keep_classes {KEEP} --best_class {BEST}"
    block = json.loads("{" + entry["text"].replace(KEEP, "1,4").replace(BEST, "4") + "}")
    assert block == {"classification": {"run": True, "selection": "manual", "keep_classes": [1, 4], "best_class": 4}}
    hostile = 'nextflow run . --outdir "</script><script>alert(1)</script>"'
    assert "<script>alert" not in class_page(found, ways_of_run(), command=hostile)


def test_ways_to_go_on(project):
    (entry,) = ways_of_run(4, "ribosome")
    assert '"of_classes": 4' in entry.text
    assert "parameter file of ribosome" in entry.note
    assert ways_of_run(4)[0].text.endswith("--classification.of_classes 4")
    odd = make_class3d(project / "a b's/Class3D/job001", 3)
    select, refine = ways_by_hand(open_classification(odd), project)
    assert select.text.startswith("""py2rely routines select -p 'a b'"'"'s/Class3D/job001/run_it003_data.star' -c""")
    assert isinstance(refine, Way)
    assert f"-bc {BEST}" in refine.text
    for path in list(odd.glob("run_it003_*")):
        (odd / path.name.replace("003", "004")).write_bytes(path.read_bytes())
    assert len(ways_by_hand(open_classification(odd / "run_it003_data.star"), project)) == 1  # -cj takes the last one


def test_pages_of_several_numbers_of_classes(tmp_path, monkeypatch):
    """One each, which lead to one another; with the number of classes that a choice is of."""
    jobs = [make_class3d(tmp_path / "Class3D/bin4_k4")]
    monkeypatch.setattr("class_fixture.CLASSES_3D", CLASSES_3D[:2])
    jobs.insert(0, make_class3d(tmp_path / "Class3D/bin4_k2"))
    output = tmp_path / "Select/bin4_classes"
    job, selection = select_classes(jobs, Choice("manual", (2,), 2), DIAMETER, None, output, None, 4)
    write_class_pages(jobs, job, selection, DIAMETER, output)
    assert sorted(path.name for path in output.glob("*.html")) == ["classes_k2.html", "classes_k4.html"]
    two, four = ((output / f"classes_k{number}.html").read_text() for number in (2, 4))
    assert '<a href="classes_k4.html">4 classes</a>' in two
    assert '<a href="classes_k2.html">2 classes</a>' in four
    assert settings_of(two)["ways"][0]["text"].endswith("--classification.of_classes 2")
    assert (settings_of(four)["kept"], settings_of(four)["best"], settings_of(four)["rule"]) == ([2], 2, [1, 4])
    write_class_pages(jobs, job, selection, DIAMETER, output, "ribosome")
    (entry,) = settings_of((output / "classes_k4.html").read_text())["ways"]
    assert "parameter file of ribosome" in entry["note"]


def test_an_empty_map_is_shown_as_empty(tmp_path):
    job = make_class3d(tmp_path / "Class3D/job001")
    write_map(job / "run_class002.mrc", np.zeros((40, 40, 40)), PIXEL_SIZE)
    found = open_classification(job)
    page = class_page(found, ways_by_hand(found))
    assert page.count('<span class="empty">') == 1
    assert page.count('<figure class="view"') == 3
    assert write_class_sheets(found, tmp_path / "classes.pdf") == 1


def test_the_pdf(project, tmp_path):
    found = open_classification("job004", project)
    assert (
        write_class_sheets(found, tmp_path / "two.pdf", verdicts={1: Verdict(True, "like the template " * 4, 0.8)}) == 1
    )
    text = (tmp_path / "two.pdf").read_bytes()
    assert text.startswith(b"%PDF")
    assert len(text) > 50_000
    many = tmp_path / "Class2D/job001"
    make_class2d(many)
    blocks = read_star(many / "run_it025_model.star")
    blocks["model_classes"] = pd.concat([blocks["model_classes"]] * 3)
    write_star(blocks, many / "run_it025_model.star")
    assert write_class_sheets(open_classification(many), tmp_path / "many.pdf") == 2
    assert len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "many.pdf").read_bytes())) == 2
    assert write_class_sheets(open_classification("bin4", project), tmp_path / "three.pdf", kept=[1]) == 1


@pytest.mark.parametrize(("make", "rows"), [(make_class2d, 3), (make_class3d, 2)])
def test_the_picture_of_a_choice(tmp_path, make, rows):
    """As tall as its classes need, framed by what was decided; without frames where nothing is."""
    job = make(tmp_path / f"Class{'2D' if rows == 3 else '3D'}/job001")
    found = open_classification(job)
    table = class_table(read_star(found.model), read_star(found.data)["particles"])
    pixels = {}
    for name, kept in (("kept", True), ("waits", False)):
        selection = Selection(table.assign(kept=kept, why="so"), None, "A reason.")
        write_choice(found, selection, tmp_path / f"{name}.png")
        pixels[name] = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"))
    _, down = GRIDS[found.kind]
    assert pixels["kept"].shape == (HEAD + rows * ((PAGE[1] - HEAD - MARGIN) // down), PAGE[0], 3)
    framed = {name: (one == np.array(ImageColor.getrgb(KEPT))).all(axis=2).sum() for name, one in pixels.items()}
    assert framed["kept"] > 1000 * min(len(table), 4) and framed["waits"] == 0


def test_averages_in_a_table_stand_y_upwards(tmp_path):
    stack = np.zeros((2, 8, 8), np.float32)
    stack[0, 6:] = 1
    with mrcfile.new(tmp_path / "a.mrcs") as mrc:
        mrc.set_data(stack)
    address, nothing = average_addresses(tmp_path / "a.mrcs")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("L")).astype(int)
    assert nothing is None and shown[0].mean() > 200 > 50 > shown[-1].mean()
    assert average_addresses(tmp_path / "none.mrcs") == []


def test_the_scale_bar_is_round():
    assert [scale_bar(extent) for extent in (240, 260, 600, 30, 2)] == [50, 100, 200, 10, 1]
    assert len(CLASSES_3D) == 4
