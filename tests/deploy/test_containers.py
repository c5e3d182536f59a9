"""The image, built and run by a container engine with the limits of docker-compose.yml.

`make container-check` runs these, and provides the engine as root on Debian.
"""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app import bundle as bundles
from app.settings import Settings
from tests import drawing
from tests.app.attacks import flat_png
from tests.app.services import LONG
from tests.deploy import engine
from tests.deploy.engine import Container, docker
from training.export import terms

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PHOTO = drawing.DRAWING.read_bytes()
UID = "10001"


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    engine.needed()
    with engine.base(), engine.built("cpu") as image:
        yield image


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[Container]:
    """Without /dev/shm: the service needs none."""
    with engine.run("--ipc", "none", "--health-interval", "1s") as container:
        yield container


def post(container: Container, path: str, photo: bytes = PHOTO) -> httpx.Response:
    headers = {"Content-Type": "application/octet-stream"}
    url = f"{container.url}{path}"
    return httpx.post(url, content=photo, headers=headers, timeout=2 * LONG)


def size_mb(image: str) -> float:
    return int(docker("image", "inspect", "--format", "{{.Size}}", image)) / 1e6


def test_the_image_adds_little_to_its_base(image: str) -> None:
    """docs/containers.md has the figure, and the public base's 125 MB with it."""
    assert size_mb(image) - size_mb(engine.BASE) < 520


def test_the_image_says_what_it_is_and_has_the_repositorys_models_only(image: str) -> None:
    labels = docker("image", "inspect", "--format", "{{json .Config.Labels}}", image)
    assert terms.IMAGENET in labels

    default = Path(Settings.model_fields["model"].default).name
    models = docker("run", "--rm", image, "ls", "models").split()
    assert models == [default, f"{default}-lite"]


def test_the_probe_finds_it_healthy(container: Container) -> None:
    container.wait_until_healthy()


def test_it_runs_without_privileges(container: Container) -> None:
    status = "cat /proc/$(cat /proc/1/task/1/children | tr -d ' ')/status"
    main = container.execute("sh", "-c", status)
    fields = dict(line.split(":\t", 1) for line in main.splitlines())

    assert fields["Uid"].split() == [UID] * 4
    assert fields["Gid"].split() == [UID] * 4
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"


def test_a_photo_is_explained_and_a_bad_one_refused(container: Container) -> None:
    answer = post(container, "/gradcam?box=95,20,375,360")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    # A drawing: the likeliest breed depends on the arithmetic.
    assert "west highland white terrier" in {each["label"] for each in body["predictions"]}
    assert body["localization"]["iou"] > 0.5

    refused = post(container, "/gradcam", PHOTO[:300])
    assert refused.status_code == 422, refused.text
    assert post(container, "/gradcam", b"no image").status_code == 415


def test_nothing_is_written_but_to_tmp(container: Container) -> None:
    post(container, "/compare")

    for directory in ("/srv/breedcam", "/opt/venv", "/var/tmp"):
        with pytest.raises(subprocess.CalledProcessError):
            container.execute("touch", f"{directory}/file")
    assert container.execute("ls", "-A", "/tmp") == ""


def test_a_crash_restarts_it(image: str) -> None:
    with engine.run() as container:
        began = container.state["StartedAt"]
        container.execute("sh", "-c", "kill -KILL $(cat /proc/1/task/1/children)")
        container.wait_for_restart()
        container.wait_until_ready()

        assert container.state["StartedAt"] > began
        assert post(container, "/predict").status_code == 200


def test_a_stop_under_load_answers_what_it_has_accepted(image: str) -> None:
    clients = 8
    with engine.run("--env", "BREEDCAM_READ_TIMEOUT_S=60") as container:
        halves = [_half_sent(container) for _ in range(clients)]
        until = time.monotonic() + LONG
        # /metrics itself is one more.
        while container.metric("breedcam_requests_in_progress") <= clients:
            assert time.monotonic() < until
        busy = threading.Event()
        load = [threading.Thread(target=_load, args=(container, busy)) for _ in range(4)]
        for thread in load:
            thread.start()
        assert busy.wait(LONG)

        stop = threading.Thread(target=docker, args=("stop", container.name))
        stop.start()
        _wait_until_closed(container)
        answers = [_finish(client) for client in halves]
        for thread in (stop, *load):
            thread.join(LONG)

        assert [answer.split(b"\r\n", 1)[0] for answer in answers] == [b"HTTP/1.1 200 OK"] * clients
        assert all(b'"predictions"' in answer for answer in answers)
        state = container.state
        assert (state["Status"], state["ExitCode"]) == ("exited", 0), docker("logs", container.name)


def _half_sent(container: Container) -> socket.socket:
    """A connection whose request lacks the second half of its photo."""
    client = socket.create_connection(("127.0.0.1", container.port), LONG)
    head = (
        "POST /predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: image/jpeg\r\nContent-Length: {len(PHOTO)}\r\n\r\n"
    )
    client.sendall(head.encode() + PHOTO[: len(PHOTO) // 2])
    return client


def _finish(client: socket.socket) -> bytes:
    """Send the rest; the whole answer."""
    with client:
        client.sendall(PHOTO[len(PHOTO) // 2 :])
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


def _load(container: Container, busy: threading.Event) -> None:
    """Photos, until the service takes no more."""
    try:
        while post(container, "/gradcam").status_code == 200:
            busy.set()
    except httpx.TransportError:
        pass


def _wait_until_closed(container: Container) -> None:
    until = time.monotonic() + LONG
    while time.monotonic() < until:
        try:
            httpx.get(f"{container.url}/livez", timeout=LONG)
        except httpx.TransportError:
            return
        time.sleep(0.02)
    raise AssertionError("it takes requests after SIGTERM")


def test_a_model_of_ones_own_comes_by_volume(image: str, tmp_path: Path) -> None:
    """As in docker-compose.yml: ./models is /models."""
    shipped = bundles.find_version(Settings().model_path)
    version = tmp_path / "models" / "mine" / "7"
    shutil.copytree(shipped, version)
    card = version / "assets.extra" / "model.json"
    text = card.read_text(encoding="utf-8")
    text = text.replace(f'"name": "{shipped.parent.name}"', '"name": "mine"', 1)
    text = text.replace(f'"version": {shipped.name}', '"version": 7', 1)
    card.write_text(text, encoding="utf-8")
    mount = f"{tmp_path / 'models'}:/models:ro"

    with engine.run("--volume", mount, "--env", "BREEDCAM_MODEL=/models/mine") as container:
        model = httpx.get(f"{container.url}/model", timeout=LONG).json()
        assert model["name"] == "mine"
        assert post(container, "/gradcam").status_code == 200


def test_a_photo_that_exceeds_the_memory_costs_its_decoder_only(image: str) -> None:
    with engine.run() as container:
        limit = str(_anonymous_bytes(container) + 100_000_000)
        docker("update", "--memory", limit, "--memory-swap", limit, container.name)
        before = container.state

        refused = post(container, "/gradcam", flat_png(7000, 7000))  # 196 MB as RGBA

        assert refused.status_code == 503, refused.text
        assert refused.json()["type"] == "urn:breedcam:error:not-ready"
        assert container.metric("breedcam_decoders_ended_total") == 2
        assert post(container, "/gradcam").status_code == 200
        after = container.state
        assert (after["Pid"], after["StartedAt"]) == (before["Pid"], before["StartedAt"])


def _anonymous_bytes(container: Container) -> int:
    """Memory of all its processes that only swap could free."""
    lines = container.execute("sh", "-c", "cat /proc/[0-9]*/status").splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
