"""RangeReport: where float16 is too small or too coarse for what a program computes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mobile_export.coreml_simulator.program import Operation, Program, Value

LARGEST = 65504.0  # the largest float16
INFINITE = 65520.0  # from here on, float32 rounds to the infinite float16
SMALLEST_NORMAL = 2.0**-14  # 6.1e-05; below it float16 loses digits, and some engines take zero


@dataclass(frozen=True)
class ValueRange:
    """A computed float value over all runs.

    largest: the largest finite |x|. overflowed: how many elements float16 cannot hold; undefined: how many are NaN;
    both summed over the runs. subnormal: the share of the non-zero elements that are below the smallest normal
    float16, in the worst run. accumulated: the largest sum inside of the operation as far as it can be told from
    outside: of a mean the mean times the number of elements, of a norm the largest square; None for other operations.
    Of a value that is declared float32, overflowed and subnormal are 0.
    """

    operation: str
    name: str
    element: str
    largest: float
    overflowed: int
    undefined: int
    subnormal: float
    accumulated: float | None

    @property
    def accumulation_overflows(self) -> bool:
        """Whether an engine that also sums in float16 would overflow inside of the operation."""
        return self.element == "float16" and self.accumulated is not None and self.accumulated >= INFINITE

    @property
    def severity(self) -> tuple[bool, bool, bool, float]:
        """What is worse is greater: NaN, overflow, overflow inside, then the share of float16's range that is used up
        at either end."""
        used = max(self.largest / LARGEST, self.subnormal) if self.element == "float16" else 0.0
        return self.undefined > 0, self.overflowed > 0, self.accumulation_overflows, used


@dataclass(frozen=True)
class SmallConstant:
    """A float16 constant with elements below the smallest normal float16, or an epsilon that was stored as zero.

    operation, parameter: the first use. smallest: the smallest |x|, without the zeros if there are other elements.
    small: how many are subnormal, or zero where that is the fault.
    """

    operation: str
    parameter: str
    name: str
    smallest: float
    small: int
    elements: int

    def __str__(self) -> str:
        state = "zero" if self.smallest == 0 else "subnormal"
        what = f"is {state}" if self.elements == 1 else f"has {self.small} {state} elements of {self.elements}"
        return f"constant {self.name} ({self.parameter} of {self.operation}) {what}: {self.smallest:.4g}"


@dataclass(frozen=True)
class RangeReport:
    """values: the most severe first. constants: scalars first, then those with the largest share of small elements."""

    values: tuple[ValueRange, ...]
    constants: tuple[SmallConstant, ...]

    def text(self, rows: int = 20) -> str:
        """The findings in words and a table of the values, the `rows` most severe of each."""
        overflowed = sum(v.overflowed > 0 for v in self.values)
        lines = [f"{overflowed} of {len(self.values)} values go beyond float16 (65504)"]
        lines += _first(
            rows, [f"{v.operation} {v.name}: {v.undefined} elements are NaN" for v in self.values if v.undefined]
        )
        lines += _first(
            rows,
            [
                f"{v.operation} {v.name}: sums of about {v.accumulated:.4g} inside, too much for sums in float16"
                for v in self.values
                if v.accumulation_overflows
            ],
        )
        lines += _first(rows, [str(constant) for constant in self.constants])
        lines.append(f"{'largest':>10} {'overflowed':>10} {'subnormal':>10}  value")
        lines += _first(
            rows,
            [
                f"{v.largest:>10.4g} {v.overflowed:>10} {v.subnormal:>10.1%}  {v.operation} {v.name}"
                for v in self.values
            ],
        )
        return "\n".join(lines)


def _first(rows: int, lines: list[str]) -> list[str]:
    return lines if len(lines) <= rows else [*lines[:rows], f"... and {len(lines) - rows} more like these"]


class RangeRecorder:
    """A hook that gathers the ranges of any number of runs.

    Use it in mode "float32": what float16 cannot hold is then seen where it begins, in its true size, and not as
    infinities in all that comes after.

    Example:
        recorder = RangeRecorder(program)
        Simulator(program, mode="float32")(inputs, hook=recorder)
        print(recorder.report().text())
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._ranges: dict[str, ValueRange] = {}
        values = [*program.inputs, *(value for operation in program.operations for value in operation.outputs)]
        self._elements = {value.name: math.prod(value.type.shape) for value in values if value.type}

    def __call__(self, operation: Operation, value: Value, tensor: Tensor) -> None:
        if value.type is None or not value.type.element.is_float:
            return
        half = value.type.element.name == "float16"
        size = tensor.abs()
        largest = float(torch.where(torch.isfinite(size), size, 0.0).max()) if size.numel() else 0.0
        tiny = int(torch.count_nonzero((size > 0) & (size < SMALLEST_NORMAL)))
        new = ValueRange(
            operation=operation.type,
            name=value.name,
            element=value.type.element.name,
            largest=largest,
            overflowed=int(torch.count_nonzero(size >= INFINITE)) if half else 0,
            undefined=int(torch.count_nonzero(torch.isnan(size))),
            subnormal=tiny / max(1, int(torch.count_nonzero(size))) if half else 0.0,
            accumulated=self._accumulated(operation, value, largest),
        )
        old = self._ranges.get(value.name)
        self._ranges[value.name] = new if old is None else _merged(old, new)

    def report(self) -> RangeReport:
        """What was gathered so far."""
        values = sorted(self._ranges.values(), key=lambda v: v.severity, reverse=True)
        return RangeReport(tuple(values), small_constants(self._program))

    def _accumulated(self, operation: Operation, value: Value, largest: float) -> float | None:
        if operation.type == "reduce_l2_norm":
            return largest**2
        if operation.type not in ("reduce_mean", "layer_norm", "instance_norm"):
            return None
        (x,) = operation.inputs["x"]
        if operation.type == "reduce_mean":
            return largest * self._elements[x] / max(1, self._elements[value.name])
        return self._ranges[x].largest ** 2 if x in self._ranges else None


def small_constants(program: Program) -> tuple[SmallConstant, ...]:
    """The float16 constants of a program that float16 can only just hold, such as an epsilon of 1e-5."""
    found: dict[str, SmallConstant] = {}
    uses = [(o, p, name) for o in program.operations for p, names in o.inputs.items() for name in names]
    for operation, parameter, name in uses:
        constant = program.constants.get(name)
        if name in found or constant is None or not isinstance(constant.value, Tensor):
            continue
        if constant.type is None or constant.type.element.name != "float16":
            continue
        size = constant.value.float().abs().reshape(-1)
        tiny = size[(size > 0) & (size < SMALLEST_NORMAL)]
        if parameter == "epsilon" and bool((size == 0).all()):
            tiny = size
        if tiny.numel():
            small = SmallConstant(operation.type, parameter, name, float(tiny.min()), tiny.numel(), size.numel())
            found[name] = small
    return tuple(sorted(found.values(), key=lambda c: (c.elements > 1, -c.small / c.elements, c.smallest)))


def _merged(a: ValueRange, b: ValueRange) -> ValueRange:
    return ValueRange(
        operation=a.operation,
        name=a.name,
        element=a.element,
        largest=max(a.largest, b.largest),
        overflowed=a.overflowed + b.overflowed,
        undefined=a.undefined + b.undefined,
        subnormal=max(a.subnormal, b.subnormal),
        accumulated=max((x for x in (a.accumulated, b.accumulated) if x is not None), default=None),
    )
