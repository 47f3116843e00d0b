"""Cuts: where the operations of an ML program can be divided, so that the weights of every part stay small."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from correction.errors import UsageError
from mobile_export.coreml_simulator.blobs import ALIGNMENT

# The element types that an input or output of a model may have, with their bytes (DataType of MIL.proto).
_BOUNDARY_BYTES = {10: 2, 11: 4, 23: 4}  # float16, float32, int32
_FLOAT16, _FIRST_WITH_FLOAT16 = 10, 7  # specification version: iOS 16


@dataclass(frozen=True)
class Step:
    """One operation that runs, with the constants behind it.

    operations: indices of its constants and constexprs in the block, then its own. inputs: names of the
    values that it takes from other steps or from outside. outputs: name -> its NamedValueType message.
    blobs: offsets of the blobs that its constants hold.
    """

    name: str
    operations: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: Mapping[str, Any]
    blobs: frozenset[int]


def steps_of(block: Any) -> list[Step]:
    """The steps of a Block message in the order of the file. Raises UsageError for blocks within operations."""
    made_by: dict[str, int] = {}  # the index of the constant that makes a value
    steps = []
    for index, operation in enumerate(block.operations):
        if operation.blocks:
            raise UsageError(f"a program with {operation.type} operations cannot be divided into chunks")
        if operation.type.startswith("const"):  # const and constexpr_*: what is known before the program runs
            made_by.update((output.name, index) for output in operation.outputs)
            continue
        behind = sorted(_constants_behind(operation, block.operations, made_by))
        names = dict.fromkeys(name for name in input_names(operation) if name not in made_by)
        blobs = frozenset(blob for i in (*behind, index) for blob in _blobs(block.operations[i]))
        outputs = {output.name: output for output in operation.outputs}
        steps.append(Step(operation.outputs[0].name, (*behind, index), tuple(names), outputs, blobs))
    return steps


def find_cuts(
    steps: Sequence[Step], outputs: Collection[str], sizes: Mapping[int, int], limit: int, version: int
) -> list[int]:
    """Where each chunk ends, as indices into steps; the last one is len(steps).

    There are as few chunks as possible, about equal in size; where a cut could lie in several places, the
    fewest bytes cross it.

    outputs: of the whole; they do not cross a cut, so that what nobody takes is what the whole puts out.
    sizes: offset of a blob -> bytes that it takes in a file. limit: the bytes of blobs that no chunk may exceed.
    version: specification version, which decides what may cross a cut.
    Raises UsageError where one operation alone exceeds the limit, or no place to cut is left.
    """
    crossing = _crossing_bytes(steps, outputs, version)
    cuts = _longest_chunks(steps, crossing, sizes, limit)
    low, high = sum(sizes[blob] for blob in frozenset().union(*(step.blobs for step in steps))) // len(cuts), limit
    while high - low > limit // 100:
        middle = (low + high) // 2
        try:
            tried = _longest_chunks(steps, crossing, sizes, middle)
        except UsageError:  # smaller than some operation: no answer, but no failure either
            low = middle + 1
            continue
        if len(tried) == len(cuts):
            cuts, high = tried, middle
        else:
            low = middle + 1
    return cuts


def input_names(operation: Any) -> Iterator[str]:
    """The names that an operation's inputs are bound to, parameters in alphabetical order."""
    for parameter in sorted(operation.inputs):
        for argument in operation.inputs[parameter].arguments:
            if argument.WhichOneof("binding") == "name":
                yield argument.name


def blob_values(operation: Any) -> Iterator[Any]:
    """The BlobFileValue messages of an operation, wherever they stand."""
    bound = (argument.value for name in sorted(operation.inputs) for argument in operation.inputs[name].arguments)
    for value in (*(operation.attributes[name] for name in sorted(operation.attributes)), *bound):
        if value.WhichOneof("value") == "blobFileValue":
            yield value.blobFileValue


def _blobs(operation: Any) -> set[int]:
    return {value.offset for value in blob_values(operation)}


def _constants_behind(operation: Any, operations: Any, made_by: Mapping[str, int]) -> set[int]:
    found: set[int] = set()
    waiting = [operation]
    while waiting:
        new = {made_by[name] for name in input_names(waiting.pop()) if name in made_by} - found
        found |= new
        waiting.extend(operations[index] for index in new)
    return found


def _crossing_bytes(steps: Sequence[Step], outputs: Collection[str], version: int) -> list[float]:
    """For each end of a chunk, the bytes of the values that later steps need; infinite where one cannot cross."""
    last_use = {name: index for index, step in enumerate(steps) for name in step.inputs}
    crossing = [0.0] * (len(steps) + 1)
    for index, step in enumerate(steps):
        for name, value in step.outputs.items():
            for end in range(index + 1, last_use.get(name, index) + 1):
                crossing[end] += math.inf if name in outputs else _boundary_bytes(value.type, version)
    return crossing


def _boundary_bytes(type: Any, version: int) -> float:
    tensor = type.tensorType
    allowed = type.WhichOneof("type") == "tensorType" and tensor.dataType in _BOUNDARY_BYTES and tensor.rank > 0
    if not allowed or (tensor.dataType == _FLOAT16 and version < _FIRST_WITH_FLOAT16):
        return math.inf
    sizes = [dimension.constant.size for dimension in tensor.dimensions]
    return _BOUNDARY_BYTES[tensor.dataType] * math.prod(sizes) if min(sizes) > 0 else math.inf


def _longest_chunks(
    steps: Sequence[Step], crossing: Sequence[float], sizes: Mapping[int, int], limit: int
) -> list[int]:
    """Each chunk as long as the limit allows, one after the other."""
    cuts: list[int] = []
    start = 0
    while True:
        held: set[int] = set()
        bytes, weighted, allowed = ALIGNMENT, 0, []  # of allowed: (steps with weights, -bytes that cross, end)
        for end in range(start + 1, len(steps) + 1):
            bytes += sum(sizes[blob] for blob in steps[end - 1].blobs - held)
            weighted += bool(steps[end - 1].blobs)
            held |= steps[end - 1].blobs
            if bytes > limit:
                break
            if crossing[end] < math.inf:
                allowed.append((weighted, -crossing[end], end))
        else:
            return [*cuts, len(steps)]
        if not allowed:
            alone = ALIGNMENT + sum(sizes[blob] for blob in steps[end - 1].blobs)
            why = f"its weights alone take {alone}" if alone > limit else "no value before it can be an output"
            raise UsageError(f"no chunk with {limit} bytes of weights can hold {steps[end - 1].name!r}: {why}")
        start = max(allowed)[2]
        cuts.append(start)
