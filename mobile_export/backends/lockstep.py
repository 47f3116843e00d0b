"""Lock-step parity: an artifact against the quantized PyTorch model, compared at every quantization.

One flipped rounding of an 8-bit activation grows into percents downstream, in any two runs of the
same arithmetic, so free-running outputs say little. Here eager PyTorch computes each stretch between
two quantizations from the artifact's own values: what comes out must be equal or one step apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from correction.errors import CheckFailed
from mobile_export.quantize.fake_quantize import Quantize
from mobile_export.quantize.observed_layer import observing


@dataclass(frozen=True)
class Lockstep:
    """points: quantizations compared; codes: int8 codes compared; flipped: how many were not equal;
    worst_step: largest difference of two codes; output_error, output_max_abs: relative L2 and largest
    absolute error of the last stretch."""

    points: int = 0
    codes: int = 0
    flipped: int = 0
    worst_step: int = 0
    output_error: float = 0.0
    output_max_abs: float = 0.0

    @property
    def flip_rate(self) -> float:
        return self.flipped / self.codes if self.codes else 0.0

    def __add__(self, other: Lockstep) -> Lockstep:
        return Lockstep(
            max(self.points, other.points),
            self.codes + other.codes,
            self.flipped + other.flipped,
            max(self.worst_step, other.worst_step),
            _larger(self.output_error, other.output_error),
            _larger(self.output_max_abs, other.output_max_abs),
        )


def _larger(a: float, b: float) -> float:
    """The larger of two errors; NaN if one is."""
    return float(np.maximum(a, b))


def follow(model: nn.Module, run: Callable[[], Tensor], output: Tensor, taps: Mapping[str, Tensor]) -> Lockstep:
    """Run the quantized PyTorch model along the artifact's values.

    model: what `quantized_model` made; run: calls it on the inputs that the artifact had.
    output, taps: what the artifact gave, float32 in PyTorch's layout, (N, C, H, W) where it is an image;
    taps by point. Raises CheckFailed when the points or their shapes are not the model's.
    """
    waiting = dict(taps)
    points = codes = flipped = worst = 0

    def compare(point: str, grid: nn.Module, value: Tensor, rounded: Tensor) -> Tensor:
        nonlocal points, codes, flipped, worst
        if not isinstance(grid, Quantize):
            return rounded
        if point not in waiting:
            raise CheckFailed(f"the artifact has no value for {point}")
        theirs = waiting.pop(point)
        if theirs.shape != value.shape:
            shapes = f"{tuple(theirs.shape)}, the model's {tuple(value.shape)}"
            raise CheckFailed(f"the artifact's value of {point} has shape {shapes}")
        step = (grid.steps(value) - grid.steps(theirs)).abs()
        points += 1
        codes += step.numel()
        flipped += int((step > 0).sum())
        worst = max(worst, int(step.max()))
        return grid(theirs)

    with torch.no_grad(), observing(model, compare):
        ours = run().double()
    if waiting:
        raise CheckFailed(f"the artifact has {len(waiting)} quantizations that the model lacks, e.g. {min(waiting)}")
    difference = ours - output.double()
    error = float(difference.norm() / output.double().norm().clamp_min(1e-30))
    return Lockstep(points, codes, flipped, worst, error, float(difference.abs().max()))
