"""Reductions over axes; without `axes` over all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mobile_export.coreml_simulator.ops.element import element_of
from mobile_export.coreml_simulator.ops.registry import Ints, op

Reduce = Callable[[Tensor, list[int], bool], Tensor]

REDUCTIONS: Mapping[str, Reduce] = {
    "reduce_l1_norm": lambda x, axes, keep: torch.sum(torch.abs(x), axes, keep),
    "reduce_l2_norm": lambda x, axes, keep: torch.sqrt(torch.sum(torch.square(x), axes, keep)),
    "reduce_log_sum": lambda x, axes, keep: torch.log(torch.sum(x, axes, keep)),
    "reduce_log_sum_exp": torch.logsumexp,
    "reduce_mean": torch.mean,
    "reduce_sum": lambda x, axes, keep: torch.sum(x, axes, keep, dtype=x.dtype),
    "reduce_sum_square": lambda x, axes, keep: torch.sum(torch.square(x), axes, keep, dtype=x.dtype),
}
EXACT_REDUCTIONS: Mapping[str, Reduce] = {"reduce_max": torch.amax, "reduce_min": torch.amin}


def _reduction(reduce: Reduce) -> Callable[..., Tensor]:
    def apply(x: Tensor, *, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
        return reduce(x, list(range(x.dim()) if axes is None else axes), keep_dims)

    return apply


for name, function in REDUCTIONS.items():
    op(name)(_reduction(function))
for name, function in EXACT_REDUCTIONS.items():
    op(name, exact=True)(_reduction(function))


@op("reduce_prod")
def reduce_prod(x: Tensor, *, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    for axis in sorted((a % x.dim() for a in (range(x.dim()) if axes is None else axes)), reverse=True):
        x = torch.prod(x, axis, keep_dims, dtype=x.dtype)
    return x


@op("reduce_argmax", element="output_dtype")
def reduce_argmax(x: Tensor, *, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:
    return torch.argmax(x, axis, keep_dims).to(element_of(output_dtype).carrier)


@op("reduce_argmin", element="output_dtype")
def reduce_argmin(x: Tensor, *, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:
    return torch.argmin(x, axis, keep_dims).to(element_of(output_dtype).carrier)


@op("cumsum")
def cumsum(x: Tensor, *, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    x = torch.flip(x, (axis,)) if reverse else x
    total = torch.cumsum(x, axis, dtype=x.dtype)
    if exclusive:
        zero = torch.zeros_like(x.narrow(axis, 0, 1))
        total = torch.cat((zero, total.narrow(axis, 0, x.shape[axis] - 1)), axis)
    return torch.flip(total, (axis,)) if reverse else total
