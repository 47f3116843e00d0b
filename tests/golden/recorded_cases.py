"""Recorded cases: correction files, and everything that went into and came out of the device loop with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from hostile_files import SHA, packed, split
from toys import small_plan

from correction import Correction, GuidedDenoiser, SamplingPlan, encode_correction, initial_noise, step_noises
from correction.loop import advance, correct, predict
from correction.plan import FloatArray
from correction.schedulers import make_plan

STREAM = "simulation"
# In Python's own floats and one after the other: the same on every machine.
ALPHAS = [1.0]
for _k in range(1000):
    ALPHAS.append(ALPHAS[-1] * (1 - (1e-4 + (0.02 - 1e-4) * _k / 999)))


@dataclass(frozen=True)
class Case:
    """sampler, steps, config: of `make_plan`, with linear betas; channels, height, width: of a sample; batch: how many;
    corrected: with tables that change most steps; guidance: 1 is none."""

    sampler: str
    steps: int
    config: Mapping[str, Any]
    corrected: bool = False
    guidance: float = 1.0
    channels: int = 3
    height: int = 4
    width: int = 5
    batch: int = 1

    def plan(self) -> SamplingPlan:
        """Compiled anew."""
        config = {"beta_schedule": "linear", "clip_sample": False, **self.config}
        return make_plan(self.sampler, config, self.steps)


V = {"prediction_type": "v_prediction"}
CLIP = {"clip_sample": True}
CASES = {
    "ddim": Case("ddim", 6, {}),
    "ddim-corrected": Case("ddim", 6, {}, corrected=True),
    "ddim-clip-corrected": Case("ddim", 5, CLIP, corrected=True, channels=1, height=3, width=3),
    "ddim-v": Case("ddim", 4, V, corrected=True),
    "ddim-guided": Case("ddim", 5, CLIP, corrected=True, guidance=3.7),
    "ddim-eta1": Case("ddim-eta1", 5, {}),
    "ddim-eta1-clip-corrected": Case("ddim-eta1", 5, CLIP, corrected=True, batch=2),
    "dpmpp-2m": Case("dpmpp-2m", 6, {}),
    "dpmpp-2m-v-corrected": Case("dpmpp-2m", 6, V, corrected=True, channels=4),
    "euler": Case("euler", 5, {}),
    "euler-corrected": Case("euler", 5, {}, corrected=True, guidance=7.5),
    "plms": Case("pndm", 6, {}),
    "plms-v-corrected": Case("pndm", 6, V, corrected=True),
    "lcm": Case("lcm", 4, {}),
    "lcm-clip-corrected": Case("lcm", 4, CLIP, corrected=True),
}
Denoise = Callable[..., FloatArray]


def correction_of(case: Case, plan: SamplingPlan) -> Correction:
    """Gains about 1, biases about 0, of our own noise; the second step is left alone, the third keeps its sample."""
    if not case.corrected:
        return Correction.identity(plan.steps, case.channels)
    tables = 0.05 * initial_noise(1, STREAM, range(4), (plan.steps, case.channels))
    tables[:, 1] = 0
    tables[2:, 2] = 0
    return Correction(1 + tables[0], tables[1], 1 + tables[2], tables[3])


def network(plan: SamplingPlan, squash: float) -> Denoise:
    """A network that believes in squashed images. Exact operations alone, so that every machine computes the same."""

    def denoise(x: FloatArray, timestep: float, /) -> FloatArray:
        alpha = ALPHAS[round(timestep) + 1]
        given = x.astype(np.float64)
        x0 = squash * given / (1 + np.abs(given))
        noise = (given - alpha**0.5 * x0) / (1 - alpha) ** 0.5
        m = noise if plan.prediction_type == "epsilon" else alpha**0.5 * noise - (1 - alpha) ** 0.5 * x0
        return m.astype(np.float32)

    return denoise


def record(
    plan: SamplingPlan,
    correction: Correction,
    noise: FloatArray,
    step_noise: FloatArray,
    denoise: Denoise,
    other: Denoise | None = None,
    guidance: float = 1.0,
) -> dict[str, FloatArray]:
    """The tensors of a record. denoise: the network; other: what it is in guidance's other branch."""
    kept: dict[str, list[FloatArray]] = {"inputs": [], "outputs": [], "outputs_null": [], "samples": []}

    def branch(name: str, function: Denoise) -> Denoise:
        def call(x: FloatArray, timestep: float, /) -> FloatArray:
            kept[name].append(function(x, timestep))
            return kept[name][-1]

        return call

    given = branch("outputs", denoise)
    denoiser = given if other is None else guided(given, branch("outputs_null", other), guidance)
    x = np.float32(plan.init_sigma) * noise
    history: list[FloatArray] = []
    for i in range(plan.steps):  # the pieces of correction.loop.sample, which does not hand out the sample after a step
        x = correct(correction.input_gain[i], correction.input_bias[i], x)
        kept["inputs"].append(plan.input_scale[i] * x)
        m = predict(plan, denoiser, i, x)
        m = correct(correction.output_gain[i], correction.output_bias[i], m)
        x, y = advance(plan, i, x, m, history, step_noise)
        history = [y, *history][: plan.history]
        kept["samples"].append(x)
    arrays = {name: np.stack(arrays) for name, arrays in kept.items() if arrays}
    return {"noise": noise, "step_noise": step_noise, **arrays}


def guided(given: Denoise, null: Denoise, guidance: float) -> Denoise:
    """Both branches as one network."""

    def either(x: FloatArray, timestep: float, /, other: Any = None) -> FloatArray:
        return (given if other is None else null)(x, timestep)

    return GuidedDenoiser(either, guidance, {"other": np.ones(1)})


def recorded_case(case: Case, seed: int, plan: SamplingPlan) -> tuple[bytes, dict[str, FloatArray]]:
    """(correction file, record)"""
    correction = correction_of(case, plan)
    shape = (case.channels, case.height, case.width)
    noise = initial_noise(seed, STREAM, range(case.batch), shape)
    fresh = step_noises(seed, STREAM, range(case.batch), shape)
    step_noise = np.stack([fresh(i) if plan.sigma[i] != 0 else np.zeros_like(noise) for i in range(plan.steps)])
    other = None if case.guidance == 1 else network(plan, 0.5)
    tensors = record(plan, correction, noise, step_noise, network(plan, 0.9), other, case.guidance)
    metadata = {"artifact_sha256": SHA, "sampler": case.sampler, "guidance_scale": case.guidance}
    return encode_correction(plan, correction, metadata), tensors


def edge_case() -> tuple[bytes, dict[str, FloatArray]]:
    """What a reader and a loop must also get right.

    The file: a later minor version, the payload in another order, blanks and escapes in the header, a timestep twice,
    gains at their bounds. The loop: three converted outputs, clips and fresh noise at some steps, subnormal numbers,
    and negative zeros that an identity row and a weight of 0 must leave alone.
    """
    steps, channels = 5, 2
    rows = np.arange(steps)
    w = np.tril(np.full((steps, 3), 0.1))
    w[0, 0] = w[2, 1] = 0
    columns = {
        "timestep": [40, 30, 30, 7.5, 0],
        "clip": np.where(rows % 2 == 1, 0.75, 0.0),
        "p": 1.1 - 2.2 * (rows == 0),
        "sigma": [0, 0.05, 0.05, 0, 0.1],
        "w": w,
    }
    plan = small_plan(steps, 3, **columns)
    gain = np.ones((steps, channels), np.float32)
    bias = np.zeros((steps, channels), np.float32)
    gain[1], bias[1], bias[2] = (np.float32(0.1), np.float32(10)), (0.25, -0.0), -0.0
    correction = Correction(gain[::-1], bias[::-1], gain, bias)
    noise = initial_noise(99, STREAM, [0], (channels, 3, 3))
    noise[0, :, 0] = np.array([-0.0, 1e-40, -3e-45], np.float32)
    fresh = step_noises(99, STREAM, [0], (channels, 3, 3))
    step_noise = np.stack([fresh(i) if plan.sigma[i] != 0 else np.zeros_like(noise) for i in range(steps)])
    tensors = record(plan, correction, noise, step_noise, lambda x, t: np.float32(0.01 * t - 0.5) * x)
    header, payload = split(encode_correction(plan, correction, {"artifact_sha256": SHA, "note": "é \U0001f600"}))
    header["__metadata__"]["format_version"] = "1.999999"
    chunks, offset = [], 0
    for name in sorted(set(header) - {"__metadata__"}, reverse=True):
        begin, end = header[name]["data_offsets"]
        header[name]["data_offsets"] = [offset, offset + end - begin]
        chunks.append(payload[begin:end])
        offset += end - begin
    return packed(json.dumps(header, indent=1).encode() + b"\r\n\t ", b"".join(chunks)), tensors
