"""Residual, Down and Up: the convolutional parts of diffusers' blocks, channels last."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from mobile_export.backends.executorch.dynamic_layers import DynamicConvolution
from mobile_export.backends.executorch.layers import (
    Convolution,
    Layers,
    convolution,
    product,
    silu,
    upsample_nearest,
)
from mobile_export.backends.executorch.normalization import GroupNorm
from mobile_export.backends.executorch.pieces import part
from mobile_export.backends.executorch.refusal import require, require_type
from mobile_export.backends.executorch.row_image import RowImage


class Residual(nn.Module):
    """ResnetBlock2D: norm, silu, conv, + time, norm, silu, conv, + shortcut. (N, H, W, C) -> (N, H, W, C')."""

    def __init__(self, block: Any, name: str, layers: Layers) -> None:
        super().__init__()
        block = require_type(block, name, ResnetBlock2D)
        require(name, "nonlinearity", type(block.nonlinearity).__name__, "SiLU")
        require(name, "time_embedding_norm", block.time_embedding_norm, "default", "scale_shift", "group")
        require(name, "up", block.up, False)
        require(name, "down", block.down, False)
        require(name, "skip_time_act", block.skip_time_act, False)
        self.norm1 = GroupNorm(block.norm1)
        self.conv1 = convolution(f"{name}.conv1", block.conv1, layers)
        self.time = None
        if block.time_emb_proj is not None and block.time_embedding_norm != "group":
            self.time = product(f"{name}.time_emb_proj", block.time_emb_proj, layers)
        self.norm2 = GroupNorm(block.norm2)
        self.conv2 = convolution(f"{name}.conv2", block.conv2, layers)
        self.shortcut = None
        if block.conv_shortcut is not None:
            self.shortcut = convolution(f"{name}.conv_shortcut", block.conv_shortcut, layers)
        self.scale_shift = block.time_embedding_norm == "scale_shift"
        self.divisor = float(block.output_scale_factor)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """time: (1, D) or (N, D), after its silu; absent in autoencoders."""
        h = activated(self.norm1, self.conv1, x)
        t = None if self.time is None or time is None else self.time(time).reshape(len(time), 1, 1, -1)
        if t is not None and self.scale_shift:
            channels = h.shape[-1]
            h = self.conv2(silu(self.norm2(h) * (t[..., :channels] + 1.0) + t[..., channels:]))
        else:
            h = activated(self.norm2, self.conv2, h if t is None else h + t)
        h = h + (self.shortcut(x) if self.shortcut is not None else x)
        return h if self.divisor == 1 else h / self.divisor


def activated(norm: GroupNorm, layer: Convolution | DynamicConvolution, x: Tensor) -> Tensor:
    """layer(silu(norm(x))); of a large image what the layer takes is made some rows at a time."""
    return layer.of_rows(norm.by_rows(x).then(silu)) if layer.by_rows(x.shape) else layer(silu(norm(x)))


class Down(nn.Module):
    """Downsample2D by a stride-2 convolution."""

    def __init__(self, block: Any, name: str, layers: Layers) -> None:
        super().__init__()
        block = require_type(block, name, Downsample2D)
        require(name, "use_conv", block.use_conv, True)
        require(name, "norm", block.norm, None)
        self.conv = convolution(f"{name}.conv", block.conv, layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x, behind=1)  # where the convolution has no padding, diffusers pads right and below by 1


class Up(nn.Module):
    """Upsample2D: nearest neighbour, then a convolution."""

    one: Tensor

    def __init__(self, block: Any, name: str, layers: Layers) -> None:
        super().__init__()
        block = require_type(block, name, Upsample2D)
        for setting, wanted in (("use_conv", True), ("use_conv_transpose", False), ("interpolate", True)):
            require(name, setting, getattr(block, setting), wanted)
        require(name, "norm", block.norm, None)
        self.conv = convolution(f"{name}.conv", block.conv, layers)
        self.register_buffer("one", torch.ones(1))

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """size: (H, W) of the result where it is not twice the input's: 2h or 2h - 1 of an input of h rows."""
        n, h, w, c = x.shape
        height, width = size or (2 * h, 2 * w)
        if self.conv.by_rows((n, height, width, c)):
            return self.conv.of_rows(
                RowImage((n, height, width, c), lambda first, end: self._rows(x, first, end, width))
            )
        y = upsample_nearest(x, self.one)
        return self.conv(y if (height, width) == (2 * h, 2 * w) else y[:, :height, :width])

    def _rows(self, x: Tensor, first: int, end: int, width: int) -> Tensor:
        """Some rows of the enlarged image, and its first `width` columns."""
        source = first // 2
        y = upsample_nearest(part(x, 1, source, -(-end // 2) - source), self.one)
        return part(part(y, 1, first - 2 * source, end - first), 2, 0, width)
