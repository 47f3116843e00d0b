"""ObservedLayer: a layer whose quantizations can be watched, and overruled, from outside."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from torch import Tensor, nn

# (point, grid, float tensor, the same rounded) -> the rounded tensor that the network goes on with.
# A point is the full layer name followed by ".input" or ".output".
Observe = Callable[[str, nn.Module, Tensor, Tensor], Tensor]


class ObservedLayer(nn.Module):
    """Base of the quantized layers: `name` is the full layer name in the diffusers network."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.observe: Observe | None = None

    def rounded(self, end: str, grid: nn.Module | None, x: Tensor) -> Tensor:
        """`x` on `grid`, shown to the observer as point "<name>.<end>"; `x` itself, unseen, without a grid."""
        if grid is None:
            return x
        result = grid(x)
        return result if self.observe is None else self.observe(f"{self.name}.{end}", grid, x, result)


@contextlib.contextmanager
def observing(model: nn.Module, observe: Observe) -> Iterator[None]:
    """Every ObservedLayer of `model` reports to `observe` within the block."""
    layers = [module for module in model.modules() if isinstance(module, ObservedLayer)]
    for layer in layers:
        layer.observe = observe
    try:
        yield
    finally:
        for layer in layers:
            layer.observe = None
