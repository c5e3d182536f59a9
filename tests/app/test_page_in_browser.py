"""The page in Chromium, before the real service: from a photo to figures, picture and link.

Apart from tests/app/test_page.py: Playwright's event loop and asynchronous tests do not mix.
"""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import pillow_heif
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from app.bundle import CARD_PATH, find_version
from app.settings import Settings
from tests.app.chromium import (
    LANDSCAPE,
    Pages,
    agree,
    body,
    bring,
    check,
    choose,
    compare,
    drag,
    explained,
    hold,
    idle,
    settled,
    transfer,
    type_box,
    typed_box,
    uploads,
)
from tests.app.conftest import Answer, encode, overlay, picture, pixels
from tests.app.services import LONG, Service, serving

BOX = "100,60,360,300"


@pytest.fixture
def page(open_page: Pages, service: Service) -> Page:
    return open_page(service)


def shown(service: Service, method: str, photo: bytes = LANDSCAPE, **params: object) -> Answer:
    """The API's own answer for a method and its layers: `gradcam/last6`."""
    answer = compare(service, photo, method=method, **params)
    panel: Answer = answer["explanations"][0]
    return panel


def test_a_photo_gets_the_answer_of_the_api(page: Page, service: Service) -> None:
    choose(page, LANDSCAPE)
    check(page, compare(service, LANDSCAPE, top_k=6))
    agree(page, shown(service, "gradcam/last"))
    model = httpx.get(f"{service.url}/model", timeout=LONG).json()
    expect(page.locator("#model")).to_contain_text(f"{model['name']}, version {model['version']} ")
    names = sorted(label["name"] for label in model["labels"])
    expect(page.locator("#labels")).to_have_text(", ".join(names))
    assert page.get_by_role("tab").all_inner_texts() == [
        "CAM",
        "Grad-CAM",
        "Grad-CAM++",
        "LayerCAM",
        "HiResCAM",
    ]


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_photo_can_be_dropped_and_pasted(page: Page, service: Service, event: str) -> None:
    data = transfer(page, ("dog.jpg", LANDSCAPE))
    bring(page, event, data)
    expect(explained(page)).not_to_be_empty()
    check(page, compare(service, LANDSCAPE, top_k=6))


def test_figures_are_the_apis_and_only_another_class_is_asked_for(
    page: Page, service: Service
) -> None:
    """Methods, layers, rule, threshold, colours, opacity, box: nothing is sent."""
    sent = uploads(page)
    choose(page, LANDSCAPE)
    expect(explained(page)).not_to_be_empty()
    assert [urlsplit(request.url).path for request in sent if request.method == "POST"] == [
        "/compare"
    ]
    assert body(page) == LANDSCAPE
    sent.clear()

    type_box(page, BOX.split(","))
    agree(page, shown(service, "gradcam/last", box=BOX))
    page.get_by_role("tab", name="LayerCAM").click()
    agree(page, shown(service, "layercam/last", box=BOX))
    page.get_by_role("radio", name="Last six").check()
    agree(page, shown(service, "layercam/last6", box=BOX))
    page.select_option("#rule", "heatmap")
    agree(page, shown(service, "layercam/last6", box=BOX, rule="heatmap"))
    page.fill("#threshold", "0.6")
    agree(page, shown(service, "layercam/last6", box=BOX, rule="heatmap", threshold=0.6))
    expect(page.locator("#threshold-value")).to_have_text("0.60")
    expect(page.locator("#for-both")).to_be_hidden()
    page.get_by_role("button", name="default").click()
    agree(page, shown(service, "layercam/last6", box=BOX, rule="heatmap"))
    page.get_by_role("tab", name="CAM", exact=True).click()  # at the last layer alone
    agree(page, shown(service, "cam/last", box=BOX, rule="heatmap"))
    expect(page.get_by_role("radio", name="Last six")).to_be_disabled()
    before = page.locator(".photo canvas").first.evaluate("canvas => canvas.toDataURL()")
    page.fill("#opacity", "0.9")
    page.select_option("#colormap", "magma")
    page.select_option("#rule", "fused")
    page.get_by_role("radio", name="Side by side").check()
    page.select_option("#second", "hirescam/last6")
    both = ("cam/last", "hirescam/last6")
    agree(page, *(shown(service, method, box=BOX) for method in both))
    expect(page.locator("#for-both")).to_be_visible()
    fused = httpx.get(f"{service.url}/model", timeout=LONG).json()["fused"]
    usual = [fused["cam"]["last"]["threshold"], fused["hirescam"]["last6"]["threshold"]]
    texts = dict.fromkeys(f"{threshold:.2f}" for threshold in usual)
    expect(page.locator("#threshold-value")).to_have_text(" / ".join(texts))
    page.fill("#threshold", "0.6")
    agree(page, *(shown(service, method, box=BOX, threshold=0.6) for method in both))
    assert before != page.locator(".photo canvas").first.evaluate("canvas => canvas.toDataURL()")
    assert sent == []


def test_a_class_is_asked_for_once(page: Page, service: Service) -> None:
    choose(page, LANDSCAPE)
    expect(explained(page)).not_to_be_empty()
    predictions = compare(service, LANDSCAPE, top_k=1000)["predictions"]
    first, second, third = predictions[:3]
    sent = uploads(page)
    page.locator(".explain").nth(1).click()
    expect(explained(page)).to_have_text(second["label"])
    agree(page, shown(service, "gradcam/last", target=second["class_index"]))
    page.locator(".vs").nth(2).click()
    expect(page.locator("#explained")).to_contain_text(f"{second['label']} versus {third['label']}")
    agree(
        page,
        shown(service, "gradcam/last", target=second["class_index"], versus=third["class_index"]),
    )
    assert len(sent) == 2
    page.get_by_role("button", name=f"Explain {second['label']} alone").click()
    page.locator(".explain").nth(0).click()
    agree(page, shown(service, "gradcam/last"))
    page.locator(".explain").nth(1).click()
    agree(page, shown(service, "gradcam/last", target=second["class_index"]))
    assert len(sent) == 2

    page.locator("#breeds li").nth(0).drag_to(page.locator("#breeds li").nth(2))
    expect(page.locator("#explained")).to_contain_text(f"{first['label']} versus {third['label']}")
    assert len(sent) == 3

    least = predictions[-1]  # any breed is found by its name
    page.get_by_role("searchbox").fill(least["label"].upper().replace(" ", "_"))
    expect(page.locator("#breeds .name").first).to_have_text(least["label"])
    page.keyboard.press("Enter")
    expect(explained(page)).to_have_text(least["label"])
    expect(page.locator("#breeds li")).to_have_count(6)
    page.get_by_role("searchbox").fill("no such dog")
    expect(page.locator("#breeds li")).to_have_count(0)

    choose(page, encode(picture(300, 300, seed=3)))  # another photo: the likeliest, versus none
    check(page, compare(service, encode(picture(300, 300, seed=3)), top_k=6))


def test_a_box_is_drawn_moved_and_resized(page: Page, service: Service) -> None:
    choose(page, LANDSCAPE)
    expect(explained(page)).not_to_be_empty()
    drag(page, (0.75, 0.8), (0.25, 0.2))
    assert [float(edge) for edge in typed_box(page)] == pytest.approx([120, 72, 360, 288], abs=1.5)
    agree(page, shown(service, "gradcam/last", box=",".join(typed_box(page))))
    drag(page, (0.5, 0.5), (0.6, 0.4))
    moved = [float(edge) for edge in typed_box(page)]
    assert moved == pytest.approx([168, 36, 408, 252], abs=3)
    drag(page, (moved[2] / 480, moved[3] / 360), (1.2, 1.2))
    assert [float(edge) for edge in typed_box(page)] == [*moved[:2], 480, 360]
    agree(page, shown(service, "gradcam/last", box=",".join(typed_box(page))))
    remove = page.get_by_role("button", name="Remove your box")
    remove.click()
    assert typed_box(page) == [""] * 4
    expect(remove).to_be_hidden()
    expect(page.locator("#edges input").first).to_be_focused()

    type_box(page, (300, 60, 200.5, 350))
    first = page.locator("#edges input").first
    assert "less than xmax" in first.evaluate("field => field.validationMessage")
    expect(page.locator(".frame").first).to_be_hidden()
    type_box(page, (100, 60, 200.5, 350))
    page.locator(".frame").first.focus()
    for key in ("ArrowRight", "ArrowDown", "Shift+ArrowLeft"):
        page.keyboard.press(key)
    assert typed_box(page) == ["105", "65", "200.5", "355"]
    agree(page, shown(service, "gradcam/last", box="105,65,200.5,355"))
    page.keyboard.press("Delete")
    assert typed_box(page) == [""] * 4


@pytest.mark.slow
def test_methods_and_the_divider_by_keys(page: Page, service: Service) -> None:
    choose(page, LANDSCAPE)
    expect(explained(page)).not_to_be_empty()
    page.get_by_role("tab", name="Grad-CAM", exact=True).focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Grad-CAM++")).to_be_focused()
    agree(page, shown(service, "gradcampp/last"))
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    agree(page, shown(service, "hirescam/last"))

    page.get_by_role("radio", name="Split").check()
    agree(page, shown(service, "hirescam/last"), shown(service, "layercam/last6"))
    divider = page.get_by_role("slider", name="Divider")
    left = "canvas => [...canvas.getContext('2d').getImageData(10, 180, 1, 1).data]"
    canvas = page.locator(".photo canvas").first
    of_first = canvas.evaluate(left)
    divider.press("Home")
    settled(page)
    of_second = canvas.evaluate(left)
    assert of_first != of_second
    divider.press("ArrowRight")
    expect(divider).to_have_attribute("aria-valuenow", "2")
    drag(page, (0.02, 0.3), (0.7, 0.3))
    expect(divider).to_have_attribute("aria-valuenow", "70")
    assert canvas.evaluate(left) == of_first
    assert typed_box(page) == [""] * 4  # the divider moved; no box was drawn


def test_a_photo_on_its_side_has_its_box_upright(page: Page, service: Service) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    portrait = encode(picture(480, 360), exif=exif)
    choose(page, portrait)
    expect(explained(page)).not_to_be_empty()
    drag(page, (0.1, 0.05), (0.9, 0.5))
    assert [float(edge) for edge in typed_box(page)] == pytest.approx([36, 24, 324, 240], abs=1.5)
    agree(page, shown(service, "gradcam/last", portrait, box=",".join(typed_box(page))))


def test_a_large_photo_is_scaled_down_before_it_is_sent(page: Page, service: Service) -> None:
    """Its orientation applied; boxes stay in pixels of the original."""
    exif = Image.Exif()
    exif[0x0112] = 6
    uploads(page)
    choose(page, encode(picture(3200, 2000), exif=exif))
    expect(explained(page)).not_to_be_empty()
    sent = body(page)
    with Image.open(io.BytesIO(sent)) as small:
        assert (small.format, small.size) == ("JPEG", (1000, 1600))
        assert small.getexif().get(0x0112, 1) == 1
    type_box(page, (200, 300, 1800, 2900))
    agree(page, shown(service, "gradcam/last", sent, box="100,150,900,1450"), scale=2)


def test_a_photo_that_the_browser_cannot_show(page: Page, service: Service) -> None:
    """HEIC in Chromium: the service sends back what it has decoded."""
    file = io.BytesIO()
    pillow_heif.from_pillow(picture(640, 480)).save(file, quality=90)
    sent = uploads(page)
    choose(page, file.getvalue(), "IMG_1.HEIC", "image/heic")
    expect(explained(page)).not_to_be_empty()
    assert len(sent) == 1
    assert parse_qs(urlsplit(sent[0].url).query)["photo"] == ["true"]
    type_box(page, (64, 48, 600, 400))
    agree(page, shown(service, "gradcam/last", file.getvalue(), box="64,48,600,400"))
    page.locator(".explain").nth(1).click()
    idle(page)
    assert "photo" not in parse_qs(urlsplit(sent[1].url).query)


def test_a_sample_for_those_without_a_photo(page: Page) -> None:
    expect(page.locator("#linked")).to_be_hidden()
    page.get_by_role("button", name="Golden dog").click()
    expect(explained(page)).not_to_be_empty()
    expect(page.locator("#confidence")).to_have_text("Low confidence")


def test_what_can_be_taken_along(open_page: Pages, service: Service, tmp_path: Path) -> None:
    """Picture, curl command and program give what the page shows."""
    page = open_page(service, permissions=["clipboard-read", "clipboard-write"])
    photo = encode(picture(480, 360), "PNG")
    (tmp_path / 'a "dog\'s" photo.png').write_bytes(photo)
    choose(page, photo, 'a "dog\'s" photo.png', "image/png")
    expect(explained(page)).not_to_be_empty()
    page.get_by_role("radio", name="Last six").check()
    type_box(page, BOX.split(","))
    panel = shown(service, "gradcam/last6", photo, box=BOX)
    agree(page, panel)

    with page.expect_download() as download:
        page.get_by_role("button", name="Download picture").click()
    assert download.value.suggested_filename.endswith("gradcam-last6.png")
    saved = pixels(Path(download.value.path()).read_bytes())[..., :3]
    answer = compare(service, photo, method="gradcam/last6", box=BOX, size=480)
    whole = overlay(answer)
    assert saved.shape == whole.shape
    # Here colours are enlarged, there values; and lines end between pixels.
    difference = np.abs(saved.astype(int) - whole).mean(axis=2)
    assert np.median(difference) < 1
    assert np.mean(difference > 25) < 0.05

    def copied(button: str, said: str) -> str:
        page.get_by_role("button", name=button).click()
        expect(page.locator("#copied")).to_have_text(said)
        return str(page.evaluate("navigator.clipboard.readText()"))

    def drawn(command: str) -> Any:
        subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, timeout=LONG)
        return pixels((tmp_path / "overlay.png").read_bytes())

    def printed(program: str) -> Any:
        program = program.replace("print(", "import json; print(json.dumps(") + ")"
        output = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": ""},
            check=True,
            timeout=LONG,
            capture_output=True,
        )
        return json.loads(output.stdout)

    assert np.array_equal(drawn(copied("Copy as curl", "Command copied.")), whole)
    program = copied("Copy as Python", "Program copied.")
    assert not re.search("colormap|alpha", program)  # of a picture, which it does not ask for
    answered = printed(program)
    assert answered["localization"] == panel["localization"]

    page.get_by_role("radio", name="Split").check()
    page.select_option("#second", "cam/last")
    both = compare(service, photo, method=["gradcam/last6", "cam/last"], box=BOX)
    command = copied("Copy as curl", "Command for both methods copied.")
    assert np.array_equal(drawn(command), overlay(both))
    answered = printed(copied("Copy as Python", "Program for both methods copied."))
    assert answered["explanations"] == both["explanations"]


@pytest.mark.slow
def test_a_link_restores_what_was_chosen(open_page: Pages, service: Service) -> None:
    page = open_page(service, permissions=["clipboard-read", "clipboard-write"])
    choose(page, LANDSCAPE)
    expect(explained(page)).not_to_be_empty()
    page.get_by_role("tab", name="HiResCAM").click()
    page.get_by_role("radio", name="Last six").check()
    page.get_by_role("radio", name="Split").check()
    page.select_option("#second", "cam/last")
    page.select_option("#colormap", "viridis")
    page.select_option("#rule", "heatmap")
    page.fill("#opacity", "0.3")
    page.fill("#threshold", "0.4")
    type_box(page, BOX.split(","))
    page.locator(".explain").nth(1).click()
    page.locator(".vs").nth(2).click()
    expect(page.locator("#explained")).to_contain_text("versus")
    said = page.locator("#explained").inner_text()
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("#copied")).to_contain_text("copied")
    link = page.evaluate("navigator.clipboard.readText()")

    other = open_page(service, "/#" + urlsplit(link).fragment)
    assert other.locator("#stage .views").is_hidden()  # the photo is not in the link
    choose(other, LANDSCAPE)
    expect(other.locator("#explained")).to_have_text(said)
    settled(other)
    for locator in ("#figures", "#opacity-value", "#threshold-value"):
        assert other.locator(locator).inner_text() == page.locator(locator).inner_text()
    pictures = [
        tab.locator(".photo canvas").first.evaluate("canvas => canvas.toDataURL()")
        for tab in (page, other)
    ]
    assert pictures[0] == pictures[1]
    wrong = open_page(service, "/#method=x/y&opacity=7&rule=r&box=1,2&threshold=&colormap=a")
    choose(wrong, LANDSCAPE)
    expect(explained(wrong)).not_to_be_empty()
    agree(wrong, shown(service, "gradcam/last"))


def test_an_answer_that_is_late_is_dropped(page: Page, service: Service) -> None:
    """The first photo's request is held back until the second's is answered."""
    held = hold(page, times=1)
    choose(page, encode(picture(seed=1)))
    expect(page.locator("#status")).to_have_text("Working …")
    choose(page, LANDSCAPE)
    answer = compare(service, LANDSCAPE, top_k=6)
    check(page, answer)
    held.pop().continue_()
    page.wait_for_timeout(300)
    check(page, answer)


@pytest.mark.slow
def test_a_model_without_cam_that_doubts_the_photo(open_page: Pages, tmp_path: Path) -> None:
    version = tmp_path / "model" / "1"
    shutil.copytree(find_version(Settings().model_path), version)
    card = json.loads((version / CARD_PATH).read_text())
    rule = {"foreground": 0.5, "threshold": 0.35}
    limits = {"temperature": 1.0, "least_probability": 1.0, "most_novelty": None}
    limits |= {"least_foreground": -1e9}
    limits |= {"photos": 10, "ece": 0.1, "ece_before": 0.1}
    card |= {"head": "other", "confidence": limits, "fused": {"gradcam": {"last": rule}}}
    (version / CARD_PATH).write_text(json.dumps(card))
    with serving(tmp_path, model=version, precision="float32") as service:
        page = open_page(service)
        choose(page, LANDSCAPE)
        check(page, compare(service, LANDSCAPE, top_k=6))
        agree(page, shown(service, "gradcam/last"))
        expect(page.locator("#confidence")).to_have_text("Low confidence")
        expect(page.get_by_role("tab", name="CAM", exact=True)).to_have_count(0)
        expect(page.locator("#rule")).to_be_enabled()
        page.get_by_role("radio", name="Last six").check()  # `fused` is not calibrated there
        agree(page, shown(service, "gradcam/last6"))
        expect(page.locator("#rule")).to_be_disabled()
        page.get_by_text("How to read this").click()
        expect(page.locator("#no-cam")).to_be_visible()
        expect(page.locator("#why-alike")).to_be_hidden()


@pytest.mark.slow
def test_the_documentation_keeps_its_policy(browser: Browser, service: Service) -> None:
    """Swagger UI lists the operations and calls one, and the policy blocks nothing of it."""
    page = browser.new_context().new_page()
    page.set_default_timeout(LONG * 1000)
    page.add_init_script(
        "window.blocked = [];"
        "addEventListener('securitypolicyviolation', (event) =>"
        " blocked.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`))"
    )
    page.goto(f"{service.url}/docs")
    operations = page.locator(".opblock-summary-path")
    expect(operations.first).to_be_visible()
    paths = {text.replace("\u200b", "") for text in operations.all_inner_texts()}
    assert {"/predict", "/gradcam", "/model"} <= paths
    page.locator("#operations-health-livez button").first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table")).to_contain_text("alive")
    assert page.evaluate("blocked") == []
    page.context.close()
