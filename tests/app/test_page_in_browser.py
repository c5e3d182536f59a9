"""The page in Chromium, before the real service.

Apart from tests/app/test_page.py: Playwright's event loop and asynchronous tests do not mix.
"""

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, Route, expect, sync_playwright

from app.bundle import CARD_PATH, find_version
from app.settings import Settings
from tests import needs
from tests.app.conftest import Answer, encode, overlay, picture, pixels
from tests.app.services import LONG, Service, serving

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NONE = "\N{EN DASH}"
LANDSCAPE = encode(picture(480, 360))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = needs.tool("chromium", "chromium-browser", "google-chrome")
    expect.set_options(timeout=LONG * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def service(plain_service: Service) -> Service:
    return plain_service


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """`open_page(service, **context)`: the page, once it knows the model; no error may show up."""
    opened: list[Page] = []
    errors: list[str] = []

    def open_page(service: Service, **context: Any) -> Page:
        page = browser.new_context(**context).new_page()
        page.set_default_timeout(LONG * 1000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(service.url)
        expect(page.locator("#labels")).not_to_be_empty()
        opened.append(page)
        return page

    yield open_page
    for page in opened:
        page.context.close()
    assert errors == []


@pytest.fixture
def page(open_page: Callable[..., Page], service: Service) -> Page:
    return open_page(service)


def compare(service: Service, photo: bytes, **params: Any) -> Answer:
    headers = {"Content-Type": "image/jpeg"}
    response = httpx.post(
        f"{service.url}/compare", content=photo, headers=headers, params=params, timeout=LONG
    )
    assert response.status_code == 200, response.text[:500]
    answer: Answer = response.json()
    return answer


def choose(page: Page, photo: bytes, name: str = "dog.jpg") -> None:
    payload: FilePayload = {"name": name, "mimeType": "image/jpeg", "buffer": photo}
    page.set_input_files("#file", payload)


def idle(page: Page) -> None:
    expect(page.locator("main[aria-busy=false]")).to_be_attached()


def hold(page: Page, times: int | None = None) -> list[Route]:
    """Keep requests (the first `times`) from the service: they come into the list."""
    held: list[Route] = []

    def keep(route: Route) -> None:
        held.append(route)

    page.route("**/compare?*", keep, times=times)
    return held


def typed_box(page: Page) -> list[str]:
    return [field.input_value() for field in page.locator(".edges input").all()]


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """By shares of the photo's width and height."""
    stage = page.locator(".stage")
    stage.scroll_into_view_if_needed()
    seen = stage.bounding_box()
    assert seen
    points = [
        (seen["x"] + x * seen["width"], seen["y"] + y * seen["height"]) for x, y in (start, end)
    ]
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=4)
    page.mouse.up()
    idle(page)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def check(page: Page, answer: Answer) -> None:
    """The page shows this answer: names, numbers and every pixel of the pictures."""
    idle(page)
    expect(page.locator("#breeds .name")).to_have_text([p["label"] for p in answer["predictions"]])
    shares = [percent(p["probability"]) for p in answer["predictions"]]
    expect(page.locator("#breeds .share")).to_have_text(shares)
    expect(page.locator("#breeds [aria-pressed=true] .name")).to_have_text(
        [p["label"] for p in answer["predictions"] if p == answer["target"]]
    )
    panels = answer["explanations"]
    located = [panel["localization"] for panel in panels]
    expect(page.locator(".iou")).to_have_text(
        [f"{figures['iou']:.3f}" if figures else NONE for figures in located]
    )
    expect(page.locator(".energy")).to_have_text(
        [percent(figures["energy_in_box"]) if figures else NONE for figures in located]
    )
    peaks = {None: NONE, True: "yes", False: "no"}
    expect(page.locator(".peak")).to_have_text(
        [peaks[figures and figures["peak_in_box"]] for figures in located]
    )
    for panel, text in zip(panels, page.locator(".rule").all_inner_texts(), strict=True):
        explanation = panel["explanation"]
        assert text == f"rule {explanation['rule']}, threshold {explanation['threshold']:g}"
    width, whole = answer["overlay"]["panel_width"], overlay(answer)
    for number, canvas in enumerate(page.locator("#figures canvas").all()):
        left = number * (whole.shape[1] - width) // (len(panels) - 1)
        data = canvas.evaluate("canvas => canvas.toDataURL()").partition(",")[2]
        shown = pixels(base64.b64decode(data))[..., :3]
        assert np.array_equal(shown, whole[:, left : left + width])


def test_a_photo_gets_the_answer_of_the_api(page: Page, service: Service) -> None:
    choose(page, LANDSCAPE)
    check(page, compare(service, LANDSCAPE))
    expect(page.locator("h3")).to_have_text(
        ["CAM, last layer", "Grad-CAM, last layer", "Grad-CAM, last 6 layers"]
    )
    model = httpx.get(f"{service.url}/model", timeout=LONG).json()
    expect(page.locator("#model")).to_contain_text(f"{model['name']}, version {model['version']} ")
    names = sorted(label["name"] for label in model["labels"])
    expect(page.locator("#labels")).to_have_text(", ".join(names))
    offered = page.locator("#names option").evaluate_all("all => all.map(one => one.value)")
    assert offered == names


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_photo_can_be_dropped_and_pasted(page: Page, service: Service, event: str) -> None:
    transfer = page.evaluate_handle(
        """text => {
            const transfer = new DataTransfer();
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt());
            transfer.items.add(new File([bytes], "dog.jpg", { type: "image/jpeg" }));
            return transfer;
        }""",
        base64.b64encode(LANDSCAPE).decode(),
    )
    if event == "drop":
        page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    else:
        page.evaluate(
            """transfer => document.body.dispatchEvent(
                new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }))""",
            transfer,
        )
    expect(page.locator("#breeds .name").first).not_to_be_empty()
    check(page, compare(service, LANDSCAPE))


def test_a_box_is_drawn_moved_and_resized_by_mouse(page: Page, service: Service) -> None:
    choose(page, LANDSCAPE)
    idle(page)
    drag(page, (0.75, 0.8), (0.25, 0.2))
    box = typed_box(page)
    assert [float(edge) for edge in box] == pytest.approx([120, 72, 360, 288], abs=1.5)
    check(page, compare(service, LANDSCAPE, box=",".join(box)))

    drag(page, (0.5, 0.5), (0.6, 0.4))
    moved = [float(edge) for edge in typed_box(page)]
    assert moved == pytest.approx([168, 36, 408, 252], abs=3)
    drag(page, (moved[2] / 480, moved[3] / 360), (1.2, 1.2))
    assert [float(edge) for edge in typed_box(page)] == [*moved[:2], 480, 360]
    check(page, compare(service, LANDSCAPE, box=",".join(typed_box(page))))

    page.click(".edges button")
    assert typed_box(page) == [""] * 4
    check(page, compare(service, LANDSCAPE))


def test_a_box_is_typed_and_moved_by_keys(page: Page, service: Service) -> None:
    choose(page, LANDSCAPE)
    idle(page)
    fields = page.locator(".edges input")
    for field, value in zip(fields.all(), ("300", "60", "200.5", "350"), strict=True):
        field.fill(value)
    fields.nth(3).blur()
    assert "less than xmax" in fields.nth(0).evaluate("field => field.validationMessage")
    expect(page.locator(".frame")).to_be_hidden()
    fields.nth(0).fill("100")
    fields.nth(0).blur()
    expect(page.locator(".frame")).to_be_visible()
    check(page, compare(service, LANDSCAPE, box="100,60,200.5,350"))

    page.focus(".frame")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+ArrowLeft")
    assert typed_box(page) == ["105", "65", "200.5", "355"]
    check(page, compare(service, LANDSCAPE, box="105,65,200.5,355"))
    page.keyboard.press("Delete")
    check(page, compare(service, LANDSCAPE))


def test_a_photo_on_its_side_has_its_box_upright(page: Page, service: Service) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    portrait = encode(picture(480, 360), exif=exif)
    choose(page, portrait)
    idle(page)
    drag(page, (0.1, 0.05), (0.9, 0.5))
    box = [float(edge) for edge in typed_box(page)]
    assert box == pytest.approx([36, 24, 324, 240], abs=1.5)
    answer = compare(service, portrait, box=",".join(typed_box(page)))
    assert answer["image"] == {"width": 360, "height": 480}
    check(page, answer)


def test_what_is_chosen_is_asked_for(page: Page, service: Service) -> None:
    choose(page, LANDSCAPE)
    idle(page)
    second = compare(service, LANDSCAPE)["predictions"][1]
    page.locator("#breeds button").nth(1).click()
    check(page, compare(service, LANDSCAPE, target=second["class_index"]))
    expect(page.locator("#target")).to_have_text(f"for {second['label']}")

    expect(page.locator("[name=target]")).to_have_value(second["label"])

    labels = httpx.get(f"{service.url}/model", timeout=LONG).json()["labels"]
    other = next(label["index"] for label in labels if label["index"] != second["class_index"])
    page.fill("[name=versus]", labels[other]["name"].upper().replace(" ", "_"))
    page.select_option("[name=rule]", "heatmap")
    page.select_option("[name=colormap]", "magma")
    page.fill("[name=alpha]", "0.8")
    params = {"target": second["class_index"], "versus": other, "rule": "heatmap"}
    check(page, compare(service, LANDSCAPE, colormap="magma", alpha=0.8, **params))

    choose(page, encode(picture(300, 300, seed=3)))  # another photo: the likeliest, versus none
    expect(page.locator("[name=versus]")).to_have_value("")
    check(
        page,
        compare(
            service, encode(picture(300, 300, seed=3)), rule="heatmap", colormap="magma", alpha=0.8
        ),
    )


def test_any_breed_can_be_the_target(page: Page, service: Service) -> None:
    choose(page, LANDSCAPE)
    idle(page)
    everyone = compare(service, LANDSCAPE, top_k=1000)["predictions"]
    least = everyone[-1]
    target = page.locator("[name=target]")
    target.fill(least["label"])
    check(page, compare(service, LANDSCAPE, target=least["class_index"]))
    expect(page.locator("#target")).to_have_text(f"for {least['label']}")

    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    target.fill(f"{least['label']}, or so")
    page.wait_for_timeout(300)
    assert "Not a breed" in target.evaluate("field => field.validationMessage")
    assert requests == []

    target.fill("")
    check(page, compare(service, LANDSCAPE))
    requests.clear()
    versus = page.locator("[name=versus]")
    versus.fill(everyone[0]["label"])
    page.wait_for_timeout(300)
    assert "another breed" in versus.evaluate("field => field.validationMessage")
    assert requests == []

    versus.fill(least["label"])
    check(page, compare(service, LANDSCAPE, versus=least["class_index"]))


def test_an_error_is_told_in_the_services_words(page: Page, service: Service) -> None:
    text = b"To whom it may concern"
    refused = httpx.post(
        f"{service.url}/compare", content=text, headers={"Content-Type": "image/jpeg"}, timeout=LONG
    )
    assert refused.status_code == 415
    choose(page, text)
    expect(page.get_by_role("alert")).to_contain_text(refused.json()["detail"])
    expect(page.locator(".stage")).to_be_hidden()
    expect(page.locator("#figures")).to_be_hidden()
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_role("alert")).to_be_hidden()

    choose(page, LANDSCAPE)
    check(page, compare(service, LANDSCAPE))


def test_a_lost_connection_is_told_and_can_be_tried_again(page: Page, service: Service) -> None:
    page.context.set_offline(True)
    choose(page, LANDSCAPE)
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("alert")).to_be_hidden()
    check(page, compare(service, LANDSCAPE))


def test_an_answer_that_is_late_is_dropped(page: Page, service: Service) -> None:
    """The first photo's request is held back until the second's is answered."""
    held = hold(page, times=1)
    choose(page, encode(picture(seed=1)))
    expect(page.locator("#status")).to_have_text("Working …")
    choose(page, LANDSCAPE)
    check(page, compare(service, LANDSCAPE))
    held.pop().continue_()
    page.wait_for_timeout(300)
    check(page, compare(service, LANDSCAPE))


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_sticks_out_or_jumps(
    open_page: Callable[..., Page], service: Service, width: int
) -> None:
    """What stands below the breeds and the evidence stays where the empty places held it."""
    page = open_page(service, viewport={"width": width, "height": 800})
    held = hold(page)
    choose(page, LANDSCAPE)
    expect(page.locator("#figures canvas").first).to_be_visible()
    tops = "() => ['#figures', 'footer'].map((s) => document.querySelector(s).offsetTop)"
    before = page.evaluate(tops)
    expect(page.locator("#status")).to_have_text("Working …")
    held.pop().continue_()
    idle(page)
    assert page.evaluate(tops) == before
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.slow
def test_a_model_without_cam_that_doubts_the_photo(
    open_page: Callable[..., Page], tmp_path: Path
) -> None:
    version = tmp_path / "model" / "1"
    shutil.copytree(find_version(Settings().model_path), version)
    card = json.loads((version / CARD_PATH).read_text())
    rule = {"foreground": 0.5, "threshold": 0.35}
    limits = {"temperature": 1.0, "least_probability": 1.0, "most_novelty": None}
    limits |= {"least_foreground": -1e9}
    limits |= {"photos": 10, "ece": 0.1, "ece_before": 0.1}
    card |= {
        "head": "other",
        "confidence": limits,
        "fused": {"gradcam": {"last": rule, "last6": rule}},
    }
    (version / CARD_PATH).write_text(json.dumps(card))
    with serving(tmp_path, model=version, precision="float32") as service:
        page = open_page(service)
        choose(page, LANDSCAPE)
        answer = compare(service, LANDSCAPE)
        assert [panel["explanation"]["rule"] for panel in answer["explanations"]] == ["fused"] * 2
        check(page, answer)
        expect(page.locator("#confidence")).to_contain_text("Low confidence")
        expect(page.locator("#no-cam")).to_be_visible()
        expect(page.locator("#why-alike")).to_be_hidden()
        expect(page.locator("#why-fused")).to_be_visible()
        page.select_option("[name=rule]", "heatmap")
        check(page, compare(service, LANDSCAPE, rule="heatmap"))


@pytest.mark.slow
def test_a_locked_service_asks_for_its_key(browser: Browser, tmp_path: Path) -> None:
    key = "correct-horse-battery-staple"
    with serving(tmp_path, precision="float32", api_keys=key, docs=False) as service:
        page = browser.new_context().new_page()
        page.set_default_timeout(LONG * 1000)
        page.goto(service.url)
        field = page.get_by_label("requires an API key")
        expect(field).to_be_focused()
        expect(page.get_by_role("alert")).to_be_hidden()
        expect(page.get_by_role("link", name="API documentation")).to_be_hidden()
        choose(page, LANDSCAPE)
        expect(field).to_be_focused()
        idle(page)
        field.fill("not a key")
        field.press("Enter")
        assert field.evaluate("field => field.validity.patternMismatch")
        expect(page.locator("#key")).to_be_visible()
        field.fill("another-key-altogether")
        field.press("Enter")
        field = page.get_by_label("does not accept this API key")
        expect(field).to_be_focused()
        expect(field).to_have_value("")
        field.fill(key)
        page.get_by_role("button", name="Use this key").click()
        expect(page.locator("#labels")).not_to_be_empty()
        expect(page.locator("#breeds .name").first).not_to_be_empty()
        headers = {"Content-Type": "image/jpeg", "Authorization": f"Bearer {key}"}
        answer = httpx.post(
            f"{service.url}/compare", content=LANDSCAPE, headers=headers, timeout=LONG
        )
        check(page, answer.json())
        expect(page.locator("#key")).to_be_hidden()

        page.reload()  # the tab keeps the key; no other does, nor any cookie
        expect(page.locator("#labels")).not_to_be_empty()
        assert page.evaluate("Object.keys(localStorage).length") == 0
        assert page.context.cookies() == []
        other = page.context.new_page()
        other.goto(service.url)
        expect(other.get_by_label("requires an API key")).to_be_focused()
        page.context.close()


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
    page.locator("#operations-default-livez_livez_get button").first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table")).to_contain_text("alive")
    assert page.evaluate("blocked") == []
    page.context.close()
