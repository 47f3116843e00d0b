"""Linear weight codes: in range, never worse than plain rounding, float16 scales, per channel or per block; formats."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from correction import UsageError
from mobile_export.quantize import weights as weights_module
from mobile_export.quantize.fake_quantize import CodedWeight, DequantizedWeight, weight_values
from mobile_export.quantize.half import LARGEST, SMALLEST, half_scale, half_value, is_half_scale, is_half_value
from mobile_export.quantize.weight_format import WeightFormat
from mobile_export.quantize.weights import WeightCodes, quantize_linear

few = settings(max_examples=50, deadline=None)
weights = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=4, max_side=6),
    elements=st.floats(-100, 100, width=32),
)


# numbers that ship as float16


@few
@given(hnp.arrays(np.float64, 20, elements=st.floats(0, 1e9)))
def test_a_scale_is_the_nearest_normal_float16_number(values):
    found = half_scale(torch.from_numpy(values)).numpy()
    clamped = np.clip(values, 2.0**-14, 65504)
    step = 2.0 ** (np.floor(np.log2(clamped)) - 10)
    assert (np.abs(found - clamped) <= step * 0.5001).all()  # a value may pass through float32 on its way
    np.testing.assert_array_equal(found, np.float16(found))
    assert is_half_scale(torch.from_numpy(found)) and found.min() >= SMALLEST and found.max() <= LARGEST


@few
@given(hnp.arrays(np.float64, 20, elements=st.floats(-1, 1) | st.floats(-1e-4, 1e-4)))
def test_a_palette_value_is_zero_or_a_normal_float16_number(values):
    found = half_value(torch.from_numpy(values)).numpy()
    np.testing.assert_array_equal(found, np.float16(found))
    assert ((found == 0) | (np.abs(found) >= 2.0**-14)).all()
    assert (np.abs(found - values) <= np.maximum(np.abs(values) * 2.0**-11 * 1.001, 2.0**-15)).all()
    assert is_half_value(torch.from_numpy(found))


@pytest.mark.parametrize("value", [1 / 3, 2.0**-15, 70000.0, -1.0, 0.0])
def test_what_is_no_scale(value):
    assert not is_half_scale(torch.tensor([1.0, value]))


# codes


@few
@given(weights, st.sampled_from([2, 3, 4, 6, 8]))
def test_codes_are_in_range_and_never_worse_than_rounding_to_the_largest_weight(values, bits):
    found = quantize_linear(torch.from_numpy(values), bits)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    assert found.codes.dtype == torch.int8 and found.codes.shape == values.shape
    assert found.codes.min() >= low and found.codes.max() <= high
    assert found.scale.dtype == torch.float32 and found.scale.shape == (len(values),)
    assert is_half_scale(found.scale) and found.bits == bits

    flat = values.reshape(len(values), -1).astype(np.float64)
    step = np.float16(np.maximum(np.abs(flat).max(1, keepdims=True) / high, 2.0**-14)).astype(np.float64)
    plain = np.square(np.rint(flat / step).clip(low, high) * step - flat).sum(1)
    codes = found.codes.numpy().reshape(len(values), -1).astype(np.float64)
    exact = codes * found.scale.numpy().astype(np.float64)[:, None]
    ours = np.square(exact - flat).sum(1)
    assert (ours <= plain * (1 + 1e-12)).all()
    np.testing.assert_array_equal(found.dequantize().numpy().reshape(exact.shape), exact)  # the product is exact


@pytest.mark.parametrize("block", [None, 3])
def test_rows_at_a_time_find_what_all_at_once_do(monkeypatch, block):
    weight = torch.randn(7, 6, 3, 3, generator=torch.Generator().manual_seed(0))
    whole = quantize_linear(weight, 4, block)
    for values in (1, 100, 150):  # of 54 or 27 in a row
        monkeypatch.setattr(weights_module, "_VALUES_AT_ONCE", values)
        found = quantize_linear(weight, 4, block)
        assert torch.equal(found.codes, whole.codes) and torch.equal(found.scale, whole.scale)


def test_an_outlier_is_clipped_where_that_makes_the_error_smaller():
    weight = torch.full((1, 1000), 0.13)
    weight[0, ::2] = 0.05
    weight[0, 0] = 0.7  # covering it gives the step 0.1
    found = quantize_linear(weight, 4)
    assert 0.05 <= float(found.scale) < 0.1
    assert int(found.codes[0, 0]) == 7  # clipped
    covering = (weight / 0.1).round() * 0.1
    assert float((found.dequantize() - weight).square().sum()) < float((covering - weight).square().sum())


def test_scales_are_one_for_each_output_channel():
    weight = torch.stack([torch.linspace(-1, 1, 15), torch.linspace(-128, 128, 15)]).view(2, 5, 3, 1)
    found = quantize_linear(weight, 8)
    assert float(found.scale[1] / found.scale[0]) == 128
    torch.testing.assert_close(found.codes[0], found.codes[1])
    torch.testing.assert_close(found.dequantize(), weight, atol=0.51, rtol=0)
    assert found.format == WeightFormat("channel") and found.stored_bits == 8 * 30 + 16 * 2


def test_a_channel_of_zeros_has_zero_codes():
    found = quantize_linear(torch.zeros(2, 3), 4)
    assert not found.codes.any() and (found.dequantize() == 0).all()


@few
@given(weights, st.sampled_from([2, 3, 4, 6, 8]))
def test_the_op_that_backends_fold_gives_the_same_values(values, bits):
    found = quantize_linear(torch.from_numpy(values), bits)
    assert torch.equal(DequantizedWeight(found.codes, found.scale, bits)(), found.dequantize())
    assert isinstance(weight_values(found), DequantizedWeight)


@few
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([(), (3, 3)]),
    st.sampled_from([4, 8]),
    st.integers(0, 2**32 - 1),
)
def test_a_block_is_quantized_like_a_layer_of_its_own(outputs, blocks, block, kernel, bits, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn((outputs, blocks * block, *kernel), generator=generator)
    found = quantize_linear(weight, bits, block)
    assert found.scale.shape == (outputs, blocks) and is_half_scale(found.scale)
    assert found.format == WeightFormat("block", block)
    assert found.stored_bits == bits * weight.numel() + 16 * outputs * blocks
    for b in range(blocks):
        part = slice(b * block, (b + 1) * block)
        alone = quantize_linear(weight[:, part], bits)
        assert torch.equal(found.codes[:, part], alone.codes) and torch.equal(found.scale[:, b], alone.scale)
        assert torch.equal(found.dequantize()[:, part], alone.dequantize())
    assert isinstance(weight_values(found), CodedWeight) and torch.equal(weight_values(found)(), found.dequantize())


@pytest.mark.parametrize("block", [None, 2])
def test_nearest_is_on_the_scale_of_the_column(block):
    found = quantize_linear(torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0)), 4, block)
    scales = found.scale.double().reshape(3, -1).repeat_interleave(16 // (found.scale.numel() // 3), 1)
    for column in range(16):
        codes, values = found.nearest(torch.full((3,), 0.3, dtype=torch.float64), column)
        assert torch.equal(codes, (0.3 / scales[:, column]).round().clamp(-8, 7))
        assert torch.equal(values, codes * scales[:, column])
    same = found.with_codes(found.codes.flatten(1).double())
    assert torch.equal(same.codes, found.codes) and same.scale is found.scale


CODES = torch.tensor([[-8, 7]], dtype=torch.int8)


@pytest.mark.parametrize(
    ("codes", "scale", "message"),
    [
        (CODES - 1, torch.ones(1), r"codes must be int8 in \[-8, 7\], got torch.int8 in \[-9, 6\]"),
        (CODES.int(), torch.ones(1), r"codes must be int8 in \[-8, 7\], got torch.int32"),
        (CODES, torch.full((1,), 0.1), r"normal float16 numbers, got torch.float32 in \[0.1, 0.1\]"),
        (CODES, torch.ones(1).double(), "must be float32 that hold normal float16 numbers, got torch.float64"),
        (CODES, torch.ones(2), r"scales of shape \(2,\) for weights \(1, 2\)"),
        (CODES, torch.ones(1, 3), r"scales of shape \(1, 3\) for weights \(1, 2\)"),
    ],
)
def test_codes_that_contradict_themselves_are_refused(codes, scale, message):
    with pytest.raises(ValueError, match=message):
        WeightCodes(codes, scale, 4)


# formats


@pytest.mark.parametrize("name", ["channel", "block32", "block1", "palette16", "palette65536", "palette"])
def test_formats_by_name(name):
    assert WeightFormat.parse(name).name == name


@pytest.mark.parametrize("name", ["", "channel4", "block", "block0", "palette0", "palette016", "palette65537", "lut"])
def test_an_unknown_format_names_those_that_exist(name):
    with pytest.raises(UsageError, match=rf"^unknown weight format '{name}': choose channel, block32, palette16 or"):
        WeightFormat.parse(name)


@pytest.mark.parametrize(("kind", "size"), [("channel", 4), ("block", None), ("block", 0), ("lut", None)])
def test_a_format_is_checked_when_it_is_made(kind, size):
    with pytest.raises(UsageError, match="unknown weight format"):
        WeightFormat(kind, size)


def test_default_formats_by_bits():
    found = {bits: WeightFormat.default(bits).name for bits in (8, 6, 4, 3, 2, 1)}
    assert found == {8: "channel", 6: "palette", 4: "channel", 3: "palette", 2: "palette", 1: "palette"}


@pytest.mark.parametrize(
    ("name", "bits", "allowed"),
    [("channel", 1, "2, 3, 4, 6, 8"), ("block32", 6, "4, 8"), ("palette", 5, "1, 2, 3, 4, 6, 8"), ("channel", 16, "2")],
)
def test_bits_that_a_format_does_not_have_are_named(name, bits, allowed):
    with pytest.raises(UsageError, match=f"^weight format '{name}' has no {bits}-bit weights: it has {allowed}"):
        WeightFormat.parse(name).require_bits(bits)


@pytest.mark.parametrize(
    ("name", "outputs", "inputs", "fitted"),
    [
        ("block32", 8, 64, "block32"),
        ("block32", 8, 48, "channel"),
        ("palette16", 32, 3, "palette16"),
        ("palette16", 24, 3, "palette8"),
        ("palette16", 3, 3, "palette1"),
        ("palette", 3, 3, "palette"),
        ("channel", 3, 3, "channel"),
    ],
)
def test_a_format_fits_itself_to_a_layer(name, outputs, inputs, fitted):
    assert WeightFormat.parse(name).fitted(outputs, inputs).name == fitted
