"""Parity of a package: its stored codes, then its program in lock-step with the quantized PyTorch model.

The package is read back from disk and run by the simulator twice: in float32 arithmetic, where it must be the
PyTorch model to float noise, and as it declares, where float16 rounding is all that may come on top.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from correction.errors import CheckFailed
from mobile_export.backends.backend import Parity
from mobile_export.backends.coreml.artifact import reported
from mobile_export.backends.coreml.layer_sites import layer_before, layer_sites
from mobile_export.backends.coreml.network import Convertible, half_constants
from mobile_export.backends.coreml.stored_codes import compare_codes
from mobile_export.backends.lockstep import Lockstep, follow
from mobile_export.coreml_simulator.package import read_package
from mobile_export.coreml_simulator.program import Program
from mobile_export.coreml_simulator.ranges import LARGEST, RangeRecorder, RangeReport
from mobile_export.coreml_simulator.simulator import Mode, Simulator
from mobile_export.quantize.observed_layer import observing
from mobile_export.quantize.table import LayerQuantization

LIMITS = {
    "flip_rate": 1e-4,  # measured: up to 4e-5, where values lie between two codes; a wrong grid flips most codes
    "worst_code_step": 1,
    "lockstep_output_error": 1e-5,
    "output_max_abs": 1e-5,
    "declared_error": 3e-3,
}
# A decoder is deep, with no connections past its depth: a random one of Stable Diffusion's size has 1.5e-5 and 3.4e-3.
# One of the 256 levels of its image is 8e-3.
IMAGE_LIMITS = {**LIMITS, "output_max_abs": 1e-4, "declared_error": 1e-2}
IMAGE = "image"


@dataclass(frozen=True)
class Case:
    """inputs: the package's inputs by name, in the order of the network's keywords; timestep: if any, for records."""

    inputs: Mapping[str, Tensor]
    timestep: float | None = None


def check_package(
    path: Path, quantized: nn.Module, layers: Mapping[str, LayerQuantization], cases: Iterable[Case], ios: str
) -> Parity:
    """Compare the package at `path` with the quantized PyTorch model; raises CheckFailed where they differ.

    quantized: what `quantized_model` made of the network, called with the cases' inputs by keyword.
    """
    with reported(path):
        program = read_package(path).program()
    stored = compare_codes(program, layers, ios)
    if stored.wrong:
        raise CheckFailed(f"{path} does not hold the quantized model's constants: {', '.join(stored.wrong[:5])}")
    with reported(path):
        return check_arithmetic(program, quantized, layers, cases).require()


def check_arithmetic(
    program: Program, quantized: nn.Module, layers: Mapping[str, LayerQuantization], cases: Iterable[Case]
) -> Parity:
    """The lock-step comparison alone, whatever the stored codes; nothing is required of the result yet.

    Raises CheckFailed naming the operation and its layer where a value does not fit into float16.
    """
    cases, twin, ranges = tuple(cases), half_constants(quantized), RangeRecorder(program)
    exact = _followed(program, "float32", twin, layers, cases, ranges)
    declared = _followed(program, "declared", twin, layers, cases, None)
    _require_range(program, layers, ranges.report())
    return Parity(
        weight_codes_equal=True,
        layers=len(layers),
        quantizations=exact.points,
        activation_codes_compared=exact.codes,
        flip_rate=exact.flip_rate,
        worst_code_step=exact.worst_step,
        lockstep_output_error=exact.output_error,
        timesteps=tuple(case.timestep for case in cases if case.timestep is not None),
        output_max_abs=exact.output_max_abs,
        declared_error=declared.output_error,
        declared_flip_rate=declared.flip_rate,
        limits=IMAGE_LIMITS if program.outputs == (IMAGE,) else LIMITS,
    )


def _followed(
    program: Program,
    mode: Mode,
    twin: nn.Module,
    layers: Mapping[str, LayerQuantization],
    cases: Iterable[Case],
    hook: RangeRecorder | None,
) -> Lockstep:
    """In one arithmetic: a simulator has all weights in float32, which two at a time would double."""
    simulator, points, total = Simulator(program, mode), _points(program, layers), Lockstep()
    for case in cases:
        shapes = _shapes(twin, case)
        values = simulator(case.inputs, watch=tuple(set(points.values())), hook=hook)
        taps = {point: _in_layout(values[name].float(), shapes[point]) for point, name in points.items()}
        (output,) = (values[name] for name in program.outputs)
        total += follow(twin, partial(_run, twin, case), output.float(), taps)
    return total


def _require_range(program: Program, layers: Mapping[str, LayerQuantization], report: RangeReport) -> None:
    beyond = [value for value in report.values if value.overflowed or value.undefined]
    if not beyond:
        return
    order = {value.name: k for k, op in enumerate(program.operations) for value in op.outputs}
    first = min(beyond, key=lambda value: order[value.name])  # where it begins
    layer = layer_before(program, layers, first.name)
    where = f", after layer {layer}" if layer else ""
    what = "is not a number" if first.undefined else f"reaches {first.largest:.4g}"
    raise CheckFailed(
        f"{len(beyond)} values do not fit into float16 (largest {LARGEST:g}): {first.operation} {first.name}{where}, "
        f"{what}; scale the network down or choose smaller inputs"
    )


def _points(program: Program, layers: Mapping[str, LayerQuantization]) -> dict[str, str]:
    """Lock-step point ("<layer>.input") -> name of the value that goes onto that grid.

    A layer without grids may stand next to a grid all the same: that of the layer before it or behind.
    """
    points = {}
    for layer, site in layer_sites(program, layers).items():
        own = layers[layer]
        for end, op, grid in (("input", site.quantize_in, own.input), ("output", site.quantize_out, own.output)):
            if op is not None and grid is not None:
                points[f"{layer}.{end}"] = op.inputs["input"][0]
    return points


def _run(twin: nn.Module, case: Case) -> Tensor:
    return Convertible(twin, tuple(case.inputs))(*case.inputs.values())


def _shapes(twin: nn.Module, case: Case) -> dict[str, torch.Size]:
    """Shape of the value at each point of the quantized PyTorch model."""
    shapes = {}

    def record(point: str, _grid: nn.Module, value: Tensor, rounded: Tensor) -> Tensor:
        shapes[point] = value.shape
        return rounded

    with torch.no_grad(), observing(twin, record):
        _run(twin, case)
    return shapes


def _in_layout(value: Tensor, shape: torch.Size) -> Tensor:
    """A value of the package in PyTorch's layout: a Linear that became a 1x1 convolution has its channels second."""
    if value.dim() == 4 and len(shape) < 4:
        value = value.flatten(2).transpose(1, 2)  # (1, C, 1, S) -> (1, S, C)
    return value.reshape(shape) if value.numel() == shape.numel() else value
