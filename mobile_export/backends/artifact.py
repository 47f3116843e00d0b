"""Artifact: a loaded `.pte` or `.mlpackage`, called by the names of its inputs; and a UNet's as a denoiser."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from correction.errors import UsageError
from mobile_export.models.component import TYPES, Port, Signature

SAMPLE, TIMESTEP = "sample", "timestep"


class Artifact(ABC):
    """What a backend's `load` gives.

    signature: what it takes, one sample a call; source: the file, for messages.
    """

    def __init__(self, signature: Signature, source: str) -> None:
        self.signature, self.source = signature, source

    @abstractmethod
    def run(self, inputs: Mapping[str, Tensor], batch: int) -> Tensor:
        """(B, ...) outputs for checked inputs: with B rows, or with one for all samples."""

    def __call__(self, **inputs: Any) -> np.ndarray:
        """Inputs by name, each with B rows or with one row for all samples -> (B, ...) float32.

        Raises UsageError for a name, shape or type that is not the signature's, CheckFailed where the runtime gives up.
        """
        ports = {port.name: port for port in self.signature.inputs}
        if set(inputs) != set(ports):
            wanted = ", ".join(ports)
            raise UsageError(f"{self.source} takes {wanted}; got {', '.join(sorted(inputs)) or 'nothing'}")
        given = {name: self._checked(port, np.asarray(inputs[name])) for name, port in ports.items()}
        batch = max(len(value) for value in given.values())
        for name, value in given.items():
            if len(value) not in (1, batch):
                raise UsageError(f"{self.source}: {name} has {len(value)} rows for {batch} samples")
        return self.run(given, batch).numpy()

    def _checked(self, port: Port, value: np.ndarray) -> Tensor:
        whole = np.issubdtype(value.dtype, np.integer)
        right = value.dtype == np.float32 if port.type == "float32" else whole
        if not right or value.ndim != len(port.shape) or value.shape[1:] != port.shape[1:] or not len(value):
            raise UsageError(f"{self.source} takes {port} for each sample, got {value.dtype} {list(value.shape)}")
        return torch.from_numpy(np.ascontiguousarray(value)).to(TYPES[port.type])


class ArtifactDenoiser:
    """The artifact of a UNet as a denoiser: (B, C, H, W) float32, timestep, conditioning by name -> (B, C, H, W)."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact

    def __call__(self, sample: np.ndarray, timestep: float, /, **conditioning: Any) -> np.ndarray:
        time = np.full((1,), timestep, dtype=np.float32)
        return self.artifact(**{SAMPLE: sample, TIMESTEP: time, **conditioning})
