import keras
import numpy as np
import pytest

from app.bundle import Architecture
from training.networks import architectures
from training.networks.architectures import build, imagenet_network
from training.networks.custom_cnn import custom_cnn
from training.networks.efficientnet_lite import lite2
from training.networks.preprocessing import Preprocessing

BUILT = [
    Architecture.RESNET50,
    Architecture.EFFICIENTNET_LITE2,
    Architecture.CUSTOM_CNN,
]


@pytest.mark.parametrize("architecture", BUILT)
def test_architectures_are_built_by_name(architecture: Architecture, resnet50: keras.Model) -> None:
    model = build(architecture, 3, input_size=32)
    direct = {
        Architecture.RESNET50: lambda: resnet50,  # for another size
        Architecture.EFFICIENTNET_LITE2: lambda: lite2(3),
        Architecture.CUSTOM_CNN: lambda: custom_cnn(3, input_size=32),
    }[architecture]()

    assert model.name == architecture
    assert (model.input_shape, model.output_shape) == ((None, 32, 32, 3), (None, 3))
    assert [(layer.name, type(layer)) for layer in model.layers[1:]] == [
        (layer.name, type(layer)) for layer in direct.layers[1:]
    ]


def test_architecture_that_is_not_built_here() -> None:
    with pytest.raises(ValueError, match="keras"):
        build(Architecture.KERAS, 3, input_size=32)
    with pytest.raises(ValueError, match="custom_cnn at None px"):
        build(Architecture.CUSTOM_CNN, 3)
    with pytest.raises(ValueError, match="custom_cnn has no pre-trained weights"):
        imagenet_network(Architecture.CUSTOM_CNN, input_size=32)


def test_preprocessing_is_a_property_of_the_architecture() -> None:
    photos = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)

    assert architectures.preprocessing(Architecture.CUSTOM_CNN) is Preprocessing.NONE
    assert architectures.preprocessing(Architecture.EFFICIENTNET_LITE2) is Preprocessing.NONE
    assert architectures.preprocessing(Architecture.RESNET50) is Preprocessing.CAFFE
    np.testing.assert_array_equal(Preprocessing.NONE.apply(photos), photos)
    np.testing.assert_allclose(
        Preprocessing.CAFFE.apply(photos),
        keras.applications.resnet50.preprocess_input(photos.astype(np.float32)),
        rtol=1e-5,
        atol=1e-4,
    )
