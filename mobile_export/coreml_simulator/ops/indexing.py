"""Look-ups, sorting and one-hot vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mobile_export.coreml_simulator.ops.element import element_of
from mobile_export.coreml_simulator.ops.registry import op


@op("gather", exact=True, element="x")
def gather(x: Tensor, indices: Tensor, *, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    """x[:axis] + indices[batch_dims:] + x[axis + 1:]; the first batch_dims axes of both go in step.

    A negative index counts from the end. One outside of the axis is always an error: a phone's answer to it is
    undefined.
    """
    axis %= x.dim()
    shape = (*x.shape[:axis], *indices.shape[batch_dims:], *x.shape[axis + 1 :])
    index = _from_start(indices, x.shape[axis])
    if batch_dims == 0:
        return x.index_select(axis, index.reshape(-1)).reshape(shape)
    batch, before = math.prod(x.shape[:batch_dims]), math.prod(x.shape[batch_dims:axis])
    rows = x.reshape(batch, before, x.shape[axis], -1)
    index = index.reshape(batch, 1, -1, 1).expand(batch, before, -1, rows.shape[-1])
    return rows.gather(2, index).reshape(shape)


@op("gather_along_axis", exact=True, element="x")
def gather_along_axis(x: Tensor, indices: Tensor, *, axis: int = 0, validate_indices: bool = False) -> Tensor:
    """NumPy's take_along_axis."""
    return x.gather(axis, _from_start(indices, x.shape[axis]))


@op("gather_nd", exact=True, element="x")
def gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    """indices: [*B, *K, r], an r-fold index into x: [*B, *D]; the result is [*B, *K, *D[r:]]."""
    depth = indices.shape[-1]
    sizes, rest = x.shape[batch_dims : batch_dims + depth], x.shape[batch_dims + depth :]
    batch = math.prod(x.shape[:batch_dims])
    flat = torch.zeros((), dtype=torch.int64)
    for i, size in enumerate(sizes):
        flat = flat * size + _from_start(indices[..., i], size)
    rows = x.reshape(batch, math.prod(sizes), -1)
    index = flat.reshape(batch, -1, 1).expand(-1, -1, rows.shape[-1])
    return rows.gather(1, index).reshape((*indices.shape[:-1], *rest))


@op("one_hot", exact=True, element="on_value")
def one_hot(
    indices: Tensor,
    on_value: Tensor | None = None,
    off_value: Tensor | None = None,
    *,
    one_hot_vector_size: int,
    axis: int = -1,
) -> Tensor:
    """on_value where the new axis' index is the given one, off_value elsewhere; by default the integers 1 and 0."""
    on = torch.tensor(1, dtype=torch.int32) if on_value is None else on_value
    off = torch.zeros_like(on) if off_value is None else off_value
    axis %= indices.dim() + 1
    index = torch.arange(one_hot_vector_size).reshape((-1,) + (1,) * (indices.dim() - axis))
    return torch.where(indices.unsqueeze(axis) == index, on, off)


@op("argsort")
def argsort(x: Tensor, *, axis: int = -1, ascending: bool = False) -> Tensor:
    """Equal values stay in their order."""
    return torch.argsort(x, dim=axis, descending=not ascending, stable=True).to(torch.int32)


@op("topk", exact=True)
def topk(
    x: Tensor,
    *,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> Tensor | tuple[Tensor, Tensor]:
    """The k largest, or smallest if ascending, in order; all of them for k = -1."""
    count = x.shape[axis] if k == -1 else k
    values, indices = torch.sort(x, dim=axis, descending=not ascending, stable=True)
    values = values.narrow(axis, 0, count)
    if not return_indices:
        return values
    return values, indices.narrow(axis, 0, count).to(element_of(output_indices_dtype).carrier)


def _from_start(indices: Tensor, size: int) -> Tensor:
    indices = indices.long()
    return torch.where(indices < 0, indices + size, indices)
