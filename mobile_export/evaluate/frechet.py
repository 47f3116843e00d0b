"""Fréchet distance between two sets of features, each taken as normally distributed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from correction.errors import UsageError
from mobile_export.metrics import Interval


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """count: of pictures; mean: (D,), covariance: (D, D), float64. Raises UsageError for shapes that do not fit."""

    count: int
    mean: np.ndarray
    covariance: np.ndarray

    def __post_init__(self) -> None:
        width = len(self.mean)
        if self.mean.shape != (width,) or self.covariance.shape != (width, width) or self.count < 2:
            raise UsageError(
                f"feature statistics are of 2 pictures or more, (D,) and (D, D); got {self.count}, "
                f"{self.mean.shape} and {self.covariance.shape}"
            )

    @staticmethod
    def of(features: np.ndarray) -> FeatureStatistics:
        """Those of (N, D) features, N >= 2."""
        values = features.astype(np.float64)
        if values.ndim != 2 or len(values) < 2:
            raise UsageError(f"feature statistics need (N, D) features of 2 pictures or more, got {features.shape}")
        return FeatureStatistics(
            len(values), values.mean(0), np.cov(values, rowvar=False).reshape(2 * values.shape[1:])
        )

    def save(self, path: Path) -> None:
        """As safetensors."""
        arrays = {"count": np.array([self.count], np.int64), "mean": self.mean, "covariance": self.covariance}
        save_file(arrays, path)
        path.chmod(0o644)  # safetensors makes files that only their owner can read

    @staticmethod
    def load(path: Path) -> FeatureStatistics:
        """What `save` wrote. Raises UsageError naming the file if it is something else."""
        try:
            arrays = load_file(path)
            return FeatureStatistics(int(arrays["count"][0]), arrays["mean"], arrays["covariance"])
        except (SafetensorError, OSError, KeyError, IndexError) as error:
            raise UsageError(f"{path} does not hold feature statistics ({error})") from error


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """|mean_a - mean_b|² + tr(A + B - 2 (A^½ B A^½)^½), in units of the features squared; 0 for equal ones.

    Dowson and Landau 1982; Heusel et al. 2017, arXiv 1706.08500, eq. 6. Raises UsageError for features of two widths.
    """
    if a.mean.shape != b.mean.shape:
        raise UsageError(f"the features have {len(a.mean)} and {len(b.mean)} numbers a picture")
    root = _root(a.covariance)
    middle = np.linalg.eigvalsh(root @ b.covariance @ root)
    cross = np.sqrt(np.maximum(middle, 0)).sum()
    apart = np.square(a.mean - b.mean).sum()
    return float(max(apart + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross, 0.0))


def distance_interval(
    features: np.ndarray, to: FeatureStatistics | np.ndarray, resamples: int = 200, seed: int = 0
) -> Interval:
    """Fréchet distance of (N, D) features to fixed statistics, or to the features (N, D) of the same N seeds.

    The 95 % interval is the basic bootstrap's over the seeds, since a resample has fewer different pictures, and the
    distance grows with fewer: what the resamples lie above the distance is taken off below it.
    """

    def distance(rows: np.ndarray) -> float:
        other = FeatureStatistics.of(to[rows]) if isinstance(to, np.ndarray) else to
        return frechet_distance(FeatureStatistics.of(features[rows]), other)

    found = _interval(distance, len(features), resamples, seed)
    return Interval(found.mean, max(found.low, 0.0), found.high)


def distance_difference(
    features: np.ndarray, other: np.ndarray, to: FeatureStatistics, resamples: int = 200, seed: int = 0
) -> Interval:
    """By how much less the Fréchet distance to `to` is of `other` than of `features`, both (N, D) of the same N seeds.

    The interval is as that of `distance_interval`, paired: both sides of a resample have the same seeds.
    """

    def difference(rows: np.ndarray) -> float:
        mine, others = (frechet_distance(FeatureStatistics.of(each[rows]), to) for each in (features, other))
        return mine - others

    return _interval(difference, len(features), resamples, seed)


def _interval(value: Callable[[np.ndarray], float], count: int, resamples: int, seed: int) -> Interval:
    generator = np.random.default_rng(seed)
    exact = value(np.arange(count))
    found = [value(rows) for rows in generator.integers(0, count, (resamples, count))]
    low, high = np.percentile(found, [2.5, 97.5])
    shift = float(np.mean(found)) - exact
    return Interval(exact, float(low) - shift, float(high) - shift)


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
