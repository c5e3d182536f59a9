"""Each method is its weighting of a layer's activations; here are the formulas.

`A` is a layer's activations `[N, h, w, C]`, `G` the gradient of the target's logit (or of the
difference of two logits) at that layer, of the same shape or constant in space, `[N, 1, 1, C]`.
Each function gives raw maps, float32 `[N, h, w]`.
"""

from typing import TypeAlias

import tensorflow as tf

__all__ = ["cam", "foreground", "gradcam", "gradcampp", "hirescam", "layercam", "novelty"]

Tensor: TypeAlias = tf.Tensor


def cam(A: Tensor, weights: Tensor) -> Tensor:
    """CAM: `sum_k w_k A_k` with the final layer's weights of the target class; signed.

    Zhou et al., Learning Deep Features for Discriminative Localization, 2016. Needs a head of
    global average pooling and one Dense layer; then `logit == mean(cam) + bias`.

    Args:
        A: activations of the last layer.
        weights: `[N, C]`, the row's class's.
    """
    return _weighted_sum(A, weights[:, None, None, :])


def gradcam(A: Tensor, G: Tensor) -> Tensor:
    """Grad-CAM: `relu(sum_k a_k A_k)`, `a_k` the mean of `G_k` over positions.

    Selvaraju et al., Grad-CAM, 2017.
    """
    return tf.nn.relu(_weighted_sum(A, tf.reduce_mean(G, axis=(1, 2), keepdims=True)))


def gradcampp(A: Tensor, G: Tensor) -> Tensor:
    """Grad-CAM++: `relu(sum_k w_k A_k)`, `w_k = sum_ij alpha_k_ij relu(G_k_ij)`.

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
    mean = tf.nn.relu(tf.reduce_mean(A, axis=(1, 2), keepdims=True))
    terms = positive / (2.0 + positive * positions * mean)
    weights = positions * tf.reduce_mean(terms, axis=(1, 2), keepdims=True)
    return tf.nn.relu(_weighted_sum(A, weights))


def layercam(A: Tensor, G: Tensor) -> Tensor:
    """LayerCAM: `relu(sum_k relu(G_k) A_k)`, position by position.

    Jiang et al., LayerCAM, 2021.
    """
    return tf.nn.relu(_weighted_sum(A, tf.nn.relu(G)))


def hirescam(A: Tensor, G: Tensor) -> Tensor:
    """HiResCAM: `sum_k G_k A_k`, position by position, before any ReLU; signed.

    Draelos & Carin, HiResCAM, 2020.
    """
    return _weighted_sum(A, G)


def foreground(A: Tensor, direction: Tensor, offset: Tensor) -> Tensor:
    """Class-agnostic foreground: each position's projection on one direction; signed.

    See `training.foreground` for where the direction comes from.

    Args:
        A: activations.
        direction: `[C]`.
        offset: scalar, what the direction measures where the foreground is zero.
    """
    projected = tf.nn.conv2d(A, direction[None, None, :, None], 1, "VALID")
    return tf.squeeze(projected, axis=-1) - offset


def novelty(features: Tensor, mean: Tensor, basis: Tensor) -> Tensor:
    """How far features lie from a subspace through a mean; see `training.novelty`.

    Args:
        features: `[N, F]`.
        mean: `[F]`.
        basis: `[F, D]`, orthonormal columns.

    Returns:
        `[N]`, 0 or more.
    """
    # By convolutions: of products with a matrix and with its transpose, OpenVINO's second one is
    # wrong in bfloat16 with more streams than one.
    centred = (features - mean)[:, None, None, :]
    inside = tf.nn.conv2d(centred, basis[None, None], 1, "VALID")
    rest = centred - tf.nn.conv2d(inside, tf.transpose(basis)[None, None], 1, "VALID")
    # A mean in place of a sum, which half precision may not hold.
    return tf.sqrt(tf.reduce_mean(rest * rest, axis=(1, 2, 3))) * float(rest.shape[-1]) ** 0.5


def _weighted_sum(A: Tensor, weights: Tensor) -> Tensor:
    """Over channels: `[N, h, w, C]`, weights of that shape or `[N, 1, 1, C]`, to `[N, h, w]`.

    Summed by a convolution: engines keep that, and what leads to it, in bfloat16.
    """
    ones = tf.ones((1, 1, A.shape[-1], 1))
    return tf.squeeze(tf.nn.conv2d(weights * A, ones, 1, "VALID"), axis=-1)
