"""Serve with what requirements/serve.txt brings, ask a little, stop; needs no other package.

Run it with the Python under test:

    .venv/bin/python .ci/smoke.py
"""

import base64
import http.client
import importlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
ABSENT = ("tensorflow", "keras")
PATIENCE_S = 120.0
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def main() -> None:
    """Check the whole; the first thing that is wrong ends it with status 1."""
    for module in ABSENT:
        check(not importable(module), f"{module} can be imported here")
    port = free_port()
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        server = start(port, log.fileno())
        try:
            began = time.monotonic()
            wait_until_ready(server, port)
            print(f"ready after {time.monotonic() - began:.1f} s")
            ask_predict(port)
            ask_gradcam(port)
            status = stop(server)
        except BaseException:
            server.kill()
            server.wait()
            print(messages(log), file=sys.stderr)
            raise
        said = messages(log)
        modules = imported(log)
    check(status == 0, f"SIGTERM ended the server with status {status}:\n{said}")
    check("app.main" in modules or "app.explainer" in modules, "the import log is empty")
    strangers = [name for name in modules if name.partition(".")[0] in ABSENT]
    check(not strangers, f"serving imported {strangers[:3]}")
    print(f"stopped with status 0; {len(modules)} modules imported, none of {', '.join(ABSENT)}")


def check(holds: bool, otherwise: str) -> None:
    """End here unless `holds`."""
    if not holds:
        sys.exit(f"smoke: {otherwise}")


def importable(module: str) -> bool:
    """Whether `import module` works in this Python."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError:
        return False
    return True


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(port: int, log: int) -> subprocess.Popen[bytes]:
    """The service as a child, its log and its imports written to the descriptor `log`."""
    return subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "app.main"],
        cwd=PROJECT,
        env=os.environ | {"BREEDCAM_HOST": "127.0.0.1", "BREEDCAM_PORT": str(port)},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )


def wait_until_ready(server: subprocess.Popen[bytes], port: int) -> None:
    """Return once `/readyz` answers 200."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        check(server.poll() is None, f"the server ended by itself with {server.returncode}")
        try:
            if request(port, "GET", "/readyz")[0] == 200:
                return
        except ConnectionError:
            pass
        time.sleep(0.1)
    check(False, f"not ready within {PATIENCE_S:.0f} s")


def ask_predict(port: int) -> None:
    """A picture gets predictions, likeliest first."""
    status, body = request(port, "POST", "/predict?top_k=3", picture(96, 64))
    check(status == 200, f"/predict answered {status}: {body!r}")
    answer: dict[str, Any] = json.loads(body)
    shares = [prediction["probability"] for prediction in answer["predictions"]]
    check(answer["image"] == {"width": 96, "height": 64}, f"/predict saw {answer['image']}")
    check(len(shares) == 3 and shares == sorted(shares, reverse=True), f"/predict gave {shares}")
    check(0 < sum(shares) <= 1.001, f"/predict gave {shares}")
    print("/predict:", ", ".join(prediction["label"] for prediction in answer["predictions"]))


def ask_gradcam(port: int) -> None:
    """A picture gets an explanation and an overlay."""
    status, body = request(port, "POST", "/gradcam?box=10,10,80,60", picture(96, 64))
    check(status == 200, f"/gradcam answered {status}: {body!r}")
    answer: dict[str, Any] = json.loads(body)
    overlay = base64.b64decode(answer["overlay"]["data"])
    check(overlay.startswith(PNG_SIGNATURE), "/gradcam's overlay is no PNG")
    check(0 <= answer["localization"]["iou"] <= 1, f"/gradcam gave {answer['localization']}")
    print("/gradcam:", answer["explanation"]["status"], answer["explanation"]["box"])


def stop(server: subprocess.Popen[bytes]) -> int:
    """Ask the server to end as a supervisor would; its exit status."""
    server.send_signal(signal.SIGTERM)
    return server.wait(PATIENCE_S)


def request(port: int, method: str, path: str, image: bytes | None = None) -> tuple[int, bytes]:
    """One exchange: status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        headers = {"Content-Type": "image/png"} if image else {}
        connection.request(method, path, image, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def picture(width: int, height: int) -> bytes:
    """A PNG with a bright disc on a gradient."""
    rows = bytearray()
    for y in range(height):
        rows.append(0)  # no filter on this row
        for x in range(width):
            inside = (x - width / 2) ** 2 + (y - height / 2) ** 2 < (height / 3) ** 2
            rows += bytes((230, 180, 90) if inside else (x * 255 // width, y * 255 // height, 60))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows))), (b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def imported(log: Any) -> list[str]:
    """The modules in the log of `-X importtime`."""
    log.seek(0)
    return [line.rpartition("|")[2].strip() for line in log if line.startswith("import time:")]


def messages(log: Any) -> str:
    """The log without its imports."""
    log.seek(0)
    return "".join(line for line in log if not line.startswith("import time:"))


if __name__ == "__main__":
    main()
