"""The locked service as a process of its own: logs, early refusals, and proxies before it."""

import http.client
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
from PIL import Image

from tests.app.conftest import encode, picture, problem
from tests.app.services import LONG, Service, serving
from tests.app.test_page import Page
from tests.app.test_process import one_line, start

KEY = "correct-horse-battery-staple"
MARK = "ZQXJKVBW"
"""What is written into photos, and into no log."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("service")
    keys = directory / "keys"
    keys.write_text(f"# ours\n\n  {KEY}  \n")
    with serving(
        directory,
        api_keys_file=keys,
        root_path="/pets",
        trusted_hosts="127.0.0.1",
        log_level="debug",
        max_bytes=1_000_000,
    ) as service:
        yield service


def marked() -> list[bytes]:
    """Photos with the mark in EXIF, comments and text, sound and broken."""
    exif = Image.Exif()
    exif[0x010E] = f"{MARK} in the garden"
    exif[0x0112] = 6
    exif.get_ifd(0x8825)[29] = MARK
    jpeg = encode(picture(), exif=exif, comment=MARK.encode())
    png = encode(picture(), "PNG", exif=exif)
    broken = Image.Exif()
    broken[0x0112] = 6
    malformed = encode(picture(), exif=broken.tobytes() + MARK.encode() * 9)
    sound = [jpeg, png, encode(picture(), "WEBP", exif=exif), malformed]
    return [*sound, *(photo[: len(photo) // 2] for photo in sound), MARK.encode() * 40, b""]


def test_nothing_of_a_photo_or_a_key_is_logged(service: Service) -> None:
    statuses = set()
    with httpx.Client(
        base_url=service.url, timeout=LONG, headers={"Authorization": f"Bearer {KEY}"}
    ) as client:
        for photo in marked():
            raw = client.post("/compare", content=photo, headers={"Content-Type": "image/jpeg"})
            name = f"{MARK}.jpg"
            whole = client.post("/predict", files={"file": (name, photo, "image/jpeg")})
            other = client.post("/predict", files={MARK: (name, photo, f"image/{MARK}")})
            statuses |= {raw.status_code, whole.status_code, other.status_code}
        cut = b"--x\r\nContent-Disposition: form-data; " + MARK.encode()
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        for body in (cut, cut + b"\r\n\r\n" + MARK.encode(), MARK.encode(), b"--x" + MARK.encode()):
            statuses.add(client.post("/predict", content=body, headers=headers).status_code)
        headers = {"Authorization": f"Basic {KEY}", "Content-Type": "image/jpeg"}
        statuses.add(client.post("/predict", content=marked()[0], headers=headers).status_code)
        query = {"target": MARK}
        statuses.add(client.post("/cam", content=marked()[0], params=query).status_code)
    log = service.log.read_text(errors="replace")
    assert {200, 400, 401, 415} <= statuses <= {200, 400, 401, 415, 422}
    assert log.count(" /pets/predict 200 ") >= 4
    assert " 401 " in log
    assert MARK not in log
    assert MARK.encode().hex() not in log.lower()
    assert KEY not in log
    assert "garden" not in log


def test_a_request_without_a_key_is_refused_before_its_body(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=LONG) as plug:
        plug.sendall(
            b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\n"
            b"Content-Length: 900000\r\nExpect: 100-continue\r\n\r\n"
        )
        status = plug.recv(65536).split(b"\r\n")[0]
    assert status.startswith(b"HTTP/1.1 401 ")


def test_another_host_is_refused_and_probes_are_not(service: Service) -> None:
    other = {"Host": "evil.example"}
    problem(httpx.get(f"{service.url}/", headers=other, timeout=LONG), 421, "unknown-host")
    assert httpx.get(f"{service.url}/readyz", headers=other, timeout=LONG).status_code == 200


# -- proxies


@contextmanager
def proxy(service: Service, *, strip: bool) -> Iterator[str]:
    """The address of a reverse proxy that has the service at `/pets/`, and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            if not self.path.startswith("/pets"):
                self.send_error(404)
                return
            path = (self.path.removeprefix("/pets") or "/") if strip else self.path
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            upstream = http.client.HTTPConnection("127.0.0.1", service.port, timeout=LONG)
            headers = {name: value for name, value in self.headers.items() if name != "Connection"}
            headers |= {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
            upstream.request(self.command, path, body, headers)
            answer = upstream.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            upstream.close()

        do_GET = do_POST = forward

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the tests' output is no log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("strip", [True, False], ids=["stripped", "kept"])
def test_everything_holds_behind_a_prefix(service: Service, strip: bool) -> None:
    with (
        proxy(service, strip=strip) as address,
        httpx.Client(timeout=LONG, headers={"Authorization": f"Bearer {KEY}"}) as client,
    ):
        page = client.get(f"{address}/pets/")
        docs = client.get(f"{address}/pets/docs")
        links = [urljoin(str(page.url), link) for link in Page(page.text).links]
        links += [urljoin(str(docs.url), link) for link in Page(docs.text).links]
        specification = re.search(r"url: '(.+?)'", docs.text)
        assert specification
        links.append(urljoin(str(docs.url), specification[1]))
        answers = [client.get(link) for link in links]
        assert {answer.status_code for answer in answers} == {200}
        assert len(answers) >= 8
        # The operations are where the document says.
        document = answers[-1].json()
        [server] = document["servers"]
        root = urljoin(str(answers[-1].url), server["url"])
        assert set(document["paths"]) >= {"/predict", "/model"}
        headers = {"Content-Type": "image/jpeg"}
        answer = client.post(f"{root}/predict", content=encode(picture()), headers=headers)
        assert answer.status_code == 200
        assert client.get(f"{root}/model").status_code == 200
        # The page asks relative to itself, where its links hold.
        assert client.get(urljoin(str(page.url), "model")).status_code == 200
        bare = client.get(f"{address}/pets", follow_redirects=True)
        assert bare.status_code == 200
        if not strip:  # a proxy that strips has to redirect by itself
            assert str(bare.url) == f"{address}/pets/"


# -- starts that fail, in one line


@pytest.mark.parametrize("name", ["api_keys", "api_keys_file"])
def test_keys_that_lock_nothing_end_the_start(tmp_path: Path, name: str) -> None:
    (tmp_path / "keys").write_text(f"{KEY}\nswordfish\n")
    value = {"api_keys": f"{KEY},swordfish", "api_keys_file": "keys"}[name]
    ended = start(tmp_path, **{name: value})
    one_line(ended, f"BREEDCAM_{name.upper()}: key 2 is weak")
    assert "swordfish" not in ended.stderr
    assert KEY not in ended.stderr


def test_the_service_stops_as_ever(service: Service) -> None:
    """After all of the above, in the last test of this file."""
    assert service.stop(signal.SIGTERM) == 0
    assert "Traceback" not in service.log.read_text(errors="replace")
