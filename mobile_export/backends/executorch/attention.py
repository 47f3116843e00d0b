"""Attention over the pixels of an image or between them and a text, channels last."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models import attention_processor
from torch import Tensor, nn

from mobile_export.backends.executorch.layers import Layers, product
from mobile_export.backends.executorch.normalization import GroupNorm
from mobile_export.backends.executorch.pieces import joined, pieces
from mobile_export.backends.executorch.refusal import require, require_type

# Parts of diffusers' Attention that no supported network has.
_ABSENT = ("spatial_norm", "norm_q", "norm_k", "norm_cross", "add_k_proj", "add_q_proj")


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """softmax(query key') value in each head (Vaswani et al., arXiv 1706.03762, section 3.2).

    query: (N, S, D), scaled already; key, value: (N, T, D) -> (N, S, D). So many queries at a time that the scores
    stay below MOST_VALUES.
    """
    n, count, _ = query.shape
    depth, others = query.shape[2] // heads, key.shape[1]
    query = query.reshape(n, count, heads, depth).permute(0, 2, 1, 3).reshape(n * heads, count, depth)
    key = key.reshape(n, others, heads, depth).permute(0, 2, 3, 1).reshape(n * heads, depth, others)
    value = value.reshape(n, others, heads, depth).permute(0, 2, 1, 3).reshape(n * heads, others, depth)
    parts = list(pieces(count, n * heads * others))
    if len(parts) == 1:
        mixed = torch.bmm(torch.softmax(torch.bmm(query, key), -1), value)
    else:
        few = (query[:, first : first + rows] for first, rows in parts)
        mixed = joined([torch.bmm(torch.softmax(torch.bmm(some, key), -1), value) for some in few], 1)
    return mixed.reshape(n, heads, count, depth).permute(0, 2, 1, 3).reshape(n, count, heads * depth)


class Attention(nn.Module):
    """The four products of diffusers' Attention and what is between them."""

    def __init__(self, attention: Any, name: str, layers: Layers) -> None:
        super().__init__()
        attention = require_type(attention, name, attention_processor.Attention)
        for part in _ABSENT:
            require(name, part, getattr(attention, part, None), None)
        self.query = product(f"{name}.to_q", attention.to_q, layers)
        self.key = product(f"{name}.to_k", attention.to_k, layers)
        self.value = product(f"{name}.to_v", attention.to_v, layers)
        self.out = product(f"{name}.to_out.0", attention.to_out[0], layers)
        self.heads, self.scale = attention.heads, float(attention.scale)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x: (N, S, C); context, which is attended to: (N, T, D), x itself in self-attention -> (N, S, C)."""
        return self.out(attend(self.query(x) * self.scale, self.key(context), self.value(context), self.heads))


class SelfAttention(nn.Module):
    """Attention over the H*W positions with its norm and shortcut, (N, H, W, C) -> same."""

    def __init__(self, attention: Any, name: str, layers: Layers) -> None:
        super().__init__()
        attention = require_type(attention, name, attention_processor.Attention)
        self.norm = GroupNorm(require_type(attention.group_norm, f"{name}.group_norm", nn.GroupNorm))
        self.attention = Attention(attention, name, layers)
        self.residual = bool(attention.residual_connection)
        self.divisor = float(attention.rescale_output_factor)

    def forward(self, x: Tensor) -> Tensor:
        n, h, w, c = x.shape
        z = self.norm(x).reshape(n, h * w, c)
        y = self.attention(z, z).reshape(n, h, w, c)
        y = y + x if self.residual else y
        return y if self.divisor == 1 else y / self.divisor
