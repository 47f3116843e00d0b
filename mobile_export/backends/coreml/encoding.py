"""Encoding: which stored form the codes of a layer take in an ML program.

| codes                          | iOS 18                          | iOS 17                            |
|--------------------------------|---------------------------------|-----------------------------------|
| linear, per channel, 8 bit     | blockwise_shift_scale, int8     | affine_dequantize, int8           |
| linear, per channel, 4 bit     | blockwise_shift_scale, int4     | one palette, scale after the layer|
| linear, per channel, other     | one palette of the levels, scale after the layer                    |
| linear, per block, 8 or 4 bit  | blockwise_shift_scale           | -                                 |
| palettes of channel groups     | lut_to_dense, one for each group| -                                 |
| one palette and channel scales | lut_to_dense, scale after the layer                                 |

A scale after the layer multiplies its output channels: y = (W' x) * scale + bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from correction.errors import UsageError
from mobile_export.quantize.palette import PaletteCodes
from mobile_export.quantize.weight_format import WeightFormat
from mobile_export.quantize.weights import WeightCodes

IOS17_PALETTE_BITS = (1, 2, 4, 6, 8)


@dataclass(frozen=True)
class Affine:
    """weight = codes * scale. codes: int8 (O, ...) of `bits` bits; scale: float32, as many dimensions as codes."""

    codes: np.ndarray
    scale: np.ndarray
    bits: int


@dataclass(frozen=True)
class Palette:
    """weight = palette[group, index]. indices: uint8 (O, ...); palette: (G, 2^bits) float32.

    output_scale: (O,) float32 that multiplies the layer's output, or None.
    """

    indices: np.ndarray
    palette: np.ndarray
    bits: int
    output_scale: np.ndarray | None


Encoding = Affine | Palette


def encode(name: str, weight: WeightCodes | PaletteCodes, rank: int, ios: str) -> Encoding:
    """The stored form of one layer's codes. rank: dimensions of the weight in the program (a Linear may be a 1x1
    convolution there). Raises UsageError where that iOS has no form for them, naming the layer and what it has."""
    if ios == "ios17":
        require_ios17(name, weight.bits, weight.format)
    if isinstance(weight, PaletteCodes):
        indices, scale = _with_rank(weight.indices.numpy(), rank), weight.scale
        return Palette(indices, weight.palette.numpy(), weight.bits, None if scale is None else scale.numpy())
    codes = _with_rank(weight.codes.numpy(), rank)
    if weight.bits == 8 or (weight.bits == 4 and ios == "ios18"):
        return Affine(codes, _with_rank(weight.scale.numpy(), rank), weight.bits)
    # The levels divided by a power of two lie in [-1, 1), so that float16 sums stay as small as the weights allow.
    half = 2 ** (weight.bits - 1)
    levels = np.arange(-half, half, dtype=np.float32)[None] / half
    return Palette((codes + half).astype(np.uint8), levels, weight.bits, weight.scale.numpy() * half)


def require_ios17(name: str, bits: int, format: WeightFormat) -> None:
    """Raises UsageError, naming the layer or precision, for weights without a form on iOS 17."""
    if format.kind == "block":
        raise UsageError(f"{name}: iOS 17 has no scale per block; choose the format channel or palette, or --ios ios18")
    if format.kind == "palette" and format.size is not None:
        raise UsageError(
            f"{name}: iOS 17 has one palette for a whole layer, not one for {format.size} output channels; "
            "choose the format palette or channel, or --ios ios18"
        )
    if bits not in IOS17_PALETTE_BITS:
        allowed = ", ".join(map(str, IOS17_PALETTE_BITS))
        raise UsageError(f"{name}: iOS 17 has palettes of {allowed} bits, not {bits}; choose one or --ios ios18")


def _with_rank(array: np.ndarray, rank: int) -> np.ndarray:
    return array.reshape(*array.shape, *[1] * (rank - array.ndim))
