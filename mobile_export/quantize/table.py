"""QuantizationTable: every integer of a quantized model, by full layer name.

Both the PyTorch quantized model and every backend's artifact are built from this one table, so
that the same codes ship everywhere; no converter quantizes anything a second time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mobile_export.quantize.activations import ActivationGrid
from mobile_export.quantize.precision import Precision
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

    @property
    def weight_count(self) -> int:
        return sum(layer.weight.codes.numel() for layer in self.layers.values())

    @property
    def weight_bits_achieved(self) -> float:
        """Mean bits per quantized weight, without scales."""
        bits = sum(layer.weight.codes.numel() * layer.weight.bits for layer in self.layers.values())
        return bits / self.weight_count


def weight_bits(name: str, module: nn.Module, precision: Precision) -> int:
    """Bits of one layer: 8 for the first and last convolution and the time path, else as asked.

    The layers that touch the image (PTQD, D2-DPM) and the few that carry the timestep (TFMQ-DM)
    are small and decide more than their share of the error.
    """
    touches_image = isinstance(module, nn.Conv2d) and min(module.in_channels, module.out_channels) <= 4
    carries_time = "time_emb" in name
    return 8 if touches_image or carries_time else precision.weight_bits


def quantize_layers(
    model: nn.Module,
    grids: Mapping[str, tuple[ActivationGrid, ActivationGrid]],
    precision: Precision,
    keep_float: frozenset[str] = frozenset(),
) -> QuantizationTable:
    """Codes for every Conv2d and Linear of `model` that `grids` names and `keep_float` does not."""
    layers = {}
    for name, module in model.named_modules():
        if not isinstance(module, (nn.Conv2d, nn.Linear)) or name in keep_float:
            continue
        grid_in, grid_out = grids[name]
        weight = quantize_weight(module.weight, weight_bits(name, module, precision))
        step = grid_in.scale * weight.scale.double()
        bias = module.bias.detach().double() if module.bias is not None else torch.zeros_like(step)
        bias_codes = (bias / step).round().clamp(-_BIAS_MAX, _BIAS_MAX).to(torch.int32)
        layers[name] = LayerQuantization(weight, bias_codes, grid_in, grid_out)
    return QuantizationTable(precision, layers)
