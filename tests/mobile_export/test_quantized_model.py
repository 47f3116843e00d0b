"""The quantized model in every format: the diffusers network with the dequantized weights in place of its own."""

import copy

import pytest
import tiny
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

from mobile_export.quantize.observation import observe_layers
from mobile_export.quantize.observed_layer import observing
from mobile_export.quantize.quantized_unet import QuantizedLayer, quantized_model
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import matrix_layers, quantize_layers

RECIPES = ("w8a16", "w8a16 block4", "w6a16", "w4a16", "w4a16 block4", "w4a16 palette4", "w4a16 palette", "w3a16")
RECIPES += ("w3a16 channel", "w2a16", "w2a16 palette", "w1a16", "w1a16 palette")


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval().requires_grad_(False)


def class_unet():
    unet = tiny.make_unet()
    return unet, lambda m: m(random(2, 3, 8, 8), 500, class_labels=torch.tensor([0, 2])).sample


def text_unet():
    unet = seeded(
        lambda: UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            norm_num_groups=4,
            cross_attention_dim=8,
            attention_head_dim=4,
        )
    )
    return unet, lambda m: m(random(1, 4, 8, 8), 500, random(1, 5, 8, seed=1)).sample


def decoder():
    vae = seeded(
        lambda: AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
            latent_channels=4,
        )
    )
    return vae, lambda m: m.decode(random(1, 4, 4, 4)).sample


def separable():
    network = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(4, 8, 3, padding=2, dilation=2, groups=4),
            nn.SiLU(),
            nn.Conv2d(8, 8, (1, 3), stride=(1, 2), padding=(0, 1), groups=2),
            nn.SiLU(),
            nn.Conv2d(8, 3, 1, bias=False),
        )
    )
    return network, lambda m: m(random(2, 4, 9, 9))


NETWORKS = {"classes": class_unet, "text": text_unet, "decoder": decoder, "separable": separable}


@pytest.fixture(scope="module", params=NETWORKS)
def observed(request):
    """(network, call, observations); layers that the call does not reach, those of an encoder, are left out."""
    network, call = NETWORKS[request.param]()
    seen = observe_layers(network, lambda: call(network))
    return network, call, {name: layer for name, layer in seen.items() if layer.output.sample}


def every_layer(recipe, network, observations):
    """The recipe with the image convolutions quantized as well, and what was not reached in float."""
    names = {name for name, _ in matrix_layers(network)}
    layers = {name: "float" for name in names - observations.keys()}
    layers |= {name: f"w{recipe.precision.weight_bits}" for name in ("conv_in", "conv_out") if name in names}
    return Recipe.from_dict({**recipe.as_dict(), "layers": layers})


@pytest.mark.parametrize("name", RECIPES)
@torch.no_grad()
def test_weight_only_is_the_network_with_other_weights(observed, name):
    network, call, observations = observed
    table = quantize_layers(network, observations, every_layer(Recipe.of(*name.split()), network, observations))
    assert table.layers.keys() == observations.keys()
    patched = copy.deepcopy(network)
    for layer, quantization in table.layers.items():
        patched.get_submodule(layer).weight.data = quantization.weight.dequantize()
    twin = quantized_model(network, table)
    assert sum(isinstance(module, QuantizedLayer) for module in twin.modules()) == len(table.layers)
    assert not any(layer.input or layer.output for layer in table.layers.values())

    def never(point, *_):
        raise AssertionError(point)

    with observing(twin, never):  # no grids, no roundings
        found = call(twin)
    assert torch.equal(found, call(patched))
    assert not torch.equal(found, call(network))


@pytest.mark.parametrize("name", ["w8a8", "w4a8", "w4a8 palette4", "w4a8 block4"])
@torch.no_grad()
def test_8_bit_activations_are_rounded_at_both_ends_of_every_layer(observed, name):
    network, call, observations = observed
    table = quantize_layers(network, observations, every_layer(Recipe.of(*name.split()), network, observations))
    points = []
    twin = quantized_model(network, table)

    def record(point, grid, value, rounded):
        layer, _, end = point.rpartition(".")
        assert grid.grid == getattr(table.layers[layer], end) and torch.equal(grid(value), rounded)
        points.append(point)
        return value  # goes on as if it had not been rounded

    with observing(twin, record):
        unrounded = call(twin)
    rounded = {layer for layer in table.layers if not layer.endswith("conv_shortcut")}
    assert sorted(points) == sorted(f"{layer}.{end}" for layer in rounded for end in ("input", "output"))
    patched = copy.deepcopy(network)
    for layer, quantization in table.layers.items():
        patched.get_submodule(layer).weight.data = quantization.weight.dequantize()
        if patched.get_submodule(layer).bias is not None:
            patched.get_submodule(layer).bias.data = quantization.bias
        channel = quantization.weight.format.kind == "channel" and layer in rounded
        assert (quantization.bias_codes is not None) == channel
    torch.testing.assert_close(unrounded, call(patched), rtol=1e-5, atol=1e-5)
    assert not torch.equal(call(twin), unrounded)
