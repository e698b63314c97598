"""How far a run is, from directories as Nextflow and RELION leave them."""

import os
import socket
import time

import pytest
from run_fixture import NOW, FakeRun, at, iteration

from py2rely_core.problems import ProblemError
from py2rely_core.results.expected_jobs import expected_jobs
from py2rely_core.results.progress import read_progress
from py2rely_core.results.status import outcome, read_status, unfinished_jobs, watch


def test_what_runs_what_is_done_and_what_waits(tmp_path):
    run = FakeRun(tmp_path)
    run.plan(4, 2)
    run.task("ab", "STA:EXTRACT (bin4)", NOW - 800, "Extract/bin4", 0, NOW - 700, "COMPLETED", {"particles_out": 39})
    directory = run.task("ac", "STA:REFINE:REFINE3D (bin4)", NOW - 600, "Refine3D/bin4")
    (directory / "Extract").mkdir()
    (directory / "Extract/bin4").symlink_to(tmp_path / "work/ab/ab0123456789/Extract/bin4")
    for number, moment in enumerate((500, 400, 320, 240)):
        iteration(directory / "Refine3D/bin4", number, 40 - 5 * number, NOW - moment)
    about, steps = run.status()
    assert (about["state"], about["seconds"]) == ("running", 1000.0)
    assert (steps["preflight"]["dataset"], steps["preflight"]["state"]) == ("", "done")
    assert (steps["Extract/bin4"]["state"], steps["Extract/bin4"]["result"]) == ("done", "39 particles")
    assert steps["Extract/bin4"]["seconds"] == 100.0
    refine = steps["Refine3D/bin4"]
    assert (refine["state"], refine["dataset"], refine["binning"], refine["started"]) == (
        "running",
        "main",
        4,
        NOW - 600,
    )
    assert refine["seconds"] == 600.0
    assert (refine["progress"]["iteration"], refine["progress"]["resolution"]) == (3, 25.0)
    assert [one["seconds"] for one in refine["progress"]["history"]] == [None, 100.0, 80.0, 80.0]
    waiting = [name for name, step in steps.items() if step["state"] == "waiting"]
    names = """
        Import/tilt_series Reconstruct/bin4_start Select/bin4 Reconstruct/bin4_result PostProcess/bin4_result
        Extract/bin2 Reconstruct/bin2_start PostProcess/bin2_start Refine3D/bin2 Select/bin2
        Reconstruct/bin2_result PostProcess/bin2_result results
    """
    assert waiting == names.split()


def test_time_to_the_end(tmp_path):
    """A guess with a known number of iterations, else a lower bound; RELION's own bar within an iteration."""
    script = tmp_path / "script"
    script.write_text("relion_refine --auto_refine")
    for number, moment in enumerate((1000, 700, 600, 500, 400)):
        iteration(tmp_path, number, 30, NOW - moment)
    found = read_progress(tmp_path, script, NOW - 340)
    assert (found["iterations"], found["eta_kind"], found["eta_seconds"]) == (None, "at least", 40.0 + 100.0)
    script.write_text("relion_refine --K 2 --iter 10")
    found = read_progress(tmp_path, script, NOW - 340)
    assert (found["iterations"], found["eta_kind"], found["eta_seconds"]) == (10, "about", 40.0 + 5 * 100.0)
    bar = ' Expectation iteration 5\n000/??? sec ~~(,_,">\r1.50/2.00 min ......~~(,_,">'
    (tmp_path / "run.out").write_text(f"0.10/0.20 sec\n Maximization is done\n{bar}")
    found = read_progress(tmp_path, script, NOW)
    assert (found["within"], found["eta_seconds"]) == (0.75, 30.0 + 5 * 100.0)


def test_classes_and_a_file_that_is_being_written(tmp_path):
    script = tmp_path / "script"
    script.write_text("relion_refine --K 2 --iter 3")
    iteration(tmp_path, 1, 30, NOW - 20, ((0.7, 22.0), (0.3, 35.0)), half="")
    (tmp_path / "run_it002_model.star").write_text("\ndata_model_general\n_rlnCurrent")
    found = read_progress(tmp_path, script, NOW)
    assert found["iteration"] == 1
    assert found["classes"] == [{"share": 0.7, "resolution": 22.0}, {"share": 0.3, "resolution": 35.0}]
    assert found["resolution"] == 22.0
    assert read_progress(tmp_path / "nothing", tmp_path / "no_script", NOW) == {}


def test_a_failed_run(tmp_path):
    run = FakeRun(tmp_path, state="failed", ended=NOW - 100, error="Process failed")
    run.plan(4)
    run.task("ab", "STA:EXTRACT (bin4)", NOW - 800, "Extract/bin4", 70, NOW - 700, "FAILED")
    about, steps = run.status()
    assert (about["state"], about["error"], about["seconds"]) == ("failed", "Process failed", 900.0)
    assert (steps["Extract/bin4"]["state"], steps["Extract/bin4"]["exit_code"]) == ("failed", 70)
    assert steps["Refine3D/bin4"]["state"] == "skipped"
    found = unfinished_jobs(read_status(run.results, NOW), "main")
    assert {name: state for name, (_, state) in found.items()} == {"Extract/bin4": "Failed"}


@pytest.mark.parametrize(("pid", "state"), [(2**22 - 1, "crashed"), (None, "crashed")])
def test_a_run_that_died_on_this_host(tmp_path, pid, state):
    """Nobody wrote that it ended: its process is gone, or its number belongs to another program by now."""
    run = FakeRun(tmp_path, host=socket.gethostname(), pid=pid or os.getpid())
    run.task("ac", "STA:REFINE:REFINE3D (bin4)", NOW - 600, "Refine3D/bin4")
    about, steps = run.status()
    assert about["state"] == state
    assert steps["Refine3D/bin4"]["state"] == "stopped"


@pytest.mark.parametrize(("silence", "state"), [(100, "running"), (5000, "crashed")])
def test_a_run_on_another_host_is_judged_by_its_signs_of_life(tmp_path, silence, state):
    run = FakeRun(tmp_path, started=NOW - 9000)
    directory = run.task("ac", "STA:REFINE:REFINE3D (bin4)", NOW - 8000, "Refine3D/bin4")
    (directory / "Refine3D/bin4/run.out").touch()
    at(directory / "Refine3D/bin4/run.out", NOW - silence)
    about, _ = run.status()
    assert (about["state"], about["last_sign_of_life"]) == (state, NOW - silence)


def test_tasks_of_earlier_runs_do_not_count(tmp_path):
    run = FakeRun(tmp_path)
    run.task("ac", "STA:EXTRACT (bin4)", NOW - 5000, "Extract/bin4", 0, NOW - 4000)
    (run.results / "trace.tsv").write_text("name\tstatus\nold\tFAILED\n")
    at(run.results / "trace.tsv", NOW - 4000)
    _, steps = run.status()
    assert steps == {}


def test_the_last_try_counts(tmp_path):
    run = FakeRun(tmp_path)
    run.task("ab", "STA:EXTRACT (bin4)", NOW - 800, "Extract/bin4", 137, NOW - 700, "FAILED")
    run.task("ac", "STA:EXTRACT (bin4)", NOW - 600, "Extract/bin4")
    _, steps = run.status()
    assert steps["Extract/bin4"]["state"] == "running"


def test_a_run_is_found_from_where_it_was_started(tmp_path):
    FakeRun(tmp_path)
    assert read_status(tmp_path, NOW)["run"]["output_dir"] == str(tmp_path / "results")
    (tmp_path / "other").mkdir()
    with pytest.raises(ProblemError, match="There is no run"):
        read_status(tmp_path / "other", NOW)


def test_what_a_plan_has_for_sure():
    levels = [{"binning": 4}]
    names = {
        mode: [
            name for name, _ in expected_jobs({"initial_reference": {"mode": mode, "iterations": 2}, "levels": levels})
        ]
        for mode in ("known", "template", "denovo")
    }
    rest = ["Refine3D/bin4", "Select/bin4", "Reconstruct/bin4_result", "PostProcess/bin4_result"]
    first = ["Import/tilt_series", "Extract/bin4"]
    assert names["known"] == [*first, "Reconstruct/bin4_start", *rest]
    assert names["denovo"] == [*first, "InitialModel/bin4", *rest]
    assert names["template"] == [
        "Import/tilt_series",
        "Reference/template",
        "Extract/bin4",
        "Class3D/bin4_template",
        *rest,
    ]


def test_the_steps_on_the_best_map_are_expected_where_it_is_known_which_one_that_is():
    plan = {"initial_reference": {"mode": "known"}, "levels": [{"binning": 4}, {"binning": 2, "last": True}]}
    plan["map_analysis"] = {"sharpening": {"lowest": 10}, "directions": None, "local_resolution": {"ranks": 2}}
    last = [job for job, _ in expected_jobs(plan)][-2:]
    assert last == ["PostProcess/bin2_result_sharpened", "LocalRes/bin2_result"]
    plan["polishing"] = {"ctf_refine": {}, "cycles": 1}
    assert "LocalRes/bin2_result" not in [job for job, _ in expected_jobs(plan)]


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ({"sharpening": {"sharpened": True, "b_factor": -87.6}}, "B-factor -88 A^2"),
        ({"sharpening": {"sharpened": False, "b_factor": None}}, "not sharpened"),
        ({"directions": {"best": 6.61, "worst": 9.4}}, "6.6 to 9.4 A"),
        ({"local_resolution": {"best": 6.0, "worst": 10.25}}, "6.0 to 10.2 A"),
        ({"template": {"text": "They differ."}}, "They differ."),
    ],
)
def test_what_the_steps_on_the_best_map_gave(numbers, text):
    assert outcome(numbers) == text


def test_watching_ends_with_the_run():
    states = iter(["running", "running", "finished"])
    shown = []
    last = watch(lambda: {"run": {"state": next(states)}}, shown.append, 0.001)
    assert (len(shown), last["run"]["state"]) == (3, "finished")


def test_it_is_quick(tmp_path):
    """A thousand finished tasks of earlier runs are not opened."""
    run = FakeRun(tmp_path)
    for number in range(1000):
        directory = run.work / f"{number % 256:02x}" / f"{number:032x}"
        directory.mkdir(parents=True)
        (directory / ".command.run").touch()
        at(directory / ".command.run", NOW - 5000)
    start = time.perf_counter()
    run.status()
    assert time.perf_counter() - start < 2
