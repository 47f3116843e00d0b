"""ImageStart: a run that begins at an image instead of noise (Meng et al., SDEdit, arXiv 2108.01073)."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from correction.errors import UsageError
from correction.plan import FloatArray, SamplingPlan
from correction.schedulers import compile_plan


@dataclass(frozen=True)
class ImageStart:
    """The last steps of a scheduler.

    plan: their sampling plan, whose first sample is given as it is (init_sigma 1); keep, level: weights of the latents
    and of unit-normal noise in the first sample.
    """

    plan: SamplingPlan
    keep: float
    level: float

    def first_sample(self, latents: FloatArray, noise: FloatArray) -> FloatArray:
        """(B, C, H, W) float32 from latents as the UNet denoises them, and unit-normal noise of the same shape."""
        return np.float32(self.keep) * latents + np.float32(self.level) * noise


def late_scheduler(scheduler: Any, strength: float, whole_schedule: bool = False) -> Any:
    """A copy of a diffusers scheduler whose set_timesteps(n) leaves only the last int(n * strength) steps.

    As diffusers' image-to-image pipelines do it, a scheduler with several timesteps per step included. whole_schedule:
    the pipeline of latent consistency models instead takes n steps of a schedule that begins at `strength`.
    set_timesteps raises UsageError where no step is left.
    """
    late = copy.deepcopy(scheduler)
    late.__class__ = _consistency(type(scheduler), strength) if whole_schedule else _late(type(scheduler), strength)
    return late


def _consistency(kind: Any, strength: float) -> type:
    def set_timesteps(self: Any, num_inference_steps: int, device: Any = None) -> None:
        kind.set_timesteps(self, num_inference_steps, device=device, strength=strength)

    return type(kind.__name__, (kind,), {"set_timesteps": set_timesteps})  # plans and messages name the scheduler


def _late(kind: Any, strength: float) -> type:
    def set_timesteps(self: Any, num_inference_steps: int, device: Any = None) -> None:
        kind.set_timesteps(self, num_inference_steps, device=device)
        done = min(int(num_inference_steps * strength), num_inference_steps)
        if done < 1:
            raise UsageError(f"strength {strength:g} leaves none of {num_inference_steps} steps: raise either")
        begin = (num_inference_steps - done) * self.order
        self.all_timesteps = self.timesteps
        self.timesteps = self.timesteps[begin:]
        if hasattr(self, "set_begin_index"):
            self.set_begin_index(begin)

    @functools.wraps(kind.step)
    def step(self: Any, *args: Any, **options: Any) -> Any:
        left, self.timesteps = self.timesteps, self.all_timesteps  # some count them to know which step is the last
        try:
            return kind.step(self, *args, **options)
        finally:
            self.timesteps = left

    return type(kind.__name__, (kind,), {"set_timesteps": set_timesteps, "step": step})


def image_start(late: Any, steps: int, eta: float = 0.0) -> ImageStart:
    """The start of a scheduler from `late_scheduler`; steps: those of the whole way from noise to image.

    Raises UsageError where no step is left, and as `compile_plan`.
    """
    plan = compile_plan(late, steps, eta)  # first, since it checks the steps
    begun = copy.deepcopy(late)
    begun.set_timesteps(steps)
    one, zero, when = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), begun.timesteps[:1]
    keep, level = begun.add_noise(one, zero, when), begun.add_noise(zero, one, when)
    config = {**plan.scheduler_config, "first_timestep": float(plan.timestep[0])}
    return ImageStart(replace(plan, init_sigma=1.0, scheduler_config=config), float(keep), float(level))
