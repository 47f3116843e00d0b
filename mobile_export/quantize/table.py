"""QuantizationTable: every integer of a quantized model, by full layer name.

Both the PyTorch quantized model and every backend's artifact are built from this one table, so
that the same codes ship everywhere; no converter quantizes anything a second time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mobile_export.quantize.activations import ActivationGrid
from mobile_export.quantize.observation import LayerObservation
from mobile_export.quantize.precision import Precision
from mobile_export.quantize.rounding import round_to_inputs
from mobile_export.quantize.weights import WeightCodes, quantize_weight

_BIAS_MAX = 2**31 - 1


@dataclass(frozen=True)
class LayerQuantization:
    """One convolution or linear layer: output = grid_out(W_q grid_in(x) + bias).

    bias_codes: (O,) int32 on the grid input.scale * weight.scale[o], as integer kernels hold it.
    """

    weight: WeightCodes
    bias_codes: Tensor
    input: ActivationGrid
    output: ActivationGrid

    @property
    def bias(self) -> Tensor:
        """(O,) float32, the value of the bias codes."""
        return (self.bias_codes.double() * self.input.scale * self.weight.scale.double()).float()


@dataclass(frozen=True)
class QuantizationTable:
    """layers: full layer name -> its integers. Layers that are absent stay in float32."""

    precision: Precision
    layers: Mapping[str, LayerQuantization]

    def weight_bits_achieved(self, model: nn.Module) -> float:
        """Mean bits per weight of the model's convolutions and linear layers, 32 where kept in float; no scales."""
        weights = {name: module.weight.numel() for name, module in matrix_layers(model)}
        bits = sum(
            count * self.layers[n].weight.bits if n in self.layers else count * 32 for n, count in weights.items()
        )
        return bits / sum(weights.values())

    def float_layers(self, model: nn.Module) -> list[str]:
        """Full names of the model's convolutions and linear layers that stay in float32."""
        return [name for name, _ in matrix_layers(model) if name not in self.layers]


def matrix_layers(model: nn.Module) -> Iterator[tuple[str, nn.Conv2d | nn.Linear]]:
    """(full name, layer) of every convolution and linear layer: those that quantization is about."""
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            yield name, module


# The two convolutions that touch the image hold 0.1 % of the weights, and their 8-bit activations
# would cost more than all others together: the noisy image spans [-4, 4], the clean one [-1, 1].
KEPT_IN_FLOAT = ("conv_in", "conv_out")


def weight_bits(name: str, precision: Precision) -> int:
    """Bits of one layer: 8 for the few that carry the timestep (TFMQ-DM), else as asked."""
    return 8 if "time_emb" in name else precision.weight_bits


def quantize_layers(
    model: nn.Module,
    observations: Mapping[str, LayerObservation],
    precision: Precision,
    keep_float: Collection[str] = KEPT_IN_FLOAT,
) -> QuantizationTable:
    """Codes for every Conv2d and Linear of `model` but those of `keep_float`.

    observations: by full layer name, from `observe_layers`. Up to 4 bits the weights are rounded
    with a view to the layer's inputs; at 8 bits that gains nothing.
    """
    layers = {}
    for name, module in matrix_layers(model):
        if name in keep_float:
            continue
        grid_in, grid_out = observations[name].grids()
        weight = quantize_weight(module.weight, weight_bits(name, precision))
        correlation = observations[name].correlation.total
        if weight.bits <= 4 and correlation is not None:
            weight = round_to_inputs(module.weight, weight, correlation)
        step = grid_in.scale * weight.scale.double()
        bias = module.bias.detach().double() if module.bias is not None else torch.zeros_like(step)
        bias_codes = (bias / step).round().clamp(-_BIAS_MAX, _BIAS_MAX).to(torch.int32)
        layers[name] = LayerQuantization(weight, bias_codes, grid_in, grid_out)
    return QuantizationTable(precision, layers)
