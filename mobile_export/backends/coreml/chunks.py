"""Chunks: a package with too many weights for the Neural Engine, as several packages that run one after the other.

On iOS the Neural Engine takes packages of less than about 1 GB of weights. The chunks hold the operations and
the bytes of the weights as they were; values that cross a cut are inputs and outputs under their own names, so
a chunk takes what it needs by name from the inputs of the whole and the outputs of the chunks before it.
"""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from correction.errors import UsageError
from mobile_export.backends.coreml.cuts import Step, blob_values, find_cuts, steps_of
from mobile_export.backends.coreml.package import tidy_package
from mobile_export.coreml_simulator.blobs import ALIGNMENT, BlobFile
from mobile_export.coreml_simulator.package_files import read_package_files

# Of MIL.proto (DataType) and of FeatureTypes.proto (ArrayDataType).
_ARRAY_TYPES = {10: 65552, 11: 65568, 23: 131104}  # float16, float32, int32


@dataclass(frozen=True)
class ChunkInterface:
    """given: the inputs of the whole that this chunk takes. carried: its other inputs -> index, from 0, of the
    earlier chunk that puts them out. outputs: what it puts out. results: those of them that no chunk takes, which
    are the outputs of the whole.
    """

    given: tuple[str, ...]
    carried: Mapping[str, int]
    outputs: tuple[str, ...]
    results: tuple[str, ...]


class ChunkedProgram:
    """Chunks run in order as if they were the whole.

    chunks: callables, names -> arrays in, names -> arrays out, whatever runs them.
    Raises UsageError where there are not as many as interfaces.
    """

    def __init__(
        self, chunks: Sequence[Callable[[dict[str, Any]], Mapping[str, Any]]], interfaces: Sequence[ChunkInterface]
    ) -> None:
        if len(chunks) != len(interfaces) or not chunks:
            raise UsageError(f"each chunk needs its interface, got {len(chunks)} chunks and {len(interfaces)}")
        self.chunks, self.interfaces = tuple(chunks), tuple(interfaces)

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs of the whole by name -> the outputs of the whole by name. Raises UsageError for a missing one."""
        missing = {name for interface in self.interfaces for name in interface.given} - inputs.keys()
        if missing:
            raise UsageError(f"inputs missing: {', '.join(sorted(missing))}; got {', '.join(inputs) or 'none'}")
        values = dict(inputs)
        results: dict[str, Any] = {}
        for chunk, interface in zip(self.chunks, self.interfaces, strict=True):
            outputs = chunk({name: values[name] for name in (*interface.given, *interface.carried)})
            values.update((name, outputs[name]) for name in interface.outputs)
            results.update((name, outputs[name]) for name in interface.results)
        return results


def split_package(path: Path, limit_bytes: int) -> list[Path]:
    """Replace the .mlpackage at `path` by chunks with at most `limit_bytes` of weights each.

    unet.mlpackage becomes unet-1.mlpackage, unet-2.mlpackage, … in the same folder, in the order in which they
    run; the same package gives the same bytes. Returns [path], untouched, where its weights are small enough.
    Raises UsageError where it cannot be divided so, or a chunk's name is taken; then nothing has changed.
    A damaged package raises the PackageError of the simulator, which reads it.
    """
    if limit_bytes < 1:
        raise UsageError(f"limit_bytes is at least 1, got {limit_bytes}")
    files = read_package_files(path)
    weights = [name for name in files.listed if name != files.model]
    if sum(files.sizes[name] for name in weights) <= limit_bytes:
        return [path]
    if len(weights) != 1:
        raise UsageError(f"{path} can be divided if its weights are one file, it has {', '.join(sorted(weights))}")
    model, blobs = _read_model(path / files.model), BlobFile(path / weights[0])
    block = _only_block(model, path)
    steps = steps_of(block)
    sizes = {offset: ALIGNMENT + _aligned(blob.size) for offset, blob in blobs.blobs.items()}
    foreign = set(block.outputs) - {name for step in steps for name in step.outputs}
    if foreign:
        raise UsageError(f"{path} cannot be divided: no operation computes its output {', '.join(sorted(foreign))}")
    ends = find_cuts(steps, block.outputs, sizes, limit_bytes, model.specificationVersion)
    targets = [path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(1, len(ends) + 1)]
    for target in targets:
        if target.exists():
            raise UsageError(f"a chunk is to be written to {target}, which exists; remove it first")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as temporary:
        for target, start, end in zip(targets, [0, *ends], ends, strict=False):
            part = Path(temporary) / target.name
            shutil.copytree(path, part, ignore=shutil.ignore_patterns(blobs.path.name))
            held = frozenset().union(*(step.blobs for step in steps[start:end]))
            moved = _write_blobs(blobs, held, part / weights[0])
            chunk = _chunk_model(model, steps, start, end, moved)
            (part / files.model).write_bytes(chunk.SerializeToString(deterministic=True))
            tidy_package(part)
        for target in targets:
            (Path(temporary) / target.name).rename(target)
    shutil.rmtree(path)
    return targets


def chunk_interfaces(paths: Sequence[Path]) -> list[ChunkInterface]:
    """What the chunks at `paths`, in the order in which they run, take from the whole and from each other."""
    descriptions = [_read_model(path / read_package_files(path).model).description for path in paths]
    made_in: dict[str, int] = {}
    taken = {feature.name for description in descriptions for feature in description.input}
    interfaces = []
    for index, description in enumerate(descriptions):
        names = [feature.name for feature in description.input]
        outputs = tuple(feature.name for feature in description.output)
        interfaces.append(
            ChunkInterface(
                given=tuple(name for name in names if name not in made_in),
                carried={name: made_in[name] for name in names if name in made_in},
                outputs=outputs,
                results=tuple(name for name in outputs if name not in taken),
            )
        )
        made_in.update((name, index) for name in outputs)
    return interfaces


def _read_model(path: Path) -> Any:
    from coremltools.proto.Model_pb2 import Model  # slow to import

    model = Model()
    model.ParseFromString(path.read_bytes())
    return model


def _only_block(model: Any, path: Path) -> Any:
    """The block of the only function. Raises UsageError for what cannot be divided."""
    functions = list(model.mlProgram.functions)
    if functions != ["main"] or model.description.functions or model.description.state:
        found = ", ".join(sorted(functions)) or "none"
        raise UsageError(f"{path} can be divided if it has one function, main, and no state; its functions: {found}")
    function = model.mlProgram.functions["main"]
    return function.block_specializations[function.opset]


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _write_blobs(source: BlobFile, offsets: frozenset[int], target: Path) -> dict[int, int]:
    """A weight file with the blobs at `offsets`, in their order. Returns old offset -> new offset."""
    moved = {}
    with source.path.open("rb") as old, target.open("xb") as new:
        header = bytearray(old.read(ALIGNMENT))
        struct.pack_into("<I", header, 0, len(offsets))
        new.write(header)
        for offset in sorted(offsets):
            place = moved[offset] = _aligned(new.tell())
            old.seek(offset)
            record = bytearray(old.read(ALIGNMENT))
            struct.pack_into("<Q", record, 16, place + ALIGNMENT)  # where the data begins
            new.write(bytes(place - new.tell()) + record + old.read(source.blobs[offset].size))
    return moved


def _chunk_model(model: Any, steps: Sequence[Step], start: int, end: int, moved: Mapping[int, int]) -> Any:
    """`model` with the steps from start to end alone; `moved` says where their blobs are now."""
    chunk = type(model)()
    chunk.CopyFrom(model)
    function = chunk.mlProgram.functions["main"]
    block = function.block_specializations[function.opset]
    whole = model.mlProgram.functions["main"]
    operations = whole.block_specializations[whole.opset].operations

    del block.operations[:]
    block.operations.extend(operations[i] for i in sorted({i for step in steps[start:end] for i in step.operations}))
    for operation in block.operations:
        for value in blob_values(operation):
            value.offset = moved[value.offset]

    made = {name: value for step in steps[start:end] for name, value in step.outputs.items()}
    needed = {name for step in steps[start:end] for name in step.inputs} - made.keys()
    needed_later = {name for step in steps[end:] for name in step.inputs} | set(block.outputs)
    carried = [value for step in steps[:start] for name, value in step.outputs.items() if name in needed]
    inputs = [value for value in whole.inputs if value.name in needed] + carried
    outputs = [value for name, value in made.items() if name in needed_later]
    del function.inputs[:], block.outputs[:]
    function.inputs.extend(inputs)
    block.outputs.extend(value.name for value in outputs)
    _describe(chunk.description.input, inputs)
    _describe(chunk.description.output, outputs)
    return chunk


def _describe(features: Any, values: Sequence[Any]) -> None:
    """Make `features`, the inputs or outputs of a description, those of `values`; keep what is described already."""
    known = {feature.name: type(feature).FromString(feature.SerializeToString()) for feature in features}
    del features[:]
    for value in values:
        feature = features.add()
        if value.name in known:
            feature.CopyFrom(known[value.name])
            continue
        feature.name = value.name
        array = feature.type.multiArrayType
        array.dataType = _ARRAY_TYPES[value.type.tensorType.dataType]
        array.shape.extend(dimension.constant.size for dimension in value.type.tensorType.dimensions)
