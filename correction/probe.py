"""A scheduler of diffusers, probed: its steps as the numbers of the device loop, in float64.

A step of every usual scheduler is linear in the sample, the model output, a few earlier converted outputs and fresh
noise, but for a clip. So no formula is written here. The scheduler is stepped along random trajectories of many
independent elements, and the weights of each step are solved from what it returned. States that a scheduler hides (the
sample before a second stage, the sample before a corrector) need no column of their own: each step is invertible, so
they are linear in the present sample and earlier converted outputs.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.overrides import TorchFunctionMode

from correction.errors import NotLinearError, UsageError
from correction.plan import MAX_HISTORY

Steps = int | Sequence[int]  # a number of steps, or the timesteps themselves
Array = npt.NDArray[np.float64]

ELEMENTS = 48  # of the random trajectories: four times the most unknowns that a step has
FIT_TOLERANCE = 1e-9  # of a step in float64, relative to its terms; a term that adds less is left out
_SMALL = 2.0**-20  # an impulse far inside any clip; a power of two, so that scaling is exact
_LARGE = 2.0**40  # far outside any clip
_MOST = 1e6  # weight in a converted output; beyond it the output is all rounding

# What a scheduler may keep of the model's outputs for later steps, in the order tried: the first with which every step
# is linear is the plan's converted output. "model output" is the output itself.
_READINGS: Mapping[str, Callable[[Any, Any, torch.Tensor], Any]] = {
    "model_outputs": lambda scheduler, result, output: _last(scheduler, "model_outputs"),
    "pred_original_sample": lambda scheduler, result, output: getattr(result, "pred_original_sample", None),
    "denoised": lambda scheduler, result, output: getattr(result, "denoised", None),
    "derivatives": lambda scheduler, result, output: _last(scheduler, "derivatives"),
    "model output": lambda scheduler, result, output: output,
}


@dataclass(frozen=True)
class Stepped:
    """One step of a scheduler: the next sample, the unit-normal noise that it drew or would draw, and what it kept."""

    after: npt.NDArray[Any]
    noise: npt.NDArray[Any]
    kept: Mapping[str, Array]


class SchedulerRun:
    """One run of a private copy of a scheduler, on numpy arrays, that tells the noise of each step.

    Step i draws its noise from a generator seeded with `seed + i`, the same numbers in float32 and float64. In float64
    the samples stay float64 also where the scheduler would round them to float32 (Euler does).

    Args:
        scheduler: a diffusers scheduler, not changed.
        steps: how many, or the timesteps, decreasing, for a scheduler whose set_timesteps takes them.
        eta: passed to `step` where it takes one.

    Attributes:
        scheduler: the copy. times: its timesteps, one a row. timestep: [N] the same as float64.
        input_scale: [N] factor on the sample before the network, 1 until the step is made.

    Raises:
        UsageError: the scheduler refuses the number of steps or the timesteps.
    """

    def __init__(
        self, scheduler: Any, steps: Steps, eta: float = 0.0, dtype: torch.dtype = torch.float64, seed: int = 0
    ) -> None:
        self._name = type(scheduler).__name__
        self.scheduler = copy.deepcopy(scheduler)
        try:
            if isinstance(steps, int):
                self.scheduler.set_timesteps(steps)
            else:
                self.scheduler.set_timesteps(timesteps=list(steps))
        except Exception as error:  # foreign code: whatever it raises is its answer to these steps
            raise UsageError(f"{self._name} refuses steps={steps!r}: {str(error) or repr(error)}") from error
        self.times = self.scheduler.timesteps
        self.timestep: Array = np.array([float(t) for t in self.times])
        self.input_scale = np.ones(len(self.times))
        self._dtype, self._seed = dtype, seed
        self._takes = inspect.signature(scheduler.step).parameters
        self._options: dict[str, Any] = {"eta": eta} if "eta" in self._takes else {}

    def network_input(self, i: int, sample: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What the network sees at step i for the sample, both (B, C, H, W)."""
        scaled: npt.NDArray[Any] = self.scheduler.scale_model_input(torch.from_numpy(sample), self.times[i]).numpy()
        return scaled

    def step(self, i: int, sample: npt.NDArray[Any], output: npt.NDArray[Any]) -> Stepped:
        """Step i, to be called in order, for arrays (B, C, H, W); raises NotLinearError if the scheduler cannot."""
        z = torch.randn(sample.shape, generator=self._generator(i)).to(self._dtype)
        options = dict(self._options)
        if "variance_noise" in self._takes:
            options["variance_noise"] = z.clone()
        elif "generator" in self._takes:
            options["generator"] = self._generator(i)
        x, m = (torch.as_tensor(v).to(self._dtype) for v in (sample, output))
        try:
            one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
            self.input_scale[i] = float(self.scheduler.scale_model_input(one, self.times[i]))
            with _Float64():
                result = self.scheduler.step(m, self.times[i], x, **options)
            kept = {name: read(self.scheduler, result, m) for name, read in _READINGS.items()}
            after = result.prev_sample.numpy()
        except Exception as error:  # foreign code: whatever it raises is the reason
            said = str(error) or repr(error)
            raise NotLinearError(f"{self._name} cannot be stepped from sample and model output: {said}") from error
        return Stepped(after, z.numpy(), {k: v.double().numpy() for k, v in kept.items() if v is not None})

    def _generator(self, i: int) -> torch.Generator:
        return torch.Generator().manual_seed(self._seed + i)


@dataclass(frozen=True)
class Conversion:
    """y = p x + q m, clipped to [-clip, clip] where clip > 0; all [N] float64."""

    p: Array
    q: Array
    clip: Array

    def of(self, i: int, x: Array, m: Array) -> Array:
        """The converted output of step i."""
        y = self.p[i] * x + self.q[i] * m
        return np.clip(y, -self.clip[i], self.clip[i]) if self.clip[i] > 0 else y

    def giving(self, i: int, y: Array, x: Array) -> Array:
        """The model output with which step i converts x to y; y itself where y does not depend on it."""
        return (y - self.p[i] * x) / self.q[i] if self.q[i] else y


def probe(scheduler: Any, steps: Steps, eta: float = 0.0) -> dict[str, Array]:
    """The columns of a plan, in float64: all of `plan.COLUMNS` and "w" [N, H].

    Where y is clipped, the weights a, b and w[:, 0] are told apart by elements on both sides of the clip. Where it is
    not, they are not unique: one-step schedulers get w[:, 0] = 0, multistep ones b = 0.

    Raises:
        UsageError: the scheduler refuses the steps.
        NotLinearError: no weights give the steps of the scheduler.
    """
    run = SchedulerRun(scheduler, steps, eta)
    conversions = _conversions(run)
    walk = _walk(SchedulerRun(scheduler, steps, eta), next(iter(conversions.values())))
    known = {"timestep": run.timestep, "input_scale": run.input_scale}
    for lags in (0, MAX_HISTORY):
        solved = [(_solve(walk, conversion, lags), conversion) for conversion in conversions.values()]
        fits = [(columns, conversion) for (columns, error, _), conversion in solved if error <= FIT_TOLERANCE]
        if fits:
            columns, conversion = min(fits, key=lambda fit: fit[0]["w"].shape[1])  # the shortest history
            return known | {"p": conversion.p, "q": conversion.q, "clip": conversion.clip} | columns
    error, step = min((error, step) for (_, error, step), _ in solved)
    raise NotLinearError(
        f"{type(scheduler).__name__} is not linear in the form of the device loop: with up to {MAX_HISTORY} converted "
        f"outputs, step {step} differs by {error:.2g} of its terms (allowed {FIT_TOLERANCE:g})."
    )


def _conversions(run: SchedulerRun) -> dict[str, Conversion]:
    """How each reading comes from sample and model output: from impulses inside any clip and far outside it.

    A reading may be linear beyond its clip, as LCM's c_skip * x + c_out * clip(x0); y is what remains without that.
    """
    x = np.array([_SMALL, 0.0, 0.0, 0.0, 1.0]).reshape(1, 1, 1, 5)
    m = np.array([0.0, _SMALL, _LARGE, 2 * _LARGE, _LARGE]).reshape(1, 1, 1, 5)
    stepped = [run.step(i, x, m).kept for i in range(len(run.times))]
    found = {}
    for name in _READINGS:
        if not all(name in kept for kept in stepped):
            continue
        in_x, in_m, far, farther, far_in_x = np.stack([kept[name].reshape(5) for kept in stepped], axis=1)
        p, q, outer_q = in_x / _SMALL, in_m / _SMALL, (farther - far) / _LARGE
        clipped = np.abs(outer_q - q) > 1e-3 * np.abs(q)
        outer_q, outer_p = np.where(clipped, outer_q, 0.0), np.where(clipped, far_in_x - far, 0.0)
        clip = np.where(clipped, np.abs(far - outer_q * _LARGE), 0.0)
        conversion = Conversion(p - outer_p, q - outer_q, clip)
        weights = np.abs(conversion.p) + np.abs(conversion.q)  # not finite where the scheduler divides by zero
        if not (weights < _MOST).all():
            i = int(np.argmin(weights < _MOST))
            raise NotLinearError(
                f"{type(run.scheduler).__name__} divides by (almost) zero at step {i}, timestep {run.timestep[i]:g}: "
                f"the weights of its converted output add up to {weights[i]:.2g}, allowed are {_MOST:g}. An epsilon "
                f"network says nothing at zero terminal SNR: use v_prediction or sample, or "
                f"rescale_betas_zero_snr=False."
            )
        found[name] = conversion
    return found


@dataclass(frozen=True)
class _Walk:
    """Random trajectories of ELEMENTS elements: samples, model outputs, next samples and noise, each [N, E]."""

    x: Array
    m: Array
    after: Array
    z: Array


def _walk(run: SchedulerRun, conversion: Conversion) -> _Walk:
    """Whole trajectories, each step from where the last one led, so that hidden states are those of a real run.

    Model outputs are drawn so that converted outputs lie in [-1.5, 1.5] times the clip, or times 1.
    """
    random = np.random.default_rng(1)
    x = float(run.scheduler.init_noise_sigma) * random.standard_normal(ELEMENTS)
    rows: list[tuple[Array, ...]] = []
    for i in range(len(run.times)):
        y = random.uniform(-1.5, 1.5, ELEMENTS) * (conversion.clip[i] or 1.0)
        m = conversion.giving(i, y, x)
        stepped = run.step(i, x[None, None, None], m[None, None, None])
        after = stepped.after.reshape(ELEMENTS)
        if not np.isfinite(after).all():
            raise NotLinearError(
                f"{type(run.scheduler).__name__} gives NaN or infinity at step {i}, timestep {run.timestep[i]:g}."
            )
        rows.append((x, m, after, stepped.noise.reshape(ELEMENTS)))
        x = after
    return _Walk(*(np.stack(part) for part in zip(*rows, strict=True)))


def _solve(walk: _Walk, conversion: Conversion, lags: int) -> tuple[dict[str, Array], float, int]:
    """Columns a, b, w and sigma with at most `lags` converted outputs, the largest error of a step, and that step.

    lags = 0 is the one-step form, where the present output counts only beside its clip. Stops at the first step that
    does not fit.
    """
    steps = len(walk.x)
    columns = {name: np.zeros(steps) for name in ("a", "b", "sigma")} | {"w": np.zeros((steps, max(1, lags)))}
    ys: list[Array] = []  # newest first
    worst, count = (0.0, 0), 0
    for i in range(steps):
        x, m = walk.x[i], walk.m[i]
        ys = [conversion.of(i, x, m), *ys][:MAX_HISTORY]
        clipped = conversion.clip[i] > 0
        known = {("a",): x, ("sigma",): walk.z[i]}
        if lags == 0 or clipped or not conversion.q[i]:
            known["b",] = m
        fewest = (1 if clipped else 0) if lags == 0 else max(1, count)
        for count in range(fewest, max(fewest, min(lags, len(ys))) + 1):
            terms: dict[Any, Array] = known | {("w", j): ys[j] for j in range(count)}
            weights, error = _fit(terms, walk.after[i])
            if error <= FIT_TOLERANCE:
                break
        for (name, *place), weight in weights.items():
            columns[name][(i, *place)] = weight
        worst = max(worst, (error, i))
        if not error <= FIT_TOLERANCE:
            break
    used = max([j + 1 for j in range(max(1, lags)) if columns["w"][:, j].any()], default=1)
    columns["w"] = columns["w"][:, :used]
    return columns, *worst


def _fit(terms: Mapping[Any, Array], after: Array) -> tuple[dict[Any, float], float]:
    """Least-squares weights of `terms` in `after`, and the largest error relative to the largest product.

    A term that adds less than the tolerance is left out, exactly, and the others are solved again.
    """
    scale = np.array([np.abs(values).max() or 1.0 for values in terms.values()])
    design = np.stack(list(terms.values()), axis=1) / scale  # [E, unknowns]
    products = np.linalg.lstsq(design, after, rcond=None)[0]
    size = max(float(np.abs(products).max()), float(np.abs(after).max())) or 1.0
    kept = np.abs(products) > FIT_TOLERANCE * size
    products = np.zeros_like(products)
    products[kept] = np.linalg.lstsq(design[:, kept], after, rcond=None)[0] if kept.any() else 0.0
    error = float(np.abs(design @ products - after).max()) / size
    return dict(zip(terms, (products / scale).tolist(), strict=True)), error


def _last(scheduler: Any, name: str) -> Any:
    values = getattr(scheduler, name, None)
    return values[-1] if values else None


class _Float64(TorchFunctionMode):
    """Inside it, float64 samples (four axes) are not rounded to float32, and float64 noise is that of float32."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.to and args[0].dtype is torch.float64 and args[0].ndim == 4:
            wanted = {*args[1:], *(kwargs or {}).values()}
            if torch.float32 in wanted:
                return args[0]
        if func is torch.randn and kwargs and kwargs.get("dtype") is torch.float64:
            return func(*args, **{**kwargs, "dtype": torch.float32}).double()
        return func(*args, **(kwargs or {}))
