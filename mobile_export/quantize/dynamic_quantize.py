"""DynamicQuantize: 8-bit activations whose range is found where they are, row by row, as XNNPACK does it.

A static grid must hold what a tensor has at any timestep; a row's own holds the row, from the noise to the picture.
No grid follows the layer: its sums are scaled to float32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mobile_export.quantize.activations import ACTIVATION_MAX, ACTIVATION_MIN
from mobile_export.quantize.fake_quantize import Quantize

STEPS = float(ACTIVATION_MAX - ACTIVATION_MIN)


class RowCodes(NamedTuple):
    """value = (codes - zero_point) * scale. codes: (..., K) int8; scale, zero_point: (..., 1) float32."""

    codes: Tensor
    scale: Tensor
    zero_point: Tensor

    def from_zero(self) -> Tensor:
        """(..., K) float32 whole numbers: steps from the code of zero."""
        return self.codes.float() - self.zero_point

    def dequantize(self) -> Tensor:
        """(..., K) float32."""
        return self.from_zero() * self.scale


def row_codes(x: Tensor) -> RowCodes:
    """Each row of x (..., K) float32 on the asymmetric grid over its own range and zero.

    The float32 operations are XNNPACK's (f32 to qd8), one for one: another order of them flips codes.
    """
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    width = torch.where(low == high, STEPS, high - low)
    per_unit = torch.full_like(width, STEPS) / width  # of a number and a tensor torch would multiply by the inverse
    from_low, from_high = low * per_unit, high * per_unit
    lower_error_below = (ACTIVATION_MIN + from_low) + (ACTIVATION_MAX + from_high) > 0
    zero_point = torch.where(lower_error_below, ACTIVATION_MIN - from_low, ACTIVATION_MAX - from_high)
    zero_point = zero_point.clamp(ACTIVATION_MIN, ACTIVATION_MAX).round()
    codes = ((x * per_unit).round() + zero_point).clamp(ACTIVATION_MIN, ACTIVATION_MAX).to(torch.int8)
    return RowCodes(codes, 1.0 / per_unit, zero_point)


class DynamicQuantize(Quantize):
    """Rounds (..., K) float32, each row on its own grid: the input of a linear layer.

    Its steps are counted from zero's code, which depends on the row and is rounded, too: where it could go either way,
    all codes of the row go with it, while what they stand for stays.
    """

    def rounded(self, x: Tensor) -> RowCodes:
        return row_codes(x)

    def codes(self, x: Tensor) -> Tensor:
        return self.rounded(x).codes

    def steps(self, x: Tensor) -> Tensor:
        return self.rounded(x).from_zero().int()

    def forward(self, x: Tensor) -> Tensor:
        return self.rounded(x).dequantize()


class WindowQuantize(DynamicQuantize):
    """Rounds the input of a convolution, (N, I, H, W) float32, in windows of one kernel row.

    A window holds what one output takes from one row of the image: k pixels of all channels, zeros of the border
    included. It has a grid of its own, the same for every output that looks at it.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.kernel, self.stride = layer.kernel_size, layer.stride
        self.padding = tuple(int(p) for p in layer.padding)

    def rounded(self, x: Tensor) -> RowCodes:
        """(N, H + border, W', I * k)."""
        return row_codes(self._windows(x))

    def forward(self, x: Tensor) -> Tensor:
        """(N, I * k, H + border, W'): windows as channels, so that what is left is a convolution along H alone."""
        return super().forward(x).permute(0, 3, 1, 2)

    def convolve(self, windows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The convolution of the image that `windows` came from. weight: (O, I, k, k) -> (N, O, H', W')."""
        columns = weight.permute(0, 1, 3, 2).reshape(len(weight), -1, self.kernel[0], 1)
        return functional.conv2d(windows, columns, bias, (self.stride[0], 1))

    def _windows(self, x: Tensor) -> Tensor:
        """(N, I, H, W) -> (N, H + border, W', I * k)."""
        vertical, horizontal = self.padding
        x = functional.pad(x, (horizontal, horizontal, vertical, vertical))
        return x.unfold(3, self.kernel[1], self.stride[1]).permute(0, 2, 3, 1, 4).flatten(3)
