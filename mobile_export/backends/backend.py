"""Backend: what turns a quantized model into an artifact of one kind, and runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from correction.errors import CheckFailed, UsageError

if TYPE_CHECKING:  # so that the command line and the report know these words without loading a framework
    from correction import Denoiser
    from mobile_export.models.diffusion_model import DiffusionModel
    from mobile_export.progress import Progress
    from mobile_export.quantize.recipe import Recipe
    from mobile_export.quantize.table import QuantizationTable

IOS_VERSIONS = ("ios17", "ios18")
COMPUTE_UNITS = ("all", "ane")
MAX_WORKERS = 64
CHUNK_MEGABYTES = 1000  # of weights: what the Neural Engine takes in one package on iOS
LIMITED = {  # what a parity may have a limit of, and its name for people
    "worst_code_step": "largest code step",
    "flip_rate": "flip rate",
    "lockstep_output_error": "error of the output",
    "output_max_abs": "largest difference of the outputs",
    "declared_error": "error of the output as declared",
    "declared_flip_rate": "flip rate as declared",
}


@dataclass(frozen=True)
class BackendOptions:
    """What a backend is told besides the network. Each takes what concerns it.

    workers: processes that lower side by side, 1 to 64 (more than 1 needs a main module that can be
    imported); ios: the oldest system that a Core ML artifact runs on; compute: the units that its
    layout is made for, "ane" for the Neural Engine; chunk_megabytes: weights of one Core ML package,
    above 0; a network with more becomes several. Raises UsageError for other values.
    """

    workers: int = 1
    ios: str = "ios18"
    compute: str = "all"
    chunk_megabytes: float = CHUNK_MEGABYTES

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= MAX_WORKERS:
            raise UsageError(f"workers must be 1 to {MAX_WORKERS}, got {self.workers}")
        if not self.chunk_megabytes > 0:
            raise UsageError(f"chunk megabytes must be above 0, got {self.chunk_megabytes}")
        for name, value, allowed in (("ios", self.ios, IOS_VERSIONS), ("compute", self.compute, COMPUTE_UNITS)):
            if value not in allowed:
                raise UsageError(f"unknown {name} {value!r}: choose one of {', '.join(allowed)}")


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
    The following are the lock-step comparison over `timesteps` (see backends/lockstep.py), in float32
    arithmetic; without quantized activations `quantizations`, codes and flips are 0, and the output
    error is that of the whole network. All errors are those of the worst timestep.

    lockstep_output_error: relative L2; output_max_abs: largest absolute difference of outputs.
    declared_error, declared_flip_rate: relative L2 error and share of flipped codes with the
    arithmetic that the artifact declares, float16; None where it declares float32.
    limits: field -> the largest value that is allowed, of this kind of artifact. Raises UsageError
    for a limit of something else than LIMITED.
    """

    weight_codes_equal: bool
    layers: int
    quantizations: int
    activation_codes_compared: int
    flip_rate: float
    worst_code_step: int
    lockstep_output_error: float
    timesteps: tuple[float, ...]
    output_max_abs: float | None = None
    declared_error: float | None = None
    declared_flip_rate: float | None = None
    limits: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.limits) - set(LIMITED))
        if unknown:
            raise UsageError(f"a parity has no limit of {', '.join(unknown)}: choose from {', '.join(LIMITED)}")

    def require(self) -> Parity:
        """Itself. Raises CheckFailed naming the first value beyond its limit."""
        if not self.weight_codes_equal:
            raise CheckFailed("conversion parity: the artifact does not hold the quantized model's constants")
        for name, (value, limit) in exceeded(asdict(self)).items():
            got = "was not measured" if value is None else f"is {value:.3g}"
            raise CheckFailed(f"conversion parity: {LIMITED[name]} {got}, at most {limit:g} is allowed")
        return self


def exceeded(parity: Mapping[str, Any]) -> dict[str, tuple[float | None, float]]:
    """What of a parity, as a mapping, is beyond its own limits: field -> (value, limit).

    A NaN and a value that was not measured are beyond every limit.
    """
    values = {name: (parity.get(name), limit) for name, limit in parity["limits"].items()}
    return {name: (value, limit) for name, (value, limit) in values.items() if value is None or not value <= limit}


@dataclass(frozen=True)
class Description:
    """What an artifact is, read from the file itself. Sizes in bytes.

    planned_memory_bytes, delegates: None where only the device decides it; undelegated: operator ->
    how often it runs outside of delegates; size_parts: name -> bytes, adding up to `total_bytes`;
    operations: kind -> how many the program has; notes: what else a user should know, as sentences.
    """

    total_bytes: int
    planned_memory_bytes: int | None
    delegates: int | None
    undelegated: Mapping[str, int]
    size_parts: Mapping[str, int] = field(default_factory=dict)
    operations: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Backend(Protocol):
    """One kind of artifact.

    name: its target and its folder in a bundle; title: for people; artifact: the file or folder name in it;
    divided: its name where it had to be divided, or None; libraries: distributions whose versions decide
    about the artifact; batch: how many samples one call of its denoiser takes well.
    """

    name: str
    title: str
    artifact: str
    divided: str | None
    libraries: tuple[str, ...]
    batch: int

    def require_supported(self, recipe: Recipe) -> None:
        """Raises UsageError, naming what it has, for the first choice of `recipe` that it cannot lower."""

    def export(self, model: DiffusionModel, table: QuantizationTable, path: Path, progress: Progress) -> Any:
        """Write the artifact to `path`, where nothing is; what comes back is for `check_parity`."""

    def check_parity(
        self, model: DiffusionModel, table: QuantizationTable, path: Path, exported: Any, probes: list[Probe]
    ) -> Parity:
        """Compare the artifact with the quantized PyTorch model; raises CheckFailed where they differ."""

    def finish(self, path: Path, probes: list[Probe]) -> Path:
        """What ships in place of the checked artifact at `path`: itself, or `divided` beside it."""

    def load(self, path: Path) -> Denoiser:
        """The artifact, ready to run; raises CheckFailed when it is damaged."""

    def describe(self, path: Path) -> Description:
        """Sizes and delegation, from the file alone; raises CheckFailed when it is damaged."""

    def native(self, path: Path) -> Denoiser | None:
        """The artifact on the platform's own runtime, where `load` emulates it and this machine has it; else None."""

    def step_time(self, path: Path, model: DiffusionModel) -> tuple[float, int] | None:
        """(time per step over the float32 artifact's, bytes of that one); None where an emulator runs it."""
