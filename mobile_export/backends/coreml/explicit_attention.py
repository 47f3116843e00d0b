"""ExplicitAttention: diffusers' attention as two matrix products, for systems without an operation for it (iOS 17)."""

from __future__ import annotations

from diffusers.models.attention_processor import Attention
from torch import Tensor

from correction.errors import UsageError
from mobile_export.backends.coreml.attention_scale import half_factors


class ExplicitAttention:
    """An attention processor of diffusers: softmax((a q) (b k)^T) v with a * b = 1 / sqrt(depth)."""

    def __call__(
        self,
        attention: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """hidden_states (B, C, H, W) or (B, S, C), encoder_hidden_states (B, S', C') or None -> as hidden_states.

        Raises UsageError for a mask.
        """
        if attention_mask is not None:
            raise UsageError(f"attention masks are not supported, got one of shape {tuple(attention_mask.shape)}")
        x = hidden_states.flatten(2).transpose(1, 2) if hidden_states.dim() == 4 else hidden_states
        if attention.group_norm is not None:
            x = attention.group_norm(x.transpose(1, 2)).transpose(1, 2)
        context = x if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attention.norm_cross:
            context = attention.norm_encoder_hidden_states(context)
        a, b = half_factors(attention.scale)

        def heads(y: Tensor) -> Tensor:
            return y.unflatten(-1, (attention.heads, -1)).transpose(1, 2)  # (B, heads, S, depth)

        query, key = heads(attention.to_q(x) * a), heads(attention.to_k(context) * b)
        scores = query @ key.transpose(-1, -2)
        mixed = (scores.softmax(-1) @ heads(attention.to_v(context))).transpose(1, 2).flatten(2)
        y = attention.to_out[0](mixed)
        if hidden_states.dim() == 4:
            y = y.transpose(1, 2).reshape(hidden_states.shape)
        y = y + hidden_states if attention.residual_connection else y
        return y if attention.rescale_output_factor == 1 else y / attention.rescale_output_factor
