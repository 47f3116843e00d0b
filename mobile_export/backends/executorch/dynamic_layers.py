"""Layers whose 8-bit inputs find their range at run time, row by row, and whose outputs are float32.

XNNPACK's product takes one grid for each row of its input, which no slice or concatenation can be made of. So a
convolution is one product for each row of its kernel, and their sum:

    conv2d(x, w)  ->  pad -> k slices along W -> cat -> k times (slice along H -> quantize -> linear) -> +

That copies k values for each of the input's, where one product of k*k views would copy k*k.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.ao.quantization.fx._decomposed
from torch import Tensor, nn
from torch.nn import functional

from mobile_export.backends.executorch.convolution_geometry import (
    ConvolutionGeometry,
    as_matrix,
    kernel_rows,
)
from mobile_export.backends.executorch.pieces import joined, pieces
from mobile_export.backends.executorch.row_image import RowImage
from mobile_export.backends.executorch.support import channel_codes
from mobile_export.quantize.activations import ACTIVATION_MAX, ACTIVATION_MIN
from mobile_export.quantize.dynamic_quantize import DynamicQuantize
from mobile_export.quantize.fake_quantize import DequantizedWeight, Quantize
from mobile_export.quantize.observed_layer import ObservedLayer
from mobile_export.quantize.table import LayerQuantization

_ops = torch.ops.quantized_decomposed


class RowQuantize(DynamicQuantize):
    """DynamicQuantize in the operations that the delegate folds into the product."""

    def forward(self, x: Tensor) -> Tensor:
        codes = ACTIVATION_MIN, ACTIVATION_MAX, torch.int8
        scale, zero_point = _ops.choose_qparams_per_token_asymmetric(x, torch.int8)
        rounded = _ops.quantize_per_token(x, scale, zero_point, *codes)
        return _ops.dequantize_per_token(rounded, scale, zero_point, *codes, torch.float32)


class RoundedLater(Quantize):
    """Stands where the input of a convolution is looked at: it is rounded in pieces, behind."""

    def codes(self, x: Tensor) -> Tensor:
        raise NotImplementedError("which codes an image gets is for WindowQuantize to say")

    def forward(self, x: Tensor) -> Tensor:
        return x


class DynamicProduct(ObservedLayer):
    """y = weight @ rounded(x) + bias over the last dimension, (..., I) -> (..., O)."""

    bias: Tensor | None

    def __init__(self, name: str, quantization: LayerQuantization) -> None:
        super().__init__(name)
        self.input = RowQuantize()
        codes = channel_codes(quantization)
        self.weight = DequantizedWeight(as_matrix(codes.codes), codes.scale, codes.bits)
        self.register_buffer("bias", _bias(quantization))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(self.rounded("input", self.input, x), self.weight(), self.bias)


class DynamicConvolution(ObservedLayer):
    """Square convolution of stride 1 or 2. (N, H, W, I) -> (N, H', W', O)."""

    bias: Tensor | None

    def __init__(self, name: str, layer: nn.Conv2d, quantization: LayerQuantization) -> None:
        super().__init__(name)
        self.geometry = ConvolutionGeometry.of(layer)
        self.input, self.quantize = RoundedLater(), RowQuantize()
        codes = channel_codes(quantization)
        self.rows = nn.ModuleList(DequantizedWeight(row, codes.scale, codes.bits) for row in kernel_rows(codes.codes))
        self.register_buffer("bias", _bias(quantization))

    def forward(self, x: Tensor, behind: int | None = None) -> Tensor:
        """behind: rows and columns of zeros after the last, where not as many as before the first."""
        x, height, width = self.geometry.bordered(x, behind)
        x = self.rounded("input", self.input, x)
        bands = list(pieces(height, len(x) * width * self.geometry.kernel * x.shape[3]))
        if len(bands) == 1:
            return self._rows(x, height, width)
        return joined([self._rows(self.geometry.band(x, first, count), count, width) for first, count in bands], 1)

    def by_rows(self, shape: Sequence[int]) -> bool:
        """Never: an image whose rows are rounded is looked at as a whole."""
        return False

    def of_rows(self, image: RowImage) -> Tensor:
        """The convolution of an image that is made row by row."""
        return self(image.whole())

    def _rows(self, x: Tensor, height: int, width: int) -> Tensor:
        """(N, stride * height + k - 1, ..., I) -> (N, height, width, O)."""
        products = [
            functional.linear(self.quantize(row), weight(), None if i else self.bias)
            for i, (row, weight) in enumerate(zip(self._inputs(x, height, width), self.rows, strict=True))
        ]
        return functools.reduce(torch.add, products)

    def _inputs(self, x: Tensor, height: int, width: int) -> list[Tensor]:
        """For each row of the kernel what it is multiplied with, (N, height, width, k*I)."""
        if self.geometry.kernel == self.geometry.stride == 1:
            return [x]
        return self.geometry.row_windows(x, height, width)


def _bias(quantization: LayerQuantization) -> Tensor | None:
    return quantization.float_bias if quantization.float_bias.any() else None
