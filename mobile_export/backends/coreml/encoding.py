"""Encoding: which stored form the codes of a layer take in an ML program.

| codes                          | iOS 18                          | iOS 17                            |
|--------------------------------|---------------------------------|-----------------------------------|
| linear, per channel, 8 bit     | blockwise_shift_scale, int8     | affine_dequantize, int8           |
| linear, per channel, 4 bit     | blockwise_shift_scale, int4     | one palette, scale after the layer|
| linear, per channel, other     | one palette of the levels, scale after the layer                    |
| linear, per block, 8 or 4 bit  | blockwise_shift_scale           | -                                 |
| palettes of channel groups     | lut_to_dense, one for each group| only with a single group          |
| one palette and channel scales | lut_to_dense, scale after the layer                                 |

A scale after the layer multiplies its output channels: y = (W' x) * scale + bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from correction.errors import UsageError
from mobile_export.quantize.palette import PaletteCodes
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
    if isinstance(weight, PaletteCodes):
        return _palette(name, weight, rank, ios)
    codes = _with_rank(weight.codes.numpy(), rank)
    if ios == "ios18" and weight.bits in (4, 8):
        return Affine(codes, _with_rank(weight.scale.numpy(), rank), weight.bits)
    if weight.scale.dim() > 1:
        raise UsageError(
            f"{name}: {weight.bits}-bit weights with a scale per block need 4 or 8 bits and iOS 18; "
            "choose the format channel or palette, or --ios ios18"
        )
    if weight.bits == 8:
        return Affine(codes, _with_rank(weight.scale.numpy(), rank), 8)
    _require_ios17_bits(name, weight.bits, ios)
    # The levels divided by a power of two lie in [-1, 1), so that float16 sums stay as small as the weights allow.
    half = 2 ** (weight.bits - 1)
    levels = np.arange(-half, half, dtype=np.float32)[None] / half
    return Palette((codes + half).astype(np.uint8), levels, weight.bits, weight.scale.numpy() * half)


def _palette(name: str, weight: PaletteCodes, rank: int, ios: str) -> Palette:
    palette = weight.palette.numpy()
    if ios == "ios17":
        _require_ios17_bits(name, weight.bits, ios)
        if len(palette) > 1:
            raise UsageError(
                f"{name}: iOS 17 has one palette for a whole layer, here are {len(palette)}; "
                "choose the format palette or channel, or --ios ios18"
            )
    scale: Tensor | None = weight.scale
    indices = _with_rank(weight.indices.numpy(), rank)
    return Palette(indices, palette, weight.bits, None if scale is None else scale.numpy())


def _require_ios17_bits(name: str, bits: int, ios: str) -> None:
    if ios == "ios17" and bits not in IOS17_PALETTE_BITS:
        allowed = ", ".join(map(str, IOS17_PALETTE_BITS))
        raise UsageError(f"{name}: iOS 17 has palettes of {allowed} bits, not {bits}; choose one or --ios ios18")


def _with_rank(array: np.ndarray, rank: int) -> np.ndarray:
    return array.reshape(*array.shape, *[1] * (rank - array.ndim))
