"""Palettes: k-means at a fixed point, float16 values, every weight at its nearest entry, groups and shared tables."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mobile_export.quantize import palette
from mobile_export.quantize.fake_quantize import CodedWeight, weight_values
from mobile_export.quantize.half import is_half_scale, is_half_value
from mobile_export.quantize.palette import PaletteCodes, kmeans, quantize_palette
from mobile_export.quantize.weight_format import WEIGHT_BITS, WeightFormat

few = settings(max_examples=50, deadline=None)
weights = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=4, max_side=6),
    elements=st.floats(-100, 100, width=32),
)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# k-means


def squared_error(values, importance, levels):
    """The least weighted squared error that these levels allow, (G,), by comparing every value with every level."""
    distance = (values[:, :, None] - levels[:, None]).square().amin(2)
    return (importance * distance).sum(1)


@few
@given(st.integers(2, 9), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_levels_are_the_means_of_the_values_nearest_to_them(count, groups, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(groups, 50, generator=generator).double()
    importance = torch.rand(groups, 50, generator=generator).double() + 0.1
    levels = kmeans(values, importance, count)
    assert levels.shape == (groups, count) and (levels.diff() >= 0).all()
    nearest = (values[:, :, None] - levels[:, None]).abs().argmin(2)
    for g, k in itertools.product(range(groups), range(count)):
        own = nearest[g] == k
        if own.any():
            mean = (importance[g, own] * values[g, own]).sum() / importance[g, own].sum()
            assert float(levels[g, k]) == pytest.approx(float(mean), rel=1e-9, abs=1e-9)


@few
@given(st.integers(0, 2**32 - 1))
def test_groups_are_independent(seed):
    values, importance = random(3, 40, seed=seed).double(), random(3, 40, seed=seed + 1).double().square() + 0.1
    together = kmeans(values, importance, 4)
    alone = torch.cat([kmeans(v[None], i[None], 4) for v, i in zip(values, importance, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("count", [2, 3])
def test_the_error_is_mostly_that_of_the_best_levels(count):
    """The best clusters of sorted values are intervals: compare with all. A fixed point need not be the best; over the
    same 300 small groups it is for most of them, and the mean error is near the best one's."""
    values, importance = random(300, 14, seed=1).double(), random(300, 14, seed=2).double().square() + 0.1
    found = squared_error(values, importance, kmeans(values, importance, count))
    ordered, order = values.sort(1)
    mass = importance.gather(1, order)
    moments = [(mass * ordered**power).cumsum(1) for power in range(3)]
    mass, first, second = (torch.nn.functional.pad(moment, (1, 0)) for moment in moments)
    best = torch.full((300,), torch.inf, dtype=torch.float64)
    for cuts in itertools.combinations(range(1, 14), count - 1):
        error = torch.zeros(300, dtype=torch.float64)
        for a, b in itertools.pairwise((0, *cuts, 14)):
            error += second[:, b] - second[:, a] - (first[:, b] - first[:, a]).square() / (mass[:, b] - mass[:, a])
        best = best.minimum(error)
    ratio = found / best
    assert (ratio >= 1 - 1e-9).all()
    assert ratio.mean() <= 1.1 and (ratio <= 1 + 1e-9).double().mean() >= 0.7


def test_heavier_values_pull_the_levels():
    values = torch.tensor([[0.0, 1.0, 2.0, 10.0]], dtype=torch.float64)
    levels = kmeans(values, torch.tensor([[1.0, 1.0, 8.0, 1.0]], dtype=torch.float64), 2)
    torch.testing.assert_close(levels, torch.tensor([[1.7, 10.0]], dtype=torch.float64))


@pytest.mark.parametrize("values", [[3.0] * 8, [0.0] * 7 + [5.0], [-1.0, 1.0]])
def test_fewer_values_than_levels_are_met_exactly(values):
    values = torch.tensor([values], dtype=torch.float64)
    levels = kmeans(values, torch.ones_like(values), 4)
    assert levels.shape == (1, 4) and torch.isfinite(levels).all()
    assert float(squared_error(values, torch.ones_like(values), levels)) == 0


# codes


@few
@given(weights, st.sampled_from(WEIGHT_BITS), st.booleans())
def test_every_weight_is_at_its_nearest_entry_and_every_number_in_float16(values, bits, shared):
    weight = torch.from_numpy(values)
    found = quantize_palette(weight, bits, None if shared else 1)
    assert found.indices.dtype == torch.uint8 and found.indices.shape == values.shape and found.bits == bits
    assert found.palette.shape == (1 if shared else len(values), 2**bits) and is_half_value(found.palette)
    assert (found.scale is None) != shared and (found.scale is None or is_half_scale(found.scale))
    levels = found.palette.double().expand(len(values), -1)
    if found.scale is not None:
        levels = levels * found.scale.double()[:, None]
    exact = levels.gather(1, found.indices.flatten(1).long()).reshape(weight.shape)
    assert torch.equal(found.dequantize().double(), exact)  # the product is exact in float32
    apart = (weight.double().flatten(1)[:, :, None] - levels[:, None]).abs().amin(2)
    torch.testing.assert_close((weight.double() - exact).abs().flatten(1), apart, rtol=1e-12, atol=1e-12)
    assert isinstance(weight_values(found), CodedWeight) and torch.equal(weight_values(found)(), found.dequantize())


@pytest.mark.parametrize("bits", WEIGHT_BITS)
@pytest.mark.parametrize("group", [1, 4, None])
def test_more_bits_and_the_best_levels_for_normal_weights(bits, group):
    """Lloyd's optimum for a normal density and L levels errs by about sqrt(3) pi / 2 / L^2 (Panter and Dite, 1951)."""
    weight = random(8, 500)
    error = float((quantize_palette(weight, bits, group).dequantize() - weight).square().mean())
    best = {1: 0.3634, 2: 0.1175, 3: 0.03454, 4: 0.009497}.get(bits, 3**0.5 * np.pi / 2 / 4**bits)
    assert error < 1.06 * best


def test_a_group_of_output_channels_shares_a_palette():
    weight = torch.cat([random(2, 30), 100 * random(2, 30)])
    found = quantize_palette(weight, 3, 2)
    assert found.palette.shape == (2, 8) and found.format == WeightFormat("palette", 2)
    assert found.palette[1].abs().max() > 20 * found.palette[0].abs().max()
    for half in (slice(0, 2), slice(2, 4)):
        assert torch.equal(found.dequantize()[half], quantize_palette(weight[half], 3, 2).dequantize())
    assert found.stored_bits == 3 * 120 + 16 * 16


def test_a_shared_palette_has_a_scale_for_each_output_channel():
    weight = random(4, 200) * torch.tensor([0.01, 1.0, 10.0, 0.1])[:, None]
    found = quantize_palette(weight, 4)
    assert found.format == WeightFormat("palette") and found.palette.abs().max() <= 1.25
    relative = (found.dequantize() - weight).square().sum(1) / weight.square().sum(1)
    assert (relative < 0.03).all()  # 0.0095 at the best, for a channel with many weights
    assert found.stored_bits == 4 * 800 + 16 * (16 + 4)


def test_a_channel_of_large_weights_decides_about_the_shared_palette():
    large = torch.tensor([[-10.0, 10.0, -10.0, 10.0]])
    small = torch.tensor([[0.02, 0.001, -0.001, -0.003]])
    found = quantize_palette(torch.cat([large, small.expand(9, 4)]), 1)
    torch.testing.assert_close(found.dequantize()[:1], large, rtol=1e-3, atol=0)


def test_inputs_of_more_energy_have_the_smaller_errors():
    weight = random(4, 3, 2, 2)
    energy = torch.full((12,), 1e-3, dtype=torch.float64)
    energy[5] = 1000.0
    error = [
        (q.dequantize() - weight).flatten(1)[:, 5].abs().max()
        for q in (quantize_palette(weight, 1, 1, energy), quantize_palette(weight, 1, 1))
    ]
    assert error[0] < 0.1 * error[1]


@pytest.mark.parametrize("group", [2, None])
def test_weights_of_zero_and_inputs_of_zero(group):
    assert not quantize_palette(torch.zeros(2, 3), 2, group).dequantize().any()
    weight = random(2, 8)
    dead = quantize_palette(weight, 2, group, torch.zeros(8, dtype=torch.float64))
    assert torch.equal(dead.dequantize(), quantize_palette(weight, 2, group).dequantize())


def test_nearest_is_by_the_levels_of_the_channel():
    found = quantize_palette(random(4, 9), 2, 2)
    values = torch.tensor([0.1, -0.4, 5.0, -5.0], dtype=torch.float64)
    indices, levels = found.nearest(values, 0)
    expected = (values[:, None] - found.levels.double()).abs().argmin(1)
    assert torch.equal(indices.long(), expected)
    assert torch.equal(levels, found.levels.double().gather(1, expected[:, None])[:, 0])
    other = found.with_codes(indices[:, None].expand(4, 9))
    assert torch.equal(other.dequantize(), levels.float()[:, None].expand(4, 9)) and other.palette is found.palette


INDICES, PALETTE = torch.tensor([[0, 1], [2, 3]], dtype=torch.uint8), torch.tensor([[0.0, 1.0, 2.0, 3.0]])


@pytest.mark.parametrize(
    ("indices", "palette", "scale", "message"),
    [
        (INDICES + 1, PALETTE, None, "indices must be uint8 below 4, got torch.uint8 up to 4"),
        (INDICES.int(), PALETTE, None, "indices must be uint8 below 4, got torch.int32"),
        (INDICES, PALETTE[:, :2], None, r"palettes must be \(G, 4\), .* got \(1, 2\)"),
        (INDICES, PALETTE.expand(3, 4), None, r"G a divisor of the 2 output channels, got \(3, 4\)"),
        (INDICES, PALETTE / 3, None, "zero or a normal float16 number"),
        (INDICES, PALETTE.flip(1), None, "sorted"),
        (INDICES, PALETTE, torch.ones(3), r"scales must be \(2,\) float32 .* got \(3,\)"),
        (INDICES, PALETTE, torch.full((2,), 0.1), "normal float16 numbers"),
    ],
)
def test_codes_that_contradict_themselves_are_refused(indices, palette, scale, message):
    with pytest.raises(ValueError, match=message):
        PaletteCodes(indices, palette, scale, 2)


# large layers


@pytest.mark.parametrize("group", [2, 4])
def test_groups_at_a_time_find_what_all_at_once_do(monkeypatch, group):
    weight, energy = random(8, 6, 3, 3), random(54, seed=1).square()
    whole = quantize_palette(weight, 3, group, energy)
    monkeypatch.setattr(palette, "_VALUES_AT_ONCE", 250)  # 4 rows of 54
    found = quantize_palette(weight, 3, group, energy)
    assert torch.equal(found.palette, whole.palette) and torch.equal(found.indices, whole.indices)


def test_one_palette_of_a_large_layer_is_fitted_on_some_columns_and_used_for_all(monkeypatch):
    weight, energy = random(16, 200), random(200, seed=1).square()
    monkeypatch.setattr(palette, "_VALUES_AT_ONCE", 16 * 200 - 1)
    found = quantize_palette(weight, 4, None, energy)
    shrunk = torch.ones(200).index_fill(0, torch.arange(0, 200, 7), 0)
    other = quantize_palette(weight * (1 - 0.5 * shrunk), 4, None, energy)  # the other columns do not count
    assert torch.equal(found.palette, other.palette) and torch.equal(found.scale, other.scale)
    nearest = (weight.double()[:, :, None] - found.levels.double()[:, None]).abs().argmin(2)
    assert torch.equal(found.indices.long(), nearest)
