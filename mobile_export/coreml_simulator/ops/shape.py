"""Operations that move values and compute none."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mobile_export.coreml_simulator.errors import ProgramError
from mobile_export.coreml_simulator.ops.registry import Bools, Ints, op


@op("identity", exact=True, leads=True)
def identity(x: Tensor) -> Tensor:
    return x


@op("reshape", exact=True)
def reshape(x: Tensor, *, shape: Ints) -> Tensor:
    """A 0 stands for the dimension of x at the same place, counted from the right; -1 for what is left."""
    missing = len(shape) - x.dim()
    known = [1] * missing + list(x.shape) if missing > 0 else list(x.shape[-missing:])
    return x.reshape([k if n == 0 else n for n, k in zip(shape, known, strict=True)])


@op("expand_dims", exact=True)
def expand_dims(x: Tensor, *, axes: Ints) -> Tensor:
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@op("squeeze", exact=True)
def squeeze(x: Tensor, *, axes: Ints | None = None) -> Tensor:
    """Axes longer than 1 stay."""
    return x.squeeze(tuple(range(x.dim())) if axes is None else axes)


@op("flatten2d", exact=True)
def flatten2d(x: Tensor, *, axis: int = 1) -> Tensor:
    axis = axis % x.dim() if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@op("transpose", exact=True)
def transpose(x: Tensor, *, perm: Ints) -> Tensor:
    return x.permute(perm)


@op("reverse", exact=True)
def reverse(x: Tensor, *, axes: Ints | None = None) -> Tensor:
    return torch.flip(x, tuple(range(x.dim())) if axes is None else axes)


@op("tile", exact=True)
def tile(x: Tensor, *, reps: Ints) -> Tensor:
    return x.repeat(reps)


@op("concat", exact=True)
def concat(*values: Tensor, axis: int, interleave: bool = False) -> Tensor:
    """interleave: the first slices of all values, then the second ones, ...; scalars become a vector."""
    if values[0].dim() == 0:
        return torch.stack(values)
    if interleave:
        axis %= values[0].dim()
        return torch.stack(values, axis + 1).flatten(axis, axis + 1)
    return torch.cat(values, axis)


@op("stack", exact=True)
def stack(*values: Tensor, axis: int) -> Tensor:
    return torch.stack(values, axis)


@op("split", exact=True)
def split(
    x: Tensor, *, axis: int, num_splits: int | None = None, split_sizes: Ints | None = None
) -> tuple[Tensor, ...]:
    if split_sizes is not None:
        return torch.split(x, list(split_sizes), axis)
    if not num_splits or x.shape[axis] % num_splits:
        raise ProgramError(f"cannot split {x.shape[axis]} values into {num_splits} equal parts")
    return torch.split(x, x.shape[axis] // num_splits, axis)


@op("slice_by_size", exact=True)
def slice_by_size(x: Tensor, *, begin: Ints, size: Ints) -> Tensor:
    """size -1: all that is left."""
    ends = [n if s == -1 else b % n + s for b, s, n in zip(begin, size, x.shape, strict=True)]
    return x[tuple(slice(b % n, end) for b, end, n in zip(begin, ends, x.shape, strict=True))]


@op("slice_by_index", exact=True)
def slice_by_index(
    x: Tensor,
    *,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Tensor:
    """x[begin:end:stride] with Python's meaning, also of negative numbers.

    begin_mask, end_mask: leave that bound out. squeeze_mask: take the one element at `begin` and drop the axis.
    """
    ranges = index_ranges(x.shape, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    # Slices go upwards in PyTorch, so a downward one is taken upwards and flipped.
    upward = [r if r.step > 0 else r[::-1] for r in ranges]
    x = x[tuple(slice(r.start, r.stop, r.step) for r in upward)]
    downward = [axis for axis, r in enumerate(ranges) if r.step < 0]
    x = torch.flip(x, downward) if downward else x
    squeezed = tuple(axis for axis, one in enumerate(squeeze_mask or ()) if one)
    return x.squeeze(squeezed) if squeezed else x


@op("slice_update", exact=True)
def slice_update(
    x: Tensor,
    update: Tensor,
    *,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Tensor:
    """x with `update` in the place that slice_by_index would read."""
    ranges = index_ranges(x.shape, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    places = torch.zeros((), dtype=torch.int64)
    for r, n in zip(ranges, x.shape, strict=True):
        places = places[..., None] * n + torch.tensor(r, dtype=torch.int64)
    return x.reshape(-1).scatter(0, places.reshape(-1), update.reshape(-1)).reshape(x.shape)


def index_ranges(
    shape: Sequence[int],
    begin: Ints,
    end: Ints,
    stride: Ints | None,
    begin_mask: Bools | None,
    end_mask: Bools | None,
    squeeze_mask: Bools | None,
) -> list[range]:
    """The indices that a slice takes of each axis."""
    rank = len(shape)
    no = (False,) * rank
    columns = (begin, end, stride or (1,) * rank, begin_mask or no, end_mask or no, squeeze_mask or no)
    ranges = []
    for n, (first, last, step, from_start, to_end, one) in zip(shape, zip(*columns, strict=True), strict=True):
        if one:
            index = range(n)[0 if from_start else first]
            ranges.append(range(index, index + 1))
        else:
            ranges.append(range(n)[slice(None if from_start else first, None if to_end else last, step)])
    return ranges


@op("sliding_windows", exact=True)
def sliding_windows(x: Tensor, *, axis: int, size: int, stride: int = 1) -> Tensor:
    """[..., n, ...] -> [..., windows, size, ...]."""
    axis %= x.dim()
    return x.unfold(axis, size, stride).movedim(-1, axis + 1)


@op("band_part", exact=True)
def band_part(x: Tensor, *, lower: int = -1, upper: int = -1) -> Tensor:
    """Zero outside of a band of the last two axes; a negative number keeps that whole side."""
    row, column = torch.arange(x.shape[-2])[:, None], torch.arange(x.shape[-1])
    keep = torch.ones(x.shape[-2:], dtype=torch.bool)
    keep = keep if lower < 0 else keep & (row - column <= lower)
    keep = keep if upper < 0 else keep & (column - row <= upper)
    return torch.where(keep, x, torch.zeros_like(x))


@op("pixel_shuffle", exact=True)
def pixel_shuffle(x: Tensor, *, upscale_factor: int) -> Tensor:
    return F.pixel_shuffle(x, upscale_factor)


@op("pixel_unshuffle", exact=True)
def pixel_unshuffle(x: Tensor, *, downscale_factor: int) -> Tensor:
    return F.pixel_unshuffle(x, downscale_factor)


@op("depth_to_space", exact=True)
def depth_to_space(x: Tensor, *, block_size: int) -> Tensor:
    """As TensorFlow's: the place in the block is the slow part of the channel, where pixel_shuffle has it as fast."""
    n, c, h, w = x.shape
    blocks = x.reshape(n, block_size, block_size, c // block_size**2, h, w)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(n, c // block_size**2, h * block_size, w * block_size)


@op("space_to_depth", exact=True)
def space_to_depth(x: Tensor, *, block_size: int) -> Tensor:
    """The inverse of depth_to_space."""
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // block_size, block_size, w // block_size, block_size)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(n, c * block_size**2, h // block_size, w // block_size)
