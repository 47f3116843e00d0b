"""VaeDecoder: the half of an AutoencoderKL that a phone needs."""

from __future__ import annotations

from diffusers import AutoencoderKL
from torch import Tensor, nn


class VaeDecoder(nn.Module):
    """Latents to images; its layers are named as in the AutoencoderKL."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.post_quant_conv, self.decoder = vae.post_quant_conv, vae.decoder

    def forward(self, latents: Tensor) -> Tensor:
        """(B, C, H, W), already divided by the scaling factor -> (B, C', H', W') images in about [-1, 1]."""
        return self.decoder(latents if self.post_quant_conv is None else self.post_quant_conv(latents))
