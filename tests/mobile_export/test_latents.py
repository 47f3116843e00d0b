"""Latents: constants that are checked, and arithmetic that is diffusers' own."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from correction import UsageError
from mobile_export.models.latents import Latents
from mobile_export.models.noise_source import PhiloxNoise, TorchNoise

FLOATS = arrays(np.float32, (2, 3, 2, 2), elements=st.floats(-50, 50, width=32))


@given(FLOATS, st.floats(0.05, 4), st.floats(-2, 2))
def test_the_encoder_s_side_undoes_the_decoder_s(x, scale, shift):
    latents = Latents("kl", 3, 3, 8, scale, shift)
    assert np.abs(latents.from_encoder(latents.to_decoder(x)) - x).max() <= 1e-4
    assert latents.to_decoder(x).dtype == latents.from_encoder(x).dtype == np.float32


@given(arrays(np.float32, (2, 6, 2, 2), elements=st.floats(-40, 40, width=32)), FLOATS)
def test_latents_are_drawn_as_diffusers_draws_them(moments, noise):
    theirs = DiagonalGaussianDistribution(torch.from_numpy(moments))
    expected = (theirs.mean + theirs.std * torch.from_numpy(noise)).numpy()
    drawn = Latents("kl", 3, 3, 8, 1.0).drawn(moments, noise)
    assert drawn.dtype == np.float32 and np.allclose(drawn, expected, rtol=1e-5, atol=1e-5)


def test_other_kinds_draw_nothing():
    x = np.ones((1, 3, 2, 2), np.float32)
    assert Latents("vq", 3, 3, 4, 1.0).drawn(x, None) is x and Latents("tiny", 3, 3, 8, 1.0).drawn(x, None) is x
    with pytest.raises(UsageError, match="noise is missing"):
        Latents("kl", 3, 3, 8, 1.0).drawn(x, None)


WRONG = {
    "unknown kind of latents 'dc': choose one of kl, vq, tiny": ("dc", 4, 3, 8, 1.0),
    "channels of latents must be at least 1, got 0": ("kl", 0, 3, 8, 1.0),
    "factor of latents must be at least 1, got 0": ("kl", 4, 3, 0, 1.0),
    "scaling factor of latents must be finite and > 0, got -1.0": ("kl", 4, 3, 8, -1.0),
    "shift factor of latents must be finite, got inf": ("kl", 4, 3, 8, 1.0, float("inf")),
}


@pytest.mark.parametrize("message", WRONG)
def test_constants_are_checked(message):
    with pytest.raises(UsageError, match=re.escape(message)):
        Latents(*WRONG[message])


def test_noise_comes_in_the_order_of_the_pipeline():
    noise, generator = TorchNoise(4, [True, False, True, True]), torch.Generator().manual_seed(4)
    expected = [torch.randn(2, 3, generator=generator).numpy() for _ in range(5)]
    assert np.array_equal(noise.encoder(2, (3,)), expected[0]) and np.array_equal(noise.initial(2, (3,)), expected[1])
    at = noise.steps(2, (3,))
    assert np.array_equal(at(0), expected[2]) and np.array_equal(at(3), expected[4])  # that of step 2 was left out
    for step in (3, 1, 4):
        with pytest.raises(UsageError, match=f"noise of step {step}"):
            at(step)
    with pytest.raises(UsageError, match="noise of step 1"):
        TorchNoise(4, [True, False]).steps(1, (3,))(1)


def test_the_projects_noise_differs_by_use_and_not_by_batch():
    noise, shape = PhiloxNoise(9), (2, 3, 3)
    found = [noise.encoder(2, shape), noise.initial(2, shape), noise.steps(2, shape)(0), noise.steps(2, shape)(1)]
    assert len({array.tobytes() for array in found}) == 4
    later = PhiloxNoise(9, first=1)
    again = [later.encoder(1, shape), later.initial(1, shape), later.steps(1, shape)(0), later.steps(1, shape)(1)]
    assert all(np.array_equal(one[0], both[1]) for one, both in zip(again, found, strict=True))
