import pytest

from training.errors import WeightsError
from training.networks.custom_cnn import custom_cnn


def test_custom_cnn_has_no_global_pooling_and_fits_the_bound() -> None:
    model = custom_cnn(10, input_size=224)
    kinds = {type(layer).__name__ for layer in model.layers}

    assert {"Rescaling", "MaxPooling2D", "Flatten", "Dropout"} < kinds
    assert not {kind for kind in kinds if kind.startswith("Global")}
    assert 8e6 < model.count_params() < 9e6


@pytest.mark.parametrize("weights", ["imagenet", "dogs.weights.h5"])
def test_custom_cnn_has_no_first_weights(weights: str) -> None:
    with pytest.raises(WeightsError, match="--weights none"):
        custom_cnn(3, weights, input_size=32)
