"""GenericNetwork: any network, its convolutions and linear layers in the form that XNNPACK can have in low bits."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from correction.errors import UsageError
from mobile_export.backends.executorch import normalization
from mobile_export.backends.executorch.layers import Layers, convolution, product, upsample_nearest
from mobile_export.models.component import call_network
from mobile_export.quantize.half_embedding import half_embeddings
from mobile_export.quantize.shared_copy import shared_copy


class GenericNetwork(nn.Module):
    """forward(inputs in the order of `names`) -> the network's tensor, or the first of its tuple.

    network: called with (N, C, H, W) images, left as it is but for its quantized layers, its GroupNorm and LayerNorm
    modules, and its Upsample modules that double an image by repetition; layers: its quantized layers by full name;
    names: of its inputs, those of its own forward if none are given. Raises UsageError for a quantized layer that is
    not a plain Conv2d or Linear, or that no matrix product stands for: groups, dilation, kernels that are not square,
    strides above 2, padding with anything but zeros.
    """

    def __init__(self, network: nn.Module, layers: Layers, names: Sequence[str] = ()) -> None:
        super().__init__()
        forms = {module: _form(name, module, layers) for name, module in network.named_modules()}
        replacements = {module: form for module, form in forms.items() if form is not None}
        self.network = shared_copy(network, replacements | half_embeddings(network))
        self.names = tuple(names) or tuple(inspect.signature(network.forward).parameters)

    def forward(self, *inputs: Tensor) -> Tensor:
        return call_network(self.network, dict(zip(self.names, inputs, strict=False)))


class ImageConvolution(nn.Module):
    """A Convolution between (N, C, H, W) images."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ChannelsFirstGroupNorm(nn.Module):
    """A GroupNorm of (N, C), (N, C, L) or (N, C, H, W)."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = normalization.GroupNorm(norm)

    def forward(self, x: Tensor) -> Tensor:
        image = x if x.dim() == 4 else x.reshape(x.shape[0], x.shape[1], -1, 1)
        return self.norm(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).reshape(x.shape)


class ImageUpsample(nn.Module):
    """(N, C, H, W) -> (N, C, 2H, 2W), every pixel four times."""

    one: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("one", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return upsample_nearest(x.permute(0, 2, 3, 1), self.one).permute(0, 3, 1, 2)


def _form(name: str, module: nn.Module, layers: Layers) -> nn.Module | None:
    """What stands for `module`, or None where it stays as it is. Subclasses may compute something else: they stay."""
    quantization = layers.get(name)
    if type(module) is nn.Linear and quantization is not None:
        return product(name, module, layers)
    if type(module) is nn.Conv2d and quantization is not None:
        why = _no_product(module)
        if why is None:
            return ImageConvolution(convolution(name, module, layers))
        raise UsageError(f"ExecuTorch cannot quantize {name}, a convolution with {why}: keep it in float")
    if quantization is not None:
        raise UsageError(f"ExecuTorch cannot quantize {name}, a {type(module).__name__}: keep it in float")
    if type(module) is nn.GroupNorm:
        return ChannelsFirstGroupNorm(module)
    if type(module) is nn.LayerNorm and len(module.normalized_shape) == 1:
        return normalization.LayerNorm(module)
    if type(module) is nn.Upsample and (module.mode, module.size, module.scale_factor) == ("nearest", None, 2):
        return ImageUpsample()
    return None


def _no_product(layer: nn.Conv2d) -> str | None:
    """Why no Convolution computes the same, or None where one does."""
    settings = {
        "groups": (layer.groups, layer.groups == 1),
        "dilation": (layer.dilation, layer.dilation == (1, 1)),
        "kernel_size": (layer.kernel_size, layer.kernel_size[0] == layer.kernel_size[1]),
        "stride": (layer.stride, layer.stride in ((1, 1), (2, 2))),
        "padding": (layer.padding, isinstance(layer.padding, tuple) and layer.padding[0] == layer.padding[1]),
        "padding_mode": (layer.padding_mode, layer.padding_mode == "zeros"),
    }
    return next((f"{key} = {value!r}" for key, (value, fits) in settings.items() if not fits), None)
