"""Packing: integers of 1, 2, 3, 4, 6 or 8 bits in bytes, as Core ML stores them.

Element i takes the bits [i * width, (i + 1) * width) of the stream, bit 0 being the least significant bit of
byte 0; elements of 3 and 6 bits may straddle two bytes. The last byte is filled up with zeros.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

WIDTHS = (1, 2, 3, 4, 6, 8)  # bits of an element


def packed_size(count: int, width: int) -> int:
    """Bytes that `count` elements of `width` bits take."""
    return -(-count * width // 8)


def unpack(data: NDArray[np.uint8], width: int, count: int) -> NDArray[np.uint8]:
    """The first `count` elements of `data`, [bytes] uint8, as [count] uint8 in [0, 2**width).

    Raises:
        ValueError: `data` does not have the size of `count` elements, or `width` is not one of WIDTHS.
    """
    length, elements, word = _group(width)
    if data.dtype != np.uint8 or data.shape != (packed_size(count, width),):
        raise ValueError(
            f"{count} elements of {width} bits take {packed_size(count, width)} bytes of uint8, "
            f"got {data.dtype} of shape {list(data.shape)}"
        )
    groups = -(-len(data) // length)
    if len(data) != groups * length:
        data = np.concatenate([data, np.zeros(groups * length - len(data), np.uint8)])
    words = np.zeros(groups, word)
    for i, column in enumerate(data.reshape(groups, length).T):
        words |= column.astype(word) << word(8 * i)
    result = np.empty((groups, elements), np.uint8)
    for i in range(elements):
        result[:, i] = (words >> word(width * i)) & word(2**width - 1)
    return result.reshape(-1)[:count]


def pack(values: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """The bytes of `values`, [count] uint8 in [0, 2**width); the inverse of `unpack`.

    Raises:
        ValueError: a value does not fit into `width` bits, or `width` is not one of WIDTHS.
    """
    length, elements, word = _group(width)
    if values.dtype != np.uint8 or values.ndim != 1:
        raise ValueError(f"values must be uint8 of one dimension, got {values.dtype} of shape {list(values.shape)}")
    if values.size and int(values.max()) >= 2**width:
        raise ValueError(f"values of {width} bits are below {2**width}, got {values.max()}")
    groups = -(-len(values) // elements)
    rows = np.zeros((groups, elements), word)
    rows.reshape(-1)[: len(values)] = values
    words = np.zeros(groups, word)
    for i, column in enumerate(rows.T):
        words |= column << word(width * i)
    data = np.stack([(words >> word(8 * i)).astype(np.uint8) for i in range(length)], axis=1)
    return data.reshape(-1)[: packed_size(len(values), width)]


def _group(width: int) -> tuple[int, int, type[np.unsignedinteger]]:
    """The shortest run of whole bytes that holds whole elements: its bytes, its elements, an integer that holds it."""
    if width not in WIDTHS:
        raise ValueError(f"an element has {', '.join(map(str, WIDTHS))} bits, got {width}")
    bits = math.lcm(width, 8)
    return bits // 8, bits // width, np.uint8 if bits == 8 else np.uint32
