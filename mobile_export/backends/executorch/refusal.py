"""Refusals: what of a network has no channels-last form, by the name of the part that it is."""

from __future__ import annotations

from typing import Any

from correction.errors import UsageError


def require_type(module: object, name: str, kind: type) -> Any:
    """`module`, if it is a `kind`. Raises UsageError naming both otherwise."""
    if type(module) is not kind:
        raise UsageError(
            f"ExecuTorch: {name} is {type(module).__name__}, which is not supported; supported: {kind.__name__}"
        )
    return module


def require(name: str, setting: str, value: object, *allowed: object) -> None:
    """Raises UsageError unless the setting of the part called `name` has one of the allowed values."""
    if value not in allowed:
        wanted = ", ".join(map(repr, allowed))
        raise UsageError(f"ExecuTorch: {setting} = {value!r} of {name} is not supported; supported: {wanted}")
