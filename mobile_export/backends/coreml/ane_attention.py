"""ChannelAttention: diffusers' attention with the channels on axis 1 from the first layer to the last.

The layout and the two products are those of "Deploying Transformers on the Apple Neural Engine"
(Apple Machine Learning Research, 2022): activations stay (B, C, 1, S), heads are slices of the
channels, and neither product needs a transposed copy of its large operand.
"""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from correction.errors import UsageError
from mobile_export.backends.coreml.attention_scale import half_factors


class ChannelAttention:
    """An attention processor of diffusers; the projections of the Attention must be 1x1 convolutions.

    query_chunk: how many queries are attended to at once, None for all of them. Chunks bound the
    (S, S) table of scores, which is what a phone runs out of at large images.
    """

    def __init__(self, query_chunk: int | None = None) -> None:
        self.query_chunk = query_chunk

    def __call__(
        self,
        attention: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """hidden_states (B, C, H, W), encoder_hidden_states (B, C', 1, S) or None -> (B, C, H, W).

        temb is what diffusers gives to every processor; only spatial norms need it.
        Raises UsageError for a mask.
        """
        if attention_mask is not None:
            raise UsageError(f"attention masks are not supported, got one of shape {tuple(attention_mask.shape)}")
        batch, _, height, width = hidden_states.shape
        x = hidden_states.reshape(batch, -1, 1, height * width)
        if attention.group_norm is not None:
            x = attention.group_norm(x)
        context = x if encoder_hidden_states is None else encoder_hidden_states
        a, b = half_factors(attention.scale)
        query = attention.to_q(x) * a
        key = (attention.to_k(context) * b).transpose(1, 3)  # (B, K, 1, C): one transpose for all heads
        value = attention.to_v(context)
        chunked = self.query_chunk is not None and self.query_chunk < height * width
        queries = query.split(self.query_chunk, dim=3) if chunked else [query]
        y = _joined([_attend(chunk, key, value, attention.heads) for chunk in queries], dim=3)
        y = attention.to_out[0](y).reshape(batch, -1, height, width)
        y = y + hidden_states if attention.residual_connection else y
        return y if attention.rescale_output_factor == 1 else y / attention.rescale_output_factor


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """query (B, C, 1, Q), key (B, K, 1, C), value (B, C, 1, K) -> (B, C, 1, Q)."""
    mixed = []
    for q, k, v in zip(query.chunk(heads, dim=1), key.chunk(heads, dim=3), value.chunk(heads, dim=1), strict=True):
        scores = torch.einsum("bchq,bkhc->bkhq", q, k)
        mixed.append(torch.einsum("bkhq,bchk->bchq", scores.softmax(dim=1), v))
    return _joined(mixed, dim=1)


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    """cat, without an operation where there is nothing to join."""
    return torch.cat(parts, dim=dim) if len(parts) > 1 else parts[0]
