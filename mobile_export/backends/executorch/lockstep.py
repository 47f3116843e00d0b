"""Lock-step parity: the artifact against the quantized PyTorch model, compared at every quantization.

One flipped rounding of an 8-bit activation grows into percents downstream, in any two runs of the
same arithmetic, so free-running outputs say little. Here the artifact's own values are read at
every quantization (a twin program with the same constants returns them as further outputs; its
result must equal the shipped artifact's to the bit), and eager PyTorch computes each stretch between
two of them from the artifact's values: codes must be equal or one step apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from correction.errors import CheckFailed
from mobile_export.quantize.fake_quantize import FakeQuantize
from mobile_export.quantize.observed_layer import observing


@dataclass(frozen=True)
class Lockstep:
    """points: quantizations compared; codes: int8 codes compared; flipped: how many were not equal;
    worst_step: largest difference of two codes; output_error: relative L2 error of the last stretch."""

    points: int
    codes: int
    flipped: int
    worst_step: int
    output_error: float

    @property
    def flip_rate(self) -> float:
        return self.flipped / self.codes if self.codes else 0.0

    def __add__(self, other: Lockstep) -> Lockstep:
        return Lockstep(
            max(self.points, other.points),
            self.codes + other.codes,
            self.flipped + other.flipped,
            max(self.worst_step, other.worst_step),
            max(self.output_error, other.output_error),
        )


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
            if isinstance(grid, FakeQuantize):
                taps.append(value if point.endswith(".input") else rounded)
                self.points.append(point)
            return rounded

        with observing(self.network, record):
            output = self.network(*inputs)
        return output, *taps


def follow(model: nn.Module, run: Callable[[], Tensor], output: Tensor, taps: Mapping[str, Tensor]) -> Lockstep:
    """Run the quantized PyTorch model along the artifact's values.

    model: what `quantized_model` made; run: calls it on the inputs that the artifact had.
    output, taps: what the artifact gave, taps by point, channels last.
    Raises CheckFailed when the points are not the model's.
    """
    waiting = dict(taps)
    points = codes = flipped = worst = 0

    def compare(point: str, grid: nn.Module, value: Tensor, rounded: Tensor) -> Tensor:
        nonlocal points, codes, flipped, worst
        if point not in waiting or not isinstance(grid, FakeQuantize):
            raise CheckFailed(f"the artifact has no value for {point}")
        theirs = _channels_first(waiting.pop(point), value)
        step = (grid.codes(value).int() - grid.codes(theirs).int()).abs()
        points += 1
        codes += step.numel()
        flipped += int((step > 0).sum())
        worst = max(worst, int(step.max()))
        return grid(theirs)

    with torch.no_grad(), observing(model, compare):
        ours = run()
    if waiting:
        raise CheckFailed(f"the artifact has {len(waiting)} quantizations that the model lacks, e.g. {min(waiting)}")
    error = float((ours.double() - output.double()).norm() / output.double().norm().clamp_min(1e-30))
    return Lockstep(points, codes, flipped, worst, error)


def _channels_first(theirs: Tensor, like: Tensor) -> Tensor:
    """The artifact's (1, H + border, W + border, C) as (1, C, H, W); other shapes as they are.

    The border of a convolution's input is one zero on each side, or one behind.
    """
    if like.dim() == 4:
        _, _, height, width = like.shape
        extra = theirs.shape[1] - height
        start = extra // 2
        theirs = theirs[:, start : start + height, start : start + width].permute(0, 3, 1, 2)
    if theirs.shape != like.shape:
        raise CheckFailed(f"the artifact's value has shape {tuple(theirs.shape)}, the model's {tuple(like.shape)}")
    return theirs.contiguous()
