"""Golden: one sample of a part with every model output on the way, to be replayed step by step on any device.

An 8-bit network amplifies a single flipped rounding over the steps: the last sample of another processor says little.
The record is replayed in lock-step instead: the loop goes on from the recorded outputs, which must give the recorded
sample (sampler parity), and at each step the network is asked for its own output (conversion parity).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from correction import CheckFailed, Correction, Denoiser, SamplingPlan
from correction.plan import FloatArray
from mobile_export.batch import make_batch, run
from mobile_export.metrics import psnr
from mobile_export.subjects import Subjects

SEED = 0
STREAM = "simulation"
NULL = "null."  # before the names of the inputs of guidance's other branch
RECORDED = ("noise", "outputs", "sample_corrected", "sample_uncorrected")


@dataclass(frozen=True)
class Replay:
    """sample_error: largest difference of the loop's last sample on recorded outputs from the recorded sample;
    output_psnr_db: (N,) of the network's output at each step against the recorded one; outputs_equal: to the bit;
    inputs: what the network was given at each step, (1, C, H, W)."""

    sample_error: float
    output_psnr_db: np.ndarray
    outputs_equal: bool
    inputs: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Golden:
    """noise, sample_corrected, sample_uncorrected: (1, C, H, W) float32; outputs: (N, 1, C, H, W), what the guided
    network returned at each step of the corrected run, before its correction; given, null: conditioning, a row each."""

    noise: np.ndarray
    outputs: np.ndarray
    sample_corrected: np.ndarray
    sample_uncorrected: np.ndarray
    given: Mapping[str, np.ndarray] = field(default_factory=dict)
    null: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def record(
        cls, plan: SamplingPlan, denoiser: Denoiser, correction: Correction, shape: tuple[int, ...], subjects: Subjects
    ) -> Golden:
        """Draw the first subject with and without correction. shape: (C, H, W); denoiser: with its guidance."""
        batch = make_batch(SEED, STREAM, [0], shape, subjects.rows([0]))
        outputs: list[FloatArray] = []

        def recorded(sample: FloatArray, timestep: float, /, **conditioning: Any) -> FloatArray:
            outputs.append(denoiser(sample, timestep, **conditioning))
            return outputs[-1]

        corrected = run(plan, recorded, batch, correction)
        uncorrected = run(plan, denoiser, batch)
        return cls(batch.noise, np.stack(outputs), corrected, uncorrected, batch.conditioning, subjects.null)

    @classmethod
    def read(cls, path: Path) -> Golden:
        """Raises CheckFailed for a file that is none."""
        try:
            arrays = load_file(path)
        except (OSError, SafetensorError) as error:
            raise CheckFailed(f"{path} cannot be read ({error}); export the bundle again") from error
        missing = [name for name in RECORDED if name not in arrays]
        if missing:
            raise CheckFailed(f"{path} is no golden record of this bundle, {missing[0]} is missing: export it again")
        recorded = {name: arrays.pop(name) for name in RECORDED}
        null = {name.removeprefix(NULL): array for name, array in arrays.items() if name.startswith(NULL)}
        given = {name: array for name, array in arrays.items() if not name.startswith(NULL)}
        return cls(**recorded, given=given, null=null)

    def arrays(self) -> dict[str, np.ndarray]:
        """The content of golden.safetensors (docs/bundle-format.md)."""
        recorded = {name: getattr(self, name) for name in RECORDED}
        null = {f"{NULL}{name}": array for name, array in self.null.items()}
        return {name: np.ascontiguousarray(array) for name, array in {**recorded, **self.given, **null}.items()}

    def replay(self, plan: SamplingPlan, correction: Correction, denoiser: Denoiser) -> Replay:
        """The loop on the recorded outputs, with `denoiser`, guided, asked beside it at every step.

        Raises CheckFailed when the record does not fit the plan, or the noise generator gives other numbers.
        """
        shape = self.noise.shape
        if self.outputs.shape != (plan.steps, *shape) or self.sample_corrected.shape != shape:
            raise CheckFailed(
                f"the golden record holds outputs of shape {self.outputs.shape}, expected {(plan.steps, *shape)}: "
                "export the bundle again"
            )
        batch = make_batch(SEED, STREAM, [0], shape[1:], self.given)
        if not np.array_equal(batch.noise, self.noise):
            raise CheckFailed("the noise generator gives other numbers than when the bundle was made: versions differ")
        inputs: list[FloatArray] = []
        found: list[FloatArray] = []

        def recorded(sample: FloatArray, timestep: float, /, **conditioning: Any) -> FloatArray:
            inputs.append(sample)
            found.append(denoiser(sample, timestep, **conditioning))
            return self.outputs[len(inputs) - 1]

        last = run(plan, recorded, batch, correction)
        outputs = np.stack(found)
        return Replay(
            sample_error=float(np.abs(last - self.sample_corrected).max()),
            output_psnr_db=np.concatenate([psnr(a, b) for a, b in zip(outputs, self.outputs, strict=True)]),
            outputs_equal=bool(np.array_equal(outputs, self.outputs)),
            inputs=tuple(inputs),
        )
