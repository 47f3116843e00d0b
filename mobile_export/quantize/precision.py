"""Precision: how many bits the weights and the activations of a quantized model have."""

from __future__ import annotations

import re
from dataclasses import dataclass

from correction.errors import UsageError

PRECISIONS = ("w8a8", "w4a8", "w8a16", "w6a16", "w4a16", "w3a16", "w2a16", "w1a16")


@dataclass(frozen=True)
class Precision:
    """Bits of a quantized model, e.g. ``Precision.parse("w4a8")`` -> 4-bit weights, 8-bit activations.

    With 16 activation bits only the weights are quantized and activations stay floating point; with 8
    they are on asymmetric grids, one scale per tensor. Raises UsageError for a name that is not in PRECISIONS.
    """

    weight_bits: int
    activation_bits: int

    def __post_init__(self) -> None:
        if self.name not in PRECISIONS:
            raise UsageError(f"unknown precision {self.name!r}: choose one of {', '.join(PRECISIONS)}")

    @property
    def name(self) -> str:
        return f"w{self.weight_bits}a{self.activation_bits}"

    @property
    def weight_only(self) -> bool:
        """Whether activations stay floating point."""
        return self.activation_bits == 16

    @classmethod
    def parse(cls, name: str) -> Precision:
        match = re.fullmatch(r"w(\d{1,2})a(\d{1,2})", name)
        if match is None or f"w{int(match[1])}a{int(match[2])}" != name:
            raise UsageError(f"unknown precision {name!r}: choose one of {', '.join(PRECISIONS)}")
        return cls(int(match[1]), int(match[2]))
