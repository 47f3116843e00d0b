"""Padding of spatial axes by MIL's pad types."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from mobile_export.coreml_simulator.errors import ProgramError, UnsupportedError
from mobile_export.coreml_simulator.ops.registry import Ints


def paddings(
    pad_type: str,
    pad: Ints | None,
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[tuple[int, int]]:
    """(before, after) for each spatial axis.

    `same` pads so that ceil(size / stride) values come out, an odd one at the end; `same_lower` puts it at the start.

    Raises:
        ProgramError: `custom` without one pair for each axis.
        UnsupportedError: the pad type is unknown.
    """
    if pad_type == "valid":
        return [(0, 0)] * len(size)
    if pad_type == "custom":
        if pad is None or len(pad) != 2 * len(size):
            raise ProgramError(f"pad_type 'custom' needs {2 * len(size)} numbers in pad, got {pad}")
        return list(zip(pad[::2], pad[1::2], strict=True))
    if pad_type not in ("same", "same_lower"):
        raise UnsupportedError(f"pad_type {pad_type!r}; supported are custom, same, same_lower, valid")
    result = []
    for n, k, stride, dilation in zip(size, kernel, strides, dilations, strict=True):
        total = max(0, (-(-n // stride) - 1) * stride + (k - 1) * dilation + 1 - n)
        small, large = total // 2, total - total // 2
        result.append((small, large) if pad_type == "same" else (large, small))
    return result


def pad_spatial(x: Tensor, before_after: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """Pad the last axes of x, one pair for each; a negative number cuts."""
    if not any(before or after for before, after in before_after):
        return x
    return F.pad(x, [n for pair in reversed(before_after) for n in pair], value=value)
