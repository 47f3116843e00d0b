"""Observation: what the layers of the float model see on its own sampling trajectories."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from correction.errors import UsageError
from mobile_export.quantize.activations import ActivationGrid, RangeObserver
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.rounding import BYTES_PER_ENTRY

_ROWS_PER_CALL = 160
LEAST_MEMORY, MOST_MEMORY = 2**28, 2**30  # bytes for the correlations of all layers together


@dataclass
class InputCorrelation:
    """Sum of x x^T over thinned input rows of one layer, and its diagonal; K = inputs of one output.

    A row holds what one output value is computed from: the receptive field of a convolution in the
    order of its weight, (I, k, k), or the input vector of a linear layer.

    total: (G, K / G, K / G) float32, of G groups of consecutive inputs, each with itself; None where it was not asked
    for. energy: (K,) float64, None for convolutions in groups, which have no one correlation; rows: how many were seen.
    """

    total: Tensor | None = None
    energy: Tensor | None = None
    rows: int = 0
    calls: int = 0

    def observe(self, layer: nn.Module, x: Tensor, groups: int) -> None:
        """x: the layer's input; groups: of the inputs, 0 for their energy alone. Nothing of convolutions in groups."""
        if not _correlated(layer):
            return
        x = x.detach()
        one = x[self.calls % len(x)][None]  # a different image each call
        self.calls += 1
        rows = _windows(layer, one) if isinstance(layer, nn.Conv2d) else _thinned(one.reshape(-1, one.shape[-1]))
        self.rows += len(rows)
        energy = rows.double().square().sum(0)
        self.energy = energy if self.energy is None else self.energy + energy
        if groups:
            grouped = rows.reshape(len(rows), groups, -1).transpose(0, 1)
            if self.total is None:
                self.total = torch.zeros(groups, grouped.shape[-1], grouped.shape[-1])
            self.total.baddbmm_(grouped.mT, grouped)


def _correlated(layer: nn.Module) -> bool:
    return not (isinstance(layer, nn.Conv2d) and layer.groups > 1)


def _thinned(rows: Tensor) -> Tensor:
    return rows[:: max(1, len(rows) // _ROWS_PER_CALL)]


def _windows(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """(rows, I * k * k): thinned receptive fields of the outputs for x (1, I, H, W), in the order of the weight."""
    vertical, horizontal = (int(p) for p in layer.padding)
    windows = functional.pad(x, (horizontal, horizontal, vertical, vertical))[0]
    for axis, (kernel, stride, dilation) in enumerate(
        zip(layer.kernel_size, layer.stride, layer.dilation, strict=True), start=1
    ):
        windows = windows.unfold(axis, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
    _, height, width, *_ = windows.shape  # a view (I, H', W', k, k): only the chosen ones are copied
    chosen = _thinned(torch.arange(height * width))
    return windows[:, chosen // width, chosen % width].transpose(0, 1).flatten(1)


@dataclass
class LayerObservation:
    """Input and output ranges of a layer, and the correlation of its inputs."""

    input: RangeObserver = field(default_factory=RangeObserver)
    output: RangeObserver = field(default_factory=RangeObserver)
    correlation: InputCorrelation = field(default_factory=InputCorrelation)

    def grids(self) -> tuple[ActivationGrid, ActivationGrid]:
        return self.input.grid(), self.output.grid()


def observe_layers(
    model: nn.Module, run: Callable[[], object], recipe: Recipe | None = None, memory: int | None = None
) -> dict[str, LayerObservation]:
    """Watch every Conv2d and Linear of `model`, by full layer name, while `run` calls it.

    `run` should call the model as it will be used: on the reference's own trajectories.
    recipe: nothing is kept but what it needs; None for everything. memory: bytes for correlations, as
    `input_groups` uses them; `correlation_memory` of the model by default; with 0 all weights are rounded plainly.
    Raises UsageError for a convolution whose border is not a number of zeros.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    for name, layer in layers.items():
        if isinstance(layer, nn.Conv2d) and (isinstance(layer.padding, str) or layer.padding_mode != "zeros"):
            raise UsageError(
                f"{name}: padding {layer.padding!r} with {layer.padding_mode} is not supported; "
                "supported: numbers, with zeros"
            )
    if recipe is not None:
        layers = {name: layer for name, layer in layers.items() if recipe.layer(name).bits is not None}
    asked = {name for name in layers if recipe is None or recipe.looks_at_inputs(recipe.layer(name).bits)}
    shapes = {name: tuple(layers[name].weight.shape[1:]) for name in asked if _correlated(layers[name])}
    groups = input_groups(shapes, correlation_memory(model) if memory is None else memory)
    observations = {name: LayerObservation() for name in layers}
    handles = [
        layer.register_forward_hook(_hook(observations[name], *_kept(name, recipe), groups.get(name, 0)))
        for name, layer in layers.items()
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return observations


def correlation_memory(model: nn.Module) -> int:
    """Bytes for the correlations of all layers: half as many as the float32 weights have, from 256 MiB to 1 GiB."""
    return min(max(2 * sum(weight.numel() for weight in model.parameters()), LEAST_MEMORY), MOST_MEMORY)


def input_groups(shapes: Mapping[str, tuple[int, ...]], memory: int) -> dict[str, int]:
    """Into how many groups the inputs of each layer are divided, so that `memory` bytes hold all correlations.

    shapes: (I, ...) of one output's weights by full layer name. The widest group is as wide as the memory allows,
    for the sum of all and for the work on any one; a group has whole input channels. Empty where not even
    single channels fit.
    """
    widest = math.isqrt(memory // BYTES_PER_ENTRY)
    while widest > 0:
        groups = {name: _fewest_groups(shape, widest) for name, shape in shapes.items()}
        if all(groups.values()) and sum(4 * math.prod(shapes[n]) ** 2 // g for n, g in groups.items()) <= memory:
            return groups
        widest = widest * 15 // 16
    return {}


def _fewest_groups(shape: tuple[int, ...], widest: int) -> int:
    """Equal groups of channels with at most `widest` inputs each; 0 where one channel has more."""
    channels, taps = shape[0], math.prod(shape[1:])
    return next((g for g in range(1, channels + 1) if channels % g == 0 and channels // g * taps <= widest), 0)


def _kept(name: str, recipe: Recipe | None) -> tuple[bool, bool]:
    """Whether the recipe needs the ranges of a layer, and the energies of its inputs."""
    if recipe is None:
        return True, True
    layer = recipe.layer(name)
    rounded = not (recipe.precision.weight_only or layer.float_inputs)
    return rounded, layer.format is not None and layer.format.kind == "palette"


def _hook(seen: LayerObservation, ranges: bool, energy: bool, groups: int) -> Callable[..., None]:
    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if ranges:
            seen.input.observe(inputs[0])
            seen.output.observe(output)
        if energy or groups:
            seen.correlation.observe(layer, inputs[0], groups)

    return hook
