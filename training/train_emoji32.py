"""Train emoji32: a class-conditional 32x32 DDPM on Noto emoji (Apache-2.0).

    python training/train_emoji32.py --data noto_emoji.npz --run runs/emoji32 --steps 9000
    python training/train_emoji32.py --run runs/emoji32 --export models/emoji32

The data file holds `x32` (N, 32, 32, 3) uint8, `name` (N,) and `no_skin_tone` (N,) bool; it is the
png/128 folder of github.com/googlefonts/noto-emoji, scaled down on white.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ddpm import Training, main
from diffusers import DDPMScheduler, UNet2DModel
from emoji_groups import CLASSES, NULL_LABEL, class_label


def build_unet() -> UNet2DModel:
    """4.7 M parameters; attention at 8x8 only, where it costs little on a phone."""
    return UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(48, 96, 160),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=16,
        attention_head_dim=32,
        num_class_embeds=NULL_LABEL + 1,
    )


def build_scheduler() -> DDPMScheduler:
    """The DDPM paper's linear betas, noise prediction, predicted x0 clipped to [-1, 1]."""
    return DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", clip_sample=True)


def load_images(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 3, 32, 32) float32 in [-1, 1] and (N,) int64 labels of the emoji that belong to a group."""
    with np.load(path) as data:
        names, plain, pixels = data["name"], data["no_skin_tone"], data["x32"]
    kept = [(i, label) for i, n in enumerate(names) if plain[i] and (label := class_label(str(n))) is not None]
    index = np.array([i for i, _ in kept])
    labels = torch.tensor([label for _, label in kept])
    images = torch.from_numpy(pixels[index]).permute(0, 3, 1, 2).float() / 127.5 - 1
    return images, labels


if __name__ == "__main__":
    main(Training(build_unet, build_scheduler, CLASSES, batch=32), load_images, "emoji32", 9000, __doc__)
