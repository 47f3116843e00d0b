"""What of a recipe the XNNPACK delegate has: 8-bit activations, 8 or 4-bit weights with a scale per output channel."""

from __future__ import annotations

from torch import Tensor

from correction.errors import UsageError
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import LayerQuantization
from mobile_export.quantize.weights import WeightCodes

PRECISIONS = ("w8a8", "w4a8")
LAYERS = ("float", "w8 channel", "w4 channel")


def require_supported(recipe: Recipe) -> None:
    """Raises UsageError for the first choice of `recipe` that cannot be lowered, naming those that can."""
    if recipe.precision.name not in PRECISIONS:
        raise UsageError(f"ExecuTorch has no {recipe.precision.name}: choose one of {', '.join(PRECISIONS)}")
    for what, layer in recipe.choices():
        if layer.name not in LAYERS:
            raise UsageError(f"ExecuTorch cannot have {layer.name!r} ({what}): choose one of {', '.join(LAYERS)}")


def channel_codes(layer: LayerQuantization) -> tuple[WeightCodes, Tensor]:
    """Weight codes with a scale per output channel, and bias codes (O,) int32. Raises UsageError for other layers."""
    if not isinstance(layer.weight, WeightCodes) or layer.bias_codes is None:
        raise UsageError(f"ExecuTorch cannot have weights as {layer.weight.format.name!r}: choose 'channel'")
    return layer.weight, layer.bias_codes
