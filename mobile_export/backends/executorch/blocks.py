"""Block and MiddleBlock: diffusers' blocks of residuals with attention, of UNets and autoencoders alike."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import Transformer2DModel
from torch import Tensor, nn

from correction.errors import UsageError
from mobile_export.backends.executorch.attention import SelfAttention
from mobile_export.backends.executorch.layers import Layers
from mobile_export.backends.executorch.residual import Down, Residual, Up
from mobile_export.backends.executorch.transformer import SpatialTransformer

DOWN_BLOCKS = ("DownBlock2D", "AttnDownBlock2D", "CrossAttnDownBlock2D", "DownEncoderBlock2D", "AttnDownEncoderBlock2D")
UP_BLOCKS = ("UpBlock2D", "AttnUpBlock2D", "CrossAttnUpBlock2D", "UpDecoderBlock2D", "AttnUpDecoderBlock2D")
MIDDLE_BLOCKS = ("UNetMidBlock2D", "UNetMidBlock2DCrossAttn")


class Stage(nn.Module):
    """A residual block and the attention after it, if there is one. (N, H, W, C) -> (N, H, W, C')."""

    def __init__(self, residual: Any, residual_name: str, attention: Any, name: str, layers: Layers) -> None:
        super().__init__()
        self.residual = Residual(residual, residual_name, layers)
        self.attention: nn.Module | None = None
        if isinstance(attention, Transformer2DModel):
            self.attention = SpatialTransformer(attention, name, layers)
        elif attention is not None:
            self.attention = SelfAttention(attention, name, layers)

    def forward(self, x: Tensor, time: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        x = self.residual(x, time)
        if self.attention is None:
            return x
        return self.attention(x, context) if isinstance(self.attention, SpatialTransformer) else self.attention(x)


class Block(nn.Module):
    """Stages of one resolution, then the way to the next: Down, Up, or None."""

    def __init__(self, block: Any, name: str, layers: Layers, kinds: tuple[str, ...]) -> None:
        super().__init__()
        _require_kind(block, name, kinds)
        attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
        self.stages = nn.ModuleList(
            Stage(resnet, f"{name}.resnets.{i}", attention, f"{name}.attentions.{i}", layers)
            for i, (resnet, attention) in enumerate(zip(block.resnets, attentions, strict=True))
        )
        self.resize: Down | Up | None = None
        if getattr(block, "downsamplers", None) is not None:
            self.resize = Down(block.downsamplers[0], f"{name}.downsamplers.0", layers)
        elif getattr(block, "upsamplers", None) is not None:
            self.resize = Up(block.upsamplers[0], f"{name}.upsamplers.0", layers)

    def down(self, x: Tensor, time: Tensor, context: Tensor | None) -> list[Tensor]:
        """What every stage and the way down give: the skips of a UNet, and last the input of its next block."""
        results = []
        for stage in self.stages:
            x = stage(x, time, context)
            results.append(x)
        return results if self.resize is None else [*results, self.resize(x)]

    def up(self, x: Tensor, skips: list[Tensor], time: Tensor, context: Tensor | None) -> Tensor:
        """Every stage with the last of `skips`, which is taken from there, to the size of the next skip."""
        for stage in self.stages:
            x = stage(torch.cat([x, skips.pop()], -1), time, context)
        return x if self.resize is None else self.resize(x, (skips[-1].shape[1], skips[-1].shape[2]))

    def forward(self, x: Tensor) -> Tensor:
        """All of it in a row, as in an autoencoder."""
        for stage in self.stages:
            x = stage(x)
        return x if self.resize is None else self.resize(x)


class MiddleBlock(nn.Module):
    """A residual block, then attention (or none) and a residual block, as often as the network has it."""

    def __init__(self, block: Any, name: str, layers: Layers) -> None:
        super().__init__()
        _require_kind(block, name, MIDDLE_BLOCKS)
        attentions = [*block.attentions, None]
        self.stages = nn.ModuleList(
            Stage(resnet, f"{name}.resnets.{i}", attention, f"{name}.attentions.{i}", layers)
            for i, (resnet, attention) in enumerate(zip(block.resnets, attentions, strict=True))
        )

    def forward(self, x: Tensor, time: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        for stage in self.stages:
            x = stage(x, time, context)
        return x


def _require_kind(block: Any, name: str, kinds: tuple[str, ...]) -> None:
    if type(block).__name__ not in kinds:
        supported = ", ".join(kinds)
        raise UsageError(
            f"ExecuTorch: {name} is a {type(block).__name__}, which is not supported; supported: {supported}"
        )
