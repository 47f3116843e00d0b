"""Operations on each element by itself, with NumPy's broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mobile_export.coreml_simulator.ops.element import element_of
from mobile_export.coreml_simulator.ops.registry import op

Function = Callable[..., Tensor]

UNARY: Mapping[str, Function] = {
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tan": torch.tan,
}
EXACT_UNARY: Mapping[str, Function] = {
    "abs": torch.abs,
    "ceil": torch.ceil,
    "floor": torch.floor,
    "logical_not": torch.logical_not,
    "round": torch.round,  # half to even
    "sign": torch.sign,
}
BINARY: Mapping[str, Function] = {
    "add": torch.add,
    "floor_div": torch.floor_divide,
    "mod": torch.remainder,
    "mul": torch.mul,
    "pow": torch.pow,
    "real_div": torch.true_divide,
    "sub": torch.sub,
}
EXACT_BINARY: Mapping[str, Function] = {
    "equal": torch.eq,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "not_equal": torch.ne,
}


def _unary(function: Function) -> Function:
    def apply(x: Tensor) -> Tensor:
        return function(x)

    return apply


def _binary(function: Function) -> Function:
    def apply(x: Tensor, y: Tensor) -> Tensor:
        return function(x, y)

    return apply


for name, function in UNARY.items():
    op(name, leads=True)(_unary(function))
for name, function in EXACT_UNARY.items():
    op(name, leads=True, exact=True)(_unary(function))
for name, function in BINARY.items():
    op(name, leads=True)(_binary(function))
for name, function in EXACT_BINARY.items():
    op(name, leads=True, exact=True)(_binary(function))


@op("inverse", leads=True)
def inverse(x: Tensor, *, epsilon: float = 1e-4) -> Tensor:
    return torch.reciprocal(x + epsilon)


@op("log", leads=True)
def log(x: Tensor, *, epsilon: float = 1e-45) -> Tensor:
    return torch.log(x + epsilon)


@op("rsqrt", leads=True)
def rsqrt(x: Tensor, *, epsilon: float = 1e-12) -> Tensor:
    return torch.rsqrt(x + epsilon)


@op("clip", leads=True, exact=True)
def clip(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    return torch.clamp(x, alpha, beta)


@op("threshold", leads=True, exact=True)
def threshold(x: Tensor, *, alpha: float) -> Tensor:
    return torch.clamp(x, min=alpha).to(x.dtype)


@op("select", leads=True, exact=True)
def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(cond, a, b)


@op("cast", leads=True, element="dtype")
def cast(x: Tensor, *, dtype: str) -> Tensor:
    """Floats become integers by dropping the fraction; what does not fit wraps around, as in NumPy."""
    element = element_of(dtype)
    if element.is_float:
        return x.float()
    return (x.to(torch.int64) if x.is_floating_point() and element.name != "bool" else x).to(element.carrier)
