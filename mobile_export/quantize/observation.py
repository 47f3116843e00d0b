"""Observation: what the layers of the float model see on its own sampling trajectories."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from correction.errors import UsageError
from mobile_export.quantize.activations import ActivationGrid, RangeObserver

_ROWS_PER_CALL = 160
MAX_CORRELATED_INPUTS = 8192  # of one output: half a gigabyte for a layer


@dataclass
class InputCorrelation:
    """Sum of x x^T over thinned input rows of one layer, and its diagonal, in float64; K = inputs of one output.

    A row holds what one output value is computed from: the receptive field of a convolution in the
    order of its weight, (I, k, k), or the input vector of a linear layer.

    total: (K, K), None where K is above MAX_CORRELATED_INPUTS and for convolutions in groups, whose
    weights are rounded plainly; energy: (K,), None for convolutions in groups; rows: how many were seen.
    """

    total: Tensor | None = None
    energy: Tensor | None = None
    rows: int = 0
    calls: int = 0

    def observe(self, layer: nn.Module, x: Tensor) -> None:
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            return
        x = x.detach()
        one = x[self.calls % len(x)][None]  # a different image each call
        self.calls += 1
        rows = _windows(layer, one) if isinstance(layer, nn.Conv2d) else _thinned(one.reshape(-1, one.shape[-1]))
        self.rows += len(rows)
        energy = rows.double().square().sum(0)
        self.energy = energy if self.energy is None else self.energy + energy
        if rows.shape[1] <= MAX_CORRELATED_INPUTS:
            product = (rows.T @ rows).double()
            self.total = product if self.total is None else self.total + product


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


def observe_layers(model: nn.Module, run: Callable[[], None]) -> dict[str, LayerObservation]:
    """Watch every Conv2d and Linear of `model`, by full layer name, while `run` calls it.

    `run` should call the model as it will be used: on the reference's own trajectories.
    Raises UsageError for a convolution whose border is not a number of zeros.
    """
    observations: dict[str, LayerObservation] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            if isinstance(module, nn.Conv2d) and (isinstance(module.padding, str) or module.padding_mode != "zeros"):
                raise UsageError(
                    f"{name}: padding {module.padding!r} with {module.padding_mode} is not supported; "
                    "supported: numbers, with zeros"
                )
            seen = observations[name] = LayerObservation()

            def hook(
                layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, seen: LayerObservation = seen
            ) -> None:
                seen.input.observe(inputs[0])
                seen.output.observe(output)
                seen.correlation.observe(layer, inputs[0])

            handles.append(module.register_forward_hook(hook))
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return observations
