"""The network as it is converted: diffusers' own modules, low-bit layers with plain weights in their place.

    FakeQuantize(input) -> conv or linear(weight as float) -> FakeQuantize(output)

The weights go through the converter as ordinary floats, which are the dequantized codes; `weight_codes`
then puts the codes in their place, so that no converter ever quantizes.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import Timesteps
from torch import Tensor, nn
from torch.nn import functional

from correction.errors import CheckFailed
from mobile_export.backends.coreml.explicit_attention import ExplicitAttention
from mobile_export.backends.coreml.time_embedding import TimeWaves
from mobile_export.models.vae_decoder import Codebook
from mobile_export.quantize.activations import ACTIVATION_MAX, ACTIVATION_MIN
from mobile_export.quantize.fake_quantize import CodedWeight, FakeQuantize
from mobile_export.quantize.shared_copy import shared_copy
from mobile_export.quantize.table import LayerQuantization, matrix_layers


class PlainLayer(nn.Module):
    """A Conv2d or Linear of the original, ready for the converter.

    name: its full name in the original; pointwise: a Linear becomes a 1x1 convolution.
    """

    def __init__(
        self,
        name: str,
        layer: nn.Conv2d | nn.Linear,
        quantization: LayerQuantization | None,
        pointwise: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        weight, bias = layer.weight.detach(), layer.bias
        if quantization is not None:
            weight, bias = quantization.weight.dequantize(), quantization.bias
        self.convolution: tuple[Any, ...] | None = None
        if isinstance(layer, nn.Conv2d):
            self.convolution = layer.stride, layer.padding, layer.dilation, layer.groups
        self.pointwise = pointwise and self.convolution is None
        self.weight = nn.Parameter(weight[:, :, None, None] if self.pointwise else weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        grids = (None, None) if quantization is None else (quantization.input, quantization.output)
        self.grid_in, self.grid_out = (nn.Identity() if grid is None else FakeQuantize(grid) for grid in grids)

    def forward(self, x: Tensor, *_: object) -> Tensor:
        x = self.grid_in(x)
        if self.convolution is not None:
            y = functional.conv2d(x, self.weight, self.bias, *self.convolution)
        elif self.pointwise:
            y = functional.conv2d(x, self.weight, self.bias)
        else:
            y = functional.linear(x, self.weight, self.bias)
        return self.grid_out(y)


class DividingQuantize(FakeQuantize):
    """FakeQuantize as Core ML defines it: it divides by the scale, where PyTorch multiplies by its inverse.

    The two differ in the last bit, which decides where a value lies exactly between two codes. Scales are
    float16 numbers, of which products and quotients are often such values.
    """

    def codes(self, x: Tensor) -> Tensor:
        shifted = torch.round(x / self.grid.scale) + self.grid.zero_point
        return shifted.clamp(ACTIVATION_MIN, ACTIVATION_MAX).to(torch.int8)


@dataclass(frozen=True)
class Interface:
    """Names and example tensors of a network's inputs, in the order of its forward, and the name of its output."""

    inputs: Mapping[str, Tensor]
    output: str = "noise_pred"


class Convertible(nn.Module):
    """`network` called by keyword with its inputs in the order of `names`, its result a plain tensor."""

    def __init__(self, network: nn.Module, keywords: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.keywords = network, keywords
        named = "return_dict" in inspect.signature(network.forward).parameters
        self.options = {"return_dict": False} if named else {}

    def forward(self, *inputs: Tensor) -> Tensor:
        result = self.network(**dict(zip(self.keywords, inputs, strict=True)), **self.options)
        return result[0] if isinstance(result, tuple) else result

    def weight_names(self) -> dict[str, str]:
        """What the converter calls the weight of each PlainLayer -> the layer's full name in the original.

        Raises CheckFailed when two have one name once dots are underscores.
        """
        layers = [(path, module.name) for path, module in self.named_modules() if isinstance(module, PlainLayer)]
        names = {f"p_{path.replace('.', '_')}_weight": name for path, name in layers}
        if len(names) < len(layers):
            raise CheckFailed("two layers have one name once dots are underscores: the converter mixes them up")
        return names


def plain_network(network: nn.Module, layers: Mapping[str, LayerQuantization], ios: str = "ios18") -> nn.Module:
    """A copy of a diffusers network with a PlainLayer for each entry of `layers`, all other layers as they are.

    On iOS 17, which has no operation for attention, it is written out. Raises UsageError where that is not possible.
    """
    modules = dict(matrix_layers(network))
    plain: dict[nn.Module, nn.Module] = {
        modules[name]: PlainLayer(name, modules[name], q) for name, q in layers.items()
    }
    twin = shared_copy(network, plain)
    for module in twin.modules():
        if isinstance(module, Attention) and ios == "ios17":
            module.set_processor(ExplicitAttention())
    exact_time(twin)
    half_codebooks(twin)
    return twin.eval()


def ane_network(network: nn.Module, layers: Mapping[str, LayerQuantization]) -> nn.Module:
    """The same in the layout of the Neural Engine; raises UsageError where a part of the network has no such form."""
    from mobile_export.backends.coreml.ane import ane_form

    twin = ane_form(network, lambda name, layer: PlainLayer(name, layer, layers.get(name), pointwise=True))
    exact_time(twin)
    half_codebooks(twin)
    return twin


def exact_time(network: nn.Module) -> None:
    """Replace every `Timesteps` of the network by TimeWaves, in place."""
    for name, module in list(network.named_modules()):
        if isinstance(module, Timesteps):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, TimeWaves(module))


def half_codebooks(network: nn.Module) -> None:
    """Give every `Codebook` of the network codes of float16 values, in place: it chooses among those that it gives."""
    for module in network.modules():
        if isinstance(module, Codebook):
            module.embedding.weight = nn.Parameter(module.embedding.weight.detach().half().float(), False)


def half_constants(network: nn.Module) -> nn.Module:
    """A copy whose parameters and buffers hold float16 values (still in float32 tensors): what the artifact stores.

    Codes and scales are unchanged by it, and so are the frequencies of the time embedding, which stay float32.
    The copy has the codes of the original itself. Quantizations become DividingQuantize.
    """
    replacements: dict[nn.Module, nn.Module] = {m: m for m in network.modules() if isinstance(m, CodedWeight)}
    replacements |= {m: DividingQuantize(m.grid) for m in network.modules() if isinstance(m, FakeQuantize)}
    twin = shared_copy(network, replacements)
    exact_time(twin)
    for module in twin.modules():
        if isinstance(module, TimeWaves):
            continue
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(parameter.detach().half().float(), requires_grad=False))
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_floating_point():
                setattr(module, name, buffer.half().float())
        if isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
            module.eps = float(torch.tensor(module.eps).half())
    return twin
