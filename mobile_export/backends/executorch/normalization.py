"""Group and layer normalisation, written with operations that the XNNPACK delegate takes: it has neither of the two."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mobile_export.backends.executorch.pieces import joined, part, pieces
from mobile_export.backends.executorch.row_image import RowImage

_COPIES = 4  # of a band that its statistics may take: the band, its square, and both again for the products


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
        over_w, over_h = self._averages(x)
        centred = x - self._mean(x, over_w, over_h)
        deviation = torch.rsqrt(self._mean(centred * centred, over_w, over_h) + self.eps)
        return centred * (deviation * self.gain) + self.bias

    def by_rows(self, x: Tensor) -> RowImage:
        """The same, of an image too large to stand in memory more than once.

        A band is taken where it is needed, each time anew: operations run in this order, and what is kept for later
        stands in memory until then.
        """
        n, h, w, c = x.shape
        over_w, over_h = self._averages(x)
        bands = list(pieces(h, _COPIES * n * w * c))
        means = [self._row_means(part(x, 1, *band), over_w) for band in bands]
        mean = self._over_rows(joined(means, 1), over_h)
        squares = [self._row_means(torch.square(part(x, 1, *band) - mean), over_w) for band in bands]
        variance = self._over_rows(joined(squares, 1), over_h)
        scale = torch.rsqrt(variance + self.eps) * self.gain
        return RowImage((n, h, w, c), lambda first, end: (part(x, 1, first, end - first) - mean) * scale + self.bias)

    def _averages(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the averages over a row (N * H, 1, W), and over the rows (N, 1, H).

        Made of x: the sizes are not known before, and the delegate has no other fill.
        """
        n, h, w, _ = x.shape
        zeros = x.narrow(3, 0, 1) * 0.0
        over_w = (zeros + 1.0 / w).reshape(n * h, 1, w)
        return over_w, (zeros.narrow(2, 0, 1) + 1.0 / h).reshape(n, 1, h)

    def _mean(self, x: Tensor, over_w: Tensor, over_h: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, 1, 1, C): the mean of the channel's group, repeated in the group.

        Row by row: a single sum over a large image would lose digits.
        """
        return self._over_rows(self._row_means(x, over_w), over_h)

    def _row_means(self, x: Tensor, over_w: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, H, C); of over_w as many rows as x has."""
        n, h, w, c = x.shape
        return torch.bmm(part(over_w, 0, 0, n * h), x.reshape(n * h, w, c)).reshape(n, h, c)

    def _over_rows(self, means: Tensor, over_h: Tensor) -> Tensor:
        """(N, H, C) -> (N, 1, 1, C)."""
        n, _, c = means.shape
        grouped = torch.bmm(over_h, means).reshape(n, self.groups, c // self.groups)
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
