"""Metrics: known values, symmetry, and no integers that could wrap around."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from correction import UsageError
from mobile_export.metrics import bootstrap, psnr, snr

few = settings(max_examples=60, deadline=None)
images = hnp.arrays(np.float32, (2, 3, 4), elements=st.floats(-1, 1, width=32))


def test_known_values():
    zero = np.zeros((3, 2, 2))
    np.testing.assert_allclose(psnr(zero, np.stack([zero[0] + e for e in (2, 0.2, 0.002)])), [0, 20, 60])
    np.testing.assert_allclose(psnr(zero, zero + 1, peak=1), 0, atol=1e-12)
    assert snr(np.full(4, 2.0), np.full(4, 1.0)) == pytest.approx(20 * np.log10(2))
    assert snr(np.full(4, 2.0), np.zeros(4)) == pytest.approx(0)


@few
@given(images, images)
def test_psnr_is_symmetric_bounded_and_what_its_formula_says(a, b):
    values = psnr(a, b)
    assert values.shape == (2,)
    np.testing.assert_array_equal(values, psnr(b, a))
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2, axis=(1, 2))
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(values, np.minimum(10 * np.log10(4 / error), 200), rtol=1e-9)
    assert (values >= 0 - 1e-9).all()  # images in [-1, 1] are at most the peak apart


@few
@given(images, st.floats(0.01, 0.5))
def test_more_noise_is_fewer_decibels(a, size):
    noise = np.random.default_rng(0).standard_normal(a.shape)
    assert (psnr(a, a + 2 * size * noise) < psnr(a, a + size * noise)).all()
    np.testing.assert_allclose(psnr(a, a + size * noise) - psnr(a, a + 2 * size * noise), 20 * np.log10(2), atol=0.01)


@few
@given(hnp.arrays(np.float64, 20, elements=st.floats(0.1, 10)), st.floats(1e-3, 1e3))
def test_snr_is_free_of_units(signal, unit):
    other = signal + 0.1
    assert snr(signal * unit, other * unit) == pytest.approx(snr(signal, other), abs=1e-6)


def test_equal_inputs_give_the_stated_maximum():
    ones = np.ones((1, 4), np.float32)
    assert psnr(ones, ones)[0] == 200 and snr(ones, ones) == 200
    assert snr(np.zeros(4), np.zeros(4)) == 200
    assert np.isfinite(snr(np.zeros(4), np.ones(4)))


def test_float32_inputs_are_compared_in_float64():
    """The difference of these squares underflows in float32: (1e-25)² = 0."""
    tiny = np.float32(1e-25)
    assert psnr(np.zeros((1, 4), np.float32), np.full((1, 4), tiny), peak=float(tiny))[0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, bool])
def test_integers_are_refused(dtype):
    """As uint8, 0 - 255 is 1: the worst picture would pass as a good one."""
    black, white = np.zeros((1, 4), dtype), np.full((1, 4), 255).astype(dtype)
    for metric in (psnr, snr):
        for pair in ((black, white), (black.astype(float), white), (black, white.astype(float))):
            with pytest.raises(UsageError, match=rf"floats in a stated range, got {np.dtype(dtype)}"):
                metric(*pair)


def test_unequal_shapes_are_refused_not_broadcast():
    for metric in (psnr, snr):
        with pytest.raises(UsageError, match=r"cannot compare shapes \(2, 3\) and \(1, 3\)"):
            metric(np.zeros((2, 3)), np.zeros((1, 3)))


@few
@given(hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(-100, 100)))
def test_an_interval_holds_its_mean(values):
    found = bootstrap(values, resamples=200)
    assert found.mean == pytest.approx(values.mean())
    if len(values) > 4:  # of fewer seeds, 2.5 % of the resamples can be one and the same
        assert found.low <= found.mean + 1e-9 and found.mean - 1e-9 <= found.high
    assert values.min() - 1e-9 <= found.low <= found.high <= values.max() + 1e-9


def test_an_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(5, 2, 400)
    found = bootstrap(values)
    half = 1.96 * values.std() / np.sqrt(400)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    small = bootstrap(values[:25])
    assert (small.high - small.low) / (found.high - found.low) == pytest.approx(4, rel=0.3)  # sqrt(400 / 25)
    assert bootstrap(values) == found
    assert bootstrap(np.full(5, 3.0)) == type(found)(3.0, 3.0, 3.0)
