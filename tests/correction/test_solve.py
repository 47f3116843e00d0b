"""Closed forms against brute-force minimisers; sums that add up."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from correction import UsageError, solve
from correction.solve import NoiseEstimate, PairSums, jackknife, join, mean_magnitude

SHAPE = (16, 2, 6, 6)


def pair(seed=0, gain=0.9, bias=0.1, noise=0.1, shape=SHAPE):
    """(target, source) with target close to gain * source + bias."""
    random = np.random.default_rng(seed)
    source = random.standard_normal(shape) + 0.2
    return gain * source + bias + noise * random.standard_normal(shape), source


def sums_of(target, source, masked=False):
    threshold = mean_magnitude(target) if masked else np.zeros(target.shape[1])
    return PairSums.of(target, source, threshold)


def channel(array, c):
    return array[:, c].ravel()


def lowest(loss, low, high):
    """The minimiser of a convex function of one number, by golden-section search."""
    golden = (np.sqrt(5) - 1) / 2
    while high - low > 1e-9:
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return (low + high) / 2


@pytest.mark.parametrize(("l1", "l2"), [(0.0, 0.0), (0.5, 0.1), (0.8, 0.1), (1.0, 0.0), (0.3, 2.0)])
def test_noise_estimate_minimises_its_loss(l1, l2):
    e, e_hat = pair()
    found = NoiseEstimate(l1, l2)(sums_of(e, e_hat, masked=True))
    for c in range(2):
        t, s = channel(e, c), channel(e_hat, c)
        mask = np.abs(t) > np.abs(t).mean()

        def loss(gain, t=t, s=s, mask=mask):
            plain = np.mean(mask * (gain * s - t) ** 2)
            relative = np.mean(mask * ((gain * s - t) / t) ** 2)
            return (1 - l1) * plain + l1 * relative + l2 * (gain - 1) ** 2

        assert found.gain[c] == pytest.approx(lowest(loss, 0, 2), abs=1e-6)
        assert found.bias[c] == 0


def test_without_the_mask_the_relative_term_collapses_the_gain():
    e, e_hat = pair(gain=1.0, bias=0.0, noise=0.1, shape=(64, 1, 16, 16))
    assert NoiseEstimate(0.5, 0.0)(sums_of(e, e_hat)).gain[0] < 0.5
    assert NoiseEstimate(0.5, 0.0)(sums_of(e, e_hat, masked=True)).gain[0] == pytest.approx(1.0, abs=0.03)


def test_least_squares_gain_minimises_and_shrinks_with_noise():
    clean, source = pair(bias=0.0, noise=0.0)
    noisy = source + np.random.default_rng(5).standard_normal(SHAPE)
    assert solve.least_squares_gain(sums_of(clean, source)).gain == pytest.approx(0.9)
    shrunk = solve.least_squares_gain(sums_of(clean, noisy)).gain
    for c in range(2):
        t, s = channel(clean, c), channel(noisy, c)
        best = lowest(lambda g, t=t, s=s: np.mean((g * s - t) ** 2), 0, 2)
        assert shrunk[c] == pytest.approx(best, abs=1e-6)
    assert (shrunk < 0.6).all()


def test_affine_least_squares_is_numpys():
    x, x_hat = pair()
    found = solve.affine_least_squares(sums_of(x, x_hat))
    for c in range(2):
        gain, bias = np.polyfit(channel(x_hat, c), channel(x, c), 1)
        assert (found.gain[c], found.bias[c]) == pytest.approx((gain, bias), abs=1e-9)


def test_moments_and_means_are_matched():
    x, x_hat = pair(noise=0.5)
    sums = sums_of(x, x_hat)
    for c in range(2):
        t, s = channel(x, c), channel(x_hat, c)
        both = solve.moments_matched(sums)
        moved = both.gain[c] * s + both.bias[c]
        assert (moved.mean(), moved.std()) == pytest.approx((t.mean(), t.std()))
        assert (s + solve.mean_bias(sums).bias[c]).mean() == pytest.approx(t.mean())
        assert (s * solve.std_matched_gain(sums).gain[c]).std() == pytest.approx(t.std())
    assert (solve.mean_bias(sums).gain == 1).all()


def test_correlation_removed_leaves_an_error_that_the_target_does_not_tell():
    """source = 1.25 target + bias + noise of its own: the gain is 1/1.25 for both channels, the noise stays."""
    random = np.random.default_rng(3)
    e = random.standard_normal((64, 2, 8, 8))
    e_hat = 1.25 * e + np.array([0.1, -0.3])[None, :, None, None] + 0.2 * random.standard_normal(e.shape)
    sums = sums_of(e, e_hat)
    found = solve.correlation_removed(sums)
    rest = found.gain[None, :, None, None] * e_hat + found.bias[None, :, None, None] - e
    assert found.gain == pytest.approx([0.8, 0.8], rel=5e-3) and found.gain[0] == found.gain[1]
    assert np.cov(e.ravel(), rest.ravel())[0, 1] == pytest.approx(0, abs=1e-3)
    assert rest.mean((0, 2, 3)) == pytest.approx([0, 0], abs=1e-12)
    assert solve.residual_variance(sums, found) == pytest.approx(rest.var((0, 2, 3)).mean())


def test_correlation_removed_never_makes_larger():
    """The slope is at least 1: what is too small is left, as PTQD leaves it."""
    e, e_hat = pair(gain=2.0)
    assert (solve.correlation_removed(sums_of(e, e_hat)).gain == 1).all()


SOLVERS = [
    solve.identity,
    solve.mean_bias,
    solve.least_squares_gain,
    NoiseEstimate(),
    solve.std_matched_gain,
    solve.moments_matched,
    solve.affine_least_squares,
    solve.correlation_removed,
]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: getattr(solver, "__name__", repr(solver)))
def test_equal_sides_give_the_identity_exactly(solver):
    x, _ = pair()
    found = solver(sums_of(x, x, masked=True))
    assert np.array_equal(found.gain, [1, 1]) and np.array_equal(found.bias, [0, 0])


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: getattr(solver, "__name__", repr(solver)))
def test_a_dead_channel_is_left_alone(solver):
    """All zero on both sides: 0/0 everywhere, nothing known, nothing changed."""
    found = solver(sums_of(np.zeros(SHAPE), np.zeros(SHAPE), masked=True))
    assert np.array_equal(found.gain, [1, 1]) and np.array_equal(found.bias, [0, 0])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(1, 15), max_size=4), scale=st.floats(1e-3, 1e3))
def test_sums_of_any_split_solve_to_the_same(seed, cuts, scale):
    x, x_hat = (scale * side for side in pair(seed))
    threshold = mean_magnitude(x)
    edges = [0, *sorted(set(cuts)), len(x)]
    parts = [PairSums.of(x[i:j], x_hat[i:j], threshold) for i, j in itertools.pairwise(edges)]
    whole, split = PairSums.of(x, x_hat, threshold), join(parts[::-1])
    for solver in SOLVERS:
        one, other = solver(whole), solver(split)
        np.testing.assert_allclose(one.gain, other.gain, rtol=1e-10)
        np.testing.assert_allclose(one.bias, other.bias, rtol=1e-9, atol=1e-9 * scale)


def test_standard_errors_match_the_spread_over_repetitions():
    gains, biases, errors = [], [], []
    for seed in range(200):
        x, x_hat = pair(seed, noise=0.5)
        groups = [sums_of(x[g::8], x_hat[g::8]) for g in range(8)]
        found = solve.affine_least_squares(join(groups))
        error = jackknife(groups, solve.affine_least_squares)
        gains.append(found.gain)
        biases.append(found.bias)
        errors.append((error.gain, error.bias))
    spread = np.std(gains, axis=0), np.std(biases, axis=0)
    np.testing.assert_allclose(np.mean(errors, axis=0), spread, rtol=0.2)
    assert np.isnan(jackknife(groups[:1], solve.affine_least_squares).gain).all()


@pytest.mark.parametrize("make", [lambda: NoiseEstimate(l1=1.5), lambda: NoiseEstimate(l2=-1.0)])
def test_settings_out_of_range_are_usage_errors(make):
    with pytest.raises(UsageError, match=r"l[12] must be"):
        make()


def test_shapes_that_differ_are_usage_errors():
    with pytest.raises(UsageError, match=r"\(16, 2, 6, 6\)"):
        PairSums.of(np.zeros(SHAPE), np.zeros((15, 2, 6, 6)), np.zeros(2))
