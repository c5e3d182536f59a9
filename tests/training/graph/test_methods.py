"""Each method against numpy in float64, on maps small enough to follow by hand."""

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from training.graph import methods

Array = npt.NDArray[np.float64]


@pytest.fixture
def case() -> tuple[Array, Array]:
    """Activations (not negative, as after a ReLU) and gradients, `[2, 5, 4, 3]`."""
    rng = np.random.default_rng(5)
    return np.maximum(rng.normal(0.3, 1, (2, 5, 4, 3)), 0), rng.normal(0, 1, (2, 5, 4, 3))


def _tensors(*arrays: Array) -> list[tf.Tensor]:
    return [tf.constant(array, tf.float32) for array in arrays]


def _map(
    name: str,
    A: Array,
    G: Array,
    *,
    direction: Array | None = None,
    offset: float = 0.0,
    head: Array | None = None,
) -> npt.NDArray[np.float32]:
    """One of the maps; where the test does not say, the foreground's direction is zero."""
    projection = np.zeros(A.shape[-1]) if direction is None else direction
    weights = [] if head is None else [head]
    raw = methods.maps(*_tensors(A, G, projection, np.array(offset), *weights))
    array: npt.NDArray[np.float32] = raw[name].numpy()
    return array


def test_cam_by_hand() -> None:
    A = np.zeros((1, 2, 2, 2))
    A[0, :, :, 0] = [[1, 2], [3, 4]]
    A[0, :, :, 1] = [[1, 0], [0, 1]]

    actual = _map("cam", A, np.ones((1, 1, 1, 2)), head=np.array([[2.0, -3.0]]))

    np.testing.assert_allclose(actual[0], [[2 - 3, 4], [6, 8 - 3]])


def test_gradcam_by_hand() -> None:
    A = np.zeros((1, 2, 2, 2))
    A[0, :, :, 0] = [[1, 2], [3, 4]]
    A[0, :, :, 1] = [[8, 0], [0, 0]]
    G = np.zeros((1, 2, 2, 2))
    G[0, :, :, 0] = [[4, 0], [0, 0]]  # mean 1
    G[0, :, :, 1] = [[-1, -1], [-1, -1]]  # mean -1

    actual = _map("gradcam", A, G)

    np.testing.assert_allclose(actual[0], [[0, 2], [3, 4]])  # 1 - 8 is cut off at zero


def test_gradcam(case: tuple[Array, Array]) -> None:
    A, G = case
    expected = np.maximum(np.einsum("nhwc,nc->nhw", A, G.mean(axis=(1, 2))), 0)

    np.testing.assert_allclose(_map("gradcam", A, G), expected, rtol=1e-5, atol=1e-6)


def test_gradcampp_as_the_paper_writes_it(case: tuple[Array, Array]) -> None:
    A, G = case
    alpha = G**2 / (2 * G**2 + A.sum(axis=(1, 2), keepdims=True) * G**3)
    weights = (alpha * np.maximum(G, 0)).sum(axis=(1, 2))
    expected = np.maximum(np.einsum("nhwc,nc->nhw", A, weights), 0)

    np.testing.assert_allclose(_map("gradcampp", A, G), expected, rtol=1e-5, atol=1e-6)


def test_gradcampp_of_activations_with_a_negative_sum_is_bounded() -> None:
    A = np.array([[[[-2.0], [1.0]]]])  # with G = 2 the formula's denominator is 2 - 2 = 0
    G = np.full(A.shape, 2.0)

    actual = _map("gradcampp", A, G)

    # alpha = 1/2, weight = 2 * (1/2 * 2) = 2
    np.testing.assert_allclose(actual, [[[0.0, 2.0]]], rtol=1e-6)


def test_layercam(case: tuple[Array, Array]) -> None:
    A, G = case
    expected = (np.maximum(G, 0) * A).sum(axis=-1)

    np.testing.assert_allclose(_map("layercam", A, G), expected, rtol=1e-5, atol=1e-6)


def test_hirescam_keeps_its_sign(case: tuple[Array, Array]) -> None:
    A, G = case
    expected = (G * A).sum(axis=-1)
    assert (expected < 0).any()

    np.testing.assert_allclose(_map("hirescam", A, G), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["gradcam", "gradcampp", "layercam", "hirescam"])
def test_gradient_constant_in_space_may_be_given_once(
    case: tuple[Array, Array], method: str
) -> None:
    A, G = case
    once = G[:, :1, :1, :]

    expected = _map(method, A, np.broadcast_to(once, A.shape))

    np.testing.assert_allclose(_map(method, A, once), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("constant", [False, True], ids=["varied", "constant in space"])
def test_foreground_by_hand(constant: bool) -> None:
    A = np.array([[[[3.0, 4.0], [1.0, 0.0]]], [[[0.0, 5.0], [2.0, 1.0]]]])
    G = np.ones((2, 1, 1, 2)) if constant else np.ones(A.shape)

    actual = _map("foreground", A, G, direction=np.array([0.6, 0.8]), offset=1.0)

    np.testing.assert_allclose(actual, [[[4.0, -0.4]], [[3.0, 1.0]]], rtol=1e-6)
    plain = methods.foreground(*_tensors(A, np.array([0.6, 0.8])))
    np.testing.assert_allclose(plain, actual + 1.0, rtol=1e-6)


def test_maps_are_of_every_method_and_the_foreground(case: tuple[Array, Array]) -> None:
    A, G = case
    four = {"gradcam", "gradcampp", "layercam", "hirescam"}
    plain = A, G, np.zeros(3), np.array(0.0)

    assert set(methods.maps(*_tensors(*plain))) == {*four, "foreground"}
    assert set(methods.maps(*_tensors(*plain, np.ones((2, 3))))) == {*four, "foreground", "cam"}
