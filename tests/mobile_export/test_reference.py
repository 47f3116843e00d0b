"""The reference: for a seed it draws the images of the diffusers pipelines' own public calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from tiny_pipelines import saved

from correction.schedulers import make_scheduler
from mobile_export.models.diffusion_model import load_model
from mobile_export.models.reference import reference_images
from mobile_export.models.request import Request

PROMPTS = ("a cat", "two dogs on a hill")
TOLERANCE = 1e-4


def theirs(folder: Path, kind: str = "DiffusionPipeline", scheduler: Any = None, seed: int = 7, **call: Any):
    """(N, C, H, W) in [-1, 1], from the pipeline's public call."""
    pipeline = getattr(diffusers, kind).from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    if scheduler is not None:
        pipeline.scheduler = scheduler(pipeline.scheduler)
    images = pipeline(**call, generator=torch.Generator().manual_seed(seed), output_type="np").images
    return images.transpose(0, 3, 1, 2) * 2 - 1


def check(ours: np.ndarray, expected: np.ndarray) -> None:
    assert ours.dtype == np.float32 and ours.shape == expected.shape
    assert np.abs(ours - expected).max() <= TOLERANCE
    assert expected.std() > 0.1 and (np.abs(expected) < 1).mean() > 0.3  # a picture, not saturation


def ours(folder: Path, **request: Any) -> np.ndarray:
    return reference_images(load_model(str(folder)), Request(**{"seed": 7, "noise": "torch", **request}))


@pytest.mark.parametrize(
    ("name", "steps", "eta"),
    [("ddpm", 12, 0.0), ("ddim", 8, 0.0), ("ddim", 8, 1.0), ("ldm-vq", 8, 0.0), ("ldm-kl", 8, 0.0)],
)
def test_images_without_prompts(name, steps, eta):
    options = {"eta": eta} if eta else {}
    expected = theirs(saved(name), batch_size=3, num_inference_steps=steps, **options)
    check(ours(saved(name), count=3, steps=steps, eta=eta), expected)


@pytest.mark.parametrize("name", ["sd", "sd-tiny-vae", "sd-v", "lcm"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_images_of_prompts(name, guidance):
    expected = theirs(saved(name), prompt=list(PROMPTS), num_inference_steps=6, guidance_scale=guidance)
    images = ours(saved(name), prompts=PROMPTS, steps=6, guidance=guidance)
    check(images, expected)
    assert np.abs(images - ours(saved(name), prompts=PROMPTS, steps=6, guidance=2.5)).max() > 0.01


def test_a_negative_prompt():
    call = {"prompt": list(PROMPTS), "negative_prompt": ["dog"] * 2, "num_inference_steps": 5, "guidance_scale": 3.0}
    images = ours(saved("sd"), prompts=PROMPTS, negative_prompt="dog", steps=5, guidance=3.0)
    check(images, theirs(saved("sd"), **call))
    assert np.abs(images - ours(saved("sd"), prompts=PROMPTS, steps=5, guidance=3.0)).max() > 0.01


# Named samplers on the same pipeline: ancestral, stochastic (which draws at every step), two calls a step.
@pytest.mark.parametrize("sampler", ["euler-a", "dpmpp-2m-sde", "heun", "ddim-eta1", "sa-solver"])
def test_named_samplers(sampler):
    def scheduler(own):
        return make_scheduler(sampler, own.config, "trailing")[0]

    eta = {"eta": 1.0} if sampler == "ddim-eta1" else {}
    expected = theirs(
        saved("sd"), scheduler=scheduler, prompt=list(PROMPTS), num_inference_steps=6, guidance_scale=4.0, **eta
    )
    images = ours(saved("sd"), prompts=PROMPTS, sampler=sampler, spacing="trailing", steps=6, guidance=4.0)
    check(images, expected)


def picture(count: int) -> np.ndarray:
    return np.random.default_rng(3).uniform(-1, 1, (count, 3, 16, 16)).astype(np.float32)


def unit(image: np.ndarray) -> torch.Tensor:
    """As diffusers takes images that are tensors: from 0 to 1."""
    return torch.from_numpy(image / 2 + np.float32(0.5))


@pytest.mark.parametrize("name", ["sd", "sd-image", "sd-tiny-vae"])
@pytest.mark.parametrize(("count", "strength"), [(1, 0.6), (2, 1.0), (2, 0.35)])
def test_images_from_images(name, count, strength):
    image = picture(count)
    call = {"image": unit(image), "strength": strength, "num_inference_steps": 6, "guidance_scale": 3.0}
    expected = theirs(saved(name), "StableDiffusionImg2ImgPipeline", prompt=list(PROMPTS), **call)
    asked = {"image": image, "strength": strength, "steps": 6, "guidance": 3.0}
    check(ours(saved(name), prompts=PROMPTS, **asked), expected)


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "heun", "euler-a", "unipc"])
def test_samplers_with_a_memory_start_without_one(sampler):
    """Not the last rows of the whole plan: those would use steps that were never done."""

    def scheduler(own):
        return make_scheduler(sampler, own.config, None)[0]

    image = picture(2)
    call = {"image": unit(image), "strength": 0.5, "num_inference_steps": 8, "guidance_scale": 3.0}
    kind = "StableDiffusionImg2ImgPipeline"
    expected = theirs(saved("sd"), kind, scheduler=scheduler, prompt=list(PROMPTS), **call)
    asked = {"image": image, "strength": 0.5, "steps": 8, "guidance": 3.0}
    check(ours(saved("sd"), prompts=PROMPTS, sampler=sampler, **asked), expected)


def test_a_consistency_model_starts_from_an_image():
    image = picture(2)
    call = {"image": unit(image), "strength": 0.5, "num_inference_steps": 4, "guidance_scale": 3.0}
    kind = "LatentConsistencyModelImg2ImgPipeline"
    expected = theirs(saved("lcm"), kind, prompt=list(PROMPTS), **call)
    check(ours(saved("lcm"), prompts=PROMPTS, image=image, strength=0.5, steps=4, guidance=3.0), expected)
