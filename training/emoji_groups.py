"""Emoji groups: the class labels of emoji32, derived from Unicode code points alone."""

from __future__ import annotations

# Class label i is CLASSES[i]; the label after the last class is the null class of guidance.
CLASSES = ("faces", "animals", "food", "signs")
NULL_LABEL = len(CLASSES)

_Ranges = tuple[tuple[int, int], ...]  # inclusive

_RANGES: dict[str, _Ranges] = {
    "faces": (
        (0x1F600, 0x1F644),
        (0x1F910, 0x1F917),
        (0x1F920, 0x1F925),
        (0x1F927, 0x1F92F),
        (0x1F970, 0x1F97A),
        (0x1F9D0, 0x1F9D0),
        (0x1FAE0, 0x1FAE9),
        (0x1F479, 0x1F47B),
        (0x1F47D, 0x1F480),
        (0x1F4A9, 0x1F4A9),
        (0x1F31A, 0x1F31E),
        (0x1F648, 0x1F64A),
        (0x2639, 0x263A),
    ),
    "animals": (
        (0x1F400, 0x1F43F),
        (0x1F980, 0x1F9AE),
        (0x1F54A, 0x1F54A),
        (0x1F577, 0x1F577),
        (0x1FAB0, 0x1FAB3),
        (0x1FABC, 0x1FABD),
        (0x1FABF, 0x1FABF),
        (0x1FACE, 0x1FACF),
    ),
    "food": (
        (0x1F32D, 0x1F32F),
        (0x1F345, 0x1F37F),
        (0x1F950, 0x1F96F),
        (0x1F9C0, 0x1F9CB),
        (0x1FAD0, 0x1FADC),
    ),
    "signs": (
        (0x0023, 0x00AE),
        (0x1F170, 0x1F19A),
        (0x1F201, 0x1F251),
        (0x1F493, 0x1F49F),
        (0x1F4AF, 0x1F4AF),
        (0x1F500, 0x1F50B),
        (0x1F518, 0x1F524),
        (0x1F534, 0x1F53D),
        (0x1F549, 0x1F549),
        (0x1F550, 0x1F567),
        (0x1F6AB, 0x1F6AD),
        (0x1F6B0, 0x1F6B3),
        (0x1F6B7, 0x1F6BC),
        (0x1F7E0, 0x1F7EB),
        (0x2139, 0x2199),
        (0x23E9, 0x23EF),
        (0x25AA, 0x25FE),
        (0x2648, 0x2668),
        (0x267B, 0x267F),
        (0x26A0, 0x26AB),
        (0x26CE, 0x26D4),
        (0x2705, 0x2705),
        (0x2714, 0x271D),
        (0x2733, 0x2734),
        (0x2747, 0x2757),
        (0x2763, 0x2764),
        (0x2795, 0x27A1),
        (0x2934, 0x2B07),
        (0x2B1B, 0x2B1C),
        (0x2B55, 0x2B55),
        (0x1FA75, 0x1FA77),
    ),
}


def code_points(name: str) -> tuple[int, ...]:
    """Code points of a Noto file name, e.g. ``emoji_u0031_20e3.png`` -> (0x31, 0x20E3)."""
    return tuple(int(part, 16) for part in name.removeprefix("emoji_u").removesuffix(".png").split("_"))


def class_label(name: str) -> int | None:
    """Class label of a Noto file name in [0, len(CLASSES)), or None when it belongs to no group.

    Sequences are left out (families, skin tones, professions) except the key caps, whose
    second code point is U+20E3.
    """
    points = code_points(name)
    if len(points) > 1 and points[1:] != (0x20E3,):
        return None
    if len(points) == 1 and points[0] < 0x80:  # a bare digit without its key cap
        return None
    for label, group in enumerate(CLASSES):
        if any(low <= points[0] <= high for low, high in _RANGES[group]):
            return label
    return None
