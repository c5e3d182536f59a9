"""The page in Chromium: what its tests do with it, in the order in which a person would."""

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
from playwright.sync_api import (
    Browser,
    FilePayload,
    Locator,
    Page,
    Request,
    Route,
    expect,
    sync_playwright,
)

from tests import needs
from tests.app.conftest import Answer, encode, picture
from tests.app.services import LONG, Service

__all__ = [
    "LANDSCAPE",
    "NONE",
    "Pages",
    "agree",
    "body",
    "bring",
    "check",
    "choose",
    "compare",
    "drag",
    "explained",
    "hold",
    "idle",
    "launched",
    "percent",
    "settled",
    "transfer",
    "type_box",
    "typed_box",
    "uploads",
]

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
API = httpx.Client(verify=False, timeout=LONG)  # to read certificates for each call takes long
NONE = "\N{EN DASH}"
LANDSCAPE = encode(picture(480, 360))
TITLES = {
    "cam": "CAM",
    "gradcam": "Grad-CAM",
    "gradcampp": "Grad-CAM++",
    "layercam": "LayerCAM",
    "hirescam": "HiResCAM",
}
LAYERS = {"last": "last layer", "last6": "last six layers"}


@contextmanager
def launched() -> Iterator[Browser]:
    """Chromium or Chrome, as the machine has it."""
    path = needs.tool("chromium", "chromium-browser", "google-chrome")
    expect.set_options(timeout=LONG * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class Pages:
    """Opens pages, and remembers every error in their scripts."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._opened: list[Page] = []
        self.errors: list[str] = []

    def __call__(
        self, service: Service, fragment: str = "", *, ready: bool = True, **context: Any
    ) -> Page:
        """The page, once it knows the model."""
        page = self._browser.new_context(**context).new_page()
        page.set_default_timeout(LONG * 1000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(service.url + fragment)
        if ready:
            expect(page.locator("#labels")).not_to_be_empty()
        self._opened.append(page)
        return page

    def close(self) -> None:
        for page in self._opened:
            page.context.close()


def compare(service: Service, photo: bytes, **params: Any) -> Answer:
    response = API.post(f"{service.url}/compare", content=photo, params=params)
    assert response.status_code == 200, response.text[:500]
    answer: Answer = response.json()
    return answer


def choose(page: Page, photo: bytes, name: str = "dog.jpg", media_type: str = "image/jpeg") -> None:
    payload: FilePayload = {"name": name, "mimeType": media_type, "buffer": photo}
    page.set_input_files("#file", payload)


def idle(page: Page) -> None:
    expect(page.locator("main[aria-busy=false]")).to_be_attached()


def settled(page: Page) -> None:
    """What was changed is drawn: two frames later."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def explained(page: Page) -> Locator:
    """The bar of the class that is explained."""
    return page.locator("#breeds [aria-pressed=true] .name")


def hold(page: Page, times: int | None = None) -> list[Route]:
    """Keep requests (the first `times`) from the service: they come into the list."""
    held: list[Route] = []

    def keep(route: Route) -> None:
        held.append(route)

    page.route("**/compare?*", keep, times=times)
    return held


def uploads(page: Page) -> list[Request]:
    """The requests from now on; `body` has what they carry."""
    page.evaluate(
        """() => {
            window.bodies = [];
            const { send } = XMLHttpRequest.prototype;
            XMLHttpRequest.prototype.send = function (body) {
                bodies.push(body);
                return send.call(this, body);
            };
        }"""
    )
    sent: list[Request] = []
    page.on("request", lambda request: sent.append(request))
    return sent


def body(page: Page, number: int = 0) -> bytes:
    """Of the requests since `uploads`: Chromium tells Playwright nothing of it."""
    text = page.evaluate(
        """async (number) => {
            const reader = new FileReader();
            reader.readAsDataURL(bodies[number]);
            await new Promise((done) => { reader.onload = done; });
            return reader.result;
        }""",
        number,
    )
    return base64.b64decode(text.partition(",")[2])


def bring(page: Page, event: str, data: Any) -> None:
    """Drop a DataTransfer on the page, or paste it."""
    if event == "drop":
        page.dispatch_event("body", "drop", {"dataTransfer": data})
    else:
        page.evaluate(
            """transfer => document.body.dispatchEvent(
                new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }))""",
            data,
        )


def transfer(page: Page, *photos: tuple[str, bytes], link: str = "") -> Any:
    """A DataTransfer with these files, or with a link alone."""
    return page.evaluate_handle(
        """([files, link]) => {
            const transfer = new DataTransfer();
            for (const [name, text] of files) {
                const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt());
                transfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
            }
            if (link) transfer.setData("text/uri-list", link);
            return transfer;
        }""",
        [[[name, base64.b64encode(data).decode()] for name, data in photos], link],
    )


def typed_box(page: Page) -> list[str]:
    return [field.input_value() for field in page.locator("#edges input").all()]


def type_box(page: Page, edges: Sequence[object]) -> None:
    fields = page.locator("#edges input")
    for field, value in zip(fields.all(), edges, strict=True):
        field.fill(str(value))
    fields.last.blur()


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """By shares of the photo's width and height."""
    stage = page.locator(".photo").first
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
    settled(page)


def percent(share: float) -> str:
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def check(page: Page, answer: Answer) -> None:
    """The page shows these breeds, and this one explained."""
    idle(page)
    first = answer["predictions"][:6]
    expect(page.locator("#breeds .name")).to_have_text([p["label"] for p in first])
    expect(page.locator("#breeds .share")).to_have_text([percent(p["probability"]) for p in first])
    expect(explained(page)).to_have_text(answer["target"]["label"])


def agree(page: Page, *panels: Answer, scale: float = 1.0) -> None:
    """The stage shows these explanations of the API: their boxes, peaks and figures.

    Args:
        page: the page.
        panels: one, or two that are compared.
        scale: pixels of the original for one of the photo that the API saw.
    """
    settled(page)
    rows = page.locator("#figures tbody tr:visible")
    layers = [
        LAYERS["last6" if len(panel["explanation"]["layers"]) > 1 else "last"] for panel in panels
    ]
    methods = [TITLES[panel["explanation"]["method"]] for panel in panels]
    expect(rows.locator("th")).to_have_text(
        [", ".join(pair) for pair in zip(methods, layers, strict=True)]
    )
    located = [panel["localization"] for panel in panels]
    expect(rows.locator(".iou")).to_have_text(
        [f"{figures['iou']:.3f}" if figures else NONE for figures in located]
    )
    expect(rows.locator(".energy")).to_have_text(
        [percent(figures["energy_in_box"]) if figures else NONE for figures in located]
    )
    peaks = {None: NONE, True: "yes", False: "no"}
    expect(rows.locator(".peaks")).to_have_text(
        [peaks[figures and figures["peak_in_box"]] for figures in located]
    )
    for panel, text in zip(panels, described(page), strict=False):
        box = ", ".join(f"{round(scale * edge + 1e-9)}" for edge in panel["explanation"]["box"])
        assert text.endswith(f"box {box}"), (text, box)


def described(page: Page) -> list[str]:
    canvases = page.locator(".photo canvas:visible").all()
    return [canvas.get_attribute("aria-label") or "" for canvas in canvases]
