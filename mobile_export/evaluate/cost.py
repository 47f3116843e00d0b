"""Cost: what the correction adds to a step, measured on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from correction import Denoiser, SamplingPlan
from correction.loop import advance, correct, predict
from mobile_export.batch import Batch

_ROUNDS = 60


@dataclass(frozen=True)
class StepCost:
    """seconds: of a step without a correction, of one sample; share: what a correction adds, over these."""

    seconds: float
    share: float


def step_cost(plan: SamplingPlan, denoiser: Denoiser, batch: Batch) -> StepCost:
    """The time of a step, and what both halves of a correction, all gains and biases at work, add to it.

    The first step of the plan runs with and without, by turns. Timed is what follows the network's call, whose own
    times differ by more than the correction takes; the medians over the rounds are taken. Both are of a desktop.
    """
    x, channels = batch.noise, batch.noise.shape[1]
    gain, bias = np.full(channels, 1.01, np.float32), np.full(channels, 0.01, np.float32)
    calls: list[float] = []
    rests: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(_ROUNDS):
        for corrected, rest in rests.items():
            started = time.perf_counter()
            output = predict(plan, denoiser, 0, x, batch.conditioning)
            called = time.perf_counter()
            if corrected:
                output = correct(gain, bias, output)
            sample, _ = advance(plan, 0, x, output, [], batch.step_noise)
            if corrected:
                correct(gain, bias, sample)
            rest.append(time.perf_counter() - called)
            calls.append(called - started)
    without = np.median(rests[False])
    seconds = float(np.median(calls) + without)
    return StepCost(seconds, float(np.median(rests[True]) - without) / seconds)
