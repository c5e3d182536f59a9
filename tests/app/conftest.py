"""Fixtures of the API's tests: the shipped model, loaded once, and services around it."""

import base64
import io
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from app.bundle import (
    Bundle,
    Confidence,
    Foreground,
    Fused,
    Input,
    Layer,
    ModelCard,
    Novelty,
)
from app.decoding import Decoders
from app.engines import Batch, Cut, Engine, EngineInfo, output_names
from app.main import create_app
from app.model import Model
from app.service import Service
from app.settings import PROJECT, Settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.app.chromium import Pages
    from tests.app.observed import Observed
    from tests.app.services import Service as ServiceProcess

Arrays = dict[str, npt.NDArray[Any]]
Answer = dict[str, Any]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
"""`serve(engine=..., **settings)` and `serve(service)` give a client of a running service."""

LONG = 20.0
"""Seconds; a test that comes near it has failed. Of whole processes: `tests.app.services.LONG`."""


class Borrowed:
    """An engine that outlives the service that uses it; subclasses listen in on `run`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.closed = False

    @property
    def info(self) -> EngineInfo:
        return self._engine.info

    @property
    def on_gpu(self) -> bool:
        return self._engine.on_gpu

    def warm_up(self, max_batch: int) -> None:
        pass

    def run(self, cut: Cut, batch: Batch) -> Arrays:
        return self._engine.run(cut, batch)

    def release_memory(self) -> bool:
        return self._engine.release_memory()

    def close(self) -> None:
        self.closed = True


def by_hand(card: ModelCard) -> ModelCard:
    """The card with maps of 7 x 7 at its last three layers, and of 14 x 14 before them.

    So figures worked out by hand hold whatever the shipped model's sizes are.
    """
    late = card.layer_names[-3:]
    sides = {name: 7 if name in late else 14 for name in card.layer_names}
    layers = (Layer(name=name, height=side, width=side) for name, side in sides.items())
    return card.replace(layers=tuple(layers))


class Painted(Borrowed):
    """Answers with maps made by hand: by output name, else `default`, else zeros.

    Class number i has the logit log(i + 1). Its card is one `by_hand`, for an input of 224 px.
    """

    def __init__(
        self,
        engine: Engine,
        card: ModelCard,
        maps: Mapping[str, npt.ArrayLike] | None = None,
        default: npt.ArrayLike = 0.0,
    ) -> None:
        super().__init__(engine)
        self.card = by_hand(card).replace(input=Input(size=224))
        self._maps = dict(maps or {})
        self._default = default

    def run(self, cut: Cut, batch: Batch) -> Arrays:
        rows, classes = len(batch), len(self.card.labels)
        spread = np.arange(1, classes + 1, dtype=np.float32)
        chosen = np.where(batch.class_index < 0, classes - 1, batch.class_index)
        arrays: Arrays = {
            "logits": np.tile(np.log(spread), (rows, 1)),
            "probabilities": np.tile(spread / spread.sum(), (rows, 1)),
            "target_index": chosen.astype(np.int32),
        }
        sizes = {layer.name: (layer.height, layer.width) for layer in self.card.layers}
        for name in set(output_names(self.card, cut)) - set(arrays):
            size = sizes.get(name.partition("_")[2], sizes[self.card.layers[-1].name])
            drawn = np.asarray(self._maps.get(name, self._default), np.float32)
            arrays[name] = np.broadcast_to(drawn, (rows, *(() if name == "novelty" else size)))
        return arrays


class Held(Borrowed):
    """Waits for leave before each batch; remembers how many rows it saw."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.busy, self.go = threading.Event(), threading.Event()
        self.rows: list[int] = []

    def run(self, cut: Cut, batch: Batch) -> Arrays:
        self.rows.append(len(batch))
        self.busy.set()
        assert self.go.wait(20.0)
        return super().run(cut, batch)


def picture(width: int = 320, height: int = 240, seed: int = 0) -> Image.Image:
    """Soft coloured blobs."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, format, **options)
    return target.getvalue()


def pixels(data: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)))


EXPLAIN = ("/cam", "/gradcam")
PICTURED = (*EXPLAIN, "/compare")
ENDPOINTS = ("/predict", *PICTURED)
JPEG = encode(picture())
"""What `post` sends by default: 320 x 240."""


async def post(
    client: httpx.AsyncClient,
    path: str,
    content: bytes | AsyncIterator[bytes] = JPEG,
    *,
    content_type: str = "image/jpeg",
    headers: dict[str, str] | None = None,
    **params: Any,
) -> httpx.Response:
    headers = {"Content-Type": content_type, **(headers or {})}
    return await client.post(path, content=content, headers=headers, params=params)


async def ask(client: httpx.AsyncClient, path: str, content: bytes = JPEG, **params: Any) -> Answer:
    """The JSON of a request that succeeds."""
    response = await post(client, path, content, **params)
    assert response.status_code == 200, response.text[:500]
    assert response.headers["content-type"] == "application/json"
    answer: Answer = response.json()
    return answer


def problem(response: httpx.Response, status: int, code: str) -> str:
    """Check everything that problems have in common; give the detail."""
    assert response.status_code == status, response.text[:500]
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert set(document) == {"type", "title", "status", "detail", "request_id"}
    assert document["type"] == f"urn:breedcam:error:{code}"
    assert document["status"] == status
    assert document["title"]
    assert document["request_id"] == response.headers["X-Request-ID"] != ""
    assert not any(
        secret in response.text for secret in ("Traceback", ".py", str(PROJECT), "site-packages")
    )
    detail: str = document["detail"]
    assert detail
    return detail


def untimed(answer: Answer) -> Answer:
    return {key: value for key, value in answer.items() if key != "timings_ms"}


def overlay(answer: Answer) -> npt.NDArray[np.uint8]:
    return pixels(base64.b64decode(answer["overlay"]["data"]))


@pytest.fixture(scope="session")
def observed(tmp_path_factory: pytest.TempPathFactory) -> "Observed":
    from tests.app.observed import observe

    return observe(tmp_path_factory.mktemp("observed"))


@pytest.fixture(scope="session")
def plain_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator["ServiceProcess"]:
    """A process that serves, in float32, for tests that leave it as it is."""
    from tests.app.services import serving

    with serving(tmp_path_factory.mktemp("plain"), precision="float32") as service:
        yield service


@pytest.fixture
def service(plain_service: "ServiceProcess") -> "ServiceProcess":
    """What the page's tests open in Chromium."""
    return plain_service


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Chromium, for the tests of one module: asynchronous ones do not mix with its event loop."""
    from tests.app.chromium import launched

    with launched() as browser:
        yield browser


@pytest.fixture
def open_page(browser: "Browser") -> Iterator["Pages"]:
    """Opens pages; afterwards, no script of theirs may have failed."""
    from tests.app.chromium import Pages

    pages = Pages(browser)
    yield pages
    pages.close()
    assert pages.errors == []


@pytest.fixture(scope="session")
def settings() -> Settings:
    """float32 on the CPU, so that answers can be compared."""
    return Settings(engine="openvino", device="cpu", precision="float32", max_batch=4)


@pytest.fixture(scope="session")
def shipped(settings: Settings) -> Iterator[Model]:
    """The shipped model, loaded and compiled; never started: services borrow its engine."""
    model = Model.load(settings)
    yield model
    model.close()


class _Borrowed(Decoders):
    """Decoders that outlive the service that uses them."""

    def stop(self) -> None:
        pass


@pytest.fixture(scope="session")
def decoders(settings: Settings) -> Iterator[Decoders]:
    """Processes that decode photos, for services that need no others."""
    shared = _Borrowed.of(settings)
    shared.start()
    yield shared
    Decoders.stop(shared)


@pytest.fixture
def engine(shipped: Model) -> Borrowed:
    return Borrowed(shipped.engine)


@pytest.fixture
def card(shipped: Model) -> ModelCard:
    return shipped.card


@pytest.fixture
def uncalibrated(card: ModelCard) -> ModelCard:
    """The shipped model's `by_hand`, as if neither fused rules nor confidence were calibrated."""
    foreground = Foreground(rule="ddt", photos=1000)
    changes = {"foreground": foreground, "fused": {}, "novelty": None, "confidence": None}
    return by_hand(card).replace(**changes)


@pytest.fixture
def calibrated(uncalibrated: ModelCard) -> ModelCard:
    """The same with all of them, and the foreground of two layers; for `Painted`."""
    names = uncalibrated.layer_names
    fused = {
        "last": Fused(foreground=0.5, threshold=0.4),
        "last6": Fused(foreground=0.25, threshold=0.3),
    }
    changes = {
        "foreground": Foreground(rule="boxes", photos=500, layers=(names[2], names[-1])),
        "fused": {method: fused for method in uncalibrated.methods},
        "novelty": Novelty(dimensions=128, photos=1000),
        "confidence": Confidence(
            temperature=0.5,
            least_probability=1 / len(uncalibrated.labels),
            least_foreground=-1e9,
            most_novelty=7.0,
            photos=1000,
            ece=0.01,
            ece_before=0.05,
        ),
    }
    return uncalibrated.replace(**changes)


@pytest.fixture
def make_service(shipped: Model, settings: Settings, decoders: Decoders) -> Callable[..., Service]:
    """`make_service(engine=..., card=..., **settings)`; not started.

    The card is the painted engine's where there is one, else the shipped model's.
    """

    def make(
        engine: Engine | None = None, card: ModelCard | None = None, **changes: Any
    ) -> Service:
        painted = engine.card if isinstance(engine, Painted) else None
        bundle = Bundle(shipped.path, card or painted or shipped.card)
        changed = settings.model_copy(update=changes)
        model = Model(bundle, engine or Borrowed(shipped.engine), changed)
        return Service(model, changed, decoders=decoders)

    return make


@pytest.fixture
def serve(make_service: Callable[..., Service]) -> Serve:
    @asynccontextmanager
    async def serving(
        service: Service | None = None, **changes: Any
    ) -> AsyncIterator[httpx.AsyncClient]:
        service = service or make_service(**changes)
        app = create_app(service.settings, service)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            yield client

    return serving


@pytest.fixture
async def client(serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service with the shipped model."""
    async with serve() as client:
        yield client
