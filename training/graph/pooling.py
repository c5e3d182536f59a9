"""Pooling forwards and backwards, with inference ops alone.

Backwards, each place of a window (a "tap") gets a share of the window's gradient. Under average
pooling the shares are equal. Under max pooling the first maximum, row by row, gets all, as in
TensorFlow's `MaxPoolGrad`.

Windows may overlap, so an input position sums the shares of several taps. They are put in place by
pad, stack and reshape, without scattering: tap t of window i lies at position `stride * i + t` of
the padded input, so that taps with the same `t % stride` (a "phase") fall on the same place of each
stride. Along one axis, with 3 taps, stride 2 and windows a, b, c:

    padded input      0   1   2   3   4   5   6
    window a          a0  a1  a2
    window b                  b0  b1  b2
    window c                          c0  c1  c2

    phase 0 (t = 0)   a0      b0      c0            summed to one plane:
            (t = 2)           a2      b2      c2      a0   b0+a2   c0+b2   c2
    phase 1 (t = 1)       a1      b1      c1          a1   b1      c1      0

    stacked and reshaped: a0  a1  b0+a2  b1  c0+b2  c1  c2  0

One plane has `cells` values, one for each stride that the windows cover; here 4. In two dimensions
there are stride x stride phases. Last, the padding is cut off.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from training.graph.network import Operation

__all__ = ["backward", "forward", "same_padding_before"]

Tensor: TypeAlias = tf.Tensor
Share = Callable[[int, int], Tensor]
"""The share of the tap in row i and column j of every window, `[N, h', w', C]`."""


@dataclass(frozen=True)
class _Axis:
    """How windows lie along height or width.

    Attributes:
        extent: of the input.
        before: positions of padding before the input.
        taps: places in a window.
        stride: from one window to the next.
        windows: number of windows, which is the extent of the output.
    """

    extent: int
    before: int
    taps: int
    stride: int
    windows: int

    @property
    def after(self) -> int:
        """Positions of padding after the input that the last window needs."""
        end = (self.windows - 1) * self.stride + self.taps
        return max(end - self.extent - self.before, 0)

    @property
    def cells(self) -> int:
        """Strides that the windows cover, the last one perhaps in part."""
        return self.windows + (self.taps - 1) // self.stride

    def at(self, tap: int) -> slice:
        """Where every window's tap lies in the padded input: `windows` positions."""
        return slice(tap, tap + (self.windows - 1) * self.stride + 1, self.stride)

    def counts(self) -> list[int]:
        """Of each window, the number of taps that lie within the input."""
        starts = [window * self.stride - self.before for window in range(self.windows)]
        return [min(start + self.taps, self.extent) - max(start, 0) for start in starts]


def forward(operation: Operation, x: Tensor) -> Tensor:
    """Pool `[N, h, w, C]` to `[N, h', w', C]`; an average does not count `same` padding."""
    pool = tf.nn.max_pool2d if operation.kind == "max_pooling" else tf.nn.avg_pool2d
    return pool(x, operation.window, operation.strides, operation.padding.upper())


def backward(operation: Operation, gradient: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The gradient at the input, `[N, h, w, C]`.

    Args:
        operation: `max_pooling` or `average_pooling`.
        gradient: at the output, `[N, h', w', C]`.
        x: the input, `[N, h, w, C]`.
        y: the output, `[N, h', w', C]`.
    """
    rows, columns = (
        _axis(operation, extent, windows, index)
        for index, (extent, windows) in enumerate(zip(x.shape[1:3], y.shape[1:3], strict=True))
    )
    if operation.kind == "max_pooling":
        shares = _max_shares(gradient, x, y, rows, columns)
        return _interleave(lambda i, j: shares[i][j], gradient, rows, columns)
    # Each tap inside the input gets the same: G(y) / (taps of this window inside the input).
    counts = np.outer(rows.counts(), columns.counts()).astype(np.float32)  # [h', w']
    share = gradient / tf.constant(counts[None, :, :, None])
    return _interleave(lambda _i, _j: share, gradient, rows, columns)


def same_padding_before(extent: int, windows: int, taps: int, stride: int) -> int:
    """Zeros that `same` padding puts before the input; an odd one goes after it.

    Args:
        extent: of the input along the axis.
        windows: extent of the output.
        taps: places in a window or kernel.
        stride: from one window to the next.
    """
    return max((windows - 1) * stride + taps - extent, 0) // 2


def _axis(operation: Operation, extent: int, windows: int, index: int) -> _Axis:
    taps, stride = operation.window[index], operation.strides[index]
    same = operation.padding == "same"
    before = same_padding_before(extent, windows, taps, stride) if same else 0
    return _Axis(extent, before, taps, stride, windows)


def _max_shares(
    gradient: Tensor, x: Tensor, y: Tensor, rows: _Axis, columns: _Axis
) -> list[list[Tensor]]:
    """Each tap's share of each window: all of it at the first maximum.

    Returns:
        By the tap's row and column, `[N, h', w', C]`.
    """
    pads = [(0, 0), (rows.before, rows.after), (columns.before, columns.after), (0, 0)]
    padded = tf.pad(x, pads, constant_values=tf.float32.min)  # padding never is the maximum
    unassigned = tf.ones_like(y)  # 1 until a window's maximum has been met, then 0
    shares: list[list[Tensor]] = []
    for i in range(rows.taps):
        shares.append([])
        for j in range(columns.taps):
            tap = padded[:, rows.at(i), columns.at(j), :]  # [N, h', w', C]
            first_maximum = tf.cast(tap >= y, tf.float32) * unassigned
            unassigned = unassigned - first_maximum
            shares[-1].append(gradient * first_maximum)
    return shares


def _interleave(share: Share, gradient: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    """Sum the taps' shares where they lie in the input, `[N, h, w, C]`.

    Args:
        share: of each tap.
        gradient: at the output, `[N, h', w', C]`: for its shape.
        rows: of windows.
        columns: of windows.
    """
    bands = []
    for down in range(rows.stride):
        planes = [
            _plane(share, gradient, rows, columns, (down, across))
            for across in range(columns.stride)
        ]
        bands.append(tf.stack(planes, axis=3))  # [N, cells, cells, stride, C]
    # [N, cells, stride, cells, stride, C]: position = cell * stride + phase on either axis, which
    # is what the reshape computes.
    height, width = rows.cells * rows.stride, columns.cells * columns.stride
    full = tf.reshape(tf.stack(bands, axis=2), (-1, height, width, gradient.shape[-1]))
    # Zeros where the input goes on behind the last window, then the input without its padding.
    beyond = [
        max(axis.before + axis.extent - axis.cells * axis.stride, 0) for axis in (rows, columns)
    ]
    full = tf.pad(full, [(0, 0), (0, beyond[0]), (0, beyond[1]), (0, 0)])
    bottom, right = rows.before + rows.extent, columns.before + columns.extent
    return full[:, rows.before : bottom, columns.before : right, :]


def _plane(
    share: Share, gradient: Tensor, rows: _Axis, columns: _Axis, phase: tuple[int, int]
) -> Tensor:
    """The sum of all taps of one phase, `[N, cells, cells, C]`.

    Tap i of window n lies in cell `n + i // stride`: its shares are moved by that many cells.

    Args:
        share: of each tap.
        gradient: at the output, `[N, h', w', C]`: for its shape.
        rows: of windows.
        columns: of windows.
        phase: row and column within a stride.
    """
    total = None
    for i in range(phase[0], rows.taps, rows.stride):
        for j in range(phase[1], columns.taps, columns.stride):
            top, left = i // rows.stride, j // columns.stride
            bottom = rows.cells - rows.windows - top
            right = columns.cells - columns.windows - left
            moved = tf.pad(share(i, j), [(0, 0), (top, bottom), (left, right), (0, 0)])
            total = moved if total is None else total + moved
    if total is None:  # a stride longer than the window has phases that no tap falls on
        empty = [(0, rows.cells - rows.windows), (0, columns.cells - columns.windows)]
        return tf.pad(tf.zeros_like(gradient), [(0, 0), *empty, (0, 0)])
    return total
