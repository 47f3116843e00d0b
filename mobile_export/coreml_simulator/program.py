"""Program: one function of an ML program, as a list of operations over named values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from mobile_export.coreml_simulator.tensor_type import TensorType


@dataclass(frozen=True)
class Value:
    """A named value: an input of the function or an output of an operation.

    type: None for what is no tensor (a string, a list of strings, a state). state: True for the state
    that a function keeps between calls, its type then being that of the wrapped tensor.
    """

    name: str
    type: TensorType | None
    state: bool = False


@dataclass(frozen=True)
class Constant:
    """A decoded constant. value: Tensor (sub-byte types unpacked into bytes), str, or tuple of str."""

    type: TensorType | None
    value: Tensor | str | tuple[str, ...]


@dataclass(frozen=True)
class Operation:
    """inputs: parameter -> names of the values bound to it; variadic parameters (concat's values) have
    several names, all others one. What is written inline in the file is a constant with a made-up name."""

    type: str
    name: str
    inputs: Mapping[str, tuple[str, ...]]
    outputs: tuple[Value, ...]


@dataclass(frozen=True)
class Program:
    """inputs and outputs of the function, its constants, and its operations in the order of the file.

    `const` operations have become `constants`; the `constexpr_*` ones are still operations.
    """

    function: str
    inputs: tuple[Value, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Constant]
    operations: tuple[Operation, ...]
