"""JSON, read without trust: what RFC 8259 allows and no more, no key twice, bounded nesting.

Python's own reader takes NaN, lone surrogates and repeated keys. Readers in other languages refuse other things; with
these rules all of them refuse the same texts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from correction.errors import FormatError


def decode_utf8(raw: bytes) -> str:
    """The text of `raw`. Raises FormatError "not-utf8"."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError("not-utf8", f"byte {error.start} is not UTF-8.") from error


def parse_json(text: str, max_depth: int, parse_integer: Callable[[str], Any] = int) -> Any:
    """The one value in `text`.

    Args:
        max_depth: of brackets within each other; text that is nested deeper is not parsed at all.
        parse_integer: makes a value of a whole number's text; a ValueError refuses the text.

    Raises:
        FormatError: "not-json" or "duplicate-key", in this order.
    """
    if _depth(text) > max_depth:
        raise FormatError("not-json", f"brackets are nested deeper than {max_depth}.")
    repeated: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _require_unicode(pairs)  # before a repeated key hides what it had the first time
        result = dict(pairs)
        if len(result) != len(pairs):
            repeated.append(Counter(key for key, _ in pairs).most_common(1)[0][0])
        return result

    try:
        value = json.loads(text, object_pairs_hook=collect, parse_int=parse_integer, parse_constant=_refuse)
        _require_unicode(value)
    except (ValueError, RecursionError) as error:
        raise FormatError("not-json", f"this is no JSON: {error}.") from error
    if repeated:
        raise FormatError("duplicate-key", f"{repeated[0]!r} is there twice.")
    return value


def _depth(text: str) -> int:
    """Deepest nesting of brackets outside strings, without parsing."""
    depth = deepest = 0
    inside = escaped = False
    for letter in text:
        if inside:
            inside = escaped or letter != '"'
            escaped = not escaped and letter == "\\"
        elif letter == '"':
            inside = True
        elif letter in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif letter in "}]":
            depth -= 1
    return deepest


def _require_unicode(value: Any) -> None:
    """Raises ValueError for a lone surrogate, which no other encoding than JSON's escapes can hold."""
    json.dumps(value, ensure_ascii=False).encode()


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")
