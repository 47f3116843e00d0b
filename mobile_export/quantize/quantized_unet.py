"""The quantized model: the diffusers network itself, its layers replaced by low-bit ones."""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn import functional

from mobile_export.quantize.fake_quantize import DequantizedWeight, FakeQuantize
from mobile_export.quantize.observed_layer import ObservedLayer
from mobile_export.quantize.table import LayerQuantization, QuantizationTable


class QuantizedLayer(ObservedLayer):
    """A Conv2d or Linear with integer weights and 8-bit input and output, in eager PyTorch."""

    def __init__(self, name: str, layer: nn.Conv2d | nn.Linear, quantization: LayerQuantization) -> None:
        super().__init__(name)
        self.convolution = isinstance(layer, nn.Conv2d)
        self.stride = layer.stride if isinstance(layer, nn.Conv2d) else None
        self.padding = layer.padding if isinstance(layer, nn.Conv2d) else None
        self.quantize_input = FakeQuantize(quantization.input)
        weight = quantization.weight
        self.weight_values = DequantizedWeight(weight.codes, weight.scale, weight.bits)
        self.register_buffer("bias", quantization.bias)
        self.quantize_output = FakeQuantize(quantization.output)

    def forward(self, x: Tensor, *_: object) -> Tensor:
        x = self.rounded("input", self.quantize_input, x)
        if self.convolution:
            y = functional.conv2d(x, self.weight_values(), self.bias, self.stride, self.padding)
        else:
            y = functional.linear(x, self.weight_values(), self.bias)
        return self.rounded("output", self.quantize_output, y)


def quantized_model(model: nn.Module, table: QuantizationTable) -> nn.Module:
    """A copy of `model` whose layers named in `table` compute with the table's integers.

    Raises KeyError when the table names a layer that the model lacks.
    """
    twin = copy.deepcopy(model)
    for name, quantization in table.layers.items():
        parent_name, _, child = name.rpartition(".")
        parent = twin.get_submodule(parent_name)
        setattr(parent, child, QuantizedLayer(name, twin.get_submodule(name), quantization))
    return twin.eval()
