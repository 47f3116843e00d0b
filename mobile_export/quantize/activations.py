"""Activation ranges: one static 8-bit grid per tensor, fitted on the reference's own trajectories."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mobile_export.quantize.half import LARGEST, SMALLEST

ACTIVATION_MIN, ACTIVATION_MAX = -128, 127
_VALUES_PER_CALL = 2048
_MAX_VALUES = 2**18  # of one tensor, one mebibyte: those of 128 calls
_THINNING = 7  # divides no usual number of channels
_SHRINKS = tuple(1 - 0.025 * i for i in range(29))  # 1.0 ... 0.3 of the observed range


@dataclass(frozen=True)
class ActivationGrid:
    """value = (code - zero_point) * scale, code in [-128, 127]; zero is always on the grid.

    scale is a normal float16 number > 0. Raises ValueError for other scales and zero points.
    """

    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"activation scale must be finite and positive, got {self.scale}")
        if self.scale != _half(self.scale):
            raise ValueError(f"activation scale must be a normal float16 number, got {self.scale}")
        if not ACTIVATION_MIN <= self.zero_point <= ACTIVATION_MAX:
            raise ValueError(f"zero point must be in [-128, 127], got {self.zero_point}")

    @classmethod
    def covering(cls, low: float, high: float) -> ActivationGrid:
        """The grid over [low, high], widened to hold zero."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = _half((high - low) / (ACTIVATION_MAX - ACTIVATION_MIN))
        zero_point = min(max(round(ACTIVATION_MIN - low / scale), ACTIVATION_MIN), ACTIVATION_MAX)
        return cls(scale, zero_point)

    def round_trip(self, values: np.ndarray) -> np.ndarray:
        """Quantize and dequantize; any shape, float64."""
        codes = np.clip(np.rint(values / self.scale) + self.zero_point, ACTIVATION_MIN, ACTIVATION_MAX)
        return (codes - self.zero_point) * self.scale


def _half(scale: float) -> float:
    """The nearest normal float16 number > 0."""
    return float(np.float16(min(max(scale, SMALLEST), LARGEST)))


@dataclass
class RangeObserver:
    """What one tensor was seen to hold: exact extremes and a thinned sample of its values, in float32.

    thinning: of the values that a call gives, every so many-th is kept, of all calls alike.
    """

    low: float = np.inf
    high: float = -np.inf
    sample: list[np.ndarray] = field(default_factory=list)
    thinning: int = 1
    _kept: int = 0

    def observe(self, tensor: Tensor) -> None:
        flat = tensor.detach().reshape(-1)
        self.low = min(self.low, float(flat.min()))
        self.high = max(self.high, float(flat.max()))
        # An odd stride that is coprime to the usual channel counts visits every channel.
        stride = max(1, flat.numel() // _VALUES_PER_CALL) | 1
        self.sample.append(flat[:: stride * self.thinning].to(torch.float32, copy=True).numpy())
        self._kept += len(self.sample[-1])
        while self._kept > _MAX_VALUES:
            self.thinning *= _THINNING
            self.sample = [part[::_THINNING].copy() for part in self.sample]
            self._kept = sum(map(len, self.sample))

    def grid(self) -> ActivationGrid:
        """The grid of least squared error among shrunken ranges, each end on its own."""
        values = np.concatenate(self.sample).astype(np.float64)
        low, high = self.low, self.high

        def error(low: float, high: float) -> float:
            return float(np.square(ActivationGrid.covering(low, high).round_trip(values) - values).mean())

        shrink_low = shrink_high = 1.0
        for _ in range(2):  # coordinate descent: the two ends hardly interact
            shrink_high = min(_SHRINKS, key=lambda s: error(low * shrink_low, high * s))
            shrink_low = min(_SHRINKS, key=lambda s: error(low * s, high * shrink_high))
        return ActivationGrid.covering(low * shrink_low, high * shrink_high)
