"""The splits that commands read: thresholds and figures must not share a photo."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from app.bundle import Input, Label, ModelCard
from tests.training.small_networks import LAYERS, small_resnet
from tests.training.tfds_directory import BREEDS
from training import cli
from training.calibration import boxes
from training.data.dataset import Example
from training.evaluation import evaluate
from training.export.explained import ExplainedNetwork
from training.export.foreground import Projection
from training.export.versions import write
from training.graph.keras_reader import from_keras


@pytest.fixture
def model(card: ModelCard, projections: dict[str, Projection], tmp_path: Path) -> Path:
    """Untrained, of the prepared data's breeds."""
    explained = ExplainedNetwork(
        from_keras(small_resnet(classes=len(BREEDS))),
        input_size=32,
        layers=LAYERS,
        projections=projections,
    )
    labels = tuple(
        Label(index=index, synset=breed.split("-")[0], name=breed.split("-")[1].replace("_", " "))
        for index, breed in enumerate(BREEDS)
    )
    fields = {
        "name": "trio",
        "version": 1,
        "labels": labels,
        "novelty": None,
        "input": Input(size=32),
    }
    version = tmp_path / "models" / "trio" / "1"
    write(explained, version, card.model_copy(update=fields))
    return version


@pytest.mark.parametrize(
    ("command", "module", "split", "photos"),
    [
        ("calibrate", boxes, "train", range(0, 40, 4)),  # those with boxes
        ("evaluate", evaluate, "test", range(10)),
    ],
)
def test_command_reads_its_own_split_alone(
    model: Path,
    prepared: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    module: ModuleType,
    split: str,
    photos: range,
) -> None:
    names: list[str] = []
    real: Callable[..., Any] = getattr(module, command)

    def spy(bundle: Any, engine: Any, examples: Sequence[Example], **options: Any) -> Any:
        names.extend(example.name for example in examples)
        return real(bundle, engine, examples, **options)

    monkeypatch.setattr(module, command, spy)

    cli.main([command, "--model", str(model), "--data-dir", str(prepared)])

    assert sorted(names) == sorted(f"{split}-{index}.jpg" for index in photos)
