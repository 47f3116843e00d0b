"""Image and trajectory metrics, in float64, with stated ranges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from correction.errors import UsageError

IMAGE_PEAK = 2.0  # images are floats in [-1, 1]
MAX_DB = 200.0  # reported for equal inputs


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    def scaled(self, factor: float) -> Interval:
        """In other units; factor: above 0."""
        return Interval(factor * self.mean, factor * self.low, factor * self.high)


def psnr(a: np.ndarray, b: np.ndarray, peak: float = IMAGE_PEAK) -> np.ndarray:
    """Peak signal-to-noise ratio of each row in dB, at most 200. a, b: (N, …) floats of equal shape.

    Raises UsageError for integers (they would wrap around) and for unequal shapes.
    """
    _check(a, b)
    difference = a.astype(np.float64) - b.astype(np.float64)
    error = np.square(difference).reshape(len(a), -1).mean(1)
    return decibel(peak**2, error)


def snr(signal: np.ndarray, other: np.ndarray) -> float:
    """Energy of `signal` over the energy of the difference, in dB, at most 200; any equal shapes."""
    _check(signal, other)
    exact = signal.astype(np.float64)
    error = np.square(exact - other.astype(np.float64)).mean()
    return float(decibel(np.square(exact).mean(), error))


def bootstrap(values: np.ndarray, resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean of (N,) values with its 95 % percentile bootstrap interval over the N seeds."""
    values = np.asarray(values, np.float64)
    generator = np.random.default_rng(seed)
    means = values[generator.integers(0, len(values), (resamples, len(values)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high))


def decibel(energy: float | np.ndarray, error: np.ndarray) -> np.ndarray:
    """10 log10(energy / error) of each, at most 200."""
    floor = np.asarray(energy, np.float64) * 10 ** (-MAX_DB / 10)
    ratio = np.maximum(energy, 1e-300) / np.maximum(np.maximum(error, floor), 1e-300)
    return np.where(error == 0, MAX_DB, 10 * np.log10(ratio))


def _check(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape:
        raise UsageError(f"cannot compare shapes {a.shape} and {b.shape}")
    for array in (a, b):
        if not np.issubdtype(array.dtype, np.floating):
            raise UsageError(f"metrics take floats in a stated range, got {array.dtype}: convert to float first")
