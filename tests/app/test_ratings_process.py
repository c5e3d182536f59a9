"""Ratings that are sent to a process of its own, which is killed meanwhile."""

import signal
import threading
from pathlib import Path

import httpx

from tests.app.services import LONG, Service, serving
from tests.app.test_rating_routes import RATING
from tests.app.test_ratings import intact, kept


def test_a_killed_service_loses_no_confirmed_rating(tmp_path: Path) -> None:
    path = tmp_path / "ratings.sqlite"
    enough = threading.Semaphore(0)
    confirmed: list[set[str]] = []
    with serving(tmp_path, ratings=path) as service:
        clients = []
        for number in range(4):
            confirmed.append(set())
            clients.append(
                threading.Thread(target=_rate, args=(service, number, confirmed[-1], enough))
            )
            clients[-1].start()
        for _ in range(40):
            assert enough.acquire(timeout=LONG)
        assert service.stop(signal.SIGKILL) == -signal.SIGKILL
        for client in clients:
            client.join()
    digests = kept(path)
    assert set.union(*confirmed) <= digests
    assert len(digests) <= sum(map(len, confirmed)) + 4  # those whose answer was lost
    assert intact(path)


def _rate(service: Service, number: int, confirmed: set[str], enough: threading.Semaphore) -> None:
    """Send ratings, one after the other, until the service is gone."""
    with httpx.Client(base_url=service.url, timeout=LONG, verify=False) as client:
        for count in range(1_000_000):
            digest = f"{number:032x}{count:032x}"
            try:
                answer = client.post("/ratings", json=RATING | {"digest": digest})
            except httpx.TransportError:
                return
            assert answer.status_code == 204
            confirmed.add(digest)
            enough.release()
