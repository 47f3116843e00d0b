"""Tiny random pipelines of every kind that can be exported, as ordinary diffusers folders, made in a second each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    LDMPipeline,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from tiny import CONFIG, UNCONDITIONAL
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TOKENS = 12  # of a prompt
WIDTH = 16  # of an embedding
MERGES = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>")]
ONE_LEVEL: dict[str, Any] = {  # of a UNet that is exported with all around it: lowering time grows with every layer
    "block_out_channels": (8,),
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",),
}
BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> Any:
    """The network with random weights of size 1 everywhere, the norms included, which start at gain 1 and bias 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make()
        for name, parameter in network.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.data += 0.3 * torch.randn_like(parameter)
    return network.eval().requires_grad_(False)


def pixel_unet(**changes: Any) -> UNet2DModel:
    return seeded(lambda: UNet2DModel(**{**CONFIG, **UNCONDITIONAL, **changes}))


def text_unet(**changes: Any) -> UNet2DConditionModel:
    settings = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "norm_num_groups": 4,
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 2,
        **changes,
    }
    return seeded(lambda: UNet2DConditionModel(**settings), 1)


def kl_autoencoder(**changes: Any) -> AutoencoderKL:
    settings = {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
        "latent_channels": 4,
        **changes,
    }
    return seeded(lambda: AutoencoderKL(**settings), 2)


def vq_autoencoder() -> VQModel:
    def make() -> VQModel:
        vae = VQModel(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
            latent_channels=3,
            num_vq_embeddings=32,
            scaling_factor=0.5,
        )
        vae.quantize.embedding.weight.data = torch.randn(32, 3)  # diffusers starts with codes near 0
        return vae

    return seeded(make, 3)


def tiny_autoencoder() -> AutoencoderTiny:
    channels = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    blocks = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    return seeded(lambda: AutoencoderTiny(**channels, **blocks, scaling_factor=0.7), 4)


def tokenizer() -> CLIPTokenizer:
    """Letters, two words, and the two marks of CLIP."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in MERGES)]
    vocabulary = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=MERGES, model_max_length=TOKENS)


def text_encoder(**changes: Any) -> CLIPTextModel:
    words = tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        **changes,
    )

    def make() -> CLIPTextModel:
        model = CLIPTextModel(config)
        for parameter in model.parameters():  # transformers starts near 0
            parameter.data += 0.3 * torch.randn_like(parameter)
        return model

    return seeded(make, 5)


def text_parts(unet: nn.Module | None = None, vae: nn.Module | None = None) -> dict[str, Any]:
    """The parts of a text-to-image pipeline but its scheduler."""
    return {
        "unet": unet or text_unet(),
        "vae": vae or kl_autoencoder(),
        "text_encoder": text_encoder(),
        "tokenizer": tokenizer(),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def _stable_diffusion(scheduler: Any, **parts: Any) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(**text_parts(**parts), scheduler=scheduler)


def _consistency_model(**changes: Any) -> LatentConsistencyModelPipeline:
    unet = text_unet(time_cond_proj_dim=8, **changes)
    return LatentConsistencyModelPipeline(**text_parts(unet=unet), scheduler=LCMScheduler(**BETAS))


PIPELINES: dict[str, Callable[[], Any]] = {
    "ddpm": lambda: DDPMPipeline(pixel_unet(), DDPMScheduler()),
    "ddim": lambda: DDIMPipeline(pixel_unet(), DDIMScheduler()),
    "ldm-vq": lambda: LDMPipeline(vq_autoencoder(), pixel_unet(), DDIMScheduler(clip_sample=False)),
    "ldm-kl": lambda: LDMPipeline(
        kl_autoencoder(), pixel_unet(in_channels=4, out_channels=4), DDIMScheduler(clip_sample=False, **BETAS)
    ),
    "sd": lambda: _stable_diffusion(PNDMScheduler(skip_prk_steps=True, steps_offset=1, **BETAS)),
    "sd-tiny-vae": lambda: _stable_diffusion(EulerDiscreteScheduler(steps_offset=1, **BETAS), vae=tiny_autoencoder()),
    "sd-v": lambda: _stable_diffusion(
        DDIMScheduler(prediction_type="v_prediction", clip_sample=False, steps_offset=1, **BETAS)
    ),
    "sd-image": lambda: StableDiffusionImg2ImgPipeline(
        **text_parts(unet=text_unet(**ONE_LEVEL)),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1, **BETAS),
    ),
    "lcm": _consistency_model,
    "lcm-one-level": lambda: _consistency_model(**ONE_LEVEL),
}


@cache
def _place() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="tiny-pipelines-")  # removed when the program ends


@cache
def saved(name: str) -> Path:
    """The folder of a pipeline of PIPELINES, made once. It is shared: take a `copy` to change it."""
    folder = Path(_place().name) / name
    PIPELINES[name]().save_pretrained(folder)
    return folder


def copy(name: str, place: Path) -> Path:
    """A private copy of the folder, inside `place` and named after the pipeline."""
    return Path(shutil.copytree(saved(name), place / name))
