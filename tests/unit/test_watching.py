"""Watching runs in a browser: what is read, what is told, and what is refused."""

import gzip
import http.client
import json
import os
import re
import subprocess
import threading
import time
from contextlib import contextmanager
from html import unescape
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import pytest
from helpers import REPO
from run_fixture import HOSTILE, FakeRun, WatchedRun, iteration

from py2rely_core.parameters.recipe import Recipe
from py2rely_core.problems import ProblemError
from py2rely_core.report.outcome import write_outcome
from py2rely_core.results.collect import collect_failed
from py2rely_core.results.project import update_project
from py2rely_core.results.tasks import read_json
from py2rely_core.watching import server as serving
from py2rely_core.watching.feed import Feed
from py2rely_core.watching.jobs import commands_of, logs_of, maps_of, tail
from py2rely_core.watching.machine import Machine
from py2rely_core.watching.pages import Pages, step_id
from py2rely_core.watching.places import Place, of_run, within
from py2rely_core.watching.server import Server, remote_lines
from py2rely_core.watching.sources import Look, Project, Run, open_source, open_sources

REFINE = ("main", "Refine3D/bin2")
POST = ("main", "PostProcess/bin4_result")


@contextmanager
def served(*directories):
    server = Server(open_sources(list(directories)))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def ask(server, route="", token=None, host=None, method="GET", headers=None, **query):
    """Status, text and headers of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    path = f"/{server.token if token is None else token}/{route}" + (f"?{urlencode(query)}" if query else "")
    connection.request(method, path, headers=({"Host": host} if host else {}) | (headers or {}))
    answer = connection.getresponse()
    body = answer.read()
    if answer.headers["Content-Encoding"] == "gzip":
        body = gzip.decompress(body)
    connection.close()
    return answer.status, body.decode(), answer.headers


def of(key):
    return {"run": 0, "dataset": key[0], "job": key[1]}


def look(directory):
    """The steps of what is there now."""
    return open_source(directory).look().steps


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that goes on; never changed."""
    return WatchedRun(tmp_path_factory.mktemp("watched") / "run")


@pytest.fixture(scope="module")
def server(run):
    with served(run.results) as found:
        yield found


@pytest.fixture
def changing(tmp_path):
    """A run that goes on, to be changed."""
    return WatchedRun(tmp_path / "run")


# ---- who is answered


def test_only_who_has_the_token_is_answered(server):
    assert ask(server)[0] == 200
    for token in ("", "wrong", server.token[:-1], server.token + "x", server.token.swapcase(), "%00", "ä"):
        for route in ("", "events", "run", "style.css"):
            path = "ä".encode().decode("latin-1") if token == "ä" else token
            status, text, _ = ask(server, route, token=path.encode().decode("ascii", "ignore"), run=0)
            assert (status, "run" in text and "card" in text) == (403, False)
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.request("GET", "/")
    assert connection.getresponse().status == 403


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "", "[", "me@localhost", "localhost/x"],
)
def test_a_page_that_was_led_here_by_another_name_is_refused(server, host):
    assert ask(server, headers={"Host": host})[0] == 403


@pytest.mark.parametrize("host", ["127.0.0.1:9000", "localhost:8888", "LOCALHOST"])
def test_any_port_of_this_machine_may_lead_here(server, host):
    assert ask(server, host=host)[0] == 200


def test_what_is_no_address_is_no_trouble(server):
    for path in ("*", "//[/", f"/{server.token}/run?run=%ff%fe&" + "a=b&" * 100, f"/{server.token}//etc/passwd"):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
        connection.request("GET", path)
        assert connection.getresponse().status in (400, 403, 404)
        connection.close()


def test_it_listens_on_this_machine_only_and_only_reads(server):
    assert server.server_address[0] == "127.0.0.1"
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(server, method=method)[0] == 501


def test_nothing_but_its_own_scripts_can_run(server):
    for route in ("", "run", "page.js", "nothing"):
        _, _, headers = ask(server, route, run=0)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'; script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script-src 'self' 'unsafe-inline'" not in policy
        assert (headers["Referrer-Policy"], headers["Cache-Control"]) == ("no-referrer", "no-store")
    page = ask(server)[1]
    assert "<script>" not in page
    assert "style=" not in page
    assert "http" not in page


def test_each_server_has_a_token_of_its_own(run):
    with served(run.results) as one, served(run.results) as other:
        assert one.token != other.token
        assert len(one.token) >= 32


# ---- what is answered


def test_a_run_with_its_steps(server):
    status, text, _ = ask(server, "run", run=0)
    assert status == 200
    for name in ("Import", "Extract", "Refine3D", "PostProcess", "bin4_result"):
        assert name in text
    assert text.count('class="chip done"') == 8
    assert "iteration 3 of 25, 15.0 Å" in text
    assert text.count('class="chip running"') == 1
    assert 'class="chip waiting"' in text


def test_what_a_step_got_and_who_used_it(run, server):
    seen = open_source(run.results).look()
    assert seen.inputs["main", "Refine3D/bin4"] == [("main", "Extract/bin4")]
    assert seen.following(("main", "Select/bin4")) == [("main", "Reconstruct/bin4_result"), ("main", "Extract/bin2")]
    seen.inputs["main", "Refine3D/bin4"] += [("main", "Import/tilt_series")]
    assert seen.nearest()["main", "Refine3D/bin4"] == [("main", "Extract/bin4")]
    text = ask(server, "run", run=0)[1]
    line = next(line for line in text.splitlines() if step_id(("main", "Refine3D/bin4")) in line)
    assert f'data-from="{step_id(("main", "Extract/bin4"))} "' in line


def test_graphs_that_are_long_or_go_in_circles():
    """What came by another input as well is left out; a chain may be as long as it likes, in any order."""
    keys = [("", f"Select/{number}") for number in range(3000)]
    chain = {keys[n]: [keys[n - 1], *([keys[n - 2]] if n > 1 else [])] for n in range(2999, 0, -1)}
    nearest = Look({}, {}, chain).nearest()
    assert nearest == {keys[n]: [keys[n - 1]] for n in range(1, 3000)}
    circle = {keys[0]: [keys[1]], keys[1]: [keys[0]]}
    assert Look({}, {}, circle).nearest() == circle


def test_a_refinement_that_goes_on(server):
    text = unescape(ask(server, "job", **of(REFINE))[1])
    for label in ("Resolution after each iteration", "Fourier shell correlation by iteration",
                  "Mean change of orientations and offsets at each iteration"):  # fmt: skip
        assert f'aria-label="{label}"' in text
    for name in ("iteration 3, half 1", "iteration 3, half 2", "run.out", "task: script"):
        assert f"<option>{name}</option>" in text
    assert "15.0 Å" in text
    assert '<td class="number">2.67°</td>' in text  # 8 / 3 degrees at the third iteration


def test_a_job_that_is_done(server):
    text = unescape(ask(server, "job", **of(POST))[1])
    assert "20.8 Å" in text
    assert 'aria-label="Fourier shell correlation"' in text
    assert "relion_program --o PostProcess/bin4_result/ 'it'\"'\"'s'" in text
    assert "view=mask" in text
    assert "Reconstruct/bin4_result</a>" in text


def test_maps_are_shown_as_surface_and_slices(server):
    text = ask(server, "picture", map="iteration 3, half 2", **of(REFINE))[1]
    assert text.count('src="data:image/jpeg;base64,') == 3
    assert 'data-edge="' in text
    assert "is not there" in ask(server, "picture", map="iteration 9, half 2", **of(REFINE))[1]


def test_what_was_lost_and_why(server):
    text = unescape(ask(server, "summary", run=0)[1])
    assert "Closer to another particle than 45 Å after the refinement: duplicates." in text
    assert "Not visible in any tilt image." in text
    assert 'aria-label="Resolution against step"' in text


def test_long_answers_are_compressed_for_who_wants_it(server):
    plain, packed = (ask(server, "run", headers={"Accept-Encoding": kind}, run=0) for kind in ("identity", "gzip"))
    assert plain[1].replace("\n", "")[:500] == packed[1].replace("\n", "")[:500]
    assert int(packed[2]["Content-Length"]) < int(plain[2]["Content-Length"]) / 3


def test_the_report_of_a_run_that_is_over(changing):
    changing.end("failed")
    with served(changing.results) as server:
        assert ask(server, "report", run=0)[0] == 404
        about = {"plan": str(changing.work / "aa/aa0123456789/plan.json"), "nextflow": "25", "exit_status": 1}
        about |= {"jobs": [], "error_report": "", "error_message": HOSTILE}
        about |= {"ended": [], "outdir": str(changing.results)}
        write_outcome(collect_failed(about), lambda name: None, changing.results)
        (changing.results / "report.html").write_text("not this one")
        status, text, headers = ask(server, "report", run=0)
        assert (status, "The run failed" in text, HOSTILE in text) == (200, True, False)
        assert "connect-src" not in headers["Content-Security-Policy"]


def test_a_failed_refinement_says_why(changing):
    changing.fail()
    with served(changing.root) as server:
        text = unescape(ask(server, "job", **of(REFINE))[1])
        assert "relion_refine_mpi ran out of memory or was killed." in text
        assert "Give the step more memory." in text
        assert "<option>run.err</option>" in text


def test_numbers_that_are_none_do_not_end_the_watching(changing, capfd):
    job = changing.places["Extract/bin2"] / "job.json"
    job.write_text("[1, 2]")
    with served(changing.results) as server:
        assert ask(server, "job", **of(("main", "Extract/bin2")))[0] == 200
    job.write_text(json.dumps({"job": "Extract/bin2", "warnings": 5}))
    with served(changing.results) as server:
        status, text, _ = ask(server, "job", **of(("main", "Extract/bin2")))
        assert (status, "cannot be shown" in text) == (500, True)
        assert "TypeError" in capfd.readouterr().err
        assert ask(server, "run", run=0)[0] == 200


def test_a_run_whose_work_directory_is_gone(changing):
    changing.end("finished")
    changing.lose_work()
    update_project(changing.results)
    with served(changing.results) as server:
        steps = server.pages.sources[0].look().steps
        assert steps["main", "Refine3D/bin4"].state == "done"
        assert unescape(ask(server, "job", **of(POST))[1]).count('aria-label="Fourier shell correlation"') == 1
        assert "says that it is done" in ask_log(server, POST)


def test_a_classification_that_goes_on(tmp_path):
    """Every class has its curve and its map; a model that is just being written is left out."""
    run = FakeRun(tmp_path / "run", now=time.time())
    job = run.task("ab", "STA:CLASS3D (bin2)", run.now - 100, "Class3D/bin2") / "Class3D/bin2"
    for number in (1, 2):
        iteration(job, number, 30, run.now - 50, ((0.7, 30 - number), (0.3, None)), half="")
        for cls in (1, 2):
            (job / f"run_it{number:03d}_class{cls:03d}.mrc").write_text("map")
    (job / "run_it003_model.star").write_text("data_model_general\n_rlnPixelSi")
    with served(run.results) as server:
        text = unescape(ask(server, "job", **of(("main", "Class3D/bin2")))[1])
    for label in ("Share of every class after each iteration", "Resolution after each iteration"):
        assert f'aria-label="{label}"' in text
    assert re.findall(r"<option>(iteration[^<]*)", text) == ["iteration 2, class 1", "iteration 2, class 2"]
    assert "Iteration 2 of 25, 28.0 Å" in re.sub("<[^>]*>", "", text)


# ---- RELION projects


@pytest.fixture
def project(changing):
    """A RELION project with jobs of its own."""
    changing.lose_work()
    update_project(changing.results)
    (changing.results / "run.json").unlink()
    job = changing.results / "Class3D/job099"
    job.mkdir(parents=True)
    (job / "note.txt").write_text(
        " ++++ Executing new job on Fri Nov 27 05:00:00 2026\n ++++ with the following command(s): \n"
        "`which relion_refine` --o Class3D/job099/run\n ++++ \n"
    )
    (job / "run.out").write_text("classifying\n")
    (job / "job.star").write_text("\n")
    path = changing.results / "default_pipeline.star"
    row = "Class3D/job099/ None relion.class3d Running\n"
    lines = path.read_text().splitlines(keepends=True)
    last = max(n for n, line in enumerate(lines) if line.endswith("Succeeded\n"))
    path.write_text("".join([*lines[: last + 1], row, *lines[last + 1 :]]))
    return changing.results


def test_a_relion_project(project):
    source = open_source(project)
    assert isinstance(source, Project)
    seen = source.look()
    assert seen.run["state"] == "running"
    assert seen.steps["", "Class3D/job099"].state == "running"
    assert seen.steps["", "Refine3D/bin4"].state == "done"
    with served(project) as server:
        key = ("", "Class3D/job099")
        assert "`which relion_refine` --o Class3D/job099/run" in unescape(ask(server, "job", **of(key))[1])
        assert ask_log(server, key) == "classifying"
        post = ("", "PostProcess/bin4_result")
        assert "<figure" in ask(server, "picture", map="postprocess", **of(post))[1]
        assert seen.inputs[post] == [("", "Reconstruct/bin4_result")]
        masked = json.loads(ask(server, "masked", threshold=0.01, extend=2, edge=4, **of(post))[1])
        assert "levels" not in masked["setting"]
    (project / "Class3D/job099/RELION_JOB_EXIT_FAILURE").touch()
    assert look(project)["", "Class3D/job099"].state == "failed"


def test_a_project_that_names_places_outside(project, tmp_path):
    """Names of jobs are a kind and a job, whatever the pipeline says."""
    outside = tmp_path / "outside/job001"
    outside.mkdir(parents=True)
    (outside / "run.out").write_text("secret")
    path = project / "default_pipeline.star"
    for name in (f"{outside}/", "../../outside/job001/", "Class3D/../../../outside/job001/"):
        path.write_text(path.read_text().replace("Class3D/job099/ None", f"{name} None"))
        os.utime(path, ns=(time.time_ns(), time.time_ns()))
        assert not any("outside" in step.directory for step in look(project).values())
        path.write_text(path.read_text().replace(f"{name} None", "Class3D/job099/ None"))


def test_nothing_to_watch(tmp_path):
    with pytest.raises(ProblemError, match="neither a run nor a RELION project"):
        open_source(tmp_path)


# ---- what is not given out


TRICKS = [
    "../../../../../../etc/passwd", "/etc/passwd", "Refine3D/../../../../secret", "Refine3D/bin2/../../secret", "", ".",
    "Refine3D/bin2\0", "Refine3D/bin2/", "%2e%2e/secret", "file:///etc/passwd", "Refine3D\\..\\secret",
]  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS)
def test_a_path_is_no_name_of_anything(server, run, trick):
    (run.root / "secret").write_text("secret")
    for route in ("job", "picture", "mask", "masked", "classes", "events"):
        assert ask(server, route, run=0, dataset="main", job=trick, map=trick)[0] == 404
        assert ask(server, route, run=0, dataset=trick, job=REFINE[1])[0] == 404
    for number in (trick, "-1", "1", "\u0660", "0x0", "1e0"):
        assert ask(server, "run", run=number)[0] == 404
    assert "is not there" in ask(server, "picture", map=trick, **of(REFINE))[1]
    assert "first line" in ask_log(server, REFINE, log=trick)
    status, text, _ = ask(server, trick.replace("\0", "%00"), run=0)
    assert (status, "secret" in text) in ((404, False), (200, False))
    assert "root:" not in text


def test_links_that_lead_out_of_the_run(changing, tmp_path):
    """Outputs, numbers, maps and whole jobs behind links to elsewhere are as if they were not there."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "run.out").write_text("secret words")
    (secret / "job.json").write_text(json.dumps({"job": "secret", "resolution": 1.234, "wall_seconds": 0}))
    (secret / "commands.jsonl").write_text(json.dumps({"command": ["secret"]}) + "\n")
    half = changing.places["Reconstruct/bin4_result"] / "half1.mrc"
    (secret / "half1.mrc").write_bytes(half.read_bytes())
    for name in ("run.out", "job.json", "commands.jsonl"):
        for job in (changing.job, changing.places["PostProcess/bin4_result"]):
            (job / name).unlink(missing_ok=True)
            (job / name).symlink_to(secret / name)
    (changing.refine / ".command.err").symlink_to(secret / "run.out")
    half.unlink()
    half.symlink_to(secret / "half1.mrc")
    with served(changing.results) as server:
        pages = server.pages
        for key in (REFINE, POST):
            text = pages.job(0, key)
            assert "secret" not in text
            assert "1.234" not in text
            assert "secret" not in ask_log(server, key)
        source = pages.sources[0]
        assert "half1" not in maps_of(source, look(changing.results)["main", "Reconstruct/bin4_result"])
        assert ask(server, "mask", **of(POST))[0] == 422


def test_a_run_that_claims_a_work_directory_elsewhere(changing, tmp_path):
    """Only what Nextflow would have made below it is read, and what it holds are tasks."""
    (tmp_path / "id_rsa").write_text("secret")
    inside = of_run(changing.results, tmp_path)
    assert not inside(tmp_path / "id_rsa")
    assert not inside(tmp_path / "run/results/../../id_rsa".replace("run/results/../../", ""))
    assert inside(tmp_path / "ab/0123456789/file")
    assert not inside(tmp_path / "abc/0123456789/file")


def test_a_place_gives_files_of_its_own(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").write_text("x")
    (tmp_path / "out").write_text("y")
    (tmp_path / "in/link").symlink_to("../out")
    (tmp_path / "in/circle").symlink_to("circle")
    (tmp_path / "in/same").symlink_to("file")
    os.mkfifo(tmp_path / "in/pipe")
    place = Place(tmp_path / "in", within(tmp_path / "in"))
    found = {
        name: place.file(name) is not None for name in ("file", "same", "link", "circle", "pipe", "../out", "none")
    }
    assert found == {"file": True, "same": True} | dict.fromkeys(("link", "circle", "pipe", "../out", "none"), False)
    beside = Place(tmp_path / "in", within(tmp_path / "i"))
    assert beside.file("file") is None


def test_what_files_say_is_never_markup(changing):
    changing.fail()
    name = "<b onclick=x>"
    numbers = json.loads((changing.places["Select/bin4"] / "job.json").read_text())
    numbers |= {"reason": HOSTILE, "warnings": [HOSTILE]}
    (changing.places["Select/bin4"] / "job.json").write_text(json.dumps(numbers))
    changing.task("de", f"STA:SELECT ({name})", changing.now - 100, f"Select/{name}")
    with served(changing.results) as server:
        texts = [ask(server, route, run=0)[1] for route in ("run", "summary")]
        texts += [
            ask(server, "job", **of(key))[1] for key in (REFINE, ("main", "Select/bin4"), ("main", f"Select/{name}"))
        ]
        feed = Feed(server.pages, 0, REFINE)
        texts += list(feed.changes()["parts"].values())
    for text in texts:
        assert "<script>document" not in text
        assert "<img src=x" not in text
        assert "<b onclick" not in text
    assert "&lt;script&gt;document.title" in texts[0]
    assert "&lt;script&gt;document.title" in texts[1]


def test_nothing_is_written(run, server):
    def state():
        return {path: path.lstat().st_mtime_ns for path in run.root.rglob("*") if path.name != "secret"}

    before = state()
    for route in ("", "run", "summary", "page.js"):
        assert ask(server, route, run=0)[0] == 200
    for key in (REFINE, POST):
        assert ask(server, "job", **of(key))[0] == 200
    assert ask(server, "masked", threshold=0.01, extend=2, edge=4, **of(POST))[0] == 200
    assert state() == before


# ---- what changes


def ask_log(server, key, **query):
    """The end of an output, as a page is told it."""
    return Feed(server.pages, 0, key, query.get("log", "")).changes()["log"]


def later(feed):
    """What a page is told next."""
    feed.pages.sources[0]._checked = float("-inf")
    return feed.changes()


def test_a_page_is_told_what_changed_and_nothing_else(changing):
    feed = Feed(Pages([Run(changing.results)]), 0, REFINE)
    first = feed.changes()
    assert set(first) == {"parts", "stale", "log", "now"}
    assert set(first["parts"]) == {"card-0", "machine"}
    assert first["stale"] == ["run", "summary", "job"]
    assert "Auto-refine: Iteration= 3" in first["log"]
    assert later(feed) == {}
    changing.iterate(4)
    told = later(feed)
    assert told["stale"] == ["job"]
    assert set(told["parts"]) == {"card-0", step_id(REFINE)}
    assert "iteration 4 of 25, 12.0 Å" in told["parts"][step_id(REFINE)]
    assert told["log"].endswith("Auto-refine: Iteration= 4")
    with (changing.job / "run.out").open("a") as file:
        file.write("one more line\n")
    assert later(feed)["log"].endswith("one more line")
    changing.task("fa", "STA:RECONSTRUCT (bin2_start)", time.time(), "Reconstruct/bin2_start")
    assert later(feed)["stale"] == ["run"]
    changing.fail()
    told = later(feed)
    assert set(told["stale"]) == {"run", "job"}
    assert "failed" in told["parts"]["card-0"]


@pytest.mark.parametrize(("state", "words"), [("crashed", "ended without a word"), ("finished", "finished")])
def test_how_a_run_ends(changing, state, words):
    pages = Pages([Run(changing.results)])
    assert "running" in pages.card(0)
    changing.end(state)
    pages.sources[0]._checked = float("-inf")
    assert words in pages.card(0)


def test_events_come_as_they_happen(changing, monkeypatch):
    monkeypatch.setattr(serving, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr("py2rely_core.watching.sources.FRESH_SECONDS", 0.0)
    with served(changing.results) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
        connection.request("GET", f"/{server.token}/events?{urlencode(of(REFINE))}")
        answer = connection.getresponse()
        assert answer.headers["Content-Type"] == "text/event-stream"

        def told():
            line = answer.readline()
            while not line.startswith(b"data: "):
                line = answer.readline()
            return json.loads(line[6:])

        assert "first line" in told()["log"]
        with (changing.job / "run.out").open("a") as file:
            file.write("and another\n")
        assert told()["log"].endswith("and another")
        connection.close()


def test_two_runs_side_by_side(changing, run):
    changing.end("finished")
    with served(run.results, changing.results) as server:
        pages = ask(server)[1]
        assert pages.count('class="card run"') == 2
        cards = Feed(server.pages).changes()["parts"]
        assert "running" in cards["card-0"]
        assert "finished" in cards["card-1"]


def test_runs_are_called_by_what_tells_them_apart(tmp_path):
    runs = [FakeRun(tmp_path / name / "run") for name in ("one", "other")]
    sources = open_sources([runs[0].results, runs[1].root, runs[0].results])
    assert [source.label for source in sources] == ["one/run/results", "other/run/results"]
    assert open_sources([runs[0].results])[0].label == "run/results"
    with pytest.raises(ProblemError) as error:
        open_sources([tmp_path, runs[0].results, tmp_path / "none"])
    assert len(error.value.problems) == 2


# ---- parts


def test_the_end_of_an_output(tmp_path):
    path = tmp_path / "run.out"
    path.write_bytes(b"one\r\n 0%\r 50%\r100%\ntwo \xff\n\n")
    assert tail(path) == "one\n100%\ntwo \N{REPLACEMENT CHARACTER}"
    path.write_text("\n".join(f"line {n}" for n in range(100_000)))
    assert tail(path).splitlines()[-1] == "line 99999"
    assert len(tail(path).splitlines()) == 200
    path.write_text("x" * 100_000)
    assert len(tail(path)) <= 24_000


def test_commands_that_are_just_being_noted(tmp_path):
    (tmp_path / "commands.jsonl").write_text('{"command": ["a", "b c"], "exit_code": 1}\n{"comm')
    assert [one["command"] for one in commands_of(Place(tmp_path, within(tmp_path)))] == ["a 'b c'"]


def test_outputs_of_a_step_with_two_jobs(run):
    step = look(run.results)[POST]
    names = list(logs_of(open_source(run.results), step))
    assert names[0] == "PostProcess/bin4_result: run.out"
    assert "task: script" in names


def test_gpus_and_the_machine(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(
        '#!/bin/sh\necho "0, NVIDIA A100, 87, 20480, 81920"\necho "1, A thing, [N/A], 1, 2"\necho nonsense\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    load = Machine().load()
    assert load["gpus"] == [
        {"index": "0", "name": "NVIDIA A100", "busy": 87.0, "used": 20.0, "whole": 80.0},
        {"index": "1", "name": "A thing", "busy": None, "used": 0.0, "whole": 0.0},
    ]
    assert load["cpus"] >= 1
    assert 0 < load["memory"][0] <= load["memory"][1]
    program.write_text("#!/bin/sh\nexit 9\n")
    assert Machine().load()["gpus"] == []


def test_how_it_is_reached_from_elsewhere():
    assert remote_lines(8000, {}, "me") == []
    ssh = remote_lines(8000, {"SSH_CONNECTION": "1.2.3.4 5 6.7.8.9 22"}, "me")
    assert any(line.strip().startswith("ssh -N -L 8000:127.0.0.1:8000 me@") for line in ssh)
    node = remote_lines(8000, {"SLURM_JOB_ID": "1", "SLURM_SUBMIT_HOST": "login"}, "me")
    assert any("ssh -N -L 8000:127.0.0.1:8000 -J me@login me@" in line for line in node)


def test_the_command(run):
    """It prints its address, answers there, and ends when it is told to; a port that is taken is an error."""
    words = [REPO / "bin/py2rely", "ui", run.results]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32,}/", address)
        assert urlopen(address, timeout=30).status == 200
        port = address.split(":")[2].split("/")[0]
        taken = subprocess.run([*words, "--port", port], capture_output=True, text=True, check=False)
        assert (taken.returncode, taken.stdout) == (2, "")
        assert f"Port {port} cannot be used" in taken.stderr
    finally:
        process.terminate()
    assert process.wait(30) == 0


# ---- the mask


def test_the_mask_and_what_it_does(run, server):
    page = unescape(ask(server, "mask", **of(POST))[1])
    assert 'name="extend" type="number" min="0" max="20" value="2"' in page
    threshold = float(page.split('name="threshold" type="number" step="any" value="')[1].split('"')[0])
    small, large = (
        json.loads(ask(server, "masked", threshold=threshold, extend=extend, edge=3, **of(POST))[1])
        for extend in (0, 4)
    )
    shares = [float(one["parts"]["mask-numbers"].split("<dd>")[1].split(" %")[0]) for one in (small, large)]
    assert 0 < shares[0] < shares[1] < 100
    assert "Fourier shell correlation in the mask" in small["parts"]["mask-chart"]
    recipe = Recipe.model_validate(Recipe().model_dump(by_alias=True) | json.loads(large["setting"]))
    block = recipe.block_at(4, "mask_create")
    assert (block.ini_threshold, block.extend_inimask, block.width_mask_edge) == (
        pytest.approx(threshold, rel=1e-4),
        4,
        3,
    )
    empty = json.loads(ask(server, "masked", threshold=1e6, extend=0, edge=3, **of(POST))[1])
    assert "the mask is empty" in empty["parts"]["mask-numbers"]


@pytest.mark.parametrize(
    "change", [{"threshold": "nan"}, {"extend": -1}, {"edge": 1000}, {"extend": "x"}, {"edge": ""}]
)
def test_settings_that_are_no_mask(server, change):
    assert ask(server, "masked", **{"threshold": 0.1, "extend": 1, "edge": 1} | change, **of(POST))[0] == 400


def test_a_job_without_half_maps_has_no_mask(server):
    status, text, _ = ask(server, "mask", **of(("main", "Import/tilt_series")))
    assert (status, "There are no half maps to mask." in text) == (422, True)


# ---- many jobs


def test_a_thousand_jobs_open_quickly_and_are_read_once(tmp_path, monkeypatch):
    run = FakeRun(tmp_path / "run", now=time.time())
    rows = []
    for number in range(1000):
        job = f"Extract/bin{2 ** (number % 3)}_{number}"
        directory = run.work / f"{number % 256:02x}" / f"{number:030x}"
        (directory / job).mkdir(parents=True)
        (directory / job / "job.json").write_text(json.dumps({"job": job, "particles_out": number + 1}))
        moment = "2026-01-01 00:00:00"
        rows.append("\t".join([f"STA:EXTRACT ({job})", "COMPLETED", "0", *[moment] * 3, str(directory)]))
    lines = ["name\tstatus\texit\tsubmit\tstart\tcomplete\tworkdir", *rows]
    (run.results / "trace.tsv").write_text("\n".join(lines) + "\n")
    with served(run.results) as server:
        start = time.perf_counter()
        assert ask(server)[0] == 200
        text = ask(server, "run", run=0)[1]
        assert time.perf_counter() - start < 2
        assert text.count("<li") == 1000
        opened = []
        monkeypatch.setattr(
            "py2rely_core.results.status.read_json", lambda path: opened.append(path) or read_json(path)
        )
        feed = Feed(server.pages, 0)
        feed.changes()
        assert later(feed) == {}
        assert len(opened) <= 4  # run.json; none of the jobs


@pytest.mark.relion
def test_masks_are_relions_own(tmp_path):
    """Voxel by voxel, for every kind of setting; and so are the curves within them."""
    from py2rely_core.data.tables import read_star
    from py2rely_core.maps.filters import cosine_low_pass
    from py2rely_core.maps.fsc import fsc, randomise_phases, without_mask
    from py2rely_core.maps.io import read_map, write_map
    from py2rely_core.maps.masks import soft_mask

    run = WatchedRun(tmp_path / "run")
    for seed, name in enumerate(("half1", "half2", "merged"), start=1):
        write_map(tmp_path / f"{name}.mrc", run.map(2, noise=0.8 if seed < 3 else 0.3, seed=seed), 5.24)
    merged = read_map(tmp_path / "merged.mrc")
    filtered = cosine_low_pass(merged.data, merged.pixel_size, 20)
    # Between two values, so that no voxel is in or out by the last digit of a filter.
    values = np.sort(filtered, axis=None)[-4000:-2000]
    gap = np.diff(values).argmax()
    threshold = f"{(values[gap] + values[gap + 1]) / 2:.8g}"
    for extend, edge in ((0, 0), (3, 5), (1, 0), (0, 4), (5, 8)):
        command = f"relion_mask_create --i merged.mrc --o mask.mrc --lowpass 20 --ini_threshold {threshold}"
        command += f" --extend_inimask {extend} --width_soft_edge {edge}"
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
        mask = soft_mask(filtered, float(threshold), extend, edge)
        assert np.abs(mask - read_map(tmp_path / "mask.mrc").data).max() < 1e-3, (extend, edge)
    (tmp_path / "post").mkdir()
    command = "relion_postprocess --i half1.mrc --mask mask.mrc --o post/post --randomize_at_A 20"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    table = read_star(tmp_path / "post/post.star")["fsc"]
    halves = [read_map(tmp_path / f"half{n}.mrc").data for n in (1, 2)]
    masked = fsc(*halves, mask, as_relion=True)
    assert np.abs(masked - table["rlnFourierShellCorrelationMaskedMaps"])[1:].max() < 1e-3
    shell = int(48 * 5.24 / 20)
    noise = fsc(*(randomise_phases(half, shell, seed) for seed, half in enumerate(halves)), mask, as_relion=True)
    relion = table["rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps"].to_numpy()
    assert np.abs(noise - relion)[1 : shell + 1].max() < 0.1
    assert np.abs(noise - relion)[shell + 3 :].max() < 0.4  # other random numbers
    corrected = without_mask(masked, relion, shell)
    assert np.abs(corrected - table["rlnFourierShellCorrelationCorrected"])[1:].max() < 1e-3
