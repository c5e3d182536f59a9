"""A model version's graph with its forward pass in 8-bit integers, quantised by NNCF."""

import logging
import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import app.engines  # noqa: F401  keeps OpenVINO and NNCF from reporting each start to their makers

# isort: split
import nncf
import numpy as np
import numpy.typing as npt
import openvino as ov
from nncf import AdvancedQuantizationParameters, IgnoredScope, OverflowFix, QuantizationPreset
from openvino import opset13

from app.bundle import Bundle

__all__ = ["quantise", "write"]

_PRODUCTS = ("Convolution", "GroupConvolution", "MatMul")

Array = npt.NDArray[Any]


def write(bundle: Bundle, photos: npt.NDArray[np.uint8], path: Path) -> None:
    """Quantise a version's SavedModel and write it in OpenVINO's format.

    Args:
        bundle: the model version.
        photos: see `quantise`.
        path: of the `.xml`; the `.bin` with the weights goes beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for file in (path, path.with_suffix(".bin")):
        file.unlink(missing_ok=True)  # OpenVINO would write into it, and it may be a hard link
    ov.save_model(quantise(ov.Core().read_model(str(bundle.path)), photos), path, False)


def quantise(full: ov.Model, photos: npt.NDArray[np.uint8]) -> ov.Model:
    """The graph with activations and weights of its forward pass in 8-bit integers.

    These stay in float: the first convolution (integers would save 4 % of the time, and add a third
    to the error of earlier layers' maps); the head; maps, novelty and foreground; and what the
    backward pass computes. Its kernels and activations are the forward pass's integers.

    Args:
        full: as OpenVINO reads it from a SavedModel.
        photos: training photos as the model takes them, uint8 RGB `[N, S, S, 3]`. They set the
            range of each activation.
    """
    forward = _forward(full)
    _unpack(full, forward)
    full = full.clone()  # less what hangs on it and leads to no output
    nodes = full.get_ordered_ops()
    products = [
        node
        for node in nodes
        if node.get_friendly_name() in forward and node.get_type_name() in _PRODUCTS
    ]
    kernels = {node.get_friendly_name(): _constant(node.input_value(1)) for node in products}
    others = {node.get_friendly_name() for node in nodes} - forward
    ends = {products[0].get_friendly_name(), products[-1].get_friendly_name()}
    index = np.full(1, -1, np.int32)
    samples = [
        {"image": photo[None], "class_index": index, "versus_index": index} for photo in photos
    ]
    nncf.set_log_level(logging.WARNING)
    with redirect_stdout(sys.stderr):  # its progress
        quantised = nncf.quantize(
            full,
            nncf.Dataset(samples),
            preset=QuantizationPreset.MIXED,
            subset_size=len(samples),
            fast_bias_correction=False,
            ignored_scope=IgnoredScope(names=sorted(others | ends), validate=False),
            # NNCF would keep the first kernels to 7 bits, for CPUs whose sums of 16 bits overflow.
            advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.DISABLE),
        )
    _share(quantised, kernels)
    _sum_unrounded(quantised, _tap(quantised))
    return quantised


def _forward(model: ov.Model) -> set[str]:
    """The names of the forward pass's nodes."""
    return _ancestors(model.output("logits").get_node())


def _ancestors(node: ov.Node) -> set[str]:
    """The names of a node and of all that it is computed from."""
    names: set[str] = set()
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node.get_friendly_name() not in names:
            names.add(node.get_friendly_name())
            waiting += [value.get_node() for value in node.input_values()]
    return names


def _unpack(model: ov.Model, names: set[str]) -> None:
    """Turn float16 constants among the named nodes into float32, which NNCF stores as integers."""
    for node in model.get_ordered_ops():
        if node.get_friendly_name() in names and node.get_type_name() in _PRODUCTS:
            kernel = _constant(node.input_value(1))
            if kernel is not None:
                constant = opset13.constant(kernel.astype(np.float32))
                node.input(1).replace_source_output(constant.output(0))
                names.add(constant.get_friendly_name())


def _share(model: ov.Model, kernels: dict[str, Array | None]) -> None:
    """Let the backward pass derive its kernels from the forward pass's integers.

    Args:
        model: quantised.
        kernels: by the name of the forward pass's node, as they were before.
    """
    nodes = model.get_ordered_ops()
    by_name = {node.get_friendly_name(): node for node in nodes}
    for node in nodes:
        array = _constant(node.output(0))
        if array is None or array.ndim < 2 or node.get_element_type() != ov.Type.f32:
            continue
        for name, kernel in kernels.items():
            axes = _same(array, kernel)
            weights = by_name[name].input_value(1)
            if axes is not None and weights.get_node().get_type_name() == "Multiply":
                shared = opset13.transpose(weights, opset13.constant(np.array(axes, np.int32)))
                for target in node.output(0).get_target_inputs():
                    target.replace_source_output(shared.output(0))
                break


def _tap(model: ov.Model) -> set[str]:
    """Let maps, foreground and backward pass read activations as the forward pass rounds them.

    A reader of the unrounded activation makes OpenVINO keep it in float as well. OpenVINO also
    propagates integers to readers, and computes a convolution in float where two readers of its
    input want different ranges. A maximum stops that. Its second operand is the least value that
    rounding gives, so that no value changes.

    Returns:
        The names of the roundings with such readers.
    """
    forward, tapped = _forward(model), set[str]()
    for rounding in _roundings(model):
        targets = rounding.input_value(0).get_target_inputs()
        inside = [item for item in targets if item.get_node().get_friendly_name() in forward]
        for target in inside:
            if target.get_node().get_type_name() != "FakeQuantize":
                target.replace_source_output(rounding.output(0))
        if outside := [item for item in targets if item not in inside]:
            tapped.add(rounding.get_friendly_name())
            tap = opset13.maximum(rounding.output(0), rounding.input_value(3))
            for target in outside:
                target.replace_source_output(tap.output(0))
    return tapped


def _sum_unrounded(model: ov.Model, tapped: set[str]) -> None:
    """Let sums behind the first tap take a convolution's result as it is.

    Rounding it first would blur the maps, and save no time. In the larger layers before, it does.
    """
    for rounding in _roundings(model):
        exact, targets = rounding.input_value(0), rounding.output(0).get_target_inputs()
        ends = [exact.get_node(), *(target.get_node() for target in targets)]
        between = all(node.get_type_name() == "Add" for node in ends)
        if between and not tapped.isdisjoint(_ancestors(rounding)):
            for target in targets:
                target.replace_source_output(exact)


def _roundings(model: ov.Model) -> list[ov.Node]:
    """Where activations of the forward pass are rounded, in order."""
    forward = _forward(model)
    return [
        node
        for node in model.get_ordered_ops()
        if node.get_type_name() == "FakeQuantize" and node.get_friendly_name() in forward
    ]


def _same(array: Array, kernel: Array | None) -> Sequence[int] | None:
    """The order of a kernel's axes in which it equals an array; None if there is none.

    TensorFlow keeps kernels as `[h, w, in, out]`, OpenVINO as `[out, in, h, w]`.
    """
    orders: Iterable[Sequence[int]] = [range(array.ndim), (2, 3, 1, 0)]
    if kernel is None or kernel.ndim != array.ndim:
        return None
    for axes in orders:
        if len(axes) == array.ndim and np.array_equal(array, kernel.transpose(axes)):
            return list(axes)
    return None


def _constant(value: ov.Output) -> Array | None:
    """A constant, perhaps converted from float16; None for what is computed."""
    node = value.get_node()
    if node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return node.data if node.get_type_name() == "Constant" else None
