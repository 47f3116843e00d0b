"""Numbers that ship as float16: every scale and palette value is rounded before it is judged.

Core ML stores scales and palettes as float16. Rounding them here, once, gives every backend the same values.
Magnitudes below the smallest normal float16 are avoided: an engine may flush them to zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST, LARGEST = 2.0**-14, 65504.0  # the normal range of float16


def half_scale(scale: Tensor) -> Tensor:
    """The nearest positive normal float16, in the shape and type of `scale`; any shape, >= 0."""
    return scale.clamp(SMALLEST, LARGEST).half().to(scale.dtype)


def half_value(values: Tensor) -> Tensor:
    """The nearest float16 that is zero or normal, in the shape and type of `values`; any shape."""
    magnitude = torch.where(values.abs() < SMALLEST / 2, torch.zeros_like(values), half_scale(values.abs()))
    return magnitude * values.sign()


def is_half_scale(scale: Tensor) -> bool:
    """Whether all are positive normal float16 numbers."""
    return bool(torch.equal(half_scale(scale), scale))


def is_half_value(values: Tensor) -> bool:
    """Whether all are zero or normal float16 numbers."""
    return bool(torch.equal(half_value(values), values))
