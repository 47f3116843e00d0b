"""Normalizations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mobile_export.coreml_simulator.ops.registry import Ints, op


@op("batch_norm")
def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    *,
    epsilon: float = 1e-5,
) -> Tensor:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, each [C] for the channels of axis 1."""
    return F.batch_norm(x, mean, variance, gamma, beta, training=False, eps=epsilon)


@op("instance_norm")
def instance_norm(
    x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, *, epsilon: float = 1e-5
) -> Tensor:
    """Each channel of each sample by its own mean and variance; gamma, beta: [C]."""
    return F.instance_norm(x, weight=gamma, bias=beta, eps=epsilon)


@op("layer_norm")
def layer_norm(
    x: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    *,
    axes: Ints | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Over `axes`, by default all; gamma, beta: x.shape at those axes, in ascending order."""
    over = sorted({axis % x.dim() for axis in (range(x.dim()) if axes is None else axes)})
    shape = [x.shape[axis] for axis in over]
    if over == list(range(x.dim() - len(over), x.dim())):
        return F.layer_norm(x, shape, gamma, beta, epsilon)
    variance, mean = torch.var_mean(x, over, correction=0, keepdim=True)
    y = (x - mean) * torch.rsqrt(variance + epsilon)
    broadcast = [x.shape[axis] if axis in over else 1 for axis in range(x.dim())]
    y = y if gamma is None else y * gamma.reshape(broadcast)
    return y if beta is None else y + beta.reshape(broadcast)


@op("l2_norm", leads=True)
def l2_norm(x: Tensor, *, epsilon: float = 1e-6) -> Tensor:
    """x / sqrt(sum of squares over the last three axes + epsilon)."""
    return x / torch.sqrt(torch.sum(torch.square(x), (-3, -2, -1), keepdim=True) + epsilon)


@op("local_response_norm")
def local_response_norm(x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    return F.local_response_norm(x, size, alpha, beta, k)
