"""The plain network from training to HTTP: no global average pooling, and so no CAM."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from app import engines
from app.bundle import Architecture, Bundle, Method, load
from app.engines import Batch, Cut
from app.engines.tensorflow import TensorFlowEngine
from tests import needs
from tests.training.pictures import dataset
from tests.training.service_client import post_photo
from training.calibration.boxes import calibrate
from training.config import Stage, TrainConfig
from training.errors import WeightsError
from training.evaluation.evaluate import evaluate
from training.evaluation.inference import layer_sets
from training.export import from_run, terms
from training.export import survey as surveys
from training.fit.run import Run

CONFIG = TrainConfig(
    architecture=Architecture.CUSTOM_CNN,
    weights="none",
    stages=(Stage(size=32, epochs=1),),
    input_size=32,
    batch_size=4,
    precision="float32",
)
LAYERS = [f"conv{number}" for number in range(1, 7)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    directory = tmp_path_factory.mktemp("custom")
    photos = dataset()
    Run(directory / "run", CONFIG, photos).fit()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(from_run, "load_dataset", lambda _config: photos)
        patch.setattr(surveys, "ENOUGH_BOXES", 6)
        from_run.export_run(directory / "run", directory / "models" / "plain" / "1", photos=6)
    return load(directory / "models" / "plain" / "1")


def test_card(exported: Bundle) -> None:
    card = exported.card

    assert (card.architecture, card.head, card.input.size) == ("custom_cnn", "other", 32)
    assert card.layer_names == LAYERS
    assert [layer.height for layer in card.layers] == [32, 16, 8, 4, 2, 2]
    assert (card.foreground.rule, card.foreground.photos) == ("boxes", 6)
    assert card.foreground.layers == ("conv4", "conv6")  # the last of 4 and of 2 positions
    assert card.novelty is not None
    assert (card.novelty.dimensions, card.novelty.photos) == (1, 6)
    assert Method.CAM not in card.methods
    assert card.licence == terms.IMAGENET  # Stanford Dogs' photos are ImageNet's
    assert card.provenance == "Plain CNN, trained from random weights on pictures."


def test_weights_are_refused(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"weights": "imagenet"})

    with pytest.raises(WeightsError, match="custom_cnn"):
        Run(tmp_path, config, dataset())


def test_layer_sets_calibrate_and_evaluate(exported: Bundle) -> None:
    engine = engines.create(exported, engine="openvino", precision="float32")
    photos = dataset().train
    sets = {"last", "last6", *LAYERS[:-1]}

    thresholds = calibrate(exported, engine, photos).thresholds
    mean_iou = evaluate(exported, engine, photos).mean_iou

    calibrated = layer_sets(exported.card)
    assert {layers.name for layers in calibrated if layers.method is Method.GRADCAM} == sets
    assert not [layers for layers in calibrated if layers.method is Method.CAM]
    assert set(thresholds[Method.LAYERCAM]) == set(mean_iou[Method.LAYERCAM]) == sets
    assert Method.CAM not in mean_iou


@pytest.fixture(scope="module")
def batch() -> Batch:
    rng = np.random.default_rng(0)
    image = np.repeat(np.repeat(rng.integers(0, 256, (4, 8, 8, 3), np.uint8), 4, 1), 4, 2)
    return Batch(image, np.array([-1, 0, 1, 1], np.int32), np.array([-1, 1, -1, 0], np.int32))


@pytest.fixture(scope="module")
def expected(exported: Bundle, batch: Batch) -> dict[str, npt.NDArray[Any]]:
    engine = TensorFlowEngine(exported, device="cpu", precision="float32")
    return engine.run(Cut.EXPLAIN_DEEP, batch)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_openvino_agrees_with_tensorflow(
    exported: Bundle, batch: Batch, expected: dict[str, npt.NDArray[Any]], precision: str
) -> None:
    with needs.precision():
        engine = engines.create(exported, engine="openvino", precision=precision)

    actual = engine.run(Cut.EXPLAIN_DEEP, batch)

    # In bfloat16 maxima become equal and activations cross zero, which moves single gradients.
    limit = 2e-3 if precision == "float32" else 0.3
    for name, value in expected.items():
        signed = expected.get(f"hirescam_{name.partition('_')[2]}", expected["hirescam"])
        cut = name.startswith(("gradcam", "layercam"))  # by a ReLU, to less
        scale = max(np.linalg.norm(value), np.linalg.norm(signed) if cut else 0)
        assert np.linalg.norm(actual[name] - value) <= limit * scale + 1e-5, name


def test_service_answers_gradcam_and_refuses_cam(exported: Bundle) -> None:
    photo = dataset().train[0].read()
    predict, gradcam, cam = post_photo(
        exported.path, photo, "/predict", "/gradcam?layers=last6", "/cam"
    )

    assert predict.status_code == gradcam.status_code == 200
    assert gradcam.json()["explanation"]["layers"] == LAYERS
    assert cam.status_code == 409
    assert cam.headers["content-type"] == "application/problem+json"
    assert "/gradcam" in cam.text
