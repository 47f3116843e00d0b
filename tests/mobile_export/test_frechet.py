"""Fréchet distance against its closed forms; features of a known network; intervals that hold the distance."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from correction import UsageError
from mobile_export.evaluate.frechet import (
    FeatureStatistics,
    distance_difference,
    distance_interval,
    frechet_distance,
)
from mobile_export.evaluate.resnet56 import load_resnet56, resnet56_features


def normal(seed, count=400, width=5):
    random = np.random.default_rng(seed)
    return random.standard_normal((count, width)) @ random.standard_normal((width, width)) + random.standard_normal(
        width
    )


def test_of_equal_features_it_is_zero():
    statistics = FeatureStatistics.of(normal(0))
    assert frechet_distance(statistics, statistics) == pytest.approx(0, abs=1e-10)


def test_a_shift_counts_by_its_square_and_a_scale_by_its_deviations():
    features = normal(1)
    one = FeatureStatistics.of(features)
    shift = np.array([1.0, -2.0, 0.0, 0.5, 3.0])
    assert frechet_distance(one, FeatureStatistics.of(features + shift)) == pytest.approx(np.square(shift).sum())
    centred = FeatureStatistics(400, np.zeros(5), one.covariance)
    scaled = FeatureStatistics(400, np.zeros(5), 4 * one.covariance)
    assert frechet_distance(centred, scaled) == pytest.approx(np.trace(one.covariance))  # (2 - 1)^2 of each variance


@settings(max_examples=25, deadline=None)
@given(seeds=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)))
def test_it_is_the_formula_with_the_eigenvalues_of_the_product_and_the_same_both_ways(seeds):
    a, b = (FeatureStatistics.of(normal(seed)) for seed in seeds)
    root = np.sqrt(np.maximum(np.real(np.linalg.eigvals(a.covariance @ b.covariance)), 0)).sum()
    formula = np.square(a.mean - b.mean).sum() + np.trace(a.covariance + b.covariance) - 2 * root
    scale = np.trace(a.covariance) + np.trace(b.covariance)
    assert frechet_distance(a, b) == pytest.approx(formula, abs=1e-6 * scale)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), abs=1e-9 * scale)


def test_the_interval_holds_the_distance_of_the_populations():
    """Features whose distance to N(0, 1) is known: 0.5^2 a dimension."""
    exact = FeatureStatistics(10**6, np.zeros(3), np.eye(3))
    features = np.random.default_rng(0).standard_normal((500, 3)) + 0.5
    found = distance_interval(features, exact)
    assert found.low < 0.75 < found.high and found.low < found.mean < found.high
    assert found.mean == frechet_distance(FeatureStatistics.of(features), exact)


def test_the_interval_of_equal_features_is_zero():
    features = normal(3)
    found = distance_interval(features, features.copy(), resamples=10)
    assert (found.mean, found.low, found.high) == pytest.approx((0, 0, 0), abs=1e-8)


def test_a_difference_is_paired():
    near, exact = normal(0), FeatureStatistics.of(normal(2, 4000))
    far = near + 0.4
    found = distance_difference(far, near, exact)
    apart = [frechet_distance(FeatureStatistics.of(each), exact) for each in (far, near)]
    assert found.mean == pytest.approx(apart[0] - apart[1]) and 0 < found.low < found.mean < found.high
    alone = distance_interval(far, exact)
    assert found.high - found.low < alone.high - alone.low
    same = distance_difference(far, far.copy(), exact, resamples=10)
    assert (same.mean, same.low, same.high) == pytest.approx((0, 0, 0))


def test_statistics_come_back_from_a_file(tmp_path):
    statistics = FeatureStatistics.of(normal(4))
    statistics.save(tmp_path / "s.safetensors")
    back = FeatureStatistics.load(tmp_path / "s.safetensors")
    assert back.count == 400 and np.array_equal(back.mean, statistics.mean)
    assert np.array_equal(back.covariance, statistics.covariance)


def test_what_cannot_be_compared_is_refused(tmp_path):
    with pytest.raises(UsageError, match="2 pictures or more"):
        FeatureStatistics.of(normal(0)[:1])
    with pytest.raises(UsageError, match="5 and 4 numbers a picture"):
        frechet_distance(FeatureStatistics.of(normal(0)), FeatureStatistics.of(normal(0, width=4)))
    (tmp_path / "x").write_bytes(b"no statistics")
    with pytest.raises(UsageError, match="does not hold feature statistics"):
        FeatureStatistics.load(tmp_path / "x")


@pytest.fixture(scope="module")
def network():
    return load_resnet56()


def test_the_network_is_the_published_one(network):
    """853,018 numbers with its last layer's 650, batch statistics apart; 55 convolutions."""
    assert sum(p.numel() for p in network.parameters()) == 853_018 - 650
    assert sum(isinstance(m, torch.nn.Conv2d) for m in network.modules()) == 55
    assert not network.training and all(p.dtype == torch.float32 for p in network.parameters())


def test_features_are_those_of_each_picture_by_itself(network):
    images = np.random.default_rng(0).uniform(-1, 1, (70, 3, 32, 32)).astype(np.float32)
    features = resnet56_features(network, images)
    assert features.shape == (70, 64) and features.dtype == np.float32 and (features >= 0).all()
    for k in (0, 63, 64, 69):
        np.testing.assert_allclose(resnet56_features(network, images[k : k + 1])[0], features[k], rtol=1e-4, atol=1e-5)
    assert resnet56_features(network, images[:0]).shape == (0, 64)


def test_gray_is_all_colours_values_are_clipped_and_sizes_scaled(network):
    gray = np.random.default_rng(1).uniform(-1.5, 1.5, (4, 1, 32, 32)).astype(np.float32)
    same = np.clip(np.repeat(gray, 3, axis=1), -1, 1)
    np.testing.assert_array_equal(resnet56_features(network, gray), resnet56_features(network, same))
    flat = np.full((1, 1, 28, 28), 0.25, np.float32)  # scaling leaves one colour what it is
    wide = np.full((1, 1, 32, 32), 0.25, np.float32)
    np.testing.assert_allclose(resnet56_features(network, flat), resnet56_features(network, wide), rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="gray or colour"):
        resnet56_features(network, np.zeros((1, 4, 32, 32), np.float32))
