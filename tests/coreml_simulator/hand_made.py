"""Programs written by hand, a line for each operation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mobile_export.coreml_simulator.program import Constant, Operation, Program, Value
from mobile_export.coreml_simulator.tensor_type import ELEMENTS, TensorType


def typed(text: str) -> TensorType:
    """ "float16[1, 3]" as a type."""
    name, _, shape = text.partition("[")
    return TensorType(ELEMENTS[name], tuple(int(n) for n in shape.rstrip("]").split(",") if n))


def constant(value: Any, element: str = "int32") -> Constant:
    if isinstance(value, str):
        return Constant(None, value)
    type = ELEMENTS[element]
    tensor = torch.as_tensor(np.asarray(value)).to(type.carrier)
    return Constant(TensorType(type, tuple(tensor.shape)), tensor)


def program(
    inputs: dict[str, str],
    operations: list[tuple[str, str, dict[str, Any]]],
    outputs: list[str],
    constants: dict[str, Constant] | None = None,
    states: dict[str, str] | None = None,
) -> Program:
    """inputs: name -> type. operations: ("name: type", operation, arguments), an argument being the name of a value,
    a list of them, or a Constant. An operation is named after its result.
    """
    known = dict(constants or {})
    made = []
    for result, operation, arguments in operations:
        name, _, type = result.partition(": ")
        bound = {}
        for parameter, given in arguments.items():
            if isinstance(given, Constant):
                known[f"{name}.{parameter}"] = given
                given = f"{name}.{parameter}"
            bound[parameter] = tuple(given) if isinstance(given, list) else (given,)
        values = (Value(name, typed(type)),) if type else ()
        made.append(Operation(operation, name, bound, values))
    values = [Value(name, typed(type)) for name, type in inputs.items()]
    values += [Value(name, typed(type), state=True) for name, type in (states or {}).items()]
    return Program("main", tuple(values), tuple(outputs), known, tuple(made))


def halves(shape: tuple[int, ...] = (4, 5), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-3, 3, shape).astype(np.float16)
