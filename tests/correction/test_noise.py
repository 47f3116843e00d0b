"""Noise streams: what they depend on, and that they are normal."""

import numpy as np
import pytest

from correction import STREAMS, UsageError, initial_noise, step_noise, step_noises

SHAPE = (3, 5, 7)


def test_a_sample_depends_on_its_index_only():
    whole = initial_noise(4, "calibration", range(6), SHAPE)
    assert whole.shape == (6, *SHAPE) and whole.dtype == np.float32
    assert np.array_equal(initial_noise(4, "calibration", [5, 2], SHAPE), whole[[5, 2]])
    fresh = step_noise(4, "calibration", range(6), 3, SHAPE)
    assert np.array_equal(step_noise(4, "calibration", range(3, 6), 3, SHAPE), fresh[3:])
    assert np.array_equal(step_noises(4, "calibration", iter(range(6)), SHAPE)(3), fresh)


def test_streams_seeds_samples_and_steps_never_share_noise():
    rows = [initial_noise(seed, stream, range(3), (1, 1, 64)) for stream in STREAMS for seed in (0, 1, 2)]
    rows += [step_noise(0, stream, range(3), step, (1, 1, 64)) for stream in STREAMS for step in range(3)]
    values = np.concatenate(rows).ravel()
    assert len(np.unique(values)) > 0.999 * values.size  # float32 rounds a few different normals to one


def test_moments_and_tails_are_normal():
    z = initial_noise(0, "evaluation", range(100), (4, 50, 50)).astype(np.float64).ravel()  # one million
    assert abs(z.mean()) < 5e-3
    assert abs(z.var() - 1) < 8e-3
    assert abs((z**4).mean() - 3) < 0.05
    assert abs((np.abs(z) < 1).mean() - 0.6826895) < 3e-3
    assert abs(np.mean(z[:-1] * z[1:])) < 5e-3


def test_the_stream_is_the_one_documented():
    """Recomputed from the module's docstring, with Philox from numpy and Box-Muller in plain Python."""
    import math

    raw = np.random.Philox(key=np.array([11, 2], np.uint64), counter=np.array([0, 6, 42, 0], np.uint64)).random_raw(4)
    expected = []
    for u, v in ((int(raw[0]), int(raw[1])), (int(raw[2]), int(raw[3]))):
        radius = math.sqrt(-2 * math.log(((u >> 11) + 1) / 2**53))
        angle = 2 * math.pi * (v >> 11) / 2**53
        expected += [radius * math.cos(angle), radius * math.sin(angle)]
    got = step_noise(11, "evaluation", [42], 5, (1, 1, 3))
    np.testing.assert_allclose(got.ravel(), expected[:3], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: initial_noise(0, "test", [0], SHAPE), "calibration, evaluation, simulation"),
        (lambda: initial_noise(-1, "evaluation", [0], SHAPE), "seed"),
        (lambda: initial_noise(2**63, "evaluation", [0], SHAPE), "seed"),
        (lambda: initial_noise(0, "evaluation", [-1], SHAPE), "sample"),
        (lambda: step_noise(0, "evaluation", [0], -1, SHAPE), "step"),
    ],
)
def test_arguments_out_of_range_are_usage_errors(call, message):
    with pytest.raises(UsageError, match=message):
        call()
