"""Pooling forwards and backwards, with inference ops alone.

Backwards, each of a window's places ("taps") gets a share of the window's gradient: under average
pooling the same, under max pooling the first maximum gets all, row by row, as TensorFlow's
`MaxPoolGrad` has it. The shares are laid out by the tap's place within a stride, so that they
interleave by a reshape and nothing is scattered.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from training.network import Operation

__all__ = ["backward", "forward"]

Tensor: TypeAlias = tf.Tensor
Share = Callable[[int, int], Tensor]


@dataclass(frozen=True)
class _Axis:
    """How windows lie along height or width.

    Attributes:
        extent: of the input.
        before: zeros before it.
        taps: places in a window.
        stride: from one window to the next.
        given: windows.
    """

    extent: int
    before: int
    taps: int
    stride: int
    given: int

    @property
    def after(self) -> int:
        """Zeros behind the input, for the last window."""
        return max((self.given - 1) * self.stride + self.taps - self.extent - self.before, 0)

    @property
    def cells(self) -> int:
        """Strides that the windows cover, begun ones counted."""
        return self.given + (self.taps - 1) // self.stride

    def at(self, tap: int) -> slice:
        """That tap of every window, in the padded input."""
        return slice(tap, tap + (self.given - 1) * self.stride + 1, self.stride)

    def counts(self) -> list[int]:
        """Taps of each window that lie within the input."""
        starts = [window * self.stride - self.before for window in range(self.given)]
        return [min(start + self.taps, self.extent) - max(start, 0) for start in starts]


def forward(operation: Operation, x: Tensor) -> Tensor:
    """Pool `[N, h, w, C]`; `same` padding does not count in an average."""
    pool = tf.nn.max_pool2d if operation.kind == "max_pooling" else tf.nn.avg_pool2d
    return pool(x, operation.window, operation.strides, operation.padding.upper())


def backward(operation: Operation, gradient: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The gradient at the input.

    Args:
        operation: `max_pooling` or `average_pooling`.
        gradient: at the output, of its shape.
        x: the input, `[N, h, w, C]`.
        y: the output.
    """
    rows, columns = (
        _axis(operation, extent, given, index)
        for index, (extent, given) in enumerate(zip(x.shape[1:3], y.shape[1:3], strict=True))
    )
    if operation.kind == "max_pooling":
        shares = _winners(gradient, x, y, rows, columns)
        return _interleave(lambda i, j: shares[i][j], gradient, rows, columns)
    counts = np.outer(rows.counts(), columns.counts()).astype(np.float32)
    share = gradient / tf.constant(counts[None, :, :, None])
    return _interleave(lambda _i, _j: share, gradient, rows, columns)


def _axis(operation: Operation, extent: int, given: int, index: int) -> _Axis:
    taps, stride = operation.window[index], operation.strides[index]
    before = 0
    if operation.padding == "same":
        before = max((given - 1) * stride + taps - extent, 0) // 2
    return _Axis(extent, before, taps, stride, given)


def _winners(
    gradient: Tensor, x: Tensor, y: Tensor, rows: _Axis, columns: _Axis
) -> list[list[Tensor]]:
    """Each tap's share of each window: all of it at the first maximum."""
    pads = [(0, 0), (rows.before, rows.after), (columns.before, columns.after), (0, 0)]
    padded = tf.pad(x, pads, constant_values=tf.float32.min)
    open_still = tf.ones_like(y)
    shares: list[list[Tensor]] = []
    for i in range(rows.taps):
        shares.append([])
        for j in range(columns.taps):
            tap = padded[:, rows.at(i), columns.at(j), :]
            hit = tf.cast(tap >= y, tf.float32) * open_still
            open_still = open_still - hit
            shares[-1].append(gradient * hit)
    return shares


def _interleave(share: Share, like: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    """Sum the taps' shares where they lie in the input."""
    bands = []
    for down in range(rows.stride):
        planes = [_plane(share, like, rows, columns, (down, a)) for a in range(columns.stride)]
        bands.append(tf.stack(planes, axis=3))
    height, width = rows.cells * rows.stride, columns.cells * columns.stride
    full = tf.reshape(tf.stack(bands, axis=2), (-1, height, width, like.shape[-1]))
    beyond = [max(a.before + a.extent - a.cells * a.stride, 0) for a in (rows, columns)]
    full = tf.pad(full, [(0, 0), (0, beyond[0]), (0, beyond[1]), (0, 0)])
    below, right = rows.before + rows.extent, columns.before + columns.extent
    return full[:, rows.before : below, columns.before : right, :]


def _plane(
    share: Share, like: Tensor, rows: _Axis, columns: _Axis, phase: tuple[int, int]
) -> Tensor:
    """The sum of the taps at one place within a stride, `[N, cells, cells, C]`."""
    total = None
    for i in range(phase[0], rows.taps, rows.stride):
        for j in range(phase[1], columns.taps, columns.stride):
            top, left = i // rows.stride, j // columns.stride
            below, right = rows.cells - rows.given - top, columns.cells - columns.given - left
            part = tf.pad(share(i, j), [(0, 0), (top, below), (left, right), (0, 0)])
            total = part if total is None else total + part
    if total is None:  # strides longer than the window
        pads = [(0, 0), (0, rows.cells - rows.given), (0, columns.cells - columns.given), (0, 0)]
        return tf.pad(tf.zeros_like(like), pads)
    return total
