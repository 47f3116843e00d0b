"""The sinusoids of the timestep, computed once more: with their frequencies as numbers in the artifact."""

from __future__ import annotations

import torch
from diffusers.models.embeddings import Timesteps
from torch import Tensor, nn


class TimeWaves(nn.Module):
    """diffusers' `Timesteps`: (B,) -> (B, num_channels), with the frequencies as a stored float32 row.

    A converter that folds exp() itself rounds the frequencies differently, which at timestep 999 moves
    the angle by more than the sine forgives.
    """

    frequencies: Tensor

    def __init__(self, source: Timesteps) -> None:
        super().__init__()
        half = source.num_channels // 2
        exponent = -torch.log(torch.tensor(10000.0)) * torch.arange(half, dtype=torch.float32)
        frequencies = torch.exp(exponent / (half - source.downscale_freq_shift))
        self.register_buffer("frequencies", frequencies[None] * float(source.scale))
        self.cosine_first = bool(source.flip_sin_to_cos)

    def forward(self, timesteps: Tensor) -> Tensor:
        angle = timesteps[:, None] * self.frequencies
        sine, cosine = torch.sin(angle), torch.cos(angle)
        return torch.cat([cosine, sine] if self.cosine_first else [sine, cosine], -1)
