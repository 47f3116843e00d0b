"""TensorType: element type and shape of a value in an ML program."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ElementType:
    """bits: as stored on disk; carrier: the torch type that holds the values here (sub-byte ones in a byte)."""

    name: str
    bits: int
    carrier: torch.dtype

    @property
    def is_float(self) -> bool:
        return self.carrier.is_floating_point


ELEMENTS = {
    element.name: element
    for element in (
        ElementType("bool", 8, torch.bool),
        ElementType("float16", 16, torch.float16),
        ElementType("float32", 32, torch.float32),
        ElementType("int4", 4, torch.int8),
        ElementType("int8", 8, torch.int8),
        ElementType("int16", 16, torch.int16),
        ElementType("int32", 32, torch.int32),
        ElementType("uint1", 1, torch.uint8),
        ElementType("uint2", 2, torch.uint8),
        ElementType("uint3", 3, torch.uint8),
        ElementType("uint4", 4, torch.uint8),
        ElementType("uint6", 6, torch.uint8),
        ElementType("uint8", 8, torch.uint8),
        ElementType("uint16", 16, torch.int32),
        ElementType("uint32", 32, torch.int64),
    )
}


@dataclass(frozen=True)
class TensorType:
    """Static shapes only: a phone's diffusion model has no others."""

    element: ElementType
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.element.name}{list(self.shape)}"
