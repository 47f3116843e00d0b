"""A plan: a program made ready to run, with everything looked up and checked that does not depend on the inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from mobile_export.coreml_simulator.errors import ProgramError, SimulatorError, UnsupportedError
from mobile_export.coreml_simulator.ops import OPS
from mobile_export.coreml_simulator.ops.element import element_of
from mobile_export.coreml_simulator.ops.registry import Attribute, Bools, Ints, Op, Result
from mobile_export.coreml_simulator.program import Operation, Program, Value
from mobile_export.coreml_simulator.tensor_type import TensorType


@dataclass(frozen=True)
class Output:
    """A value that a step makes. carrier: the torch type of its tensor. rounds: to float16, after the step."""

    value: Value
    shape: tuple[int, ...]
    carrier: torch.dtype
    rounds: bool


@dataclass(frozen=True)
class Step:
    """An operation, ready to run.

    function: takes the operands by position. operands: their names; None for an optional one that is left out.
    last: names that no later step reads.
    """

    operation: Operation
    function: Callable[..., Result]
    operands: tuple[str | None, ...]
    leads: bool
    outputs: tuple[Output, ...]
    last: tuple[str, ...] = ()

    def call(self, tensors: Sequence[Tensor | None]) -> Result:
        """The operation itself, with errors that name it."""
        try:
            return self.function(*tensors)
        except SimulatorError as error:
            raise type(error)(f"{self.operation.type} {self.operation.name!r}: {error}") from error
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise ProgramError(f"{self.operation.type} {self.operation.name!r} cannot be computed: {error}") from error

    def call_batch(self, tensors: Sequence[Tensor | None], batched: Sequence[bool]) -> Result:
        """The same with one more leading axis on those operands that are batched, and on every result."""
        ranks = {t.dim() for t, many in zip(tensors, batched, strict=True) if many and t is not None}
        if self.leads and len(ranks) == 1:
            rank = ranks.pop()
            if all(many or t is None or t.dim() < rank for t, many in zip(tensors, batched, strict=True)):
                return self.call(tensors)
        axes = tuple(0 if many else None for many in batched)
        mapped = Step(self.operation, torch.vmap(self.function, in_dims=axes), (), False, ())
        return mapped.call(tensors)

    def checked(self, result: Result, batch: int | None) -> tuple[Tensor, ...]:
        """The results as they are declared, rounded.

        Raises:
            ProgramError: a result has another shape or element type than the program declares.
        """
        tensors = (result,) if isinstance(result, Tensor) else result
        if len(tensors) != len(self.outputs):
            where = f"{self.operation.type} {self.operation.name!r}"
            raise ProgramError(f"{where} gives {len(tensors)} results, declared are {len(self.outputs)}")
        return tuple(self._checked(tensor, output, batch) for tensor, output in zip(tensors, self.outputs, strict=True))

    def _checked(self, tensor: Tensor, output: Output, batch: int | None) -> Tensor:
        expected = output.shape if batch is None else (batch, *output.shape)
        if tensor.shape != expected or tensor.dtype != output.carrier:
            shape = tensor.shape if batch is None else tensor.shape[1:]
            raise ProgramError(
                f"{self.operation.type} {self.operation.name!r}: {output.value.name!r} came out as "
                f"{described(tensor.dtype, shape)}, declared is {output.value.type}"
            )
        return round_half(tensor) if output.rounds else tensor


@dataclass(frozen=True)
class Plan:
    """steps: what is left to run for each call. constants: what they read and what is known without inputs.

    folded: values of operations that were computed here, once. stored: float constants as the file holds them.
    """

    steps: tuple[Step, ...]
    constants: Mapping[str, Tensor]
    folded: frozenset[str]


def round_half(x: Tensor) -> Tensor:
    """To the nearest float16, ties to even, beyond 65504 to infinity; still a float32 tensor."""
    return x.half().float()


def carrier(type: TensorType) -> torch.dtype:
    """The torch type that holds such values while running: float16 ones are in float32 tensors."""
    return torch.float32 if type.element.is_float else type.element.carrier


def described(dtype: torch.dtype, shape: Sequence[int]) -> str:
    """A tensor in the words of a TensorType."""
    return f"{str(dtype).removeprefix('torch.')}{list(shape)}"


def make_plan(program: Program, rounds: bool) -> Plan:
    """Look up, bind and check every operation; compute those that read constants only.

    rounds: round to the float16 that the program declares.

    Raises:
        UnsupportedError: operations, parameters or run-time attributes that the simulator lacks.
        ProgramError: the program contradicts itself.
    """
    _check_supported(program)
    states = {value.name: value for value in program.inputs if value.state}
    types: dict[str, TensorType | None] = {value.name: value.type for value in program.inputs}
    types |= {name: constant.type for name, constant in program.constants.items()}
    constants: dict[str, Any] = {
        name: c.value.float() if isinstance(c.value, Tensor) and c.value.is_floating_point() else c.value
        for name, c in program.constants.items()
    }
    steps: list[Step] = []
    folded: set[str] = set()
    for operation in program.operations:
        step = _make_step(operation, types, constants, states, rounds)
        for output in step.outputs:
            if output.value.name in types and output.value.name not in states:
                raise ProgramError(f"{operation.type} {operation.name!r} defines {output.value.name!r} a second time")
            types[output.value.name] = output.value.type
        if all(name is None or name in constants for name in step.operands):
            with torch.inference_mode():
                results = step.checked(
                    step.call([None if name is None else constants[name] for name in step.operands]), None
                )
            for output, tensor in zip(step.outputs, results, strict=True):
                constants[output.value.name] = tensor
                folded.add(output.value.name)
        else:
            steps.append(step)
    for name in program.outputs:
        if name not in types:
            raise ProgramError(f"output {name!r} is not made by any operation")
    kept = set(program.outputs) | folded | {name for step in steps for name in step.operands if name}
    return Plan(
        tuple(_with_last_uses(steps, set(program.outputs) | set(states) | set(constants))),
        MappingProxyType({name: value for name, value in constants.items() if name in kept}),
        frozenset(folded),
    )


def _check_supported(program: Program) -> None:
    missing: dict[str, str] = {}
    for operation in program.operations:
        if operation.type not in OPS:
            missing.setdefault(operation.type, operation.name)
    if missing:
        listed = ", ".join(f"{type} (first at {name!r})" for type, name in missing.items())
        raise UnsupportedError(f"operations that are not supported: {listed}; supported are {', '.join(sorted(OPS))}")


def _make_step(
    operation: Operation,
    types: Mapping[str, TensorType | None],
    constants: Mapping[str, Any],
    states: Mapping[str, Value],
    rounds: bool,
) -> Step:
    op = OPS[operation.type]
    where = f"{operation.type} {operation.name!r}"
    for parameter, names in operation.inputs.items():
        for name in names:
            if name not in types:
                raise ProgramError(f"{where}: {parameter} is {name!r}, which nothing before it defines")
    known = [p.name for p in op.operands] + list(op.attributes)
    if unknown := [parameter for parameter in operation.inputs if parameter not in known]:
        raise UnsupportedError(f"{where}: unknown parameters {', '.join(unknown)}; known are {', '.join(known)}")
    operands = _operands(operation, op, where)
    attributes = {
        name: _attribute(kind, operation.inputs[name], constants, f"{where}: {name}")
        for name, (kind, required) in op.attributes.items()
        if _given(operation, name, required, where)
    }
    values = operation.outputs
    if operation.type == "write_state":
        values = tuple(states[name] for name in operation.inputs["input"] if name in states)
    element = _element(operation, op, operands, types, constants)
    halves = all(t is None or t.element.name != "float32" for t in (types[n] for n in _names(operation)))
    outputs = tuple(_output(value, element, rounds and not (op.exact and halves), where) for value in values)
    return Step(operation, partial(op.function, **attributes), operands, op.leads, outputs)


def _operands(operation: Operation, op: Op, where: str) -> tuple[str | None, ...]:
    names: list[str | None] = []
    for parameter in op.operands:
        given = operation.inputs.get(parameter.name, ())
        if parameter.kind is parameter.VAR_POSITIONAL:
            if not given:
                raise ProgramError(f"{where} needs {parameter.name}, it has {', '.join(operation.inputs) or 'nothing'}")
            names += given
        elif _given(operation, parameter.name, parameter.default is parameter.empty, where):
            if len(given) != 1:
                raise ProgramError(f"{where}: {parameter.name} is {len(given)} values; one is allowed")
            names += given
        else:
            names.append(None)
    return tuple(names)


def _given(operation: Operation, parameter: str, required: bool, where: str) -> bool:
    if parameter not in operation.inputs and required:
        raise ProgramError(f"{where} needs {parameter}, it has {', '.join(operation.inputs) or 'nothing'}")
    return parameter in operation.inputs


def _attribute(kind: type, names: tuple[str, ...], constants: Mapping[str, Any], where: str) -> Attribute:
    """The Python value of a constant."""
    if any(name not in constants for name in names):
        raise UnsupportedError(f"{where} is computed at run time; supported are constants")
    if kind is Tensor and len(names) == 1:
        return constants[names[0]]
    values: list[Any] = []
    for name in names:
        value = constants[name]
        values += value.reshape(-1).tolist() if isinstance(value, Tensor) else [value]
    if kind == Ints:
        return tuple(int(v) for v in values)
    if kind == Bools:
        return tuple(bool(v) for v in values)
    if len(values) != 1:
        raise ProgramError(f"{where} has {len(values)} values; one is allowed")
    if isinstance(values[0], str) != (kind is str):
        raise ProgramError(f"{where} is {values[0]!r}; expected is {kind.__name__}")
    return kind(values[0])


def _element(
    operation: Operation,
    op: Op,
    operands: Sequence[str | None],
    types: Mapping[str, TensorType | None],
    constants: Mapping[str, Any],
) -> str | None:
    """The element type that the operation's results must have, by name; None where it is not known.

    Of an operation without `element` that holds for float results only: they have the type of the float operands.
    """
    if op.element and op.element in operation.inputs:
        (name,) = operation.inputs[op.element]
        if isinstance(constants.get(name), str):
            return element_of(constants[name]).name
        type = types[name]
        return None if type is None else type.element.name
    if op.element:
        return None
    floats = [(name in constants, t.element.name) for name in operands if name and (t := types[name])]
    return next((n for _, n in sorted(floats, key=lambda f: f[0]) if n in ("float16", "float32")), None)


def _output(value: Value, element: str | None, rounds: bool, where: str) -> Output:
    type = value.type
    if type is None:
        raise UnsupportedError(f"{where}: {value.name!r} is no tensor")
    if type.element.is_float and element is not None and type.element.name != element:
        raise ProgramError(f"{where}: {value.name!r} is {element}, declared is {type}")
    return Output(value, type.shape, carrier(type), rounds and type.element.name == "float16")


def _names(operation: Operation) -> list[str]:
    return [name for names in operation.inputs.values() for name in names]


def _with_last_uses(steps: Sequence[Step], kept: set[str]) -> list[Step]:
    """Each step with the names that it is the last one to read (or that nothing reads), so that they can go."""
    seen, result = set(kept), []
    for step in reversed(steps):
        here = [name for name in step.operands if name] + [output.value.name for output in step.outputs]
        last = tuple(dict.fromkeys(name for name in here if name not in seen))
        seen.update(last)
        result.append(Step(step.operation, step.function, step.operands, step.leads, step.outputs, last))
    return result[::-1]
