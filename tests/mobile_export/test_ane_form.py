"""The Neural Engine form computes what the diffusers network computes, and holds only what that engine takes."""

import collections

import coremltools
import pytest
import tiny
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel
from diffusers.models.attention import BasicTransformerBlock, FeedForward
from diffusers.models.attention_processor import Attention, SlicedAttnProcessor
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from correction.errors import UsageError
from mobile_export.backends.coreml.ane import ane_form, float_layer
from mobile_export.backends.coreml.ane_attention import ChannelAttention
from mobile_export.models.vae_decoder import VaeDecoder

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


class Positional(nn.Module):
    """A network with tensors for arguments and a tensor for a result, as an artifact has."""

    def __init__(self, network, *names):
        super().__init__()
        self.network, self.names = network, names

    def forward(self, *tensors):
        if not self.names:
            return self.network(*tensors)
        return self.network(**dict(zip(self.names, tensors, strict=True)), return_dict=False)[0]


def convert(form, inputs, precision):
    """The MIL operations of the main function, constants left out, and the exported network."""
    tensors = tuple(inputs.values())
    wrapped = Positional(form, *(inputs if "latents" not in inputs else ()))
    exported = torch.export.export(wrapped.eval(), tensors).run_decompositions({})
    package = coremltools.convert(
        exported,
        convert_to="mlprogram",
        minimum_deployment_target=coremltools.target.iOS18,
        compute_precision=getattr(coremltools.precision, precision),
        skip_model_load=True,
    )
    operations = [op for op in package._mil_program.functions["main"].operations if op.op_type != "const"]
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(*tensors), wrapped(*tensors), atol=1e-6, rtol=0)
    return operations


NOT_FOR_THE_ENGINE = {"linear", "matmul", "scaled_dot_product_attention"}


def assert_convolutions_only(operations, layers):
    counts = collections.Counter(op.op_type for op in operations)
    assert not NOT_FOR_THE_ENGINE & counts.keys()
    assert counts["conv"] == layers
    assert {(op.x.rank, op.weight.rank) for op in operations if op.op_type == "conv"} == {(4, 4)}
    return counts


def count_layers(module):
    return sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in module.modules())


def count_heads(module):
    return sum(attention.heads for attention in module.modules() if isinstance(attention, Attention))


@pytest.mark.parametrize("precision", ["FLOAT16", "FLOAT32"])
def test_program_of_a_unet(precision):
    unet = tiny.make_unet(**ATTENTION)
    inputs = pixel_inputs(unet, 1, 3.0, torch.Generator().manual_seed(7))
    operations = convert(ane_form(unet), inputs, precision)
    counts = assert_convolutions_only(operations, count_layers(unet))
    assert (counts["einsum"], counts["softmax"]) == (2 * count_heads(unet), count_heads(unet))
    assert {tuple(op.axis.val.reshape(-1)) for op in operations if op.op_type == "softmax"} == {(1,)}


def test_program_of_a_unet_with_text():
    unet = make_latent_unet()
    inputs = latent_inputs(unet, 1, 3.0, torch.Generator().manual_seed(7))
    operations = convert(ane_form(unet, query_chunk=40), inputs, "FLOAT16")
    counts = assert_convolutions_only(operations, count_layers(unet))
    blocks = [module for module in unet.modules() if isinstance(module, BasicTransformerBlock)]
    chunks = 2 * 2 * 3 + 2 * 1  # 64 queries in two chunks in three blocks, 16 in one in the middle; two attentions each
    assert len(blocks) == 4 and counts["softmax"] == chunks * 2
    assert counts["layer_norm"] == 3 * len(blocks)
    for op in operations:
        if op.op_type == "layer_norm":
            assert list(op.axes.val) == [1] and op.gamma is not None and op.beta is not None
    # One transpose for the text, one for the keys of each attention, none for queries, values or feed-forwards.
    assert counts["transpose"] == 1 + 2 * len(blocks)


def test_program_of_a_vae_decoder():
    vae = make_vae()
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    operations = convert(ane_form(vae), {"latents": latents}, "FLOAT16")
    assert_convolutions_only(operations, count_layers(vae.decoder) + count_layers(vae.post_quant_conv))
