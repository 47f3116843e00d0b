"""Guidance as an input of the network, as latent consistency models take it.

Luo et al., "Latent consistency models", arXiv 2310.04378, section 4.2.
"""

from __future__ import annotations

import numpy as np
import torch


def guidance_embedding(scale: float, size: int) -> np.ndarray:
    """(1, size) float32 waves of scale - 1, sines before cosines, an odd size padded with 0: diffusers' timestep_cond.

    Angles go up to 1000 (scale - 1), where one float32 rounding is 5e-4: computed in torch, in diffusers' order, so
    that the waves are the very same numbers.
    """
    half = size // 2
    rate = torch.log(torch.tensor(10000.0)) / (half - 1)
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -rate)
    angles = (torch.tensor([scale - 1.0]) * 1000.0)[:, None] * frequencies[None]
    waves = torch.cat([angles.sin(), angles.cos()], 1)
    return torch.nn.functional.pad(waves, (0, size % 2)).numpy()
