"""Noise sources: the unit-normal noise of one call of a pipeline, from the project's streams or torch's generator."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from correction.errors import UsageError
from correction.noise import initial_noise, step_noise, step_noises
from correction.plan import MAX_STEPS, FloatArray

NOISES = ("philox", "torch")


class NoiseSource(Protocol):
    """Noise in the order in which a pipeline draws it: of the latents of its image, of the start, of the steps.

    All arrays are (B, *shape) float32; shape: (C, H, W) of one sample.
    """

    def encoder(self, count: int, shape: tuple[int, ...]) -> FloatArray:
        """For drawing the latents of `count` images."""

    def initial(self, count: int, shape: tuple[int, ...]) -> FloatArray:
        """Of the first samples."""

    def steps(self, count: int, shape: tuple[int, ...]) -> Callable[[int], FloatArray]:
        """The fresh noise of a step by its index, to be asked for in increasing order."""


class PhiloxNoise:
    """The noise of `correction.noise`, which is the same on a phone: sample k of a seed is the same in every batch.

    That of the encoder is the noise of step MAX_STEPS, which no plan has. stream: a key of correction.noise.STREAMS;
    first: index of the first sample.
    """

    def __init__(self, seed: int, stream: str = "simulation", first: int = 0) -> None:
        self.seed, self.stream, self.first = seed, stream, first

    def encoder(self, count: int, shape: tuple[int, ...]) -> FloatArray:
        return step_noise(self.seed, self.stream, self._samples(count), MAX_STEPS, shape)

    def initial(self, count: int, shape: tuple[int, ...]) -> FloatArray:
        return initial_noise(self.seed, self.stream, self._samples(count), shape)

    def steps(self, count: int, shape: tuple[int, ...]) -> Callable[[int], FloatArray]:
        return step_noises(self.seed, self.stream, self._samples(count), shape)

    def starting_at(self, first: int) -> PhiloxNoise:
        """The same noise, of later samples."""
        return PhiloxNoise(self.seed, self.stream, first)

    def _samples(self, count: int) -> range:
        return range(self.first, self.first + count)


class TorchNoise:
    """What a diffusers pipeline draws from torch.Generator().manual_seed(seed), on the CPU, for a whole batch.

    drawn: whether the scheduler draws noise at each step (see `drawing_steps`); some draw and multiply it by 0.
    """

    def __init__(self, seed: int, drawn: Sequence[bool]) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._drawn = tuple(drawn)

    def encoder(self, count: int, shape: tuple[int, ...]) -> FloatArray:
        return self._draw(count, shape)

    def initial(self, count: int, shape: tuple[int, ...]) -> FloatArray:
        return self._draw(count, shape)

    def steps(self, count: int, shape: tuple[int, ...]) -> Callable[[int], FloatArray]:
        done = 0

        def at(step: int) -> FloatArray:
            nonlocal done
            if not done <= step < len(self._drawn) or not self._drawn[step]:
                raise UsageError(
                    f"the noise of step {step} was asked for, but the scheduler is beyond it or draws none"
                )
            noise = np.zeros(0, np.float32)
            while done <= step:
                if self._drawn[done]:
                    noise = self._draw(count, shape)
                done += 1
            return noise

        return at

    def _draw(self, count: int, shape: tuple[int, ...]) -> FloatArray:
        return torch.randn((count, *shape), generator=self._generator).numpy()


def drawing_steps(scheduler: Any, steps: int, eta: float = 0.0) -> tuple[bool, ...]:
    """Whether a diffusers scheduler draws from its generator at each step; it is copied and run on zeros."""
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(steps)
    takes = inspect.signature(scheduler.step).parameters
    generator = torch.Generator().manual_seed(0)
    options: dict[str, Any] = {"generator": generator} if "generator" in takes else {}
    if "eta" in takes:
        options["eta"] = eta
    sample, drawn = torch.zeros(1, 1, 1, 1), []
    for time in scheduler.timesteps:
        before = generator.get_state()
        scheduler.scale_model_input(sample, time)  # some schedulers find their place here
        scheduler.step(torch.zeros_like(sample), time, sample, **options)
        drawn.append(not torch.equal(before, generator.get_state()))
    return tuple(drawn)
