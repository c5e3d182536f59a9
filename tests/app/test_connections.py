"""Clients that do what they should not, and the answers that they get, over sockets."""

import http.client
import json
import re
import select
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from PIL import Image

from app.connections import UNSENT_BYTES, _Transport
from app.edge import STALLED_S
from app.pace import MIN_RATE
from tests import needs
from tests.app.attacks import (
    HEAD,
    exchange,
    flood,
    hung_up,
    long_header,
    many_fields,
    plug,
    receive,
    send,
    slow_readers,
    status,
    upload,
)
from tests.app.conftest import JPEG, encode
from tests.app.contention import Contention
from tests.app.exposition import Scrape
from tests.app.services import LONG, Service, serving

HEADER_S = 1.0
"""`header_timeout_s`."""

TRANSFER_S = 2.5
"""`read_timeout_s` and `write_timeout_s`."""

CONNECTIONS = 24

ROOM = 30_000_000
"""`max_pending_bytes`."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service with little patience."""
    with serving(
        tmp_path_factory.mktemp("service"),
        header_timeout_s=HEADER_S,
        read_timeout_s=TRANSFER_S,
        write_timeout_s=TRANSFER_S,
        max_connections=CONNECTIONS,
        max_pending_bytes=ROOM,
    ) as service:
        # What is compiled and loaded at the first use is not an attack's.
        photo = encode(Image.new("RGB", (64, 64)))
        httpx.post(f"{service.url}/compare", content=photo, headers=JPEG_TYPE, timeout=LONG)
        yield service


JPEG_TYPE = {"Content-Type": "image/jpeg"}


def answer_to(client: socket.socket, data: bytes = b"") -> http.client.HTTPResponse:
    """One answer, its body read; the connection stays open."""
    client.sendall(data)
    response = http.client.HTTPResponse(client)
    response.begin()
    response.read()
    return response


class Visitor:
    """Somebody with an ordinary photo, again and again, while others do bad things."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._over = threading.Event()
        self.statuses: Counter[int] = Counter()
        self.visits_s: list[float] = []
        self.probes_s: list[float] = []

    def _visit(self) -> None:
        with httpx.Client(base_url=self._service.url, timeout=LONG) as client:
            while not self._over.wait(0.05):
                begun = time.monotonic()
                answer = client.post("/predict", content=JPEG, headers=JPEG_TYPE)
                self.statuses[answer.status_code] += 1
                between = time.monotonic()
                assert client.get("/livez").status_code == 200
                self.visits_s.append(between - begun)
                self.probes_s.append(time.monotonic() - between)

    @contextmanager
    def visiting(self) -> Iterator[None]:
        thread = threading.Thread(target=self._visit)
        thread.start()
        time.sleep(0.3)
        try:
            yield
        finally:
            self._over.set()
            thread.join()


@contextmanager
def unharmed(service: Service, peak_mb: float, *, full: bool = False) -> Iterator[None]:
    """An attack during which others are answered, and memory grows by at most so much."""
    before = service.forget_peak()
    visitor = Visitor(service)
    with visitor.visiting(), Contention(service) as contention:
        yield
    assert visitor.statuses[200] >= 1
    assert set(visitor.statuses) <= ({200, 429} if full else {200})
    assert visitor.statuses[200] > visitor.statuses[429]
    assert np.quantile(visitor.visits_s, 0.95) < 4.0 * contention.slowness
    assert np.quantile(visitor.probes_s, 0.95) < 1.5 * contention.slowness
    assert service.peak_mb() - before < peak_mb
    assert "Traceback" not in service.log.read_text()


# -- what is no HTTP


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"POST /predict HTTP/1.1\r\nContent-Length: x\r\n" + HEAD + b"\r\n", 400),
        (b"POST /predict HTTP/1.1\r\nContent-Length: -1\r\n" + HEAD + b"\r\n", 400),
        (
            b"POST /predict HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n"
            + HEAD
            + b"\r\n",
            400,
        ),
        (
            b"POST /predict HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"
            + HEAD
            + b"\r\n0\r\n\r\n",
            400,
        ),
        (b"POST /predict HTTP/1.1\r\nTransfer-Encoding: gzip\r\n" + HEAD + b"\r\n", 501),
        (
            b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HEAD + b"\r\nzz\r\n",
            400,
        ),
        (
            b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HEAD + b"\r\n2\r\nabcd",
            400,
        ),
        (
            b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
            + HEAD
            + b"\r\n"
            + b"1\r\nx\r\n" * 9000,
            400,
        ),
        (b"GET /livez HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"Host: x\r\n\r\n", 431),
        (b"GET /livez?" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    ],
)
def test_what_is_no_request_is_a_problem(service: Service, data: bytes, expected: int) -> None:
    answer = exchange(service, data)
    assert status(answer) == expected
    assert b"connection: close" in answer.lower()
    assert b"bytearray" not in answer


def test_tls_is_told_that_this_is_plain_http(service: Service) -> None:
    with plug(service) as client, pytest.raises(ssl.SSLError):
        ssl.create_default_context().wrap_socket(client, server_hostname="localhost")
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    answer = exchange(service, hello)
    assert status(answer) == 400
    assert b"the service speaks plain HTTP here" in answer
    # Clients of TLS do not show what was answered.
    assert service.log.read_text().count("the service speaks plain HTTP here") >= 2


def test_a_large_header_within_the_limit(service: Service) -> None:
    head = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    fields = b"".join(b"A%d: %s\r\n" % (index, b"b" * 300) for index in range(90))
    assert status(exchange(service, head + fields + b"\r\n")) == 200


def test_requests_in_a_row_are_answered_in_a_row(service: Service) -> None:
    """Those behind `Connection: close` are ignored, as they have to be."""
    close = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answers = exchange(service, upload("/predict", JPEG) * 3 + close + close)
    assert [int(code) for code in re.findall(rb"HTTP/1.1 (\d+)", answers)] == [200] * 4
    assert answers.count(b'"predictions"') == 3


def test_the_rest_of_a_small_body_is_read_for_the_connection(service: Service) -> None:
    with plug(service) as client:
        early = answer_to(client, upload("/nowhere", JPEG[:1], len(JPEG)))
        assert early.status == 404
        assert not early.will_close
        assert answer_to(client, JPEG[1:] + upload("/predict", JPEG)).status == 200


def test_an_answers_header_leaves_with_its_body() -> None:
    written: list[bytes] = []
    transport = _Transport(SimpleNamespace(write=written.append), lambda: None)  # type: ignore[arg-type]
    transport.holding = True
    transport.write(b"head")
    transport.holding = False
    transport.write(b"body")
    transport.write(b"more")
    assert written == [b"headbody", b"more"]


def test_a_large_body_is_not_copied_for_its_header() -> None:
    written: list[bytes] = []
    transport = _Transport(SimpleNamespace(write=written.append), lambda: None)  # type: ignore[arg-type]
    body = bytes(UNSENT_BYTES + 1)
    transport.holding = True
    transport.write(b"head")
    transport.holding = False
    transport.write(body)
    assert written == [b"head", body]
    assert written[1] is body


def test_a_body_is_asked_for(service: Service) -> None:
    head = upload("/predict", b"", len(JPEG)).replace(b"Host", b"Expect: 100-continue\r\nHost")
    with plug(service) as client:
        client.sendall(head)
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert answer_to(client, JPEG).status == 200


# -- a wish for HTTP/2


def test_an_upgrade_is_ignored(service: Service) -> None:
    """As Java's client asks for it, with a body in the same packet and later."""
    wish = (
        b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQ\r\n"
        b"Upgrade: h2c\r\nHost"
    )
    request = upload("/predict", JPEG).replace(b"Host", wish)
    with plug(service) as client:
        for cut in (len(request), len(request) - len(JPEG), len(request) - 100):
            client.sendall(request[:cut])
            time.sleep(0.05)
            assert answer_to(client, request[cut:]).status == 200


def test_curl_that_wishes_for_http2(service: Service) -> None:
    curl = shutil.which("curl") or needs.absent("curl")
    done = subprocess.run(
        [curl, "-sS", "--http2", "-F", "file=@-;filename=a.jpg", f"{service.url}/predict"],
        input=JPEG,
        capture_output=True,
        timeout=LONG,
        check=True,
    )
    assert len(json.loads(done.stdout)["predictions"]) == 5


# -- answers that come early

EARLY = [
    ("/predict", "image/jpeg", 413),
    ("/predict", "application/json", 415),
    ("/nowhere", "image/jpeg", 404),
    ("/livez", "image/jpeg", 405),
    ("/predict?top_k=0", "image/jpeg", 400),
]
LARGE = bytes(60_000_000)


@pytest.mark.parametrize(("path", "content_type", "expected"), EARLY)
def test_clients_that_send_all_first_get_an_early_answer(
    service: Service, path: str, content_type: str, expected: int
) -> None:
    headers = {"Content-Type": content_type}
    plain = http.client.HTTPConnection("127.0.0.1", service.port, timeout=LONG)
    plain.request("POST", path, LARGE, headers)
    response = plain.getresponse()
    assert response.status == expected
    assert json.loads(response.read())["status"] == expected
    plain.close()

    request = urllib.request.Request(f"{service.url}{path}", LARGE, headers)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=LONG)
    with caught.value:
        assert json.loads(caught.value.read())["status"] == expected

    answer = httpx.post(f"{service.url}{path}", content=LARGE, headers=headers, timeout=LONG)
    assert answer.json()["status"] == answer.status_code == expected


def test_a_body_without_end_is_not_read_for_ever(service: Service) -> None:
    with plug(service) as client:
        client.sendall(b"POST /nowhere HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HEAD + b"\r\n")
        chunk = b"100000\r\n" + bytes(0x100000) + b"\r\n"
        sent = 0
        while send(client, chunk):
            sent += len(chunk)
            assert sent < 500_000_000


# -- slow clients


def test_a_header_has_to_arrive(service: Service) -> None:
    """One that trickles is answered 408; one of which nothing comes is closed.

    Both before a body that has been due for `TRANSFER_S`.
    """
    begun = time.monotonic()
    with plug(service) as silent, plug(service) as slow, plug(service) as later:
        later.sendall(upload("/predict", b"", len(JPEG)))
        for byte in b"GET /livez HTTP/1.1":
            send(slow, bytes([byte]))
            time.sleep(0.1)
        assert status(receive(later)) == 408
        assert len(select.select([silent, slow], [], [], 0)[0]) == 2
        assert status(receive(slow)) == 408
        assert receive(silent) == b""
    assert HEADER_S < TRANSFER_S <= time.monotonic() - begun


def test_a_body_has_to_arrive(service: Service) -> None:
    """One that keeps up outlasts two that have come later and do not."""
    body, step = JPEG + bytes(4_000_000), 20_000
    assert step > MIN_RATE * TRANSFER_S  # each step is enough for a period
    head = upload("/predict", b"", len(body)).replace(b"Host", b"Connection: close\r\nHost")
    with plug(service) as steady, plug(service) as stopped, plug(service) as slow:
        steady.sendall(head)
        stopped.sendall(upload("/predict", JPEG[:100], len(JPEG)))
        slow.sendall(upload("/predict", b"", len(JPEG)))
        sent, open_clients = 0, {stopped, slow}
        while open_clients:
            assert sent + step < len(body)
            steady.sendall(body[sent : sent + step])
            sent += step
            if slow in open_clients:
                send(slow, b"\0")
            time.sleep(0.1)
            open_clients -= set(select.select(list(open_clients), [], [], 0)[0])
        steady.sendall(body[sent:])
        assert [status(receive(client)) for client in (stopped, slow, steady)] == [408, 408, 200]


def test_a_connection_between_requests_is_closed(service: Service) -> None:
    """After a request that has come late, too: the deadline is another than the header's."""
    with plug(service) as client:
        assert answer_to(client, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").status == 200
        time.sleep(2 * HEADER_S)  # less than `keep_alive_s`
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n")
        assert status(receive(client)) == 408


# -- attacks


def test_a_header_flood(service: Service) -> None:
    with unharmed(service, 20):
        assert status(long_header(service, 100_000_000)) == 431
        assert status(many_fields(service, 200_000_000)) == 431


def test_a_flood_of_connections(service: Service) -> None:
    """Those that do nothing make way for those that do; clients at work go on."""
    with unharmed(service, 20):
        until = time.monotonic() + LONG
        answers = flood(service, 3 * CONNECTIONS)
        assert answers[503] >= CONNECTIONS
        # They are gone: at once where another needs the place, else by the header's deadline.
        while httpx.get(f"{service.url}/livez").status_code != 200:
            assert time.monotonic() < until


@pytest.mark.slow
def test_clients_that_do_not_take_their_answers(service: Service) -> None:
    """Of all that they asked for, no more is kept than there is room for."""
    with unharmed(service, ROOM / 1e6 + 90, full=True):
        ends = slow_readers(service, 12, "/gradcam?size=1024&overlay=true", 1.5 * TRANSFER_S)
    assert ends["cut off"] >= 10
    assert wait_for_room(service) == 1  # nothing of it is held any more


def test_uploads_whose_clients_hang_up(service: Service) -> None:
    with unharmed(service, ROOM / 1e6 + 60, full=True):
        hung_up(service, 40, 10_000_000)
    wait_for_room(service)


def wait_for_room(service: Service) -> int:
    """How many tries it takes until a body of nearly 20 MB is taken."""
    filling = JPEG + bytes(19_900_000)
    until = time.monotonic() + LONG
    tries = 1
    while httpx.post(
        f"{service.url}/predict", content=filling, headers=JPEG_TYPE, timeout=LONG
    ).is_error:
        assert time.monotonic() < until
        tries += 1
    return tries


def wait_for_bytes(service: Service, count: int) -> None:
    """Until the service holds so many."""
    until = time.monotonic() + LONG
    held = 0.0
    while held < count:
        assert time.monotonic() < until
        scrape = Scrape(httpx.get(f"{service.url}/metrics", timeout=LONG).text)
        held = scrape.value("breedcam_held_bytes")


@pytest.mark.slow
def test_uploads_that_stop(service: Service) -> None:
    """They fill the memory; the one that has kept the most for longest makes way."""
    part = upload("/predict", bytes(9_000_000), 10_000_000)
    with ExitStack() as stack, unharmed(service, ROOM / 1e6 + 60, full=True):
        stopped = []
        waiting: set[socket.socket] = set()
        for index in range(8):
            if index in (3, 6):  # three fit in, and may be ended when they have stalled
                time.sleep(1.1 * STALLED_S)
            client = stack.enter_context(plug(service))
            stopped.append(client)
            waiting.add(client)
            send(client, part)
            if index == 2:
                wait_for_bytes(service, 27_000_000)
            elif index > 2:  # somebody makes way for it, or it is refused
                waiting -= set(select.select(list(waiting), [], [], LONG)[0])
        assert "the memory is needed" in service.log.read_text()
        assert status(receive(stopped[0])) == 408
        ends = Counter(status(receive(client)) for client in stopped[1:])
    assert set(ends) <= {408, 429}
    assert ends[408] >= 5
    wait_for_room(service)


# -- the same at full size, with the default limits


@pytest.fixture(scope="module")
def default_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("service"), max_batch=8, log_level="warning") as service:
        photo = encode(Image.new("RGB", (64, 64)))
        with ExitStack() as stack:
            for _ in range(8):
                client = stack.enter_context(plug(service))
                client.sendall(upload("/compare", photo))
        yield service


PEAK_MB = 1500
"""Resident memory at the default limits, whatever the attack."""


@pytest.mark.slow
def test_hung_up_uploads_of_the_largest_size(default_service: Service) -> None:
    default_service.forget_peak()
    hung_up(default_service, 100, 20_000_000)
    wait_for_room(default_service)
    assert default_service.peak_mb() < PEAK_MB


@pytest.mark.slow
def test_a_hundred_and_fifty_slow_readers(default_service: Service) -> None:
    default_service.forget_peak()
    ends = slow_readers(default_service, 150, "/compare?size=1024", 1.5 * TRANSFER_S)
    assert ends["cut off"] >= 50
    wait_for_room(default_service)
    assert default_service.peak_mb() < PEAK_MB


@pytest.mark.slow
def test_slow_headers_on_every_connection(default_service: Service) -> None:
    """Whoever comes with a request gets in, as soon as the others have waited for a second."""
    with ExitStack() as stack:
        for _ in range(600):
            client = stack.enter_context(plug(default_service))
            send(client, b"GET / HTTP/1.1\r\nHost: x\r\n")
        time.sleep(2 * STALLED_S)
        with unharmed(default_service, 30):
            time.sleep(5)
