"""A tiny random UNet that goes through every stage in seconds, as an ordinary diffusers folder; changed bundles."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMPipeline, UNet2DModel

from correction import Correction, write_correction
from mobile_export.bundle import Bundle, file_entry

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


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Load, change in place, write back."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def renew_digest(folder: Path, name: str) -> None:
    """Make the manifest agree with a file that was changed."""
    change_manifest(folder, lambda manifest: manifest["files"].update({name: file_entry(folder / name)}))


def with_correction(folder: Path, correction: Correction) -> Bundle:
    """The bundle in `folder`, which is changed, with another correction for the same artifact."""
    file = Bundle.open(folder).correction_file("executorch")
    write_correction(folder / "executorch" / "correction.safetensors", file.plan, correction, file.metadata)
    renew_digest(folder, "executorch/correction.safetensors")
    return Bundle.open(folder)


def some_correction(steps: int, channels: int = 3) -> Correction:
    """Small, distinct values in all four tables: surely not the identity."""
    grid = np.linspace(-1, 1, steps * channels, dtype=np.float32).reshape(steps, channels)
    return Correction(1 + 0.02 * grid, 0.01 * grid, 1 - 0.01 * grid, 0.005 * grid)
