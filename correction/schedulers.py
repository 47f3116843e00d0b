"""Schedulers of diffusers, compiled to sampling plans by probing.

A step of every usual scheduler is linear in the sample, the model output, a few earlier converted outputs and fresh
noise, but for a clip. So no formula is written here: the scheduler itself is stepped with unit impulses, the weights
are read off by least squares in float64, and the plan is then proven by replaying random trajectories against the
scheduler. A scheduler that does not have the form fails the proof and is refused.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from correction.errors import NotLinearError, UsageError
from correction.plan import MAX_HISTORY, MAX_STEPS, SamplingPlan

PROOF_TOLERANCE = 1e-6  # about 16 float32 roundings of the terms of a step
_Array = npt.NDArray[np.float64]
_SMALL = 2.0**-20  # an impulse far inside any clip; a power of two, so that scaling is exact
_LARGE = 2.0**40


@dataclass(frozen=True)
class Sampler:
    """A named sampler: a scheduler class, the settings that it adds to the model's own, and eta."""

    scheduler: Any
    settings: Mapping[str, Any]
    eta: float
    about: str


SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "ddim": Sampler(DDIMScheduler, {}, 0.0, "DDIM, eta 0: deterministic"),
        "ddim-eta1": Sampler(DDIMScheduler, {}, 1.0, "DDIM, eta 1: DDPM's noise on a subset of the timesteps"),
        "ddpm": Sampler(DDPMScheduler, {}, 0.0, "DDPM, ancestral"),
        "dpmpp-2m": Sampler(
            DPMSolverMultistepScheduler,
            {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"},
            0.0,
            "DPM-Solver++ 2M, deterministic",
        ),
    }
)


def make_plan(
    name: str, scheduler_config: Mapping[str, Any], steps: int, spacing: str | None = "trailing"
) -> SamplingPlan:
    """The plan of a named sampler for a model's scheduler configuration.

    Args:
        name: a key of SAMPLERS.
        scheduler_config: the model's own (betas, prediction type, clip ...), as saved by diffusers.
        steps: 1 .. min(num_train_timesteps, 4096).
        spacing: "trailing" (default), "leading", "linspace", or None for what the configuration says. A saved
            configuration always names a spacing, usually the training scheduler's unused default "leading", which for
            DDIM at 50 steps starts at timestep 980 of 999: the network is then told that pure noise is slightly clean.
            "trailing" starts at the last timestep (Lin et al., arXiv 2305.08891, section 3.3), which matters most
            at few steps, so it is the default here whatever was saved. Pass None to match a pipeline as it is.

    Raises:
        UsageError: the name is unknown, steps or spacing is out of range, or the configuration is refused.
        NotLinearError: the scheduler has no plan.
    """
    scheduler, eta = make_scheduler(name, scheduler_config, spacing)
    return compile_plan(scheduler, steps, eta)


def make_scheduler(
    name: str, scheduler_config: Mapping[str, Any], spacing: str | None = "trailing"
) -> tuple[Any, float]:
    """(diffusers scheduler, eta) of a named sampler; arguments and errors as in `make_plan`."""
    if name not in SAMPLERS:
        raise UsageError(f"unknown sampler {name!r}; there are {', '.join(sorted(SAMPLERS))}.")
    if spacing not in (None, "trailing", "leading", "linspace"):
        raise UsageError(f"spacing must be trailing, leading, linspace or None, got {spacing!r}.")
    sampler = SAMPLERS[name]
    settings = dict(sampler.settings) | ({} if spacing is None else {"timestep_spacing": spacing})
    try:
        scheduler = sampler.scheduler.from_config(dict(scheduler_config), **settings)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise UsageError(f"{sampler.scheduler.__name__} refuses the scheduler configuration: {error}") from error
    return scheduler, sampler.eta


def compile_plan(scheduler: Any, steps: int, eta: float = 0.0) -> SamplingPlan:
    """Compiles a diffusers scheduler, as configured, to a plan of `steps` steps, and proves it by replay.

    Where y is clipped, the three weights a, b and w[:, 0] are told apart by probing on both sides of the clip. Where
    it is not, they are not unique: one-step schedulers get w[:, 0] = 0, multistep ones b = 0.

    Args:
        scheduler: a diffusers scheduler; it is copied, not changed.
        steps: 1 .. min(num_train_timesteps, 4096).
        eta: DDIM's noise level, 0 .. 1; only schedulers whose step takes eta accept one other than 0.

    Raises:
        UsageError: steps or eta is out of range.
        NotLinearError: dynamic thresholding, learned variance, or the replay differs by more than rounding.
    """
    name = type(scheduler).__name__
    _check_request(scheduler, steps, eta)
    probe = _Probe(scheduler, steps, eta)
    p, q, clip = _converted(probe)
    columns = {"p": p, "q": q, "clip": clip, **_updates(probe, p, q, clip)}
    config = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
    plan = SamplingPlan(
        timestep=probe.timestep,
        input_scale=probe.input_scale,
        **{key: values.astype(np.float32) for key, values in columns.items()},
        init_sigma=float(probe.scheduler.init_noise_sigma),
        prediction_type=config.get("prediction_type", "epsilon"),
        scheduler=name,
        scheduler_config=_json_values(config) | ({"eta": eta} if eta else {}),
    )
    error, step = replay_error(plan, scheduler, eta)
    if not error <= PROOF_TOLERANCE:
        raise NotLinearError(
            f"{name} is not linear in the form of the device loop: replayed, it differs by {error:.2g} at step {step} "
            f"(allowed {PROOF_TOLERANCE:g})."
        )
    return plan


def replay_error(plan: SamplingPlan, scheduler: Any, eta: float = 0.0, seed: int = 0) -> tuple[float, int]:
    """Largest error of one step of the plan along a random trajectory of the scheduler, and the step where it is.

    Both get the same sample, model output, earlier outputs and noise; the model output is drawn so that the converted
    output lies in [-1.5, 1.5] times the clip. Computed in float64 and divided by the size of the terms that the step
    adds up (by 1 where that is smaller): where alpha-bar is near 0, an epsilon network's x0 is a small difference of
    large terms, in diffusers as here, and only an error beyond that cancellation counts.
    """
    random = np.random.default_rng(seed)
    probe = _Probe(scheduler, plan.steps, eta)
    p, q, a, b, w = (getattr(plan, name).astype(np.float64) for name in ("p", "q", "a", "b", "w"))
    worst, where = 0.0, 0
    x = plan.init_sigma * random.standard_normal((1, 1, 16, 16))
    ys: list[tuple[_Array, float]] = []  # converted outputs and the size of their terms, newest first
    for i in range(plan.steps):
        bound = float(plan.clip[i])
        target = random.uniform(-1.5, 1.5, x.shape) * (bound or 1.0)
        m = (target - p[i] * x) / (q[i] or 1.0)
        y = p[i] * x + q[i] * m
        size = float((np.abs(p[i] * x) + np.abs(q[i] * m)).max())
        ys = [(np.clip(y, -bound, bound) if bound else y, size), *ys][: plan.history]
        after, _, z = probe.step(i, x, m)
        own = a[i] * x + b[i] * m + float(plan.sigma[i]) * z + sum(w[i, j] * past for j, (past, _) in enumerate(ys))
        terms = float(np.abs(a[i] * x).max() + np.abs(b[i] * m).max())
        terms += sum(abs(float(w[i, j])) * size for j, (_, size) in enumerate(ys))
        error = float(np.abs(own - after).max()) / max(1.0, terms)
        error = max(error, abs(float(plan.input_scale[i] / probe.input_scale[i]) - 1.0))
        if not error <= worst:
            worst, where = error, i
        x = after
    return worst, where


def _check_request(scheduler: Any, steps: int, eta: float) -> None:
    name, config = type(scheduler).__name__, scheduler.config
    limit = min(int(config.get("num_train_timesteps", MAX_STEPS)), MAX_STEPS)
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= limit:
        raise UsageError(f"steps must be a whole number in 1..{limit}, got {steps!r}.")
    if not 0.0 <= eta <= 1.0:
        raise UsageError(f"eta must be in 0..1, got {eta!r}.")
    if eta and "eta" not in inspect.signature(scheduler.step).parameters:
        raise UsageError(f"{name} takes no eta, got {eta!r}; use DDIMScheduler.")
    if config.get("thresholding"):
        raise NotLinearError(
            f"{name} with thresholding=True cannot be compiled: dynamic thresholding scales each image by its own "
            f"quantile, which is not linear. Set thresholding=False (clip_sample=True is fine)."
        )
    if str(config.get("variance_type", "")).startswith("learned"):
        raise NotLinearError(
            f"{name} with variance_type={config['variance_type']!r} cannot be compiled: the noise level is a network "
            f"output, not a number per step. Use variance_type='fixed_small'."
        )


class _Probe:
    """A private copy of a scheduler, stepped on numpy arrays; tells the noise that each step drew."""

    def __init__(self, scheduler: Any, steps: int, eta: float, dtype: torch.dtype = torch.float64) -> None:
        self.scheduler = copy.deepcopy(scheduler)
        self.scheduler.set_timesteps(steps)
        self.times = self.scheduler.timesteps
        self.dtype = dtype
        self.timestep = np.array([float(t) for t in self.times], np.float32)
        self._steps = steps
        self._takes = inspect.signature(scheduler.step).parameters
        self._options: dict[str, Any] = {"eta": eta} if "eta" in self._takes else {}
        self.input_scale = np.ones(len(self.times), np.float32)  # filled in by step: it may depend on the steps before
        self.restart()

    def restart(self) -> None:
        """Back to the first step, with the same noise to come."""
        self.scheduler.set_timesteps(self._steps)
        self._generator = torch.Generator().manual_seed(0)

    def step(self, i: int, x: npt.NDArray[Any], m: npt.NDArray[Any]) -> tuple[_Array, _Array, _Array]:
        """(next sample, converted output, noise) of step i; all have the shape of x."""
        twin = torch.Generator()
        twin.set_state(self._generator.get_state())
        z = torch.randn(x.shape, generator=twin, dtype=self.dtype)
        options = dict(self._options)
        if "variance_noise" in self._takes:
            options["variance_noise"] = z
            self._generator = twin
        elif "generator" in self._takes:
            options["generator"] = self._generator
        sample, output = (torch.as_tensor(v).to(self.dtype) for v in (x, m))
        if hasattr(self.scheduler, "scale_model_input"):
            one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
            self.input_scale[i] = float(self.scheduler.scale_model_input(one, self.times[i]))
        try:
            result = self.scheduler.step(output, self.times[i], sample, **options)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise NotLinearError(f"{type(self.scheduler).__name__} cannot be probed: {error}") from error
        converted = self._converted(result)
        return (result.prev_sample.double().numpy(), converted.double().numpy(), z.double().numpy())

    def _converted(self, result: Any) -> torch.Tensor:
        outputs = getattr(self.scheduler, "model_outputs", None)  # the multistep solvers' own history
        if outputs:
            return outputs[-1]
        converted = getattr(result, "pred_original_sample", None)
        if converted is None:
            raise NotLinearError(
                f"{type(self.scheduler).__name__} shows neither pred_original_sample nor model_outputs, so its "
                f"converted output cannot be read."
            )
        return converted

    @property
    def lags(self) -> int:
        """How many converted outputs a step may use, the current one included."""
        return min(max(1, len(getattr(self.scheduler, "model_outputs", None) or ())), MAX_HISTORY)


def _converted(probe: _Probe) -> tuple[_Array, _Array, _Array]:
    """Columns p, q and clip, each [N]: from impulses inside the clip and one far outside it."""
    x = np.array([_SMALL, 0.0, 0.0]).reshape(1, 1, 1, 3)
    m = np.array([0.0, _SMALL, _LARGE]).reshape(1, 1, 1, 3)
    y = np.stack([probe.step(i, x, m)[1].reshape(3) for i in range(len(probe.times))])  # [N, 3]
    p, q = y[:, 0] / _SMALL, y[:, 1] / _SMALL
    clipped = np.abs(y[:, 2]) < 0.5 * np.abs(q) * _LARGE
    return p, q, np.where(clipped, np.abs(y[:, 2]), 0.0)


def _updates(probe: _Probe, p: _Array, q: _Array, clip: _Array) -> dict[str, _Array]:
    """Columns a, b, w and sigma: impulses on every probe element, one step in `lags`, then least squares per step."""
    steps, lags = len(p), probe.lags
    bounded = bool((clip > 0).any())
    unit = _SMALL if bounded else 1.0
    kinds = 3 if bounded else 2  # impulse in x, in m, and in m beyond the clip
    x_in = np.zeros((steps, lags * kinds))  # [N, E]
    m_in = np.zeros((steps, lags * kinds))
    for i in range(steps):
        first = (i % lags) * kinds
        x_in[i, first] = unit
        m_in[i, first + 1] = unit
        if bounded:
            m_in[i, first + 2] = 2.0 * clip[i] / abs(q[i]) if q[i] else unit
    quiet, _, z = _walk(probe, np.zeros_like(x_in), np.zeros_like(x_in))
    after, y, _ = _walk(probe, x_in, m_in)
    after = after - quiet
    keep_a_b = bounded or lags == 1
    result = {"a": np.zeros(steps), "b": np.zeros(steps), "w": np.zeros((steps, lags)), "sigma": np.zeros(steps)}
    for i in range(steps):
        known = [x_in[i]] + ([m_in[i]] if keep_a_b else [])
        current = 0 if clip[i] > 0 or not keep_a_b else 1
        past = [y[i - j] for j in range(current, min(lags, i + 1))]
        design = np.stack(known + past, axis=1)  # [E, unknowns]
        scale = np.abs(design).max(axis=0)
        scale[scale == 0] = 1.0
        weights = np.linalg.lstsq(design / scale, after[i], rcond=None)[0] / scale
        result["a"][i] = weights[0]
        result["b"][i] = weights[1] if keep_a_b else 0.0
        result["w"][i, current : min(lags, i + 1)] = weights[len(known) :]
        result["sigma"][i] = (z[i] @ quiet[i]) / (z[i] @ z[i])
    tiny = 1e-9  # far below float32 resolution of any weight that matters; makes absent terms exactly absent
    for name in ("b", "w", "sigma"):
        result[name][np.abs(result[name]) < tiny] = 0.0
    used = max([j + 1 for j in range(lags) if result["w"][:, j].any()], default=1)
    result["w"] = result["w"][:, :used]
    return result


def _walk(probe: _Probe, x_in: _Array, m_in: _Array) -> tuple[_Array, _Array, _Array]:
    """Steps through with the given samples and outputs; next samples, converted outputs and noise, each [N, E]."""
    probe.restart()
    rows = [
        probe.step(i, x[None, None, None], m[None, None, None]) for i, (x, m) in enumerate(zip(x_in, m_in, strict=True))
    ]
    after, y, z = (np.stack(part).reshape(x_in.shape) for part in zip(*rows, strict=True))
    return after, y, z


def _json_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as JSON values, sorted by key; infinities (lambda_min_clipped) become strings."""
    text = json.dumps(dict(config), sort_keys=True, default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v))
    values = json.loads(text)
    return {key: str(v) if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}
