"""GenericNetwork: any network, its convolutions and linear layers in the form that XNNPACK can have in low bits."""

from __future__ import annotations

import inspect

from torch import Tensor, nn

from correction.errors import UsageError
from mobile_export.backends.executorch import normalization
from mobile_export.backends.executorch.layers import Convolution, Layers, MatrixProduct
from mobile_export.quantize.shared_copy import shared_copy


class GenericNetwork(nn.Module):
    """forward(inputs in the order of the network's own parameters) -> the network's tensor, or the first of its tuple.

    network: called with (N, C, H, W) images, left as it is but for its Conv2d, Linear, GroupNorm and LayerNorm
    modules; layers: its quantized layers by full name. Float convolutions stay what they are. Raises UsageError for a
    quantized layer that the network calls by anything but its name, or that no matrix product stands for: groups,
    dilation, kernels that are not square, strides above 2, padding with anything but zeros.
    """

    def __init__(self, network: nn.Module, layers: Layers) -> None:
        super().__init__()
        replacements: dict[nn.Module, nn.Module] = {}
        for name, module in network.named_modules():
            form = _form(name, module, layers)
            if form is not None:
                replacements[module] = form
        self.network = shared_copy(network, replacements)
        self.settings = {"return_dict": False} if _has_return_dict(network) else {}

    def forward(self, *inputs: Tensor) -> Tensor:
        result = self.network(*inputs, **self.settings)
        return result[0] if isinstance(result, tuple) else result


class ImageConvolution(nn.Module):
    """A Convolution between (N, C, H, W) images."""

    def __init__(self, convolution: Convolution) -> None:
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


def _form(name: str, module: nn.Module, layers: Layers) -> nn.Module | None:
    """What stands for `module`, or None where it stays as it is. Subclasses may compute something else: they stay."""
    quantization = layers.get(name)
    if type(module) is nn.Linear:
        return MatrixProduct(name, module, quantization)
    if type(module) is nn.Conv2d and quantization is not None:
        why = _no_product(module)
        if why is None:
            return ImageConvolution(Convolution(name, module, quantization))
        raise UsageError(f"ExecuTorch cannot quantize {name}, a convolution with {why}: keep it in float")
    if quantization is not None:
        raise UsageError(f"ExecuTorch cannot quantize {name}, a {type(module).__name__}: keep it in float")
    if type(module) is nn.GroupNorm:
        return ChannelsFirstGroupNorm(module)
    if type(module) is nn.LayerNorm and len(module.normalized_shape) == 1:
        return normalization.LayerNorm(module)
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


def _has_return_dict(network: nn.Module) -> bool:
    return "return_dict" in inspect.signature(network.forward).parameters
