"""Each method is its weighting of a layer's activations; here are the formulas.

`A` is a layer's activations `[N, h, w, C]`, `G` the gradient of the target's logit (or of the
difference of two logits) at that layer, of the same shape or constant in space, `[N, 1, 1, C]`.
`maps` gives the methods' raw maps, float32 `[N, h, w]`; the function named after a method gives
its weights, of the shape of `A` or constant in space.
"""

from collections.abc import Mapping
from typing import TypeAlias

import tensorflow as tf

__all__ = [
    "cam",
    "foreground",
    "gradcam",
    "gradcampp",
    "hirescam",
    "layercam",
    "maps",
    "novelty",
]

Tensor: TypeAlias = tf.Tensor

_SIGNED = ("cam", "hirescam", "foreground")
"""Maps that keep their sign; the others end in a ReLU."""


def maps(
    A: Tensor, G: Tensor, direction: Tensor, offset: Tensor, head: Tensor | None = None
) -> dict[str, Tensor]:
    """A layer's raw maps by name: each method's, and the foreground.

    Args:
        A: activations.
        G: the gradient.
        direction: the foreground's, `[C]`; see `foreground`.
        offset: the foreground's, scalar.
        head: what `cam` takes, where the head and the layer are ones for it.
    """
    weights = {method.__name__: method(A, G) for method in (gradcam, gradcampp, layercam, hirescam)}
    if head is not None:
        weights["cam"] = cam(head)
    if _constant(G):
        weights["foreground"] = tf.zeros_like(G) + direction
    sums = _weighted_sums(A, weights)
    if not _constant(G):  # by itself, so that it can be had without the gradient
        sums["foreground"] = foreground(A, direction)
    found = {name: sums[name] if name in _SIGNED else tf.nn.relu(sums[name]) for name in sums}
    return found | {"foreground": sums["foreground"] - offset}


def cam(weights: Tensor) -> Tensor:
    """Weights of CAM: `sum_k w_k A_k` with the final layer's weights of the target class; signed.

    Zhou et al., Learning Deep Features for Discriminative Localization, 2016. Needs a head of
    global average pooling and one Dense layer; then `logit == mean(cam) + bias`.

    Args:
        weights: `[N, C]`, the row's class's.
    """
    return _in_space(weights)


def gradcam(A: Tensor, G: Tensor) -> Tensor:
    """Weights of Grad-CAM: `relu(sum_k a_k A_k)`, `a_k` the mean of `G_k` over positions.

    Selvaraju et al., Grad-CAM, 2017.
    """
    return _mean(G)


def gradcampp(A: Tensor, G: Tensor) -> Tensor:
    """Weights of Grad-CAM++: `relu(sum_k w_k A_k)`, `w_k = sum_ij alpha_k_ij relu(G_k_ij)`.

    Chattopadhay et al., Grad-CAM++, 2018, with
    `alpha = G^2 / (2 G^2 + G^3 sum_ab A_ab)`, which is `1 / (2 + G sum_ab A_ab)`. Where `G <= 0`
    the term is zero, and elsewhere, `A` being the output of a ReLU, the denominator is 2 or more.
    The paper has no answer for activations that may be negative: with a negative sum the
    denominator comes near zero, and the map blows up. There the sum is taken as zero, so that
    `alpha` is never over 1/2.
    """
    positive = tf.nn.relu(G)
    positions = float(A.shape[1] * A.shape[2])
    # Means in place of sums, which half precision may not hold.
    terms = positive / (2.0 + positive * positions * tf.nn.relu(_mean(A)))
    return positions * _mean(terms)


def layercam(A: Tensor, G: Tensor) -> Tensor:
    """Weights of LayerCAM: `relu(sum_k relu(G_k) A_k)`, position by position.

    Jiang et al., LayerCAM, 2021.
    """
    return tf.nn.relu(G)


def hirescam(A: Tensor, G: Tensor) -> Tensor:
    """Weights of HiResCAM: `sum_k G_k A_k`, position by position, before any ReLU; signed.

    Draelos & Carin, HiResCAM, 2020.
    """
    return G


def foreground(A: Tensor, direction: Tensor) -> Tensor:
    """Class-agnostic foreground: each position's projection on one direction, `[N, h, w]`; signed.

    See `training.foreground` for where the direction comes from, and for the offset that `maps`
    subtracts: what the direction measures where the foreground is zero.

    Args:
        A: activations.
        direction: `[C]`.
    """
    return tf.squeeze(tf.nn.conv2d(A, direction[None, None, :, None], 1, "VALID"), axis=-1)


def novelty(features: Tensor, directions: Tensor, offset: Tensor) -> Tensor:
    """How far features lie from what the training photos' span; see `training.novelty`.

    Args:
        features: `[N, F]`.
        directions: `[F, M]`, along which the distance is measured.
        offset: `[M]`, what they measure where it is zero.

    Returns:
        `[N]`, 0 or more.
    """
    # By a convolution: where arithmetic other than the head's reads the features, OpenVINO 2026.4
    # keeps what leads to them in float32, which costs more than all of this.
    measured = tf.nn.conv2d(_in_space(features), directions[None, None], 1, "VALID") - offset
    # A mean in place of a sum, which half precision may not hold.
    mean = tf.reduce_mean(measured * measured, axis=(1, 2, 3))
    return tf.sqrt(mean) * float(measured.shape[-1]) ** 0.5


def _weighted_sums(A: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Over channels, by name: `[N, h, w, C]` to `[N, h, w]`.

    One product of matrices gives all sums with weights that are constant in space; each other one
    is a convolution. Engines keep these, and what leads to them, in bfloat16.

    Args:
        A: activations.
        weights: of the shape of `A`, or constant in space, `[N, 1, 1, C]`.
    """
    height, width, channels = A.shape[1:]
    ones = tf.ones((1, 1, channels, 1))
    sums = {
        name: tf.squeeze(tf.nn.conv2d(each * A, ones, 1, "VALID"), axis=-1)
        for name, each in weights.items()
        if not _constant(each)
    }
    constant = {
        name: tf.reshape(each, (-1, 1, channels))
        for name, each in weights.items()
        if _constant(each)
    }
    if constant:
        # Channels first, as OpenVINO has them: it need not transpose.
        positions = tf.reshape(tf.transpose(A, (0, 3, 1, 2)), (-1, channels, height * width))
        products = tf.linalg.matmul(tf.concat(list(constant.values()), axis=1), positions)
        products = tf.reshape(products, (-1, len(constant), height, width))
        sums |= zip(constant, tf.unstack(products, axis=1), strict=True)
    return sums


def _constant(values: Tensor) -> bool:
    """Whether they are constant in space: `[N, 1, 1, C]`."""
    return bool(values.shape[1:3] == (1, 1))


def _mean(values: Tensor) -> Tensor:
    """Over positions: `[N, h, w, C]` to `[N, 1, 1, C]`."""
    return values if _constant(values) else _in_space(tf.reduce_mean(values, axis=(1, 2)))


def _in_space(values: Tensor) -> Tensor:
    """`[N, C]` to `[N, 1, 1, C]`; a reshape, which is free, where an index costs engines time."""
    return tf.reshape(values, (-1, 1, 1, values.shape[-1]))
