"""Backend: what turns a quantized model into an artifact of one kind, and runs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from correction.errors import CheckFailed, UsageError

if TYPE_CHECKING:  # so that the command line and the report know these words without loading a framework
    from torch import Tensor

    from mobile_export.backends.artifact import Artifact
    from mobile_export.models.component import Component, Port, Signature
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
    "free_running_error": "difference of the outputs, each on its own",
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
    """Inputs of one call of a component, from its real use, by name, batch 1; timestep: a UNet's, for the record."""

    inputs: Mapping[str, np.ndarray]
    timestep: float | None = None

    def tensors(self, ports: Iterable[Port]) -> dict[str, Tensor]:
        """The inputs in the order and with the types of `ports`."""
        import torch

        from mobile_export.models.component import TYPES

        arrays = {port: np.ascontiguousarray(self.inputs[port.name]) for port in ports}
        return {port.name: torch.from_numpy(array).to(TYPES[port.type]) for port, array in arrays.items()}


def timesteps(probes: Iterable[Probe]) -> tuple[float, ...]:
    """Those of the probes that have one."""
    return tuple(probe.timestep for probe in probes if probe.timestep is not None)


@dataclass(frozen=True)
class Parity:
    """Conversion parity of one artifact: number 1 of the three.

    weight_codes_equal: every layer's stored codes, scales and biases are the table's, byte for byte.
    The following are the lock-step comparison over `timesteps` (see backends/lockstep.py), in float32
    arithmetic; without quantized activations `quantizations`, codes and flips are 0, and the output
    error is that of the whole network. All errors are those of the worst timestep.

    timesteps: those of the probes, none for a component that takes no timestep.
    lockstep_output_error: relative L2; output_max_abs: largest absolute difference of outputs.
    declared_error, declared_flip_rate: relative L2 error and share of flipped codes with the
    arithmetic that the artifact declares, float16; None where it declares float32.
    compared_at: input -> shape in the lock-step comparison, where that is not the artifact's own, for networks with too
    many values; then free_running_error is the relative L2 difference of the outputs at the artifact's own size, where
    one flipped rounding grows to percents. None otherwise.
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
    compared_at: Mapping[str, list[int]] | None = None
    free_running_error: float | None = None
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

    name: its target and its folder in a bundle; title: for people; suffix: of its artifacts' names; divided: of the
    name of one that had to be divided, or None; libraries: distributions whose versions decide about the artifact;
    batch: how many samples one call of its denoiser takes well; activations: which of a recipe's kinds of 8-bit ranges
    it has, the one it takes in place of others first.
    """

    name: str
    title: str
    suffix: str
    divided: str | None
    libraries: tuple[str, ...]
    batch: int
    activations: tuple[str, ...]

    def require_supported(self, recipe: Recipe) -> None:
        """Raises UsageError, naming what it has, for the first choice of `recipe` that it cannot lower."""

    def signature(self, component: Component) -> Signature:
        """What the component's artifact takes and gives."""

    def export(self, component: Component, table: QuantizationTable, path: Path, progress: Progress) -> Any:
        """Write the artifact to `path`, where nothing is; what comes back is for `check_parity`.

        Raises UsageError for a network that it has no form of.
        """

    def check_parity(
        self, component: Component, table: QuantizationTable, path: Path, exported: Any, probes: list[Probe]
    ) -> Parity:
        """Compare the artifact with the quantized PyTorch model; raises CheckFailed where they differ."""

    def finish(self, component: Component, path: Path, probes: list[Probe]) -> Path:
        """What ships in place of the checked artifact at `path`: itself, or a folder of several beside it."""

    def load(self, path: Path, signature: Signature) -> Artifact:
        """The artifact, ready to run; raises CheckFailed when it is damaged or has another signature."""

    def describe(self, path: Path) -> Description:
        """Sizes and delegation, from the file alone; raises CheckFailed when it is damaged."""

    def native(self, path: Path, signature: Signature) -> Artifact | None:
        """The artifact on the platform's own runtime, where `load` emulates it and this machine has it; else None."""

    def step_time(self, path: Path, component: Component) -> tuple[float, int] | None:
        """(time per call over the float32 artifact's, bytes of that one); None where an emulator runs it."""
