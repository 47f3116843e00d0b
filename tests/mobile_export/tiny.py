"""A tiny random UNet that goes through every stage in seconds, saved as an ordinary diffusers folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMPipeline, UNet2DModel

CLASSES = ["cat", "dog", "fox"]
NULL_LABEL = 3
CONFIG: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 1,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "add_attention": False,  # of the middle block; lowering time grows with every layer
    "norm_num_groups": 4,
    "attention_head_dim": 8,
    "num_class_embeds": 4,
}
UNCONDITIONAL: dict[str, Any] = {
    "num_class_embeds": None,
    "block_out_channels": (8,),
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
}


def make_unet(seed: int = 0, **changes: Any) -> UNet2DModel:
    """A UNet with random weights and norms, small enough to lower in seconds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DModel(**{**CONFIG, **changes})
        for name, parameter in unet.named_parameters():
            if "norm" in name:  # diffusers starts at gain 1, bias 0, which would hide a swapped or forgotten one
                parameter.data += 0.3 * torch.randn_like(parameter)
    return unet.eval().requires_grad_(False)


def save_model(folder: Path, unet: UNet2DModel, labels: Any = None, **scheduler: Any) -> Path:
    """A diffusers pipeline folder, with labels.json beside it where `labels` is given."""
    DDPMPipeline(unet=unet, scheduler=DDIMScheduler(clip_sample=True, **scheduler)).save_pretrained(folder)
    if labels is not None:
        (folder / "labels.json").write_text(json.dumps(labels))
    return folder
