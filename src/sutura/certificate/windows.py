"""Convolution and pooling windows as positions, and as matrices where the sizes allow."""

from __future__ import annotations

import math

import numpy as np

from sutura.certificate.errors import CertificateError
from sutura.certificate.layers import Float
from sutura.certificate.wire import Array


def positions(
    space: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    dilations: tuple[int, ...],
) -> tuple[tuple[int, ...], Array]:
    """The output space, and for each output position and kernel entry the input position (-1 is padding).

    All positions are row-major; `pads` is (begin..., end...). Raises CertificateError where sizes do not fit.
    """
    rank = len(space)
    if not len(kernel) == len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        raise CertificateError("a window has as many axes as its input has not")
    if min((*kernel, *strides, *dilations)) < 1 or min(pads) < 0:
        raise CertificateError("a window has a size, step or padding that is out of range")
    axes: list[Array] = []
    for axis in range(rank):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        steps = (space[axis] + pads[axis] + pads[rank + axis] - reach) // strides[axis] + 1
        if steps < 1 or steps * kernel[axis] > MAX_ENTRIES:
            raise CertificateError("a window is larger than its padded input, or too large to check")
        starts = np.arange(steps) * strides[axis] - pads[axis]
        at = starts[:, None] + np.arange(kernel[axis]) * dilations[axis]
        axes.append(np.where((at >= 0) & (at < space[axis]), at, -1))
    if math.prod(at.size for at in axes) > MAX_ENTRIES:
        raise CertificateError(f"the windows of one channel hold more than {MAX_ENTRIES} positions")
    flat, valid = np.zeros((1, 1), np.int64), np.ones((1, 1), bool)
    for at, size in zip(axes, space, strict=True):
        shape = (len(flat) * len(at), flat.shape[1] * at.shape[1])
        flat = (flat[:, None, :, None] * size + at[None, :, None, :]).reshape(shape)
        valid = (valid[:, None, :, None] & (at >= 0)[None, :, None, :]).reshape(shape)
    return tuple(len(at) for at in axes), np.where(valid, flat, -1)


def convolution(weight: Array, group: int, channels: int, space: int, at: Array) -> Float:
    """The matrix of a convolution over flattened (channel, position) values."""
    out, per_group, taps = weight.shape
    _afford(out * len(at), channels * space)
    matrix = np.zeros((out, len(at), channels, space))
    for tap in range(taps):
        here = np.flatnonzero(at[:, tap] >= 0)
        for o in range(out):
            first = o // (out // group) * per_group
            for i in range(per_group):
                matrix[o, here, first + i, at[here, tap]] += weight[o, i, tap]
    return matrix.reshape(out * len(at), channels * space)


def averaging(channels: int, space: int, at: Array, count_padding: bool) -> Float:
    """The matrix of an average pool over flattened (channel, position) values."""
    _afford(channels * len(at), channels * space)
    inside = (at >= 0).sum(axis=1)
    share = 1.0 / (np.full(len(at), at.shape[1]) if count_padding else np.maximum(inside, 1))
    one = np.zeros((len(at), space))
    for tap in range(at.shape[1]):
        here = np.flatnonzero(at[:, tap] >= 0)
        one[here, at[here, tap]] += share[here]
    matrix = np.zeros((channels, len(at), channels, space))
    for channel in range(channels):
        matrix[channel, :, channel, :] = one
    return matrix.reshape(channels * len(at), channels * space)


def blocks(weight: Float, times: int) -> Float:
    """The matrix that applies `weight` (out, in) to each of so many consecutive parts of a value."""
    out, size = weight.shape
    _afford(out * times, size * times)
    matrix = np.zeros((times, out, times, size))
    matrix[np.arange(times), :, np.arange(times), :] = weight
    return matrix.reshape(times * out, times * size)


def _afford(rows: int, columns: int) -> None:
    if rows * columns > MAX_ENTRIES:
        raise CertificateError(f"a layer needs a matrix of {rows} x {columns}, beyond {MAX_ENTRIES} numbers")


MAX_ENTRIES = 1 << 24
