"""Quantized activations: floats to 8-bit codes and back."""

from __future__ import annotations

import torch
from torch import Tensor

from mobile_export.coreml_simulator.ops.element import element_of
from mobile_export.coreml_simulator.ops.registry import op


@op("quantize", element="output_dtype")
def quantize(
    input: Tensor, scale: Tensor, zero_point: Tensor | None = None, *, output_dtype: str, axis: int | None = None
) -> Tensor:
    """clip(round(input / scale) + zero_point), halves rounded to even; codes in the range of int8 or uint8.

    scale, zero_point: scalars, or [input.shape[axis]].
    """
    carrier = element_of(output_dtype).carrier
    limits = torch.iinfo(carrier)
    codes = torch.round(input / along(scale, input, axis))
    if zero_point is not None:
        codes = codes + along(zero_point, input, axis).float()
    return codes.clamp(limits.min, limits.max).to(carrier)


@op("dequantize")
def dequantize(input: Tensor, scale: Tensor, zero_point: Tensor | None = None, *, axis: int | None = None) -> Tensor:
    """(input - zero_point) * scale."""
    codes = input.float()
    if zero_point is not None:
        codes = codes - along(zero_point, input, axis).float()
    return codes * along(scale, input, axis)


def along(vector: Tensor, data: Tensor, axis: int | None) -> Tensor:
    """A scalar as it is; [n] with n at `axis` of as many axes as data has."""
    if vector.dim() == 0 or axis is None:
        return vector
    shape = [1] * data.dim()
    shape[axis] = vector.shape[0]
    return vector.reshape(shape)
