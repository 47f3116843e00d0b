"""Toy denoisers with exact answers, shared by the tests of the correction package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from correction import SamplingPlan

BETAS = np.linspace(1e-4, 0.02, 1000, dtype=np.float64)
ALPHAS = np.cumprod(1 - BETAS)


def reference(sample: np.ndarray, timestep: float, /, **conditioning: Any) -> np.ndarray:
    """An epsilon network that believes in smooth images: x0 = a squashed copy of the sample."""
    alpha = ALPHAS[int(timestep)]
    shift = conditioning.get("shift", np.zeros(len(sample)))[:, None, None, None]
    x0 = 0.9 * np.tanh(sample / (np.sqrt(alpha) + 0.5) + shift)
    return ((sample - np.sqrt(alpha) * x0) / np.sqrt(1 - alpha)).astype(np.float32)


@dataclass(frozen=True)
class Skewed:
    """The reference after gain, bias and noise: a quantizer whose errors are known."""

    gain: float = 0.97
    bias: float = 0.03
    noise: float = 0.0

    def __call__(self, sample: np.ndarray, timestep: float, /, **conditioning: Any) -> np.ndarray:
        m = self.gain * reference(sample, timestep, **conditioning) + self.bias
        if self.noise:
            m = m + self.noise * np.sin(1e3 * sample)  # deterministic, all but uncorrelated with the sample
        return m.astype(np.float32)


def small_plan(steps: int = 4, history: int = 2, **changes: Any) -> SamplingPlan:
    """A valid plan with distinct values in every column."""
    rows = np.arange(steps, dtype=np.float32)
    w = np.tril(np.ones((steps, history), np.float32)) * np.float32(0.1) if history > 1 else np.full((steps, 1), 0.1)
    columns = {
        "timestep": 10.0 * (steps - rows) - 1,
        "input_scale": 1 + 0.01 * rows,
        "p": 1.1 + 0.01 * rows,
        "q": -0.3 - 0.01 * rows,
        "clip": np.where(rows % 2 == 0, 1.0, 0.0),
        "a": 0.8 + 0.01 * rows,
        "b": -0.1 - 0.01 * rows,
        "w": w,
        "sigma": np.where(rows == steps - 1, 0.0, 0.05),
        "init_sigma": 1.0,
        "prediction_type": "epsilon",
        "scheduler": "DDIMScheduler",
        "scheduler_config": {"beta_schedule": "linear"},
    }
    return SamplingPlan(**{**columns, **changes})
