"""Batch: noise and conditioning of some samples, and the device loop over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from correction import Correction, Denoiser, SamplingPlan, initial_noise, sample
from correction.loop import OnStep
from correction.noise import step_noise


@dataclass(frozen=True)
class FreshNoise:
    """step index -> fresh noise of some samples, (B, *shape) float32; see `correction.noise.step_noise`."""

    seed: int
    stream: str
    samples: Sequence[int]
    shape: tuple[int, ...]

    def __call__(self, step: int) -> np.ndarray:
        return step_noise(self.seed, self.stream, self.samples, step, self.shape)


@dataclass(frozen=True)
class Batch:
    """Everything a run needs besides the plan and the network.

    noise: (B, C, H, W) float32; step_noise: fresh noise of the same samples;
    conditioning: input of the UNet -> an array with B rows, empty for an unconditional model.
    """

    noise: np.ndarray
    step_noise: FreshNoise
    conditioning: Mapping[str, np.ndarray] = field(default_factory=dict)

    def rows(self, rows: slice) -> Batch:
        """Some of the samples; no noise of the others is made for them."""
        conditioning = {name: array[rows] for name, array in self.conditioning.items()}
        fresh = replace(self.step_noise, samples=self.step_noise.samples[rows])
        return Batch(self.noise[rows], fresh, conditioning)


def make_batch(
    seed: int,
    stream: str,
    samples: Sequence[int],
    shape: tuple[int, ...],
    conditioning: Mapping[str, np.ndarray] | None = None,
) -> Batch:
    """Sample k of a seed is the same in every batch. shape: (C, H, W); conditioning: a row for each sample."""
    noise = initial_noise(seed, stream, samples, shape)
    return Batch(noise, FreshNoise(seed, stream, samples, shape), dict(conditioning or {}))


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
