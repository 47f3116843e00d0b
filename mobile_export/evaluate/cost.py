"""Cost: what the correction adds to a step, measured on this machine."""

from __future__ import annotations

import time

import numpy as np

from correction import Denoiser, SamplingPlan
from correction.loop import advance, correct, predict
from mobile_export.batch import Batch

_ROUNDS = 60


def correction_share(plan: SamplingPlan, denoiser: Denoiser, batch: Batch) -> float:
    """What both halves of a correction, all gains and biases at work, add to the time of a step, over that time.

    The first step of the plan runs with and without, by turns. Timed is what follows the network's call, whose own
    times differ by more than the correction takes; the medians over the rounds are taken. A ratio from a desktop.
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
    return float((np.median(rests[True]) - without) / (np.median(calls) + without))
