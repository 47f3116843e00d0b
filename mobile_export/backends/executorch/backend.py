"""ExecuTorchBackend: `.pte` artifacts on the XNNPACK delegate."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from correction.errors import CheckFailed
from mobile_export.backends.backend import BackendOptions, Description, Parity, Probe, timesteps
from mobile_export.backends.executorch.contents import file_contents, missing_constants
from mobile_export.backends.executorch.lockstep import TappedNetwork, channels_first, point_shapes, tap_points
from mobile_export.backends.executorch.lowering import Lowered, lower
from mobile_export.backends.executorch.network import network_for
from mobile_export.backends.executorch.reduced import reduced_component, reduced_probes
from mobile_export.backends.executorch.runtime import ExecuTorchArtifact, LoadedProgram
from mobile_export.backends.executorch.support import activations_of, require_supported
from mobile_export.backends.lockstep import Lockstep, follow
from mobile_export.benchmark import step_time_ratio
from mobile_export.memory import release_memory
from mobile_export.models.component import Component, Port, Signature, call_network
from mobile_export.progress import Progress
from mobile_export.quantize.quantized_unet import quantized_model
from mobile_export.quantize.recipe import ACTIVATIONS, Recipe
from mobile_export.quantize.table import QuantizationTable
from mobile_export.quiet import quiet_third_parties

PROBES = 5  # steps at which parity is checked; each needs two runs and an eager one
TAPPED_BYTES = 2**29  # of values at quantizations in one run; beyond, parity is checked on smaller samples
FREE_RUNNING = 0.2  # one flipped rounding grows to percents; a wrong layout or border is as large as the output
LIMITS = {
    "worst_code_step": 1,
    "flip_rate": 1e-3,  # measured: about 5e-6; a wrong grid or a shifted tap flips most codes
    "lockstep_output_error": 1e-5,
}


@dataclass(frozen=True)
class ExportedPair:
    """The shipped program and its tapped twin, which is the same one, in its file alone, where nothing is tapped.

    points: names of the twin's taps in order; reduced: the smaller component that the twin is of, where the shipped
    one has too many values to tap, else None; twin: the file that the twin is in then, to be removed by who reads it.
    """

    shipped: Lowered
    tapped: Lowered
    points: tuple[str, ...]
    reduced: Component | None = None
    twin: Path | None = None

    def take_twin(self) -> LoadedProgram:
        """The twin, loaded; its file is gone then."""
        if self.twin is None:
            return LoadedProgram(self.tapped.data, "the tapped twin")
        program = LoadedProgram(self.twin, "the tapped twin")
        self.twin.unlink()
        return program


def _results(exported: ExportedPair, path: Path, given: Sequence[Mapping[str, Tensor]]) -> Iterator[list[Tensor]]:
    """The output and the taps for each of the inputs; the program is gone after the last.

    Without taps it is gone before the first: such results are small, and what runs next may need much memory itself.
    """
    if exported.points:
        tapped = exported.take_twin()
        yield from (tapped(*inputs.values()) for inputs in given)
    else:
        program = LoadedProgram(path, str(path))
        found = [program(*inputs.values()) for inputs in given]
        del program
        release_memory()
        yield from found


class ExecuTorchBackend:
    """See Backend. More than one worker lowers the shipped program and its tapped twin side by side."""

    name = "executorch"
    title = "ExecuTorch"
    suffix = ".pte"
    divided: str | None = None
    libraries: tuple[str, ...] = ("executorch",)
    batch = 1
    activations: tuple[str, ...] = ACTIVATIONS

    def __init__(self, options: BackendOptions | None = None) -> None:
        self.options = options or BackendOptions()

    def require_supported(self, recipe: Recipe) -> None:
        require_supported(recipe)

    def signature(self, component: Component) -> Signature:
        return Signature(tuple(Port.of(n, t) for n, t in component.inputs.items()), component.result)

    def export(self, component: Component, table: QuantizationTable, path: Path, progress: Progress) -> ExportedPair:
        self.require_supported(table.recipe)
        progress.stage(f"lower {component.name} to ExecuTorch ({table.precision.name}), with a twin for parity")
        table = activations_of(table)
        names = tuple(component.inputs)
        network = network_for(component.network, table.layers, names).eval()
        points, size = tap_points(network, component.inputs)
        reduced = reduced_component(component) if size > TAPPED_BYTES else None
        inputs = tuple(component.inputs.values())
        if reduced is not None:
            # One after the other: a network of this size is lowered twice in memory otherwise.
            shipped = lower(network, inputs, into=path)
            progress.advance(1, 2)
            del network  # its matrices are not the table's, but in another order
            smaller = TappedNetwork(network_for(reduced.network, table.layers, names).eval())
            twin_path = path.with_suffix(".tapped.pte")
            tapped = lower(smaller, tuple(reduced.inputs.values()), into=twin_path)
            pair = ExportedPair(shipped, tapped, points, reduced, twin_path)
        elif not points:
            shipped = lower(network, inputs, into=path)
            pair = ExportedPair(shipped, shipped, points)
        elif self.options.workers > 1:
            with ProcessPoolExecutor(1, get_context("spawn"), initializer=quiet_third_parties) as pool:
                # A copy: it is sent by another thread while this one traces the network, which marks its modules.
                twin = pool.submit(lower, copy.deepcopy(TappedNetwork(network)), inputs)
                shipped = lower(network, inputs)
                progress.advance(1, 2)
                pair = ExportedPair(shipped, twin.result(), points)
        else:
            shipped = lower(network, inputs)
            progress.advance(1, 2)
            pair = ExportedPair(shipped, lower(TappedNetwork(network), inputs), points)
        progress.advance(2, 2)
        if reduced is None and points:
            path.write_bytes(pair.shipped.data)
        return pair

    def check_parity(
        self, component: Component, table: QuantizationTable, path: Path, exported: ExportedPair, probes: list[Probe]
    ) -> Parity:
        release_memory()  # of what lowering left
        table = activations_of(table)
        missing = missing_constants(file_contents(path), table)
        if missing:
            raise CheckFailed(f"{path} does not hold the quantized model's constants: {', '.join(missing[:5])}")
        twin = quantized_model(component.network, table)
        total = Lockstep()
        probes = [probes[k] for k in np.linspace(0, len(probes) - 1, min(PROBES, len(probes))).round().astype(int)]
        compared = component if exported.reduced is None else exported.reduced
        signature = self.signature(compared)
        shipped = LoadedProgram(path, str(path)) if exported.reduced is None and exported.points else None
        followed = probes if exported.reduced is None else reduced_probes(probes, signature)
        given = [probe.tensors(signature.inputs) for probe in followed]
        for probe, inputs, (output, *taps) in zip(followed, given, _results(exported, path, given), strict=True):
            if shipped is not None and not torch.equal(shipped(*inputs.values())[0], output):
                raise CheckFailed(f"the tapped twin computes something else than {path} at timestep {probe.timestep}")

            def run(inputs: dict[str, Tensor] = inputs) -> Tensor:
                return call_network(twin, inputs)

            shapes = point_shapes(twin, run) if taps else {}
            values = channels_first(dict(zip(exported.points, taps, strict=True)), shapes)
            total += follow(twin, run, output, values)
        free = None if exported.reduced is None else self._free_running(component, twin, path, probes[-1])
        parity = Parity(
            weight_codes_equal=True,
            layers=len(table.layers),
            quantizations=total.points,
            activation_codes_compared=total.codes,
            flip_rate=total.flip_rate,
            worst_code_step=total.worst_step,
            lockstep_output_error=total.output_error,
            timesteps=timesteps(probes),
            output_max_abs=total.output_max_abs,
            compared_at={port.name: list(port.shape) for port in signature.inputs} if exported.reduced else None,
            free_running_error=free,
            limits=LIMITS if free is None else {**LIMITS, "free_running_error": FREE_RUNNING},
        )
        return parity.require()

    def _free_running(self, component: Component, twin: nn.Module, path: Path, probe: Probe) -> float:
        """Relative L2 difference of the shipped program and the quantized model, each on its own, for one probe."""
        inputs = probe.tensors(self.signature(component).inputs)
        with torch.no_grad():
            ours = call_network(twin, inputs).double()
        theirs = LoadedProgram(path, str(path))(*inputs.values())[0].double()
        return float((ours - theirs).norm() / theirs.norm().clamp_min(1e-30))

    def finish(self, component: Component, path: Path, probes: list[Probe]) -> Path:
        return path

    def load(self, path: Path, signature: Signature) -> ExecuTorchArtifact:
        return ExecuTorchArtifact(path, signature)

    def describe(self, path: Path) -> Description:
        contents = file_contents(path)
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

    def native(self, path: Path, signature: Signature) -> None:
        """None: `load` is the runtime itself."""

    def step_time(self, path: Path, component: Component) -> tuple[float, int] | None:
        return step_time_ratio(path, component)
