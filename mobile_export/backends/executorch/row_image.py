"""RowImage: an image that is made some rows at a time, so that the whole of it never stands in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class RowImage:
    """shape: (N, H, W, C); rows: (first, end) -> rows first to end - 1 of it, (N, end - first, W, C)."""

    shape: tuple[int, int, int, int]
    rows: Callable[[int, int], Tensor]

    def whole(self) -> Tensor:
        return self.rows(0, self.shape[1])

    def then(self, function: Callable[[Tensor], Tensor]) -> RowImage:
        """The image after a function of each value by itself."""
        return RowImage(self.shape, lambda first, end: function(self.rows(first, end)))
