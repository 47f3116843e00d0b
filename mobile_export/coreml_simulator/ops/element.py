"""The texts by which MIL's attributes name element types."""

from __future__ import annotations

from mobile_export.coreml_simulator.errors import UnsupportedError
from mobile_export.coreml_simulator.tensor_type import ELEMENTS, ElementType

NAMES = {"fp16": "float16", "fp32": "float32"} | {
    name: name for name in ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32")
}


def element_of(text: str) -> ElementType:
    """The element type that an attribute such as "fp16" or "int8" names.

    Raises:
        UnsupportedError: no such type.
    """
    if text not in NAMES:
        raise UnsupportedError(f"element type {text!r} is not supported; supported are {', '.join(sorted(NAMES))}")
    return ELEMENTS[NAMES[text]]
