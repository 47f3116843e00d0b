"""One operation as a program of its own, and what coremltools computes for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import coremltools as ct
import numpy as np
import torch
from coremltools.converters.mil.mil import Builder, types

from mobile_export.coreml_simulator.ops import OPS
from mobile_export.coreml_simulator.ops.element import NAMES
from mobile_export.coreml_simulator.program import Constant, Operation, Program, Value
from mobile_export.coreml_simulator.tensor_type import ELEMENTS, TensorType

OPSETS = {16: ct.target.iOS16, 17: ct.target.iOS17, 18: ct.target.iOS18}


@dataclass(frozen=True)
class Case:
    """An operation with all its arguments: arrays, lists of arrays, numbers, texts.

    want: computes the expected results where coremltools has no value inference, from the arguments as PyTorch
    tensors; None where it has.
    """

    op: str
    inputs: Mapping[str, Any]
    want: Callable[..., Any] | None = None
    opset: int = 18

    def __str__(self) -> str:
        given = [f"{k}={v}" for k, v in self.inputs.items() if isinstance(v, bool | int | float | str)]
        return f"{self.op}({', '.join(given)})"


@dataclass(frozen=True)
class Reference:
    """What coremltools infers: types of the results, and their values if it has them."""

    types: tuple[TensorType, ...]
    values: tuple[np.ndarray | None, ...]


def reference(case: Case) -> Reference:
    """Build the operation with coremltools: out of constants, or with `want` out of one input, so that nothing is
    computed there."""
    found: list[Any] = []
    given = dict(case.inputs)
    free = next((name for name, value in given.items() if isinstance(_first(value), np.ndarray)), None)
    known = case.want is None or free is None or case.op.startswith("constexpr_")
    array = np.zeros(1, np.float32) if known else _first(given[free])
    spec = Builder.TensorSpec(array.shape, types.numpy_type_to_builtin_type(array.dtype))

    @Builder.program(input_specs=[spec], opset_version=OPSETS[case.opset])
    def program(placeholder: Any) -> Any:
        if not known:
            given[free] = [placeholder, *given[free][1:]] if _several(given[free]) else placeholder
        made = getattr(Builder, case.op)(**given)
        found.extend(made if isinstance(made, tuple | list) else [made])
        return Builder.identity(x=placeholder)

    shapes = [tuple(int(n) for n in var.shape) for var in found]
    names = [types.builtin_to_string(var.dtype) for var in found]
    result = tuple(
        TensorType(ELEMENTS[NAMES.get(name, name)], shape) for name, shape in zip(names, shapes, strict=True)
    )
    if case.want is not None:
        wanted = case.want(**{name: _torch(value) for name, value in case.inputs.items()})
        wanted = wanted if isinstance(wanted, tuple | list) else (wanted,)
        return Reference(result, tuple(np.asarray(w) for w in wanted))
    if case.op.startswith("constexpr_") or case.op == "dequantize":
        value = found[0].op.materialized_val_inference()
        return Reference(result, tuple(np.asarray(v) for v in (value if isinstance(value, tuple) else (value,))))
    return Reference(result, tuple(None if var.val is None else np.asarray(var.val) for var in found))


def program(case: Case, outputs: Sequence[TensorType], half: bool = False, constant: bool = False) -> Program:
    """The operation with its tensors as inputs of the program and its attributes as constants.

    half: declare every float32 as float16. constant: tensors are constants too.
    """
    operands = {p.name for p in OPS[case.op].operands}
    inputs, constants, bound = [], {}, {}
    for parameter, value in case.inputs.items():
        names = []
        for i, one in enumerate(value if _several(value) else [value]):
            name = f"{parameter}_{i}"
            names.append(name)
            if isinstance(one, str):
                constants[name] = Constant(None, one)
                continue
            tensor = _torch(one)
            type = _half(type_of(one), half)
            if parameter in operands and not constant:
                inputs.append(Value(name, type))
            else:
                stored = tensor.to(type.element.carrier) if type.element.is_float else tensor
                constants[name] = Constant(type, stored)
        bound[parameter] = tuple(names)
    made = tuple(Value(f"out_{i}", _half(t, half)) for i, t in enumerate(outputs))
    operation = Operation(case.op, f"the_{case.op}", bound, made)
    return Program("main", tuple(inputs), tuple(v.name for v in made), constants, (operation,))


def run_inputs(case: Case) -> dict[str, torch.Tensor]:
    """The case's tensors by the names of the program's inputs."""
    operands = {p.name for p in OPS[case.op].operands}
    return {
        f"{parameter}_{i}": _torch(one)
        for parameter, value in case.inputs.items()
        if parameter in operands
        for i, one in enumerate(value if _several(value) else [value])
    }


def type_of(value: Any) -> TensorType:
    array = _array(value)
    name = types.builtin_to_string(types.numpy_type_to_builtin_type(array.dtype))
    return TensorType(ELEMENTS[NAMES.get(name, name)], array.shape)


def _several(value: Any) -> bool:
    return isinstance(value, tuple | list) and bool(value) and isinstance(value[0], np.ndarray)


def _first(value: Any) -> Any:
    return value[0] if _several(value) else value


def _array(value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    array = np.asarray(value)
    return array.astype({"f": np.float32, "i": np.int32}.get(array.dtype.kind, array.dtype))


def _torch(value: Any) -> Any:
    if isinstance(value, str) or value is None:
        return value
    if _several(value):
        return [_torch(one) for one in value]
    array = _array(value)
    carrier = type_of(value).element.carrier
    return torch.from_numpy(np.array(array.astype(np.int64) if array.dtype.kind in "iu" else array)).to(carrier)


def _half(type: TensorType, half: bool) -> TensorType:
    if half and type.element.name == "float32":
        return TensorType(ELEMENTS["float16"], type.shape)
    return type
