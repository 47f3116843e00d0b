"""ConvolutionGeometry: the border and the output size of a channels-last convolution; its weights as a matrix."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class ConvolutionGeometry:
    """A square convolution: kernel, stride (1 or 2) and zeros on each side, in pixels."""

    kernel: int
    stride: int
    padding: int

    @classmethod
    def of(cls, layer: nn.Conv2d) -> ConvolutionGeometry:
        return cls(layer.kernel_size[0], layer.stride[0], int(layer.padding[0]))

    def bordered(self, x: Tensor, behind: int | None = None) -> tuple[Tensor, int, int]:
        """(N, H, W, I) with its zeros, and height and width of the output.

        behind: rows and columns of zeros after the last, where not as many as before the first.
        """
        k, stride, before = self.kernel, self.stride, self.padding
        size = [x.shape[1], x.shape[2]]
        height, width = ((s + before + (before if behind is None else behind) - k) // stride + 1 for s in size)
        # A stride of 2 is taken from whole pairs, which may need one more zero than the convolution itself.
        end = [stride * out + k - 1 - before - s for out, s in zip((height, width), size, strict=True)]
        if before or any(end):
            x = functional.pad(x, (0, 0, before, end[1], before, end[0]))
        return x, height, width

    def band(self, x: Tensor, first: int, count: int) -> Tensor:
        """The rows of a bordered image that `count` rows of the output from `first` are computed from."""
        return x[:, self.stride * first : self.stride * (first + count) + self.kernel - 1]


def shifted(x: Tensor, i: int, j: int, height: int, width: int) -> Tensor:
    """(N, height, width, C) of x, from row i and column j; x itself where that is all: the delegate takes no alias."""
    return x if (height, width) == x.shape[1:3] else x[:, i : i + height, j : j + width]


def every_other(x: Tensor) -> Tensor:
    """(N, H, W, C) -> (N, H/2, W/2, C), even rows and columns, without a strided slice."""
    n, h, w, c = x.shape
    pairs = x.reshape(n, h // 2, 2, w // 2, 2 * c)
    return pairs[:, :, 0:1, :, 0:c].reshape(n, h // 2, w // 2, c)


def as_matrix(weight: Tensor) -> Tensor:
    """(O, I, k, k) or (O, I) -> (O, k*k*I), taps in row-major order, channels innermost; copied only to reorder."""
    if weight.dim() == 2:
        return weight.detach()
    return weight.detach().permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def kernel_rows(weight: Tensor) -> tuple[Tensor, ...]:
    """(O, I, k, k) -> k times (O, k*I), one for each row of the kernel, channels innermost; (O, I) -> itself."""
    return as_matrix(weight).chunk(weight.shape[2] if weight.dim() == 4 else 1, 1)
