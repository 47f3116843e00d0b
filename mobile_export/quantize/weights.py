"""Linear weight codes: symmetric, one scale per output channel or block, chosen by least squared error."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from mobile_export.quantize.half import half_scale, is_half_scale
from mobile_export.quantize.weight_format import WeightFormat

# The scale is searched among these fractions of the one that just covers the largest weight:
# clipping a few outliers makes the step of all other weights finer.
_SHRINKS = tuple(1 - 0.0125 * i for i in range(41))  # 1.0 ... 0.5
_VALUES_AT_ONCE = 2**17  # one mebibyte in float64: a processor's cache holds what the search goes over again and again


@dataclass(frozen=True)
class WeightCodes:
    """Integer weights: value = codes * scale of the output channel, or of the block of input channels in it.

    codes: (O, I, ...) int8 in [-2^(bits-1), 2^(bits-1) - 1]; scale: float32, normal float16 numbers > 0,
    (O,) or (O, B) for B blocks of I / B input channels. The product is exact in float32.
    """

    codes: Tensor
    scale: Tensor
    bits: int

    def __post_init__(self) -> None:
        self.format.require_bits(self.bits)
        low, high = self.range
        if self.codes.dtype != torch.int8 or self.codes.min() < low or self.codes.max() > high:
            raise ValueError(f"codes must be int8 in [{low}, {high}], got {self.codes.dtype} {_span(self.codes)}")
        if self.scale.dtype != torch.float32 or not is_half_scale(self.scale):
            raise ValueError(
                f"scales must be float32 that hold normal float16 numbers, got {self.scale.dtype} {_span(self.scale)}"
            )

    @property
    def format(self) -> WeightFormat:
        """Channel or block, by the shape of `scale`. Raises ValueError for a shape that is neither."""
        outputs, inputs = self.codes.shape[:2]
        if self.scale.shape == (outputs,):
            return WeightFormat("channel")
        if self.scale.dim() == 2 and self.scale.shape[0] == outputs and inputs % self.scale.shape[1] == 0:
            return WeightFormat("block", inputs // self.scale.shape[1])
        raise ValueError(f"scales of shape {tuple(self.scale.shape)} for weights {tuple(self.codes.shape)}")

    @property
    def range(self) -> tuple[int, int]:
        """The smallest and the largest code."""
        return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is stored, by name."""
        return {"codes": self.codes, "scale": self.scale}

    @property
    def stored_bits(self) -> int:
        """Bits of the codes and of the scales as float16."""
        return self.bits * self.codes.numel() + 16 * self.scale.numel()

    def dequantize(self) -> Tensor:
        """(O, I, ...) float32."""
        outputs = len(self.codes)
        blocks = self.codes.float().reshape(outputs, self.scale.numel() // outputs, -1)
        return (blocks * self.scale.reshape(outputs, -1, 1)).reshape(self.codes.shape)

    def nearest(self, values: Tensor, column: int) -> tuple[Tensor, Tensor]:
        """Codes and their values, (O,) float64 each, nearest to `values` in one column of the (O, K) weight."""
        scale = self.scale.double().reshape(len(self.codes), -1)
        columns_per_scale = self.codes[0].numel() // scale.shape[1]
        step = scale[:, column // columns_per_scale]
        codes = (values / step).round().clamp(*self.range)
        return codes, codes * step

    def with_codes(self, codes: Tensor) -> Self:
        """Other codes, (O, K) of any type, on the same scales."""
        return replace(self, codes=codes.to(torch.int8).reshape(self.codes.shape))


def quantize_linear(weight: Tensor, bits: int, block: int | None = None) -> WeightCodes:
    """Round to nearest on the grids whose scales have the least squared error. Solved in float64.

    weight: (O, I, ...) float32; block: input channels that share a scale, all of them if None.
    """
    outputs, inputs = weight.shape[:2]
    count = 1 if block is None else inputs // block
    rows = weight.detach().reshape(outputs * count, -1)
    some = max(1, _VALUES_AT_ONCE // rows.shape[1])
    parts = [_nearest_grid(part.double(), bits) for part in rows.split(some)]
    codes, scale = (torch.cat(each) for each in zip(*parts, strict=True))
    shape = (outputs,) if block is None else (outputs, count)
    return WeightCodes(codes.reshape(weight.shape), scale.reshape(shape), bits)


def _nearest_grid(rows: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Codes (N, M) int8 and scales (N,) float32 for rows (N, M) float64, each for itself."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    full = rows.abs().amax(1) / high
    best_error = torch.full_like(full, torch.inf)
    best_scale = full.clone()
    for shrink in _SHRINKS:
        scale = half_scale(full * shrink)
        codes = (rows / scale[:, None]).round_().clamp_(low, high)
        error = codes.mul_(scale[:, None]).sub_(rows).square_().sum(1)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_scale = torch.where(better, scale, best_scale)
    codes = (rows / best_scale[:, None]).round_().clamp_(low, high)
    return codes.to(torch.int8), best_scale.float()


def _span(values: Tensor) -> str:
    return f"in [{values.min().item():g}, {values.max().item():g}]"
