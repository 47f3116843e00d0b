"""Batch: noise and conditioning of some samples, and the device loop over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from correction import Correction, Denoiser, SamplingPlan, initial_noise, sample
from correction.loop import OnStep
from correction.noise import step_noises


@dataclass(frozen=True)
class Batch:
    """Everything a run needs besides the plan and the network.

    noise: (B, C, H, W) float32; step_noise: step index -> fresh noise of the same shape;
    conditioning: input of the UNet -> an array with B rows, empty for an unconditional model.
    """

    noise: np.ndarray
    step_noise: Callable[[int], np.ndarray]
    conditioning: Mapping[str, np.ndarray] = field(default_factory=dict)

    def rows(self, rows: slice) -> Batch:
        """Some of the samples."""
        conditioning = {name: array[rows] for name, array in self.conditioning.items()}
        return Batch(self.noise[rows], lambda i: self.step_noise(i)[rows], conditioning)


def make_batch(
    seed: int,
    stream: str,
    samples: Sequence[int],
    shape: tuple[int, ...],
    conditioning: Mapping[str, np.ndarray] | None = None,
) -> Batch:
    """Sample k of a seed is the same in every batch. shape: (C, H, W); conditioning: a row for each sample."""
    noise = initial_noise(seed, stream, samples, shape)
    return Batch(noise, step_noises(seed, stream, samples, shape), dict(conditioning or {}))


def run(
    plan: SamplingPlan,
    denoiser: Denoiser,
    batch: Batch,
    correction: Correction | None = None,
    on_step: OnStep | None = None,
) -> np.ndarray:
    """The device loop over a batch: (B, C, H, W) float32, images in about [-1, 1] or latents."""
    step_noise = batch.step_noise if plan.needs_noise else None
    return sample(plan, denoiser, batch.noise, correction, step_noise, batch.conditioning, on_step)
