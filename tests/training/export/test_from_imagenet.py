"""The 120 breeds out of ImageNet's 1000 classes, with weights that are made here."""

from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from app.bundle import load
from tests.training.command_line import hint
from tests.training.lite2_tensors import Arrays
from tests.training.pictures import photo
from tests.training.service_client import get_model, post_photo
from tests.training.small_networks import RESNET50_LAYERS
from training import cli
from training.data import labels
from training.errors import ExportError
from training.export import terms
from training.export.from_imagenet import bootstrap, breeds
from training.graph import gradients
from training.hints import command
from training.networks.imagenet import COLUMNS
from training.networks.resnet50 import with_top


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
def parts(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The model's backbone and its final layer, in files of their own."""
    directory = tmp_path_factory.mktemp("parts")
    backbone = keras.Model(model.input, model.get_layer("avg_pool").output)
    backbone.save_weights(directory / "notop.weights.h5")
    kernel, bias = model.get_weights()[-2:]
    np.savez(directory / "head.npz", kernel=kernel, bias=bias)
    return directory / "notop.weights.h5", directory / "head.npz"


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
    network = breeds(with_top(str(weights)))
    image = keras.applications.resnet50.preprocess_input(photos.astype(np.float32))
    stored = {node.name: dict(node.weights) for node in network.nodes}

    logits = gradients.run(network, stored, tf.constant(image))[network.nodes[-1].name]

    assert network.gap_dense
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.slow
def test_exported_model(
    weights: Path,
    tmp_path: Path,
    photos: npt.NDArray[np.uint8],
    expected: npt.NDArray[np.float32],
    capsys: pytest.CaptureFixture[str],
) -> None:
    cli.main(["bootstrap", "--weights", str(weights), "--models-dir", str(tmp_path)])

    bundle = load(tmp_path / "imagenet" / "1")
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
    (answer,) = post_photo(bundle.path, photo(0, 0).read(), "/predict")
    assert answer.status_code == 200
    assert answer.json()["confidence"] is None  # not calibrated
    described = get_model(bundle.path)
    assert described["licence"] == card.licence == terms.IMAGENET
    assert described["provenance"] == card.provenance


def _write_breeds(directory: Path) -> None:
    """A picture of every breed to train on, and another to validate with."""
    for split, seed in (("train", 0), ("validation", 1)):
        for label in labels.read(labels.STANFORD_DOGS):
            folder = directory / split / f"{label.synset}-{label.name.replace(' ', '_')}"
            folder.mkdir(parents=True)
            (folder / "dog.png").write_bytes(photo(label.index, seed).read())


def test_exported_model_of_efficientnet_lite2(
    lite2_weights: Path, lite2_arrays: Arrays, tmp_path: Path
) -> None:
    network = ["--architecture", "efficientnet_lite2", "--input-size", "64"]
    places = ["--weights", str(lite2_weights), "--models-dir", str(tmp_path), "--name", "lite"]

    cli.main(["bootstrap", *network, *places])

    bundle = load(tmp_path / "lite" / "1")
    card = bundle.card
    assert (card.architecture, card.head, card.input.size) == (
        "efficientnet_lite2",
        "gap_dense",
        64,
    )
    assert card.licence == terms.LITE2
    assert card.provenance.startswith("lite2.pth: the 120 columns")
    # The last layer's map, with the columns' weights on its mean, gives the breeds' logits.
    graph = tf.saved_model.load(str(bundle.path)).signatures["serving_default"]
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    chosen = {
        name: tf.constant([index], tf.int32)
        for name, index in (("class_index", 7), ("versus_index", -1))
    }
    outputs = graph(image=tf.constant(image), **chosen)
    bias = lite2_arrays["_fc.bias"][COLUMNS[7]]
    np.testing.assert_allclose(
        outputs["cam"].numpy().mean() + bias, outputs["logits"].numpy()[0, 7], rtol=1e-3, atol=1e-3
    )


@pytest.mark.slow
def test_exported_model_of_backbone_and_head_with_photos(
    parts: tuple[Path, Path],
    tmp_path: Path,
    photos: npt.NDArray[np.uint8],
    expected: npt.NDArray[np.float32],
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "breeds"
    _write_breeds(data)
    files = ["--weights", str(parts[0]), "--head", str(parts[1])]
    source = ["--source", "folder", "--data-dir", str(data)]
    options = ["--photos", "8", "--licence", "mine", "--models-dir", str(tmp_path / "m")]

    cli.main(["bootstrap", *files, *source, *options])

    bundle = load(tmp_path / "m" / "imagenet" / "1")
    assert hint(capsys.readouterr().err) == command("calibrate", "--model", bundle.path, *source)
    card = bundle.card
    assert (card.foreground.rule, card.foreground.photos) == ("ddt", 8)
    assert card.foreground.layers == ("conv4_block6_out", "conv5_block3_out")
    assert card.novelty is not None
    assert (card.novelty.dimensions, card.novelty.photos) == (2, 8)
    assert card.licence == "mine"
    assert card.provenance.startswith("notop.weights.h5 and head.npz: ")
    predict = tf.saved_model.load(str(bundle.path)).signatures["predict"]
    logits = predict(image=tf.constant(photos))["logits"].numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits, expected, rtol=0.02, atol=0.02 * scale)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--head", "{head}"], "--head FILE goes with a weights file without the top"),
        (["--weights", "none.h5"], "--weights none.h5 does not exist."),
        (["--weights", "{notop}", "--head", "none.npz"], "--head none.npz does not exist."),
        (["--weights", "{notop}", "--head", "{notop}"], "--head .* is not an .npz file of arrays"),
        (["--weights", "{top}", "--head", "{head}"], ".* includes the top: leave out --head."),
        (["--weights", "{notop}"], ".* holds no weights .* with the top: pass .* as --head FILE."),
        (["--weights", "{head}"], r".* is not a Keras weights file \(HDF5\)."),
        (["--weights", "{other}", "--head", "{head}"], ".* of a ResNet50 without the top: "),
        (
            ["--architecture", "efficientnet_lite2", "--weights", "{top}"],
            ".* holds no tensors in PyTorch's format before version 1.6: ",
        ),
        (
            ["--architecture", "efficientnet_lite2", "--head", "{head}"],
            "--head FILE goes with a ResNet50: the weights of efficientnet_lite2 include",
        ),
        (["--photos", "10"], "--photos has no effect without --data-dir or --source."),
        (["--boxes", "boxes.csv"], "--boxes has no effect without --data-dir or --source."),
    ],
)
def test_files_that_do_not_go_together(
    options: list[str], message: str, weights: Path, parts: tuple[Path, Path], tmp_path: Path
) -> None:
    conv_weights = tmp_path / "other.weights.h5"
    image = keras.Input((8, 8, 3))
    keras.Model(image, keras.layers.Conv2D(4, 3)(image)).save_weights(conv_weights)
    names = {"top": weights, "notop": parts[0], "head": parts[1], "other": conv_weights}
    arguments = [option.format(**names) for option in options]

    with pytest.raises(SystemExit, match=f"^error: {message}") as ended:
        cli.main(["bootstrap", "--models-dir", str(tmp_path / "models"), *arguments])

    assert "\n" not in str(ended.value.code)
    assert not (tmp_path / "models").exists()


def test_version_that_is_there_is_seen_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "dogs120" / "3").mkdir(parents=True)

    with pytest.raises(ExportError, match="already exists"):
        bootstrap(tmp_path / "dogs120" / "3", weights="none.h5")


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
