"""Compressed constants: what a phone decompresses when it loads a model.

The older forms (iOS 16) hold bit-packed bytes and a `shape`, the newer ones (iOS 18) sub-byte tensors and blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mobile_export.coreml_simulator.errors import ProgramError
from mobile_export.coreml_simulator.ops.quantization import along
from mobile_export.coreml_simulator.ops.registry import Ints, op
from mobile_export.coreml_simulator.packing import unpack


@op("constexpr_cast", element="output_dtype")
def constexpr_cast(source_val: Tensor, *, output_dtype: str) -> Tensor:
    return source_val.float()


@op("constexpr_affine_dequantize", element="scale")
def constexpr_affine_dequantize(quantized_data: Tensor, zero_point: Tensor, scale: Tensor, *, axis: int) -> Tensor:
    """scale * (quantized_data - zero_point); each of the two a scalar or [quantized_data.shape[axis]]."""
    shifted = quantized_data.float() - along(zero_point, quantized_data, axis).float()
    return along(scale, quantized_data, axis) * shifted


@op("constexpr_blockwise_shift_scale", element="scale")
def constexpr_blockwise_shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    """scale * (data - offset), both of data's rank and repeated in blocks up to its shape."""
    shifted = data.float()
    if offset is not None:
        shifted = shifted - _blocks(offset, data.shape, "offset").float()
    return _blocks(scale, data.shape, "scale") * shifted


@op("constexpr_lut_to_dense", exact=True, element="lut")
def constexpr_lut_to_dense(
    indices: Tensor, lut: Tensor, *, shape: Ints | None = None, vector_axis: int | None = None
) -> Tensor:
    """Indices into tables of values.

    With shape: indices are packed bytes, lut: [2^n]. Without: lut: [*groups, palettes, vector], a table for each
    block of indices; each entry becomes `vector` neighbours along vector_axis.
    """
    if shape is not None:
        if lut.dim() != 1 or lut.shape[0] not in (2, 4, 16, 64, 256):
            raise ProgramError(f"a table of shape {list(lut.shape)}; allowed are [2], [4], [16], [64], [256]")
        return lut[_unpacked(indices, int(math.log2(lut.shape[0])), shape).long()]
    palettes, vector = lut.shape[-2:]
    if indices.numel() and int(indices.max()) >= palettes:
        raise ProgramError(f"index {int(indices.max())} of a table with {palettes} entries")
    tables = torch.arange(math.prod(lut.shape[:-2])).reshape(lut.shape[:-2])
    place = _blocks(tables, indices.shape, "lut") * palettes + indices.long()
    values = lut.reshape(-1, vector)[place]
    if vector == 1 and vector_axis is None:
        return values[..., 0]
    if vector_axis is None:
        raise ProgramError(f"entries of {vector} values need vector_axis")
    axis = vector_axis % indices.dim()
    return values.movedim(-1, axis + 1).flatten(axis, axis + 1)


@op("constexpr_sparse_to_dense", exact=True, element="nonzero_data")
def constexpr_sparse_to_dense(nonzero_data: Tensor, mask: Tensor, *, shape: Ints | None = None) -> Tensor:
    """The values in the places of the ones of mask, zeros elsewhere. With shape: mask is packed bytes."""
    if shape is not None:
        mask = _unpacked(mask, 1, shape)
    ones = int(torch.count_nonzero(mask))
    if ones != nonzero_data.numel():
        raise ProgramError(f"a mask with {ones} ones for {nonzero_data.numel()} values; the numbers must be equal")
    dense = torch.zeros(mask.shape, dtype=nonzero_data.dtype)
    dense[mask.bool()] = nonzero_data.reshape(-1)
    return dense


@op("constexpr_lut_to_sparse", exact=True, element="lut")
def constexpr_lut_to_sparse(
    indices_mask: Tensor, indices_nonzero_data: Tensor, lut: Tensor, *, vector_axis: int | None = None
) -> tuple[Tensor, Tensor]:
    """constexpr_lut_to_dense of sparse indices: (mask, values where it is 1)."""
    indices = constexpr_sparse_to_dense(indices_nonzero_data, indices_mask)
    dense = constexpr_lut_to_dense(indices, lut, vector_axis=vector_axis)
    mask = indices_mask
    if vector_axis is not None:
        mask = mask.repeat_interleave(lut.shape[-1], vector_axis)
    return mask, dense[mask.bool()]


@op("constexpr_sparse_blockwise_shift_scale", element="scale")
def constexpr_sparse_blockwise_shift_scale(
    data_mask: Tensor, nonzero_data: Tensor, scale: Tensor, offset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """constexpr_blockwise_shift_scale of sparse data: (mask, values where it is 1)."""
    dense = constexpr_blockwise_shift_scale(constexpr_sparse_to_dense(nonzero_data, data_mask), scale, offset)
    return data_mask, dense[data_mask.bool()]


def _unpacked(packed: Tensor, bits: int, shape: Ints) -> Tensor:
    """Numbers of `bits` bits out of packed bytes: uint8 of that shape."""
    return torch.from_numpy(unpack(packed.numpy(), bits, math.prod(shape))).reshape(shape)


def _blocks(x: Tensor, shape: Sequence[int], name: str) -> Tensor:
    """Repeat the values of x in blocks up to `shape`."""
    if x.dim() != len(shape) or any(n % m for n, m in zip(shape, x.shape, strict=False)):
        raise ProgramError(f"{name} of {list(x.shape)} does not divide data of {list(shape)}")
    for axis, (n, m) in enumerate(zip(shape, x.shape, strict=True)):
        x = x if n == m or m == 1 else x.repeat_interleave(n // m, axis)
    return x
