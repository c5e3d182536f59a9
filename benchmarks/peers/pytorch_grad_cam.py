"""Grad-CAM by pytorch-grad-cam."""

import sys
import types
from collections.abc import Callable
from typing import Any

from benchmarks.peers import keras_resnet, torch_resnet
from benchmarks.protocol import serve
from benchmarks.timing import timed


def make() -> dict[str, Callable[..., Any]]:
    """Its `GradCAM`, which takes the likeliest class where it is told none."""
    import torch

    _stand_in_for_torchvision()
    from pytorch_grad_cam import GradCAM

    model, last = torch_resnet.load(sys.argv[1])
    image = keras_resnet.picture(sys.argv[1]).transpose(0, 3, 1, 2)
    batch = torch.tensor(image.copy())
    explainer = GradCAM(model=model, target_layers=[last])

    def gradcam() -> Any:
        return explainer(input_tensor=batch, targets=None)[0]

    return {
        "explain": lambda count=1: timed(gradcam, count),
        "heatmap": lambda: gradcam().tolist(),
    }


def _stand_in_for_torchvision() -> None:
    """Give pytorch-grad-cam the names that it imports and Grad-CAM never calls.

    torchvision comes for a PyTorch with CUDA, and does not import beside one for CPUs alone.
    """
    names = {
        "torchvision": (),
        "torchvision.transforms": ("Compose", "Normalize", "ToTensor"),
        "torchvision.transforms.functional": ("resize",),
    }
    for name, members in names.items():
        module = sys.modules[name] = types.ModuleType(name)
        for member in members:
            setattr(module, member, None)


if __name__ == "__main__":
    serve(make)
