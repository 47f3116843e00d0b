"""How near the device loop comes to a scheduler of diffusers, on whole trajectories with a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import torch

from correction import Denoiser, SamplingPlan, sample
from correction.loop import advance
from correction.probe import FIT_TOLERANCE, Array, Steps, probe
from correction.schedulers import compile_plan, run_of

SHAPE = (2, 3, 8, 8)
BOUND = 1e-5  # of errors in float32 where rounding alone is not more
ROUNDINGS = 8  # otherwise: so many times what rounding alone does
EXACT_BOUND = 1e-7  # in float64: terms below FIT_TOLERANCE are left out of the table, and amplified by about 157


@dataclass(frozen=True)
class Parity:
    """Largest absolute errors on the trajectory of one network, in units of the network's input (about [-4, 4]).

    Attributes:
        step: one float32 step, both with diffusers' sample, model output and fresh noise, and their own history.
        loop: the trajectory in float32 with the network in the loop.
        own_loop: the same, diffusers in float32 against diffusers in float64: what rounding alone does.
        exact: the trajectory in float64 with the model outputs that diffusers' float32 run had.
        recorded: the trajectory in float32 with these model outputs.
        own_recorded: the same, diffusers in float32 against diffusers in float64.
        terms: the largest term that a step adds up.
    """

    step: float
    loop: float
    own_loop: float
    exact: float
    recorded: float
    own_recorded: float
    terms: float

    def holds(self) -> bool:
        """Whether the plan is the scheduler, and the device loop as near to it as float32 lets either come."""
        near = self.loop <= ROUNDINGS * max(BOUND, self.own_loop, self.terms * 2.0**-24)
        return near and self.exact <= max(EXACT_BOUND, FIT_TOLERANCE * self.terms)


def worst(found: Sequence[Parity]) -> Parity:
    """The largest of each figure."""
    return Parity(*(max(figures) for figures in zip(*map(astuple, found), strict=True)))


def measure(scheduler: Any, steps: Steps, eta: float = 0.0) -> tuple[SamplingPlan, Parity]:
    """The plan of a scheduler as configured, and its parity; errors as `compile_plan`."""
    plan = compile_plan(scheduler, steps, eta)
    noise = np.random.default_rng(plan.steps).standard_normal(SHAPE).astype(np.float32)
    single = diffusers_trajectory(plan, scheduler, noise, torch.float32)
    double = diffusers_trajectory(plan, scheduler, noise, torch.float64)
    recorded = diffusers_trajectory(plan, scheduler, noise, torch.float64, single.outputs)
    unit = np.append(plan.input_scale, 1.0)[:, None, None, None, None].astype(np.float64)

    def difference(a: Array, b: Array) -> float:
        return float(np.abs((a - b) * unit).max())

    replies = iter(single.outputs)
    network = Network(scheduler, plan.prediction_type)
    columns = probe(scheduler, steps, eta)
    return plan, Parity(
        step=difference(stepped_samples(plan, single), single.samples),
        loop=difference(loop_samples(plan, network, single), single.samples),
        own_loop=difference(single.samples, double.samples),
        exact=difference(double_samples(columns, single), recorded.samples),
        recorded=difference(loop_samples(plan, lambda x, t: next(replies), single), single.samples),
        own_recorded=difference(single.samples, recorded.samples),
        terms=float((largest_terms(plan, single) * unit.reshape(-1)).max()),
    )


@dataclass(frozen=True)
class Network:
    """Predicts a squashed copy of its input as the clean image, in the terms of a scheduler's own noise levels."""

    scheduler: Any
    prediction_type: str

    def __call__(self, sample: np.ndarray, timestep: float, /, **conditioning: Any) -> np.ndarray:
        levels = self.scheduler.alphas_cumprod
        alpha = float(levels[min(round(timestep), len(levels) - 1)].clip(1e-6, 1 - 1e-6))
        x0 = 0.9 * np.tanh(sample / (np.sqrt(alpha) + 0.5))
        epsilon = (sample - np.sqrt(alpha) * x0) / np.sqrt(1 - alpha)
        v = np.sqrt(alpha) * epsilon - np.sqrt(1 - alpha) * x0
        return {"epsilon": epsilon, "sample": x0, "v_prediction": v}[self.prediction_type].astype(np.float32)


@dataclass(frozen=True)
class Trajectory:
    """samples: [N + 1, ...] float64, from the first to the last; outputs and fresh noise: a float32 array a row."""

    samples: Array
    outputs: list[np.ndarray]
    fresh: list[np.ndarray]


def diffusers_trajectory(
    plan: SamplingPlan, scheduler: Any, noise: np.ndarray, dtype: torch.dtype, outputs: list[np.ndarray] | None = None
) -> Trajectory:
    """The trajectory of diffusers itself, with a Network or the outputs given."""
    run = run_of(plan, scheduler, dtype=dtype)
    network = Network(scheduler, plan.prediction_type)
    x = np.float32(plan.init_sigma) * noise
    samples, said, fresh = [x.astype(np.float64)], [], []
    for i in range(plan.steps):
        m = network(run.network_input(i, x), float(run.timestep[i])) if outputs is None else outputs[i]
        stepped = run.step(i, x, m)
        x = stepped.after
        samples.append(x.astype(np.float64))
        said.append(m)
        fresh.append(stepped.noise.astype(np.float32))
    return Trajectory(np.stack(samples), said, fresh)


def loop_samples(plan: SamplingPlan, denoiser: Denoiser, like: Trajectory) -> Array:
    """Samples [N + 1, ...] of the device loop, with the first sample and the fresh noise of `like`."""
    noise = (like.samples[0] / plan.init_sigma).astype(np.float32)
    samples: list[np.ndarray] = []
    last = sample(
        plan, denoiser, noise, step_noise=lambda i: like.fresh[i], on_step=lambda i, x, m, y: samples.append(x)
    )
    return np.stack([*samples, last]).astype(np.float64)


def stepped_samples(plan: SamplingPlan, given: Trajectory) -> Array:
    """Samples [N + 1, ...], each one float32 step from the sample before it in `given`."""
    history: list[np.ndarray] = []
    after = [given.samples[0]]
    for i, m in enumerate(given.outputs):
        x, y = advance(plan, i, given.samples[i].astype(np.float32), m, history, lambda i: given.fresh[i])
        after.append(x.astype(np.float64))
        history = [y, *history]
    return np.stack(after)


def largest_terms(plan: SamplingPlan, given: Trajectory) -> Array:
    """[N + 1]: the largest term of the sum that gives each sample; of the first, the sample itself."""
    terms = [float(np.abs(given.samples[0]).max())]
    ys: list[float] = []
    for i, m in enumerate(given.outputs):
        in_x, in_m = float(np.abs(given.samples[i]).max()), float(np.abs(m).max())
        ys.insert(0, max(abs(plan.p[i]) * in_x, abs(plan.q[i]) * in_m))
        past = (abs(weight) * y for weight, y in zip(plan.w[i], ys, strict=False))
        terms.append(float(max(abs(plan.a[i]) * in_x, abs(plan.b[i]) * in_m, *past)))
    return np.array(terms)


def double_samples(columns: Mapping[str, Array], given: Trajectory) -> Array:
    """The loop of docs/correction-format.md in float64, on columns not rounded to float32: samples [N + 1, ...]."""
    x = given.samples[0]
    samples, ys = [x], []
    for i, m in enumerate(given.outputs):
        row = {name: column[i] for name, column in columns.items()}
        y = row["p"] * x + row["q"] * m.astype(np.float64)
        ys.insert(0, np.clip(y, -row["clip"], row["clip"]) if row["clip"] > 0 else y)
        x = row["a"] * x + row["b"] * m.astype(np.float64) + row["sigma"] * given.fresh[i]
        x = x + sum(weight * past for weight, past in zip(row["w"], ys, strict=False))
        samples.append(x)
    return np.stack(samples)
