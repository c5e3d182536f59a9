from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from app import engines
from app.bundle import Bundle, Foreground, Input, Label, ModelCard, Novelty, load
from app.engines import Engine
from tests.training.lite2_tensors import Arrays, lite2_tensors
from tests.training.small_networks import LAYERS, small_resnet
from tests.training.tfds_directory import write_stanford_dogs
from tests.training.torch_files import write as write_torch_file
from training.export.explained import ExplainedNetwork
from training.export.foreground import Projection, fused_layers
from training.export.novelty import Residual
from training.export.versions import write
from training.fit import history
from training.graph.keras_reader import from_keras
from training.networks import resnet50 as resnet50s

SIZE, CLASSES = 32, 5


@pytest.fixture(autouse=True)
def _float32() -> None:
    """Graphs in float32, whatever a test before chose: TensorFlow keeps this for the process."""
    tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": False})


@pytest.fixture(scope="session", autouse=True)
def _without_curves() -> Iterator[None]:
    """Their picture takes longer than an epoch here. `test_run` draws it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "plot", lambda _path: None)
        yield


@pytest.fixture(scope="session")
def keras_model() -> keras.Model:
    return small_resnet(size=SIZE, classes=CLASSES)


@pytest.fixture(scope="session")
def resnet50() -> keras.Model:
    """Of seven classes, for 64 x 64 pixels, with random weights: it takes seconds to build."""
    return resnet50s.resnet50(7, input_size=64)


@pytest.fixture(scope="session")
def lite2_arrays() -> Arrays:
    return lite2_tensors()


@pytest.fixture(scope="session")
def lite2_weights(lite2_arrays: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("lite2") / "lite2.pth"
    path.write_bytes(write_torch_file(lite2_arrays))
    return path


@pytest.fixture(scope="session")
def projections(keras_model: keras.Model) -> dict[str, Projection]:
    rng = np.random.default_rng(11)
    channels = {name: keras_model.get_layer(name).output.shape[-1] for name in LAYERS}
    return {
        name: Projection(rng.normal(0, 1, count).astype(np.float32), float(rng.normal(0, 1)))
        for name, count in channels.items()
    }


@pytest.fixture(scope="session")
def residual(keras_model: keras.Model) -> Residual:
    """Along any directions, not those in which features vary least: much is left."""
    rng = np.random.default_rng(12)
    width = keras_model.layers[-1].input.shape[-1]
    directions = np.linalg.qr(rng.normal(0, 1, (width, width - 5))).Q
    offset = rng.normal(0, 1, width) @ directions
    return Residual(5, directions.astype(np.float32), offset.astype(np.float32))


@pytest.fixture(scope="session")
def explained(
    keras_model: keras.Model, projections: dict[str, Projection], residual: Residual
) -> ExplainedNetwork:
    return ExplainedNetwork(
        from_keras(keras_model),
        input_size=SIZE,
        layers=LAYERS,
        projections=projections,
        residual=residual,
    )


@pytest.fixture(scope="session")
def card(explained: ExplainedNetwork) -> ModelCard:
    return ModelCard(
        name="small",
        version=3,
        architecture="resnet50",
        head="gap_dense",
        input=Input(size=SIZE),
        labels=tuple(Label(index=i, name=f"class {i}") for i in range(CLASSES)),
        layers=explained.map_sizes,
        foreground=Foreground(
            rule="channel_sum",
            photos=0,
            layers=fused_layers(
                {layer.name: (layer.height, layer.width) for layer in explained.map_sizes}
            ),
        ),
        novelty=Novelty(dimensions=5, photos=20),
    )


@pytest.fixture(scope="session")
def small_bundle(
    explained: ExplainedNetwork, card: ModelCard, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    version_dir: Path = tmp_path_factory.mktemp("models") / "small" / "3"
    write(explained, version_dir, card)
    return load(version_dir)


@pytest.fixture(scope="session")
def engine(small_bundle: Bundle) -> Iterator[Engine]:
    engine = engines.create(small_bundle, engine="openvino", precision="float32")
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared TFDS directory of pictures made here."""
    data_dir = tmp_path_factory.mktemp("tfds")
    write_stanford_dogs(data_dir)
    return data_dir
