"""The quantized model: the diffusers network itself, its layers replaced by low-bit ones."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from mobile_export.quantize.dynamic_quantize import DynamicQuantize, WindowQuantize
from mobile_export.quantize.fake_quantize import FakeQuantize, Quantize, weight_values
from mobile_export.quantize.half_embedding import half_embeddings
from mobile_export.quantize.observed_layer import ObservedLayer
from mobile_export.quantize.shared_copy import shared_copy
from mobile_export.quantize.table import LayerQuantization, QuantizationTable


class QuantizedLayer(ObservedLayer):
    """A Conv2d or Linear with low-bit weights, and 8-bit input and output where it has them, in eager PyTorch."""

    def __init__(self, name: str, layer: nn.Conv2d | nn.Linear, quantization: LayerQuantization) -> None:
        super().__init__(name)
        self.convolution: tuple | None = None
        if isinstance(layer, nn.Conv2d):
            self.convolution = layer.stride, layer.padding, layer.dilation, layer.groups
        self.quantize_input = _input_rounding(layer, quantization)
        self.weight_values = weight_values(quantization.weight)
        self.register_buffer("bias", quantization.bias)
        self.quantize_output = None if quantization.output is None else FakeQuantize(quantization.output)

    @property
    def weight(self) -> Tensor:
        """The values of the codes, float32 in the shape of the float layer's weight: diffusers asks for its type."""
        return self.weight_values()

    def forward(self, x: Tensor, *_: object) -> Tensor:
        x = self.rounded("input", self.quantize_input, x)
        if isinstance(self.quantize_input, WindowQuantize):
            y = self.quantize_input.convolve(x, self.weight_values(), self.bias)
        elif self.convolution is not None:
            y = functional.conv2d(x, self.weight_values(), self.bias, *self.convolution)
        else:
            y = functional.linear(x, self.weight_values(), self.bias)
        return self.rounded("output", self.quantize_output, y)


def _input_rounding(layer: nn.Conv2d | nn.Linear, quantization: LayerQuantization) -> Quantize | None:
    if quantization.dynamic:
        return WindowQuantize(layer) if isinstance(layer, nn.Conv2d) else DynamicQuantize()
    return None if quantization.input is None else FakeQuantize(quantization.input)


def quantized_model(model: nn.Module, table: QuantizationTable) -> nn.Module:
    """A copy of `model` whose layers named in `table` compute with the table's integers.

    All other numbers are the model's own tensors, those of large embeddings in float16; the integers are the table's:
    it takes next to no memory.
    Raises AttributeError when the table names a layer that the model lacks.
    """
    originals = {name: model.get_submodule(name) for name in table.layers}
    layers: dict[nn.Module, nn.Module] = {
        originals[name]: QuantizedLayer(name, originals[name], q) for name, q in table.layers.items()
    }
    return shared_copy(model, layers | half_embeddings(model)).eval()
