"""Requests as people type them: each common client sends the photo, and gets the answer."""

import base64
import json
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests

from tests import needs
from tests.app.chromium import Pages
from tests.app.conftest import JPEG, Answer, untimed
from tests.app.services import LONG, Service

Send = Callable[[str, Path], Answer]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(JPEG)
    return path


@pytest.fixture(scope="module")
def expected(plain_service: Service) -> Answer:
    headers = {"Content-Type": "image/jpeg"}
    url = f"{plain_service.url}/predict"
    return untimed(httpx.post(url, content=JPEG, headers=headers, timeout=LONG).json())


def curl(*options: str) -> Send:
    def send(url: str, photo: Path) -> Answer:
        words = [option.replace("photo.jpg", str(photo)) for option in options]
        with photo.open("rb") as source:
            done = subprocess.run(
                [needs.tool("curl"), "-sS", *words, url],
                stdin=source,
                capture_output=True,
                check=True,
                timeout=LONG,
            )
        answer: Answer = json.loads(done.stdout)
        return answer

    return send


def with_requests(**options: Callable[[Path], Any]) -> Send:
    def send(url: str, photo: Path) -> Answer:
        made = {name: make(photo) for name, make in options.items()}
        answer: Answer = requests.post(url, timeout=LONG, **made).json()
        for value in made.values():
            if hasattr(value, "close"):
                value.close()
        return answer

    return send


def with_httpx(method: str = "POST", **options: Callable[[Path], Any]) -> Send:
    def send(url: str, photo: Path) -> Answer:
        made = {name: make(photo) for name, make in options.items()}
        answer: Answer = httpx.request(method, url, timeout=LONG, **made).json()
        return answer

    return send


def with_urllib(method: str) -> Send:
    def send(url: str, photo: Path) -> Answer:
        request = urllib.request.Request(url, photo.read_bytes(), method=method)
        with urllib.request.urlopen(request, timeout=LONG) as response:
            answer: Answer = json.load(response)
        return answer

    return send


def chunks(photo: Path) -> Iterator[bytes]:
    data = photo.read_bytes()
    yield data[:1000]
    yield data[1000:]


CLIENTS = {
    "curl -T": curl("-T", "photo.jpg"),
    "curl -T, from a pipe": curl("-T", "-"),  # chunked
    "curl -X POST -T": curl("-X", "POST", "-T", "photo.jpg"),
    "curl --data-binary": curl("--data-binary", "@photo.jpg"),
    "curl -F": curl("-F", "file=@photo.jpg"),
    "curl -X PUT -F": curl("-X", "PUT", "-F", "file=@photo.jpg"),
    "requests, bytes": with_requests(data=Path.read_bytes),
    "requests, an open file": with_requests(data=lambda photo: photo.open("rb")),
    "requests, a generator": with_requests(data=chunks),
    "requests, files": with_requests(files=lambda photo: {"file": photo.read_bytes()}),
    "httpx, content": with_httpx(content=Path.read_bytes),
    "httpx, a generator": with_httpx(content=chunks),
    "httpx, files": with_httpx(files=lambda photo: {"file": photo.read_bytes()}),
    "httpx, PUT": with_httpx("PUT", content=Path.read_bytes),
    "urllib, POST": with_urllib("POST"),  # as application/x-www-form-urlencoded
    "urllib, PUT": with_urllib("PUT"),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_clients_are_answered(
    plain_service: Service, expected: Answer, photo: Path, name: str
) -> None:
    assert untimed(CLIENTS[name](f"{plain_service.url}/predict", photo)) == expected


FETCH = """async (photo) => {
    const bytes = Uint8Array.from(atob(photo), (character) => character.charCodeAt(0));
    const form = new FormData();
    form.append("file", new Blob([bytes]));
    const bodies = {
        bytes, form,
        blob: new Blob([bytes]),
        typed: new Blob([bytes], {type: "image/jpeg"}),
        file: new File([bytes], "photo.jpg", {type: "image/jpeg"}),
        untyped: new File([bytes], "photo"),
    };
    const answers = {};
    for (const method of ["POST", "PUT"])
        for (const [name, body] of Object.entries(bodies)) {
            const response = await fetch("predict", {method, body});
            answers[`${method} ${name}`] = await response.json();
        }
    return answers;
}"""


def test_fetch_is_answered(service: Service, expected: Answer, open_page: Pages) -> None:
    page = open_page(service, ready=False)
    answers = page.evaluate(FETCH, base64.b64encode(JPEG).decode())
    assert len(answers) == 12
    assert {name: untimed(answer) for name, answer in answers.items()} == dict.fromkeys(
        answers, expected
    )
