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
    transfer,
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


def test_what_is_no_photo_is_told_in_the_services_words(page: Page, service: Service) -> None:
    text = b"To whom it may concern"
    raw = {"Content-Type": "application/octet-stream"}
    refused = httpx.post(f"{service.url}/compare", content=text, headers=raw, timeout=LONG)
    assert refused.status_code == 415
    choose(page, text)
    expect(at_photo(page)).to_contain_text(refused.json()["detail"])
    expect(page.locator(".choose")).to_be_visible()
    expect(page.locator("#figures")).to_be_hidden()
    page.get_by_role("button", name="Close").click()
    expect(at_photo(page)).to_be_hidden()
    choose(page, LANDSCAPE)
    check(page, compare(service, LANDSCAPE, top_k=6))


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


def test_a_lost_connection_can_be_tried_again(page: Page, service: Service) -> None:
    page.context.set_offline(True)
    choose(page, LANDSCAPE)
    expect(at_photo(page)).to_contain_text("cannot be reached")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(at_photo(page)).to_be_hidden()
    check(page, compare(service, LANDSCAPE, top_k=6))
    page.context.set_offline(True)  # said where its user acted
    page.locator(".explain").nth(1).click()
    expect(page.locator("#at-breeds")).to_contain_text("cannot be reached")
    expect(at_photo(page)).to_be_hidden()
    page.locator(".explain").nth(0).click()  # known already
    expect(page.locator("#at-breeds")).to_be_hidden()


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
