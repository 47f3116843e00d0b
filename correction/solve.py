"""Closed forms of a correction from additive sums, in float64.

Notation: per channel, `target` is what the reference has (e, or x) and `source` what the quantized side has (ê, or x̂);
<.> is the mean over samples and positions. Each solver returns the gain and bias that take source to target.

Sums are additive: split the samples in any way, over batches or processes, add the sums, and the solution is the same
to rounding. Near-constant data in float64 keeps about 16 digits minus those of mean^2 / variance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from correction.errors import UsageError

Array = npt.NDArray[np.float64]
_ROWS = ("count", "t", "s", "tt", "ss", "ts", "mask_ts", "mask_ss", "mask_ratio", "mask_ratio2")


@dataclass(frozen=True, eq=False)
class Affine:
    """gain and bias, each [C] float64: source -> gain * source + bias."""

    gain: Array
    bias: Array


@dataclass(frozen=True, eq=False)
class PairSums:
    """Sums over samples and positions of (target, source), per channel; add two to join their samples.

    Attributes:
        table: [10, C] float64. Rows: count, t, s, t^2, s^2, t s, and under the mask |t| > threshold: t s, s^2, s/t,
            (s/t)^2.
    """

    table: Array

    @staticmethod
    def of(target: npt.NDArray[np.floating], source: npt.NDArray[np.floating], threshold: Array) -> PairSums:
        """Sums of two (B, C, H, W) arrays; threshold is [C], >= 0, in the units of target (see `mean_magnitude`).

        Raises:
            UsageError: the shapes differ.
        """
        if target.shape != source.shape or target.ndim != 4 or threshold.shape != target.shape[1:2]:
            raise UsageError(
                f"target and source must share a shape (B, C, H, W) and threshold be (C,), got {target.shape}, "
                f"{source.shape} and {threshold.shape}."
            )
        t = np.moveaxis(target, 1, 0).reshape(target.shape[1], -1).astype(np.float64)  # [C, B*H*W]
        s = np.moveaxis(source, 1, 0).reshape(source.shape[1], -1).astype(np.float64)
        mask = np.abs(t) > threshold[:, None]
        ratio = np.divide(s, t, out=np.zeros_like(s), where=mask)
        count = np.full_like(t, 1.0)
        rows = (count, t, s, t * t, s * s, t * s, mask * (t * s), mask * (s * s), ratio, ratio * ratio)
        return PairSums(np.stack([row.sum(axis=1) for row in rows]))

    def __add__(self, other: PairSums) -> PairSums:
        return PairSums(self.table + other.table)

    def __sub__(self, other: PairSums) -> PairSums:
        return PairSums(self.table - other.table)

    def mean(self, row: str) -> Array:
        """<row> per channel, [C]: the sum divided by the count of all positions, masked ones included."""
        return self.table[_ROWS.index(row)] / self.table[0]


Solver = Callable[[PairSums], Affine]


def mean_magnitude(target: npt.NDArray[np.floating]) -> Array:
    """<|target|> per channel, [C], of a (B, C, H, W) array: the threshold of the mask of `NoiseEstimate`."""
    return np.abs(target.astype(np.float64)).mean(axis=(0, 2, 3))


def identity(sums: PairSums) -> Affine:
    """Gain 1, bias 0."""
    channels = sums.table.shape[1]
    return Affine(np.ones(channels), np.zeros(channels))


def mean_bias(sums: PairSums) -> Affine:
    """IBC, the input half of TAC (arXiv 2407.03917): bias = <target - source>, gain 1."""
    return Affine(np.ones(sums.table.shape[1]), sums.mean("t") - sums.mean("s"))


def least_squares_gain(sums: PairSums) -> Affine:
    """Gain <ts> / <ss>, bias 0: the minimiser of <(K s - t)^2>. Shrinks towards 0 as source gets noisier."""
    gain = _ratio(sums.mean("ts"), sums.mean("ss"))
    return Affine(gain, np.zeros_like(gain))


@dataclass(frozen=True)
class NoiseEstimate:
    """NER, the output half of TAC (arXiv 2407.03917): gain K, bias 0, the minimiser of

        (1 - l1) <mask (K s - t)^2>  +  l1 <mask ((K s - t) / t)^2>  +  l2 (K - 1)^2

    The paper's mask is read as two-sided and on the reference, |t| > <|t|>: without one, near-zero t dominate the
    relative term and K collapses. The paper's l1 and l2 could not be recovered; 0.5 and 0.1 come from a
    re-implementation.

    Attributes:
        l1: share of the relative term, 0 .. 1.
        l2: pull towards 1, >= 0.
    """

    l1: float = 0.5
    l2: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 <= self.l1 <= 1.0:
            raise UsageError(f"l1 must be in 0..1, got {self.l1!r}.")
        if not (self.l2 >= 0.0 and np.isfinite(self.l2)):
            raise UsageError(f"l2 must be finite and >= 0, got {self.l2!r}.")

    def __call__(self, sums: PairSums) -> Affine:
        """The gain for these sums."""
        rest = 1.0 - self.l1
        over = rest * sums.mean("mask_ts") + self.l1 * sums.mean("mask_ratio") + self.l2
        under = rest * sums.mean("mask_ss") + self.l1 * sums.mean("mask_ratio2") + self.l2
        gain = _ratio(over, under)
        return Affine(gain, np.zeros_like(gain))


def std_matched_gain(sums: PairSums) -> Affine:
    """Gain std(target) / std(source), bias 0: keeps the variance where least squares shrinks it."""
    gain = np.sqrt(_ratio(_variance(sums, "t"), _variance(sums, "s")))
    return Affine(gain, np.zeros_like(gain))


def moments_matched(sums: PairSums) -> Affine:
    """The gain and bias after which source has the mean and the standard deviation of target."""
    gain = std_matched_gain(sums).gain
    return Affine(gain, sums.mean("t") - gain * sums.mean("s"))


def affine_least_squares(sums: PairSums) -> Affine:
    """The minimiser of <(G s + B - t)^2>: G = cov(t, s) / var(s), B = <t> - G <s>."""
    covariance = sums.mean("ts") - sums.mean("t") * sums.mean("s")
    gain = _ratio(covariance, _variance(sums, "s"))
    return Affine(gain, sums.mean("t") - gain * sums.mean("s"))


def correlation_removed(sums: PairSums) -> Affine:
    """PTQD (He et al. 2023, arXiv 2305.10657, section 4.2): with source = (1 + k) target + rest, one k >= 0 for all
    channels, (source - <rest>) / (1 + k). What is uncorrelated with the target stays, for `residual_variance`.
    """
    covariance = (sums.mean("ts") - sums.mean("t") * sums.mean("s")).sum()
    variance = _variance(sums, "t").sum()
    slope = max(covariance / variance, 1.0) if variance > 0 else 1.0
    rest = sums.mean("s") - slope * sums.mean("t")
    return Affine(np.full_like(rest, 1 / slope), -rest / slope)


def residual_variance(sums: PairSums, found: Affine) -> float:
    """Variance of gain * source + bias - target, mean over the channels, in units of the target squared."""
    gain = found.gain
    covariance = sums.mean("ts") - sums.mean("t") * sums.mean("s")
    each = gain * gain * _variance(sums, "s") - 2 * gain * covariance + _variance(sums, "t")
    return float(np.maximum(each, 0.0).mean())


def jackknife(groups: Sequence[PairSums], solver: Solver) -> Affine:
    """Standard errors of gain and bias by the grouped jackknife (Efron, 1982, chapter 3), each [C].

    `groups` are sums over disjoint sets of samples of about equal size. Positions of one sample are not independent,
    so groups must not share samples. NaN with fewer than two groups.
    """
    count = len(groups)
    if count < 2:
        unknown = np.full(groups[0].table.shape[1] if groups else 0, np.nan)
        return Affine(unknown, unknown)
    total = join(groups)
    left_out = [solver(total - group) for group in groups]
    factor = np.sqrt((count - 1.0) ** 2 / count)  # (n-1)/n * sum of squares, with numpy's variance over n-1
    return Affine(*(factor * np.std([getattr(v, name) for v in left_out], axis=0, ddof=1) for name in ("gain", "bias")))


def join(groups: Sequence[PairSums]) -> PairSums:
    """The sum of one or more groups."""
    total = groups[0]
    for group in groups[1:]:
        total = total + group
    return total


def _variance(sums: PairSums, name: str) -> Array:
    mean = sums.mean(name)
    return np.maximum(sums.mean(name * 2) - mean * mean, 0.0)


def _ratio(over: Array, under: Array) -> Array:
    """over / under, and 1 where under is 0: nothing is known, so nothing is changed."""
    return np.divide(over, under, out=np.ones_like(over), where=under > 0)
