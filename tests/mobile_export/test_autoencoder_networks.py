"""Decoders and encoders of autoencoders, channels last: the diffusers networks in every architecture, lowered whole."""

from __future__ import annotations

import re

import pytest
import torch
from channels_last_cases import ENDS, eager_difference, eager_lockstep, lowered, rounded_layers, unused_layers
from diffusers import VQModel
from tiny_pipelines import kl_autoencoder, seeded, tiny_autoencoder, vq_autoencoder
from torch import Tensor, nn

from correction.errors import UsageError
from mobile_export.backends.executorch import pieces
from mobile_export.backends.executorch.autoencoder import ChannelsLastDecoder, ChannelsLastEncoder
from mobile_export.backends.executorch.generic_network import GenericNetwork
from mobile_export.backends.executorch.network import network_for
from mobile_export.models.component import call_network
from mobile_export.models.vae_decoder import VaeDecoder
from mobile_export.models.vae_encoder import VaeEncoder

ONE_LEVEL = {
    "block_out_channels": (8,),
    "down_block_types": ("DownEncoderBlock2D",),
    "up_block_types": ("UpDecoderBlock2D",),
}
WITH_ATTENTION = {
    "down_block_types": ("AttnDownEncoderBlock2D", "DownEncoderBlock2D"),
    "up_block_types": ("UpDecoderBlock2D", "AttnUpDecoderBlock2D"),
}
ARCHITECTURES = {
    "two levels": {},
    "one level": ONE_LEVEL,
    "three levels, two layers": {
        "block_out_channels": (8, 16, 24),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "layers_per_block": 2,
    },
    "no convolutions beside": {"use_quant_conv": False, "use_post_quant_conv": False},
    "no attention": {"mid_block_add_attention": False},
    "attention in the blocks": WITH_ATTENTION,
    "one channel of 16 latents": {"in_channels": 1, "out_channels": 1, "latent_channels": 16},
}


def vq(**changes) -> VQModel:
    def make() -> VQModel:
        vae = VQModel(**{"norm_num_groups": 4, "latent_channels": 3, "num_vq_embeddings": 32, **ONE_LEVEL, **changes})
        vae.quantize.embedding.weight.data = torch.randn_like(vae.quantize.embedding.weight)
        return vae

    return seeded(make, 3)


def decoder_inputs(decoder: VaeDecoder, height: int = 4, width: int = 4, seed: int = 0) -> dict[str, Tensor]:
    first = getattr(decoder, "quantize", None)
    conv = decoder.post_quant_conv or decoder.decoder.conv_in
    channels = conv.in_channels if first is None else first.embedding.embedding_dim
    return {"latents": torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(seed))}


def encoder_inputs(encoder: VaeEncoder, height: int = 8, width: int = 8, seed: int = 0) -> dict[str, Tensor]:
    channels = encoder.encoder.conv_in.in_channels
    return {"image": torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(seed)).tanh()}


def halves(vae: nn.Module, seed: int = 0) -> list[tuple[nn.Module, dict[str, Tensor]]]:
    decoder, encoder = VaeDecoder(vae).eval(), VaeEncoder(vae).eval()
    return [(decoder, decoder_inputs(decoder, seed=seed)), (encoder, encoder_inputs(encoder, seed=seed))]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_equals_diffusers(name):
    vae = kl_autoencoder(**ARCHITECTURES[name])
    for seed in range(3):
        for network, inputs in halves(vae, seed):
            assert eager_difference(network, inputs) <= 1e-5, type(network)


@pytest.mark.parametrize("changes", [{}, {"vq_embed_dim": 2}, {"mid_block_add_attention": False}], ids=str)
def test_equals_diffusers_with_a_codebook(changes):
    vae = vq(**changes)
    for seed in range(3):
        for network, inputs in halves(vae, seed):
            assert eager_difference(network, inputs) <= 1e-5, type(network)


@torch.no_grad()
def test_the_decoder_is_that_of_the_autoencoder_itself():
    vae = vq_autoencoder()
    form = network_for(VaeDecoder(vae).eval(), {})
    latents = torch.randn(1, 3, 4, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(form(latents), vae.decode(latents).sample, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(4, 6), (5, 3), (1, 1)], ids=str)
def test_sides_of_any_length(size):
    vae = kl_autoencoder()
    decoder, encoder = VaeDecoder(vae).eval(), VaeEncoder(vae).eval()
    assert eager_difference(decoder, decoder_inputs(decoder, *size)) <= 1e-5
    height, width = 2 * size[0] + 1, 2 * size[1]  # an odd one and an even one
    assert eager_difference(encoder, encoder_inputs(encoder, height, width)) <= 1e-5


@pytest.mark.parametrize("activations", ENDS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_layer_in_lock_step(name, activations):
    for network, inputs in halves(kl_autoencoder(**ARCHITECTURES[name])):
        found, table = eager_lockstep(network, inputs, activations=activations)
        assert found.points == ENDS[activations] * len(rounded_layers(table))
        assert found.worst_step <= 1
        assert found.flip_rate <= 1e-3
        assert found.output_error <= 1e-5


@pytest.mark.parametrize("make", [lambda: kl_autoencoder(**WITH_ATTENTION), vq], ids=["KL", "VQ"])
def test_every_layer_is_used(make):
    for network, inputs in halves(make()):
        assert unused_layers(network, inputs) == []


@pytest.mark.parametrize("activations", ENDS)
@pytest.mark.parametrize("most", [1, 300, 2000])
def test_in_pieces_of_any_size(most, activations, monkeypatch):
    """Convolutions over some of the rows, attention over some of the queries, at a time: the same values."""
    vae = kl_autoencoder()
    monkeypatch.setattr(pieces, "MOST_VALUES", most)
    for network, inputs in halves(vae):
        assert eager_difference(network, inputs) <= 1e-5
        found, table = eager_lockstep(network, inputs, activations=activations)
        assert found.points == ENDS[activations] * len(rounded_layers(table))
        assert found.worst_step <= 1
        assert found.output_error <= 1e-5


LOWERED = {
    "KL decoder": (lambda: VaeDecoder(kl_autoencoder(mid_block_add_attention=False)), 1, {}),
    "KL encoder": (lambda: VaeEncoder(kl_autoencoder()), 1, {}),
    # The search for the nearest code and its look-up stand between the distances and the rest.
    "VQ decoder": (lambda: VaeDecoder(vq()), 2, {"aten.argmin.default": 1, "aten.embedding.default": 1}),
}


@pytest.mark.parametrize("name", LOWERED)
def test_only_the_codebook_stays_outside_of_the_delegate(name):
    make, delegates, outside = LOWERED[name]
    network = make().eval()
    inputs = (decoder_inputs if isinstance(network, VaeDecoder) else encoder_inputs)(network, 4, 6)
    program, difference = lowered(network, inputs)
    assert (program.delegates, program.undelegated) == (delegates, outside)
    assert difference <= 1e-5


@torch.no_grad()
def test_which_form_a_network_has():
    kl, small = kl_autoencoder(), tiny_autoencoder()
    assert type(network_for(VaeDecoder(kl), {})) is ChannelsLastDecoder
    assert type(network_for(VaeEncoder(kl), {})) is ChannelsLastEncoder
    for network in (VaeDecoder(small).eval(), VaeEncoder(small).eval()):
        form = network_for(network, {})
        assert type(form) is GenericNetwork
        channels = 4 if isinstance(network, VaeDecoder) else 3
        x = torch.randn(1, channels, 8, 8, generator=torch.Generator().manual_seed(0))
        name = "latents" if isinstance(network, VaeDecoder) else "image"
        torch.testing.assert_close(form(x), call_network(network, {name: x}), atol=1e-5, rtol=1e-5)


def test_a_norm_by_place_is_refused_by_name():
    network = VaeDecoder(vq(norm_type="spatial", norm_num_groups=32, block_out_channels=(32,))).eval()
    part = "decoder.mid_block.resnets.0"
    message = f"ExecuTorch: {part} is ResnetBlockCondNorm2D, which is not supported; supported: ResnetBlock2D"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        network_for(network, {})
