"""ConvolutionGeometry: the border and the output size of a channels-last convolution; its weights as a matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mobile_export.backends.executorch.pieces import part


def _same(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class ConvolutionGeometry:
    """A square convolution: kernel, stride (1 or 2) and zeros on each side, in pixels."""

    kernel: int
    stride: int
    padding: int

    @classmethod
    def of(cls, layer: nn.Conv2d) -> ConvolutionGeometry:
        return cls(layer.kernel_size[0], layer.stride[0], int(layer.padding[0]))

    @property
    def reach(self) -> int:
        """Rows and columns beyond stride * output that the windows take, in whole strides."""
        return -(-(self.kernel - 1) // self.stride) * self.stride

    def bordered(self, x: Tensor, behind: int | None = None) -> tuple[Tensor, int, int]:
        """(N, H, W, I) with its zeros, and height and width of the output.

        behind: rows and columns of zeros after the last, where not as many as before the first.
        """
        k, stride, before = self.kernel, self.stride, self.padding
        size = [x.shape[1], x.shape[2]]
        height, width = ((s + before + (before if behind is None else behind) - k) // stride + 1 for s in size)
        # A stride of 2 is taken from whole pairs, which may need one more zero than the convolution itself.
        end = [stride * out + self.reach - before - s for out, s in zip((height, width), size, strict=True)]
        if before or any(end):
            x = functional.pad(x, (0, 0, before, end[1], before, end[0]))
        return x, height, width

    def band(self, x: Tensor, first: int, count: int) -> Tensor:
        """The rows of a bordered image that `count` rows of the output from `first` are computed from."""
        return x[:, self.stride * first : self.stride * (first + count) + self.reach]

    def row_windows(self, x: Tensor, height: int, width: int, keep: Callable[[Tensor], Tensor] = _same) -> list[Tensor]:
        """For each row of the kernel what it is multiplied with: (N, height, width, k*I) of a bordered image.

        The shift along W is made once, for all rows. With a stride of 2 neighbours stand side by side as channels, then
        rows as columns: no slice leaves anything out. keep: around each view and concatenation.
        """
        n, h, w, c = x.shape
        k, s = self.kernel, self.stride
        if s > 1:
            x = keep(x.reshape(n, h, w // s, s * c))
        parts = [_part(_part(x, 2, j // s, width, keep), 3, 0, min(s, k - j) * c, keep) for j in range(0, k, s)]
        windows = parts[0] if len(parts) == 1 else keep(torch.cat(parts, -1))
        if s > 1:
            windows = keep(windows.reshape(n, h // s, s * width, k * c))
        phases = [_part(windows, 2, phase * width, width, keep) for phase in range(min(s, k))]
        # All slices of one tensor stand together: the partitioner would end a delegate between two of them.
        rows = {i: _part(phases[i % s], 1, i // s, height, keep) for phase in range(s) for i in range(phase, k, s)}
        return [rows[i] for i in range(k)]


def _part(x: Tensor, dimension: int, first: int, count: int, keep: Callable[[Tensor], Tensor]) -> Tensor:
    """`pieces.part`, kept where it is not x itself."""
    found = part(x, dimension, first, count)
    return x if found is x else keep(found)


def as_matrix(weight: Tensor) -> Tensor:
    """(O, I, k, k) or (O, I) -> (O, k*k*I), taps in row-major order, channels innermost; copied only to reorder."""
    if weight.dim() == 2:
        return weight.detach()
    return weight.detach().permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def kernel_rows(weight: Tensor) -> tuple[Tensor, ...]:
    """(O, I, k, k) -> k times (O, k*I), one for each row of the kernel, channels innermost; (O, I) -> itself."""
    return as_matrix(weight).chunk(weight.shape[2] if weight.dim() == 4 else 1, 1)
