"""CoreMLDenoiser: a saved package as a denoiser, run by the simulator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from correction.errors import CheckFailed, UsageError
from mobile_export.backends.coreml.divided import SimulatedNetwork
from mobile_export.coreml_simulator.errors import SimulatorError
from mobile_export.coreml_simulator.simulator import Mode

SAMPLE, TIMESTEP, OUTPUT = "sample", "timestep", "noise_pred"


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """What the simulator refuses, as a failed check of the artifact at `path`."""
    try:
        yield
    except SimulatorError as error:
        raise CheckFailed(f"{path}: {error}") from error


class CoreMLDenoiser:
    """(B, C, H, W) float32, timestep, class_labels=(B,) -> (B, C, H, W); a whole batch is one run.

    mode: "declared" rounds to float16 where the program does, "float32" nowhere. Raises CheckFailed for a
    damaged package or one that the simulator cannot run.
    """

    def __init__(self, path: Path, mode: Mode = "declared") -> None:
        self.path = path
        with reported(path):
            self.network = SimulatedNetwork(path, mode)
        self.types = {name: value.type for name, value in self.network.inputs.items()}
        if SAMPLE not in self.types or TIMESTEP not in self.types:
            raise CheckFailed(f"{path} takes {', '.join(self.types)}: a denoiser takes {SAMPLE} and {TIMESTEP}")
        self.conditioning = tuple(name for name in self.types if name not in (SAMPLE, TIMESTEP))

    def __call__(self, sample: np.ndarray, timestep: float, /, **conditioning: Any) -> np.ndarray:
        expected = self.types[SAMPLE]
        if expected is None or sample.shape[1:] != expected.shape[1:]:
            raise UsageError(f"{self.path} takes samples of {expected}, got {list(sample.shape)}")
        if set(conditioning) != set(self.conditioning):
            wanted = ", ".join(self.conditioning) or "no conditioning"
            raise UsageError(f"{self.path} takes {wanted}, got {', '.join(sorted(conditioning)) or 'none'}")
        output = self.run(self.inputs(sample, timestep, conditioning))[OUTPUT]
        return output[:, 0].numpy()

    def inputs(self, sample: np.ndarray, timestep: float, conditioning: Mapping[str, Any]) -> dict[str, Tensor]:
        """The program's inputs, those of a batch with a leading axis in front of the program's own."""
        inputs = {SAMPLE: torch.from_numpy(sample)[:, None], TIMESTEP: torch.full((1,), float(timestep))}
        for name in self.conditioning:
            value, kind = torch.as_tensor(np.asarray(conditioning[name])), self.types[name]
            if kind is None or value.shape != (len(sample), *kind.shape[1:]):
                raise UsageError(f"{name} must be {kind} for each of {len(sample)} samples, got {list(value.shape)}")
            inputs[name] = value.to(kind.element.carrier)[:, None]
        return inputs

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs of the program by name -> its outputs by name."""
        with reported(self.path):
            return self.network(inputs)
