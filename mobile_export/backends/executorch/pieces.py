"""Pieces: how much of a large intermediate is computed at a time, and the whole from its pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

# An intermediate of more values than this is computed in pieces: 128 MiB in float32. The images of an autoencoder's
# last blocks would need gigabytes for the views of one convolution. A piece costs another packed copy of the weights.
MOST_VALUES = 2**25


AT_ONCE = 5  # tensors that XNNPACK concatenates in one operation


def part(x: Tensor, axis: int, first: int, count: int) -> Tensor:
    """`count` from `first`; x itself where that is all: the delegate takes no alias."""
    return x if count == x.shape[axis] else x.narrow(axis, first, count)


def joined(parts: Sequence[Tensor], axis: int, keep: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Concatenation in a tree of operations as the delegate has them; a part alone is itself, the delegate has no copy.

    Left to the delegate, many parts become a chain in which the first are copied again and again. keep: says of what is
    between two operations that it is on the parts' grid, where they have one.
    """
    parts = list(parts)
    while len(parts) > 1:
        groups = [parts[first : first + AT_ONCE] for first in range(0, len(parts), AT_ONCE)]
        parts = [torch.cat(group, axis) if len(group) > 1 else group[0] for group in groups]
        if keep is not None and len(parts) > 1:
            parts = [keep(each) for each in parts]
    return parts[0]


def pieces(rows: int, values: int) -> Iterator[tuple[int, int]]:
    """(first, how many) of `rows` rows of an intermediate with so many values in each; one piece where they are few."""
    most = max(1, MOST_VALUES // values)
    for first in range(0, rows, most):
        yield first, min(most, rows - first)
