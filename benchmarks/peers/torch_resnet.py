"""The shipped network in PyTorch: Keras's first version of ResNet50, strides in the 1 x 1."""

from typing import Any

import numpy as np

BLOCKS = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""For each stage: channels, number of blocks, and stride of the first block."""


def load(weights: str) -> tuple[Any, Any]:
    """The network from RGB less its means `[N, 3, S, S]` to logits, and its last block.

    Args:
        weights: a file of `benchmarks.weights.write`.
    """
    import torch
    from torch import nn

    arrays = np.load(weights)

    def filled(layer: Any, name: str) -> Any:
        kernel = arrays[f"{name}/kernel"]
        # Keras has [in, out] and [h, w, in, out]; PyTorch [out, in] and [out, in, h, w].
        order = (1, 0) if kernel.ndim == 2 else (3, 2, 0, 1)
        layer.weight.data = torch.tensor(kernel.transpose(order).copy())
        layer.bias.data = torch.tensor(arrays[f"{name}/bias"])
        return layer

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self, name: str, inputs: int, width: int, stride: int) -> None:
            super().__init__()
            outputs = 4 * width
            self.first = filled(nn.Conv2d(inputs, width, 1, stride), f"{name}_1_bn")
            self.second = filled(nn.Conv2d(width, width, 3, padding=1), f"{name}_2_bn")
            self.third = filled(nn.Conv2d(width, outputs, 1), f"{name}_3_bn")
            self.shortcut: Any = nn.Identity()
            if inputs != outputs:
                self.shortcut = filled(nn.Conv2d(inputs, outputs, 1, stride), f"{name}_0_bn")

        def forward(self, x: Any) -> Any:
            y = torch.relu(self.second(torch.relu(self.first(x))))
            return torch.relu(self.third(y) + self.shortcut(x))

    layers: list[Any] = [filled(nn.Conv2d(3, 64, 7, 2, 3), "conv1_bn"), nn.ReLU()]
    layers += [nn.ZeroPad2d(1), nn.MaxPool2d(3, 2)]
    inputs = 64
    for stage, (width, blocks, stride) in enumerate(BLOCKS, start=2):
        for number in range(1, blocks + 1):
            name = f"conv{stage}_block{number}"
            layers.append(Block(name, inputs, width, stride if number == 1 else 1))
            inputs = 4 * width
    classes = len(arrays["predictions/bias"])
    head = filled(nn.Linear(inputs, classes), "predictions")
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    return model.eval(), layers[-1]
