"""The explanation methods: each is its weighting of a layer's activations.

Notation, for one layer, one photo and the target's logit S (or the difference of two logits):

    A      activations                        [N, h, w, C]
    G      gradient dS/dA                     [N, h, w, C], or [N, 1, 1, C] where constant in space
    k      channel; i, j  position;  Z = h w

    method      map at (i, j)                        weights of A               ReLU   maps
    CAM         sum_k w_k A_kij                      w_k, of the Dense layer    no     [N, h, w]
    Grad-CAM    sum_k a_k A_kij                      a_k = 1/Z sum_ij G_kij     yes    [N, h, w]
    Grad-CAM++  sum_k b_k A_kij                      b_k, see `gradcampp`       yes    [N, h, w]
    LayerCAM    sum_k relu(G_kij) A_kij              relu(G)                    yes    [N, h, w]
    HiResCAM    sum_k G_kij A_kij                    G                          no     [N, h, w]
    foreground  sum_k d_k A_kij - offset             d_k, learnt from photos    no     [N, h, w]

The function named after a method returns its weights, `[N, h, w, C]` or constant in space,
`[N, 1, 1, C]`. `maps` returns the raw maps, float32 `[N, h, w]`.
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
    """A layer's raw maps, float32 `[N, h, w]`: one for each method, and the foreground.

    Args:
        A: activations, `[N, h, w, C]`.
        G: the gradient, `[N, h, w, C]` or `[N, 1, 1, C]`.
        direction: the foreground's, `[C]`; see `foreground`.
        offset: the foreground's, scalar.
        head: the Dense layer's weights for the target class, `[N, C]`; None leaves CAM out.
    """
    weights = {method.__name__: method(A, G) for method in (gradcam, gradcampp, layercam, hirescam)}
    if head is not None:
        weights["cam"] = cam(head)
    if _is_constant(G):
        weights["foreground"] = tf.zeros_like(G) + direction
    sums = _weighted_sums(A, weights)
    if not _is_constant(G):  # apart from the others, so that an engine can cut the gradient away
        sums["foreground"] = foreground(A, direction)
    raw = {name: sums[name] if name in _SIGNED else tf.nn.relu(sums[name]) for name in sums}
    return raw | {"foreground": sums["foreground"] - offset}


def cam(head: Tensor) -> Tensor:
    """Weights of CAM, `[N, 1, 1, C]`.

        map_ij = sum_k w_k A_kij, signed

    where `w_k` is the Dense layer's weight from channel k to the target class. Needs a head of
    global average pooling and one Dense layer; then `logit == mean(map) + bias`.

    Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016.

    Args:
        head: the Dense layer's weights for each row's class, `[N, C]`.
    """
    return _in_space(head)


def gradcam(A: Tensor, G: Tensor) -> Tensor:
    """Weights of Grad-CAM, `[N, 1, 1, C]`.

        map_ij = relu(sum_k a_k A_kij)
        a_k = 1/Z sum_ij G_kij, the mean gradient of channel k

    Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization, ICCV 2017.

    Args:
        A: activations, `[N, h, w, C]`.
        G: the gradient, `[N, h, w, C]` or `[N, 1, 1, C]`.
    """
    return _mean(G)


def gradcampp(A: Tensor, G: Tensor) -> Tensor:
    """Weights of Grad-CAM++, `[N, 1, 1, C]`.

        map_ij = relu(sum_k b_k A_kij)
        b_k = sum_ij alpha_kij relu(G_kij)
        alpha_kij = G_kij^2 / (2 G_kij^2 + G_kij^3 sum_ab A_kab) = 1 / (2 + G_kij sum_ab A_kab)

    Chattopadhay et al., Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep
    Convolutional Networks, WACV 2018.

    Where `G <= 0` the term is zero. Elsewhere, if A is the output of a ReLU, the denominator is 2
    or more. The paper does not treat activations that may be negative: with a negative sum the
    denominator comes near zero, and the map blows up. Such a sum is taken as zero here, so that
    alpha never exceeds 1/2.

    Args:
        A: activations, `[N, h, w, C]`.
        G: the gradient, `[N, h, w, C]` or `[N, 1, 1, C]`.
    """
    positive = tf.nn.relu(G)
    positions = float(A.shape[1] * A.shape[2])
    # Z times a mean in place of a sum, which half precision may not hold.
    terms = positive / (2.0 + positive * positions * tf.nn.relu(_mean(A)))  # alpha relu(G)
    return positions * _mean(terms)


def layercam(A: Tensor, G: Tensor) -> Tensor:
    """Weights of LayerCAM, of the shape of `G`.

        map_ij = relu(sum_k relu(G_kij) A_kij)

    Jiang et al., LayerCAM: Exploring Hierarchical Class Activation Maps for Localization, IEEE
    Transactions on Image Processing, 2021.

    Args:
        A: activations, `[N, h, w, C]`.
        G: the gradient, `[N, h, w, C]` or `[N, 1, 1, C]`.
    """
    return tf.nn.relu(G)


def hirescam(A: Tensor, G: Tensor) -> Tensor:
    """Weights of HiResCAM, of the shape of `G`.

        map_ij = sum_k G_kij A_kij, signed

    Draelos & Carin, Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional
    neural networks, 2020 (arXiv:2011.08891).

    Args:
        A: activations, `[N, h, w, C]`.
        G: the gradient, `[N, h, w, C]` or `[N, 1, 1, C]`.
    """
    return G


def foreground(A: Tensor, direction: Tensor) -> Tensor:
    """The class-agnostic foreground before its offset is subtracted, `[N, h, w]`; signed.

        map_ij = sum_k d_k A_kij

    `training.export.foreground` learns the direction d, and the offset that `maps` subtracts.

    Args:
        A: activations, `[N, h, w, C]`.
        direction: `[C]`.
    """
    # A 1x1 convolution with one output channel: [N, h, w, C] * [1, 1, C, 1] to [N, h, w, 1].
    return tf.squeeze(tf.nn.conv2d(A, direction[None, None, :, None], 1, "VALID"), axis=-1)


def novelty(features: Tensor, directions: Tensor, offset: Tensor) -> Tensor:
    """Distance of features from the subspace of the training photos' features.

        ||features @ directions - offset||

    `training.export.novelty` learns directions and offset.

    Args:
        features: what the last Dense layer reads, `[N, F]`.
        directions: `[F, M]`, along which the distance is measured.
        offset: `[M]`, the mean training photo's `features @ directions`.

    Returns:
        `[N]`, 0 or more.
    """
    # By a convolution, [N, 1, 1, F] * [1, 1, F, M] to [N, 1, 1, M]: where arithmetic other than the
    # head's reads the features, OpenVINO 2026.4 keeps what leads to them in float32, which costs
    # more than all of this.
    residual = tf.nn.conv2d(_in_space(features), directions[None, None], 1, "VALID") - offset
    # sqrt(M * mean) in place of sqrt(sum), which half precision may not hold.
    mean = tf.reduce_mean(residual * residual, axis=(1, 2, 3))
    return tf.sqrt(mean) * float(residual.shape[-1]) ** 0.5


def _weighted_sums(A: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sums over channels, `sum_k W_kij A_kij`, by name: `[N, h, w]` each.

    All weights that are constant in space, m of them, share one product of matrices:
    `[N, m, C] @ [N, C, h w]`. The others are multiplied and summed by a convolution with ones.
    Engines keep both, and what leads to them, in bfloat16.

    Args:
        A: activations, `[N, h, w, C]`.
        weights: by name, `[N, h, w, C]` or `[N, 1, 1, C]`.
    """
    height, width, channels = A.shape[1:]
    ones = tf.ones((1, 1, channels, 1))
    sums = {
        name: tf.squeeze(tf.nn.conv2d(weight * A, ones, 1, "VALID"), axis=-1)
        for name, weight in weights.items()
        if not _is_constant(weight)
    }
    constant = {
        name: tf.reshape(weight, (-1, 1, channels))
        for name, weight in weights.items()
        if _is_constant(weight)
    }
    if constant:
        # Channels first, as OpenVINO has them: it need not transpose.
        positions = tf.reshape(tf.transpose(A, (0, 3, 1, 2)), (-1, channels, height * width))
        products = tf.linalg.matmul(tf.concat(list(constant.values()), axis=1), positions)
        products = tf.reshape(products, (-1, len(constant), height, width))
        sums |= zip(constant, tf.unstack(products, axis=1), strict=True)
    return sums


def _is_constant(values: Tensor) -> bool:
    """Whether values are constant in space: `[N, 1, 1, C]`."""
    return bool(values.shape[1:3] == (1, 1))


def _mean(values: Tensor) -> Tensor:
    """Mean over positions: `[N, h, w, C]` to `[N, 1, 1, C]`."""
    return values if _is_constant(values) else _in_space(tf.reduce_mean(values, axis=(1, 2)))


def _in_space(values: Tensor) -> Tensor:
    """`[N, C]` to `[N, 1, 1, C]`; a reshape, which is free, where an index costs engines time."""
    return tf.reshape(values, (-1, 1, 1, values.shape[-1]))
