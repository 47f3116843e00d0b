"""The halves of diffusers' AutoencoderKL and VQModel, written so that XNNPACK delegates hold them."""

from __future__ import annotations

import torch
from diffusers.models.autoencoders import vae
from torch import Tensor, nn
from torch.nn import functional

from mobile_export.backends.executorch.blocks import DOWN_BLOCKS, UP_BLOCKS, Block, MiddleBlock
from mobile_export.backends.executorch.layers import Layers, convolution
from mobile_export.backends.executorch.normalization import GroupNorm
from mobile_export.backends.executorch.refusal import require_type
from mobile_export.backends.executorch.residual import activated
from mobile_export.models.vae_decoder import VaeDecoder
from mobile_export.models.vae_encoder import VaeEncoder


class ChannelsLastDecoder(nn.Module):
    """forward(latents (N, C, h, w)) -> images (N, C', H, W). See VaeDecoder.

    layers: the quantized layers by full name, empty for float32. Raises UsageError for the first part of the network
    that has no channels-last form.
    """

    def __init__(self, network: VaeDecoder, layers: Layers) -> None:
        super().__init__()
        decoder = require_type(network.decoder, "decoder", vae.Decoder)
        self.codebook = Codebook(network.quantize.embedding) if hasattr(network, "quantize") else None
        self.conv_before = None
        if network.post_quant_conv is not None:
            self.conv_before = convolution("post_quant_conv", network.post_quant_conv, layers)
        self.conv_in = convolution("decoder.conv_in", decoder.conv_in, layers)
        self.middle = MiddleBlock(decoder.mid_block, "decoder.mid_block", layers)
        self.up = nn.ModuleList(
            Block(block, f"decoder.up_blocks.{i}", layers, UP_BLOCKS) for i, block in enumerate(decoder.up_blocks)
        )
        self.norm_out = GroupNorm(require_type(decoder.conv_norm_out, "decoder.conv_norm_out", nn.GroupNorm))
        self.conv_out = convolution("decoder.conv_out", decoder.conv_out, layers)

    def forward(self, latents: Tensor) -> Tensor:
        x = latents.permute(0, 2, 3, 1)
        if self.codebook is not None:
            x = self.codebook(x)
        if self.conv_before is not None:
            x = self.conv_before(x)
        x = self.middle(self.conv_in(x))
        for block in self.up:
            x = block(x)
        return activated(self.norm_out, self.conv_out, x).permute(0, 3, 1, 2)


class ChannelsLastEncoder(nn.Module):
    """forward(image (N, 3, H, W)) -> moments or latents (N, C, h, w). See VaeEncoder, and ChannelsLastDecoder."""

    def __init__(self, network: VaeEncoder, layers: Layers) -> None:
        super().__init__()
        encoder = require_type(network.encoder, "encoder", vae.Encoder)
        self.conv_in = convolution("encoder.conv_in", encoder.conv_in, layers)
        self.down = nn.ModuleList(
            Block(block, f"encoder.down_blocks.{i}", layers, DOWN_BLOCKS) for i, block in enumerate(encoder.down_blocks)
        )
        self.middle = MiddleBlock(encoder.mid_block, "encoder.mid_block", layers)
        self.norm_out = GroupNorm(encoder.conv_norm_out)
        self.conv_out = convolution("encoder.conv_out", encoder.conv_out, layers)
        self.conv_after = None
        if network.quant_conv is not None:
            self.conv_after = convolution("quant_conv", network.quant_conv, layers)

    def forward(self, image: Tensor) -> Tensor:
        x = self.conv_in(image.permute(0, 2, 3, 1))
        for block in self.down:
            x = block(x)
        x = activated(self.norm_out, self.conv_out, self.middle(x))
        if self.conv_after is not None:
            x = self.conv_after(x)
        return x.permute(0, 3, 1, 2)


class Codebook(nn.Module):
    """The nearest code of each pixel, (N, H, W, C) -> same. The search for the smallest and the look-up stay outside
    of the delegate, which has neither."""

    directions: Tensor
    squares: Tensor

    def __init__(self, codes: nn.Embedding) -> None:
        super().__init__()
        self.codes = codes
        weight = codes.weight.detach()
        # |z - e|^2 without |z|^2, which is the same for every code e
        self.register_buffer("directions", -2 * weight)
        self.register_buffer("squares", (weight * weight).sum(1))

    def forward(self, x: Tensor) -> Tensor:
        distances = functional.linear(x, self.directions, self.squares)
        return self.codes(torch.argmin(distances, -1))
