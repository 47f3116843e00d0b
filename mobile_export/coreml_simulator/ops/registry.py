"""The registry of operations, and the arguments that an operation's function gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from mobile_export.coreml_simulator.errors import ProgramError

Result = Tensor | tuple[Tensor, ...]
OPS: dict[str, Callable[[Arguments], Result]] = {}


class Arguments:
    """The evaluated inputs of one operation: tensors by index, attributes by the typed getters."""

    def __init__(self, operation: str, values: Mapping[str, Any]) -> None:
        self.operation, self.values = operation, values

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def __getitem__(self, name: str) -> Any:
        """The tensor (or, for a variadic parameter, the tuple of tensors) bound to `name`."""
        if name not in self.values:
            raise ProgramError(f"{self.operation} needs {name!r}, it has {', '.join(self.values) or 'nothing'}")
        return self.values[name]

    def get(self, name: str) -> Any:
        return self.values.get(name)

    def ints(self, name: str, default: list[int] | None = None) -> list[int]:
        value = self._or(name, default)
        return [int(v) for v in value.reshape(-1).tolist()] if isinstance(value, Tensor) else list(value)

    def integer(self, name: str, default: int | None = None) -> int:
        return int(self._or(name, default))

    def number(self, name: str, default: float | None = None) -> float:
        return float(self._or(name, default))

    def flag(self, name: str, default: bool | None = None) -> bool:
        return bool(self._or(name, default))

    def text(self, name: str, default: str | None = None) -> str:
        return str(self._or(name, default))

    def _or(self, name: str, default: Any) -> Any:
        return self[name] if default is None or name in self.values else default


def op(*names: str) -> Callable[[Callable[[Arguments], Result]], Callable[[Arguments], Result]]:
    """Register a function under the names of MIL operations; a name can be taken once."""

    def register(function: Callable[[Arguments], Result]) -> Callable[[Arguments], Result]:
        for name in names:
            if name in OPS:
                raise ValueError(f"operation {name!r} is registered twice")
            OPS[name] = function
        return function

    return register
