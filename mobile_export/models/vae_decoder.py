"""VaeDecoder: the half of an autoencoder that turns latents to images."""

from __future__ import annotations

from diffusers import AutoencoderKL, AutoencoderTiny, VQModel
from diffusers.models.autoencoders.vae import VectorQuantizer
from torch import Tensor, nn


class VaeDecoder(nn.Module):
    """Latents to images; its layers are named as in the autoencoder, and are the autoencoder's own.

    Of an AutoencoderKL: post_quant_conv (None where the autoencoder has none) and decoder. Of a VQModel: quantize,
    which takes the nearest code for each latent pixel, post_quant_conv and decoder. Of an AutoencoderTiny: decoder
    alone, which limits its input and brings its images from [0, 1] to [-1, 1] itself.
    """

    def __init__(self, vae: AutoencoderKL | VQModel | AutoencoderTiny) -> None:
        super().__init__()
        if isinstance(vae, VQModel):
            self.quantize = Codebook(vae.quantize)
        self.post_quant_conv = None if isinstance(vae, AutoencoderTiny) else vae.post_quant_conv
        self.decoder = vae.decoder

    def forward(self, latents: Tensor) -> Tensor:
        """(B, C, H, W), already divided by the scaling factor -> (B, C', H', W') images in about [-1, 1]."""
        if hasattr(self, "quantize"):
            latents = self.quantize(latents)
        return self.decoder(latents if self.post_quant_conv is None else self.post_quant_conv(latents))


class Codebook(nn.Module):
    """The nearest code of each latent pixel (van den Oord et al., arXiv 1711.00937, eq. 1), for inference."""

    def __init__(self, quantizer: VectorQuantizer) -> None:
        super().__init__()
        self.embedding = quantizer.embedding

    def forward(self, latents: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), each pixel one of the codes (N, C)."""
        pixels = latents.permute(0, 2, 3, 1)  # (B, H, W, C)
        codes = self.embedding.weight
        # |z - e|^2 without |z|^2, which is the same for every code
        distances = (codes * codes).sum(1) - 2 * (pixels @ codes.transpose(0, 1))  # (B, H, W, N)
        return self.embedding(distances.argmin(-1)).permute(0, 3, 1, 2)
