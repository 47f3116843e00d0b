"""The values of an ExecuTorch artifact at every quantization, for lock-step parity (see backends/lockstep.py).

A rounded value never leaves the delegate, so a twin program with the same constants returns it as a
further output; its result must equal the shipped artifact's to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from correction.errors import CheckFailed
from mobile_export.quantize.fake_quantize import Quantize
from mobile_export.quantize.observed_layer import observing


class TappedNetwork(nn.Module):
    """The channels-last network with a further output for every quantization: (output, tap, tap, …).

    A tap is the float tensor that goes onto a layer's input grid (its rounded form never leaves the
    delegate), or the layer's rounded output; `points` names them in order, after a forward call.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.points: list[str] = []

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        taps: list[Tensor] = []
        self.points.clear()

        def record(point: str, grid: nn.Module, value: Tensor, rounded: Tensor) -> Tensor:
            if isinstance(grid, Quantize):
                taps.append(value if point.endswith(".input") else rounded)
                self.points.append(point)
            return rounded

        with observing(self.network, record):
            output = self.network(*inputs)
        return output, *taps


def tap_points(network: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[tuple[str, ...], int]:
    """(names of the taps of a TappedNetwork in order, bytes of all of their values in one run)."""
    points: list[str] = []
    size = 0
    if not any(isinstance(module, Quantize) for module in network.modules()):
        return (), 0  # nothing to look at: a run of a large network takes memory

    def count(point: str, grid: nn.Module, value: Tensor, rounded: Tensor) -> Tensor:
        nonlocal size
        if isinstance(grid, Quantize):
            points.append(point)
            size += value.numel() * value.element_size()
        return rounded

    with torch.no_grad(), observing(network, count):
        network(*inputs.values())
    return tuple(points), size


def point_shapes(model: nn.Module, run: Callable[[], Tensor]) -> dict[str, torch.Size]:
    """Shape of the value at every point of the quantized PyTorch model, for the inputs that `run` calls it on."""
    shapes: dict[str, torch.Size] = {}

    def note(point: str, _grid: nn.Module, value: Tensor, rounded: Tensor) -> Tensor:
        shapes[point] = value.shape
        return rounded

    with torch.no_grad(), observing(model, note):
        run()
    return shapes


def channels_first(taps: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Taps in PyTorch's layout: (1, H + border, W + border, C) as (1, C, H, W), other shapes as they are.

    The border of a convolution's input is one zero on each side, or one behind. Points that `shapes`
    lacks stay as they are. Raises CheckFailed, naming the point, for a tap that does not fit.
    """
    return {p: _channels_first(p, tap, shapes[p]) if p in shapes else tap for p, tap in taps.items()}


def _channels_first(point: str, tap: Tensor, shape: torch.Size) -> Tensor:
    result = tap
    if len(shape) == 4 and tap.dim() == 4:
        height, width = shape[2:]
        start = (tap.shape[1] - height) // 2
        result = tap[:, start : start + height, start : start + width].permute(0, 3, 1, 2)
    if result.shape != shape:
        raise CheckFailed(f"the artifact's value of {point} has shape {tuple(tap.shape)}, the model's {tuple(shape)}")
    return result.contiguous()
