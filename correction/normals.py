"""Normals without a mathematics library: the same bits in every language, from 64-bit integers.

Box and Muller's transform in float64, where logarithm, sine and cosine are polynomials written out here. Every
operation is one IEEE 754 addition, subtraction, multiplication, division or square root, rounded to nearest, never
fused, in the order of the brackets: no `log` or `cos` of a platform is asked, for each rounds in its own way.
docs/noise.md states the same in words.

Logarithm, sine and cosine are within 2.5 units in the last place of float64.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from correction.plan import FloatArray

LN2 = 0.6931471805599453
HALF_ROOT = 0.7071067811865476
TWO_PI = 6.283185307179586
LOG_TERMS = tuple(1.0 / (2 * k + 1) for k in range(11))  # of ln((1 + s) / (1 - s)) / (2 s) in powers of s^2
SIN_TERMS = (
    1.0,
    -1.0 / 6.0,
    1.0 / 120.0,
    -1.0 / 5040.0,
    1.0 / 362880.0,
    -1.0 / 39916800.0,
    1.0 / 6227020800.0,
    -1.0 / 1307674368000.0,
    1.0 / 355687428096000.0,
)
COS_TERMS = (
    1.0,
    -1.0 / 2.0,
    1.0 / 24.0,
    -1.0 / 720.0,
    1.0 / 40320.0,
    -1.0 / 3628800.0,
    1.0 / 479001600.0,
    -1.0 / 87178291200.0,
    1.0 / 20922789888000.0,
)

Doubles = npt.NDArray[np.float64]


def normals(words: npt.NDArray[np.uint64]) -> FloatArray:
    """Unit normals, (N,) float32, from N random 64-bit words, N even; words 2k and 2k + 1 make normals 2k and 2k + 1.

    Method: G. E. P. Box and M. E. Muller, "A note on the generation of random normal deviates", 1958.
    """
    first, second = (words.reshape(-1, 2) >> np.uint64(11)).T  # 53 bits each: exact in float64
    radius = np.sqrt(-2.0 * logarithm((first + np.uint64(1)).astype(np.float64) * 2.0**-53))
    cosine, sine = circle(second.astype(np.float64) * 2.0**-53)
    return np.stack([radius * cosine, radius * sine], axis=1).reshape(-1).astype(np.float32)


def logarithm(x: Doubles) -> Doubles:
    """ln x for x in (0, 1]: x = m 2^e with m from sqrt(1/2) to sqrt(2), ln m by the series of s = (m - 1) / (m + 1)."""
    m, e = np.frexp(x)  # m in [1/2, 1)
    low = m < HALF_ROOT
    m, e = np.where(low, m + m, m), np.where(low, e - 1, e)
    s = (m - 1.0) / (m + 1.0)
    return e * LN2 + (s + s) * _polynomial(LOG_TERMS, s * s)


def circle(turns: Doubles) -> tuple[Doubles, Doubles]:
    """Cosine and sine of `turns` in [0, 1): by whole quarters, and series of what is left, at most an eighth."""
    quarter = np.floor(4.0 * turns + 0.5)
    angle = TWO_PI * (turns - 0.25 * quarter)
    square = angle * angle
    sine, cosine = angle * _polynomial(SIN_TERMS, square), _polynomial(COS_TERMS, square)
    which = quarter.astype(np.int64) % 4
    return (
        np.choose(which, [cosine, -sine, -cosine, sine]),
        np.choose(which, [sine, cosine, -sine, -cosine]),
    )


def _polynomial(terms: tuple[float, ...], x: Doubles) -> Doubles:
    """Horner's scheme: the last term times x plus the one before, and so on."""
    total = np.full_like(x, terms[-1])
    for term in reversed(terms[:-1]):
        total = total * x + term
    return total
