"""AppleRuntime: Core ML itself, where this machine has it (macOS), beside the simulator."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from correction.errors import CheckFailed
from mobile_export.backends.artifact import Artifact
from mobile_export.backends.coreml.chunks import ChunkedProgram, chunk_interfaces
from mobile_export.backends.coreml.divided import packages
from mobile_export.models.component import Signature

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


class AppleRuntime(Artifact):
    """A package on Core ML itself, one sample a call."""

    def __init__(self, predict: Predict, signature: Signature) -> None:
        super().__init__(signature, "Core ML")
        self.predict = predict

    def run(self, inputs: Mapping[str, Tensor], batch: int) -> Tensor:
        outputs = []
        for k in range(batch):
            row = {name: value[k : k + 1] if len(value) > 1 else value for name, value in inputs.items()}
            given = {name: value.numpy() for name, value in row.items()}
            outputs.append(torch.from_numpy(self.predict(given)[self.signature.output.name]))
        return torch.cat(outputs)
