"""Networks in bits that no artifact has, in eager PyTorch: 6 and 3 bits of weights, 6 bits of activations."""

from __future__ import annotations

from torch import Tensor, nn

from mobile_export.models.diffusion_model import DiffusionModel
from mobile_export.quantize.dynamic_quantize import WindowQuantize
from mobile_export.quantize.observed_layer import Observe
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import matrix_layers

PRECISIONS = ("w6a8", "w4a6", "w3a8")


def simulated_recipe(precision: str, model: DiffusionModel) -> Recipe:
    """The recipe whose weights are those of one of PRECISIONS, with activations of 8 bits found at run time.

    What w4a8 keeps at 8 bits or in float32 keeps them.
    """
    if precision == "w4a6":
        return Recipe.of("w4a8")
    names = [name for name, _ in matrix_layers(model.unet)]
    inner = [name for name in names if Recipe.of("w4a8").layer(name).bits == 4]
    layers = dict.fromkeys(inner, f"{precision[:2]} channel")
    return Recipe.from_dict({"precision": "w8a8", "activations": "dynamic", "layers": layers})


def simulated_rounding(precision: str) -> Observe | None:
    """What is done to activations that were rounded to 8 bits; nothing but for w4a6."""
    return _in_bits(6) if precision == "w4a6" else None


def _in_bits(bits: int) -> Observe:
    """Rows that were rounded to 8 bits, rounded once more to fewer."""

    def rounded(_point: str, grid: nn.Module, _x: Tensor, result: Tensor) -> Tensor:
        rows = result.movedim(1, -1) if isinstance(grid, WindowQuantize) else result
        low, high = rows.amin(-1, keepdim=True).clamp(max=0), rows.amax(-1, keepdim=True).clamp(min=0)
        step = ((high - low) / (2**bits - 1)).clamp(min=1e-30)
        first = (low / step).round()
        rows = ((rows / step).round() - first).clamp(0, 2**bits - 1).add(first) * step
        return rows.movedim(-1, 1) if isinstance(grid, WindowQuantize) else rows

    return rounded
