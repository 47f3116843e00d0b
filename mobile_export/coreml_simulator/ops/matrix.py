"""Convolutions, matrix products and attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mobile_export.coreml_simulator.errors import UnsupportedError
from mobile_export.coreml_simulator.ops.padding import pad_spatial, paddings
from mobile_export.coreml_simulator.ops.registry import Ints, op

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@op("conv")
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """x: [n, C_in, *D]; weight: [C_out, C_in / groups, *K]; 1 to 3 spatial axes."""
    axes = x.dim() - 2
    strides, dilations = strides or (1,) * axes, dilations or (1,) * axes
    before_after = paddings(pad_type, pad, x.shape[2:], weight.shape[2:], strides, dilations)
    if all(before == after for before, after in before_after):
        padding = tuple(before for before, _ in before_after)
    else:
        x, padding = pad_spatial(x, before_after), (0,) * axes
    return CONV[axes](x, weight, bias, strides, padding, dilations, groups)


@op("conv_transpose")
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
    output_shape: Ints | None = None,
) -> Tensor:
    """x: [n, C_in, *D]; weight: [C_in, C_out / groups, *K].

    The full result is computed and its border cut off: `custom` says how much, `valid` cuts nothing, `same` and
    `same_lower` cut to D * stride, the odd element at the end or at the start. output_shape extends the far end of
    `custom` and `valid` by zeros, which only a bias reaches.
    """
    axes = x.dim() - 2
    strides, dilations = strides or (1,) * axes, dilations or (1,) * axes
    kernel = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    full = [(n - 1) * s + k for n, s, k in zip(x.shape[2:], strides, kernel, strict=True)]
    if pad_type in ("same", "same_lower"):
        wanted = output_shape[2:] if output_shape else [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
        cuts = [(f - w) // 2 if pad_type == "same" else (f - w + 1) // 2 for f, w in zip(full, wanted, strict=True)]
    else:
        border = paddings(pad_type, pad, x.shape[2:], weight.shape[2:], strides, dilations)
        cuts = [before for before, _ in border]
        free = [f - before - after for f, (before, after) in zip(full, border, strict=True)]
        wanted = output_shape[2:] if output_shape else free
    result = CONV_TRANSPOSE[axes](x, weight, None, strides, 0, 0, groups, dilations)
    # F.pad with negative numbers cuts.
    result = pad_spatial(result, [(-cut, w - (f - cut)) for cut, w, f in zip(cuts, wanted, full, strict=True)])
    return result if bias is None else result + bias.reshape((-1,) + (1,) * axes)


@op("linear", leads=True)
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x, weight, bias)


@op("matmul")
def matmul(x: Tensor, y: Tensor, *, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """Transposing has no effect on a vector."""
    x = x.transpose(-1, -2) if transpose_x and x.dim() > 1 else x
    y = y.transpose(-1, -2) if transpose_y and y.dim() > 1 else y
    return torch.matmul(x, y)


@op("einsum")
def einsum(*values: Tensor, equation: str) -> Tensor:
    if len(values) != 2:
        raise UnsupportedError(f"einsum of {len(values)} values; supported are two")
    return torch.einsum(equation, *values)


@op("scaled_dot_product_attention", leads=True)
def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """softmax(Q K^T / sqrt(E) + mask) V. query: [*B, L, E]; key: [*B, S, E]; value: [*B, S, EV].

    attn_mask: broadcast to [*B, L, S]; bool, True where a key takes part, or float, added to the scores.
    """
    lead = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    mask = attn_mask
    if mask is not None:
        mask = mask.expand(*lead, query.shape[-2], key.shape[-2]).flatten(0, -3)[None]
    # PyTorch's fused kernels want four axes.
    q, k, v = (t.expand(*lead, *t.shape[-2:]).flatten(0, -3)[None] for t in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, mask)[0].unflatten(0, lead)
