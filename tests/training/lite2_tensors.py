"""Tensors of an EfficientNet-Lite2 with random weights, as PyTorch's file has them."""

import numpy as np
import numpy.typing as npt

__all__ = ["BLOCKS", "Arrays", "lite2_tensors"]

Arrays = dict[str, npt.NDArray[np.float32]]

# blocks, kernel, stride, expansion and channels of EfficientNet-Lite2's stages
STAGES = (
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
    (5, 5, 2, 6, 208),
    (1, 3, 1, 6, 352),
)
BLOCKS = [
    (kernel, stride if index == 0 else 1, expansion, channels)
    for blocks, kernel, stride, expansion, channels in STAGES
    for index in range(blocks)
]


def _norm(rng: np.random.Generator, name: str, channels: int) -> Arrays:
    return {
        f"{name}.weight": rng.uniform(0.8, 1.2, channels).astype(np.float32),
        f"{name}.bias": rng.normal(0, 0.5, channels).astype(np.float32),
        f"{name}.running_mean": rng.normal(0, 0.1, channels).astype(np.float32),
        f"{name}.running_var": rng.uniform(0.8, 1.2, channels).astype(np.float32),
        f"{name}.num_batches_tracked": np.zeros((), np.float32),
    }


def _kernel(rng: np.random.Generator, *shape: int) -> npt.NDArray[np.float32]:
    scale = np.sqrt(2 / np.prod(shape[1:]))
    return rng.normal(0, scale, shape).astype(np.float32)


def lite2_tensors() -> Arrays:
    """A file's tensors, in PyTorch's layout and by the package's names."""
    rng = np.random.default_rng(5)
    tensors = {"_conv_stem.weight": _kernel(rng, 32, 3, 3, 3), **_norm(rng, "_bn0", 32)}
    channels = 32
    for index, (kernel, _stride, expansion, outputs) in enumerate(BLOCKS):
        name, inside = f"_blocks.{index}", channels * expansion
        if expansion > 1:
            tensors[f"{name}._expand_conv.weight"] = _kernel(rng, inside, channels, 1, 1)
            tensors |= _norm(rng, f"{name}._bn0", inside)
        tensors[f"{name}._depthwise_conv.weight"] = _kernel(rng, inside, 1, kernel, kernel)
        tensors |= _norm(rng, f"{name}._bn1", inside)
        tensors[f"{name}._project_conv.weight"] = _kernel(rng, outputs, inside, 1, 1)
        tensors |= _norm(rng, f"{name}._bn2", outputs)
        channels = outputs
    tensors["_conv_head.weight"] = _kernel(rng, 1280, 352, 1, 1)
    tensors |= _norm(rng, "_bn1", 1280)
    tensors["_fc.weight"] = _kernel(rng, 1000, 1280)
    tensors["_fc.bias"] = rng.normal(0, 1, 1000).astype(np.float32)
    return tensors
