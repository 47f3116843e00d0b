"""The state of a calibration between two steps, kept in a file so that it can go on after an interruption."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from correction.errors import CheckFailed
from correction.loop import StepNoise, noise_at
from correction.plan import FloatArray, SamplingPlan
from correction.tables import NAMES

STATISTICS = 7  # numbers kept per step, see calibrate.StepStatistics
_HISTORIES = ("history", "history_hat", "history_plain")
_SAMPLES = ("x", "x_hat", "x_plain")


@dataclass(eq=False)
class State:
    """All that the next step needs. Samples are (B, C, H, W) float32, histories hold converted outputs, newest first.

    Attributes:
        step: the next step.
        corrected: has any step been corrected so far?
        x, x_hat, x_plain: sample of the reference, of the corrected quantized trajectory, and of the uncorrected one.
        history, history_hat, history_plain: their converted outputs.
        tables, deviations: per name [T, C] float64: the correction and its standard errors.
        statistics: [T, 7] float64.
        sigma: [T] float32, weight of fresh noise on the corrected trajectory.
    """

    step: int
    corrected: bool
    x: FloatArray
    x_hat: FloatArray
    x_plain: FloatArray
    history: list[FloatArray]
    history_hat: list[FloatArray]
    history_plain: list[FloatArray]
    tables: dict[str, np.ndarray]
    deviations: dict[str, np.ndarray]
    statistics: np.ndarray
    sigma: FloatArray

    @staticmethod
    def start(plan: SamplingPlan, noise: FloatArray) -> State:
        """Before the first step."""
        x = np.float32(plan.init_sigma) * noise
        shape = (plan.steps, noise.shape[1])
        tables = {name: np.full(shape, 1.0 if name.endswith("gain") else 0.0) for name in NAMES}
        deviations = {name: np.zeros(shape) for name in NAMES}
        statistics = np.full((plan.steps, STATISTICS), np.nan)
        return State(0, False, x, x, x, [], [], [], tables, deviations, statistics, plan.sigma.copy())

    def go_on(
        self,
        reference: tuple[FloatArray, FloatArray],
        corrected: tuple[FloatArray, FloatArray],
        plain: tuple[FloatArray, FloatArray],
        keep: int,
    ) -> None:
        """Takes the (next sample, converted output) of the three trajectories; keeps `keep` converted outputs."""
        self.x, self.x_hat, self.x_plain = reference[0], corrected[0], plain[0]
        self.history = [reference[1], *self.history][:keep]
        self.history_hat = [corrected[1], *self.history_hat][:keep]
        self.history_plain = [plain[1], *self.history_plain][:keep]

    def save(self, path: Path, mark: str) -> None:
        """Writes the state for the calibration with this fingerprint: a temporary file, then renamed."""
        arrays = {name: getattr(self, name) for name in _SAMPLES} | {"statistics": self.statistics}
        arrays["sigma"] = self.sigma
        for name in _HISTORIES:
            arrays |= {f"{name}.{j}": y for j, y in enumerate(getattr(self, name))}
        arrays |= {f"table.{name}": values for name, values in self.tables.items()}
        arrays |= {f"deviation.{name}": values for name, values in self.deviations.items()}
        about = {"fingerprint": mark, "step": str(self.step), "corrected": str(int(self.corrected))}
        data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, about)
        handle, temporary = tempfile.mkstemp(prefix=path.name, suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise

    @staticmethod
    def load(path: Path, mark: str) -> State | None:
        """The saved state, or None if there is no file or it belongs to another calibration.

        Raises:
            CheckFailed: the file cannot be read.
        """
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                about = file.metadata() or {}
                if about.get("fingerprint") != mark:
                    return None
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return State(
                step=int(about["step"]),
                corrected=about["corrected"] == "1",
                x=arrays["x"],
                x_hat=arrays["x_hat"],
                x_plain=arrays["x_plain"],
                history=_numbered("history", arrays),
                history_hat=_numbered("history_hat", arrays),
                history_plain=_numbered("history_plain", arrays),
                tables={name: arrays[f"table.{name}"] for name in NAMES},
                deviations={name: arrays[f"deviation.{name}"] for name in NAMES},
                statistics=arrays["statistics"],
                sigma=arrays["sigma"],
            )
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise CheckFailed(f"calibration state {path} cannot be read ({error}); delete it to start over.") from error


def fingerprint(
    plan: SamplingPlan,
    method: str,
    noise: FloatArray,
    conditioning: Mapping[str, Any],
    step_noise: StepNoise | None,
    tag: str,
) -> str:
    """sha256 (hex) over everything that decides a calibration but the denoisers; of the step noise, the first used."""
    total = hashlib.sha256(f"{plan.digest()} {method} {tag} {noise.shape}".encode())
    total.update(np.ascontiguousarray(noise).tobytes())
    for name in sorted(conditioning):
        array = np.ascontiguousarray(conditioning[name])
        total.update(f"{name} {array.dtype} {array.shape}".encode())
        total.update(array.tobytes())
    if plan.needs_noise:
        total.update(noise_at(step_noise, int(np.argmax(plan.sigma != 0)), noise).tobytes())
    return total.hexdigest()


def _numbered(name: str, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    count = sum(key.startswith(f"{name}.") for key in arrays)
    return [arrays[f"{name}.{j}"] for j in range(count)]
