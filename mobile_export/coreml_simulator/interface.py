"""Interface: the inputs, outputs and states that a model description promises of a function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mobile_export.coreml_simulator.errors import PackageError, UnsupportedError
from mobile_export.coreml_simulator.program import Program, Value
from mobile_export.coreml_simulator.tensor_type import ELEMENTS, TensorType
from mobile_export.coreml_simulator.values import MAX_COUNT, MAX_RANK

# ArrayDataType of FeatureTypes.proto; an ML program has no doubles at its border.
ARRAY_DATA_TYPES = {65552: "float16", 65568: "float32", 131080: "int8", 131104: "int32"}
MAX_FEATURES = 1000  # of each kind


@dataclass(frozen=True)
class Interface:
    """By name, in the order of the description. A state has the type of the tensor that it keeps."""

    inputs: Mapping[str, TensorType]
    outputs: Mapping[str, TensorType]
    states: Mapping[str, TensorType]

    def check(self, program: Program, where: str) -> None:
        """Compare with the function itself.

        Raises:
            PackageError: a name or a type differs.
        """
        values = _values(program)
        _compare("inputs", self.inputs, (value for value in program.inputs if not value.state), where)
        _compare("states", self.states, (value for value in program.inputs if value.state), where)
        _compare("outputs", self.outputs, (values[name] for name in program.outputs), where)


def read_interface(description: Any, where: str) -> Interface:
    """The interface in a ModelDescription or FunctionDescription message.

    Raises:
        PackageError: a name is missing or stands twice, a shape has no positive sizes or is too large.
        UnsupportedError: images and other features that are no tensors, flexible shapes, doubles.
    """
    return Interface(
        _features("input", description.input, where),
        _features("output", description.output, where),
        _features("state", description.state, where),
    )


def _features(kind: str, messages: Any, where: str) -> dict[str, TensorType]:
    if len(messages) > MAX_FEATURES:
        raise PackageError(f"{where}: may have {MAX_FEATURES} {kind}s, got {len(messages)}")
    features: dict[str, TensorType] = {}
    for message in messages:
        place = f"{where}: {kind} {message.name!r}"
        if not message.name or not message.name.isprintable() or message.name in features:
            raise PackageError(f"{place}: names must be printable and differ")
        type = message.type.stateType if kind == "state" else message.type
        expected = "arrayType" if kind == "state" else "multiArrayType"
        if type.WhichOneof("Type") != expected:
            raise UnsupportedError(f"{place}: must be of {expected}, got {type.WhichOneof('Type')}")
        features[message.name] = _array_type(getattr(type, expected), place)
    return features


def _array_type(message: Any, where: str) -> TensorType:
    if message.dataType not in ARRAY_DATA_TYPES:
        raise UnsupportedError(f"{where}: element type {message.dataType} is not one of {ARRAY_DATA_TYPES}")
    if message.WhichOneof("ShapeFlexibility") is not None:
        raise UnsupportedError(f"{where}: only static shapes are supported")
    if len(message.shape) > MAX_RANK:
        raise PackageError(f"{where}: may have {MAX_RANK} dimensions, got {len(message.shape)}")
    type = TensorType(ELEMENTS[ARRAY_DATA_TYPES[message.dataType]], tuple(message.shape))
    if min(type.shape, default=1) < 1 or type.count > MAX_COUNT:
        raise PackageError(f"{where}: needs positive sizes and at most {MAX_COUNT} elements, got {list(type.shape)}")
    return type


def _values(program: Program) -> dict[str, Value]:
    values = [Value(name, constant.type) for name, constant in program.constants.items()]
    values += [*program.inputs, *(output for operation in program.operations for output in operation.outputs)]
    return {value.name: value for value in values}


def _compare(kind: str, described: Mapping[str, TensorType], values: Iterable[Value], where: str) -> None:
    actual = {value.name: value.type for value in values}
    if described != actual:
        raise PackageError(f"{where}: {kind} are described as {_listed(described)}, the function has {_listed(actual)}")


def _listed(types: Mapping[str, TensorType | None]) -> str:
    return ", ".join(f"{name} {type}" for name, type in sorted(types.items())) or "none"
