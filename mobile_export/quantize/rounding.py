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

_DAMPING = 0.01  # of the mean diagonal of H, as in the paper's section 3.3
_BLOCK = 64  # columns between two updates of the rest


class Levels(Protocol):
    """Codes of any format, as far as rounding is concerned: see WeightCodes and PaletteCodes."""

    def nearest(self, values: Tensor, column: int) -> tuple[Tensor, Tensor]: ...

    def with_codes(self, codes: Tensor) -> Self: ...


Codes = TypeVar("Codes", bound=Levels)


def round_to_inputs(weight: Tensor, start: Codes, correlation: Tensor) -> Codes:
    """Codes on the levels of `start` whose outputs are nearest to the float layer's, column by column.

    weight: (O, ...) float32, flattened to (O, K); correlation: (K, K) float64, sum of x x^T.
    Columns go in the order of falling input energy, so that the last, which nothing can make up for, matter least.
    """
    rest = weight.detach().reshape(weight.shape[0], -1).double()
    energy = correlation.diagonal()
    order = torch.argsort(energy, descending=True, stable=True)
    rest = rest[:, order].clone()
    damped = correlation[order][:, order].clone()
    damped.diagonal().add_(_DAMPING * float(energy.mean()) + 1e-12)
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    codes = torch.empty_like(rest)
    columns = rest.shape[1]
    for first in range(0, columns, _BLOCK):
        last = min(first + _BLOCK, columns)
        errors = torch.empty(rest.shape[0], last - first, dtype=torch.float64)
        for j in range(first, last):
            codes[:, j], values = start.nearest(rest[:, j], int(order[j]))
            error = (rest[:, j] - values) / inverse[j, j]
            rest[:, j + 1 : last] -= error[:, None] * inverse[j, j + 1 : last]
            errors[:, j - first] = error
        rest[:, last:] -= errors @ inverse[first:last, last:]
    unordered = torch.empty_like(codes)
    unordered[:, order] = codes
    return start.with_codes(unordered)
