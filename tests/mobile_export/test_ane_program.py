"""The converted Neural Engine form holds only what that engine takes: convolutions and channels on axis 1."""

import collections

import coremltools
import pytest
import tiny
import torch
from ane_cases import ATTENTION, latent_inputs, make_latent_unet, make_vae, pixel_inputs
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from torch import nn

from mobile_export.backends.coreml.ane import ane_form


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
