"""ane_form: a diffusers network written for the Neural Engine, which wants convolutions on (B, C, H, W).

Every linear layer becomes a 1x1 convolution and every activation keeps its channels on axis 1, as in
"Deploying Transformers on the Apple Neural Engine" (Apple Machine Learning Research, 2022). What the
network computes stays the same; only the layout differs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel
from diffusers.models.activations import GEGLU, GELU, ApproximateGELU, LinearActivation, SwiGLU
from diffusers.models.attention import BasicTransformerBlock, FeedForward
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from diffusers.models.autoencoders.vae import Decoder
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets import unet_2d_blocks
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from correction.errors import UsageError
from mobile_export.backends.coreml.ane_attention import ChannelAttention
from mobile_export.backends.coreml.ane_transformer import ChannelTransformer
from mobile_export.models.vae_decoder import VaeDecoder

MakeLayer = Callable[[str, nn.Conv2d | nn.Linear], nn.Module]

NETWORKS = (UNet2DModel, UNet2DConditionModel, AutoencoderKL, VaeDecoder)
_BLOCKS = (
    "DownBlock2D",
    "AttnDownBlock2D",
    "CrossAttnDownBlock2D",
    "UNetMidBlock2D",
    "UNetMidBlock2DCrossAttn",
    "UpBlock2D",
    "AttnUpBlock2D",
    "CrossAttnUpBlock2D",
    "UpDecoderBlock2D",
)
_PARTS = (
    *(Decoder, ResnetBlock2D, Downsample2D, Upsample2D, Attention, Transformer2DModel, BasicTransformerBlock),
    *(FeedForward, TimestepEmbedding, Timesteps, GEGLU, SwiGLU, GELU, ApproximateGELU, LinearActivation),
    *(nn.ModuleList, nn.Conv2d, nn.Linear, nn.Embedding, nn.GroupNorm, nn.LayerNorm),
    *(nn.AvgPool2d, nn.Dropout, nn.Identity, nn.SiLU, nn.GELU, nn.ReLU, nn.Mish),
)


def ane_form(model: nn.Module, make_layer: MakeLayer | None = None, query_chunk: int | None = None) -> nn.Module:
    """A copy of `model` that computes the same function, written for the Neural Engine.

    model: UNet2DModel or UNet2DConditionModel; the copy is called as the original is. Of an AutoencoderKL
    (or its VaeDecoder) the result is a VaeDecoder, forward(latents) -> images. The copy is in evaluation mode.
    make_layer(name, layer): called once for each Conv2d and Linear with its full name in `model`; returns
    a module (B, I, H, W) -> (B, O, H', W'), for a Linear with H' = H and W' = W. Default: float_layer.
    query_chunk: attend to this many queries at once, None for all (ChannelAttention).

    A UNet2DConditionModel takes encoder_hidden_states (B, S, C) as ever and turns them to (B, C, 1, S) once;
    masks and cross_attention_kwargs raise UsageError when it is called.
    Raises UsageError, naming the module, for a network that has a part without such a form.
    """
    if query_chunk is not None and (not isinstance(query_chunk, int) or query_chunk < 1):
        raise UsageError(f"query_chunk is None or a whole number of at least 1, got {query_chunk!r}")
    if type(model) not in NETWORKS:
        allowed = ", ".join(network.__name__ for network in NETWORKS)
        raise UsageError(f"no Neural Engine form of {type(model).__name__}: it exists for {allowed}")
    network = VaeDecoder(model) if isinstance(model, AutoencoderKL) else model
    for name, module in network.named_modules():
        _refuse_unsupported(network, name, module)

    # What the memo of deepcopy holds already is taken as the copy, so no float weight exists twice.
    form = copy.deepcopy(network, _convolutions(network, make_layer or float_layer)).eval()
    for name, module in list(form.named_modules()):
        if isinstance(module, Attention):
            module.set_processor(ChannelAttention(query_chunk))
        if isinstance(module, Transformer2DModel):
            form.set_submodule(name, ChannelTransformer(module))
    if isinstance(form, UNet2DConditionModel):
        # "text_proj" is how diffusers passes encoder_hidden_states through encoder_hid_proj first.
        form.encoder_hid_proj = ChannelSequence(form.encoder_hid_proj)
        form.register_to_config(encoder_hid_dim_type="text_proj")
    return form


def float_layer(name: str, layer: nn.Conv2d | nn.Linear) -> nn.Module:
    """The plain factory: a copy of a convolution, the 1x1 convolution of a Linear."""
    if isinstance(layer, nn.Conv2d):
        return copy.deepcopy(layer)
    bias = layer.bias is not None
    convolution = nn.utils.skip_init(nn.Conv2d, layer.in_features, layer.out_features, 1, bias=bias)
    convolution.weight.data = layer.weight.detach()[:, :, None, None].clone()
    if bias:
        convolution.bias.data = layer.bias.detach().clone()
    return convolution


class VectorLayer(nn.Module):
    """A 1x1 convolution where diffusers has a vector: (B, I) -> (B, O)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x[:, :, None, None]).flatten(1)


class ChannelSequence(nn.Module):
    """(B, S, C) -> (B, C, 1, S), then a 1x1 convolution where there is one."""

    def __init__(self, layer: nn.Module | None) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2).unsqueeze(2)
        return x if self.layer is None else self.layer(x)


def _convolutions(network: nn.Module, make_layer: MakeLayer) -> dict[int, nn.Module]:
    """id of each Conv2d and Linear -> what stands for it in the copy."""
    sequences = [m for m in network.modules() if isinstance(m, Attention | Transformer2DModel)]
    if getattr(network, "encoder_hid_proj", None) is not None:
        sequences.append(network.encoder_hid_proj)
    on_sequences = {layer for sequence in sequences for layer in sequence.modules()}
    made: dict[int, nn.Module] = {}
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            module = make_layer(name, layer)
            on_vectors = isinstance(layer, nn.Linear) and layer not in on_sequences
            made[id(layer)] = VectorLayer(module) if on_vectors else module
    return made


def _refuse_unsupported(network: nn.Module, name: str, module: nn.Module) -> None:
    """Only what is known to stay the same function passes; exact types, since a subclass may compute otherwise."""
    kind = type(module).__name__
    known = (*NETWORKS, *_PARTS, *(getattr(unet_2d_blocks, block) for block in _BLOCKS))
    reason = None
    if type(module) not in known:
        reason = "this type of module has none"
    elif isinstance(module, nn.LayerNorm):
        parent = network.get_submodule(name.rpartition(".")[0])
        reason = None if isinstance(parent, BasicTransformerBlock) else f"it is part of a {type(parent).__name__}"
    elif isinstance(module, BasicTransformerBlock):
        reason = None if module.norm_type == "layer_norm" else f"norm_type is {module.norm_type!r}, not 'layer_norm'"
    elif isinstance(module, Attention):
        reason = _refused_attention(module)
    if reason is not None:
        raise UsageError(f"no Neural Engine form of {name or 'the network'} ({kind}): {reason}")


def _refused_attention(attention: Attention) -> str | None:
    """Why ChannelAttention would not compute what `attention` does."""
    if type(attention.processor) not in (AttnProcessor, AttnProcessor2_0):
        return f"its processor is {type(attention.processor).__name__}, not AttnProcessor or AttnProcessor2_0"
    for option in ("norm_cross", "norm_q", "norm_k", "spatial_norm", "added_kv_proj_dim"):
        if getattr(attention, option) is not None:
            return f"it has {option}"
    if attention.inner_kv_dim != attention.inner_dim:
        return f"its keys have {attention.inner_kv_dim} channels, its queries {attention.inner_dim}"
    return None
