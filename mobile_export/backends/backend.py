"""Backend: what turns a quantized model into an artifact of one kind, and runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from correction import Denoiser
from mobile_export.models.diffusion_model import DiffusionModel
from mobile_export.progress import Progress
from mobile_export.quantize.table import QuantizationTable


@dataclass(frozen=True)
class Probe:
    """One input of the network from a real trajectory: sample (1, C, H, W) float32, class label or None."""

    sample: np.ndarray
    timestep: float
    label: int | None


@dataclass(frozen=True)
class Parity:
    """Conversion parity of one artifact: number 1 of the three.

    weight_codes_equal: every layer's stored codes, scales and biases are the table's, byte for byte.
    The other fields are the lock-step comparison over `timesteps` (see backends/executorch/lockstep.py).
    """

    weight_codes_equal: bool
    layers: int
    quantizations: int
    activation_codes_compared: int
    flip_rate: float
    worst_code_step: int
    lockstep_output_error: float
    timesteps: tuple[float, ...]


@dataclass(frozen=True)
class Description:
    """What an artifact is, read from the file itself. Sizes in bytes.

    size_parts: name -> bytes, adding up to `total_bytes`; undelegated: operator -> how often it
    runs outside of delegates.
    """

    total_bytes: int
    planned_memory_bytes: int
    delegates: int
    undelegated: Mapping[str, int]
    size_parts: Mapping[str, int] = field(default_factory=dict)


class Backend(Protocol):
    """One kind of artifact. `name` is its folder in a bundle, `artifact` the file name in it."""

    name: str
    artifact: str

    def export(self, model: DiffusionModel, table: QuantizationTable, path: Path, progress: Progress) -> Any:
        """Write the artifact to `path`; what comes back is for `check_parity`."""

    def check_parity(
        self, model: DiffusionModel, table: QuantizationTable, path: Path, exported: Any, probes: list[Probe]
    ) -> Parity:
        """Compare the artifact with the quantized PyTorch model; raises CheckFailed where they differ."""

    def load(self, path: Path) -> Denoiser:
        """The artifact, ready to run; raises CheckFailed when it is damaged."""

    def describe(self, path: Path) -> Description:
        """Sizes and delegation, from the file alone; raises CheckFailed when it is damaged."""
