"""Rounding that knows the layer's inputs: each weight's error is made up for by the weights not yet rounded.

GPTQ (Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", ICLR 2023, algorithm 1, arXiv 2210.17323), after Optimal Brain Surgeon: minimise
|W X - W_q X|^2 over the levels of W_q, one input column after the other, with H = X X^T. It asks
nothing of the levels but which is nearest, so linear codes and palettes are rounded alike.
"""

from __future__ import annotations

from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

# At 1 bit weights go to the nearest level: the layers' outputs do come nearer on the reference's inputs, but the
# network as a whole gets worse (emoji32: 8 dB instead of 11), far from those inputs.
ROUNDED_BITS = (2, 3, 4, 6, 8)
BYTES_PER_ENTRY = 24  # of the correlation, at work: three matrices in float64
_DAMPING = 0.01  # of the mean diagonal of H, as in the paper's section 3.3
_BLOCK = 64  # columns between two updates of the rest


class Levels(Protocol):
    """Codes of any format, as far as rounding is concerned: see WeightCodes and PaletteCodes."""

    def nearest(self, values: Tensor, column: int) -> tuple[Tensor, Tensor]: ...

    def with_codes(self, codes: Tensor) -> Self: ...


Codes = TypeVar("Codes", bound=Levels)


def round_to_inputs(weight: Tensor, start: Codes, correlation: Tensor) -> Codes:
    """Codes on the levels of `start` whose outputs are nearest to the float layer's, column by column.

    weight: (O, ...) float32, flattened to (O, K); correlation: (G, K / G, K / G) float, the sums of x x^T of G groups
    of consecutive columns: errors are made up for within a group. Solved in float64.
    Columns go in the order of falling input energy, so that the last, which nothing can make up for, matter least.
    """
    rows = weight.detach().reshape(weight.shape[0], -1)
    codes = torch.empty(rows.shape, dtype=torch.int16)
    width = correlation.shape[-1]
    for first, matrix in zip(range(0, rows.shape[1], width), correlation, strict=True):
        order = torch.argsort(matrix.diagonal(), descending=True, stable=True)
        columns = first + order
        codes[:, columns] = _rounded(rows[:, columns].double(), start, columns.tolist(), matrix[order[:, None], order])
    return start.with_codes(codes)


def _rounded(rest: Tensor, start: Levels, columns: list[int], correlation: Tensor) -> Tensor:
    """Codes (O, N) int16 of the weights `rest` (O, N) float64, which is overwritten; their columns are `columns`."""
    inverse = _inverse_factor(correlation.double())
    codes = torch.empty(rest.shape, dtype=torch.int16)
    for first in range(0, len(columns), _BLOCK):
        last = min(first + _BLOCK, len(columns))
        errors = torch.empty(rest.shape[0], last - first, dtype=torch.float64)
        for j in range(first, last):
            codes[:, j], values = start.nearest(rest[:, j], columns[j])
            error = (rest[:, j] - values) / inverse[j, j]
            rest[:, j + 1 : last] -= error[:, None] * inverse[j, j + 1 : last]
            errors[:, j - first] = error
        rest[:, last:] -= errors @ inverse[first:last, last:]
    return codes


def _inverse_factor(matrix: Tensor) -> Tensor:
    """Upper U with U^T U = (damped matrix)^-1. matrix: (K, K) float64, overwritten: only one other lives beside it."""
    diagonal = matrix.diagonal()
    diagonal += _DAMPING * float(diagonal.mean()) + 1e-12
    matrix = torch.linalg.cholesky(matrix)
    matrix = torch.cholesky_inverse(matrix)
    return torch.linalg.cholesky(matrix, upper=True)
