"""Pages in a real browser: opened, listened to, and looked at."""

import base64
import io
import re
from contextlib import contextmanager

import numpy as np
from PIL import Image
from playwright.sync_api import expect

#: Milliseconds until what is waited for is missed: other tests run beside this one.
PATIENCE = 60_000
expect.set_options(timeout=PATIENCE)
#: Looks at a view that is drawn anew in between.
TRIES = 50

SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
#: The sandbox cannot be had as root; WebGL is drawn in software.
ARGUMENTS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@contextmanager
def opened(browser, address, size="desktop", scheme="light", place=""):
    """The page in a window; when it is closed, nothing may have been said, and nothing asked for but from there."""
    context = browser.new_context(
        viewport=SIZES[size], color_scheme=scheme, has_touch=size == "phone", reduced_motion="reduce"
    )
    context.set_default_timeout(PATIENCE)
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.goto(address + place)
    yield page
    context.close()
    assert said == []
    asked = [url.partition("#")[0] for url in asked if not url.startswith("data:")]
    assert all(url.startswith(address) for url in asked)
    assert address.startswith("http://127.0.0.1") or set(asked) == {address}


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def drawn(page, index=0):
    """The 3D view's own pixels, with their opacity, once it has been drawn; a new iteration draws it anew."""
    figure = page.locator("figure.view").nth(index)
    for _ in range(TRIES):
        # At once: what waits for the figure to be still loses it when a new iteration takes its place.
        figure.evaluate("(one) => one.scrollIntoView({block: 'center'})")
        expect(figure).to_have_attribute("data-triangles", re.compile("[1-9]"))
        address = figure.locator("canvas").evaluate("(canvas) => canvas.toDataURL()")
        picture = Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGBA")
        if picture.getextrema()[3][1]:
            break
        page.wait_for_timeout(200)
    return np.asarray(picture).astype(int)


def assert_background(page, path, scheme):
    """The page as a picture, which is light or dark as it should be."""
    picture = page.screenshot(path=path)
    background = np.median(pixels(picture).reshape(-1, 3), axis=0).mean()
    assert background > 200 if scheme == "light" else background < 60
