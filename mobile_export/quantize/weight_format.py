"""WeightFormat: how the levels of a layer's weights are laid out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from correction.errors import UsageError

WEIGHT_BITS = (1, 2, 3, 4, 6, 8)
_BITS: Mapping[str, tuple[int, ...]] = {
    # One bit of signed linear codes would be {-1, 0}, which is no use for weights of both signs: palettes have it.
    "channel": (2, 3, 4, 6, 8),
    "block": (4, 8),
    "palette": WEIGHT_BITS,
}
_KNOWN = "channel, block32, palette16 or palette (the numbers may be 1 to 65536)"
_MAX_SIZE = 65536


@dataclass(frozen=True)
class WeightFormat:
    """kind "channel": value = code * scale, one scale per output channel.
    kind "block": the same, one scale per output channel and `size` input channels.
    kind "palette" with a size: value = palette[index], one table for each `size` output channels.
    kind "palette" without: value = palette[index] * scale, one table for the layer, one scale per output channel.

    ``WeightFormat.parse("palette16")`` is the third of them. Raises UsageError for what does not exist.
    """

    kind: str
    size: int | None = None

    def __post_init__(self) -> None:
        sized = {"channel": (False,), "block": (True,), "palette": (True, False)}
        size = 1 if self.size is None else self.size
        if (self.size is not None) not in sized.get(self.kind, ()) or not 1 <= size <= _MAX_SIZE:
            raise UsageError(f"unknown weight format {self.name!r}: choose {_KNOWN}")

    @property
    def name(self) -> str:
        return self.kind if self.size is None else f"{self.kind}{self.size}"

    @property
    def bits(self) -> tuple[int, ...]:
        """The weight bits that this format can have."""
        return _BITS[self.kind]

    @classmethod
    def parse(cls, name: str) -> WeightFormat:
        match = re.fullmatch(r"(channel|block|palette)([1-9]\d{0,4})?", name)
        if match is None:
            raise UsageError(f"unknown weight format {name!r}: choose {_KNOWN}")
        return cls(match[1], None if match[2] is None else int(match[2]))

    @classmethod
    def default(cls, bits: int) -> WeightFormat:
        """Linear codes at 8 and 4 bits, which both targets have; at 6, 3, 2 and 1 the palette that loses least."""
        return cls("channel" if bits in (4, 8) else "palette")

    def require_bits(self, bits: int) -> None:
        """Raises UsageError unless this format can have weights of so many bits."""
        if bits not in self.bits:
            allowed = ", ".join(map(str, self.bits))
            raise UsageError(f"weight format {self.name!r} has no {bits}-bit weights: it has {allowed} bits")

    def fitted(self, outputs: int, inputs: int) -> WeightFormat:
        """The format that a layer of this shape takes; inputs: of one group of a convolution.

        Blocks that do not divide the inputs become one scale per output channel; groups of output
        channels shrink to a size that divides them.
        """
        if self.kind == "block" and self.size is not None and inputs % self.size:
            return WeightFormat("channel")
        if self.kind == "palette" and self.size is not None:
            return WeightFormat("palette", math.gcd(self.size, outputs))
        return self
