"""The examples in the OpenAPI document: real answers about the project's drawing.

`python -m tests.examples` writes them anew.
"""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from app.settings import PROJECT
from tests.app.services import LONG, serving
from tests.drawing import DRAWING
from tests.readme import rounded

__all__ = ["FILE", "RATING", "examples"]

FILE = PROJECT / "app/examples.json"

PHOTOS: dict[str, dict[str, Any]] = {
    "/predict": {"top_k": 2},
    "/cam": {"top_k": 1, "size": 64},
    "/gradcam": {"top_k": 1, "method": "layercam", "box": "60,40,400,320", "overlay": "false"},
    "/compare": {"top_k": 1, "method": ["cam", "layercam/last6"], "overlay": "false"},
}
"""The parameters, by path."""

GETS = ("/model", "/livez", "/readyz", "/ratings/summary")

RATING = {
    "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "methods": ["gradcam/last6", "layercam/last"],
    "answer": "first",
    "misses": ["layercam/last"],
    "rater": "5d41402abc4b2a76b9719d911017c592",
    "model": {"name": "dogs120", "version": 1},
}

SHOWN = 2
"""Breeds, layers and methods of the model that are printed."""

ENGINE = {"version": "2026.4.1", "device": "AMD EPYC"}
"""What differs from machine to machine."""

SINCE = "2026-11-29T12:00:00Z"
"""What differs from start to start."""

BASE64 = 24
"""Characters of a picture that are printed."""


async def examples(client: httpx.AsyncClient) -> dict[str, Any]:
    """Requests and responses by path, of a service that keeps ratings and has none yet."""
    found: dict[str, Any] = {"/ratings": {"request": {"summary": "a rating", "value": RATING}}}
    for path, params in PHOTOS.items():
        response = await client.put(path, content=DRAWING.read_bytes(), params=params)
        query = urlencode(params, doseq=True, safe=",/")
        command = f'curl -T docs/drawing.jpg "http://localhost:8000{path}?{query}"'
        found[path] = _response(command, response)
    (await client.post("/ratings", json=RATING)).raise_for_status()
    for path in GETS:
        response = await client.get(path)
        found[path] = _response(f"curl http://localhost:8000{path}", response)
    return found


def _response(command: str, response: httpx.Response) -> dict[str, Any]:
    response.raise_for_status()
    return {"response": {"summary": command, "value": _shortened(rounded(response.json()))}}


def _shortened(answer: dict[str, Any]) -> dict[str, Any]:
    """Without most of what is long: base64, breeds, layers, and figures by method."""
    if overlay := answer.get("overlay"):
        overlay["data"] = f"{overlay['data'][:BASE64]}..."
    if "labels" in answer:
        for name in ("labels", "layers"):
            answer[name] = answer[name][:SHOWN]
        for name in ("thresholds", "fused", "metrics"):
            answer[name] = dict(list(answer[name].items())[:SHOWN])
        answer["confidence"]["reference"] = None
        answer["engine"] |= ENGINE
        answer["since"] = SINCE
    return answer


def rewrite() -> None:
    """Write the answers of the model in service."""

    async def ask(url: str) -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=url, timeout=LONG) as client:
            return await examples(client)

    with tempfile.TemporaryDirectory() as place:
        ratings = Path(place) / "ratings.sqlite"
        with serving(Path(place), precision="float32", ratings=ratings) as service:
            found = asyncio.run(ask(service.url))
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    rewrite()
