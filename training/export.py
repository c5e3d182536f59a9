"""A network and its explanations as one SavedModel with one full signature."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from app.bundle import (
    Architecture,
    Data,
    Foreground,
    Input,
    Label,
    Layer,
    ModelCard,
    Novelty,
    checksums,
)
from training import architectures, gradients, methods, terms
from training.config import TrainConfig
from training.data import load_dataset
from training.dataset import Example, check_fingerprint
from training.errors import ExportError, RunError
from training.foreground import Projection, channel_sum
from training.gradients import shapes
from training.keras_reader import from_keras
from training.layers import exposed
from training.network import Network
from training.novelty import Residual
from training.preprocessing import Preprocessing
from training.survey import Survey, choose, survey

__all__ = [
    "ExplainedNetwork",
    "check_free",
    "export_network",
    "export_run",
    "next_version",
    "write",
]

Tensor: TypeAlias = tf.Tensor


class ExplainedNetwork(tf.Module):  # type: ignore[misc]
    """A network with its explanations, ready to be saved.

    Kernels are stored as float16, everything else as float32; all arithmetic is float32.
    """

    def __init__(
        self,
        network: Network,
        *,
        input_size: int,
        layers: Sequence[str],
        projections: dict[str, Projection],
        residual: Residual | None = None,
        preprocessing: Preprocessing = Preprocessing.CAFFE,
        kernel_dtype: tf.DType = tf.float16,
    ) -> None:
        """Take a network over.

        Args:
            network: takes what `preprocessing` makes.
            input_size: pixels of the square input.
            layers: names of the layers to expose, first to last; the last one is the last
                activation before the head.
            projections: of each of `layers`.
            residual: what `novelty` measures; None leaves that output out.
            preprocessing: what the network wants done to photos.
            kernel_dtype: how kernels are stored.

        Raises:
            ExportError: the head is one for CAM and the last layer is not what it pools.
        """
        super().__init__()
        if network.pooled not in (None, layers[-1]):
            raise ExportError(f"The last layer is {network.pooled!r}, not {layers[-1]!r}.")
        self._preprocess, self.network = preprocessing.folded_into(network)
        self.input_size = input_size
        self.layers = tuple(layers)
        self._weights = {
            node.name: {
                name: tf.Variable(
                    value, dtype=kernel_dtype if name == "kernel" else tf.float32, trainable=False
                )
                for name, value in node.weights.items()
            }
            for node in self.network.nodes
        }
        self._projections = {layer: _variables(projections[layer]) for layer in layers}
        self._residual: tuple[tf.Variable, tf.Variable] | None = None
        if residual is not None:
            directions = tf.Variable(residual.directions, dtype=kernel_dtype, trainable=False)
            self._residual = directions, tf.Variable(residual.offset, trainable=False)
        image = tf.TensorSpec((None, input_size, input_size, 3), tf.uint8, name="image")
        index = {
            name: tf.TensorSpec((None,), tf.int32, name=name)
            for name in ("class_index", "versus_index")
        }
        self.predict = tf.function(self._predict, input_signature=[image], autograph=False)
        self.serve = tf.function(
            self._serve,
            input_signature=[image, index["class_index"], index["versus_index"]],
            autograph=False,
        )

    @property
    def map_sizes(self) -> tuple[Layer, ...]:
        """The exposed layers with their maps' sizes."""
        outputs = self.serve.get_concrete_function().structured_outputs
        return tuple(
            Layer(
                name=layer,
                height=outputs[f"gradcam_{layer}"].shape[1],
                width=outputs[f"gradcam_{layer}"].shape[2],
            )
            for layer in self.layers
        )

    def _predict(self, image: Tensor) -> dict[str, Tensor]:
        values = gradients.run(self.network, self._weights, self._preprocess(image))
        logits = values[self.network.nodes[-1].name]
        return {"logits": tf.identity(logits), "probabilities": tf.nn.softmax(logits)}

    def _serve(self, image: Tensor, class_index: Tensor, versus_index: Tensor) -> dict[str, Tensor]:
        values = gradients.run(self.network, self._weights, self._preprocess(image))
        logits = values[self.network.nodes[-1].name]
        own = tf.argmax(logits, axis=-1, output_type=tf.int32)
        target = tf.where(class_index < 0, own, class_index)
        seed = _one_hot(target, self.network.classes) - _one_hot(versus_index, self.network.classes)
        slopes = gradients.run_backward(self.network, self._weights, values, seed, self.layers)

        outputs = {
            "logits": logits,
            "probabilities": tf.nn.softmax(logits),
            "target_index": target,
        }
        for layer in self.layers[:-1]:
            maps = self._maps(layer, values[layer], slopes[layer])
            outputs.update({f"{name}_{layer}": value for name, value in maps.items()})
        last = self.layers[-1]
        head = self._class_weights(seed) if self.network.gap_dense else None
        maps = self._maps(last, values[last], slopes[last], head)
        outputs.update(maps)
        outputs.update({f"{name}_{last}": value for name, value in maps.items() if name != "cam"})
        if self._residual is not None:
            features = values[self.network.nodes[-1].inputs[0]]
            directions, offset = self._residual
            outputs["novelty"] = methods.novelty(features, tf.cast(directions, tf.float32), offset)
        return {name: tf.identity(value, name=name) for name, value in outputs.items()}

    def _class_weights(self, seed: Tensor) -> Tensor:
        """The last Dense layer's of each row's class, less those of the one it is held against."""
        kernel = self._weights[self.network.nodes[-1].name]["kernel"]
        return tf.linalg.matmul(seed, tf.cast(kernel, tf.float32), transpose_b=True)

    def _maps(
        self, layer: str, A: Tensor, G: Tensor, head: Tensor | None = None
    ) -> dict[str, Tensor]:
        direction, offset = self._projections[layer]
        return methods.maps(A, G, direction, offset, head)


def _variables(projection: Projection) -> tuple[tf.Variable, tf.Variable]:
    """Its direction and offset."""
    offset = tf.Variable(np.float32(projection.offset), trainable=False)
    return tf.Variable(projection.direction, trainable=False), offset


def _one_hot(index: Tensor, classes: int) -> Tensor:
    """float32 `[N, classes]`; a row of zeros for a negative index, on every engine alike."""
    return tf.cast(tf.equal(tf.reshape(index, (-1, 1)), tf.range(classes)), tf.float32)


def write(
    explained: ExplainedNetwork, version_dir: Path, card: ModelCard, *, overwrite: bool = False
) -> ModelCard:
    """Save `explained` and its `model.json`; the directory appears whole or not at all.

    First, a version that an export had put aside when it was killed is put back.

    Args:
        explained: the network.
        version_dir: `models/<name>/<version>`.
        card: without checksums, which are filled in here.
        overwrite: whether a version that is there already may be replaced.

    Returns:
        The card as written.

    Raises:
        ExportError: the version exists, or its directory does not match the card.
    """
    if (version_dir.parent.name, version_dir.name) != (card.name, str(card.version)):
        raise ExportError(f"{version_dir} is not the place of {card.name} version {card.version}.")
    check_free(version_dir, overwrite=overwrite)
    draft = version_dir.with_name(f".{version_dir.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    tf.saved_model.save(
        explained,
        str(draft),
        signatures={"serving_default": explained.serve, "predict": explained.predict},
        options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
    )
    for empty in [path for path in draft.iterdir() if path.is_dir() and not any(path.iterdir())]:
        empty.rmdir()
    card = card.model_copy(update={"checksums": checksums(draft)})
    card.write(draft)
    _put_in_place(draft, version_dir)
    return card


def _recover(model_dir: Path) -> None:
    """End what `_put_in_place` had begun: put old versions back, or away if there are new ones."""
    for aside in list(model_dir.glob(".[0-9]*.old")):
        version_dir = aside.with_name(_number(aside))
        if version_dir.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(version_dir)


def _number(place: Path) -> str:
    """Of a version, in its place or aside."""
    return place.name.removeprefix(".").removesuffix(".old")


def _put_in_place(draft: Path, version_dir: Path) -> None:
    """Rename `draft` to `version_dir`; a version that is there stays whole until then."""
    aside = version_dir.with_name(f".{version_dir.name}.old")
    if version_dir.exists():
        version_dir.rename(aside)
    try:
        draft.rename(version_dir)
    except OSError:
        if aside.exists():
            aside.rename(version_dir)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def export_run(
    run_dir: Path,
    version_dir: Path,
    *,
    photos: int,
    licence: str = "",
    provenance: str = "",
    overwrite: bool = False,
) -> ModelCard:
    """Export the best epoch of a training run.

    Args:
        run_dir: where `python -m training train` left it.
        version_dir: `models/<name>/<version>`.
        photos: training photos at most, to learn the foreground and what is novel from.
        licence: of the weights, for `model.json`; empty: see `terms.of_run`.
        provenance: of the weights, for `model.json`; empty: what the run started from.
        overwrite: whether a version that is there already may be replaced.

    Raises:
        RunError: no run there, or none with a finished epoch.
        ExportError: the version exists.
        DataError: the run's photos are gone.
    """
    config, weights_path = TrainConfig.of_run(run_dir), run_dir / "best.weights.h5"
    if not weights_path.exists():
        raise RunError(f"{run_dir} holds no run with a finished epoch.")
    check_free(version_dir, overwrite=overwrite)
    dataset = load_dataset(config)
    check_fingerprint(run_dir, dataset)
    classes, size = len(dataset.labels), config.input_size
    model = architectures.build(config.architecture, classes, input_size=size)
    model.load_weights(weights_path)
    return export_network(
        from_keras(model),
        version_dir,
        architecture=config.architecture,
        labels=dataset.labels,
        input_size=size,
        preprocessing=architectures.preprocessing(config.architecture),
        examples=choose(dataset.train, photos, config.seed),
        training=config.public(),
        data=Data(name=dataset.name, splits=dataset.sizes),
        licence=licence or terms.of_run(config),
        provenance=provenance or terms.origin_of_run(config, dataset.name),
        overwrite=overwrite,
    )


def export_network(
    network: Network,
    version_dir: Path,
    *,
    architecture: Architecture,
    labels: tuple[Label, ...],
    input_size: int,
    preprocessing: Preprocessing,
    examples: Sequence[Example] = (),
    training: dict[str, Any] | None = None,
    data: Data | None = None,
    licence: str = "",
    provenance: str = "",
    overwrite: bool = False,
) -> ModelCard:
    """Export a network, with what `survey` learns from training photos.

    Args:
        network: takes what `preprocessing` makes.
        version_dir: `models/<name>/<version>`.
        architecture: for `model.json`.
        labels: one for each class.
        input_size: pixels of the square input.
        preprocessing: what the network wants done to photos.
        examples: training photos to learn the foreground and what is novel from; without any,
            `foreground` is the sum over channels, and novelty is not measured.
        training: the configuration of its training, for `model.json`.
        data: what it was trained on, for `model.json`.
        licence: of the weights, for `model.json`.
        provenance: of the weights, for `model.json`.
        overwrite: whether a version that is there already may be replaced.

    Raises:
        ExportError: the version exists, or the network has no layer to expose or does not take
            photos of that size.
    """
    check_free(version_dir, overwrite=overwrite)
    layers, sizes = exposed(network, input_size), shapes(network, input_size)
    learnt: Survey | None = None
    projections = {layer: channel_sum(sizes[layer][-1]) for layer in layers}
    if examples:
        learnt = survey(network, layers, examples, size=input_size, preprocessing=preprocessing)
        projections = learnt.projections
    explained = ExplainedNetwork(
        network,
        input_size=input_size,
        layers=layers,
        projections=projections,
        residual=learnt.residual if learnt else None,
        preprocessing=preprocessing,
    )
    card = ModelCard(
        name=version_dir.parent.name,
        version=int(version_dir.name),
        architecture=architecture,
        head="gap_dense" if explained.network.gap_dense else "other",
        input=Input(size=input_size),
        labels=labels,
        layers=explained.map_sizes,
        foreground=_foreground(learnt),
        novelty=_novelty(learnt),
        training=training or {},
        data=data,
        licence=licence,
        provenance=provenance,
    )
    return write(explained, version_dir, card, overwrite=overwrite)


def _foreground(learnt: Survey | None) -> Foreground:
    """What the card says of the foreground."""
    if learnt is None:
        return Foreground(rule="channel_sum", photos=0)
    return Foreground(rule=learnt.rule, photos=learnt.photos, layers=learnt.layers)


def _novelty(learnt: Survey | None) -> Novelty | None:
    """What the card says of novelty."""
    if learnt is None or learnt.residual is None:
        return None
    return Novelty(dimensions=learnt.residual.dimensions, photos=learnt.surveyed)


def check_free(version_dir: Path, *, overwrite: bool) -> None:
    """Make sure, before the work, that a version may be written there.

    First, a version that an export had put aside when it was killed is put back.

    Raises:
        ExportError: the version exists, and may not be replaced.
    """
    _recover(version_dir.parent)
    if version_dir.exists() and not overwrite:
        raise ExportError(f"{version_dir} exists already: pass another --version or --overwrite.")


def next_version(model_dir: Path) -> int:
    """One more than the greatest version in `models/<name>`."""
    if not model_dir.is_dir():
        return 1
    numbers = map(_number, model_dir.iterdir())
    return 1 + max((int(number) for number in numbers if number.isdecimal()), default=0)
