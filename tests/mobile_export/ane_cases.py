"""Small diffusers networks of many kinds, with inputs for them, for the tests of the Neural Engine form."""

from __future__ import annotations

import tiny
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

ATTENTION = {
    "down_block_types": ("AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D"),
    "add_attention": True,
}
PIXEL_UNETS = {
    "the model of the other tests": {},
    "unconditional": tiny.UNCONDITIONAL,
    "attention everywhere": ATTENTION,
    "many heads": ATTENTION | {"attention_head_dim": 2},
    "two layers in a block": {"layers_per_block": 2},
    "downsample padding 0": {"downsample_padding": 0},
    "scale and shift by time": {"resnet_time_scale_shift": "scale_shift"},
    "output scale": ATTENTION | {"mid_block_scale_factor": 2.0},
    "group norm of its own for attention": ATTENTION | {"attn_norm_num_groups": 2},
    "timesteps as classes": {"num_class_embeds": None, "class_embed_type": "timestep"},
    "not square": ATTENTION | {"sample_size": (8, 12)},
}
CONDITION = {
    "sample_size": 8,
    "layers_per_block": 1,
    "block_out_channels": (8, 16),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "norm_num_groups": 4,
    "cross_attention_dim": 6,
    "attention_head_dim": 2,
}
LATENT_UNETS = {
    "convolutions around the transformer": {},
    "linear layers around the transformer": {"use_linear_projection": True},
    "heads by block, two layers": {"attention_head_dim": (1, 4), "layers_per_block": 2},
    "cross-attention alone": {"only_cross_attention": True},
    "no middle block": {"mid_block_type": None},
    "middle block without text": {"mid_block_type": "UNetMidBlock2D"},
    "projected text": {"encoder_hid_dim": 5, "encoder_hid_dim_type": "text_proj"},
    "guidance as a condition": {"time_cond_proj_dim": 5},
    "classes beside the time": {"num_class_embeds": 4, "class_embeddings_concat": True},
    "projected classes": {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 5},
    "activated time": {"time_embedding_act_fn": "silu"},
    "transformers of several layers, added embeddings": {
        "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 5 + 6 * 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    },
}
VAES = {
    "as usual": {},
    "no post_quant_conv": {"use_post_quant_conv": False},
    "no attention": {"mid_block_add_attention": False},
    "three levels": {
        "block_out_channels": (4, 8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
    },
}


def perturbed(make, seed=0, **config):
    """A network whose norms have gains and biases of their own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make(**config)
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.data += 0.3 * torch.randn_like(parameter)
    return model.eval().requires_grad_(False)


def make_latent_unet(**changes):
    return perturbed(UNet2DConditionModel, **(CONDITION | changes))


def make_vae(**changes):
    config = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1, "sample_size": 16}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return perturbed(AutoencoderKL, **(config | blocks | changes))


def pixel_inputs(unet, batch, timestep, generator):
    size = unet.config.sample_size
    size = size if isinstance(size, tuple) else (size, size)
    inputs = {
        "sample": torch.randn(batch, 3, *size, generator=generator),
        "timestep": torch.tensor([timestep]),
    }
    if unet.config.num_class_embeds is not None:
        inputs["class_labels"] = torch.arange(batch) + 1
    if unet.config.class_embed_type == "timestep":
        inputs["class_labels"] = torch.arange(batch) + 40.0
    return inputs


def latent_inputs(unet, batch, timestep, generator):
    def normal(*shape):
        return torch.randn(batch, *shape, generator=generator)

    config = unet.config
    inputs = {
        "sample": normal(4, 8, 8),
        "timestep": torch.tensor([timestep]),
        "encoder_hidden_states": normal(7, config.encoder_hid_dim or config.cross_attention_dim),
    }
    if config.num_class_embeds is not None:
        inputs["class_labels"] = torch.arange(batch) + 1
    if config.class_embed_type == "projection":
        inputs["class_labels"] = normal(5)
    if config.time_cond_proj_dim is not None:
        inputs["timestep_cond"] = normal(5)
    if config.addition_embed_type == "text_time":
        inputs["added_cond_kwargs"] = {"text_embeds": normal(5), "time_ids": 100 * normal(6).abs()}
    return inputs
