"""Palette codes: each weight is an index into a small table of float16 values.

The tables are found by one-dimensional k-means (S. Lloyd, "Least squares quantization in PCM", IEEE
Trans. Inf. Theory 28(2), 1982), every weight counting as much as the mean square of the input that it is
multiplied with: that is the diagonal of the layer's output error (as in Kim et al., "SqueezeLLM:
Dense-and-Sparse Quantization", ICML 2024, arXiv 2306.07629, which takes the Fisher information instead).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from mobile_export.quantize.half import half_scale, half_value, is_half_scale, is_half_value
from mobile_export.quantize.weight_format import WeightFormat

_MAX_ITERATIONS = 300  # a fixed point is mostly reached much earlier
_REFITS = 3  # of the channels' scales, where a table is shared by all
_VALUES_AT_ONCE = 2**22  # 32 mebibytes in float64: what tables are fitted on, and what is looked up, at a time
_SMALLEST_ENERGY = 0.01  # of the mean: an input that was never seen active counts a little too


@dataclass(frozen=True)
class PaletteCodes:
    """Weights by index: value = palette[group of the output channel, index] (* scale[output channel]).

    indices: (O, ...) uint8 in [0, 2^bits - 1]; palette: (G, 2^bits) float32, sorted, each entry zero or a
    normal float16 number, group g being the output channels [g * O / G, (g + 1) * O / G); scale: (O,) float32,
    normal float16 numbers > 0, or None, in which case it is 1. The product is exact in float32.
    """

    indices: Tensor
    palette: Tensor
    scale: Tensor | None
    bits: int

    def __post_init__(self) -> None:
        WeightFormat("palette").require_bits(self.bits)
        if self.indices.dtype != torch.uint8 or int(self.indices.max()) >= 2**self.bits:
            raise ValueError(
                f"indices must be uint8 below {2**self.bits}, got {self.indices.dtype} up to {int(self.indices.max())}"
            )
        if len(self.indices) % len(self.palette) or self.palette.shape[1:] != (2**self.bits,):
            raise ValueError(
                f"palettes must be (G, {2**self.bits}), G a divisor of the {len(self.indices)} output channels, "
                f"got {tuple(self.palette.shape)}"
            )
        if self.palette.dtype != torch.float32 or not is_half_value(self.palette) or (self.palette.diff() < 0).any():
            raise ValueError("palettes must be float32, sorted, and each entry zero or a normal float16 number")
        if self.scale is not None and (
            self.scale.dtype != torch.float32
            or self.scale.shape != self.indices.shape[:1]
            or not is_half_scale(self.scale)
        ):
            raise ValueError(
                f"scales must be ({len(self.indices)},) float32 that hold normal float16 numbers, "
                f"got {tuple(self.scale.shape)} {self.scale.dtype}"
            )

    @property
    def format(self) -> WeightFormat:
        """Grouped without scales; one table for the layer with them."""
        return WeightFormat("palette", None if self.scale is not None else len(self.indices) // len(self.palette))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is stored, by name."""
        named = {"indices": self.indices, "palette": self.palette}
        return named if self.scale is None else {**named, "scale": self.scale}

    @property
    def stored_bits(self) -> int:
        """Bits of the indices, and of palettes and scales as float16."""
        numbers = self.palette.numel() + (0 if self.scale is None else self.scale.numel())
        return self.bits * self.indices.numel() + 16 * numbers

    @cached_property
    def levels(self) -> Tensor:
        """(O, 2^bits) float32, sorted: the values that weights of each output channel can have."""
        levels = self.palette.repeat_interleave(len(self.indices) // len(self.palette), 0)
        return levels if self.scale is None else levels * self.scale[:, None]

    @cached_property
    def _middles(self) -> Tensor:
        levels = self.levels.double()
        return ((levels[:, 1:] + levels[:, :-1]) / 2).contiguous()

    def dequantize(self) -> Tensor:
        """(O, ...) float32."""
        return self.levels.gather(1, self.indices.flatten(1).long()).reshape(self.indices.shape)

    def nearest(self, values: Tensor, column: int) -> tuple[Tensor, Tensor]:
        """Indices and their values, (O,) float64 each, nearest to `values`; the same in every column."""
        indices = torch.searchsorted(self._middles, values[:, None].contiguous())
        return indices[:, 0].double(), self.levels.gather(1, indices)[:, 0].double()

    def with_codes(self, codes: Tensor) -> Self:
        """Other indices, (O, K) of any type, into the same palettes."""
        return replace(self, indices=codes.to(torch.uint8).reshape(self.indices.shape))


def quantize_palette(weight: Tensor, bits: int, group: int | None = None, energy: Tensor | None = None) -> PaletteCodes:
    """Nearest entries of the palettes that weighted k-means finds. Solved in float64, the same each time.

    weight: (O, ...) float32, (O, K) when flattened; group: output channels that share a palette, a divisor
    of O, or None for one palette over the weights divided by a scale per output channel; energy: (K,) >= 0,
    sums of squares of the inputs, or None where all weigh alike. A palette of a whole layer with more than
    _VALUES_AT_ONCE weights is fitted on every seventh column of them.
    """
    rows = weight.detach().reshape(weight.shape[0], -1)
    importance = torch.ones(rows.shape[1], dtype=torch.float64) if energy is None else energy.double()
    importance = importance + _SMALLEST_ENERGY * importance.mean() + 1e-30
    importance = importance / importance.mean()
    if group is None:
        step = 1 if rows.numel() <= _VALUES_AT_ONCE else 7  # divides no usual kernel nor number of channels
        palette, scale = _shared_palette(rows[:, ::step].double(), importance[::step], 2**bits)
    else:
        palette, scale = _grouped_palettes(rows, importance, group, 2**bits), None
    palette = half_value(palette).float()
    start = PaletteCodes(torch.zeros(weight.shape, dtype=torch.uint8), palette, scale, bits)
    some = max(1, _VALUES_AT_ONCE // rows.shape[1])
    pieces = zip(start._middles.split(some), rows.split(some), strict=True)
    return start.with_codes(torch.cat([torch.searchsorted(m, r.double()).to(torch.uint8) for m, r in pieces]))


def _grouped_palettes(rows: Tensor, importance: Tensor, group: int, count: int) -> Tensor:
    """(O / group, count): one palette for each `group` rows, some groups at a time."""
    some = max(1, _VALUES_AT_ONCE // (group * rows.shape[1])) * group
    found = []
    for piece in rows.split(some):
        grouped = len(piece) // group, -1
        found.append(kmeans(piece.double().reshape(grouped), importance.expand_as(piece).reshape(grouped), count))
    return torch.cat(found)


def _shared_palette(rows: Tensor, importance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(1, count) palette and (O,) float32 scales by turns: the palette for the scales, the scales for the palette."""
    importance = importance.expand_as(rows)
    scale = half_scale(rows.abs().amax(1))
    for turn in range(_REFITS + 1):
        unit = rows / scale[:, None]
        palette = kmeans(unit.reshape(1, -1), (importance * scale[:, None].square()).reshape(1, -1), count)
        if turn == _REFITS:
            break
        middles = (palette[0, 1:] + palette[0, :-1]) / 2
        levels = palette[0][torch.bucketize(unit, middles)]
        fitted = (importance * rows * levels).sum(1) / (importance * levels.square()).sum(1).clamp_min(1e-30)
        scale = half_scale(torch.where(fitted > 0, fitted, scale))
    return palette, scale.float()


def kmeans(values: Tensor, importance: Tensor, count: int) -> Tensor:
    """The better of Lloyd's fixed points from two starts, quantiles and `_companded`: (G, count), sorted.

    values: (G, M) float64; importance: (G, M) float64 > 0. Groups are independent. Over sorted values a
    cluster is an interval and its sums are differences of running sums. An empty cluster keeps its level.
    """
    values, order = values.sort(1)
    importance = importance.gather(1, order)
    mass = functional.pad(importance.cumsum(1), (1, 0))
    moment = functional.pad((importance * values).cumsum(1), (1, 0))
    shares = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    quantiles = values[:, (shares * values.shape[1]).long()]
    (first, first_gain), (second, second_gain) = (
        _lloyd(values, mass, moment, start) for start in (quantiles, _companded(values, importance, shares))
    )
    return torch.where((second_gain > first_gain)[:, None], second, first).sort(1).values


def _companded(values: Tensor, importance: Tensor, shares: Tensor) -> Tensor:
    """(G, L) levels as dense as the cube root of the density of the values, (G, M) sorted: the best for many levels.

    P. F. Panter and W. Dite, "Quantization distortion in pulse-count modulation with nonuniform spacing
    of levels", Proc. IRE 39(1), 1951. The density between two neighbours is one over their distance.
    """
    if values.shape[1] == 1:
        return values.expand(-1, len(shares))
    gaps = values.diff()
    length = functional.pad((gaps.square() * importance[:, 1:]).pow(1 / 3).cumsum(1), (1, 0))
    wanted = length[:, -1:] * shares
    gap = torch.searchsorted(length, wanted).clamp(1, gaps.shape[1]) - 1
    before, after = length.gather(1, gap), length.gather(1, gap + 1)
    fraction = (wanted - before) / (after - before).clamp_min(1e-300)
    return values.gather(1, gap) + fraction * gaps.gather(1, gap)


def _lloyd(values: Tensor, mass: Tensor, moment: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """(G, count) levels, and (G,) how much less than the sum of squares of the values their squared error is."""
    groups, total = values.shape
    first, last = torch.zeros(groups, 1, dtype=torch.int64), torch.full((groups, 1), total)
    edges = first
    for _ in range(_MAX_ITERATIONS):
        before = edges
        middles = ((levels[:, 1:] + levels[:, :-1]) / 2).contiguous()
        edges = torch.cat([first, torch.searchsorted(values, middles), last], 1)
        if torch.equal(edges, before):
            break
        weight, sums = mass.gather(1, edges).diff(), moment.gather(1, edges).diff()
        levels = torch.where(weight > 0, sums / weight.clamp_min(1e-300), levels)
    return levels, (sums * levels).sum(1)
