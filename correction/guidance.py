"""Classifier-free guidance as a denoiser around a denoiser."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from correction.errors import UsageError
from correction.loop import Denoiser
from correction.plan import FloatArray


@dataclass(frozen=True)
class GuidedDenoiser:
    """m = m_u + scale * (m_c - m_u) in float32, three rounded operations (Ho and Salimans, arXiv 2207.12598, eq. 6,
    with scale = 1 + w).

    Two calls of `denoiser`: m_u with `unconditional` in place of the conditioning of the same names, then m_c with the
    conditioning as given. Scale 1 is one call, without `unconditional`.

    Attributes:
        denoiser: the network.
        scale: finite, >= 0.
        unconditional: arrays that replace the caller's conditioning; with B rows, or with one row for all samples.
    """

    denoiser: Denoiser
    scale: float
    unconditional: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale) or self.scale < 0:
            raise UsageError(f"guidance scale must be finite and >= 0, got {self.scale!r}.")

    def __call__(self, sample: FloatArray, timestep: float, /, **conditioning: Any) -> FloatArray:
        """(B, C, H, W) float32 -> (B, C, H, W) float32, as a `Denoiser`."""
        if self.scale == 1:
            return self.denoiser(sample, timestep, **conditioning)
        rows = {name: _rows(array, sample.shape[0]) for name, array in self.unconditional.items()}
        unconditional = self.denoiser(sample, timestep, **{**conditioning, **rows})
        conditional = self.denoiser(sample, timestep, **conditioning)
        return unconditional + np.float32(self.scale) * (conditional - unconditional)


def _rows(array: Any, batch: int) -> Any:
    array = np.asarray(array)
    return np.repeat(array, batch, axis=0) if array.ndim and array.shape[0] == 1 != batch else array
