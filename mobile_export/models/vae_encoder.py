"""VaeEncoder: the half of an autoencoder that turns images to latents, for image-to-image."""

from __future__ import annotations

from diffusers import AutoencoderKL, AutoencoderTiny, VQModel
from torch import Tensor, nn


class VaeEncoder(nn.Module):
    """Images to what the latents are drawn from; its layers are named as in the autoencoder, and are its own.

    quant_conv is None where the autoencoder has none.
    """

    def __init__(self, vae: AutoencoderKL | VQModel | AutoencoderTiny) -> None:
        super().__init__()
        self.encoder = vae.encoder
        self.quant_conv = None if isinstance(vae, AutoencoderTiny) else vae.quant_conv

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> moments (B, 2 C, h, w) of an AutoencoderKL: mean and log variance before any
        scaling; the latents themselves (B, C, h, w) of a VQModel and an AutoencoderTiny."""
        moments = self.encoder(image)
        return moments if self.quant_conv is None else self.quant_conv(moments)
