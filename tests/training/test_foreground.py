import numpy as np
import numpy.typing as npt
import pytest

from tests.training.nets import small_resnet
from tests.training.pictures import dataset
from training.foreground import _Moments, channel_sum, find_projections, principal_direction
from training.preprocessing import Preprocessing


def test_principal_direction_of_a_known_matrix() -> None:
    axis = np.array([0.6, 0.0, 0.8])
    covariance = 5 * np.outer(axis, axis) + np.eye(3)

    assert abs(principal_direction(covariance) @ axis) == pytest.approx(1)


def _maps(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Descriptors that vary along (0.6, -0.8), high in the middle of each photo."""
    place = np.zeros((8, 8))
    place[2:6, 2:6] = 1
    strength = place[None] * rng.uniform(2, 3, (6, 1, 1))
    noise = rng.normal(0, 0.05, (6, 8, 8, 2))
    maps: npt.NDArray[np.float64] = strength[..., None] * np.array([0.6, -0.8]) + noise + 1
    return maps.astype(np.float32)


def test_direction_is_found_and_points_to_the_middle() -> None:
    maps = _maps(np.random.default_rng(0))
    moments = _Moments()
    moments.add(maps[:4])
    moments.add(maps[4:])

    projection = moments.projection()

    np.testing.assert_allclose(projection.direction, [0.6, -0.8], atol=0.02)
    np.testing.assert_allclose(projection.mean, maps.mean(axis=(0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize("sign", [1, -1])
def test_middle_of_a_3x3_map_is_its_centre(sign: int) -> None:
    """The direction points to the middle, whichever way the mean descriptor lies."""
    rng = np.random.default_rng(1)
    axis = np.array([0.6, -0.8])
    place = np.zeros((3, 3))
    place[1, 1] = sign
    maps = (place[None] * rng.uniform(2, 3, (40, 1, 1)))[..., None] * axis - 5 * axis
    moments = _Moments()
    moments.add(maps.astype(np.float32))

    np.testing.assert_allclose(moments.projection().direction, sign * axis, atol=1e-3)


@pytest.mark.parametrize("sign", [1, -1])
def test_without_a_middle_the_mean_descriptor_is_above_zero(sign: int) -> None:
    rng = np.random.default_rng(2)
    axis = np.array([0.6, -0.8])
    maps = (sign * 5 + rng.normal(0, 1, (40, 2, 2)))[..., None] * axis
    moments = _Moments()
    moments.add(maps.astype(np.float32))

    np.testing.assert_allclose(moments.projection().direction, sign * axis, atol=1e-3)


def test_projections_agree_with_a_singular_value_decomposition() -> None:
    import keras

    model, photos = small_resnet(), dataset(train=6).train
    projection = find_projections(
        model, ["last_out"], photos, size=32, preprocessing=Preprocessing.CAFFE
    )["last_out"]

    from training.feeding import inference_batches

    (batch, _labels), *_ = inference_batches(photos, size=32, batch_size=6)
    part = keras.Model(model.input, model.get_layer("last_out").output)
    image = keras.applications.resnet50.preprocess_input(batch)
    descriptors = np.asarray(part(image, training=False), np.float64).reshape(-1, 16)
    centred = descriptors - descriptors.mean(axis=0)
    first = np.linalg.svd(centred, full_matrices=False).Vh[0]
    assert abs(projection.direction @ first) == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(projection.mean, descriptors.mean(axis=0), rtol=1e-3, atol=1e-4)


def test_channel_sum_is_a_unit_direction() -> None:
    projection = channel_sum(16)

    np.testing.assert_allclose(projection.direction, np.full(16, 0.25))
    np.testing.assert_allclose(projection.mean, 0)
