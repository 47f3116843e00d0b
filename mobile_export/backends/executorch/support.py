"""What of a recipe the XNNPACK delegate has: 8 or 4-bit weights with a scale per output channel, and activations in
8 bits or, at w8a16 and w4a16, in float32: this backend has no 16-bit activations."""

from __future__ import annotations

from dataclasses import replace

from correction.errors import UsageError
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import LayerQuantization, QuantizationTable
from mobile_export.quantize.weights import WeightCodes

PRECISIONS = ("w8a8", "w4a8", "w8a16", "w4a16")
LAYERS = ("float", "w8 channel", "w4 channel")


def require_supported(recipe: Recipe) -> None:
    """Raises UsageError for the first choice of `recipe` that cannot be lowered, naming those that can."""
    if recipe.precision.name not in PRECISIONS:
        raise UsageError(f"ExecuTorch has no {recipe.precision.name}: choose one of {', '.join(PRECISIONS)}")
    for what, layer in recipe.choices():
        if replace(layer, float_inputs=False).name not in LAYERS:
            raise UsageError(f"ExecuTorch cannot have {layer.name!r} ({what}): choose one of {', '.join(LAYERS)}")


def activations_of(table: QuantizationTable) -> QuantizationTable:
    """The table with the ranges that its recipe asks for: static grids, or found at run time."""
    return table.with_dynamic_ranges() if table.recipe.activations == "dynamic" else table


def channel_codes(layer: LayerQuantization) -> WeightCodes:
    """The layer's weight codes, which have a scale per output channel. Raises UsageError for other layers."""
    if not isinstance(layer.weight, WeightCodes) or layer.weight.scale.dim() != 1:
        raise UsageError(f"ExecuTorch cannot have weights as {layer.weight.format.name!r}: choose 'channel'")
    return layer.weight
