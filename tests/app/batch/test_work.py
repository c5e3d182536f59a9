import asyncio
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.batch import coco
from app.batch.errors import BatchError
from app.batch.inputs import Files, Source, open_input
from app.batch.output import Manifest, Output
from app.batch.rows import Row
from app.batch.work import Work
from app.engines import Batch, Cut, Engine
from app.errors import EngineDown, NotReady, QueueFull
from app.service import Service
from tests import needs
from tests.app.attacks import flat_png
from tests.app.batch.runs import rows, write_photos
from tests.app.conftest import JPEG, Arrays, Borrowed, Serve, ask, encode, picture, post

pytestmark = pytest.mark.anyio

MakeService = Callable[..., Service]


def plan(out: Path, photos: int, **changes: Any) -> Output:
    query = changes.pop("query", {"overlay": False})
    manifest = {
        "photos": photos,
        "input": "",
        "model": {},
        "endpoint": "gradcam",
        "query": query,
        "settings": {},
        "part_photos": 5,
        "rows": "jsonl",
        "overlays": False,
    }
    return Output(out, Manifest.model_validate(manifest | changes))


async def write(service: Service, source: Source, output: Output) -> None:
    with output.held():
        async with service.running() as explainer:
            await Work(explainer, source, output.manifest).run(output.missing(), output)
            assert explainer.admission.admitted == explainer.admission.held_bytes == 0


def check_near(one: object, other: object) -> None:
    """Equal, but for what the size of a batch changes in the last digits."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys()
        for name in one:
            check_near(one[name], other[name])
    elif isinstance(one, list) and isinstance(other, list):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            check_near(first, second)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-4)
    else:
        assert one == other


def write_bad(folder: Path) -> dict[str, str]:
    """Photos that are refused: their names, and the errors' codes."""
    bad = {
        "0 empty.jpg": (b"", "missing-image"),
        "a/0 text.jpg": (b"not a photo", "unsupported-media-type"),
        "b/torn.jpg": (encode(picture())[:200], "undecodable-image"),
        "b/wide.png": (flat_png(1200, 1200), "too-many-pixels"),
        "z large.jpg": (JPEG + bytes(1_000_000), "too-many-bytes"),
    }
    for name, (data, _) in bad.items():
        (folder / name).write_bytes(data)
    return {name: code for name, (_, code) in bad.items()}


async def test_rows_are_what_the_service_answers(
    tmp_path: Path, make_service: MakeService, serve: Serve
) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    names = write_photos(photos, 12)
    codes = write_bad(photos)
    limits = {"max_bytes": 900_000, "max_pixels": 1_000_000}
    query: dict[str, Any] = {"overlay": False, "method": "layercam", "top_k": 3, "target": "beagle"}

    source = open_input(photos)
    await write(make_service(**limits), source, plan(out, len(source), query=query))

    written = rows(out)
    assert sorted(row["id"] for row in written) == sorted([*names, *codes])
    assert [row["image_id"] for row in written] == list(range(17))
    async with serve(make_service(**limits)) as client:
        for row in written:
            answer = await post(client, "/gradcam", (photos / row["id"]).read_bytes(), **query)
            expected = answer.json()
            if row["id"] in codes:
                assert row["problem"]["type"] == f"urn:breedcam:error:{codes[row['id']]}"
                if row["problem"]["status"] != 413:  # which says what was uploaded
                    assert row["problem"] == {
                        name: expected[name] for name in ("type", "title", "status", "detail")
                    }
                assert row["problem"]["status"] == answer.status_code
            else:
                for name in ("image", "predictions", "confidence", "target", "explanation"):
                    check_near(row[name], expected[name])
                assert row["problem"] is None
                assert row["overlay"] is None


async def test_overlays_are_those_of_the_service(
    tmp_path: Path, make_service: MakeService, serve: Serve
) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    names = write_photos(photos, 3)
    query: dict[str, Any] = {"size": 64, "colormap": "viridis"}
    await write(make_service(), open_input(photos), plan(out, 3, query=query, overlays=True))

    async with serve(make_service()) as client:
        for name, row in zip(names, rows(out), strict=True):
            assert row["overlay"]["file"] == f"overlays/{name}.png"
            answer = await post(
                client,
                "/gradcam",
                (photos / name).read_bytes(),
                headers={"Accept": "image/png"},
                **query,
            )
            assert (out / row["overlay"]["file"]).read_bytes() == answer.content
            assert (row["overlay"]["width"], row["overlay"]["height"]) == (64, 48)


async def test_predictions_alone(tmp_path: Path, make_service: MakeService, serve: Serve) -> None:
    write_photos(tmp_path / "in", 1)
    output = plan(tmp_path / "out", 1, endpoint="predict", query={"top_k": 2})
    await write(make_service(), open_input(tmp_path / "in"), output)

    [row] = rows(tmp_path / "out")
    async with serve(make_service()) as client:
        photo = (tmp_path / "in" / row["id"]).read_bytes()
        expected = await ask(client, "/predict", photo, top_k=2)
    check_near(row["predictions"], expected["predictions"])
    assert row["target"] is row["explanation"] is None


async def test_parquet_rows_are_those_of_jsonl(tmp_path: Path, make_service: MakeService) -> None:
    try:
        from pyarrow import parquet
    except ImportError:
        needs.absent("the package pyarrow")
    write_photos(tmp_path / "in", 6)
    (tmp_path / "in" / "c.jpg").write_bytes(b"no photo")
    source = open_input(tmp_path / "in")
    for kind in ("jsonl", "parquet"):
        await write(make_service(), source, plan(tmp_path / kind, 7, rows=kind))

    read = [
        row
        for path in sorted((tmp_path / "parquet").glob("part-*.parquet"))
        for row in parquet.read_table(path).to_pylist()
    ]
    check_near(read, rows(tmp_path / "jsonl"))
    schemas = {parquet.read_schema(path) for path in (tmp_path / "parquet").glob("part-*.parquet")}
    assert len(schemas) == 1
    assert [row.id for row in plan(tmp_path / "parquet", 7, rows="parquet").rows()] == [
        row["id"] for row in read
    ]


async def test_photos_wait_where_there_is_no_room(
    tmp_path: Path, make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path / "in", 12)
    most = max(path.stat().st_size for path in (tmp_path / "in").rglob("*.jpg"))
    service = make_service(max_pending_bytes=most + 10)  # one at a time
    explain, held = service.explainer.explain, list[int]()

    async def watched(*arguments: Any) -> Any:
        held.append(service.admission.held_bytes)
        return await explain(*arguments)

    monkeypatch.setattr(service.explainer, "explain", watched)
    await write(service, open_input(tmp_path / "in"), plan(tmp_path / "out", 12))
    assert [row["problem"] for row in rows(tmp_path / "out")] == [None] * 12
    assert len(held) == 12
    assert max(held) <= most + 10


async def test_calls_overlap_within_the_same_bounds(
    tmp_path: Path, make_service: MakeService
) -> None:
    """As a worker of a cluster makes them, from a source that is one stream."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        needs.absent("the package pyarrow")
    data = [encode(picture(seed=number)) for number in range(25)]
    parquet.write_table(pa.table({"bytes": data}), tmp_path / "in.parquet")
    output = plan(tmp_path / "out", 25)
    with output.held():
        async with make_service(max_pending=4).running() as explainer:
            work = Work(explainer, open_input(tmp_path / "in.parquet"), output.manifest)
            await asyncio.gather(*(work.run([part], output) for part in (3, 0, 4, 1, 2)))
    assert [row["id"] for row in rows(tmp_path / "out")] == [str(number) for number in range(25)]
    assert [row["problem"] for row in rows(tmp_path / "out")] == [None] * 25


async def test_large_photos_wait_for_others(
    tmp_path: Path, make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path / "in", 5)
    service = make_service()
    explain, lane, refused = service.explainer.explain, asyncio.Lock(), list[int]()

    async def crowded(*arguments: Any) -> Any:
        if lane.locked():
            refused[-1] += 1
            raise QueueFull("Large photos wait for their turn.")
        async with lane:
            refused.append(0)
            await asyncio.sleep(0.2)  # time enough for others to try again and again
            return await explain(*arguments)

    monkeypatch.setattr(service.explainer, "explain", crowded)
    await write(service, open_input(tmp_path / "in"), plan(tmp_path / "out", 5))
    assert [row["problem"] for row in rows(tmp_path / "out")] == [None] * 5
    assert len(refused) == 5
    assert all(count < 5 for count in refused)


class Fussy(Borrowed):
    """Fails on any batch with a white photo in it, in the way that is wanted."""

    def __init__(self, engine: Engine, error: Exception) -> None:
        super().__init__(engine)
        self._error = error

    def run(self, cut: Cut, batch: Batch) -> Arrays:
        if any((image == 255).all() for image in batch.image):
            raise self._error
        return super().run(cut, batch)


async def test_a_photo_that_makes_the_model_fail_is_a_row(
    tmp_path: Path, make_service: MakeService, engine: Borrowed
) -> None:
    write_photos(tmp_path / "in", 9)
    (tmp_path / "in" / "a" / "0001.png").write_bytes(flat_white())
    service = make_service(engine=Fussy(engine, RuntimeError("no white")))
    await write(service, open_input(tmp_path / "in"), plan(tmp_path / "out", 10))

    problems = {row["id"]: row["problem"] for row in rows(tmp_path / "out") if row["problem"]}
    assert list(problems) == ["a/0001.png"]
    assert problems["a/0001.png"]["type"] == "urn:breedcam:error:engine-failed"


def flat_white() -> bytes:
    from PIL import Image

    return encode(Image.new("RGB", (64, 64), "white"), "PNG")


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (EngineDown("It hangs."), EngineDown),
        (NotReady("The system ended the decoder twice."), BatchError),
        (OSError(errno.EIO, "Input/output error"), OSError),
        (ZeroDivisionError(), ZeroDivisionError),
    ],
)
async def test_what_is_no_fault_of_the_photo_ends_the_run(
    tmp_path: Path,
    make_service: MakeService,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    raised: type[Exception],
) -> None:
    monkeypatch.setattr(NotReady, "retry_after_s", 0)
    write_photos(tmp_path / "in", 9)
    service = make_service()

    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(service.explainer, "explain", fail)
    with pytest.raises(raised, match=r"while explaining the photo '[ab]/\d+.jpg'"):
        await write(service, open_input(tmp_path / "in"), plan(tmp_path / "out", 9))
    assert rows(tmp_path / "out") == []


async def test_coco_results_have_the_boxes(tmp_path: Path, make_service: MakeService) -> None:
    names = write_photos(tmp_path / "in", 3)
    source = Files(tmp_path / "in", [*names, "absent.jpg"], [7, 3, 90, 1])
    output = plan(tmp_path / "out", 4)
    await write(make_service(), source, output)
    with output.held():
        coco.write(output)

    results = json.loads((tmp_path / "out" / "coco_results.json").read_text())
    assert [result["image_id"] for result in results] == [7, 3, 90]
    for result, row in zip(results, rows(tmp_path / "out"), strict=False):
        assert set(result) == {"image_id", "category_id", "bbox", "score"}
        x, y, width, height = result["bbox"]
        np.testing.assert_allclose([x, y, x + width, y + height], row["explanation"]["box"])
        assert 0 < width <= row["image"]["width"]
        assert result["category_id"] == row["predictions"][0]["class_index"]
        assert result["score"] == row["predictions"][0]["probability"]


def test_coco_results_may_be_none(tmp_path: Path) -> None:
    output = plan(tmp_path, 1)
    assert coco.result(Row(id="a", image_id=1)) is None
    with output.held():
        coco.write(output)
    assert json.loads((tmp_path / "coco_results.json").read_text()) == []
