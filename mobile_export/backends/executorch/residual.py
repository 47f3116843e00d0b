"""Residual, Down and Up: the convolutional parts of diffusers' blocks, channels last."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from mobile_export.backends.executorch.layers import Layers, convolution, product, silu, upsample_nearest
from mobile_export.backends.executorch.normalization import GroupNorm
from mobile_export.backends.executorch.refusal import require, require_type


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
        h = self.conv1(silu(self.norm1(x)))
        if self.time is None or time is None:
            h = self.norm2(h)
        else:
            t = self.time(time).reshape(len(time), 1, 1, -1)
            channels = h.shape[-1]
            if self.scale_shift:
                h = self.norm2(h) * (t[..., :channels] + 1.0) + t[..., channels:]
            else:
                h = self.norm2(h + t)
        h = self.conv2(silu(h))
        h = h + (self.shortcut(x) if self.shortcut is not None else x)
        return h if self.divisor == 1 else h / self.divisor


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
        x = upsample_nearest(x, self.one)
        if size is not None and size != (x.shape[1], x.shape[2]):
            x = x[:, : size[0], : size[1]]
        return self.conv(x)
