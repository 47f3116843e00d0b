"""A tiny random network of each kind that can be a component, with inputs that tell them apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel, UNet2DModel, VQModel
from torch import Tensor, nn

from mobile_export.models.text_encoder import TextEncoder
from mobile_export.models.vae_decoder import VaeDecoder
from mobile_export.models.vae_encoder import VaeEncoder

TEXT = {
    "vocab_size": 40_000,  # as in CLIP's, more than an int16 can count
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 9,
    "layer_norm_eps": 1e-5,
    "hidden_act": "quick_gelu",
}
CONDITIONED = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
    "attention_head_dim": 8,
}
LATENT = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
    "attention_head_dim": 8,
}
AUTOENCODER = {
    "block_out_channels": (16, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 8,
    "latent_channels": 4,
}
SMALL = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
SMALL |= {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1), "latent_channels": 4}


@dataclass(frozen=True)
class ComponentCase:
    """make: the network with random weights; inputs(k): the k-th of four examples by name; output: its name."""

    make: Callable[[], nn.Module]
    inputs: Callable[[int], dict[str, Tensor]]
    output: str

    def network(self) -> nn.Module:
        """In evaluation mode, its norms and embeddings away from where they start."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            network = self.make()
            for name, parameter in network.named_parameters():
                if "norm" in name:
                    parameter.data += 0.3 * torch.randn_like(parameter)
        return network.eval().requires_grad_(False)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tokens(k: int, vocabulary: int, length: int) -> Tensor:
    """(1, length) int64, the last token of the vocabulary among them."""
    found = torch.randint(vocabulary, (1, length), generator=torch.Generator().manual_seed(k))
    found[0, 3] = vocabulary - 1
    return found


def unet_inputs(k: int) -> dict[str, Tensor]:
    return {"sample": normal(k, 1, 4, 8, 8), "timestep": torch.tensor([[1.0, 401.0, 999.0, 37.5][k]])}


def text_inputs(k: int) -> dict[str, Tensor]:
    return {**unet_inputs(k), "encoder_hidden_states": normal(10 + k, 1, 7, 12)}


COMPONENTS: dict[str, ComponentCase] = {
    "text encoder": ComponentCase(
        lambda: TextEncoder(TEXT), lambda k: {"input_ids": tokens(k, 40_000, 9)}, "encoder_hidden_states"
    ),
    "text encoder, gelu, short": ComponentCase(
        lambda: TextEncoder({**TEXT, "vocab_size": 50, "hidden_act": "gelu"}),
        lambda k: {"input_ids": tokens(k, 50, 5)},
        "encoder_hidden_states",
    ),
    "KL decoder": ComponentCase(
        lambda: VaeDecoder(AutoencoderKL(**AUTOENCODER)), lambda k: {"latents": normal(k, 1, 4, 4, 4)}, "image"
    ),
    "KL encoder": ComponentCase(
        lambda: VaeEncoder(AutoencoderKL(**AUTOENCODER)), lambda k: {"image": normal(k, 1, 3, 8, 8).tanh()}, "moments"
    ),
    "VQ decoder": ComponentCase(
        lambda: VaeDecoder(VQModel(**AUTOENCODER, num_vq_embeddings=32)),
        lambda k: {"latents": normal(k, 1, 4, 4, 4) / 32},  # codes begin at the size of 1 / 32
        "image",
    ),
    "VQ encoder": ComponentCase(
        lambda: VaeEncoder(VQModel(**AUTOENCODER, num_vq_embeddings=32)),
        lambda k: {"image": normal(k, 1, 3, 8, 8).tanh()},
        "moments",
    ),
    "tiny decoder": ComponentCase(
        lambda: VaeDecoder(AutoencoderTiny(**SMALL)), lambda k: {"latents": 2 * normal(k, 1, 4, 4, 4)}, "image"
    ),
    "tiny encoder": ComponentCase(
        lambda: VaeEncoder(AutoencoderTiny(**SMALL)), lambda k: {"image": normal(k, 1, 3, 8, 8).tanh()}, "moments"
    ),
    "UNet with text and classes": ComponentCase(
        lambda: UNet2DConditionModel(**CONDITIONED, num_class_embeds=4),
        lambda k: {**text_inputs(k), "class_labels": torch.tensor([k % 4])},
        "noise_pred",
    ),
    "UNet of a consistency model": ComponentCase(
        lambda: UNet2DConditionModel(**CONDITIONED, time_cond_proj_dim=6),
        lambda k: {**text_inputs(k), "timestep_cond": normal(20 + k, 1, 6)},
        "noise_pred",
    ),
    "UNet of latents": ComponentCase(
        lambda: UNet2DModel(**LATENT, in_channels=4, out_channels=4), unet_inputs, "noise_pred"
    ),
}
UNETS = tuple(name for name in COMPONENTS if name.startswith("UNet"))
OTHERS = tuple(name for name in COMPONENTS if name not in UNETS)
