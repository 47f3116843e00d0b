"""AppleRuntime: Core ML itself, where this machine has it (macOS), beside the simulator."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from correction.errors import CheckFailed
from mobile_export.backends.coreml.chunks import ChunkedProgram, chunk_interfaces
from mobile_export.backends.coreml.divided import packages

Predict = Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray]]


def load_predict(path: Path) -> Predict | None:
    """Core ML's own prediction for the package or chunks at `path`, or None where the system has no Core ML.

    Raises CheckFailed when Core ML refuses the package.
    """
    if sys.platform != "darwin":
        return None
    import coremltools

    try:
        found = packages(path)
        predicts = [coremltools.models.MLModel(str(each)).predict for each in found]
        return predicts[0] if len(found) == 1 else ChunkedProgram(predicts, chunk_interfaces(found))
    except (RuntimeError, ValueError) as error:
        raise CheckFailed(f"Core ML does not load {path}: {error}") from error


class AppleRuntime:
    """A package as a denoiser on Core ML, one sample a call: (B, C, H, W), timestep, class_labels=(B,) -> same."""

    def __init__(self, predict: Predict, output: str = "noise_pred") -> None:
        self.predict, self.output = predict, output

    def __call__(self, sample: np.ndarray, timestep: float, /, **conditioning: Any) -> np.ndarray:
        time = np.full((1,), timestep, dtype=np.float32)
        outputs = []
        for k in range(len(sample)):
            given = {name: _as_input(np.asarray(values)[k : k + 1]) for name, values in conditioning.items()}
            outputs.append(self.predict({"sample": sample[k : k + 1], "timestep": time, **given})[self.output])
        return np.concatenate(outputs)


def _as_input(values: np.ndarray) -> np.ndarray:
    """Core ML takes float32 and int32."""
    return values.astype(np.int32 if np.issubdtype(values.dtype, np.integer) else np.float32)
