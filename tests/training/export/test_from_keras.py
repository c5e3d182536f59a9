"""A user's own Keras classifier, from its file to the engine that serves it."""

from pathlib import Path

import keras
import numpy as np
import pytest

from app import engines
from app.bundle import load
from app.engines import Batch, Cut
from tests.needs import shared
from tests.training.command_line import hint
from tests.training.pictures import photo
from tests.training.small_networks import NETWORKS, small_resnet, tiny_net
from training import cli
from training.errors import ExportError
from training.export import from_keras as keras_export
from training.export.from_keras import export_keras
from training.graph.keras_reader import from_keras
from training.hints import command
from training.networks.preprocessing import Preprocessing


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("red\nn02099601\tgolden retriever\nblue\ngreen\n", encoding="utf-8")
    return path


def _saved(model: keras.Model, path: Path) -> Path:
    model.save(path)
    return path


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize(
    ("name", "file", "head"),
    [
        pytest.param("plain", "own.keras", "other", marks=pytest.mark.slow),
        pytest.param("nested", "own.h5", "gap_dense", marks=pytest.mark.slow),
        ("mobile", "own.keras", "gap_dense"),
    ],
)
def test_exported_model_predicts_what_keras_predicts(
    name: str, file: str, head: str, tmp_path: Path, labels: Path
) -> None:
    model = NETWORKS[name][0]()
    path = _saved(model, tmp_path / file)

    where = ["--models-dir", str(tmp_path / "models"), "--name", "own", "--licence", "mine"]
    cli.main(["export", "--keras", str(path), "--labels", str(labels), *where])

    bundle = load(tmp_path / "models" / "own" / "1")
    card = bundle.card
    assert (card.architecture, card.head, card.licence) == ("keras", head, "mine")
    assert card.layer_names == list(NETWORKS[name][1])
    assert (card.foreground.rule, card.foreground.photos) == ("channel_sum", 0)
    assert card.novelty is None
    assert [(label.synset, label.name) for label in card.labels][:2] == [
        (None, "red"),
        ("n02099601", "golden retriever"),
    ]
    size = card.input.size
    image = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    index = np.full(4, -1, np.int32)
    engine = engines.create(bundle, engine="openvino", precision="float32")
    actual = engine.run(Cut.EXPLAIN_DEEP, Batch(image, index, index))
    expected = np.asarray(model(image.astype(np.float32), training=False))
    output = "logits" if name == "mobile" else "probabilities"  # the others end in a softmax
    np.testing.assert_allclose(actual[output], expected, rtol=0.05, atol=0.02)
    assert np.ptp(expected) > 0.2  # ten times the tolerance: classes are told apart


def test_caffe_preprocessing_and_a_requested_size(tmp_path: Path, labels: Path) -> None:
    image = keras.Input((None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, name="conv")(image))
    model = keras.Model(image, keras.layers.Dense(4)(pooled))
    path = _saved(model, tmp_path / "own.keras")

    export_keras(
        path,
        labels,
        tmp_path / "own" / "1",
        input_size=20,
        preprocessing=Preprocessing.CAFFE,
    )

    bundle = load(tmp_path / "own" / "1")
    assert bundle.card.input.size == 20
    photos = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3), dtype=np.uint8)
    index = np.full(2, -1, np.int32)
    engine = engines.create(bundle, engine="openvino", precision="float32")
    actual = engine.run(Cut.PREDICT, Batch(photos, index, index))["logits"]
    preprocessed = keras.applications.resnet50.preprocess_input(photos.astype(np.float32))
    np.testing.assert_allclose(actual, model(preprocessed), rtol=0.01, atol=0.05)


def _write_classes(directory: Path) -> None:
    """Four pictures to train on of each of the labels' classes, and one to validate with."""
    names = ("red", "n02099601-golden_retriever", "blue", "green")
    for index, name in enumerate(names):
        for split, seeds in (("train", range(4)), ("validation", range(4, 5))):
            folder = directory / split / name
            folder.mkdir(parents=True)
            for seed in seeds:
                (folder / f"{seed}.png").write_bytes(photo(index, seed).read())


@pytest.mark.slow
def test_photos_teach_foreground_and_novelty(
    tmp_path: Path, labels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _saved(NETWORKS["nested"][0](), tmp_path / "own.keras")
    data = tmp_path / "photos"
    _write_classes(data)
    model = ["--keras", str(path), "--labels", str(labels), "--name", "own"]
    source = ["--source", "folder", "--data-dir", str(data)]
    options = ["--photos", "12", "--models-dir", str(tmp_path / "models")]

    cli.main(["export", *model, *source, *options])

    bundle = load(tmp_path / "models" / "own" / "1")
    assert hint(capsys.readouterr().err) == command("calibrate", "--model", bundle.path, *source)
    card = bundle.card
    assert (card.foreground.rule, card.foreground.photos) == ("ddt", 12)
    assert card.foreground.layers == ("early_out", "last_out")
    assert card.novelty is not None
    assert (card.novelty.dimensions, card.novelty.photos) == (3, 12)
    assert card.licence == ""  # nothing is known of it


def test_photos_of_other_classes_are_refused(tmp_path: Path, labels: Path) -> None:
    path = _saved(NETWORKS["nested"][0](), tmp_path / "own.keras")
    data = tmp_path / "photos"
    _write_classes(data)
    (data / "train" / "green").rename(data / "train" / "grey")
    (data / "validation" / "green").rename(data / "validation" / "grey")

    model = ["--keras", str(path), "--labels", str(labels), "--models-dir", str(tmp_path)]
    source = ["--source", "folder", "--data-dir", str(data)]

    with pytest.raises(SystemExit, match=r"to the model: grey\. Missing from the data: green"):
        cli.main(["export", *model, *source])


def _classifier(
    shape: tuple[int | None, ...], layer: keras.layers.Layer | None = None
) -> keras.Model:
    x = image = keras.Input(shape)
    if layer is not None:
        x = layer(x)
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(4)(pooled))


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (_classifier((None, None, 3)), [], "pass --input-size"),
        (_classifier((16, 16, 3)), ["--input-size", "24"], "16 pixels wide"),
        (_classifier((16, 24, 3)), [], "16 x 24"),
        (_classifier((16, 16, 1)), [], r"not \[None, 16, 16, 1\]"),
        (_classifier((16, 16, 3)), [], "no layer with a map"),
        (_classifier((16, 16, 3), keras.layers.UnitNormalization(name="odd")), [], "'odd'"),
        (small_resnet(classes=5), [], "lists 4 classes, but .* has 5"),
    ],
)
def test_model_that_does_not_do(
    model: keras.Model,
    options: list[str],
    message: str,
    tmp_path: Path,
    labels: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = _saved(model, tmp_path / "own.keras")

    with pytest.raises(SystemExit, match=f"^error: .*{message}") as ended:
        cli.main(["export", "--keras", str(path), "--labels", str(labels), *options])

    assert "\n" not in str(ended.value.code)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("kind", ["missing", "junk.keras", "junk.h5", "weights"])
def test_file_that_does_not_do(kind: str, tmp_path: Path, labels: Path) -> None:
    path = tmp_path / kind
    if kind.startswith("junk"):
        path.write_bytes(b"no model")
    elif kind == "weights":
        path = tmp_path / "own.weights.h5"
        small_resnet().save_weights(path)

    with pytest.raises(ExportError, match=path.name) as caught:
        export_keras(path, labels, tmp_path / "own" / "1")

    assert "\n" not in str(caught.value)


def test_labels_are_needed(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--labels FILE"):
        cli.main(["export", "--keras", str(tmp_path / "own.keras")])


def test_model_that_is_misread_is_not_exported(
    tmp_path: Path, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _saved(NETWORKS["mobile"][0](), tmp_path / "own.keras")
    monkeypatch.setattr(
        keras_export, "from_keras", lambda model: from_keras(model).with_classes([1, 0, 3, 2])
    )

    with pytest.raises(ExportError, match="does not compute what Keras does"):
        export_keras(path, labels, tmp_path / "own" / "1")


def _classes(path: Path, count: int) -> Path:
    path.write_text("".join(f"breed {index}\n" for index in range(count)), encoding="utf-8")
    return path


@pytest.mark.parametrize("packed", ["dictionary", "list"])
def test_input_and_output_in_a_structure(packed: str, tmp_path: Path, labels: Path) -> None:
    model = tiny_net(4)
    output = keras.layers.Softmax()(model.output)
    inputs, outputs = (
        ({"image_input": model.input}, {"breed": output})
        if packed == "dictionary"
        else ([model.input], [output])
    )
    path = _saved(keras.Model(inputs, outputs), tmp_path / "own.keras")

    card = export_keras(path, labels, tmp_path / "own" / "1", input_size=16)

    assert (len(card.labels), card.head) == (4, "gap_dense")


@pytest.mark.parametrize(
    ("case", "classes", "message"),
    [
        ("all-nan", 5, "Layer 'conv2d_8': 216 values are NaN or infinite.*'kernel'"),
        ("newer-version", 5, "Keras 4.0.0 wrote .*'conv2d': .*'brand_new_option'"),
        ("dense1-logit", 1, "one output, which tells two classes apart"),
    ],
)
def test_specimen_that_is_refused(case: str, classes: int, message: str, tmp_path: Path) -> None:
    path = shared(f"cases/keras-{case}.keras")
    names = _classes(tmp_path / "labels.txt", classes)

    with pytest.raises(SystemExit, match=message) as ended:
        cli.main(
            ["export", "--keras", str(path), "--labels", str(names), "--models-dir", str(tmp_path)]
        )

    assert "\n" not in str(ended.value.code)
    assert not (tmp_path / "dogs").exists()


@pytest.mark.parametrize(
    ("case", "classes"),
    [
        pytest.param("dict-output", 5, marks=pytest.mark.slow),
        pytest.param("kernel-70000", 5, marks=pytest.mark.slow),
        pytest.param("preprocess-resnet50", 5, marks=pytest.mark.slow),
        ("dense1-logit", 2),
    ],
)
def test_specimen_predicts_what_keras_predicts(case: str, classes: int, tmp_path: Path) -> None:
    path = shared(f"cases/keras-{case}.keras")
    names = _classes(tmp_path / "labels.txt", classes)
    export_keras(path, names, tmp_path / "own" / "1")
    photos = np.random.default_rng(5).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    index = np.full(4, -1, np.int32)

    engine = engines.create(load(tmp_path / "own" / "1"), engine="openvino", precision="float32")
    actual = engine.run(Cut.PREDICT, Batch(photos, index, index))["probabilities"]

    model = keras.models.load_model(path, compile=False)
    (expected,) = keras.tree.flatten(model(photos.astype(np.float32), training=False))
    if classes == 2:
        expected = keras.ops.concatenate(
            [1 - keras.ops.sigmoid(expected), keras.ops.sigmoid(expected)]
        )
        expected = np.asarray(expected).reshape(2, 4).T
    np.testing.assert_allclose(actual, expected, atol=0.005)


@pytest.mark.parametrize("command_name", ["export", "bootstrap"])
@pytest.mark.parametrize(
    "name", ["../../x", "..", ".", "", "/tmp/x", "a/b", "a\\b", "a\x1bb", "a\n", "x" * 65, ".x"]
)
def test_name_that_would_leave_the_models(
    command_name: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command_name, f"--name={name}", "--models-dir", str(tmp_path / "models")])

    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith("--name: ")
    assert "is not a valid model name" in error
    assert error.strip().isprintable()
    assert list(tmp_path.iterdir()) == []


def test_version_beyond_64_bits(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["export", "--version", "9" * 300])

    assert capsys.readouterr().err.startswith("--version: ")
