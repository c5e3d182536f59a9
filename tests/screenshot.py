"""The picture of the page in the README: `python -m tests.screenshot` writes `docs/page.png` anew.

It needs Chromium, as tests/app/test_page_in_browser.py does. The page shows the project's own
drawing, with a box around it, and compares two methods.
"""

import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect, sync_playwright

from app.settings import PROJECT
from tests import needs
from tests.app.services import LONG, serving
from tests.drawing import DRAWING

__all__ = ["PICTURE"]

PICTURE = PROJECT / "docs" / "page.png"
BOX = (95, 20, 375, 360)
"""Around the dog, pixels of the drawing."""

WIDTH, HEIGHT = 1280, 900
COLOURS = 256


def take(url: str) -> bytes:
    """A PNG of the page at that address, once it shows the drawing and its explanations."""
    expect.set_options(timeout=LONG * 1000)
    path = needs.tool("chromium", "chromium-browser", "google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.set_default_timeout(LONG * 1000)
        page.goto(url)
        expect(page.locator("#labels")).not_to_be_empty()
        page.set_input_files("#file", DRAWING)
        expect(page.locator("#breeds .name").first).not_to_be_empty()
        page.get_by_role("radio", name="Split").check()
        fields = page.locator("#edges input")
        for number, edge in enumerate(BOX):
            fields.nth(number).fill(str(edge))
        fields.last.blur()
        expect(page.locator(".iou").last).to_contain_text("0.")
        page.mouse.move(0, 0)
        picture = page.screenshot()
        browser.close()
    return picture


def main() -> None:
    """Take it, and keep it with few colours: a third of the bytes, and no difference to be seen."""
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory)) as service:
        picture = Image.open(io.BytesIO(take(service.url))).convert("RGB")
    palette = picture.quantize(COLOURS)  # dithering needs one that is chosen before
    few = picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    few.save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
