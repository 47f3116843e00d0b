"""Strength: the two factors that a correction's halves are scaled by, for the end of whole trajectories."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import Skewed, reference

from correction import Correction, Strength, calibrate, initial_noise, sample, step_noises
from correction.schedulers import make_plan
from correction.strength import LARGEST, best_strength, end_error, error_of_samples
from correction.tables import NAMES

SHAPE = (3, 6, 6)
NOISE = initial_noise(0, "calibration", range(12), SHAPE)
FRESH = step_noises(0, "calibration", range(12), SHAPE)
PLANS = {name: make_plan(name, {"clip_sample": name != "ddim"}, 6) for name in ("ddim", "ddim-eta1", "dpmpp-2m")}


def some_correction(seed=0, gains=0.2):
    draw = np.random.default_rng(seed)
    tables = {n: draw.uniform(-gains, gains, (4, 3)) + n.endswith("gain") for n in NAMES}
    return Correction(**{name: table.astype(np.float32) for name, table in tables.items()})


def test_full_strength_is_the_correction_to_the_bit_and_none_is_the_identity():
    correction = some_correction()
    assert Strength().of(correction).digest() == correction.digest()
    assert Strength(0, 0).of(correction).is_identity


@given(st.floats(0, 2), st.floats(0, 2), st.integers(0, 99))
def test_every_table_is_scaled_from_its_identity(first, second, seed):
    correction = some_correction(seed)
    scaled = Strength(first, second).of(correction)
    for name in NAMES:
        neutral, factor = float(name.endswith("gain")), first if name.startswith("input") else second
        expected = neutral + factor * (getattr(correction, name).astype(np.float64) - neutral)
        np.testing.assert_allclose(getattr(scaled, name), expected, rtol=1e-6, atol=1e-7)


def test_a_strength_that_the_file_would_refuse_is_none():
    gain = np.full((4, 3), 6.0, np.float32)
    correction = Correction(gain, np.zeros_like(gain), np.ones_like(gain), np.zeros_like(gain))
    assert Strength(1, 2).of(correction) is None and Strength(2, 1).of(correction) is not None


@given(st.integers(0, 8), st.integers(0, 8))
def test_the_nearest_point_of_a_bowl_is_found_and_no_strength_is_asked_twice(i, j):
    correction, asked = some_correction(), []
    least = Strength(i / 4, j / 4)

    def error(scaled):
        asked.append(scaled.digest())
        a, b = ((getattr(scaled, n) - getattr(least.of(correction), n)) for n in ("input_bias", "output_bias"))
        return float((a**2).sum() + (b**2).sum())

    assert best_strength(correction, error) == least
    assert len(asked) == len(set(asked))


def test_halves_that_change_nothing_are_not_searched():
    correction = some_correction()
    ones, zeros = np.ones((4, 3), np.float32), np.zeros((4, 3), np.float32)
    output = Correction(correction.output_gain, correction.output_bias, ones, zeros)
    asked = []
    assert best_strength(output, lambda c: asked.append(c) or float(np.abs(c.output_bias).sum())) == Strength(1, 0)
    assert all((c.input_gain == 1).all() and (c.input_bias == 0).all() for c in asked)
    assert best_strength(Correction.identity(4, 3), pytest.fail) == Strength()


def test_the_search_stays_within_its_bounds():
    correction = some_correction(gains=0.01)
    assert best_strength(correction, lambda c: -float(np.abs(c.input_bias).sum())).input == LARGEST


@pytest.mark.parametrize("name", PLANS)
def test_the_error_is_that_of_the_last_samples_whatever_the_size_of_a_call(name):
    plan, quantized = PLANS[name], Skewed(noise=0.05)
    correction = Correction.identity(plan.steps, 3)
    exact = sample(plan, reference, NOISE, None, FRESH)
    ours = sample(plan, quantized, NOISE, correction, FRESH)
    for size in (None, 1, 5):
        found = end_error(plan, quantized, correction, NOISE, exact, {}, FRESH, size)
        assert found == pytest.approx(error_of_samples(ours, exact), rel=1e-5)


@pytest.mark.parametrize("name", PLANS)
def test_a_tuned_calibration_is_better_at_the_end_and_says_how_strong_it_is(name):
    plan, quantized = PLANS[name], Skewed(gain=0.9, bias=0.08, noise=0.2)
    exact = sample(plan, reference, NOISE, None, FRESH)
    solved, tuned = (calibrate(plan, reference, quantized, NOISE, m, step_noise=FRESH) for m in ("tac", "tac/tuned"))
    errors = [end_error(plan, quantized, r.correction, NOISE, exact, {}, FRESH) for r in (solved, tuned)]
    assert errors[1] < errors[0]
    assert tuned.correction.digest() == tuned.strength.of(solved.correction).digest()
    assert solved.strength == Strength() != tuned.strength
    for half, factor in (("input", tuned.strength.input), ("output", tuned.strength.output)):
        for kind in ("gain", "bias"):
            expected = factor * solved.standard_errors[f"{half}_{kind}"]
            np.testing.assert_allclose(tuned.standard_errors[f"{half}_{kind}"], expected)


def test_a_half_without_strength_is_not_kept():
    plan = PLANS["dpmpp-2m"]
    method = "affine/free/tuned"
    result = calibrate(plan, reference, Skewed(gain=0.9, bias=0.08, noise=0.2), NOISE, method, step_noise=FRESH)
    assert result.strength == Strength(0, 1)
    assert not result.kept[:, 0].any() and result.kept[:, 1].any()
    assert (result.correction.input_gain == 1).all() and (result.correction.input_bias == 0).all()
