"""The container engine, and the service as a container that compose would start."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from app.settings import PROJECT
from benchmarks.services import free_port
from tests import needs
from tests.app.services import LONG
from tests.deploy import compose

__all__ = ["BASE", "IMAGE", "Container", "base", "built", "docker", "needed", "run"]

BASE = "python:3.12-slim"
"""What the Dockerfile starts from."""

IMAGE = "breedcam:check"


def docker(*arguments: str, timeout_s: float = LONG) -> str:
    """Standard output of a command of the engine.

    Raises:
        subprocess.CalledProcessError: it fails; standard error is among its notes.
    """
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout_s)
    try:
        done.check_returncode()
    except subprocess.CalledProcessError as error:
        error.add_note((done.stdout + done.stderr)[-4000:])
        raise
    return done.stdout.strip()


def needed() -> None:
    """Skip the test where no engine answers; fail it instead where `CI` is set."""
    needs.tool("docker")
    try:
        docker("info")
    except (subprocess.SubprocessError, OSError):
        needs.absent("a container engine (make container-check starts one, as root on Debian)")


@contextmanager
def base() -> Iterator[None]:
    """The Dockerfile's base image: as it is there or pulled, else made of Debian's packages.

    What is made, of Debian's own Python, is removed at the end.
    """
    if _provided():
        yield
        return
    try:
        _bootstrap()
        yield
    finally:
        subprocess.run(["docker", "image", "rm", "--force", BASE], capture_output=True)


def _provided() -> bool:
    for command in ("image", "inspect"), ("pull",):
        with suppress(subprocess.SubprocessError):
            docker(*command, BASE, timeout_s=600)
            return True
    return False


def _bootstrap() -> None:
    """A minimal Debian with Python, and with the certificates that this machine trusts."""
    trusted = Path("/etc/ssl/certs/ca-certificates.crt")
    mmdebstrap = [
        *(needs.tool("mmdebstrap"), "--quiet", "--variant=minbase"),
        "--include=ca-certificates,python3,python3-venv",
        *(f"--dpkgopt=path-exclude=/usr/share/{kind}/*" for kind in ("doc", "locale", "man")),
        *([f"--customize-hook=copy-in {trusted} {trusted.parent}"] if trusted.exists() else []),
        '--customize-hook=ln -s python3 "$1/usr/bin/python"',
        *("bookworm", "-"),
    ]
    with subprocess.Popen(mmdebstrap, stdout=subprocess.PIPE) as packed:
        subprocess.run(
            ["docker", "import", "-", BASE],
            stdin=packed.stdout,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    assert packed.returncode == 0


@contextmanager
def built(target: str, *options: str) -> Iterator[str]:
    """The image of a target, removed at the end, with what Docker's old builder leaves of stages.

    Only what this build has made is removed: others may build beside it. The build has the host's
    network.
    """
    before = _untagged()
    made: set[str] = set()
    network = ("--network", "host")
    command = ("build", *network, *options, "--target", target, "--tag", IMAGE, str(PROJECT))
    try:
        try:
            made = _layers(docker(*command, timeout_s=1200))
        except subprocess.CalledProcessError as error:
            made = _layers(error.stdout)
            raise
        yield IMAGE
    finally:
        subprocess.run(["docker", "image", "rm", "--force", IMAGE], capture_output=True)
        for stage in (_untagged() - before) & made:
            docker("image", "rm", "--force", stage)


def _untagged() -> set[str]:
    return set(docker("image", "ls", "--quiet", "--filter", "dangling=true").split())


def _layers(output: str) -> set[str]:
    """The short ids that the old builder prints, a line for each step."""
    return set(re.findall(r"^ ---> ([0-9a-f]{12})$", output, re.M))


@dataclass(frozen=True)
class Container:
    """A container of the service, published on 127.0.0.1."""

    name: str
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def inspect(self) -> dict[str, Any]:
        [described] = json.loads(docker("inspect", self.name))
        return dict(described)

    @property
    def state(self) -> dict[str, Any]:
        return dict(self.inspect()["State"])

    def execute(self, *command: str) -> str:
        """Standard output of a command in it."""
        return docker("exec", self.name, *command)

    def wait_until_ready(self) -> None:
        self._wait(lambda: httpx.get(f"{self.url}/readyz", timeout=LONG).status_code == 200)

    def wait_until_healthy(self) -> None:
        self._wait(lambda: self.state["Health"]["Status"] == "healthy")

    def wait_for_restart(self) -> None:
        self._wait(lambda: self.inspect()["RestartCount"] > 0)

    def _wait(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 2 * LONG
        while time.monotonic() < until:
            with suppress(httpx.TransportError):
                if condition():
                    return
            time.sleep(0.1)
        raise AssertionError(docker("logs", self.name))

    def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        lines = httpx.get(f"{self.url}/metrics", timeout=LONG).text.splitlines()
        [value] = [line.split()[1] for line in lines if line.split()[0] == name]
        return float(value)


@contextmanager
def run(*options: str, image: str = IMAGE) -> Iterator[Container]:
    """A ready service with compose's limits, and with one graph fewer to compile.

    Args:
        options: of `docker run`, after compose's.
        image: the image to run.
    """
    port = free_port()
    limits = compose.limits(compose.services("cpu")["breedcam-cpu"])
    name = docker(
        *("run", "--detach", "--publish", f"127.0.0.1:{port}:8000"),
        *limits,
        *("--env", "BREEDCAM_MAX_BATCH=1"),
        *options,
        image,
    )
    try:
        container = Container(name, port)
        container.wait_until_ready()
        yield container
    finally:
        docker("rm", "--force", "--volumes", name)
