"""How the page looks and feels in Chromium: sizes of screens, fingers, accessibility."""

import itertools
from importlib.resources import files
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.app.chromium import (
    LANDSCAPE,
    Pages,
    choose,
    explained,
    hold,
    idle,
    settled,
    type_box,
    typed_box,
)
from tests.app.conftest import encode, picture
from tests.app.services import Service

WIDTHS = [360, 768, 1920]
HEIGHTS = {360: 740, 768: 1024, 1280: 900, 1920: 1080}
PORTRAIT = encode(picture(360, 600))
PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 740},
    "has_touch": True,
    "is_mobile": True,
}


def screen(width: int) -> dict[str, Any]:
    return {"viewport": {"width": width, "height": HEIGHTS[width]}}


def violations(page: Page) -> list[str]:
    """What axe-core finds, in light and dark, where nothing but colours differs."""
    found: list[dict[str, Any]] = []
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    found += page.evaluate("axe.run().then(({ violations }) => violations)")
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    rules = "{ runOnly: ['color-contrast'] }"
    found += page.evaluate(f"axe.run({rules}).then(({{ violations }}) => violations)")
    return [
        f"{violation['id']}: {node['html'][:200]} {node['failureSummary']}"
        for violation in found
        for node in violation["nodes"]
    ]


def fits(page: Page, width: int) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth") == width)


UNCUT = "part => part.scrollWidth <= part.clientWidth && part.scrollHeight <= part.clientHeight"


def apart(parts: list[Locator], width: int) -> bool:
    """Whether all of them are seen whole, and none lies over another."""
    boxes = [part.bounding_box() for part in parts]
    assert all(part.evaluate(UNCUT) for part in parts)
    assert all(box and box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
    return not any(
        one["x"] < other["x"] + other["width"]
        and other["x"] < one["x"] + one["width"]
        and one["y"] < other["y"] + other["height"]
        and other["y"] < one["y"] + one["height"]
        for one, other in itertools.combinations(filter(None, boxes), 2)
    )


@pytest.mark.parametrize(
    "width", [WIDTHS[0], *(pytest.param(width, marks=pytest.mark.slow) for width in WIDTHS[1:])]
)
def test_every_state_is_accessible(open_page: Pages, service: Service, width: int) -> None:
    """Without a photo, with messages, waiting, with a box, compared, doubted, searched."""
    link = "/#method=gradcampp/last6&second=gradcampp/last6&colormap=viridis"
    page = open_page(service, link, **screen(width))
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    expect(page.locator("#linked")).to_contain_text(
        "Your link sets: Grad-CAM++, last six layers · colours viridis."
    )

    def holds() -> None:
        settled(page)
        assert violations(page) == []
        assert fits(page, width)

    holds()
    choose(page, b"no photo")
    expect(page.locator("#at-photo")).to_contain_text("not a photo")
    holds()
    held = hold(page, times=1)
    choose(page, LANDSCAPE)
    expect(page.locator("#status")).to_have_text("Working …")
    holds()
    held.pop().continue_()
    expect(explained(page)).not_to_be_empty()
    type_box(page, (100, 60, 360, 300))
    page.get_by_role("button", name="Draw a box").click()
    holds()
    page.get_by_role("radio", name="Split").check()
    page.locator(".vs").nth(1).click()
    expect(page.locator("#explained")).to_contain_text("versus")
    page.fill("#threshold", "0.3")
    page.get_by_text("How to read this").click()
    holds()
    labels = [*page.get_by_role("tab").all(), *page.locator(".view b:visible").all()]
    assert len(labels) == 7
    handles = page.locator(".frame:visible i").all()
    assert apart([*labels, page.locator("#layers"), page.locator("#divider")], width)
    assert len(handles) == 4
    assert all(apart([label, handle], width) for label in labels for handle in handles)
    captions = page.locator("#views figcaption:visible")
    names = ["Grad-CAM++, last six layers"] * 2
    expect(captions.locator("b:visible")).to_have_text(names)
    expect(page.get_by_role("figure", name=" ".join(names))).to_be_visible()
    page.get_by_role("radio", name="Side by side").check()
    page.get_by_role("searchbox").fill("terrier")
    page.evaluate("document.querySelector('#key').hidden = false")
    page.context.set_offline(True)
    page.locator(".vs").nth(3).click()
    expect(page.locator("#at-breeds")).to_contain_text("cannot be reached")
    holds()
    expect(page.get_by_role("searchbox")).to_have_value("terrier")  # as the list is


@pytest.mark.parametrize("width", [360, pytest.param(1280, marks=pytest.mark.slow)])
def test_nothing_jumps_when_the_answer_comes(
    open_page: Pages, service: Service, width: int
) -> None:
    page = open_page(service, **screen(width))
    held = hold(page, times=1)
    choose(page, LANDSCAPE)
    expect(page.locator("#status")).to_have_text("Working …")
    parts = "#views, #figures, #breeds, #explained, #edges, .actions, footer"
    tops = f"""() => [...document.querySelectorAll('{parts}')].map(
        (part) => part.getBoundingClientRect().top + scrollY)"""
    before = page.evaluate(tops)
    held.pop().continue_()
    expect(explained(page)).not_to_be_empty()
    settled(page)
    assert page.evaluate(tops) == before
    page.locator(".explain").nth(1).click()
    idle(page)
    type_box(page, (100, 60, 360, 300))
    settled(page)
    assert page.evaluate(tops) == before


@pytest.mark.parametrize("photo", [LANDSCAPE, PORTRAIT], ids=["landscape", "portrait"])
def test_the_first_view_has_photo_heatmap_and_breeds(
    open_page: Pages, service: Service, photo: bytes
) -> None:
    page = open_page(service, **screen(1280))
    choose(page, photo)
    expect(explained(page)).not_to_be_empty()
    for selector in ("#stage", "#methods", "#breeds", "#figures", "#opacity", "#threshold"):
        seen = page.locator(selector).bounding_box()
        assert seen
        assert seen["y"] + seen["height"] <= 900, selector
    stage, shown = (page.locator(part).first.bounding_box() for part in ("#stage", ".photo"))
    assert stage
    assert shown
    assert shown["height"] >= 500
    middles = [part["x"] + part["width"] / 2 for part in (stage, shown)]
    assert middles[0] == pytest.approx(middles[1], abs=1)


@pytest.mark.parametrize("photo", [LANDSCAPE, PORTRAIT], ids=["landscape", "portrait"])
def test_the_first_view_of_a_phone_says_if_confidence_is_low(
    open_page: Pages, service: Service, photo: bytes
) -> None:
    """Beside the breed, below the photo."""
    page = open_page(service, **PHONE | {"viewport": {"width": 360, "height": 640}})
    choose(page, photo)
    expect(page.locator("#confidence")).to_have_text("Low confidence")
    badge = page.locator("#verdict .badge")
    expect(badge).to_have_text("Low confidence")
    expect(badge).to_be_in_viewport(ratio=1)


def touch(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """A finger from one point to another, by shares of the photo."""
    seen = page.locator(".photo").first.bounding_box()
    assert seen
    client = page.context.new_cdp_session(page)
    steps = 8
    for step in range(steps + 1):
        across, down = (a + (b - a) * step / steps for a, b in zip(start, end, strict=True))
        x, y = seen["x"] + seen["width"] * across, seen["y"] + seen["height"] * down
        kind = "touchMove" if step else "touchStart"
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
        settled(page)
    client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    settled(page)


def test_on_a_phone_a_swipe_scrolls_and_drawing_is_a_mode(
    open_page: Pages, service: Service
) -> None:
    page = open_page(service, **PHONE)
    choose(page, LANDSCAPE)
    expect(explained(page)).not_to_be_empty()
    shown = page.locator(".photo").first.bounding_box()
    assert shown
    assert (shown["x"], shown["width"]) == (0, 360)
    expect(page.locator("#box-keys")).to_be_hidden()
    touch(page, (0.5, 0.9), (0.5, 0.1))
    assert page.evaluate("scrollY") > 100
    assert typed_box(page) == [""] * 4
    page.evaluate("scrollTo(0, 0)")

    page.get_by_role("button", name="Draw a box").tap()
    touch(page, (0.25, 0.2), (0.75, 0.8))
    assert page.evaluate("scrollY") == 0
    box = [float(edge) for edge in typed_box(page)]
    assert box == pytest.approx([120, 72, 360, 288], abs=12)
    expect(page.locator(".iou").first).to_contain_text("0.")
    expect(page.locator("#verdict")).to_contain_text(page.locator(".iou").first.inner_text())
    # The mode ends with the box: a swipe scrolls again, and a handle still resizes.
    expect(page.locator("#drawing")).to_have_attribute("aria-pressed", "false")
    touch(page, (box[2] / 480, box[3] / 360), (0.95, 0.9))
    assert float(typed_box(page)[2]) > box[2]
    assert typed_box(page)[:2] == [f"{edge:g}" for edge in box[:2]]

    page.locator(".vs").nth(2).scroll_into_view_if_needed()
    expect(page.locator("#stage")).not_to_be_in_viewport(ratio=0.5)
    page.locator(".vs").nth(2).tap()  # what it changes comes into sight
    expect(page.locator("#stage")).to_be_in_viewport(ratio=0.99)
    expect(page.locator("#explained")).to_contain_text("versus")

    page.get_by_role("radio", name="Split").tap()
    expect(page.locator("#verdict")).to_contain_text(" and ")
    assert page.evaluate("verdict.scrollWidth <= verdict.clientWidth")
    assert page.evaluate("verdict.scrollHeight <= verdict.clientHeight")
    page.evaluate("scrollTo(0, 0)")
    page.get_by_role("button", name="Draw a box").tap()
    before = typed_box(page)
    touch(page, (0.5, 0.5), (0.6, 0.55))  # from the divider, which keeps out of the way
    expect(page.locator("#divider")).to_have_attribute("aria-valuenow", "50")
    assert typed_box(page) != before


def test_a_portrait_on_a_phone_is_centred_and_no_higher_than_the_screen(
    open_page: Pages, service: Service
) -> None:
    page = open_page(service, **PHONE)
    choose(page, encode(picture(300, 900)))
    expect(explained(page)).not_to_be_empty()
    shown = page.locator(".photo").first.bounding_box()
    assert shown
    assert shown["height"] <= 0.7 * 740 + 1
    assert shown["x"] + shown["width"] / 2 == pytest.approx(180, abs=1)
    page.get_by_role("radio", name="Side by side").tap()
    settled(page)
    panels = [panel.bounding_box() for panel in page.locator(".photo:visible").all()]
    assert len(panels) == 2
    assert all(panel and panel["width"] == shown["width"] for panel in panels)
    assert fits(page, 360)
