"""Which kernels are stored as float16, and whether what is exported computes what was trained.

float16 keeps 11 significant bits of values from 6e-5 to 65504:

    |w|                   float16(w)
    over 65504            infinite
    6e-5 .. 65504         w (1 + d), |d| <= 2^-11
    under 6e-5            w + d, |d| <= 3e-8: few bits are left, or none

Most kernels lie in the middle. A tiny one matters where a later layer scales its output up, so the
values alone do not tell. The network is therefore run with its kernels rounded and unrounded, on
the same photos, and kernels stay in float32 where rounding would change what it predicts.

Engines round kernels once more when they compute in bfloat16, which keeps 8 bits of float32's whole
range, or on some GPUs in float16. Where that would change too much, `model.json` says so.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from training.data.batches import inference_batches
from training.data.dataset import Example
from training.errors import ExportError
from training.export.explained import ExplainedNetwork
from training.graph import gradients
from training.graph.network import Network, Node
from training.networks.preprocessing import Preprocessing

__all__ = [
    "BFLOAT16_LIMIT",
    "LIMIT",
    "Change",
    "Rounding",
    "check_finite",
    "check_served",
    "choose",
    "logits",
    "probes",
]

Tensor: TypeAlias = tf.Tensor
Photos = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]

LIMIT = 0.01
"""How far a probability, or a logit as a share of the greatest, may move by rounding."""

BFLOAT16_LIMIT = 0.05
"""The same for bfloat16, whose rounding moves the probabilities of any network by a percent."""

_LOST = 2.0**-10
"""Rounding error of an output channel's kernel over its norm: twice what float16 usually has."""

_BATCH = 4
_REAL = 8
"""How many training photos join the probes, at most."""


@dataclass(frozen=True)
class Change:
    """How far logits `[N, classes]` lie from others, at most.

    Attributes:
        probability: between the probabilities, 0..1.
        logit: between the logits, each less its row's mean, as a share of the greatest of these
            (of 1, if that is less): what probabilities near 0 and 1 do not show.
    """

    probability: float
    logit: float

    @classmethod
    def between(cls, expected: Logits, actual: Logits) -> "Change":
        """The change from `expected`, which is finite; infinite where `actual` is not finite."""
        if not np.isfinite(actual).all():
            return cls(np.inf, np.inf)
        a, b = (values.astype(np.float64) for values in (expected, actual))
        a, b = (values - values.mean(axis=1, keepdims=True) for values in (a, b))
        greatest = max(1.0, float(np.abs(a).max()))
        return cls(
            float(np.abs(_softmax(a) - _softmax(b)).max()), float(np.abs(a - b).max()) / greatest
        )

    @property
    def small(self) -> bool:
        """Whether it is within `LIMIT`."""
        return self.within(LIMIT)

    def within(self, limit: float) -> bool:
        """Whether both are at most `limit`."""
        return self.probability <= limit and self.logit <= limit

    def __str__(self) -> str:
        """In words, for a message."""
        if not np.isfinite(self.probability):
            return "probabilities would no longer be numbers"
        return (
            f"probabilities would change by up to {self.probability:.2g} and logits by up to "
            f"{self.logit:.1%}"
        )


@dataclass(frozen=True)
class Rounding:
    """Which kernels stay in float32, and why.

    Attributes:
        float32: names of these kernels' nodes, in the order in which they run.
        kernels: number of kernels.
        change: by which all kernels in float16 would change what the network predicts.
        bfloat16: by which all kernels in bfloat16 would.
        logits: of the photos that it was measured on, unrounded: `[N, classes]`.
    """

    float32: tuple[str, ...]
    kernels: int
    change: Change
    bfloat16: Change
    logits: Logits

    @property
    def precision(self) -> Literal["float32"] | None:
        """The arithmetic that the network needs, for `model.json`; None: any will do.

        Kernels that float16 would damage hint at values that bfloat16 would damage on the way.
        """
        return "float32" if self.float32 or not self.bfloat16.within(BFLOAT16_LIMIT) else None

    def __str__(self) -> str:
        """In words, for a message; empty if there is nothing to say."""
        if self.precision is None:
            return ""
        served = (
            f"Rounded to bfloat16, {self.bfloat16}: BREEDCAM_PRECISION=auto serves this model in "
            "float32. Set nothing less."
        )
        return "\n".join(filter(None, [self._kept(), served]))

    def _kept(self) -> str:
        """Of a few layers, the names."""
        if not self.float32:
            return ""
        count = len(self.float32)
        if count == self.kernels:
            layers = "all kernels stay"
        else:
            names = ", ".join(map(repr, self.float32[:3])) + (", ..." if count > 3 else "")
            stay = "stays" if count == 1 else "stay"
            layers = f"{count} of {self.kernels} kernels ({names}) {stay}"
        return (
            f"Rounded to float16, {self.change} on {len(self.logits)} test images: {layers} in "
            "float32."
        )


def probes(size: int, examples: Sequence[Example] = ()) -> Photos:
    """Photos to try a network on: noise, fine and coarse; plain colours; and some of `examples`.

    Args:
        size: side of the square in pixels.
        examples: training photos.

    Returns:
        uint8 RGB `[N, size, size, 3]`, the same in every call.
    """
    rng = np.random.default_rng(0)
    noise = [_noise(rng, size, grain) for grain in (1, 1, 4, 16, 16, 64)]
    plain = [np.full((size, size, 3), colour) for colour in ((0, 0, 0), (90, 160, 230))]
    photos = np.stack([*noise, *plain]).astype(np.uint8)
    if not examples:
        return photos
    batches = inference_batches(examples[:_REAL], size=size, batch_size=_REAL)
    real, _labels = next(iter(batches))
    return np.concatenate([photos, np.rint(real.numpy()).astype(np.uint8)])


def _noise(rng: np.random.Generator, size: int, grain: int) -> npt.NDArray[np.float64]:
    """Random colours 0..255 in squares of `grain` pixels, `[size, size, 3]`."""
    squares = -(-size // grain)
    colours = rng.uniform(0, 256, (squares, squares, 3))
    return colours.repeat(grain, axis=0).repeat(grain, axis=1)[:size, :size]


def logits(network: Network, preprocessing: Preprocessing, photos: Photos) -> Logits:
    """A network's logits in float32, `[N, classes]`.

    Args:
        network: takes what `preprocessing` returns.
        preprocessing: what the network expects to be done to photos.
        photos: uint8 RGB `[N, S, S, 3]`.
    """
    return _forward(network, preprocessing, photos)(())


def choose(network: Network, preprocessing: Preprocessing, photos: Photos) -> Rounding:
    """Decide which kernels stay in float32: as few as it takes.

    Three choices are tried in turn: those alone that float16 cannot hold; then those too of which
    float16 would lose more than usual; then all.

    Args:
        network: takes what `preprocessing` returns.
        preprocessing: what the network expects to be done to photos.
        photos: uint8 RGB `[N, S, S, 3]`.

    Raises:
        ExportError: the network's own logits are not finite.
    """
    run = _forward(network, preprocessing, photos)
    kernels = [node.name for node in network.nodes if "kernel" in node.weights]
    expected = run(())
    check_finite(expected)
    losses = {name: _loss(network.node(name)) for name in kernels}
    change = Change.between(expected, run(kernels))
    too_great = tuple(name for name in kernels if np.isinf(losses[name]))
    damaged = tuple(name for name in kernels if losses[name] > _LOST)
    bfloat16 = Change.between(expected, run(kernels, tf.bfloat16))
    changes: dict[tuple[str, ...], Change] = {
        (): change
    }  # by what stays in float32: each takes a run
    for float32 in (too_great, damaged):
        if float32 not in changes:
            rounded = [name for name in kernels if name not in float32]
            changes[float32] = Change.between(expected, run(rounded))
        if changes[float32].small:
            return Rounding(float32, len(kernels), change, bfloat16, expected)
    return Rounding(tuple(kernels), len(kernels), change, bfloat16, expected)


def check_finite(outputs: npt.NDArray[np.floating[Any]]) -> None:
    """Refuse a model whose own outputs for photos, `[N, classes]`, are not finite.

    Raises:
        ExportError: some are NaN or infinite.
    """
    finite = np.isfinite(outputs).all(axis=1)
    if not finite.all():
        raise ExportError(
            f"On {len(outputs) - int(finite.sum())} of {len(outputs)} test images, the model's own "
            "output is NaN or infinite: values grow beyond float32 on the way."
        )


def check_served(explained: ExplainedNetwork, expected: Logits, photos: Photos) -> None:
    """Compare what is about to be saved with the network in float32.

    Args:
        explained: the graph, with its variables as they are saved.
        expected: the network's logits for `photos` in float32, `[N, classes]`.
        photos: uint8 RGB `[N, S, S, 3]`.

    Raises:
        ExportError: logits or probabilities differ by more than `LIMIT`, or an output but for
            those of foreground and novelty is not finite.
    """
    actual = []
    for batch in _batches(photos):
        index = tf.fill((len(batch),), -1)
        outputs = explained.serve(batch, index, index)
        for name, values in outputs.items():
            # Those say how a photo is unlike the training's: noise may well overflow them, and is
            # then served with low confidence.
            of_doubt = name.startswith(("foreground", "novelty"))
            if not of_doubt and not np.isfinite(values.numpy()).all():
                raise ExportError(
                    f"The exported graph's output {name!r} is not finite (NaN or infinite) on a "
                    "test image."
                )
        actual.append(outputs["logits"].numpy())
    change = Change.between(expected, np.concatenate(actual))
    if not change.small:
        raise ExportError(
            f"Exported, the network would not predict what it does in float32: {change} on "
            f"{len(photos)} test images."
        )


class _Forward(Protocol):
    """From the names of kernels to round, and the type, to the logits `[N, classes]`."""

    def __call__(self, rounded: Collection[str], dtype: tf.DType = tf.float16) -> Logits: ...


def _forward(network: Network, preprocessing: Preprocessing, photos: Photos) -> "_Forward":
    """A function that gives the logits of `photos`."""
    head = network.nodes[-1].name

    def run(weights: dict[str, dict[str, Any]], images: Tensor) -> Tensor:
        return gradients.run(network, weights, preprocessing.apply(images))[head]

    graph = tf.function(run, autograph=False)
    weights = {
        node.name: {
            name: tf.constant(array, dtype=tf.float32) for name, array in node.weights.items()
        }
        for node in network.nodes
    }

    def evaluate(rounded: Collection[str], dtype: tf.DType = tf.float16) -> Logits:
        changed = {
            name: {**weights[name], "kernel": _round(weights[name]["kernel"], dtype)}
            for name in rounded
        }
        return np.concatenate(
            [graph(weights | changed, batch).numpy() for batch in _batches(photos)]
        )

    return evaluate


def _batches(photos: Photos) -> list[Tensor]:
    return [tf.constant(photos[start : start + _BATCH]) for start in range(0, len(photos), _BATCH)]


def _round(kernel: Tensor, dtype: tf.DType) -> Tensor:
    return tf.cast(tf.cast(kernel, dtype), tf.float32)


def _loss(node: Node) -> float:
    """The greatest rounding error of an output channel's kernel, as a share of its norm.

    Infinite where float16 cannot hold a value.
    """
    kernel = node.weights["kernel"]
    # Output channels are the last axis; of a depthwise kernel [kh, kw, C, M], the last two.
    axes = 2 if node.operation.kind == "depthwise_convolution" else 1
    exact = kernel.reshape(-1, math.prod(kernel.shape[-axes:])).astype(np.float64)
    with np.errstate(over="ignore"):
        rounded = kernel.astype(np.float16).reshape(exact.shape).astype(np.float64)
    if not np.isfinite(rounded).all():
        return np.inf
    norms = np.linalg.norm(exact, axis=0)
    errors = np.linalg.norm(rounded - exact, axis=0)
    return float(np.max(errors / np.where(norms > 0, norms, 1)))


def _softmax(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    exponentials = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
