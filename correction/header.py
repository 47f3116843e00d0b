"""The safetensors container, read without trust: a length, a JSON header, the payload."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from correction.errors import FormatError
from correction.strict_json import decode_utf8, parse_json

MAX_HEADER = 2**20  # bytes
MAX_DEPTH = 4  # header > tensor > shape is 3
MAX_DIGITS = 15  # of an integer: every such number is exact in a double


@dataclass(frozen=True)
class Entry:
    """One tensor of the header: dtype name, shape, and the bytes [begin, end) of the payload."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def parse_header(
    data: bytes, check_version: Callable[[Mapping[str, str]], None]
) -> tuple[dict[str, str], dict[str, Entry], bytes]:
    """(metadata, tensors by name, payload) of a container.

    `check_version` sees the metadata before the tensors are looked at, since another major version may describe them
    in another way.

    Raises:
        FormatError: see docs/correction-format.md for the codes and their order.
    """
    if len(data) < 8:
        raise FormatError("truncated", f"a file has at least 8 bytes, got {len(data)}.")
    (length,) = struct.unpack_from("<Q", data)
    if length > MAX_HEADER:
        raise FormatError("header-too-large", f"the header has at most {MAX_HEADER} bytes, the file says {length}.")
    if 8 + length > len(data):
        raise FormatError("truncated", f"the header needs {length} bytes, {len(data) - 8} are there.")
    header = _parse_object(data[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError("bad-header", "__metadata__ must be an object of strings.")
    check_version(metadata)
    entries = {name: _entry(name, header[name]) for name in sorted(header)}
    return metadata, entries, data[8 + length :]


def _parse_object(raw: bytes) -> dict[str, Any]:
    text = decode_utf8(raw)
    if not text.startswith("{"):
        raise FormatError("not-json", "the header must begin with '{'.")
    return dict(parse_json(text, MAX_DEPTH, _integer))


def _integer(text: str) -> int:
    return int(text) if len(text) <= MAX_DIGITS and text[0] != "-" else -1  # negative: refused where it is used


def _entry(name: str, value: Any) -> Entry:
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise FormatError("bad-header", f"{name!r} must be an object of dtype, shape and data_offsets.")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2:
        raise FormatError("bad-header", f"{name!r} must have a dtype name, a shape and two offsets, sizes 0..10^15.")
    if offsets[0] > offsets[1]:
        raise FormatError("bad-header", f"{name!r} ends at {offsets[1]}, before it begins at {offsets[0]}.")
    return Entry(dtype, tuple(shape), offsets[0], offsets[1])


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
