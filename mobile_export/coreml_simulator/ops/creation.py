"""Operations that make tensors out of sizes and numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from mobile_export.coreml_simulator.ops.registry import Ints, op


@op("fill", exact=True, element="value")
def fill(value: Tensor | None = None, *, shape: Ints) -> Tensor:
    """value: a scalar, by default the float 0."""
    return torch.zeros(shape) if value is None else value.reshape(()).expand(shape)


@op("fill_like", exact=True, element="value")
def fill_like(ref_tensor: Tensor, value: Tensor | None = None) -> Tensor:
    """The shape of ref_tensor, the type of value."""
    return fill(value, shape=tuple(ref_tensor.shape))


@op("range_1d", element="start")
def range_1d(*, end: Tensor, start: Tensor, step: Tensor) -> Tensor:
    """start, start + step, ... as long as it is before end."""
    count = max(0, -int((start.double() - end.double()) // step.double()))
    return (start.double() + torch.arange(count) * step.double()).to(start.dtype)


@op("shape", exact=True)
def shape(x: Tensor) -> Tensor:
    return torch.tensor(x.shape, dtype=torch.int32)
