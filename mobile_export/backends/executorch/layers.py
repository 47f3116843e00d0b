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

from mobile_export.backends.executorch.support import channel_codes
from mobile_export.quantize.fake_quantize import DequantizedWeight, FakeQuantize
from mobile_export.quantize.observed_layer import ObservedLayer
from mobile_export.quantize.table import LayerQuantization

Layers = Mapping[str, LayerQuantization]  # the quantized layers of a network by full name

# An intermediate of more values than this is computed in pieces: 128 MiB in float32. The images of an autoencoder's
# last blocks would need gigabytes for the views of one convolution. A piece costs another packed copy of the weights.
MOST_VALUES = 2**25


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

    def joined(self, pieces: Sequence[Tensor]) -> Tensor:
        """The layer's output from its pieces in order."""
        return self.rounded("output", self.output, torch.cat(list(pieces), 1))

    def _affine(self, x: Tensor) -> Tensor:
        if not self.weight_only:
            return functional.linear(x, self.weight(), self.bias)
        y = functional.linear(x, self.weight())
        return y if self.bias is None else y + self.bias


def as_matrix(weight: Tensor) -> Tensor:
    """(O, I, k, k) or (O, I) -> (O, k*k*I), taps in row-major order, channels innermost; copied only to reorder."""
    if weight.dim() == 2:
        return weight.detach()
    return weight.detach().permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


class Convolution(nn.Module):
    """Square convolution of stride 1 or 2 as matrix products. (N, H, W, I) -> (N, H', W', O)."""

    def __init__(self, name: str, layer: nn.Conv2d, quantization: LayerQuantization | None) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = layer.kernel_size[0], layer.stride[0], int(layer.padding[0])
        self.matrix = MatrixProduct(name, layer, quantization)

    def forward(self, x: Tensor, behind: int | None = None) -> Tensor:
        """behind: rows and columns of zeros after the last, where not as many as before the first."""
        n, k, stride, before = len(x), self.kernel, self.stride, self.padding
        size = [x.shape[1], x.shape[2]]
        height, width = ((s + before + (before if behind is None else behind) - k) // stride + 1 for s in size)
        # A stride of 2 is taken from whole pairs, which may need one more zero than the convolution itself.
        end = [stride * out + k - 1 - before - s for out, s in zip((height, width), size, strict=True)]
        if before or any(end):
            x = functional.pad(x, (0, 0, before, end[1], before, end[0]))
        x = self.matrix.on_grid(x)
        if k == stride == 1:
            return self.matrix.product(x)
        rows = max(1, MOST_VALUES // (n * width * k * k * x.shape[3]))  # of the output, at a time
        if rows >= height:
            return self.matrix.product(self._views(x, height, width))
        tops = range(0, height, rows)
        # All slices of a rounded tensor stand together: the partitioner would end a delegate between two of them.
        bands = [self.matrix.input(x[:, stride * top : stride * min(top + rows, height) + k - 1]) for top in tops]
        heights = [min(rows, height - top) for top in tops]
        pairs = zip(bands, heights, strict=True)
        return self.matrix.joined([self.matrix.piece(self._views(band, count, width)) for band, count in pairs])

    def _views(self, x: Tensor, height: int, width: int) -> Tensor:
        """The k*k inputs of each output, (N, stride * height + k - 1, ..., I) -> (N, height, width, k*k*I)."""
        on_grid = self.matrix.input  # views of a rounded tensor keep its values; the op says so to the backend
        k = self.kernel
        if self.stride == 1:
            # Shift along W once and reuse it for the k rows: k + k slices instead of k * k.
            rows = on_grid(torch.cat([on_grid(x[:, :, j : j + width]) for j in range(k)], -1))
            return on_grid(torch.cat([on_grid(rows[:, i : i + height]) for i in range(k)], -1))
        taps = [on_grid(every_other(x[:, i : i + 2 * height, j : j + 2 * width])) for i in range(k) for j in range(k)]
        return on_grid(torch.cat(taps, -1)) if k > 1 else taps[0]


def convolution(name: str, source: nn.Conv2d, layers: Layers) -> Convolution:
    """`source` with the integers of its full name, if it has any."""
    return Convolution(name, source, layers.get(name))


def product(name: str, source: nn.Conv2d | nn.Linear, layers: Layers) -> MatrixProduct:
    """`source`, a linear layer or 1x1 convolution, with the integers of its full name, if it has any."""
    return MatrixProduct(name, source, layers.get(name))


def every_other(x: Tensor) -> Tensor:
    """(N, H, W, C) -> (N, H/2, W/2, C), even rows and columns, without a strided slice."""
    n, h, w, c = x.shape
    pairs = x.reshape(n, h // 2, 2, w // 2, 2 * c)
    return pairs[:, :, 0:1, :, 0:c].reshape(n, h // 2, w // 2, c)


def silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def upsample_nearest(x: Tensor, one: Tensor) -> Tensor:
    """(N, H, W, C) -> (N, 2H, 2W, C). `one` is a (1,) tensor of 1: cat wants two different nodes."""
    n, h, w, c = x.shape
    y = x.reshape(n * h, 1, w * c)
    y = torch.cat([y, y * one], 1).reshape(2 * n * h * w, 1, c)
    return torch.cat([y, y * one], 1).reshape(n, 2 * h, 2 * w, c)
