"""Layers of the channels-last networks: only operations that the XNNPACK delegate takes.

Activations are (N, H, W, C). XNNPACK has 4-bit weights for matrix products alone, so a convolution
is written as one product: its k*k shifted views are concatenated on the channels (in int8, where
the layer is quantized) and multiplied by the weights as a (O, k*k*I) matrix.

    conv2d(x, w)  ->  pad -> quantize -> k*k slices -> cat -> linear(., w') -> quantize
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mobile_export.backends.executorch.convolution_geometry import ConvolutionGeometry, as_matrix
from mobile_export.backends.executorch.dynamic_layers import DynamicConvolution, DynamicProduct
from mobile_export.backends.executorch.pieces import joined, pieces
from mobile_export.backends.executorch.row_image import RowImage
from mobile_export.backends.executorch.support import channel_codes
from mobile_export.quantize.fake_quantize import DequantizedWeight, FakeQuantize
from mobile_export.quantize.observed_layer import ObservedLayer
from mobile_export.quantize.table import LayerQuantization

Layers = Mapping[str, LayerQuantization]  # the quantized layers of a network by full name


class FloatWeight(nn.Module):
    """A float32 matrix behind the same call as DequantizedWeight."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("values", values)

    def forward(self) -> Tensor:
        return self.values


class MatrixProduct(ObservedLayer):
    """y = output(weight @ input(x) + bias) over the last dimension; the grids are absent where activations are float32.

    The delegate takes integer weights for float32 activations, but no bias with them: that one is added in an operation
    of its own, or not at all where it is 0. Tensors that need no other order are shared with the layer or the
    quantization.
    """

    def __init__(self, name: str, layer: nn.Conv2d | nn.Linear, quantization: LayerQuantization | None) -> None:
        super().__init__(name)
        self.input: nn.Module = nn.Identity()
        self.output: nn.Module = nn.Identity()
        self.weight: nn.Module
        self.weight_only = quantization is not None and quantization.input is None
        if quantization is None:
            self.weight = FloatWeight(as_matrix(layer.weight))
            bias = layer.bias.detach() if layer.bias is not None else torch.zeros(layer.weight.shape[0])
        else:
            codes = channel_codes(quantization)
            self.weight = DequantizedWeight(as_matrix(codes.codes), codes.scale, codes.bits)
            bias = quantization.bias
            if quantization.input is not None and quantization.output is not None:
                self.input, self.output = FakeQuantize(quantization.input), FakeQuantize(quantization.output)
        # What is in no operation would be stored all the same.
        self.register_buffer("bias", None if self.weight_only and not bias.any() else bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.product(self.on_grid(x))

    def on_grid(self, x: Tensor) -> Tensor:
        """The input, rounded to the layer's input grid."""
        return self.rounded("input", self.input, x)

    def product(self, x: Tensor) -> Tensor:
        """The layer for an input that is already on its grid."""
        return self.rounded("output", self.output, self._affine(x))

    def piece(self, x: Tensor) -> Tensor:
        """The same for some of the rows of an input: (N, some of H, W, I) -> (N, some of H, W, O), rounded."""
        return self.output(self._affine(x))

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """The layer's output from its pieces in order."""
        return self.rounded("output", self.output, joined(parts, 1, self.output))

    def _affine(self, x: Tensor) -> Tensor:
        if not self.weight_only:
            return functional.linear(x, self.weight(), self.bias)
        y = functional.linear(x, self.weight())
        return y if self.bias is None else y + self.bias


class Convolution(nn.Module):
    """Square convolution of stride 1 or 2 as matrix products. (N, H, W, I) -> (N, H', W', O)."""

    def __init__(self, name: str, layer: nn.Conv2d, quantization: LayerQuantization | None) -> None:
        super().__init__()
        self.geometry = ConvolutionGeometry.of(layer)
        self.matrix = MatrixProduct(name, layer, quantization)

    def forward(self, x: Tensor, behind: int | None = None) -> Tensor:
        """behind: rows and columns of zeros after the last, where not as many as before the first."""
        x, height, width = self.geometry.bordered(x, behind)
        x = self.matrix.on_grid(x)
        if self.geometry.kernel == self.geometry.stride == 1:
            return self.matrix.product(x)
        bands = list(pieces(height, len(x) * width * self.geometry.kernel**2 * x.shape[3]))
        if len(bands) == 1:
            return self.matrix.product(self._views(x, height, width))
        # All slices of a rounded tensor stand together: the partitioner would end a delegate between two of them.
        slices = [self.matrix.input(self.geometry.band(x, first, count)) for first, count in bands]
        pairs = zip(slices, bands, strict=True)
        return self.matrix.joined([self.matrix.piece(self._views(part, count, width)) for part, (_, count) in pairs])

    def by_rows(self, shape: Sequence[int]) -> bool:
        """Whether an image (N, H, W, I) of this shape is so large that `of_rows` should have it; not where inputs are
        rounded, since a rounded image is looked at as a whole."""
        plain = isinstance(self.matrix.input, nn.Identity) and self.geometry.stride == 1 < self.geometry.kernel
        return plain and len(self._bands(shape)) > 1

    def of_rows(self, image: RowImage) -> Tensor:
        """The same for an image that is made row by row."""
        size, before, over = image.shape[1], self.geometry.padding, self.geometry.kernel - 1
        parts, width = [], image.shape[2] + 2 * before - over
        for first, count in self._bands(image.shape):
            start, end = first - before, first + count + over - before  # of the rows, borders included
            part = image.rows(max(start, 0), min(end, size))
            part = functional.pad(part, (0, 0, before, before, max(-start, 0), max(end - size, 0)))
            parts.append(self.matrix.piece(self._views(part, count, width)))
        return self.matrix.joined(parts)

    def _bands(self, shape: Sequence[int]) -> list[tuple[int, int]]:
        n, height, width, channels = shape
        rows = height + 2 * self.geometry.padding - self.geometry.kernel + 1
        return list(pieces(rows, n * width * self.geometry.kernel**2 * channels))

    def _views(self, x: Tensor, height: int, width: int) -> Tensor:
        """The k*k inputs of each output, (N, stride * height + k - 1, ..., I) -> (N, height, width, k*k*I)."""
        on_grid = self.matrix.input  # views of a rounded tensor keep its values; the op says so to the backend
        rows = self.geometry.row_windows(x, height, width, on_grid)
        return on_grid(torch.cat(rows, -1)) if len(rows) > 1 else rows[0]


def convolution(name: str, source: nn.Conv2d, layers: Layers) -> Convolution | DynamicConvolution:
    """`source` with the integers of its full name, if it has any."""
    quantization = layers.get(name)
    if quantization is not None and quantization.dynamic:
        return DynamicConvolution(name, source, quantization)
    return Convolution(name, source, quantization)


def product(name: str, source: nn.Conv2d | nn.Linear, layers: Layers) -> MatrixProduct | DynamicProduct:
    """`source`, a linear layer or 1x1 convolution, with the integers of its full name, if it has any."""
    quantization = layers.get(name)
    if quantization is not None and quantization.dynamic:
        return DynamicProduct(name, quantization)
    return MatrixProduct(name, source, quantization)


def silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def upsample_nearest(x: Tensor, one: Tensor) -> Tensor:
    """(N, H, W, C) -> (N, 2H, 2W, C). `one` is a (1,) tensor of 1: cat wants two different nodes."""
    n, h, w, c = x.shape
    y = x.reshape(n * h, 1, w * c)
    y = torch.cat([y, y * one], 1).reshape(2 * n * h * w, 1, c)
    return torch.cat([y, y * one], 1).reshape(n, 2 * h, 2 * w, c)
