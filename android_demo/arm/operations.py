"""Operations: each kind of operation of our networks with nothing around it, to be run on two processors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mobile_export.backends.executorch.dynamic_layers import DynamicProduct
from mobile_export.backends.executorch.layers import MatrixProduct
from mobile_export.quantize.activations import ActivationGrid
from mobile_export.quantize.table import LayerQuantization
from mobile_export.quantize.weights import quantize_linear

ROWS, INPUTS, OUTPUTS = 256, 288, 96  # a 3x3 convolution of 32 channels of a 16x16 image, as a product


@dataclass(frozen=True)
class Operation:
    """inputs: float32, what it is called with."""

    name: str
    function: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]


class Operations(nn.Module):
    """All of them in one network: forward(every input of every operation) -> an output for each."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        super().__init__()
        self.operations = operations
        self.networks = nn.ModuleList(o.function for o in operations if isinstance(o.function, nn.Module))

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return tuple(x for operation in self.operations for x in operation.inputs)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        waiting = iter(inputs)
        return tuple(o.function(*(next(waiting) for _ in o.inputs)) for o in self.operations)


def all_operations() -> Operations:
    """The same ones at every call."""
    return Operations(list(_operations()))


def _operations() -> Iterator[Operation]:
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    for rows, inputs, outputs in ((ROWS, INPUTS, OUTPUTS), (1, 128, 128), (ROWS, INPUTS, 3)):
        linear = nn.Linear(inputs, outputs)
        linear.weight.data, linear.bias.data = inputs**-0.5 * normal(outputs, inputs), normal(outputs)
        size = f"({rows}, {inputs}) by ({inputs}, {outputs})"
        for bits in (8, 4):
            grids = ActivationGrid.covering(-4.0, 4.0), ActivationGrid.covering(-5.0, 5.0)
            codes = LayerQuantization(quantize_linear(linear.weight.detach(), bits), linear.bias.detach(), *grids)
            name = f"int8 product with {bits}-bit weights, {size}"
            yield Operation(name, MatrixProduct(name, linear, codes), (normal(1, rows, inputs),))
            name = f"product of rows in ranges of their own with {bits}-bit weights, {size}"
            yield Operation(name, DynamicProduct(name, codes.with_dynamic_range()), (normal(1, rows, inputs),))
        name = f"float32 product, {size}"
        yield Operation(name, MatrixProduct(name, linear, None), (normal(1, rows, inputs),))
    for a, b in (((4, 64, 32), (4, 32, 64)), ((16, 1, 16), (16, 16, 32))):
        yield Operation(f"float32 batched product, {a} by {b}", torch.bmm, (normal(*a), normal(*b)))
    for name, function in (("sigmoid", torch.sigmoid), ("sin", torch.sin), ("cos", torch.cos)):
        yield Operation(name, function, (4 * normal(1, ROWS, INPUTS),))
    yield Operation("softmax", _softmax, (4 * normal(4, 64, 64),))
    yield Operation("rsqrt", torch.rsqrt, (normal(1, ROWS, INPUTS).square() + 1e-5,))
    for name, function in (("+", torch.add), ("-", torch.sub), ("×", torch.mul)):
        yield Operation(name, function, (normal(1, ROWS, INPUTS), normal(1, ROWS, INPUTS)))


def _softmax(x: Tensor) -> Tensor:
    return torch.softmax(x, -1)
