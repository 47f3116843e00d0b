"""Activation grids: zero exact, half a step of error within the range, and the range that an observer chooses."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mobile_export.quantize import activations
from mobile_export.quantize.activations import ActivationGrid, RangeObserver
from mobile_export.quantize.fake_quantize import FakeQuantize

few = settings(max_examples=50, deadline=None)
finite = st.floats(-1e6, 1e6)


@few
@given(finite, finite, st.integers(0, 2**32 - 1))
def test_a_grid_holds_zero_exactly_and_errs_by_half_a_step_within_its_range(one, other, seed):
    low, high = sorted((one, other))
    grid = ActivationGrid.covering(low, high)
    assert grid.round_trip(np.zeros(1))[0] == 0
    ends = (np.array([-128, 127]) - grid.zero_point) * grid.scale
    values = np.random.default_rng(seed).uniform(*ends, 200)
    assert np.abs(grid.round_trip(values) - values).max() <= grid.scale / 2 * (1 + 1e-9)
    assert grid.scale == np.float16(grid.scale) >= 2**-14
    # The range asked for is covered, but for the rounding of the scale and of the zero point.
    assert ends[0] <= min(low, 0) + grid.scale and ends[1] >= max(high, 0) - grid.scale


@few
@given(finite, finite, hnp.arrays(np.float32, 50, elements=st.floats(-1e6, 1e6, width=32)))
def test_values_on_a_grid_stay_where_they_are(one, other, values):
    grid = ActivationGrid.covering(*sorted((one, other)))
    once = grid.round_trip(values.astype(np.float64))
    np.testing.assert_array_equal(grid.round_trip(once), once)
    assert len(np.unique(once)) <= 256


@few
@given(st.floats(-50, 0), st.floats(0.01, 50), hnp.arrays(np.float32, 50, elements=st.floats(-100, 100, width=32)))
def test_the_torch_op_rounds_like_the_grid(low, high, values):
    grid = ActivationGrid.covering(low, high)
    codes = FakeQuantize(grid).codes(torch.from_numpy(values)).numpy().astype(np.float64)
    ours = np.round(grid.round_trip(values.astype(np.float64)) / grid.scale) + grid.zero_point
    # The op multiplies by the float32 reciprocal: a value within rounding of a tie may go either way.
    apart = np.abs(codes - ours)
    fraction = np.abs(values.astype(np.float64) / grid.scale) % 1
    assert (apart <= 1).all() and (np.abs(fraction[apart == 1] - 0.5) < 1e-3).all()


def test_ties_round_to_even():
    codes = FakeQuantize(ActivationGrid(1.0, 0)).codes(torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]))
    assert codes.tolist() == [-2, -2, 0, 0, 2, 2]


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_a_grid_refuses_scales_that_are_no_scales(scale):
    with pytest.raises(ValueError, match="scale must be finite and positive, got"):
        ActivationGrid(scale, 0)


@pytest.mark.parametrize("scale", [0.1, 2.0**-15, 65536.0])
def test_a_grid_refuses_scales_that_float16_does_not_have_as_normal_numbers(scale):
    with pytest.raises(ValueError, match=f"scale must be a normal float16 number, got {scale}"):
        ActivationGrid(scale, 0)


@pytest.mark.parametrize(("low", "high", "scale"), [(0, 0, 2**-14), (-1e9, 1e9, 65504), (0, 1, 255**-1)])
def test_a_grid_over_any_range_has_such_a_scale(low, high, scale):
    assert ActivationGrid.covering(low, high).scale == np.float16(scale)


@pytest.mark.parametrize("zero_point", [-129, 128])
def test_a_grid_refuses_zero_points_outside_of_its_codes(zero_point):
    with pytest.raises(ValueError, match=rf"\[-128, 127\], got {zero_point}"):
        ActivationGrid(1.0, zero_point)


@few
@given(
    hnp.arrays(np.float32, 64, elements=st.floats(-10, 10, width=32)),
    st.floats(1, 100, width=32),
)
def test_an_observers_grid_is_never_worse_than_the_full_range(values, outlier):
    values[0] *= np.float32(outlier)
    observer = RangeObserver()
    observer.observe(torch.from_numpy(values[:32]))
    observer.observe(torch.from_numpy(values[32:]))
    assert (observer.low, observer.high) == (values.min(), values.max())
    exact = values.astype(np.float64)

    def error(grid):
        return float(np.square(grid.round_trip(exact) - exact).mean())

    assert error(observer.grid()) <= error(ActivationGrid.covering(float(values.min()), float(values.max())))


def test_an_observer_clips_a_lone_outlier():
    observer = RangeObserver()
    for _ in range(50):
        observer.observe(torch.linspace(-1, 1, 2001))
    observer.observe(torch.tensor([3.0]))
    # Step² / 12 for the many against (3 - c)² / 100,000 for the one: least where the grid ends at c = 2.55.
    assert observer.grid().scale == pytest.approx(3.55 / 255, rel=0.05)


@few
@given(st.lists(st.integers(1, 400), min_size=1, max_size=30), st.integers(50, 300))
def test_a_sample_is_bounded_and_spread_over_all_calls(sizes, limit):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(activations, "_MAX_VALUES", limit)
        observer = RangeObserver()
        calls = [torch.arange(float(size)) + 1000 * k for k, size in enumerate(sizes)]
        for values in calls:
            observer.observe(values)
    assert sum(map(len, observer.sample)) <= limit
    assert observer.low == 0 and observer.high == max(float(values.max()) for values in calls)
    expected = [values[:: observer.thinning].numpy() for values in calls]
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(observer.sample, expected, strict=True))
    assert observer.thinning == 1 or sum(-(-size * 7 // observer.thinning) for size in sizes) > limit
