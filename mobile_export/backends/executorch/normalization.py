"""Group and layer normalisation, written with operations that the XNNPACK delegate takes: it has neither of the two."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class GroupNorm(nn.Module):
    """Group normalisation in float32 (Wu and He, arXiv 1803.08494, section 3.1). (N, H, W, C) -> same."""

    mean_channels: Tensor
    gain: Tensor
    bias: Tensor

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.groups, self.eps = norm.num_groups, norm.eps
        per_group = norm.num_channels // norm.num_groups
        self.register_buffer("mean_channels", torch.full((per_group, per_group), 1.0 / per_group))
        self.register_buffer("gain", _or_constant(norm.weight, 1.0, norm.num_channels))
        self.register_buffer("bias", _or_constant(norm.bias, 0.0, norm.num_channels))

    def forward(self, x: Tensor) -> Tensor:
        n, h, w, _ = x.shape
        # Weights of the averages, made of x: the sizes are not known before, and the delegate has no other fill.
        zeros = x.narrow(3, 0, 1) * 0.0
        over_w = (zeros + 1.0 / w).reshape(n * h, 1, w)
        over_h = (zeros.narrow(2, 0, 1) + 1.0 / h).reshape(n, 1, h)
        centred = x - self._mean(x, over_w, over_h)
        deviation = torch.rsqrt(self._mean(centred * centred, over_w, over_h) + self.eps)
        return centred * (deviation * self.gain) + self.bias

    def _mean(self, x: Tensor, over_w: Tensor, over_h: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, 1, 1, C): the mean of the channel's group, repeated in the group.

        Row by row: a single sum over a large image would lose digits.
        """
        n, h, w, c = x.shape
        mean = torch.bmm(over_h, torch.bmm(over_w, x.reshape(n * h, w, c)).reshape(n, h, c))
        grouped = mean.reshape(n, self.groups, c // self.groups)
        return functional.linear(grouped, self.mean_channels).reshape(n, 1, 1, c)


class LayerNorm(nn.Module):
    """Layer normalisation over the last dimension (Ba et al., arXiv 1607.06450, section 3). (..., C) -> same."""

    mean: Tensor
    gain: Tensor
    bias: Tensor

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        (channels,) = norm.normalized_shape
        self.eps = norm.eps
        self.register_buffer("mean", torch.full((1, channels), 1.0 / channels))
        self.register_buffer("gain", _or_constant(norm.weight, 1.0, channels))
        self.register_buffer("bias", _or_constant(norm.bias, 0.0, channels))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - functional.linear(x, self.mean)
        deviation = torch.rsqrt(functional.linear(centred * centred, self.mean) + self.eps)
        return centred * deviation * self.gain + self.bias


def _or_constant(parameter: Tensor | None, value: float, count: int) -> Tensor:
    return torch.full((count,), value) if parameter is None else parameter.detach()
