"""The 120 breeds out of ImageNet's 1000 classes, with weights that are made here."""

from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from app.bundle import load
from tests.training.asking import ask
from tests.training.commands import hint
from tests.training.pictures import photo
from training import cli, gradients
from training.architectures import RESNET50_LAYERS, imagenet_resnet50
from training.bootstrap import COLUMNS, breeds
from training.errors import WeightsError
from training.hints import command


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.applications.ResNet50(weights=None, classifier_activation=None)


@pytest.fixture(scope="module")
def weights(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "imagenet.weights.h5"
    model.save_weights(path)
    return path


@pytest.fixture(scope="module")
def photos() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected(model: keras.Model, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    image = keras.applications.resnet50.preprocess_input(photos.astype(np.float32))
    chosen = [*range(151, 251), *range(252, 269), 273, 274, 275]
    return np.asarray(model(image, training=False))[:, chosen]


def test_columns_leave_the_dalmatian_out() -> None:
    assert len(COLUMNS) == len(set(COLUMNS)) == 120
    assert 251 not in COLUMNS
    assert (COLUMNS[0], COLUMNS[-4:]) == (151, (268, 273, 274, 275))


def test_logits_are_the_breeds_columns(
    weights: Path, photos: npt.NDArray[np.uint8], expected: npt.NDArray[np.float32]
) -> None:
    network = breeds(imagenet_resnet50(str(weights)))
    image = keras.applications.resnet50.preprocess_input(photos.astype(np.float32))
    stored = {node.name: dict(node.weights) for node in network.nodes}

    logits = gradients.run(network, stored, tf.constant(image))[network.nodes[-1].name]

    assert network.gap_dense
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_exported_model(
    weights: Path,
    tmp_path: Path,
    photos: npt.NDArray[np.uint8],
    expected: npt.NDArray[np.float32],
    capsys: pytest.CaptureFixture[str],
) -> None:
    cli.main(["bootstrap", "--weights", str(weights), "--models-dir", str(tmp_path)])

    bundle = load(tmp_path / "dogs120" / "1")
    assert hint(capsys.readouterr().err) == command("calibrate", "--model", bundle.path)
    card = bundle.card
    assert (card.architecture, card.head, card.input.size) == ("resnet50", "gap_dense", 224)
    assert card.layer_names == list(RESNET50_LAYERS)
    assert (card.foreground.rule, card.foreground.layers) == ("channel_sum", ())
    assert card.novelty is None
    assert (len(card.labels), card.labels[0].synset) == (120, "n02085620")
    assert "imagenet.weights.h5" in card.provenance
    assert str(weights.parent) not in card.model_dump_json()
    predict = tf.saved_model.load(str(bundle.path)).signatures["predict"]
    logits = predict(image=tf.constant(photos))["logits"].numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits, expected, rtol=0.02, atol=0.02 * scale)
    (answer,) = ask(bundle.path, photo(0, 0).read(), "/predict")
    assert answer.status_code == 200
    assert answer.json()["confidence"] is None  # not calibrated


def test_weights_without_the_top_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "notop.weights.h5"
    keras.applications.ResNet50(weights=None, include_top=False).save_weights(path)

    with pytest.raises(WeightsError, match=r"notop\.weights\.h5 holds no weights .* with its top"):
        imagenet_resnet50(str(path))


def test_download_out_of_reach_says_what_to_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An address that refuses at once stands for a machine without internet.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(keras.config, "keras_home", lambda: str(tmp_path), raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    with pytest.raises(SystemExit, match=r"^error: .*kernels\.h5 .* ~/\.keras/models") as ended:
        cli.main(["bootstrap", "--models-dir", str(tmp_path)])

    assert "\n" not in str(ended.value.code)
