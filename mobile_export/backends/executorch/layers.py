"""Layers of the channels-last network: only operations that the XNNPACK delegate takes.

Activations are (1, H, W, C). XNNPACK has 4-bit weights for matrix products alone, so a convolution
is written as one product: its k*k shifted views are concatenated on the channels (in int8, where
the layer is quantized) and multiplied by the weights as a (O, k*k*I) matrix.

    conv2d(x, w)  ->  pad -> quantize -> k*k slices -> cat -> linear(., w') -> quantize
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mobile_export.backends.executorch.support import channel_codes
from mobile_export.quantize.fake_quantize import DequantizedWeight, FakeQuantize
from mobile_export.quantize.observed_layer import ObservedLayer
from mobile_export.quantize.table import LayerQuantization


class FloatWeight(nn.Module):
    """A float32 matrix behind the same call as DequantizedWeight."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("values", values.detach().clone())

    def forward(self) -> Tensor:
        return self.values


class MatrixProduct(ObservedLayer):
    """y = output(weight @ input(x) + bias) over the last dimension; the grids are absent in float32."""

    def __init__(self, name: str, layer: nn.Conv2d | nn.Linear, quantization: LayerQuantization | None) -> None:
        super().__init__(name)
        self.weight: nn.Module
        if quantization is None:
            self.input: nn.Module = nn.Identity()
            self.output: nn.Module = nn.Identity()
            self.weight = FloatWeight(as_matrix(layer.weight))
            bias = layer.bias.detach().clone() if layer.bias is not None else torch.zeros(layer.weight.shape[0])
        else:
            self.input = FakeQuantize(quantization.input)
            self.output = FakeQuantize(quantization.output)
            codes, _ = channel_codes(quantization)
            self.weight = DequantizedWeight(as_matrix(codes.codes), codes.scale, codes.bits)
            bias = quantization.bias
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.product(self.on_grid(x))

    def on_grid(self, x: Tensor) -> Tensor:
        """The input, rounded to the layer's input grid."""
        return self.rounded("input", self.input, x)

    def product(self, x: Tensor) -> Tensor:
        """The layer for an input that is already on its grid."""
        return self.rounded("output", self.output, functional.linear(x, self.weight(), self.bias))


def as_matrix(weight: Tensor) -> Tensor:
    """(O, I, k, k) or (O, I) -> (O, k*k*I), taps in row-major order, channels innermost."""
    if weight.dim() == 2:
        return weight.detach().clone()
    return weight.detach().permute(0, 2, 3, 1).reshape(weight.shape[0], -1).contiguous()


class Convolution(nn.Module):
    """Square convolution of stride 1 or 2 as one matrix product. (1, H, W, I) -> (1, H', W', O)."""

    def __init__(self, name: str, layer: nn.Conv2d, quantization: LayerQuantization | None) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = layer.kernel_size[0], layer.stride[0], layer.padding[0]
        self.matrix = MatrixProduct(name, layer, quantization)

    def forward(self, x: Tensor) -> Tensor:
        if self.padding:
            p = self.padding
            x = functional.pad(x, (0, 0, p, p, p, p))
        return self.padded(x)

    def padded(self, x: Tensor) -> Tensor:
        """The product for an input whose border is already there."""
        on_grid = self.matrix.input  # views of a rounded tensor keep its values; the op says so to the backend
        k = self.kernel
        x = self.matrix.on_grid(x)
        if k == 1 and self.stride == 1:
            return self.matrix.product(x)
        height, width = x.shape[1] - k + 1, x.shape[2] - k + 1
        if self.stride == 1:
            # Shift along W once and reuse it for the k rows: k + k slices instead of k * k.
            rows = on_grid(torch.cat([on_grid(x[:, :, j : j + width]) for j in range(k)], -1))
            row_views = [on_grid(rows[:, i : i + height]) for i in range(k)]
            return self.matrix.product(on_grid(torch.cat(row_views, -1)))
        height, width = height + height % 2, width + width % 2
        taps = [on_grid(every_other(x[:, i : i + height, j : j + width])) for i in range(k) for j in range(k)]
        return self.matrix.product(on_grid(torch.cat(taps, -1)))


def every_other(x: Tensor) -> Tensor:
    """(1, H, W, C) -> (1, H/2, W/2, C), even rows and columns, without a strided slice."""
    _, h, w, c = x.shape
    pairs = x.reshape(1, h // 2, 2, w // 2, 2 * c)
    return pairs[:, :, 0:1, :, 0:c].reshape(1, h // 2, w // 2, c)


class GroupNorm(nn.Module):
    """Group normalisation in float32 as products with averaging constants. (1, H, W, C) -> same."""

    def __init__(self, norm: nn.GroupNorm, positions: int) -> None:
        super().__init__()
        self.groups, self.eps = norm.num_groups, norm.eps
        per_group = norm.num_channels // norm.num_groups
        self.register_buffer("mean_positions", torch.full((1, 1, positions), 1.0 / positions))
        self.register_buffer("mean_channels", torch.full((1, per_group, per_group), 1.0 / per_group))
        self.register_buffer("gain", norm.weight.detach().clone().view(1, 1, -1))
        self.register_buffer("bias", norm.bias.detach().clone().view(1, 1, -1))

    def group_mean(self, x: Tensor) -> Tensor:
        """(1, HW, C) -> (1, 1, C): the mean of the channel's group, repeated in the group."""
        channels = x.shape[-1]
        mean = torch.bmm(self.mean_positions, x).view(1, self.groups, channels // self.groups)
        return torch.bmm(mean, self.mean_channels).view(1, 1, channels)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(1, -1, x.shape[-1])
        centred = flat - self.group_mean(flat)
        deviation = torch.rsqrt(self.group_mean(centred * centred) + self.eps)
        return (centred * (deviation * self.gain) + self.bias).reshape(x.shape)


def silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def upsample_nearest(x: Tensor, one: Tensor) -> Tensor:
    """(1, H, W, C) -> (1, 2H, 2W, C). `one` is a (1,) tensor of 1: cat wants two different nodes."""
    _, h, w, c = x.shape
    y = x.reshape(h, 1, w * c)
    y = torch.cat([y, y * one], 1).reshape(2 * h * w, 1, c)
    return torch.cat([y, y * one], 1).reshape(1, 2 * h, 2 * w, c)
