"""SpatialTransformer: diffusers' Transformer2DModel over the pixels of an image, conditioned by a text."""

from __future__ import annotations

from typing import Any

from diffusers import Transformer2DModel
from diffusers.models import attention
from diffusers.models.activations import GEGLU
from torch import Tensor, nn
from torch.nn import functional

from mobile_export.backends.executorch.attention import Attention
from mobile_export.backends.executorch.layers import Layers, product
from mobile_export.backends.executorch.normalization import GroupNorm, LayerNorm
from mobile_export.backends.executorch.refusal import require, require_type


class FeedForward(nn.Module):
    """Two linear layers with a gated GELU between them (Shazeer, arXiv 2002.05202). (N, S, C) -> same."""

    def __init__(self, block: Any, name: str, layers: Layers) -> None:
        super().__init__()
        block = require_type(block, name, attention.FeedForward)
        gate = require_type(block.net[0], f"{name}.net.0", GEGLU)
        self.inner = product(f"{name}.net.0.proj", gate.proj, layers)
        self.outer = product(f"{name}.net.2", block.net[2], layers)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        half = y.shape[-1] // 2
        return self.outer(y[..., :half] * functional.gelu(y[..., half:]))


class TransformerBlock(nn.Module):
    """BasicTransformerBlock: self-attention, attention to the context, feed-forward, each after a norm."""

    def __init__(self, block: Any, name: str, layers: Layers) -> None:
        super().__init__()
        block = require_type(block, name, attention.BasicTransformerBlock)
        require(name, "norm_type", block.norm_type, "layer_norm")
        require(name, "pos_embed", block.pos_embed, None)
        require(name, "fuser", getattr(block, "fuser", None), None)
        self.norm1 = LayerNorm(block.norm1)
        self.attention1 = Attention(block.attn1, f"{name}.attn1", layers)
        self.first_is_crossed = bool(block.only_cross_attention)
        self.norm2 = self.attention2 = None
        if block.attn2 is not None:
            self.norm2 = LayerNorm(block.norm2)
            self.attention2 = Attention(block.attn2, f"{name}.attn2", layers)
        self.norm3 = LayerNorm(block.norm3)
        self.feed_forward = FeedForward(block.ff, f"{name}.ff", layers)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x: (N, S, C), context: (N, T, D) -> (N, S, C)."""
        z = self.norm1(x)
        x = x + self.attention1(z, context if self.first_is_crossed else z)
        if self.norm2 is not None and self.attention2 is not None:
            x = x + self.attention2(self.norm2(x), context)
        return x + self.feed_forward(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Transformer2DModel on images: norm, projection, blocks, projection, + shortcut. (N, H, W, C) -> same."""

    def __init__(self, model: Any, name: str, layers: Layers) -> None:
        super().__init__()
        model = require_type(model, name, Transformer2DModel)
        require(name, "is_input_continuous", model.is_input_continuous, True)
        self.norm = GroupNorm(model.norm)
        # As a 1x1 convolution it sees the image, as a linear layer the sequence of its pixels.
        self.on_image = isinstance(model.proj_in, nn.Conv2d)
        self.inner = product(f"{name}.proj_in", model.proj_in, layers)
        self.blocks = nn.ModuleList(
            TransformerBlock(block, f"{name}.transformer_blocks.{i}", layers)
            for i, block in enumerate(model.transformer_blocks)
        )
        self.outer = product(f"{name}.proj_out", model.proj_out, layers)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """context: (N, T, D)."""
        n, h, w, _ = x.shape
        y = self.norm(x)
        y = self.inner(y).reshape(n, h * w, -1) if self.on_image else self.inner(y.reshape(n, h * w, -1))
        for block in self.blocks:
            y = block(y, context)
        y = self.outer(y.reshape(n, h, w, -1)) if self.on_image else self.outer(y).reshape(n, h, w, -1)
        return x + y
