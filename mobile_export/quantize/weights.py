"""Weight codes: symmetric, one scale per output channel, scale chosen by least squared error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# The scale is searched among these fractions of the one that just covers the largest weight:
# clipping a few outliers makes the step of all other weights finer.
_SHRINKS = tuple(1 - 0.0125 * i for i in range(41))  # 1.0 ... 0.5


@dataclass(frozen=True)
class WeightCodes:
    """Integer weights: value = codes * scale[channel].

    codes: (O, ...) int8 in [-2^(bits-1), 2^(bits-1) - 1]; scale: (O,) float32 > 0.
    """

    codes: Tensor
    scale: Tensor
    bits: int

    def dequantize(self) -> Tensor:
        """(O, ...) float32."""
        return self.codes.float() * self.scale.view(-1, *[1] * (self.codes.dim() - 1))


def quantize_weight(weight: Tensor, bits: int) -> WeightCodes:
    """Round to nearest on the grid whose scale has the least squared error, per output channel.

    weight: (O, ...) float32. Solved in float64.
    """
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    flat = weight.detach().reshape(weight.shape[0], -1).double()
    full = (flat.abs().amax(1) / high).clamp_min(1e-12)
    best_error = torch.full_like(full, torch.inf)
    best_scale = full.clone()
    for shrink in _SHRINKS:
        # The scale ships as float32, so it is rounded before it is judged.
        scale = (full * shrink).float().double()
        codes = (flat / scale[:, None]).round().clamp(low, high)
        error = (codes * scale[:, None] - flat).square().sum(1)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_scale = torch.where(better, scale, best_scale)
    codes = (flat / best_scale[:, None]).round().clamp(low, high)
    return WeightCodes(codes.to(torch.int8).reshape(weight.shape), best_scale.float(), bits)
