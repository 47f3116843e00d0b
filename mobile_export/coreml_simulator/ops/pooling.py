"""Pooling over windows of the spatial axes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mobile_export.coreml_simulator.errors import UnsupportedError
from mobile_export.coreml_simulator.ops.padding import pad_spatial, paddings
from mobile_export.coreml_simulator.ops.registry import Ints, op

AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
MAXIMUM = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


@op("avg_pool")
def avg_pool(
    x: Tensor,
    *,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Tensor:
    """The mean of each window; the zeros of the padding count unless they are excluded."""
    strides, border = _windows(x, kernel_sizes, pad_type, strides, pad, ceil_mode)
    average = AVERAGE[len(kernel_sizes)]
    if ceil_mode:
        padding = tuple(before for before, _ in border)
        return average(x, kernel_sizes, strides, padding, True, not exclude_padding_from_average)
    mean = average(pad_spatial(x, border), kernel_sizes, strides)
    if not exclude_padding_from_average:
        return mean
    ones = torch.ones((1, 1, *x.shape[2:]))
    return mean / average(pad_spatial(ones, border), kernel_sizes, strides)


@op("l2_pool")
def l2_pool(
    x: Tensor,
    *,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """The square root of the sum of squares of each window."""
    if ceil_mode:
        raise UnsupportedError("l2_pool with ceil_mode; supported is without")
    strides, border = _windows(x, kernel_sizes, pad_type, strides, pad, ceil_mode)
    mean = AVERAGE[len(kernel_sizes)](pad_spatial(torch.square(x), border), kernel_sizes, strides)
    return torch.sqrt(mean * math.prod(kernel_sizes))


@op("max_pool", exact=True)
def max_pool(
    x: Tensor,
    *,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """The largest value of each window; padding never wins."""
    strides, border = _windows(x, kernel_sizes, pad_type, strides, pad, ceil_mode)
    maximum = MAXIMUM[len(kernel_sizes)]
    if ceil_mode:
        return maximum(x, kernel_sizes, strides, tuple(before for before, _ in border), ceil_mode=True)
    return maximum(pad_spatial(x, border, -math.inf), kernel_sizes, strides)


def _windows(
    x: Tensor, kernel: Ints, pad_type: str, strides: Ints | None, pad: Ints | None, ceil_mode: bool
) -> tuple[Ints, list[tuple[int, int]]]:
    """The strides, and the padding of each axis; with ceil_mode it is symmetric."""
    strides = strides or (1,) * len(kernel)
    border = paddings(pad_type, pad, x.shape[2:], kernel, strides, (1,) * len(kernel))
    if ceil_mode and any(before != after for before, after in border):
        raise UnsupportedError(f"ceil_mode with the padding {border}; supported is the same before and after")
    return strides, border
