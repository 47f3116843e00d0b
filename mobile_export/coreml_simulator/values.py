"""Values: what the protobuf messages ValueType and Value of an ML program become.

Every function takes `where`, the place that its error messages begin with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from mobile_export.coreml_simulator.blobs import decode
from mobile_export.coreml_simulator.errors import PackageError, UnsupportedError
from mobile_export.coreml_simulator.packing import packed_size
from mobile_export.coreml_simulator.program import Constant, Value
from mobile_export.coreml_simulator.tensor_type import ELEMENTS, TensorType

STRING = 2
# DataType of MIL.proto; 64-bit numbers, bfloat16 and the 8-bit floats are missing.
DATA_TYPES = {
    1: "bool",
    10: "float16",
    11: "float32",
    21: "int8",
    22: "int16",
    23: "int32",
    25: "int4",
    31: "uint8",
    32: "uint16",
    33: "uint32",
    35: "uint4",
    36: "uint2",
    37: "uint1",
    38: "uint6",
    39: "uint3",
}
MAX_RANK = 16
MAX_COUNT = 2**33  # elements of a tensor; it also bounds each dimension

# (file name, offset, type) -> the tensor stored there.
ReadBlob = Callable[[str, int, TensorType], torch.Tensor]


def tensor_type(message: Any, where: str) -> TensorType:
    """A MIL TensorType message as a TensorType.

    Raises:
        PackageError: its rank contradicts its dimensions, or it is larger than MAX_RANK or MAX_COUNT.
        UnsupportedError: an element type that the simulator lacks, or a dimension without a size.
    """
    if message.dataType not in DATA_TYPES:
        supported = ", ".join(DATA_TYPES.values())
        raise UnsupportedError(f"{where}: element type {message.dataType} is not supported, only {supported}")
    return TensorType(ELEMENTS[DATA_TYPES[message.dataType]], _shape(message, where))


def value(message: Any, where: str) -> Value:
    """A NamedValueType message as a Value.

    Raises:
        PackageError: it has no printable name or no type. Also what `tensor_type` raises.
        UnsupportedError: a tuple or a dictionary.
    """
    if not message.name or not message.name.isprintable():
        raise PackageError(f"{where}: a value needs a printable name, got {message.name!r}")
    where = f"{where}, value {message.name!r}"
    kind = message.type.WhichOneof("type")
    if kind == "tensorType":
        tensor = message.type.tensorType
        return Value(message.name, None if tensor.dataType == STRING else tensor_type(tensor, where))
    if kind == "stateType":
        return Value(message.name, _wrapped(message.type.stateType, where), state=True)
    if kind == "listType":
        return Value(message.name, None)
    raise _no_such("type", kind, where)


def constant(message: Any, where: str, read_blob: ReadBlob) -> Constant:
    """A Value message as a Constant.

    Raises:
        PackageError: its data is not what its type declares. Also what `tensor_type` and `read_blob` raise.
        UnsupportedError: a tuple, a dictionary, or a list of anything but strings.
    """
    kind = message.type.WhichOneof("type")
    if kind == "listType":
        items = [constant(item, where, read_blob).value for item in message.immediateValue.list.values]
        strings = tuple(item for item in items if isinstance(item, str))
        if len(strings) != len(items):
            raise UnsupportedError(f"{where}: only lists of strings are supported")
        return Constant(None, strings)
    if kind != "tensorType":
        raise _no_such("type", kind, where)
    tensor = message.type.tensorType
    if tensor.dataType == STRING:
        return Constant(None, _strings(message, _shape(tensor, where), where))
    type = tensor_type(tensor, where)
    source = message.WhichOneof("value")
    if source == "blobFileValue":
        try:
            return Constant(type, read_blob(message.blobFileValue.fileName, message.blobFileValue.offset, type))
        except (PackageError, UnsupportedError) as error:
            raise error.__class__(f"{where}: {error}") from error
    if source != "immediateValue" or message.immediateValue.WhichOneof("value") not in ("tensor", None):
        raise PackageError(f"{where}: {type} must have a tensor or a blob as its value")
    return Constant(type, _inline(message.immediateValue.tensor, type, where))


def _shape(message: Any, where: str) -> tuple[int, ...]:
    if not message.rank == len(message.dimensions) <= MAX_RANK:
        raise PackageError(
            f"{where}: the rank must be the number of dimensions and at most {MAX_RANK}, "
            f"got {message.rank} and {len(message.dimensions)}"
        )
    shape: list[int] = []
    count = 1
    for dimension in message.dimensions:
        if dimension.WhichOneof("dimension") != "constant":
            raise UnsupportedError(f"{where}: only static shapes are supported, dimension {len(shape)} has no size")
        shape.append(dimension.constant.size)
        count *= max(shape[-1], 1)
    if count > MAX_COUNT:
        raise PackageError(f"{where}: a tensor may have {MAX_COUNT} elements, got the shape {shape}")
    return tuple(shape)


def _wrapped(message: Any, where: str) -> TensorType:
    kind = message.wrappedType.WhichOneof("type")
    if kind != "tensorType":
        raise _no_such("state of type", kind, where)
    return tensor_type(message.wrappedType.tensorType, where)


def _strings(message: Any, shape: tuple[int, ...], where: str) -> str | tuple[str, ...]:
    strings = tuple(message.immediateValue.tensor.strings.values)
    if len(shape) > 1 or len(strings) != (shape[0] if shape else 1):
        raise PackageError(f"{where}: strings of shape {list(shape)} are declared, {len(strings)} are there")
    return strings if shape else strings[0]


def _inline(message: Any, type: TensorType, where: str) -> torch.Tensor:
    """A TensorValue message."""
    field = message.WhichOneof("value")
    element, allowed = type.element, _fields(type)
    if field is None and type.count == 0:
        return torch.zeros(type.shape, dtype=element.carrier)
    if field not in allowed:
        raise PackageError(f"{where}: {type} must be given as {' or '.join(allowed)}, got {field}")
    values = getattr(message, field).values
    expected = packed_size(type.count, element.bits) if field == "bytes" else type.count
    if len(values) != expected:
        raise PackageError(f"{where}: {type} takes {expected} {field}, got {len(values)}")
    if field == "bytes":
        # bytearray: torch wants memory that may be written to.
        return decode(np.frombuffer(bytearray(values), np.uint8), element, type.count).reshape(type.shape)
    if field != "ints":
        return torch.from_numpy(np.array(values, np.dtype(element.name))).reshape(type.shape)
    integers = np.array(values, np.int64)
    limits = np.iinfo(element.name)
    if integers.size and not limits.min <= integers.min() <= integers.max() <= limits.max:
        raise PackageError(f"{where}: {element.name} cannot hold all of {integers.min()} to {integers.max()}")
    return torch.from_numpy(integers).to(element.carrier).reshape(type.shape)


def _fields(type: TensorType) -> tuple[str, ...]:
    """The fields of a TensorValue that may hold `type`."""
    match type.element.name:
        case "bool":
            return ("bools",)
        case "float32":
            return ("floats",)
        case "int32":
            return ("ints",)
        case "int16" | "uint16":
            return ("ints", "bytes")
        case _:
            return ("bytes",)


def _no_such(what: str, kind: str | None, where: str) -> PackageError | UnsupportedError:
    if kind is None:
        return PackageError(f"{where}: the {what} is missing")
    return UnsupportedError(f"{where}: {what} {kind} is not supported")
