"""Cases of the compressed constants; coremltools decompresses them itself where it can."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from coremltools.converters.mil.mil import types
from elementwise_cases import values
from one_op import Case

UNSIGNED = {
    1: types.np_uint1_dtype,
    2: types.np_uint2_dtype,
    3: types.np_uint3_dtype,
    4: types.np_uint4_dtype,
    6: types.np_uint6_dtype,
    8: np.uint8,
}


def codes(bits: int, *shape: int, signed: bool = False, seed: int = 0) -> np.ndarray:
    low = -(2 ** (bits - 1)) if signed else 0
    drawn = np.random.default_rng(seed).integers(low, low + 2**bits, shape)
    kind = {4: types.np_int4_dtype, 8: np.int8}[bits] if signed else UNSIGNED[bits]
    return drawn.astype(np.int8 if signed else np.uint8).astype(kind)


def packed(numbers: np.ndarray, bits: int) -> np.ndarray:
    """The lowest bit of the first number first, written out bit by bit."""
    stream = [(int(n) >> b) & 1 for n in numbers.reshape(-1) for b in range(bits)]
    stream += [0] * (-len(stream) % 8)
    return np.array(
        [sum(bit << i for i, bit in enumerate(stream[k : k + 8])) for k in range(0, len(stream), 8)], np.uint8
    )


def older_table(bits: int, *shape: int) -> Case:
    """coremltools' own decompression of this form fails with an AttributeError."""
    indices, lut = codes(bits, *shape).astype(np.int64), values(2**bits)
    inputs = {"indices": packed(indices, bits), "lut": lut, "shape": np.array(shape, np.uint32)}
    return Case("constexpr_lut_to_dense", inputs, want=lambda **_: lut[indices], opset=16)


MASK = np.random.default_rng(5).random((4, 6)) < 0.4
ONES = int(MASK.sum())
BITS = MASK.astype(np.uint8).astype(types.np_uint1_dtype)
AFFINE: dict[str, Any] = {"quantized_data": codes(8, 4, 3, 2, signed=True), "axis": 1}

CASES = [
    Case(
        "constexpr_cast",
        {"source_val": values(3, 4).astype(np.float16), "output_dtype": "fp32"},
        want=lambda source_val, **_: source_val.to(torch.float32),
        opset=16,
    ),
    Case("constexpr_affine_dequantize", {**AFFINE, "zero_point": np.int8(-3), "scale": np.float32(0.25)}, opset=16),
    Case(
        "constexpr_affine_dequantize",
        {**AFFINE, "zero_point": np.array([1, -128, 5], np.int8), "scale": values(3, low=0.1)},
        opset=16,
    ),
    Case(
        "constexpr_affine_dequantize",
        {"quantized_data": codes(8, 4, 3), "axis": -2, "zero_point": np.uint8(128), "scale": values(4, low=0.1)},
        opset=16,
    ),
    *[older_table(bits, 3, 5) for bits in (1, 2, 4, 6, 8)],
    *[
        Case("constexpr_lut_to_dense", {"indices": codes(bits, 4, 6), "lut": values(1, 1, 2**bits, 1)})
        for bits in UNSIGNED
    ],
    Case("constexpr_lut_to_dense", {"indices": codes(2, 4, 6), "lut": values(2, 3, 4, 1)}),
    Case("constexpr_lut_to_dense", {"indices": codes(3, 4, 6, 1, 1), "lut": values(4, 1, 1, 1, 8, 1)}),
    Case("constexpr_lut_to_dense", {"indices": codes(4, 4, 6), "lut": codes(8, 1, 2, 16, 1, signed=True)}),
    Case("constexpr_lut_to_dense", {"indices": codes(1, 4, 6), "lut": values(1, 1, 2, 3), "vector_axis": 0}),
    Case("constexpr_lut_to_dense", {"indices": codes(2, 4, 6), "lut": values(2, 2, 4, 2), "vector_axis": -1}),
    Case("constexpr_lut_to_dense", {"indices": codes(2, 4, 2, 6), "lut": values(2, 1, 2, 4, 2), "vector_axis": 0}),
    Case("constexpr_blockwise_shift_scale", {"data": codes(4, 4, 6, signed=True), "scale": values(4, 1)}),
    Case("constexpr_blockwise_shift_scale", {"data": codes(8, 4, 6, signed=True), "scale": values(2, 3)}),
    Case(
        "constexpr_blockwise_shift_scale",
        {"data": codes(4, 4, 6), "scale": values(4, 2), "offset": codes(4, 4, 2, seed=1)},
    ),
    Case(
        "constexpr_blockwise_shift_scale",
        {"data": codes(8, 4, 6), "scale": values(1, 1), "offset": values(1, 1, seed=1)},
    ),
    Case("constexpr_blockwise_shift_scale", {"data": values(4, 6), "scale": values(1, 2)}),
    Case(
        "constexpr_sparse_to_dense",
        {"nonzero_data": values(ONES), "mask": packed(MASK, 1), "shape": np.array([4, 6], np.uint32)},
        opset=16,
    ),
    Case("constexpr_sparse_to_dense", {"nonzero_data": values(ONES), "mask": BITS}),
    Case("constexpr_sparse_to_dense", {"nonzero_data": codes(8, ONES, signed=True), "mask": BITS}),
    Case(
        "constexpr_lut_to_sparse",
        {"indices_mask": BITS, "indices_nonzero_data": codes(2, ONES), "lut": values(2, 1, 4, 1)},
    ),
    Case(
        "constexpr_lut_to_sparse",
        {"indices_mask": BITS, "indices_nonzero_data": codes(1, ONES), "lut": values(1, 3, 2, 2), "vector_axis": 0},
    ),
    Case(
        "constexpr_sparse_blockwise_shift_scale",
        {"data_mask": BITS, "nonzero_data": codes(4, ONES, signed=True), "scale": values(4, 3)},
    ),
    Case(
        "constexpr_sparse_blockwise_shift_scale",
        {
            "data_mask": BITS,
            "nonzero_data": codes(8, ONES),
            "scale": values(1, 6, low=0.1),
            "offset": codes(8, 1, 6, seed=2),
        },
    ),
]
