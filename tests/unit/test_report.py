"""results.json and its schema, the page of complete and failed runs, and two runs side by side."""

import base64
import copy
import io
import json
import re
import shutil

import jsonschema
import numpy as np
import pandas as pd
import pytest
from helpers import REPO, cli
from PIL import Image
from report_fixture import FAILURE, LEVELS, make_jobs, make_maps, make_plan, make_run
from scipy import ndimage
from scipy.spatial.transform import Rotation

from py2rely_core.data.geometry import euler_to_matrix, matrix_to_euler
from py2rely_core.data.tables import write_star
from py2rely_core.maps.io import Map
from py2rely_core.problems import ProblemError
from py2rely_core.relion.outputs.refinements import viewing_directions
from py2rely_core.relion.outputs.tilt_series import tilt_series_summary
from py2rely_core.report import duration, find_in, number, pictures
from py2rely_core.report.charts import Axis, Line, Series, frequency_ticks, line_chart, mollweide, nice_ticks
from py2rely_core.report.compare import as_text, compare, run_names
from py2rely_core.report.outcome import find_in_jobs, write_outcome
from py2rely_core.results.collect import collect_failed, collect_results, summary
from py2rely_core.results.explanations import explain, explain_failure
from py2rely_core.results.failure import failure_of, failures_of
from py2rely_core.results.schema import json_schema, read_results
from py2rely_core.results.tasks import Step, attempts


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A complete run, never written to."""
    path = tmp_path_factory.mktemp("runs") / "complete"
    make_run(path)
    return path


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "failed"
    make_run(path, failed=True)
    return path


def read(run):
    return json.loads((run / "results.json").read_text())


def test_the_published_schema_is_that_of_the_models(run, failed):
    published = json.loads((REPO / "docs/results.schema.json").read_text())
    assert published == json_schema(), "py2rely report --schema > docs/results.schema.json"
    validator = jsonschema.Draft202012Validator(published)
    validator.check_schema(published)
    for path in (run, failed):
        validator.validate(read(path))


def _unknown_key(results):
    results["datasets"][0]["levels"][0]["resolutoin"] = 3.0


def _text_for_number(results):
    results["datasets"][0]["levels"][0]["box"] = "large"


def _no_status(results):
    del results["status"]


def _other_version(results):
    results["schema_version"] = 2


@pytest.mark.parametrize("change", [_unknown_key, _text_for_number, _no_status, _other_version])
def test_what_the_schema_forbids(run, tmp_path, change):
    results = read(run)
    change(results)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(json_schema()).validate(results)
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(ProblemError, match="schema"):
        read_results(tmp_path)


def test_the_numbers_of_a_complete_run(run):
    (dataset,) = read(run)["datasets"]
    assert dataset["final"]["resolution"] == 7.1
    steps = [(step["job"], step["particles_in"], step["particles_out"]) for step in dataset["particle_steps"]]
    assert steps == [
        ("Import/tilt_series", None, 5602), ("Extract/bin4", 5602, 5590), ("Select/bin4", 5590, 5210),
        ("Select/bin2_classes", 5210, 4480),
    ]  # fmt: skip
    assert "duplicates" in dataset["particle_steps"][2]["reason"]
    bin2, bin1 = dataset["levels"][1:]
    assert [job["job"] for job in bin2["jobs"]] == [
        "Extract/bin2", "Refine3D/bin2", "Select/bin2", "PostProcess/bin2_result", "Class3D/bin2",
        "Select/bin2_classes", "Orientations/bin2",
    ]  # fmt: skip
    assert {"CtfRefine/bin1_cycle1", "Polish/bin1_cycle1"} < {job["job"] for job in bin1["jobs"]}
    refine = bin1["jobs"][1]
    assert (refine["ranks"], refine["threads"], refine["gpus"]) == (3, 8, "0:1")
    assert refine["cpu_seconds"] > refine["relion_seconds"]
    assert [one["class"] for one in bin2["classes"] if one["kept"]] == [1]
    assert sum(one["share"] for one in bin2["classes"]) == pytest.approx(1)
    assert dataset["polishing"]["best"] == "bin1_cycle1_polish"
    final, about = dataset["final"], dataset["map_analysis"]
    assert final["map"] == "PostProcess/bin1_cycle1_polish/postprocess.mrc"
    assert final["sharpened"] == "PostProcess/bin1_cycle1_polish_sharpened/postprocess.mrc"
    assert final["unsharpened"] == "Reconstruct/bin1_cycle1_polish/merged.mrc"
    assert about["local_resolution"]["filtered"] == "LocalRes/bin1_cycle1_polish/relion_locres_filtered.mrc"
    assert all(about[step] for step in ("sharpening", "local_resolution", "directions", "template", "particle_plot"))
    assert "check-hand" in about["hand"]
    assert "prepare template --mirror" in about["hand"]
    assert len(dataset["corrections"][0]["defocus"]) == 8
    assert dataset["corrections"][1]["motion"]["rms"] == 2.41


def test_every_warning_is_explained(run):
    details = read(run)["warning_details"]
    assert len(details) == 3
    assert all(one["explanation"] and one["to_do"] for one in details)
    assert "explanation" in explain("The resolution is limited by Nyquist: it is a bound, not a result.")
    assert explain("Something new.") == {}
    assert "reference" in explain_failure(["| ERROR!!! zero sum of weights...."])["explanation"]


def test_a_failed_run_does_not_look_finished(failed):
    results = read(failed)
    assert results["status"] == "failed"
    assert results["failure"]["job"] == "Refine3D/bin1"
    (dataset,) = results["datasets"]
    assert (dataset["status"], dataset["final"]) == ("unfinished", None)
    assert [(level["binning"], level["status"], bool(level["map"])) for level in dataset["levels"]] == [
        (4, "complete", True), (2, "complete", True), (1, "waiting", False),
    ]  # fmt: skip
    text = (failed / "summary.txt").read_text()
    assert "FAILED: REFINE3D (ribosome bin1)" in text
    assert "unfinished" in text


def test_a_data_set_that_is_complete_keeps_its_result():
    plan = make_plan("good", "good")
    plan["datasets"] += make_plan("bad", "bad")["datasets"]
    results = collect_results(plan, {"good": make_jobs(), "bad": make_jobs((4,), polished=False)}, [FAILURE])
    good, bad = results["datasets"]
    assert good["final"]["map"] == "good/PostProcess/bin1_cycle1_polish/postprocess.mrc"
    assert bad["final"] is None
    assert "7.1 Å" in summary(results)


def work_dir(path, **files):
    for name, text in files.items():
        target = path / {"err": ".command.err", "problems": "problems.txt"}.get(name, f"Refine3D/bin4/{name}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return path


def report_of(path, step="REFINE3D (bin4)"):
    return f"Error executing process > 'STA:REFINE:{step}'\n\nWork dir:\n  {path}\n\nTip: ..."


def test_a_failure_of_relion(tmp_path):
    error = ("py2rely: 1 problem\n1. [error] Refine3D/bin4: relion_refine_mpi failed with exit code 1.\n"
             "    where: Refine3D/bin4\n    to do: Read its last lines above.\n")  # fmt: skip
    files = {"run.err": "in: x.cpp\nERROR: bad \x07 thing\n", "run.out": "iteration 1\n", "err": error}
    path = work_dir(tmp_path / "my work/ab/cd", **files)
    found = failure_of({"error_report": report_of(path), "error_message": "failed", "exit_status": 70})
    assert found["step"] == "REFINE3D (bin4)"
    assert (found["dataset"], found["job"], found["exit_code"]) == ("main", "Refine3D/bin4", 70)
    assert found["what"] == "Refine3D/bin4: relion_refine_mpi failed with exit code 1."
    assert found["to_do"] == "Read its last lines above."
    assert any("ERROR: bad" in line for line in found["last_lines"])
    assert found["work_dir"] == str(path)


def test_failures_that_the_run_went_on_without(tmp_path):
    """Each data set's own, once, the last try only; a run that was ended besides names that first."""
    said = "1. [error] It is bad.\n    to do: Mend it.\n"
    path = work_dir(tmp_path / "w", **{"run.out": "1\n", "run.err": "ERROR: bad thing\n", "err": said})
    tries = [
        Step("extract", "a", 4, "failed", 1.0, directory="gone", exit_code=137, task="EXTRACT (a: bin4)"),
        Step("Extract/bin4", "a", 4, "done", 2.0, task="EXTRACT (a: bin4)"),
        Step("Refine3D/bin4", "b", 4, "failed", 3.0, directory=str(path), exit_code=70, task="REFINE3D (b: bin4)"),
    ]
    steps = attempts(tries)
    (found,) = failures_of({}, steps)
    assert (found["step"], found["dataset"], found["job"]) == ("REFINE3D (b: bin4)", "b", "Refine3D/bin4")
    assert (found["what"], found["to_do"], found["exit_code"]) == ("It is bad.", "Mend it.", 70)
    ended = {"error_report": "", "error_message": "SIGINT", "exit_status": None}
    assert [one["dataset"] for one in failures_of(ended, steps)] == ["", "b"]
    results = collect_results(make_plan("b", "b"), {"b": make_jobs()}, failures_of({}, steps), ended=["b"])
    assert "FAILED: REFINE3D (b: bin4)" in summary(results)
    assert str(path) in summary(results)
    # Every level is complete, polishing is not: the best until then, and no complete result.
    (dataset,) = collect_results(make_plan("b", "b"), {"b": make_jobs()}, (), ended=[])["datasets"]
    assert dataset["status"] == "unfinished"
    assert dataset["final"]


def test_problems_of_the_preflight_are_all_there(tmp_path):
    text = "The run was not started: 2 problems were found.\n1. [error] one\n2. [error] two\n"
    path = work_dir(tmp_path / "w", problems=text, err="The run was not started")
    found = failure_of({"error_report": report_of(path, "PLAN"), "error_message": "", "exit_status": 65})
    assert found["what"] == "The run was not started: 2 problems were found."
    assert found["last_lines"] == ["1. [error] one", "2. [error] two"]


@pytest.mark.parametrize(
    ("run", "text"),
    [
        ({"exit_status": 140, "error_report": "process > 'STA:EXTRACT (a: bin4)'"}, "time limit"),
        ({"exit_status": 137, "error_report": "process > 'STA:EXTRACT (a: bin4)'"}, "memory"),
        ({"exit_status": None, "error_report": "", "error_message": "SIGINT"}, "interrupted"),
        ({"exit_status": None, "error_report": "", "error_message": "No such file: x"}, "No such file: x"),
        ({"exit_status": None, "error_report": "", "error_message": ""}, "ended early"),
    ],
)
def test_failures_that_the_task_could_not_explain(run, text):
    found = failure_of(run)
    assert text in found["what"]
    assert found["to_do"]


def test_a_run_that_failed_before_its_plan(tmp_path):
    run = {"plan": "", "jobs": [], "nextflow": "25.04.4", "error_message": "bad", "error_report": "", "exit_status": 1,
           "ended": [], "outdir": str(tmp_path)}  # fmt: skip
    write_outcome(collect_failed(run), find_in_jobs(run), tmp_path)
    assert read_results(tmp_path)["datasets"] == []
    assert "The run failed" in (tmp_path / "report.html").read_text()


def test_jobs_in_the_work_directory_are_found(tmp_path):
    make_maps(tmp_path / "work/ab/cdef", (4,))
    jobs = make_jobs((4,), polished=False)
    entries = []
    for name, job in jobs.items():
        path = tmp_path / "work/ab/cdef" / name
        path.mkdir(parents=True, exist_ok=True)
        (path / "job.json").write_text(json.dumps(job))
        entries.append(["ribosome", "", str(path)])
    (tmp_path / "plan.json").write_text(json.dumps(make_plan()))
    run = {"plan": str(tmp_path / "plan.json"), "jobs": entries, "nextflow": "25.04.4", "exit_status": 1,
           "ended": [], "outdir": str(tmp_path)}  # fmt: skip
    results = collect_failed(run)
    assert results["datasets"][0]["levels"][0]["resolution"]["masked"] == LEVELS[4][1]
    write_outcome(results, find_in_jobs(run), tmp_path / "out")
    assert (tmp_path / "out/report.html").read_text().count('<figure class="view"') == 1


def test_the_page_has_everything_and_needs_nothing(run):
    page = (run / "report.html").read_text()
    assert len(page) < 3e6
    assert "://" not in page
    assert not re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?!data:)', page)
    for text in ("Fourier shell correlation at bin 4", "Angular distribution at bin 1", "Resolution against step",
                 "Every command", "relion_refine_mpi", "binning_list", "5.1.0", "25.04.4", "In classes 2 and 3",
                 "bin1_cycle1_polish", "TS_08", "peak memory", "the mask alone"):  # fmt: skip
        assert text in page, text
    assert page.count('class="thumb"><img') == 3
    # The best map, sharpened and by local resolution; every level; every class.
    assert page.count("data:image/jpeg") == 3 * 3 + 3 * 3 + 3


def test_text_from_outside_is_not_markup(failed):
    page = (failed / "report.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>alert" not in page
    assert 'class="answer">7.9' not in page


def test_many_data_sets_stay_below_the_limit(run, tmp_path):
    plan = make_plan()
    template, jobs = plan["datasets"][0], make_jobs((4, 2), polished=False)
    plan["datasets"] = [template | {"id": f"set{number}", "project": f"set{number}"} for number in range(12)]
    results = collect_results(plan, {f"set{number}": jobs for number in range(12)}, [FAILURE])
    write_outcome(results, lambda name: find_in(run)(name.split("/", 1)[1]), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count('<figure class="view"') == 12
    assert len(page.encode()) < 10 * 2**20


def test_a_stub_run_and_lost_maps_have_a_page(run, tmp_path):
    shutil.copy(run / "results.json", tmp_path)
    empty = tmp_path / "PostProcess/bin1_result/postprocess.mrc"
    empty.parent.mkdir(parents=True)
    empty.touch()
    cli("report", tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert '<figure class="view"' not in page
    assert "Fourier shell correlation at bin 4" in page


def test_report_makes_the_same_page_again(run, tmp_path, capsys):
    cli("report", run, "--output", tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == (run / "report.html").read_text()
    assert "complete run" in capsys.readouterr().out
    cli("report", "--schema")
    assert json.loads(capsys.readouterr().out) == json_schema()
    cli("report", tmp_path / "nowhere", code=65)
    cli("report", code=2)
    (tmp_path / "results.json").write_text("{")
    cli("report", tmp_path, code=65)
    assert "not JSON" in capsys.readouterr().err


def test_two_runs_side_by_side(run, failed, tmp_path, capsys, monkeypatch):
    other = tmp_path / "other"
    results = copy.deepcopy(read(run))
    dataset = results["datasets"][0]
    dataset["parameters"]["refine3D"]["sampling"] = "3.7 degrees"
    dataset["levels"][2]["resolution"]["masked"] = dataset["final"]["resolution"] = 7.4
    results["versions"]["relion"] = "5.0.1"
    other.mkdir()
    (other / "results.json").write_text(json.dumps(results))
    monkeypatch.chdir(tmp_path)
    cli("compare", run, other)
    lines = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["bin 1 masked"].split("  ")[-1].strip() == "-0.50 Å"
    assert re.search(r"7\.5 degrees +3\.7 degrees", lines["refine3D.sampling"])
    assert re.search(r"5\.1\.0 +5\.0\.1", lines["relion"])
    page = (tmp_path / "compare.html").read_text()
    assert page.count('<figure class="view"') == 1
    assert "refine3D.sampling" in page
    cli("compare", run, failed, "-o", tmp_path / "failed.html")
    assert "unfinished" in capsys.readouterr().out
    assert (tmp_path / "failed.html").read_text().count('<figure class="view"') == 2
    cli("compare", run, tmp_path, code=65)


def test_comparison_pairs_data_sets_by_name(run):
    one = read(run)
    other = copy.deepcopy(one)
    other["datasets"][0]["id"] = "second"
    assert compare(one, other)[0].name == "ribosome and second"
    other["datasets"].append(copy.deepcopy(one["datasets"][0]))
    pairs = compare(one, other)
    assert [pair.name for pair in pairs] == ["ribosome"]
    assert "parameters that differ: none" in as_text(pairs, ("a", "b"))
    other["datasets"] = [copy.deepcopy(one["datasets"][0]) | {"id": name} for name in ("x", "y")]
    with pytest.raises(ProblemError, match="in common"):
        compare(one, other)


def test_runs_are_called_by_what_differs(tmp_path):
    assert run_names(tmp_path / "a/results", tmp_path / "b/results") == ("a", "b")
    assert run_names(tmp_path / "one", tmp_path / "two") == ("one", "two")


def angles_table(euler):
    return pd.DataFrame(euler, columns=["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"])


def test_views_from_everywhere_are_flat():
    random = matrix_to_euler(Rotation.random(64800, rng=np.random.default_rng(0)).as_matrix())
    counts = np.array(viewing_directions(angles_table(random))["counts"])
    assert counts.sum() == 64800
    assert np.abs(counts - 100).max() < 60
    assert 8 < counts.std() < 12


def test_views_from_one_side_are_in_one_cell():
    found = viewing_directions(angles_table(np.tile([35.0, 62.0, 10.0], (7, 1))))
    row, column = np.argwhere(np.array(found["counts"]) == 7)[0]
    assert found["tilt"][row] <= 62 <= found["tilt"][row + 1]
    assert found["rot"][column] <= 35 <= found["rot"][column + 1]


def test_views_count_the_subtomograms_own_orientation():
    sub, own = np.array([[30.0, 50.0, -20.0]]), np.array([[10.0, 40.0, 75.0]])
    table = angles_table(own)
    for name, value in zip(("Rot", "Tilt", "Psi"), sub[0], strict=True):
        table[f"rlnTomoSubtomogram{name}"] = value
    whole = matrix_to_euler(euler_to_matrix(sub) @ euler_to_matrix(own))
    assert viewing_directions(table) == viewing_directions(angles_table(whole))


def test_tilt_series_are_summed_up(tmp_path):
    job = tmp_path / "Import/tilt_series"
    tilts = pd.DataFrame({"rlnTomoYTilt": [-60.0, 0.0, 57.0], "rlnDefocusU": [30000.0, 31000.0, 32000.0]})
    write_star({"a": tilts}, job / "tilt_series/a.star")
    row = {"rlnTomoName": ["a"], "rlnTomoTiltSeriesStarFile": ["Import/tilt_series/tilt_series/a.star"]}
    write_star({"global": pd.DataFrame(row)}, job / "tomograms.star")
    (found,) = tilt_series_summary(job, pd.DataFrame({"rlnTomoName": ["a", "a", "b"]}))
    assert (found["particles"], found["tilts"], found["tilt_min"], found["tilt_max"]) == (2, 3, -60.0, 57.0)
    assert (found["defocus"], found["defocus_max"], found["motion"]) == (31000.0, 32000.0, None)


def test_the_volume_of_the_3d_view_is_the_map():
    """What stands at (+x, -y, +z) of the map stands there in the view, and the surface goes around it."""
    axis = np.arange(64) - 32
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    data = np.exp(-((x - 9) ** 2 + (y + 6) ** 2 + (z - 3) ** 2) / 30).astype(np.float32)
    small = pictures.small_volume(Map(data, 2.0), 80.0, edge=48)
    volume = np.frombuffer(base64.b64decode(small.data), np.uint8).reshape((small.edge,) * 3)
    voxel = small.angstrom / small.edge
    place = (np.array(ndimage.center_of_mass(volume > 128)) - small.edge // 2) * voxel
    assert place == pytest.approx([6, -12, 18], abs=0.5 * voxel)
    assert 0.001 < (volume > small.level).mean() < 0.05


def test_slices_show_y_upwards():
    data = np.zeros((32, 32, 32), np.float32)
    data[16, 24, 10] = 1.0
    name, address = pictures.slice_images(Map(data, 2.0), 240)[0]
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))))
    row, column = np.unravel_index(image.argmax(), image.shape)
    assert name == "xy"
    assert (column / 240, row / 240) == (pytest.approx(6.5 / 24, abs=0.03), pytest.approx(3.5 / 24, abs=0.03))


def test_curves_are_drawn_where_their_values_are():
    axis = Axis(0, 10, [(5, "five")], "x")
    chart = line_chart([Series("a", "s", [0, 5, 10, 10], [0, 10, None, 0])], axis, axis, "t", [Line(5, "y", "here")])
    assert 'd="M46.0 250.0L257.0 12.0M468.0 250.0"' in chart
    assert "five" in chart
    assert "here" in chart


def test_ticks_are_round_and_true():
    assert nice_ticks(0, 12, 6) == [0, 2, 4, 6, 8, 10, 12]
    for value, label in frequency_ticks(1 / 5.24):
        assert 1 / value == pytest.approx(float(label))
    cells = [abs(mollweide(0, low)[1] - mollweide(0, low + 10)[1]) for low in (0, 30, 60)]
    assert mollweide(0, 0) == (240, 131)
    assert cells == sorted(cells, reverse=True)


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.2, "4.2 s"), (61, "61 s"), (600, "10 min"), (11100, "3 h 05 min"), (190000, "2 d 4 h")]
)
def test_times_are_readable(seconds, text):
    assert duration(seconds) == text


def test_numbers_are_readable():
    assert [number(value) for value in (7.8912, 1234.5, 0.00421)] == ["7.89", "1234", "0.00421"]
