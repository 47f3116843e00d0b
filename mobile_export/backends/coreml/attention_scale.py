"""The scale of attention scores, 1 / sqrt(depth), as two float16 numbers: one for the queries, one for the keys.

One float16 number is off by up to 2.4e-4 unless the depth is a power of four, and so would be every score.
The product of the two below is right to 5e-6 at worst.
"""

from __future__ import annotations

import numpy as np

_CANDIDATES = 1024  # consecutive float16 numbers above the root: every mantissa once


def half_factors(scale: float) -> tuple[float, float]:
    """(a, b), float16 numbers near sqrt(scale) whose product is nearest to `scale`; scale: 2^-16 to 1."""
    if not 2**-16 <= scale <= 1:
        raise ValueError(f"attention scale must be 2^-16 to 1, got {scale}")
    first = np.array([np.sqrt(scale)], dtype=np.float16).view(np.uint16)[0]
    a = np.arange(first, first + _CANDIDATES, dtype=np.uint16).view(np.float16).astype(np.float64)
    b = (scale / a).astype(np.float16).astype(np.float64)
    best = int(np.abs(a * b - scale).argmin())
    return float(a[best]), float(b[best])
