"""Strength: how much of each half of a correction is applied, two numbers found on whole trajectories.

The steps of a correction are solved one after another, each for the sample right after it. What counts is the last
sample, and a step that is right for the next one can be too much, or too little, for that. Scaling both halves of all
steps is the least that can be searched there (after Q-Sched, ICML 2026, which searches two factors, of the model output
and of the sample, without a correction): with strength s a gain G becomes 1 + s (G - 1), a bias B becomes s B. The
tables hold the result, so a device loop is not concerned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from correction.loop import Denoiser, StepNoise, noise_at, sample
from correction.plan import FloatArray, SamplingPlan
from correction.tables import NAMES, Correction, gain_allowed

LARGEST = 2.0
FIRST_STEP, LAST_STEP = 0.5, 0.25  # of the search
SMALLEST_ERROR = 1e-30  # of a sample's mean squared error, before its logarithm


@dataclass(frozen=True)
class Strength:
    """input, output: how much of the input and of the output half is applied, 0 to 2; 1 is all as it was solved."""

    input: float = 1.0
    output: float = 1.0

    def of(self, correction: Correction) -> Correction | None:
        """The correction with this strength; None where a gain would leave the bounds that its file has."""
        tables = {name: _scaled(name, getattr(correction, name), getattr(self, _half(name))) for name in NAMES}
        allowed = all(gain_allowed(table).all() for name, table in tables.items() if name.endswith("gain"))
        return Correction(**tables) if allowed else None


def best_strength(correction: Correction, error: Callable[[Correction], float]) -> Strength:
    """The strength with the least error, by a search along either half from full strength.

    error: of a correction, on whole trajectories; asked at most once for each strength, about ten times. Halves that
    change nothing keep full strength, as does a correction that no other strength makes better.
    """
    halves = [half for half in ("input", "output") if _changes(correction, half)]
    known: dict[Strength, float] = {}

    def asked(strength: Strength) -> float:
        if strength not in known:
            scaled = strength.of(correction)
            known[strength] = np.inf if scaled is None else error(scaled)
        return known[strength]

    best, step = Strength(), FIRST_STEP
    while halves and step >= LAST_STEP:
        around = [_moved(best, half, change) for half in halves for change in (-step, step)]
        nearest = min((each for each in around if each is not None), key=asked)
        if asked(nearest) < asked(best):
            best = nearest
        else:
            step /= 2
    return best


def end_error(
    plan: SamplingPlan,
    denoiser: Denoiser,
    correction: Correction,
    noise: FloatArray,
    target: FloatArray,
    conditioning: Mapping[str, Any],
    step_noise: StepNoise | None,
    batch_size: int | None = None,
) -> float:
    """Of the last samples to `target`, (B, C, H, W): `error_of_samples`. The arguments are those of `calibrate`."""
    size, ends = batch_size or len(noise), []
    for start in range(0, len(noise), size):
        part = slice(start, start + size)
        rows = {name: array[part] for name, array in conditioning.items()}

        def fresh(i: int, part: slice = part) -> FloatArray:
            return noise_at(step_noise, i, noise)[part]

        ends.append(sample(plan, denoiser, noise[part], correction, fresh if plan.needs_noise else None, rows))
    return error_of_samples(np.concatenate(ends), target)


def error_of_samples(a: FloatArray, b: FloatArray) -> float:
    """Geometric mean over the samples of the mean squared error of each; 0 only if all are equal."""
    each = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2, axis=(1, 2, 3))
    return float(np.exp(np.mean(np.log(np.maximum(each, SMALLEST_ERROR))))) if each.any() else 0.0


def _half(name: str) -> str:
    return name.split("_")[0]


def _scaled(name: str, table: FloatArray, strength: float) -> FloatArray:
    neutral = 1.0 if name.endswith("gain") else 0.0
    return (neutral + strength * (table.astype(np.float64) - neutral)).astype(np.float32)


def _changes(correction: Correction, half: str) -> bool:
    gain, bias = getattr(correction, f"{half}_gain"), getattr(correction, f"{half}_bias")
    return bool((gain != 1).any() or (bias != 0).any())


def _moved(strength: Strength, half: str, change: float) -> Strength | None:
    """None beyond 0 and the largest."""
    value = getattr(strength, half) + change
    if not 0.0 <= value <= LARGEST:
        return None
    return Strength(value, strength.output) if half == "input" else Strength(strength.input, value)
