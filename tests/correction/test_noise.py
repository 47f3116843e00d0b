"""Noise streams: what they depend on, and that they are normal."""

import hashlib
import math
import re
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from correction import STREAMS, UsageError, initial_noise, step_noise, step_noises
from correction.normals import circle, logarithm, normals

WORD = 2**64
SEEDS = st.integers(0, 2**63 - 1)
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


def philox(key: list[int], counter: list[int]) -> list[int]:
    """One block of Philox 4x64-10 in whole numbers, as docs/noise.md states it."""
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        h0, l0 = divmod(0xD2E7470EE14C6C93 * c0, WORD)
        h1, l1 = divmod(0xCA5A826395121157 * c2, WORD)
        c0, c1, c2, c3 = h1 ^ c1 ^ k0, l1, h0 ^ c3 ^ k1, l0
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) % WORD, (k1 + 0xBB67AE8584CAA73B) % WORD
    return [c0, c1, c2, c3]


def horner(terms: list[float], x: float) -> float:
    total = terms[-1]
    for term in terms[-2::-1]:
        total = total * x + term
    return total


def ln(x: float) -> float:
    m, e = math.frexp(x)
    if m < 0.7071067811865476:
        m, e = m + m, e - 1
    s = (m - 1) / (m + 1)
    return e * 0.6931471805599453 + (s + s) * horner([1 / k for k in range(1, 22, 2)], s * s)


def cos_sin(turns: float) -> tuple[float, float]:
    quarter = math.floor(4 * turns + 0.5)
    angle = 6.283185307179586 * (turns - 0.25 * quarter)
    sine = angle * horner([(-1) ** k / math.factorial(2 * k + 1) for k in range(9)], angle * angle)
    cosine = horner([(-1) ** k / math.factorial(2 * k) for k in range(9)], angle * angle)
    return [(cosine, sine), (-sine, cosine), (-cosine, -sine), (sine, -cosine)][quarter % 4]


def by_the_page(seed: int, stream: int, sample: int, step: int, count: int) -> np.ndarray:
    """docs/noise.md in plain Python numbers, which are float64 and never fused."""
    found: list[float] = []
    for block in range(1, count // 4 + 2):
        words = philox([seed, stream], [block, step, sample, 0])
        for u, v in (words[:2], words[2:]):
            radius = math.sqrt(-2 * ln(((u >> 11) + 1) * 2.0**-53))
            cosine, sine = cos_sin((v >> 11) * 2.0**-53)
            found += [radius * cosine, radius * sine]
    return np.array(found[:count], np.float32)


@given(SEEDS, SEEDS, st.integers(0, 4096), st.sampled_from(sorted(STREAMS)), st.integers(1, 40))
@settings(max_examples=50)
def test_the_stream_is_the_one_documented_bit_for_bit(seed, index, step, stream, count):
    got = step_noise(seed, stream, [index], step, (1, 1, count))
    assert got.tobytes() == by_the_page(seed, STREAMS[stream], index, step + 1, count).tobytes()


def test_the_check_values_of_the_page_are_true():
    page = (Path(__file__).parents[2] / "docs" / "noise.md").read_text()
    stated = re.search(r"as float32 bits:\s+(.+)", page).group(1).split()
    bits = initial_noise(7, "simulation", [0], (1, 1, 4)).view(np.uint32).ravel()
    assert [f"{value:08X}" for value in bits] == stated


def test_nothing_of_the_stream_depends_on_where_it_is_drawn():
    """The bits on the machine that wrote this test; another that gets others draws other pictures."""
    whole = initial_noise(5, "simulation", range(64), (3, 32, 32))
    assert (
        hashlib.sha256(whole.tobytes()).hexdigest()
        == "3b6d2bc1730cd6ddca8442d3e4b994ffb17ccc72c8a74cbb72fa2c0a6ca0ae8a"
    )


EDGES = [1, 2, 3, 2**51, 2**52, 2**52 + 1, 6369051672525772, 6369051672525773, 2**53 - 2, 2**53 - 1]


@given(st.one_of(st.sampled_from(EDGES), st.integers(1, 2**53 - 1)))
@settings(max_examples=300)
def test_logarithm_and_circle_are_exact_to_a_few_last_places(k):
    mpmath.mp.prec = 120
    x = np.array([k * 2.0**-53])
    exact = mpmath.log(mpmath.mpf(float(x[0])))
    assert abs(mpmath.mpf(float(logarithm(x)[0])) - exact) <= 2.5 * np.spacing(abs(float(exact)))
    for got, function in zip(circle(x), (mpmath.cos, mpmath.sin), strict=True):
        assert abs(mpmath.mpf(float(got[0])) - function(2 * mpmath.pi * mpmath.mpf(float(x[0])))) <= 2.5 * 2.0**-53


def test_the_ends_of_the_range():
    assert logarithm(np.array([1.0])) == 0
    assert normals(np.array([2**64 - 1, 0], np.uint64)).tolist() == [0, 0]
    assert np.isfinite(normals(np.array([0, 2**64 - 1], np.uint64))).all()
    assert circle(np.array([0, 0.25, 0.5, 0.75]))[0].tolist() == [1, 0, -1, 0]


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
