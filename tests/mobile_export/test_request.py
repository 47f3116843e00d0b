"""Requests that make no sense, and those that a model cannot serve, are refused with the value and what is allowed."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tiny_pipelines import saved

from correction import UsageError
from mobile_export.models.diffusion_model import load_model
from mobile_export.models.reference import reference_images
from mobile_export.models.request import Request


def image(count: int = 1, side: int = 16, kind: type = np.float32) -> np.ndarray:
    return np.zeros((count, 3, side, side), kind)


SENSELESS = [
    ({"prompts": ("a",), "labels": (1,)}, "give prompts or labels, not both"),
    ({"count": 0}, "the number of images must be at least 1, got 0"),
    ({"seed": -1}, "the seed must be 0 to 2^63 - 1, got -1"),
    ({"guidance": float("nan")}, "guidance must be finite and at least 0, got nan"),
    ({"sampler": "ddim", "eta": 1.0}, "eta is a part of the named sampler 'ddim', got eta 1.0"),
    ({"strength": 0.0}, "strength must be above 0 and at most 1, got 0.0"),
    ({"noise": "numpy"}, "unknown noise 'numpy': choose one of philox, torch"),
    ({"image": image(kind=np.float64)}, "float32 of shape (1 or 1, C, H, W), got float64 (1, 3, 16, 16)"),
    ({"image": image(3), "prompts": ("a", "b")}, "float32 of shape (1 or 2, C, H, W), got float32 (3, 3, 16, 16)"),
    ({"image": image() + 2}, "the image must have values from -1 to 1"),
    ({"image": image() * np.nan}, "the image must have values from -1 to 1"),
]


@pytest.mark.parametrize(("values", "message"), SENSELESS, ids=[message for _, message in SENSELESS])
def test_senseless_values(values, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        Request(**values)


UNSERVED = [
    ("sd", {}, "sd needs prompts"),
    ("sd", {"labels": (1,)}, "sd needs prompts"),
    ("ddpm", {"prompts": ("a",)}, "ddpm takes no prompts"),
    ("ddpm", {"labels": (1,)}, "ddpm takes no labels"),
    ("ddpm", {"guidance": 2.0}, "ddpm has no conditions, so no guidance: use guidance 1, got 2"),
    ("ddpm", {"image": image(side=8)}, "ddpm starts from noise alone: only a model of latents starts from an image"),
    ("lcm", {"prompts": ("a",), "negative_prompt": "b"}, "lcm is told its guidance as a number: it takes no negative"),
    ("sd", {"prompts": ("a",), "image": image(side=8)}, "sd takes images of shape (3, 16, 16), got (3, 8, 8)"),
    ("sd", {"prompts": ("a",), "image": image(), "strength": 0.1, "steps": 5}, "strength 0.1 leaves none of 5 steps"),
    ("lcm", {"prompts": ("a",), "image": image(), "strength": 0.01}, "smaller than `num_inference_steps`: 20"),
]


@pytest.mark.parametrize(("name", "values", "message"), UNSERVED, ids=[message for *_, message in UNSERVED])
def test_requests_that_a_model_cannot_serve(name, values, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        reference_images(load_model(str(saved(name))), Request(**values))


def test_guidance_of_a_class_model_needs_a_null_class(model, plain_model):
    with pytest.raises(UsageError, match="tiny needs labels"):
        reference_images(model, Request())
    unguided = reference_images(model, Request(labels=(0, 2), steps=3))
    guided = reference_images(model, Request(labels=(0, 2), steps=3, guidance=4.0))
    assert unguided.shape == (2, 3, 8, 8) and np.abs(unguided - guided).max() > 0.01


def test_the_projects_own_noise_does_not_depend_on_the_batch():
    model = load_model(str(saved("sd-v")))
    asked = {"seed": 3, "steps": 3, "sampler": "ddim-eta1", "guidance": 3.0}
    both = reference_images(model, Request(prompts=("a cat", "a dog"), **asked))
    assert np.abs(reference_images(model, Request(prompts=("a cat",), **asked)) - both[:1]).max() <= 1e-5
    assert np.abs(both[0] - both[1]).max() > 0.1
    from_image = reference_images(model, Request(prompts=("a cat", "a dog"), image=image(2), **asked))
    assert np.abs(from_image - both).max() > 0.1
