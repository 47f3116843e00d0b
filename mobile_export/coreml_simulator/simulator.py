"""The simulator: runs a program of a Core ML package as it is written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, MutableMapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mobile_export.coreml_simulator.errors import ProgramError
from mobile_export.coreml_simulator.plan import carrier, described, make_plan, round_half
from mobile_export.coreml_simulator.program import Operation, Program, Value
from mobile_export.coreml_simulator.tensor_type import TensorType

Mode = Literal["declared", "float32"]
Hook = Callable[[Operation, Value, Tensor], None]
Replace = Callable[[Tensor], Tensor]


class Simulator:
    """Evaluates a program operation by operation.

    mode "declared": every operation computes in float32, and each float result is rounded to the float16 or float32
    that the program declares; beyond 65504, float16 is infinite. mode "float32": no float result is rounded, constants
    are what the file holds. Float16 values are float32 tensors in both.

    Example:
        simulator = Simulator(read_package(path).program("main"))
        noise = simulator({"sample": sample, "timestep": timestep})["noise"]

    Raises:
        ValueError: another mode.
        UnsupportedError: the program has operations or parameters that the simulator lacks; all are named.
        ProgramError: the program contradicts itself.
    """

    def __init__(self, program: Program, mode: Mode = "declared") -> None:
        if mode not in ("declared", "float32"):
            raise ValueError(f"mode {mode!r}; allowed are 'declared' and 'float32'")
        self.program, self.mode = program, mode
        self._rounds = mode == "declared"
        self._plan = make_plan(program, self._rounds)
        self._types = {value.name: value.type for value in program.inputs}
        self._inputs = tuple(value for value in program.inputs if not value.state)
        self._states = tuple(value for value in program.inputs if value.state)
        self._computed = frozenset(output.value.name for step in self._plan.steps for output in step.outputs)

    def __call__(
        self,
        inputs: Mapping[str, np.ndarray | Tensor],
        watch: Collection[str] = (),
        replace: Mapping[str, Replace] | None = None,
        hook: Hook | None = None,
        state: MutableMapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The outputs of the program by name, and the watched values.

        Args:
            inputs: every input, in its declared shape; or with one more leading axis, of the same length B on all that
                have it, to run B samples at once: then every returned tensor has it. Float inputs may be float16 or
                float32 arrays, others are of the declared type.
            watch: names of values to return beside the outputs.
            replace: name of a value -> what the program is to go on with in its place.
            hook: called with each computed value, after it is rounded and replaced. It may keep a tensor but not
                change it; with a batch, one that does not depend on a batched input has no leading axis.
            state: the states by name, updated by the call. Missing ones are zeros; without a mapping all are, and what
                the program writes is lost.

        Raises:
            ProgramError: inputs, states or names that do not fit the program, or a value that is not what the program
                declares.
        """
        replace = replace or {}
        for name in watch:
            if name not in self._computed and name not in self._plan.constants and name not in self._types:
                raise ProgramError(f"watched value {name!r} is not in the program")
        for name in replace:
            if name not in self._computed:
                raise ProgramError(f"value {name!r} cannot be replaced: it is not computed at run time")
        values, batched, batch = self._bind(inputs, {} if state is None else state)
        with torch.inference_mode():
            kept = self._run(values, batched, batch, frozenset(watch), replace, hook)
        if state is not None:
            for value in self._states:
                state[value.name] = values[value.name].clone()
        return {
            name: tensor.expand(batch, *tensor.shape).clone() if batch and name not in batched else tensor.clone()
            for name, tensor in kept.items()
        }

    def _run(
        self,
        values: dict[str, Tensor],
        batched: set[str],
        batch: int | None,
        watch: Collection[str],
        replace: Mapping[str, Replace],
        hook: Hook | None,
    ) -> dict[str, Tensor]:
        """Run the steps; `values` and `batched` are updated."""
        kept = {name: values[name] for name in watch if name in values}
        for step in self._plan.steps:
            tensors = [None if name is None else values[name] for name in step.operands]
            many = batch is not None and not batched.isdisjoint(step.operands)
            if many:
                result = step.call_batch(tensors, [name in batched for name in step.operands])
            else:
                result = step.call(tensors)
            results = step.checked(result, batch if many else None)
            for output, tensor in zip(step.outputs, results, strict=True):
                name, whole = output.value.name, many
                if name in replace:
                    tensor, whole = self._replaced(replace[name](tensor), output.value, batch)
                values[name] = tensor
                if whole:
                    batched.add(name)
                else:
                    batched.discard(name)
                if hook is not None:
                    hook(step.operation, output.value, tensor)
                if name in watch:
                    kept[name] = tensor
            for name in step.last:
                del values[name]
        return kept | {name: values[name] for name in self.program.outputs}

    def _bind(
        self, inputs: Mapping[str, np.ndarray | Tensor], state: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], set[str], int | None]:
        """Constants, inputs and states by name; which of them are batched; the batch."""
        if set(inputs) != {value.name for value in self._inputs}:
            expected = ", ".join(f"{value.name!r} {value.type}" for value in self._inputs)
            got = ", ".join(repr(name) for name in inputs)
            raise ProgramError(f"inputs are {got or 'none'}, expected are {expected or 'none'}")
        values, batched = dict(self._plan.constants), set[str]()
        batch: int | None = None
        given = [(value, inputs[value.name]) for value in self._inputs]
        given += [(value, state[value.name]) for value in self._states if value.name in state]
        for value, array in given:
            tensor = self._taken(value, array)
            if tensor.dim() > len(_type(value).shape):
                if batch not in (None, tensor.shape[0]):
                    raise ProgramError(f"input {value.name!r} is a batch of {tensor.shape[0]}, others are of {batch}")
                batch = tensor.shape[0]
                batched.add(value.name)
            values[value.name] = tensor
        for value in self._states:
            values.setdefault(value.name, torch.zeros(_type(value).shape, dtype=carrier(_type(value))))
        return values, batched, batch

    def _taken(self, value: Value, array: np.ndarray | Tensor) -> Tensor:
        """An input in the tensor type that the steps work with, rounded as declared."""
        type = _type(value)
        tensor = torch.from_numpy(np.array(array)) if isinstance(array, np.ndarray) else array
        shape = tuple(tensor.shape)
        fits = shape == type.shape or (shape[1:] == type.shape and shape[:1] > (0,))
        allowed = (torch.float16, torch.float32) if type.element.is_float else (type.element.carrier,)
        if tensor.dtype not in allowed or not fits:
            names = " or ".join(str(a).removeprefix("torch.") for a in allowed)
            raise ProgramError(
                f"input {value.name!r} is {described(tensor.dtype, tensor.shape)}, declared is {type}; allowed is "
                f"{names} of that shape, or with one more leading axis for a batch"
            )
        tensor = tensor.detach().to(carrier(type))
        return round_half(tensor) if self._rounds and type.element.name == "float16" else tensor

    def _replaced(self, tensor: Tensor, value: Value, batch: int | None) -> tuple[Tensor, bool]:
        """A replacement, rounded as declared, and whether it is batched."""
        type = _type(value)
        whole = batch is not None and tuple(tensor.shape) == (batch, *type.shape)
        if tensor.dtype != carrier(type) or not (whole or tuple(tensor.shape) == type.shape):
            raise ProgramError(
                f"the replacement of {value.name!r} is {described(tensor.dtype, tensor.shape)}, declared is {type}"
            )
        return round_half(tensor) if self._rounds and type.element.name == "float16" else tensor, whole


def _type(value: Value) -> TensorType:
    if value.type is None:
        raise ProgramError(f"value {value.name!r} is no tensor")
    return value.type
