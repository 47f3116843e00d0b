"""Latents: what a UNet denoises where that is not the image itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from correction.errors import UsageError

KINDS = {"AutoencoderKL": "kl", "VQModel": "vq", "AutoencoderTiny": "tiny"}  # by class


@dataclass(frozen=True)
class Latents:
    """Constants between latents and images.

    kind: "kl" (the encoder gives mean and log variance), "vq" or "tiny" (it gives the latents); channels: of a latent
    pixel; image_channels: of an image; factor: image pixels per latent pixel, along each side; what the UNet denoises
    is (latents - shift_factor) * scaling_factor. Raises UsageError for other values.
    """

    kind: str
    channels: int
    image_channels: int
    factor: int
    scaling_factor: float
    shift_factor: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS.values():
            raise UsageError(f"unknown kind of latents {self.kind!r}: choose one of {', '.join(KINDS.values())}")
        for name in ("channels", "image_channels", "factor"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} of latents must be at least 1, got {getattr(self, name)}")
        if not (math.isfinite(self.scaling_factor) and self.scaling_factor > 0):
            raise UsageError(f"the scaling factor of latents must be finite and > 0, got {self.scaling_factor!r}")
        if not math.isfinite(self.shift_factor):
            raise UsageError(f"the shift factor of latents must be finite, got {self.shift_factor!r}")

    @classmethod
    def of_config(cls, kind: str, config: Mapping[str, Any]) -> Latents:
        """Those of an autoencoder; kind: its class, a key of KINDS; config: all its settings.

        A shift is not read: no pipeline with a UNet applies one.
        """
        channels = config["latent_channels"]
        if kind == "VQModel" and config["vq_embed_dim"] is not None:
            channels = config["vq_embed_dim"]
        if kind == "AutoencoderTiny":
            factor = config["upsampling_scaling_factor"] ** (len(config["decoder_block_out_channels"]) - 1)
        else:
            factor = 2 ** (len(config["block_out_channels"]) - 1)
        return cls(KINDS[kind], channels, config["out_channels"], factor, float(config["scaling_factor"]))

    def to_decoder(self, x: np.ndarray) -> np.ndarray:
        """(B, C, h, w) float32 as the UNet denoises them -> as the decoder takes them."""
        return x / np.float32(self.scaling_factor) + np.float32(self.shift_factor)

    def from_encoder(self, latents: np.ndarray) -> np.ndarray:
        """The inverse of `to_decoder`."""
        return (latents - np.float32(self.shift_factor)) * np.float32(self.scaling_factor)

    def drawn(self, moments: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        """The encoder's result -> (B, C, h, w) latents, drawn with unit-normal `noise` of that shape where they are
        a distribution (Kingma and Welling, arXiv 1312.6114, section 2.4). Raises UsageError where noise is missing."""
        if self.kind != "kl":
            return moments
        if noise is None:
            raise UsageError("latents of an AutoencoderKL are drawn: noise is missing")
        mean, log_variance = np.split(moments, 2, axis=1)
        deviation = np.exp(np.float32(0.5) * np.clip(log_variance, -30.0, 20.0))  # diffusers' bounds
        return mean + deviation * noise
