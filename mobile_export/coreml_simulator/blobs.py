"""BlobFile: the weights of an ML program (MIL blob storage, version 2), read without trust.

The file is a 64-byte header, u32 number of blobs and u32 version, and then for every blob a 64-byte record and its
data, both at multiples of 64 bytes. A record is u32 sentinel, u32 element type, u64 bytes of data, u64 offset of the
data, u64 bits that fill up the last byte (sub-byte types only); the rest is reserved, everything is little-endian.

All records are walked when the file is opened. So a program can refer only to a blob that lies inside of the file and
overlaps no other, and all blobs together never take more than 8 times the size of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mobile_export.coreml_simulator.errors import PackageError, UnsupportedError
from mobile_export.coreml_simulator.packing import unpack
from mobile_export.coreml_simulator.tensor_type import ELEMENTS, ElementType, TensorType

ALIGNMENT = 64  # bytes: of the header, of a record, and of where data begins
SENTINEL = 0xDEADBEEF
VERSION = 2
MAX_BLOBS = 100_000

# BlobDataType of MIL's storage format; bfloat16 (5) and the 8-bit floats (16, 17) are missing.
BLOB_ELEMENTS = {
    1: "float16",
    2: "float32",
    3: "uint8",
    4: "int8",
    6: "int16",
    7: "uint16",
    8: "int4",
    9: "uint1",
    10: "uint2",
    11: "uint4",
    12: "uint3",
    13: "uint6",
    14: "int32",
    15: "uint32",
}


@dataclass(frozen=True)
class Blob:
    """offset: of the record, in bytes; programs refer to it. size: of the data behind the record, in bytes."""

    offset: int
    element: ElementType
    count: int
    size: int


class BlobFile:
    """blobs: by the offset of the record, in the order of the file."""

    def __init__(self, path: Path) -> None:
        """Walk the records of `path`.

        Raises:
            PackageError: the file is truncated, has bytes that belong to no blob, or a record contradicts it.
            UnsupportedError: another version, or a blob of an element type that the simulator lacks.
        """
        self.path = path
        self.blobs: Mapping[int, Blob] = self._walk()
        self._decoded: dict[int, Tensor] = {}

    def tensor(self, offset: int, type: TensorType) -> Tensor:
        """The blob whose record is at `offset`, in the shape and carrier of `type`; decoded once however often asked.

        Raises:
            PackageError: no record begins there, or it holds another element type or number of elements.
        """
        blob = self.blobs.get(offset)
        if blob is None:
            raise PackageError(f"{self.path.name} has {len(self.blobs)} blobs, none of them at offset {offset}")
        if (blob.element, blob.count) != (type.element, type.count):
            raise PackageError(
                f"the program declares {type}, that is {type.count} elements, "
                f"{self.path.name} holds {blob.count} of {blob.element.name} at offset {offset}"
            )
        if offset not in self._decoded:
            data = np.fromfile(self.path, np.uint8, blob.size, offset=offset + ALIGNMENT)
            if len(data) != blob.size:
                raise PackageError(f"{self.path.name} became shorter while it was read")
            self._decoded[offset] = decode(data, blob.element, blob.count)
        return self._decoded[offset].reshape(type.shape)

    def _walk(self) -> dict[int, Blob]:
        blobs: dict[int, Blob] = {}
        with self.path.open("rb") as file:
            length = file.seek(0, 2)
            if length < ALIGNMENT:
                raise PackageError(f"{self.path.name} begins with a header of {ALIGNMENT} bytes, it has {length}")
            file.seek(0)
            count, version = struct.unpack("<II", file.read(8))
            if version != VERSION:
                raise UnsupportedError(f"{self.path.name} is of storage version {version}, only {VERSION} is known")
            if count > MAX_BLOBS:
                raise PackageError(f"{self.path.name} may have {MAX_BLOBS} blobs, it says {count}")
            end = ALIGNMENT
            for _ in range(count):
                offset = -(-end // ALIGNMENT) * ALIGNMENT
                file.seek(offset)
                blob = self._blob(offset, file.read(ALIGNMENT), length)
                blobs[offset] = blob
                end = offset + ALIGNMENT + blob.size
        if end != length:
            raise PackageError(f"the {count} blobs of {self.path.name} end at byte {end}, the file at {length}")
        return blobs

    def _blob(self, offset: int, record: bytes, length: int) -> Blob:
        where = f"{self.path.name}, blob at offset {offset}"
        if len(record) < ALIGNMENT:
            raise PackageError(f"{where}: a record has {ALIGNMENT} bytes, the file has {length} bytes altogether")
        sentinel, code, size, begin, padding = struct.unpack_from("<IIQQQ", record)
        if sentinel != SENTINEL:
            raise PackageError(f"{where}: a record begins with {SENTINEL:#x}, got {sentinel:#x}")
        if begin != offset + ALIGNMENT:
            raise PackageError(f"{where}: its data must begin behind the record at {offset + ALIGNMENT}, got {begin}")
        if begin + size > length:
            raise PackageError(f"{where}: {size} bytes from {begin} go beyond the file's {length}")
        if code not in BLOB_ELEMENTS:
            raise UnsupportedError(f"{where}: element type {code} is not supported, only {BLOB_ELEMENTS}")
        element = ELEMENTS[BLOB_ELEMENTS[code]]
        if padding >= 8 or (size * 8 - padding) % element.bits or padding > size * 8:
            raise PackageError(f"{where}: {size} bytes less {padding} bits hold no whole number of {element.name}")
        return Blob(offset, element, (size * 8 - padding) // element.bits, size)


def decode(data: NDArray[np.uint8], element: ElementType, count: int) -> Tensor:
    """`count` elements as stored in `data`, [bytes] uint8 of exactly their size, as [count] in the carrier.

    The result may share the memory of `data`.
    """
    if element.bits >= 8:
        return torch.from_numpy(data.view(np.dtype(element.name).newbyteorder("<"))).to(element.carrier)
    codes = unpack(data, element.bits, count)
    if element.carrier is torch.uint8:
        return torch.from_numpy(codes)
    sign = np.uint8(1 << (element.bits - 1))  # two's complement
    codes ^= sign
    codes -= sign
    return torch.from_numpy(codes.view(np.int8))
