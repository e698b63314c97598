"""Runs watched in a real browser: in every size and colour scheme, while they change, fail and die."""

import re
import subprocess
import threading
import time

import pytest
from browsing import PATIENCE, assert_background, drawn, opened
from helpers import (
    LONG,
    REFINEMENT_FAILS,
    STEADY,
    command,
    environment,
    kill_family,
    make_data,
    stand_in,
    write_parameters,
)
from playwright.sync_api import expect
from run_fixture import HOSTILE, WatchedRun

from py2rely_core.watching import server as serving
from py2rely_core.watching.server import Server
from py2rely_core.watching.sources import open_sources

pytestmark = [pytest.mark.browser]
REFINE = "#run=0&dataset=main&job=Refine3D/bin2"
MASK = "#run=0&dataset=main&job=PostProcess/bin4_result&view=mask"


@pytest.fixture
def watch(monkeypatch):
    """Serves some runs, looking at them often."""
    monkeypatch.setattr(serving, "LOOK_SECONDS", 0.3)
    monkeypatch.setattr("py2rely_core.watching.sources.FRESH_SECONDS", 0.2)
    servers = []

    def start(*directories):
        servers.append(Server(open_sources(list(directories))))
        threading.Thread(target=servers[-1].serve_forever, args=(0.1,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A run that goes on, one that failed, and one that died; never changed."""
    base = tmp_path_factory.mktemp("three")
    runs = [WatchedRun(base / name / "run") for name in ("going", "failed", "dead")]
    runs[1].fail()
    runs[2].end("crashed")
    return [run.results for run in runs]


@pytest.mark.parametrize(
    ("place", "size", "scheme"),
    [
        ("", "desktop", "light"), ("", "phone", "dark"), ("#run=1", "desktop", "dark"), ("#run=0", "phone", "light"),
        (REFINE, "desktop", "light"), (REFINE, "phone", "dark"), (MASK, "desktop", "dark"), (MASK, "phone", "light"),
    ],
)  # fmt: skip
def test_every_view_is_whole(browser, watch, three, tmp_path, place, size, scheme):
    server = watch(*three)
    with opened(browser, server.url, size, scheme, place) as page:
        expect(page.locator("#live")).to_have_text("live")
        expect(page.locator(".run .pill")).to_have_text(["running", "failed", "crashed"])
        if place:
            expect(page.locator("#run .chip").first).to_be_attached()
        if "job=" in place:
            view = drawn(page)
            assert 0.03 < (view[..., 3] > 0).mean() < 0.95
            assert view[view[..., 3] > 0][:, :3].std() > 10
            expect(page.locator(".slices img")).to_have_count(3)
        if place == MASK:
            expect(page.locator("#mask-chart svg")).to_be_visible()
        elif place == REFINE:
            expect(page.locator("#job svg.chart")).to_have_count(3)
            expect(page.locator("#log")).to_contain_text("Auto-refine: Iteration= 3")
        elif place == "#run=1":
            expect(page.get_by_role("alert")).to_contain_text("Process failed")
            expect(page.locator("#summary")).to_contain_text("duplicates")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
        page.evaluate("scrollTo(0, 0)")
        assert_background(page, tmp_path / f"{size}-{scheme}.png", scheme)


def test_a_refinement_is_watched_until_it_fails(browser, watch, tmp_path):
    """New iterations, lines and the end come by themselves; nothing that a file says is taken for markup."""
    run = WatchedRun(tmp_path / "run")
    server = watch(run.results)
    with opened(browser, server.url) as page:
        page.get_by_role("link", name=re.compile("Refine3D.*bin2")).first.click()
        expect(page.locator("#job h2")).to_contain_text("Refine3D/bin2")
        expect(page.locator("#log")).to_contain_text(HOSTILE)
        assert page.title() != "broken"
        expect(page.locator("#job select[name=map]")).to_have_value("iteration 3, half 1")
        before = drawn(page)
        page.locator("#job select[name=map]").select_option("iteration 3, half 2")
        expect(page.locator("#picture")).to_contain_text("iteration 3, half 2")
        run.iterate(4)
        expect(page.locator("#job")).to_contain_text("Iteration 4 of 25, 12.0 Å")
        expect(page.locator("#job select[name=map]")).to_have_value("iteration 4, half 1")
        expect(page.locator("#log")).to_contain_text("Iteration= 4")
        expect(page.locator(".chip[aria-current]")).to_contain_text("iteration 4 of 25")
        after = drawn(page)
        assert (after != before).mean() > 0.005
        with (run.job / "run.out").open("a") as file:
            file.write("a last line\n")
        expect(page.locator("#log")).to_contain_text("a last line")
        page.locator("#job select[name=log]").select_option("task: script")
        expect(page.locator("#log")).to_contain_text("relion_refine --iter 25")
        run.fail()
        expect(page.locator("#job .failure")).to_contain_text("ran out of memory or was killed")
        expect(page.locator("#run")).to_contain_text(f"Process failed {HOSTILE}")
        expect(page.locator(".run .pill")).to_have_text("failed")
        page.go_back()
        expect(page.locator("#job")).to_be_hidden()
        page.locator(".chip", has_text="Select").first.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#job h2")).to_contain_text("Select/bin4")
        expect(page.locator("#job")).to_contain_text("380")


def test_the_mask_follows_the_sliders(browser, watch, three):
    server = watch(three[0])
    with opened(browser, server.url, place=MASK) as page:
        numbers, setting = page.locator("#mask-numbers"), page.locator("#mask-setting")
        expect(numbers).to_contain_text("of the box")
        first = drawn(page)

        def occupied():
            return float(re.search(r"([\d.]+) %", numbers.inner_text())[1])

        before = occupied()
        page.locator("#extend").fill("8")
        expect(setting).to_contain_text('"extend_inimask": 8')
        wider = occupied()
        assert wider > before
        assert (drawn(page) != first).mean() > 0.02
        page.locator("#edge-slider").fill("9")
        expect(setting).to_contain_text('"width_mask_edge": 9')
        assert occupied() > wider
        expect(page.locator("#mask-command")).to_contain_text("--extend_inimask 8 --width_soft_edge 9")
        page.locator("#threshold").fill("1000000")
        expect(numbers).to_contain_text("the mask is empty")
        expect(numbers).to_contain_text("0.0 %")


def test_without_the_token_nothing_is_shown(browser, watch, three):
    server = watch(three[0])
    page = browser.new_page()
    for address in (server.url.replace(server.token, "guessed"), server.url.replace(f"{server.token}/", "")):
        assert page.goto(address).status == 403
        assert "must have the token" in page.inner_text("body")
    assert page.goto(server.url).status == 200
    page.close()


def test_a_server_that_is_gone_is_noticed(browser, watch, three):
    server = watch(three[0])
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.url)
    expect(page.locator("#live")).to_have_text("live")
    server.shutdown()
    server.server_close()
    expect(page.locator("#live")).to_contain_text("no connection")
    context.close()


@pytest.mark.relion
@pytest.mark.nextflow
@pytest.mark.slow
def test_two_real_runs_one_is_killed_and_one_fails(browser, watch, tmp_path):
    """Both from their start: RELION's iterations in the one, which is then killed; RELION fails in the other."""
    data = make_data(tmp_path / "data", **STEADY)
    homes = [tmp_path / name for name in ("killed", "failing")]
    processes = []
    try:
        for home in homes:
            home.mkdir()
            parameters = write_parameters(home / "sta.json", data, refine3D=LONG)
            broken = "echo 'ERROR: zero sum of weights' >&2; exit 1"
            fake = {} if home is homes[0] else stand_in(home, "mpirun", REFINEMENT_FAILS.format(failure=broken))
            words = command("--parameter", parameters, "-resume")
            processes.append(
                subprocess.Popen(words, cwd=home, env=environment(**fake), start_new_session=True,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )  # fmt: skip
        while not all((home / "results/run.json").is_file() for home in homes):
            assert [process.poll() for process in processes] == [None, None]
            time.sleep(0.3)
        server = watch(*homes)
        with opened(browser, server.url) as page:
            page.context.set_default_timeout(5 * PATIENCE)
            expect.set_options(timeout=5 * PATIENCE)
            expect(page.locator(".run .pill")).to_have_text(["running", "running"])
            page.locator("#card-0 a", has_text="Refine3D/bin2").click()
            expect(page.locator("#job")).to_contain_text(re.compile(r"Iteration [2-9]"))
            expect(page.locator("#log")).to_contain_text("Auto-refine: Iteration=")
            view = drawn(page)
            assert view[view[..., 3] > 0][:, :3].std() > 10
            expect(page.get_by_label("Fourier shell correlation by iteration")).to_be_visible()
            kill_family(processes[0])
            expect(page.locator("#card-0 .pill")).to_have_text("crashed")
            expect(page.locator("#job h2 .pill")).to_have_text("stopped")
            expect(page.locator("#card-1 .pill")).to_have_text("failed")
            page.get_by_role("link", name="py2rely").click()
            page.locator("#card-1 a", has_text="Refine3D/bin2").click()
            expect(page.locator("#job .failure")).to_contain_text("RELION found no orientation")
            expect(page.locator("#log")).to_contain_text("zero sum of weights")
            page.locator("#run a", has_text="The run's report").hover()
            page.screenshot(path=tmp_path / "failed.png")
    finally:
        expect.set_options(timeout=PATIENCE)
        for process in processes:
            if process.poll() is None:
                kill_family(process)
