"""Train digits28: a class-conditional 28x28 velocity-predicting diffusion model on MNIST.

    python training/train_digits28.py --data mnist.npz --run runs/digits28
    python training/train_digits28.py --run runs/digits28 --export models/digits28

The data file holds `x_train` (60000, 28, 28) uint8, ink bright on black, and `y_train` (60000,).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ddpm import Training, main
from diffusers import DDPMScheduler, UNet2DModel

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def build_unet() -> UNet2DModel:
    """Three levels: 28, 14 and 7 pixels a side; attention at 7x7 only."""
    return UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 64, 128),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=16,
        attention_head_dim=32,
        num_class_embeds=len(CLASSES) + 1,
    )


def build_scheduler() -> DDPMScheduler:
    """Cosine betas (Nichol and Dhariwal 2021), velocity prediction (Salimans and Ho 2022): unlike emoji32 in both."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=True,
    )


def load_images(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """(60000, 1, 28, 28) float32 in [-1, 1] and (60000,) int64 digits."""
    with np.load(path) as data:
        pixels, digits = data["x_train"], data["y_train"]
    return torch.from_numpy(pixels)[:, None].float() / 127.5 - 1, torch.from_numpy(digits).long()


if __name__ == "__main__":
    main(Training(build_unet, build_scheduler, CLASSES, batch=64), load_images, "digits28", 8000, __doc__)
