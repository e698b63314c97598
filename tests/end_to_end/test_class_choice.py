"""Choosing classes by looking, in a real browser: by mouse, finger and keyboard, with the command that follows."""

import json
import re
import threading

import pytest
from browsing import assert_background, drawn, opened
from class_fixture import CLASSES_2D, CLASSES_3D, DIAMETER, GOOD_2D, make_class2d, make_class3d
from playwright.sync_api import expect
from run_fixture import WatchedRun

from py2rely_core.judging.class_job import select_classes
from py2rely_core.judging.classes import Verdict, judge, open_classification, verdicts_of
from py2rely_core.judging.selection import Choice
from py2rely_core.report.choosing import ways_by_hand, ways_of_run, write_class_page
from py2rely_core.watching.server import Server
from py2rely_core.watching.sources import open_sources

pytestmark = [pytest.mark.browser]
RUN = "nextflow run main.nf -profile local --parameter sta.json --run_class3D --class_selection manual"
BY_HAND = "py2rely routines select -p Class2D/job004/run_it025_data.star -c "


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of averages and one of maps."""
    base = tmp_path_factory.mktemp("pages")
    two = open_classification(make_class2d(base / "Class2D/job004"))
    verdicts = {n: Verdict(n in GOOD_2D, "like the template", round(1 - n / 20, 2)) for n in range(1, 12)}
    write_class_page(two, ways_by_hand(two, base), base / "two.html", verdicts=verdicts, reason="Kept: 6 of 12.")
    three = open_classification(make_class3d(base / "Class3D/bin4"))
    ruled = judge(three, Choice(), DIAMETER)
    settings = {"verdicts": verdicts_of(ruled), "reason": ruled.reason, "diameter": DIAMETER, "command": RUN}
    write_class_page(three, ways_of_run(), base / "three.html", **settings)
    return {name: (base / f"{name}.html").as_uri() for name in ("two", "three")}


def card(page, number):
    return page.locator(f"#class-{number}")


def kept(page):
    return sorted(page.locator(".class.kept").evaluate_all("(all) => all.map((one) => Number(one.dataset.class))"))


def command(page):
    return page.locator("#command").text_content()


@pytest.mark.parametrize(
    ("name", "size", "scheme"),
    [("two", "desktop", "dark"), ("two", "phone", "light"), ("three", "desktop", "light"), ("three", "phone", "dark")],
)
def test_every_variant_is_whole(browser, pages, tmp_path, name, size, scheme):
    with opened(browser, pages[name], size, scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
        assert page.locator(".class").count() == len(CLASSES_2D if name == "two" else CLASSES_3D)
        bar = page.locator("#choice").bounding_box()
        window = page.viewport_size["height"]
        assert bar["y"] + bar["height"] <= window + 1
        assert bar["height"] < 0.3 * window
        expect(page.locator("#copy")).to_be_in_viewport()
        if name == "three":
            view = drawn(page)
            assert 0.03 < (view[..., 3] > 0).mean() < 0.9
        assert_background(page, tmp_path / f"{name}-{size}-{scheme}.png", scheme)


def test_a_click_keeps_or_drops_and_the_command_follows(browser, pages):
    with opened(browser, pages["two"]) as page:
        assert kept(page) == GOOD_2D
        assert command(page) == BY_HAND + "1,2,4,6,8,11"
        expect(page.locator("#sum")).to_contain_text("6 of 12 classes kept")
        card(page, 2).locator("img").click()
        card(page, 10).locator(".numbers").first.click()
        assert kept(page) == [1, 4, 6, 8, 10, 11]
        assert command(page) == BY_HAND + "1,4,6,8,10,11"
        total = sum(CLASSES_2D[number - 1][0] for number in (1, 4, 6, 8, 10, 11))
        assert total == 2468
        expect(page.locator("#sum")).to_contain_text("2\u202f468 of 3\u202f096 particles, 80 %; 2 unlike the rule")
        expect(card(page, 2).locator(".toggle")).to_have_attribute("aria-pressed", "false")
        page.get_by_role("button", name="undo").click()
        assert kept(page) == [1, 4, 6, 8, 11]
        page.get_by_role("button", name="the rule's").click()
        assert kept(page) == GOOD_2D
        page.get_by_role("button", name="others").click()
        assert kept(page) == [3, 5, 7, 9, 10, 12]
        page.get_by_role("button", name="none", exact=True).click()
        assert command(page) == "Keep at least one class."
        expect(page.locator("#copy")).to_be_disabled()
        # In their order by particles, from 10 to 4: all that lie between.
        card(page, 10).locator("img").click()
        card(page, 4).locator("img").click(modifiers=["Shift"])
        assert kept(page) == [1, 2, 4, 6, 10]


def test_by_keyboard_alone(browser, pages):
    with opened(browser, pages["two"]) as page:
        page.locator("#sort").select_option("class")
        page.keyboard.press("Escape")
        page.locator("#sort").blur()
        page.keyboard.press("n")
        for key in ("ArrowRight", "Space", "ArrowRight", "k", "ArrowRight", "Enter", "ArrowLeft", "d"):
            page.keyboard.press(key)
        assert kept(page) == [1, 3]
        focused = "document.activeElement.closest('.class').dataset.class"
        across = page.evaluate(
            "getComputedStyle(document.querySelector('#classes')).gridTemplateColumns.split(' ').length"
        )
        page.keyboard.press("ArrowDown")
        assert page.evaluate(focused) == str(2 + across)
        page.keyboard.press("ArrowUp")
        assert page.evaluate(focused) == "2"
        page.keyboard.press("End")
        assert page.evaluate(focused) == "12"
        page.keyboard.press("7")
        assert kept(page) == [1, 3, 7]
        for key, wanted in (("a", list(range(1, 13))), ("r", GOOD_2D), ("u", list(range(1, 13)))):
            page.keyboard.press(key)
            assert kept(page) == wanted


def test_order_and_what_is_shown(browser, pages):
    with opened(browser, pages["two"]) as page:
        order = "(all) => all.filter((one) => !one.hidden).map((one) => Number(one.dataset.class))"
        cards = page.locator(".class")
        by_particles = sorted(range(1, 13), key=lambda number: -CLASSES_2D[number - 1][0])
        assert cards.evaluate_all(order) == by_particles
        page.locator("#sort").select_option("resolution")
        assert cards.evaluate_all(order) == sorted(range(1, 13), key=lambda number: CLASSES_2D[number - 1][1])
        page.locator("#sort").select_option("score")
        assert cards.evaluate_all(order) == list(range(1, 13))
        page.locator("#show").select_option("kept")
        assert cards.evaluate_all(order) == GOOD_2D
        page.locator("#show").select_option("differs")
        expect(page.locator("#nothing")).to_be_visible()
        page.locator("#show").select_option("")
        wide = card(page, 1).bounding_box()["width"]
        page.locator("#size").fill("18")
        assert card(page, 1).bounding_box()["width"] > 1.4 * wide
        page.locator("#invert").check()
        assert card(page, 1).locator("img").evaluate("(one) => getComputedStyle(one).filter") == "invert(1)"


def test_the_choice_stands_in_the_address(browser, pages):
    with opened(browser, pages["two"]) as page:
        card(page, 1).locator("img").click()
        assert page.evaluate("location.hash") == "#keep=2,4,6,8,11"
        page.reload()
        assert kept(page) == [2, 4, 6, 8, 11]
        page.evaluate("location.hash = 'keep=3,99,no'")
        expect(card(page, 3)).to_have_class("class kept")
        assert kept(page) == [3]


def test_the_command_of_a_run_and_its_parameter_file(browser, pages):
    with opened(browser, pages["three"]) as page:
        plain = RUN.removesuffix(" --class_selection manual")
        assert command(page) == f"{plain} -resume --class_selection manual --keep_classes 1,4 --best_class 1"
        card(page, 2).locator(".reference").click()
        assert kept(page) == [1, 2, 4]
        assert command(page).endswith("--keep_classes 1,2,4 --best_class 2")
        card(page, 2).locator(".toggle").click()
        assert command(page).endswith("--keep_classes 1,4 --best_class 1")
        card(page, 4).locator(".toggle").focus()
        page.keyboard.press("b")
        page.get_by_role("button", name="Parameter file").click()
        block = json.loads("{" + command(page) + "}")["classification"]
        assert block == {"run": True, "selection": "manual", "keep_classes": [1, 4], "best_class": 4}
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.locator("#copy").click()
        expect(page.locator("#copy")).to_have_text("copied")
        assert page.evaluate("navigator.clipboard.readText()") == command(page)


def test_surfaces_turn_together_and_a_turn_is_no_choice(browser, pages):
    with opened(browser, pages["three"]) as page:
        before = [drawn(page, index) for index in (0, 1)]
        box = page.locator("figure.view canvas").first.bounding_box()
        page.mouse.move(box["x"] + 100, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + 150, box["y"] + 110)
        page.mouse.up()
        page.keyboard.press("ArrowLeft")
        after = [drawn(page, index) for index in (0, 1)]
        assert all((one != other).mean() > 0.02 for one, other in zip(before, after, strict=True))
        assert kept(page) == [1, 4]


def test_surfaces_far_away_are_given_back_and_come_again(browser, pages):
    with opened(browser, pages["three"], "phone") as page:
        drawn(page, 0)
        expect(page.locator("figure.view").first).to_have_class(re.compile("ready"))
        page.set_viewport_size({"width": 390, "height": 200})
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        expect(page.locator("figure.view").first).not_to_have_class(re.compile("ready"))
        page.evaluate("scrollTo(0, 0)")
        assert (drawn(page, 0)[..., 3] > 0).mean() > 0.03


def test_by_finger(browser, pages):
    with opened(browser, pages["two"], "phone") as page:
        card(page, 2).locator("img").tap()
        assert kept(page) == [1, 4, 6, 8, 11]


@pytest.fixture
def run_that_waits(tmp_path):
    """A run that ended until classes are chosen, watched."""
    run = WatchedRun(tmp_path / "run", command=RUN)
    (plan,) = run.work.glob("aa/*/plan.json")
    document = json.loads(plan.read_text())
    document["datasets"][0]["levels"][0]["classification"] = {"waits": True}
    plan.write_text(json.dumps(document))
    made = make_class3d(tmp_path / "made")
    job = run.done("cc", "CLASS3D", "Class3D/bin4", 300, "Select/bin4") / "Class3D/bin4"
    for path in made.iterdir():
        path.rename(job / path.name)
    output = run.done("cd", "SELECT_CLASSES", "Select/bin4_classes", 250, "Class3D/bin4") / "Select/bin4_classes"
    select_classes([job], Choice("manual"), DIAMETER, None, output, None)
    run.end("finished")
    server = Server(open_sources([run.results]))
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_the_live_page_leads_there_where_a_run_waits(browser, run_that_waits, tmp_path):
    with opened(browser, run_that_waits.url, "phone", "dark") as page:
        button = page.get_by_role("link", name="Choose", exact=True)
        expect(button).to_be_visible()
        expect(page.locator("#card-0")).to_contain_text("Waits for you to choose classes.")
        page.screenshot(path=tmp_path / "waits.png")
        with page.expect_popup() as popup:
            button.click()
        choice = popup.value
        expect(choice.locator(".class.kept")).to_have_count(2)
        assert kept(choice) == [1, 4]
        assert command(choice).endswith(
            "--run_class3D -resume --class_selection manual --keep_classes 1,4 --best_class 1"
        )
        card(choice, 4).locator(".toggle").click()
        assert command(choice).endswith("--keep_classes 1 --best_class 1")
        assert (drawn(choice)[..., 3] > 0).mean() > 0.03
        choice.close()
        page.goto(run_that_waits.url + "#run=0&dataset=main&job=Select/bin4_classes")
        expect(page.get_by_role("link", name="Look at the classes")).to_be_visible()
