"""Schedulers of diffusers, compiled to sampling plans, and samplers by name.

`correction.probe` finds the table of a scheduler; here the plan is made of it, rounded to float32, and proven by
replaying random trajectories against the scheduler. A scheduler that does not have the form fails and is refused.
docs/schedulers.md lists every scheduler of diffusers with the outcome.
"""

from __future__ import annotations

import inspect
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import diffusers
import numpy as np

from correction.errors import NotLinearError, TableError, UsageError
from correction.plan import MAX_STEPS, PREDICTION_TYPES, SamplingPlan
from correction.probe import Array, SchedulerRun, Steps, probe

PROOF_TOLERANCE = 1e-6  # about 16 float32 roundings of the terms of a step
SPACINGS = ("trailing", "leading", "linspace")


@dataclass(frozen=True)
class Sampler:
    """A named sampler: a scheduler class of diffusers, the settings that it adds to the model's own, and eta."""

    scheduler: str
    settings: Mapping[str, Any]
    eta: float
    about: str


def _dpm(order: int, algorithm: str = "dpmsolver++") -> dict[str, Any]:
    return {"algorithm_type": algorithm, "solver_order": order, "solver_type": "midpoint"}


SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "ddim": Sampler("DDIMScheduler", {}, 0.0, "DDIM, eta 0: deterministic"),
        "ddim-eta1": Sampler("DDIMScheduler", {}, 1.0, "DDIM, eta 1: DDPM's noise on a subset of the timesteps"),
        "ddpm": Sampler("DDPMScheduler", {}, 0.0, "DDPM, ancestral"),
        "euler": Sampler("EulerDiscreteScheduler", {}, 0.0, "Euler, deterministic"),
        "euler-a": Sampler("EulerAncestralDiscreteScheduler", {}, 0.0, "Euler, ancestral"),
        "heun": Sampler("HeunDiscreteScheduler", {}, 0.0, "Heun: 2 N - 1 rows, two calls per timestep"),
        "kdpm2": Sampler("KDPM2DiscreteScheduler", {}, 0.0, "KDPM2: 2 N - 1 rows, a midpoint between timesteps"),
        "lms": Sampler("LMSDiscreteScheduler", {}, 0.0, "linear multistep, order 4"),
        "pndm": Sampler("PNDMScheduler", {"skip_prk_steps": True}, 0.0, "PLMS: N + 1 rows, the second timestep twice"),
        "dpmpp-2m": Sampler("DPMSolverMultistepScheduler", _dpm(2), 0.0, "DPM-Solver++ 2M, deterministic"),
        "dpmpp-3m": Sampler("DPMSolverMultistepScheduler", _dpm(3), 0.0, "DPM-Solver++ 3M, deterministic"),
        "dpmpp-2m-sde": Sampler(
            "DPMSolverMultistepScheduler", _dpm(2, "sde-dpmsolver++"), 0.0, "DPM-Solver++ 2M with fresh noise"
        ),
        "dpmpp-2s": Sampler("DPMSolverSinglestepScheduler", _dpm(2), 0.0, "DPM-Solver++ 2S: steps in pairs"),
        "deis": Sampler("DEISMultistepScheduler", {"solver_order": 2}, 0.0, "DEIS, order 2"),
        "unipc": Sampler("UniPCMultistepScheduler", {"solver_order": 2}, 0.0, "UniPC, order 2, with its corrector"),
        "sa-solver": Sampler("SASolverScheduler", {}, 0.0, "SA-Solver, predictor and corrector of order 2, with noise"),
        "lcm": Sampler("LCMScheduler", {}, 0.0, "LCM, for consistency models, few steps"),
        "tcd": Sampler("TCDScheduler", {}, 0.3, "TCD, eta 0.3, for consistency models, few steps"),
    }
)


def make_plan(
    name: str, scheduler_config: Mapping[str, Any], steps: Steps, spacing: str | None = "trailing"
) -> SamplingPlan:
    """The plan of a named sampler for a model's scheduler configuration.

    Args:
        name: a key of SAMPLERS.
        scheduler_config: the model's own (betas, prediction type, clip ...), as saved by diffusers.
        steps: 1 .. min(num_train_timesteps, 4096), or the timesteps themselves (see `compile_plan`).
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
    if spacing is not None and spacing not in SPACINGS:
        raise UsageError(f"spacing must be {', '.join(SPACINGS)} or None, got {spacing!r}.")
    sampler = SAMPLERS[name]
    settings = dict(sampler.settings) | ({} if spacing is None else {"timestep_spacing": spacing})
    kind = getattr(diffusers, sampler.scheduler)
    try:
        scheduler = kind.from_config({k: v for k, v in scheduler_config.items() if k not in settings}, **settings)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise UsageError(f"{sampler.scheduler} refuses the scheduler configuration: {error}") from error
    return scheduler, sampler.eta


def compile_plan(scheduler: Any, steps: Steps, eta: float = 0.0) -> SamplingPlan:
    """Compiles a diffusers scheduler, as configured, to a plan, and proves it by replay.

    The plan has a row for each call of the network: N for most schedulers, more for those that call it several times
    per timestep. Its scheduler_config also holds "num_inference_steps" or "timesteps", and eta if it is not 0.

    Args:
        scheduler: a diffusers scheduler; it is copied, not changed.
        steps: 1 .. min(num_train_timesteps, 4096); or the timesteps, decreasing whole numbers, where the scheduler's
            set_timesteps takes them.
        eta: the noise level of DDIM and TCD, 0 .. 1; only schedulers whose step takes eta accept one other than 0.

    Raises:
        UsageError: steps or eta is out of range, or the scheduler refuses the steps.
        NotLinearError: the scheduler has no plan; the message names the class and the reason.
    """
    name = type(scheduler).__name__
    _check_kind(scheduler)
    _check_request(scheduler, steps, eta)
    run = SchedulerRun(scheduler, steps, eta)
    _check_timesteps(run.timestep, name)
    columns = probe(scheduler, steps, eta)
    config = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
    asked = {"num_inference_steps": steps} if isinstance(steps, int) else {"timesteps": list(steps)}
    try:
        plan = SamplingPlan(
            **{key: values.astype(np.float32) for key, values in columns.items()},
            init_sigma=float(run.scheduler.init_noise_sigma),
            prediction_type=config["prediction_type"],
            scheduler=name,
            scheduler_config=_json_values(config) | asked | ({"eta": eta} if eta else {}),
        )
    except TableError as refusal:
        raise NotLinearError(f"{name} has no plan with steps={steps!r}: {refusal}") from refusal
    error, step = replay_error(plan, scheduler)
    if not error <= PROOF_TOLERANCE:
        raise NotLinearError(
            f"{name} is not linear in the form of the device loop: replayed, it differs by {error:.2g} at step {step} "
            f"(allowed {PROOF_TOLERANCE:g})."
        )
    return plan


def replay_error(plan: SamplingPlan, scheduler: Any, seed: int = 1000) -> tuple[float, int]:
    """Largest error of one step of the plan along a random trajectory of the scheduler, and the step where it is.

    Both get the same sample, model output, earlier outputs and noise; the model output is drawn so that the converted
    output lies in [-1.5, 1.5] times the clip. Computed in float64 and divided by the size of the terms that the step
    adds up (by 1 where that is smaller): where alpha-bar is near 0, an epsilon network's x0 is a small difference of
    large terms, in diffusers as here, and only an error beyond that cancellation counts.
    """
    random = np.random.default_rng(seed)
    run = run_of(plan, scheduler, seed)
    p, q, a, b, w = (getattr(plan, name).astype(np.float64) for name in ("p", "q", "a", "b", "w"))
    worst, where = 0.0, 0
    x = plan.init_sigma * random.standard_normal((1, 1, 16, 16))
    ys: list[tuple[Array, float]] = []  # converted outputs and the size of their terms, newest first
    for i in range(plan.steps):
        bound = float(plan.clip[i])
        target = random.uniform(-1.5, 1.5, x.shape) * (bound or 1.0)
        m = (target - p[i] * x) / (q[i] or 1.0)
        y = p[i] * x + q[i] * m
        size = float((np.abs(p[i] * x) + np.abs(q[i] * m)).max())
        ys = [(np.clip(y, -bound, bound) if bound else y, size), *ys][: plan.history]
        stepped = run.step(i, x, m)
        own = a[i] * x + b[i] * m + float(plan.sigma[i]) * stepped.noise
        own = own + sum(w[i, j] * past for j, (past, _) in enumerate(ys))
        terms = float(np.abs(a[i] * x).max() + np.abs(b[i] * m).max())
        terms += sum(abs(float(w[i, j])) * size for j, (_, size) in enumerate(ys))
        error = float(np.abs(own - stepped.after).max()) / max(1.0, terms)
        error = max(error, abs(float(plan.input_scale[i] / run.input_scale[i]) - 1.0))
        if not error <= worst:
            worst, where = error, i
        x = stepped.after
    return worst, where


def run_of(plan: SamplingPlan, scheduler: Any, seed: int = 0, **options: Any) -> SchedulerRun:
    """A run of the scheduler that `plan` was compiled from, with the same steps and eta; options as SchedulerRun's."""
    config = plan.scheduler_config
    steps = config["timesteps"] if "timesteps" in config else config["num_inference_steps"]
    return SchedulerRun(scheduler, steps, config.get("eta", 0.0), seed=seed, **options)


def _check_kind(scheduler: Any) -> None:
    """Raises NotLinearError unless the scheduler is one of samples, model outputs and numbers."""
    name, config = type(scheduler).__name__, getattr(scheduler, "config", {})
    predicts = config.get("prediction_type")
    if predicts not in PREDICTION_TYPES:
        said = "has no prediction_type" if predicts is None else f"says {predicts!r}"
        raise NotLinearError(
            f"{name} cannot be compiled: networks of a plan predict {', '.join(PREDICTION_TYPES)}, but its "
            f"configuration {said}."
        )
    lacks = [need for need in ("init_noise_sigma", "scale_model_input") if not hasattr(scheduler, need)]
    if lacks:
        raise NotLinearError(f"{name} cannot be compiled: it has no {' and no '.join(lacks)}.")
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


def _check_request(scheduler: Any, steps: Steps, eta: float) -> None:
    name = type(scheduler).__name__
    limit = min(int(scheduler.config.get("num_train_timesteps", MAX_STEPS)), MAX_STEPS)
    if isinstance(steps, Sequence) and not isinstance(steps, str):
        if "timesteps" not in inspect.signature(scheduler.set_timesteps).parameters:
            raise UsageError(f"{name} takes no timesteps, only their number; got {steps!r}.")
        whole = all(isinstance(t, int) and not isinstance(t, bool) for t in steps)
        if not (whole and steps and all(a > b for a, b in itertools.pairwise(steps))):
            raise UsageError(f"timesteps must be decreasing whole numbers, got {steps!r}.")
    elif isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= limit:
        raise UsageError(f"steps must be a whole number in 1..{limit}, got {steps!r}.")
    if not 0.0 <= eta <= 1.0:
        raise UsageError(f"eta must be in 0..1, got {eta!r}.")
    if eta and "eta" not in inspect.signature(scheduler.step).parameters:
        raise UsageError(f"{name} takes no eta, got {eta!r}; use DDIMScheduler.")


def _check_timesteps(timestep: Array, name: str) -> None:
    """Raises before the work what SamplingPlan would refuse after it."""
    if len(timestep) > MAX_STEPS:
        raise UsageError(f"{name} calls the network {len(timestep)} times; a plan has at most {MAX_STEPS} rows.")
    if (np.diff(timestep) > 0).any():
        i = int(np.argmax(np.diff(timestep) > 0)) + 1
        raise NotLinearError(
            f"{name} has no plan: its timesteps must not increase, but step {i} has {timestep[i]:g} after "
            f"{timestep[i - 1]:g}."
        )
    if timestep.min() < 0:
        raise NotLinearError(f"{name} has no plan: its timesteps must be >= 0, got {timestep.min():g}.")


def _json_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as JSON values, sorted by key; infinities (lambda_min_clipped) become strings."""
    text = json.dumps(dict(config), sort_keys=True, default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v))
    values = json.loads(text)
    return {key: str(v) if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}
