"""The channels-last network in float32 is the diffusers UNet, whatever its architecture."""

import itertools

import pytest
import tiny
import torch

from mobile_export.backends.executorch.unet2d import ChannelsLastUNet

ATTENTION = {
    "down_block_types": ("AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D"),
    "add_attention": True,
}
THREE_LEVELS = {
    "sample_size": 16,
    "block_out_channels": (8, 16, 24),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
}
ARCHITECTURES = {
    "the model of the other tests": {},
    "unconditional, one level": tiny.UNCONDITIONAL,
    "attention everywhere": ATTENTION,
    "many heads": ATTENTION | {"attention_head_dim": 2},
    "one head": ATTENTION | {"attention_head_dim": None},
    "no attention": {"down_block_types": ("DownBlock2D",) * 2},
    "two layers in a block": {"layers_per_block": 2},
    "three levels": THREE_LEVELS,
    "three levels, two layers": THREE_LEVELS | {"layers_per_block": 2, "downsample_padding": 0},
    "downsample padding 0": {"downsample_padding": 0},
    "scale and shift by time": {"resnet_time_scale_shift": "scale_shift"},
    "centred input": {"center_input_sample": True},
    "output scale": ATTENTION | {"mid_block_scale_factor": 2.0},
    "group norm of its own for attention": ATTENTION | {"attn_norm_num_groups": 2},
    "large epsilon": {"norm_eps": 0.1},
    "one channel": {"in_channels": 1, "out_channels": 1},
    "not square": {"sample_size": (8, 12)},
    "one group": {"norm_num_groups": 1},
} | {
    f"flip {flip}, shift {shift}": {"flip_sin_to_cos": flip, "freq_shift": shift}
    for flip, shift in itertools.product((False, True), (0, 1))
}


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_equals_diffusers(name):
    unet = tiny.make_unet(**ARCHITECTURES[name])
    network = ChannelsLastUNet(unet, {}).eval()
    size = unet.config.sample_size
    size = size if isinstance(size, tuple) else (size, size)
    conditional = unet.config.num_class_embeds is not None
    generator = torch.Generator().manual_seed(7)
    for timestep, label in ((0.0, 0), (17.0, 1), (500.5, 2), (999.0, 3)):
        sample = 2 * torch.randn(1, unet.config.in_channels, *size, generator=generator)
        time, labels = torch.tensor([timestep]), torch.tensor([label])
        theirs = unet(sample, time, class_labels=labels if conditional else None, return_dict=False)[0]
        ours = network(sample, time, labels) if conditional else network(sample, time)
        assert ours.shape == theirs.shape
        assert float((ours - theirs).abs().max()) <= 1e-5 * max(1.0, float(theirs.abs().max())), timestep


@torch.no_grad()
def test_every_layer_is_used_and_named():
    """A layer set to zero changes the output: none is left out, none stands in for another."""
    for name, module in tiny.make_unet().named_modules():
        if not isinstance(module, (torch.nn.Conv2d, torch.nn.Linear, torch.nn.GroupNorm, torch.nn.Embedding)):
            continue
        unet = tiny.make_unet()
        unet.get_submodule(name).weight.data *= 0.5
        sample = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(7))
        inputs = (sample, torch.tensor([300.0]), torch.tensor([1]))
        theirs = unet(sample, inputs[1], class_labels=inputs[2], return_dict=False)[0]
        torch.testing.assert_close(ChannelsLastUNet(unet, {})(*inputs), theirs, atol=1e-5, rtol=1e-5)
        assert float((theirs - ChannelsLastUNet(tiny.make_unet(), {})(*inputs)).abs().max()) > 1e-5, name
