"""The registry of operations: a Python function for each type of operation of an ML program.

A function's signature is the operation's list of parameters. Positional ones are tensors; keyword-only ones are
attributes, which a program must give as constants and which arrive as int, float, bool, str, tuples of them, or
tensors, whatever their annotation says.
A parameter without a default is required. `*values` takes the several values of a variadic parameter.

Tensors arrive in the carriers of `tensor_type.py`, except that float16 values are float32 tensors: a function computes
in float32, and the simulator rounds what it returns to the declared type.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

Result = Tensor | tuple[Tensor, ...]
Ints = tuple[int, ...]
Bools = tuple[bool, ...]
Function = typing.TypeVar("Function", bound=Callable[..., Result])
Attribute = int | float | bool | str | Ints | Bools | Tensor


@dataclass(frozen=True)
class Op:
    """A function and what the simulator may assume of it.

    exact: given float16 operands its float results are float16 values as they are, since it moves, picks or drops
    digits but computes none; they need no rounding.
    leads: it computes the same for operands with one more leading axis, under NumPy's broadcasting.
    element: the parameter that decides the element type of the outputs: a text such as "fp16", or a tensor of that
    type. Without it a float output has the type of the first float operand, one known only at run time first.
    """

    function: Callable[..., Result]
    exact: bool = False
    leads: bool = False
    element: str = ""

    @cached_property
    def operands(self) -> tuple[inspect.Parameter, ...]:
        """The parameters that take tensors."""
        return tuple(p for p in self._parameters if p.kind is not p.KEYWORD_ONLY)

    @cached_property
    def attributes(self) -> dict[str, tuple[type, bool]]:
        """Attribute -> (its Python type, whether it is required)."""
        hints = typing.get_type_hints(self.function)
        return {
            p.name: (_without_none(hints[p.name]), p.default is p.empty)
            for p in self._parameters
            if p.kind is p.KEYWORD_ONLY
        }

    @cached_property
    def _parameters(self) -> tuple[inspect.Parameter, ...]:
        return tuple(inspect.signature(self.function).parameters.values())


OPS: dict[str, Op] = {}


def op(*names: str, exact: bool = False, leads: bool = False, element: str = "") -> Callable[[Function], Function]:
    """Register a function under the names of operations; a name can be taken once (ValueError)."""

    def register(function: Function) -> Function:
        for name in names:
            if name in OPS:
                raise ValueError(f"operation {name!r} is registered twice")
            OPS[name] = Op(function, exact, leads, element)
        return function

    return register


def _without_none(hint: typing.Any) -> type:
    """`int | None` -> int; anything else stays."""
    given = [t for t in typing.get_args(hint) if t is not type(None)]
    return given[0] if type(None) in typing.get_args(hint) else hint
