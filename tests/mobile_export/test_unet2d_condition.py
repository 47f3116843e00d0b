"""UNets that are conditioned by a text, channels last: the diffusers network in every architecture, lowered whole."""

from __future__ import annotations

import re

import pytest
import torch
from channels_last_cases import (
    ENDS,
    eager_difference,
    eager_lockstep,
    lowered,
    quantized,
    rounded_layers,
    unused_layers,
)
from diffusers import UNet2DConditionModel
from tiny_pipelines import TOKENS, WIDTH, text_unet
from torch import Tensor

from correction.errors import CheckFailed, UsageError
from mobile_export.backends.backend import Probe
from mobile_export.backends.executorch import pieces
from mobile_export.backends.executorch.backend import ExecuTorchBackend
from mobile_export.backends.executorch.network import network_for
from mobile_export.models.component import Component
from mobile_export.progress import Progress

CROSSED = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
BOTH_CROSSED = {"down_block_types": CROSSED[:1] * 2, "up_block_types": CROSSED[1:] * 2}
THREE_LEVELS = {
    "block_out_channels": (8, 16, 24),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
LEAST = {"block_out_channels": (8,), "down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
ARCHITECTURES = {
    "two levels": {},
    "linear projections": {"use_linear_projection": True},
    "linear projections, heads by level": BOTH_CROSSED | {"use_linear_projection": True, "attention_head_dim": (2, 4)},
    "one head": {"attention_head_dim": 1},
    "transformers of one and two blocks": BOTH_CROSSED | {"transformer_layers_per_block": (2, 1)},
    "attention to the text alone": {"only_cross_attention": True},
    "three levels": THREE_LEVELS,
    "three levels, two layers, heads by level": THREE_LEVELS | {"layers_per_block": 2, "attention_head_dim": (1, 2, 4)},
    "no attention but in the middle": {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2},
    "no middle": {"mid_block_type": None},
    "one level": {"block_out_channels": (8,), "down_block_types": CROSSED[:1], "up_block_types": CROSSED[1:]},
    "the least": LEAST,
    "the least, told class and guidance": LEAST | {"num_class_embeds": 4, "time_cond_proj_dim": 6},
    "not square": {"sample_size": (8, 12)},
    "sides that cannot be halved": {"sample_size": (7, 9)},
    "sides that can be halved once": THREE_LEVELS | {"sample_size": (10, 6)},
    "told the guidance": {"time_cond_proj_dim": 6},
    "classes": {"num_class_embeds": 4},
    "classes and told the guidance": {"num_class_embeds": 4, "time_cond_proj_dim": 6},
    "time as scale and shift": {"resnet_time_scale_shift": "scale_shift"},
    "time with other angles": {"flip_sin_to_cos": False, "freq_shift": 1},
    "centred input": {"center_input_sample": True},
    "kernels of one and five": {"conv_in_kernel": 1, "conv_out_kernel": 5},
    "downsampling without padding": {"downsample_padding": 0},
    "norms and scale of its own": {"norm_eps": 0.1, "norm_num_groups": 2, "mid_block_scale_factor": 2.0},
}


def inputs_of(unet: UNet2DConditionModel, seed: int = 0) -> dict[str, Tensor]:
    """Random inputs in the order of a component's."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    config = unet.config
    size = config.sample_size if isinstance(config.sample_size, tuple) else (config.sample_size,) * 2
    inputs = {
        "sample": 2 * normal(1, config.in_channels, *size),
        "timestep": torch.tensor([(981.0, 0.0, 17.0, 500.5)[seed]]),
        "encoder_hidden_states": normal(1, TOKENS, WIDTH),
    }
    if config.num_class_embeds is not None:
        inputs["class_labels"] = torch.tensor([seed % config.num_class_embeds])
    if config.time_cond_proj_dim is not None:
        inputs["timestep_cond"] = normal(1, config.time_cond_proj_dim)
    return inputs


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_equals_diffusers(name):
    unet = text_unet(**ARCHITECTURES[name])
    for seed in range(4):
        assert eager_difference(unet, inputs_of(unet, seed)) <= 1e-5, seed


@pytest.mark.parametrize("activations", ENDS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_layer_in_lock_step(name, activations):
    unet = text_unet(**ARCHITECTURES[name])
    found, table = eager_lockstep(unet, inputs_of(unet), activations=activations)
    assert found.points == ENDS[activations] * len(rounded_layers(table))
    assert found.worst_step <= 1
    assert found.flip_rate <= 1e-3
    assert found.output_error <= 1e-5


@pytest.mark.parametrize(
    "name",
    ["no middle", "the least, told class and guidance"],
)
def test_every_layer_is_used(name):
    unet = text_unet(**ARCHITECTURES[name])
    assert unused_layers(unet, inputs_of(unet)) == []


def test_a_text_of_another_length_fits():
    unet = text_unet()
    for length in (1, 77):
        text = torch.randn(1, length, WIDTH, generator=torch.Generator().manual_seed(length))
        assert eager_difference(unet, {**inputs_of(unet), "encoder_hidden_states": text}) <= 1e-5


@pytest.mark.parametrize("activations", ENDS)
@pytest.mark.parametrize("most", [1, 300, 2000])
def test_in_pieces_of_any_size(most, activations, monkeypatch):
    """Attention over some of the queries, and convolutions over some of the rows, at a time."""
    unet = text_unet(**THREE_LEVELS)
    inputs = inputs_of(unet)
    monkeypatch.setattr(pieces, "MOST_VALUES", most)
    assert eager_difference(unet, inputs) <= 1e-5
    found, table = eager_lockstep(unet, inputs, activations=activations)
    assert found.points == ENDS[activations] * len(rounded_layers(table))
    assert found.worst_step <= 1
    assert found.output_error <= 1e-5


def test_one_delegate_holds_all_of_it():
    """Also where there is no middle block, where sides cannot be halved, and where the input is centred."""
    unet = text_unet(mid_block_type=None, use_linear_projection=True, sample_size=(5, 6), center_input_sample=True)
    program, difference = lowered(unet, inputs_of(unet))
    assert (program.delegates, program.undelegated) == (1, {})
    assert difference <= 1e-5


@pytest.mark.parametrize("activations", ENDS)
def test_exported_and_in_lock_step_with_the_quantized_model(activations, tmp_path):
    unet = text_unet(**LEAST, num_class_embeds=4, time_cond_proj_dim=6)
    inputs = inputs_of(unet)
    component, table = Component("unet", unet, inputs, "noise_pred"), quantized(unet, inputs, "w8a8", activations)
    backend, path = ExecuTorchBackend(), tmp_path / "unet.pte"
    pair = backend.export(component, table, path, Progress())
    assert (pair.shipped.delegates, pair.shipped.undelegated) == (1, {"aten.embedding.default": 1})
    probes = [
        Probe({name: value.numpy() for name, value in each.items()}, float(each["timestep"]))
        for each in (inputs_of(unet, seed) for seed in range(4))
    ]
    parity = backend.check_parity(component, table, path, pair, probes)
    assert parity.weight_codes_equal is True
    assert parity.quantizations == ENDS[activations] * len(rounded_layers(table))
    assert parity.worst_code_step <= 1
    assert parity.flip_rate <= 1e-3
    assert parity.lockstep_output_error <= 1e-5
    assert parity.timesteps == (981.0, 0.0, 17.0, 500.5)
    with pytest.raises(CheckFailed, match="does not hold the quantized model's constants"):
        backend.check_parity(component, quantized(unet, inputs, "w4a8"), path, pair, probes)


REFUSED = {
    "added conditions": (
        {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 16,
        },
        "ExecuTorch: addition_embed_type = 'text_time' of UNet2DConditionModel is not supported; supported: None",
    ),
    "class vectors": (
        {"class_embed_type": "timestep"},
        "ExecuTorch: class_embed_type = 'timestep' of UNet2DConditionModel is not supported; supported: None",
    ),
    "another activation": (
        {"act_fn": "gelu"},
        "ExecuTorch: act = 'GELU' of time_embedding is not supported; supported: 'SiLU'",
    ),
    "another block": (
        {"down_block_types": ("SimpleCrossAttnDownBlock2D", "DownBlock2D")},
        "ExecuTorch: down_blocks.0 is a SimpleCrossAttnDownBlock2D, which is not supported; supported: DownBlock2D, "
        "AttnDownBlock2D, CrossAttnDownBlock2D, DownEncoderBlock2D, AttnDownEncoderBlock2D",
    ),
    "another middle": (
        {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"},
        "ExecuTorch: mid_block is a UNetMidBlock2DSimpleCrossAttn, which is not supported; supported: UNetMidBlock2D, "
        "UNetMidBlock2DCrossAttn",
    ),
    "two texts": (
        {"dual_cross_attention": True},
        "ExecuTorch: dual_cross_attention = True of UNet2DConditionModel is not supported; supported: False",
    ),
    "boxes": (
        {"attention_type": "gated"},
        "ExecuTorch: attention_type = 'gated' of UNet2DConditionModel is not supported; supported: 'default'",
    ),
    "learned angles": (
        {"time_embedding_type": "fourier"},
        "ExecuTorch: time_proj is GaussianFourierProjection, which is not supported; supported: Timesteps",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_form_is_refused_by_name(name):
    settings, message = REFUSED[name]
    unet = text_unet(**settings)
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        network_for(unet, {})
