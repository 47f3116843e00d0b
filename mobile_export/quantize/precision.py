"""Precision: how many bits the weights and the activations of a quantized model have."""

from __future__ import annotations

import re
from dataclasses import dataclass

from correction.errors import UsageError

PRECISIONS = ("w8a8", "w4a8")


@dataclass(frozen=True)
class Precision:
    """Bits of a quantized model, e.g. ``Precision.parse("w4a8")`` -> 4-bit weights, 8-bit activations.

    Weights are symmetric with one scale per output channel, activations asymmetric with one scale
    per tensor. Raises UsageError for a precision that no backend can lower.
    """

    weight_bits: int
    activation_bits: int

    def __post_init__(self) -> None:
        if self.name not in PRECISIONS:
            raise UsageError(f"unknown precision {self.name!r}: choose one of {', '.join(PRECISIONS)}")

    @property
    def name(self) -> str:
        return f"w{self.weight_bits}a{self.activation_bits}"

    @classmethod
    def parse(cls, name: str) -> Precision:
        match = re.fullmatch(r"w(\d+)a(\d+)", name)
        if match is None:
            raise UsageError(f"unknown precision {name!r}: choose one of {', '.join(PRECISIONS)}")
        return cls(int(match[1]), int(match[2]))
