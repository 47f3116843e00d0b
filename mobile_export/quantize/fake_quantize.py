"""Quantize: the quantize/dequantize pairs that eager PyTorch runs and backends match; weights behind one call."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.ao.quantization.fx._decomposed
from torch import Tensor, nn

from mobile_export.quantize.activations import ACTIVATION_MAX, ACTIVATION_MIN, ActivationGrid
from mobile_export.quantize.palette import PaletteCodes
from mobile_export.quantize.weights import WeightCodes

_ops = torch.ops.quantized_decomposed


class Quantize(nn.Module, ABC):
    """A place where float32 activations are rounded to 8 bits and taken back."""

    @abstractmethod
    def codes(self, x: Tensor) -> Tensor:
        """int8 codes of `x`."""

    def steps(self, x: Tensor) -> Tensor:
        """int32, same shape as the codes: how many steps each value is from one that is always on the grid."""
        return self.codes(x).int()


class FakeQuantize(Quantize):
    """Rounds a float32 tensor of any shape to its 8-bit grid: dequantize(quantize(x))."""

    def __init__(self, grid: ActivationGrid) -> None:
        super().__init__()
        self.grid = grid

    def codes(self, x: Tensor) -> Tensor:
        """int8 codes, same shape; ties round to even, as every backend does."""
        g = self.grid
        return _ops.quantize_per_tensor(x, g.scale, g.zero_point, ACTIVATION_MIN, ACTIVATION_MAX, torch.int8)

    def forward(self, x: Tensor) -> Tensor:
        g = self.grid
        return _ops.dequantize_per_tensor(
            self.codes(x), g.scale, g.zero_point, ACTIVATION_MIN, ACTIVATION_MAX, torch.int8
        )


class DequantizedWeight(nn.Module):
    """Integer weights that appear as float32 in the graph, through the op that backends fold.

    codes: (O, ...) int8, dequantized per output channel. The range written into the op is what
    selects the stored type: [-8, 7] becomes 4-bit nibbles, [-128, 127] bytes.
    """

    def __init__(self, codes: Tensor, scale: Tensor, bits: int) -> None:
        super().__init__()
        self.low, self.high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.zeros(scale.shape, dtype=torch.int64))

    def forward(self) -> Tensor:
        return _ops.dequantize_per_channel(self.codes, self.scale, self.zero_point, 0, self.low, self.high, torch.int8)


class CodedWeight(nn.Module):
    """Codes of any format behind the same call: float32, in the shape of the layer's weight."""

    def __init__(self, weight: WeightCodes | PaletteCodes) -> None:
        super().__init__()
        self.codes = weight

    def forward(self) -> Tensor:
        return self.codes.dequantize()


def weight_values(weight: WeightCodes | PaletteCodes) -> nn.Module:
    """The module that gives the values of `weight`: through the op that backends fold, where that has the format."""
    if isinstance(weight, WeightCodes) and weight.scale.dim() == 1:
        return DequantizedWeight(weight.codes, weight.scale, weight.bits)
    return CodedWeight(weight)
