"""Rating heatmaps in Chromium: what is asked, what is kept, and what nobody may know before."""

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.app.chromium import LANDSCAPE, LAYERS, TITLES, Pages, choose, compare, explained
from tests.app.conftest import encode, picture
from tests.app.services import Service, serving
from tests.app.test_page_layout_in_browser import fits, screen, violations

WORDS = [*TITLES, *TITLES.values(), *LAYERS, *LAYERS.values()]
COLUMNS = "digest, first, second, answer, first_misses, second_misses, rater"


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ratings") / "ratings.sqlite"


@pytest.fixture(scope="module")
def rated_service(ratings: Path) -> Iterator[Service]:
    with serving(ratings.parent, ratings=ratings, precision="float32") as service:
        yield service


def opened(open_page: Pages, service: Service, **context: Any) -> tuple[Page, Locator]:
    """The page with an explained photo, and the view in which its heatmaps are rated."""
    page = open_page(service, **context)
    choose(page, LANDSCAPE)
    expect(explained(page)).not_to_be_empty()
    page.get_by_role("button", name="Rate heatmaps").press("Enter")
    view = page.get_by_role("dialog")
    expect(view.get_by_role("heading")).to_be_focused()
    return page, view


def choose_another(page: Page, photo: bytes) -> None:
    """Until there is an answer, what is rated is the photo before."""
    with page.expect_response("**/compare?*"):
        choose(page, photo)


def of_rater(path: Path, page: Page) -> list[tuple[Any, ...]]:
    """The ratings of this browser, the oldest first."""
    rater = page.evaluate("localStorage.getItem('breedcam-rater')")
    assert re.fullmatch("[0-9a-f]{32}", rater)
    with sqlite3.connect(path) as file:
        query = f"SELECT {COLUMNS} FROM rating WHERE rater = ? ORDER BY time"
        rows: list[tuple[Any, ...]] = file.execute(query, (rater,)).fetchall()
    file.close()
    return rows


def names(view: Locator) -> list[str]:
    expect(view.locator(".method").last).not_to_be_empty()
    return view.locator(".method").all_inner_texts()


def title(spec: str) -> str:
    method, layers = spec.split("/")
    return f"{TITLES[method]}, {LAYERS[layers]}"


def test_an_answer_is_kept_as_it_was_seen(
    open_page: Pages, rated_service: Service, ratings: Path
) -> None:
    page, view = opened(open_page, rated_service)
    breed = explained(page).inner_text()
    markup = view.evaluate("view => view.outerHTML")
    assert [word for word in WORDS if re.search(rf"\b{re.escape(word)}(?!\w)", markup)] == []
    left, right = (
        canvas.evaluate("canvas => canvas.toDataURL()") for canvas in view.locator("canvas").all()
    )
    assert left != right

    view.get_by_label("Right misses the dog").check()
    with page.expect_request("**/ratings") as request:
        view.get_by_role("button", name=f"Left explains {breed} better").click()
    answered = compare(rated_service, LANDSCAPE)["model"]
    sent = json.loads(request.value.post_data or "")
    assert sent["model"] == answered  # whichever is in service by then
    shown = names(view)
    expect(view.get_by_role("status")).to_contain_text(f"Left: {shown[0]}. Right: {shown[1]}.")
    digest = hashlib.sha256(LANDSCAPE).hexdigest()
    [row] = of_rater(ratings, page)
    assert [title(spec) for spec in row[1:3]] == shown
    assert (row[0], *row[3:6]) == (digest, "first", 0, 1)

    view.get_by_role("button", name="Next pair").click()
    expect(view.get_by_label("Right misses the dog")).not_to_be_checked()
    view.get_by_role("button", name="The same").click()
    others = names(view)
    _, row = of_rater(ratings, page)
    assert [title(spec) for spec in row[1:3]] == others
    assert sorted(others) != sorted(shown)
    assert (row[0], *row[3:6]) == (digest, "same", 0, 0)
    named = [*shown, *others]
    while view.get_by_role("button", name="Next pair").is_visible():
        view.get_by_role("button", name="Next pair").click()
        view.get_by_role("button", name="The same").click()
        named += names(view)
    assert len(named) == len(set(named))
    view.get_by_role("button", name="Done").click()
    expect(view).to_be_hidden()

    page.reload()  # nor is anything asked twice later
    choose(page, LANDSCAPE)
    page.get_by_role("button", name="Rate heatmaps").click()
    expect(view.get_by_role("status")).to_contain_text("no other pair of this photo")
    view.get_by_role("button", name="Done").click()
    large = encode(picture(1800, 1200, seed=5))  # scaled down before it is sent
    choose_another(page, large)
    page.get_by_role("button", name="Rate heatmaps").click()
    view.get_by_role("button", name="The same").click()
    names(view)
    assert of_rater(ratings, page)[-1][0] == hashlib.sha256(large).hexdigest()


@pytest.mark.slow
def test_without_storage_a_pair_is_not_asked_twice_either(
    open_page: Pages, rated_service: Service
) -> None:
    """For as long as the page is open."""
    page = open_page(rated_service)
    page.evaluate("Object.defineProperty(window, 'localStorage', { get() { throw Error(); } })")
    view = page.get_by_role("dialog")
    named: list[str] = []
    for _ in range(2):
        choose_another(page, LANDSCAPE)
        page.get_by_role("button", name="Rate heatmaps").click()
        view.get_by_role("button", name="The same").click()
        named += names(view)
        view.get_by_role("button", name="Done").click()
    assert len(set(named)) == 4


@pytest.mark.slow
def test_the_keyboard_alone_rates(open_page: Pages, rated_service: Service, ratings: Path) -> None:
    page, view = opened(open_page, rated_service)

    def tab_to(target: Locator) -> None:
        for _ in range(8):
            page.keyboard.press("Tab")
            if target.evaluate("target => target === document.activeElement"):
                return
        pytest.fail("out of reach")

    tab_to(view.get_by_label("Left misses the dog"))
    page.keyboard.press("Space")
    tab_to(view.get_by_role("button", name="Right explains"))
    page.keyboard.press("Enter")
    expect(view.get_by_role("button", name="Next pair")).to_be_focused()
    assert [row[3:6] for row in of_rater(ratings, page)] == [("second", 1, 0)]
    page.keyboard.press("Enter")
    expect(view.get_by_role("heading")).to_be_focused()
    page.keyboard.press("Escape")
    expect(view).to_be_hidden()
    expect(page.get_by_role("button", name="Rate heatmaps")).to_be_focused()


def test_an_answer_that_was_not_stored_is_sent_again(
    open_page: Pages, rated_service: Service, ratings: Path
) -> None:
    page, view = opened(open_page, rated_service)
    codes = {507: "storage-full", 401: "unauthorized", 429: "queue-full"}

    def refuse(status: int) -> None:
        def answer(route: Route) -> None:
            code = codes[status]
            problem = {"type": f"urn:breedcam:error:{code}", "status": status, "detail": code}
            route.fulfill(
                status=status,
                json=problem,
                headers={"Retry-After": "1"},
                content_type="application/problem+json",
            )

        page.route("**/ratings", answer, times=1)

    refuse(507)
    view.get_by_label("Left misses the dog").check()
    view.get_by_role("button", name="Left explains").click()
    expect(view.get_by_role("alert")).to_contain_text("no space left for ratings")
    expect(view.get_by_role("alert")).to_contain_text("not stored yet")
    refuse(401)
    view.get_by_role("button", name="Try again").press("Enter")
    field = view.get_by_label("requires an API key")
    expect(field).to_be_focused()
    refuse(429)
    field.fill("correct-horse-battery-staple")
    field.press("Enter")
    expect(view.get_by_role("alert")).to_contain_text("Trying again in 1 s")
    shown = names(view)
    [row] = of_rater(ratings, page)
    assert [title(spec) for spec in row[1:3]] == shown
    assert row[3:6] == ("first", 1, 0)


@pytest.mark.parametrize("width", [360, pytest.param(1280, marks=pytest.mark.slow)])
def test_the_view_is_accessible(open_page: Pages, rated_service: Service, width: int) -> None:
    """Before an answer and after it, in light and dark."""
    page, view = opened(open_page, rated_service, **screen(width))
    another = page.locator("#another").bounding_box()
    assert another
    assert another["x"] + another["width"] <= width
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    first, second = (canvas.bounding_box() for canvas in view.locator("canvas").all())
    assert first
    assert second
    assert (first["y"] == second["y"]) == (width > 360)
    for name in (re.compile("(Upper|Left) explains"), "Next pair"):
        button = view.get_by_role("button", name=name)
        expect(button).to_be_visible()
        assert violations(page) == []
        assert view.evaluate("view => view.scrollWidth") == width
        assert fits(page, width)
        button.click()


@pytest.mark.slow
def test_without_a_digest_nothing_is_rated(open_page: Pages, rated_service: Service) -> None:
    """As over HTTP beyond localhost."""
    page = open_page(rated_service)
    page.evaluate("Object.defineProperty(crypto, 'subtle', { value: undefined })")
    choose(page, LANDSCAPE)
    page.get_by_role("button", name="Rate heatmaps").click()
    view = page.get_by_role("dialog")
    expect(view.get_by_role("status")).to_contain_text("requires HTTPS or localhost")
    expect(view.get_by_role("button")).to_have_text(["Done"])


def test_it_is_off_by_default(open_page: Pages, service: Service) -> None:
    page = open_page(service)
    choose(page, LANDSCAPE)
    expect(explained(page)).not_to_be_empty()
    expect(page.locator("#rate")).to_be_hidden()
