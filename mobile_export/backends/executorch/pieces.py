"""Pieces: how much of a large intermediate is computed at a time."""

from __future__ import annotations

from collections.abc import Iterator

# An intermediate of more values than this is computed in pieces: 128 MiB in float32. The images of an autoencoder's
# last blocks would need gigabytes for the views of one convolution. A piece costs another packed copy of the weights.
MOST_VALUES = 2**25


def pieces(rows: int, values: int) -> Iterator[tuple[int, int]]:
    """(first, how many) of `rows` rows of an intermediate with so many values in each; one piece where they are few."""
    most = max(1, MOST_VALUES // values)
    for first in range(0, rows, most):
        yield first, min(most, rows - first)
