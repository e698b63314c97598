"""The report in a real browser: complete and silent, in every size and colour scheme; its 3D view is turned."""

import re

import pytest
from browsing import assert_background, drawn, opened
from helpers import cli
from report_fixture import make_run

pytestmark = [pytest.mark.browser]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A complete run, a failed one, and both side by side."""
    base = tmp_path_factory.mktemp("pages")
    make_run(base / "complete")
    make_run(base / "failed", failed=True)
    cli("compare", base / "complete", base / "failed", "--output", base / "compare.html")
    return {
        "complete": (base / "complete/report.html").as_uri(),
        "failed": (base / "failed/report.html").as_uri(),
        "compare": (base / "compare.html").as_uri(),
    }


@pytest.mark.parametrize(
    ("name", "size", "scheme"),
    [
        ("complete", "desktop", "light"), ("complete", "desktop", "dark"), ("complete", "phone", "light"),
        ("complete", "phone", "dark"), ("failed", "desktop", "dark"), ("failed", "phone", "light"),
        ("compare", "desktop", "light"), ("compare", "phone", "dark"),
    ],
)  # fmt: skip
def test_every_variant_is_whole(browser, pages, tmp_path, name, size, scheme):
    with opened(browser, pages[name], size, scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
        assert page.evaluate(
            "[...document.querySelectorAll('svg')].every((one) => one.getBoundingClientRect().height > 100)"
        )
        view = drawn(page)
        assert 0.05 < (view[..., 3] > 0).mean() < 0.9
        assert view[view[..., 3] > 0][:, :3].std() > 10
        page.evaluate("scrollTo(0, 0)")
        assert_background(page, tmp_path / f"{name}-{size}-{scheme}.png", scheme)
        assert page.locator("[role=alert]").count() == (name == "failed")


def test_every_figure_is_there(browser, pages):
    with opened(browser, pages["complete"]) as page:
        labels = page.locator("svg.chart").evaluate_all("(all) => all.map((one) => one.getAttribute('aria-label'))")
        wanted = ["Resolution against step", "Corrected Fourier shell correlation of every level"]
        wanted += ["Guinier plot of the best map", "Distribution of the local resolution", "Resolution by direction"]
        wanted += ["Conical Fourier shell correlation over all directions", "Sampling of directions"]
        wanted += [
            "Fourier shell correlation of the map with its template",
            "Resolution against the number of particles",
        ]
        for binning in (1, 2, 4):
            wanted += [
                f"Fourier shell correlation at bin {binning}",
                f"Resolution after each iteration of Refine3D at bin {binning}",
                f"Angular distribution at bin {binning}",
                f"Angles between the orientations from either half of the tilts at bin {binning}",
            ]
        assert labels == wanted
        curves = page.get_by_label("Fourier shell correlation at bin 1", exact=True).locator("path.curve")
        assert curves.evaluate_all("(all) => all.every((one) => one.getTotalLength() > 200)")
        assert curves.count() == 4
        colours = curves.evaluate_all("(all) => all.map((one) => getComputedStyle(one).stroke)")
        assert len(set(colours)) == 4
        assert page.locator(".thumb img").count() == 3
        for link in page.locator("nav a").evaluate_all("(all) => all.map((one) => one.getAttribute('href').slice(1))"):
            assert page.evaluate("(id) => document.getElementById(id) !== null", link), link


def test_the_map_is_turned_cut_and_levelled(browser, pages):
    with opened(browser, pages["complete"]) as page:
        first = drawn(page)
        figure, canvas = page.locator("figure.view"), page.locator("figure.view canvas")
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + 200, box["y"] + 150)
        page.mouse.down()
        page.mouse.move(box["x"] + 260, box["y"] + 170)
        page.mouse.up()
        turned = drawn(page)
        assert (turned != first).mean() > 0.02
        canvas.focus()
        page.keyboard.press("ArrowLeft")
        keyed = drawn(page)
        assert (keyed != turned).mean() > 0.02
        page.keyboard.press("+")
        zoomed = drawn(page)
        assert (zoomed[..., 3] > 0).sum() > (keyed[..., 3] > 0).sum()
        figure.get_by_role("button").click()
        assert (drawn(page) == first).all()
        figure.locator("input[name=cut]").fill("0")
        cut = drawn(page)
        assert (cut != first).mean() > 0.02
        triangles = int(figure.get_attribute("data-triangles"))
        figure.locator("input[name=level]").fill("200")
        assert int(figure.get_attribute("data-triangles")) < triangles


def test_the_map_is_turned_by_touch(browser, pages):
    with opened(browser, pages["complete"], "phone") as page:
        first = drawn(page)
        box = page.locator("figure.view canvas").bounding_box()
        session = page.context.new_cdp_session(page)
        for kind, shift in (("touchStart", 0), ("touchMove", 30), ("touchMove", 60), ("touchEnd", None)):
            points = [] if shift is None else [{"x": box["x"] + 100 + shift, "y": box["y"] + 100}]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        assert (drawn(page) != first).mean() > 0.02


def test_both_maps_of_a_comparison_turn_together(browser, pages):
    with opened(browser, pages["compare"]) as page:
        before = [drawn(page, index) for index in (0, 1)]
        page.locator("canvas").first.focus()
        page.keyboard.press("ArrowUp")
        after = [drawn(page, index) for index in (0, 1)]
        assert all((one != other).mean() > 0.02 for one, other in zip(before, after, strict=True))


def test_values_are_read_off_the_curves(browser, pages):
    with opened(browser, pages["complete"]) as page:
        chart = page.get_by_label("Fourier shell correlation at bin 1", exact=True)
        chart.scroll_into_view_if_needed()
        box = chart.bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.68, box["y"] + box["height"] * 0.5)
        text = page.locator("figure.card", has=chart).locator(".readout").text_content()
        assert "corrected 0." in text
        assert "phase-randomised 0." in text


def test_without_webgl_the_slices_are_shown(chromium, pages):
    with chromium("--disable-3d-apis") as plain, opened(plain, pages["complete"]) as page:
        page.wait_for_selector("figure.view.flat")
        assert page.get_by_text("no WebGL").is_visible()
        assert not page.locator("figure.view canvas").is_visible()
        assert page.locator(".slices img").first.is_visible()


def test_the_page_prints(browser, pages, tmp_path):
    with opened(browser, pages["complete"], scheme="dark") as page:
        drawn(page)
        page.emulate_media(media="print")
        assert not page.locator("nav").is_visible()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        document = page.pdf(format="A4", path=tmp_path / "report.pdf")
        assert len(re.findall(rb"/Type\s*/Page\b", document)) >= 3
