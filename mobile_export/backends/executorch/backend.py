"""ExecuTorchBackend: `.pte` artifacts on the XNNPACK delegate."""

from __future__ import annotations

import copy
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from correction.errors import CheckFailed
from mobile_export.backends.backend import BackendOptions, Description, Parity, Probe
from mobile_export.backends.executorch.contents import missing_constants, read_contents
from mobile_export.backends.executorch.lockstep import TappedNetwork, channels_first, point_shapes
from mobile_export.backends.executorch.lowering import Lowered, lower
from mobile_export.backends.executorch.runtime import ExecuTorchDenoiser, LoadedProgram
from mobile_export.backends.executorch.support import require_supported
from mobile_export.backends.executorch.unet2d import ChannelsLastUNet
from mobile_export.backends.lockstep import Lockstep, follow
from mobile_export.benchmark import step_time_ratio
from mobile_export.models.diffusion_model import DiffusionModel
from mobile_export.progress import Progress
from mobile_export.quantize.quantized_unet import quantized_model
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import QuantizationTable
from mobile_export.quiet import quiet_third_parties

PROBES = 5  # steps at which parity is checked; each needs two runs and an eager one
LIMITS = {
    "worst_code_step": 1,
    "flip_rate": 1e-3,  # measured: about 5e-6; a wrong grid or a shifted tap flips most codes
    "lockstep_output_error": 1e-5,
}


@dataclass(frozen=True)
class ExportedPair:
    """The shipped program and its tapped twin; points: names of the twin's taps in order."""

    shipped: Lowered
    tapped: Lowered
    points: tuple[str, ...]


class ExecuTorchBackend:
    """See Backend. More than one worker lowers the shipped program and its tapped twin side by side."""

    name = "executorch"
    title = "ExecuTorch"
    artifact = "unet.pte"
    divided: str | None = None
    libraries: tuple[str, ...] = ("executorch",)
    batch = 1

    def __init__(self, options: BackendOptions | None = None) -> None:
        self.options = options or BackendOptions()

    def require_supported(self, recipe: Recipe) -> None:
        require_supported(recipe)

    def export(self, model: DiffusionModel, table: QuantizationTable, path: Path, progress: Progress) -> ExportedPair:
        self.require_supported(table.recipe)
        progress.stage(f"lower to ExecuTorch ({table.precision.name}), with a twin for parity")
        inputs = model.example_inputs()
        network = ChannelsLastUNet(model.unet, table.layers).eval()
        tapped = TappedNetwork(network)
        with torch.no_grad():
            tapped(*inputs)  # names the points
        points = tuple(tapped.points)
        if self.options.workers > 1:
            with ProcessPoolExecutor(1, get_context("spawn"), initializer=quiet_third_parties) as pool:
                # A copy: it is sent by another thread while this one traces the network, which marks its modules.
                twin = pool.submit(lower, copy.deepcopy(tapped), inputs)
                shipped = lower(network, inputs)
                progress.advance(1, 2)
                pair = ExportedPair(shipped, twin.result(), points)
        else:
            shipped = lower(network, inputs)
            progress.advance(1, 2)
            pair = ExportedPair(shipped, lower(tapped, inputs), points)
        progress.advance(2, 2)
        path.write_bytes(pair.shipped.data)
        return pair

    def check_parity(
        self, model: DiffusionModel, table: QuantizationTable, path: Path, exported: ExportedPair, probes: list[Probe]
    ) -> Parity:
        missing = missing_constants(read_contents(path.read_bytes(), str(path)), table)
        if missing:
            raise CheckFailed(f"{path} does not hold the quantized model's constants: {', '.join(missing[:5])}")
        shipped = LoadedProgram(path.read_bytes(), str(path))
        tapped = LoadedProgram(exported.tapped.data, "the tapped twin")
        twin = quantized_model(model.unet, table)
        total = Lockstep()
        probes = [probes[k] for k in np.linspace(0, len(probes) - 1, min(PROBES, len(probes))).round().astype(int)]
        for probe in probes:
            inputs = _tensors(probe)
            output, *taps = tapped(*inputs)
            if not torch.equal(shipped(*inputs)[0], output):
                raise CheckFailed(f"the tapped twin computes something else than {path} at timestep {probe.timestep}")
            conditioning = {} if probe.label is None else {"class_labels": inputs[2]}

            def run(inputs: tuple[Tensor, ...] = inputs, conditioning: dict[str, Tensor] = conditioning) -> Tensor:
                return twin(inputs[0], inputs[1], return_dict=False, **conditioning)[0]

            values = channels_first(dict(zip(exported.points, taps, strict=True)), point_shapes(twin, run))
            total += follow(twin, run, output, values)
        parity = Parity(
            weight_codes_equal=True,
            layers=len(table.layers),
            quantizations=total.points,
            activation_codes_compared=total.codes,
            flip_rate=total.flip_rate,
            worst_code_step=total.worst_step,
            lockstep_output_error=total.output_error,
            timesteps=tuple(probe.timestep for probe in probes),
            output_max_abs=total.output_max_abs,
            limits=LIMITS,
        )
        return parity.require()

    def finish(self, path: Path, probes: list[Probe]) -> Path:
        return path

    def load(self, path: Path) -> ExecuTorchDenoiser:
        return ExecuTorchDenoiser(path)

    def describe(self, path: Path) -> Description:
        contents = read_contents(path.read_bytes(), str(path))
        constants = sum(contents.constants.values())
        return Description(
            total_bytes=contents.total_bytes,
            planned_memory_bytes=contents.planned_memory_bytes,
            delegates=len(contents.delegates),
            undelegated=dict(sorted(Counter(contents.operator_calls).items())),
            operations=dict(sorted(Counter((*contents.delegates, *contents.operator_calls)).items())),
            size_parts={
                "weights, scales and biases": constants,
                "delegate graph": contents.delegate_bytes,
                "program and alignment": contents.total_bytes - constants - contents.delegate_bytes,
            },
        )

    def native(self, path: Path) -> None:
        """None: `load` is the runtime itself."""

    def step_time(self, path: Path, model: DiffusionModel) -> tuple[float, int] | None:
        return step_time_ratio(path, model)


def _tensors(probe: Probe) -> tuple[Tensor, ...]:
    inputs = (torch.from_numpy(probe.sample), torch.full((1,), probe.timestep))
    return inputs if probe.label is None else (*inputs, torch.tensor([probe.label]))
