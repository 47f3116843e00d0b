"""The device loop: the sampler that the phone runs, in float32, in a fixed order of operations.

Every `*` and `+` below is one float32 operation, rounded to nearest, never fused. Two programs that follow this file
agree bit for bit, given the same model outputs. docs/correction-format.md states the same order in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from correction.errors import NonFiniteError, UsageError
from correction.plan import FloatArray, SamplingPlan
from correction.tables import Correction


class Denoiser(Protocol):
    """Anything that predicts: the reference, the quantized model or the artifact.

    `sample` is (B, C, H, W) float32, already multiplied by the plan's input scale; conditioning arrays have B rows.
    Returns (B, C, H, W) float32.
    """

    def __call__(self, sample: FloatArray, timestep: float, /, **conditioning: Any) -> FloatArray: ...


StepNoise = Callable[[int], FloatArray] | FloatArray
OnStep = Callable[[int, FloatArray, FloatArray, FloatArray], None]


def sample(
    plan: SamplingPlan,
    denoiser: Denoiser,
    noise: FloatArray,
    correction: Correction | None = None,
    step_noise: StepNoise | None = None,
    conditioning: Mapping[str, Any] | None = None,
    on_step: OnStep | None = None,
) -> FloatArray:
    """Runs the whole plan and returns the last sample, (B, C, H, W) float32.

    Args:
        noise: (B, C, H, W) float32, unit normal; the loop multiplies it by `plan.init_sigma`.
        correction: None means none; the identity correction gives the same bits.
        step_noise: fresh unit-normal noise, an array (N, B, C, H, W) or a function of the step index that returns
            (B, C, H, W); needed if `plan.needs_noise`, and asked for only at steps with sigma > 0.
        conditioning: keyword arguments of the denoiser.
        on_step: called as on_step(i, x, m, y) after step i with the sample that the network saw (input correction
            applied, input scale not), the corrected model output and the converted output (x0 for most schedulers).

    Raises:
        UsageError: a shape or dtype is wrong, or noise is missing.
        NonFiniteError: the model output or the sample is not finite; names the step.
    """
    check_start(plan, noise, correction, step_noise)
    x = np.float32(plan.init_sigma) * noise
    history: list[FloatArray] = []  # converted outputs, newest first
    for i in range(plan.steps):
        if correction is not None:
            x = correct(correction.input_gain[i], correction.input_bias[i], x)
        m = predict(plan, denoiser, i, x, conditioning)
        if correction is not None:
            m = correct(correction.output_gain[i], correction.output_bias[i], m)
        x_next, y = advance(plan, i, x, m, history, step_noise)
        if on_step is not None:
            on_step(i, x, m, y)
        x = x_next
        history = [y, *history][: plan.history]
    return x


def correct(gain: FloatArray, bias: FloatArray, x: FloatArray) -> FloatArray:
    """gain * x + bias per channel; x is (B, C, H, W), gain and bias are (C,). All gains 1 and biases 0: x untouched."""
    if (gain == 1).all() and (bias == 0).all():
        return x
    return gain[None, :, None, None] * x + bias[None, :, None, None]


def predict(
    plan: SamplingPlan, denoiser: Denoiser, i: int, x: FloatArray, conditioning: Mapping[str, Any] | None = None
) -> FloatArray:
    """The model output m at step i for the sample x, both (B, C, H, W) float32; output correction not applied."""
    m = denoiser(plan.input_scale[i] * x, float(plan.timestep[i]), **(conditioning or {}))
    if not isinstance(m, np.ndarray) or m.dtype != np.float32 or m.shape != x.shape:
        got = f"{m.dtype} {m.shape}" if isinstance(m, np.ndarray) else type(m).__name__
        raise UsageError(f"a denoiser must return a float32 numpy array of shape {x.shape}, got {got}.")
    require_finite("model output", i, m, f" (timestep {plan.timestep[i]:g})")
    return m


def advance(
    plan: SamplingPlan,
    i: int,
    x: FloatArray,
    m: FloatArray,
    history: Sequence[FloatArray],
    step_noise: StepNoise | None = None,
) -> tuple[FloatArray, FloatArray]:
    """One step of the plan, after the corrections: (next sample, converted output y), each (B, C, H, W).

    `history` holds earlier converted outputs, newest first. A history or noise term whose weight is 0 is skipped.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # reported below, with the step
        y = plan.p[i] * x + plan.q[i] * m
        if plan.clip[i] > 0:
            y = np.minimum(np.maximum(y, -plan.clip[i]), plan.clip[i])
        x = plan.a[i] * x + plan.b[i] * m
        for j, past in enumerate((y, *history[: plan.history - 1])):
            if plan.w[i, j] != 0:
                x = x + plan.w[i, j] * past
        if plan.sigma[i] != 0:
            x = x + plan.sigma[i] * noise_at(step_noise, i, x)
    require_finite("sample", i, x)
    return x, y


def noise_at(step_noise: StepNoise | None, i: int, like: FloatArray) -> FloatArray:
    """Fresh noise of step i, checked to have the shape and dtype of `like`."""
    if step_noise is None:
        raise UsageError(f"step {i} adds noise, but step_noise is missing.")
    z = step_noise(i) if callable(step_noise) else step_noise[i]
    if z.shape != like.shape or z.dtype != np.float32:
        raise UsageError(f"step_noise of step {i} must be float32 of shape {like.shape}, got {z.dtype} {z.shape}.")
    return z


def require_finite(stage: str, step: int, array: FloatArray, detail: str = "") -> None:
    """Raises NonFiniteError if `array` holds NaN or infinity."""
    if not np.isfinite(array).all():
        raise NonFiniteError(stage, step, detail)


def check_start(
    plan: SamplingPlan, noise: FloatArray, correction: Correction | None, step_noise: StepNoise | None
) -> None:
    """Raises UsageError unless noise, correction and step noise fit each other and the plan."""
    if not isinstance(noise, np.ndarray) or noise.ndim != 4 or noise.dtype != np.float32:
        got = f"{noise.dtype} {noise.shape}" if isinstance(noise, np.ndarray) else type(noise).__name__
        raise UsageError(f"noise must be a float32 numpy array of shape (B, C, H, W), got {got}.")
    if correction is not None and (correction.steps, correction.channels) != (plan.steps, noise.shape[1]):
        raise UsageError(
            f"the correction is for {correction.steps} steps and {correction.channels} channels, but the plan has "
            f"{plan.steps} steps and the noise {noise.shape[1]} channels."
        )
    if plan.needs_noise and step_noise is None:
        raise UsageError(f"{plan.scheduler} adds noise at some steps: pass step_noise.")
    if step_noise is not None and not callable(step_noise) and step_noise.shape != (plan.steps, *noise.shape):
        raise UsageError(f"step_noise must have shape {(plan.steps, *noise.shape)}, got {step_noise.shape}.")
