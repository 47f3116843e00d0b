"""Decodes the protobuf message Function of an ML program into a Program, and checks that it is one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mobile_export.coreml_simulator.errors import PackageError, UnsupportedError
from mobile_export.coreml_simulator.program import Constant, Operation, Program, Value
from mobile_export.coreml_simulator.values import ReadBlob, constant, value

MAX_OPERATIONS = 100_000
MAX_NAMES = 500_000  # inputs, attributes and outputs of all operations together


def decode_function(name: str, function: Any, read_blob: ReadBlob, where: str) -> Program:
    """The function `name` of an ML program. `where` begins every error message.

    Raises:
        PackageError: a value is used before it is defined (a cycle therefore too), is defined twice or is missing; a
            type or a constant contradicts itself; there are too many operations.
        UnsupportedError: an operation has blocks of its own (cond, while_loop), or a type is not supported.
    """
    if function.opset not in function.block_specializations:
        raise PackageError(f"{where}: has no block for its opset {function.opset!r}")
    return _Decoder(where, read_blob).program(name, function, function.block_specializations[function.opset])


class _Decoder:
    """Takes the operations in the order of the file; `defined` holds what those before have defined."""

    def __init__(self, where: str, read_blob: ReadBlob) -> None:
        self.where, self.read_blob = where, read_blob
        self.defined: set[str] = set()
        self.constants: dict[str, Constant] = {}
        self.names = 0

    def program(self, name: str, function: Any, block: Any) -> Program:
        if block.inputs:
            raise UnsupportedError(f"{self.where}: its block has inputs of its own")
        if len(block.operations) > MAX_OPERATIONS:
            raise PackageError(f"{self.where}: may have {MAX_OPERATIONS} operations, got {len(block.operations)}")
        self._count(len(function.inputs), self.where)
        inputs = tuple(self._define(value(message, self.where), self.where) for message in function.inputs)
        operations = tuple(self._operations(block.operations))
        outputs = tuple(block.outputs)
        if not outputs or len(set(outputs)) != len(outputs):
            raise PackageError(f"{self.where}: outputs must be there and differ, got {list(outputs)}")
        for output in outputs:
            self._look_up(output, f"{self.where}: output")
        return Program(name, inputs, outputs, self.constants, operations)

    def _operations(self, messages: Any) -> Iterator[Operation]:
        for index, message in enumerate(messages):
            where = f"{self.where}: operation {index}"
            if not message.type.isidentifier():
                raise PackageError(f"{where}: its type must be an identifier, got {message.type!r}")
            where += f" ({message.type} {_label(message)!r})"
            arguments = sum(len(argument.arguments) for argument in message.inputs.values())
            self._count(arguments + len(message.attributes) + len(message.outputs), where)
            if message.blocks:
                raise UnsupportedError(f"{where}: operations with blocks of their own are not supported")
            if message.type == "const":
                self._const(message, where)
            else:
                yield self._operation(index, message, where)

    def _const(self, message: Any, where: str) -> None:
        if len(message.outputs) != 1 or "val" not in message.attributes or message.inputs:
            raise PackageError(f"{where}: needs one output, no input and the attribute 'val'")
        output = self._define(value(message.outputs[0], where), where)
        decoded = constant(message.attributes["val"], where, self.read_blob)
        if decoded.type != output.type:
            raise PackageError(f"{where}: is declared as {output.type}, its value as {decoded.type}")
        self.constants[output.name] = decoded

    def _operation(self, index: int, message: Any, where: str) -> Operation:
        name = _name(message, where) or (message.outputs[0].name if message.outputs else f"{message.type}_{index}")
        inputs = {parameter: self._bind(name, parameter, message, where) for parameter in sorted(message.inputs)}
        for parameter in sorted(message.attributes):
            if parameter == "name":
                continue
            if parameter in inputs:
                raise PackageError(f"{where}: has {parameter!r} both as an input and as an attribute")
            inputs[parameter] = (self._inline(f"{name}.{parameter}", message.attributes[parameter], where),)
        outputs = tuple(self._define(value(output, where), where) for output in message.outputs)
        return Operation(message.type, name, inputs, outputs)

    def _bind(self, name: str, parameter: str, message: Any, where: str) -> tuple[str, ...]:
        """The names of the values of one input; a value that stands inline gets a name of its own."""
        arguments = message.inputs[parameter].arguments
        if not arguments:
            raise PackageError(f"{where}: {parameter!r} has no value")
        names = []
        for i, argument in enumerate(arguments):
            kind = argument.WhichOneof("binding")
            if kind is None:
                raise PackageError(f"{where}: {parameter!r} is bound to nothing")
            if kind == "name":
                names.append(self._look_up(argument.name, f"{where}: {parameter!r}"))
            else:
                inline = f"{name}.{parameter}" if len(arguments) == 1 else f"{name}.{parameter}.{i}"
                names.append(self._inline(inline, argument.value, where))
        return tuple(names)

    def _inline(self, name: str, message: Any, where: str) -> str:
        decoded = constant(message, f"{where}, value {name!r}", self.read_blob)
        self._define(Value(name, decoded.type), where)
        self.constants[name] = decoded
        return name

    def _count(self, names: int, where: str) -> None:
        self.names += names
        if self.names > MAX_NAMES:
            raise PackageError(f"{where}: all operations together may have {MAX_NAMES} values, this is beyond")

    def _define(self, new: Value, where: str) -> Value:
        if new.name in self.defined:
            raise PackageError(f"{where}: defines {new.name!r}, which is defined already")
        self.defined.add(new.name)
        return new

    def _look_up(self, name: str, where: str) -> str:
        if name not in self.defined:
            raise PackageError(f"{where} is {name!r}, which no earlier operation defines")
        return name


def _name(message: Any, where: str) -> str:
    """The attribute `name`, "" where there is none."""
    if "name" not in message.attributes:
        return ""
    place = f"{where}, attribute 'name'"
    decoded = constant(message.attributes["name"], place, _no_blob)
    if not isinstance(decoded.value, str):
        raise PackageError(f"{place}: must be a string, got {decoded.type or 'several'}")
    return decoded.value


def _no_blob(*_: Any) -> Any:
    raise PackageError("the name of an operation must stand in the program")


def _label(message: Any) -> str:
    return message.outputs[0].name if message.outputs else "without output"
