"""network_for: the form of a network that XNNPACK takes as a whole, or nearly."""

from __future__ import annotations

from collections.abc import Sequence

from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.models.autoencoders import vae
from torch import nn

from mobile_export.backends.executorch.autoencoder import ChannelsLastDecoder, ChannelsLastEncoder
from mobile_export.backends.executorch.generic_network import GenericNetwork
from mobile_export.backends.executorch.layers import Layers
from mobile_export.backends.executorch.unet2d import ChannelsLastUNet
from mobile_export.models.vae_decoder import VaeDecoder
from mobile_export.models.vae_encoder import VaeEncoder


def network_for(network: nn.Module, layers: Layers, names: Sequence[str] = ()) -> nn.Module:
    """`network` with its quantized layers, by full name, called with its inputs in their order; returns one tensor.

    names: of its inputs, in their order; only a network of another library is asked for them (GenericNetwork).
    Every layer keeps its full name for taps. Raises UsageError for what has no such form, naming it.
    """
    if isinstance(network, (UNet2DModel, UNet2DConditionModel)):
        return ChannelsLastUNet(network, layers)
    if isinstance(network, VaeDecoder) and isinstance(network.decoder, vae.Decoder):
        return ChannelsLastDecoder(network, layers)
    if isinstance(network, VaeEncoder) and isinstance(network.encoder, vae.Encoder):
        return ChannelsLastEncoder(network, layers)
    return GenericNetwork(network, layers, names)
