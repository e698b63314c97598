"""The package for EMDB and EMPIAR: every file as the archives read it, nothing invented, nothing left behind."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
from helpers import cli
from package_fixture import SIMULATED, TABLES, make_package_run
from PIL import Image
from report_fixture import make_run

from py2rely_core.data.inputs import load_inputs
from py2rely_core.data.tables import read_star, split_image_name, write_star
from py2rely_core.exporters.deposition import contour_level, export_deposition
from py2rely_core.exporters.fsc_xml import check_fsc_xml, fsc_xml
from py2rely_core.exporters.run import choose
from py2rely_core.exporters.series import dose_of, tilt_scheme
from py2rely_core.maps.filters import gaussian_low_pass
from py2rely_core.maps.io import Map, read_map, write_map
from py2rely_core.maps.masks import radii
from py2rely_core.problems import ProblemError
from py2rely_core.simulation.structures import density, make_structure

MAPS = ["map", "half1", "half2", "mask", "unsharpened"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("run") / "results"
    make_package_run(run)
    return run


@pytest.fixture
def results(finished):
    return json.loads((finished / "results.json").read_text())


@pytest.fixture
def package(finished, results, tmp_path):
    export_deposition(choose(results, finished, None), tmp_path / "package")
    return tmp_path / "package"


def values(package):
    with (package / "table1.csv").open() as file:
        return {row["item"]: row["value"] for row in csv.DictReader(file)}


def test_maps_have_one_plain_header(finished, package):
    grids = set()
    for name in MAPS:
        assert mrcfile.validate(package / f"emdb/{name}.mrc")
        with mrcfile.open(package / f"emdb/{name}.mrc") as mrc:
            header = mrc.header
            assert mrc.is_volume()
            assert int(header.mode) == 2
            assert int(header.ispg) == 1
            assert [float(header.origin[axis]) for axis in "xyz"] == [0, 0, 0]
            assert [int(mrc.nstart[axis]) for axis in "xyz"] == [0, 0, 0]
            assert [int(header.mapc), int(header.mapr), int(header.maps)] == [1, 2, 3]
            grids.add((mrc.data.shape, round(float(mrc.voxel_size.x), 4)))
    assert len(grids) == 1
    before = read_map(finished / "Reconstruct/bin1_result/half2.mrc")
    assert np.array_equal(read_map(package / "emdb/half2.mrc").data, before.data)


def test_header_of_relion_that_is_shifted_becomes_plain(finished, results, tmp_path):
    """RELION and other programs write origins: maps of one package must lie on each other."""
    path = finished / "Reconstruct/bin1_result/half1.mrc"
    with mrcfile.open(path, mode="r+") as mrc:
        mrc.header.origin = (-100.0, 5.0, 0.0)
        mrc.nstart = (-42, -42, -42)
    export_deposition(choose(results, finished, None), tmp_path / "p")
    with mrcfile.open(tmp_path / "p/emdb/half1.mrc") as mrc:
        assert [float(mrc.header.origin[axis]) for axis in "xyz"] == [0, 0, 0]
        assert [int(mrc.nstart[axis]) for axis in "xyz"] == [0, 0, 0]


def test_checksums_are_those_of_sha256sum(package):
    subprocess.run(["sha256sum", "--check", "--strict", "sha256sums.txt"], cwd=package, check=True, capture_output=True)
    lines = (package / "sha256sums.txt").read_text().splitlines()
    listed = {line.split("  ")[1] for line in lines}
    there = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    assert listed == there - {"sha256sums.txt"}
    first = lines[0].split("  ")
    assert hashlib.sha256((package / first[1]).read_bytes()).hexdigest() == first[0]


def test_tables_are_valid_inside_the_package_and_complete(finished, package):
    """Read as RELION reads them: from the directory in which their paths begin; nothing outside is named."""
    empiar = package / "empiar"
    inputs = load_inputs(empiar / "particles.star", empiar / "tomograms.star", empiar)
    assert not inputs.problems
    assert len(inputs.particles) == 8
    for stack in inputs.stacks():
        assert stack.is_relative_to(empiar)
        assert stack.is_file()
    before = read_star(finished / TABLES["particles"])["particles"]
    kept = [label for label in before if label != "rlnImageName"]
    assert list(inputs.particles) == kept
    assert inputs.particles[kept].equals(before[kept])
    for name, series in inputs.tilt_series.items():
        tilts = read_star(finished / f"Import/tilt_series/tilt_series/{name}.star")[name]
        numeric = [label for label in tilts if not label.startswith("rlnMicrograph") and label != "rlnCtfImage"]
        assert set(tilts) - set(series.tilts) == {"rlnCtfImage", "rlnMicrographMovieName"}
        assert series.tilts[numeric].equals(tilts[numeric])
        sections = [split_image_name(text)[0] for text in tilts["rlnMicrographName"]]
        assert [split_image_name(text)[0] for text in series.tilts["rlnMicrographName"]] == sections
    for path in package.rglob("*"):
        if path.suffix in (".star", ".md", ".csv", ".xml", ".txt"):
            assert str(finished) not in path.read_text(), path
    assert "rlnCtfImage" in (package / "README.md").read_text()


@pytest.mark.relion
def test_relion_extracts_from_the_package_as_from_the_run(finished, package, tmp_path):
    """Moved to another place, without the run: the same images as from the run's own tables."""
    moved = package.rename(tmp_path / "elsewhere") / "empiar"
    command = ["relion_tomo_subtomo", "--o", "Extract/", "--b", "48", "--bin", "2", "--stack2d", "--j", "2"]
    stacks = []
    for folder, particles, tilts in ((moved, "particles.star", "tomograms.star"), (finished, *TABLES.values())):
        subprocess.run([*command, "--p", particles, "--t", tilts], cwd=folder, check=True, capture_output=True)
        names = read_star(folder / "Extract/particles.star")["particles"]["rlnImageName"]
        stacks.append([mrcfile.read(folder / name) for name in names])
    assert len(stacks[0]) == 8
    assert all(np.array_equal(one, other) for one, other in zip(*stacks, strict=True))


@pytest.mark.parametrize(("images", "there"), [("link", True), ("copy", True), ("none", False)])
def test_tilt_images_as_asked_for(finished, results, tmp_path, images, there):
    package = export_deposition(choose(results, finished, None), tmp_path / "p", images)
    paths = [tmp_path / f"p/empiar/tilt_images/TS_0{number}.mrcs" for number in (1, 2)]
    assert [path.exists() for path in paths] == [there, there]
    if there:
        assert [path.is_symlink() for path in paths] == [images == "link"] * 2
        source = finished / "Import/data/tilt_series/TS_01.mrcs"
        assert paths[0].read_bytes() == source.read_bytes()
    assert any(one.startswith("tilt images") for one in package.missing) == (not there)


def test_a_tilt_image_that_is_gone_is_listed(finished, results, tmp_path):
    path = finished / "Import/data/tilt_series/TS_02.mrcs"
    moved = path.rename(path.with_suffix(".gone"))
    try:
        package = export_deposition(choose(results, finished, None), tmp_path / "p")
    finally:
        moved.rename(path)
    assert "tilt images: tilt_images/TS_02.mrcs is not there" in package.missing
    assert "tilt_images/TS_02.mrcs is not there" in (tmp_path / "p/README.md").read_text()


def test_fsc_is_the_curve_of_the_result(results, package):
    import xml.etree.ElementTree as ET

    curves = results["datasets"][0]["levels"][-1]["fsc"]
    picture = Image.open(package / "emdb/image.png")
    assert picture.size == (500, 500)
    assert np.asarray(picture).min() < 200 < np.asarray(picture).max() == 255
    root = ET.parse(package / "emdb/fsc.xml").getroot()
    points = np.array([[float(point.find("x").text), float(point.find("y").text)] for point in root])
    assert np.allclose(1 / points[:, 0], curves["resolution"], rtol=1e-4)
    assert np.allclose(points[:, 1], curves["corrected"], atol=1e-5)
    assert check_fsc_xml(package / "emdb/fsc.xml") == []


GOOD = '<fsc title="t" xaxis="x" yaxis="y"><coordinate><x>0.01</x><y>1</y></coordinate>' \
       "<coordinate><x>0.02</x><y>-0.1</y></coordinate></fsc>"  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("", "", None),
        ("<fsc", "<FSC", "no XML"),
        ('title="t"', "", "'title' is missing"),
        ('title="t"', 'title="t" unit="A"', "'unit' is unknown"),
        ("<x>0.02</x>", "", "no coordinate with one x and one y"),
        ("<x>0.02</x><y>-0.1</y>", "<y>-0.1</y><x>0.02</x>", "no coordinate with one x and one y"),
        ("0.02", "2e-2", "no decimal numbers"),
        ("-0.1", "nan", "no decimal numbers"),
        ("-0.1", "-1.4", "no correlation"),
        ("0.02", "0.01", "do not rise"),
    ],
)
def test_structure_of_emdbs_fsc(tmp_path, old, new, text):
    (tmp_path / "f.xml").write_text(GOOD.replace(old, new) if old else GOOD)
    found = check_fsc_xml(tmp_path / "f.xml")
    assert not found if text is None else any(text in one for one in found)


def test_fsc_of_other_roots_and_of_nothing(tmp_path):
    (tmp_path / "f.xml").write_text("<curve/>")
    assert check_fsc_xml(tmp_path / "f.xml") == ["its root is 'curve', not 'fsc'"]
    (tmp_path / "f.xml").write_text('<fsc title="t" xaxis="x" yaxis="y"/>')
    assert check_fsc_xml(tmp_path / "f.xml") == ["it has no coordinate"]
    assert fsc_xml({"resolution": [], "corrected": []}) == ""
    (tmp_path / "f.xml").write_text(fsc_xml({"resolution": [40.0, 20.0, 10.0], "corrected": [1.0, None, 0.00001]}))
    assert check_fsc_xml(tmp_path / "f.xml") == []


def test_table_one_has_what_the_run_knows_and_blanks(finished, package):
    found = values(package)
    assert found["Voltage (kV)"] == "300"
    assert found["Spherical aberration (mm)"] == "2.7"
    assert found["Pixel size of the tilt series (A)"] == f"{SIMULATED.pixel_size:g}"
    assert found["Tilt range (degrees)"] == "-60.0 to 60.0"
    assert found["Tilt increment (degrees)"] == "20"
    assert found["Tilt scheme"] == "dose-symmetric"
    assert found["Resolution range, local (A)"] == "6.4 to 10.2 (of 90 % of the voxels)"
    assert found["Images per tilt series"] == "7"
    assert found["Electron exposure per image (e/A^2)"] == "3"
    assert found["Electron exposure in all (e/A^2)"] == "21"
    assert found["Particles given"] == "5602"
    assert found["Particles in the map"] == "8"
    assert found["Symmetry imposed"] == "O"
    assert found["Resolution, masked (A)"] == "7.90"
    assert found["Resolution, unmasked (A)"] == "9.30"
    assert found["Same orientation from either half of the tilts"] == "171 of 200 (within 15 degrees; consistent)"
    assert found["Sharpening B-factor (A^2)"] == "-85"
    assert found["Box (voxels)"] == "84"
    tilts = [read_star(finished / f"Import/tilt_series/tilt_series/TS_0{n}.star")[f"TS_0{n}"] for n in (1, 2)]
    low, high = (f(float(f(t["rlnDefocusU"])) for t in tilts) / 1e4 for f in (min, max))
    assert found["Defocus range (um)"] == f"{low:.2f} to {high:.2f}"
    blank = {item for item, value in found.items() if not value}
    assert blank == {
        "Microscope", "Detector (operation mode)", "Magnification", "Energy filter, slit width (eV)",
        "Acquisition software", "EMDB", "EMPIAR",
    }  # fmt: skip
    markdown = (package / "table1.md").read_text()
    assert all(f"| {item} | {value} |" in markdown for item, value in found.items())


def test_missing_things_are_listed_at_the_end(package):
    text = (package / "README.md").read_text()
    end = text[text.index("## What is missing") :]
    assert "##" not in end[2:]
    assert "Data collection: Microscope" in end
    assert "authors" in end
    assert "unsharpened" not in end


def test_methods_tell_what_was_done_with_its_references(package, results):
    text = (package / "methods.md").read_text()
    paragraph, references = text.split("## References")
    assert "Nextflow 25.04.4 [" in paragraph
    assert "RELION 5.1.0 [" in paragraph
    assert "5602 particles from 8 tilt series" in paragraph
    assert "3D classification at binning 2 into 3 classes left 4480 particles of 1 class." in paragraph
    assert "7.90 A" in paragraph
    assert "B-factor of -85 A^2" in paragraph
    assert "polishing" not in paragraph
    cited = {int(number) for group in re.findall(r"\[([\d, ]+)\]", paragraph) for number in group.split(", ")}
    listed = {int(number) for number in re.findall(r"^(\d+)\. ", references, re.MULTILINE)}
    assert cited == listed == set(range(1, len(listed) + 1))
    assert all("doi:10." in line for line in references.strip().splitlines())


def test_the_sharpened_map_is_the_primary_one(finished, results, tmp_path):
    final = results["datasets"][0]["final"]
    best = finished / Path(final["map"]).parent
    made = shutil.copytree(best, best.with_name(f"{best.name}_sharpened"))
    try:
        density = read_map(finished / final["map"])
        write_map(made / "postprocess.mrc", 2 * density.data, density.pixel_size)
        blocks = {"general": pd.DataFrame({"rlnBfactorUsedForSharpening": [-123.0]})}
        write_star(blocks, made / "postprocess.star")
        final["sharpened"] = str((made / "postprocess.mrc").relative_to(finished))
        export_deposition(choose(results, finished, None), tmp_path / "p")
        assert np.array_equal(read_map(tmp_path / "p/emdb/map.mrc").data, 2 * density.data)
        assert "sharpened with a B-factor of -123 A^2" in (tmp_path / "p/methods.md").read_text()
    finally:
        shutil.rmtree(made)


def test_result_of_polishing(finished, results, tmp_path):
    """The files of the best step; its curve was not noted here, and that is said."""
    dataset = results["datasets"][0]
    step = {"name": "bin1_cycle1_polish", "cycle": 1, "step": "polish", "accepted": True, "judgement": "better"}
    dataset["polishing"] = {
        "best": "bin1_cycle1_polish",
        "cycles": [step | {"fsc": {"resolution": [], "corrected": []}}],
    }
    dataset["final"]["motion"] = "Import/tilt_series/motion.star"
    (finished / "Import/tilt_series/motion.star").write_text("data_general\n")
    package = export_deposition(choose(results, finished, None), tmp_path / "p")
    assert any(one.startswith("Fourier shell correlation") for one in package.missing)
    assert not (tmp_path / "p/emdb/fsc.xml").exists()
    assert "`emdb/fsc.xml`" not in (tmp_path / "p/README.md").read_text()
    assert (tmp_path / "p/empiar/motion.star").read_text() == "data_general\n"
    assert "Bayesian polishing (cycle 1) made the map better and was kept" in (tmp_path / "p/methods.md").read_text()
    assert values(tmp_path / "p")["Resolution, unmasked (A)"] == ""


def test_runs_that_are_no_deposition_say_so(finished, results, tmp_path):
    assert export_deposition(choose(results, finished, None), tmp_path / "good").warnings == []
    final = results["datasets"][0]["final"]
    final["binning"], final["nyquist_limited"] = 2, True
    results["datasets"][0]["status"] = "choose classes"
    results["failures"] = [{"step": "REPORT", "what": "x", "dataset": ""}]
    package = export_deposition(choose(results, finished, None), tmp_path / "p")
    texts = [one.what for one in package.warnings]
    assert len(texts) == 4
    assert any("ended at binning 2: this is not what one deposits" in text for text in texts)
    readme = (tmp_path / "p/README.md").read_text()
    assert all(text in readme for text in texts)
    assert values(tmp_path / "p")["Resolution, masked (A)"] == "at Nyquist, 7.90"


def test_which_data_set(finished, results, tmp_path):
    first = results["datasets"][0]
    results["datasets"] = [first, first | {"id": "virus", "final": None}]
    with pytest.raises(ProblemError, match="The run has 2 data sets"):
        choose(results, finished, None)
    with pytest.raises(ProblemError, match="did you mean 'ribosome'"):
        choose(results, finished, "ribosom")
    with pytest.raises(ProblemError, match="Data set virus has no final map"):
        choose(results, finished, "virus")
    assert choose(results, finished, "ribosome").dataset["id"] == "ribosome"


def test_failed_run_is_a_problem_that_says_why(tmp_path, capsys):
    make_run(tmp_path / "run", failed=True)
    cli("export", "deposition", tmp_path / "run", "-o", tmp_path / "p", code=65)
    printed = capsys.readouterr().err
    assert "Data set ribosome has no final map. The run failed: REFINE3D (ribosome bin1)" in printed
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("change", ["missing", "grid", "constant"])
def test_broken_maps_leave_nothing(finished, results, tmp_path, change):
    path = finished / "Reconstruct/bin1_result/half2.mrc"
    saved = path.read_bytes()
    try:
        if change == "missing":
            path.unlink()
        elif change == "grid":
            write_map(path, read_map(path).data[:80, :80, :80], 2.62)
        else:
            write_map(path, np.ones((84, 84, 84), np.float32), 2.62)
        text = {"missing": "it is missing", "grid": "not on one grid", "constant": "holds nothing"}[change]
        with pytest.raises(ProblemError, match=text):
            export_deposition(choose(results, finished, None), tmp_path / "p")
    finally:
        path.write_bytes(saved)
    assert list(tmp_path.iterdir()) == []


def test_tables_that_are_gone(finished, results, tmp_path):
    final = results["datasets"][0]["final"]
    for change, text in (({"motion": "Polish/none.star"}, "trajectories are missing"),
                         ({"particles": "Select/none.star"}, "STAR file is missing"),
                         ({"tilt_series": "Import/none.star"}, "STAR file is missing")):  # fmt: skip
        broken = json.loads(json.dumps(results))
        broken["datasets"][0]["final"] = final | change
        with pytest.raises(ProblemError, match=text):
            export_deposition(choose(broken, finished, None), tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


def test_without_an_unsharpened_map_it_is_missing(finished, results, tmp_path):
    path = finished / "Reconstruct/bin1_result/merged.mrc"
    moved = path.rename(path.with_suffix(".gone"))
    try:
        package = export_deposition(choose(results, finished, None), tmp_path / "p")
    finally:
        moved.rename(path)
    assert any("emdb/unsharpened.mrc" in one for one in package.missing)
    assert not (tmp_path / "p/emdb/unsharpened.mrc").exists()


def test_only_a_package_is_replaced(finished, results, tmp_path):
    source, output = choose(results, finished, None), tmp_path / "p"
    export_deposition(source, output)
    (output / "emdb/left.mrc").write_text("")
    with pytest.raises(ProblemError, match="there already"):
        export_deposition(source, output)
    export_deposition(source, output, overwrite=True)
    assert not (output / "emdb/left.mrc").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("x")
    with pytest.raises(ProblemError, match="no package of an earlier export"):
        export_deposition(source, tmp_path / "mine", overwrite=True)
    with pytest.raises(ProblemError, match="'all' is no choice"):
        export_deposition(source, tmp_path / "new", "all")


def test_command(finished, tmp_path, capsys):
    cli("export", "deposition", finished, "-o", tmp_path / "p", "--images", "none")
    printed = capsys.readouterr().out
    assert re.search(r"p: \d+ files of data set ribosome", printed)
    assert "missing:\n" in printed
    assert "tilt images (left out with --images none)" in printed


@pytest.mark.parametrize("resolution", [8.0, 16.0])
@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3, 0.6])
def test_contour_encloses_the_structure_and_not_the_solvent(resolution, noise):
    """The surface holds nine tenths of the true density; of the solvent, as little as three deviations leave."""
    clean = gaussian_low_pass(density(make_structure(130.0, "C1", 3), 84, 2.62), 2.62, resolution)
    rough = np.random.default_rng(0).normal(size=clean.shape).astype(np.float32)
    rough = gaussian_low_pass(rough, 2.62, resolution)
    found = (clean + noise * clean.std() / rough.std() * rough).astype(np.float32)
    shown = found > contour_level(Map(found, 2.62), 150.0)
    assert clean[shown].sum() > 0.9 * clean.sum()
    assert shown[radii(84) > 75 / 2.62].mean() < 0.002


def test_dose_of_a_table_that_counts_before_or_after_each_image():
    from pandas import DataFrame

    label = "rlnMicrographPreExposure"
    assert dose_of(DataFrame({label: [0.0, 6, 3]})) == (3.0, 9.0)
    assert dose_of(DataFrame({label: [9.0, 6, 3]})) == (3.0, 9.0)
    for values in ([0.0, 0.0], [1.0], []):
        assert dose_of(DataFrame({label: values})) is None
    assert dose_of(DataFrame({"rlnDefocusU": [1.0]})) is None


def test_tilt_series_of_single_images(finished, results, tmp_path):
    """RELION's own alignment has an image file per tilt."""
    path = finished / "Import/tilt_series/tilt_series/TS_01.star"
    saved = path.read_bytes()
    blocks = read_star(path)
    blocks["TS_01"]["rlnMicrographName"] = [f"Import/tilt_{number}.mrc" for number in range(1, 8)]
    for number in range(1, 8):
        (finished / f"Import/tilt_{number}.mrc").write_bytes(bytes([number]))
    write_star(blocks, path)
    try:
        export_deposition(choose(results, finished, None), tmp_path / "p", "copy")
    finally:
        path.write_bytes(saved)
    empiar = tmp_path / "p/empiar"
    for number, name in enumerate(read_star(empiar / "tilt_series/TS_01.star")["TS_01"]["rlnMicrographName"], start=1):
        section, file = split_image_name(name)
        assert section == 1
        assert (empiar / file).read_bytes() == bytes([number])


ORDERS = {
    "unidirectional": [-60, -40, -20, 0, 20, 40, 60],
    "bidirectional": [0, 20, 40, 60, -20, -40, -60],
    "dose-symmetric": [0, 20, -20, -40, 40, 60, -60],
}


@pytest.mark.parametrize(("taken", "scheme"), [
    *((order, name) for name, order in ORDERS.items()),
    ([12, 32, -8, -28, 52, 72, -48], "dose-symmetric"),  # of a lamella that lies askew
    ([0, 2, 4, 6, -2, -4, -6, 8, 10, 12, -8, -10, -12], "dose-symmetric"),
    ([60, 40, 20, 0, -20, -40, -60], "unidirectional"),
    ([0, 40, -20, 20, -40, 60, -60], ""),
    ([0, 20, -20], ""),
])  # fmt: skip
def test_the_order_in_which_images_were_taken(taken, scheme):
    """As it is in the doses before them, whatever the order of the table's rows."""
    tilts = pd.DataFrame({"rlnTomoYTilt": taken, "rlnMicrographPreExposure": np.arange(len(taken)) * 3.0})
    assert tilt_scheme(tilts) == tilt_scheme(tilts.sort_values("rlnTomoYTilt")) == scheme
    assert tilt_scheme(tilts.drop(columns="rlnMicrographPreExposure")) == ""
    assert tilt_scheme(tilts.assign(rlnMicrographPreExposure=0.0)) == ""
