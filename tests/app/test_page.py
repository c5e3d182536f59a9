"""The page's files as they are served; tests/app/test_page_in_browser.py uses them."""

import re
from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx
import pytest

from app.bundle import DEFAULT_THRESHOLD, Method
from app.settings import MAX_OVERLAY_SIZE, PROJECT
from tests.app.conftest import problem

pytestmark = pytest.mark.anyio

STATIC = PROJECT / "app" / "static"
FILES = sorted(path.name for path in STATIC.iterdir())
MOST_BYTES = 150_000

TYPES = {
    "css": {"text/css"},
    "js": {"text/javascript", "application/javascript"},
    "svg": {"image/svg+xml"},
}


class Page(HTMLParser):
    """What the page links to, what it runs and styles inline, and what can be chosen."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.inline: list[str] = []
        self.open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open = tag
        for name, value in attrs:
            if name in ("src", "href", "action", "srcset", "poster"):
                self.links.append(value or "")
            if name == "style" or name.startswith("on"):
                self.inline.append(f"{tag} {name}")

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        if self.open in ("script", "style") and data.strip():
            self.inline.append(self.open)


async def test_the_page_may_use_nothing_but_what_comes_with_it(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(
        rule.strip().split(" ", 1) for rule in page.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'self'"
    assert policy["img-src"] == "'self' blob: data:"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in page.headers["content-security-policy"]
    assert Page(page.text).inline == []


async def test_every_file_is_here_and_of_the_right_type(client: httpx.AsyncClient) -> None:
    prefix = "http://test/"
    to_read = [urljoin(prefix, link) for link in Page((await client.get("/")).text).links]
    read: set[str] = set()
    while to_read:
        address = to_read.pop()
        assert address.startswith(prefix)
        if address in read or address == f"{prefix}docs":
            continue
        read.add(address)
        answer = await client.get(address)
        assert answer.status_code == 200, address
        kind = answer.headers["content-type"].partition(";")[0]
        assert kind in TYPES[address.rpartition(".")[2]]
        assert answer.headers["x-content-type-options"] == "nosniff"
        imported = re.findall(r'from "(.+?)"|\burl\((.+?)\)', answer.text)
        to_read += [urljoin(address, "".join(groups)) for groups in imported]
    names = {address.removeprefix(f"{prefix}static/") for address in read}
    assert names == {*FILES} - {"index.html"}


async def test_all_files_together_are_small(client: httpx.AsyncClient) -> None:
    answers = [await client.get(f"/static/{name}") for name in FILES]
    assert sum(len(answer.content) for answer in answers) < MOST_BYTES


@pytest.mark.parametrize(
    "path", ["/", *(f"/static/{name}" for name in FILES if ".svg" not in name)]
)
async def test_no_file_names_another_host(client: httpx.AsyncClient, path: str) -> None:
    text = (await client.get(path)).text
    assert not re.search(r"https?://|[\"'(]//|import\(|\beval\(|innerHTML", text)


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/static/style.css"])
async def test_a_file_that_is_known_already_is_not_sent_again(
    client: httpx.AsyncClient, path: str
) -> None:
    first, head = await client.get(path), await client.head(path)
    assert head.status_code == 200
    assert head.content == b""
    assert {**head.headers, "x-request-id": ""} == {**first.headers, "x-request-id": ""}
    assert first.headers["cache-control"] == "no-cache"
    again = await client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""
    other = await client.get(path, headers={"If-None-Match": '"another"'})
    assert other.content == first.content


async def test_without_scripts_no_link_leads_to_docs_that_may_be_off(
    client: httpx.AsyncClient,
) -> None:
    """The script shows the only one where they are on."""
    text = (await client.get("/")).text
    assert Page(text).links.count("docs") == 1
    assert '<a id="docs" href="docs" hidden>' in text


async def test_there_is_nothing_else(client: httpx.AsyncClient) -> None:
    problem(await client.get("/static/nothing.js"), 404, "not-found")
    problem(await client.get("/static/"), 404, "not-found")
    problem(await client.get("/static/%2e%2e/main.py"), 404, "not-found")
    problem(await client.post("/"), 405, "method-not-allowed")


async def test_the_page_knows_what_the_service_has(client: httpx.AsyncClient) -> None:
    """What its scripts repeat of the service's own numbers and names."""
    evidence = (await client.get("/static/evidence.js")).text
    methods = re.search(r"TITLES = {(.*?)}", evidence, re.S)
    assert methods
    assert re.findall(r"(\w+):", methods[1]) == list(Method)
    assert f"DEFAULT_THRESHOLD = {DEFAULT_THRESHOLD};" in evidence
    picture = re.search(r"PICTURE = (\d+);", (await client.get("/static/app.js")).text)
    assert picture
    assert int(picture[1]) == MAX_OVERLAY_SIZE
