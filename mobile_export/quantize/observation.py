"""Observation: what the layers of the float model see on its own sampling trajectories."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from mobile_export.quantize.activations import ActivationGrid, RangeObserver

_ROWS_PER_CALL = 160


@dataclass
class InputCorrelation:
    """Sum of x x^T over thinned input rows of one layer: (K, K) float64, K = inputs of one output.

    A row holds what one output value is computed from: the receptive field of a convolution in the
    order of its weight, (I, k, k), or the input vector of a linear layer.
    """

    total: Tensor | None = None
    rows: int = 0
    calls: int = 0

    def observe(self, layer: nn.Module, x: Tensor) -> None:
        x = x.detach()
        one = x[self.calls % len(x)][None]  # a different image each call
        self.calls += 1
        if isinstance(layer, nn.Conv2d):
            padding = (int(layer.padding[0]), int(layer.padding[1]))
            rows = functional.unfold(one, layer.kernel_size, padding=padding, stride=layer.stride)[0].T
        else:
            rows = one.reshape(-1, one.shape[-1])
        rows = rows[:: max(1, len(rows) // _ROWS_PER_CALL)]
        product = (rows.T @ rows).double()
        self.total = product if self.total is None else self.total + product
        self.rows += len(rows)


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
    """
    observations: dict[str, LayerObservation] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
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
