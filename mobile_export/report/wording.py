"""Wording: numbers as short text. `None` is "not measured", never an empty cell."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mobile_export.metrics import Interval

NOT_MEASURED = "not measured"
MINUS = "\N{MINUS SIGN}"
NBSP = "\N{NO-BREAK SPACE}"


def number(value: float | None, decimals: int = 1, signed: bool = False) -> str:
    """A number with a fixed count of decimals, a real minus sign, and words for what is not a number."""
    if value is None:
        return NOT_MEASURED
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return f"{MINUS if value < 0 else ''}\N{INFINITY}"
    text = f"{value:+.{decimals}f}" if signed else f"{value:.{decimals}f}"
    if float(text) == 0:  # no "-0.0"
        text = f"{0:.{decimals}f}"
    return text.replace("-", MINUS)


def decibel(value: float | None, signed: bool = False) -> str:
    """12.345 -> 12.3 dB."""
    return NOT_MEASURED if value is None else f"{number(value, signed=signed)}{NBSP}dB"


def interval(value: Interval, signed: bool = False) -> str:
    """The bounds of a 95 % interval: "11.9 to 12.8"."""
    return f"{number(value.low, signed=signed)} to {number(value.high, signed=signed)}"


def percent(fraction: float | None, decimals: int = 0) -> str:
    """0.94 -> 94 %; a small but non-zero fraction keeps two significant digits."""
    if fraction is None:
        return NOT_MEASURED
    value = 100.0 * fraction
    if value != 0 and math.isfinite(value) and abs(value) < 10.0**-decimals:
        text = f"{value:.2g}".replace("-", MINUS) if abs(value) >= 1e-4 else scientific(value)
        return f"{text}{NBSP}%"
    return f"{number(value, decimals)}{NBSP}%"


def size(count: float | None) -> str:
    """Bytes in decimal units: 4612345 -> 4.61 MB, 31000000 -> 31.0 MB."""
    if count is None:
        return NOT_MEASURED
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            text = f"{count / scale:#.3g}" if count < 999.5 * scale else f"{count / scale:.0f}"
            return f"{text.rstrip('.')}{NBSP}{unit}"
    return f"{count:.0f}{NBSP}B"


def whole(count: float | None) -> str:
    """1234567 -> 1 234 567, with spaces that do not break."""
    return NOT_MEASURED if count is None else f"{int(count):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def times(ratio: float | None, decimals: int = 1) -> str:
    """7.43 -> 7.4×."""
    return NOT_MEASURED if ratio is None else f"{number(ratio, decimals)}×"


def scientific(value: float | None) -> str:
    """3.2e-07 -> 3.2 × 10⁻⁷; zero stays 0."""
    if value is None:
        return NOT_MEASURED
    if value == 0 or not math.isfinite(value):
        return number(value, 0)
    mantissa, exponent = f"{value:.1e}".split("e")
    powers = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa.replace('-', MINUS)}{NBSP}×{NBSP}10{powers}"


def short(value: float) -> str:
    """960.0 -> 960, 0.25 -> 0.25."""
    return f"{value:.6g}".replace("-", MINUS)


def sentence(text: str) -> str:
    """The text with its first letter large."""
    return text[:1].upper() + text[1:]


def listing(words: Sequence[str]) -> str:
    """["a", "b", "c"] -> "a, b and c"."""
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)
