"""ChannelTransformer: diffusers' Transformer2DModel on (B, C, 1, S), built from its converted layers."""

from __future__ import annotations

import torch
from diffusers.models.activations import GEGLU, SwiGLU
from diffusers.models.attention import BasicTransformerBlock, FeedForward
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from correction.errors import UsageError


class ChannelNorm(nn.Module):
    """A LayerNorm over the C channels of (B, C, 1, S), with its gain and bias or without them."""

    weight: Tensor | None
    bias: Tensor | None
    shift: Tensor | None

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        # (y + bias / weight) * weight is the form that coremltools finds and makes one layer_norm of.
        divisible = norm.weight is not None and norm.bias is not None and bool((norm.weight != 0).all())
        self.register_buffer("shift", norm.bias.detach() / norm.weight.detach() if divisible else None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 1, S) -> (B, C, 1, S)."""
        centred = x - x.mean(dim=1, keepdim=True)
        y = centred * torch.rsqrt((centred * centred).mean(dim=1, keepdim=True) + self.eps)
        if self.shift is not None and self.weight is not None:
            return (y + self.shift.view(1, -1, 1, 1)) * self.weight.view(1, -1, 1, 1)
        if self.weight is not None:
            y = y * self.weight.view(1, -1, 1, 1)
        return y if self.bias is None else y + self.bias.view(1, -1, 1, 1)


class ChannelGate(nn.Module):
    """GEGLU or SwiGLU over the channels: the first half of the projection times the activation of the second."""

    def __init__(self, gate: GEGLU | SwiGLU) -> None:
        super().__init__()
        self.proj = gate.proj
        self.activation = gate.activation if isinstance(gate, SwiGLU) else nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 1, S) -> (B, C', 1, S)."""
        value, gate = self.proj(x).chunk(2, dim=1)
        return value * self.activation(gate)


class ChannelTransformerBlock(nn.Module):
    """BasicTransformerBlock: self-attention, cross-attention where there is one, feed-forward."""

    def __init__(self, block: BasicTransformerBlock) -> None:
        super().__init__()
        self.norm1, self.attn1 = ChannelNorm(block.norm1), block.attn1
        self.norm2 = ChannelNorm(block.norm2) if block.attn2 is not None else None
        self.attn2 = block.attn2
        self.norm3, self.ff = ChannelNorm(block.norm3), _channel_feed_forward(block.ff)
        self.only_cross_attention = bool(block.only_cross_attention)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """x (B, C, 1, S), context (B, C', 1, S') or None -> (B, C, 1, S)."""
        x = x + self.attn1(self.norm1(x), context if self.only_cross_attention else None)
        if self.norm2 is not None:
            x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class ChannelTransformer(nn.Module):
    """Transformer2DModel in its continuous form; the projections must be 1x1 convolutions already.

    Takes over the modules of `transformer` under their names.
    """

    def __init__(self, transformer: Transformer2DModel) -> None:
        super().__init__()
        self.norm, self.proj_in, self.proj_out = transformer.norm, transformer.proj_in, transformer.proj_out
        blocks = transformer.transformer_blocks
        self.transformer_blocks = nn.ModuleList(ChannelTransformerBlock(block) for block in blocks)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        cross_attention_kwargs: None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """hidden_states (B, C, H, W), encoder_hidden_states (B, C', 1, S) -> one (B, C, H, W), in a tuple.

        The arguments are those that diffusers' blocks pass. Raises UsageError for a mask or for
        arguments of attention processors.
        """
        refused = {"attention_mask": attention_mask, "encoder_attention_mask": encoder_attention_mask}
        for name, value in (refused | {"cross_attention_kwargs": cross_attention_kwargs or None}).items():
            if value is not None:
                raise UsageError(f"{name} is not supported by the Neural Engine form; leave it out")
        batch, _, height, width = hidden_states.shape
        x = self.proj_in(self.norm(hidden_states).reshape(batch, -1, 1, height * width))
        for block in self.transformer_blocks:
            x = block(x, encoder_hidden_states)
        return (self.proj_out(x).reshape(batch, -1, height, width) + hidden_states,)


def _channel_feed_forward(feed_forward: FeedForward) -> FeedForward:
    """The ungated activations are the same on any axis; a gate splits the channels."""
    if isinstance(feed_forward.net[0], GEGLU | SwiGLU):
        feed_forward.net[0] = ChannelGate(feed_forward.net[0])
    return feed_forward
