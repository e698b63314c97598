"""A real browser, for tests that look at pages."""

import shutil

import pytest


@pytest.fixture(scope="module")
def chromium():
    """Starts a browser with more arguments."""
    from browsing import ARGUMENTS
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        program = shutil.which("chromium")
        yield lambda *more: playwright.chromium.launch(executable_path=program, args=[*ARGUMENTS, *more])


@pytest.fixture(scope="module")
def browser(chromium):
    found = chromium()
    yield found
    found.close()
