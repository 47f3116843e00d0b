"""Calibration: the correction of a quantized denoiser, step by step along trajectories that are already corrected.

Per step, with x the reference's sample and x̂ the quantized one's (both from the same noise):

    1. input:   fit G, B from (x, x̂);               x̂' = G x̂ + B
    2. output:  fit K, b from (e, ê),  ê = quantized(x̂'), e = reference(x̂') or, paired, reference(x)
    3. judge:   on held-out samples, |next x̂ - next x|^2 (geometric mean over the samples) with nothing, with 1 and
                with 1 and 2; keep the least
    4. go on from the next x and the next x̂ of what was kept

The judge is the sample after the step, since a gain that makes the model output better can make the trajectory worse.
If the whole correction does not bring the trajectories nearer to the reference at the end, it is dropped. That is
asked of all samples, fitted ones included: ends differ by decibels from seed to seed, so that few held-out ones would
drop good corrections by chance, while a few numbers a step cannot remember samples of thousands of values. A tuned
method then searches how much of either half to apply, for the least error at the end of all trajectories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from correction.calibration_result import CalibrationResult, StepStatistics
from correction.calibration_state import State, fingerprint
from correction.errors import UsageError
from correction.loop import Denoiser, StepNoise, advance, check_start, correct, noise_at, predict
from correction.methods import DEFAULT_METHOD, Method, find_method
from correction.plan import FloatArray, SamplingPlan
from correction.solve import Affine, PairSums, Solver, jackknife, join, mean_magnitude, residual_variance
from correction.strength import best_strength, end_error, error_of_samples
from correction.tables import NAMES, Correction, gain_allowed

GROUPS = 8  # of samples, for the jackknife
Progress = Callable[[int, int], None]


def calibrate(
    plan: SamplingPlan,
    reference: Denoiser,
    quantized: Denoiser,
    noise: FloatArray,
    method: Method | str = DEFAULT_METHOD,
    conditioning: Mapping[str, Any] | None = None,
    step_noise: StepNoise | None = None,
    progress: Progress | None = None,
    holdout_fraction: float = 0.25,
    state_file: Path | str | None = None,
    batch_size: int | None = None,
    tag: str = "",
) -> CalibrationResult:
    """Solves the correction of `quantized` towards `reference`. With quantized = reference it is the identity, exactly.

    Args:
        noise: (B, C, H, W) float32 unit normal, B >= 2; the last round(B * holdout_fraction) samples, at least one,
            are held out for judging.
        method: a name of METHODS or a Method.
        conditioning: arrays with B rows, passed to both denoisers.
        step_noise: as for `sample`; both trajectories get the same.
        progress: called as progress(steps done, steps) after each step.
        holdout_fraction: in (0, 1).
        state_file: kept up to date after each step, so that an interrupted calibration goes on where it was, and
            deleted at the end. A state of another plan, method, noise, conditioning or tag is started over.
        batch_size: largest number of samples per call of a denoiser; None is all.
        tag: what the arrays do not tell, for example the artifact's sha256, so that a state is not taken for another's.

    Raises:
        UsageError: an argument is wrong.
        NonFiniteError: a trajectory holds NaN or infinity; names the step.
        CheckFailed: the state file cannot be read.
    """
    chosen = find_method(method) if isinstance(method, str) else method
    rows = dict(conditioning or {})
    check_start(plan, noise, None, step_noise)
    _check(noise, rows, holdout_fraction, batch_size)
    held = min(max(1, round(noise.shape[0] * holdout_fraction)), noise.shape[0] - 1)
    run = _Run(plan, reference, quantized, chosen, rows, step_noise, noise.shape[0] - held, batch_size)
    mark = fingerprint(plan, chosen.describe(), noise, rows, step_noise, f"{held} {tag}")
    path = Path(state_file) if state_file is not None else None
    state = State.load(path, mark) if path is not None else None
    if state is None:
        state = State.start(plan, noise)
    while state.step < plan.steps:
        run.step(state)
        state.step += 1
        if path is not None:
            state.save(path, mark)
        if progress is not None:
            progress(state.step, plan.steps)
    result = _result(plan, state, chosen)
    if chosen.tuned:
        result = _tuned(result, lambda c: end_error(plan, quantized, c, noise, state.x, rows, step_noise, batch_size))
    if path is not None:
        path.unlink(missing_ok=True)
    return result


class _Run:
    """What stays the same from step to step."""

    def __init__(
        self,
        plan: SamplingPlan,
        reference: Denoiser,
        quantized: Denoiser,
        method: Method,
        rows: Mapping[str, Any],
        step_noise: StepNoise | None,
        fitted: int,
        batch_size: int | None,
    ) -> None:
        self.plan = plan
        self.reference = reference
        self.quantized = quantized
        self.method = method
        self.rows = rows
        self.step_noise = step_noise
        self.fit = slice(0, fitted)
        self.held = slice(fitted, None)
        self.batch_size = batch_size

    def step(self, state: State) -> None:
        """Fits, judges and takes one step; changes `state` but for its step number, at the very end."""
        i, fit, held = state.step, self.fit, self.held
        z = noise_at(self.step_noise, i, state.x) if self.plan.sigma[i] else None
        # Always fit and held-out samples apart: a network may round differently in batches of another size.
        e = np.concatenate([self._predict(self.reference, i, state.x, part) for part in (fit, held)])
        x_next, y = self._advance(i, state.x, e, state.history, z, slice(None))

        same = _nothing(state.x.shape[1])
        x_in, source = state.x_hat, self._predict(self.quantized, i, state.x_hat, held)
        candidates = [(same, same, x_in, source)]
        errors = dict.fromkeys(("none", "input", "both"), np.nan)
        deviations = {name: np.zeros(state.x.shape[1]) for name in NAMES}
        entry, zero = same, np.zeros(state.x.shape[1])
        if self.method.input is not None:
            entry, spread = _fit(state.x[fit], state.x_hat[fit], zero, self.method.input)
            deviations["input_gain"], deviations["input_bias"] = (spread.gain, spread.bias)
            x_in = correct(*_float32(entry), state.x_hat)
            if x_in is not state.x_hat:
                source = self._predict(self.quantized, i, x_in, held)
            candidates.append((entry, same, x_in, source))
        fit_source, target = None, e[fit]
        if self.method.output is not None:
            fit_source = self._predict(self.quantized, i, x_in, fit)
            if not self.method.paired:
                target = self._predict(self.reference, i, x_in, fit)
            leave, spread = _fit(target, fit_source, mean_magnitude(target), self.method.output)
            deviations["output_gain"], deviations["output_bias"] = (spread.gain, spread.bias)
            candidates.append((entry, leave, x_in, source))

        names = ["none"] + ["input"] * (self.method.input is not None) + ["both"] * (self.method.output is not None)
        for name, (_, leave, x_in, source) in zip(names, candidates, strict=True):
            m = correct(*_float32(leave), source)
            after, _ = self._advance(i, x_in[held], m, state.history_hat, z, held)
            errors[name] = error_of_samples(after, x_next[held])
        best = len(names) - 1
        if self.method.gated:
            best = min(range(len(names)), key=lambda k: errors[names[k]])  # the first of equals: the least correction
        entry, leave, x_in, source = candidates[best]
        if fit_source is None or candidates[-1][2] is not x_in:
            fit_source = self._predict(self.quantized, i, x_in, fit)
        m = correct(*_float32(leave), np.concatenate([fit_source, source]))
        if self.method.less_noise and leave is not same:
            state.sigma[i] = self._sigma(i, residual_variance(join(_sums(target, fit_source, zero)), leave))
        plan = replace(self.plan, sigma=state.sigma) if self.method.less_noise else self.plan
        after, y_hat = self._advance(i, x_in, m, state.history_hat, z, slice(None), plan)
        keep_input, keep_output = (bool((half.gain != 1).any() or (half.bias != 0).any()) for half in (entry, leave))
        plain, y_plain = after, y_hat
        if state.corrected or keep_input or keep_output:
            state.corrected = True
            m = np.concatenate([self._predict(self.quantized, i, state.x_plain, part) for part in (fit, held)])
            plain, y_plain = self._advance(i, state.x_plain, m, state.history_plain, z, slice(None))

        for name, kept in zip(NAMES, (keep_output, keep_output, keep_input, keep_input), strict=True):
            half = leave if name.startswith("output") else entry
            state.tables[name][i] = half.gain if name.endswith("gain") else half.bias
            state.deviations[name][i] = deviations[name] if kept else 0.0
        state.statistics[i] = (
            *(keep_input, keep_output, errors["none"], errors["input"], errors["both"]),
            *(error_of_samples(after, x_next), error_of_samples(plain, x_next)),
        )
        state.go_on((x_next, y), (after, y_hat), (plain, y_plain), self.plan.history)

    def _sigma(self, i: int, variance: float) -> float:
        """The weight of fresh noise with which the step has the variance it had, the output's included."""
        weight = float(self.plan.b[i] + self.plan.w[i, 0] * self.plan.q[i])  # of the model output, where not clipped
        return float(np.sqrt(max(float(self.plan.sigma[i]) ** 2 - weight**2 * variance, 0.0)))

    def _predict(self, denoiser: Denoiser, i: int, x: FloatArray, part: slice) -> FloatArray:
        """Model outputs for the samples of `part`; x holds all samples."""
        x, rows = x[part], {name: array[part] for name, array in self.rows.items()}
        size = self.batch_size or len(x)
        outputs = [
            predict(self.plan, denoiser, i, x[k : k + size], {name: a[k : k + size] for name, a in rows.items()})
            for k in range(0, len(x), size)
        ]
        return np.concatenate(outputs)

    def _advance(
        self,
        i: int,
        x: FloatArray,
        m: FloatArray,
        history: list[FloatArray],
        z: FloatArray | None,
        part: slice,
        plan: SamplingPlan | None = None,
    ) -> tuple[FloatArray, FloatArray]:
        """One step for the samples of `part`; x and m hold only these, history and z may hold all samples."""
        past = [y if len(y) == len(x) else y[part] for y in history]
        fresh = None if z is None else z[part]
        return advance(plan or self.plan, i, x, m, past, None if fresh is None else lambda _: fresh)


def _fit(target: FloatArray, source: FloatArray, threshold: np.ndarray, solver: Solver) -> tuple[Affine, Affine]:
    """(solution, standard errors); a channel whose gain the file would refuse, or that is not finite, gets identity."""
    groups = _sums(target, source, threshold)
    found, spread = solver(join(groups)), jackknife(groups, solver)
    usable = gain_allowed(found.gain) & np.isfinite(found.bias.astype(np.float32))
    solution = Affine(np.where(usable, found.gain, 1.0), np.where(usable, found.bias, 0.0))
    return solution, Affine(np.where(usable, spread.gain, 0.0), np.where(usable, spread.bias, 0.0))


def _sums(target: FloatArray, source: FloatArray, threshold: np.ndarray) -> list[PairSums]:
    count = min(GROUPS, len(target))
    return [PairSums.of(target[g::count], source[g::count], threshold) for g in range(count)]


def _nothing(channels: int) -> Affine:
    return Affine(np.ones(channels), np.zeros(channels))


def _float32(affine: Affine) -> tuple[FloatArray, FloatArray]:
    return affine.gain.astype(np.float32), affine.bias.astype(np.float32)


def _result(plan: SamplingPlan, state: State, method: Method) -> CalibrationResult:
    correction = Correction(**{name: state.tables[name].astype(np.float32) for name in NAMES})
    statistics = tuple(
        StepStatistics(i, float(plan.timestep[i]), bool(row[0]), bool(row[1]), *(float(v) for v in row[2:]))
        for i, row in enumerate(state.statistics)
    )
    last = statistics[-1]
    helped = last.trajectory_with < last.trajectory_without
    dropped = method.gated and not correction.is_identity and not helped
    kept = state.statistics[:, :2].astype(bool)
    deviations = state.deviations
    if dropped:
        correction = Correction.identity(plan.steps, correction.channels)
        kept = np.zeros_like(kept)
        deviations = {name: np.zeros_like(values) for name, values in deviations.items()}
    sampled = plan if dropped or (state.sigma == plan.sigma).all() else replace(plan, sigma=state.sigma)
    return CalibrationResult(correction, deviations, statistics, kept, dropped, sampled)


def _tuned(result: CalibrationResult, error: Callable[[Correction], float]) -> CalibrationResult:
    """The result with the strengths of its halves that leave the least error."""
    strength = best_strength(result.correction, error)
    correction, scale = strength.of(result.correction), {"input": strength.input, "output": strength.output}
    if correction is None:
        return result
    deviations = {name: scale[name.split("_")[0]] * values for name, values in result.standard_errors.items()}
    kept = result.kept & (np.array([strength.input, strength.output]) != 0)
    return replace(result, correction=correction, standard_errors=deviations, kept=kept, strength=strength)


def _check(noise: FloatArray, rows: Mapping[str, Any], holdout_fraction: float, batch_size: int | None) -> None:
    if noise.shape[0] < 2:
        raise UsageError(f"calibration needs at least 2 samples, one of them held out, got {noise.shape[0]}.")
    if not 0.0 < holdout_fraction < 1.0:
        raise UsageError(f"holdout_fraction must be within (0, 1), got {holdout_fraction!r}.")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, got {batch_size!r}.")
    for name, array in rows.items():
        if not isinstance(array, np.ndarray) or array.ndim < 1 or array.shape[0] != noise.shape[0]:
            got = array.shape if isinstance(array, np.ndarray) else type(array).__name__
            raise UsageError(f"conditioning {name!r} must be a numpy array with {noise.shape[0]} rows, got {got}.")
