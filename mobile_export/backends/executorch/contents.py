"""What a `.pte` holds: its constants by digest, its sizes, its memory plan; and what a table should have put there.

XNNPACK's constants are stored under the sha256 of their bytes (scales with a prefix), so that "the
artifact holds exactly these codes" is a set inclusion. Operands that are no weights, such as the bias that is
added to a product with float32 activations, stay constants of the program and go into the delegate as inputs.
"""

from __future__ import annotations

import hashlib
import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from correction.errors import CheckFailed
from mobile_export.backends.executorch.convolution_geometry import as_matrix, kernel_rows
from mobile_export.backends.executorch.support import channel_codes
from mobile_export.quantize.table import LayerQuantization, QuantizationTable


@dataclass(frozen=True)
class Contents:
    """constants: sha256 of the bytes -> length, of delegates and of the program around them; the sizes are in bytes."""

    constants: dict[str, int]
    total_bytes: int
    delegate_bytes: int
    planned_memory_bytes: int
    delegates: tuple[str, ...]
    operator_calls: tuple[str, ...]


def file_contents(path: Path) -> Contents:
    """`read_contents` of a file, which is mapped: the parser takes parts of it again and again, and none is a copy."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise CheckFailed(f"{path} is not a readable ExecuTorch program (it is empty)")
        # Not closed here: an error's traceback may still look at it.
        return read_contents(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), str(path))


def read_contents(data: bytes | memoryview, source: str) -> Contents:
    """Parse a `.pte`. Raises CheckFailed where it is not one."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    try:
        file = deserialize_pte_binary(data)
        program, named = file.program, file.named_data
        plan = program.execution_plan[0]
    except Exception as error:  # the flatbuffer reader has no error type of its own
        raise CheckFailed(f"{source} is not a readable ExecuTorch program ({type(error).__name__})") from error
    constants = {} if named is None else {k: len(named.buffers[v.buffer_index]) for k, v in named.pte_data.items()}
    constants |= {hashlib.sha256(part).hexdigest(): len(part) for part in _outer_constants(program)}
    return Contents(
        constants=constants,
        total_bytes=len(data),
        delegate_bytes=sum(len(d.data) for d in program.backend_delegate_data),
        planned_memory_bytes=sum(plan.non_const_buffer_sizes),
        delegates=tuple(d.id for d in plan.delegates),
        operator_calls=tuple(_calls(plan)),
    )


def _calls(plan: Any) -> Iterator[str]:
    """Names of the portable operators that the plan calls, once a call."""
    for chain in plan.chains:
        for instruction in chain.instructions:
            index = getattr(instruction.instr_args, "op_index", None)
            if index is not None:
                yield plan.operators[index].name


def _outer_constants(program: Any) -> Iterator[bytes]:
    """The bytes of the program's own constants, without the padding after them."""
    from executorch.exir.schema import Tensor as ProgramTensor
    from executorch.exir.tensor import get_scalar_type

    for value in program.execution_plan[0].values:
        tensor = value.val
        if isinstance(tensor, ProgramTensor) and tensor.data_buffer_idx and tensor.allocation_info is None:
            size = math.prod(tensor.sizes) * get_scalar_type(tensor.scalar_type).itemsize
            yield program.constant_buffer[tensor.data_buffer_idx].storage[:size]


def stored_bytes(layer: LayerQuantization) -> dict[str, bytes]:
    """The constants of one layer as the delegate stores them: weight codes, scales, and the bias.

    Where ranges are dynamic, the rows of a kernel are constants of their own. The bias is int32 codes where the layer's
    input is on a grid, else float32. One of zeros in float32 is left out: nothing is added then (see MatrixProduct).
    """
    weight, codes = channel_codes(layer), layer.bias_codes
    constants = {"scale": weight.scale.numpy().astype("<f4").tobytes()}
    if layer.dynamic:
        rows = enumerate(kernel_rows(weight.codes))
        constants |= {f"weight.{i}": _packed(row, weight.bits) for i, row in rows}
    else:
        constants["weight"] = _packed(as_matrix(weight.codes), weight.bits)
    if codes is not None:
        constants["bias"] = codes.numpy().astype("<i4").tobytes()
    elif layer.float_bias.any():
        constants["bias"] = layer.float_bias.numpy().astype("<f4").tobytes()
    return constants


def _packed(codes: Tensor, bits: int) -> bytes:
    """8 bit: one byte a code. 4 bit: code + 8 in nibbles, the even column low, odd widths padded with 0 before + 8."""
    values = codes.numpy()
    if bits == 8:
        return values.tobytes()
    if values.shape[1] % 2:
        values = np.pad(values, ((0, 0), (0, 1)))
    nibbles = (values + 8).astype(np.uint8)
    return (nibbles[:, 1::2] << 4 | nibbles[:, ::2]).tobytes()


def missing_constants(contents: Contents, table: QuantizationTable) -> list[str]:
    """Names of the layer constants ("layer.weight", …) that the artifact does not hold, byte for byte."""
    return [
        f"{name}.{part}"
        for name, layer in table.layers.items()
        for part, data in stored_bytes(layer).items()
        if ("scale_" if part == "scale" else "") + hashlib.sha256(data).hexdigest() not in contents.constants
    ]
