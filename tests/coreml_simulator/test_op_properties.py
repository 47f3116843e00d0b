"""Operations against NumPy on whatever hypothesis thinks of."""

from __future__ import annotations

import numpy as np
import torch
from hand_made import constant, program
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from mobile_export.coreml_simulator.ops.constexpr import constexpr_lut_to_dense, constexpr_sparse_to_dense
from mobile_export.coreml_simulator.ops.normalization import layer_norm
from mobile_export.coreml_simulator.ops.quantization import dequantize, quantize
from mobile_export.coreml_simulator.ops.shape import slice_by_index, slice_update
from mobile_export.coreml_simulator.packing import pack
from mobile_export.coreml_simulator.simulator import Simulator

SHAPES = npst.array_shapes(min_dims=1, max_dims=4, max_side=5)


@st.composite
def scaled(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, int | None, str]:
    """(steps, scale, zero point, axis, type); steps are multiples of a quarter, so that halves are frequent."""
    dtype = draw(st.sampled_from(["int8", "uint8"]))
    shape = draw(SHAPES)
    quarters = draw(npst.arrays(np.int32, shape, elements=st.integers(-2000, 2000)))
    axis = draw(st.none() | st.integers(-len(shape), len(shape) - 1))
    size = () if axis is None else (shape[axis],)
    scale = np.asarray(2.0 ** draw(npst.arrays(np.int32, size, elements=st.integers(-6, 3))), np.float32)
    limits = np.iinfo(dtype)
    zero = draw(npst.arrays(np.dtype(dtype), size, elements=st.integers(int(limits.min), int(limits.max))))
    return quarters / np.float32(4), scale, zero, axis, dtype


def along(vector: np.ndarray, data: np.ndarray, axis: int | None) -> np.ndarray:
    """The vector's numbers at `axis`, repeated over all other axes."""
    if axis is None:
        return vector
    last = np.broadcast_to(vector, (*np.delete(data.shape, axis), vector.shape[0]))
    return np.moveaxis(last, -1, axis)


@given(scaled())
def test_quantize_rounds_halves_to_even_and_clips(case: tuple) -> None:
    steps, scale, zero, axis, dtype = case
    x = (steps * along(scale, steps, axis)).astype(np.float32)
    got = quantize(*map(torch.as_tensor, (x, scale, zero)), output_dtype=dtype, axis=axis)

    limits = np.iinfo(dtype)
    shifted = np.round(steps.astype(np.float64)) + along(zero, steps, axis).astype(np.float64)
    np.testing.assert_array_equal(got.numpy(), np.clip(shifted, limits.min, limits.max).astype(dtype))


@given(scaled())
def test_dequantize_undoes_quantize_to_half_a_step(case: tuple) -> None:
    steps, scale, zero, axis, dtype = case
    limits = np.iinfo(dtype)
    codes = np.clip(np.round(steps) + along(zero, steps, axis).astype(np.int64), limits.min, limits.max).astype(dtype)
    tensors = [torch.from_numpy(a) for a in (codes, scale, zero)]
    x = dequantize(*tensors, axis=axis)

    want = (codes.astype(np.int64) - along(zero, steps, axis).astype(np.int64)) * along(scale, steps, axis)
    np.testing.assert_array_equal(x.numpy(), want.astype(np.float32))
    assert torch.equal(quantize(x, *tensors[1:], output_dtype=dtype, axis=axis), tensors[0])


@st.composite
def sliced(draw: st.DrawFn) -> tuple[np.ndarray, tuple, dict]:
    """(data, the index in Python, the arguments of slice_by_index)."""
    shape = draw(npst.array_shapes(min_dims=1, max_dims=4, max_side=6))
    index, arguments = [], {name: [] for name in ("begin", "end", "stride", "begin_mask", "end_mask", "squeeze_mask")}
    for n in shape:
        begin, end = draw(st.integers(-n, n - 1)), draw(st.integers(-n - 1, n + 2))
        stride = draw(st.sampled_from([1, 1, 2, 3, -1, -2]))
        from_start, to_end, one = (draw(st.booleans()) for _ in range(3))
        row = (begin, end, stride, from_start, to_end, one)
        for values, value in zip(arguments.values(), row, strict=True):
            values.append(value)
        if one:
            index.append(0 if from_start else begin)
        else:
            index.append(slice(None if from_start else begin, None if to_end else end, stride))
    data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return data, tuple(index), {name: tuple(values) for name, values in arguments.items()}


@settings(max_examples=300)
@given(sliced())
def test_slices_are_pythons(case: tuple) -> None:
    data, index, arguments = case
    np.testing.assert_array_equal(slice_by_index(torch.from_numpy(data), **arguments).numpy(), data[index])


@given(sliced())
def test_an_update_lands_where_a_slice_reads(case: tuple) -> None:
    data, index, arguments = case
    want = data.copy()
    update = np.asarray(-data[index] - 1)
    want[index] = update
    got = slice_update(torch.from_numpy(data), torch.from_numpy(update), **arguments)
    np.testing.assert_array_equal(got.numpy(), want)


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """(indices, tables, the axis of vectors): groups divide the indices, and any entry may be used."""
    bits, vector = draw(st.sampled_from([1, 2, 3, 4, 6, 8])), draw(st.integers(1, 3))
    groups = draw(npst.array_shapes(min_dims=1, max_dims=3, max_side=3))
    shape = tuple(g * draw(st.integers(1, 3)) for g in groups)
    indices = draw(npst.arrays(np.uint8, shape, elements=st.integers(0, 2**bits - 1)))
    count = int(np.prod(groups)) * 2**bits * vector
    lut = np.arange(count, dtype=np.float32).reshape(*groups, 2**bits, vector)
    return indices, lut, draw(st.integers(-len(shape), len(shape) - 1))


@given(tables())
def test_each_index_finds_its_own_table(case: tuple) -> None:
    indices, lut, axis = case
    got = constexpr_lut_to_dense(torch.from_numpy(indices), torch.from_numpy(lut), vector_axis=axis).numpy()

    vector, axis = lut.shape[-1], axis % indices.ndim
    assert got.shape == tuple(n * vector if i == axis else n for i, n in enumerate(indices.shape))
    for place in np.ndindex(*indices.shape):
        group = tuple(p * g // n for p, g, n in zip(place, lut.shape, indices.shape, strict=False))
        for v in range(vector):
            at = tuple(p * vector + v if i == axis else p for i, p in enumerate(place))
            assert got[at] == lut[group][indices[place], v]


@given(npst.arrays(np.bool_, SHAPES), st.booleans())
def test_sparse_values_stand_in_the_order_of_the_mask(mask: np.ndarray, older: bool) -> None:
    values = np.arange(1, mask.sum() + 1, dtype=np.float32)
    want = np.zeros(mask.shape, np.float32)
    want[mask] = values
    bits = mask.astype(np.uint8)
    given_mask, shape = (pack(bits.reshape(-1), 1), mask.shape) if older else (bits, None)
    got = constexpr_sparse_to_dense(torch.from_numpy(values), torch.from_numpy(given_mask), shape=shape)
    np.testing.assert_array_equal(got.numpy(), want)


def test_a_layer_norm_without_axes_takes_all() -> None:
    x = torch.arange(24.0).reshape(2, 3, 4)
    want = (x - x.mean()) / torch.sqrt(x.var(correction=0) + 1e-5)
    torch.testing.assert_close(layer_norm(x), want)


@given(npst.arrays(np.float32, 20, elements=st.floats(-70000, 70000, width=32)))
def test_rounding_is_numpys_float16(x: np.ndarray) -> None:
    same = program({"x": "float32[20]"}, [("y: float16[20]", "cast", {"x": "x", "dtype": constant("fp16")})], ["y"])
    with np.errstate(over="ignore"):
        want = x.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(Simulator(same)({"x": x})["y"].numpy(), want)
