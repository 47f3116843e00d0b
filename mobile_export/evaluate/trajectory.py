"""Trajectories: what the device loop goes through for a batch, and that of the reference, sampled once for all."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from correction import Correction, Denoiser, SamplingPlan
from correction.loop import advance
from correction.schedulers import make_scheduler, run_of
from mobile_export.batch import Batch, run
from mobile_export.models.diffusion_model import DiffusionModel, TorchDenoiser
from mobile_export.progress import Progress
from mobile_export.subjects import Subjects

STRIP_STEPS = 8
STRIP_SAMPLES = 4
PARITY_SAMPLES = 2
REFERENCE_BATCH = 16


@dataclass
class Trajectory:
    """samples: (N, T, C, H, W) float32 after each step, as the next step's network sees them, the last one
    being the images; strips: (K, S, C, H, W), the predicted clean images at the strip steps."""

    samples: np.ndarray
    strips: np.ndarray


@dataclass(frozen=True)
class Reference:
    """The reference's own trajectory, and how far the device loop is from the diffusers scheduler on it.

    sampler_parity: see `sampler_parity`.
    """

    trajectory: Trajectory
    sampler_parity: float


class References:
    """References of one evaluation, each sampled once: those of equal model, plan and guidance are the same."""

    def __init__(self) -> None:
        self._found: dict[tuple[object, ...], Reference] = {}

    def get(
        self,
        model: DiffusionModel,
        plan: SamplingPlan,
        sampler: str,
        batch: Batch,
        subjects: Subjects,
        progress: Progress,
    ) -> Reference:
        """The reference on the noise and conditioning of `batch`."""
        key = (model.digest, plan.digest(), sampler, batch.noise.tobytes(), subjects.digest())
        if key not in self._found:
            progress.stage(f"{model.name}: {len(batch.noise)} images, reference")
            denoiser = subjects.guided(TorchDenoiser(model.unet))
            trajectory = record(plan, denoiser, batch, None, REFERENCE_BATCH, progress)
            parity = sampler_parity(sampler, model, plan, denoiser, batch)
            self._found[key] = Reference(trajectory, parity)
        return self._found[key]


def strip_steps(plan: SamplingPlan) -> tuple[int, ...]:
    """Step indices shown in film strips: evenly spread, first and last included."""
    return tuple(sorted(set(np.linspace(0, plan.steps - 1, STRIP_STEPS).round().astype(int).tolist())))


def record(
    plan: SamplingPlan,
    denoiser: Denoiser,
    batch: Batch,
    correction: Correction | None,
    chunk: int,
    progress: Progress,
) -> Trajectory:
    """Run the batch, `chunk` samples at a time; only the first STRIP_SAMPLES strips are kept."""
    parts = []
    for start in range(0, len(batch.noise), chunk):
        piece = batch.rows(slice(start, start + chunk))
        recorder = _Recorder(strip_steps(plan))
        parts.append(recorder.finish(run(plan, denoiser, piece, correction, recorder)))
        progress.advance(min(start + chunk, len(batch.noise)), len(batch.noise))
    return Trajectory(
        np.concatenate([p.samples for p in parts]), np.concatenate([p.strips for p in parts])[:STRIP_SAMPLES]
    )


@dataclass
class _Recorder:
    """Collects a run's trajectory through the device loop's on_step."""

    strip_steps: tuple[int, ...]
    samples: list[np.ndarray] = field(default_factory=list)
    strips: list[np.ndarray] = field(default_factory=list)

    def __call__(self, i: int, x: np.ndarray, _m: np.ndarray, y: np.ndarray) -> None:
        if i > 0:
            self.samples.append(x)
        if i in self.strip_steps:
            self.strips.append(np.clip(y, -1, 1))

    def finish(self, last: np.ndarray) -> Trajectory:
        return Trajectory(np.stack([*self.samples, last], 1), np.stack(self.strips, 1))


def sampler_parity(sampler: str, model: DiffusionModel, plan: SamplingPlan, reference: Denoiser, batch: Batch) -> float:
    """Largest absolute difference of a step between the device loop and diffusers' own scheduler, float32.

    Along whole trajectories of the reference network under the diffusers scheduler; at each step both
    get the same sample, model output and fresh noise, and keep their own histories. Differences are in
    units of what the network sees: samples whose noise has a standard deviation of sigma are divided by
    sqrt(sigma^2 + 1), as the scheduler does before the network.
    """
    few = batch.rows(slice(0, PARITY_SAMPLES))
    scheduler, _ = make_scheduler(sampler, model.scheduler_config)
    run = run_of(plan, scheduler, dtype=torch.float32)
    x = few.noise * np.float32(run.scheduler.init_noise_sigma)
    history: list[np.ndarray] = []
    worst = 0.0
    for i in range(plan.steps):
        seen = run.network_input(i, x)
        output = reference(seen, float(run.timestep[i]), **few.conditioning)
        step = run.step(i, x, output)
        ours, converted = advance(plan, i, x, output, history, lambda _, fresh=step.noise: fresh)
        history = [converted, *history][: plan.history]
        worst = max(
            worst,
            float(np.abs(plan.input_scale[i] * x - seen).max()),
            float(np.abs(ours - step.after).max() * plan.input_scale[i]),
        )
        x = step.after
    return worst
