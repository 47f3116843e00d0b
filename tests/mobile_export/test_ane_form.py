"""The Neural Engine form computes what the diffusers network computes, and refuses by name what it cannot."""

import pytest
import tiny
import torch
from ane_cases import (
    ATTENTION,
    LATENT_UNETS,
    PIXEL_UNETS,
    VAES,
    latent_inputs,
    make_latent_unet,
    make_vae,
    perturbed,
    pixel_inputs,
)
from diffusers import UNet2DModel
from diffusers.models.attention import BasicTransformerBlock, FeedForward
from diffusers.models.attention_processor import Attention, SlicedAttnProcessor
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from correction.errors import UsageError
from mobile_export.backends.coreml.ane import ane_form, float_layer
from mobile_export.backends.coreml.ane_attention import ChannelAttention
from mobile_export.models.vae_decoder import VaeDecoder


def assert_equal_outputs(model, form, make_inputs, tolerance=1e-5):
    generator = torch.Generator().manual_seed(7)
    for batch, timestep in ((1, 0.0), (2, 17.0), (2, 500.5), (1, 999.0)):
        inputs = make_inputs(model, batch, timestep, generator)
        with torch.no_grad():
            theirs, ours = model(**inputs, return_dict=False)[0], form(**inputs, return_dict=False)[0]
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0, msg=f"batch {batch}, timestep {timestep}")


@pytest.mark.parametrize("name", PIXEL_UNETS)
def test_unet_equals_diffusers(name):
    unet = tiny.make_unet(**PIXEL_UNETS[name])
    assert_equal_outputs(unet, ane_form(unet), pixel_inputs)


@pytest.mark.parametrize("name", LATENT_UNETS)
def test_unet_with_text_equals_diffusers(name):
    unet = make_latent_unet(**LATENT_UNETS[name])
    assert_equal_outputs(unet, ane_form(unet), latent_inputs)


@pytest.mark.parametrize("name", VAES)
def test_vae_decoder_equals_diffusers(name):
    vae = make_vae(**VAES[name])
    latents = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        theirs = vae.decode(latents, return_dict=False)[0]
        for form in (ane_form(vae), ane_form(VaeDecoder(vae))):
            assert isinstance(form, VaeDecoder)
            torch.testing.assert_close(form(latents), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "activation", ["gelu", "gelu-approximate", "geglu", "geglu-approximate", "swiglu", "linear-silu"]
)
def test_every_activation_of_the_feed_forward(activation):
    unet = make_latent_unet()
    for block in unet.modules():
        if isinstance(block, BasicTransformerBlock):
            block.ff = perturbed(FeedForward, dim=block.dim, activation_fn=activation)
    assert_equal_outputs(unet, ane_form(unet), latent_inputs)


@pytest.mark.parametrize("gains", ["one is zero", "none"])
def test_layer_norms_with_a_gain_of_zero_or_none(gains):
    unet = make_latent_unet()
    for module in unet.modules():
        if isinstance(module, nn.LayerNorm):
            if gains == "none":
                module.weight = module.bias = None
            else:
                module.weight.data[::3] = 0
    assert_equal_outputs(unet, ane_form(unet), latent_inputs)


@pytest.mark.parametrize("query_chunk", [1, 7, 32, 64, 1000])
def test_chunks_of_queries_change_nothing(query_chunk):
    for model, inputs in ((tiny.make_unet(**ATTENTION), pixel_inputs), (make_latent_unet(), latent_inputs)):
        assert_equal_outputs(model, ane_form(model, query_chunk=query_chunk), inputs)


@settings(max_examples=40, deadline=None)
@given(
    heads=st.integers(1, 3),
    width=st.integers(1, 4),
    size=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    text=st.none() | st.integers(1, 5),
    query_chunk=st.none() | st.integers(1, 13),
    bias=st.booleans(),
    residual=st.booleans(),
    groups=st.sampled_from([None, 1, 2]),
    rescale=st.sampled_from([1.0, 2.5]),
)
def test_attention_equals_diffusers(heads, width, size, text, query_chunk, bias, residual, groups, rescale):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(heads)
        attention = Attention(
            query_dim=6,
            cross_attention_dim=None if text is None else 5,
            heads=heads,
            dim_head=width,
            bias=bias,
            residual_connection=residual,
            norm_num_groups=groups,
            rescale_output_factor=rescale,
        ).eval()
        x, context = torch.randn(2, 6, *size), None if text is None else torch.randn(2, text, 5)
    with torch.no_grad():
        theirs = attention(x, context)
        for name in ("to_q", "to_k", "to_v"):
            setattr(attention, name, float_layer(name, getattr(attention, name)))
        attention.to_out[0] = float_layer("to_out.0", attention.to_out[0])
        attention.set_processor(ChannelAttention(query_chunk))
        ours = attention(x, None if context is None else context.transpose(1, 2).unsqueeze(2))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


class Counted(nn.Module):
    """A layer of the float form that keeps the ranks of its inputs and outputs."""

    def __init__(self, name, layer):
        super().__init__()
        self.inner, self.ranks = float_layer(name, layer), []

    def forward(self, x):
        y = self.inner(x)
        self.ranks.append((x.dim(), y.dim()))
        return y


@pytest.mark.parametrize("kind", ["pixels", "text", "large text", "vae"])
def test_every_layer_is_made_once_by_its_name_and_used(kind):
    model = {
        "pixels": lambda: tiny.make_unet(**ATTENTION),
        "text": lambda: make_latent_unet(encoder_hid_dim=5, encoder_hid_dim_type="text_proj"),
        "large text": lambda: make_latent_unet(**LATENT_UNETS["transformers of several layers, added embeddings"]),
        "vae": make_vae,
    }[kind]()
    made = []

    def make_layer(name, layer):
        assert model.get_submodule(name) is layer
        made.append((name, Counted(name, layer)))
        return made[-1][1]

    form = ane_form(model, make_layer)
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    if kind == "vae":
        layers = [name for name in layers if name.startswith(("decoder.", "post_quant_conv"))]
        form(torch.zeros(1, 4, 8, 8))
    else:
        inputs = latent_inputs if "text" in kind else pixel_inputs
        form(**inputs(model, 2, 3.0, torch.Generator().manual_seed(7)))
    assert sorted(name for name, _ in made) == sorted(layers)
    assert {name: layer.ranks for name, layer in made} == {name: [(4, 4)] for name in layers}
    assert not any(isinstance(module, nn.Linear) for module in form.modules())


def test_the_original_and_the_random_numbers_stay_as_they_are():
    unet = make_latent_unet(encoder_hid_dim=5, encoder_hid_dim_type="text_proj")
    modules, config = dict(unet.named_modules()), dict(unet.config)
    weights = {name: value.clone() for name, value in unet.state_dict().items()}
    processors = {name: type(value) for name, value in unet.attn_processors.items()}
    random = torch.get_rng_state()
    form = ane_form(unet)
    for parameter in form.parameters():
        parameter.data.fill_(7)
    assert torch.equal(torch.get_rng_state(), random)
    assert dict(unet.named_modules()) == modules and dict(unet.config) == config
    assert {name: type(value) for name, value in unet.attn_processors.items()} == processors
    assert unet.state_dict().keys() == weights.keys()
    for name, value in unet.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_the_form_is_in_evaluation_mode():
    unet = tiny.make_unet(dropout=0.5).train()
    form = ane_form(unet)
    assert unet.training and not any(module.training for module in form.modules())


def make_refused(change):
    unet = make_latent_unet()
    attention = unet.mid_block.attentions[0].transformer_blocks[0].attn2
    if change == "processor":
        attention.set_processor(SlicedAttnProcessor(1))
    if change == "shared keys":
        attention.inner_kv_dim = 8
    if change == "subclass":
        unet.conv_in = nn.LazyConv2d(8, 3)
    if change == "norm":
        unet.mid_block.resnets[0].norm1 = nn.LayerNorm(8)
    return unet


REFUSED = {
    "a transformer": (
        lambda: nn.Transformer(4, 1, 1, 1, 4),
        "no Neural Engine form of Transformer: "
        "it exists for UNet2DModel, UNet2DConditionModel, AutoencoderKL, VaeDecoder",
    ),
    "blocks that are not known": (
        lambda: UNet2DModel(**(tiny.CONFIG | {"down_block_types": ("DownBlock2D", "SkipDownBlock2D")})),
        "no Neural Engine form of down_blocks.1 (SkipDownBlock2D): this type of module has none",
    ),
    "Fourier features of time": (
        lambda: tiny.make_unet(time_embedding_type="fourier"),
        "no Neural Engine form of time_proj (GaussianFourierProjection): this type of module has none",
    ),
    "two texts": (
        lambda: make_latent_unet(dual_cross_attention=True),
        "no Neural Engine form of down_blocks.0.attentions.0 (DualTransformer2DModel): this type of module has none",
    ),
    "gated attention": (
        lambda: make_latent_unet(attention_type="gated"),
        "no Neural Engine form of down_blocks.0.attentions.0.transformer_blocks.0.fuser (GatedSelfAttentionDense): "
        "this type of module has none",
    ),
    "another processor": (
        lambda: make_refused("processor"),
        "no Neural Engine form of mid_block.attentions.0.transformer_blocks.0.attn2 (Attention): "
        "its processor is SlicedAttnProcessor, not AttnProcessor or AttnProcessor2_0",
    ),
    "keys shared by heads": (
        lambda: make_refused("shared keys"),
        "no Neural Engine form of mid_block.attentions.0.transformer_blocks.0.attn2 (Attention): "
        "its keys have 8 channels, its queries 16",
    ),
    "a convolution of another class": (
        lambda: make_refused("subclass"),
        "no Neural Engine form of conv_in (LazyConv2d): this type of module has none",
    ),
    "a layer norm outside of a transformer": (
        lambda: make_refused("norm"),
        "no Neural Engine form of mid_block.resnets.0.norm1 (LayerNorm): it is part of a ResnetBlock2D",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_by_name_what_it_cannot_write(name):
    make, message = REFUSED[name]
    with pytest.raises(UsageError) as error:
        ane_form(make())
    assert str(error.value) == message


@pytest.mark.parametrize("part", ["norm_cross", "norm_q", "norm_k", "spatial_norm", "added_kv_proj_dim"])
def test_refuses_attentions_with_more_parts(part):
    unet = tiny.make_unet(**ATTENTION)
    setattr(unet.mid_block.attentions[0], part, 4 if part.endswith("dim") else nn.Identity())
    with pytest.raises(UsageError) as error:
        ane_form(unet)
    assert str(error.value) == f"no Neural Engine form of mid_block.attentions.0 (Attention): it has {part}"


@pytest.mark.parametrize("value", [0, -1, 2.0, "512"])
def test_refuses_a_query_chunk_that_is_no_positive_number(value):
    with pytest.raises(UsageError) as error:
        ane_form(tiny.make_unet(), query_chunk=value)
    assert str(error.value) == f"query_chunk is None or a whole number of at least 1, got {value!r}"


@pytest.mark.parametrize("mask", ["attention_mask", "encoder_attention_mask"])
def test_masks_are_refused_when_the_form_is_called(mask):
    unet = make_latent_unet()
    inputs = latent_inputs(unet, 1, 3.0, torch.Generator().manual_seed(7))
    with pytest.raises(UsageError, match=f"^{mask} is not supported by the Neural Engine form; leave it out$"):
        ane_form(unet)(**inputs, **{mask: torch.ones(1, 7)})
