"""What the page says in Chromium when something is in the way, and where it says it."""

from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, Route, expect

from tests.app.chromium import (
    LANDSCAPE,
    Pages,
    bring,
    check,
    choose,
    compare,
    explained,
    hold,
    idle,
    settled,
    transfer,
    type_box,
    typed_box,
    uploads,
)
from tests.app.conftest import encode, picture
from tests.app.services import LONG, Service, serving


@pytest.fixture
def page(open_page: Pages, service: Service) -> Page:
    return open_page(service)


def at_photo(page: Page) -> Locator:
    return page.locator("#at-photo")


def answer_with(page: Page, pattern: str, status: int, code: str, times: int, wait: int) -> None:
    """Put the first requests off, as a service does that has no time for them."""

    def refuse(route: Route) -> None:
        problem = {"type": f"urn:breedcam:error:{code}", "status": status, "detail": code}
        headers = {"Retry-After": str(wait)}
        route.fulfill(
            status=status, json=problem, headers=headers, content_type="application/problem+json"
        )

    page.route(pattern, refuse, times=times)


def heard(page: Page) -> list[str]:
    """What screen readers were told last: the texts of messages and of the status."""
    parts = page.locator("[role=alert]:visible p, #status")
    return [text for text in parts.all_inner_texts() if text]


def test_what_is_no_photo_is_told_in_the_services_words(page: Page, service: Service) -> None:
    text = b"To whom it may concern"
    raw = {"Content-Type": "application/octet-stream"}
    refused = httpx.post(f"{service.url}/compare", content=text, headers=raw, timeout=LONG)
    assert refused.status_code == 415
    choose(page, text)
    expect(at_photo(page)).to_contain_text(refused.json()["detail"])
    assert heard(page) == [at_photo(page).locator("p").inner_text()]
    expect(page.locator(".choose")).to_be_visible()
    expect(page.locator("#figures")).to_be_hidden()
    page.get_by_role("button", name="Close").click()
    expect(at_photo(page)).to_be_hidden()
    choose(page, LANDSCAPE)
    check(page, compare(service, LANDSCAPE, top_k=6))


def test_what_cannot_be_explained_leaves_the_photo_before(page: Page, service: Service) -> None:
    """No photo, one that only the browser can read, and two at once: the answer and box stay."""
    choose(page, LANDSCAPE)
    answer = compare(service, LANDSCAPE, top_k=6)
    check(page, answer)
    page.locator(".explain").nth(1).click()
    answer["target"] = answer["predictions"][1]
    check(page, answer)
    box = ["100", "60", "360", "300"]
    type_box(page, box)
    settled(page)
    picture_of = "canvas => canvas.toDataURL()"
    canvas = page.locator(".photo canvas").first
    before = canvas.evaluate(picture_of)
    figures = page.locator("#figures").inner_text()

    def stays() -> None:
        check(page, answer)
        settled(page)
        assert typed_box(page) == box
        assert canvas.evaluate(picture_of) == before
        assert page.locator("#figures").inner_text() == figures
        expect(page.locator("body.stale")).to_have_count(0)

    held = hold(page, times=1)
    choose(page, b"To whom it may concern")
    expect(page.locator("#status")).to_have_text("Working …")
    assert canvas.evaluate(picture_of) == before  # while nobody knows whether it is a photo
    held.pop().continue_()
    expect(at_photo(page)).to_contain_text("not a photo that can be read")
    assert heard(page) == [at_photo(page).locator("p").inner_text()]
    stays()
    answer_with(page, "**/compare?*", 415, "unsupported-media-type", times=1, wait=0)
    choose(page, encode(picture(seed=1)))
    expect(at_photo(page)).to_contain_text("unsupported-media-type")
    stays()
    bring(page, "drop", transfer(page, ("rex.jpg", LANDSCAPE), ("bello.jpg", LANDSCAPE)))
    expect(at_photo(page)).to_have_text("You dropped 2 files. This page takes one at a time.Close")
    stays()
    choose(page, encode(picture(300, 300, seed=3)))
    check(page, compare(service, encode(picture(300, 300, seed=3)), top_k=6))
    assert typed_box(page) == [""] * 4


def test_a_file_that_is_too_large_is_not_sent(page: Page, service: Service) -> None:
    model = httpx.get(f"{service.url}/model", timeout=LONG).json()
    most = model["limits"]["upload_bytes"]
    expect(page.locator("#takes")).to_contain_text(f"up to {most / 1e6:.0f} MB")
    model["limits"]["upload_bytes"] = 1_000_000
    page.route("**/model", lambda route: route.fulfill(json=model))
    page.reload()
    expect(page.locator("#takes")).to_contain_text("up to 1 MB")
    sent = uploads(page)
    choose(page, bytes(1_500_000), "scan.tif", "image/tiff")
    expect(at_photo(page)).to_contain_text("has 1.5 MB. The service takes up to 1 MB")
    assert sent == []
    choose(page, LANDSCAPE)
    check(page, compare(service, LANDSCAPE, top_k=6))
    choose(page, bytes(1_500_000), "scan.tif", "image/tiff")
    expect(at_photo(page)).to_contain_text("has 1.5 MB. The service takes up to 1 MB")
    check(page, compare(service, LANDSCAPE, top_k=6))
    assert len(sent) == 1


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_link_from_another_tab_is_no_photo(page: Page, event: str) -> None:
    data = transfer(page, link="https://example.org/dog.jpg")
    bring(page, event, data)
    expect(at_photo(page)).to_contain_text("a link to a picture, not the picture")


def test_of_two_files_the_first_is_taken(page: Page, service: Service) -> None:
    other = encode(picture(seed=1))
    data = transfer(page, ("rex.jpg", LANDSCAPE), ("bello.jpg", other))
    bring(page, "drop", data)
    expect(at_photo(page)).to_contain_text("dropped 2 files")
    expect(at_photo(page)).to_contain_text("rex.jpg")
    check(page, compare(service, LANDSCAPE, top_k=6))
    message, views, hint, tools = (
        page.locator(part).bounding_box() for part in ("#at-photo", "#views", "#hint", ".compared")
    )
    assert message
    assert views
    assert hint
    assert tools
    assert message["y"] + message["height"] <= views["y"]  # it covers nothing
    assert views["y"] + views["height"] <= hint["y"] < tools["y"]


def test_a_folder_cannot_be_read(page: Page) -> None:
    page.evaluate(
        """() => {
            const transfer = new DataTransfer();
            const file = new File([], "folder");
            file.arrayBuffer = () => Promise.reject(new DOMException("", "NotFoundError"));
            transfer.items.add(file);
            Object.defineProperty(transfer, "files", { value: [file] });
            const drop = new DragEvent("drop", { bubbles: true, cancelable: true });
            Object.defineProperty(drop, "dataTransfer", { value: transfer });
            document.body.dispatchEvent(drop);
        }"""
    )
    expect(at_photo(page)).to_contain_text("cannot be read")
    idle(page)
    assert heard(page) == [at_photo(page).locator("p").inner_text()]


def hide(page: Page, hidden: bool) -> None:
    page.evaluate(
        """hidden => {
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def test_a_lost_connection_is_tried_again(page: Page, service: Service) -> None:
    """By a button, or by itself once the service is back, but not while the page is hidden."""
    page.route("**/readyz", lambda route: route.abort())
    page.context.set_offline(True)
    choose(page, LANDSCAPE)
    expect(at_photo(page)).to_contain_text("cannot be reached")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(at_photo(page)).to_be_hidden()
    answer = compare(service, LANDSCAPE, top_k=6)
    check(page, answer)
    page.unroute("**/readyz")

    probes: list[str] = []
    page.on("request", lambda request: probes.append(request.url.rpartition("/")[2]))
    page.set_viewport_size({"width": 360, "height": 740})
    hide(page, True)
    page.context.set_offline(True)
    page.locator(".explain").nth(1).click()
    expect(page.locator("#at-breeds")).to_contain_text("cannot be reached")
    expect(at_photo(page)).to_be_hidden()  # said where its user acted
    page.context.set_offline(False)
    page.wait_for_timeout(300)
    assert "readyz" not in probes
    hide(page, False)
    expect(explained(page)).to_have_text(answer["predictions"][1]["label"])
    expect(page.locator("#at-breeds")).to_be_hidden()
    assert probes.count("readyz") == 1
    expect(page.locator("#stage")).to_be_in_viewport(ratio=0.99)

    page.context.set_offline(True)
    page.locator(".explain").nth(2).click()
    expect(page.locator("#at-breeds")).to_contain_text("cannot be reached")
    page.locator(".explain").nth(0).click()  # known already
    expect(page.locator("#at-breeds")).to_be_hidden()


def test_a_lost_service_is_looked_for_less_and_less_often(page: Page) -> None:
    """And a photo that it does not survive is sent again five times at most."""
    page.clock.install(time=0)
    page.evaluate(
        """async () => {
            const { Watch } = await import("./static/watch.js");
            [window.probed, window.sent, window.ready] = [[], [], false];
            window.fetch = async () => { probed.push(Date.now() / 1000); return { ok: ready }; };
            const watch = new Watch();
            const send = () => { sent.push(watch.start(send)); };
            watch.start(send);
        }"""
    )
    page.clock.run_for(130_000)
    steps = [2, 4, 8, 16, 30, 30, 30]
    assert page.evaluate("probed.map(Math.round)") == [
        sum(steps[: count + 1]) for count in range(len(steps))
    ]
    page.evaluate("ready = true")
    page.clock.run_for(600_000)
    assert page.evaluate("sent") == [True] * 4 + [False]


def test_a_busy_service_is_asked_again_politely(page: Page, service: Service) -> None:
    sent = uploads(page)
    answer_with(page, "**/compare?*", 429, "queue-full", times=2, wait=2)
    choose(page, LANDSCAPE)
    expect(at_photo(page)).to_contain_text("busy. Trying again in 2 s")
    expect(at_photo(page)).to_contain_text("Trying again in 1 s")
    check(page, compare(service, LANDSCAPE, top_k=6))
    expect(at_photo(page)).to_be_hidden()
    assert len(sent) == 3


def test_an_engine_that_is_down_is_not_asked_again_unasked(page: Page, service: Service) -> None:
    answer_with(page, "**/compare?*", 503, "engine-down", times=1, wait=5)
    choose(page, LANDSCAPE)
    expect(at_photo(page)).to_contain_text("engine-down")
    page.get_by_role("button", name="Try again").click()
    check(page, compare(service, LANDSCAPE, top_k=6))


def test_another_version_of_the_model_is_met(page: Page, service: Service) -> None:
    """What was read of the one before, thresholds and classes, does not hold for it."""
    model = httpx.get(f"{service.url}/model", timeout=LONG).json()
    before = model | {"version": model["version"] + 1, "labels": model["labels"][::-1]}
    page.route("**/model", lambda route: route.fulfill(json=before), times=1)
    page.goto(f"{service.url}/#target=pug&colormap=viridis")
    page.reload()
    expect(page.locator("#model")).to_contain_text(f"version {before['version']}")
    sent = uploads(page)
    choose(page, LANDSCAPE)
    expect(page.locator("#model")).to_contain_text(f"version {model['version']}")
    check(page, compare(service, LANDSCAPE, top_k=6, target="pug"))
    expect(page.locator("#colormap")).to_have_value("viridis")
    assert [request.method for request in sent] == ["POST", "GET", "POST"]


@pytest.mark.slow
def test_a_service_that_starts_is_waited_for(open_page: Pages, service: Service) -> None:
    page = open_page(service)
    answer_with(page, "**/model", 503, "not-ready", times=1, wait=1)
    page.reload()
    expect(at_photo(page)).to_contain_text("is starting. Trying again in 1 s")
    choose(page, LANDSCAPE)  # not to be lost
    check(page, compare(service, LANDSCAPE, top_k=6))
    expect(at_photo(page)).to_be_hidden()


def test_a_slow_upload_shows_its_progress(page: Page, service: Service) -> None:
    """And the photo is there already."""
    grain = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    photo = encode(Image.fromarray(grain), quality=95)
    network = page.context.new_cdp_session(page)
    conditions = {"offline": False, "latency": 0, "downloadThroughput": -1}
    network.send(
        "Network.emulateNetworkConditions", {**conditions, "uploadThroughput": len(photo) / 2}
    )
    choose(page, photo)
    expect(at_photo(page)).to_contain_text("Sending the photo")
    expect(page.locator(".photo canvas").first).to_be_visible()
    assert page.get_by_role("progressbar").evaluate("bar => bar.value < 1")
    check(page, compare(service, photo, top_k=6))
    expect(at_photo(page)).to_be_hidden()


def test_a_late_answer_is_said_to_be_on_its_way(page: Page, service: Service) -> None:
    held = hold(page, times=1)
    choose(page, LANDSCAPE)
    expect(page.locator("#status")).to_have_text("Working …")
    expect(at_photo(page)).to_contain_text("Explaining")
    held.pop().continue_()
    check(page, compare(service, LANDSCAPE, top_k=6))
    expect(at_photo(page)).to_be_hidden()


@pytest.mark.slow
def test_a_locked_service_asks_for_its_key(open_page: Pages, tmp_path: Path) -> None:
    key = "correct-horse-battery-staple"
    with serving(tmp_path, precision="float32", api_keys=key, docs=False) as service:
        page = open_page(service, ready=False)
        field = page.get_by_label("requires an API key")
        expect(field).to_be_focused()
        expect(at_photo(page)).to_be_hidden()
        expect(page.get_by_role("link", name="API documentation")).to_be_hidden()
        choose(page, LANDSCAPE)
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
        expect(explained(page)).not_to_be_empty()
        headers = {"Authorization": f"Bearer {key}"}
        response = httpx.post(
            f"{service.url}/compare?top_k=6", content=LANDSCAPE, headers=headers, timeout=LONG
        )
        check(page, response.json())
        expect(page.locator("#key")).to_be_hidden()

        page.reload()  # the tab keeps the key; no other does, nor any cookie
        expect(page.locator("#labels")).not_to_be_empty()
        assert page.evaluate("Object.keys(localStorage).length") == 0
        assert page.context.cookies() == []
        other = page.context.new_page()
        other.goto(service.url)
        expect(other.get_by_label("requires an API key")).to_be_focused()
