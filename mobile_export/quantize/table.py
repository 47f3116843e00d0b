"""QuantizationTable: every integer of a quantized model, by full layer name.

Both the PyTorch quantized model and every backend's artifact are built from this one table, so
that the same codes ship everywhere; no converter quantizes anything a second time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from correction.errors import UsageError
from mobile_export.quantize.activations import ActivationGrid
from mobile_export.quantize.observation import InputCorrelation, LayerObservation
from mobile_export.quantize.palette import PaletteCodes, quantize_palette
from mobile_export.quantize.precision import Precision
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.rounding import ROUNDED_BITS, round_to_inputs
from mobile_export.quantize.weight_format import WeightFormat
from mobile_export.quantize.weights import WeightCodes, quantize_linear

_BIAS_MAX = 2**31 - 1


@dataclass(frozen=True)
class LayerQuantization:
    """One convolution or linear layer: output = grid_out(W_q grid_in(x) + bias).

    float_bias: (O,) float32, the float layer's. input, output: None where activations stay floating point.
    dynamic: each row of inputs is rounded to 8 bits on a grid of its own (dynamic_quantize.py), so that there is none
    here. Raises ValueError for both.
    """

    weight: WeightCodes | PaletteCodes
    float_bias: Tensor
    input: ActivationGrid | None = None
    output: ActivationGrid | None = None
    dynamic: bool = False

    def __post_init__(self) -> None:
        if self.dynamic and not (self.input is self.output is None):
            raise ValueError("a layer whose inputs find their own range has no grids")
        if self.float_bias.dtype != torch.float32 or self.float_bias.dim() != 1:
            raise ValueError(f"bias must be (O,) float32, got {tuple(self.float_bias.shape)} {self.float_bias.dtype}")

    def with_dynamic_range(self) -> LayerQuantization:
        return replace(self, input=None, output=None, dynamic=True)

    @property
    def bias_step(self) -> Tensor | None:
        """(O,) float64, the step of sums of products of codes; None where the layer is not in integers per channel."""
        if self.input is None or not isinstance(self.weight, WeightCodes) or self.weight.scale.dim() != 1:
            return None
        return self.input.scale * self.weight.scale.double()

    @property
    def bias_codes(self) -> Tensor | None:
        """(O,) int32 in steps of `bias_step`, as integer kernels hold the bias; None where there is no such step."""
        if self.bias_step is None:
            return None
        return (self.float_bias.double() / self.bias_step).round().clamp(-_BIAS_MAX, _BIAS_MAX).to(torch.int32)

    @property
    def bias(self) -> Tensor:
        """(O,) float32, what the quantized model adds: the value of the bias codes, or the float bias."""
        if self.bias_step is None or self.bias_codes is None:
            return self.float_bias
        return (self.bias_codes.double() * self.bias_step).float()


@dataclass(frozen=True)
class QuantizationTable:
    """layers: full layer name -> its integers. Layers that are absent stay in floating point.

    input_groups: of layers of 2 to 8 bits, in how many groups of inputs errors make up for each other: 1 where all
    do, as many as there are inputs where each weight was rounded plainly (the inputs were not seen, or are
    those of a convolution in groups).
    """

    recipe: Recipe
    layers: Mapping[str, LayerQuantization]
    input_groups: Mapping[str, int] = field(default_factory=dict)

    @property
    def precision(self) -> Precision:
        return self.recipe.precision

    def with_dynamic_ranges(self) -> QuantizationTable:
        """The same with ranges that are found at run time, in place of the grids of every layer that has some."""
        layers = {name: q if q.input is None else q.with_dynamic_range() for name, q in self.layers.items()}
        return replace(self, layers=layers)

    def weight_bits_achieved(self, model: nn.Module) -> float:
        """Mean bits per weight of the model's convolutions and linear layers, 32 where kept in float; no scales."""
        return self._mean_bits(model, {n: q.weight.bits * _count(q.weight) for n, q in self.layers.items()})

    def stored_bits(self, model: nn.Module) -> float:
        """The same with what the codes need beside them: scales and palettes, 16 bits a number."""
        return self._mean_bits(model, {n: q.weight.stored_bits for n, q in self.layers.items()})

    def _mean_bits(self, model: nn.Module, bits: Mapping[str, int]) -> float:
        weights = {name: module.weight.numel() for name, module in matrix_layers(model)}
        return sum(bits.get(name, 32 * count) for name, count in weights.items()) / sum(weights.values())

    def float_layers(self, model: nn.Module) -> list[str]:
        """Full names of the model's convolutions and linear layers that stay in floating point."""
        return [name for name, _ in matrix_layers(model) if name not in self.layers]

    def refitted(self) -> dict[str, tuple[WeightFormat, WeightFormat]]:
        """Layers whose shape does not allow the format asked: full name -> (asked, taken)."""
        asked = {name: self.recipe.layer(name).format for name in self.layers}
        pairs = {name: (format, self.layers[name].weight.format) for name, format in asked.items()}
        return {name: (a, b) for name, (a, b) in pairs.items() if a is not None and a != b}

    def digest(self) -> str:
        """sha256 of the recipe and of every number."""
        total = hashlib.sha256(json.dumps(self.recipe.as_dict(), sort_keys=True).encode())
        for name, layer in sorted(self.layers.items()):
            total.update(f"{name} {layer.input} {layer.output} {layer.weight.bits}".encode())
            for key, tensor in {**layer.weight.tensors, "bias": layer.float_bias}.items():
                total.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
                total.update(tensor.contiguous().numpy().data)
        return total.hexdigest()


def _count(weight: WeightCodes | PaletteCodes) -> int:
    return weight.codes.numel() if isinstance(weight, WeightCodes) else weight.indices.numel()


def matrix_layers(model: nn.Module) -> Iterator[tuple[str, nn.Conv2d | nn.Linear]]:
    """(full name, layer) of every convolution and linear layer: those that quantization is about."""
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            yield name, module


def quantize_layers(
    model: nn.Module,
    observations: Mapping[str, LayerObservation],
    recipe: Recipe,
    advance: Callable[[int, int], object] = lambda done, total: None,
) -> QuantizationTable:
    """Codes for every Conv2d and Linear of `model` that does not stay in floating point by the recipe.

    observations: by full layer name, from `observe_layers`; without them weights are rounded plainly, and activations
    cannot be quantized. advance: told how many of the layers are done. Raises UsageError when the recipe names a
    layer that the model does not have, or asks for the ranges of one that was not observed.
    """
    modules = dict(matrix_layers(model))
    recipe.require_layers(modules)
    layers, groups = {}, {}
    for done, (name, module) in enumerate(modules.items(), start=1):
        wanted = recipe.layer(name)
        if wanted.bits is not None and wanted.format is not None:
            seen = observations.get(name, LayerObservation())
            looks = recipe.looks_at_inputs(wanted.bits)
            known = seen.correlation if looks else replace(seen.correlation, total=None)
            weight = quantize_weight(module.weight, wanted.bits, wanted.format, known)
            bias = module.bias if module.bias is not None else torch.zeros(len(module.weight))
            plain = recipe.precision.weight_only or wanted.float_inputs
            grids = (None, None) if plain else _grids(name, seen)
            layers[name] = LayerQuantization(weight, bias.detach().float().clone(), *grids)
            if wanted.bits in ROUNDED_BITS:
                total = known.total
                groups[name] = module.weight[0].numel() if total is None else len(total)
        advance(done, len(modules))
    return QuantizationTable(recipe, layers, groups)


def _grids(name: str, seen: LayerObservation) -> tuple[ActivationGrid, ActivationGrid]:
    if not seen.input.sample:
        raise UsageError(f"{name} was not observed: 8-bit activations need the ranges of every layer on real inputs")
    return seen.grids()


def quantize_weight(
    weight: Tensor, bits: int, format: WeightFormat, seen: InputCorrelation | None = None
) -> WeightCodes | PaletteCodes:
    """The codes of one layer: scales or palettes, then each weight to its level.

    weight: (O, I, ...) float32. A format that the shape does not allow is replaced as `WeightFormat.fitted`
    says. At 2 to 8 bits the weights are rounded with a view to the layer's inputs, where these were seen;
    palettes weigh their errors by them at any bits.
    """
    format = format.fitted(*weight.shape[:2])
    start: WeightCodes | PaletteCodes
    if format.kind == "palette":
        start = quantize_palette(weight, bits, format.size, None if seen is None else seen.energy)
    else:
        start = quantize_linear(weight, bits, format.size)
    if seen is None or seen.total is None or bits not in ROUNDED_BITS:
        return start
    return round_to_inputs(weight, start, seen.total)
